//! Probes of the path that carries a client's traffic, and their answers.

use std::time::Instant;

use evergate_common::heartbeat;
use evergate_common::reason::Counter;
use rand::RngExt;

use super::core::Core;
use super::paths::Discovery;
use super::xsk::{HEADROOM, Umem};
use crate::policy::HeartbeatForm;

impl Core {
    /// The answer to a probe: `length` bytes from its ESP header on. Whether there was such a probe.
    pub(super) fn probe_answered(
        &mut self,
        index: usize,
        counter: u32,
        token: [u8; 8],
        length: usize,
        now: Instant,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(index) else {
            return false;
        };
        let header = session.header_len();
        let Some(path) = &mut session.path else {
            return false;
        };
        let Some(size) = path.sent(counter, Some(token)) else {
            return false;
        };
        // Shorter than it was sent: it says nothing.
        if size as usize != header + length {
            return false;
        }
        path.mtu.on_answer(size, now);
        session.last_heard = Some(now);
        if session.spec.gateway.is_some() && !std::mem::replace(&mut session.heard, true) {
            self.heard.push(index);
        }
        self.count(Counter::MtuProbeAnswered);
        self.paths_at = now;
        self.path_changed(index, now);
        true
    }

    /// Probes the path of the session that carries a group's traffic.
    pub(super) fn probe_path(&mut self, group: usize, now: Instant) {
        let active = self.groups.get(group).and_then(|state| state.active);
        let index = active.and_then(|id| self.sessions.by_id(id));
        if let Some(index) = index.filter(|index| self.is_probed(*index))
            && let Some(path) = self.path_of(index, now)
        {
            path.mtu.begin(now);
        }
    }

    /// Whether a session carries a client's traffic and its gateway answers keyed heartbeats.
    pub(super) fn is_probed(&self, index: usize) -> bool {
        let Some(session) = self.sessions.get(index) else {
            return false;
        };
        let id = Some(session.spec.id);
        let watched = self.groups.watched().iter();
        let mut groups = watched.filter_map(|group| self.groups.get(*group));
        self.discovery == Discovery::Probe
            && session.spec.heartbeat_key.is_some()
            && groups.any(|group| group.active == id && group.form == HeartbeatForm::Keyed)
    }

    /// A keyed heartbeat of that size; the answer will be as long.
    pub(super) fn send_probe(&mut self, index: usize, size: u32, umem: &mut Umem) {
        let token = self.rng.random::<[u8; 8]>();
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let header = session.header_len();
        let (Some(spi), Some(key), Some(path)) = (
            session.sends_with(),
            &session.spec.heartbeat_key,
            &mut session.path,
        ) else {
            return;
        };
        let Some(length) = (size as usize).checked_sub(header) else {
            return;
        };
        let Some(frame) = umem.take() else {
            return self.count(Counter::NoFrame);
        };
        if path.probes.is_empty() {
            // Nobody who does not see them knows where they begin.
            path.counter = self.rng.random();
        }
        path.counter = path.counter.wrapping_add(1) & !heartbeat::ANSWER_BIT;
        let spi = spi.to_be_bytes();
        let request = heartbeat::encode_request(key.expose(), path.counter, spi, token);
        let at = HEADROOM..HEADROOM + length;
        let room = umem.chunk_mut(&frame).get_mut(at.clone());
        let Some((head, padding)) =
            room.and_then(|room| room.split_first_chunk_mut::<{ heartbeat::KEYED_LEN }>())
        else {
            return umem.free(frame);
        };
        *head = request;
        padding.fill(0);
        if path.probes.is_full() {
            path.probes.remove(0);
        }
        path.probes.push((path.counter, token, size));
        self.count(Counter::MtuProbeSent);
        self.send_esp(index, frame, at, umem);
    }
}
