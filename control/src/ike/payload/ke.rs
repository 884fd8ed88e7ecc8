//! Key Exchange payload (RFC 7296 section 3.4).

use super::Malformed;
use super::reader::Reader;

/// The public value of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyExchange {
    /// Key exchange method; 31 is Curve25519.
    pub group: u16,
    pub public: Vec<u8>,
}

impl KeyExchange {
    pub(super) fn parse(r: &mut Reader<'_>) -> Result<KeyExchange, Malformed> {
        let group = r.u16("key exchange method")?;
        r.u16("reserved")?;
        Ok(KeyExchange {
            group,
            public: r.rest().to_vec(),
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.group.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.public);
    }
}
