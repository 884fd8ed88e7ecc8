//! Authentication payload (RFC 7296 section 3.8).

use super::Malformed;
use super::reader::Reader;

/// Method: shared key message integrity code.
pub const SHARED_KEY: u8 = 2;
/// Method: ECDSA with SHA-256 on P-256 (RFC 4754).
pub const ECDSA_256: u8 = 9;
/// Method: ECDSA with SHA-384 on P-384 (RFC 4754).
pub const ECDSA_384: u8 = 10;
/// Method: digital signature (RFC 7427).
pub const DIGITAL_SIGNATURE: u8 = 14;

/// The proof that a side is who it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// 2: shared key; 14: digital signature (RFC 7427), and older ones.
    pub method: u8,
    pub data: Vec<u8>,
}

impl Auth {
    pub(super) fn parse(r: &mut Reader<'_>) -> Result<Auth, Malformed> {
        let method = r.u8("authentication method")?;
        r.take(3, "reserved")?;
        Ok(Auth {
            method,
            data: r.rest().to_vec(),
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.method, 0, 0, 0]);
        out.extend_from_slice(&self.data);
    }
}
