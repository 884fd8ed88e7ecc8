//! A client's inner addresses: which it takes, which it keeps, and which one new connections get.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of each family that are kept, and that a gateway may assign at once. Older ones only
/// serve connections that began with them.
pub(super) const KEPT: usize = 8;

/// The addresses on the TUN device, the one assigned last at the end.
#[derive(Debug, Default)]
pub(super) struct Inner {
    addresses: Vec<IpAddr>,
}

impl Inner {
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// The address that was assigned last.
    pub(super) fn newest(&self, v4: bool) -> Option<IpAddr> {
        self.source(None, v4)
    }

    /// The address for new connections by a session that owns `owned`: the newest that is its own.
    /// Packets from any other one would be dropped by its gateway.
    pub(super) fn source(&self, owned: Option<&[IpNet]>, v4: bool) -> Option<IpAddr> {
        let mut newest_first = self.addresses.iter().rev().copied();
        newest_first.find(|address| {
            address.is_ipv4() == v4
                && owned.is_none_or(|owned| owned.iter().any(|net| net.contains(address)))
        })
    }

    /// Notes that an address is on the device and was assigned just now.
    pub(super) fn took(&mut self, address: IpAddr) {
        self.dropped(address);
        self.addresses.push(address);
    }

    pub(super) fn dropped(&mut self, address: IpAddr) {
        self.addresses.retain(|known| *known != address);
    }

    /// Addresses that are too many: the oldest that no session owns, for a gateway that assigns
    /// ever new ones must not fill the device.
    pub(super) fn surplus(&self, owned: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
        let mut surplus = Vec::new();
        for v4 in [true, false] {
            let family = || self.addresses.iter().filter(move |a| a.is_ipv4() == v4);
            let too_many = family().count().saturating_sub(KEPT);
            surplus.extend(family().filter(|a| !owned(**a)).take(too_many));
        }
        surplus
    }
}

/// Whether a host can have the address inside a tunnel. `taken`: the outside addresses of this
/// node and of its gateways, which must go on to mean what they do.
pub(super) fn can_be_inner(address: IpAddr, taken: &[IpAddr]) -> bool {
    let unicast = match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            !v4.is_loopback() && !v4.is_link_local() && (1..224).contains(&first)
        }
        IpAddr::V6(v6) => {
            !v6.is_unspecified()
                && !v6.is_loopback()
                && !v6.is_multicast()
                && !v6.is_unicast_link_local()
                && v6.to_ipv4_mapped().is_none()
        }
    };
    unicast && !taken.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn inner(addresses: &[&str]) -> Inner {
        let mut inner = Inner::default();
        for address in addresses {
            inner.took(ip(address));
        }
        inner
    }

    #[test]
    fn only_addresses_of_hosts_are_taken() {
        let taken = [ip("192.0.2.9"), ip("192.0.2.1")];
        for address in [
            "10.99.0.7",
            "192.0.2.10",
            "100.64.0.1",
            "2001:db8::1",
            "fd00::1",
        ] {
            assert!(can_be_inner(ip(address), &taken), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.5",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.9",
            "192.0.2.1",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!can_be_inner(ip(address), &taken), "{address}");
        }
    }

    #[test]
    fn new_connections_get_the_newest_address_that_the_session_owns() {
        let inner = inner(&["10.1.0.1", "2001:db8::1", "10.2.0.1"]);
        let nets = |text: &str| vec![text.parse::<IpNet>().unwrap()];
        for (owned, v4, expected) in [
            (None, true, Some("10.2.0.1")),
            (None, false, Some("2001:db8::1")),
            (Some(nets("10.1.0.1/32")), true, Some("10.1.0.1")),
            (Some(nets("10.2.0.1/32")), true, Some("10.2.0.1")),
            (Some(nets("0.0.0.0/0")), true, Some("10.2.0.1")),
            (Some(nets("10.3.0.1/32")), true, None),
            (Some(nets("10.1.0.1/32")), false, None),
        ] {
            let source = inner.source(owned.as_deref(), v4);
            assert_eq!(source, expected.map(ip), "{owned:?}");
        }
    }

    #[test]
    fn an_address_that_comes_again_is_the_newest() {
        let mut inner = inner(&["10.1.0.1", "10.2.0.1"]);
        inner.took(ip("10.1.0.1"));
        assert_eq!(inner.newest(true), Some(ip("10.1.0.1")));
        assert_eq!(inner.addresses().len(), 2);
    }

    #[test]
    fn ever_new_addresses_do_not_fill_the_device() {
        let mut inner = Inner::default();
        for n in 1..=KEPT as u8 {
            inner.took(ip(&format!("10.0.0.{n}")));
        }
        assert!(inner.surplus(|_| false).is_empty());
        inner.took(ip("2001:db8::1"));
        inner.took(ip("10.0.0.100"));
        assert_eq!(inner.surplus(|_| false), [ip("10.0.0.1")]);
        let busy = |address| address == ip("10.0.0.1");
        assert_eq!(inner.surplus(busy), [ip("10.0.0.2")]);
    }
}
