//! Who is asked, and which answer counts.

use proptest::prelude::*;

use super::*;
use crate::cluster::connectivity::{Asked, CARRIERS, QUESTIONS};

const SPI: u32 = 4711;
const WHAT: Asked = Asked::Spi(SPI);

/// Who is asked, and under which number.
fn asked(outputs: Vec<(EdgeId, Output)>) -> Vec<(EdgeId, u64)> {
    let all = outputs.into_iter().map(|(by, output)| match output {
        Output::Asked { id, what, .. } => {
            assert_eq!(what, WHAT);
            (by, id)
        }
        other => panic!("{other:?}"),
    });
    all.collect()
}

/// The only thing that is to be done.
fn one(outputs: Vec<(EdgeId, Output)>) -> Output {
    let [(by, output)] = <[_; 1]>::try_from(outputs).unwrap();
    assert_eq!(by, ONE);
    output
}

fn ask(net: &mut Net) -> Vec<(EdgeId, u64)> {
    let now = net.now;
    net.node(ONE).ask(Some(0), WHAT, now);
    asked(net.run())
}

fn found(carriers: Vec<(EdgeId, Carrier)>) -> Output {
    let carriers = carriers
        .into_iter()
        .map(|(from, carrier)| (party(from), carrier));
    Output::Found {
        link: Some(0),
        what: WHAT,
        carriers: carriers.collect(),
    }
}

fn lacking() -> Output {
    let (link, what) = (Some(0), WHAT);
    Output::Lacking { link, what }
}

#[test]
fn the_most_current_answer_counts() {
    // By time stamp, and by sequence number where that is the same.
    for (two, three, first) in [((5, 9), (6, 1), THREE), ((5, 9), (5, 8), TWO)] {
        let mut net = Net::of(&[AUTHORITY, ONE, TWO, THREE]);
        let all = ask(&mut net);
        assert_eq!(all.len(), 2, "edges only");
        let mut answers = Vec::new();
        for (by, id) in all {
            assert!(answers.len() == 1 || net.run().is_empty());
            let (stamp, sequence) = if by == TWO { two } else { three };
            let carrier = carrier(SPI, stamp, sequence);
            answers.push((by, carrier.clone()));
            net.node(by).answer(party(ONE), id, vec![carrier]);
        }
        answers.sort_by_key(|(by, _)| *by != first);
        assert_eq!(one(net.run()), found(answers), "all have answered");
        assert_eq!(net.node(ONE).tally().found, 1);
    }
}

#[test]
fn an_answer_of_no_use_is_passed_over() {
    let mut expired = carrier(SPI, 99, 1);
    expired.pair.expires = SECONDS;
    let mut broken = carrier(SPI, 98, 1);
    broken.pair.inbound.key = [1; 3].as_slice().into();
    let other = carrier(SPI + 1, 97, 1);
    for bad in [expired, broken, other] {
        let mut net = Net::of(&[ONE, TWO, THREE]);
        let good = carrier(SPI, 1, 1);
        for (by, id) in ask(&mut net) {
            let carrier = if by == TWO { &bad } else { &good };
            net.node(by).answer(party(ONE), id, vec![carrier.clone()]);
        }
        assert_eq!(one(net.run()), found(vec![(THREE, good)]));
        assert_eq!(net.node(ONE).tally().unusable, 1);
    }
}

#[test]
fn nobody_waits_longer_than_that() {
    let mut net = Net::of(&[ONE, TWO, THREE]);
    let all = ask(&mut net);
    assert!(net.pass(PATIENCE - ms(1)).is_empty());
    net.node(TWO)
        .answer(party(ONE), all[0].1, vec![carrier(SPI, 1, 1)]);
    assert!(net.run().is_empty(), "the third may know better");
    let outputs = net.pass(ms(1));
    assert_eq!(one(outputs), found(vec![(TWO, carrier(SPI, 1, 1))]));
    net.node(THREE)
        .answer(party(ONE), all[1].1, vec![carrier(SPI, 2, 1)]);
    assert!(net.run().is_empty());
    assert_eq!(net.node(ONE).tally().late, 1);
}

#[test]
fn the_authority_is_asked_when_nobody_has_it() {
    // All say so: at once.
    let mut net = Net::of(&[ONE, TWO, THREE]);
    for (by, id) in ask(&mut net) {
        net.node(by).answer(party(ONE), id, Vec::new());
    }
    assert_eq!(one(net.run()), lacking());
    // Nobody says anything.
    ask(&mut net);
    assert_eq!(one(net.pass(PATIENCE)), lacking());
    // One says so, the other one is not known any more.
    let all = ask(&mut net);
    net.node(TWO).answer(party(ONE), all[0].1, Vec::new());
    assert!(net.run().is_empty());
    let now = net.now;
    net.node(ONE).part(party(THREE), now);
    assert_eq!(one(net.run()), lacking());
    // Nobody is there: without a wait.
    net.cut.push(TWO);
    net.pass(ms(4000));
    net.node(ONE).ask(Some(0), WHAT, now);
    assert_eq!(one(net.run()), lacking());
    assert_eq!(net.node(ONE).tally().lacking, 4);
    // Nor on another channel.
    net.cut.clear();
    net.pass(ms(1000));
    net.node(ONE).ask(Some(1), WHAT, now);
    assert!(matches!(
        one(net.run()),
        Output::Lacking { link: Some(1), .. }
    ));
}

#[test]
fn questions_have_a_bound_and_are_not_put_twice() {
    let mut net = Net::of(&[ONE, TWO]);
    let now = net.now;
    for spi in 0..QUESTIONS as u32 {
        for _ in 0..2 {
            net.node(ONE).ask(Some(0), Asked::Spi(1000 + spi), now);
        }
    }
    assert_eq!(net.run().len(), QUESTIONS);
    net.node(ONE).ask(Some(0), WHAT, now);
    assert_eq!(one(net.run()), lacking());
    assert_eq!(net.pass(PATIENCE).len(), QUESTIONS);
    assert_eq!(ask(&mut net).len(), 1, "there is room again");
}

#[test]
fn only_who_was_asked_can_answer_and_only_once() {
    let mut net = Net::of(&[ONE, TWO, THREE]);
    let all = ask(&mut net);
    let id = all[0].1;
    let now = net.now;
    // Of another one's question, which the second node has put.
    net.node(TWO).ask(Some(0), WHAT, now);
    net.node(TWO)
        .answer(party(ONE), id + 5, vec![carrier(SPI, 50, 1)]);
    for stamp in [1, 2] {
        net.node(TWO)
            .answer(party(ONE), id, vec![carrier(SPI, stamp, 1)]);
    }
    net.run();
    assert_eq!(net.node(ONE).tally().late, 2);
    let outputs = net.pass(PATIENCE);
    let own = outputs.into_iter().filter(|(by, _)| *by == ONE).collect();
    assert_eq!(one(own), found(vec![(TWO, carrier(SPI, 1, 1))]));
}

#[test]
fn an_answer_goes_into_a_datagram() {
    let mut net = Net::of(&[ONE, TWO]);
    let id = ask(&mut net)[0].1;
    let many = |count: u64, networks| {
        let one = |stamp| {
            let mut carrier = carrier(SPI, stamp, 1);
            carrier.pair.local_inner = vec!["2001:db8::/64".parse().unwrap(); networks];
            carrier
        };
        (0..count).map(one).collect::<Vec<_>>()
    };
    // Too many of them, and of a length that not all fit.
    net.node(TWO).answer(party(ONE), id, many(40, 600));
    let Output::Found { carriers, .. } = one(net.run()) else {
        panic!("nothing was found");
    };
    assert!(
        (2..CARRIERS).contains(&carriers.len()),
        "{}",
        carriers.len()
    );
    // Not even one fits: it is not here, as far as others are concerned.
    let id = ask(&mut net)[0].1;
    net.node(TWO).answer(party(ONE), id, many(1, 10_000));
    assert_eq!(one(net.run()), lacking());
    assert_eq!(net.node(TWO).tally().answered, 1);
}

#[test]
fn all_pairs_of_a_client_are_found_by_its_address() {
    let mut net = Net::of(&[ONE, TWO, THREE]);
    let now = net.now;
    let what = Asked::Client("198.51.100.7".parse().unwrap());
    net.node(ONE).ask(None, what, now);
    let mut elsewhere = carrier(4, 9, 1);
    elsewhere.pair.remote = "198.51.100.8".parse().unwrap();
    for (by, output) in net.run() {
        let Output::Asked { id, .. } = output else {
            panic!("{output:?}")
        };
        let all = [
            carrier(1, 3, 1),
            carrier(2, u64::from(by.0), 1),
            elsewhere.clone(),
        ];
        net.node(by).answer(party(ONE), id, all.to_vec());
    }
    let Output::Found { carriers, .. } = one(net.run()) else {
        panic!("nothing was found");
    };
    let order: Vec<_> = carriers
        .iter()
        .map(|(from, c)| (from.number, c.pair.spi()))
        .collect();
    assert_eq!(order, [(TWO, 1), (THREE, 1), (THREE, 2), (TWO, 2)]);
    let tally = net.node(ONE).tally();
    assert_eq!(
        (tally.stations, tally.stations_found, tally.asked),
        (1, 1, 0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever comes in whatever order, the first one is the most current of those that can be used.
    #[test]
    fn of_all_answers_the_best_is_first(
        answers in proptest::collection::vec(
            (0..4_u64, 0..3_u64, any::<bool>(), any::<bool>()), 6
        ),
    ) {
        let edges: Vec<EdgeId> = (1..=7).map(EdgeId).collect();
        let mut net = Net::of(&edges);
        let mut best = None;
        let all = ask(&mut net);
        prop_assert_eq!(all.len(), answers.len());
        for ((by, id), (stamp, sequence, usable, silent)) in all.into_iter().zip(answers) {
            let mut carrier = carrier(SPI, stamp, sequence);
            if !usable {
                carrier.pair.expires = 0;
            }
            if !silent {
                net.node(by).answer(party(ONE), id, vec![carrier]);
            }
            if usable && !silent {
                best = best.max(Some((stamp, sequence)));
            }
        }
        let mut outputs = net.run();
        outputs.extend(net.pass(PATIENCE));
        match (one(outputs), best) {
            (Output::Found { carriers, .. }, Some(best)) => {
                let order: Vec<_> = carriers.iter().map(|(_, c)| (c.stamp, c.sequence)).collect();
                prop_assert_eq!(order[0], best);
                prop_assert!(order.is_sorted_by(|a, b| a >= b));
            }
            (Output::Lacking { .. }, None) => {}
            (output, best) => prop_assert!(false, "{:?} {:?}", output, best),
        }
    }
}
