//! The IKE header (RFC 7296 section 3.1).

use super::Malformed;
use super::reader::Reader;

/// Length of the IKE header in bytes.
pub const HEADER: usize = 28;

/// Major version 2, minor version 0.
pub const VERSION: u8 = 0x20;

const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;

/// Exchange type numbers.
pub mod exchange {
    pub const IKE_SA_INIT: u8 = 34;
    pub const IKE_AUTH: u8 = 35;
    pub const CREATE_CHILD_SA: u8 = 36;
    pub const INFORMATIONAL: u8 = 37;
    /// RFC 5723.
    pub const IKE_SESSION_RESUME: u8 = 38;
    /// RFC 9242.
    pub const IKE_INTERMEDIATE: u8 = 43;
    /// RFC 9370.
    pub const IKE_FOLLOWUP_KE: u8 = 44;
}

/// The header of a message. Its length field is not kept: it must equal the length of the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// SPI of the original initiator of the IKE SA.
    pub spi_i: u64,
    /// SPI of its responder; 0 in the first request.
    pub spi_r: u64,
    /// Type of the first payload.
    pub next: u8,
    /// Major version in the high, minor in the low half.
    pub version: u8,
    /// Exchange type, see [`exchange`].
    pub exchange: u8,
    /// The sender is the original initiator of the IKE SA.
    pub initiator: bool,
    /// This is a response.
    pub response: bool,
    /// Message ID of the exchange.
    pub message_id: u32,
}

impl Header {
    /// Of the first exchange of an IKE SA, which is in the clear.
    pub fn begins(&self) -> bool {
        matches!(
            self.exchange,
            exchange::IKE_SA_INIT | exchange::IKE_SESSION_RESUME
        )
    }

    /// Reads the header of a datagram.
    ///
    /// # Errors
    /// Too short, or a length field that differs from the datagram's length.
    pub fn parse(datagram: &[u8]) -> Result<Header, Malformed> {
        let mut r = Reader::new(datagram);
        let spi_i = r.u64("initiator SPI")?;
        let spi_r = r.u64("responder SPI")?;
        let next = r.u8("next payload")?;
        let version = r.u8("version")?;
        let exchange = r.u8("exchange type")?;
        let flags = r.u8("flags")?;
        let message_id = r.u32("message ID")?;
        let length = r.u32("length")?;
        if usize::try_from(length) != Ok(datagram.len()) {
            return Err(Malformed::Value {
                what: "message length",
                found: u64::from(length),
                expected: "the length of the datagram",
            });
        }
        let initiator = flags & FLAG_INITIATOR != 0;
        let response = flags & FLAG_RESPONSE != 0;
        Ok(Header {
            spi_i,
            spi_r,
            next,
            version,
            exchange,
            initiator,
            response,
            message_id,
        })
    }

    /// Writes the header; the length is left 0 for [`set_length`].
    pub fn write(&self, out: &mut Vec<u8>) {
        let flags =
            (u8::from(self.initiator) * FLAG_INITIATOR) | (u8::from(self.response) * FLAG_RESPONSE);
        out.extend_from_slice(&self.spi_i.to_be_bytes());
        out.extend_from_slice(&self.spi_r.to_be_bytes());
        out.extend_from_slice(&[self.next, self.version, self.exchange, flags]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
    }
}

/// Writes the length of the finished message into its header.
pub(crate) fn set_length(message: &mut [u8]) {
    let length = u32::try_from(message.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    if let Some(field) = message.get_mut(HEADER - 4..HEADER) {
        field.copy_from_slice(&length);
    }
}
