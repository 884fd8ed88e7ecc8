//! Each error with its place and its words, and that none hides another.

use crate::policy::{Severity, parse};

/// Asserts that `text` gives exactly these errors: (line, column, length, message).
fn assert_errors(text: &str, expected: &[(u32, u32, u32, &str)]) {
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
fn hint(text: &str) -> String {
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
fn ranges() {
    assert_errors(
        "[TUNNEL]\nTunnel1 = 10.0.0.9 \u{2013} 10.0.0.1 AUTO\nTunnel2 = 10.0.0.1-2001:db8::1 AUTO\n\
         Tunnel3 = 10.0.0.256 - 10.0.1.1 AUTO\nTunnel4 = 10.0.0.1 -\nTunnel5 = 10.0.0.5/24 AUTO\n\
         Tunnel6 = 10.0.0.0/33 AUTO\nTunnel7 = 224.0.0.1 AUTO\nTunnel8 = ::ffff:10.0.0.1 AUTO\n\
         Tunnel9 = 10.0.0.0/24 - 10.0.1.0 AUTO\nTunnel10 = 10.0.0.0/ AUTO\nTunnel11 =\n",
        &[
            (
                2,
                11,
                19,
                "reversed range: found the end 10.0.0.1 below the start 10.0.0.9, expected it above",
            ),
            (
                3,
                11,
                20,
                "mixed families: found 10.0.0.1 and 2001:db8::1, expected both IPv4 or both IPv6",
            ),
            (
                4,
                11,
                10,
                "bad address: found `10.0.0.256`, expected the first address of a range",
            ),
            (
                5,
                21,
                1,
                "found the end of the line, expected the last address of the range after the dash",
            ),
            (
                6,
                11,
                11,
                "bad prefix: found `10.0.0.5/24` with host bits set, expected 10.0.0.0/24",
            ),
            (
                7,
                11,
                11,
                "bad prefix: found `10.0.0.0/33`, expected a length from 0 to 32 after the slash",
            ),
            (
                8,
                11,
                9,
                "not a target: found the multicast address 224.0.0.1, expected unicast addresses",
            ),
            (
                9,
                11,
                15,
                "not a target: found the IPv4-mapped address ::ffff:10.0.0.1, expected unicast addresses",
            ),
            (
                10,
                11,
                11,
                "bad address: found `10.0.0.0/24`, expected the first address of a range",
            ),
            (
                11,
                12,
                9,
                "bad prefix: found `10.0.0.0/`, expected a length from 0 to 32 after the slash",
            ),
            (
                12,
                11,
                1,
                "no value: found nothing after `Tunnel11 =`, expected an address or range and its target",
            ),
        ],
    );
}

#[test]
fn targets() {
    assert_errors(
        "[CLUSTER]\nCluster 4 = 10.0.0.1\n[TUNNEL]\nTunnel1 = 10.1.0.1 - 10.1.0.3\n\
         Tunnel2 = 10.1.0.1 10.1.0.3 Cluster 4\nTunnel3 = 10.1.0.1 Cluster 5\n\
         Tunnel4 = 10.1.0.1 Clutser 4\nTunnel5 = 10.1.0.1 AUTO now\nTunnel6 = 10.1.0.1 ff02::1\n\
         Redirect Tunnel6 = 10.9.0.1 AUTO\nRedirect Tunnel9 = 0.0.0.0 Cluster 4\n\
         Redirect Tunnel8 = 10.9.0.1 Cluster 4\nTunnel7 = 10.1.0.300 Cluster 6\n",
        &[
            (
                4,
                30,
                1,
                "found the end of the line, expected a gateway address, `Cluster <number>` or `AUTO`",
            ),
            (
                5,
                29,
                7,
                "found `Cluster`, expected the end of the line after the target",
            ),
            (
                6,
                20,
                9,
                "undefined cluster: found Cluster 5, expected Cluster 4",
            ),
            (
                7,
                20,
                7,
                "bad address: found `Clutser`, expected a gateway address, `Cluster <number>` or `AUTO`",
            ),
            (
                8,
                25,
                3,
                "found `now`, expected the end of the line after the target",
            ),
            (
                9,
                20,
                7,
                "not a gateway: found the multicast address ff02::1, expected a unicast address",
            ),
            (
                10,
                29,
                4,
                "found `AUTO`, expected a gateway address or `Cluster <number>`",
            ),
            (
                11,
                20,
                7,
                "not a server: found the unspecified address 0.0.0.0, expected a unicast address",
            ),
            (
                12,
                1,
                16,
                "undefined tunnel: found Redirect Tunnel 8, expected an entry Tunnel 8",
            ),
            (
                13,
                11,
                10,
                "bad address: found `10.1.0.300`, expected an IP address, a range `<start> - <end>` or a prefix",
            ),
            (
                13,
                22,
                9,
                "undefined cluster: found Cluster 6, expected Cluster 4",
            ),
        ],
    );
    let tunnel = |value: &str| hint(&format!("[TUNNEL]\nTunnel1 = {value}\n"));
    assert_eq!(tunnel("10.1.0.1 AUTOO"), "did you mean `AUTO`?");
    assert_eq!(tunnel("10.1.0.1 Clutser 4"), "did you mean `Cluster`?");
    assert_eq!(
        tunnel("10.1.0.1 10.1.0.3 AUTO"),
        "a range is written with a dash between its ends"
    );
    assert_eq!(
        tunnel("10.1.0.0/24 - 10.1.0.3 AUTO"),
        "a prefix is a range already: it takes no dash"
    );
    assert_eq!(
        tunnel("10.1.0.1 ::ffff:10.2.0.1"),
        "write it as IPv4: `10.2.0.1`"
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
