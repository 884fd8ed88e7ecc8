//! What a new policy changes, so that a reload touches only what it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::keywords::Setting;
use super::model::{ClusterId, General};
use super::resolve::Resolved;

/// Two sets of keyed things compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta<K> {
    pub added: BTreeSet<K>,
    pub removed: BTreeSet<K>,
    pub changed: BTreeSet<K>,
    pub untouched: BTreeSet<K>,
}

/// How the gateways of a changed cluster changed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Membership {
    pub joined: BTreeSet<IpAddr>,
    pub left: BTreeSet<IpAddr>,
    /// The order is another one *and* the operator's own (`RandomOrder = no`).
    pub reordered: bool,
}

/// What differs between two resolved policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    pub settings: BTreeSet<Setting>,
    /// A drawn order that came out differently is no change.
    pub clusters: Delta<ClusterId>,
    /// For each changed cluster.
    pub membership: BTreeMap<ClusterId, Membership>,
    /// By tunnel number, unresolved ones included. Changed means: other range, other prefixes
    /// or other cluster.
    pub tunnels: Delta<u32>,
    /// Gateways over all clusters. Only sessions with removed ones are concerned by a reload;
    /// none is ever `changed`.
    pub gateways: Delta<IpAddr>,
}

impl<K> Delta<K> {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl<K: Copy + Ord> Delta<K> {
    fn of<V>(
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
        mut same: impl FnMut(K, &V, &V) -> bool,
    ) -> Self {
        let missing = |from: &BTreeMap<K, V>, others: &BTreeMap<K, V>| {
            from.keys()
                .filter(|key| !others.contains_key(key))
                .copied()
                .collect()
        };
        let mut delta = Self {
            added: missing(new, old),
            removed: missing(old, new),
            changed: BTreeSet::new(),
            untouched: BTreeSet::new(),
        };
        for (key, before) in old {
            let Some(after) = new.get(key) else { continue };
            let same = same(*key, before, after);
            if same {
                &mut delta.untouched
            } else {
                &mut delta.changed
            }
            .insert(*key);
        }
        delta
    }
}

impl Changes {
    /// Whether the new policy means the same as the old one.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.clusters.is_empty() && self.tunnels.is_empty()
    }

    /// Whether a session with `gateway` must go: the new policy no longer knows the gateway.
    pub fn ends_session(&self, gateway: IpAddr) -> bool {
        self.gateways.removed.contains(&gateway)
    }
}

/// Compares what two policies mean for a node.
pub fn diff(old: &Resolved, new: &Resolved) -> Changes {
    let mut membership = BTreeMap::new();
    let clusters = Delta::of(&clusters(old), &clusters(new), |id, before, after| {
        let change = members(before, after, new.general.random_order);
        let same = change == Membership::default();
        if !same {
            membership.insert(id, change);
        }
        same
    });
    let tunnels = Delta::of(&tunnels(old), &tunnels(new), |_, before, after| {
        before == after
    });
    let gateways = Delta::of(&gateways(old), &gateways(new), |_, (), ()| true);
    Changes {
        settings: settings(&old.general, &new.general),
        clusters,
        membership,
        tunnels,
        gateways,
    }
}

fn clusters(resolved: &Resolved) -> BTreeMap<ClusterId, &[IpAddr]> {
    resolved
        .clusters
        .iter()
        .map(|cluster| (cluster.id, &cluster.gateways[..]))
        .collect()
}

fn members(before: &[IpAddr], after: &[IpAddr], random_order: bool) -> Membership {
    let old: BTreeSet<IpAddr> = before.iter().copied().collect();
    let new: BTreeSet<IpAddr> = after.iter().copied().collect();
    // Newcomers and leavers are told as such; reordered are those that stayed.
    let stayed = |list: &[IpAddr], others: &BTreeSet<IpAddr>| -> Vec<IpAddr> {
        list.iter()
            .filter(|gateway| others.contains(gateway))
            .copied()
            .collect()
    };
    Membership {
        joined: new.difference(&old).copied().collect(),
        left: old.difference(&new).copied().collect(),
        reordered: !random_order && stayed(before, &new) != stayed(after, &old),
    }
}

type TunnelMeaning<'a> = (IpAddr, IpAddr, &'a [IpNet], Option<ClusterId>);

fn tunnels(resolved: &Resolved) -> BTreeMap<u32, TunnelMeaning<'_>> {
    let known = resolved.tunnels.iter().map(|tunnel| {
        let meaning = (
            tunnel.start,
            tunnel.end,
            &tunnel.prefixes[..],
            Some(tunnel.cluster),
        );
        (tunnel.number, meaning)
    });
    let unresolved = resolved.unresolved.iter().map(|tunnel| {
        (
            tunnel.number,
            (tunnel.start, tunnel.end, &tunnel.prefixes[..], None),
        )
    });
    known.chain(unresolved).collect()
}

fn gateways(resolved: &Resolved) -> BTreeMap<IpAddr, ()> {
    let all = resolved
        .clusters
        .iter()
        .flat_map(|cluster| &cluster.gateways);
    all.map(|gateway| (*gateway, ())).collect()
}

fn settings(old: &General, new: &General) -> BTreeSet<Setting> {
    // Taken apart in full, so that a new setting can not be forgotten here.
    let General {
        heartbeat,
        response_time,
        defer_time,
        form,
        random_order,
        standby,
    } = old;
    [
        (Setting::Heartbeat, *heartbeat != new.heartbeat),
        (
            Setting::HeartbeatResponseTime,
            *response_time != new.response_time,
        ),
        (Setting::HeartbeatDeferTime, *defer_time != new.defer_time),
        (Setting::HeartbeatForm, *form != new.form),
        (Setting::RandomOrder, *random_order != new.random_order),
        (Setting::Standby, *standby != new.standby),
    ]
    .into_iter()
    .filter_map(|(setting, differs)| differs.then_some(setting))
    .collect()
}

/// One line for a log or an event: `Cluster 1: 192.0.2.3 joined; Tunnel 2 removed`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self
            .settings
            .iter()
            .map(|setting| format!("{setting} changed"))
            .collect();
        let cluster = |id: &ClusterId| match id.is_implicit() {
            // Its number says nothing to a reader; the gateway is told among the gateways.
            true => None,
            false => Some(format!("Cluster {id}")),
        };
        for (verb, ids) in [
            ("added", &self.clusters.added),
            ("removed", &self.clusters.removed),
        ] {
            parts.extend(
                ids.iter()
                    .filter_map(cluster)
                    .map(|name| format!("{name} {verb}")),
            );
        }
        for (id, change) in &self.membership {
            let joined = change
                .joined
                .iter()
                .map(|gateway| format!("{gateway} joined"));
            let left = change.left.iter().map(|gateway| format!("{gateway} left"));
            let order = change.reordered.then(|| "new order".to_owned());
            let all: Vec<String> = joined.chain(left).chain(order).collect();
            parts.push(format!("Cluster {id}: {}", all.join(", ")));
        }
        for (verb, numbers) in [
            ("added", &self.tunnels.added),
            ("removed", &self.tunnels.removed),
            ("changed", &self.tunnels.changed),
        ] {
            parts.extend(
                numbers
                    .iter()
                    .map(|number| format!("Tunnel {number} {verb}")),
            );
        }
        if parts.is_empty() {
            parts.push("no change".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}
