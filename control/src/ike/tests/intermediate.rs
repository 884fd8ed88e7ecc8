//! The additional key exchange in IKE_INTERMEDIATE, with the wire above each step.

use super::super::crypto::KeyPair;
use super::super::keys::{IkeKeys, skeyseed};
use super::super::payload::header::{self, HEADER, exchange};
use super::super::payload::ke::KeyExchange;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::{Payload, parse_chain, write_chain};
use super::super::proposal::IkeSuite;
use super::network::{fate, run};
use super::*;
use proptest::prelude::*;

const REQUIRED: &str = "aes256gcm16-prfsha256-x25519-ke1_mlkem768";
const OPTIONAL: &str = "aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none";
const PLAIN: &str = "aes256gcm16-prfsha256-x25519";

/// Two sides with a proposal each; IKE_INTERMEDIATE fits into one datagram.
fn pair(a: &str, b: &str) -> Pair {
    Pair::with(|client, gateway| {
        client.ike_proposals = vec![a.parse().unwrap()];
        gateway.ike_proposals = vec![b.parse().unwrap()];
        client.fragment_size = Some(1400);
        gateway.fragment_size = Some(1400);
    })
}

/// The messages of a handshake, and the state just before one of them is received.
pub(super) fn before(message: usize) -> (Pair, Transmit) {
    let mut pair = pair(REQUIRED, REQUIRED);
    let wish = pair.wish();
    pair.initiate(wish);
    let mut next = pair.a.take().remove(0);
    for _ in 0..message {
        next = pair.deliver(&next).remove(0);
    }
    (pair, next)
}

fn notifies(t: &Transmit, wanted: u16) -> bool {
    let payloads = parse_chain(t.data[16], &t.data[HEADER..]).unwrap();
    let mut all = payloads.iter();
    all.any(|p| matches!(p, Payload::Notify(Notify { kind, .. }) if *kind == wanted))
}

fn exchange_of(t: &Transmit) -> u8 {
    t.data[18]
}

#[test]
fn ml_kem_is_added_before_authentication() {
    let mut pair = pair(REQUIRED, OPTIONAL);
    let wish = pair.wish();
    pair.initiate(wish);
    // HDR(A,0), SAi1(…, ADDKE1 = 36), KEi, Ni, N(INTERMEDIATE_EXCHANGE_SUPPORTED) -->
    let first = pair.a.take().remove(0);
    // <-- HDR(A,B), SAr1(…, ADDKE1 = 36), KEr, Nr, N(INTERMEDIATE_EXCHANGE_SUPPORTED)
    let second = pair.deliver(&first).remove(0);
    for t in [&first, &second] {
        assert!(notifies(t, kind::INTERMEDIATE_EXCHANGE_SUPPORTED));
    }
    // HDR(A,B), SK {KEi(1)} --> <-- HDR(A,B), SK {KEr(1)}
    let third = pair.deliver(&second).remove(0);
    let fourth = pair.deliver(&third).remove(0);
    assert_eq!(pair.b.engine.stats().half_open, 1);
    for (t, public) in [(&third, 1184), (&fourth, 1088)] {
        assert_eq!(exchange_of(t), exchange::IKE_INTERMEDIATE);
        assert_eq!(t.data.len(), HEADER + 4 + 8 + (4 + 4 + public) + 1 + 16);
    }
    // HDR(A,B), SK {IDi, …, AUTH, …} --> under the new keys
    let fifth = pair.deliver(&fourth).remove(0);
    assert_eq!(
        (exchange_of(&fifth), fifth.data[23]),
        (exchange::IKE_AUTH, 2)
    );
    // The request once more: its answer is the same, though the keys have changed.
    assert_eq!(pair.deliver(&third), std::slice::from_ref(&fourth));
    let sixth = pair.deliver(&fifth).remove(0);
    assert_eq!(pair.deliver(&fourth), []);
    pair.deliver(&sixth);
    // And not any more once the next request has come.
    assert_eq!(pair.deliver(&third), []);
    let (a, b) = (pair.a.established().unwrap(), pair.b.established().unwrap());
    assert_mirrored(a.1, b.1);
    let id = a.0;
    pair.a.events.clear();
    pair.a.engine.check_liveness(pair.now, id);
    assert_eq!(pair.run(), 2);
    assert!(matches!(pair.a.events[..], [Event::Alive { .. }]));
}

#[test]
fn policy_decides_whether_it_happens() {
    for (a, b, messages) in [
        (REQUIRED, REQUIRED, Some(6)),
        (OPTIONAL, OPTIONAL, Some(6)),
        (REQUIRED, OPTIONAL, Some(6)),
        (OPTIONAL, REQUIRED, Some(6)),
        (OPTIONAL, PLAIN, Some(4)),
        (PLAIN, OPTIONAL, Some(4)),
        (PLAIN, REQUIRED, None),
        (REQUIRED, PLAIN, None),
    ] {
        let mut pair = pair(a, b);
        let wish = pair.wish();
        pair.initiate(wish);
        let count = pair.run();
        match messages {
            Some(messages) => {
                assert_eq!(count, messages, "{a}, {b}");
                let (a, b) = (pair.a.established(), pair.b.established());
                assert_mirrored(a.unwrap().1, b.unwrap().1);
            }
            None => assert_eq!(pair.a.failure(), Some(&Failure::NoProposalChosen)),
        }
    }
}

#[test]
fn without_the_notification_it_is_not_chosen() {
    // What asks for it is there, but what says that IKE_INTERMEDIATE is spoken is not.
    for (gateway, chosen) in [(OPTIONAL, true), (REQUIRED, false)] {
        let mut pair = pair(OPTIONAL, gateway);
        let wish = pair.wish();
        pair.initiate(wish);
        let mut first = pair.a.take().remove(0);
        strike(&mut first, kind::INTERMEDIATE_EXCHANGE_SUPPORTED);
        let answer = pair.deliver(&first).remove(0);
        let payloads = parse_chain(answer.data[16], &answer.data[HEADER..]).unwrap();
        match &payloads[0] {
            Payload::Sa(sa) => assert!(chosen && !sa[0].transforms.iter().any(|t| t.id == 36)),
            other => assert!(!chosen, "{other:?}"),
        }
        assert!(!notifies(&answer, kind::INTERMEDIATE_EXCHANGE_SUPPORTED));
    }
    // A responder that chooses it, but does not say that it speaks it.
    let (mut pair, mut second) = before(1);
    strike(&mut second, kind::INTERMEDIATE_EXCHANGE_SUPPORTED);
    assert_eq!(pair.deliver(&second), []);
    assert!(matches!(pair.a.failure(), Some(Failure::WrongAnswer(_))));
}

/// Leaves a notification out of a message in the clear.
fn strike(t: &mut Transmit, unwanted: u16) {
    let mut payloads = parse_chain(t.data[16], &t.data[HEADER..]).unwrap();
    payloads.retain(|p| !matches!(p, Payload::Notify(Notify { kind, .. }) if *kind == unwanted));
    t.data.truncate(HEADER);
    t.data[16] = write_chain(&payloads, &mut t.data).unwrap();
    header::set_length(&mut t.data);
}

#[test]
fn authentication_covers_what_was_said() {
    // Somebody who has the keys of IKE_SA_INIT (a quantum computer will) changes IKE_INTERMEDIATE in
    // a way that leaves the keys what they are: by a payload behind, which nobody reads.
    let (mut pair, whole) = before(2);
    let changed = pair.a.engine.tamper(&whole.data, |_, plain| {
        plain[0] = payload::kind::VENDOR;
        plain.extend_from_slice(&[0, 0, 0, 5, 1]);
    });
    let data = changed.unwrap();
    let mut next = pair.deliver(&Transmit { data, ..whole });
    // <-- HDR, SK {KEr(1)}   HDR, SK {…, AUTH, …} --> <-- HDR, SK {N(AUTHENTICATION_FAILED)}
    for _ in 0..3 {
        assert_eq!(next.len(), 1);
        next = pair.deliver(&next[0]);
    }
    assert_eq!(pair.a.failure(), Some(&Failure::AuthenticationFailed));
    assert_eq!(pair.b.failure(), Some(&Failure::AuthenticationFailed));
}

#[test]
fn a_wrong_key_exchange_inside_is_refused() {
    let public = |group: Group| {
        let pair = KeyPair::generate(group, &mut StdRng::seed_from_u64(3));
        (group.number(), pair.public().to_vec())
    };
    let (number, good) = public(Group::MlKem768);
    for (group, public) in [
        public(Group::X25519),
        (number, good[1..].to_vec()),
        (number, vec![0xff; 1184]),
        (35, good),
    ] {
        let (mut pair, whole) = before(2);
        let changed = pair.a.engine.tamper(&whole.data, |first, plain| {
            plain.clear();
            let ke = Payload::Ke(KeyExchange {
                group,
                public: public.clone(),
            });
            *first = write_chain(&[ke], plain).unwrap();
        });
        let data = changed.unwrap();
        // HDR, SK {KEi(wrong)} --> <-- HDR, SK {N(INVALID_SYNTAX)}
        let answer = pair.deliver(&Transmit { data, ..whole });
        assert_eq!(pair.deliver(&answer[0]), []);
        assert_eq!(pair.a.failure(), Some(&Failure::InvalidSyntax));
        assert!(matches!(pair.b.failure(), Some(Failure::WrongAnswer(_))));
        assert_eq!(pair.b.engine.stats().half_open, 0);
    }
}

#[test]
fn exchanges_have_their_order() {
    // IKE_AUTH where IKE_INTERMEDIATE is due, and the other way round: no answer, and the true
    // message still gets through.
    for (message, other) in [(2, exchange::IKE_AUTH), (4, exchange::IKE_INTERMEDIATE)] {
        let (mut pair, whole) = before(message);
        assert_ne!(exchange_of(&whole), other);
        let data = pair.a.engine.retitle(&whole.data, other).unwrap();
        let t = Transmit {
            data,
            ..whole.clone()
        };
        assert_eq!(pair.deliver(&t), []);
        assert_eq!(pair.b.engine.stats().unexpected, 1);
        let mut next = vec![whole];
        while let Some(t) = next.pop() {
            next = pair.deliver(&t);
        }
        assert!(pair.a.established().is_some() && pair.b.established().is_some());
    }
}

/// RFC 9370 section 2.2.2 and RFC 9242 section 3.3.2, put together by hand from what went over the
/// wire and from the keys of both sides.
#[test]
fn keys_and_authentication_are_those_of_the_rfcs() {
    let suite = IkeSuite {
        cipher: IkeCipher::Aes256Gcm16,
        prf: Prf::HmacSha256,
        group: Group::X25519,
        additional: Some(Group::MlKem768),
    };
    let nonces = [&[1; 32][..], &[2; 32]];
    let spis = [3_u64, 4];
    let seed = skeyseed(suite.prf, nonces[0], nonces[1], b"first shared secret");
    let before = IkeKeys::derive(suite, &seed, nonces, spis, true);
    let next = before.next_seed(b"second shared secret", nonces);
    // SK_d is the first part of prf+(SKEYSEED, Ni | Nr | SPIi | SPIr).
    let mut sk_d = [0; 32];
    let spis = spis.map(u64::to_be_bytes);
    let parts = [nonces[0], nonces[1], &spis[0], &spis[1]];
    suite.prf.plus(&seed, &parts, &mut sk_d).unwrap();
    // SKEYSEED(1) = prf(SK_d(0), SK(1) | Ni | Nr)
    let expected = suite
        .prf
        .compute(&sk_d, &[b"second shared secret", nonces[0], nonces[1]]);
    assert_eq!(next, expected);
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn a_session_comes_about_over_a_bad_network(
        fates in prop::collection::vec(fate(), 0..24),
        size in prop::sample::select(vec![576, 700, 1280, 1400]),
        cookie in any::<bool>(),
        optional in any::<bool>(),
    ) {
        let mut pair = Pair::with(|a, b| {
            a.ike_proposals = vec![if optional { OPTIONAL } else { REQUIRED }.parse().unwrap()];
            b.ike_proposals = vec![REQUIRED.parse().unwrap()];
            b.cookie_threshold = if cookie { 0 } else { 100 };
            for s in [a, b] {
                s.retransmit.tries = 60;
                s.half_open_timeout = Duration::from_secs(2000);
                s.fragment_size = Some(size);
            }
        });
        let wish = pair.wish();
        pair.initiate(wish);
        run(&mut pair, &fates, true, |_| true);
        let (a, b) = (pair.a.established(), pair.b.established());
        prop_assert!(a.is_some() && b.is_some(), "{:?} {:?}", pair.a.events, pair.b.events);
        assert_mirrored(a.unwrap().1, b.unwrap().1);
        prop_assert_eq!((pair.a.events.len(), pair.b.events.len()), (1, 1));
    }
}
