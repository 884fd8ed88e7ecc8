//! Encrypted Fragment payload: a part of a message that would be too long for one datagram (RFC 7383
//! section 2.5).

use zeroize::Zeroizing;

use super::super::crypto::{AeadKey, IV, TAG};
use super::header::{HEADER, Header};
use super::reader::Reader;
use super::sk::{Unopened, open_as, seal_as};
use super::{GENERIC_HEADER, Malformed, TooLong, kind};

/// Bytes of Fragment Number and Total Fragments.
const FIELDS: usize = 4;
/// What a datagram of IKE holds besides its part of the message: headers, IV, pad length, tag.
pub const OVERHEAD: usize = HEADER + GENERIC_HEADER + FIELDS + IV + 1 + TAG;

/// Which part of a message a datagram holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Counts from 1.
    pub number: u16,
    /// Of how many; not below `number`.
    pub total: u16,
}

impl Place {
    /// Reads which part it is, before anything is authenticated.
    ///
    /// # Errors
    /// Cut short, or a number or total that can not be.
    pub fn parse(datagram: &[u8]) -> Result<Place, Malformed> {
        let mut r = Reader::new(datagram);
        r.take(HEADER + GENERIC_HEADER, "header")?;
        let number = r.u16("fragment number")?;
        let total = r.u16("total fragments")?;
        if number == 0 || number > total {
            return Err(Malformed::Value {
                what: "fragment number",
                found: u64::from(number),
                expected: "1 to the total of fragments",
            });
        }
        Ok(Place { number, total })
    }
}

/// Seals one part. `first` is the type of the message's first inner payload; only part 1 tells it.
///
/// # Errors
/// Longer than its length field can say.
pub fn seal(
    header: Header,
    first: u8,
    place: Place,
    plain: Zeroizing<Vec<u8>>,
    key: &AeadKey,
    iv: u64,
) -> Result<Vec<u8>, TooLong> {
    let first = if place.number == 1 { first } else { kind::NONE };
    let mut fields = [0; FIELDS];
    fields[..2].copy_from_slice(&place.number.to_be_bytes());
    fields[2..].copy_from_slice(&place.total.to_be_bytes());
    let kind = kind::ENCRYPTED_FRAGMENT;
    seal_as(kind, header, first, &fields, plain, key, iv)
}

/// Opens one part: yields the type of the message's first inner payload (of use in part 1) and the
/// bytes of this part.
///
/// # Errors
/// No fragment, or the payload is not the last; the tag is wrong; the padding is.
pub fn open(
    header: &Header,
    datagram: &[u8],
    key: &AeadKey,
) -> Result<(u8, Zeroizing<Vec<u8>>), Unopened> {
    if header.next != kind::ENCRYPTED_FRAGMENT {
        return Err(Unopened::Plain);
    }
    open_as(datagram, FIELDS, key)
}
