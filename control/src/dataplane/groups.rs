//! Where traffic for inner addresses goes: prefixes, the groups that they belong to, and what a
//! group holds while it has no session.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use hashbrown::HashTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::command::{GroupId, GroupSpec};
use super::xsk::{Frame, Umem};
use crate::liveness::Monitor;
use crate::policy::HeartbeatForm;
use crate::sadb::{Nets, SessionId};

/// Packets that a group holds while a session for it is being made.
pub(super) const HELD: usize = 32;

/// Packets that all groups hold together: frames that wait are missing elsewhere.
pub(super) const HELD_ALL: usize = 1024;

/// A group and its state in a worker. A gateway may have a million, one for each peer.
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) prefixes: Nets,
    /// The session that traffic uses now.
    pub(super) active: Option<SessionId>,
    /// What most groups of a gateway do not have.
    rare: Option<Box<Rare>>,
    /// Packets that wait for a session: where the first and the last one are kept, and how many.
    ends: Option<(u16, u16)>,
    held: u8,
    pub(super) form: HeartbeatForm,
    pub(super) on_demand: bool,
    /// Whether the core was asked for a session since the last answer.
    pub(super) asked: bool,
    /// Payload was sent to the active gateway in this batch.
    pub(super) sent: bool,
    /// Its client has gone to another gateway with the numbers of its shared sessions, and has sent nothing
    /// here since.
    pub(super) left: bool,
}

/// Of groups of clients, of those with sessions in several workers, and of those without a session.
#[derive(Default)]
pub(super) struct Rare {
    /// The session beside the active one that traffic uses in this worker, and all that it has.
    pub(super) lane: Option<SessionId>,
    pub(super) lanes: Vec<SessionId>,
    /// How long packets to its peer, or to its gateways, may be, as another worker has found out.
    pub(super) paths_told: Vec<(Option<IpAddr>, u32)>,
    /// The gateway that traffic uses now, on a client.
    pub(super) using: Option<IpAddr>,
    /// Watches the gateways of a client's cluster; the first worker's.
    pub(super) monitor: Option<Box<Monitor>>,
    /// No session could be had; packets are refused until then.
    pub(super) rejected_until: Option<Instant>,
}

impl Rare {
    const NONE: &Self = &Self {
        lane: None,
        lanes: Vec::new(),
        paths_told: Vec::new(),
        using: None,
        monitor: None,
        rejected_until: None,
    };
}

impl Group {
    fn new(spec: GroupSpec) -> Self {
        let (monitor, form) = match (spec.id, spec.watch) {
            (GroupId::Cluster(cluster), Some(watch)) => (
                Some(Box::new(Monitor::new(cluster, watch.order, watch.timing))),
                watch.form,
            ),
            _ => (None, HeartbeatForm::Keyed),
        };
        // A client's have it from the beginning, so that no packet makes it.
        let rare = match spec.id {
            GroupId::Cluster(_) => Some(Rare {
                monitor,
                ..Rare::default()
            }),
            GroupId::Peer(_) | GroupId::Manual(_) => None,
        };
        Self {
            id: spec.id,
            prefixes: spec.prefixes.into(),
            active: None,
            rare: rare.map(Box::new),
            ends: None,
            held: 0,
            form,
            on_demand: spec.on_demand,
            asked: false,
            sent: false,
            left: false,
        }
    }

    /// What most groups do not have.
    #[inline]
    pub(super) fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(Rare::NONE)
    }

    /// The same to write to; takes memory.
    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The monitor of a client's cluster.
    pub(super) fn monitor_mut(&mut self) -> Option<&mut Monitor> {
        self.rare.as_mut()?.monitor.as_deref_mut()
    }

    /// There is a session, or may be one.
    pub(super) fn admit(&mut self) {
        self.asked = false;
        if let Some(rare) = &mut self.rare {
            rare.rejected_until = None;
        }
    }
}

/// The packets that all groups hold, each with the place of the next one of its group.
#[derive(Default)]
struct Held {
    places: Vec<(Option<Frame>, Option<u16>)>,
    /// Places without a packet.
    free: Vec<u16>,
}

impl Held {
    /// Keeps a packet; gives it back if [`HELD_ALL`] are kept.
    fn put(&mut self, frame: Frame) -> Result<u16, Frame> {
        if self.places.is_empty() {
            // Once, at the first packet that has to wait.
            self.places.resize_with(HELD_ALL, || (None, None));
            self.free.extend(0..HELD_ALL as u16);
        }
        match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.places.get_mut(usize::from(at)) {
                    *place = (Some(frame), None);
                }
                Ok(at)
            }
            None => Err(frame),
        }
    }

    /// The packet at a place, and the place of the next one.
    fn take(&mut self, at: u16) -> Option<(Frame, Option<u16>)> {
        let (frame, next) = std::mem::take(self.places.get_mut(usize::from(at))?);
        let frame = frame?;
        self.free.push(at);
        Some((frame, next))
    }

    /// What is at `next` follows what is at `at`.
    fn link(&mut self, at: u16, next: u16) {
        if let Some((_, after)) = self.places.get_mut(usize::from(at)) {
            *after = Some(next);
        }
    }
}

/// All groups of a worker.
#[derive(Default)]
pub(super) struct Groups {
    groups: Vec<Option<Group>>,
    /// Places without a group.
    free: Vec<usize>,
    /// Places of groups, which know their names.
    by_id: HashTable<u32>,
    hasher: RandomState,
    v4: PrefixMap<Ipv4Net, u32>,
    v6: PrefixMap<Ipv6Net, u32>,
    /// Groups with a monitor.
    watched: Vec<usize>,
    /// Groups of a client's clusters.
    clusters: Vec<usize>,
    held: Held,
    /// Our own link is down: no monitor judges anything, a new one neither.
    link_down: bool,
}

impl Groups {
    /// Makes a group or changes one; what it holds and its sessions stay.
    pub(super) fn set(&mut self, spec: GroupSpec, now: Instant) -> usize {
        let index = match self.index(spec.id) {
            Some(index) => {
                self.unlink(index);
                if let Some(group) = self.groups.get_mut(index).and_then(Option::as_mut) {
                    group.on_demand = spec.on_demand;
                    group.prefixes = spec.prefixes.into();
                    if let (Some(_), Some(watch)) = (group.monitor_mut(), &spec.watch) {
                        group.form = watch.form;
                    }
                    if let (Some(monitor), Some(watch)) = (group.monitor_mut(), spec.watch) {
                        monitor.set_timing(watch.timing, now);
                        monitor.set_order(watch.order, now);
                    }
                }
                index
            }
            None => {
                let id = spec.id;
                let mut group = Group::new(spec);
                if let Some(monitor) = group.monitor_mut() {
                    monitor.on_link(!self.link_down, now);
                }
                let index = self.free.pop().unwrap_or(self.groups.len());
                if index == self.groups.len() {
                    self.groups.push(None);
                }
                if let Some(slot) = self.groups.get_mut(index) {
                    *slot = Some(group);
                }
                let (hasher, groups) = (&self.hasher, &self.groups);
                let hash_of = |at: &u32| {
                    let group = groups.get(*at as usize).and_then(Option::as_ref);
                    group.map_or(0, |group| hasher.hash_one(group.id))
                };
                self.by_id
                    .insert_unique(hasher.hash_one(id), index as u32, hash_of);
                if matches!(id, GroupId::Cluster(_)) {
                    self.clusters.push(index);
                }
                if self
                    .get(index)
                    .is_some_and(|group| group.rare().monitor.is_some())
                {
                    self.watched.push(index);
                }
                index
            }
        };
        let prefixes = self
            .get(index)
            .map(|g| g.prefixes.clone())
            .unwrap_or_default();
        for prefix in &prefixes {
            match *prefix {
                IpNet::V4(prefix) => self.v4.insert(prefix, index as u32),
                IpNet::V6(prefix) => self.v6.insert(prefix, index as u32),
            };
        }
        index
    }

    /// Our own link went down or came up.
    pub(super) fn on_link(&mut self, up: bool, now: Instant) {
        self.link_down = !up;
        let monitors = self.iter_mut().filter_map(Group::monitor_mut);
        monitors.for_each(|monitor| monitor.on_link(up, now));
    }

    /// Forgets a group; what it held is freed.
    pub(super) fn remove(&mut self, id: GroupId, umem: &mut Umem) {
        let Some(index) = self.index(id) else {
            return;
        };
        let hash = self.hasher.hash_one(id);
        if let Ok(entry) = self.by_id.find_entry(hash, |at| *at == index as u32) {
            entry.remove();
        }
        self.unlink(index);
        self.watched.retain(|watched| *watched != index);
        self.clusters.retain(|cluster| *cluster != index);
        while let Some(frame) = self.next_held(index) {
            umem.free(frame);
        }
        if let Some(slot) = self.groups.get_mut(index) {
            *slot = None;
            self.free.push(index);
        }
    }

    /// Keeps a packet until its group has a session; gives it back when there is no room.
    pub(super) fn hold(&mut self, index: usize, frame: Frame) -> Result<(), Frame> {
        let Some(group) = self.groups.get_mut(index).and_then(Option::as_mut) else {
            return Err(frame);
        };
        if usize::from(group.held) >= HELD {
            return Err(frame);
        }
        let at = self.held.put(frame)?;
        let first = match group.ends {
            Some((first, last)) => {
                self.held.link(last, at);
                first
            }
            None => at,
        };
        (group.held, group.ends) = (group.held + 1, Some((first, at)));
        Ok(())
    }

    /// The packet of a group that has waited longest.
    pub(super) fn next_held(&mut self, index: usize) -> Option<Frame> {
        let group = self.groups.get_mut(index).and_then(Option::as_mut)?;
        let (first, last) = group.ends?;
        let (frame, next) = self.held.take(first)?;
        group.held = group.held.saturating_sub(1);
        group.ends = next.map(|next| (next, last));
        Some(frame)
    }

    fn unlink(&mut self, index: usize) {
        let prefixes = self
            .get(index)
            .map(|g| g.prefixes.clone())
            .unwrap_or_default();
        for prefix in &prefixes {
            // A prefix that another group took since is not ours to remove; one that another group
            // has as well becomes that group's again.
            let heir = self.groups.iter().enumerate().find_map(|(at, group)| {
                let also = group.as_ref().is_some_and(|g| g.prefixes.contains(prefix));
                (at != index && also).then_some(at as u32)
            });
            match (*prefix, heir) {
                (IpNet::V4(prefix), _) if self.v4.get(&prefix) != Some(&(index as u32)) => {}
                (IpNet::V6(prefix), _) if self.v6.get(&prefix) != Some(&(index as u32)) => {}
                (IpNet::V4(prefix), Some(heir)) => drop(self.v4.insert(prefix, heir)),
                (IpNet::V6(prefix), Some(heir)) => drop(self.v6.insert(prefix, heir)),
                (IpNet::V4(prefix), None) => drop(self.v4.remove(&prefix)),
                (IpNet::V6(prefix), None) => drop(self.v6.remove(&prefix)),
            }
        }
    }

    /// The group that an inner address belongs to, by the longest prefix.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<usize> {
        match address {
            IpAddr::V4(a) => self
                .v4
                .get_lpm(&Ipv4Net::from(a))
                .map(|(_, at)| *at as usize),
            IpAddr::V6(a) => self
                .v6
                .get_lpm(&Ipv6Net::from(a))
                .map(|(_, at)| *at as usize),
        }
    }

    pub(super) fn index(&self, id: GroupId) -> Option<usize> {
        let here = |at: &u32| self.get(*at as usize).is_some_and(|group| group.id == id);
        let found = self.by_id.find(self.hasher.hash_one(id), here);
        found.map(|at| *at as usize)
    }

    pub(super) fn get(&self, index: usize) -> Option<&Group> {
        self.groups.get(index).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Group> {
        self.groups.get_mut(index).and_then(Option::as_mut)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.groups.iter_mut().flatten()
    }

    /// Groups of which payload was sent in this batch, where they are not watched.
    pub(super) fn take_sent(&mut self) -> impl Iterator<Item = GroupId> {
        let clusters = self.clusters.iter();
        let groups = &mut self.groups;
        clusters.filter_map(|index| {
            let group = groups.get_mut(*index)?.as_mut()?;
            std::mem::take(&mut group.sent).then_some(group.id)
        })
    }

    /// Indexes of the groups of a client's clusters.
    pub(super) fn clusters(&self) -> &[usize] {
        &self.clusters
    }

    /// Indexes of the groups whose gateways are watched.
    pub(super) fn watched(&self) -> &[usize] {
        &self.watched
    }
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
