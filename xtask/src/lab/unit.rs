//! A node as a unit of a systemd of its own: process 1 of namespaces that end with it.

use super::{Lab, Place};
use crate::paths::workspace;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running systemd with one node. Dropped: all of it is killed.
pub(crate) struct Booted {
    child: Child,
    group: PathBuf,
    unit: String,
    log: PathBuf,
}

impl Booted {
    /// Boots a systemd in a gateway's network namespace, with the lab's configuration of that gateway, and waits until
    /// its unit is active.
    pub(crate) fn start(lab: &Lab, number: u8) -> Result<Self> {
        let name = format!("gw{number}");
        let work = lab.dir().join("systemd");
        let configuration = lab.dir().join("unit");
        fs::create_dir_all(&work)?;
        fs::create_dir_all(&configuration)?;
        // Where it keeps what, and whom it runs as, the unit says.
        let text = fs::read_to_string(lab.dir().join(format!("{name}.toml")))?;
        let own = ["socket = ", "state = ", "user = "];
        let lines = text
            .lines()
            .filter(|line| !own.iter().any(|o| line.starts_with(o)));
        fs::write(
            configuration.join(format!("{name}.toml")),
            lines.collect::<Vec<_>>().join("\n"),
        )?;
        let key = format!("{name}-held.psk");
        fs::copy(lab.dir().join(&key), configuration.join(&key))?;

        let group = groups()?.join(format!("{}systemd", lab.prefix()));
        fs::create_dir_all(&group).with_context(|| format!("no group {}", group.display()))?;
        let log = lab.log("systemd");
        let said = File::create(&log)?;
        let net = format!("--net=/run/netns/{}", lab.ns(Place::Gateway(number)));
        let child = Command::new("sh")
            // The group is the root of what it sees of groups.
            .args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&group)
            .args([
                "nsenter", &net, "unshare", "--mount", "--pid", "--ipc", "--uts", "--cgroup",
            ])
            .args(["--fork", "--kill-child", "--propagation", "private", "sh"])
            .arg(workspace().join("xtask/src/lab/boot.sh"))
            .args([&work, &lab.binary()?, &configuration])
            .arg(&name)
            .arg(workspace())
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .process_group(0)
            .spawn()
            .context("can not start nsenter")?;
        let mut booted = Self {
            child,
            group,
            unit: format!("evergate@{name}.service"),
            log,
        };
        booted.wait_for("ActiveState", "active")?;
        Ok(booted)
    }

    /// What a command in there says; an error if it fails.
    pub(crate) fn exec(&self, words: &[&str]) -> Result<String> {
        let own = self.child.id();
        // The process that `unshare` has started is the first one in there.
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"))?;
        let first = children.split_whitespace().next();
        let first = first.context("nothing has begun")?;
        // Before, what is in there is this machine's.
        let name = fs::read_to_string(format!("/proc/{first}/comm"))?;
        ensure!(name.trim() == "systemd", "systemd has not begun");
        let mut command = Command::new("nsenter");
        command.args(["-t", first, "--all"]).args(words);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", words.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Has systemd do something with the unit.
    pub(crate) fn control(&self, words: &[&str]) -> Result<String> {
        self.exec(&[&["systemctl"], words, &[&*self.unit]].concat())
    }

    /// A property of the unit.
    pub(crate) fn property(&self, name: &str) -> Result<String> {
        Ok(self
            .control(&["show", "--value", "-p", name])?
            .trim()
            .to_owned())
    }

    /// Waits until a property of the unit has this value.
    pub(crate) fn wait_for(&mut self, name: &str, value: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = self.property(name);
            if found.as_ref().is_ok_and(|found| found == value) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("systemd has ended ({status}): {}", self.said());
            }
            if Instant::now() > deadline {
                bail!(
                    "{name} of {} is {found:?}, not {value}: {}",
                    self.unit,
                    self.said()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let journal = self.exec(&["journalctl", "--no-pager", "-n", "20", "-u", &self.unit]);
        format!("{log}\n{}", journal.unwrap_or_default())
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The others of its namespace end a moment after the first one.
        for _ in 0..100 {
            if remove(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Where the kernel has the second version of its groups.
fn groups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let at = mounts.find_map(|mut words| {
        let (at, kind) = (words.nth(1)?, words.next()?);
        (kind == "cgroup2").then_some(at)
    });
    at.map(PathBuf::from)
        .context("no mount of cgroup2, which systemd needs")
}

/// Removes a group and those in it.
fn remove(group: &Path) -> Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(group)?)
}
