//! What is allowed but doubtful: each warning where it is due, and none where it is not.

use crate::policy::{Severity, parse};

/// Asserts that `text` is a policy with exactly these warnings: (line, column, start of message).
fn assert_warnings(text: &str, expected: &[(u32, u32, &str)]) {
    let parsed = parse(text);
    assert!(parsed.policy.is_some(), "{text}\n{:#?}", parsed.diagnostics);
    let seen: Vec<_> = parsed
        .diagnostics
        .iter()
        .map(|d| {
            assert_eq!(d.severity(), Severity::Warning);
            (d.span.line, d.span.column, d.problem.to_string())
        })
        .collect();
    let fits = seen.len() == expected.len()
        && seen
            .iter()
            .zip(expected)
            .all(|((line, column, said), (l, c, start))| {
                (line, column) == (l, c) && said.starts_with(start)
            });
    assert!(fits, "{text}\nexpected {expected:#?}\nfound {seen:#?}");
}

#[test]
fn a_policy_in_order_has_none() {
    assert_warnings(
        "[GENERAL]\nHeartbeat = DEFERRED\nHeartbeatDeferTime = 5ms\nHeartbeatResponseTime = 5ms\n\
         Standby = 1\n[CLUSTER]\nCluster 1 = 192.0.2.1 192.0.2.2\n[TUNNEL]\n\
         Tunnel1 = 10.0.0.0/24 Cluster 1\nTunnel2 = 10.0.1.0/24 AUTO\n\
         Redirect Tunnel2 = 198.51.100.1 192.0.2.3\nTunnel3 = 2001:db8::/64 Cluster 1\n",
        &[],
    );
}

#[test]
fn overlaps_name_both_tunnels() {
    assert_warnings(
        "[TUNNEL]\nTunnel9 = 10.0.0.0 - 10.0.0.9 192.0.2.9\nTunnel2 = 10.0.0.5 - 10.0.0.20 192.0.2.2\n\
         Tunnel4 = 10.0.0.6 - 10.0.0.7 192.0.2.4\nTunnel5 = ::a00:0/120 192.0.2.2\n",
        &[
            (2, 11, "tunnel 9 overlaps tunnel 2: "),
            (4, 11, "tunnel 4 overlaps tunnel 2: "),
            (4, 11, "tunnel 4 is never used: "),
        ],
    );
    // Ranges that touch do not overlap.
    assert_warnings(
        "[TUNNEL]\nTunnel1 = 10.0.0.0 - 10.0.0.9 192.0.2.9\nTunnel2 = 10.0.0.10 192.0.2.2\n",
        &[],
    );
}

#[test]
fn many_overlaps_are_counted() {
    let mut text = "[TUNNEL]\n".to_owned();
    for number in 0..12 {
        text += &format!("Tunnel{number} = 10.0.0.{number} 192.0.2.1\n");
    }
    text += "Tunnel99 = 10.0.0.0/8 192.0.2.1\n";
    let parsed = parse(&text);
    assert_eq!(parsed.diagnostics.len(), 9);
    let last = parsed
        .diagnostics
        .last()
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(last.contains("tunnel 99 overlaps 4 more tunnels"), "{last}");
}

#[test]
fn clusters() {
    assert_warnings(
        "[GENERAL]\nHeartbeat = INSTANT\nStandby = 2\n[CLUSTER]\nCluster 1 = 192.0.2.1 2001:db8::1\n\
         Cluster 2 = 192.0.2.3 192.0.2.4 192.0.2.5\n[TUNNEL]\nTunnel1 = 10.0.0.1 Cluster 1\n",
        &[
            (
                3,
                1,
                "Standby = 2, but the largest cluster in use has 2 gateways: at most 1 ",
            ),
            (5, 1, "cluster 1 has IPv4 and IPv6 gateways"),
            (6, 1, "cluster 2 is not used"),
        ],
    );
    // A redirect is a use.
    assert_warnings(
        "[CLUSTER]\nCluster 1 = 192.0.2.1\n[TUNNEL]\nTunnel1 = 10.0.0.1 AUTO\n\
         Redirect Tunnel1 = 192.0.2.9 Cluster 1\n",
        &[],
    );
}

#[test]
fn gateways_inside_tunnels() {
    assert_warnings(
        "[CLUSTER]\nCluster 1 = 10.0.0.1 192.0.2.1\nCluster 2 = 10.0.0.2 127.0.0.1\n[TUNNEL]\n\
         Tunnel1 = 10.0.0.0/24 Cluster 1\nTunnel2 = 10.1.0.0/24 Cluster 2\n\
         Tunnel3 = 10.2.0.0/24 10.2.0.1\nTunnel4 = 10.3.0.0/24 AUTO\n\
         Redirect Tunnel4 = 192.0.2.9 10.3.0.1\n",
        &[
            (
                2,
                13,
                "gateway 10.0.0.1 lies inside the range of tunnel 1 that it serves",
            ),
            (
                3,
                13,
                "gateway 10.0.0.2 lies inside the range of tunnel 1, which leads elsewhere",
            ),
            (3, 22, "gateway 127.0.0.1 is a loopback address"),
            (
                7,
                23,
                "gateway 10.2.0.1 lies inside the range of tunnel 3 that it serves",
            ),
            (
                9,
                1,
                "gateway 10.3.0.1 lies inside the range of tunnel 4 that it serves",
            ),
        ],
    );
}

#[test]
fn entries_without_effect() {
    assert_warnings(
        "[TUNNEL]\nTunnel1 = 10.0.0.1 192.0.2.1\nRedirect Tunnel1 = 192.0.2.9 192.0.2.2\n",
        &[(3, 1, "the redirect of tunnel 1 has no effect")],
    );
    assert_warnings("", &[(1, 1, "no tunnel is defined")]);
    assert_warnings(
        "[GENERAL]\nHeartbeatDeferTime = 1\nHeartbeatForm = PLAIN\n[TUNNEL]\n\
         Tunnel1 = 10.0.0.1 192.0.2.1\n[GENERAL]\nHeartbeatResponseTime = 1\n",
        &[
            (2, 1, "HeartbeatDeferTime has no effect"),
            (3, 1, "HeartbeatForm has no effect"),
            (6, 1, "section [GENERAL] appears again"),
            (7, 1, "HeartbeatResponseTime has no effect"),
        ],
    );
}

#[test]
fn timers() {
    let timers = |defer: &str, response: &str| {
        format!(
            "[GENERAL]\nHeartbeat = INSTANT\nHeartbeatDeferTime = {defer}\n\
             HeartbeatResponseTime = {response}\n[TUNNEL]\nTunnel1 = 10.0.0.1 192.0.2.1\n"
        )
    };
    assert_warnings(&timers("5ms", "5ms"), &[]);
    assert_warnings(&timers("5ms", "50ms"), &[]);
    assert_warnings(
        &timers("5ms", "51ms"),
        &[(
            4,
            1,
            "HeartbeatResponseTime 51ms is more than 10 times HeartbeatDeferTime 5ms",
        )],
    );
    assert_warnings(
        &timers("5ms", "4ms"),
        &[(4, 1, "HeartbeatResponseTime 4ms is below 5ms")],
    );
    assert_warnings(&timers("40s", "10s"), &[]);
    assert_warnings(
        &timers("40s", "11s"),
        &[(4, 1, "a failure is noticed only after 62s")],
    );
}
