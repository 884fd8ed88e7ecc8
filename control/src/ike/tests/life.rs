//! What happens in an established session, with the wire above each step.

use super::super::payload::header::exchange;
use super::super::payload::notify::Notify;
use super::super::payload::{Payload, delete};
use super::super::state::Core;
use super::super::task::{Cx, Request, Response, Step};
use super::*;
use std::sync::{Arc, Mutex};

/// A request of any exchange with any payloads; keeps what comes back.
pub(super) struct Say {
    pub(super) exchange: u8,
    pub(super) payloads: Vec<Payload>,
    pub(super) heard: Arc<Mutex<Option<Vec<Payload>>>>,
}

impl Request for Say {
    fn exchange(&self) -> u8 {
        self.exchange
    }

    fn build(&mut self, _: &mut Core, _: &mut Cx<'_>) -> Vec<Payload> {
        self.payloads.clone()
    }

    fn process(&mut self, _: &mut Core, _: &mut Cx<'_>, response: &Response<'_>) -> Step {
        *self.heard.lock().unwrap() = Some(response.payloads.to_vec());
        Step::Done
    }
}

/// Has the client of an established session say something; yields what the gateway answers.
pub(super) fn say(
    pair: &mut Pair,
    id: SaId,
    exchange: u8,
    payloads: Vec<Payload>,
) -> Option<Vec<Payload>> {
    let heard = Arc::default();
    let task = Say {
        exchange,
        payloads,
        heard: Arc::clone(&heard),
    };
    pair.a.engine.start(pair.now, id, Box::new(task));
    pair.run();
    heard.lock().unwrap().take()
}

#[test]
fn deletion_by_either_side() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    // HDR, SK {D(IKE)} --> <-- HDR, SK {}
    pair.a.engine.close(pair.now, a);
    assert_eq!(pair.run(), 2);
    assert_eq!(pair.a.closed(), Some(&CloseReason::Local));
    assert_eq!(pair.b.closed(), Some(&CloseReason::PeerDeleted));
    assert_eq!(pair.a.engine.stats().sas, 0);

    let mut pair = Pair::new();
    let (_, b) = pair.up();
    // <-- HDR, SK {D(IKE)}   HDR, SK {} -->
    pair.b.engine.close(pair.now, b);
    assert_eq!(pair.run(), 2);
    assert_eq!(pair.b.closed(), Some(&CloseReason::Local));
    assert_eq!(pair.a.closed(), Some(&CloseReason::PeerDeleted));
    // The answer is kept for a while, in case it got lost.
    pair.pass(Duration::from_secs(11));
    assert_eq!(
        (pair.a.engine.stats().sas, pair.b.engine.stats().sas),
        (0, 0)
    );
    assert_eq!(
        (pair.a.engine.next_timeout(), pair.b.engine.next_timeout()),
        (None, None)
    );
}

#[test]
fn both_delete_at_once() {
    let mut pair = Pair::new();
    let (a, b) = pair.up();
    pair.a.engine.close(pair.now, a);
    pair.b.engine.close(pair.now, b);
    let (from_a, from_b) = (pair.a.take(), pair.b.take());
    let answers: Vec<_> = from_a
        .iter()
        .chain(&from_b)
        .flat_map(|t| pair.deliver(t))
        .collect();
    for t in answers {
        pair.deliver(&t);
    }
    pair.pass(Duration::from_secs(60));
    assert_eq!((pair.a.events.len(), pair.b.events.len()), (1, 1));
    assert_eq!(
        (pair.a.engine.stats().sas, pair.b.engine.stats().sas),
        (0, 0)
    );
}

#[test]
fn liveness_is_asked_and_answered() {
    let mut pair = Pair::new();
    let (a, b) = pair.up();
    // HDR, SK {} --> <-- HDR, SK {}
    pair.a.engine.check_liveness(pair.now, a);
    pair.a.engine.check_liveness(pair.now, a);
    assert_eq!(pair.run(), 2);
    assert!(matches!(pair.a.events[..], [Event::Alive { id }] if id == a));
    // Both at once: each side has a window of its own.
    pair.a.engine.check_liveness(pair.now, a);
    pair.b.engine.check_liveness(pair.now, b);
    assert_eq!(pair.run(), 4);
    assert!(matches!(pair.b.events[..], [Event::Alive { id }] if id == b));
    assert_eq!(pair.a.events.len(), 2);
}

#[test]
fn a_close_waits_for_the_window() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    pair.a.engine.check_liveness(pair.now, a);
    pair.a.engine.close(pair.now, a);
    let asked = pair.a.take();
    assert_eq!(asked.len(), 1);
    let answer = pair.deliver(&asked[0]);
    let delete = pair.deliver(&answer[0]);
    assert_eq!(delete.len(), 1);
    let answer = pair.deliver(&delete[0]);
    pair.deliver(&answer[0]);
    assert_eq!(pair.a.closed(), Some(&CloseReason::Local));
}

#[test]
fn a_deleted_child_takes_the_session_with_it() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    pair.initiate(wish);
    pair.run();
    let (a, child) = pair.a.established().unwrap();
    let (spi_in, spi_out) = (child.spi_in, child.spi_out);
    // HDR, SK {D(ESP, spi)} --> <-- HDR, SK {D(ESP, spi)}   <-- HDR, SK {D(IKE)}   HDR, SK {} -->
    let deleted = vec![Payload::Delete(delete::Delete::Esp(vec![
        spi_in,
        0x7777_7777,
    ]))];
    let heard = say(&mut pair, a, exchange::INFORMATIONAL, deleted);
    assert_eq!(
        heard,
        Some(vec![Payload::Delete(delete::Delete::Esp(vec![spi_out]))])
    );
    assert!(pair.b.events.iter().any(|e| {
        matches!(e, Event::ChildClosed { spi_in: i, spi_out: o, .. }
            if (*i, *o) == (spi_out, spi_in))
    }));
    assert_eq!(pair.b.closed(), Some(&CloseReason::PeerDeleted));
    assert_eq!(pair.a.closed(), Some(&CloseReason::PeerDeleted));
}

#[test]
fn unknown_payloads_and_notifications_are_skipped() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    let odd = vec![
        Payload::Other {
            kind: 200,
            critical: false,
            body: vec![1, 2, 3],
        },
        Payload::Other {
            kind: payload::kind::EAP,
            critical: true,
            body: vec![3, 1, 0, 4],
        },
        Payload::Notify(Notify::new(40_000, [1])),
        Payload::Notify(Notify::new(8_000, [1])),
        Payload::Vendor(b"x".to_vec()),
    ];
    assert_eq!(
        say(&mut pair, a, exchange::INFORMATIONAL, odd),
        Some(vec![])
    );
    assert!(pair.b.events.is_empty());
}

/// Section 2.25: TEMPORARY_FAILURE is waited for, but not for ever.
#[test]
fn a_peer_that_never_has_time_is_given_up() {
    let mut pair = Pair::new();
    let (a, b) = pair.up();
    pair.b.engine.occupy(b);
    pair.a.engine.rekey_ike(pair.now, a);
    pair.pass(Duration::from_secs(290));
    assert_eq!(pair.a.closed(), None);
    assert!(pair.a.engine.stats().rekeyings_failed > 10);
    pair.pass(Duration::from_secs(60));
    let reason = CloseReason::Error(Failure::TemporaryFailure);
    assert_eq!(pair.a.closed(), Some(&reason));
    assert_eq!(pair.b.closed(), Some(&CloseReason::PeerDeleted));
}
