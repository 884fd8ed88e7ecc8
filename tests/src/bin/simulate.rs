//! Runs scenarios of the simulator until they have had so many failovers: `cargo xtask simulate` calls
//! this. Each scenario follows from its seed.

use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;
use evergate_tests::seeds::Progress;
use evergate_tests::sim::{Herd, hunt, hunt_shared, trace_shared};

#[derive(Parser)]
struct Args {
    /// Ends after so many failovers
    #[arg(long, default_value_t = 100_000)]
    failovers: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Instead: so many clients lose a gateway
    #[arg(long, conflicts_with_all = ["failovers", "from", "seed"])]
    herd: Option<usize>,
    /// Only this seed
    #[arg(long, conflicts_with_all = ["failovers", "from"])]
    seed: Option<u64>,
    /// An authority and edges that share its SAs; ends after so many edges were lost
    #[arg(long, conflicts_with = "herd")]
    shared: bool,
    /// Tells all that happens in it, and in what it is shrunk to
    #[arg(long, requires = "shared", requires = "seed")]
    trace: bool,
}

/// A herd without standby, and one with.
fn lose_one(clients: usize) -> ExitCode {
    for standby in [0, 1] {
        match Herd::run(clients, standby, 1) {
            Ok(herd) => {
                println!("standby {standby}: {herd}\n");
                if !herd.is_even() {
                    eprintln!("that is not by chance");
                    return ExitCode::FAILURE;
                }
            }
            Err(broken) => {
                eprintln!("{broken}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn all_held(progress: &Progress, sum: &impl Display, runs: u64, first: u64) -> ExitCode {
    let seconds = progress.seconds();
    println!("{sum}: every promise held, from seed {first} on");
    println!(
        "{seconds:.0} s, {:.0} scenarios a minute",
        runs as f64 / seconds * 60.0
    );
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(clients) = args.herd {
        return lose_one(clients);
    }
    let (seeds, failovers) = match args.seed {
        Some(seed) => (seed..seed.saturating_add(1), u64::MAX),
        None => (args.from..u64::MAX, args.failovers),
    };
    let progress = Progress::begin();
    if args.trace {
        trace_shared();
    }
    if args.shared {
        return match hunt_shared(seeds.clone(), failovers, |sum| progress.tell(sum)) {
            Ok(sum) => all_held(&progress, &sum, sum.runs, seeds.start),
            Err(found) => {
                eprintln!("{found}");
                let seed = found.broken.seed;
                eprintln!("again: cargo xtask simulate --shared --seed {seed}");
                ExitCode::FAILURE
            }
        };
    }
    match hunt(seeds.clone(), failovers, |sum| progress.tell(sum)) {
        Ok(sum) => all_held(&progress, &sum, sum.runs, seeds.start),
        Err(found) => {
            eprintln!("{found}");
            eprintln!("again: cargo xtask simulate --seed {}", found.broken.seed);
            ExitCode::FAILURE
        }
    }
}
