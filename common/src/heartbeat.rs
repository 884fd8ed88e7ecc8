//! The heartbeat codec, used by the XDP program and by user space alike.
//!
//! A heartbeat is an ESP header (SPI 0xFFFFFFFF, sequence number) and a payload. Bit 31 of the
//! sequence number tells an answer (1) from a request (0); the low 31 bits are a counter.
//! *Plain form*: any payload; the answer is the same packet in the opposite direction with bit 31
//! set and the TTL one lower. *Keyed form*: a payload of 28 bytes, behind which there may be more (a probe of
//! a path's MTU), which is returned as it came:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | `EGH1` |
//! | 4 | SPI that the asker sends on: one of the answering gateway's inbound SPIs |
//! | 1 | health of the answering gateway; 0 in a request |
//! | 3 | zero |
//! | 8 | token, unpredictable, chosen by the asker |
//! | 8 | MAC: SipHash-2-4, little endian, under the session's heartbeat key |
//!
//! The MAC covers 24 bytes: sequence number, then the payload without the MAC.

use crate::packet::{Bytes, Esp};
use crate::siphash::{siphash24_of_3, siphash24_of_3_twice};
use crate::wire::{ESP_LEN, SPI_HEARTBEAT};

/// Bit of the sequence number that tells an answer from a request.
pub const ANSWER_BIT: u32 = 1 << 31;
/// First bytes of the keyed form's payload.
pub const MAGIC: [u8; 4] = *b"EGH1";
/// Bytes of the keyed form's payload that count.
pub const KEYED_PAYLOAD_LEN: usize = 28;
/// Bytes of a keyed heartbeat that count, ESP header included; there may be more behind them.
pub const KEYED_LEN: usize = ESP_LEN + KEYED_PAYLOAD_LEN;

/// Offsets of the changing fields from the ESP header on.
pub(crate) const SEQUENCE_OFFSET: usize = 4;
pub(crate) const HEALTH_OFFSET: usize = 16;
pub(crate) const MAC_OFFSET: usize = 28;

/// Health byte: all well.
pub const HEALTH_WELL: u8 = 0;
/// Health bit: the gateway is draining and wants its clients to move.
pub const HEALTH_DRAINING: u8 = 0x01;
/// Health bit: the gateway is overloaded.
pub const HEALTH_OVERLOADED: u8 = 0x02;

/// Whether a sequence number (network order) is an answer's.
#[inline(always)]
pub const fn is_answer(sequence: [u8; 4]) -> bool {
    u32::from_be_bytes(sequence) & ANSWER_BIT != 0
}

/// The sequence number of the answer to a request (both network order).
#[inline(always)]
pub const fn answer_sequence(request: [u8; 4]) -> [u8; 4] {
    (u32::from_be_bytes(request) | ANSWER_BIT).to_be_bytes()
}

/// A keyed heartbeat as it stands on the wire; all fields in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// Sequence number with the answer bit.
    pub sequence: [u8; 4],
    /// SPI that the asker sends on.
    pub spi: [u8; 4],
    /// Health byte and three zeros.
    pub health: [u8; 4],
    /// The asker's token.
    pub token: [u8; 8],
    /// The MAC, right or wrong.
    pub mac: [u8; 8],
}

impl Keyed {
    /// Reads the keyed form from a heartbeat in a frame; `None` if it is of the plain form.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(bytes: &B, esp: &Esp) -> Option<Keyed> {
        if esp.len < KEYED_LEN {
            return None;
        }
        let at = esp.offset + ESP_LEN;
        if bytes.read::<4>(at)? != MAGIC {
            return None;
        }
        Some(Keyed {
            sequence: esp.sequence,
            spi: bytes.read(at + 4)?,
            health: bytes.read(at + 8)?,
            token: bytes.read(at + 12)?,
            mac: bytes.read(at + 20)?,
        })
    }

    /// What the MAC covers.
    #[inline(always)]
    fn words(&self) -> [u64; 3] {
        let word = |high: [u8; 4], low: [u8; 4]| {
            u64::from(u32::from_le_bytes(high)) | u64::from(u32::from_le_bytes(low)) << 32
        };
        [
            word(self.sequence, MAGIC),
            word(self.spi, self.health),
            u64::from_le_bytes(self.token),
        ]
    }

    /// The MAC that the heartbeat should have under `key`.
    #[inline(always)]
    pub fn expected_mac(&self, key: &[u8; 16]) -> [u8; 8] {
        siphash24_of_3(key, self.words()).to_le_bytes()
    }

    /// Whether the MAC is right; compared as one number, so in constant time.
    #[inline(always)]
    pub fn authentic(&self, key: &[u8; 16]) -> bool {
        u64::from_ne_bytes(self.mac) ^ u64::from_ne_bytes(self.expected_mac(key)) == 0
    }

    /// The answer to this request from a gateway of this health.
    #[inline(always)]
    #[must_use]
    pub fn answer(&self, key: &[u8; 16], health: u8) -> Keyed {
        let mut answer = Keyed {
            sequence: answer_sequence(self.sequence),
            health: [health, 0, 0, 0],
            ..*self
        };
        answer.mac = answer.expected_mac(key);
        answer
    }

    /// [`Keyed::authentic`] and [`Keyed::answer`] in one, in less time: the answer of a request that is
    /// authentic.
    #[inline(always)]
    #[must_use]
    pub fn answer_if_authentic(&self, key: &[u8; 16], health: u8) -> Option<Keyed> {
        let mut answer = Keyed {
            sequence: answer_sequence(self.sequence),
            health: [health, 0, 0, 0],
            ..*self
        };
        let (expected, mac) = siphash24_of_3_twice(key, self.words(), answer.words());
        answer.mac = mac.to_le_bytes();
        // As one number, so in constant time.
        match u64::from_le_bytes(self.mac) ^ expected {
            0 => Some(answer),
            _ => None,
        }
    }

    /// The heartbeat from the ESP header on.
    pub fn to_bytes(&self) -> [u8; KEYED_LEN] {
        let mut bytes = [0; KEYED_LEN];
        let fields: [&[u8]; 7] = [
            &SPI_HEARTBEAT.to_be_bytes(),
            &self.sequence,
            &MAGIC,
            &self.spi,
            &self.health,
            &self.token,
            &self.mac,
        ];
        for (slot, byte) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *slot = *byte;
        }
        bytes
    }
}

/// A keyed request from the ESP header on. `counter`: the low 31 bits count. `spi`: the SPI
/// that the asker sends on, network order. `token`: unpredictable, fresh for each request.
pub fn encode_request(
    key: &[u8; 16],
    counter: u32,
    spi: [u8; 4],
    token: [u8; 8],
) -> [u8; KEYED_LEN] {
    let sequence = (counter & !ANSWER_BIT).to_be_bytes();
    let mut request = Keyed {
        sequence,
        spi,
        health: [0; 4],
        token,
        mac: [0; 8],
    };
    request.mac = request.expected_mac(key);
    request.to_bytes()
}

/// The ESP header of a plain request; any payload may follow. `counter`: the low 31 bits count.
pub fn encode_plain(counter: u32) -> [u8; ESP_LEN] {
    let [a, b, c, d] = SPI_HEARTBEAT.to_be_bytes();
    let [e, f, g, h] = (counter & !ANSWER_BIT).to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

/// An answer that proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Counter of the request, 31 bits.
    pub counter: u32,
    /// SPI that the asker sends on, network order.
    pub spi: [u8; 4],
    /// The gateway's health byte.
    pub health: u8,
    /// Token of the request.
    pub token: [u8; 8],
}

/// Why bytes are not the heartbeat that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeartbeat {
    /// Not a heartbeat of the keyed form.
    NotKeyed,
    /// A request: the answer bit is 0.
    Request,
    /// An answer, where a request was expected.
    Answer,
    /// The MAC is wrong.
    Mac,
}

impl core::fmt::Display for BadHeartbeat {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            BadHeartbeat::NotKeyed => "not a heartbeat of the keyed form",
            BadHeartbeat::Request => "a request where an answer was expected",
            BadHeartbeat::Answer => "an answer where a request was expected",
            BadHeartbeat::Mac => "a heartbeat whose MAC is wrong",
        })
    }
}

impl core::error::Error for BadHeartbeat {}

/// Reads a keyed heartbeat from its ESP header on (`bytes` ends with the packet), without judging
/// its MAC. Tells which session's key to verify it with.
pub fn decode(bytes: &[u8]) -> Option<Keyed> {
    let head: [u8; ESP_LEN] = bytes.read(0)?;
    let [a, b, c, d, e, f, g, h] = head;
    if u32::from_be_bytes([a, b, c, d]) != SPI_HEARTBEAT {
        return None;
    }
    let esp = Esp {
        spi: [a, b, c, d],
        sequence: [e, f, g, h],
        offset: 0,
        len: bytes.len(),
        udp: None,
    };
    Keyed::read(bytes, &esp)
}

/// Verifies a keyed answer from its ESP header on. Whether it answers a request that was sent
/// (counter and token) is for the caller to judge.
///
/// # Errors
/// [`BadHeartbeat`] if it is not of the keyed form, not an answer, or not authentic.
pub fn verify_answer(bytes: &[u8], key: &[u8; 16]) -> Result<Answer, BadHeartbeat> {
    let heartbeat = decode(bytes).ok_or(BadHeartbeat::NotKeyed)?;
    if !is_answer(heartbeat.sequence) {
        return Err(BadHeartbeat::Request);
    }
    if !heartbeat.authentic(key) {
        return Err(BadHeartbeat::Mac);
    }
    let [health, ..] = heartbeat.health;
    Ok(Answer {
        counter: u32::from_be_bytes(heartbeat.sequence) & !ANSWER_BIT,
        spi: heartbeat.spi,
        health,
        token: heartbeat.token,
    })
}

/// Answers a keyed request from its ESP header on, as a gateway does; for user space that has no
/// XDP program in front.
///
/// # Errors
/// [`BadHeartbeat`] if it is not of the keyed form, an answer itself, or not authentic.
pub fn answer(bytes: &[u8], key: &[u8; 16], health: u8) -> Result<[u8; KEYED_LEN], BadHeartbeat> {
    let request = decode(bytes).ok_or(BadHeartbeat::NotKeyed)?;
    if is_answer(request.sequence) {
        return Err(BadHeartbeat::Answer);
    }
    if !request.authentic(key) {
        return Err(BadHeartbeat::Mac);
    }
    Ok(request.answer(key, health).to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher24;

    const KEY: [u8; 16] = *b"0123456789abcdef";
    const TOKEN: [u8; 8] = *b"unguess.";

    #[test]
    fn a_request_has_the_documented_bytes() {
        let bytes = encode_request(&KEY, 0x8000_0007, [1, 2, 3, 4], TOKEN);
        assert_eq!(bytes[..8], [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 7]);
        assert_eq!(&bytes[8..12], b"EGH1");
        assert_eq!(bytes[12..20], [1, 2, 3, 4, 0, 0, 0, 0]);
        assert_eq!(bytes[20..28], TOKEN);
        let mut oracle = SipHasher24::new_with_key(&KEY);
        oracle.write(&bytes[4..28]);
        assert_eq!(bytes[28..], oracle.finish().to_le_bytes());
    }

    #[test]
    fn an_answer_verifies_and_a_request_does_not() {
        let request = encode_request(&KEY, 7, [1, 2, 3, 4], TOKEN);
        assert_eq!(verify_answer(&request, &KEY), Err(BadHeartbeat::Request));
        let answered = answer(&request, &KEY, HEALTH_DRAINING).unwrap();
        let expected = Answer {
            counter: 7,
            spi: [1, 2, 3, 4],
            health: HEALTH_DRAINING,
            token: TOKEN,
        };
        assert_eq!(verify_answer(&answered, &KEY), Ok(expected));
        assert_eq!(answer(&answered, &KEY, 0), Err(BadHeartbeat::Answer));
        assert_eq!(verify_answer(&answered, &[0; 16]), Err(BadHeartbeat::Mac));
        assert_eq!(answer(&request, &[0; 16], 0), Err(BadHeartbeat::Mac));
    }

    proptest! {
        #[test]
        fn one_flipped_bit_is_noticed(counter: u32, spi: [u8; 4], bit in 0usize..KEYED_LEN * 8) {
            let request = encode_request(&KEY, counter, spi, TOKEN);
            let mut answered = answer(&request, &KEY, 0).unwrap();
            answered[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_answer(&answered, &KEY).is_err());
        }

        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(verify_answer(&bytes, &KEY).is_err());
        }
    }
}
