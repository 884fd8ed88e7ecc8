//! Datagrams: what is said is heard once, by whom it is for, and from nobody else.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cluster::connectivity::{
    Asked, HEADER, LONGEST, Message, NoMessage, Presence, decode, encode,
};
use crate::cluster::tests::wire;
use crate::cluster::wire::Relayed;

fn message() -> impl Strategy<Value = Message> {
    let asked = prop_oneof![
        any::<u32>().prop_map(Asked::Spi),
        wire::address().prop_map(Asked::Client),
    ];
    prop_oneof![
        any::<(u64, u64, u64)>().prop_map(|(run, pairs, owned)| {
            Message::Presence(Presence {
                run: Run(run),
                pairs,
                owned,
            })
        }),
        wire::relayed().prop_map(Message::IkeRequest),
        wire::relayed().prop_map(Message::IkeResponse),
        (any::<u64>(), asked).prop_map(|(id, what)| Message::Query { id, what }),
        (any::<u64>(), vec(wire::carrier(), 0..4))
            .prop_map(|(id, carriers)| Message::Carriers { id, carriers }),
        any::<u64>().prop_map(|id| Message::NotHere { id }),
    ]
}

fn relayed(length: usize) -> Relayed {
    Relayed {
        local: "192.0.2.100:500".parse().unwrap(),
        remote: "198.51.100.7:500".parse().unwrap(),
        data: vec![7; length],
    }
}

/// An edge and its authority, who know each other.
fn two() -> (Connectivity, Connectivity) {
    let now = Instant::now();
    let [mut a, mut b] = [1, 2].map(|run| Connectivity::new(Run(run), PATIENCE));
    let [told, tells] = introductions(ONE, AUTHORITY, 9, 77);
    assert!(a.introduce(0, &told, now) && b.introduce(0, &tells, now));
    for datagram in sent(&mut a) {
        b.receive(&datagram, now, SECONDS);
    }
    for datagram in sent(&mut b) {
        a.receive(&datagram, now, SECONDS);
    }
    assert!(a.is_present(party(AUTHORITY)) && b.is_present(party(ONE)));
    // What was said on hearing the other one.
    sent(&mut a);
    sent(&mut b);
    (a, b)
}

fn sent(node: &mut Connectivity) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(output) = node.output() {
        match output {
            Output::Send { datagram, .. } => all.push(datagram),
            other => panic!("{other:?}"),
        }
    }
    all
}

/// What the edge says, as datagrams.
fn said(edge: &mut Connectivity, length: usize) -> Vec<u8> {
    edge.relay(party(AUTHORITY), relayed(length)).unwrap();
    let [datagram] = <[_; 1]>::try_from(sent(edge)).unwrap();
    datagram
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read_the_same(message in message()) {
        let bytes = encode(&message).unwrap();
        let content = &bytes[HEADER..];
        prop_assert_eq!(decode(content), Ok(message));
        for length in 0..content.len() {
            prop_assert!(decode(&content[..length]).is_err());
        }
        let long = [content, &[0]].concat();
        prop_assert_eq!(decode(&long), Err(NoMessage::Left { left: 1 }));
    }

    #[test]
    fn nothing_panics_and_nothing_forged_is_heard(
        bytes in vec(any::<u8>(), 0..200),
        header in any::<bool>(),
    ) {
        let _ = decode(&bytes);
        let (mut edge, mut authority) = two();
        let mut datagram = bytes;
        if header {
            // All but the tag is right.
            let good = said(&mut edge, 0);
            datagram.splice(0..0, good[..HEADER].iter().copied());
        }
        let before = authority.tally();
        authority.receive(&datagram, Instant::now(), SECONDS);
        prop_assert_eq!(authority.output(), None);
        let tally = authority.tally();
        prop_assert_eq!(tally.strange + tally.forged, before.strange + before.forged + 1);
    }

    #[test]
    fn a_changed_bit_is_found(bit in 0..4096_usize) {
        let (mut edge, mut authority) = two();
        let mut datagram = said(&mut edge, 40);
        let length = datagram.len();
        datagram[bit / 8 % length] ^= 1 << (bit % 8);
        authority.receive(&datagram, Instant::now(), SECONDS);
        prop_assert_eq!(authority.output(), None);
        let tally = authority.tally();
        prop_assert_eq!(tally.strange + tally.forged + tally.repeated, 1);
    }
}

#[test]
fn each_datagram_is_heard_once_in_whatever_order() {
    let (mut edge, mut authority) = two();
    let now = Instant::now();
    let mut all: Vec<_> = (0..50).map(|length| said(&mut edge, length)).collect();
    all.swap(3, 40);
    for round in 0..2 {
        for datagram in &all {
            authority.receive(datagram, now, SECONDS);
        }
        let heard = std::iter::from_fn(|| authority.output()).count();
        assert_eq!(heard, [50, 0][round]);
    }
    assert_eq!(authority.tally().repeated, 50);
}

#[test]
fn what_comes_back_or_from_elsewhere_is_not_heard() {
    let (mut edge, mut authority) = two();
    let now = Instant::now();
    let datagram = said(&mut edge, 10);
    edge.receive(&datagram, now, SECONDS);
    assert_eq!(edge.tally().strange, 1, "its own, back");
    // Other nodes with the same numbers: another key, or another epoch.
    for (key, epoch, strange) in [(8, 77, 0), (9, 78, 1)] {
        let mut other = Connectivity::new(Run(3), PATIENCE);
        assert!(other.introduce(0, &introductions(ONE, AUTHORITY, key, epoch)[1], now));
        sent(&mut other);
        other.receive(&datagram, now, SECONDS);
        assert_eq!(other.output(), None);
        let tally = other.tally();
        assert_eq!((tally.strange, tally.forged), (strange, 1 - strange));
    }
    // The one that it is for still takes it.
    authority.receive(&datagram, now, SECONDS);
    assert!(matches!(authority.output(), Some(Output::Ike { .. })));
    // Not any more, once it has got to know the edge anew.
    let late = said(&mut edge, 10);
    assert!(authority.introduce(0, &introductions(ONE, AUTHORITY, 10, 79)[1], now));
    sent(&mut authority);
    authority.receive(&late, now, SECONDS);
    assert_eq!((authority.output(), authority.tally().strange), (None, 1));
}

#[test]
fn the_two_directions_never_have_the_same_nonce() {
    let now = Instant::now();
    let [told, tells] = introductions(ONE, TWO, 9, 77);
    let datagram = |introduction| {
        let mut node = Connectivity::new(Run(1), PATIENCE);
        assert!(node.introduce(0, introduction, now));
        sent(&mut node).remove(0)
    };
    // The same message under the same key, with the same sequence number.
    let (one, two) = (datagram(&told), datagram(&tells));
    assert_eq!(one.len(), two.len());
    assert_ne!(one[HEADER..], two[HEADER..]);
}

#[test]
fn keys_of_no_use_are_refused() {
    let now = Instant::now();
    let mut node = Connectivity::new(Run(1), PATIENCE);
    let [mut short, _] = introductions(ONE, TWO, 9, 77);
    short.key = [9; KEY - 1].as_slice().into();
    assert!(!node.introduce(0, &short, now));
    let [mut own, _] = introductions(ONE, TWO, 9, 77);
    own.number = ONE;
    assert!(!node.introduce(0, &own, now));
    assert_eq!((node.output(), node.members().count()), (None, 0));
}

#[test]
fn who_may_say_what() {
    // An edge does not take orders for edges from its authority, nor answers of IKE from another edge.
    let mut net = Net::of(&[AUTHORITY, ONE, TWO]);
    for (to, from, message) in [
        (
            ONE,
            AUTHORITY,
            Message::Query {
                id: 1,
                what: Asked::Spi(300),
            },
        ),
        (ONE, AUTHORITY, Message::IkeRequest(relayed(4))),
        (ONE, TWO, Message::IkeResponse(relayed(4))),
        (AUTHORITY, ONE, Message::IkeResponse(relayed(4))),
    ] {
        let before = net.node(to).tally().unreadable;
        net.node(from).say(party(to), &message).unwrap();
        assert!(net.run().is_empty());
        assert_eq!(net.node(to).tally().unreadable, before + 1, "{message:?}");
    }
}

#[test]
fn what_is_too_long_goes_another_way() {
    let (mut edge, mut authority) = two();
    let head = encode(&Message::IkeRequest(relayed(LONGEST / 2)))
        .unwrap()
        .len()
        - HEADER
        - LONGEST / 2;
    let fits = LONGEST - head;
    let datagram = said(&mut edge, fits);
    assert_eq!(datagram.len(), 65_507, "the longest over IPv4");
    authority.receive(&datagram, Instant::now(), SECONDS);
    let Some(Output::Ike { relayed: heard, .. }) = authority.output() else {
        panic!("nothing was heard");
    };
    assert_eq!(heard, relayed(fits));
    let long = relayed(fits + 1);
    assert_eq!(edge.relay(party(AUTHORITY), long.clone()), Err(long));
    assert_eq!(edge.output(), None);
    // Nor is anything said to somebody who is not there.
    assert_eq!(edge.relay(party(TWO), relayed(1)), Err(relayed(1)));
}
