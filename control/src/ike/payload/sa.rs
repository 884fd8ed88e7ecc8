//! Security Association payload: proposals and transforms (RFC 7296 section 3.3).

use super::reader::Reader;
use super::{Malformed, TooLong, set_length};

/// Protocol numbers of proposals, notifications and deletions.
pub mod protocol {
    pub const NONE: u8 = 0;
    pub const IKE: u8 = 1;
    pub const AH: u8 = 2;
    pub const ESP: u8 = 3;
}

/// Transform types.
pub mod transform {
    pub const ENCR: u8 = 1;
    pub const PRF: u8 = 2;
    pub const INTEG: u8 = 3;
    /// Key exchange method, once called Diffie-Hellman group.
    pub const KE: u8 = 4;
    pub const ESN: u8 = 5;
    /// The first additional key exchange (RFC 9370).
    pub const ADDKE1: u8 = 6;
    /// The last one.
    pub const ADDKE7: u8 = 12;
}

/// Attribute "key length" in its short form.
const KEY_LENGTH: u16 = 0x8000 | 14;

/// One proposal: a protocol and the transforms to choose from, one of each type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Counts from 1; the answer repeats the number of the one chosen.
    pub number: u8,
    /// See [`protocol`].
    pub protocol: u8,
    /// SPI of the sender: empty, 4 bytes for ESP, 8 for IKE when rekeying.
    pub spi: Vec<u8>,
    pub transforms: Vec<Transform>,
}

/// One algorithm that a proposal offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transform {
    /// See [`transform`].
    pub kind: u8,
    /// Number of the algorithm among its kind.
    pub id: u16,
    /// In bits, where the algorithm has several.
    pub key_length: Option<u16>,
    /// It carries an attribute that is not understood, so it can not be chosen (section 3.3.6).
    /// Never written.
    pub foreign: bool,
}

impl Transform {
    pub fn new(kind: u8, id: u16, key_length: Option<u16>) -> Transform {
        Transform {
            kind,
            id,
            key_length,
            foreign: false,
        }
    }
}

pub(super) fn parse(r: &mut Reader<'_>) -> Result<Vec<Proposal>, Malformed> {
    let mut proposals = Vec::new();
    loop {
        let more = match r.u8("last proposal")? {
            0 => false,
            2 => true,
            found => return Err(value("last proposal", found, "0 or 2")),
        };
        r.u8("reserved")?;
        let length = r.u16("proposal length")?;
        let mut p = r.sub(body(length, 4)?, "proposal")?;
        let number = p.u8("proposal number")?;
        let protocol = p.u8("protocol")?;
        let spi_size = usize::from(p.u8("SPI size")?);
        let count = usize::from(p.u8("number of transforms")?);
        let spi = p.take(spi_size, "SPI")?.to_vec();
        // A transform takes eight bytes or more: the count alone never decides how much is
        // reserved.
        let mut transforms = Vec::with_capacity(count.min(p.left() / 8));
        for i in 1..=count {
            let found = p.u8("last transform")?;
            if found != if i == count { 0 } else { 3 } {
                return Err(value("last transform", found, "3, and 0 in the last"));
            }
            p.u8("reserved")?;
            let length = p.u16("transform length")?;
            transforms.push(parse_transform(&mut p.sub(body(length, 4)?, "transform")?)?);
        }
        p.finish("proposal")?;
        proposals.push(Proposal {
            number,
            protocol,
            spi,
            transforms,
        });
        if !more {
            return Ok(proposals);
        }
    }
}

fn parse_transform(r: &mut Reader<'_>) -> Result<Transform, Malformed> {
    let kind = r.u8("transform type")?;
    r.u8("reserved")?;
    let mut transform = Transform::new(kind, r.u16("transform ID")?, None);
    while r.left() > 0 {
        match r.u16("attribute type")? {
            KEY_LENGTH if transform.key_length.is_none() => {
                transform.key_length = Some(r.u16("key length")?);
            }
            short if short & 0x8000 != 0 => {
                r.u16("attribute value")?;
                transform.foreign = true;
            }
            _ => {
                let length = r.u16("attribute length")?;
                r.take(usize::from(length), "attribute value")?;
                transform.foreign = true;
            }
        }
    }
    Ok(transform)
}

pub(super) fn write(proposals: &[Proposal], out: &mut Vec<u8>) -> Result<(), TooLong> {
    for (i, p) in proposals.iter().enumerate() {
        let start = out.len();
        let more = if i + 1 == proposals.len() { 0 } else { 2 };
        let spi_size = u8::try_from(p.spi.len()).map_err(|_| TooLong::Bytes(p.spi.len()))?;
        let count =
            u8::try_from(p.transforms.len()).map_err(|_| TooLong::Bytes(p.transforms.len()))?;
        out.extend_from_slice(&[more, 0, 0, 0, p.number, p.protocol, spi_size, count]);
        out.extend_from_slice(&p.spi);
        for (j, t) in p.transforms.iter().enumerate() {
            let start = out.len();
            let more = if j + 1 == p.transforms.len() { 0 } else { 3 };
            out.extend_from_slice(&[more, 0, 0, 0, t.kind, 0]);
            out.extend_from_slice(&t.id.to_be_bytes());
            if let Some(bits) = t.key_length {
                out.extend_from_slice(&KEY_LENGTH.to_be_bytes());
                out.extend_from_slice(&bits.to_be_bytes());
            }
            set_length(out, start, start + 2)?;
        }
        set_length(out, start, start + 2)?;
    }
    Ok(())
}

/// The rest of a structure whose length field counts `header` bytes already read.
fn body(length: u16, header: usize) -> Result<usize, Malformed> {
    usize::from(length)
        .checked_sub(header)
        .ok_or(Malformed::Value {
            what: "length",
            found: u64::from(length),
            expected: "at least its own header",
        })
}

fn value(what: &'static str, found: u8, expected: &'static str) -> Malformed {
    Malformed::Value {
        what,
        found: u64::from(found),
        expected,
    }
}
