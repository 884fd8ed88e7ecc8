//! Child SAs that are added and replaced, IKE SAs that are replaced, with the wire above each step.

use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::sa::protocol;
use super::life::say;
use super::session::{Session, spis};
use super::*;
use std::net::Ipv4Addr;

#[test]
fn a_child_is_replaced_by_either_side() {
    for (p256, pfs) in [(false, true), (false, false), (true, true)] {
        let groups = match (p256, pfs) {
            (true, _) => vec![Group::P256],
            (_, true) => vec![Group::X25519],
            _ => Vec::new(),
        };
        let mut s = Session::new(|a, b| {
            (a.child_groups, b.child_groups) = (groups.clone(), groups.clone());
        });
        let before = s.a.only().clone();
        // HDR, SK {N(REKEY_SA), SA, Ni, [KEi,] TSi, TSr} -->
        //                                      <-- HDR, SK {SA, Nr, [KEr,] TSi, TSr}
        let request = s.a_rekeys_child();
        let answer = s.hand(&request[0]);
        // The responder receives on the new one before it says so.
        assert_eq!((s.b.children.len(), s.a.children.len()), (2, 1));
        // HDR, SK {D(ESP, old)} --> <-- HDR, SK {D(ESP, old)}
        let delete = s.hand(&answer[0]);
        assert_eq!((s.a.children.len(), delete.len()), (2, 1));
        let answer = s.hand(&delete[0]);
        assert_eq!((s.b.children.len(), s.a.children.len()), (1, 2));
        assert_eq!(s.carry(answer), 1);
        assert_eq!(s.a.only().local_ts, before.local_ts);
        assert_eq!(s.a.only().remote_ts, before.remote_ts);
        assert_ne!(s.a.only().key_out, before.key_out);
        s.assert_whole();
        let request = s.b_rekeys_child();
        assert_eq!(s.carry(request), 4);
        assert_eq!((s.a.rekeyed, s.b.rekeyed), (2, 2));
        s.assert_whole();
    }
}

#[test]
fn outbound_is_used_when_it_is_safe() {
    let mut s = Session::new(|_, _| {});
    let request = s.a_rekeys_child();
    let answer = s.pair.deliver(&request[0]);
    let when = |node: &Node| match node.events[..] {
        [Event::ChildRekeyed { outbound, .. }] => outbound,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(when(&s.pair.b), Outbound::WhenHeard);
    s.pair.deliver(&answer[0]);
    assert_eq!(when(&s.pair.a), Outbound::AtOnce);
}

#[test]
fn each_side_may_want_another_key_exchange() {
    let x = || vec![Group::X25519];
    let p = || vec![Group::P256];
    for (of_a, of_b, datagrams) in [
        // HDR, SK {…, KE(x25519)} --> <-- HDR, SK {N(INVALID_KE_PAYLOAD, P-256)}, and again
        (vec![Group::X25519, Group::P256], p(), 6),
        (Vec::new(), x(), 4),
        // What the IKE SA has is taken, offered or not.
        (x(), Vec::new(), 4),
    ] {
        let mut s = Session::new(|a, b| {
            (a.child_groups, b.child_groups) = (of_a, of_b.clone());
            if of_b == p() {
                for settings in [a, b] {
                    settings.ike_proposals[0].groups = p();
                }
            }
        });
        let request = s.a_rekeys_child();
        assert_eq!(s.carry(request), datagrams);
        assert_eq!((s.a.rekeyed, s.b.rekeyed), (1, 1));
        s.assert_whole();
    }
    // None in common: without.
    let mut s = Session::new(|a, b| (a.child_groups, b.child_groups) = (p(), x()));
    let request = s.a_rekeys_child();
    assert_eq!(s.carry(request), 4);
    s.assert_whole();
}

#[test]
fn further_children_up_to_a_limit() {
    let mut s = Session::new(|_, b| b.children_limit = 2);
    let (a, b) = s.ids();
    let ranges = [[10, 0, 9, 0], [10, 0, 9, 255]].map(Ipv4Addr::from);
    let remote = [TrafficSelector::range(ranges[0], ranges[1])];
    let host = |last| [TrafficSelector::host([10, 99, 0, last])];
    let ask = |s: &mut Session, local: &[TrafficSelector], remote: &[TrafficSelector]| {
        let (now, node) = (s.pair.now, &mut s.pair.a);
        node.engine
            .add_child(now, a, local, remote, &mut node.owner);
        let request = s.pair.a.take();
        s.carry(request)
    };
    // HDR, SK {SA, Ni, KEi, TSi, TSr} --> <-- HDR, SK {N(TS_UNACCEPTABLE)}
    assert_eq!(ask(&mut s, &host(8), &remote), 2);
    // … <-- HDR, SK {SA, Nr, KEr, TSi, TSr}
    assert_eq!(ask(&mut s, &host(7), &remote), 2);
    // … <-- HDR, SK {N(NO_ADDITIONAL_SAS)}
    assert_eq!(ask(&mut s, &host(7), &remote), 2);
    assert_eq!(
        s.a.failures,
        [Failure::TsUnacceptable, Failure::NoAdditionalSas]
    );
    assert_eq!((s.a.children.len(), s.b.children.len()), (2, 2));
    let newest = s.a.children.values().next_back().unwrap();
    assert_eq!(newest.remote_ts, remote);
    // Replacing one is no further one.
    let request = s.a_rekeys_child();
    assert_eq!(s.carry(request), 4);
    assert_eq!((s.a.children.len(), s.b.children.len()), (2, 2));
    assert_eq!(s.a.children.values().next_back().unwrap().remote_ts, remote);
    // One goes, the session stays.
    let gone = *s.a.children.keys().next().unwrap();
    let delete = payload::delete::Delete::Esp(vec![gone]);
    say(
        &mut s.pair,
        a,
        exchange::INFORMATIONAL,
        vec![Payload::Delete(delete)],
    );
    s.follow();
    assert_eq!((s.b.children.len(), s.b.closed.is_none()), (1, true));
    s.pair.b.engine.check_liveness(s.pair.now, b);
    assert_eq!(s.pair.run(), 2);
}

/// What the first exchange has found out holds for every IKE SA that comes after it.
#[test]
fn what_was_learned_stays_when_the_ike_sa_is_replaced() {
    let mut s = Session::new(|_, b| b.encapsulation = Encapsulation::Always);
    let (a, b) = s.ids();
    let learned = |s: &Session| {
        [(&s.pair.a, a), (&s.pair.b, b)].map(|(node, id)| {
            let core = node.engine.core(id).unwrap();
            (core.nat, core.fragment_size, core.local, core.remote)
        })
    };
    let (before, spi) = (learned(&s), s.pair.a.engine.core(a).unwrap().spi_i);
    assert!(before[0].0.forced || before[1].0.forced);
    assert!(before.iter().all(|(_, size, ..)| size.is_some()));
    let request = s.a_rekeys_ike();
    s.carry(request);
    assert_ne!(s.pair.a.engine.core(a).unwrap().spi_i, spi);
    assert_eq!(learned(&s), before);
}

#[test]
fn what_can_not_be_replaced_is_said() {
    let mut s = Session::new(|_, _| {});
    let (a, _) = s.ids();
    // HDR, SK {N(REKEY_SA, unknown), SA, …} --> <-- HDR, SK {N(CHILD_SA_NOT_FOUND, unknown)}
    let sa = Payload::Sa(offers_of(&s.pair.a));
    let heard = say(
        &mut s.pair,
        a,
        exchange::CREATE_CHILD_SA,
        vec![rekey_sa(0x777), sa.clone()],
    );
    let expected = Payload::Notify(Notify {
        protocol: protocol::ESP,
        spi: 0x777_u32.to_be_bytes().to_vec(),
        ..Notify::new(kind::CHILD_SA_NOT_FOUND, [])
    });
    assert_eq!(heard, Some(vec![expected]));
    // HDR, SK {SA, Ni} --> <-- HDR, SK {N(INVALID_SYNTAX)}, which ends the session.
    say(&mut s.pair, a, exchange::CREATE_CHILD_SA, vec![sa]);
    s.follow();
    let told = CloseReason::Error(Failure::InvalidSyntax);
    assert_eq!(s.a.closed, Some(told));
    assert!(matches!(
        s.b.closed,
        Some(CloseReason::Error(Failure::WrongAnswer(_)))
    ));
}

/// Names a child SA by the SPI that the sender receives on.
fn rekey_sa(spi: u32) -> Payload {
    Payload::Notify(Notify {
        protocol: protocol::ESP,
        spi: spi.to_be_bytes().to_vec(),
        ..Notify::new(kind::REKEY_SA, [])
    })
}

fn offers_of(node: &Node) -> Vec<payload::sa::Proposal> {
    proposal::offers(&node.engine.settings().esp_proposals, |p, n| {
        p.offer(n, 0x4711)
    })
}

#[test]
fn a_child_that_the_peer_does_not_know_is_made_anew() {
    let mut s = Session::new(|_, _| {});
    let (_, b) = s.ids();
    let old = s.a.only().spi_in;
    // A peer out of step: it has forgotten.
    s.pair.b.engine.lose_children(b);
    // HDR, SK {N(REKEY_SA), …} --> <-- HDR, SK {N(CHILD_SA_NOT_FOUND)}
    // HDR, SK {SA, Ni, KEi, TSi, TSr} --> <-- HDR, SK {SA, Nr, KEr, TSi, TSr}
    let request = s.a_rekeys_child();
    assert_eq!(s.carry(request), 4);
    assert_eq!(s.a.failures, [Failure::ChildNotFound]);
    assert!(s.a.freed.contains(&old));
    let new = s.b.children.values().next_back().unwrap();
    assert_mirrored(s.a.only(), new);
}

#[test]
fn the_ike_sa_is_replaced_by_either_side() {
    let mut s = Session::new(|_, _| {});
    let (a, b) = s.ids();
    for round in 0..4 {
        // HDR(A,B), SK {SA(C), Ni, KEi} --> <-- HDR(A,B), SK {SA(D), Nr, KEr}
        let request = match round % 2 {
            0 => s.a_rekeys_ike(),
            _ => s.b_rekeys_ike(),
        };
        let old = spis(&request[0]);
        let answer = s.hand(&request[0]);
        // HDR(A,B), SK {D(IKE)} --> <-- HDR(A,B), SK {}
        let delete = s.hand(&answer[0]);
        assert_eq!((delete.len(), spis(&delete[0])), (1, old));
        assert_eq!(s.carry(delete), 2);
        // HDR(C,D), SK {} with message ID 0 -->
        s.pair.a.engine.check_liveness(s.pair.now, a);
        let ask = s.pair.a.take();
        let header = payload::header::Header::parse(&ask[0].data).unwrap();
        assert_eq!((header.message_id, header.initiator), (0, round % 2 == 0));
        assert!(
            [header.spi_i, header.spi_r]
                .iter()
                .all(|spi| !old.contains(spi))
        );
        assert_eq!(s.carry(ask), 2);
        s.assert_whole();
        assert_eq!(s.ids(), (a, b), "the same for the owner");
    }
    // The child SA lives on, and is replaced under the new one, by keys of the new one.
    let request = s.b_rekeys_child();
    assert_eq!(s.carry(request), 4);
    s.assert_whole();
    s.pair.a.engine.close(s.pair.now, a);
    s.pair.run();
    s.follow();
    assert_eq!(s.a.closed, Some(CloseReason::Local));
    assert_eq!(s.b.closed, Some(CloseReason::PeerDeleted));
}

#[test]
fn a_peer_that_never_deletes_leaves_little_behind() {
    let mut s = Session::new(|_, _| {});
    for round in 1..=20 {
        // HDR, SK {SA(IKE), Ni, KEi} --> <-- HDR, SK {SA(IKE), Nr, KEr}, and no DELETE
        let request = s.a_rekeys_ike();
        let answer = s.hand(&request[0]);
        s.hand(&answer[0]);
        assert_eq!(s.pair.b.engine.stats().ike_rekeyed, round);
        assert!(s.pair.b.engine.stats().sas <= 2);
    }
    let mut s = Session::new(|_, _| {});
    let (mut old, mut made) = (s.a.only().spi_in, 0);
    let refused = loop {
        // HDR, SK {N(REKEY_SA), …} --> <-- HDR, SK {SA, …}, and no DELETE
        let new = 0x9000 + made;
        let mut payloads = vec![rekey_sa(old), Payload::Nonce(vec![7; 32])];
        payloads.push(Payload::Sa(vec![EspProposal::default().offer(1, new)]));
        payloads.push(Payload::TsI(s.a.only().local_ts.clone()));
        payloads.push(Payload::TsR(s.a.only().remote_ts.clone()));
        let heard = say(
            &mut s.pair,
            s.a.id.unwrap(),
            exchange::CREATE_CHILD_SA,
            payloads,
        );
        s.follow();
        match heard.as_deref() {
            Some([Payload::Notify(refused)]) => break refused.kind,
            Some([Payload::Sa(_), ..]) => (old, made) = (new, made + 1),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((refused, made), (kind::TEMPORARY_FAILURE, 5));
    assert_eq!(s.b.children.len(), 6);
}

#[test]
fn the_ike_sa_gets_the_group_that_the_peer_wants() {
    let mut s = Session::new(|a, b| {
        a.ike_proposals[0].groups = vec![Group::X25519, Group::P256];
        b.ike_proposals[0].groups = vec![Group::X25519, Group::P256];
    });
    let proposals = |group| {
        vec![IkeProposal {
            groups: vec![group],
            ..IkeProposal::default()
        }]
    };
    s.pair
        .b
        .engine
        .change_settings(|settings| settings.ike_proposals = proposals(Group::P256));
    // HDR, SK {SA, Ni, KE(x25519)} --> <-- HDR, SK {N(INVALID_KE_PAYLOAD, P-256)}, and again
    let request = s.a_rekeys_ike();
    assert_eq!(s.carry(request), 6);
    s.assert_whole();
}

#[test]
fn spis_have_their_prefix_through_every_rekeying() {
    let mut s = Session::new(|a, b| {
        a.spi_prefix = SpiPrefix::new(6, 9);
        b.spi_prefix = SpiPrefix::new(6, 62);
    });
    let mut seen = std::collections::HashSet::new();
    for round in 0..4 {
        let (a, b) = s.ids();
        for (engine, id, prefix) in [(&s.pair.a.engine, a, 9), (&s.pair.b.engine, b, 62)] {
            let spi = engine.core(id).unwrap().spi_local();
            assert_eq!(spi >> 58, prefix, "round {round}");
            assert!(seen.insert(spi), "drawn");
        }
        // HDR, SK {SA, Ni, KEi} --> <-- HDR, SK {SA, Nr, KEr}
        let request = match round % 2 {
            0 => s.a_rekeys_ike(),
            _ => s.b_rekeys_ike(),
        };
        s.carry(request);
    }
}

#[test]
fn a_refused_rekeying_is_tried_again_until_the_lifetime_is_over() {
    let lifetime = Lifetime {
        rekey: Duration::from_secs(100),
        jitter: 0.1,
        hard: Duration::from_secs(150),
    };
    let refuse = |settings: &mut Settings| {
        settings.esp_proposals[0].ciphers = vec![EspCipher::Aes128Gcm];
        settings.ike_proposals[0].ciphers = vec![IkeCipher::Aes128Gcm16];
    };
    // HDR, SK {N(REKEY_SA), SA, …} --> <-- HDR, SK {N(NO_PROPOSAL_CHOSEN)}, more and more rarely
    for (what, ike) in [("the child SA", false), ("the IKE SA", true)] {
        let mut s = Session::new(|a, _| match ike {
            true => a.ike_lifetime = Some(lifetime),
            false => a.child_lifetime = Some(lifetime),
        });
        s.pair.a.engine.change_settings(|a| {
            a.esp_proposals[0].ciphers = vec![EspCipher::Aes256Gcm];
            a.ike_proposals[0].ciphers = vec![IkeCipher::Aes256Gcm16];
        });
        s.pair.b.engine.change_settings(refuse);
        s.pass(Duration::from_secs(149));
        assert_eq!((&s.a.closed, &s.b.closed), (&None, &None));
        let failed = s.pair.a.engine.stats().rekeyings_failed;
        assert!((5..20).contains(&failed), "{failed} failures");
        s.pass(Duration::from_secs(2));
        let error = Some(Failure::NoProposalChosen);
        assert_eq!(s.a.closed, Some(CloseReason::Expired { what, error }));
        assert_eq!(s.b.closed, Some(CloseReason::PeerDeleted));
        let text = s.a.closed.as_ref().unwrap().to_string();
        assert!(
            text.ends_with("is over, and it could not be replaced: no proposal chosen"),
            "{text}"
        );
        s.a.assert_no_leak(&s.pair.a, s.first[0]);
        // It helps to agree again in time.
        let mut s = Session::new(|a, _| match ike {
            true => a.ike_lifetime = Some(lifetime),
            false => a.child_lifetime = Some(lifetime),
        });
        s.pair.b.engine.change_settings(|b| b.children_limit = 1);
        s.pass(Duration::from_secs(1000));
        assert_eq!((&s.a.closed, &s.b.closed), (&None, &None));
        let count = |s: &Session| match ike {
            true => s.pair.a.engine.stats().ike_rekeyed,
            false => s.pair.a.engine.stats().children_rekeyed,
        };
        assert!((9..=11).contains(&count(&s)), "{}", count(&s));
    }
}

#[test]
fn lifetimes_of_both_rarely_meet() {
    let lifetime = Some(Lifetime::new(Duration::from_secs(60)));
    let mut s = Session::new(|a, b| {
        for settings in [a, b] {
            (settings.child_lifetime, settings.ike_lifetime) = (lifetime, lifetime);
        }
    });
    let started = s.pair.now;
    while s.pair.now < started + Duration::from_secs(3600) {
        s.pass(Duration::from_secs(1));
    }
    let stats = [s.pair.a.engine.stats(), s.pair.b.engine.stats()];
    for Stats {
        children_rekeyed,
        ike_rekeyed,
        ..
    } in stats
    {
        assert!((60..70).contains(&children_rekeyed), "{stats:?}");
        assert!((60..70).contains(&ike_rekeyed), "{stats:?}");
    }
    assert_eq!((&s.a.closed, &s.b.closed), (&None, &None));
}

#[test]
fn the_owner_may_end_or_forget_a_session_in_the_middle() {
    for ike in [false, true] {
        // HDR, SK {SA, Ni, …} --> and then D(IKE) as soon as that is answered.
        let mut s = Session::new(|_, _| {});
        let (a, _) = s.ids();
        let request = match ike {
            true => s.a_rekeys_ike(),
            false => s.a_rekeys_child(),
        };
        s.pair.a.engine.close(s.pair.now, a);
        s.carry(request);
        s.pass(Duration::from_secs(200));
        assert_eq!(s.a.closed, Some(CloseReason::Local));
        assert_eq!(s.b.closed, Some(CloseReason::PeerDeleted));
        for (held, node, first) in [(&s.a, &s.pair.a, s.first[0]), (&s.b, &s.pair.b, s.first[1])] {
            held.assert_no_leak(node, first);
            assert_eq!(
                (node.engine.stats().sas, node.engine.next_timeout()),
                (0, None)
            );
        }
        let mut s = Session::new(|_, _| {});
        let (a, _) = s.ids();
        match ike {
            true => s.a_rekeys_ike(),
            false => s.a_rekeys_child(),
        };
        s.pair.a.engine.forget(a);
        s.pair.a.take();
        s.follow();
        s.a.freed.extend(s.a.children.keys());
        s.a.assert_no_leak(&s.pair.a, s.first[0]);
        assert_eq!(s.pair.a.engine.next_timeout(), None);
    }
}
