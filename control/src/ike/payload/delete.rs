//! Delete payload (RFC 7296 section 3.11).

use super::Malformed;
use super::reader::Reader;

/// SAs that the sender deletes: its own inbound ones, or the IKE SA itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delete {
    /// The IKE SA that carries the message.
    Ike,
    /// ESP SAs by the SPI that the sender receives on.
    Esp(Vec<u32>),
    /// AH SAs, which are never made here.
    Ah(Vec<u32>),
}

impl Delete {
    pub(super) fn parse(r: &mut Reader<'_>) -> Result<Delete, Malformed> {
        let protocol = r.u8("delete protocol")?;
        let spi_size = r.u8("delete SPI size")?;
        let count = usize::from(r.u16("number of SPIs")?);
        match (protocol, spi_size) {
            (1, 0) if count == 0 => Ok(Delete::Ike),
            (2 | 3, 4) => {
                let mut spis = Vec::with_capacity(count.min(r.left() / 4));
                for _ in 0..count {
                    spis.push(r.u32("SPI")?);
                }
                Ok(if protocol == 3 {
                    Delete::Esp(spis)
                } else {
                    Delete::Ah(spis)
                })
            }
            (1..=3, found) => Err(Malformed::Value {
                what: "delete SPI size",
                found: u64::from(found),
                expected: "0 for IKE, 4 for ESP",
            }),
            (found, _) => Err(Malformed::Value {
                what: "delete protocol",
                found: u64::from(found),
                expected: "1 to 3",
            }),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (protocol, spis) = match self {
            Delete::Ike => return out.extend_from_slice(&[1, 0, 0, 0]),
            Delete::Ah(spis) => (2, spis),
            Delete::Esp(spis) => (3, spis),
        };
        let count = spis.len().min(usize::from(u16::MAX));
        out.extend_from_slice(&[protocol, 4]);
        out.extend_from_slice(&(count as u16).to_be_bytes());
        for spi in &spis[..count] {
            out.extend_from_slice(&spi.to_be_bytes());
        }
    }
}
