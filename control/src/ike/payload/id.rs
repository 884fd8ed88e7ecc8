//! Identification payloads (RFC 7296 section 3.5).

use super::super::identity::Identity;
use super::Malformed;
use super::reader::Reader;

/// An identity as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    /// Zero when sent; kept as received, because AUTH is computed over it.
    pub reserved: [u8; 3],
    pub identity: Identity,
}

impl Id {
    pub fn new(identity: Identity) -> Id {
        Id {
            reserved: [0; 3],
            identity,
        }
    }

    /// The payload without its generic header, as AUTH covers it (section 2.15).
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    pub(super) fn parse(r: &mut Reader<'_>) -> Result<Id, Malformed> {
        let kind = r.u8("identity type")?;
        let reserved = r.array("reserved")?;
        Ok(Id {
            reserved,
            identity: Identity::from_wire(kind, r.rest())?,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (kind, data) = self.identity.to_wire();
        out.push(kind);
        out.extend_from_slice(&self.reserved);
        out.extend_from_slice(&data);
    }
}
