//! The syntax, and that the source's own examples mean what the source says.

use std::net::IpAddr;
use std::time::Duration;

use crate::policy::{
    HeartbeatForm, HeartbeatMode, Policy, Problem, RedirectDef, Target, TunnelDef, Via, parse,
};

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is no address"))
}

/// The policy of a text without errors.
pub(super) fn good(text: &str) -> Policy {
    let parsed = parse(text);
    parsed
        .policy
        .unwrap_or_else(|| panic!("{text}\n{:#?}", parsed.diagnostics))
}

/// The example sections as the source prints them, blank lines and dashes included.
pub(super) const SOURCE: &str = "[CLUSTER]\n\n\
    Cluster 1 = 143.1.0.64 143.1.1.157\n\n\
    Cluster 2 = 143.1.0.63 143.1.0.65 143.1.0.66\n\n\
    [TUNNEL]\n\n\
    Tunnel1 = 143.1.0.24 \u{2013} 143.1.0.30 Cluster 1\n\n\
    Tunnel2 = 143.1.0.24 \u{2013} 143.1.0.30 143.1.1.160\n";

#[test]
fn the_examples_of_the_source() {
    let policy = good(SOURCE);
    let gateways: Vec<_> = policy
        .clusters
        .iter()
        .map(|(n, c)| (*n, c.gateways.clone()))
        .collect();
    assert_eq!(
        gateways,
        [
            (1, vec![ip("143.1.0.64"), ip("143.1.1.157")]),
            (
                2,
                vec![ip("143.1.0.63"), ip("143.1.0.65"), ip("143.1.0.66")]
            ),
        ]
    );
    let (start, end) = (ip("143.1.0.24"), ip("143.1.0.30"));
    let gateway = Via::Gateway(ip("143.1.1.160"));
    assert_eq!(
        policy.tunnels,
        [
            TunnelDef {
                number: 1,
                start,
                end,
                target: Target::Via(Via::Cluster(1))
            },
            TunnelDef {
                number: 2,
                start,
                end,
                target: Target::Via(gateway)
            },
        ]
    );
    assert_eq!(
        policy.general.heartbeat,
        HeartbeatMode::None,
        "none by default, as in the source"
    );
    // The two tunnels are alternatives in the source; as one file they overlap.
    let warnings: Vec<_> = parse(SOURCE)
        .diagnostics
        .iter()
        .map(|d| (d.span.line, d.problem.to_string()))
        .collect();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    assert_eq!(
        warnings[0],
        (
            5,
            "cluster 2 is not used by any tunnel or redirect".to_owned()
        )
    );
    assert!(
        warnings[1].1.starts_with("tunnel 2 overlaps tunnel 1: "),
        "{warnings:#?}"
    );
    assert!(
        warnings[2].1.starts_with("tunnel 2 is never used: "),
        "{warnings:#?}"
    );
}

#[test]
fn every_way_to_write_a_tunnel() {
    let first_last = |start, end| (ip(start), ip(end));
    let range = first_last("10.0.0.1", "10.0.0.3");
    let one = first_last("10.0.0.1", "10.0.0.1");
    let cluster = Target::Via(Via::Cluster(7));
    let gateway = Target::Via(Via::Gateway(ip("192.0.2.1")));
    for (line, (start, end), target) in [
        ("Tunnel1 = 10.0.0.1 - 10.0.0.3 Cluster 7", range, cluster),
        ("tunnel 1=10.0.0.1-10.0.0.3 cluster7", range, cluster),
        (
            "TUNNEL  1 = 10.0.0.1\u{2013}10.0.0.3 CLUSTER  7",
            range,
            cluster,
        ),
        (
            "Tunnel1 = 10.0.0.1\u{2014} 10.0.0.3 192.0.2.1",
            range,
            gateway,
        ),
        (
            "Tunnel1 = 10.0.0.1 \u{2212}10.0.0.3\t192.0.2.1",
            range,
            gateway,
        ),
        ("Tunnel01 = 10.0.0.1 - 10.0.0.3 auto", range, Target::Auto),
        ("Tunnel1 = 10.0.0.1 Cluster 07", one, cluster),
        ("Tunnel1 = 10.0.0.1 192.0.2.1 ; why", one, gateway),
        ("Tunnel1 = 10.0.0.1 AUTO# why", one, Target::Auto),
        (
            "Tunnel1 = 10.0.0.0/30 AUTO",
            first_last("10.0.0.0", "10.0.0.3"),
            Target::Auto,
        ),
        ("Tunnel1 = 10.0.0.1/32 AUTO", one, Target::Auto),
        (
            "Tunnel1 = 0.0.0.0/0 AUTO",
            first_last("0.0.0.0", "255.255.255.255"),
            Target::Auto,
        ),
        (
            "Tunnel1 = 2001:db8::1\u{2013}2001:db8::ff 192.0.2.1",
            first_last("2001:db8::1", "2001:db8::ff"),
            gateway,
        ),
        (
            "Tunnel1 = 2001:db8::/64 2001:db9::1",
            first_last("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"),
            Target::Via(Via::Gateway(ip("2001:db9::1"))),
        ),
    ] {
        let text = format!("[CLUSTER]\ncluster 7 = 192.0.2.7\n[TUNNEL]\n{line}\n");
        assert_eq!(
            good(&text).tunnels,
            [TunnelDef {
                number: 1,
                start,
                end,
                target
            }],
            "{line}"
        );
    }
}

#[test]
fn redirects() {
    let policy = good(
        "[TUNNEL]\nTunnel3 = 10.0.0.0/8 AUTO\n\
         Redirect Tunnel3 = 198.51.100.9 Cluster 2\n\
         redirect  tunnel 3=198.51.100.8 192.0.2.5\n\
         [CLUSTER]\nCluster2=192.0.2.1 2001:db8::1",
    );
    let server = |last| IpAddr::from([198, 51, 100, last]);
    assert_eq!(
        policy.redirects,
        [
            RedirectDef {
                tunnel: 3,
                server: server(8),
                via: Via::Gateway(ip("192.0.2.5"))
            },
            RedirectDef {
                tunnel: 3,
                server: server(9),
                via: Via::Cluster(2)
            },
        ]
    );
    assert_eq!(
        policy.clusters[&2].gateways,
        [ip("192.0.2.1"), ip("2001:db8::1")]
    );
}

#[test]
fn general_settings() {
    let general = good(
        "[general]\nHEARTBEAT = instant\nHeartbeatResponseTime = 0.25\n\
         heartbeatdefertime=50ms\nHeartbeatForm = Plain\nRandomOrder = NO\nStandby = 2\n",
    )
    .general;
    assert_eq!(general.heartbeat, HeartbeatMode::Instant);
    assert_eq!(general.response_time, Duration::from_millis(250));
    assert_eq!(general.defer_time, Duration::from_millis(50));
    assert_eq!(general.form, HeartbeatForm::Plain);
    assert!(!general.random_order);
    assert_eq!(general.standby, 2);
}

#[test]
fn defaults() {
    let general = good("").general;
    assert_eq!(general.heartbeat, HeartbeatMode::None);
    assert_eq!(general.form, HeartbeatForm::Keyed);
    assert_eq!(general.response_time, Duration::from_millis(500));
    assert_eq!(general.defer_time, Duration::from_secs(1));
    assert!(general.random_order);
    assert_eq!(general.standby, 0);
    assert_eq!(
        good("[GENERAL]\nHeartbeat = DEFERRED").general.heartbeat,
        HeartbeatMode::Deferred
    );
}

#[test]
fn ends_of_line_and_marks() {
    let windows = format!("\u{feff}{}", SOURCE.replace('\n', "\r\n"));
    assert_eq!(good(&windows), good(SOURCE));
    // The last line may lack its end, and no-break blanks come with copied text.
    assert_eq!(
        good(&SOURCE.trim_end().replace(' ', "\u{a0}")),
        good(SOURCE)
    );
}

#[test]
fn the_order_of_sections_and_entries_is_free() {
    let turned: Vec<&str> = SOURCE.lines().filter(|line| !line.is_empty()).collect();
    let text = [
        turned[3], turned[5], turned[4], turned[0], turned[2], turned[1],
    ]
    .join("\n");
    assert_eq!(good(&text), good(SOURCE));
    let again = "[TUNNEL]\nTunnel1 = 10.0.0.1 AUTO\n[TUNNEL]\nTunnel2 = 10.0.0.2 AUTO\n";
    assert_eq!(good(again).tunnels.len(), 2);
    assert!(matches!(
        parse(again).diagnostics[0].problem,
        Problem::Warning(_)
    ));
}

#[test]
fn the_example_of_the_manual_has_nothing_to_warn_about() {
    let manual = include_str!("../../../../docs/policy.md");
    let example = manual
        .split("```ini\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let parsed = parse(example.expect("docs/policy.md has an example"));
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(parsed.policy.map(|policy| policy.tunnels.len()), Some(4));
}
