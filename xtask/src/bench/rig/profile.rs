//! Where the time of the worker that carries test packets goes, by `perf`: the clock of the processor core,
//! since virtual machines have no other counters.

use crate::paths;
use crate::style::dim;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use std::fs;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

/// Samples a second; odd, so that nothing periodic is always hit, or never.
const FREQUENCY: &str = "1999";

/// Functions that are shown.
const TOP: usize = 12;

/// What the names of functions that encrypt, decrypt or authenticate have in them: of `ring` and AWS-LC, of
/// RustCrypto, of Intel's library.
const AEAD: [&str; 8] = [
    "aes_gcm", "ghash", "gcm_", "aesni_", "chacha20", "poly1305", "aes_hw", "IMB_",
];

/// Of one thread.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Profile {
    pub(super) samples: u64,
    /// The part of them in user space.
    pub(super) user: f64,
    /// Of those in user space: the part in the AEAD.
    pub(super) aead: f64,
    /// Functions and their part of all, the largest first; `[k]` before those of the kernel.
    pub(super) top: Vec<(String, f64)>,
}

/// Watches the worker of a node while `act` runs. None without `perf`, which is said.
pub(super) fn profile(node: i32, act: impl FnOnce() -> Result<()>) -> Result<Option<Profile>> {
    let worker = thread(node, "worker-0")?;
    let file = paths::target().join("bench/rig.perf");
    let file = file.to_string_lossy();
    let words = [
        "record",
        "-q",
        "-e",
        "cpu-clock",
        "-F",
        FREQUENCY,
        "-o",
        &file,
    ];
    let recorder = Command::new("perf")
        .args(words)
        .args(["-t", &worker.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut recorder = match recorder {
        Ok(recorder) => recorder,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!(
                "  {}",
                dim("no profile: perf is not there (Debian: linux-perf)")
            );
            return Ok(None);
        }
        Err(error) => return Err(error).context("can not start perf"),
    };
    let done = act();
    let pid = i32::try_from(recorder.id())?;
    kill(Pid::from_raw(pid), Signal::SIGINT)?;
    recorder.wait()?;
    done?;
    let output = Command::new("perf")
        .args(["report", "-i", &file, "--stdio", "--no-children", "-q"])
        .args(["-F", "sample,sym", "--field-separator", ";"])
        .stderr(Stdio::null())
        .output()?;
    let profile = read(&String::from_utf8_lossy(&output.stdout));
    fs::remove_file(&*file).ok();
    match profile.samples {
        0 => bail!("perf has seen nothing of the worker"),
        _ => Ok(Some(profile)),
    }
}

/// The thread of a process that has this name.
fn thread(process: i32, name: &str) -> Result<i32> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        let found = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if found.trim() == name {
            let id = task.file_name().and_then(|id| id.to_str());
            return id
                .and_then(|id| id.parse().ok())
                .context("a thread without a number");
        }
    }
    bail!("process {process} has no thread {name}")
}

/// Lines of samples and a function, `[.]` before it in user space and `[k]` in the kernel.
fn read(report: &str) -> Profile {
    let mut functions = Vec::new();
    let (mut all, mut user, mut aead) = (0, 0, 0);
    for line in report.lines() {
        let Some((count, symbol)) = line.split_once(';') else {
            continue;
        };
        let (Ok(count), symbol) = (count.trim().parse::<u64>(), symbol.trim()) else {
            continue;
        };
        all += count;
        let name = match symbol.strip_prefix("[.]") {
            Some(name) => {
                user += count;
                if AEAD.iter().any(|part| name.contains(part)) {
                    aead += count;
                }
                name.trim().to_owned()
            }
            None => symbol.to_owned(),
        };
        functions.push((name, count));
    }
    functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    functions.truncate(TOP);
    let part = |some: u64, of: u64| some as f64 / of.max(1) as f64;
    Profile {
        samples: all,
        user: part(user, all),
        aead: part(aead, user),
        top: functions
            .into_iter()
            .map(|(name, count)| (name, part(count, all)))
            .collect(),
    }
}

impl Profile {
    pub(super) fn print(&self, whose: &str) {
        println!(
            "\n  {whose}: {:.0} % of the worker's time in user space, {:.0} % of that in the AEAD ({} samples)",
            self.user * 100.0,
            self.aead * 100.0,
            self.samples
        );
        for (name, part) in &self.top {
            println!("  {:>6.1} %  {name}", part * 100.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aead_s_part_is_of_user_space_alone() {
        let report = "       300;[.] ring_core_0_17_14__aes_gcm_dec_update_vaes_avx2  \n\
                      500;[k] __softirqentry_text_start\n\
                      \n\
                      # a remark\n\
                      200;[.] evergate::dataplane::opening::open\n";
        let profile = read(report);
        assert_eq!(
            (profile.samples, profile.user, profile.aead),
            (1000, 0.5, 0.6)
        );
        assert_eq!(
            profile.top[0],
            ("[k] __softirqentry_text_start".to_owned(), 0.5)
        );
        assert_eq!(profile.top[2].0, "evergate::dataplane::opening::open");
        assert_eq!(read("").samples, 0);
    }
}
