use std::fmt;
use std::ops::Range;

use super::{
    Aead, ESP_HEADER_LEN, IV_LEN, NEXT_DUMMY, NONCE_LEN, Refused, SEAL_HEADROOM, Salt, TAG_LEN,
};

/// Padding and its length for 0 to 3 bytes of padding (RFC 4303 section 2.4), as the low bytes of a
/// little-endian number. The next header follows.
const TRAILERS: [u64; 4] = [0x00, 0x01_01, 0x02_02_01, 0x03_03_02_01];

/// A security association that sends. It has one owner: two that seal with copies of one key would
/// use nonces twice, so it can not be cloned.
pub struct OutboundSa {
    spi: [u8; 4],
    aead: Aead,
    salt: Salt,
    esn: bool,
    last: u64,
    lease: u64,
    bytes: u64,
}

impl OutboundSa {
    /// Makes a sender. `sequence` is the highest number that this key was ever used with: 0 for a
    /// fresh key, the end of the last lease for one that was taken over.
    #[must_use]
    pub fn new(spi: u32, aead: Aead, salt: Salt, esn: bool, sequence: u64) -> Self {
        let spi = spi.to_be_bytes();
        Self {
            spi,
            aead,
            salt,
            esn,
            last: sequence,
            lease: u64::MAX,
            bytes: 0,
        }
    }

    /// The SPI that the packets carry.
    #[must_use]
    pub fn spi(&self) -> u32 {
        u32::from_be_bytes(self.spi)
    }

    /// The sequence number last used; 0 before the first packet.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.last
    }

    /// Bytes of inner packets sealed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many packets can still be sealed.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.last_possible()
            .min(self.lease)
            .saturating_sub(self.last)
    }

    /// Sets the last sequence number that this sender may use, the end of its lease. There is no
    /// lease at first.
    pub fn set_limit(&mut self, last: u64) {
        self.lease = last;
    }

    /// Whether there is a lease.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.lease != u64::MAX
    }

    /// Skips forward to `sequence`, as if it had been used: the start of a new lease is `sequence
    /// + 1`. Never goes back.
    pub fn skip_to(&mut self, sequence: u64) {
        self.last = self.last.max(sequence);
    }

    /// Gives back what only traffic needs, until the next packet, for which it is allocated again.
    pub fn sleep(&mut self) {
        self.aead.sleep();
    }

    /// Whether the next packet allocates.
    #[must_use]
    pub fn sleeps(&self) -> bool {
        self.aead.sleeps()
    }

    /// Seals the packet at `inner` in place and returns where the ESP packet lies, from SPI to ICV.
    /// It begins [`SEAL_HEADROOM`] bytes before the inner packet and ends at most
    /// [`super::SEAL_TAILROOM`] bytes behind it.
    ///
    /// # Errors
    /// [`Refused::NoRoom`], [`Refused::SequenceExhausted`], [`Refused::LeaseExhausted`]; the buffer
    /// is unchanged then and no sequence number was used.
    #[inline]
    pub fn seal(
        &mut self,
        buf: &mut [u8],
        inner: Range<usize>,
        next_header: u8,
    ) -> Result<Range<usize>, Refused> {
        let len = inner.end.checked_sub(inner.start).ok_or(Refused::NoRoom)?;
        let start = inner
            .start
            .checked_sub(SEAL_HEADROOM)
            .ok_or(Refused::NoRoom)?;
        // The least padding that ends the trailer on four bytes; the ICV is a multiple of four.
        let pad = (len.wrapping_add(2)).wrapping_neg() & 3;
        let end = inner
            .end
            .checked_add(pad + 2 + TAG_LEN)
            .ok_or(Refused::NoRoom)?;
        let packet = buf.get_mut(start..end).ok_or(Refused::NoRoom)?;
        let (header, rest) = packet
            .split_first_chunk_mut::<SEAL_HEADROOM>()
            .ok_or(Refused::NoRoom)?;
        // One store of fixed size: what is too much of it lies where the ICV will.
        let trailer = rest
            .get_mut(len..)
            .and_then(|behind| behind.first_chunk_mut::<8>())
            .ok_or(Refused::NoRoom)?;

        let sequence = self.next()?;
        *trailer = (TRAILERS[pad] | u64::from(next_header) << (8 * (pad + 1))).to_le_bytes();
        let (aad, aad_len) = aad(&self.spi, sequence, self.esn);
        // RFC 4106 section 3.1: any IV that no packet of this key had before; the counter is one.
        let iv = sequence.to_be_bytes();
        let [s0, s1, s2, s3] = self.spi;
        let [.., q0, q1, q2, q3] = iv;
        header[..ESP_HEADER_LEN].copy_from_slice(&[s0, s1, s2, s3, q0, q1, q2, q3]);
        header[ESP_HEADER_LEN..].copy_from_slice(&iv);

        let nonce = nonce(&self.salt, &iv);
        let (data, icv) = rest.split_at_mut(len + pad + 2);
        icv.copy_from_slice(&self.aead.seal_in_place(&nonce, &aad[..aad_len], data)?);
        self.bytes = self.bytes.saturating_add(len as u64);
        Ok(start..end)
    }

    /// Seals a dummy packet (RFC 4303 section 2.6) of `len` zero bytes at `at`; the receiver proves
    /// that it is authentic and discards it.
    ///
    /// # Errors
    /// As for [`OutboundSa::seal`].
    pub fn seal_dummy(
        &mut self,
        buf: &mut [u8],
        at: usize,
        len: usize,
    ) -> Result<Range<usize>, Refused> {
        let end = at.checked_add(len).ok_or(Refused::NoRoom)?;
        buf.get_mut(at..end).ok_or(Refused::NoRoom)?.fill(0);
        self.seal(buf, at..end, NEXT_DUMMY)
    }

    fn next(&mut self) -> Result<u64, Refused> {
        //= rfc4303#section-3.3.3
        //# the sender MUST NOT send a packet on an SA if doing so would cause the sequence number
        //# to cycle.
        if self.last >= self.last_possible() {
            return Err(Refused::SequenceExhausted);
        }
        if self.last >= self.lease {
            return Err(Refused::LeaseExhausted);
        }
        self.last += 1;
        Ok(self.last)
    }

    fn last_possible(&self) -> u64 {
        if self.esn { u64::MAX } else { u32::MAX.into() }
    }
}

impl fmt::Debug for OutboundSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "OutboundSa(spi {:#010x}, sequence {})",
            self.spi(),
            self.last
        )
    }
}

/// The additional data of RFC 4106 section 5: SPI, high half with ESN only, low half; and how much
/// of the array it is. Put together as one number: what is stored in parts is slow to load as a whole.
pub(super) fn aad(spi: &[u8; 4], sequence: u64, esn: bool) -> ([u8; 16], usize) {
    let spi = u128::from(u32::from_be_bytes(*spi)) << 96;
    let sequence = u128::from(sequence);
    match esn {
        true => ((spi | sequence << 32).to_be_bytes(), 12),
        false => ((spi | (sequence & 0xFFFF_FFFF) << 64).to_be_bytes(), 8),
    }
}

/// The nonce of RFC 4106 section 4: salt, then IV.
pub(super) fn nonce(salt: &Salt, iv: &[u8; IV_LEN]) -> [u8; NONCE_LEN] {
    let [s0, s1, s2, s3] = *salt.expose();
    let [i0, i1, i2, i3, i4, i5, i6, i7] = *iv;
    [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]
}
