//! The life of an IKE SA: its own rekeying and that of its child SAs, what becomes of it when another
//! one takes over (RFC 7296 section 2.8), and its end.

use std::time::Instant;

use rand::CryptoRng;

use super::super::crash::TellToken;
use super::super::event::{CloseReason, Failure};
use super::super::life::{ChildSa, Life, REPLACED};
use super::super::payload::delete::Delete as DeletePayload;
use super::super::payload::header::{HEADER, Header, exchange};
use super::super::payload::notify::kind;
use super::super::payload::{Malformed, Payload, parse_chain};
use super::super::settings::Settings;
use super::super::state::{Core, Phase};
use super::super::task::create_child::CreateChild;
use super::super::task::informational::{Delete, DeleteChild, Liveness};
use super::super::task::rekey_child::RekeyChild;
use super::super::task::rekey_ike::RekeyIke;
use super::super::task::replace_child::ReplaceChild;
use super::super::task::ticket::AskForTicket;
use super::super::task::{Cx, Request, notify};
use super::super::ts::TrafficSelector;
use super::Sa;

impl Sa {
    /// One that rekeying has made, until it takes over or proves redundant.
    pub(crate) fn heir(core: Core, until: Instant) -> Sa {
        Sa {
            expires: Some((until, "heir")),
            ..Sa::initiator(core)
        }
    }

    /// A request has led to another phase: how long may that last?
    pub(super) fn set_expiry(&mut self, before: Phase, cx: &Cx<'_>) {
        let until = cx.now + cx.settings.half_open_timeout;
        match self.core.phase {
            // Each round of EAP may take its time.
            Phase::HalfOpen if self.core.eap.is_some() => self.expires = Some((until, "EAP")),
            same if same == before => {}
            Phase::Childless => {
                self.expires = Some((until, "no child"));
                self.core.handshake = None;
            }
            Phase::Ended => {
                // Long enough for a peer whose answer got lost to ask again.
                self.expires = Some((until, "last answer"));
                self.core.handshake = None;
                self.pending = None;
                self.queue.clear();
            }
            _ => self.expires = None,
        }
    }

    /// When the next lifetime needs something.
    pub(super) fn lifetime_deadline(&self) -> Option<(Instant, &'static str)> {
        if self.core.phase != Phase::Established {
            return None;
        }
        let children = self.core.children.iter();
        let children = children.filter_map(|child| child.life.deadline());
        let reauth = self.core.reauth_until.map(|at| (at, "reauthentication"));
        let awaited = self.core.awaited.as_ref();
        let awaited = awaited.map(|awaited| (awaited.until, "additional key exchange"));
        let all = children.chain(self.core.life.deadline());
        let all = all.chain(reauth).chain(awaited);
        all.min_by_key(|(at, _)| *at)
    }

    /// Replaces what is due, and ends what could not be replaced in time.
    pub(super) fn lifetime_timeout(&mut self, cx: &mut Cx<'_>) {
        let (core, now) = (&mut self.core, cx.now);
        if core.phase != Phase::Established {
            return;
        }
        if core.life.is_over(now) {
            return self.expire("the IKE SA", cx);
        }
        if core.reauth_until.is_some_and(|at| at <= now) {
            return self.expire("the authentication", cx);
        }
        core.give_up_awaited(cx);
        let over = |c: &&mut ChildSa| c.life.is_over(now);
        let mut over: Vec<_> = core.children.iter_mut().filter(over).collect();
        over.iter_mut().for_each(|child| child.delete());
        let over: Vec<u32> = over.iter().map(|child| child.spi_in).collect();
        // Of no use without one; and one deletion is enough.
        if !over.is_empty() && !core.children.iter().any(|c| c.is_in_use()) {
            return self.expire("the child SA", cx);
        }
        let mut due: Vec<u32> = Vec::new();
        for child in core.children.iter_mut().filter(|c| c.is_in_use()) {
            if child.life.rekey_is_due(now) {
                due.push(child.spi_in);
            }
        }
        let ike = core.life.rekey_is_due(now);
        for spi_in in over {
            self.start(Box::new(DeleteChild { spi_in }), cx);
        }
        for spi_in in due {
            let child = self.core.child(spi_in);
            let orphan = child.and_then(|child| Some((child, child.orphan?)));
            let task: Box<dyn Request> = match orphan {
                Some((child, orphan)) => Box::new(ReplaceChild::new(child, orphan)),
                None => Box::new(RekeyChild::new(spi_in)),
            };
            self.start(task, cx);
        }
        if ike {
            let task = RekeyIke::new(&self.core);
            self.start(Box::new(task), cx);
        }
    }

    /// A response in the clear ends an IKE SA only with a proof that the peer has forgotten it.
    pub(super) fn handle_plain(&mut self, header: &Header, datagram: &[u8], cx: &mut Cx<'_>) {
        let body = datagram.get(HEADER..).unwrap_or_default();
        let parsed = parse_chain(header.next, body);
        if !parsed.is_ok_and(|payloads| self.core.is_forgotten(&payloads)) {
            cx.stats.unprotected += 1;
            return;
        }
        cx.stats.crashes += 1;
        // There is nobody who would hear a DELETE.
        self.finish(cx, CloseReason::Crashed);
    }

    /// The peer could not read our request, and holds the IKE SA for over (section 2.21.3): why it is
    /// over for us too.
    pub(super) fn is_given_up(&self, payloads: &[Payload]) -> Option<CloseReason> {
        let fatal = notify(payloads, kind::INVALID_SYNTAX)?;
        match self.core.phase {
            Phase::Opening | Phase::HalfOpen => None,
            Phase::Closing => Some(self.core.closing.clone()),
            _ => Some(CloseReason::Error(Failure::notified(fatal))),
        }
    }

    fn expire(&mut self, what: &'static str, cx: &mut Cx<'_>) {
        let error = self.core.failure.take();
        self.core.closing = CloseReason::Expired { what, error };
        self.delete(cx);
    }

    /// The owner wants a child SA replaced.
    pub(crate) fn rekey_child(&mut self, spi_in: u32, cx: &Cx<'_>) {
        let child = self.core.child_mut(spi_in);
        if let Some(child) = child.filter(|child| child.is_in_use()) {
            child.life.rekey_now(cx.now);
        }
    }

    /// The owner wants the IKE SA replaced.
    pub(crate) fn rekey(&mut self, cx: &Cx<'_>) {
        if self.core.phase == Phase::Established {
            self.core.life.rekey_now(cx.now);
        }
    }

    /// The owner wants a further child SA.
    pub(crate) fn add_child(
        &mut self,
        lane: u16,
        local_ts: &[TrafficSelector],
        remote_ts: &[TrafficSelector],
        cx: &mut Cx<'_>,
    ) {
        self.start(Box::new(CreateChild::new(lane, local_ts, remote_ts)), cx);
    }

    /// One that has not taken over yet answers its deletion alone. The peer may be a step ahead with
    /// the rest, which it will send again.
    pub(super) fn may_be_redundant(
        &self,
        header: &Header,
        parsed: &Result<Vec<Payload>, Malformed>,
    ) -> bool {
        let ends = |p: &Payload| *p == Payload::Delete(DeletePayload::Ike);
        header.exchange == exchange::INFORMATIONAL
            && parsed
                .as_ref()
                .is_ok_and(|payloads| payloads.iter().any(ends))
    }

    /// Takes over from the IKE SA that it replaces: child SAs, identity, and what was to be asked.
    pub(crate) fn take_over(
        &mut self,
        old: &mut Sa,
        now: Instant,
        settings: &Settings,
        rng: &mut dyn CryptoRng,
    ) {
        self.core.inherit(&mut old.core);
        let (lifetime, began) = (settings.ike_lifetime, self.core.initiator);
        self.core.life = Life::new(lifetime, now, began, rng);
        self.expires = None;
        self.keep_alive = old.keep_alive;
        self.queue = std::mem::take(&mut old.queue);
        self.inherit_step(old);
        // What is still on its way is our own rekeying, which is settled, or a question about the
        // peer's life, which is asked again here.
        let pending = old.pending.take().map(|pending| pending.task);
        let question = pending.filter(|task| task.exchange() == exchange::INFORMATIONAL);
        self.queue.extend(question);
        if began && self.core.token.is_some() && settings.crash_secret.is_some() {
            self.queue_once(Box::new(TellToken));
        }
        let origin = self.core.origin.as_ref();
        if self.core.ours && origin.is_some_and(|origin| origin.has_ticket) {
            self.queue_once(Box::new(AskForTicket));
        }
        old.expires = Some((now + REPLACED, "replaced"));
    }

    /// Goes on with what was begun before the rekeying.
    pub(crate) fn resume(&mut self, cx: &mut Cx<'_>) {
        self.go_on(cx);
    }

    /// Has been replaced, and waits for the peer to delete it.
    pub(crate) fn only_waits(&self) -> bool {
        self.core.phase == Phase::Replaced && self.pending.is_none()
    }

    /// Deletes an IKE SA that the owner does not know of.
    pub(crate) fn discard(&mut self, cx: &mut Cx<'_>) {
        self.core.phase = Phase::Replaced;
        self.queue.clear();
        self.start(Box::new(Delete), cx);
    }

    /// The owner wants the session gone.
    pub(crate) fn close(&mut self, cx: &mut Cx<'_>) {
        match self.core.phase {
            Phase::Established => {
                self.core.closing = CloseReason::Local;
                self.delete(cx);
            }
            Phase::Opening => {
                self.core.fail(cx, Failure::Cancelled);
                self.dead = true;
            }
            Phase::HalfOpen | Phase::Childless => self.dead = true,
            Phase::Closing | Phase::Heir | Phase::Replaced | Phase::Ended => {}
        }
    }

    pub(super) fn delete(&mut self, cx: &mut Cx<'_>) {
        self.core.phase = Phase::Closing;
        self.queue.clear();
        self.start(Box::new(Delete), cx);
    }

    /// Asks whether the peer lives, unless a question is on its way already.
    pub(crate) fn check_liveness(&mut self, cx: &mut Cx<'_>) {
        let asks = self.pending.is_some() || self.is_catching_up();
        if self.core.phase == Phase::Established && !asks {
            self.start(Box::new(Liveness), cx);
        }
    }
}
