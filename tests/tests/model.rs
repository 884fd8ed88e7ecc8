//! The machine beside the reference model: by chance, and where the rules meet. `cargo xtask simulate
//! --model` checks as many histories as one likes.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use evergate::policy::HeartbeatMode;
use evergate_tests::model::{
    Deed, Found, History, Pace, Policy, Report, Takes as How, check, gateway, hunt,
};

/// Without optimisation only a few are soon done; `cargo xtask test` checks many more after these.
const HISTORIES: u64 = if cfg!(debug_assertions) {
    1_000
} else {
    10_000
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

fn at(index: usize) -> IpAddr {
    gateway(index)
}

fn policy(mode: HeartbeatMode, standby: usize, lists: &[&[usize]]) -> Policy {
    let clusters = lists.iter().zip(1..);
    Policy {
        mode,
        defer: ms(20),
        response: ms(10),
        standby,
        clusters: clusters
            .map(|(list, number)| (number, list.iter().map(|g| at(*g)).collect()))
            .collect(),
    }
}

fn history(policy: Policy, deeds: Vec<(u64, Deed)>) -> History {
    History {
        pace: Pace {
            first: ms(100),
            cap: ms(1000),
        },
        policy,
        seed: 1,
        deeds: deeds
            .into_iter()
            .map(|(gap, deed)| (ms(gap), deed))
            .collect(),
        rest: ms(1000),
    }
}

fn agreed(name: &str, history: History) -> Report {
    match check(&history) {
        Ok(report) => report,
        Err(broken) => panic!("{name}: {}", Found { broken, history }),
    }
}

#[test]
fn machine_and_model_agree_whatever_happens() {
    let sum = hunt(0..HISTORIES, |_| ()).unwrap_or_else(|found| panic!("{found}"));
    println!("{sum}");
    assert_eq!(sum.histories, HISTORIES);
    // Histories in which nothing happens would show nothing.
    let Report {
        heartbeats,
        deaths,
        exchanges,
        refusals,
        changes,
        ..
    } = sum.report;
    let least = [heartbeats / 20, deaths, exchanges / 5, refusals, changes]
        .into_iter()
        .min();
    assert!(least > Some(HISTORIES / 2), "{sum}");
}

#[test]
fn a_history_is_lived_again_exactly() {
    for seed in 0..20 {
        let history = History::random(seed);
        assert_eq!(check(&history), check(&history), "seed {seed}");
    }
}

/// Each shows one rule where it meets another, and what it comes to: deaths, requests rejected,
/// exchanges.
#[test]
fn corner_histories() {
    use Deed::*;
    use HeartbeatMode::{Deferred, Instant};
    let dumb = |g| (0, Answers(at(g), None));
    let shut = |g| (0, Takes(at(g), How::No(ms(5))));
    let cases = [
        (
            "a gateway that answers stays",
            history(policy(Instant, 0, &[&[A, B]]), vec![]),
            [0, 0, 1],
        ),
        (
            "a silent gateway dies and the next is asked",
            history(policy(Instant, 0, &[&[A, B]]), vec![dumb(A)]),
            [1, 0, 2],
        ),
        (
            "DEFERRED: without payload nobody dies",
            history(policy(Deferred, 0, &[&[A, B]]), vec![dumb(A)]),
            [0, 0, 1],
        ),
        (
            "DEFERRED: one packet is enough",
            history(
                policy(Deferred, 0, &[&[A, B]]),
                vec![dumb(A), (50, Payload(1))],
            ),
            [1, 0, 2],
        ),
        (
            "payload at the very end of the defer time asks",
            history(
                policy(Deferred, 0, &[&[A, B]]),
                vec![dumb(A), (30, Payload(1))],
            ),
            [1, 0, 2],
        ),
        (
            "payload before it does not",
            history(
                policy(Deferred, 0, &[&[A, B]]),
                vec![dumb(A), (29, Payload(1))],
            ),
            [0, 0, 1],
        ),
        (
            "a packet at the very end of the second response time saves it",
            history(
                policy(Instant, 0, &[&[A, B]]),
                vec![
                    dumb(A),
                    (50, Speaks(at(A))),
                    (20, Answers(at(A), Some(ms(1)))),
                ],
            ),
            [0, 0, 1],
        ),
        (
            "our own sleep kills nobody",
            history(
                policy(Instant, 0, &[&[A, B]]),
                vec![
                    dumb(A),
                    (31, Sleep(ms(300))),
                    (1, Answers(at(A), Some(ms(1)))),
                ],
            ),
            [0, 0, 1],
        ),
        (
            "a standby takes over without an exchange of its own",
            history(
                policy(Instant, 1, &[&[A, B]]),
                vec![(500, Answers(at(A), None))],
            ),
            [1, 0, 3],
        ),
        (
            "nobody there: rejected, and again by itself",
            history(
                policy(Deferred, 0, &[&[A]]),
                vec![shut(A), (0, Restart), (200, Restart)],
            ),
            [0, 6, 7],
        ),
        (
            "a dead link is no verdict",
            history(
                policy(Instant, 0, &[&[A, B]]),
                vec![(40, Link(false)), (500, Link(true))],
            ),
            [0, 0, 1],
        ),
        (
            "nor in a cluster that comes while it is down",
            history(
                policy(Instant, 0, &[&[A]]),
                vec![
                    (40, Link(false)),
                    (10, Reload(policy(Instant, 0, &[&[A], &[A, B]]))),
                    (500, Link(true)),
                ],
            ),
            [0, 0, 1],
        ),
        (
            "two clusters share a gateway, its exchange and its death",
            history(
                policy(Instant, 0, &[&[A, B], &[A, C]]),
                vec![(100, Answers(at(A), None))],
            ),
            [1, 0, 3],
        ),
    ];
    for (name, history, expected) in cases {
        let report = agreed(name, history);
        assert_eq!(
            [report.deaths, report.refusals, report.exchanges],
            expected,
            "{name}"
        );
    }
}

/// A comparison that sees nothing proves nothing: a model of another policy parts from the machine.
#[test]
fn a_history_that_breaks_is_made_small() {
    let mut found = None;
    for seed in 0..50 {
        let mut history = History::random(seed);
        // No machine keeps to a wait of no length.
        history.pace.cap = Duration::ZERO;
        if let Err(broken) = check(&history) {
            let deeds = history.deeds.len();
            let small = evergate_tests::model::shrunk(history, broken);
            assert!(small.history.deeds.len() < deeds, "{small}");
            assert_eq!(check(&small.history).as_ref().err(), Some(&small.broken));
            assert!(small.to_string().contains("the machine"), "{small}");
            found = Some(seed);
            break;
        }
    }
    assert!(found.is_some(), "the comparison sees nothing");
}

/// The model cites the sentence that it follows, and none is without a line that does.
#[test]
fn the_model_cites_each_sentence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("../docs/failover.md")).expect("the page of failover");
    let written = text
        .lines()
        .filter_map(|line| line.strip_prefix("- S")?.split_once(". "));
    let written: BTreeSet<u32> = written
        .filter_map(|(number, _)| number.parse().ok())
        .collect();
    assert_eq!(
        written.iter().copied().collect::<Vec<_>>(),
        (1..=36).collect::<Vec<_>>()
    );
    let mut cited = BTreeSet::new();
    for file in fs::read_dir(root.join("src/model")).expect("the model's files") {
        let code = fs::read_to_string(file.expect("a file").path()).expect("its text");
        for comment in code
            .lines()
            .filter_map(|line| Some(line.split_once("//")?.1))
        {
            let words = comment.split(|c: char| !c.is_ascii_alphanumeric());
            cited.extend(words.filter_map(|word| word.strip_prefix('S')?.parse::<u32>().ok()));
        }
    }
    assert_eq!(cited, written);
}
