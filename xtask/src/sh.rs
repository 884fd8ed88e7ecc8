//! Running programs: every failure names the command and what it said.

use anyhow::{Context, Result, bail};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs a program whose output the user sees; an error when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can not start {}", spell(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", spell(command));
    }
    Ok(())
}

/// Runs a program and returns what it wrote to stdout; an error carries its stderr.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    successful(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end, whatever it answers.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can not start {}", spell(command)))
}

/// Runs a program that reads `input` from its stdin.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can not start {}", spell(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stops reading early says why on stderr.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    successful(command, &output)
}

/// An error with what it said, if it was not.
fn successful(command: &Command, output: &Output) -> Result<()> {
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            spell(command),
            output.status,
            said(output)
        );
    }
    Ok(())
}

/// What a program said on stderr (or else stdout), trimmed to its last lines.
pub(crate) fn said(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = if stderr.trim().is_empty() {
        String::from_utf8_lossy(&output.stdout)
    } else {
        stderr
    };
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(8)..].join("; ")
}

fn spell(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    format!("`{}`", words.join(" "))
}
