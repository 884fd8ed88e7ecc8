//! Who is there, and who is not any more.

use super::*;
use crate::cluster::connectivity::{ABSENT, CHANGES, INTERVAL};

#[test]
fn all_hear_of_each_other_and_of_what_they_have() {
    let mut net = Net::of(&[AUTHORITY, ONE, TWO]);
    for (a, b) in [(ONE, TWO), (TWO, ONE), (ONE, AUTHORITY), (AUTHORITY, TWO)] {
        assert!(net.present(a, b), "{b} of {a}");
    }
    let now = net.now;
    net.node(TWO).have(12, 3, now);
    assert!(net.pass(CHANGES).is_empty());
    let mut members = net.nodes[&ONE].members();
    let two = members.find(|member| member.party == party(TWO)).unwrap();
    let presence = two.presence.unwrap();
    assert_eq!(
        (presence.run, presence.pairs, presence.owned),
        (Run(2), 12, 3)
    );
}

#[test]
fn who_is_silent_is_absent_and_comes_back() {
    let mut net = Net::of(&[ONE, TWO]);
    net.pass(ABSENT * 3);
    assert!(net.present(ONE, TWO) && net.present(TWO, ONE));
    net.cut.push(TWO);
    net.pass(ABSENT - INTERVAL - ms(1));
    assert!(
        net.present(ONE, TWO),
        "it was heard less than three seconds ago"
    );
    net.pass(INTERVAL + ms(1));
    assert!(!net.present(ONE, TWO) && net.present(TWO, ONE));
    net.cut.clear();
    net.pass(INTERVAL);
    assert!(net.present(ONE, TWO));
}

#[test]
fn who_was_told_later_has_not_to_wait_for_the_next_second() {
    let mut net = Net::of(&[ONE]);
    net.nodes.insert(TWO, Connectivity::new(Run(2), PATIENCE));
    let (now, [told, tells]) = (net.now, introductions(ONE, TWO, 9, 77));
    net.node(ONE).introduce(0, &told, now);
    net.run();
    assert_eq!(net.node(TWO).tally().strange, 1, "nobody has told it yet");
    net.node(TWO).introduce(0, &tells, now);
    net.run();
    assert!(net.present(ONE, TWO) && net.present(TWO, ONE));
}

#[test]
fn who_has_slept_does_not_take_others_for_absent() {
    let mut net = Net::of(&[ONE, TWO]);
    net.pass(ms(10));
    let later = net.now + ABSENT * 2;
    net.node(ONE).poll(later);
    assert!(net.present(ONE, TWO));
    net.node(ONE).poll(later + INTERVAL);
    assert!(net.present(ONE, TWO));
    net.node(ONE).poll(later + INTERVAL * 2);
    net.node(ONE).poll(later + ABSENT);
    assert!(!net.present(ONE, TWO), "now it was silent");
}

#[test]
fn changes_are_told_at_once_but_not_all_the_time() {
    let mut net = Net::of(&[ONE, TWO]);
    let (mut said, end) = (0, net.now + INTERVAL);
    let mut pairs = 0;
    while net.now < end {
        net.now += ms(1);
        let now = net.now;
        pairs += 1;
        let node = net.node(ONE);
        node.have(pairs, 0, now);
        node.poll(now);
        said += std::iter::from_fn(|| node.output()).count();
    }
    assert!((9..=12).contains(&said), "{said}");
}

#[test]
fn who_is_parted_from_is_not_known_any_more() {
    let mut net = Net::of(&[ONE, TWO, THREE]);
    let now = net.now;
    net.node(ONE).part(party(TWO), now);
    net.pass(INTERVAL);
    assert!(!net.present(ONE, TWO) && net.present(ONE, THREE));
    assert_eq!(net.node(ONE).tally().strange, 1);
    net.node(ONE).part_all(1, now);
    assert!(
        net.present(ONE, THREE),
        "it became known by another channel"
    );
    net.node(ONE).part_all(0, now);
    assert_eq!(net.node(ONE).members().count(), 0);
    assert_eq!(net.node(ONE).deadline(), None);
}
