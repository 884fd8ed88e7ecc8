//! Paths under a virtual clock.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::table::Event;
use super::*;

const S: Duration = Duration::from_secs(1);

/// A path that carries `carries` bytes, says so by ICMP or not, and a peer on its other end.
struct World {
    now: Instant,
    path: PathMtu,
    carries: u32,
    icmp: bool,
    /// Whether the peer sends other things too.
    peer: bool,
    probes: u32,
}

impl World {
    fn new(limit: u32, carries: u32, icmp: bool) -> Self {
        let now = Instant::now();
        let mut path = PathMtu::new(limit, now);
        path.begin(now);
        Self {
            now,
            path,
            carries,
            icmp,
            peer: true,
            probes: 0,
        }
    }

    /// Goes on until `time` has passed; probes are answered at once.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let heard = self.peer.then_some(self.now);
            while let Some(size) = self.path.poll(self.now, heard) {
                self.probes += 1;
                assert!(size <= self.path.limit, "no probe is longer than the link");
                if size <= self.carries {
                    self.path.on_answer(size, self.now);
                } else if self.icmp {
                    self.path.on_too_long(self.carries, self.now);
                }
            }
            match self.path.next_deadline() {
                Some((at, _)) if at <= end => {
                    assert!(at >= self.now || self.path.probe.is_none());
                    self.now = self.now.max(at);
                }
                _ => break,
            }
            assert!(self.probes < 10_000, "probes without end");
        }
        self.now = end;
    }

    fn shown(&self) -> (u32, Phase) {
        (self.path.size(), self.path.phase())
    }
}

#[test]
fn the_table_is_the_one_in_the_documentation() {
    let documentation = include_str!("../../../../docs/mtu.md");
    for phase in Phase::ALL {
        let cells = Event::ALL
            .iter()
            .map(|(event, _)| phase.after(*event).map_or("–", Phase::word));
        let row = format!(
            "| {} | {} |",
            phase.word(),
            cells.collect::<Vec<_>>().join(" | ")
        );
        assert!(documentation.contains(&row), "docs/mtu.md lacks: {row}");
    }
    let words: Vec<_> = Event::ALL.iter().map(|(_, word)| *word).collect();
    let head = format!("| phase | {} |", words.join(" | "));
    assert!(documentation.contains(&head), "docs/mtu.md lacks: {head}");
}

#[test]
fn a_path_as_wide_as_its_first_link_takes_one_probe() {
    let mut world = World::new(1500, 1500, true);
    assert_eq!(world.shown(), (1500, Phase::Searching));
    world.run(S);
    assert_eq!((world.shown(), world.probes), ((1500, Phase::Complete), 1));
    world.run(3600 * S);
    assert_eq!(world.probes, 1, "without traffic there is nothing to see");
}

#[test]
fn a_black_hole_is_found_and_what_it_carries_too() {
    for carries in [1280, 1300, 1390, 1400, 1450, 1492, 1499] {
        let mut world = World::new(1500, carries, false);
        world.run(Duration::from_millis(1100));
        assert_eq!(
            world.path.size(),
            BASE,
            "one lost probe is enough to send less"
        );
        world.run(60 * S);
        let (size, phase) = world.shown();
        assert_eq!(phase, Phase::Complete, "{carries}");
        assert!(
            size <= carries && carries - size <= GRAIN,
            "{size} of {carries}"
        );
    }
}

#[test]
fn a_path_that_narrows_in_silence_is_noticed_while_long_packets_go() {
    let mut world = World::new(1500, 1500, false);
    world.run(S);
    world.carries = 1400;
    world.run(100 * S);
    assert_eq!(world.shown(), (1500, Phase::Complete), "nobody sends");
    world.path.on_long();
    world.run(4 * S);
    assert_eq!(
        world.shown(),
        (1400, Phase::Searching),
        "after three probes, a second each"
    );
    world.run(20 * S);
    assert_eq!(world.shown(), (1400, Phase::Complete));
    world.carries = 1500;
    world.run(RAISE);
    world.run(10 * S);
    assert_eq!(world.shown(), (1500, Phase::Complete), "and widens again");
}

#[test]
fn silence_of_the_peer_is_no_sign_about_sizes() {
    let mut world = World::new(1500, 0, false);
    world.peer = false;
    world.run(600 * S);
    assert_eq!(world.shown(), (1500, Phase::Searching));
    assert!(world.probes < 20, "{} probes into silence", world.probes);
    (world.peer, world.carries) = (true, 1500);
    world.run(70 * S);
    assert_eq!(world.shown(), (1500, Phase::Complete));
}

#[test]
fn not_even_the_least_size_passes() {
    let mut world = World::new(1500, 1000, false);
    world.run(20 * S);
    assert_eq!(world.shown(), (BASE, Phase::Error));
    world.carries = 1500;
    world.run(40 * S);
    assert_eq!(world.shown(), (1500, Phase::Complete));
}

#[test]
fn icmp_that_is_true_takes_two_probes() {
    let mut world = World::new(1500, 1500, true);
    world.run(S);
    world.carries = 1432;
    assert!(world.path.on_too_long(1432, world.now));
    assert_eq!(world.path.size(), 1432, "believed at once");
    world.probes = 0;
    world.run(S);
    assert_eq!((world.shown(), world.probes), ((1432, Phase::Complete), 2));
    assert!(!world.path.on_too_long(1432, world.now), "no news");
}

#[test]
fn icmp_that_is_true_and_not_repeated_needs_no_search() {
    let mut world = World::new(1500, 1500, false);
    world.run(S);
    world.carries = 1432;
    world.path.on_too_long(1432, world.now);
    world.run(4 * S);
    assert_eq!(world.shown(), (1432, Phase::Complete));
    assert_eq!(
        world.probes,
        1 + 1 + 3,
        "1500; then 1432, and 1500 three times"
    );
}

#[test]
fn icmp_that_lies_lasts_for_a_round_trip() {
    let mut world = World::new(1500, 1500, true);
    world.run(S);
    assert!(world.path.on_too_long(1300, world.now));
    assert_eq!(world.path.size(), 1300);
    world.run(Duration::from_millis(1));
    assert_eq!(world.shown(), (1500, Phase::Complete));
    assert!(!world.path.on_too_long(1300, world.now), "once a minute");
    world.now += DEAF;
    assert!(world.path.on_too_long(100, world.now));
    assert_eq!(
        world.path.size(),
        BASE,
        "never below what every path carries"
    );
}

#[test]
fn without_probes_icmp_is_believed_for_ten_minutes() {
    let now = Instant::now();
    let mut path = PathMtu::new(1500, now);
    assert!(path.is_trivial());
    assert!(path.on_too_long(1400, now) && !path.on_too_long(1450, now));
    assert_eq!((path.size(), path.is_trivial()), (1400, false));
    assert_eq!(path.poll(now + AGE - S, None), None);
    assert_eq!(path.size(), 1400);
    assert!(path.on_too_long(1400, now + AGE - S), "it says so again");
    path.poll(now + AGE, None);
    assert_eq!(path.size(), 1400);
    path.poll(now + AGE * 2, None);
    assert!(path.is_trivial());
    assert!(path.on_too_long(0, now), "a router that does not know");
    assert_eq!(path.size(), BASE);
}

#[test]
fn what_the_peer_found_is_followed() {
    let now = Instant::now();
    let mut path = PathMtu::new(1500, now);
    path.on_said(1404, now);
    assert_eq!(path.size(), 1404);
    path.on_said(10, now);
    assert_eq!(path.size(), BASE);
    path.on_said(9000, now);
    assert!(path.is_trivial() && path.next_deadline().is_none());
}

#[test]
fn another_route_has_another_limit() {
    let mut world = World::new(1500, 9000, false);
    world.run(S);
    world.path.set_limit(1400, world.now);
    assert_eq!(world.path.size(), 1400);
    world.run(S);
    assert_eq!(world.shown(), (1400, Phase::Complete));
    world.path.set_limit(1500, world.now);
    world.run(S);
    assert_eq!(world.shown(), (1500, Phase::Complete));
    world.path.set_limit(1000, world.now);
    assert_eq!(
        world.path.size(),
        1000,
        "a route may have less than any path"
    );
    world.run(S);
    assert_eq!(world.shown(), (1000, Phase::Complete));
}

#[test]
fn a_session_that_rests_probes_nothing() {
    let mut world = World::new(1500, 1400, false);
    world.run(S / 2);
    world.path.pause();
    let probes = world.probes;
    world.run(100 * S);
    assert_eq!(world.probes, probes);
    world.path.begin(world.now);
    world.run(30 * S);
    assert_eq!(world.shown(), (1400, Phase::Complete));
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u16),
    Carries(u32),
    Limit(u32),
    Lie(u32),
    Said(u32),
    Long,
    Silence(bool),
    Pause,
    Begin,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = || 500u32..2000;
    let step = prop_oneof![
        (0u16..3000).prop_map(Step::Wait),
        size().prop_map(Step::Carries),
        size().prop_map(Step::Limit),
        (0u32..3000).prop_map(Step::Lie),
        (0u32..3000).prop_map(Step::Said),
        Just(Step::Long),
        any::<bool>().prop_map(Step::Silence),
        Just(Step::Pause),
        Just(Step::Begin),
        Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn whatever_happens_the_size_is_in_bounds_and_found_in_the_end(
        steps in steps(), icmp: bool, carries in BASE..1500
    ) {
        let mut world = World::new(1500, 1500, icmp);
        for step in steps {
            match step {
                Step::Wait(ms) => world.run(Duration::from_millis(ms.into())),
                Step::Carries(size) => world.carries = size,
                Step::Limit(size) => world.path.set_limit(size, world.now),
                Step::Lie(size) => { world.path.on_too_long(size, world.now); }
                Step::Said(size) => world.path.on_said(size, world.now),
                Step::Long => world.path.on_long(),
                Step::Silence(silent) => world.peer = !silent,
                Step::Pause => world.path.pause(),
                Step::Begin => world.path.begin(world.now),
                Step::Restart => world.path.restart(world.now),
            }
            let (size, limit) = (world.path.size(), world.path.limit);
            prop_assert!(size <= limit && size >= BASE.min(limit), "{} of {}", size, limit);
            prop_assert!(world.path.low < world.path.high);
        }
        // Quiet at last: what the path carries is found, within the grain.
        (world.peer, world.carries) = (true, carries);
        world.path.set_limit(1500, world.now);
        world.path.begin(world.now);
        for _ in 0..4 {
            world.path.on_long();
            world.run(RAISE + 60 * S);
        }
        let (size, phase) = world.shown();
        prop_assert_eq!(phase, Phase::Complete);
        prop_assert!(size <= carries && carries - size <= GRAIN, "{} of {}", size, carries);
    }
}
