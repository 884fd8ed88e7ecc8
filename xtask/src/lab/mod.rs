//! The lab: a client, a router, three gateways, a LAN and a target, each in a network namespace.
//!
//! Everything is inside namespaces named with a prefix; nothing of it is visible outside. A [`Lab`]
//! removes itself when dropped; [`down`] removes what a crashed run left.

mod build;
pub(crate) mod fronting;
pub(crate) mod herd;
mod kernel;
pub(crate) mod limits;
mod moving;
mod nat;
mod node;
mod observe;
mod pass;
mod pki;
mod process;
mod setup;
pub(crate) mod sharing;
mod short;
mod swap;
pub(crate) mod topology;
pub(crate) mod unit;

pub(crate) use build::Offloads;
pub(crate) use nat::Mapping;
pub(crate) use observe::{Connectivity, Event, Status};
pub(crate) use pki::KeyKind;
pub(crate) use process::Process;
pub(crate) use setup::{GENERAL, NODE_USER, Setup, USER, User};
pub(crate) use short::{CLIENT_MAC, GATEWAY_MAC};
pub(crate) use topology::Place;

use crate::{paths, rootless, sh};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

/// The prefix of the demo's lab.
pub(crate) const PREFIX: &str = "eg-";

/// Prefixes of labs that this process has built, for the tidying up at a signal.
static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A lab that is up.
#[derive(Debug)]
pub(crate) struct Lab {
    prefix: String,
    /// Of configurations, keys, state and sockets.
    dir: PathBuf,
    logs: PathBuf,
    nodes: HashMap<Place, Process>,
    /// Nodes write their keys.
    keylog: bool,
    /// What runs a node's daemon: words before its own.
    run_by: HashMap<Place, Vec<String>>,
    kept: bool,
    /// Whose the files of the nodes are.
    user: u32,
}

impl Lab {
    /// Builds the namespaces (after removing what a former run left) and writes the usual
    /// configuration. `queues`: receive and transmit queues of each interface.
    pub(crate) fn up(prefix: &str, queues: u32) -> Result<Self> {
        Self::with(prefix, |dir| build::up(prefix, queues, dir))
    }

    /// Builds the namespaces anew, with so many queues of each interface.
    pub(crate) fn rebuild(&mut self, queues: u32) -> Result<()> {
        build::up(&self.prefix, queues, &self.dir)
    }

    /// The same with the short lab of the rig: generator, client, gw1 and target in a row.
    pub(crate) fn short(prefix: &str) -> Result<Self> {
        Self::with(prefix, |_| short::up(prefix))
    }

    fn with(prefix: &str, build: impl Fn(&Path) -> Result<()>) -> Result<Self> {
        kernel::check()?;
        if let Ok(mut built) = BUILT.lock() {
            built.push(prefix.to_owned());
        }
        let name = prefix.trim_end_matches('-');
        let logs = paths::target().join("lab").join(name).join("log");
        let dir = folder(prefix);
        let _ = std::fs::remove_dir_all(&dir);
        for folder in [&dir, &logs] {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("can not make {}", folder.display()))?;
        }
        for entry in std::fs::read_dir(&logs)? {
            std::fs::remove_file(entry?.path())?;
        }
        build(&dir)?;
        let mut lab = Self {
            prefix: prefix.into(),
            dir,
            logs,
            nodes: HashMap::new(),
            keylog: false,
            run_by: HashMap::new(),
            kept: false,
            user: if rootless::inside() { 0 } else { NODE_USER },
        };
        lab.configure(&Setup::default())?;
        Ok(lab)
    }

    /// What the names of its namespaces begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of a namespace.
    pub(crate) fn ns(&self, place: Place) -> String {
        format!("{}{place}", self.prefix)
    }

    /// Where configurations, keys and state of this lab's nodes are, until it is removed.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its logs are and stay.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// The API socket of a node.
    pub(crate) fn socket(&self, place: Place) -> PathBuf {
        self.dir.join(format!("{place}.sock"))
    }

    /// The log of a node or of a program started with [`Lab::spawn`].
    pub(crate) fn log(&self, name: impl std::fmt::Display) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// Runs a program to its end in a namespace; returns its stdout.
    pub(crate) fn exec(&self, place: Place, words: &[&str]) -> Result<String> {
        sh::read(&mut process::in_namespace(&self.ns(place), words))
    }

    /// Runs a program to its end in a namespace, whatever it answers.
    pub(crate) fn try_exec(&self, place: Place, words: &[&str]) -> Result<Output> {
        sh::output(&mut process::in_namespace(&self.ns(place), words))
    }

    /// The configurations of a case do not say that nodes become somebody else.
    pub(crate) fn nodes_stay_root(&mut self) {
        self.user = 0;
    }

    /// From now on a node's daemon is run by these words, followed by its own.
    pub(crate) fn run_by(&mut self, place: Place, words: Vec<String>) {
        self.run_by.insert(place, words);
    }

    /// Starts a program in a namespace; what it says goes to `log/NAME.log`.
    pub(crate) fn spawn(&self, place: Place, name: &str, words: &[&str]) -> Result<Process> {
        Process::start(&self.ns(place), words, &self.log(name))
    }

    /// Starts a program whose stdout the caller reads.
    pub(crate) fn spawn_piped(&self, place: Place, words: &[&str]) -> Result<Process> {
        Process::piped(&self.ns(place), words, &self.log("helpers"))
    }

    /// Starts one of this program's own hidden helpers, with pipes to it.
    pub(crate) fn helper(&self, place: Place, words: &[&str]) -> Result<Process> {
        let own = paths::own().to_string_lossy();
        let mut all: Vec<&str> = vec![&own];
        all.extend(words);
        Process::piped(&self.ns(place), &all, &self.log("helpers"))
    }

    /// The same, ahead of other work: what measures time must not wait for a processor.
    pub(crate) fn urgent_helper(&self, place: Place, words: &[&str]) -> Result<Process> {
        let own = paths::own().to_string_lossy();
        let mut all: Vec<&str> = vec!["nice", "-n", "-20", &own];
        all.extend(words);
        Process::piped(&self.ns(place), &all, &self.log("helpers"))
    }

    /// Runs a command of the node's command line against its socket.
    pub(crate) fn evergate(&self, place: Place, words: &[&str]) -> Result<String> {
        sh::read(&mut self.evergate_command(place, words)?)
    }

    /// The same, with this on its standard input; what it says is of no interest.
    pub(crate) fn evergate_told(&self, place: Place, words: &[&str], input: &str) -> Result<()> {
        sh::feed(&mut self.evergate_command(place, words)?, input)
    }

    /// The same as [`Self::evergate`], whatever it answers.
    pub(crate) fn try_evergate(&self, place: Place, words: &[&str]) -> Result<Output> {
        sh::output(&mut self.evergate_command(place, words)?)
    }

    fn evergate_command(&self, place: Place, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.binary()?);
        command
            .args(words)
            .env("EVERGATE_SOCKET", self.socket(place))
            .env("NO_COLOR", "1");
        Ok(command)
    }

    /// Sends one echo request after the other until one is answered.
    pub(crate) fn ping_until(&self, from: Place, to: &str, timeout: Duration) -> Result<()> {
        self.wait(&format!("{from} pings {to}"), timeout, |lab| {
            let output = lab.try_exec(from, &["ping", "-n", "-c1", "-W1", to])?;
            if output.status.success() {
                return Ok(Some(()));
            }
            bail!("{}", sh::said(&output));
        })
    }

    /// Sets what the veth pairs do for the stack; [`Offloads::Usual`] after [`Lab::up`].
    pub(crate) fn set_offloads(&self, offloads: Offloads) -> Result<()> {
        build::set_offloads(&self.prefix, &self.dir, offloads)
    }

    /// Lets the lab and its nodes run on when this value is gone.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
        for process in self.nodes.values_mut() {
            process.leave_alone();
        }
        forget(&self.prefix);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.nodes.clear();
        if let Err(error) = down(&self.prefix) {
            eprintln!("could not remove the lab: {error:#}");
        }
        forget(&self.prefix);
    }
}

// Not below the target folder: the path of a Unix socket has at most 107 bytes, and the nodes' user may
// not look into the home of whoever builds. Not below `/run`: peers get one of their own.
fn folder(prefix: &str) -> PathBuf {
    Path::new("/var/lib/evergate-lab").join(prefix.trim_end_matches('-'))
}

/// Kills what runs inside a lab's namespaces, and only that, then removes them; also after a crash.
pub(crate) fn down(prefix: &str) -> Result<()> {
    build::down(prefix)?;
    let _ = std::fs::remove_dir_all(folder(prefix));
    Ok(())
}

fn forget(prefix: &str) {
    if let Ok(mut built) = BUILT.lock() {
        built.retain(|p| p != prefix);
    }
}

/// Removes every lab that this process has built; called when a signal ends it.
pub(crate) fn remove_built() {
    let built = BUILT.lock().map(|b| b.clone()).unwrap_or_default();
    for prefix in built {
        // Twice: the interrupted thread may have made one more namespace meanwhile.
        for _ in 0..2 {
            if let Err(error) = down(&prefix) {
                eprintln!("could not remove the lab {prefix}: {error:#}");
            }
        }
    }
}

/// `lab status`: one line per namespace.
pub(crate) fn show(prefix: &str) -> Result<()> {
    let there = build::present(prefix)?;
    if there.is_empty() {
        println!("no lab with prefix {prefix} is up");
    }
    for namespace in there {
        let addresses = sh::read(Command::new("ip").args(["-n", &namespace, "-br", "-4", "addr"]))?;
        let addresses: Vec<String> = addresses
            .lines()
            .map(|l| {
                l.split_whitespace()
                    .filter(|w| *w != "UNKNOWN")
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .filter(|l| !l.starts_with("lo ") || l.contains("10.0.9"))
            .collect();
        let processes: Vec<String> = build::pids(&namespace)?
            .iter()
            .map(|pid| {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                format!("{}({pid})", name.trim())
            })
            .collect();
        println!("{namespace:<12} {}", addresses.join(" · "));
        if !processes.is_empty() {
            println!("{:<12} runs {}", "", processes.join(" "));
        }
    }
    Ok(())
}
