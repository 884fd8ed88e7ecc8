//! What must not come about, and what each side is told.

use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::{Payload, delete};
use super::life::say;
use super::*;

/// Runs a session that fails, to the end; yields what client and gateway were told.
pub(super) fn failing(mut pair: Pair, wish: Initiate) -> (Failure, Option<Failure>, Pair) {
    let sa = pair.initiate(wish);
    pair.run();
    assert!(pair.a.established().is_none());
    let failed = pair
        .a
        .events
        .iter()
        .filter(|e| matches!(e, Event::Failed { id, .. } if *id == sa));
    assert_eq!(failed.count(), 1);
    let told = (
        pair.a.failure().cloned().unwrap(),
        pair.b.failure().cloned(),
    );
    // Whatever was left of it goes away by itself.
    pair.pass(Duration::from_secs(120));
    assert_eq!(
        (pair.a.engine.stats().sas, pair.b.engine.stats().sas),
        (0, 0)
    );
    assert_eq!(pair.b.engine.stats().half_open, 0);
    (told.0, told.1, pair)
}

#[test]
fn a_wrong_key_fails_at_the_gateway() {
    let pair = Pair::new();
    let wish = Initiate {
        auth: psk("guess").into(),
        ..pair.wish()
    };
    // HDR, SK {IDi, AUTH, …} --> <-- HDR, SK {N(AUTHENTICATION_FAILED)}
    let (client, gateway, pair) = failing(pair, wish);
    assert_eq!(client, Failure::AuthenticationFailed);
    assert_eq!(gateway, Some(Failure::AuthenticationFailed));
    assert!(pair.b.established().is_none());
    assert_eq!(pair.b.engine.stats().authentication_failed, 1);
    let [Event::Failed { spi_in, .. }] = pair.a.events[..] else {
        panic!()
    };
    assert_eq!(spi_in, Some(0x2000));
}

#[test]
fn an_unknown_identity_gets_the_same_answer() {
    let pair = Pair::with(|a, _| a.local_id = id("stranger.example"));
    let wish = pair.wish();
    let (client, _, pair) = failing(pair, wish);
    assert_eq!(client, Failure::AuthenticationFailed);
    assert!(pair.b.established().is_none());
    let [Event::Refused { peer, error, .. }] = &pair.b.events[..] else {
        panic!()
    };
    assert_eq!(
        (peer, error),
        (&Some(id("stranger.example")), &Failure::UnknownPeer)
    );
}

#[test]
fn the_wrong_gateway_is_told_and_left() {
    let pair = Pair::with(|_, b| b.local_id = id("other.example"));
    let wish = pair.wish();
    // <-- HDR, SK {IDr(other), AUTH, …}
    // HDR, SK {N(AUTHENTICATION_FAILED), D(IKE)} --> <-- HDR, SK {}
    let (client, _, pair) = failing(pair, wish);
    let (found, expected) = (id("other.example"), id("gw.example"));
    assert_eq!(client, Failure::WrongIdentity { found, expected });
    let reason = CloseReason::Error(Failure::AuthenticationFailed);
    assert_eq!(pair.b.closed(), Some(&reason));
}

#[test]
fn anyone_with_the_key_will_do_if_no_identity_is_asked_for() {
    let mut pair = Pair::with(|_, b| b.local_id = id("other.example"));
    let wish = Initiate {
        remote_id: None,
        ..pair.wish()
    };
    pair.initiate(wish);
    pair.run();
    let [Event::Established { peer, .. }] = &pair.a.events[..] else {
        panic!()
    };
    assert_eq!(peer, &id("other.example"));
}

#[test]
fn nothing_to_offer() {
    let pair = Pair::with(|a, _| a.ike_proposals.clear());
    let wish = pair.wish();
    let (client, ..) = failing(pair, wish);
    assert_eq!(client, Failure::NoProposalChosen);
}

#[test]
fn no_common_esp_proposal() {
    let pair = Pair::with(|a, b| {
        a.esp_proposals[0].esn = vec![false];
        b.esp_proposals[0].esn = vec![true];
    });
    let wish = pair.wish();
    // <-- HDR, SK {IDr, AUTH, N(NO_PROPOSAL_CHOSEN)}   HDR, SK {D(IKE)} --> <-- HDR, SK {}
    let (client, gateway, pair) = failing(pair, wish);
    assert_eq!(client, Failure::NoProposalChosen);
    assert_eq!(gateway, Some(Failure::NoProposalChosen));
    assert_eq!(pair.b.owner.asked, None);
}

#[test]
fn no_selector_in_common() {
    let pair = Pair::new();
    let wish = Initiate {
        remote_ts: vec![TrafficSelector::host([192, 168, 1, 1])],
        ..pair.wish()
    };
    let (client, gateway, pair) = failing(pair, wish);
    assert_eq!(client, Failure::TsUnacceptable);
    assert_eq!(gateway, Some(Failure::TsUnacceptable));
    // What was assigned on the way is given back.
    let [Event::Refused { assigned, .. }] = &pair.b.events[..] else {
        panic!()
    };
    assert_eq!(assigned, &[IpAddr::from([10, 99, 0, 7])]);
    assert_eq!(pair.b.owner.next_spi, 0x3000, "no SPI is allocated in vain");
}

#[test]
fn no_address_left() {
    let mut pair = Pair::new();
    pair.b.owner.addresses = Err(AssignRefused);
    let wish = pair.wish();
    let (client, gateway, _) = failing(pair, wish);
    assert_eq!(client, Failure::InternalAddressFailure);
    assert_eq!(gateway, Some(Failure::InternalAddressFailure));
}

#[test]
fn no_address_where_one_was_asked_for() {
    let mut pair = Pair::new();
    pair.b.owner.addresses = Ok(Vec::new());
    let wish = pair.wish();
    let (client, gateway, _) = failing(pair, wish);
    assert_eq!((client, gateway), (Failure::InternalAddressFailure, None));
}

#[test]
fn reserved_spis_are_not_sent_on() {
    for spi in [0, 255, u32::MAX] {
        let mut pair = Pair::new();
        pair.a.owner.next_spi = spi;
        let wish = pair.wish();
        let (client, gateway, _) = failing(pair, wish);
        assert_eq!(client, Failure::NoProposalChosen, "{spi:#x}");
        assert_eq!(gateway, Some(Failure::NoProposalChosen));

        let mut pair = Pair::new();
        pair.b.owner.next_spi = spi;
        let wish = pair.wish();
        let (client, ..) = failing(pair, wish);
        assert!(
            matches!(client, Failure::WrongAnswer(_)),
            "{spi:#x}: {client}"
        );
    }
}

#[test]
fn nobody_answers() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    pair.initiate(wish);
    let mut sent = pair.a.take();
    let start = pair.now;
    while pair.wait() {
        sent.extend(pair.a.take());
    }
    // 0.5 + 1 + 2 + 4 + 8 + 10 seconds
    assert_eq!(pair.now - start, Duration::from_millis(25_500));
    assert_eq!(sent.len(), 6);
    assert!(
        sent.iter().all(|t| t == &sent[0]),
        "a retransmission is the same in every bit"
    );
    assert_eq!(pair.a.failure(), Some(&Failure::Timeout));
    let stats = pair.a.engine.stats();
    assert_eq!((stats.sas, stats.retransmits, stats.given_up), (0, 5, 1));
}

#[test]
fn a_dead_peer_is_noticed_by_a_liveness_check() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    pair.a.engine.check_liveness(pair.now, a);
    while pair.wait() {
        pair.a.take();
    }
    assert_eq!(pair.a.closed(), Some(&CloseReason::Timeout));
    assert_eq!(pair.a.engine.stats().sas, 0);
}

#[test]
fn a_close_that_nobody_answers_ends_too() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    pair.a.engine.close(pair.now, a);
    while pair.wait() {
        pair.a.take();
    }
    assert_eq!(pair.a.closed(), Some(&CloseReason::Local));
    assert_eq!(pair.a.events.len(), 1);
}

#[test]
fn a_cancelled_session_fails_at_once() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    let a = pair.initiate(wish);
    pair.a.engine.close(pair.now, a);
    pair.a.take();
    assert_eq!(pair.a.failure(), Some(&Failure::Cancelled));
    // A forgotten one says nothing.
    let wish = pair.wish();
    let a = pair.initiate(wish);
    pair.a.engine.forget(a);
    pair.a.take();
    assert_eq!((pair.a.events.len(), pair.a.engine.stats().sas), (1, 0));
    assert_eq!(pair.a.engine.next_timeout(), None);
}

#[test]
fn an_unknown_critical_payload_is_named_and_the_session_stays() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    // HDR, SK {!201} --> <-- HDR, SK {N(UNSUPPORTED_CRITICAL_PAYLOAD, 201)}
    let odd = vec![Payload::Other {
        kind: 201,
        critical: true,
        body: vec![1],
    }];
    let heard = say(&mut pair, a, exchange::INFORMATIONAL, odd);
    let notify = Notify::new(kind::UNSUPPORTED_CRITICAL_PAYLOAD, [201]);
    assert_eq!(heard, Some(vec![Payload::Notify(notify)]));
    assert!(pair.b.events.is_empty());
    pair.a.engine.check_liveness(pair.now, a);
    pair.run();
    assert!(matches!(pair.a.events[..], [Event::Alive { .. }]));
}

#[test]
fn nonsense_from_an_authenticated_peer_ends_the_session() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    // HDR, SK {D(of length 2)} --> <-- HDR, SK {N(INVALID_SYNTAX)}
    let odd = vec![Payload::Other {
        kind: payload::kind::DELETE,
        critical: false,
        body: vec![1, 0],
    }];
    say(&mut pair, a, exchange::INFORMATIONAL, odd);
    let told = CloseReason::Error(Failure::InvalidSyntax);
    assert_eq!(pair.a.closed(), Some(&told));
    assert!(matches!(
        pair.b.closed(),
        Some(CloseReason::Error(Failure::Malformed(_)))
    ));

    let mut pair = Pair::new();
    let (a, _) = pair.up();
    say(&mut pair, a, 99, Vec::new());
    assert_eq!(pair.a.closed(), Some(&told));
    assert!(pair.b.closed().is_some());
}

#[test]
fn children_that_do_not_exist_are_not_deleted() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    let deleted = vec![
        Payload::Delete(delete::Delete::Esp(vec![0x1234_5678])),
        Payload::Delete(delete::Delete::Ah(vec![0x1234_5678])),
    ];
    assert_eq!(
        say(&mut pair, a, exchange::INFORMATIONAL, deleted),
        Some(vec![])
    );
    assert!(pair.b.events.is_empty());
}

#[test]
fn an_identity_beyond_measure_is_refused_and_not_shown() {
    let pair = Pair::with(|a, _| {
        a.local_id = Identity::KeyId(vec![7; 60_000]);
        a.fragment_size = None;
    });
    let wish = pair.wish();
    // HDR, SK {IDi(60000 bytes), AUTH, …} --> <-- HDR, SK {N(INVALID_SYNTAX)}
    let (client, gateway, pair) = failing(pair, wish);
    assert_eq!(client, Failure::InvalidSyntax);
    assert!(matches!(gateway, Some(Failure::Malformed(_))));
    let shown = format!("{:?}", pair.b.events);
    assert!(shown.len() < 500, "{shown}");
}

#[test]
fn a_flood_of_strangers_is_told_of_in_measure() {
    let mut pair = Pair::new();
    let stranger = Initiate {
        auth: psk("guess").into(),
        ..pair.wish()
    };
    let untold = |pair: &mut Pair, count| {
        for _ in 0..count {
            pair.initiate(stranger.clone());
            pair.run();
        }
        let told = pair.b.events.drain(..).map(|event| match event {
            Event::Refused { untold, .. } => untold,
            other => panic!("{other:?}"),
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(untold(&mut pair, 30), [0; 10]);
    assert_eq!(pair.b.engine.stats().untold_refusals, 20);
    assert_eq!(pair.b.engine.stats().authentication_failed, 30);
    pair.now += Duration::from_secs(1);
    assert_eq!(untold(&mut pair, 5), [20]);
}

#[test]
fn a_refusal_that_frees_an_address_is_always_told() {
    let mut pair = Pair::new();
    pair.b.owner.local_ts = vec![TrafficSelector::host([192, 0, 2, 99])];
    for _ in 0..30 {
        let wish = pair.wish();
        pair.initiate(wish);
        pair.run();
    }
    let told =
        pair.b.events.iter().filter(
            |event| matches!(event, Event::Refused { assigned, .. } if !assigned.is_empty()),
        );
    assert_eq!(told.count(), 30);
}
