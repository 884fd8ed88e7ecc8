//! Who a peer says it is.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::payload::Malformed;
use super::payload::reader::Reader;

/// An IKE identity (RFC 7296 section 3.5).
///
/// `FromStr` guesses: an IP address, an e-mail address (it contains `@`), `keyid:` followed by hex
/// digits, else a fully qualified domain name. `Display` is its inverse.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    Ipv4(Ipv4Addr),
    Ipv6(Ipv6Addr),
    Fqdn(String),
    Email(String),
    KeyId(Vec<u8>),
    /// A distinguished name in DER, not taken apart here.
    Dn(Vec<u8>),
    /// Any other type, or a name that is not printable ASCII.
    Other {
        kind: u8,
        data: Vec<u8>,
    },
}

/// A text that names no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("identity {0:?}: expected an IP address, e-mail address, keyid:<hex> or domain name")]
pub struct NotAnIdentity(pub String);

const IPV4: u8 = 1;
const FQDN: u8 = 2;
const EMAIL: u8 = 3;
const IPV6: u8 = 5;
const DN: u8 = 9;
const KEY_ID: u8 = 11;

impl Identity {
    /// Whether both name the same: domain names do not tell upper from lower case.
    pub fn matches(&self, other: &Identity) -> bool {
        match (self, other) {
            (Identity::Fqdn(a), Identity::Fqdn(b)) => a.eq_ignore_ascii_case(b),
            _ => self == other,
        }
    }

    pub(super) fn from_wire(kind: u8, data: &[u8]) -> Result<Identity, Malformed> {
        let mut r = Reader::new(data);
        Ok(match kind {
            IPV4 => {
                let address = r.array::<4>("IPv4 identity")?;
                r.finish("IPv4 identity")?;
                Identity::Ipv4(address.into())
            }
            IPV6 => {
                let address = r.array::<16>("IPv6 identity")?;
                r.finish("IPv6 identity")?;
                Identity::Ipv6(address.into())
            }
            // What is not printable goes on as bytes: no peer writes control characters into our
            // logs.
            FQDN | EMAIL => match std::str::from_utf8(data) {
                Ok(name) if is_name(name) && kind == FQDN => Identity::Fqdn(name.to_owned()),
                Ok(name) if is_name(name) => Identity::Email(name.to_owned()),
                _ => Identity::Other {
                    kind,
                    data: data.to_vec(),
                },
            },
            DN => Identity::Dn(data.to_vec()),
            KEY_ID => Identity::KeyId(data.to_vec()),
            _ => Identity::Other {
                kind,
                data: data.to_vec(),
            },
        })
    }

    pub(super) fn to_wire(&self) -> (u8, Cow<'_, [u8]>) {
        match self {
            Identity::Ipv4(a) => (IPV4, a.octets().to_vec().into()),
            Identity::Ipv6(a) => (IPV6, a.octets().to_vec().into()),
            Identity::Fqdn(name) => (FQDN, name.as_bytes().into()),
            Identity::Email(name) => (EMAIL, name.as_bytes().into()),
            Identity::KeyId(data) => (KEY_ID, data.into()),
            Identity::Dn(data) => (DN, data.into()),
            Identity::Other { kind, data } => (*kind, data.into()),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())
}

impl From<IpAddr> for Identity {
    fn from(address: IpAddr) -> Identity {
        match address {
            IpAddr::V4(a) => Identity::Ipv4(a),
            IpAddr::V6(a) => Identity::Ipv6(a),
        }
    }
}

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Identity, NotAnIdentity> {
        let wrong = || NotAnIdentity(text.to_owned());
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        if let Some(hex) = text.strip_prefix("keyid:") {
            let digits = hex
                .bytes()
                .map(|b| char::from(b).to_digit(16).map(|d| d as u8));
            let digits: Vec<u8> = digits.collect::<Option<_>>().ok_or_else(wrong)?;
            let pairs = digits.chunks_exact(2);
            if digits.is_empty() || !pairs.remainder().is_empty() {
                return Err(wrong());
            }
            return Ok(Identity::KeyId(pairs.map(|p| p[0] << 4 | p[1]).collect()));
        }
        match is_name(text) {
            true if text.contains('@') => Ok(Identity::Email(text.to_owned())),
            true => Ok(Identity::Fqdn(text.to_owned())),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, data: &[u8]| {
            data.iter().try_for_each(|b| write!(f, "{b:02x}"))
        };
        match self {
            Identity::Ipv4(a) => a.fmt(f),
            Identity::Ipv6(a) => a.fmt(f),
            Identity::Fqdn(name) | Identity::Email(name) => f.write_str(name),
            Identity::KeyId(data) => f.write_str("keyid:").and_then(|()| hex(f, data)),
            Identity::Dn(data) => f.write_str("dn:").and_then(|()| hex(f, data)),
            Identity::Other { kind, data } => write!(f, "type-{kind}:").and_then(|()| hex(f, data)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_guessed_and_shown_again() {
        for (text, identity) in [
            ("192.0.2.1", Identity::Ipv4([192, 0, 2, 1].into())),
            (
                "2001:db8::1",
                Identity::Ipv6("2001:db8::1".parse().unwrap()),
            ),
            ("gw-a.example", Identity::Fqdn("gw-a.example".into())),
            (
                "anna@example.org",
                Identity::Email("anna@example.org".into()),
            ),
            ("keyid:00ff2a", Identity::KeyId(vec![0, 0xff, 0x2a])),
        ] {
            assert_eq!(text.parse(), Ok(identity.clone()));
            assert_eq!(identity.to_string(), text);
        }
        for text in [
            "",
            "two words",
            "keyid:",
            "keyid:abc",
            "keyid:zz",
            "keyid:€",
        ] {
            assert_eq!(text.parse::<Identity>(), Err(NotAnIdentity(text.into())));
        }
    }

    #[test]
    fn names_from_the_wire_hold_no_control_characters() {
        let identity = Identity::from_wire(FQDN, b"gw\n\x1b[2J").unwrap();
        assert_eq!(identity.to_string(), "type-2:67770a1b5b324a");
        assert_eq!(identity.to_wire(), (FQDN, b"gw\n\x1b[2J"[..].into()));
    }

    #[test]
    fn addresses_of_the_wrong_length_are_refused() {
        assert!(Identity::from_wire(IPV4, &[1, 2, 3]).is_err());
        assert!(Identity::from_wire(IPV4, &[1, 2, 3, 4, 5]).is_err());
        assert!(Identity::from_wire(IPV6, &[0; 15]).is_err());
    }

    #[test]
    fn domain_names_match_in_any_case() {
        let name = |n: &str| Identity::Fqdn(n.into());
        assert!(name("GW.example").matches(&name("gw.EXAMPLE")));
        assert!(!name("gw.example").matches(&Identity::Email("gw.example".into())));
    }
}
