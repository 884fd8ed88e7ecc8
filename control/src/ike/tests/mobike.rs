//! MOBIKE (RFC 4555), with the wire above each step.

use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::state::Core;
use super::super::task::{Cx, Request, Response, Step};
use super::*;
use std::sync::{Arc, Mutex};

pub(super) const MOVED: &str = "203.0.113.20:4500";

pub(super) fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

pub(super) fn pair() -> Pair {
    Pair::with(|a, b| (a.mobike, b.mobike) = (true, true))
}

/// The client goes on from another address; false if it can not.
pub(super) fn moves(pair: &mut Pair, id: SaId, to: &str) -> bool {
    pair.a.address = at(to);
    let ip = pair.a.address.ip();
    pair.a.engine.local_moved(pair.now, id, ip)
}

/// Where the only event says that a session goes now.
fn relocated(node: &mut Node) -> Option<(SocketAddr, SocketAddr, Nat)> {
    let all: Vec<Event> = node.events.drain(..).collect();
    match &all[..] {
        [] => None,
        [
            Event::Relocated {
                local, remote, nat, ..
            },
        ] => Some((*local, *remote, *nat)),
        other => panic!("{other:?}"),
    }
}

/// Says anything, and keeps what is answered.
struct Says {
    what: Vec<Notify>,
    heard: Arc<Mutex<Vec<Notify>>>,
}

impl Request for Says {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn build(&mut self, _: &mut Core, _: &mut Cx<'_>) -> Vec<Payload> {
        self.what.iter().cloned().map(Payload::Notify).collect()
    }

    fn process(&mut self, _: &mut Core, _: &mut Cx<'_>, response: &Response<'_>) -> Step {
        let notifies = task::notifies(response.payloads).cloned();
        self.heard.lock().unwrap().extend(notifies);
        Step::Done
    }
}

/// What the gateway answers to these notifications of the client.
pub(super) fn answer(pair: &mut Pair, id: SaId, what: Vec<Notify>) -> Vec<u16> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let says = Says {
        what,
        heard: Arc::clone(&heard),
    };
    pair.a.engine.start(pair.now, id, Box::new(says));
    pair.run();
    let heard = heard.lock().unwrap();
    heard.iter().map(|n| n.kind).collect()
}

#[test]
fn a_client_that_moves_keeps_its_session() {
    let mut pair = pair();
    let (a, b) = pair.up();
    let gateway = at("192.0.2.1:4500");
    for to in [MOVED, "203.0.113.21:4500"] {
        // HDR, SK {N(UPDATE_SA_ADDRESSES), N(NATD_S), N(NATD_D)} -->
        // <-- HDR, SK {N(NATD_S), N(NATD_D)}
        // <-- HDR, SK {N(COOKIE2)}
        // HDR, SK {N(COOKIE2)} -->
        assert!(moves(&mut pair, a, to));
        assert_eq!(pair.run(), 4);
        let (ours, theirs) = (relocated(&mut pair.a), relocated(&mut pair.b));
        let (local, remote, nat) = ours.unwrap();
        assert_eq!(
            (local, remote, nat.encapsulates()),
            (at(to), gateway, false)
        );
        let (local, remote, nat) = theirs.unwrap();
        assert_eq!(
            (local, remote, nat.encapsulates()),
            (gateway, at(to), false)
        );
        // The gateway asks where the client is now, and is answered.
        pair.b.engine.check_liveness(pair.now, b);
        let asked = pair.b.take();
        assert_eq!((asked[0].local, asked[0].remote), (gateway, at(to)));
        pair.deliver(&asked[0])
            .iter()
            .for_each(|t| drop(pair.b.receive(pair.now, t)));
        assert!(matches!(pair.b.events[..], [Event::Alive { .. }]));
        pair.b.events.clear();
        // So it is after a rekeying.
        pair.a.engine.rekey_ike(pair.now, a);
        pair.wait();
        pair.run();
        pair.a.events.clear();
        pair.b.events.clear();
    }
}

#[test]
fn both_must_understand_it() {
    for (ours, theirs) in [(false, true), (true, false), (false, false)] {
        let mut pair = Pair::with(|a, b| (a.mobike, b.mobike) = (ours, theirs));
        let (a, b) = pair.up();
        let sent = pair.a.engine.core(a).unwrap().local.port();
        assert_eq!(sent, if ours { NAT_T_PORT } else { IKE_PORT });
        assert!(!moves(&mut pair, a, MOVED));
        assert_eq!(pair.run(), 0);
        // Who says it all the same is not followed.
        let update = Notify::new(kind::UPDATE_SA_ADDRESSES, []);
        pair.a.address = at("198.51.100.7:4500");
        assert!(answer(&mut pair, a, vec![update]).is_empty());
        let remote = pair.b.engine.core(b).unwrap().remote;
        assert_eq!(remote.ip(), pair.a.address.ip());
    }
}

#[test]
fn esp_goes_nowhere_where_the_peer_does_not_receive() {
    let mut pair = pair();
    let (a, _) = pair.up();
    pair.a
        .engine
        .local_moved(pair.now, a, [203, 0, 113, 66].into());
    // The client says that it is at somebody else's address, and gets nothing that goes there.
    let update = pair.a.take().remove(0);
    let sent = pair.b.receive(pair.now, &update);
    assert!(sent.iter().all(|t| t.remote.ip() == update.local.ip()));
    assert_eq!(sent.len(), 2, "the answer, and a COOKIE2");
    while pair.b.closed().is_none() && pair.wait() {
        pair.b.take();
    }
    assert_eq!(pair.b.closed(), Some(&CloseReason::Timeout));
    let moved = |e: &Event| matches!(e, Event::Relocated { .. });
    assert!(!pair.b.events.iter().any(moved));
}

#[test]
fn a_wrong_cookie_ends_the_session() {
    let mut pair = pair();
    let (a, _) = pair.up();
    moves(&mut pair, a, MOVED);
    let update = pair.a.take().remove(0);
    let sent = pair.deliver(&update);
    pair.deliver(&sent[0]);
    // HDR, SK {N(COOKIE2, another)} -->
    let mut answer = pair.deliver(&sent[1]).remove(0);
    answer.data = pair
        .a
        .engine
        .tamper(&answer.data, |_, plain| {
            if let Some(last) = plain.last_mut() {
                *last ^= 1;
            }
        })
        .unwrap();
    // <-- HDR, SK {D}
    for t in pair.deliver(&answer) {
        for t in pair.deliver(&t) {
            pair.deliver(&t);
        }
    }
    let wrong = CloseReason::Error(Failure::WrongAnswer("another COOKIE2"));
    assert_eq!(pair.b.closed(), Some(&wrong));
    assert_eq!(pair.a.closed(), Some(&CloseReason::PeerDeleted));
}

#[test]
fn a_question_on_its_way_is_sent_again_from_the_new_address() {
    let mut pair = pair();
    let (a, _) = pair.up();
    pair.a.engine.check_liveness(pair.now, a);
    let lost = pair.a.take();
    assert_eq!(lost.len(), 1);
    assert!(moves(&mut pair, a, MOVED));
    let again = pair.a.take();
    assert_eq!((again.len(), again[0].local), (1, at(MOVED)));
    let wire: Vec<Transmit> = again.iter().flat_map(|t| pair.deliver(t)).collect();
    let update: Vec<Transmit> = wire.iter().flat_map(|t| pair.deliver(t)).collect();
    assert!(matches!(pair.a.events[..], [Event::Alive { .. }]));
    pair.a.events.clear();
    let mut wire: VecDeque<Transmit> = update.into();
    while let Some(t) = wire.pop_front() {
        wire.extend(pair.deliver(&t));
    }
    assert_eq!(relocated(&mut pair.a).unwrap().0, at(MOVED));
    assert_eq!(relocated(&mut pair.b).unwrap().1, at(MOVED));
}

#[test]
fn two_moves_in_a_row_end_at_the_last() {
    let mut pair = pair();
    let (a, b) = pair.up();
    moves(&mut pair, a, MOVED);
    pair.a.take();
    let last = at("203.0.113.30:4500");
    moves(&mut pair, a, "203.0.113.30:4500");
    pair.run();
    assert_eq!(relocated(&mut pair.a).unwrap().0, last);
    assert_eq!(pair.b.engine.core(b).unwrap().remote, last);
    // The first request comes from where it was not written: that looks like a NAT for a while.
    match pair.b.events.last() {
        Some(Event::Relocated { remote, nat, .. }) => {
            assert_eq!((*remote, nat.encapsulates()), (last, false));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_an_update_moves_ike() {
    // Section 3.8: what comes from elsewhere tests a path, and no more.
    let mut pair = pair();
    let (a, b) = pair.up();
    pair.a.engine.check_liveness(pair.now, a);
    let mut question = pair.a.take().remove(0);
    question.local = at(MOVED);
    let answer = pair.b.receive(pair.now, &question);
    assert_eq!(answer[0].remote, at(MOVED), "to where it came from");
    assert!(pair.b.events.is_empty());
    let remote = pair.b.engine.core(b).unwrap().remote;
    assert_eq!(remote, at("198.51.100.7:4500"));
}

#[test]
fn addresses_that_can_not_be_are_refused() {
    let mut pair = pair();
    let (a, b) = pair.up();
    pair.b.owner.may_move = false;
    // HDR, SK {N(UPDATE_SA_ADDRESSES), …} -->
    // <-- HDR, SK {N(UNACCEPTABLE_ADDRESSES)}
    // HDR, SK {D} -->
    moves(&mut pair, a, MOVED);
    pair.run();
    let refused = CloseReason::Error(Failure::UnacceptableAddresses);
    assert_eq!(pair.a.closed(), Some(&refused));
    assert_eq!(pair.b.closed(), Some(&CloseReason::PeerDeleted));
    assert!(pair.b.engine.core(b).is_none_or(|c| c.remote != at(MOVED)));
}

#[test]
fn a_nat_is_told_where_none_is_allowed() {
    let mut pair = pair();
    let (a, _) = pair.up();
    let update = || Notify::new(kind::UPDATE_SA_ADDRESSES, []);
    let mut data = vec![198, 51, 100, 7, 192, 0, 2, 1, 0x11, 0x94, 0x11, 0x94];
    let none = Notify::new(kind::NO_NATS_ALLOWED, data.clone());
    assert!(answer(&mut pair, a, vec![update(), none]).is_empty());
    data[3] = 8;
    let none = Notify::new(kind::NO_NATS_ALLOWED, data);
    let told = answer(&mut pair, a, vec![update(), none]);
    assert_eq!(told, [kind::UNEXPECTED_NAT_DETECTED]);
}

#[test]
fn a_cookie_is_returned_if_it_is_one() {
    let mut pair = pair();
    let (a, _) = pair.up();
    for (bytes, returned) in [(7, false), (8, true), (64, true), (65, false)] {
        let cookie = Notify::new(kind::COOKIE2, vec![9; bytes]);
        let told = answer(&mut pair, a, vec![cookie]);
        assert_eq!(told == [kind::COOKIE2], returned, "{bytes} bytes");
    }
}

#[test]
fn other_addresses_are_told_and_taken_back() {
    let others: Vec<IpAddr> = ["192.0.2.101", "2001:db8::101"]
        .map(|a| a.parse().unwrap())
        .into();
    let mut pair = Pair::with(|a, b| {
        (a.mobike, b.mobike) = (true, true);
        b.additional_addresses.clone_from(&others);
    });
    let (a, b) = pair.up();
    assert_eq!(pair.a.engine.peer_addresses(a), others);
    assert_eq!(pair.b.engine.peer_addresses(b), [] as [IpAddr; 0]);
    for addresses in [&others[..1], &[], &others[1..]] {
        pair.b
            .engine
            .set_additional_addresses(pair.now, addresses.to_vec());
        assert_eq!(pair.run(), 2);
        assert_eq!(pair.a.engine.peer_addresses(a), addresses);
        pair.b
            .engine
            .set_additional_addresses(pair.now, addresses.to_vec());
        assert_eq!(pair.run(), 0, "no news");
    }
}

/// A NAT before the client, which gives it this address and port.
fn through(pair: &mut Pair, outside: SocketAddr) {
    let inside = pair.a.address;
    let mut wire: VecDeque<(bool, Transmit)> = VecDeque::new();
    wire.extend(pair.a.take().into_iter().map(|t| (true, t)));
    wire.extend(pair.b.take().into_iter().map(|t| (false, t)));
    while let Some((out, mut t)) = wire.pop_front() {
        let sent = match out {
            true => {
                t.local = outside;
                pair.b.receive(pair.now, &t)
            }
            false if t.remote == outside => {
                t.remote = inside;
                pair.a.receive(pair.now, &t)
            }
            false => Vec::new(),
        };
        wire.extend(sent.into_iter().map(|t| (!out, t)));
    }
}

#[test]
fn a_nat_on_the_new_way_is_found_and_its_mapping_followed() {
    let mut pair = pair();
    let (a, b) = pair.up();
    let (first, second) = (at("203.0.113.9:40001"), at("203.0.113.9:40002"));
    assert!(moves(&mut pair, a, "10.1.1.2:4500"));
    through(&mut pair, first);
    let (_, _, nat) = relocated(&mut pair.a).unwrap();
    assert!(nat.local && nat.encapsulates());
    let (_, remote, nat) = relocated(&mut pair.b).unwrap();
    assert_eq!((remote, nat.follows()), (first, true));
    // What is asked of a living peer tells a new mapping.
    for (outside, moved) in [(first, false), (second, true), (second, false)] {
        pair.a.engine.check_liveness(pair.now, a);
        // HDR, SK {N(NATD_S), N(NATD_D)} -->
        // <-- HDR, SK {N(NATD_S), N(NATD_D)}
        // HDR, SK {N(UPDATE_SA_ADDRESSES), …} -->
        through(&mut pair, outside);
        let update = |e: &Event| matches!(e, Event::Relocated { .. });
        assert_eq!(pair.a.events.iter().any(update), moved);
        assert_eq!(pair.b.events.iter().any(update), moved);
        assert_eq!(pair.b.engine.core(b).unwrap().remote, outside);
        pair.a.events.clear();
        pair.b.events.clear();
    }
    // And back to where there is none.
    assert!(moves(&mut pair, a, MOVED));
    pair.run();
    assert!(!relocated(&mut pair.a).unwrap().2.encapsulates());
    assert!(!relocated(&mut pair.b).unwrap().2.encapsulates());
}
