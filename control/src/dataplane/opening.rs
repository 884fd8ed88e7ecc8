//! From outside: ESP is opened and goes inside, answers to heartbeats go to the watch.

use std::net::IpAddr;
use std::time::Instant;

use evergate_common::heartbeat;
use evergate_common::packet::{self, Class, Esp, Ip};
use evergate_common::reason::Counter;

use super::command::Sending;
use super::core::{Core, ETHERNET, Way, counter};
use super::handover::{Door, FIRST};
use super::hops::Hop;
use super::net::fib::Refusal;
use super::net::icmp::Problem;
use super::net::mss;
use super::xsk::{CHUNK, Frame, HEADROOM, Umem};
use crate::esp::{NEXT_DUMMY, Refused, apply_ecn, check_inner, decrement_ttl};
use crate::sadb::spi_worker;

/// What becomes of a heartbeat that asks.
enum Answer {
    /// This goes out on this session.
    Send(usize, [u8; heartbeat::KEYED_LEN]),
    /// Its session is another worker's.
    Elsewhere(Way),
}

/// A heartbeat from its ESP header on.
fn heartbeat_of<'a>(bytes: &'a [u8], esp: &Esp) -> &'a [u8] {
    let end = (esp.offset + esp.len).min(bytes.len());
    bytes.get(esp.offset..end).unwrap_or_default()
}

impl Core {
    /// What becomes of a frame from the outside interface.
    pub(super) fn take_outside(&mut self, frame: &mut Frame, umem: &mut Umem, now: Instant) -> Way {
        let bytes = &*umem.packet(frame);
        let parsed = match packet::parse(bytes) {
            Ok(parsed) => parsed,
            Err(_) => return Way::Drop(Counter::Malformed),
        };
        let class = match packet::classify(&parsed, bytes) {
            Ok(class) => class,
            Err(_) => return Way::Drop(Counter::Malformed),
        };
        let Some(ip) = parsed.ip else {
            return Way::Drop(Counter::NotOurs);
        };
        match class {
            Class::Esp(esp) => match self.open(frame, umem, &esp, &ip, now) {
                Ok(way) => way,
                Err(reason) => Way::Drop(reason),
            },
            Class::Heartbeat(esp) if !heartbeat::is_answer(esp.sequence) => {
                match self.answer(heartbeat_of(bytes, &esp)) {
                    Ok(Answer::Send(session, answer)) => {
                        self.count(Counter::HeartbeatSteered);
                        // As long as it came: it may be a probe of the path.
                        self.send_heartbeat_bytes(session, &answer, esp.len, umem);
                        Way::Done
                    }
                    Ok(Answer::Elsewhere(way)) => way,
                    Err(reason) => Way::Drop(reason),
                }
            }
            Class::Heartbeat(esp) if self.by_own_port => {
                let heartbeat = heartbeat_of(bytes, &esp);
                match self.own_port_answered(heartbeat, unmapped(ip.source), now) {
                    Ok(()) => Way::Done,
                    Err(reason) => Way::Drop(reason),
                }
            }
            // The first worker asked, and knows what.
            Class::Heartbeat(_) if !self.is_first() => Way::HandOver(FIRST, Door::Outside),
            Class::Heartbeat(esp) => {
                let heartbeat = heartbeat_of(bytes, &esp);
                match self.answered(heartbeat, unmapped(ip.source), now) {
                    Ok(()) => Way::Done,
                    Err(reason) => Way::Drop(reason),
                }
            }
            _ => Way::Drop(Counter::NotOurs),
        }
    }

    fn open(
        &mut self,
        frame: &mut Frame,
        umem: &mut Umem,
        esp: &Esp,
        outer: &Ip,
        now: Instant,
    ) -> Result<Way, Counter> {
        let spi = u32::from_be_bytes(esp.spi);
        let Some(index) = self.sessions.by_spi(spi) else {
            return match self.of_another(spi) {
                Some(way) => Ok(way),
                None => self.wait_for_session(spi, now),
            };
        };
        let session = self.sessions.get_mut(index).ok_or(Counter::UnknownSpi)?;
        let slept = session.awake.is_none();
        let inbound = session.inbound().ok_or(Counter::UnknownSpi)?;
        let start = frame.range().start + esp.offset;
        let chunk = umem.chunk_mut(frame);
        let opened = match inbound.open(chunk, start..start + esp.len) {
            Ok(opened) => opened,
            Err(reason) => {
                let way = match reason {
                    Refused::LeaseExhausted => {
                        self.wait_to_open(index, frame, umem, start..start + esp.len, now)
                    }
                    reason => Err(counter(reason)),
                };
                if slept
                    && way.is_err()
                    && let Some(session) = self.sessions.get_mut(index)
                {
                    // Only what the peer sent takes memory.
                    session.sleep();
                }
                return way;
            }
        };
        let newest = opened.sequence == inbound.sequence();
        session.last_heard = Some(now);
        if session.spec.shared {
            self.leases.moved(index, session);
        }
        let takes_over = session.sending == Sending::WhenHeard;
        if session.spec.gateway.is_some() && !std::mem::replace(&mut session.heard, true) {
            self.heard.push(index);
        }
        if (session.spec.roams || session.spec.own_port) && newest {
            self.follow_peer(index, outer, esp, now);
        }
        let session = self.sessions.get_mut(index).ok_or(Counter::UnknownSpi)?;
        if opened.next_header == NEXT_DUMMY {
            let content = chunk.get(opened.inner).and_then(<[u8]>::first_chunk);
            let content = content.copied();
            if takes_over {
                self.heard_on_successor(index, umem, now);
            }
            self.client_sends(index, now);
            if let Some(content) = content {
                self.heard_dummy(index, content, now);
            }
            self.count(Counter::EspDummy);
            return Ok(Way::Done);
        }
        let packet = chunk
            .get_mut(opened.inner.clone())
            .ok_or(Counter::InnerMalformed)?;
        let inner = check_inner(
            packet,
            &session.spec.remote_inner,
            &session.spec.local_inner,
        )
        .map_err(counter)?;
        apply_ecn(packet, outer.traffic_class).map_err(counter)?;
        session.received.add(packet.len());
        // What comes is as long as what is answered: a download must not hide a black hole.
        session.longest = session.longest.max(packet.len() as u32);
        let mtu = session.mtu;
        frame.set_range(opened.inner);
        if takes_over {
            self.heard_on_successor(index, umem, now);
        }
        self.client_sends(index, now);
        self.count(Counter::EspOpened);
        if self.lan.is_none() {
            // The host itself is the end: nothing is forwarded, so the TTL stays (RFC 4301
            // section 5.1.2.1).
            return Ok(Way::Inside);
        }
        if mtu > 0 {
            mss::clamp(umem.packet(frame), u16::try_from(mtu).unwrap_or(u16::MAX));
        }
        self.forward(frame, umem, index, inner.dst, now)
    }

    /// The worker that may have the session of an SPI that this one has none of.
    fn of_another(&self, spi: u32) -> Option<Way> {
        let owner = spi_worker(spi, self.workers);
        match self.worker {
            me if me != owner && !self.from_first => Some(Way::HandOver(owner, Door::Outside)),
            // What somebody wrote by hand may be the first one's all the same.
            me if me != FIRST && !self.from_first => Some(Way::HandOver(FIRST, Door::Outside)),
            _ => None,
        }
    }

    /// A gateway's way on with what a client sent: to another client, or into the LAN.
    fn forward(
        &mut self,
        frame: &mut Frame,
        umem: &mut Umem,
        from: usize,
        destination: IpAddr,
        now: Instant,
    ) -> Result<Way, Counter> {
        let Some(lan) = &self.lan else {
            return Err(Counter::NoRoute);
        };
        let (index, mtu, routed) = (lan.index, lan.mtu, lan.routed);
        let group = self.groups.lookup(destination);
        // Where the kernel forwards, it decrements.
        let ours = !routed || group.is_some();
        if ours && decrement_ttl(umem.packet(frame)).is_err() {
            self.complain_to_session(Problem::TimeExceeded, from, frame, umem, now);
            return Err(Counter::TtlExpired);
        }
        if let Some(group) = group {
            return self.send_to_group(group, frame, umem, now);
        }
        match self.hops.lookup(&self.fib, index, destination, now) {
            Hop::Ready(header) => {
                if frame.len() > mtu {
                    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                    self.complain_to_session(Problem::TooBig { mtu }, from, frame, umem, now);
                    return Err(Counter::TooBig);
                }
                if !routed {
                    prepend(frame, umem, &header)?;
                }
                Ok(Way::Inside)
            }
            Hop::Unresolved if routed => Ok(Way::Inside),
            // The kernel asks for the neighbour; what follows goes the fast way.
            Hop::Unresolved => Ok(Way::SlowInside),
            Hop::Local => Err(Counter::LocalDestination),
            // A black hole is silent by its operator's wish.
            Hop::Elsewhere(Some(Refusal::Blackhole)) => Err(Counter::NoRoute),
            // Never back to the untrusted side: inner packets leave by the LAN or not at all.
            Hop::Elsewhere(_) => {
                self.complain_to_session(Problem::NoRoute, from, frame, umem, now);
                Err(Counter::NoRoute)
            }
        }
    }

    /// A keyed heartbeat that another gateway of our address has sent on, and that the XDP program has
    /// found good.
    fn answer(&self, bytes: &[u8]) -> Result<Answer, Counter> {
        let keyed = heartbeat::decode(bytes).ok_or(Counter::HeartbeatForm)?;
        let spi = u32::from_be_bytes(keyed.spi);
        let index = self.sessions.by_spi(spi);
        let session = index.and_then(|index| Some((index, self.sessions.get(index)?)));
        let Some((index, session)) = session else {
            let way = self.of_another(spi).ok_or(Counter::HeartbeatUnknownSpi)?;
            return Ok(Answer::Elsewhere(way));
        };
        let key = session.spec.heartbeat_key.as_ref();
        let key = key.ok_or(Counter::HeartbeatForm)?.expose();
        let answer = heartbeat::answer(bytes, key, self.health);
        let answer = answer.map_err(|_| Counter::HeartbeatMac)?;
        Ok(Answer::Send(index, answer))
    }

    /// Sends a heartbeat, or the answer to one, to a session's peer, if there is a frame, with zeros behind
    /// it up to `length`.
    pub(super) fn send_heartbeat_bytes(
        &mut self,
        index: usize,
        bytes: &[u8; heartbeat::KEYED_LEN],
        length: usize,
        umem: &mut Umem,
    ) -> bool {
        let Some(frame) = umem.take() else {
            self.count(Counter::NoFrame);
            return false;
        };
        let at = HEADROOM..HEADROOM + length.clamp(bytes.len(), CHUNK - HEADROOM);
        let room = &mut umem.chunk_mut(&frame)[at.clone()];
        let (head, rest) = room.split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        rest.fill(0);
        self.send_esp(index, frame, at, umem);
        true
    }

    /// An answer to one of our heartbeats.
    fn answered(&mut self, bytes: &[u8], source: IpAddr, now: Instant) -> Result<(), Counter> {
        if let Some(keyed) = heartbeat::decode(bytes) {
            // Of two sessions that take turns, the one that asked.
            let index = self
                .sessions
                .sending_to(source, u32::from_be_bytes(keyed.spi))
                .ok_or(Counter::HeartbeatBadAnswer)?;
            let session = self.sessions.get(index);
            let session = session.ok_or(Counter::HeartbeatBadAnswer)?;
            let key = session
                .spec
                .heartbeat_key
                .as_ref()
                .ok_or(Counter::HeartbeatBadAnswer)?;
            let count = u32::from_be_bytes(keyed.sequence) & !heartbeat::ANSWER_BIT;
            if !heartbeat::is_answer(keyed.sequence) || !keyed.authentic(key.expose()) {
                return Err(Counter::HeartbeatBadAnswer);
            }
            if session.has_asked(count, keyed.token) {
                self.heartbeat_answered(source, count, keyed.health[0], true, now);
                return Ok(());
            }
            return match self.probe_answered(index, count, keyed.token, bytes.len(), now) {
                true => Ok(()),
                false => Err(Counter::HeartbeatBadAnswer),
            };
        }
        // The plain form proves only that something at that address reflects.
        let sequence = bytes.get(4..8).and_then(|s| s.try_into().ok());
        let sequence: [u8; 4] = sequence.ok_or(Counter::HeartbeatBadAnswer)?;
        if !heartbeat::is_answer(sequence) {
            return Err(Counter::HeartbeatBadAnswer);
        }
        let count = u32::from_be_bytes(sequence) & !heartbeat::ANSWER_BIT;
        self.heartbeat_answered(source, count, heartbeat::HEALTH_WELL, false, now);
        Ok(())
    }
}

/// Puts a header before the packet of a frame.
pub(super) fn prepend(
    frame: &mut Frame,
    umem: &mut Umem,
    header: &[u8; ETHERNET],
) -> Result<(), Counter> {
    let range = frame.range();
    let start = range.start.checked_sub(ETHERNET).ok_or(Counter::NoRoom)?;
    umem.chunk_mut(frame)[start..range.start].copy_from_slice(header);
    frame.set_range(start..range.end);
    Ok(())
}

/// An address of the parser as the rest of the program has it.
pub(super) fn unmapped(address: [u8; 16]) -> IpAddr {
    std::net::Ipv6Addr::from(address).to_canonical()
}
