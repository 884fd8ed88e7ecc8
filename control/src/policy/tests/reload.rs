//! Resolving a policy, and what a reload changes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::source::{SOURCE, good, ip};
use crate::policy::{ClusterId, Policy, Resolved, Setting, WhyUnresolved, diff};

fn resolve(policy: &Policy, auto: Option<&str>, seed: u64) -> Resolved {
    policy.resolve(auto.map(ip), &mut StdRng::seed_from_u64(seed))
}

fn resolved(text: &str) -> Resolved {
    resolve(&good(text), None, 1)
}

fn prefixes(resolved: &Resolved, number: u32) -> Vec<String> {
    let tunnel = resolved
        .tunnels
        .iter()
        .find(|tunnel| tunnel.number == number);
    let prefixes = tunnel
        .map(|tunnel| tunnel.prefixes.as_slice())
        .unwrap_or_default();
    prefixes.iter().map(ToString::to_string).collect()
}

#[test]
fn the_lowest_number_owns_what_overlaps() {
    let policy = resolved(
        "[TUNNEL]\nTunnel5 = 10.0.0.0/24 192.0.2.5\nTunnel1 = 10.0.0.64 - 10.0.0.127 192.0.2.1\n\
         Tunnel7 = 10.0.0.0 - 10.0.1.255 192.0.2.5\nTunnel8 = 10.0.0.9 192.0.2.1\n",
    );
    assert_eq!(prefixes(&policy, 1), ["10.0.0.64/26"]);
    assert_eq!(prefixes(&policy, 5), ["10.0.0.0/26", "10.0.0.128/25"]);
    assert_eq!(prefixes(&policy, 7), ["10.0.1.0/24"]);
    assert!(prefixes(&policy, 8).is_empty());
    assert_eq!(
        policy.tunnels.iter().map(|t| t.number).collect::<Vec<_>>(),
        [1, 5, 7, 8]
    );
}

#[test]
fn plain_gateways_are_clusters_of_one() {
    let policy = resolved(
        "[CLUSTER]\nCluster 3 = 192.0.2.1 192.0.2.2\n[TUNNEL]\nTunnel1 = 10.0.0.1 192.0.2.1\n\
         Tunnel2 = 10.0.0.2 192.0.2.1\nTunnel3 = 10.0.0.3 Cluster 3\nTunnel4 = 10.0.0.4 192.0.2.9\n",
    );
    let ids: Vec<ClusterId> = policy.tunnels.iter().map(|tunnel| tunnel.cluster).collect();
    assert_eq!(ids[0], ids[1], "the same gateway is the same cluster");
    assert_ne!(ids[0], ids[3]);
    assert_eq!(ids[2], ClusterId(3));
    assert!(ids[0].is_implicit() && ids[3].is_implicit() && !ids[2].is_implicit());
    assert_eq!(policy.clusters.len(), 3);
    let first = policy.cluster(ids[0]).unwrap();
    assert_eq!(
        (first.name.as_str(), &first.gateways[..]),
        ("gateway 192.0.2.1", &[ip("192.0.2.1")][..])
    );
    // The id belongs to the gateway, not to the policy it stands in.
    let other = resolved("[TUNNEL]\nTunnel1 = 10.0.0.1 192.0.2.9\n");
    assert_eq!(other.tunnels[0].cluster, ids[3]);
}

#[test]
fn ids_of_many_gateways_do_not_collide() {
    let mut text = "[TUNNEL]\n".to_owned();
    for number in 0..100_000u32 {
        let [_, b, c, d] = number.to_be_bytes();
        text += &format!("Tunnel{number} = 10.{b}.{c}.{d} 100.{b}.{c}.{d}\n");
    }
    let policy = resolved(&text);
    let ids: BTreeSet<ClusterId> = policy.tunnels.iter().map(|tunnel| tunnel.cluster).collect();
    assert_eq!(ids.len(), 100_000);
    assert_eq!(policy.clusters.len(), 100_000);
    for tunnel in &policy.tunnels {
        assert!(
            policy
                .cluster(tunnel.cluster)
                .is_some_and(|c| c.gateways.len() == 1)
        );
    }
}

#[test]
fn the_order_is_drawn_afresh_unless_turned_off() {
    let text = "[CLUSTER]\nCluster 1 = 192.0.2.1 192.0.2.2 192.0.2.3\n[TUNNEL]\nTunnel1 = 10.0.0.1 Cluster 1";
    let orders = |text: &str| {
        let policy = good(text);
        let rng = &mut StdRng::seed_from_u64(7);
        let mut orders: Vec<Vec<IpAddr>> = (0..600)
            .map(|_| policy.resolve(None, rng).clusters[0].gateways.clone())
            .collect();
        orders.sort();
        orders
    };
    let drawn = orders(text);
    let mut different = drawn.clone();
    different.dedup();
    assert_eq!(different.len(), 6, "each of the 6 orders comes up");
    for order in &different {
        let times = drawn.iter().filter(|drawn| drawn == &order).count();
        assert!(
            (60..=140).contains(&times),
            "{order:?} came up {times} times of 600"
        );
    }
    let mut fixed = orders(&format!("[GENERAL]\nRandomOrder = no\n{text}"));
    fixed.dedup();
    assert_eq!(
        fixed,
        [["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(ip).to_vec()]
    );
}

const AUTO: &str = "[CLUSTER]\nCluster 1 = 192.0.2.1 192.0.2.2\n[TUNNEL]\nTunnel1 = 10.0.0.0/24 AUTO\n\
    Redirect Tunnel1 = 198.51.100.1 Cluster 1\nRedirect Tunnel1 = 198.51.100.2 192.0.2.9\n\
    Tunnel2 = 10.0.0.0/23 192.0.2.9\nTunnel3 = 10.0.5.0/24 AUTO\n";

#[test]
fn auto_follows_the_detected_server() {
    let policy = good(AUTO);
    let target = |auto, tunnel: usize| {
        let resolved = resolve(&policy, Some(auto), 1);
        assert!(resolved.unresolved.is_empty());
        let cluster = resolved.cluster(resolved.tunnels[tunnel].cluster).unwrap();
        let mut gateways = cluster.gateways.clone();
        gateways.sort();
        gateways
    };
    assert_eq!(
        target("198.51.100.1", 0),
        [ip("192.0.2.1"), ip("192.0.2.2")]
    );
    assert_eq!(target("198.51.100.2", 0), [ip("192.0.2.9")]);
    assert_eq!(
        target("198.51.100.3", 0),
        [ip("198.51.100.3")],
        "no redirect for this server"
    );
    assert_eq!(
        target("198.51.100.1", 2),
        [ip("198.51.100.1")],
        "a redirect is its tunnel's own"
    );
    assert_eq!(target("::ffff:198.51.100.2", 0), [ip("192.0.2.9")]);
}

#[test]
fn auto_without_a_server_is_told_and_keeps_its_addresses() {
    let policy = good(AUTO);
    for (auto, why) in [
        (None, WhyUnresolved::NoServer),
        (
            Some("0.0.0.0"),
            WhyUnresolved::UnusableServer(ip("0.0.0.0")),
        ),
    ] {
        let resolved = resolve(&policy, auto, 1);
        let unresolved: Vec<_> = resolved
            .unresolved
            .iter()
            .map(|u| (u.number, u.why))
            .collect();
        assert_eq!(unresolved, [(1, why), (3, why)]);
        assert_eq!(
            resolved.unresolved[0].prefixes,
            ["10.0.0.0/24".parse().unwrap()]
        );
        assert_eq!(prefixes(&resolved, 2), ["10.0.1.0/24"]);
    }
}

#[test]
fn a_new_draw_is_no_change() {
    let policy = good(SOURCE);
    let first = resolve(&policy, None, 0);
    let orders = (1..50).map(|seed| resolve(&policy, None, seed));
    let redrawn = orders.filter(|second| second.clusters != first.clusters);
    let mut seen = 0;
    for second in redrawn {
        seen += 1;
        let changes = diff(&first, &second);
        assert!(changes.is_empty(), "{changes}");
        assert_eq!(changes.to_string(), "no change");
        assert_eq!(changes.clusters.untouched.len(), 3);
        assert_eq!(changes.gateways.untouched.len(), 6);
    }
    assert!(seen > 0, "no other order was drawn");
}

#[test]
fn a_reload_names_what_it_concerns() {
    let old = resolved(
        "[GENERAL]\nHeartbeat = INSTANT\n[CLUSTER]\nCluster 1 = 192.0.2.1 192.0.2.2\n\
         Cluster 2 = 192.0.2.3\nCluster 3 = 192.0.2.4\n[TUNNEL]\nTunnel1 = 10.0.1.0/24 Cluster 1\n\
         Tunnel2 = 10.0.2.0/24 Cluster 2\nTunnel3 = 10.0.3.0/24 Cluster 3\n\
         Tunnel4 = 10.0.4.0/24 192.0.2.7\n",
    );
    let new = resolved(
        "[GENERAL]\nHeartbeat = INSTANT\nHeartbeatDeferTime = 5ms\n[CLUSTER]\n\
         Cluster 1 = 192.0.2.1 192.0.2.5\nCluster 3 = 192.0.2.4\nCluster 4 = 192.0.2.3 192.0.2.6\n\
         [TUNNEL]\nTunnel1 = 10.0.1.0/24 Cluster 1\nTunnel2 = 10.0.2.0/24 Cluster 4\n\
         Tunnel3 = 10.0.3.0/25 Cluster 3\nTunnel5 = 10.0.4.0/24 192.0.2.8\n",
    );
    let changes = diff(&old, &new);
    assert!(!changes.is_empty());
    assert_eq!(
        changes.settings,
        BTreeSet::from([Setting::HeartbeatDeferTime])
    );
    let named = |ids: &BTreeSet<ClusterId>| -> Vec<u32> {
        ids.iter()
            .filter(|id| !id.is_implicit())
            .map(|id| id.0)
            .collect()
    };
    assert_eq!(named(&changes.clusters.added), [4]);
    assert_eq!(named(&changes.clusters.removed), [2]);
    assert_eq!(named(&changes.clusters.changed), [1]);
    assert_eq!(named(&changes.clusters.untouched), [3]);
    let change = &changes.membership[&ClusterId(1)];
    assert_eq!(change.joined, BTreeSet::from([ip("192.0.2.5")]));
    assert_eq!(change.left, BTreeSet::from([ip("192.0.2.2")]));
    assert!(!change.reordered);
    assert_eq!(changes.tunnels.added, BTreeSet::from([5]));
    assert_eq!(changes.tunnels.removed, BTreeSet::from([4]));
    assert_eq!(changes.tunnels.changed, BTreeSet::from([2, 3]));
    assert_eq!(changes.tunnels.untouched, BTreeSet::from([1]));
    // 192.0.2.3 moved to another cluster: its session lives on.
    let ended: Vec<bool> = (1..=8)
        .map(|n| changes.ends_session([192, 0, 2, n].into()))
        .collect();
    assert_eq!(
        ended,
        [false, true, false, false, false, false, true, false]
    );
    assert_eq!(
        changes.to_string(),
        "HeartbeatDeferTime changed; Cluster 4 added; Cluster 2 removed; \
         Cluster 1: 192.0.2.5 joined, 192.0.2.2 left; Tunnel 5 added; Tunnel 4 removed; \
         Tunnel 2 changed; Tunnel 3 changed"
    );
}

#[test]
fn an_order_of_the_operator_is_a_change_of_order_only() {
    let text = |order: &str, gateways: &str| {
        format!(
            "[GENERAL]\nRandomOrder = {order}\n[CLUSTER]\nCluster 1 = {gateways}\n\
             [TUNNEL]\nTunnel1 = 10.0.0.1 Cluster 1"
        )
    };
    let old = resolved(&text("no", "192.0.2.1 192.0.2.2 192.0.2.3"));
    let turned = diff(
        &old,
        &resolved(&text("no", "192.0.2.2 192.0.2.1 192.0.2.3")),
    );
    let change = &turned.membership[&ClusterId(1)];
    assert!(change.reordered && change.joined.is_empty() && change.left.is_empty());
    assert!(turned.gateways.removed.is_empty());
    let shorter = diff(&old, &resolved(&text("no", "192.0.2.1 192.0.2.3")));
    assert!(
        !shorter.membership[&ClusterId(1)].reordered,
        "who stayed kept the order"
    );
    let random = diff(
        &old,
        &resolved(&text("yes", "192.0.2.3 192.0.2.2 192.0.2.1")),
    );
    assert!(random.membership.is_empty());
    assert_eq!(random.settings, BTreeSet::from([Setting::RandomOrder]));
}

#[test]
fn a_server_that_appears_changes_the_auto_tunnels_only() {
    let policy = good(AUTO);
    let changes = diff(
        &resolve(&policy, None, 1),
        &resolve(&policy, Some("198.51.100.1"), 2),
    );
    assert_eq!(changes.tunnels.changed, BTreeSet::from([1, 3]));
    assert_eq!(changes.tunnels.untouched, BTreeSet::from([2]));
    assert!(changes.gateways.removed.is_empty());
    assert_eq!(changes.gateways.added, BTreeSet::from([ip("198.51.100.1")]));
}
