//! What routers say about packets of ours that were too long.

use evergate::dataplane::net::icmp::{MAX_V6, Problem, build};
use evergate::dataplane::net::quote::{read_v4, read_v6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes as a message; and as a packet that such a message quotes.
pub fn icmp_quote(data: &[u8]) {
    for said in [read_v4(data), read_v6(data)].into_iter().flatten() {
        assert!(said.esp.is_some() || said.ports.is_some());
        assert_eq!(said.source.is_ipv4(), said.destination.is_ipv4());
    }
    let mut out = [0; MAX_V6];
    for router in [
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let Ok(length) = build(Problem::TooBig { mtu: 600 }, router, data, &mut out) else {
            continue;
        };
        let said = match router {
            IpAddr::V4(_) => read_v4(&out[..length]),
            IpAddr::V6(_) => read_v6(&out[40..length]),
        };
        if let Some(said) = said {
            assert_eq!(said.mtu, 600);
            assert!(data.len() > 600, "it would have fitted");
        }
    }
}
