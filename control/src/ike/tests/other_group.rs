//! A responder that wants another group, or a cookie first, with the wire above each step.

use super::super::crypto::KeyPair;
use super::super::payload::header::{HEADER, Header};
use super::super::payload::ke::KeyExchange;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::{Payload, parse_chain, sk};
use super::super::proposal::choose_ike;
use super::negotiation::{ike, pair};
use super::*;

#[test]
fn another_group_is_asked_for() {
    for (number, group) in [(19, "ecp256"), (20, "ecp384")] {
        let gateway = format!("aes256gcm16-prfsha256-{group}");
        let mut pair = pair(&["aes256gcm16-prfsha256-x25519-ecp256-ecp384"], &[&gateway]);
        let wish = pair.wish();
        pair.initiate(wish);
        let first = pair.a.take();
        // HDR(A,0), SAi1, KEi(31), Ni --> <-- HDR(A,0), N(INVALID_KE_PAYLOAD, 19 or 20)
        let answer = pair.deliver(&first[0]);
        let asked = parse_chain(answer[0].data[16], &answer[0].data[HEADER..]).unwrap();
        let notify = Notify::new(kind::INVALID_KE_PAYLOAD, [0, number]);
        assert_eq!(asked, [Payload::Notify(notify)]);
        assert_eq!(pair.b.engine.stats().sas, 0);
        // HDR(A,0), SAi1, KEi(19 or 20), Ni --> and on as usual; SAi1 is the same.
        let second = pair.deliver(&answer[0]);
        let [one, two] =
            [&first[0], &second[0]].map(|t| parse_chain(t.data[16], &t.data[HEADER..]).unwrap());
        assert_eq!(one[0], two[0]);
        assert!(matches!(&two[1], Payload::Ke(ke) if ke.group == u16::from(number)));
        for t in pair.deliver(&second[0]) {
            for t in pair.deliver(&t) {
                for t in pair.deliver(&t) {
                    pair.deliver(&t);
                }
            }
        }
        let (a, b) = (pair.a.established(), pair.b.established());
        assert_mirrored(a.unwrap().1, b.unwrap().1);
        assert_eq!(pair.b.engine.stats().sas, 1);
    }
}

#[test]
fn a_cookie_is_returned_before_state_is_made() {
    let mut pair = Pair::with(|a, b| {
        b.cookie_threshold = 0;
        a.ike_proposals[0].groups = vec![Group::X25519, Group::P256];
        b.ike_proposals[0].groups = vec![Group::P256];
    });
    let wish = pair.wish();
    pair.initiate(wish);
    // HDR(A,0), SAi1, KEi, Ni --> <-- HDR(A,0), N(COOKIE)
    let first = pair.a.take();
    let cookie = pair.deliver(&first[0]);
    assert_eq!(pair.b.engine.stats().sas, 0);
    assert_eq!(pair.b.engine.stats().cookies_sent, 1);
    // HDR(A,0), N(COOKIE), SAi1, KEi(31), Ni --> <-- HDR(A,0), N(INVALID_KE_PAYLOAD, 19)
    let second = pair.deliver(&cookie[0]);
    // The cookie doubled on its way changes nothing.
    assert_eq!(pair.deliver(&cookie[0]), []);
    let other = pair.deliver(&second[0]);
    assert_eq!(pair.b.engine.stats().sas, 0);
    // HDR(A,0), N(COOKIE), SAi1, KEi(19), Ni --> and on as usual
    let third = pair.deliver(&other[0]);
    assert_eq!(pair.deliver(&other[0]), []);
    let answer = pair.deliver(&third[0]);
    let auth = pair.deliver(&answer[0]);
    let last = pair.deliver(&auth[0]);
    pair.deliver(&last[0]);
    assert_mirrored(
        pair.a.established().unwrap().1,
        pair.b.established().unwrap().1,
    );
    assert_eq!(pair.b.engine.stats().cookies_wrong, 0);
}

/// A responder of ours to speak for, in the clear.
fn answer_to(request: &Transmit, payloads: &[Payload]) -> Transmit {
    let header = Header {
        initiator: false,
        response: true,
        ..Header::parse(&request.data).unwrap()
    };
    Transmit {
        local: request.remote,
        remote: request.local,
        data: sk::write_plain(header, payloads).unwrap(),
    }
}

fn wants_group(number: u16) -> Vec<Payload> {
    let notify = Notify::new(kind::INVALID_KE_PAYLOAD, number.to_be_bytes());
    vec![Payload::Notify(notify)]
}

/// The group of the KE payload, and whether a cookie comes first.
fn says(t: &Transmit) -> (u16, bool) {
    let payloads = parse_chain(t.data[16], &t.data[HEADER..]).unwrap();
    let cookie = matches!(&payloads[0], Payload::Notify(n) if n.kind == kind::COOKIE);
    let ke = payloads.iter().find_map(|p| match p {
        Payload::Ke(KeyExchange { group, .. }) => Some(*group),
        _ => None,
    });
    (ke.unwrap(), cookie)
}

#[test]
fn a_responder_that_changes_its_mind_is_not_followed_for_ever() {
    let mut pair = pair(&["aes256gcm16-prfsha256-x25519-ecp256-ecp384"], &[]);
    let wish = pair.wish();
    pair.initiate(wish);
    let first = pair.a.take().remove(0);
    assert_eq!(says(&first), (31, false));
    // <-- N(INVALID_KE_PAYLOAD, 31), which is what was sent; with too few bytes; with too many
    for data in [vec![0, 31], vec![19], vec![0, 0, 19]] {
        let odd = [Payload::Notify(Notify::new(kind::INVALID_KE_PAYLOAD, data))];
        assert_eq!(pair.deliver(&answer_to(&first, &odd)), []);
    }
    // <-- N(INVALID_KE_PAYLOAD, 19)   KEi(19) --> <-- N(COOKIE)   N(COOKIE), KEi(19) -->
    let second = pair.deliver(&answer_to(&first, &wants_group(19))).remove(0);
    assert_eq!(says(&second), (19, false));
    let cookie = [Payload::Notify(Notify::new(kind::COOKIE, [7; 20]))];
    let third = pair.deliver(&answer_to(&second, &cookie)).remove(0);
    assert_eq!(says(&third), (19, true));
    // <-- N(INVALID_KE_PAYLOAD, 20)   N(COOKIE), KEi(20) -->
    let fourth = pair.deliver(&answer_to(&third, &wants_group(20))).remove(0);
    assert_eq!(says(&fourth), (20, true));
    // To and fro, until five rounds are over.
    let fifth = pair
        .deliver(&answer_to(&fourth, &wants_group(31)))
        .remove(0);
    assert_eq!(says(&fifth), (31, true));
    let last = pair.deliver(&answer_to(&fifth, &wants_group(19))).remove(0);
    for number in [31, 19, 20] {
        let answer = answer_to(&last, &wants_group(number));
        assert_eq!(pair.deliver(&answer), [], "{number}");
    }
    let other = [Payload::Notify(Notify::new(kind::COOKIE, [8; 20]))];
    assert_eq!(pair.deliver(&answer_to(&last, &other)), []);
    assert!(pair.a.events.is_empty());
    // It goes on asking, in case the true responder answers, and gives up in time.
    while pair.wait() {
        pair.a.take();
    }
    assert_eq!(pair.a.failure(), Some(&Failure::Timeout));
}

#[test]
fn a_group_that_was_not_offered_ends_it() {
    let mut pair = pair(&["aes256gcm16-prfsha256-x25519-ecp256"], &[]);
    let wish = pair.wish();
    pair.initiate(wish);
    let first = pair.a.take().remove(0);
    // <-- N(INVALID_KE_PAYLOAD, 14): nobody talks us into that one.
    assert_eq!(pair.deliver(&answer_to(&first, &wants_group(14))), []);
    assert_eq!(pair.a.failure(), Some(&Failure::NoProposalChosen));
    assert_eq!(pair.a.engine.stats().sas, 0);
}

#[test]
fn a_weaker_group_that_somebody_else_asked_for_is_corrected() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    pair.initiate(wish);
    let first = pair.a.take().remove(0);
    // From who knows where: <-- N(INVALID_KE_PAYLOAD, 20)   KEi(20) -->
    let second = pair.deliver(&answer_to(&first, &wants_group(20))).remove(0);
    // The gateway prefers 31 and says so: <-- N(INVALID_KE_PAYLOAD, 31)   KEi(31) -->, and on.
    for t in pair.deliver(&second) {
        for t in pair.deliver(&t) {
            assert_eq!(says(&t), (31, false));
            for t in pair.deliver(&t) {
                for t in pair.deliver(&t) {
                    for t in pair.deliver(&t) {
                        pair.deliver(&t);
                    }
                }
            }
        }
    }
    assert!(pair.a.established().is_some() && pair.b.established().is_some());
}

#[test]
fn a_key_exchange_of_another_group_than_chosen_is_refused() {
    let mut pair = pair(
        &["aes256gcm16-prfsha256-x25519-ecp256"],
        &["aes256gcm16-prfsha256-x25519"],
    );
    let wish = pair.wish();
    pair.initiate(wish);
    let first = pair.a.take().remove(0);
    let (_, chosen) = choose_ike(
        &pair.b.engine.settings().ike_proposals,
        &[ike("aes256gcm16-prfsha256-x25519-ecp256").offer(1)],
    )
    .unwrap();
    let other = KeyPair::generate(Group::P256, &mut StdRng::seed_from_u64(1));
    let payloads = [
        Payload::Sa(vec![chosen]),
        Payload::Ke(KeyExchange {
            group: 19,
            public: other.public().to_vec(),
        }),
        Payload::Nonce(vec![1; 32]),
    ];
    let mut answer = answer_to(&first, &payloads);
    answer.data[8..16].fill(9);
    assert_eq!(pair.deliver(&answer), []);
    assert!(matches!(pair.a.failure(), Some(Failure::WrongAnswer(_))));
}
