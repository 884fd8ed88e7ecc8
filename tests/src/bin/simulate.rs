//! Runs scenarios of the simulator until they have had so many failovers: `cargo xtask simulate` calls
//! this. Each scenario follows from its seed.

use std::process::ExitCode;

use clap::Parser;
use evergate_tests::seeds::Progress;
use evergate_tests::sim::{Herd, hunt};

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
    match hunt(seeds.clone(), failovers, |sum| progress.tell(sum)) {
        Ok(sum) => {
            let seconds = progress.seconds();
            println!("{sum}: every promise held, from seed {} on", seeds.start);
            println!(
                "{seconds:.0} s, {:.0} scenarios a minute",
                sum.runs as f64 / seconds * 60.0
            );
            ExitCode::SUCCESS
        }
        Err(found) => {
            eprintln!("{found}");
            eprintln!("again: cargo xtask simulate --seed {}", found.broken.seed);
            ExitCode::FAILURE
        }
    }
}
