//! Configuration payload (RFC 7296 section 3.15).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::reader::Reader;
use super::{Malformed, TooLong};

/// What a configuration payload is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    Reply,
    Set,
    Ack,
}

const INTERNAL_IP4_ADDRESS: u16 = 1;
const INTERNAL_IP6_ADDRESS: u16 = 8;

/// A request for, or grant of, what the peer needs inside the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub kind: Kind,
    pub attributes: Vec<Attribute>,
}

/// One thing asked for or granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// `None` asks for any address.
    Ip4Address(Option<Ipv4Addr>),
    /// With the length of the prefix; `None` asks for any address.
    Ip6Address(Option<(Ipv6Addr, u8)>),
    /// Not understood, and so not answered. Type without the reserved bit.
    Other { kind: u16, value: Vec<u8> },
}

impl Config {
    pub(super) fn parse(r: &mut Reader<'_>) -> Result<Config, Malformed> {
        let kind = match r.u8("configuration type")? {
            1 => Kind::Request,
            2 => Kind::Reply,
            3 => Kind::Set,
            4 => Kind::Ack,
            found => {
                return Err(Malformed::Value {
                    what: "configuration type",
                    found: u64::from(found),
                    expected: "1 to 4",
                });
            }
        };
        r.take(3, "reserved")?;
        let mut attributes = Vec::new();
        while r.left() > 0 {
            let kind = r.u16("attribute type")? & 0x7fff;
            let length = usize::from(r.u16("attribute length")?);
            let mut a = r.sub(length, "attribute value")?;
            let attribute = match (kind, length) {
                (INTERNAL_IP4_ADDRESS, 0) => Attribute::Ip4Address(None),
                (INTERNAL_IP4_ADDRESS, _) => {
                    Attribute::Ip4Address(Some(a.array("address")?.into()))
                }
                (INTERNAL_IP6_ADDRESS, 0) => Attribute::Ip6Address(None),
                (INTERNAL_IP6_ADDRESS, _) => Attribute::Ip6Address(Some((
                    a.array::<16>("address")?.into(),
                    a.u8("prefix length")?,
                ))),
                _ => Attribute::Other {
                    kind,
                    value: a.rest().to_vec(),
                },
            };
            a.finish("configuration attribute")?;
            attributes.push(attribute);
        }
        Ok(Config { kind, attributes })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let kind = match self.kind {
            Kind::Request => 1,
            Kind::Reply => 2,
            Kind::Set => 3,
            Kind::Ack => 4,
        };
        out.extend_from_slice(&[kind, 0, 0, 0]);
        for attribute in &self.attributes {
            let (kind, value) = match attribute {
                Attribute::Ip4Address(None) => (INTERNAL_IP4_ADDRESS, Vec::new()),
                Attribute::Ip4Address(Some(a)) => (INTERNAL_IP4_ADDRESS, a.octets().to_vec()),
                Attribute::Ip6Address(None) => (INTERNAL_IP6_ADDRESS, Vec::new()),
                Attribute::Ip6Address(Some((a, prefix))) => {
                    (INTERNAL_IP6_ADDRESS, [&a.octets()[..], &[*prefix]].concat())
                }
                Attribute::Other { kind, value } => (*kind & 0x7fff, value.clone()),
            };
            let length = u16::try_from(value.len()).map_err(|_| TooLong::Bytes(value.len()))?;
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&value);
        }
        Ok(())
    }
}
