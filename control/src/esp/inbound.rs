use std::fmt;
use std::ops::Range;

use super::outbound::{aad, nonce};
use super::{
    Aead, NEXT_DUMMY, NEXT_IPV4, NEXT_IPV6, Refused, SEAL_HEADROOM, Salt, TAG_LEN, Window,
    inner::total_length,
};

/// The least encrypted part: no payload, two bytes of padding, pad length, next header.
const LEAST_DATA: usize = 4;

/// 1, 2, 3, …: what padding must look like, RFC 4303 section 2.4.
const PADDING: [u8; 255] = {
    let mut padding = [0; 255];
    let mut at = 0;
    while at < padding.len() {
        padding[at] = at as u8 + 1;
        at += 1;
    }
    padding
};

/// A security association that receives. It has one owner, who holds its replay window.
pub struct InboundSa {
    spi: [u8; 4],
    aead: Aead,
    salt: Salt,
    esn: bool,
    window: Window,
    /// The last number that may be accepted.
    lease: u64,
    packets: u64,
    bytes: u64,
}

/// A packet that was authentic, new and well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where the inner packet lies in the buffer, without padding of any kind.
    pub inner: Range<usize>,
    /// [`NEXT_IPV4`], [`NEXT_IPV6`] or [`NEXT_DUMMY`]; the inner packet has that IP version.
    pub next_header: u8,
    /// The sequence number, extended to 64 bits with ESN.
    pub sequence: u64,
}

impl Opened {
    /// Whether this is a dummy: it proves that the peer is alive, and is then to be dropped in
    /// silence (RFC 4303 section 2.6). What `inner` holds means nothing.
    #[must_use]
    pub fn is_dummy(&self) -> bool {
        self.next_header == NEXT_DUMMY
    }
}

impl InboundSa {
    /// Makes a receiver with `window`, which is empty for a fresh key and resumed for an SA that
    /// was taken over.
    #[must_use]
    pub fn new(spi: u32, aead: Aead, salt: Salt, esn: bool, window: Window) -> Self {
        Self {
            spi: spi.to_be_bytes(),
            aead,
            salt,
            esn,
            window,
            lease: u64::MAX,
            packets: 0,
            bytes: 0,
        }
    }

    /// The SPI that the packets carry.
    #[must_use]
    pub fn spi(&self) -> u32 {
        u32::from_be_bytes(self.spi)
    }

    /// The highest sequence number accepted; 0 before the first packet.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.window.top()
    }

    /// Sets the last sequence number that this receiver may accept, the end of its lease. There is no
    /// lease at first.
    pub fn set_limit(&mut self, last: u64) {
        self.lease = last;
    }

    /// Whether there is a lease.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.lease != u64::MAX
    }

    /// Which of the last 64 numbers up to [`InboundSa::sequence`] were not accepted: bit n for the one n
    /// below it.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.window.missing()
    }

    /// Authentic packets, dummies included.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Bytes of inner packets opened.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Goes on behind `sequence`, as if all numbers up to it had been seen. Never goes back.
    pub fn resume(&mut self, sequence: u64) {
        self.window.resume(sequence);
    }

    /// Goes on where another receiver with this key stopped: all numbers up to `sequence` count as seen, but
    /// for those of which `missing` has a bit, as [`InboundSa::missing`] yields it. For a receiver that has
    /// seen nothing; any other one never goes back.
    pub fn take_over(&mut self, sequence: u64, missing: u64) {
        self.window.resume_without(sequence, missing);
    }

    /// Whether the peer itself sent this ESP packet, from SPI to ICV, and its number. Neither a lease nor the
    /// window has a say, and nothing is accepted: it is for a copy of a packet that has to wait, which it
    /// leaves of no use.
    ///
    /// # Errors
    /// [`Refused::TooShort`], [`Refused::WrongSpi`], [`Refused::BadIcv`].
    pub fn verify(&mut self, packet: &mut [u8]) -> Result<u64, Refused> {
        let (header, data_and_icv) = packet
            .split_first_chunk_mut::<SEAL_HEADROOM>()
            .ok_or(Refused::TooShort)?;
        if data_and_icv.len() < LEAST_DATA + TAG_LEN {
            return Err(Refused::TooShort);
        }
        let [s0, s1, s2, s3, q0, q1, q2, q3, iv @ ..] = *header;
        if [s0, s1, s2, s3] != self.spi {
            return Err(Refused::WrongSpi);
        }
        let low = u32::from_be_bytes([q0, q1, q2, q3]);
        let extended = self.esn.then(|| self.window.extend(low)).flatten();
        let sequence = extended.unwrap_or(low.into());
        let (aad, aad_len) = aad(&self.spi, sequence, self.esn);
        let nonce = nonce(&self.salt, &iv);
        let slept = self.aead.sleeps();
        let opened = self
            .aead
            .open_in_place(&nonce, &aad[..aad_len], data_and_icv);
        if slept && opened.is_err() {
            self.aead.sleep();
        }
        opened.map(|_| sequence)
    }

    /// Gives back what only traffic needs, until the next authentic packet, for which it is allocated
    /// again. Numbers up to the highest one accepted are not accepted any more.
    pub fn sleep(&mut self) {
        self.aead.sleep();
        self.window.sleep();
    }

    /// Whether the next packet allocates.
    #[must_use]
    pub fn sleeps(&self) -> bool {
        self.aead.sleeps()
    }

    /// Checks and decrypts in place the ESP packet at `esp`, from SPI to ICV. An [`Refused::BadIcv`]
    /// leaves nothing of use in the buffer.
    ///
    /// # Errors
    /// Any of the reasons from [`Refused::TooShort`] to [`Refused::InnerMalformed`]; only those
    /// after [`Refused::BadIcv`] mean that the peer itself sent the packet. [`Refused::LeaseExhausted`] says
    /// nothing about it, and leaves it as it was: it can be opened once the lease goes further.
    #[inline]
    pub fn open(&mut self, buf: &mut [u8], esp: Range<usize>) -> Result<Opened, Refused> {
        let data_start = esp
            .start
            .checked_add(SEAL_HEADROOM)
            .ok_or(Refused::TooShort)?;
        let packet = buf.get_mut(esp).ok_or(Refused::TooShort)?;
        let (header, data_and_icv) = packet
            .split_first_chunk_mut::<SEAL_HEADROOM>()
            .ok_or(Refused::TooShort)?;
        if data_and_icv.len() < LEAST_DATA + TAG_LEN {
            return Err(Refused::TooShort);
        }
        let [s0, s1, s2, s3, q0, q1, q2, q3, iv @ ..] = *header;
        if [s0, s1, s2, s3] != self.spi {
            return Err(Refused::WrongSpi);
        }
        let low = u32::from_be_bytes([q0, q1, q2, q3]);
        let sequence = match self.esn {
            true => self.window.extend(low).ok_or(Refused::TooOld)?,
            false => low.into(),
        };
        // Saves the work on packets that can not pass; the verdict falls after authentication.
        self.window.check(sequence)?;
        if sequence > self.lease {
            return Err(Refused::LeaseExhausted);
        }

        let (aad, aad_len) = aad(&self.spi, sequence, self.esn);
        let nonce = nonce(&self.salt, &iv);
        let slept = self.aead.sleeps();
        let opened = self
            .aead
            .open_in_place(&nonce, &aad[..aad_len], data_and_icv);
        if slept && opened.is_err() {
            // Only what the peer sent takes memory.
            self.aead.sleep();
        }
        let len = opened?;
        //= rfc4303#section-3.4.3
        //# The receive window is updated only if the integrity verification succeeds.
        self.window.accept(sequence)?;
        self.packets = self.packets.saturating_add(1);

        let data = data_and_icv.get(..len).ok_or(Refused::TooShort)?;
        let (payload, next_header) = strip(data)?;
        let inner_len = match next_header {
            NEXT_IPV4 | NEXT_IPV6 => {
                //= rfc4303#section-2.7
                // Bytes behind the inner packet are padding for traffic flow confidentiality.
                let version = if next_header == NEXT_IPV4 { 4 } else { 6 };
                total_length(payload, version).ok_or(Refused::InnerMalformed)?
            }
            NEXT_DUMMY => payload.len(),
            _ => return Err(Refused::BadNextHeader),
        };
        if next_header != NEXT_DUMMY {
            self.bytes = self.bytes.saturating_add(inner_len as u64);
        }
        Ok(Opened {
            inner: data_start..data_start + inner_len,
            next_header,
            sequence,
        })
    }
}

impl fmt::Debug for InboundSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "InboundSa(spi {:#010x}, sequence {})",
            self.spi(),
            self.sequence()
        )
    }
}

/// Takes the trailer off: the payload, and the next header.
fn strip(data: &[u8]) -> Result<(&[u8], u8), Refused> {
    let (padded, [pad, next_header]) = data.split_last_chunk().ok_or(Refused::TooShort)?;
    let pad = usize::from(*pad);
    let end = padded.len().checked_sub(pad).ok_or(Refused::BadPadding)?;
    let (payload, padding) = padded.split_at(end);
    //= rfc4303#section-2.4
    //# When this padding scheme is employed, the receiver SHOULD inspect the Padding field.
    if PADDING.get(..pad) != Some(padding) {
        return Err(Refused::BadPadding);
    }
    Ok((payload, *next_header))
}

#[cfg(test)]
mod tests {
    use crate::esp::tests::{pair, seal, v4_packet};
    use crate::esp::{NEXT_IPV4, Refused};

    #[test]
    fn verifying_says_who_sent_a_packet_and_accepts_none() {
        for esn in [false, true] {
            let (mut out, mut inb) = pair(esn, 6);
            let packet = seal(&mut out, &v4_packet(40), NEXT_IPV4);
            inb.set_limit(0);
            assert_eq!(inb.verify(&mut packet.clone()), Ok(7));
            // Again, and whatever was seen.
            assert_eq!(inb.verify(&mut packet.clone()), Ok(7));
            assert_eq!((inb.sequence(), inb.packets(), inb.missing()), (6, 0, 0));
            for at in 0..packet.len() {
                let mut forged = packet.clone();
                forged[at] ^= 1;
                let refused = inb.verify(&mut forged);
                let wanted = if at < 4 {
                    Refused::WrongSpi
                } else {
                    Refused::BadIcv
                };
                assert_eq!(refused, Err(wanted), "byte {at}");
            }
            for length in 0..packet.len() {
                assert!(inb.verify(&mut packet[..length].to_vec()).is_err());
            }
        }
    }

    #[test]
    fn a_forged_packet_does_not_wake_a_receiver() {
        let (mut out, mut inb) = pair(true, 0);
        let packet = seal(&mut out, &v4_packet(40), NEXT_IPV4);
        let mut forged = packet.clone();
        *forged.last_mut().expect("not empty") ^= 1;
        assert!(inb.verify(&mut forged).is_err() && inb.sleeps());
        assert!(inb.verify(&mut packet.clone()).is_ok() && !inb.sleeps());
    }
}
