//! One IKE SA: message IDs, retransmission, cached answers, and the task at work (RFC 7296 sections
//! 2.1 to 2.3).

mod catch_up;
mod lifetime;
mod mobility;
pub(super) mod restored;
mod waiting;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::event::{CloseReason, Transmit};
use super::payload::header::{Header, exchange};
use super::payload::notify::{Notify, kind as notify_kind};
use super::payload::{Malformed, Payload, kind, parse_chain};
use super::state::{Core, Phase};
use super::task::informational::Delete;
use super::task::{
    Cx, Request, Response, Step, auth, create_child, eap, followup, informational, intermediate,
};
use catch_up::CatchUp;
use wire::Incoming;

/// A request that waits for its response.
struct Pending {
    task: Box<dyn Request>,
    /// The datagrams of the message: all of them are sent again.
    message: Vec<Vec<u8>>,
    id: u32,
    sent: u32,
    again: Instant,
}

/// An IKE SA.
pub(crate) struct Sa {
    pub(crate) core: Core,
    pub(crate) outbox: Vec<Transmit>,
    /// Remove it.
    pub(crate) dead: bool,
    /// Hash of the first message of a responder's SA, by which a repetition is known.
    pub(crate) first_message: Option<[u8; 32]>,
    pending: Option<Pending>,
    queue: VecDeque<Box<dyn Request>>,
    /// ID of our next request.
    next: u32,
    /// ID of the peer's next request.
    expected: u32,
    /// Our response to the one before, in datagrams.
    answer: Vec<Vec<u8>>,
    incoming: Incoming,
    /// A counter as initialisation vector never repeats (RFC 5282 section 3.1). See [`first_iv`].
    iv: u64,
    /// It was restored, or the peer's sequence numbers have to be moved.
    catch_up: Option<Box<CatchUp>>,
    /// So much higher than expected the ID of the peer's next request may be.
    ahead: u32,
    /// The last message ID that we have asked the peer to go on from (RFC 6311), and the peer us.
    last_sync: Option<u32>,
    synced: Option<u32>,
    expires: Option<(Instant, &'static str)>,
    /// When a keep-alive is due, behind a NAT.
    pub(crate) keep_alive: Option<Instant>,
}

impl Sa {
    /// As initiator; `start` follows.
    pub(crate) fn initiator(core: Core) -> Sa {
        Sa {
            core,
            outbox: Vec::new(),
            dead: false,
            first_message: None,
            pending: None,
            queue: VecDeque::new(),
            next: 0,
            expected: 0,
            answer: Vec::new(),
            incoming: Incoming::default(),
            iv: 0,
            catch_up: None,
            ahead: 0,
            last_sync: None,
            synced: None,
            expires: None,
            keep_alive: None,
        }
    }

    /// As responder that has answered the first message.
    pub(crate) fn responder(core: Core, digest: [u8; 32], answer: Vec<u8>, until: Instant) -> Sa {
        let expires = Some((until, "half open"));
        let first_message = Some(digest);
        Sa {
            expected: 1,
            answer: vec![answer],
            expires,
            first_message,
            ..Sa::initiator(core)
        }
    }

    /// Of no use any more, and kept only for its last answer or for the peer's DELETE.
    pub(crate) fn lingers(&self) -> bool {
        matches!(self.core.phase, Phase::Ended | Phase::Childless) && self.expires.is_some()
    }

    /// Starts an exchange, or queues it behind the one at work: the window is one message wide.
    pub(crate) fn start(&mut self, task: Box<dyn Request>, cx: &mut Cx<'_>) {
        self.queue.push_back(task);
        self.go_on(cx);
    }

    /// Queues an exchange that once is enough of: else a peer that never answers what is on its way
    /// could have ever more of them wait.
    pub(super) fn queue_once(&mut self, task: Box<dyn Request>) {
        if !self.queue.iter().any(|other| other.name() == task.name()) {
            self.queue.push_back(task);
        }
    }

    fn go_on(&mut self, cx: &mut Cx<'_>) {
        if self.pending.is_some() || self.dead || self.must_catch_up(cx) {
            return;
        }
        while let Some(task) = self.queue.pop_front() {
            if !task.is_due(&self.core) {
                continue;
            }
            let id = self.next;
            match self.next.checked_add(1) {
                Some(next) => self.next = next,
                // Message IDs must not wrap (section 2.2). No session gets here in a human
                // lifetime.
                None => return self.finish(cx, CloseReason::Timeout),
            }
            return self.send(task, id, cx);
        }
    }

    fn send(&mut self, mut task: Box<dyn Request>, id: u32, cx: &mut Cx<'_>) {
        let payloads = task.build(&mut self.core, cx);
        self.core.export_keys(cx);
        match self.write(task.exchange(), false, id, &payloads) {
            Ok(message) => {
                for datagram in &message {
                    task.sent(datagram);
                    self.transmit(datagram.clone(), cx);
                }
                let again = cx.now + cx.settings.retransmit.wait(1);
                self.pending = Some(Pending {
                    task,
                    message,
                    id,
                    sent: 1,
                    again,
                });
            }
            Err(too_long) => {
                self.core.fail(cx, too_long.into());
                self.dead = true;
            }
        }
    }

    pub(super) fn transmit(&mut self, data: Vec<u8>, cx: &mut Cx<'_>) {
        cx.stats.sent += 1;
        self.spoke(cx);
        let Core { local, remote, .. } = self.core;
        self.outbox.push(Transmit {
            local,
            remote,
            data,
        });
    }

    /// The answer goes where the request came from (section 2.11).
    fn reply(&mut self, local: SocketAddr, remote: SocketAddr, cx: &mut Cx<'_>) {
        let answer = std::mem::take(&mut self.answer);
        self.reply_with(&answer, local, remote, cx);
        self.answer = answer;
    }

    fn reply_with(
        &mut self,
        message: &[Vec<u8>],
        local: SocketAddr,
        remote: SocketAddr,
        cx: &mut Cx<'_>,
    ) {
        self.spoke(cx);
        for data in message.iter().cloned() {
            cx.stats.sent += 1;
            self.outbox.push(Transmit {
                local,
                remote,
                data,
            });
        }
    }

    /// The first message came again: as long as nothing follows it, it gets the same answer again.
    pub(crate) fn repeat_first(&mut self, local: SocketAddr, remote: SocketAddr, cx: &mut Cx<'_>) {
        if self.core.phase == Phase::HalfOpen && self.expected == 1 {
            cx.stats.repeated += 1;
            self.reply(local, remote, cx);
        } else {
            cx.stats.unexpected += 1;
        }
    }

    /// Takes a datagram whose SPIs are this SA's.
    pub(crate) fn handle(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        datagram: &[u8],
        cx: &mut Cx<'_>,
    ) {
        if header.begins() {
            return self.handle_first(remote, header, datagram, cx);
        }
        if self.core.keys.is_none() {
            cx.stats.unexpected += 1;
            return;
        }
        if header.response && header.next == kind::NOTIFY {
            return self.handle_plain(header, datagram, cx);
        }
        // Nothing that follows happens without a valid tag: no unprotected message changes an IKE
        // SA.
        let Some(opened) = self.open(header, datagram, cx) else {
            return;
        };
        let (first, plain) = (opened.first, &opened.plain);
        if header.response {
            let waits = self.pending.as_ref();
            if waits
                .is_some_and(|p| p.id == header.message_id && p.task.exchange() == header.exchange)
            {
                self.cover_received(header, &opened);
                self.core.follow(remote, cx);
                self.response(header, parse_chain(first, plain), datagram, cx);
            } else if self.brings_into_step(header) {
                self.core.follow(remote, cx);
                let payloads = parse_chain(first, plain).unwrap_or_default();
                self.caught_up(&payloads, cx);
            } else {
                cx.stats.stale_response += 1;
            }
        } else if let Some(asked) = self.asks_for_step(header, first, plain) {
            self.core.follow(remote, cx);
            self.bring_into_step(local, remote, asked, cx);
        } else if self.is_next(header.message_id) && self.is_out_of_step() {
            // It comes again, with an ID that both agree on.
            self.step_first(cx);
        } else if self.is_next(header.message_id) {
            self.cover_received(header, &opened);
            self.core.follow(remote, cx);
            self.request(local, remote, header, parse_chain(first, plain), cx);
        } else if header.message_id.checked_add(1) == Some(self.expected) && !self.answer.is_empty()
        {
            // One answer to a request in parts, not one to each of them (RFC 7383 section 2.6.1).
            if opened.leads {
                cx.stats.repeated += 1;
                self.reply(local, remote, cx);
            }
        } else {
            cx.stats.bad_message_id += 1;
        }
    }

    /// Whether that is the ID of the peer's next request.
    fn is_next(&self, message_id: u32) -> bool {
        let more = message_id.checked_sub(self.expected);
        more.is_some_and(|more| more <= self.ahead)
    }

    /// A response in the clear: counts only while the first exchange waits for one, and from where
    /// it must come.
    fn handle_first(
        &mut self,
        remote: SocketAddr,
        header: &Header,
        datagram: &[u8],
        cx: &mut Cx<'_>,
    ) {
        let waits = self.pending.as_ref();
        let waits = waits.is_some_and(|p| p.id == 0 && p.task.exchange() == header.exchange);
        if !header.response || header.message_id != 0 || !waits || remote != self.core.remote {
            cx.stats.unexpected += 1;
            return;
        }
        let body = datagram
            .get(super::payload::header::HEADER..)
            .unwrap_or_default();
        match parse_chain(header.next, body) {
            parsed @ Ok(_) => self.response(header, parsed, datagram, cx),
            // Anyone can have sent it: the true one may still come.
            Err(_) => cx.stats.malformed += 1,
        }
    }

    fn response(
        &mut self,
        header: &Header,
        parsed: Result<Vec<Payload>, Malformed>,
        datagram: &[u8],
        cx: &mut Cx<'_>,
    ) {
        let Some(mut pending) = self.pending.take() else {
            return;
        };
        let given_up = parsed.as_ref().ok().and_then(|p| self.is_given_up(p));
        let step = match parsed {
            Ok(_) if let Some(reason) = given_up => Step::Close(reason),
            Ok(payloads) => {
                let response = Response {
                    header,
                    payloads: &payloads,
                    datagram,
                };
                pending.task.process(&mut self.core, cx, &response)
            }
            Err(malformed) => {
                cx.stats.malformed += 1;
                Step::Fail(malformed.into(), Some(Box::new(Delete)))
            }
        };
        self.change_keys();
        match step {
            Step::Done => self.go_on(cx),
            Step::Ignore => {
                cx.stats.stale_response += 1;
                self.pending = Some(pending);
            }
            Step::Again => self.send(pending.task, pending.id, cx),
            Step::Next(task) => {
                self.queue.push_front(task);
                self.go_on(cx);
            }
            Step::Restart(task) => {
                self.next = 0;
                self.queue.push_front(task);
                self.go_on(cx);
            }
            Step::Fail(failure, last) => {
                if self.core.is_announced() {
                    self.core.end(cx, CloseReason::Error(failure));
                } else {
                    self.core.fail(cx, failure);
                }
                self.queue.clear();
                match last {
                    Some(task) => self.start(task, cx),
                    None => self.dead = true,
                }
            }
            Step::Close(reason) => self.finish(cx, reason),
            Step::Replaced => {}
        }
        if std::mem::take(&mut self.core.wants_delete) {
            self.delete(cx);
        }
        self.relocate(cx);
    }

    fn request(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        parsed: Result<Vec<Payload>, Malformed>,
        cx: &mut Cx<'_>,
    ) {
        let awaited = match self.core.awaits_intermediate() {
            true => exchange::IKE_INTERMEDIATE,
            false => exchange::IKE_AUTH,
        };
        let in_place = match self.core.phase {
            // The responder is not authenticated yet: it must wait, and will ask again.
            Phase::Opening | Phase::Ended => false,
            Phase::HalfOpen => header.exchange == awaited || self.core.eap.is_some(),
            Phase::Heir => self.may_be_redundant(header, &parsed),
            Phase::Childless | Phase::Established | Phase::Replaced | Phase::Closing => true,
        };
        let next = header.message_id.checked_add(1);
        let Some(next) = next.filter(|_| in_place) else {
            cx.stats.unexpected += 1;
            return;
        };
        self.incoming.forget_previous();
        let before = self.core.phase;
        self.core.heard_at = Some((local, remote));
        if before == Phase::HalfOpen {
            // A peer behind a NAT goes over to another port now (section 2.23).
            (self.core.local, self.core.remote) = (local, remote);
        }
        let answer = match parsed {
            Err(malformed) => self.refuse(malformed, cx),
            Ok(payloads) => match (self.core.phase, header.exchange) {
                (Phase::HalfOpen, exchange::IKE_AUTH) => {
                    auth::respond(&mut self.core, cx, &payloads)
                }
                (Phase::HalfOpen, found) if found == awaited => {
                    intermediate::respond(&mut self.core, cx, &payloads)
                }
                (Phase::HalfOpen, _) => eap::give_up(&mut self.core, cx),
                (_, exchange::INFORMATIONAL) => {
                    informational::respond(&mut self.core, cx, &payloads)
                }
                (_, exchange::CREATE_CHILD_SA) => {
                    create_child::respond(&mut self.core, cx, &payloads)
                }
                (_, exchange::IKE_FOLLOWUP_KE) => followup::respond(&mut self.core, cx, &payloads),
                (_, found) => {
                    let found = u64::from(found);
                    let expected = "CREATE_CHILD_SA, IKE_FOLLOWUP_KE or INFORMATIONAL";
                    self.refuse(
                        Malformed::Value {
                            what: "exchange type",
                            found,
                            expected,
                        },
                        cx,
                    )
                }
            },
        };
        match self.write(header.exchange, true, header.message_id, &answer) {
            Ok(message) => self.answer = message,
            // An answer of ours that does not fit can only come from settings beyond measure.
            Err(too_long) => return self.finish(cx, CloseReason::Error(too_long.into())),
        }
        // The answer still went under the old ones.
        self.change_keys();
        self.expected = next;
        self.reply(local, remote, cx);
        self.set_expiry(before, cx);
        if std::mem::take(&mut self.core.wants_delete) {
            self.delete(cx);
        }
        self.relocate(cx);
    }

    /// Answers a request that can not be read. INVALID_SYNTAX ends the IKE SA on both sides
    /// (section 2.21.3); so does anything wrong in IKE_AUTH.
    fn refuse(&mut self, malformed: Malformed, cx: &mut Cx<'_>) -> Vec<Payload> {
        cx.stats.malformed += 1;
        let notify = match malformed {
            Malformed::Critical(kind) => {
                Notify::new(notify_kind::UNSUPPORTED_CRITICAL_PAYLOAD, [kind])
            }
            _ => Notify::new(notify_kind::INVALID_SYNTAX, []),
        };
        if self.core.phase == Phase::HalfOpen {
            auth::refused(&self.core, cx, Vec::new(), malformed.into());
            self.core.phase = Phase::Ended;
        } else if notify.kind == notify_kind::INVALID_SYNTAX {
            self.core.end(cx, CloseReason::Error(malformed.into()));
        }
        vec![Payload::Notify(notify)]
    }

    fn finish(&mut self, cx: &mut Cx<'_>, reason: CloseReason) {
        self.core.end(cx, reason);
        self.dead = true;
    }
}

impl fmt::Debug for Sa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Core {
            id, phase, remote, ..
        } = &self.core;
        write!(f, "Sa({id}, {phase:?}, {remote})")
    }
}
