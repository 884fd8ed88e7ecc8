//! An authority, its edges and stock clients under a virtual clock: random scenarios, each of a seed. `cargo xtask
//! simulate --shared` runs as many as one likes.

use std::time::Duration;

use evergate_tests::sim::{
    Rekeying, SharedReport as Report, SharedScenario as Scenario, SharedWorld as World, Trouble,
    hunt_shared,
};

/// Without optimisation only a few are soon done; `cargo xtask test` runs many more after these.
const SEEDS: u64 = if cfg!(debug_assertions) { 6 } else { 200 };

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Three edges, one client, and nothing that comes twice.
fn calm(seed: u64) -> Scenario {
    let mut scenario = Scenario::random(seed);
    (scenario.clients, scenario.edges) = (1, 3);
    (scenario.loss, scenario.doubled, scenario.repeated) = (0, 0, 0);
    (scenario.rekeying, scenario.terms) = (None, evergate::cluster::Terms::default());
    (scenario.everywhere, scenario.pace) = (true, Duration::from_millis(4));
    scenario.troubles.clear();
    scenario
}

fn run(scenario: &Scenario) -> Report {
    World::run(scenario).unwrap_or_else(|broken| panic!("{broken}\n{scenario:#?}"))
}

/// Packets that got no answer, beside those on their way when the run ends, and before the first session.
fn lost(report: &Report) -> u64 {
    (report.sent - report.answered).saturating_sub(20)
}

#[test]
fn whatever_happens_the_promises_hold() {
    let sum = hunt_shared(0..SEEDS, u64::MAX, |_| ()).unwrap_or_else(|found| panic!("{found}"));
    println!("{sum}");
    assert_eq!(sum.runs, SEEDS);
    assert!(sum.answered > 0 && sum.deaths > 0 && sum.changes > 0);
}

#[test]
fn a_seed_is_run_again_exactly() {
    for seed in 0..3 {
        let scenario = Scenario::random(seed);
        assert_eq!(World::run(&scenario), World::run(&scenario), "seed {seed}");
    }
}

/// A simulator that sees nothing proves nothing: without edges nobody is served, and if the channel takes
/// whoever can not be heard for dead, packets are accepted twice.
#[test]
fn what_is_wrong_is_found() {
    let mut scenario = calm(1);
    scenario.troubles = (0..3)
        .map(|edge| (seconds(2), Trouble::PullWan(edge)))
        .collect();
    let alone = run(&scenario);
    assert!(alone.answered < alone.sent, "{alone:?}");
    let lies = (0..40).find_map(|seed| {
        let mut scenario = Scenario::random(seed);
        (scenario.lies, scenario.repeated) = (true, 500);
        for turn in 0..10 {
            let at = seconds(3 * turn);
            let edge = turn as usize % scenario.edges;
            scenario.troubles.push((at, Trouble::Herd(edge)));
            let cut = at + Duration::from_millis(500);
            scenario.troubles.push((cut, Trouble::Cut(edge)));
            scenario
                .troubles
                .push((cut + seconds(8), Trouble::Join(edge)));
        }
        scenario.troubles.sort_by_key(|(at, _)| *at);
        World::run(&scenario).err()
    });
    let found = lies.expect("something was accepted twice");
    assert!(found.what.contains("twice"), "{found}");
}

#[test]
fn a_client_that_moves_between_edges_loses_nothing() {
    let mut scenario = calm(2);
    for turn in 0..20 {
        let at = seconds(2) + turn * Duration::from_millis(300);
        let edge = turn as usize % 3;
        scenario.troubles.push((at, Trouble::Route(0, edge)));
    }
    let report = run(&scenario);
    assert!(report.changes > 15 && lost(&report) == 0, "{report:?}");
    assert!(report.longest < Duration::from_millis(150), "{report:?}");
}

#[test]
fn a_drain_loses_nothing() {
    let mut scenario = calm(3);
    scenario.troubles = vec![
        (seconds(2), Trouble::Drain(0, seconds(30))),
        (seconds(3), Trouble::Route(0, 1)),
        (seconds(4), Trouble::Stop(0)),
    ];
    let report = run(&scenario);
    assert!(report.anew == 0 && lost(&report) == 0, "{report:?}");
}

#[test]
fn an_authority_that_is_started_again_costs_nothing() {
    let mut scenario = calm(4);
    scenario.troubles = vec![
        (seconds(2), Trouble::AuthorityStopped),
        (seconds(4), Trouble::AuthorityStarts),
        (seconds(8), Trouble::Route(0, 2)),
    ];
    let report = run(&scenario);
    assert!(report.anew == 0 && lost(&report) == 0, "{report:?}");
}

#[test]
fn an_edge_that_is_killed_costs_milliseconds_and_no_exchange() {
    let mut scenario = calm(5);
    for turn in 0..4 {
        let (at, edge) = (seconds(4 + 4 * turn), turn as usize % 3);
        let killed = at + Duration::from_millis(1);
        scenario.troubles.push((at, Trouble::Kill(edge)));
        let next = (edge + 1) % 3;
        scenario.troubles.push((killed, Trouble::Route(0, next)));
        scenario
            .troubles
            .push((at + seconds(1), Trouble::Start(edge)));
    }
    let report = run(&scenario);
    assert!(report.anew == 0 && report.deaths == 4, "{report:?}");
    assert!(report.longest < Duration::from_millis(300), "{report:?}");
    assert!(report.promises.standby >= 4, "{report:?}");
}

/// Pairs go to the last edge only; one that was cut off still has a pair that the authority has given up meanwhile.
#[test]
fn an_edge_forgets_what_its_authority_has_given_up() {
    let mut scenario = calm(6);
    scenario.everywhere = false;
    scenario.rekeying = Some(Rekeying {
        child: seconds(4),
        ike: seconds(60),
        packets: u64::MAX,
    });
    scenario.troubles = vec![
        (seconds(2), Trouble::Cut(0)),
        (seconds(20), Trouble::Join(0)),
        (seconds(40), Trouble::Route(0, 0)),
    ];
    let report = run(&scenario);
    assert!(report.anew > 0, "{report:?}");
}
