//! An IKE SA is replaced with an additional key exchange (RFC 9370 section 2.2.4), with the wire above
//! each step. `A` is the client.

use super::session::{Held, Session, spis};
use super::*;

pub(super) fn hybrid() -> Vec<IkeProposal> {
    vec![IkeProposal {
        additional: vec![Some(Group::MlKem768)],
        ..IkeProposal::default()
    }]
}

/// A session whose key exchange is x25519 and ML-KEM-768, with other nonces for each number.
fn session(seed: u64) -> Session {
    let mut pair = Pair::with(|a, b| {
        for settings in [a, b] {
            settings.ike_proposals = hybrid();
            settings.fragment_size = None;
        }
    });
    let first = [pair.a.owner.next_spi, pair.b.owner.next_spi];
    let wish = pair.wish();
    pair.initiate(wish);
    assert_eq!(pair.run(), 6);
    let (a, b) = (Held::default(), Held::default());
    let mut s = Session { pair, a, b, first };
    s.follow();
    s.pair.a.engine.reseed(StdRng::seed_from_u64(seed * 2 + 11));
    s.pair.b.engine.reseed(StdRng::seed_from_u64(seed * 2 + 12));
    s
}

/// How often each side's IKE SA was replaced.
fn rekeyed(s: &Session) -> [u64; 2] {
    [&s.pair.a, &s.pair.b].map(|node| node.engine.stats().ike_rekeyed)
}

/// The additional key exchange that the client's IKE SA was made with.
fn additional(s: &Session) -> Option<Group> {
    let core = s.pair.a.engine.core(s.ids().0).unwrap();
    core.suite.unwrap().additional
}

#[test]
fn the_additional_key_exchange_is_made_again() {
    // HDR(A,B), SK {SA(C), Ni, KEi} -->
    //                  <-- HDR(A,B), SK {SA(D), Nr, KEr, N(ADDITIONAL_KEY_EXCHANGE, link)}
    // HDR(A,B), SK {KEi(1), N(ADDITIONAL_KEY_EXCHANGE, link)} -->
    //                  <-- HDR(A,B), SK {KEr(1)}
    // HDR(A,B), SK {D(IKE)} -->
    //                  <-- HDR(A,B), SK {}
    for begins in [true, false] {
        let mut s = session(1);
        for count in 1..=2 {
            let request = match begins {
                true => s.a_rekeys_ike(),
                false => s.b_rekeys_ike(),
            };
            assert_eq!(s.carry(request), 6);
            assert_eq!(rekeyed(&s), [count; 2]);
            assert_eq!(additional(&s), Some(Group::MlKem768));
            s.assert_whole();
        }
        let request = s.b_rekeys_child();
        assert_eq!(s.carry(request), 4);
        s.assert_whole();
    }
}

#[test]
fn tokens_go_along() {
    for begins in [true, false] {
        let mut pair = Pair::with(|a, b| {
            for (settings, byte) in [(a, 1), (b, 2)] {
                settings.ike_proposals = hybrid();
                settings.crash_secret = Some(Secret::new(&[byte; 32]));
            }
        });
        let wish = pair.wish();
        pair.initiate(wish);
        pair.run();
        let ids = [&pair.a, &pair.b].map(|node| node.established().unwrap().0);
        match begins {
            true => pair.a.engine.rekey_ike(pair.now, ids[0]),
            false => pair.b.engine.rekey_ike(pair.now, ids[1]),
        }
        pair.pass(Duration::from_secs(2));
        assert_eq!(pair.a.engine.stats().ike_rekeyed, 1);
        let settings = pair.b.engine.settings().clone();
        pair.b = Node::new(settings, "192.0.2.1:500", 77);
        pair.a.engine.check_liveness(pair.now, ids[0]);
        pair.run();
        assert_eq!(pair.a.closed(), Some(&CloseReason::Crashed), "{begins}");
    }
}

#[test]
fn a_peer_that_makes_none_when_it_rekeys_is_rekeyed_without() {
    for begins in [true, false] {
        let mut s = session(2);
        let plain = |s: &mut Settings| s.ike_proposals = vec![IkeProposal::default()];
        s.pair.b.engine.change_settings(plain);
        let request = match begins {
            true => s.a_rekeys_ike(),
            false => s.b_rekeys_ike(),
        };
        assert_eq!(s.carry(request), 4);
        assert_eq!(additional(&s), None);
        s.assert_whole();
    }
}

#[test]
fn both_rekey_and_one_does_not_go_on() {
    let mut went_on = [0, 0];
    for seed in 0..8 {
        for a_hears_first in [true, false] {
            let mut s = session(seed);
            // A: HDR(A,B), SK {SA(C), Ni1, …} -->      <-- B: HDR(A,B), SK {SA(E), Ni2, …}
            let (one, two) = (s.a_rekeys_ike(), s.b_rekeys_ike());
            let (to_b, to_a) = (s.hand(&two[0]), s.hand(&one[0]));
            // A: HDR(A,B), SK {SA(F), Nr2, …} -->      <-- B: HDR(A,B), SK {SA(D), Nr1, …}
            let (of_a, of_b) = match a_hears_first {
                true => {
                    let of_a = s.hand(&to_a[0]);
                    (of_a, s.hand(&to_b[0]))
                }
                false => {
                    let of_b = s.hand(&to_b[0]);
                    (s.hand(&to_a[0]), of_b)
                }
            };
            assert_eq!(of_a.len() + of_b.len(), 1);
            went_on[usize::from(of_a.is_empty())] += 1;
            // HDR(A,B), SK {KEi(1), N(…)} -->, and then HDR(A,B), SK {D(IKE)} -->
            let all = [of_a, of_b].concat();
            assert_eq!(s.carry(all), 4);
            assert_eq!(rekeyed(&s), [1, 1]);
            s.assert_whole();
            assert_eq!(rekeyed(&s), [1, 1], "nothing to try again");
        }
    }
    assert!(went_on[0] > 0 && went_on[1] > 0, "{went_on:?}");
}

#[test]
fn the_winner_goes_on_before_the_other_has_its_answer() {
    for seed in 0..8 {
        let mut s = session(seed);
        let (one, two) = (s.a_rekeys_ike(), s.b_rekeys_ike());
        let (late, to_a) = (s.hand(&two[0]), s.hand(&one[0]));
        let rest = s.hand(&to_a[0]);
        s.carry(rest);
        s.carry(late);
        s.assert_whole();
        assert_eq!(rekeyed(&s), [1, 1]);
    }
}

#[test]
fn who_has_gone_on_does_not_begin_the_other_s() {
    // A: HDR(A,B), SK {KEi(1), N(…)} -->      <-- B, late: HDR(A,B), SK {SA(E), Ni2, …}
    // A: HDR(A,B), SK {N(TEMPORARY_FAILURE)} -->
    for refused_first in [true, false] {
        let mut s = session(3);
        let (one, two) = (s.a_rekeys_ike(), s.b_rekeys_ike());
        let answer = s.hand(&one[0]);
        let followup = s.hand(&answer[0]);
        let refusal = s.hand(&two[0]);
        let rest = match refused_first {
            true => [refusal, followup].concat(),
            false => [followup, refusal].concat(),
        };
        s.carry(rest);
        s.assert_whole();
        assert_eq!(rekeyed(&s), [1, 1]);
    }
    // It comes when all is over.
    let mut s = session(4);
    let (one, two) = (s.a_rekeys_ike(), s.b_rekeys_ike());
    s.carry(one);
    s.carry(two);
    s.assert_whole();
    assert_eq!(rekeyed(&s), [1, 1]);
}

#[test]
fn one_makes_an_additional_key_exchange_and_the_other_none() {
    // The client's order has it last, the gateway's first; whoever answers decides.
    for seed in 0..8 {
        for a_hears_first in [true, false] {
            let mut s = session(seed);
            let plain = vec![IkeProposal::default()];
            let both = [plain, hybrid()].concat();
            s.pair.a.engine.change_settings(|s| s.ike_proposals = both);
            let (one, two) = (s.a_rekeys_ike(), s.b_rekeys_ike());
            let (to_b, to_a) = (s.hand(&two[0]), s.hand(&one[0]));
            let (first, last) = match a_hears_first {
                true => (to_a, to_b),
                false => (to_b, to_a),
            };
            let out = s.hand(&first[0]);
            let all = [s.hand(&last[0]), out].concat();
            s.carry(all);
            s.assert_whole();
            assert_eq!(rekeyed(&s), [1, 1]);
        }
    }
}

#[test]
fn what_is_not_known_of_is_begun_anew() {
    // HDR(A,B), SK {KEi(1), N(ADDITIONAL_KEY_EXCHANGE, another)} -->
    //                  <-- HDR(A,B), SK {N(STATE_NOT_FOUND)}
    let mut s = session(5);
    let request = s.a_rekeys_ike();
    let answer = s.hand(&request[0]);
    let mut followup = s.hand(&answer[0]);
    let changed = s.pair.a.engine.tamper(&followup[0].data, |_, plain| {
        if let Some(last) = plain.last_mut() {
            *last ^= 1;
        }
    });
    followup[0].data = changed.unwrap();
    assert_eq!(s.carry(followup), 2);
    assert_eq!(s.pair.a.engine.stats().rekeyings_failed, 1);
    s.assert_whole();
    assert_eq!(rekeyed(&s), [1, 1], "a little later");
}

#[test]
fn a_bad_public_value_ends_the_session() {
    // HDR(A,B), SK {KEi(1) cut short, N(…)} -->
    //                  <-- HDR(A,B), SK {N(INVALID_SYNTAX)}
    let mut s = session(6);
    let request = s.a_rekeys_ike();
    let answer = s.hand(&request[0]);
    let mut followup = s.hand(&answer[0]);
    let changed = s.pair.a.engine.tamper(&followup[0].data, |_, plain| {
        // The group is the fifth and sixth byte of the first payload.
        plain[5] = 31;
    });
    followup[0].data = changed.unwrap();
    s.carry(followup);
    let reason = CloseReason::Error(Failure::InvalidSyntax);
    assert_eq!(s.a.closed, Some(reason));
    assert!(matches!(
        s.b.closed,
        Some(CloseReason::Error(Failure::WrongAnswer(_)))
    ));
}

#[test]
fn a_rekeying_that_does_not_go_on_is_forgotten() {
    let mut s = session(7);
    let b = s.ids().1;
    let request = s.a_rekeys_ike();
    s.hand(&request[0]);
    let awaits = |s: &Session| s.pair.b.engine.core(b).unwrap().awaited.is_some();
    assert!(awaits(&s));
    // The gateway's own waits for it meanwhile.
    assert!(s.b_rekeys_ike().is_empty());
    let now = s.pair.now + Duration::from_secs(20);
    s.pair.b.due(now);
    assert!(!awaits(&s));
    let sent = s.pair.b.due(now + Duration::from_secs(1));
    assert_eq!((sent.len(), spis(&sent[0])), (1, spis(&request[0])));
}
