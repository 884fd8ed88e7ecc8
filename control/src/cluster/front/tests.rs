//! Who lives, and whose the slots are.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use evergate_common::front::{NO_NODE, SLOTS};
use evergate_common::heartbeat::HEALTH_DRAINING;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Standing::{Dead, Draining, Proving, Well};
use super::*;

const PACE: Pace = Pace {
    interval: Duration::from_millis(10),
    tries: 5,
};

/// A table as it ends up, and a second one that sees every change.
#[derive(Default)]
struct Seen {
    slots: Slots,
    map: HashMap<u32, u8>,
}

impl Seen {
    fn change(&mut self, nodes: &[(u8, Standing)], pace: usize) -> usize {
        let changed = self.slots.change(nodes, pace);
        for (slot, number) in &changed {
            let before = self.map.insert(*slot, *number);
            assert_ne!(before.unwrap_or(NO_NODE), *number, "no change");
        }
        let mut led = [0; 8];
        for number in self.map.values().filter(|number| **number < 8) {
            led[usize::from(*number)] += 1;
        }
        led[usize::from(NO_NODE)] += SLOTS as usize - self.map.len();
        for (number, led) in (0..).zip(led) {
            assert_eq!(self.slots.share(number), led);
        }
        changed.len()
    }

    fn settle(&mut self, nodes: &[(u8, Standing)]) {
        while self.change(nodes, 1000) > 0 {}
    }
}

fn all(numbers: &[u8], standing: Standing) -> Vec<(u8, Standing)> {
    numbers.iter().map(|number| (*number, standing)).collect()
}

#[test]
fn shares_are_even() {
    for count in [1_u8, 2, 3, 5, 10, 62] {
        let numbers: Vec<u8> = (1..=count).collect();
        let mut seen = Seen::default();
        seen.settle(&all(&numbers, Well));
        let fair = f64::from(SLOTS) / f64::from(count);
        for number in numbers {
            let share = seen.slots.share(number) as f64;
            // Five deviations.
            let off = 5.0 * fair.sqrt();
            assert!((share - fair).abs() < off, "{number} of {count}: {share}");
        }
    }
}

#[test]
fn a_node_that_dies_loses_its_slots_at_once_and_gets_them_back_slowly() {
    let mut seen = Seen::default();
    assert!(seen.change(&all(&[1, 2, 3], Well), 0) == SLOTS as usize);
    let before = seen.map.clone();
    let (dead, kept): (Vec<_>, Vec<_>) = before.iter().partition(|(_, number)| **number == 2);
    let moved = seen.change(&[(1, Well), (2, Dead), (3, Well)], 0);
    assert_eq!(moved, dead.len());
    assert!(kept.iter().all(|(slot, number)| seen.map[slot] == **number));
    // While it proves itself it gets nothing.
    assert_eq!(seen.change(&[(1, Well), (2, Proving), (3, Well)], 20), 0);
    let nodes = all(&[1, 2, 3], Well);
    assert_eq!(seen.change(&nodes, 20), 20);
    assert!(seen.slots.is_moving());
    assert_eq!(seen.slots.share(2), 20);
    seen.settle(&nodes);
    assert!(!seen.slots.is_moving());
    assert_eq!(seen.map, before);
}

#[test]
fn a_draining_node_has_what_nobody_else_can_take() {
    let mut seen = Seen::default();
    seen.change(&all(&[1, 2], Well), 0);
    seen.change(&[(1, Draining), (2, Well)], 0);
    assert_eq!(
        (seen.slots.share(1), seen.slots.share(2)),
        (0, SLOTS as usize)
    );
    seen.change(&[(1, Draining), (2, Dead)], 0);
    assert_eq!(seen.slots.share(1), SLOTS as usize);
    seen.change(&[(1, Dead), (2, Dead)], 0);
    assert_eq!(seen.slots.share(NO_NODE), SLOTS as usize);
    // Better one that has just come back than none.
    seen.change(&[(1, Dead), (2, Proving)], 0);
    assert_eq!(seen.slots.share(2), SLOTS as usize);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

    /// Whatever happened before: in the end every front that sees the same has the same table, and a node
    /// more or less moves only the slots that it gets or had.
    #[test]
    fn tables_come_to_the_same_and_little_moves(
        past in proptest::collection::vec(proptest::collection::vec(0..4_u8, 6), 0..8),
        now in proptest::collection::vec(0..4_u8, 6),
        other in 0..6_usize,
        pace in 0..200_usize,
    ) {
        let standing = |drawn: &u8| [Dead, Draining, Proving, Well][usize::from(*drawn)];
        let nodes = |drawn: &[u8]| -> Vec<_> { (1..).zip(drawn.iter().map(standing)).collect() };
        let mut seen = Seen::default();
        for drawn in &past {
            let drawn = nodes(drawn);
            seen.change(&drawn, pace);
            // Never to somebody who should not have it, at no time.
            let alive = drawn.iter().any(|(_, standing)| *standing != Dead);
            prop_assert_eq!(seen.slots.share(NO_NODE) == 0, alive);
            for (number, standing) in &drawn {
                let better = drawn.iter().any(|(_, other)| *other > Draining);
                let may = *standing >= Proving || *standing == Draining && !better;
                prop_assert!(may || seen.slots.share(*number) == 0);
            }
        }
        let now = nodes(&now);
        seen.settle(&now);
        let mut fresh = Seen::default();
        fresh.settle(&now);
        prop_assert_eq!(&seen.map, &fresh.map);
        let well: Vec<u8> = (1..=6).collect();
        fresh.settle(&all(&well, Well));
        let whole = fresh.map.clone();
        let mut less = all(&well, Well);
        less[other].1 = Dead;
        fresh.settle(&less);
        for (slot, number) in whole {
            prop_assert_eq!(fresh.map[&slot] == number, number != less[other].0);
        }
    }
}

/// A front, nodes that answer or do not, and a clock.
struct World {
    roster: Roster,
    now: Instant,
    rng: StdRng,
    answer: HashMap<u8, u8>,
}

impl World {
    fn new(others: &[u8], own: Option<u8>) -> Self {
        let now = Instant::now();
        let mut roster = Roster::new(others, own, PACE, now);
        others
            .iter()
            .for_each(|number| roster.set_way(*number, true));
        Self {
            roster,
            now,
            rng: StdRng::seed_from_u64(7),
            answer: others.iter().map(|number| (*number, 0)).collect(),
        }
    }

    /// Until then every heartbeat of those who answer is answered after a millisecond.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.roster.poll(self.now, &mut self.rng);
            let asks: Vec<Ask> = std::iter::from_fn(|| self.roster.next_ask()).collect();
            for ask in asks {
                if let Some(health) = self.answer.get(&ask.number) {
                    let at = self.now + Duration::from_millis(1);
                    let Ask {
                        number,
                        counter,
                        token,
                    } = ask;
                    assert!(self.roster.on_answer(number, counter, token, *health, at));
                    assert!(
                        !self.roster.on_answer(number, counter, token, *health, at),
                        "twice"
                    );
                }
            }
            let next = self.roster.next_deadline();
            assert!(next > self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
        }
    }

    fn standing(&self, number: u8) -> Standing {
        let all = self.roster.standings();
        all.iter().find(|(n, _)| *n == number).unwrap().1
    }
}

#[test]
fn who_answers_lives_and_who_does_not_is_dead_within_sixty_milliseconds() {
    let mut world = World::new(&[1, 2], None);
    assert!(!world.roster.is_ready(world.now));
    world.run(Duration::from_millis(1));
    assert_eq!((world.standing(1), world.standing(2)), (Well, Well));
    assert!(world.roster.is_ready(world.now));
    world.answer.remove(&2);
    world.run(Duration::from_millis(45));
    assert_eq!(world.standing(2), Well);
    world.run(Duration::from_millis(15));
    assert_eq!((world.standing(1), world.standing(2)), (Well, Dead));
    world.answer.insert(2, 0);
    world.run(Duration::from_millis(11));
    assert_eq!(world.standing(2), Proving);
    world.run(Duration::from_secs(1));
    assert_eq!(world.standing(2), Well);
}

#[test]
fn a_node_that_never_answers_does_not_hold_up_the_others() {
    let mut world = World::new(&[1, 2], Some(3));
    world.answer.remove(&2);
    world.roster.set_own(Some(0), world.now);
    world.run(Duration::from_millis(50));
    assert!(!world.roster.is_ready(world.now));
    world.run(Duration::from_millis(20));
    assert!(world.roster.is_ready(world.now));
    let standings = [1, 2, 3].map(|number| world.standing(number));
    assert_eq!(standings, [Well, Dead, Well]);
    // The front asks nobody whether it lives itself.
    assert_eq!(
        world.roster.watched().map(|w| w.sent).collect::<Vec<_>>()[2],
        0
    );
    world.roster.set_own(None, world.now);
    assert_eq!(world.standing(3), Dead);
}

#[test]
fn one_that_comes_and_goes_proves_itself_longer_each_time() {
    let mut world = World::new(&[1], None);
    world.run(Duration::from_secs(100));
    let mut proofs = Vec::new();
    for _ in 0..8 {
        world.answer.remove(&1);
        world.run(Duration::from_millis(100));
        assert_eq!(world.standing(1), Dead);
        world.answer.insert(1, 0);
        world.run(Duration::from_millis(20));
        let mut proof = 0;
        while world.standing(1) == Proving {
            world.run(Duration::from_millis(500));
            proof += 500;
        }
        proofs.push(proof / 1000);
    }
    assert_eq!(proofs, [1, 2, 4, 8, 16, 32, 32, 32]);
    world.run(Duration::from_secs(61));
    world.answer.remove(&1);
    world.run(Duration::from_millis(100));
    world.answer.insert(1, 0);
    world.run(Duration::from_millis(1100));
    assert_eq!(world.standing(1), Well, "what was long ago counts no more");
}

#[test]
fn health_and_ways_count() {
    let mut world = World::new(&[1], None);
    world.answer.insert(1, HEALTH_DRAINING);
    world.run(Duration::from_millis(20));
    assert_eq!(world.standing(1), Draining);
    world.answer.insert(1, 0);
    world.run(Duration::from_millis(20));
    assert_eq!(world.standing(1), Well, "it takes clients again");
    world.roster.set_way(1, false);
    assert_eq!(world.standing(1), Dead);
    world.roster.set_way(1, true);
    assert_eq!(world.standing(1), Well);
}

#[test]
fn a_front_that_overslept_takes_nobody_for_dead() {
    let mut world = World::new(&[1], None);
    world.run(Duration::from_millis(20));
    for _ in 0..50 {
        world.now += Duration::from_millis(400);
        world.run(Duration::ZERO);
        assert_eq!(world.standing(1), Well);
    }
}

#[test]
fn only_answers_to_what_was_asked_count() {
    let mut world = World::new(&[1, 2], None);
    world.roster.poll(world.now, &mut world.rng);
    let ask = world.roster.next_ask().unwrap();
    let Ask {
        number,
        counter,
        token,
    } = ask;
    let (roster, now) = (&mut world.roster, world.now);
    assert!(
        !roster.on_answer(3 - number, counter, token, 0, now),
        "another node's"
    );
    assert!(!roster.on_answer(number, counter + 1, token, 0, now));
    assert!(!roster.on_answer(number, counter, [0; 8], 0, now));
    assert!(!roster.on_answer(9, counter, token, 0, now));
    assert_eq!(world.standing(number), Dead);
}
