//! The payloads of IKEv2 (RFC 7296 section 3), one file each: what is written is read back the
//! same, and no byte string makes the parser panic or allocate more than a small multiple of its
//! own length.

pub mod auth;
pub mod cert;
pub mod config;
pub mod delete;
pub mod eap;
pub mod header;
pub mod id;
pub mod ke;
pub mod nonce;
pub mod notify;
pub mod reader;
pub mod redirect;
pub mod sa;
pub mod sk;
pub mod skf;
pub mod ticket;
pub mod ts;

use auth::Auth;
use cert::{Cert, CertReq};
use config::Config;
use delete::Delete;
use eap::Eap;
use id::Id;
use ke::KeyExchange;
use notify::Notify;
use reader::Reader;
use sa::Proposal;

use super::ts::TrafficSelector;

/// Payload type numbers (RFC 7296 section 3.2).
pub mod kind {
    pub const NONE: u8 = 0;
    pub const SA: u8 = 33;
    pub const KE: u8 = 34;
    pub const ID_I: u8 = 35;
    pub const ID_R: u8 = 36;
    pub const CERT: u8 = 37;
    pub const CERTREQ: u8 = 38;
    pub const AUTH: u8 = 39;
    pub const NONCE: u8 = 40;
    pub const NOTIFY: u8 = 41;
    pub const DELETE: u8 = 42;
    pub const VENDOR: u8 = 43;
    pub const TS_I: u8 = 44;
    pub const TS_R: u8 = 45;
    pub const ENCRYPTED: u8 = 46;
    pub const CONFIG: u8 = 47;
    pub const EAP: u8 = 48;
    /// Encrypted and Authenticated Fragment (RFC 7383).
    pub const ENCRYPTED_FRAGMENT: u8 = 53;
}

/// More payloads than this in one message is nonsense, whatever its length.
const MAX_PAYLOADS: usize = 256;

/// Length of the generic payload header.
pub(crate) const GENERIC_HEADER: usize = 4;

/// Why bytes from the network are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{what}: {needed} bytes expected, {left} left")]
    Truncated {
        what: &'static str,
        needed: usize,
        left: usize,
    },
    #[error("{what}: found {found}, expected {expected}")]
    Value {
        what: &'static str,
        found: u64,
        expected: &'static str,
    },
    #[error("{what}: {count} bytes left over")]
    Trailing { what: &'static str, count: usize },
    #[error("{what}: more than {limit}")]
    TooMany { what: &'static str, limit: usize },
    #[error("critical payload of unknown type {0}")]
    Critical(u8),
}

/// A payload that its length or count fields can not describe, or a message longer than a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    #[error("payload of {0} bytes: at most 65531 fit")]
    Bytes(usize),
    #[error("{0} traffic selectors: at most 255 fit into one payload, after merging")]
    Selectors(usize),
}

/// One payload of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Sa(Vec<Proposal>),
    Ke(KeyExchange),
    IdI(Id),
    IdR(Id),
    Cert(Cert),
    CertReq(CertReq),
    Auth(Auth),
    Nonce(Vec<u8>),
    Notify(Notify),
    Delete(Delete),
    Vendor(Vec<u8>),
    TsI(Vec<TrafficSelector>),
    TsR(Vec<TrafficSelector>),
    Config(Config),
    Eap(Eap),
    /// A payload that this implementation does not read (unknown and not critical).
    Other {
        kind: u8,
        critical: bool,
        body: Vec<u8>,
    },
}

impl Payload {
    /// The payload's type number.
    pub fn kind(&self) -> u8 {
        match self {
            Payload::Sa(_) => kind::SA,
            Payload::Ke(_) => kind::KE,
            Payload::IdI(_) => kind::ID_I,
            Payload::IdR(_) => kind::ID_R,
            Payload::Cert(_) => kind::CERT,
            Payload::CertReq(_) => kind::CERTREQ,
            Payload::Auth(_) => kind::AUTH,
            Payload::Nonce(_) => kind::NONCE,
            Payload::Notify(_) => kind::NOTIFY,
            Payload::Delete(_) => kind::DELETE,
            Payload::Vendor(_) => kind::VENDOR,
            Payload::TsI(_) => kind::TS_I,
            Payload::TsR(_) => kind::TS_R,
            Payload::Config(_) => kind::CONFIG,
            Payload::Eap(_) => kind::EAP,
            Payload::Other { kind, .. } => *kind,
        }
    }

    fn parse(kind: u8, critical: bool, body: &[u8]) -> Result<Payload, Malformed> {
        let mut r = Reader::new(body);
        let payload = match kind {
            kind::SA => Payload::Sa(sa::parse(&mut r)?),
            kind::KE => Payload::Ke(KeyExchange::parse(&mut r)?),
            kind::ID_I => Payload::IdI(Id::parse(&mut r)?),
            kind::ID_R => Payload::IdR(Id::parse(&mut r)?),
            kind::CERT => Payload::Cert(Cert::parse(&mut r)?),
            kind::CERTREQ => Payload::CertReq(CertReq::parse(&mut r)?),
            kind::AUTH => Payload::Auth(Auth::parse(&mut r)?),
            kind::NONCE => Payload::Nonce(nonce::parse(&mut r)?),
            kind::NOTIFY => Payload::Notify(Notify::parse(&mut r)?),
            kind::DELETE => Payload::Delete(Delete::parse(&mut r)?),
            kind::VENDOR => Payload::Vendor(r.rest().to_vec()),
            kind::TS_I => Payload::TsI(ts::parse(&mut r)?),
            kind::TS_R => Payload::TsR(ts::parse(&mut r)?),
            kind::CONFIG => Payload::Config(Config::parse(&mut r)?),
            kind::EAP => Payload::Eap(Eap::parse(&mut r)?),
            // RFC 7296 section 2.5: the critical bit of a type that is understood, or defined by
            // the RFC, says nothing.
            kind::ENCRYPTED => Payload::Other {
                kind,
                critical,
                body: r.rest().to_vec(),
            },
            _ if critical => return Err(Malformed::Critical(kind)),
            _ => Payload::Other {
                kind,
                critical,
                body: r.rest().to_vec(),
            },
        };
        r.finish("payload")?;
        Ok(payload)
    }

    fn write_body(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        match self {
            Payload::Sa(proposals) => sa::write(proposals, out)?,
            Payload::Ke(ke) => ke.write(out),
            Payload::IdI(id) | Payload::IdR(id) => id.write(out),
            Payload::Cert(cert) => cert.write(out),
            Payload::CertReq(request) => request.write(out),
            Payload::Auth(auth) => auth.write(out),
            Payload::Nonce(body) | Payload::Vendor(body) => out.extend_from_slice(body),
            Payload::Notify(notify) => notify.write(out),
            Payload::Delete(delete) => delete.write(out),
            Payload::TsI(list) | Payload::TsR(list) => ts::write(list, out)?,
            Payload::Config(config) => config.write(out)?,
            Payload::Eap(eap) => eap.write(out)?,
            Payload::Other { body, .. } => out.extend_from_slice(body),
        }
        Ok(())
    }
}

/// Reads a chain of payloads that starts with type `first` and fills `data` to its end.
///
/// # Errors
/// The first payload that is wrong; an unknown payload only if it is marked critical.
pub fn parse_chain(first: u8, data: &[u8]) -> Result<Vec<Payload>, Malformed> {
    let mut r = Reader::new(data);
    let mut kind = first;
    let mut payloads = Vec::new();
    while kind != kind::NONE {
        if payloads.len() == MAX_PAYLOADS {
            return Err(Malformed::TooMany {
                what: "payloads",
                limit: MAX_PAYLOADS,
            });
        }
        let next = r.u8("next payload")?;
        let critical = r.u8("critical bit")? & 0x80 != 0;
        let length = usize::from(r.u16("payload length")?);
        let body = length.checked_sub(GENERIC_HEADER).ok_or(Malformed::Value {
            what: "payload length",
            found: length as u64,
            expected: "4 or more",
        })?;
        payloads.push(Payload::parse(
            kind,
            critical,
            r.take(body, "payload body")?,
        )?);
        kind = next;
    }
    r.finish("message")?;
    Ok(payloads)
}

/// Writes a chain of payloads; yields the type of the first, which belongs into the header before
/// it.
///
/// # Errors
/// A payload longer than its length field can say.
pub fn write_chain(payloads: &[Payload], out: &mut Vec<u8>) -> Result<u8, TooLong> {
    let kinds = payloads.iter().map(Payload::kind).chain([kind::NONE]);
    for (payload, next) in payloads.iter().zip(kinds.clone().skip(1)) {
        let start = out.len();
        let critical = matches!(payload, Payload::Other { critical: true, .. });
        out.extend_from_slice(&[next, u8::from(critical) << 7, 0, 0]);
        payload.write_body(out)?;
        set_length(out, start, start + 2)?;
    }
    Ok(kinds.take(1).next().unwrap_or(kind::NONE))
}

/// Writes the number of bytes since `start` as 16 bits at `at`.
pub(crate) fn set_length(out: &mut [u8], start: usize, at: usize) -> Result<(), TooLong> {
    let length = out.len() - start;
    let length = u16::try_from(length).map_err(|_| TooLong::Bytes(length))?;
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
