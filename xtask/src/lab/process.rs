//! A program that runs inside the lab, and ends with its owner.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running program. Dropped: killed and waited for.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    what: String,
    left_alone: bool,
}

impl Process {
    /// Starts `words` in the namespace `ns`; stdout and stderr go to `log`.
    pub(super) fn start(ns: &str, words: &[&str], log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("can not write {}", log.display()))?;
        let mut command = in_namespace(ns, words);
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Self::spawn(command, words)
    }

    /// Starts `words` with stdin and stdout as pipes; the helpers of this program end when
    /// their stdin does, so that none outlives its parent.
    pub(super) fn piped(ns: &str, words: &[&str], log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let mut command = in_namespace(ns, words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file);
        Self::spawn(command, words)
    }

    fn spawn(mut command: Command, words: &[&str]) -> Result<Self> {
        // Its own group: Ctrl-C reaches this program only, which then tidies up in order.
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("can not start {}", words.join(" ")))?;
        Ok(Self {
            child,
            what: words.join(" "),
            left_alone: false,
        })
    }

    /// `ip netns exec` becomes the program itself, so this is the program's own process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }

    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal)
            .with_context(|| format!("can not send {signal} to {}", self.what))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end; an error after `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {timeout:?}", self.what);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets it run on when the owner is gone.
    pub(crate) fn leave_alone(&mut self) {
        self.left_alone = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.left_alone && matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that runs in a namespace.
pub(super) fn in_namespace(ns: &str, words: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", ns]).args(words);
    command
}
