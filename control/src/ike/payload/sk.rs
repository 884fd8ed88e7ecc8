//! Whole messages: in the clear for IKE_SA_INIT, inside one Encrypted payload (RFC 7296 section
//! 3.14, in the AEAD form of RFC 5282) for all else.

use zeroize::Zeroizing;

use super::super::crypto::{AeadKey, IV, TAG};
use super::header::{self, HEADER, Header};
use super::reader::Reader;
use super::{GENERIC_HEADER, Malformed, Payload, TooLong, kind, write_chain};

/// Why a datagram could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    #[error("not protected")]
    Plain,
    #[error("authentication tag does not match")]
    BadTag,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Writes a message in the clear.
///
/// # Errors
/// A payload longer than its length field can say.
pub fn write_plain(mut header: Header, payloads: &[Payload]) -> Result<Vec<u8>, TooLong> {
    let mut body = Vec::new();
    header.next = write_chain(payloads, &mut body)?;
    let mut out = Vec::with_capacity(HEADER + body.len());
    header.write(&mut out);
    out.extend_from_slice(&body);
    header::set_length(&mut out);
    Ok(out)
}

/// Writes a message with all its payloads inside one Encrypted payload. `iv` must never repeat
/// under `key`.
///
/// # Errors
/// A payload longer than its length field can say.
pub fn write_sealed(
    header: Header,
    payloads: &[Payload],
    key: &AeadKey,
    iv: u64,
) -> Result<Vec<u8>, TooLong> {
    let mut plain = Zeroizing::new(Vec::new());
    let first = write_chain(payloads, &mut plain)?;
    seal(header, first, plain, key, iv)
}

/// Seals the bytes of a chain of payloads, whatever they are.
pub(crate) fn seal(
    header: Header,
    first: u8,
    plain: Zeroizing<Vec<u8>>,
    key: &AeadKey,
    iv: u64,
) -> Result<Vec<u8>, TooLong> {
    seal_as(kind::ENCRYPTED, header, first, &[], plain, key, iv)
}

/// Seals as a payload of type `kind`, with `fields` between its generic header and what is sealed.
pub(super) fn seal_as(
    kind: u8,
    mut header: Header,
    first: u8,
    fields: &[u8],
    mut plain: Zeroizing<Vec<u8>>,
    key: &AeadKey,
    iv: u64,
) -> Result<Vec<u8>, TooLong> {
    // An AEAD needs no padding (RFC 5282 section 3): the pad length alone, 0.
    plain.push(0);
    let length = GENERIC_HEADER + fields.len() + IV + plain.len() + TAG;
    let length16 = u16::try_from(length).map_err(|_| TooLong::Bytes(length))?;
    header.next = kind;
    let mut out = Vec::with_capacity(HEADER + length);
    header.write(&mut out);
    out.extend_from_slice(&[first, 0]);
    out.extend_from_slice(&length16.to_be_bytes());
    out.extend_from_slice(fields);
    let aad = out.len();
    out.extend_from_slice(&iv.to_be_bytes());
    out.extend_from_slice(&plain);
    out.extend_from_slice(&[0; TAG]);
    header::set_length(&mut out);
    let (aad, rest) = out.split_at_mut(aad);
    let (_, sealed) = rest.split_at_mut(IV);
    let (text, tag) = sealed.split_at_mut(plain.len());
    tag.copy_from_slice(&key.seal(iv.to_be_bytes(), aad, text));
    Ok(out)
}

/// Opens a protected message: yields the type of the first inner payload and the bytes of the inner
/// chain.
///
/// # Errors
/// The Encrypted payload is missing, not first, or not last; the tag is wrong; the padding is.
pub fn open(
    header: &Header,
    datagram: &[u8],
    key: &AeadKey,
) -> Result<(u8, Zeroizing<Vec<u8>>), Unopened> {
    if header.next != kind::ENCRYPTED {
        return Err(Unopened::Plain);
    }
    open_as(datagram, 0, key)
}

/// Opens what [`seal_as`] made, with so many bytes of fields.
pub(super) fn open_as(
    datagram: &[u8],
    fields: usize,
    key: &AeadKey,
) -> Result<(u8, Zeroizing<Vec<u8>>), Unopened> {
    let mut r = Reader::new(datagram);
    let aad = r.clone().take(HEADER + GENERIC_HEADER + fields, "header")?;
    r.take(HEADER, "header")?;
    let first = r.u8("next payload")?;
    r.u8("critical bit")?;
    let length = usize::from(r.u16("encrypted payload length")?);
    if length.checked_sub(GENERIC_HEADER) != Some(r.left()) {
        return Err(Unopened::Malformed(Malformed::Value {
            what: "encrypted payload length",
            found: length as u64,
            expected: "the rest of the message",
        }));
    }
    r.take(fields, "fields of the encrypted payload")?;
    let iv = r.array::<IV>("initialisation vector")?;
    let text = r.left().checked_sub(TAG).ok_or(Malformed::Truncated {
        what: "authentication tag",
        needed: TAG,
        left: r.left(),
    })?;
    let mut plain = Zeroizing::new(r.take(text, "ciphertext")?.to_vec());
    let tag = r.array::<TAG>("authentication tag")?;
    if !key.open(iv, aad, &mut plain, &tag) {
        return Err(Unopened::BadTag);
    }
    let padding = plain.pop().map(usize::from);
    let kept = padding.and_then(|padding| plain.len().checked_sub(padding));
    let kept = kept.ok_or(Malformed::Truncated {
        what: "padding",
        needed: 1,
        left: plain.len(),
    })?;
    plain.truncate(kept);
    Ok((first, plain))
}
