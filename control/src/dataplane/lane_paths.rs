//! How long packets of a session's lanes may be: the worker that has the session finds out, the others are
//! told, and tell it what they see.

use std::net::IpAddr;
use std::time::Instant;

use super::command::GroupId;
use super::core::Core;
use super::handover::{FIRST, Note};
use super::pmtu::BASE;
use super::session::Session;

impl Core {
    /// Tells the workers that have further SAs of a session how long packets to its peer may be;
    /// `u32::MAX`: nothing is known any more.
    pub(super) fn tell_lanes(&mut self, group: usize, gateway: Option<IpAddr>, size: u32) {
        if self.workers > 1
            && let Some(group) = self.groups.get(group).map(|group| group.id)
        {
            self.tell_all(Note::PathSize(group, gateway, size));
        }
    }

    /// A session whose path was followed is gone: what its lanes were told holds no more.
    pub(super) fn path_gone(&mut self, session: &Session) {
        if session.path.is_some() && session.spec.lane == 0 {
            self.tell_lanes(session.group(), session.spec.gateway, u32::MAX);
        }
    }

    /// Another worker has found out how long packets to this peer may be.
    pub(super) fn path_told(&mut self, group: GroupId, gateway: Option<IpAddr>, size: u32) {
        let Some(state) = self
            .groups
            .index(group)
            .and_then(|group| self.groups.get_mut(group))
        else {
            return;
        };
        if size != u32::MAX || !state.rare().paths_told.is_empty() {
            let told = &mut state.rare_mut().paths_told;
            told.retain(|(told, _)| *told != gateway);
            if size != u32::MAX {
                told.push((gateway, size));
            }
        }
        for at in 0..state.rare().lanes.len() {
            let state = self
                .groups
                .index(group)
                .and_then(|group| self.groups.get(group));
            let Some(lane) = state.and_then(|state| state.rare().lanes.get(at).copied()) else {
                return;
            };
            if let Some(session) = self.sessions.by_id_mut(lane)
                && session.spec.gateway == gateway
            {
                session.path_told = size;
                session.fit();
            }
        }
    }

    /// A router says so about a packet of one of its lanes.
    pub(super) fn lane_too_long(
        &mut self,
        group: GroupId,
        gateway: Option<IpAddr>,
        mtu: u32,
        now: Instant,
    ) {
        let index = match gateway {
            Some(gateway) => self.sessions.by_gateway(gateway),
            None => {
                let group = self.groups.index(group);
                let active = group.and_then(|group| self.groups.get(group)?.active);
                active.and_then(|id| self.sessions.by_id(id))
            }
        };
        if let Some(index) = index.filter(|index| self.sessions.elsewhere(*index).is_none()) {
            self.follow_too_long(index, mtu, now);
        }
    }

    /// Tells the first worker, which probes, that long packets go by a lane of ours.
    pub(super) fn tell_of_long(&mut self) {
        for at in 0..self.groups.clusters().len() {
            let Some(&group) = self.groups.clusters().get(at) else {
                break;
            };
            let lane = self.groups.get(group).and_then(|state| state.rare().lane);
            let Some(session) = lane
                .and_then(|lane| self.sessions.by_id(lane))
                .and_then(|index| self.sessions.get_mut(index))
            else {
                continue;
            };
            let longest = std::mem::take(&mut session.longest) as usize;
            if let Some(gateway) = session.spec.gateway
                && longest > session.inner_mtu(BASE as usize)
            {
                self.tell(FIRST, Note::Long(gateway, longest));
            }
        }
    }
}
