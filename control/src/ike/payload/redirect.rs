//! Data of the notifications that send a peer to another gateway (RFC 5685 section 9).
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | type of the identity: 1 IPv4, 2 IPv6, 3 FQDN |
//! | 1 | its length |
//! | so many | the identity |
//! | the rest | the initiator's nonce, in an answer to IKE_SA_INIT only |

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Malformed;
use super::reader::Reader;

const IPV4: u8 = 1;
const IPV6: u8 = 2;
const FQDN: u8 = 3;

/// Where a peer is sent to, or was sent from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayIdentity {
    Address(IpAddr),
    /// Printable ASCII, 1 to 255 bytes. Whoever is sent there finds out what it means.
    Fqdn(String),
}

impl GatewayIdentity {
    /// Data of REDIRECT or REDIRECTED_FROM. `nonce` is empty but in an answer to IKE_SA_INIT.
    pub(crate) fn to_wire(&self, nonce: &[u8]) -> Vec<u8> {
        let (kind, identity) = match self {
            Self::Address(IpAddr::V4(ip)) => (IPV4, ip.octets().to_vec()),
            Self::Address(IpAddr::V6(ip)) => (IPV6, ip.octets().to_vec()),
            Self::Fqdn(name) => (FQDN, name.as_bytes().to_vec()),
        };
        // A longer name than DNS knows can only be a mistake of the owner.
        let identity = identity.get(..usize::from(u8::MAX)).unwrap_or(&identity);
        [&[kind, identity.len() as u8], identity, nonce].concat()
    }

    /// Reads what [`GatewayIdentity::to_wire`] writes; yields the nonce too.
    ///
    /// # Errors
    /// Cut short, of an unknown type, or no address or name.
    pub(crate) fn parse(data: &[u8]) -> Result<(GatewayIdentity, &[u8]), Malformed> {
        let mut r = Reader::new(data);
        let kind = r.u8("gateway identity type")?;
        let length = usize::from(r.u8("gateway identity length")?);
        let bytes = r.take(length, "gateway identity")?;
        let wrong = |what, expected| Malformed::Value {
            what,
            found: u64::from(kind),
            expected,
        };
        let identity = match kind {
            IPV4 => <[u8; 4]>::try_from(bytes)
                .map(|octets| Self::Address(Ipv4Addr::from(octets).into()))
                .map_err(|_| wrong("gateway identity type", "4 bytes with type 1")),
            IPV6 => <[u8; 16]>::try_from(bytes)
                .map(|octets| Self::Address(Ipv6Addr::from(octets).into()))
                .map_err(|_| wrong("gateway identity type", "16 bytes with type 2")),
            FQDN => match std::str::from_utf8(bytes) {
                Ok(name) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()) => {
                    Ok(Self::Fqdn(name.to_owned()))
                }
                _ => Err(wrong("gateway identity type", "a host name with type 3")),
            },
            _ => Err(wrong("gateway identity type", "1, 2 or 3")),
        }?;
        Ok((identity, r.rest()))
    }
}

impl fmt::Display for GatewayIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => fmt::Display::fmt(ip, f),
            Self::Fqdn(name) => f.pad(name),
        }
    }
}

impl From<IpAddr> for GatewayIdentity {
    fn from(address: IpAddr) -> GatewayIdentity {
        GatewayIdentity::Address(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (identity, wire) in [
            (
                GatewayIdentity::Address([192, 0, 2, 2].into()),
                &[1, 4, 192, 0, 2, 2][..],
            ),
            (
                GatewayIdentity::Address("2001:db8::2".parse().unwrap()),
                &[
                    2, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
                ],
            ),
            (GatewayIdentity::Fqdn("gw.b".into()), b"\x03\x04gw.b"),
        ] {
            assert_eq!(identity.to_wire(&[]), wire);
            let with_nonce = identity.to_wire(&[7; 32]);
            assert_eq!(
                GatewayIdentity::parse(&with_nonce),
                Ok((identity, &[7; 32][..]))
            );
            for cut in 0..wire.len() {
                assert!(GatewayIdentity::parse(&wire[..cut]).is_err(), "{cut}");
            }
        }
    }

    #[test]
    fn what_is_no_gateway_is_refused() {
        for wire in [
            &[0, 4, 192, 0, 2, 2][..],
            &[4, 4, 192, 0, 2, 2],
            &[1, 3, 192, 0, 2, 2],
            &[1, 5, 192, 0, 2, 2, 9],
            &[2, 4, 192, 0, 2, 2],
            &[3, 0],
            b"\x03\x04gw b",
            b"\x03\x04gw\0b",
            b"\x03\x04gw\xff\xfe",
            &[],
        ] {
            assert!(GatewayIdentity::parse(wire).is_err(), "{wire:?}");
        }
    }
}
