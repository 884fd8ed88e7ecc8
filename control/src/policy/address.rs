//! Reading addresses and judging what they can be used for.

use std::net::{IpAddr, Ipv4Addr};

/// Why a text is most likely no address; None if there is nothing helpful to say.
pub(super) fn hint(text: &str) -> Option<String> {
    let octets: Vec<&str> = text.split('.').collect();
    let numeric = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if text.contains(',') {
        return Some("addresses are parted by blanks, not commas".to_owned());
    }
    if text.contains('%') {
        return Some("addresses with an interface (`%eth0`) are not supported".to_owned());
    }
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return Some(format!(
            "write the address without brackets: `{}`",
            inner.escape_debug()
        ));
    }
    if octets.len() > 1 && octets.iter().all(numeric) {
        if octets.len() != 4 {
            return Some(format!(
                "an IPv4 address has 4 numbers, this has {}",
                octets.len()
            ));
        }
        if octets
            .iter()
            .any(|part| part.len() > 1 && part.starts_with('0'))
        {
            return Some("write the numbers without leading zeros".to_owned());
        }
        return Some("each number of an IPv4 address is at most 255".to_owned());
    }
    if let Some((address, port)) = text.rsplit_once(':')
        && address.parse::<Ipv4Addr>().is_ok()
        && numeric(&port)
    {
        return Some(format!("write the address without a port: `{address}`"));
    }
    let name_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.contains('.') && text.chars().all(name_like) {
        return Some("host names are not looked up: write the IP address".to_owned());
    }
    None
}

/// The kind of an address that can not belong to one host outside, or None if it can.
pub(super) fn not_unicast(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("unspecified"),
        _ if address.is_multicast() => Some("multicast"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("broadcast"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("IPv4-mapped"),
        _ => None,
    }
}

/// The same for a range of targets: single addresses as above, and ranges of multicast only.
/// A range may run across such addresses, as `0.0.0.0/0` does.
pub(super) fn not_targets(start: IpAddr, end: IpAddr) -> Option<(IpAddr, &'static str)> {
    if start == end {
        return not_unicast(start).map(|kind| (start, kind));
    }
    if start.is_multicast() && end.is_multicast() {
        return Some((start, "multicast"));
    }
    [start, end]
        .into_iter()
        .find(is_mapped)
        .map(|address| (address, "IPv4-mapped"))
}

fn is_mapped(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// How to write an address that was refused by the functions above.
pub(super) fn better(address: IpAddr) -> Option<String> {
    is_mapped(&address).then(|| format!("write it as IPv4: `{}`", address.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_slip() {
        for (text, word) in [
            ("10.0.0.1,10.0.0.2", "commas"),
            ("fe80::1%eth0", "interface"),
            ("[2001:db8::1]", "without brackets: `2001:db8::1`"),
            ("10.0.0", "this has 3"),
            ("10.0.0.01", "leading zeros"),
            ("10.0.0.256", "at most 255"),
            ("10.0.0.1:500", "without a port: `10.0.0.1`"),
            ("gw.example", "host names"),
        ] {
            assert!(text.parse::<IpAddr>().is_err(), "{text}");
            let said = hint(text).unwrap_or_default();
            assert!(said.contains(word), "{text}: {said}");
        }
        assert_eq!(hint("zebra"), None);
        assert_eq!(hint(""), None);
    }

    #[test]
    fn kinds_of_addresses() {
        let kind = |text: &str| not_unicast(text.parse().unwrap());
        assert_eq!(kind("0.0.0.0"), Some("unspecified"));
        assert_eq!(kind("::"), Some("unspecified"));
        assert_eq!(kind("224.0.0.1"), Some("multicast"));
        assert_eq!(kind("ff02::1"), Some("multicast"));
        assert_eq!(kind("255.255.255.255"), Some("broadcast"));
        assert_eq!(kind("::ffff:10.0.0.1"), Some("IPv4-mapped"));
        assert_eq!(kind("143.1.0.64"), None);
        assert_eq!(kind("2001:db8::1"), None);
        let range = |a: &str, b: &str| {
            not_targets(a.parse().unwrap(), b.parse().unwrap()).map(|(_, kind)| kind)
        };
        assert_eq!(range("0.0.0.0", "255.255.255.255"), None);
        assert_eq!(range("::", "ffff::"), None);
        assert_eq!(range("224.0.0.0", "239.255.255.255"), Some("multicast"));
        assert_eq!(range("0.0.0.0", "0.0.0.0"), Some("unspecified"));
        assert_eq!(
            range("::ffff:10.0.0.1", "::ffff:10.0.0.9"),
            Some("IPv4-mapped")
        );
    }
}
