//! Writes a repository until it is ended, or measures one:
//!
//! ```text
//! repository write FIRST PLACE      writes numbers from FIRST on, and prints each that is durable
//! repository measure PAIRS PLACE    fills an empty one, times writes, and opens it again
//! ```
//!
//! PLACE is a file, or `etcd:PREFIX@HOST:PORT,HOST:PORT…`

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use evergate::cluster::repository::{
    Outcome, Repository, RepositoryError, RepositoryKey, Settings, Stored, Write,
};
use evergate_tests::store;

/// Writes on their way at a time.
const WIDTH: usize = 2000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["write", first, place] => match first.parse() {
            Ok(first) => write(first, place).await,
            Err(_) => return usage(),
        },
        ["measure", pairs, place] => match pairs.parse() {
            Ok(pairs) => measure(pairs, place).await,
            Err(_) => return usage(),
        },
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: repository write FIRST PLACE | repository measure PAIRS PLACE");
    ExitCode::from(2)
}

fn settings(place: &str) -> Settings {
    let etcd = place.strip_prefix("etcd:").and_then(|p| p.split_once('@'));
    match etcd {
        Some((prefix, endpoints)) => Settings::Etcd {
            endpoints: endpoints.split(',').map(str::to_owned).collect(),
            prefix: prefix.to_owned(),
            tls: None,
            user: None,
        },
        None => Settings::Embedded {
            file: Path::new(place).to_owned(),
        },
    }
}

async fn open(place: &str) -> Result<(Repository, Vec<Stored>), RepositoryError> {
    Repository::open(&settings(place), RepositoryKey::from(store::KEY)).await
}

async fn write(first: u64, place: &str) -> Result<(), RepositoryError> {
    let (mut repository, _) = open(place).await?;
    let mut out = std::io::stdout().lock();
    let mut say = |text: String| {
        // Whoever reads it may be gone: then so are we, soon.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    };
    say("open".to_owned());
    store::keep_writing(&mut repository, first, WIDTH, |outcome| match outcome {
        Outcome::Done { number } => say(format!("done {number}")),
        Outcome::Away { why } => say(format!("away {why}")),
        Outcome::Back => say("back".to_owned()),
        Outcome::Deposed { why } => say(format!("deposed {why}")),
    })
    .await;
    Ok(())
}

async fn measure(pairs: u64, place: &str) -> Result<(), RepositoryError> {
    let (mut repository, stored) = open(place).await?;
    if !stored.is_empty() {
        eprintln!("there are pairs already: give an empty place");
        std::process::exit(2);
    }
    let fill = (0..pairs).map(|number| Write::Pair {
        pair: Box::new(store::pair(number)),
        kept: store::kept(number),
    });
    let filled = store::time(&mut repository, fill, WIDTH).await;
    println!(
        "{pairs} pairs written in {:.2} s: {:.0} a second",
        filled.total.as_secs_f64(),
        filled.rate()
    );
    let numbers = |from: u64, many: u64| {
        (from..from + many).map(move |number| Write::Kept {
            spi: store::pair(number.wrapping_mul(7919) % pairs).spi(),
            kept: store::kept(number),
        })
    };
    for (width, many) in [(1, 1000), (100, 20_000), (WIDTH, 50_000)] {
        let times = store::time(&mut repository, numbers(1, many), width).await;
        println!(
            "numbers, {width} writes on their way: {:.0} a second, each after {:.2} ms (median), {:.2} ms (99 %)",
            times.rate(),
            times.share(500).as_secs_f64() * 1e3,
            times.share(990).as_secs_f64() * 1e3,
        );
    }
    repository.close().await;
    let start = Instant::now();
    let (repository, stored) = open(place).await?;
    println!(
        "{} pairs opened in {:.2} s",
        stored.len(),
        start.elapsed().as_secs_f64()
    );
    repository.close().await;
    Ok(())
}
