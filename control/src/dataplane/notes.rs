//! What a worker lets the others know, and what it makes of what they say.

use std::time::Instant;

use super::command::Sending;
use super::core::Core;
use super::handover::{FIRST, Note};
use super::xsk::Umem;

impl Core {
    /// Whether this is the worker that watches gateways and speaks to the LAN.
    pub(super) fn is_first(&self) -> bool {
        self.worker == FIRST
    }

    /// Tells another worker.
    pub(super) fn tell(&mut self, to: usize, note: Note) {
        self.notes.push_back((to, note));
    }

    /// Tells all others.
    pub(super) fn tell_all(&mut self, note: Note) {
        for to in (0..self.workers).filter(|to| *to != self.worker) {
            self.notes.push_back((to, note));
        }
    }

    /// What another worker is to be told next.
    pub(super) fn next_note(&mut self) -> Option<(usize, Note)> {
        self.notes.pop_front()
    }

    /// There was no room for it.
    pub(super) fn keep_note(&mut self, to: usize, note: Note) {
        self.notes.push_back((to, note));
    }

    /// Notes that wait.
    pub(super) fn notes_left(&self) -> usize {
        self.notes.len()
    }

    /// Whether the other workers do not know yet what this one has heard.
    pub(super) fn has_to_tell(&self) -> bool {
        !self.notes.is_empty() || self.signs.deadline().is_some()
    }

    /// Another worker says something.
    pub(super) fn hear(&mut self, note: Note, umem: &mut Umem, now: Instant) {
        match note {
            Note::Use(group, gateway) => {
                let session = gateway
                    .and_then(|gateway| self.sessions.by_gateway(gateway))
                    .and_then(|index| self.sessions.get(index))
                    .map(|session| session.spec.id);
                let Some(group) = self.groups.index(group) else {
                    return;
                };
                if let Some(state) = self.groups.get_mut(group) {
                    state.active = session;
                    state.rare_mut().using = gateway;
                }
                self.settle_lane(group);
                if let Some(gateway) = gateway {
                    self.tell_own_port(gateway, now);
                }
            }
            Note::SendOn(session) => {
                let Some(index) = self.sessions.by_id(session) else {
                    return;
                };
                // Of several that are heard at once, in different workers, the last one counts in all.
                match self
                    .used_instead_of(index)
                    .is_none_or(|used| used < session)
                {
                    true => self.send_on(index, umem, now),
                    false => {
                        if let Some(session) = self.sessions.get_mut(index) {
                            session.sending = Sending::AtOnce;
                        }
                    }
                }
            }
            Note::Heard(gateway) => {
                if let Some(session) = self.sessions.by_gateway_mut(gateway) {
                    session.last_heard = Some(now);
                }
                self.each_monitor(|monitor| monitor.on_heard(gateway, now));
            }
            Note::Sent(group) => {
                let group = self.groups.index(group);
                if let Some(state) = group.and_then(|group| self.groups.get_mut(group)) {
                    state.sent = true;
                }
            }
            Note::ClientSends(group) => {
                let group = self.groups.index(group);
                let session = group.and_then(|group| {
                    let active = self.groups.get(group)?.active;
                    self.sessions
                        .by_id(active.or(self.sessions.newest_of(group))?)
                });
                if let Some(index) = session {
                    self.client_sends(index, now);
                }
            }
            Note::ClientLeft(group) => {
                if let Some(group) = self.groups.index(group) {
                    self.client_has_left(group);
                }
            }
            Note::Left(group) => {
                let group = self.groups.index(group);
                if let Some(state) = group.and_then(|group| self.groups.get_mut(group)) {
                    state.left = true;
                }
            }
            Note::PathSize(group, gateway, size) => self.path_told(group, gateway, size),
            Note::TooLong(group, gateway, mtu) => self.lane_too_long(group, gateway, mtu, now),
            Note::Long(gateway, length) => {
                if let Some(session) = self.sessions.by_gateway_mut(gateway) {
                    session.longest = session.longest.max(length as u32);
                }
            }
            Note::Unannounced(group) => {
                let group = group.map(|group| self.groups.index(group));
                self.sessions.unannounce(group);
            }
        }
    }
}
