//! Both sides replace child and IKE SAs at random over a network that loses, doubles and reorders.

use super::session::Session;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Something that happens at one side after so many milliseconds.
#[derive(Debug, Clone, Copy)]
struct Act {
    wait: u64,
    by_a: bool,
    ike: bool,
}

fn act() -> impl Strategy<Value = Act> {
    // Often at the same time, often within a round trip, sometimes apart.
    let wait = prop_oneof![3 => Just(0), 3 => 1..80_u64, 1 => 1000..5000_u64];
    let ike = prop::bool::weighted(0.4);
    (wait, any::<bool>(), ike).prop_map(|(wait, by_a, ike)| Act { wait, by_a, ike })
}

/// What happens to one datagram: it arrives after so many milliseconds, for each in the list.
fn fate() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![
        6 => (1..40_u64).prop_map(|delay| vec![delay]),
        3 => Just(Vec::new()),
        2 => (1..40_u64, 1..900_u64).prop_map(|(one, two)| vec![one, two]),
        2 => (100..900_u64).prop_map(|delay| vec![delay]),
    ]
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn one_of_each_is_left_and_nothing_leaks(
        acts in prop::collection::vec(act(), 1..12),
        fates in prop::collection::vec(fate(), 0..80),
        seed in any::<u64>(),
        pfs in any::<bool>(),
        hybrid in any::<bool>(),
    ) {
        let mut s = Session::new(|a, b| {
            for settings in [a, b] {
                settings.retransmit.tries = 60;
                settings.retransmit.cap = Duration::from_secs(1);
                if !pfs {
                    settings.child_groups = Vec::new();
                }
                if hybrid {
                    settings.fragment_size = None;
                }
            }
        });
        if hybrid {
            // Whoever answers decides: in half of the cases the client does without.
            let first = if pfs { vec![IkeProposal::default()] } else { Vec::new() };
            let of_a = [first, followup::hybrid()].concat();
            s.pair.a.engine.change_settings(|s| s.ike_proposals = of_a);
            s.pair.b.engine.change_settings(|s| s.ike_proposals = followup::hybrid());
        }
        s.pair.a.engine.reseed(StdRng::seed_from_u64(seed));
        s.pair.b.engine.reseed(StdRng::seed_from_u64(!seed));
        let mut at = s.pair.now;
        let mut acts: VecDeque<(Instant, Act)> = acts
            .into_iter()
            .map(|act| {
                at += Duration::from_millis(act.wait);
                (at, act)
            })
            .collect();
        let mut fates = fates.into_iter();
        // In the order of arrival; the number keeps equal ones apart.
        let mut wire: BTreeMap<(Instant, usize), Transmit> = BTreeMap::new();
        let mut count = 0;
        loop {
            let out = [s.pair.a.take(), s.pair.b.take()].concat();
            s.follow();
            for t in out {
                for delay in fates.next().unwrap_or(vec![10]) {
                    count += 1;
                    wire.insert((s.pair.now + Duration::from_millis(delay), count), t.clone());
                }
            }
            prop_assert!(count < 3000, "no end");
            let arrival = wire.keys().next().map(|(at, _)| *at);
            let wanted = acts.front().map(|(at, _)| *at);
            let due = [&s.pair.a, &s.pair.b].map(|n| n.engine.next_timeout().map(|(at, _)| at));
            let Some(next) = [arrival, wanted, due[0], due[1]].into_iter().flatten().min() else {
                break;
            };
            s.pair.now = s.pair.now.max(next);
            if arrival == Some(next) {
                let Some((_, t)) = wire.pop_first() else { break };
                // What it sends stays in the engine until the next round.
                let now = s.pair.now;
                let node = if t.remote == s.pair.a.address { &mut s.pair.a } else { &mut s.pair.b };
                node.engine.handle_datagram(now, t.remote, t.local, &t.data, &mut node.owner);
            } else if wanted == Some(next) {
                let Some((_, act)) = acts.pop_front() else { break };
                let (held, node) = match act.by_a {
                    true => (&s.a, &mut s.pair.a),
                    false => (&s.b, &mut s.pair.b),
                };
                let (now, id) = (s.pair.now, held.id.unwrap());
                let newest = held.children.keys().next_back().copied();
                match (act.ike, newest) {
                    (true, _) => node.engine.rekey_ike(now, id),
                    (false, Some(spi)) => node.engine.rekey_child(now, id, spi),
                    (false, None) => {}
                }
            } else {
                for node in [&mut s.pair.a, &mut s.pair.b] {
                    node.engine.handle_timeout(s.pair.now, &mut node.owner);
                }
            }
        }
        prop_assert_eq!((&s.a.closed, &s.b.closed), (&None, &None));
        s.assert_whole();
        // What stands after all that can still be replaced.
        let request = s.a_rekeys_ike();
        prop_assert_eq!(s.carry(request), if hybrid { 6 } else { 4 });
        let request = s.b_rekeys_child();
        prop_assert_eq!(s.carry(request), 4);
        s.assert_whole();
    }
}
