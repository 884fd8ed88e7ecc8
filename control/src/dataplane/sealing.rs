//! From inside: tunnel lookup, sealing, and what is told to a sender whose packet can not go.

use std::time::Instant;

use evergate_common::packet::{self, Class};
use evergate_common::reason::Counter;

use super::core::{Core, Way, counter, ethernet};
use super::handover::{Door, FIRST};
use super::net::fib::Resolution;
use super::net::fragment::{Cut, may_be_cut};
use super::net::icmp::{self, Problem};
use super::net::mss;
use super::opening::prepend;
use super::parking::Waits;
use super::xsk::{CHUNK, Frame, HEADROOM, Umem};
use crate::esp::{Marks, NEXT_IPV4, NEXT_IPV6, Refused, check_inner, decrement_ttl, parse_inner};

impl Core {
    /// What becomes of a frame from a gateway's LAN interface.
    pub(super) fn take_inside(&mut self, frame: &mut Frame, umem: &mut Umem, now: Instant) -> Way {
        let bytes = &*umem.packet(frame);
        let Ok(parsed) = packet::parse(bytes) else {
            return Way::Drop(Counter::Malformed);
        };
        let Some(ip) = parsed.ip else {
            return match packet::classify(&parsed, bytes) {
                Ok(Class::Arp { .. }) if !self.is_first() => Way::HandOver(FIRST, Door::Lan),
                Ok(Class::Arp { .. }) => self.neighbour_frame(frame, umem, now),
                _ => Way::Drop(Counter::NotOurs),
            };
        };
        if let Ok(Class::Neighbour { .. }) = packet::classify(&parsed, bytes) {
            return match self.is_first() {
                true => self.neighbour_frame(frame, umem, now),
                false => Way::HandOver(FIRST, Door::Lan),
            };
        }
        // What is flooded over the segment is not for us to forward (RFC 1812 section 5.3.4).
        if self
            .lan
            .as_ref()
            .is_none_or(|lan| lan.mac != parsed.mac_destination)
        {
            return Way::Drop(Counter::NotOurs);
        }
        let start = frame.range().start + parsed.l3;
        frame.set_range(start..start + ip.total_len);
        let destination = super::opening::unmapped(ip.destination);
        match self.route_from_lan(frame, umem, destination, now) {
            Ok(way) => way,
            Err(reason) => Way::Drop(reason),
        }
    }

    fn route_from_lan(
        &mut self,
        frame: &mut Frame,
        umem: &mut Umem,
        destination: std::net::IpAddr,
        now: Instant,
    ) -> Result<Way, Counter> {
        let group = self.groups.lookup(destination).ok_or(Counter::NoSession)?;
        // RFC 4301 section 5.1.2.1: who forwards into a tunnel decrements.
        if decrement_ttl(umem.packet(frame)).is_err() {
            self.complain_inside(Problem::TimeExceeded, frame, umem, now);
            return Err(Counter::TtlExpired);
        }
        self.send_to_group(group, frame, umem, now)
    }

    /// What becomes of a packet that the host itself sends, or that the kernel forwards: it has
    /// decremented the TTL then.
    pub(super) fn take_tun(&mut self, frame: &mut Frame, umem: &mut Umem, now: Instant) -> Way {
        let Ok(inner) = parse_inner(umem.packet(frame)) else {
            return Way::Drop(Counter::InnerMalformed);
        };
        let start = frame.range().start;
        frame.set_range(start..start + inner.len);
        let Some(group) = self.groups.lookup(inner.dst) else {
            return Way::Drop(Counter::NoTunnel);
        };
        match self.send_to_group(group, frame, umem, now) {
            Ok(way) => way,
            Err(reason) => Way::Drop(reason),
        }
    }

    /// Seals an inner packet for a group's session, or keeps it until there is one.
    pub(super) fn send_to_group(
        &mut self,
        group: usize,
        frame: &mut Frame,
        umem: &mut Umem,
        now: Instant,
    ) -> Result<Way, Counter> {
        let state = self.groups.get_mut(group).ok_or(Counter::NoSession)?;
        // Its own before one that another worker may have.
        let used = state.rare().lane.or(state.active);
        if let Some(index) = used.and_then(|id| self.sessions.by_id(id)) {
            if let Some(owner) = self.sessions.elsewhere(index) {
                // Two workers that think differently for a moment must not throw it to and fro.
                let owner = if self.from_other && !self.is_first() {
                    FIRST
                } else {
                    owner
                };
                return match self.from_first {
                    true => Err(Counter::NoSession),
                    false => Ok(Way::HandOver(owner, Door::Inner)),
                };
            }
            state.sent = true;
            return self.seal(index, frame, umem, now);
        }
        if !self.is_first() {
            // Who asks for sessions, and keeps what waits for one. What comes from there finds none.
            return match self.from_first {
                true => Err(Counter::NoSession),
                false => Ok(Way::HandOver(FIRST, Door::Inner)),
            };
        }
        let state = self.groups.get_mut(group).ok_or(Counter::NoSession)?;
        if !state.on_demand {
            return Err(Counter::NoSession);
        }
        let rejected = state.rare().rejected_until.is_some_and(|until| now < until);
        self.want(group, now);
        if rejected {
            self.complain_inside(Problem::HostUnreachable, frame, umem, now);
            return Err(Counter::Rejected);
        }
        Ok(Way::Hold(group))
    }

    /// Seals an inner packet for a session and puts the outer headers before it.
    pub(super) fn seal(
        &mut self,
        index: usize,
        frame: &mut Frame,
        umem: &mut Umem,
        now: Instant,
    ) -> Result<Way, Counter> {
        let session = self.sessions.get_mut(index).ok_or(Counter::NoSession)?;
        let mtu = session.mtu as usize;
        let packet = umem.packet(frame);
        let inner = check_inner(
            packet,
            &session.spec.local_inner,
            &session.spec.remote_inner,
        )
        .map_err(counter)?;
        if mtu == 0 {
            // There never was a route to the peer.
            self.complain_inside(Problem::NoRoute, frame, umem, now);
            return Err(Counter::NoRoute);
        }
        if packet.len() > mtu && may_be_cut(packet) {
            return self.seal_in_parts(index, frame, mtu, umem, now);
        }
        if packet.len() > mtu {
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            self.complain_inside(Problem::TooBig { mtu }, frame, umem, now);
            return Err(Counter::TooBig);
        }
        mss::clamp(packet, u16::try_from(mtu).unwrap_or(u16::MAX));
        let marks = Marks::of(packet);
        let length = packet.len();
        let next_header = if inner.dst.is_ipv4() {
            NEXT_IPV4
        } else {
            NEXT_IPV6
        };
        let awake = session.awake().ok_or(Counter::NoSession)?;
        let outbound = awake.outbound.as_mut().ok_or(Counter::NoSession)?;
        let range = frame.range();
        let chunk = umem.chunk_mut(frame);
        let esp = match outbound.seal(chunk, range, next_header) {
            Ok(esp) => esp,
            // It is as it was, its TTL lowered.
            Err(Refused::LeaseExhausted) => {
                let spi = session.spi;
                let lent = session.has_numbers();
                let elsewhere = self.toward_owner(inner.dst).filter(|_| !lent);
                return match elsewhere {
                    // Its sender has not heard yet where the client is.
                    Some(header) => prepend(frame, umem, &header).map(|()| Way::Lan),
                    None => Ok(Way::Park(spi, Waits::Inner)),
                };
            }
            Err(reason) => return Err(counter(reason)),
        };
        let outer = awake.outer.write(chunk, esp, marks).map_err(counter)?;
        session.sent.add(length);
        session.longest = session.longest.max(length as u32);
        let header = session.ethernet;
        if session.spec.shared {
            self.leases.moved(index, session);
        }
        frame.set_range(outer);
        self.count(Counter::EspSealed);
        match header {
            Some(header) => {
                prepend(frame, umem, &header)?;
                Ok(Way::Outside)
            }
            None => Ok(Way::SlowOutside),
        }
    }

    /// Seals an inner packet that is longer than the path carries, but may be cut (RFC 4301 section 8.2),
    /// as fragments.
    fn seal_in_parts(
        &mut self,
        index: usize,
        frame: &mut Frame,
        mtu: usize,
        umem: &mut Umem,
        now: Instant,
    ) -> Result<Way, Counter> {
        let mut copy = [0; CHUNK];
        let whole = copy.get_mut(..frame.len()).ok_or(Counter::TooBig)?;
        whole.copy_from_slice(umem.packet(frame));
        let cut = Cut::plan(whole, mtu).ok_or(Counter::TooBig)?;
        for number in 0..cut.count() {
            let mut part = umem.take().ok_or(Counter::NoFrame)?;
            let room = umem.chunk_mut(&part).get_mut(HEADROOM..CHUNK - HEADROOM);
            let Some(length) = cut.write(number, room.unwrap_or_default()) else {
                umem.free(part);
                return Err(Counter::TooBig);
            };
            part.set_range(HEADROOM..HEADROOM + length);
            let way = self.seal(index, &mut part, umem, now);
            self.push(part, way.unwrap_or_else(Way::Drop));
        }
        self.count(Counter::InnerFragmented);
        Ok(Way::Done)
    }

    /// Sends what a group held, now that it has a session.
    pub(super) fn send_held(&mut self, group: usize, umem: &mut Umem, now: Instant) {
        let Some(index) = self
            .groups
            .get(group)
            .and_then(|state| state.active)
            .and_then(|id| self.sessions.by_id(id))
        else {
            return;
        };
        while let Some(mut frame) = self.groups.next_held(group) {
            if let Some(state) = self.groups.get_mut(group) {
                state.sent = true;
            }
            let way = match self.sessions.elsewhere(index) {
                Some(owner) => Way::HandOver(owner, Door::Inner),
                None => self
                    .seal(index, &mut frame, umem, now)
                    .unwrap_or_else(Way::Drop),
            };
            self.push(frame, way);
        }
    }

    /// Tells the senders of what a group held that it can not go.
    pub(super) fn refuse_held(&mut self, group: usize, umem: &mut Umem, now: Instant) {
        while let Some(frame) = self.groups.next_held(group) {
            self.complain_inside(Problem::HostUnreachable, &frame, umem, now);
            self.push(frame, Way::Drop(Counter::Rejected));
        }
    }

    /// Sends an ICMP error about an inner packet that came from inside, back inside.
    pub(super) fn complain_inside(
        &mut self,
        problem: Problem,
        about: &Frame,
        umem: &mut Umem,
        now: Instant,
    ) {
        let Ok(inner) = parse_inner(umem.packet(about)) else {
            return;
        };
        let (source, header) = match &self.lan {
            // On a host the error seems to come from the destination: the only address of which
            // the kernel surely believes that it comes by the TUN device.
            None => (inner.dst, None),
            Some(lan) => {
                let hop = self.fib.lookup(inner.src);
                let (Some(address), Resolution::Resolved(mac), Some(own)) =
                    (lan.address_like(inner.src), hop.resolution, hop.source_mac)
                else {
                    return;
                };
                if hop.interface != lan.index {
                    return;
                }
                (address, Some(ethernet(mac, own, inner.src.is_ipv6())))
            }
        };
        let Some(mut frame) = self.icmp_frame(problem, source, about, umem, now) else {
            return;
        };
        match header {
            None => self.push(frame, Way::Inside),
            Some(header) => match prepend(&mut frame, umem, &header) {
                Ok(()) => self.push(frame, Way::Lan),
                Err(reason) => self.push(frame, Way::Drop(reason)),
            },
        }
    }

    /// Sends an ICMP error about an inner packet that came out of a session, back through it.
    pub(super) fn complain_to_session(
        &mut self,
        problem: Problem,
        index: usize,
        about: &Frame,
        umem: &mut Umem,
        now: Instant,
    ) {
        let Ok(inner) = parse_inner(umem.packet(about)) else {
            return;
        };
        let source = self
            .lan
            .as_ref()
            .and_then(|lan| lan.address_like(inner.src));
        let Some(source) = source else { return };
        let Some(mut frame) = self.icmp_frame(problem, source, about, umem, now) else {
            return;
        };
        let way = match self.seal(index, &mut frame, umem, now) {
            Ok(way) => way,
            Err(reason) => Way::Drop(reason),
        };
        self.push(frame, way);
    }

    fn icmp_frame(
        &mut self,
        problem: Problem,
        source: std::net::IpAddr,
        about: &Frame,
        umem: &mut Umem,
        now: Instant,
    ) -> Option<Frame> {
        if !self.icmp_rate.allow(now) {
            return None;
        }
        // Whole: whether it may be answered is read from all of it; how much is quoted is `build`'s matter.
        let mut quoted = [0; CHUNK];
        let offending = umem.packet(about);
        let length = offending.len();
        quoted
            .get_mut(..length)?
            .copy_from_slice(offending.get(..length)?);
        let mut frame = umem.take()?;
        let room = umem
            .chunk_mut(&frame)
            .get_mut(HEADROOM..)
            .unwrap_or_default();
        match icmp::build(problem, source, &quoted[..length], room) {
            Ok(length) => {
                frame.set_range(HEADROOM..HEADROOM + length);
                self.count(Counter::IcmpSent);
                Some(frame)
            }
            Err(_) => {
                umem.free(frame);
                None
            }
        }
    }
}
