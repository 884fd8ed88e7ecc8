//! Compares the machine with the reference model over many histories: `cargo xtask simulate --model`
//! calls this. Each history follows from its seed.

use std::process::ExitCode;

use clap::Parser;
use evergate_tests::model::{Found, History, hunt, shrunk, traced};
use evergate_tests::seeds::Progress;

#[derive(Parser)]
struct Args {
    /// So many histories
    #[arg(long, default_value_t = 100_000)]
    histories: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this seed, and all that happens in it
    #[arg(long, conflicts_with_all = ["histories", "from"])]
    seed: Option<u64>,
}

fn one(seed: u64) -> ExitCode {
    let history = History::random(seed);
    println!("{history}\n");
    let (trace, result) = traced(&history);
    trace.iter().for_each(|line| println!("{line}"));
    match result {
        Ok(_) => {
            println!("machine and model agree");
            ExitCode::SUCCESS
        }
        Err(broken) => {
            let Found { broken, history } = shrunk(history, broken);
            eprintln!("\nmade small:\n{}", Found { broken, history });
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        return one(seed);
    }
    let progress = Progress::begin();
    match hunt(args.from..args.from.saturating_add(args.histories), |sum| {
        progress.tell(sum)
    }) {
        Ok(sum) => {
            let seconds = progress.seconds();
            println!("{sum}: machine and model agree, from seed {} on", args.from);
            println!(
                "{seconds:.0} s, {:.0} histories a second",
                sum.histories as f64 / seconds
            );
            ExitCode::SUCCESS
        }
        Err(found) => {
            eprintln!("{found}");
            eprintln!(
                "again: cargo xtask simulate --model --seed {}",
                found.history.seed
            );
            ExitCode::FAILURE
        }
    }
}
