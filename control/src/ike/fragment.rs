//! Messages in parts (RFC 7383): cut so that no datagram is fragmented by IP, whose fragments many
//! networks drop, and put together again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::crypto::{AeadKey, IV, TAG};
use super::payload::header::{HEADER, Header};
use super::payload::skf::{self, Place};
use super::payload::{GENERIC_HEADER, TooLong, sk};

/// A message is put together from at most so many parts.
pub const MOST_FRAGMENTS: u16 = 128;
/// It has at most so many bytes, the most that one Encrypted payload can hold.
pub const MOST_BYTES: usize = 65_535;
/// Of a peer that is not authenticated yet: room for a chain of certificates.
pub const MOST_BYTES_UNAUTHENTICATED: usize = 16_384;
/// A message that is not complete so long after its first part is dropped. The sender repeats all
/// parts when it repeats the message.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Headers of IPv4 without options, of IPv6, of UDP, and the non-ESP marker of port 4500. The marker
/// is always reckoned with: ports may change during a session.
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP_AND_MARKER: usize = 8 + 4;

/// Bytes of IKE that fit into an IP packet of `size` bytes to `peer`.
pub fn room(size: u16, peer: IpAddr) -> usize {
    let ip = if peer.is_ipv4() { IPV4 } else { IPV6 };
    usize::from(size).saturating_sub(ip + UDP_AND_MARKER)
}

/// Seals a chain of payloads, in parts if one datagram would be longer than `room` bytes. `None`
/// never cuts. Takes as many initialisation vectors from `iv` as there are datagrams.
///
/// # Errors
/// Longer than one Encrypted payload can be.
pub fn seal(
    header: Header,
    first: u8,
    plain: Zeroizing<Vec<u8>>,
    key: &AeadKey,
    iv: &mut u64,
    room: Option<usize>,
) -> Result<Vec<Vec<u8>>, TooLong> {
    let mut next = || {
        *iv += 1;
        *iv - 1
    };
    let whole = HEADER + GENERIC_HEADER + IV + plain.len() + 1 + TAG;
    let Some(room) = room.filter(|room| whole > *room) else {
        return Ok(vec![sk::seal(header, first, plain, key, next())?]);
    };
    if plain.len() > MOST_BYTES {
        return Err(TooLong::Bytes(plain.len()));
    }
    // However small a packet may be, a part holds something.
    let each = room.saturating_sub(skf::OVERHEAD).max(64);
    let total = plain.len().div_ceil(each);
    let total = u16::try_from(total).map_err(|_| TooLong::Bytes(plain.len()))?;
    plain
        .chunks(each)
        .zip(1..)
        .map(|(part, number)| {
            let part = Zeroizing::new(part.to_vec());
            let place = Place { number, total };
            skf::seal(header, first, place, part, key, next())
        })
        .collect()
}

/// The parts of one message that have come so far. Only authentic ones are kept.
pub struct Reassembly {
    exchange: u8,
    message_id: u32,
    total: u16,
    parts: BTreeMap<u16, Zeroizing<Vec<u8>>>,
    /// Of part 1: the IKE header, and the type of the first inner payload.
    head: Option<([u8; HEADER], u8)>,
    most: usize,
    until: Instant,
}

/// What comes of one more part.
pub enum Added {
    /// The message is not complete.
    Waits,
    /// The type of the first inner payload, the bytes of the inner chain, and the IKE header of part
    /// 1.
    Complete(u8, Zeroizing<Vec<u8>>, [u8; HEADER]),
    /// More than is kept: the message is given up.
    TooMuch,
}

impl Reassembly {
    /// Begins with the message of `header`, which must not be longer than `most` bytes.
    pub fn new(header: &Header, now: Instant, most: usize) -> Reassembly {
        Reassembly {
            exchange: header.exchange,
            message_id: header.message_id,
            total: 0,
            parts: BTreeMap::new(),
            head: None,
            most,
            until: now + PATIENCE,
        }
    }

    /// Bytes kept, without headers.
    pub fn bytes(&self) -> usize {
        self.parts.values().map(|p| p.len()).sum()
    }

    /// When it is given up.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Whether this is the message that `header` belongs to.
    pub fn is_of(&self, header: &Header) -> bool {
        (self.exchange, self.message_id) == (header.exchange, header.message_id)
    }

    /// Whether a part is worth opening: neither here already, nor of an older, coarser cut (RFC 7383
    /// section 2.6).
    pub fn wants(&self, place: Place) -> bool {
        place.total > self.total
            || place.total == self.total && !self.parts.contains_key(&place.number)
    }

    /// Takes an authentic part that is wanted. `datagram` is where it came from, `first` what it
    /// says of the first inner payload.
    pub fn add(
        &mut self,
        place: Place,
        datagram: &[u8],
        first: u8,
        part: Zeroizing<Vec<u8>>,
    ) -> Added {
        if !self.wants(place) {
            return Added::Waits;
        }
        if place.total > self.total {
            // The peer has cut the message anew, into smaller parts: those of before do not fit.
            self.parts.clear();
            self.head = None;
            self.total = place.total;
        }
        let bytes = self.bytes() + part.len();
        if place.total > MOST_FRAGMENTS || bytes > self.most {
            return Added::TooMuch;
        }
        if place.number == 1 {
            let header = datagram.first_chunk::<HEADER>();
            self.head = header.map(|header| (*header, first));
        }
        self.parts.insert(place.number, part);
        let Some((header, first)) = self.head else {
            return Added::Waits;
        };
        if self.parts.len() < usize::from(self.total) {
            return Added::Waits;
        }
        // Sized at once: a growing vector would leave copies behind.
        let mut whole = Zeroizing::new(Vec::with_capacity(bytes));
        for part in self.parts.values() {
            whole.extend_from_slice(part);
        }
        Added::Complete(first, whole, header)
    }
}

impl fmt::Debug for Reassembly {
    // Not what is in the parts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, total) = (self.parts.len(), self.total);
        write!(f, "Reassembly({parts} of {total})")
    }
}
