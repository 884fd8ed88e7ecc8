//! An edge's notary: a second, small process, which waits until the edge's own is dead and then tells the
//! authorities how far that came with each pair of SAs. The edge writes it into memory that both have
//! ([`Logbook`]); so no packet is in doubt, and none is lost for it.
//!
//! It dies with the machine, and then there is nobody to say it, as if there were no notary.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rand::Rng as _;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::config::{ChannelEnd, Config};
use crate::cluster::channel::{self, Credentials};
use crate::cluster::{Reached, Run};
use crate::dataplane::logbook::{self, Entry, Logbook};
use crate::privilege::{self, Folders, capabilities::CapabilitySet, memory};

/// The command of the program that is the notary.
pub const COMMAND: &str = "notary";

/// A node opens fewer files than this.
const HIGHEST: u64 = 4096;

/// The edge's side of its notary.
#[derive(Debug)]
pub struct Notary {
    logbook: Arc<Logbook>,
    /// Nothing is ever said here: its end, which the kernel sees to, is that of this process.
    _lifeline: OwnedFd,
}

impl Notary {
    /// Starts the notary of a node, if that is an edge and wants one. To be called while the process may still start
    /// others. One that can not be had is a warning: it is an edge's death that costs more then.
    #[must_use]
    pub fn start(config: &Config) -> Option<Self> {
        let channel = config.channel.as_ref()?;
        if !matches!(channel.end, ChannelEnd::Edge { notary: true, .. }) {
            return None;
        }
        match Self::spawn(&config.path) {
            Ok(notary) => Some(notary),
            Err(why) => {
                tracing::warn!(
                    "this edge has no notary, so packets are lost if its process dies: {why}"
                );
                None
            }
        }
    }

    fn spawn(config: &Path) -> io::Result<Self> {
        let (logbook, file) = Logbook::create(rand::rng().next_u64())?;
        let mut child = Command::new(std::env::current_exe()?)
            .args([COMMAND, "--config"])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::from(file))
            // What a terminal's Ctrl-C ends is the edge alone.
            .process_group(0)
            .spawn()?;
        let lifeline = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            logbook,
            _lifeline: closed_first(&lifeline)?,
        })
    }

    /// Where the data plane writes how far it has come.
    pub(super) fn logbook(&self) -> Arc<Logbook> {
        Arc::clone(&self.logbook)
    }

    /// The run of the edge that it speaks of.
    pub(super) fn run(&self) -> Run {
        Run(self.logbook.run())
    }
}

/// A descriptor that the kernel closes before all others when the process ends: it begins with the highest number,
/// and what belongs to XDP takes it tens of milliseconds.
fn closed_first(descriptor: &impl AsFd) -> io::Result<OwnedFd> {
    let limit = getrlimit(Resource::Nofile).current;
    let highest = limit.map_or(HIGHEST, |limit| limit.min(HIGHEST)) - 1;
    Ok(fcntl_dupfd_cloexec(descriptor, highest as RawFd)?)
}

fn reached(entry: Entry) -> Reached {
    let Entry { spi, term, top } = entry;
    Reached { spi, term, top }
}

/// The notary: waits for the end of the process that has started it, whose logbook is its standard output, and tells
/// what is in there.
///
/// # Errors
/// It has not been started as a notary, the configuration is no edge's, or can not be read.
pub fn run(config: &Path) -> Result<()> {
    memory::forbid_core_dumps();
    let logbook = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    logbook::read(&logbook).context("an edge starts its notary itself")?;
    let config = Config::load(config)?;
    let Some(channel) = &config.channel else {
        bail!(
            "{}: found no [channel], expected that of an edge",
            config.path.display()
        );
    };
    let ChannelEnd::Edge { authorities, .. } = &channel.end else {
        bail!(
            "{}: found an authority's [channel], expected that of an edge",
            config.path.display()
        );
    };
    let credentials = Credentials::read(&channel.cert, &channel.key, &channel.ca)?;
    let authorities = authorities.iter().map(|at| (at.address, at.name.clone()));
    let authorities: Vec<_> = authorities.collect();
    let folders = Folders {
        connect: authorities.iter().map(|(at, _)| at.port()).collect(),
        ..Folders::default()
    };
    let notary = channel::Notary::new(authorities, &credentials)?;
    let confinement = privilege::enter(&config.privileges, &folders)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let guard = runtime.enter();
    // Whoever ends a service tells all of its processes: this one ends by itself, after the edge.
    let _deaf = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ]
    .map(signal);
    drop(guard);
    confinement.seal(CapabilitySet::empty())?;
    // Nothing is ever said there: it ends.
    io::stdin().read_to_end(&mut Vec::new())?;
    let (run, entries) = logbook::read(&logbook)?;
    let reached: Vec<_> = entries.into_iter().map(reached).collect();
    if reached.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        "{} has died with {} pairs of SAs: its authorities are told how far it came",
        config.name,
        reached.len()
    );
    for (authority, why) in runtime.block_on(notary.testify(Run(run), reached)) {
        tracing::warn!("the authority at {authority} could not be told: {why}");
    }
    Ok(())
}
