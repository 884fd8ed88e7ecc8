//! Between payloads and datagrams of one IKE SA: which key protects a message, in how many parts it
//! goes, and what IKE_INTERMEDIATE makes of both.

use std::time::Instant;

use zeroize::Zeroizing;

use super::super::crypto::AeadKey;
use super::super::fragment::{self, Added, Reassembly};
use super::super::payload::header::{HEADER, Header, VERSION, exchange};
use super::super::payload::skf::{self, Place};
use super::super::payload::{GENERIC_HEADER, Payload, TooLong, kind, sk, write_chain};
use super::super::state::{Core, Phase};
use super::super::task::Cx;
use super::Sa;

/// A protected message, opened and put together.
pub(super) struct Opened {
    /// Type of the first inner payload.
    pub(super) first: u8,
    /// The chain of inner payloads. Of a message that is not waited for: this part of it.
    pub(super) plain: Zeroizing<Vec<u8>>,
    /// The message itself, or its part 1.
    pub(super) leads: bool,
    /// The IKE header of either.
    header: [u8; HEADER],
}

/// Messages on their way into one SA.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// A request and a response, as far as they have come.
    parts: [Option<Box<Reassembly>>; 2],
    /// What opened messages before the keys changed, as long as the last request may be repeated.
    previous: Option<AeadKey>,
}

impl Incoming {
    /// When the first unfinished message is given up.
    pub(super) fn until(&self) -> Option<Instant> {
        self.parts.iter().flatten().map(|r| r.until()).min()
    }

    /// Gives up what is overdue; yields how many messages that were.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let overdue =
            |slot: &&mut Option<Box<Reassembly>>| slot.as_ref().is_some_and(|r| r.until() <= now);
        let mut count = 0;
        for slot in self.parts.iter_mut().filter(overdue) {
            *slot = None;
            count += 1;
        }
        count
    }

    /// A later request is there: the one before will not come again.
    pub(super) fn forget_previous(&mut self) {
        self.previous = None;
    }
}

impl Sa {
    /// Writes a message: one datagram, or several if it is protected, the peer takes parts, and it
    /// would not fit.
    pub(super) fn write(
        &mut self,
        exchange: u8,
        response: bool,
        message_id: u32,
        payloads: &[Payload],
    ) -> Result<Vec<Vec<u8>>, TooLong> {
        let header = self.header(exchange, response, message_id);
        if header.begins() || self.core.keys.is_none() {
            return Ok(vec![sk::write_plain(header, payloads)?]);
        }
        let mut plain = Zeroizing::new(Vec::new());
        let first = write_chain(payloads, &mut plain)?;
        if exchange == exchange::IKE_INTERMEDIATE {
            let mut raw = Vec::with_capacity(HEADER);
            header.write(&mut raw);
            if let Some(raw) = raw.first_chunk() {
                let head = covered_head(raw, first, plain.len());
                self.core.cover(true, &[&head, &plain]);
            }
        }
        let Some(keys) = &self.core.keys else {
            return Ok(Vec::new());
        };
        let remote = self.core.remote.ip();
        let room = self.core.fragment_size.map(|s| fragment::room(s, remote));
        fragment::seal(header, first, plain, &keys.seal, &mut self.iv, room)
    }

    fn header(&self, exchange: u8, response: bool, message_id: u32) -> Header {
        let Core {
            spi_i,
            spi_r,
            initiator,
            ..
        } = self.core;
        Header {
            spi_i,
            spi_r,
            next: 0,
            version: VERSION,
            exchange,
            initiator,
            response,
            message_id,
        }
    }

    /// Opens a protected message. `None` if it is not authentic, or not complete yet: the former is
    /// counted.
    pub(super) fn open(
        &mut self,
        header: &Header,
        datagram: &[u8],
        cx: &mut Cx<'_>,
    ) -> Option<Opened> {
        let keys = self.core.keys.as_ref()?;
        let raw = *datagram.first_chunk::<HEADER>()?;
        let is_part = header.next == kind::ENCRYPTED_FRAGMENT && self.core.fragment_size.is_some();
        let place = match is_part.then(|| Place::parse(datagram)).transpose() {
            Ok(place) => place,
            Err(_) => {
                cx.stats.malformed += 1;
                return None;
            }
        };
        let slot = usize::from(header.response);
        let waited_for = self.is_waited_for(header);
        let parts = self.incoming.parts.get_mut(slot)?;
        // Not even a look at what is here already, or belongs to an older cut (RFC 7383 section
        // 2.6).
        let kept = parts.as_ref().filter(|r| waited_for && r.is_of(header));
        if let (Some(place), Some(kept)) = (place, kept)
            && !kept.wants(place)
        {
            cx.stats.fragments_unwanted += 1;
            return None;
        }
        let open = |key| match place {
            Some(_) => skf::open(header, datagram, key),
            None => sk::open(header, datagram, key),
        };
        let opened = match (open(&keys.open), &self.incoming.previous) {
            (Err(sk::Unopened::BadTag), Some(previous)) if !waited_for => open(previous),
            (opened, _) => opened,
        };
        let (first, plain) = match opened {
            Ok(opened) => opened,
            Err(unopened) => {
                match unopened {
                    sk::Unopened::Plain => cx.stats.unprotected += 1,
                    sk::Unopened::BadTag => cx.stats.bad_tag += 1,
                    sk::Unopened::Malformed(_) => cx.stats.malformed += 1,
                }
                return None;
            }
        };
        self.core.export_keys(cx);
        let whole = |first, plain, header, leads| {
            Some(Opened {
                first,
                plain,
                leads,
                header,
            })
        };
        let Some(place) = place.filter(|_| waited_for) else {
            if waited_for {
                // Whole after all (RFC 7383 section 2.6): its parts are of no use.
                *parts = None;
            }
            return whole(first, plain, raw, place.is_none_or(|p| p.number == 1));
        };
        cx.stats.fragments_received += 1;
        let most = match self.core.phase {
            Phase::HalfOpen | Phase::Opening => fragment::MOST_BYTES_UNAUTHENTICATED,
            _ => fragment::MOST_BYTES,
        };
        let begin = || Box::new(Reassembly::new(header, cx.now, most));
        let mut kept = parts
            .take()
            .filter(|r| r.is_of(header))
            .unwrap_or_else(begin);
        match kept.add(place, datagram, first, plain) {
            Added::Waits => {
                *parts = Some(kept);
                None
            }
            Added::Complete(first, plain, header) => whole(first, plain, header, true),
            Added::TooMuch => {
                cx.stats.fragments_refused += 1;
                None
            }
        }
    }

    /// Whether this is the response or the request that comes next.
    fn is_waited_for(&self, header: &Header) -> bool {
        let id = header.message_id;
        if header.response {
            let pending = self.pending.as_ref();
            return pending.is_some_and(|p| p.id == id && p.task.exchange() == header.exchange);
        }
        self.is_next(id) && !matches!(self.core.phase, Phase::Opening | Phase::Ended)
    }

    /// Notes a message of IKE_INTERMEDIATE for AUTH, before it is read.
    pub(super) fn cover_received(&mut self, header: &Header, opened: &Opened) {
        let in_place = header.response || self.core.awaits_intermediate();
        if header.exchange == exchange::IKE_INTERMEDIATE && in_place {
            let head = covered_head(&opened.header, opened.first, opened.plain.len());
            self.core.cover(false, &[&head, &opened.plain]);
        }
    }

    /// Takes the keys that an exchange has made, once it is over.
    pub(super) fn change_keys(&mut self) {
        if let Some(next) = self.core.next_keys.take() {
            let before = self.core.keys.replace(*next);
            // Only a responder is asked again what it has answered.
            let before = before.filter(|_| !self.core.initiator);
            self.incoming.previous = before.map(|keys| keys.open);
        }
    }
}

/// The headers of a message as AUTH covers them (RFC 9242 section 3.3.2): those of a message in one
/// part, with lengths that count neither initialisation vector, padding nor tag.
fn covered_head(header: &[u8; HEADER], first: u8, plain: usize) -> Vec<u8> {
    /// Where the IKE header has the type of its first payload.
    const NEXT: usize = 16;
    let mut head = header.to_vec();
    head[NEXT] = kind::ENCRYPTED;
    head.extend_from_slice(&[first, 0]);
    // A chain of 65,532 bytes or more does not fit into an Encrypted payload.
    let length = u16::try_from(GENERIC_HEADER + plain).unwrap_or(u16::MAX);
    head.extend_from_slice(&length.to_be_bytes());
    let whole = u32::try_from(head.len() + plain).unwrap_or(u32::MAX);
    head[HEADER - 4..HEADER].copy_from_slice(&whole.to_be_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_covered_of_the_headers() {
        // A part of a message: its next payload and length are not those of the message.
        let mut header = [0x11; HEADER];
        header[16..].copy_from_slice(&[53, 0x20, 43, 0x08, 0, 0, 0, 1, 0, 0, 2, 88]);
        let mut expected = [0x11; HEADER + 4];
        // 28 + 4 + 1192 bytes, in an Encrypted payload with a Key Exchange payload first.
        expected[16..28].copy_from_slice(&[46, 0x20, 43, 0x08, 0, 0, 0, 1, 0, 0, 4, 200]);
        expected[28..].copy_from_slice(&[34, 0, 4, 172]);
        assert_eq!(covered_head(&header, 34, 1192), expected);
    }
}
