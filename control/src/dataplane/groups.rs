//! Where traffic for inner addresses goes: prefixes, the groups that they belong to, and what a
//! group holds while it has no session.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::command::{GroupId, GroupSpec};
use super::xsk::{Frame, Umem};
use crate::liveness::Monitor;
use crate::policy::HeartbeatForm;
use crate::sadb::SessionId;

/// Packets that a group holds while a session for it is being made.
pub(super) const HELD: usize = 32;

/// Packets that all groups hold together: frames that wait are missing elsewhere.
pub(super) const HELD_ALL: usize = 1024;

/// A group and its state in a worker.
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) prefixes: Vec<IpNet>,
    pub(super) on_demand: bool,
    /// The session that traffic uses now.
    pub(super) active: Option<SessionId>,
    /// The one beside it that traffic uses in this worker, and all that it has.
    pub(super) lane: Option<SessionId>,
    pub(super) lanes: Vec<SessionId>,
    /// How long packets to its peer, or to its gateways, may be, as another worker has found out.
    pub(super) paths_told: Vec<(Option<IpAddr>, u32)>,
    /// The gateway that traffic uses now, on a client.
    pub(super) using: Option<IpAddr>,
    /// Watches the gateways of a client's cluster; the first worker's.
    pub(super) monitor: Option<Box<Monitor>>,
    pub(super) form: HeartbeatForm,
    /// Packets that wait for a session: how many, and where the first and the last one are kept.
    held: usize,
    ends: Option<(usize, usize)>,
    /// Whether the core was asked for a session since the last answer.
    pub(super) asked: bool,
    /// No session could be had; packets are refused until then.
    pub(super) rejected_until: Option<Instant>,
    /// Payload was sent to the active gateway in this batch.
    pub(super) sent: bool,
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
        Self {
            id: spec.id,
            prefixes: spec.prefixes,
            on_demand: spec.on_demand,
            active: None,
            lane: None,
            lanes: Vec::new(),
            paths_told: Vec::new(),
            using: None,
            monitor,
            form,
            held: 0,
            ends: None,
            asked: false,
            rejected_until: None,
            sent: false,
        }
    }
}

/// The packets that all groups hold, each with the place of the next one of its group.
#[derive(Default)]
struct Held {
    places: Vec<(Option<Frame>, Option<usize>)>,
    /// Places without a packet.
    free: Vec<usize>,
}

impl Held {
    /// Keeps a packet; gives it back if [`HELD_ALL`] are kept.
    fn put(&mut self, frame: Frame) -> Result<usize, Frame> {
        if self.places.is_empty() {
            // Once, at the first packet that has to wait.
            self.places.resize_with(HELD_ALL, || (None, None));
            self.free.extend(0..HELD_ALL);
        }
        match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.places.get_mut(at) {
                    *place = (Some(frame), None);
                }
                Ok(at)
            }
            None => Err(frame),
        }
    }

    /// The packet at a place, and the place of the next one.
    fn take(&mut self, at: usize) -> Option<(Frame, Option<usize>)> {
        let (frame, next) = std::mem::take(self.places.get_mut(at)?);
        let frame = frame?;
        self.free.push(at);
        Some((frame, next))
    }

    /// What is at `next` follows what is at `at`.
    fn link(&mut self, at: usize, next: usize) {
        if let Some((_, after)) = self.places.get_mut(at) {
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
    by_id: HashMap<GroupId, usize>,
    v4: PrefixMap<Ipv4Net, usize>,
    v6: PrefixMap<Ipv6Net, usize>,
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
        let index = match self.by_id.get(&spec.id) {
            Some(index) => {
                let index = *index;
                self.unlink(index);
                if let Some(group) = self.groups.get_mut(index).and_then(Option::as_mut) {
                    group.on_demand = spec.on_demand;
                    group.prefixes = spec.prefixes;
                    if let (Some(monitor), Some(watch)) = (&mut group.monitor, spec.watch) {
                        group.form = watch.form;
                        monitor.set_timing(watch.timing, now);
                        monitor.set_order(watch.order, now);
                    }
                }
                index
            }
            None => {
                let id = spec.id;
                let mut group = Group::new(spec);
                if let Some(monitor) = &mut group.monitor {
                    monitor.on_link(!self.link_down, now);
                }
                let index = self.free.pop().unwrap_or(self.groups.len());
                if index == self.groups.len() {
                    self.groups.push(None);
                }
                if let Some(slot) = self.groups.get_mut(index) {
                    *slot = Some(group);
                }
                self.by_id.insert(id, index);
                if matches!(id, GroupId::Cluster(_)) {
                    self.clusters.push(index);
                }
                if self.get(index).is_some_and(|group| group.monitor.is_some()) {
                    self.watched.push(index);
                }
                index
            }
        };
        let prefixes = self
            .get(index)
            .map(|g| g.prefixes.clone())
            .unwrap_or_default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(prefix) => self.v4.insert(prefix, index),
                IpNet::V6(prefix) => self.v6.insert(prefix, index),
            };
        }
        index
    }

    /// Our own link went down or came up.
    pub(super) fn on_link(&mut self, up: bool, now: Instant) {
        self.link_down = !up;
        let monitors = self.iter_mut().filter_map(|group| group.monitor.as_mut());
        monitors.for_each(|monitor| monitor.on_link(up, now));
    }

    /// Forgets a group; what it held is freed.
    pub(super) fn remove(&mut self, id: GroupId, umem: &mut Umem) {
        let Some(index) = self.by_id.remove(&id) else {
            return;
        };
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
        if group.held >= HELD {
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
        for prefix in prefixes {
            // A prefix that another group took since is not ours to remove; one that another group
            // has as well becomes that group's again.
            let heir = self.groups.iter().enumerate().find_map(|(at, group)| {
                let also = group.as_ref().is_some_and(|g| g.prefixes.contains(&prefix));
                (at != index && also).then_some(at)
            });
            match (prefix, heir) {
                (IpNet::V4(prefix), _) if self.v4.get(&prefix) != Some(&index) => {}
                (IpNet::V6(prefix), _) if self.v6.get(&prefix) != Some(&index) => {}
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
            IpAddr::V4(a) => self.v4.get_lpm(&Ipv4Net::from(a)).map(|(_, index)| *index),
            IpAddr::V6(a) => self.v6.get_lpm(&Ipv6Net::from(a)).map(|(_, index)| *index),
        }
    }

    pub(super) fn index(&self, id: GroupId) -> Option<usize> {
        self.by_id.get(&id).copied()
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
mod tests {
    use std::time::Duration;

    use super::super::command::Watch;
    use super::*;
    use crate::liveness::Timing;
    use crate::policy::{ClusterId, HeartbeatMode};

    fn spec(id: u32, prefixes: &[&str]) -> GroupSpec {
        GroupSpec {
            id: GroupId::Peer(id),
            prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
            watch: None,
            on_demand: true,
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_changes_are_followed() {
        let now = Instant::now();
        let mut umem = Umem::new(4).unwrap();
        let mut groups = Groups::default();
        let wide = groups.set(spec(1, &["10.0.0.0/8", "2001:db8::/32"]), now);
        let narrow = groups.set(spec(2, &["10.1.2.3/32"]), now);
        let at = |groups: &Groups, s: &str| groups.lookup(s.parse().unwrap());
        assert_eq!(at(&groups, "10.1.2.3"), Some(narrow));
        assert_eq!(at(&groups, "10.1.2.4"), Some(wide));
        assert_eq!(at(&groups, "2001:db8::1"), Some(wide));
        assert_eq!(at(&groups, "192.0.2.1"), None);

        groups.set(spec(2, &["10.1.2.4/32"]), now);
        assert_eq!(at(&groups, "10.1.2.3"), Some(wide));
        assert_eq!(at(&groups, "10.1.2.4"), Some(narrow));

        let frame = umem.take().unwrap();
        groups.hold(narrow, frame).unwrap();
        groups.remove(GroupId::Peer(2), &mut umem);
        assert_eq!(at(&groups, "10.1.2.4"), Some(wide));
        assert_eq!(
            umem.free_chunks(),
            4,
            "a removed group gives back what it held"
        );
    }

    // A reload brings a cluster while the link is down: its gateways are not judged before it is up.
    #[test]
    fn a_group_that_comes_while_the_link_is_down_waits_for_it() {
        let now = Instant::now();
        let gateway = IpAddr::from([192, 0, 2, 1]);
        let watched = |cluster| GroupSpec {
            id: GroupId::Cluster(ClusterId(cluster)),
            watch: Some(Box::new(Watch {
                order: vec![gateway],
                timing: Timing {
                    mode: HeartbeatMode::Instant,
                    response_time: Duration::from_millis(5),
                    defer_time: Duration::from_millis(5),
                },
                form: HeartbeatForm::Keyed,
            })),
            ..spec(cluster, &[])
        };
        let mut groups = Groups::default();
        let mut all = vec![groups.set(watched(1), now)];
        groups.on_link(false, now);
        all.push(groups.set(watched(2), now));
        for up in [false, true] {
            for index in &all {
                let monitor = groups.get_mut(*index).unwrap().monitor.as_mut().unwrap();
                monitor.on_keyed(gateway, now);
                assert_eq!(monitor.next_deadline().is_some(), up);
            }
            groups.on_link(true, now);
        }
    }

    #[test]
    fn a_group_holds_a_bounded_number_of_packets_in_order() {
        let mut umem = Umem::new(HELD as u32 + 1).unwrap();
        let mut groups = Groups::default();
        let index = groups.set(spec(1, &[]), Instant::now());
        for i in 0..HELD {
            let mut frame = umem.take().unwrap();
            frame.set_range(0..i);
            groups.hold(index, frame).unwrap();
        }
        let over = groups.hold(index, umem.take().unwrap()).unwrap_err();
        umem.free(over);
        assert_eq!(groups.next_held(index).map(|f| f.len()), Some(0));
        assert_eq!(groups.next_held(index).map(|f| f.len()), Some(1));
    }

    #[test]
    fn all_groups_together_hold_a_bounded_number() {
        let mut umem = Umem::new(HELD_ALL as u32 + 1).unwrap();
        let mut groups = Groups::default();
        let mut refused = None;
        for id in 0..=(HELD_ALL / HELD) as u32 {
            let index = groups.set(spec(id, &[]), Instant::now());
            for _ in 0..HELD {
                let Some(frame) = umem.take() else { break };
                refused = groups.hold(index, frame).err().or(refused);
            }
        }
        assert!(refused.is_some());
        let first = groups.index(GroupId::Peer(0)).unwrap();
        umem.free(groups.next_held(first).unwrap());
        let last = groups
            .index(GroupId::Peer((HELD_ALL / HELD) as u32))
            .unwrap();
        groups.hold(last, umem.take().unwrap()).unwrap();
    }

    #[test]
    fn a_prefix_of_two_groups_goes_back_to_the_other() {
        let now = Instant::now();
        let mut umem = Umem::new(4).unwrap();
        let mut groups = Groups::default();
        let old = groups.set(spec(1, &["10.1.2.3/32"]), now);
        let new = groups.set(spec(2, &["10.1.2.3/32"]), now);
        let at = |groups: &Groups| groups.lookup("10.1.2.3".parse().unwrap());
        assert_eq!(at(&groups), Some(new));
        groups.remove(GroupId::Peer(2), &mut umem);
        assert_eq!(at(&groups), Some(old));
        groups.remove(GroupId::Peer(1), &mut umem);
        assert_eq!(at(&groups), None);
    }
}
