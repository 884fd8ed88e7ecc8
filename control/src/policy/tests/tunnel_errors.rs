//! Errors of tunnels and redirects: their ranges and their targets.

use super::errors::{assert_errors, hint};

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
