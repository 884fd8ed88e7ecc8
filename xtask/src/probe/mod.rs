//! Small programs that run inside the lab's namespaces: the probe of 1,000 packets a second, a
//! TCP stream whose content is checked, a UDP generator and its counter, a sender of crafted
//! packets. They are hidden subcommands of this program and end when their stdin does.

mod announce;
mod blast;
mod echo;
mod herd;
mod inject;
mod knock;
mod record;
mod stream;
mod wireguard;

pub(crate) use blast::{Flood, measure_flood};
pub(crate) use echo::{send_paced, sleep_until};
pub(crate) use knock::first_message;
pub(crate) use record::{Answer, Outage, Probe, Record, wait_ready};
pub(crate) use stream::{MARK, Stream, StreamReport};

use crate::lab::{Lab, Place, Process};
use anyhow::{Context, Result};
use clap::Subcommand;
use nix::time::{ClockId, clock_gettime};
use std::io::{BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Subcommand)]
pub(crate) enum Helper {
    /// Sends one packet each interval and reports each answer
    #[command(hide = true)]
    ProbeSend {
        to: SocketAddr,
        #[arg(long, default_value_t = 1000)]
        interval_us: u64,
    },
    /// Answers every packet
    #[command(hide = true)]
    ProbeEcho { listen: SocketAddr },
    /// Answers every packet of many clients, and counts those that come twice
    #[command(hide = true)]
    HerdEcho { listen: SocketAddr },
    /// Tells the stations of an interface's segment that an address is here
    #[command(hide = true)]
    Announce {
        interface: String,
        address: Ipv4Addr,
    },
    /// Sends UDP packets as fast as it can, or at a rate
    #[command(hide = true)]
    Blast {
        to: SocketAddr,
        #[arg(long)]
        size: usize,
        #[arg(long)]
        millis: u64,
        #[arg(long)]
        rate: Option<u64>,
    },
    /// Counts UDP packets
    #[command(hide = true)]
    Sink { listen: SocketAddr },
    /// Returns every byte of every connection
    #[command(hide = true)]
    StreamEcho { listen: SocketAddr },
    /// Sends a known stream over TCP and compares what comes back
    #[command(hide = true)]
    StreamCheck {
        to: SocketAddr,
        /// As fast as it can, so many bytes
        #[arg(long)]
        bytes: Option<u64>,
    },
    /// Runs a program that finds `/run` empty, and keeps what it puts there to itself
    #[command(hide = true)]
    PrivateRun {
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Sends IPv4 packets with a source address of one's choice
    #[command(hide = true)]
    Inject {
        from: IpAddr,
        to: IpAddr,
        #[arg(long)]
        protocol: u8,
        /// The payload after the IPv4 header, in hexadecimal
        #[arg(long)]
        payload: String,
        #[arg(long, default_value_t = 1)]
        count: u32,
    },
    /// Sends datagrams of all sizes and known content, and compares what comes back
    #[command(hide = true)]
    Flow {
        to: SocketAddr,
        #[arg(long)]
        interval_us: u64,
    },
    /// Reads every frame at the router's ends of the cables, and judges it
    #[command(hide = true)]
    Watch,
    /// Sends first messages of IKE from random addresses
    #[command(hide = true)]
    Knock {
        to: Ipv4Addr,
        #[arg(long)]
        rate: u64,
    },
    /// Sends test packets through a WireGuard tunnel of its own
    #[command(hide = true)]
    WireguardSend(wireguard::Words),
    /// Sends frames that nobody should send
    #[command(hide = true)]
    Storm(crate::storm::Words),
}

/// A flood of first messages; ends when dropped.
pub(crate) struct Knocking {
    process: Process,
    output: BufReader<ChildStdout>,
}

impl Knocking {
    /// From outside to a gateway, `rate` a second.
    pub(crate) fn start(lab: &Lab, to: IpAddr, rate: u64) -> Result<Self> {
        let (to, rate) = (to.to_string(), rate.to_string());
        let mut process = lab.helper(Place::Wan, &["knock", &to, "--rate", &rate])?;
        let output = wait_ready(&mut process)?;
        Ok(Self { process, output })
    }

    /// Ends it; yields how many messages were sent.
    pub(crate) fn finish(mut self) -> Result<u64> {
        drop(self.process.stdin());
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        text.trim()
            .parse()
            .with_context(|| format!("the flood said {text:?}"))
    }
}

impl Helper {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::ProbeSend { to, interval_us } => echo::send(to, interval_us),
            Self::ProbeEcho { listen } => echo::echo(listen),
            Self::Announce { interface, address } => announce::announce(&interface, address),
            Self::HerdEcho { listen } => herd::echo(listen),
            Self::Blast {
                to,
                size,
                millis,
                rate,
            } => blast::blast(to, size, millis, rate),
            Self::Sink { listen } => blast::sink(listen),
            Self::StreamEcho { listen } => stream::echo(listen),
            Self::StreamCheck { to, bytes } => stream::check(to, bytes),
            Self::PrivateRun { words } => crate::interop::private_run(&words),
            Self::Inject {
                from,
                to,
                protocol,
                payload,
                count,
            } => inject::inject(from, to, protocol, &payload, count),
            Self::Flow { to, interval_us } => crate::chaos::flow(to, interval_us),
            Self::Watch => crate::chaos::watch(),
            Self::Knock { to, rate } => knock::knock(to, rate),
            Self::WireguardSend(words) => wireguard::send(&words),
            Self::Storm(words) => crate::storm::send(&words),
        }
    }
}

/// CLOCK_MONOTONIC in nanoseconds: the same in every namespace and process.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    now.map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
        .unwrap_or_default()
}

/// A flag that is set when stdin ends: the parent wants no more, or is gone.
pub(crate) fn until_stdin_ends() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        flag.store(true, Ordering::Relaxed);
    });
    stop
}
