//! The whole cluster under a virtual clock: random scenarios, each of a seed. `cargo xtask simulate` runs
//! as many as one likes.

use std::time::Duration;

use evergate_tests::sim::{Fault, Herd, Rekeying, Scenario, World, hunt};

/// Without optimisation only a few are soon done; `cargo xtask test` runs many more after these.
const SEEDS: u64 = if cfg!(debug_assertions) { 10 } else { 400 };

#[test]
fn whatever_happens_the_promises_hold() {
    let sum = hunt(0..SEEDS, u64::MAX, |_| ()).unwrap_or_else(|found| panic!("{found}"));
    println!("{sum}");
    assert_eq!(sum.runs, SEEDS);
    assert!(sum.answered > 0);
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
        .map(|g| (Duration::from_secs(1), Fault::Mute(g)))
        .collect();
    scenario.loss = 0;
    let alone = World::run(&scenario).expect("there is no promise without a gateway");
    scenario.faults.clear();
    let well = World::run(&scenario).expect("all is well");
    assert!(well.answered > 5 * alone.answered, "{well:?} {alone:?}");
    assert!(
        alone.failovers > 0 && well.failovers == 0,
        "{well:?} {alone:?}"
    );
}

#[test]
fn a_drain_loses_nothing() {
    let mut scenario = Scenario::random(2);
    (scenario.gateways, scenario.loss, scenario.doubled) = (3, 0, 0);
    for standby in [0, 1] {
        scenario.standby = standby;
        scenario.faults = vec![(Duration::from_secs(2), Fault::Drain(0))];
        let report = World::run(&scenario).expect("all is well");
        // Those on their way when the run ends, and those before the first session.
        assert!(report.sent - report.answered < 20, "{report:?}");
        assert!(report.longest < 4 * scenario.pace, "{report:?}");
    }
}

#[test]
fn fresh_keys_and_moves_lose_nothing_for_long() {
    let mut scenario = Scenario::random(3);
    (scenario.loss, scenario.doubled) = (0, 0);
    scenario.rekeying = Some(Rekeying {
        child: Duration::from_secs(1),
        ike: Duration::from_secs(2),
        packets: 50,
    });
    for nat in [false, true] {
        scenario.nat = nat;
        scenario.faults = vec![(Duration::from_secs(20), Fault::Loss(0))];
        let report = World::run(&scenario).expect("all is well");
        assert!(report.rekeyings > 20, "{report:?}");
        // Those before the first session, and on their way when the run ends.
        assert!(report.sent - report.answered < 20, "{report:?}");
        for at in 1..10 {
            let moved = [Fault::Move(0), Fault::Remap(0)][at % 2];
            let at = Duration::from_secs(2 * at as u64);
            scenario.faults.push((at, moved));
        }
        scenario.faults.sort_by_key(|(at, _)| *at);
        let report = World::run(&scenario).expect("all is well");
        assert!(report.moves >= if nat { 9 } else { 4 }, "{report:?}");
        assert!(report.longest < Duration::from_secs(1), "{report:?}");
    }
}

/// `cargo xtask simulate --herd 10000` does the same with many more.
#[test]
fn a_herd_that_loses_a_gateway_spreads_evenly() {
    for standby in [0, 1] {
        let herd = Herd::run(300, standby, 1).unwrap_or_else(|broken| panic!("{broken}"));
        assert!(herd.is_even(), "{herd}");
    }
}
