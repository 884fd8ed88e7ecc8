//! One IKE SA takes the place of another; for the owner it stays the same one.

use std::time::Instant;

use super::super::event::{CloseReason, Event, SaId};
use super::super::life::REPLACED;
use super::super::sa::Sa;
use super::super::settings::Hooks;
use super::super::state::Phase;
use super::super::task::Succession;
use super::super::ts::TrafficSelector;
use super::{Engine, NoHooks};

impl Engine {
    /// Wants a further child SA for a session: [`Event::ChildAdded`] or [`Event::ChildFailed`]
    /// follows, or [`Event::Closed`]. Empty lists mean all traffic. No effect on a session that is
    /// not established.
    pub fn add_child(
        &mut self,
        now: Instant,
        id: SaId,
        local_ts: &[TrafficSelector],
        remote_ts: &[TrafficSelector],
        hooks: &mut dyn Hooks,
    ) {
        self.with(id, now, hooks, |sa, cx| {
            sa.add_child(0, local_ts, remote_ts, cx);
        });
    }

    /// As [`Engine::add_child`], for the traffic that a session has a child SA for already, with this
    /// number above 0 for its resource (RFC 9611). No effect if there is one of this number.
    pub fn add_lane(&mut self, now: Instant, id: SaId, lane: u16, hooks: &mut dyn Hooks) {
        self.with(id, now, hooks, |sa, cx| {
            let mut children = sa.core.children.iter();
            if let Some(plain) = children.find(|c| c.is_in_use() && c.lane == 0) {
                let (local, remote) = (plain.local_ts.to_vec(), plain.remote_ts.to_vec());
                sa.add_child(lane, &local, &remote, cx);
            }
        });
    }

    /// Wants a child SA replaced, for example because it has carried enough: at the next
    /// [`Engine::handle_timeout`], which is due at once. No effect while that is under way, or waits
    /// for its next try.
    pub fn rekey_child(&mut self, now: Instant, id: SaId, spi_in: u32) {
        self.with(id, now, &mut NoHooks, |sa, cx| sa.rekey_child(spi_in, cx));
    }

    /// As [`Engine::rekey_child`], for the IKE SA itself.
    pub fn rekey_ike(&mut self, now: Instant, id: SaId) {
        self.with(id, now, &mut NoHooks, |sa, cx| sa.rekey(cx));
    }

    /// When a child SA will be replaced by us; `None` while that is under way, or never.
    pub fn child_rekey_at(&self, id: SaId, spi_in: u32) -> Option<Instant> {
        let core = &self.sas.get(&id)?.sa.core;
        core.child(spi_in)?.life.rekey_at()
    }

    /// Whether a session stands, and neither side is ending it.
    pub fn is_established(&self, id: SaId) -> bool {
        let phase = self.sas.get(&id).map(|entry| entry.sa.core.phase);
        phase == Some(Phase::Established)
    }

    /// Carries out what an exchange has decided about IKE SAs.
    pub(super) fn succeed(
        &mut self,
        now: Instant,
        id: SaId,
        succession: Succession,
        hooks: &mut dyn Hooks,
    ) {
        let Succession {
            made,
            heir,
            delete_old,
            redundant,
        } = succession;
        if let Some(mut core) = made
            && !self.by_spi.contains_key(&core.spi_local())
        {
            core.id = self.new_id();
            // Longer than the exchange of ours that decides about it can take.
            let until = now + self.settings.retransmit.total() + REPLACED;
            let made = self.insert(Sa::heir(*core, until));
            self.settle(made);
        }
        if let Some(spi) = heir {
            let made = self.by_spi.get(&spi).copied().filter(|id| {
                let entry = self.sas.get(id);
                entry.is_some_and(|entry| entry.sa.core.phase == Phase::Heir)
            });
            let made = made.and_then(|id| self.remove(id));
            let Some(made) = made else {
                return self.lose(id);
            };
            let Some(old) = self.remove(id) else { return };
            let (mut new, mut old) = (made.sa, old.sa);
            self.stats.ike_rekeyed += 1;
            // A peer that never deletes what it replaces leaves one behind, not as many as it likes.
            let before = old.core.predecessor.and_then(|spi| self.by_spi.get(&spi));
            if let Some(before) = before.copied()
                && self.sas.get(&before).is_some_and(|e| e.sa.only_waits())
            {
                self.remove(before);
            }
            new.take_over(&mut old, now, &self.settings, &mut *self.rng);
            self.insert(new);
            let old = self.insert(old);
            self.events.push_back(Event::Rekeyed { id });
            self.with(id, now, hooks, Sa::resume);
            self.with(old, now, hooks, |sa, cx| {
                if delete_old {
                    sa.discard(cx);
                }
            });
        }
        if let Some(id) = redundant.and_then(|spi| self.by_spi.get(&spi).copied()) {
            self.with(id, now, hooks, Sa::discard);
        }
    }

    /// What should take over is not there.
    fn lose(&mut self, id: SaId) {
        let Some(entry) = self.remove(id) else { return };
        let mut core = entry.sa.core;
        self.events.extend(core.release());
        if let (true, Some(peer)) = (core.is_announced(), core.peer) {
            let reason = CloseReason::Timeout;
            self.events.push_back(Event::Closed { id, peer, reason });
        }
    }
}

/// What a test does to one side behind its back.
#[cfg(test)]
impl Engine {
    /// Forgets the child SAs of a session.
    pub(in super::super) fn lose_children(&mut self, id: SaId) {
        if let Some(entry) = self.sas.get_mut(&id) {
            entry.sa.core.children.clear();
        }
    }

    /// Deletes a child SA as if its lifetime were over.
    pub(in super::super) fn delete_child(&mut self, now: Instant, id: SaId, spi_in: u32) {
        use super::super::task::informational::DeleteChild;
        self.with(id, now, &mut NoHooks, |sa, cx| {
            if let Some(child) = sa.core.child_mut(spi_in) {
                child.delete();
            }
            sa.start(Box::new(DeleteChild { spi_in }), cx);
        });
    }

    /// Other nonces and SPIs from now on.
    pub(in super::super) fn reseed(&mut self, rng: impl rand::CryptoRng + Send + 'static) {
        self.rng = Box::new(rng);
    }

    pub(in super::super) fn change_settings(
        &mut self,
        change: impl FnOnce(&mut super::super::Settings),
    ) {
        change(&mut self.settings);
    }
}
