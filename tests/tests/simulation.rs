//! The whole cluster under a virtual clock: random scenarios, each of a seed. `EVERGATE_SEED` runs one
//! again, `EVERGATE_SEEDS` so many.

use evergate_tests::sim::{Broken, Fault, Scenario, World};

/// As many as take a quarter of a minute; without optimisation that is few.
const SEEDS: u64 = if cfg!(debug_assertions) { 10 } else { 400 };

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// The same scenario without what is not needed to break it.
fn shrunk(mut scenario: Scenario, mut broken: Broken) -> (Scenario, Broken) {
    let mut at = 0;
    while at < scenario.faults.len() {
        let mut less = scenario.clone();
        less.faults.remove(at);
        match World::run(&less) {
            Ok(_) => at += 1,
            Err(other) => (scenario, broken) = (less, other),
        }
    }
    (scenario, broken)
}

#[test]
fn whatever_happens_the_promises_hold() {
    let seeds = match number("EVERGATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("EVERGATE_SEEDS").unwrap_or(SEEDS),
    };
    let (mut failovers, mut answered) = (0, 0);
    for seed in seeds.clone() {
        let scenario = Scenario::random(seed);
        match World::run(&scenario) {
            Ok(report) => {
                failovers += report.failovers;
                answered += report.answered;
            }
            Err(broken) => {
                let (scenario, broken) = shrunk(scenario, broken);
                panic!("{broken}\n{scenario:#?}");
            }
        }
    }
    println!("{seeds:?}: {failovers} failovers, {answered} answers");
    assert!(answered > 0);
}

#[test]
fn a_seed_is_run_again_exactly() {
    for seed in 0..2 {
        let scenario = Scenario::random(seed);
        assert_eq!(World::run(&scenario), World::run(&scenario), "seed {seed}");
    }
}

/// A simulator that sees nothing proves nothing.
#[test]
fn a_cluster_without_any_gateway_serves_nobody() {
    let mut scenario = Scenario::random(1);
    scenario.faults = (0..scenario.gateways)
        .map(|g| (std::time::Duration::from_secs(1), Fault::Mute(g)))
        .collect();
    scenario.loss = 0;
    let alone = World::run(&scenario).expect("there is no promise without a gateway");
    scenario.faults.clear();
    let well = World::run(&scenario).expect("all is well");
    assert!(well.answered > 5 * alone.answered, "{well:?} {alone:?}");
    assert_eq!((alone.failovers, well.failovers), (0, 0));
}

#[test]
fn a_drain_loses_nothing() {
    let mut scenario = Scenario::random(2);
    (scenario.gateways, scenario.loss, scenario.doubled) = (3, 0, 0);
    for standby in [0, 1] {
        scenario.standby = standby;
        scenario.faults = vec![(std::time::Duration::from_secs(2), Fault::Drain(0))];
        let report = World::run(&scenario).expect("all is well");
        // Those on their way when the run ends, and those before the first session.
        assert!(report.sent - report.answered < 20, "{report:?}");
        assert!(report.longest < 4 * scenario.pace, "{report:?}");
    }
}
