//! EAP payload (RFC 7296 section 3.16): one EAP packet (RFC 3748 section 4).

use super::reader::Reader;
use super::{Malformed, TooLong};

pub const REQUEST: u8 = 1;
pub const RESPONSE: u8 = 2;
pub const SUCCESS: u8 = 3;
pub const FAILURE: u8 = 4;

/// An EAP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eap {
    pub code: u8,
    pub identifier: u8,
    /// In a request and a response the type, and its data; else empty.
    pub body: Vec<u8>,
}

impl Eap {
    pub(super) fn parse(r: &mut Reader<'_>) -> Result<Eap, Malformed> {
        let whole = r.left();
        let code = r.u8("EAP code")?;
        let identifier = r.u8("EAP identifier")?;
        let length = r.u16("EAP length")?;
        if usize::from(length) != whole {
            return Err(Malformed::Value {
                what: "EAP length",
                found: length.into(),
                expected: "that of the payload",
            });
        }
        let body = r.rest().to_vec();
        Ok(Eap {
            code,
            identifier,
            body,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let length = self.body.len() + 4;
        let length = u16::try_from(length).map_err(|_| TooLong::Bytes(length))?;
        out.extend_from_slice(&[self.code, self.identifier]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.body);
        Ok(())
    }
}
