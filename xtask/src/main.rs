//! `cargo xtask`: everything around the code: set-up, the lab of network namespaces, the demo, the
//! tests and the benchmarks.

mod audit;
mod bench;
mod build;
mod cases;
mod chaos;
mod demo;
mod e2e;
mod fuzz;
mod interop;
mod lab;
mod memory;
mod paths;
mod probe;
mod rootless;
mod sh;
mod storm;
mod style;
mod suite;
mod toolchain;
mod traffic;
mod tshark;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, lab, demo, tests and benchmarks of evergate"
)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The lab of network namespaces, without nodes in it
    Lab {
        #[command(subcommand)]
        action: LabAction,
    },
    /// Kills, freezes and unplugs gateways under a TCP connection, and shows what becomes of it
    Demo {
        /// Leave the lab up and tell how to look around
        #[arg(long)]
        keep: bool,
        /// How long the transfer lasts
        #[arg(long, default_value_t = 32)]
        seconds: u64,
        /// By sockets and TUN devices; so it is always done where XDP programs can not be loaded
        #[arg(long)]
        without_xdp: bool,
        /// One negotiation, many edges: an authority, and three gateways with one address
        #[arg(long, conflicts_with_all = ["seconds", "without_xdp"])]
        shared: bool,
    },
    /// Runs the tests of the workspace, then the end-to-end cases in network namespaces, then those
    /// against strongSwan; `test interop` runs only the latter, `test interop --all` every
    /// combination
    Test {
        /// Only tests and cases whose name contains this
        #[arg(default_value = "")]
        filter: String,
        /// Only the end-to-end cases
        #[arg(long)]
        e2e: bool,
        /// All that can be combined with strongSwan, not only each value with each other one
        #[arg(long)]
        all: bool,
        /// Of the names of the network namespaces
        #[arg(long, default_value = suite::PREFIX)]
        prefix: String,
    },
    /// Measures, each figure beside plain routing of the same run
    Bench {
        /// rig, outage, tcp, udp, xdp, memory, esp, ike, handshakes, flood, sharing, herd or soak; without: all
        name: Option<String>,
        /// What the rig compares with, such as gotatun,wireguard-go, or none; without: all
        #[arg(long)]
        peers: Option<String>,
        /// Fewer rounds
        #[arg(long)]
        quick: bool,
        /// Of the rig's generator where it sends through many tunnels; without: 1,000, and not with
        /// --quick
        #[arg(long)]
        tunnels: Option<NonZeroU16>,
        /// Of the rig's generator in each tunnel
        #[arg(long, default_value_t = bench::FLOWS)]
        flows: NonZeroU16,
        /// Of each client of the herd: echo requests in a second
        #[arg(long, default_value_t = bench::RATE)]
        rate: NonZeroU32,
        /// Measure the binary that is there, without building it
        #[arg(long)]
        as_built: bool,
        /// How long the soak lasts
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Of the names of the network namespaces
        #[arg(long, default_value = bench::PREFIX)]
        prefix: String,
    },
    /// Runs a cluster of the real cores under a virtual clock, with faults by chance, until so many
    /// gateways were taken from clients that used them
    Simulate {
        /// Ends after so many failovers
        #[arg(long, default_value_t = suite::FAILOVERS)]
        failovers: u64,
        /// The first seed
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Only this seed
        #[arg(long, conflicts_with_all = ["failovers", "from"])]
        seed: Option<u64>,
        /// Instead: so many clients lose a gateway, and spread over the rest
        #[arg(long, conflicts_with_all = ["failovers", "from", "seed"])]
        herd: Option<usize>,
        /// Instead: key management and monitors live through histories beside their reference model
        #[arg(long, conflicts_with_all = ["failovers", "herd"])]
        model: bool,
        /// So many of them
        #[arg(long, requires = "model", default_value_t = suite::HISTORIES)]
        histories: u64,
        /// Instead: an authority and edges that share its SAs, until so many edges were lost
        #[arg(long, conflicts_with_all = ["herd", "model"])]
        shared: bool,
        /// Tells all that happens in the one of that seed
        #[arg(long, requires = "shared", requires = "seed")]
        trace: bool,
    },
    /// Runs the real binaries in a lab under faults by chance, with traffic whose every byte is
    /// checked, and looks at every frame between client and gateways
    Chaos {
        /// How long: 90s, 20m, 2h
        #[arg(long = "for", default_value = "10m", value_parser = chaos::duration)]
        time: std::time::Duration,
        /// Replays the same faults at the same times; without: a new one, which is told
        #[arg(long)]
        seed: Option<u64>,
        /// One negotiation, many edges: an authority, and three gateways with one address
        #[arg(long)]
        shared: bool,
        /// Of the names of the network namespaces
        #[arg(long, default_value = chaos::PREFIX)]
        prefix: String,
    },
    /// Runs fuzz targets, all or those that are named, each for a minute if nothing else is said;
    /// their executions add up in `target/fuzz/executions.json`
    Fuzz {
        targets: Vec<String>,
        /// How long each runs: 60s, 20m, 2h
        #[arg(long = "for", default_value = "60s", value_parser = chaos::duration)]
        time: std::time::Duration,
        /// Instead: so many executions of each
        #[arg(long, conflicts_with = "time")]
        runs: Option<u64>,
        /// Instead: until the executions of all runs are so many, such as 100000000
        #[arg(long, conflicts_with_all = ["time", "runs"])]
        sum: Option<u64>,
        /// How many run at once
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Only tells the executions so far
        #[arg(long, conflicts_with_all = ["targets", "time", "runs", "sum"])]
        show: bool,
    },
    /// Runs models of what threads share, the unsafe code under Miri and the unit tests under the
    /// address and the thread sanitizer, all or those that are named
    CheckMemory { watchers: Vec<memory::Watcher> },
    /// Makes the corpus of the fuzz targets anew: of sessions that the cases with tshark record
    Corpus {
        /// Of the names of the network namespaces
        #[arg(long, default_value = suite::PREFIX)]
        prefix: String,
    },
    /// Looks at all dependencies: licences, sources, withdrawn versions, known vulnerabilities; and at
    /// what systemd says of the unit
    Audit,
    /// Writes a list of all components, in CycloneDX's form, to `target/sbom/`
    Sbom,
    /// Installs the eBPF tool chain and the packages that building and testing need
    Setup,
    /// Formatting, clippy with warnings denied, tests
    Ci,
    /// Draws the picture of a former demo again
    #[command(hide = true)]
    Picture { json: PathBuf, svg: PathBuf },
    /// Removes the demo's lab, also after a crash
    Down {
        #[arg(long, default_value = lab::PREFIX)]
        prefix: String,
    },
    #[command(flatten)]
    Helper(probe::Helper),
}

#[derive(Subcommand)]
enum LabAction {
    /// Builds it; a former one with the same prefix is removed first
    Up {
        #[arg(long, default_value = lab::PREFIX)]
        prefix: String,
        /// Receive and transmit queues of each interface
        #[arg(long, default_value_t = 1)]
        queues: u32,
    },
    /// Removes it and what runs in it, also after a crash
    Down {
        #[arg(long, default_value = lab::PREFIX)]
        prefix: String,
    },
    /// Tells what is there
    Status {
        #[arg(long, default_value = lab::PREFIX)]
        prefix: String,
    },
}

fn main() -> ExitCode {
    let done = paths::init()
        .map_err(Into::into)
        .and_then(|()| perform(Args::parse().command));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    match task {
        Task::Helper(helper) => helper.run(),
        Task::Lab { action } => {
            need_root("cargo xtask lab")?;
            match action {
                LabAction::Up { prefix, queues } => {
                    toolchain::packages(PACKAGES)?;
                    tidy_up_at_signals()?;
                    let mut lab = lab::Lab::up(&prefix, queues)?;
                    lab.hand_over()?;
                    lab.keep();
                    lab::show(&prefix)?;
                    println!("configurations: {}", lab.dir().display());
                    Ok(())
                }
                LabAction::Down { prefix } => lab::down(&prefix),
                LabAction::Status { prefix } => lab::show(&prefix),
            }
        }
        Task::Demo {
            keep,
            seconds,
            without_xdp,
            shared,
        } => {
            tidy_up_at_signals()?;
            match shared {
                true => demo::shared::run(keep),
                false => demo::run(keep, seconds, without_xdp),
            }
        }
        Task::Test {
            filter,
            e2e,
            all,
            prefix,
        } => {
            need_root("cargo xtask test")?;
            tidy_up_at_signals()?;
            suite::test(&filter, suite::Scope { e2e, all }, &prefix)
        }
        Task::Bench {
            name,
            peers,
            quick,
            tunnels,
            flows,
            rate,
            as_built,
            minutes,
            prefix,
        } => {
            need_root("cargo xtask bench")?;
            tidy_up_at_signals()?;
            let effort = bench::Effort {
                quick,
                minutes,
                prefix: &prefix,
                peers: peers.as_deref(),
                tunnels: tunnels.map(NonZeroU16::get),
                flows: flows.get(),
                rate: rate.get(),
                as_built,
            };
            bench::run(name.as_deref(), effort)
        }
        Task::Simulate {
            from,
            seed,
            model: true,
            histories,
            ..
        } => match seed {
            Some(seed) => suite::model(&["--seed", &seed.to_string()]),
            None => suite::model(&[
                "--histories",
                &histories.to_string(),
                "--from",
                &from.to_string(),
            ]),
        },
        Task::Simulate {
            shared: true,
            failovers,
            from,
            seed,
            trace,
            ..
        } => match seed {
            Some(seed) if trace => {
                suite::simulate(&["--shared", "--trace", "--seed", &seed.to_string()])
            }
            Some(seed) => suite::simulate(&["--shared", "--seed", &seed.to_string()]),
            None => suite::simulate(&[
                "--shared",
                "--failovers",
                &failovers.to_string(),
                "--from",
                &from.to_string(),
            ]),
        },
        Task::Simulate {
            failovers,
            from,
            seed,
            herd,
            ..
        } => match (seed, herd) {
            (Some(seed), _) => suite::simulate(&["--seed", &seed.to_string()]),
            (None, Some(clients)) => suite::simulate(&["--herd", &clients.to_string()]),
            (None, None) => suite::simulate(&[
                "--failovers",
                &failovers.to_string(),
                "--from",
                &from.to_string(),
            ]),
        },
        Task::Chaos {
            time,
            seed,
            shared,
            prefix,
        } => {
            need_root("cargo xtask chaos")?;
            tidy_up_at_signals()?;
            let new = || u64::from(rand::random::<u32>());
            chaos::run(time, seed.unwrap_or_else(new), shared, &prefix)
        }
        Task::Fuzz {
            targets,
            time,
            runs,
            sum,
            jobs,
            show,
        } => {
            let span = match (runs, sum) {
                (Some(runs), _) => fuzz::Span::Runs(runs),
                (None, Some(sum)) => fuzz::Span::Sum(sum),
                (None, None) => fuzz::Span::Time(time),
            };
            match show {
                true => fuzz::show(),
                false => fuzz::run(&targets, span, jobs),
            }
        }
        Task::CheckMemory { watchers } => memory::run(&watchers),
        Task::Corpus { prefix } => {
            need_root("cargo xtask corpus")?;
            tidy_up_at_signals()?;
            suite::corpus(&prefix)
        }
        Task::Setup => {
            need_root("cargo xtask setup")?;
            suite::set_up()
        }
        Task::Audit => audit::run(),
        Task::Sbom => audit::components(),
        Task::Ci => {
            need_root("cargo xtask ci")?;
            tidy_up_at_signals()?;
            suite::ci()
        }
        Task::Picture { json, svg } => demo::redraw(&json, &svg),
        Task::Down { prefix } => {
            need_root("cargo xtask down")?;
            lab::down(&prefix)
        }
    }
}

/// What the lab needs from the distribution.
const PACKAGES: &[&str] = &[
    "conntrack",
    "ethtool",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "nftables",
];

fn need_root(what: &str) -> Result<()> {
    if !rootless::is_root() {
        bail!(
            "{what} needs root: it makes network namespaces and TUN devices and loads XDP programs"
        );
    }
    Ok(())
}

/// From here on SIGINT and SIGTERM remove the lab and then end the program. No signal is blocked
/// for that: the programs in the lab would inherit it.
fn tidy_up_at_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let name = signal_name(signal).unwrap_or("a signal");
            eprintln!("\n{name}: removing the lab");
            lab::remove_built();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}
