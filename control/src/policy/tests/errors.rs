//! Each error with its place and its words, and that none hides another.

use crate::policy::{Severity, parse};

/// Asserts that `text` gives exactly these errors: (line, column, length, message).
pub(super) fn assert_errors(text: &str, expected: &[(u32, u32, u32, &str)]) {
    let parsed = parse(text);
    assert_eq!(parsed.policy, None, "{text}");
    let errors: Vec<_> = parsed
        .diagnostics
        .iter()
        .map(|d| {
            assert_eq!(d.severity(), Severity::Error, "{d}");
            (
                d.span.line,
                d.span.column,
                d.span.length,
                d.problem.to_string(),
            )
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(l, c, n, text)| (*l, *c, *n, (*text).to_owned()))
        .collect();
    assert_eq!(errors, expected, "{text}");
}

/// The only hint that `text` gives.
pub(super) fn hint(text: &str) -> String {
    let hints: Vec<_> = parse(text)
        .diagnostics
        .into_iter()
        .filter_map(|d| d.hint)
        .collect();
    assert_eq!(hints.len(), 1, "{text}: {hints:?}");
    hints.concat()
}

#[test]
fn sections() {
    assert_errors(
        "Heartbeat = NONE\n[CLUSTERS]\nCluster 1 = 10.0.0.1\n[MAIN]\nany = thing\n[TUNNEL\n[]\n[TUNNEL] x",
        &[
            (
                1,
                1,
                16,
                "found `Heartbeat = NONE` before any section, expected [GENERAL], [CLUSTER] or [TUNNEL] first",
            ),
            (
                2,
                1,
                10,
                "unknown section: found `[CLUSTERS]`, expected [GENERAL], [CLUSTER] or [TUNNEL]",
            ),
            (
                4,
                1,
                6,
                "unknown section: found `[MAIN]`, expected [GENERAL], [CLUSTER] or [TUNNEL]",
            ),
            (
                6,
                1,
                7,
                "found `[TUNNEL`, expected a section alone on its line: [GENERAL], [CLUSTER] or [TUNNEL]",
            ),
            (
                7,
                1,
                2,
                "unknown section: found `[]`, expected [GENERAL], [CLUSTER] or [TUNNEL]",
            ),
            (
                8,
                1,
                10,
                "found `[TUNNEL] x`, expected a section alone on its line: [GENERAL], [CLUSTER] or [TUNNEL]",
            ),
        ],
    );
    assert_eq!(hint("[CLUSTERS]\n"), "did you mean `[CLUSTER]`?");
}

#[test]
fn keys() {
    assert_errors(
        "[GENERAL]\nHartbeat = NONE\n  Colour = red\nHeartbeat2 = NONE\nCluster 1 = 10.0.0.1\nStandby\n",
        &[
            (
                2,
                1,
                8,
                "unknown key: found `Hartbeat`, expected `Heartbeat`, `HeartbeatResponseTime`, \
                 `HeartbeatDeferTime`, `HeartbeatForm`, `RandomOrder` or `Standby`",
            ),
            (
                3,
                3,
                6,
                "unknown key: found `Colour`, expected `Heartbeat`, `HeartbeatResponseTime`, \
                 `HeartbeatDeferTime`, `HeartbeatForm`, `RandomOrder` or `Standby`",
            ),
            (
                4,
                1,
                10,
                "unknown key: found `Heartbeat2`, expected `Heartbeat`, `HeartbeatResponseTime`, \
                 `HeartbeatDeferTime`, `HeartbeatForm`, `RandomOrder` or `Standby`",
            ),
            (
                4,
                1,
                10,
                "duplicate: found Heartbeat again, expected it once (first on line 2)",
            ),
            (
                5,
                1,
                9,
                "misplaced key: found Cluster in [GENERAL], expected it in [CLUSTER]",
            ),
            (
                6,
                8,
                1,
                "no equals sign: found `Standby`, expected `key = value`",
            ),
        ],
    );
    assert_eq!(
        hint("[GENERAL]\nHeartBeatRespnseTime = 1\n"),
        "did you mean `HeartbeatResponseTime`?"
    );
    // A misspelt entry is still an entry: the reference to it is no second error.
    let text = "[CLUSTER]\nClutser 1 = 10.0.0.1\n[TUNNEL]\nTunnel1 = 10.1.0.1 Cluster 1\n";
    assert_errors(
        text,
        &[(
            2,
            1,
            9,
            "unknown key: found `Clutser 1`, expected `Cluster <number>`",
        )],
    );
    assert_eq!(hint(text), "did you mean `Cluster`?");
}

#[test]
fn numbers() {
    assert_errors(
        "[CLUSTER]\nCluster = 10.0.0.1\nCluster -1 = 10.0.0.1\nCluster 2147483648 = 10.0.0.1\n\
         [TUNNEL]\nTunnel 1x = 10.0.0.1 AUTO\nTunnel2 = 10.0.0.1 Cluster\nTunnel3 = 10.0.0.1 Cluster x\n",
        &[
            (
                2,
                8,
                1,
                "found `=` after Cluster, expected a number from 0 to 2147483647",
            ),
            (
                3,
                9,
                2,
                "found `-1` after Cluster, expected a number from 0 to 2147483647",
            ),
            (
                4,
                9,
                10,
                "found `2147483648` after Cluster, expected a number from 0 to 2147483647",
            ),
            (
                6,
                8,
                2,
                "found `1x` after Tunnel, expected a number from 0 to 2147483647",
            ),
            (
                7,
                27,
                1,
                "found the end of the line after `Cluster`, expected a number from 0 to 2147483647",
            ),
            (
                8,
                28,
                1,
                "found `x` after `Cluster`, expected a number from 0 to 2147483647",
            ),
        ],
    );
}

#[test]
fn duplicates() {
    assert_errors(
        "[GENERAL]\nStandby = 1\nSTANDBY = 2\n[CLUSTER]\nCluster 1 = 10.0.0.1 10.0.0.2 10.0.0.1\n\
         cluster1 = 10.0.0.3\n[TUNNEL]\nTunnel1 = 10.1.0.1 AUTO\nTunnel 1 = 10.1.0.2 AUTO\n\
         Redirect Tunnel1 = 10.9.0.1 Cluster 1\nRedirect Tunnel1 = 10.9.0.1 10.0.0.1\n",
        &[
            (
                3,
                1,
                7,
                "duplicate: found Standby again, expected it once (first on line 2)",
            ),
            (
                5,
                31,
                8,
                "duplicate gateway: found 10.0.0.1 again in cluster 1, expected it once",
            ),
            (
                6,
                1,
                8,
                "duplicate: found Cluster 1 again, expected it once (first on line 5)",
            ),
            (
                9,
                1,
                8,
                "duplicate: found Tunnel 1 again, expected it once (first on line 8)",
            ),
            (
                11,
                1,
                16,
                "duplicate: found Redirect Tunnel 1 of 10.9.0.1 again, expected it once (first on line 10)",
            ),
        ],
    );
}

#[test]
fn gateways() {
    assert_errors(
        "[CLUSTER]\nCluster 1 = 0.0.0.0 :: 255.255.255.255 224.0.0.5 10.0.0.1, gw.example\n\
         Cluster 2 =\nCluster 3 = 10.0.0.1 - 10.0.0.3\n",
        &[
            (
                2,
                13,
                7,
                "not a gateway: found the unspecified address 0.0.0.0, expected a unicast address",
            ),
            (
                2,
                21,
                2,
                "not a gateway: found the unspecified address ::, expected a unicast address",
            ),
            (
                2,
                24,
                15,
                "not a gateway: found the broadcast address 255.255.255.255, expected a unicast address",
            ),
            (
                2,
                40,
                9,
                "not a gateway: found the multicast address 224.0.0.5, expected a unicast address",
            ),
            (
                2,
                50,
                9,
                "bad address: found `10.0.0.1,`, expected the IP address of a gateway",
            ),
            (
                2,
                60,
                10,
                "bad address: found `gw.example`, expected the IP address of a gateway",
            ),
            (
                3,
                12,
                1,
                "no value: found nothing after `Cluster 2 =`, expected gateway addresses with blanks between",
            ),
            (
                4,
                22,
                1,
                "bad address: found `-`, expected the IP address of a gateway",
            ),
        ],
    );
}

#[test]
fn settings() {
    assert_errors(
        "[GENERAL]\nHeartbeat = INSTNAT\nHeartbeatResponseTime = fast\nHeartbeatDeferTime = 200us\n\
         RandomOrder = on\nStandby = -1\nHeartbeatForm =\n",
        &[
            (
                2,
                13,
                7,
                "bad value of Heartbeat: found `INSTNAT`, expected NONE, DEFERRED or INSTANT",
            ),
            (
                3,
                25,
                4,
                "bad value of HeartbeatResponseTime: found `fast`, expected seconds, as in `1.5`, \
                 or a number with a unit, as in `50ms`",
            ),
            (
                4,
                22,
                5,
                "HeartbeatDeferTime out of range: found `200us`, expected 1ms to 1h (3600s)",
            ),
            (
                5,
                15,
                2,
                "bad value of RandomOrder: found `on`, expected yes or no",
            ),
            (
                6,
                11,
                2,
                "bad value of Standby: found `-1`, expected a number from 0 to 4294967295",
            ),
            (
                7,
                16,
                1,
                "no value: found nothing after `HeartbeatForm =`, expected KEYED or PLAIN",
            ),
        ],
    );
    assert_eq!(
        hint("[GENERAL]\nHeartbeat = INSTNAT"),
        "did you mean `INSTANT`?"
    );
    let decimal = hint("[GENERAL]\nHeartbeatDeferTime = 0,5");
    assert_eq!(decimal, "fractions are written with a point: `0.5`");
}
