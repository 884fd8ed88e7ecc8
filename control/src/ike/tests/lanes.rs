//! Child SAs for the same traffic, one for each resource (RFC 9611), with the wire above each step.

use super::session::Session;
use super::*;

fn lanes(of_a: u16, of_b: u16) -> Session {
    Session::new(|a, b| {
        (a.lanes, b.lanes) = (of_a, of_b);
        (a.children_limit, b.children_limit) = (1, 1);
    })
}

fn add(s: &mut Session, lane: u16) -> usize {
    let (a, _) = s.ids();
    let (now, node) = (s.pair.now, &mut s.pair.a);
    node.engine.add_lane(now, a, lane, &mut node.owner);
    let request = s.pair.a.take();
    s.carry(request)
}

/// What each owner holds: the lane of every child SA, in the order of their making.
fn held(s: &Session) -> [Vec<u16>; 2] {
    [&s.a, &s.b].map(|held| held.children.values().map(|child| child.lane).collect())
}

#[test]
fn one_for_each_resource_up_to_what_the_peer_has() {
    let mut s = lanes(4, 3);
    let (local, remote) = (s.a.only().local_ts.clone(), s.a.only().remote_ts.clone());
    let first = [&s.a, &s.b].map(|held| *held.children.keys().next().unwrap());
    // HDR, SK {N(SA_RESOURCE_INFO), SA, Ni, KEi, TSi, TSr} -->
    //                     <-- HDR, SK {N(SA_RESOURCE_INFO), SA, Nr, KEr, TSi, TSr}
    assert_eq!((add(&mut s, 1), add(&mut s, 2)), (2, 2));
    assert_eq!(held(&s), [vec![0, 1, 2], vec![0, 1, 2]]);
    // There is one of this number.
    assert_eq!(add(&mut s, 2), 0);
    // … <-- HDR, SK {N(TS_MAX_QUEUE)}
    assert_eq!(add(&mut s, 3), 2);
    assert_eq!(s.a.failures, [Failure::TsMaxQueue]);
    for child in s.a.children.values() {
        assert_eq!((&child.local_ts, &child.remote_ts), (&local, &remote));
    }
    // Both ends say which resource the SPI is for, by the child SA that they began with.
    let beside = |spi, lane| Some(Beside { spi, lane });
    let [a, b] = first;
    assert_eq!(
        s.pair.a.owner.besides,
        [None, beside(a, 1), beside(a, 2), beside(a, 3)]
    );
    assert_eq!(s.pair.b.owner.besides, [None, beside(b, 1), beside(b, 2)]);
}

// … N(SA_RESOURCE_INFO) with data, which says that ESP may come from another port.
#[test]
fn whoever_asks_says_whether_it_has_ports_of_its_own() {
    for has in [false, true] {
        let mut s = Session::new(|a, b| {
            (a.lanes, b.lanes) = (2, 2);
            (a.own_ports, b.own_ports) = (has, !has);
            (a.children_limit, b.children_limit) = (1, 1);
        });
        add(&mut s, 1);
        for held in [&s.a, &s.b] {
            let own: Vec<bool> = held.children.values().map(|child| child.own_port).collect();
            assert_eq!(own, [false, has]);
        }
    }
}

#[test]
fn what_replaces_one_is_for_the_same_resource() {
    let mut s = lanes(2, 2);
    add(&mut s, 1);
    for round in 0..2 {
        let lane = *s.a.children.keys().next_back().unwrap();
        let request = match round {
            0 => s.a_rekeys_child(),
            _ => s.b_rekeys_child(),
        };
        assert_eq!(s.carry(request), 4);
        assert_eq!(held(&s), [vec![0, 1], vec![0, 1]]);
        let last = *s.pair.a.owner.besides.last().unwrap();
        let same = Some(Beside { spi: lane, lane: 0 });
        assert_eq!(last, same);
    }
    // Also under another IKE SA.
    let request = s.a_rekeys_ike();
    s.carry(request);
    let request = s.a_rekeys_child();
    s.carry(request);
    assert_eq!(held(&s), [vec![0, 1], vec![0, 1]]);
}

#[test]
fn a_lane_is_no_further_child() {
    let mut s = lanes(2, 2);
    let (a, _) = s.ids();
    let (now, node) = (s.pair.now, &mut s.pair.a);
    node.engine.add_child(now, a, &[], &[], &mut node.owner);
    let request = s.pair.a.take();
    // HDR, SK {SA, …} --> <-- HDR, SK {N(NO_ADDITIONAL_SAS)}
    s.carry(request);
    assert_eq!(s.a.failures, [Failure::NoAdditionalSas]);
}
