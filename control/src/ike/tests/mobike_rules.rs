//! What RFC 4555 asks for where it is easily forgotten, with the wire above each step.

use super::super::payload::notify::{Notify, kind};
use super::mobike::{MOVED, answer, at, moves, pair};
use super::*;

fn update() -> Notify {
    Notify::new(kind::UPDATE_SA_ADDRESSES, [])
}

/// Other addresses than those that a message comes with.
fn no_nats() -> Notify {
    let data = [198, 51, 100, 8, 192, 0, 2, 1, 0x11, 0x94, 0x11, 0x94];
    Notify::new(kind::NO_NATS_ALLOWED, data)
}

#[test]
fn a_refusal_returns_the_cookie_too() {
    // HDR, SK {N(UPDATE_SA_ADDRESSES), N(COOKIE2)} -->
    // <-- HDR, SK {N(UNACCEPTABLE_ADDRESSES), N(COOKIE2)}
    // Without it, the peer would have to close the session (section 3.7).
    let mut pair = pair();
    let (a, _) = pair.up();
    let cookie = || Notify::new(kind::COOKIE2, [9; 16]);
    pair.b.owner.may_move = false;
    let told = answer(&mut pair, a, vec![update(), cookie()]);
    assert_eq!(told, [kind::UNACCEPTABLE_ADDRESSES, kind::COOKIE2]);
    pair.b.owner.may_move = true;
    let told = answer(&mut pair, a, vec![update(), no_nats(), cookie()]);
    assert_eq!(told, [kind::UNEXPECTED_NAT_DETECTED, kind::COOKIE2]);
}

#[test]
fn addresses_that_came_through_a_nat_are_not_noted() {
    // HDR, SK {N(ADDITIONAL_IP4_ADDRESS), N(NO_NATS_ALLOWED, others)} -->
    // <-- HDR, SK {N(UNEXPECTED_NAT_DETECTED)}
    let mut pair = pair();
    let (a, b) = pair.up();
    let other = || Notify::new(kind::ADDITIONAL_IP4_ADDRESS, [198, 51, 100, 77]);
    let told = answer(&mut pair, a, vec![other(), no_nats()]);
    assert_eq!(told, [kind::UNEXPECTED_NAT_DETECTED]);
    assert_eq!(pair.b.engine.peer_addresses(b), [] as [IpAddr; 0]);
    assert!(answer(&mut pair, a, vec![other()]).is_empty());
    assert_eq!(pair.b.engine.peer_addresses(b).len(), 1);
}

#[test]
fn no_session_through_a_nat_where_none_is_allowed() {
    // HDR, SK {N(NO_NATS_ALLOWED, others), IDi, AUTH, …} -->
    // <-- HDR, SK {N(UNEXPECTED_NAT_DETECTED)}
    let mut pair = pair();
    let wish = pair.wish();
    pair.initiate(wish);
    let first = pair.a.take().remove(0);
    let answer = pair.deliver(&first).remove(0);
    let mut auth = pair.deliver(&answer).remove(0);
    let changed = pair.a.engine.tamper(&auth.data, |first, plain| {
        let notify = no_nats();
        let [high, low] = notify.kind.to_be_bytes();
        let mut chain = vec![*first, 0, 0, 8 + notify.data.len() as u8, 0, 0, high, low];
        chain.extend_from_slice(&notify.data);
        chain.extend_from_slice(plain);
        (*first, *plain) = (payload::kind::NOTIFY, chain);
    });
    auth.data = changed.unwrap();
    for t in pair.deliver(&auth) {
        pair.deliver(&t);
    }
    assert_eq!(pair.a.failure(), Some(&Failure::UnexpectedNat));
    assert_eq!(pair.b.failure(), Some(&Failure::UnexpectedNat));
}

#[test]
fn one_question_waits_however_often_the_peer_moves() {
    let mut pair = pair();
    let (a, b) = pair.up();
    // <-- HDR, SK {N(COOKIE2)}, never answered
    // HDR, SK {N(UPDATE_SA_ADDRESSES), …} -->, again and again
    let mut asked = Vec::new();
    for host in 1..=40 {
        moves(&mut pair, a, &format!("203.0.113.{host}:4500"));
        for t in pair.a.take() {
            let mut sent = pair.deliver(&t);
            let answer = sent.remove(0);
            asked.extend(sent);
            pair.deliver(&answer);
        }
    }
    assert_eq!(asked.len(), 1);
    assert_eq!(pair.b.engine.waiting(b), Some(1));
    // What it proves at last is the place where it is now.
    for t in pair.a.receive(pair.now, &asked[0]) {
        assert_eq!(pair.deliver(&t).len(), 1);
    }
    assert_eq!(pair.b.engine.waiting(b), Some(0));
}

#[test]
fn addresses_are_told_anew_elsewhere() {
    // HDR, SK {N(ADDITIONAL_IP4_ADDRESS)} -->, lost; again from the new address, and answered
    // HDR, SK {N(UPDATE_SA_ADDRESSES), …} -->, and the gateway's COOKIE2
    // HDR, SK {N(ADDITIONAL_IP4_ADDRESS)} -->, since the first one may be of the old address
    let mut pair = pair();
    let (a, b) = pair.up();
    let others: Vec<IpAddr> = vec![[203, 0, 113, 99].into()];
    let now = pair.now;
    pair.a.engine.set_additional_addresses(now, others.clone());
    pair.a.take();
    moves(&mut pair, a, MOVED);
    assert_eq!(pair.run(), 8);
    assert_eq!(pair.b.engine.peer_addresses(b), others);
}

#[test]
fn a_proof_of_another_place_is_asked_for_anew() {
    // HDR, SK {N(UPDATE_SA_ADDRESSES), …} -->
    // <-- HDR, SK {N(COOKIE2)}, while the gateway moves too
    let mut pair = pair();
    let (a, b) = pair.up();
    moves(&mut pair, a, MOVED);
    let update = pair.a.take().remove(0);
    let sent = pair.deliver(&update);
    pair.deliver(&sent[0]);
    pair.b.address = at("192.0.2.9:4500");
    let (ip, now) = (pair.b.address.ip(), pair.now);
    assert!(pair.b.engine.local_moved(now, b, ip));
    // The COOKIE2 again from the new place, then UPDATE_SA_ADDRESSES, the client's COOKIE2 and the
    // gateway's second one, each with its answer.
    assert_eq!(pair.run(), 8);
}
