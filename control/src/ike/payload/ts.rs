//! Traffic Selector payloads (RFC 7296 section 3.13).

use std::net::IpAddr;

use super::super::ts::TrafficSelector;
use super::reader::Reader;
use super::{Malformed, TooLong};

const IPV4_RANGE: u8 = 7;
const IPV6_RANGE: u8 = 8;

pub(super) fn parse(r: &mut Reader<'_>) -> Result<Vec<TrafficSelector>, Malformed> {
    let count = usize::from(r.u8("number of selectors")?);
    r.take(3, "reserved")?;
    let mut list = Vec::with_capacity(count.min(r.left() / 16));
    for _ in 0..count {
        let kind = r.u8("selector type")?;
        let protocol = r.u8("selector protocol")?;
        let length = usize::from(r.u16("selector length")?);
        let body = length.checked_sub(4).ok_or(Malformed::Value {
            what: "selector length",
            found: length as u64,
            expected: "4 or more",
        })?;
        let mut s = r.sub(body, "selector")?;
        let v6 = match kind {
            IPV4_RANGE => false,
            IPV6_RANGE => true,
            // Fibre Channel, security labels: not ours to serve, so as good as not proposed.
            _ => continue,
        };
        let ports = s.u16("start port")?..=s.u16("end port")?;
        let start = address(&mut s, v6)?;
        let end = address(&mut s, v6)?;
        s.finish("selector")?;
        let selector = TrafficSelector {
            protocol,
            ports,
            start,
            end,
        };
        if !selector.is_valid() {
            return Err(Malformed::Value {
                what: "selector range",
                found: u64::from(*selector.ports.start()),
                expected: "a start not after its end",
            });
        }
        list.push(selector);
    }
    Ok(list)
}

fn address(r: &mut Reader<'_>, v6: bool) -> Result<IpAddr, Malformed> {
    Ok(match v6 {
        false => IpAddr::from(r.array::<4>("IPv4 address")?),
        true => IpAddr::from(r.array::<16>("IPv6 address")?),
    })
}

/// Whether so many selectors fit into one payload.
///
/// # Errors
/// More than its count can say.
pub(crate) fn check(list: &[TrafficSelector]) -> Result<u8, TooLong> {
    u8::try_from(list.len()).map_err(|_| TooLong::Selectors(list.len()))
}

pub(super) fn write(list: &[TrafficSelector], out: &mut Vec<u8>) -> Result<(), TooLong> {
    // Fewer than asked for would be another policy than the owner's.
    out.extend_from_slice(&[check(list)?, 0, 0, 0]);
    for s in list {
        let (kind, length) = if s.start.is_ipv4() {
            (IPV4_RANGE, 16u16)
        } else {
            (IPV6_RANGE, 40)
        };
        out.extend_from_slice(&[kind, s.protocol]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&s.ports.start().to_be_bytes());
        out.extend_from_slice(&s.ports.end().to_be_bytes());
        for address in [s.start, s.end] {
            match address {
                IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
                IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
            }
        }
    }
    Ok(())
}
