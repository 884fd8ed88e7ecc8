//! An IKE SA that has lost count: one that was restored does not know which message IDs were used
//! after its snapshot was taken. Before its first request it finds out, by IKEV2_MESSAGE_ID_SYNC (RFC 6311)
//! of peers that have it, and by questions of others. The other end of that too: a peer that has lost count.
//!
//! A question is an empty INFORMATIONAL. A peer takes the message ID that it expects, repeats its answer
//! to the one before, and passes over all others (RFC 7296 section 2.3); so an authentic answer to
//! any question, whatever it says, tells that the next ID is the right one for both.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::event::{CloseReason, Event, Failure};
use super::super::payload::header::{Header, exchange};
use super::super::payload::{Payload, parse_chain};
use super::super::state::Phase;
use super::super::task::Cx;
use super::super::task::sync::{self, NONCE, Sync};
use super::Sa;

/// The peer's next request may be so much further than the snapshot says: those that change nothing
/// are not written down one by one.
pub(in super::super) const AHEAD: u32 = 256;

/// The message IDs of IKEV2_MESSAGE_ID_SYNC are so much higher in each run: none of them was used before.
const JUMP: u32 = 512;

/// How far behind the last ID that is known the questions begin. Each of them is answered if it is the ID
/// that the peer expects, or the one before: every other one is enough.
const QUESTIONS: [u32; 26] = [
    0, 0, 2, 4, 6, 8, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38,
];

/// What brings both ends into step.
#[derive(Debug)]
pub(in super::super) struct CatchUp {
    way: Way,
    /// The peer is to go on with outbound sequence numbers that are so much higher.
    by: Option<u64>,
    /// Not before something is to be asked.
    patient: bool,
    sent: u32,
    /// When the next message goes; `None` before the first one.
    again: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By RFC 6311: the nonce and M1 of the last message.
    Sync { nonce: [u8; NONCE], m1: u32 },
    /// By questions: the first ID, and that of the last question.
    Ask { first: u32, id: u32 },
}

impl Way {
    /// The nonce is drawn for each message.
    fn sync(m1: u32) -> Self {
        let nonce = [0; NONCE];
        Way::Sync { nonce, m1 }
    }
}

impl CatchUp {
    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        Some((self.again?, "catching up"))
    }
}

impl Sa {
    /// It was restored by run number `run` of the owner, from a snapshot of run `before`.
    pub(in super::super) fn restored(&mut self, before: u32, run: u32) {
        if self.core.phase == Phase::Replaced {
            // It asks nothing any more.
            self.ahead = AHEAD;
            return;
        }
        let first = self.next;
        let jump = run.saturating_sub(before).max(1).saturating_mul(JUMP);
        // strongSwan 5.9.8 ends an IKE SA with the second such message: it can not seal the answer. Whoever knows
        // of sequence numbers, too, is not that.
        let again = self.last_sync.is_none() || self.core.sync.counters;
        let way = match self.core.sync.ids && again {
            // What was said last may never have been answered.
            true => Way::sync(first.max(self.last_sync.unwrap_or(0)).saturating_add(jump)),
            false => Way::Ask { first, id: first },
        };
        self.ahead = AHEAD;
        self.catch_up = Some(Box::new(CatchUp {
            way,
            by: None,
            patient: true,
            sent: 0,
            again: None,
        }));
    }

    /// The peer is to go on with higher sequence numbers. False if it does not know how.
    pub(in super::super) fn ask_ahead(&mut self, by: u64, cx: &mut Cx<'_>) -> bool {
        let can = self.core.sync.ids && self.core.sync.counters;
        if !can || self.core.phase != Phase::Established {
            return false;
        }
        // Higher than every one before.
        let m1 = self.last_sync.map_or(0, |last| last.saturating_add(1));
        match self.catch_up.as_mut() {
            // It says so once more, with a nonce of its own.
            Some(catch_up) => {
                catch_up.by = Some(by.max(catch_up.by.unwrap_or(0)));
                catch_up.patient = false;
                // A question can not say so.
                if let Way::Ask { first, .. } = catch_up.way {
                    (catch_up.way, catch_up.sent) = (Way::sync(m1.max(first)), 0);
                }
                if catch_up.again.is_some() {
                    catch_up.again = Some(cx.now);
                }
            }
            None => {
                self.catch_up = Some(Box::new(CatchUp {
                    way: Way::sync(m1.max(self.next)),
                    by: Some(by),
                    patient: false,
                    sent: 0,
                    again: None,
                }));
            }
        }
        self.go_on(cx);
        true
    }

    /// What the IKE SA that this one replaces has asked for and has no answer to.
    pub(super) fn inherit_step(&mut self, old: &mut Sa) {
        let by = old.catch_up.take().and_then(|catch_up| catch_up.by);
        self.catch_up = by.map(|by| {
            Box::new(CatchUp {
                way: Way::sync(self.next),
                by: Some(by),
                patient: false,
                sent: 0,
                again: None,
            })
        });
    }

    /// Whether both ends must come into step before a request can go. It begins with that.
    pub(super) fn must_catch_up(&mut self, cx: &mut Cx<'_>) -> bool {
        let waits = !self.queue.is_empty();
        let Some(catch_up) = self.catch_up.as_ref() else {
            return false;
        };
        if catch_up.again.is_none() && (waits || !catch_up.patient) {
            self.catch_up_now(cx);
        }
        true
    }

    /// Whether the peer's requests have to wait, too: until both ends agree on IDs, one that is on its way
    /// and one that the peer sends in its place could both be taken.
    pub(super) fn is_out_of_step(&self) -> bool {
        let way = self.catch_up.as_ref().map(|catch_up| catch_up.way);
        matches!(way, Some(Way::Sync { .. }))
    }

    /// A request has come that must wait.
    pub(super) fn step_first(&mut self, cx: &mut Cx<'_>) {
        if let Some(catch_up) = self.catch_up.as_mut() {
            catch_up.patient = false;
        }
        self.go_on(cx);
    }

    /// Sends the next message that brings both ends into step.
    fn catch_up_now(&mut self, cx: &mut Cx<'_>) {
        let Some(mut catch_up) = self.catch_up.take() else {
            return;
        };
        if let Way::Sync { m1, .. } = catch_up.way
            && catch_up.sent >= cx.settings.retransmit.tries
            && catch_up.by.is_none()
        {
            // Perhaps the answers are what is lost: the peer expects what it was told to all the same.
            catch_up.way = Way::Ask { first: m1, id: m1 };
            catch_up.sent = 0;
        }
        let sent = catch_up.sent;
        let next = match &mut catch_up.way {
            Way::Sync { nonce, m1 } => {
                if sent >= cx.settings.retransmit.tries {
                    return self.out_of_step(cx);
                }
                // A repetition must be higher, too (section 5.1).
                if sent > 0 {
                    *m1 = m1.saturating_add(1);
                }
                cx.rng.fill_bytes(nonce);
                let esn = self.core.children.iter().any(|child| child.esn);
                self.last_sync = Some(*m1);
                let sync = Sync {
                    nonce: *nonce,
                    send: *m1,
                    receive: self.expected,
                };
                let mut payloads = vec![sync.payload()];
                payloads.extend(catch_up.by.map(|by| sync::ahead(by, esn)));
                let wait = cx.settings.retransmit.wait(sent + 1);
                Some((0, payloads, wait))
            }
            Way::Ask { first, id } => {
                let offset = usize::try_from(sent).ok().and_then(|i| QUESTIONS.get(i));
                let asked = offset.and_then(|offset| first.checked_add(*offset));
                asked.map(|asked| {
                    *id = asked;
                    (asked, Vec::new(), cx.settings.retransmit.first)
                })
            }
        };
        let Some((id, payloads, wait)) = next else {
            return self.out_of_step(cx);
        };
        cx.stats.retransmits += u64::from(sent > 0);
        match self.write(exchange::INFORMATIONAL, false, id, &payloads) {
            Ok(message) => message.into_iter().for_each(|data| self.transmit(data, cx)),
            // A few bytes always fit.
            Err(_) => return self.out_of_step(cx),
        }
        catch_up.sent += 1;
        catch_up.again = Some(cx.now + wait);
        self.catch_up = Some(catch_up);
    }

    /// The peer has not answered, whatever it was asked.
    fn out_of_step(&mut self, cx: &mut Cx<'_>) {
        cx.stats.given_up += 1;
        let reason = match self.core.phase {
            Phase::Closing => self.core.closing.clone(),
            _ => CloseReason::Timeout,
        };
        self.core.end(cx, reason);
        self.dead = true;
    }

    /// Whether messages that bring both ends into step are on their way.
    pub(super) fn is_catching_up(&self) -> bool {
        self.catch_up.as_ref().is_some_and(|c| c.again.is_some())
    }

    /// Asks on, if it is time.
    pub(super) fn catch_up_on_time(&mut self, cx: &mut Cx<'_>) {
        let again = self.catch_up.as_ref().and_then(|c| c.again);
        if again.is_some_and(|at| at <= cx.now) {
            self.catch_up_now(cx);
        }
    }

    /// Whether a response is that to the last message.
    pub(super) fn brings_into_step(&self, header: &Header) -> bool {
        let asked = self.catch_up.as_ref().filter(|c| c.again.is_some());
        asked.is_some_and(|catch_up| match catch_up.way {
            Way::Sync { .. } => {
                header.message_id == 0 && header.exchange == exchange::INFORMATIONAL
            }
            // What it answers may be what an earlier run has asked.
            Way::Ask { id, .. } => header.message_id == id,
        })
    }

    /// Takes that response.
    pub(super) fn caught_up(&mut self, payloads: &[Payload], cx: &mut Cx<'_>) {
        let Some(catch_up) = &self.catch_up else {
            return;
        };
        let by = catch_up.by;
        match catch_up.way {
            Way::Ask { id, .. } => self.next = id.saturating_add(1),
            Way::Sync { nonce, m1 } => {
                let answer = Sync::of(payloads).map(|(sync, _)| sync);
                let fits = |sync: &Sync| {
                    let lower = sync.receive < m1 || sync.send < self.expected;
                    // A peer that speaks for itself has not used up all numbers there are.
                    sync.nonce == nonce && !lower && sync.send < u32::MAX - AHEAD
                };
                let Some(Sync { send, receive, .. }) = answer.filter(fits) else {
                    cx.stats.stale_response += 1;
                    return;
                };
                self.next = receive;
                self.ahead = 0;
                if send > self.expected {
                    // What it asked before it asks again, with a new ID.
                    self.expected = send;
                    self.answer.clear();
                }
            }
        }
        self.catch_up = None;
        if self.core.is_announced() {
            let id = self.core.id;
            cx.events.push(Event::Alive { id });
            if by.is_some() {
                cx.events.push(Event::PeerAhead { id });
            }
        }
        self.go_on(cx);
    }

    /// The peer's request with message ID 0 that asks for the message IDs, if this is one.
    pub(super) fn asks_for_step(
        &self,
        header: &Header,
        first: u8,
        plain: &[u8],
    ) -> Option<(Sync, Option<u64>)> {
        let can = self.core.sync.ids
            && matches!(self.core.phase, Phase::Established | Phase::Closing)
            && header.exchange == exchange::INFORMATIONAL
            && header.message_id == 0;
        Sync::of(&parse_chain(first, plain).ok().filter(|_| can)?)
    }

    /// Answers it (section 5.1).
    pub(super) fn bring_into_step(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        (asked, by): (Sync, Option<u64>),
        cx: &mut Cx<'_>,
    ) {
        // M1 must be higher than all that came from the cluster, those of earlier such messages too.
        let old = asked.send < self.expected || self.synced.is_some_and(|m1| asked.send <= m1);
        // Message IDs must not wrap: nobody is that far.
        if old || asked.send > u32::MAX / 2 || asked.receive > u32::MAX / 2 {
            cx.stats.bad_message_id += 1;
            return;
        }
        self.synced = Some(asked.send);
        // P2: the higher one of P1 and what we use next. M2: of M1 and what we expect.
        let seen = asked.receive;
        self.next = self.next.max(seen);
        self.expected = asked.send;
        // It is not the answer to the request before any more.
        self.answer.clear();
        let answer = Sync {
            nonce: asked.nonce,
            send: self.next,
            receive: self.expected,
        };
        if let Some(by) = by.filter(|_| self.core.sync.counters) {
            let id = self.core.id;
            cx.events.push(Event::Ahead { id, by });
        }
        match self.write(exchange::INFORMATIONAL, true, 0, &[answer.payload()]) {
            Ok(message) => self.reply_with(&message, local, remote, cx),
            Err(too_long) => return self.finish(cx, CloseReason::Error(Failure::from(too_long))),
        }
        // What the cluster has not seen it will not answer under its old ID.
        if let Some(pending) = self.pending.take_if(|pending| pending.id >= seen) {
            let id = self.next;
            self.next = self.next.saturating_add(1);
            self.send(pending.task, id, cx);
        }
    }
}
