//! Sessions that come, take each other's place, and go: which one a group sends on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::command::{GroupId, Sending};
use super::core::Core;
use super::handover::Note;
use super::session::Session;
use super::xsk::Umem;
use crate::sadb::{SessionId, SessionSpec};

impl Core {
    /// Takes a session in; nothing is sent on it yet.
    pub(super) fn add_session(
        &mut self,
        spec: &Arc<SessionSpec>,
        group_id: GroupId,
        succeeds: Option<Sending>,
        now: Instant,
    ) {
        let Some(group) = self.groups.index(group_id) else {
            tracing::error!(
                "session with {} names a group that does not exist",
                spec.peer
            );
            return;
        };
        let owner = spec.worker(self.workers);
        if spec.lane > 0 && owner != self.worker {
            // Nobody else has anything to do with it.
            return;
        }
        let made = match owner == self.worker {
            true => Session::new(Arc::clone(spec), group, self.backend),
            false => Session::elsewhere(Arc::clone(spec), group),
        };
        let mut session = match made {
            Ok(session) => session,
            Err(error) => {
                tracing::error!("session with {} can not be used: {error}", spec.peer);
                return;
            }
        };
        session.worker = u16::try_from(owner).unwrap_or(u16::MAX);
        session.last_heard = Some(now);
        session.sending = succeeds.unwrap_or(Sending::Told);
        self.resolve_outside(&mut session, now);
        if succeeds.is_some() {
            self.inherit_path(&mut session, now);
        }
        session.announced = succeeds.is_some()
            && self
                .sessions
                .iter()
                .any(|other| other.group() == group && other.announced);
        let (id, lane) = (session.spec.id, session.spec.lane);
        let index = self.sessions.insert(session);
        self.adopt_path(index);
        self.follow_own_port_at_once(index);
        if lane > 0
            && let Some(state) = self.groups.get_mut(group)
        {
            state.rare_mut().lanes.push(id);
            self.settle_lane(group);
        }
    }

    /// A new session may be used from now on.
    pub(super) fn begin_session(
        &mut self,
        index: usize,
        activate: bool,
        umem: &mut Umem,
        now: Instant,
    ) {
        self.sessions.lead(index);
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        session.sending = Sending::AtOnce;
        let (spec, group) = (Arc::clone(&session.spec), session.group());
        if let Some(gateway) = spec.gateway {
            for at in 0..self.groups.clusters().len() {
                let Some(&index) = self.groups.clusters().get(at) else {
                    break;
                };
                let Some(state) = self.groups.get_mut(index) else {
                    continue;
                };
                // A new session with the gateway in use takes over from the old one.
                if state.rare().using == Some(gateway) {
                    state.active = Some(spec.id);
                }
                let Some(monitor) = state.monitor_mut() else {
                    continue;
                };
                if activate {
                    monitor.on_peer_initiated(gateway, now);
                } else {
                    monitor.on_keyed(gateway, now);
                }
            }
            return;
        }
        let Some(state) = self.groups.get_mut(group) else {
            return;
        };
        if spec.outbound.is_some() {
            state.active = Some(spec.id);
            state.admit();
            self.send_held(group, umem, now);
        }
    }

    /// The session that is sent on now, of those with the same peer.
    pub(super) fn used_instead_of(&self, index: usize) -> Option<SessionId> {
        let session = self.sessions.get(index)?;
        match session.spec.gateway {
            Some(gateway) => {
                let used = self.sessions.by_gateway(gateway)?;
                Some(self.sessions.get(used)?.spec.id)
            }
            None => self.groups.get(session.group())?.active,
        }
    }

    /// The peer sends on a session that takes the place of another, so it receives on it too.
    pub(super) fn heard_on_successor(&mut self, index: usize, umem: &mut Umem, now: Instant) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        session.sending = Sending::AtOnce;
        let (id, group) = (session.spec.id, session.group());
        if session.spec.lane > 0 {
            return self.settle_lane(group);
        }
        let used = self.used_instead_of(index);
        // Of several that do, the last one counts.
        if used.is_none_or(|used| used < id) {
            self.send_on(index, umem, now);
            self.tell_all(Note::SendOn(id));
        }
    }

    /// Says which session beside its own one a group sends on in this worker: the newest that may, with
    /// the gateway in use.
    pub(super) fn settle_lane(&mut self, group: usize) {
        let Some(state) = self.groups.get_mut(group) else {
            return;
        };
        if state.rare().lane.is_none() && state.rare().lanes.is_empty() {
            return;
        }
        let rare = state.rare_mut();
        let may = |id: &&SessionId| {
            let index = self.sessions.by_id(**id);
            let session = index.and_then(|index| self.sessions.get(index));
            session.is_some_and(|session| {
                session.sending == Sending::AtOnce && session.spec.gateway == rare.using
            })
        };
        rare.lane = rare.lanes.iter().filter(may).max().copied();
    }

    /// Sends on this session from now on.
    pub(super) fn send_on(&mut self, index: usize, umem: &mut Umem, now: Instant) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        session.sending = Sending::AtOnce;
        let (id, group) = (session.spec.id, session.group());
        if session.spec.lane > 0 {
            return self.settle_lane(group);
        }
        let Some(gateway) = session.spec.gateway else {
            if let Some(state) = self.groups.get_mut(group) {
                state.active = Some(id);
            }
            return self.send_held(group, umem, now);
        };
        self.sessions.lead(index);
        for at in 0..self.groups.clusters().len() {
            let Some(&index) = self.groups.clusters().get(at) else {
                break;
            };
            if let Some(state) = self.groups.get_mut(index)
                && state.rare().using == Some(gateway)
            {
                state.active = Some(id);
            }
        }
    }

    /// Tells a group that is new or has changed which of its gateways have sessions already.
    pub(super) fn tell_keyed(&mut self, group: usize, now: Instant) {
        let Some(monitor) = self.groups.get_mut(group).and_then(|g| g.monitor_mut()) else {
            return;
        };
        let unkeyed: Vec<IpAddr> = monitor
            .snapshot()
            .filter(|gateway| !gateway.keyed)
            .map(|gateway| gateway.address)
            .collect();
        for gateway in unkeyed {
            if self.sessions.by_gateway(gateway).is_some() {
                monitor.on_keyed(gateway, now);
            }
        }
    }

    /// A session is gone.
    pub(super) fn session_removed(&mut self, session: &Session, umem: &mut Umem, now: Instant) {
        let id = session.spec.id;
        if let Some(gateway) = session.spec.gateway
            && self.sessions.by_gateway(gateway).is_none()
        {
            self.each_monitor(|monitor| monitor.on_unkeyed(gateway, now));
        }
        if session.announced {
            self.withdraw(session);
        }
        self.path_gone(session);
        if session.spec.lane > 0 {
            if let Some(state) = self.groups.get_mut(session.group()) {
                state.rare_mut().lanes.retain(|lane| *lane != id);
            }
            return self.settle_lane(session.group());
        }
        let successor = self.sessions.newest_of(session.group());
        let same_gateway = session
            .spec
            .gateway
            .and_then(|gateway| self.sessions.by_gateway(gateway))
            .and_then(|index| self.sessions.get(index))
            .map(|other| other.spec.id);
        for state in self.groups.iter_mut() {
            if state.active != Some(id) {
                continue;
            }
            // On a client the monitor says which gateway is next, unless another session with the
            // same one is left.
            state.active = match state.id {
                GroupId::Cluster(_) => same_gateway,
                _ => successor,
            };
        }
        self.watch(umem, now, None);
    }
}
