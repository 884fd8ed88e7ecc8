//! Both sides change the same SAs at once (RFC 7296 sections 2.8.1, 2.8.2 and 2.25), with the wire
//! above each step. `A` is the client.

use super::session::{Session, spis};
use super::*;

/// A session, with other nonces for each number.
fn session(seed: u64) -> Session {
    let mut s = Session::new(|_, _| {});
    let (a, b) = (seed * 2 + 11, seed * 2 + 12);
    s.pair.a.engine.reseed(StdRng::seed_from_u64(a));
    s.pair.b.engine.reseed(StdRng::seed_from_u64(b));
    s
}

#[test]
fn both_rekey_the_child() {
    let (mut of_a, mut of_b) = (0, 0);
    for seed in 0..8 {
        for a_hears_first in [true, false] {
            let mut s = session(seed);
            // A: HDR, SK {N(REKEY_SA), SA, Ni1, …} -->   <-- B: HDR, SK {N(REKEY_SA), SA, Ni2, …}
            let (one, two) = (s.a_rekeys_child(), s.b_rekeys_child());
            let (to_b, to_a) = (s.hand(&two[0]), s.hand(&one[0]));
            // A: HDR, SK {SA, Nr2, …} -->                <-- B: HDR, SK {SA, Nr1, …}
            let (del_a, del_b) = match a_hears_first {
                true => {
                    let del_a = s.hand(&to_a[0]);
                    (del_a, s.hand(&to_b[0]))
                }
                false => {
                    let del_b = s.hand(&to_b[0]);
                    (s.hand(&to_a[0]), del_b)
                }
            };
            assert_eq!((s.a.children.len(), s.b.children.len()), (3, 3));
            // One deletes the old child SA, the other the redundant one that it began.
            assert_eq!((del_a.len(), del_b.len()), (1, 1));
            let all = [del_a, del_b].concat();
            assert_eq!(s.carry(all), 4);
            s.assert_whole();
            // Whose is left?
            match s.a.only().spi_in > s.a.freed.iter().copied().max().unwrap() {
                true => of_a += 1,
                false => of_b += 1,
            }
        }
    }
    assert!(of_a > 0 && of_b > 0, "{of_a} {of_b}");
}

#[test]
fn one_sees_only_the_end_of_the_other_s_rekeying() {
    // B's request is lost. A: HDR, SK {N(REKEY_SA), …} --> <-- HDR, SK {SA, …}
    // A: HDR, SK {D(ESP, old)} -->   <-- B, again: HDR, SK {N(REKEY_SA), …}
    // A: HDR, SK {N(TEMPORARY_FAILURE)} -->   <-- B: HDR, SK {D(ESP, old)}
    let mut s = session(1);
    let (one, two) = (s.a_rekeys_child(), s.b_rekeys_child());
    let answer = s.hand(&one[0]);
    let delete = s.hand(&answer[0]);
    let refusal = s.hand(&two[0]);
    let rest = [delete, refusal].concat();
    s.carry(rest);
    assert_eq!(s.b.failures, [Failure::TemporaryFailure]);
    assert_eq!((s.a.rekeyed, s.b.rekeyed), (1, 1));
    s.assert_whole();
    assert_eq!((s.a.rekeyed, s.b.rekeyed), (1, 1), "nothing to try again");

    // The same, when the old one is gone: <-- B, again: HDR, SK {N(REKEY_SA), …}
    // A: HDR, SK {N(CHILD_SA_NOT_FOUND)} -->
    let mut s = session(2);
    let (one, two) = (s.a_rekeys_child(), s.b_rekeys_child());
    s.carry(one);
    s.carry(two);
    assert_eq!(s.b.failures, [Failure::ChildNotFound]);
    s.assert_whole();
    assert_eq!((s.a.rekeyed, s.b.rekeyed), (1, 1));
}

#[test]
fn what_the_initiator_has_not_heard_of_is_rekeyed_later() {
    // B: HDR, SK {N(REKEY_SA, old), …} --> <-- A: HDR, SK {SA(new), …}, which is late
    // A: HDR, SK {N(REKEY_SA, new), …} --> <-- B: HDR, SK {N(TEMPORARY_FAILURE)}
    let mut s = session(8);
    let request = s.b_rekeys_child();
    let late = s.hand(&request[0]);
    let early = s.a_rekeys_child();
    assert_eq!(s.carry(early), 2);
    assert_eq!(s.a.failures, [Failure::TemporaryFailure]);
    s.carry(late);
    s.assert_whole();
    assert_eq!((s.a.rekeyed, s.b.rekeyed), (2, 2));
}

#[test]
fn a_late_answer_finds_the_old_child_deleted() {
    for seed in 0..6 {
        // Both requests are answered, but A's answer comes last: B has already deleted what it
        // holds for redundant or old.
        let mut s = session(seed);
        let (one, two) = (s.a_rekeys_child(), s.b_rekeys_child());
        let (to_b, to_a) = (s.hand(&two[0]), s.hand(&one[0]));
        s.carry(to_b);
        s.carry(to_a);
        s.assert_whole();
    }
}

#[test]
fn a_deletion_crosses_a_rekeying() {
    // A: HDR, SK {N(REKEY_SA, c), …} -->            <-- B: HDR, SK {D(ESP, c)}
    // A: HDR, SK {D(ESP, c)} -->                    <-- B: HDR, SK {N(TEMPORARY_FAILURE)}
    for rekey_answered_first in [true, false] {
        let mut s = session(3);
        let (_, b) = s.ids();
        add_child(&mut s);
        let c = *s.b.children.keys().next_back().unwrap();
        let rekey = s.a_rekeys_child();
        s.pair.b.engine.delete_child(s.pair.now, b, c);
        let delete = s.pair.b.take();
        let (refusal, deleted) = (s.hand(&rekey[0]), s.hand(&delete[0]));
        let both = match rekey_answered_first {
            true => [refusal, deleted].concat(),
            false => [deleted, refusal].concat(),
        };
        assert_eq!(s.carry(both), 2);
        assert_eq!(s.a.failures, [Failure::TemporaryFailure]);
        s.assert_whole();
        assert_eq!(s.a.rekeyed, 0, "what is gone is not replaced");
    }
}

#[test]
fn both_delete_the_same_child() {
    // A: HDR, SK {D(ESP, c)} -->                    <-- B: HDR, SK {D(ESP, c)}
    // A: HDR, SK {} -->                             <-- B: HDR, SK {}
    let mut s = session(4);
    let (a, b) = s.ids();
    add_child(&mut s);
    let [of_a, of_b] = [&s.a, &s.b].map(|held| *held.children.keys().next_back().unwrap());
    s.pair.a.engine.delete_child(s.pair.now, a, of_a);
    s.pair.b.engine.delete_child(s.pair.now, b, of_b);
    let both = [s.pair.a.take(), s.pair.b.take()].concat();
    assert_eq!(s.carry(both), 4);
    s.assert_whole();
}

#[test]
fn both_rekey_the_ike_sa() {
    let (mut of_a, mut of_b) = (0, 0);
    for seed in 0..8 {
        for a_hears_first in [true, false] {
            let mut s = session(seed);
            // A: HDR(A,B), SK {SA(C), Ni1, …} -->      <-- B: HDR(A,B), SK {SA(E), Ni2, …}
            let (one, two) = (s.a_rekeys_ike(), s.b_rekeys_ike());
            let old = spis(&one[0]);
            let (to_b, to_a) = (s.hand(&two[0]), s.hand(&one[0]));
            assert_eq!(s.pair.a.engine.stats().sas, 2);
            // A: HDR(A,B), SK {SA(F), Nr2, …} -->      <-- B: HDR(A,B), SK {SA(D), Nr1, …}
            let (del_a, del_b) = match a_hears_first {
                true => {
                    let del_a = s.hand(&to_a[0]);
                    (del_a, s.hand(&to_b[0]))
                }
                false => {
                    let del_b = s.hand(&to_b[0]);
                    (s.hand(&to_a[0]), del_b)
                }
            };
            // One deletes the old IKE SA, the other the redundant one that it began.
            assert_eq!((del_a.len(), del_b.len()), (1, 1));
            match (spis(&del_a[0]) == old, spis(&del_b[0]) == old) {
                (true, false) => of_a += 1,
                (false, true) => of_b += 1,
                other => panic!("{other:?}"),
            }
            let all = [del_a, del_b].concat();
            assert_eq!(s.carry(all), 4);
            assert_eq!(s.a.children.len(), 1);
            s.assert_whole();
            let request = s.b_rekeys_child();
            assert_eq!(s.carry(request), 4);
            s.assert_whole();
        }
    }
    assert!(of_a > 0 && of_b > 0, "{of_a} {of_b}");
}

#[test]
fn one_sees_only_the_end_of_the_other_s_ike_rekeying() {
    for seed in 0..4 {
        // B's request is lost. A: HDR(A,B), SK {SA(C), …} --> <-- HDR(A,B), SK {SA(D), …}
        // A: HDR(A,B), SK {D(IKE)} --> <-- HDR(A,B), SK {}: B forgets its own.
        let mut s = session(seed);
        let (one, two) = (s.a_rekeys_ike(), s.b_rekeys_ike());
        s.carry(one);
        assert_eq!(s.pair.b.engine.stats().ike_rekeyed, 1);
        // It comes late, and is none of anybody's business any more.
        s.carry(two);
        s.assert_whole();

        // B's request comes between: A: HDR(A,B), SK {N(TEMPORARY_FAILURE)} -->
        let mut s = session(seed);
        let (one, two) = (s.a_rekeys_ike(), s.b_rekeys_ike());
        let answer = s.hand(&one[0]);
        let delete = s.hand(&answer[0]);
        let refusal = s.hand(&two[0]);
        let rest = [refusal, delete].concat();
        s.carry(rest);
        s.assert_whole();
        assert_eq!(s.pair.b.engine.stats().ike_rekeyed, 1);

        // Both requests are answered, but A's answer comes last of all.
        let mut s = session(seed);
        let (one, two) = (s.a_rekeys_ike(), s.b_rekeys_ike());
        let (to_b, to_a) = (s.hand(&two[0]), s.hand(&one[0]));
        s.carry(to_b);
        s.carry(to_a);
        s.assert_whole();
    }
}

#[test]
fn child_and_ike_sa_are_not_rekeyed_at_once() {
    // A: HDR, SK {N(REKEY_SA), …} -->                <-- B: HDR, SK {SA(IKE), …}
    // A: HDR, SK {N(TEMPORARY_FAILURE)} -->          <-- B: HDR, SK {N(TEMPORARY_FAILURE)}
    let mut s = session(5);
    let (one, two) = (s.a_rekeys_child(), s.b_rekeys_ike());
    let both = [one, two].concat();
    assert_eq!(s.carry(both), 4);
    assert_eq!(s.a.failures, [Failure::TemporaryFailure]);
    let failed = [&s.pair.a, &s.pair.b].map(|node| node.engine.stats().rekeyings_failed);
    assert_eq!(failed, [1, 1]);
    // Both try again later, by chance not at the same time.
    s.assert_whole();
    assert_eq!((s.a.rekeyed, s.pair.b.engine.stats().ike_rekeyed), (1, 1));
}

#[test]
fn a_child_is_deleted_while_the_ike_sa_is_rekeyed() {
    // A: HDR, SK {SA(IKE), …} -->                    <-- B: HDR, SK {D(ESP, c)}
    // A: HDR, SK {D(ESP, c)} -->                     <-- B: HDR, SK {N(TEMPORARY_FAILURE)}
    let mut s = session(6);
    let (_, b) = s.ids();
    add_child(&mut s);
    let c = *s.b.children.keys().next_back().unwrap();
    let rekey = s.a_rekeys_ike();
    s.pair.b.engine.delete_child(s.pair.now, b, c);
    let both = [rekey, s.pair.b.take()].concat();
    assert_eq!(s.carry(both), 4);
    s.assert_whole();
    assert_eq!(s.pair.a.engine.stats().ike_rekeyed, 1, "tried again");
}

#[test]
fn the_ike_sa_is_closed_while_it_is_rekeyed() {
    for b_closes in [true, false] {
        // A: HDR, SK {SA(IKE), …} -->                <-- B: HDR, SK {D(IKE)}
        // A: HDR, SK {} -->                          <-- B: HDR, SK {N(TEMPORARY_FAILURE)}
        let mut s = session(7);
        let (a, b) = s.ids();
        let (rekey, close) = match b_closes {
            true => {
                s.pair.b.engine.close(s.pair.now, b);
                (s.a_rekeys_ike(), s.pair.b.take())
            }
            false => {
                s.pair.a.engine.close(s.pair.now, a);
                (s.b_rekeys_ike(), s.pair.a.take())
            }
        };
        let both = [rekey, close].concat();
        assert_eq!(s.carry(both), 4);
        s.pass(Duration::from_secs(200));
        let mut reasons = [s.a.closed.clone(), s.b.closed.clone()];
        if !b_closes {
            reasons.reverse();
        }
        assert_eq!(
            reasons,
            [Some(CloseReason::PeerDeleted), Some(CloseReason::Local)]
        );
        let sas = [&s.pair.a, &s.pair.b].map(|node| node.engine.stats().sas);
        assert_eq!(sas, [0, 0]);
    }
}

/// A second child SA, so that the session outlives the end of one.
fn add_child(s: &mut Session) {
    let (a, now) = (s.ids().0, s.pair.now);
    let local = [TrafficSelector::host([10, 99, 0, 7])];
    let node = &mut s.pair.a;
    node.engine.add_child(now, a, &local, &[], &mut node.owner);
    let request = node.take();
    assert_eq!(s.carry(request), 2);
    assert_eq!((s.a.children.len(), s.b.children.len()), (2, 2));
}
