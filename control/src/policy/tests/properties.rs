//! What holds for every policy and for every text.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::source::SOURCE;
use crate::policy::{
    ClusterDef, ClusterId, General, HeartbeatForm, HeartbeatMode, LONGEST_TIMER, Policy,
    RedirectDef, SHORTEST_TIMER, Target, TunnelDef, Via, check, diff, parse,
};

fn host() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u32>()
        .prop_map(Ipv4Addr::from)
        .prop_filter("unicast", |a| {
            !a.is_multicast() && !a.is_broadcast() && !a.is_unspecified()
        });
    let v6 = any::<u128>()
        .prop_map(Ipv6Addr::from)
        .prop_filter("unicast", |a| {
            !a.is_multicast() && a.to_ipv4_mapped().is_none()
        });
    prop_oneof![v4.prop_map(IpAddr::V4), v6.prop_map(IpAddr::V6)]
}

/// Small numbers, so that they meet, and the whole range.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..20, 0..=ClusterId::HIGHEST_NAMED]
}

fn timer() -> impl Strategy<Value = Duration> {
    let [shortest, longest] =
        [SHORTEST_TIMER, LONGEST_TIMER].map(|timer| u64::try_from(timer.as_nanos()).unwrap());
    prop_oneof![
        (shortest..=longest).prop_map(Duration::from_nanos),
        (1u64..=3_600_000).prop_map(Duration::from_millis),
        (1u64..=3_600).prop_map(Duration::from_secs),
    ]
}

fn general() -> impl Strategy<Value = General> {
    let mode = prop_oneof![
        Just(HeartbeatMode::None),
        Just(HeartbeatMode::Deferred),
        Just(HeartbeatMode::Instant)
    ];
    let form = prop_oneof![Just(HeartbeatForm::Plain), Just(HeartbeatForm::Keyed)];
    (mode, timer(), timer(), form, any::<bool>(), any::<u32>()).prop_map(
        |(heartbeat, response_time, defer_time, form, random_order, standby)| General {
            heartbeat,
            response_time,
            defer_time,
            form,
            random_order,
            standby,
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let clusters = btree_map(number(), btree_set(host(), 1..5), 0..5);
    let tunnels = btree_map(number(), (host(), 0u128..5000, any::<u8>(), host()), 0..12);
    let redirects = vec(
        (any::<prop::sample::Index>(), host(), any::<u8>(), host()),
        0..4,
    );
    (general(), clusters, tunnels, redirects).prop_map(|(general, clusters, tunnels, redirects)| {
        let defined: Vec<u32> = clusters.keys().copied().collect();
        let via = |pick: u8, gateway| match defined.get(usize::from(pick) % 6) {
            Some(number) => Via::Cluster(*number),
            None => Via::Gateway(gateway),
        };
        let tunnels: Vec<TunnelDef> = tunnels
            .into_iter()
            .map(|(number, (start, length, pick, gateway))| {
                let target = match pick {
                    0..60 => Target::Auto,
                    _ => Target::Via(via(pick, gateway)),
                };
                TunnelDef {
                    number,
                    start,
                    end: end(start, length),
                    target,
                }
            })
            .collect();
        let redirects: BTreeMap<(u32, IpAddr), Via> = redirects
            .into_iter()
            .filter(|_| !tunnels.is_empty())
            .map(|(tunnel, server, pick, gateway)| {
                ((tunnel.get(&tunnels).number, server), via(pick, gateway))
            })
            .collect();
        let redirects = redirects
            .into_iter()
            .map(|((tunnel, server), via)| RedirectDef {
                tunnel,
                server,
                via,
            })
            .collect();
        let clusters = clusters
            .into_iter()
            .map(|(number, set)| {
                (
                    number,
                    ClusterDef {
                        gateways: set.into_iter().collect(),
                    },
                )
            })
            .collect();
        Policy {
            general,
            clusters,
            tunnels,
            redirects,
        }
    })
}

/// The end of a range, kept off the IPv4-mapped block.
fn end(start: IpAddr, length: u128) -> IpAddr {
    let end: IpAddr = match start {
        IpAddr::V4(v4) => {
            Ipv4Addr::from(u32::from(v4).saturating_add(u32::try_from(length).unwrap())).into()
        }
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6).saturating_add(length)).into(),
    };
    if end.to_canonical() == end {
        end
    } else {
        start
    }
}

/// A valid file with a few characters taken out, put in or exchanged.
fn mutated() -> impl Strategy<Value = String> {
    let texts = prop_oneof![
        policy().prop_map(|policy| policy.to_string()),
        Just(SOURCE.to_owned())
    ];
    let alphabet: Vec<char> = "[]=#;-/.:,%0129afsm \t\r\n\u{2013}\u{feff}\u{a0}Cx"
        .chars()
        .collect();
    let c = prop_oneof![prop::sample::select(alphabet), any::<char>()];
    (texts, vec((any::<prop::sample::Index>(), 0u8..3, c), 1..8)).prop_map(|(text, edits)| {
        let mut text: Vec<char> = text.chars().collect();
        for (at, kind, c) in edits {
            let at = at.index(text.len() + 1);
            match kind {
                0 => text.insert(at, c),
                1 if at < text.len() => drop(text.remove(at)),
                _ if at < text.len() => text[at] = c,
                _ => text.push(c),
            }
        }
        text.into_iter().collect()
    })
}

/// What must hold of any text: a verdict, places that exist, a report, and a policy that can be
/// written, read again, and resolved.
fn assert_sound(text: &str) {
    let parsed = parse(text);
    let errors = parsed.diagnostics.iter().filter(|d| d.is_error()).count();
    assert_eq!(parsed.policy.is_none(), errors > 0);
    let lines: Vec<&str> = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .lines()
        .collect();
    for diagnostic in &parsed.diagnostics {
        let (line, column) = (
            diagnostic.span.line as usize,
            diagnostic.span.column as usize,
        );
        let width = lines.get(line - 1).map_or(0, |line| line.chars().count());
        assert!(line <= lines.len().max(1), "{diagnostic} in {text:?}");
        assert!(
            (1..=width + 1).contains(&column),
            "{diagnostic} in {text:?}"
        );
        let end = column - 1 + diagnostic.span.length as usize;
        assert!(end <= width.max(column), "{diagnostic} in {text:?}");
    }
    let sorted = parsed
        .diagnostics
        .is_sorted_by_key(|d| (d.span.line, d.span.column));
    assert!(sorted, "{:?}", parsed.diagnostics);
    let report = check("p.conf", text).to_string();
    assert!(
        report.contains(if errors > 0 { "error" } else { "p.conf: good" }),
        "{report}"
    );
    if let Some(policy) = parsed.policy {
        assert_eq!(
            parse(&policy.to_string()).policy.as_ref(),
            Some(&policy),
            "{text:?}"
        );
        let resolved = policy.resolve(None, &mut StdRng::seed_from_u64(1));
        assert_eq!(
            resolved.tunnels.len() + resolved.unresolved.len(),
            policy.tunnels.len()
        );
    }
}

proptest! {
    #[test]
    fn a_written_policy_reads_back(policy in policy()) {
        let parsed = parse(&policy.to_string());
        prop_assert_eq!(parsed.policy, Some(policy), "{:#?}", parsed.diagnostics);
    }

    #[test]
    fn any_text_gets_a_sound_verdict(text in any::<String>()) {
        assert_sound(&text);
    }

    #[test]
    fn any_lines_get_a_sound_verdict(
        values in vec((prop::sample::select(vec![
            "[TUNNEL]\nTunnel1 =", "[CLUSTER]\nCluster 1 =", "[GENERAL]\nStandby =",
            "[GENERAL]\nHeartbeatDeferTime =", "Redirect Tunnel1 =", "[", "Heartbeat = ",
        ]), "[-0-9a-f.:/ \u{2013}A-Z#;=\\]]{0,30}"), 0..6)
    ) {
        let text: String = values.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
        assert_sound(&text);
    }

    #[test]
    fn a_mutated_file_gets_a_sound_verdict(text in mutated()) {
        assert_sound(&text);
    }

    #[test]
    fn resolving_keeps_every_gateway_and_shares_no_address(policy in policy(), seed: u64) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let server = IpAddr::from([198, 51, 100, 1]);
        let resolved = policy.resolve(Some(server), rng);
        prop_assert!(resolved.unresolved.is_empty());
        prop_assert!(resolved.clusters.is_sorted_by_key(|cluster| cluster.id));
        let ids: BTreeSet<_> = resolved.clusters.iter().map(|cluster| cluster.id).collect();
        prop_assert_eq!(ids.len(), resolved.clusters.len());
        for (number, cluster) in &policy.clusters {
            let mut drawn = resolved.cluster(ClusterId(*number)).unwrap().gateways.clone();
            drawn.sort();
            // The strategy lists gateways in order.
            prop_assert_eq!(&drawn, &cluster.gateways);
        }
        let mut all: Vec<_> = resolved.tunnels.iter().flat_map(|t| &t.prefixes).collect();
        all.sort_by_key(|prefix| (prefix.network(), prefix.prefix_len()));
        for pair in all.windows(2) {
            prop_assert!(pair[0].broadcast() < pair[1].network() || pair[0].addr().is_ipv4() != pair[1].addr().is_ipv4());
        }
        for tunnel in &resolved.tunnels {
            prop_assert!(resolved.cluster(tunnel.cluster).is_some());
            for prefix in &tunnel.prefixes {
                prop_assert!(tunnel.start <= prefix.network() && prefix.broadcast() <= tunnel.end);
            }
        }
        prop_assert!(diff(&resolved, &policy.resolve(Some(server), rng)).is_empty());
    }
}
