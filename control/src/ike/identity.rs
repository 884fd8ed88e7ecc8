//! Who a peer says it is.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::crypto::sha256;
use super::payload::Malformed;
use super::payload::reader::Reader;
use super::x509::{dn_from_text, dn_key, dn_matches, dn_to_text};

/// An IKE identity (RFC 7296 section 3.5).
///
/// `FromStr` guesses: an IP address, an e-mail address (it contains `@`), `keyid:` followed by hex
/// digits, a distinguished name (`CN=gw,O=Example`, RFC 4514), else a fully qualified domain name.
/// `Display` is its inverse up to 128 characters; of a
/// longer one it shows the beginning, the length, and a hash that tells it from all others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    Ipv4(Ipv4Addr),
    Ipv6(Ipv6Addr),
    Fqdn(String),
    Email(String),
    KeyId(Vec<u8>),
    /// A distinguished name in DER.
    Dn(Vec<u8>),
    /// Any other type, or a name that is not printable ASCII.
    Other {
        kind: u8,
        data: Vec<u8>,
    },
}

/// A text that names no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "identity {0:?}: expected an IP address, e-mail address, keyid:<hex>, distinguished name or domain name"
)]
pub struct NotAnIdentity(pub String);

/// A longer identity from the wire is refused: a stranger chooses it, and we keep it and show it.
/// Room for any domain name, e-mail address and usual distinguished name.
const LONGEST_IDENTITY: usize = 512;
/// So many characters are shown.
const LONGEST_SHOWN: usize = 128;

const IPV4: u8 = 1;
const FQDN: u8 = 2;
const EMAIL: u8 = 3;
const IPV6: u8 = 5;
const DN: u8 = 9;
const KEY_ID: u8 = 11;

impl Identity {
    /// Whether both name the same: domain names and the texts of distinguished names do not tell
    /// upper from lower case.
    pub fn matches(&self, other: &Identity) -> bool {
        match (self, other) {
            (Identity::Fqdn(a), Identity::Fqdn(b)) => a.eq_ignore_ascii_case(b),
            (Identity::Dn(a), Identity::Dn(b)) => dn_matches(a, b),
            _ => self == other,
        }
    }

    /// The same for all that [`matches`](Identity::matches) takes for one: to find them by a table.
    pub fn key(&self) -> Identity {
        match self {
            Identity::Fqdn(name) => Identity::Fqdn(name.to_ascii_lowercase()),
            Identity::Dn(name) => Identity::Dn(dn_key(name)),
            other => other.clone(),
        }
    }

    pub(super) fn from_wire(kind: u8, data: &[u8]) -> Result<Identity, Malformed> {
        if data.len() > LONGEST_IDENTITY {
            return Err(Malformed::TooMany {
                what: "bytes of identity",
                limit: LONGEST_IDENTITY,
            });
        }
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
        if text.contains('=')
            && let Some(name) = dn_from_text(text)
        {
            return Ok(Identity::Dn(name));
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
        // No more is made of a long one than can be shown.
        let hex = |data: &[u8]| -> String {
            let shown = data.iter().take(LONGEST_SHOWN);
            shown.map(|b| format!("{b:02x}")).collect()
        };
        let text = match self {
            Identity::Ipv4(a) => return a.fmt(f),
            Identity::Ipv6(a) => return a.fmt(f),
            Identity::Fqdn(name) | Identity::Email(name) => printable(name),
            Identity::KeyId(data) => format!("keyid:{}", hex(data)),
            Identity::Dn(data) => match dn_to_text(data) {
                Some(name) => printable(&name),
                None => format!("dn:{}", hex(data)),
            },
            Identity::Other { kind, data } => format!("type-{kind}:{}", hex(data)),
        };
        if text.chars().count() <= LONGEST_SHOWN {
            return f.write_str(&text);
        }
        // Owners use the text as a name: two identities that begin alike must not become one.
        let (kind, data) = self.to_wire();
        let digest = sha256(&[&[kind], &data]);
        let digest: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        let tail = format!("…({} bytes, #{digest})", data.len());
        let room = LONGEST_SHOWN.saturating_sub(tail.chars().count());
        let head: String = text.chars().take(room).collect();
        write!(f, "{head}{tail}")
    }
}

/// A name without what would move a terminal's cursor or break a line of a log.
pub(super) fn printable(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars().take(LONGEST_SHOWN + 1) {
        match c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' {
            true => text.push(c),
            false => text.extend(c.escape_default()),
        }
    }
    text
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
            (
                "CN=gw a,O=X",
                Identity::Dn(b"\x30\x1b\x31\x0a\x30\x08\x06\x03\x55\x04\x0a\x0c\x01X\x31\x0d\x30\x0b\x06\x03\x55\x04\x03\x0c\x04gw a".to_vec()),
            ),
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
    fn what_is_shown_is_short_and_printable() {
        let long = [
            Identity::KeyId(vec![0xab; 65_000]),
            Identity::Dn(vec![0xab; 512]),
            Identity::Other {
                kind: 200,
                data: vec![0xab; 512],
            },
            Identity::Fqdn("x".repeat(512)),
            Identity::Email("\n".repeat(512)),
        ];
        for identity in &long {
            let shown = identity.to_string();
            assert!(shown.chars().count() <= LONGEST_SHOWN, "{shown}");
            assert!(!shown.chars().any(char::is_control), "{shown}");
        }
        let control = Identity::Fqdn("gw\n\u{1b}[2J\u{202e}".into());
        assert_eq!(control.to_string(), r"gw\n\u{1b}[2J\u{202e}");
        let longest = Identity::Fqdn("x".repeat(LONGEST_SHOWN));
        assert_eq!(longest.to_string(), "x".repeat(LONGEST_SHOWN));
    }

    #[test]
    fn long_identities_that_begin_alike_are_shown_apart() {
        let name = |last: &str| Identity::Fqdn("x".repeat(300) + last).to_string();
        assert_ne!(name("a"), name("b"));
        assert!(name("a").contains("301 bytes"), "{}", name("a"));
    }

    #[test]
    fn more_than_512_bytes_are_refused() {
        for kind in [FQDN, EMAIL, DN, KEY_ID, 200] {
            assert!(Identity::from_wire(kind, &[b'x'; 512]).is_ok());
            assert!(Identity::from_wire(kind, &[b'x'; 513]).is_err());
        }
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
        assert_eq!(name("GW.example").key(), name("gw.EXAMPLE").key());
        assert_ne!(
            name("gw.example").key(),
            Identity::Email("gw.example".into()).key()
        );
        assert!(!name("gw.example").matches(&Identity::Email("gw.example".into())));
    }
}
