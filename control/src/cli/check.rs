//! `evergate check` and `evergate policy check`: what is wrong with a file, without a node.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use super::{EXIT_FAILED, print, print_json};
use crate::node::config::{Config, ConfigError, Problem};

/// What a check found, as `--json` says it.
#[derive(Debug, Default, Serialize)]
struct Findings {
    /// No errors; there may be warnings.
    ok: bool,
    problems: Vec<Finding>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    file: String,
    line: usize,
    column: usize,
    /// `error` or `warning`.
    severity: &'static str,
    text: String,
}

fn finding(file: &Path, severity: &'static str, problem: &Problem) -> Finding {
    Finding {
        file: file.display().to_string(),
        line: problem.line,
        column: problem.column,
        severity,
        text: problem.text.clone(),
    }
}

/// Checks a node's configuration, and the policy that it names.
pub(super) fn node(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut found = Findings::default();
    let mut summary = String::new();
    match Config::load(path) {
        Ok(config) => {
            found
                .problems
                .extend(config.warnings.iter().map(|w| finding(path, "warning", w)));
            summary = format!(
                "{} {} with {} peers",
                config.role,
                config.name,
                config.peers.len()
            );
            if let Some(policy) = &config.policy {
                judge(policy, &mut found)?;
            }
        }
        Err(ConfigError::Invalid { problems, .. }) => {
            found
                .problems
                .extend(problems.iter().map(|p| finding(path, "error", p)));
        }
        Err(error @ ConfigError::Read { .. }) => return Err(error.into()),
    }
    show(
        found,
        &format!("{}: {summary}: no errors", path.display()),
        json,
    )
}

/// Checks a policy file.
pub(super) fn policy(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut found = Findings::default();
    judge(path, &mut found)?;
    show(found, &format!("{}: no errors", path.display()), json)
}

// At the merge: the diagnostics of `crate::policy::check` go into `found`.
fn judge(path: &Path, _found: &mut Findings) -> anyhow::Result<()> {
    let shown = path.display();
    std::fs::read_to_string(path).with_context(|| format!("cannot read the policy {shown}"))?;
    Ok(())
}

fn show(mut found: Findings, fine: &str, json: bool) -> anyhow::Result<ExitCode> {
    found.ok = found
        .problems
        .iter()
        .all(|problem| problem.severity != "error");
    let code = if found.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    };
    if json {
        print_json(&found)?;
        return Ok(code);
    }
    let mut text = String::new();
    for Finding {
        file,
        line,
        column,
        severity,
        text: said,
    } in &found.problems
    {
        text.push_str(&format!("{file}:{line}:{column}: {severity}: {said}\n"));
    }
    if found.ok {
        text.push_str(fine);
        text.push('\n');
    }
    print(&text)?;
    Ok(code)
}
