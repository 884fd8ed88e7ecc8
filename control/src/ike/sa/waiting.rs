//! When something of an IKE SA is due: retransmission (RFC 7296 section 2.1), and the end of it.

use std::time::Instant;

use super::super::event::{CloseReason, Failure};
use super::super::state::Phase;
use super::super::task::{Cx, eap};
use super::Sa;

impl Sa {
    /// When to call [`Sa::handle_timeout`], and why.
    pub(crate) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let again = self.pending.as_ref().map(|p| (p.again, "retransmit"));
        let parts = self.incoming.until().map(|at| (at, "fragments"));
        let (life, mapping) = (self.lifetime_deadline(), self.next_keep_alive());
        let step = self.catch_up.as_ref().and_then(|c| c.deadline());
        [again, self.expires, parts, life, mapping, step]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        if self.expires.is_some_and(|(at, _)| at <= cx.now) {
            if self.core.phase == Phase::HalfOpen {
                cx.stats.half_open_expired += 1;
                eap::give_up(&mut self.core, cx);
            }
            return self.dead = true;
        }
        cx.stats.fragments_expired += self.incoming.expire(cx.now);
        self.keep_mapping(cx);
        self.lifetime_timeout(cx);
        self.catch_up_on_time(cx);
        let Some(pending) = self.pending.as_mut().filter(|p| p.again <= cx.now) else {
            return;
        };
        if let Some(task) = pending.task.instead(pending.sent, cx) {
            let sent = pending.sent;
            (self.pending, self.next) = (None, 0);
            self.queue.push_front(task);
            self.go_on(cx);
            // Trying another way makes the time to giving up no longer.
            if let Some(pending) = self.pending.as_mut() {
                pending.sent += sent;
                pending.again = cx.now + cx.settings.retransmit.wait(pending.sent);
            }
            return;
        }
        if pending.sent < cx.settings.retransmit.tries {
            pending.sent += 1;
            pending.again = cx.now + cx.settings.retransmit.wait(pending.sent);
            cx.stats.retransmits += 1;
            let message = pending.message.clone();
            return message.into_iter().for_each(|data| self.transmit(data, cx));
        }
        cx.stats.given_up += 1;
        match self.core.phase {
            Phase::Opening => self.core.fail(cx, Failure::Timeout),
            Phase::Closing => self.core.end(cx, self.core.closing.clone()),
            _ => self.core.end(cx, CloseReason::Timeout),
        }
        self.dead = true;
    }
}
