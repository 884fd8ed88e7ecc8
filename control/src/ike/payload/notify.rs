//! Notify payload (RFC 7296 section 3.10).

use super::Malformed;
use super::reader::Reader;

/// Notify message types; those below 16384 are errors.
pub mod kind {
    pub const UNSUPPORTED_CRITICAL_PAYLOAD: u16 = 1;
    pub const INVALID_IKE_SPI: u16 = 4;
    pub const INVALID_MAJOR_VERSION: u16 = 5;
    pub const INVALID_SYNTAX: u16 = 7;
    pub const INVALID_MESSAGE_ID: u16 = 9;
    pub const INVALID_SPI: u16 = 11;
    pub const NO_PROPOSAL_CHOSEN: u16 = 14;
    pub const INVALID_KE_PAYLOAD: u16 = 17;
    pub const AUTHENTICATION_FAILED: u16 = 24;
    pub const SINGLE_PAIR_REQUIRED: u16 = 34;
    pub const NO_ADDITIONAL_SAS: u16 = 35;
    pub const INTERNAL_ADDRESS_FAILURE: u16 = 36;
    pub const FAILED_CP_REQUIRED: u16 = 37;
    pub const TS_UNACCEPTABLE: u16 = 38;
    /// RFC 4555, these two.
    pub const UNACCEPTABLE_ADDRESSES: u16 = 40;
    pub const UNEXPECTED_NAT_DETECTED: u16 = 41;
    pub const TEMPORARY_FAILURE: u16 = 43;
    pub const CHILD_SA_NOT_FOUND: u16 = 44;
    /// RFC 9370.
    pub const STATE_NOT_FOUND: u16 = 47;

    /// RFC 9611: no further child SA for a resource.
    pub const TS_MAX_QUEUE: u16 = 48;

    /// The first type that is a status and not an error.
    pub const STATUS: u16 = 16384;
    pub const INITIAL_CONTACT: u16 = 16384;
    pub const NAT_DETECTION_SOURCE_IP: u16 = 16388;
    pub const NAT_DETECTION_DESTINATION_IP: u16 = 16389;
    pub const COOKIE: u16 = 16390;
    pub const REKEY_SA: u16 = 16393;
    /// RFC 4555, from here to `NO_NATS_ALLOWED`.
    pub const MOBIKE_SUPPORTED: u16 = 16396;
    pub const ADDITIONAL_IP4_ADDRESS: u16 = 16397;
    pub const ADDITIONAL_IP6_ADDRESS: u16 = 16398;
    pub const NO_ADDITIONAL_ADDRESSES: u16 = 16399;
    pub const UPDATE_SA_ADDRESSES: u16 = 16400;
    pub const COOKIE2: u16 = 16401;
    pub const NO_NATS_ALLOWED: u16 = 16402;
    /// RFC 4478.
    pub const AUTH_LIFETIME: u16 = 16403;
    /// RFC 5685, these three.
    pub const REDIRECT_SUPPORTED: u16 = 16406;
    pub const REDIRECT: u16 = 16407;
    pub const REDIRECTED_FROM: u16 = 16408;
    /// RFC 5723 section 7.
    pub const TICKET_LT_OPAQUE: u16 = 16409;
    pub const TICKET_REQUEST: u16 = 16410;
    pub const TICKET_ACK: u16 = 16411;
    pub const TICKET_NACK: u16 = 16412;
    pub const TICKET_OPAQUE: u16 = 16413;
    /// RFC 6290.
    pub const QCD_TOKEN: u16 = 16419;
    /// RFC 6311, these four.
    pub const IKEV2_MESSAGE_ID_SYNC_SUPPORTED: u16 = 16420;
    pub const IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED: u16 = 16421;
    pub const IKEV2_MESSAGE_ID_SYNC: u16 = 16422;
    pub const IPSEC_REPLAY_COUNTER_SYNC: u16 = 16423;
    /// RFC 7383.
    pub const IKEV2_FRAGMENTATION_SUPPORTED: u16 = 16430;
    /// RFC 7427 section 4.
    pub const SIGNATURE_HASH_ALGORITHMS: u16 = 16431;
    /// RFC 9242.
    pub const INTERMEDIATE_EXCHANGE_SUPPORTED: u16 = 16438;
    /// RFC 9370.
    pub const ADDITIONAL_KEY_EXCHANGE: u16 = 16441;
    /// RFC 9611: the child SA is one resource's.
    pub const SA_RESOURCE_INFO: u16 = 16444;
}

/// An error or status told to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Protocol of the SA it is about; 0 if none.
    pub protocol: u8,
    /// SPI of the SA it is about; empty if none.
    pub spi: Vec<u8>,
    /// See [`kind`].
    pub kind: u16,
    pub data: Vec<u8>,
}

impl Notify {
    /// A notification about no SA in particular.
    pub fn new(kind: u16, data: impl Into<Vec<u8>>) -> Notify {
        Notify {
            protocol: 0,
            spi: Vec::new(),
            kind,
            data: data.into(),
        }
    }

    pub fn is_error(&self) -> bool {
        self.kind < kind::STATUS
    }

    pub(super) fn parse(r: &mut Reader<'_>) -> Result<Notify, Malformed> {
        let protocol = r.u8("notify protocol")?;
        let spi_size = usize::from(r.u8("notify SPI size")?);
        let kind = r.u16("notify type")?;
        let spi = r.take(spi_size, "notify SPI")?.to_vec();
        Ok(Notify {
            protocol,
            spi,
            kind,
            data: r.rest().to_vec(),
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        // SPIs are 0, 4 or 8 bytes long; a longer one can only be a mistake in this program.
        let spi = self.spi.get(..usize::from(u8::MAX)).unwrap_or(&self.spi);
        out.extend_from_slice(&[self.protocol, spi.len() as u8]);
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(spi);
        out.extend_from_slice(&self.data);
    }
}
