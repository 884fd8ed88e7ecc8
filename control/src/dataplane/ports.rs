//! The ports of a worker, and the doors by which frames leave it.

use std::time::Instant;

use evergate_common::reason::Counter;

use super::core::{Core, Way};
use super::net::icmp::RateLimit;
use super::net::segment::Segment;
use super::net::slow::SlowPath;
use super::tun::Tun;
use super::udp::UdpPort;
use super::xsk::{Frame, Socket, Umem};

/// Packets a second that the kernel is handed while a next hop is unresolved, and at once.
const SLOW_RATE: (u32, u32) = (2000, 256);

/// The outside of a node.
pub(super) enum Outside {
    /// An interface with an XDP program: one socket for each queue, and a way for ESP whose next hop the
    /// kernel has to resolve.
    Nic(Vec<Socket>, SlowPath),
    /// A UDP socket.
    Udp(Box<UdpPort>),
}

/// The inside of a node.
pub(super) enum Inside {
    /// A gateway's LAN interface.
    Nic(Vec<Socket>),
    /// A TUN device that the kernel forwards to on a gateway, and the stations of its LAN.
    Routed(Tun, Segment),
    /// A client's TUN device.
    Tun(Tun),
}

impl Inside {
    /// Name of the TUN device, if there is one.
    pub(super) fn tun_name(&self) -> Option<&str> {
        match self {
            Self::Nic(_) => None,
            Self::Tun(tun) | Self::Routed(tun, _) => Some(tun.name()),
        }
    }
}

/// Everything that a worker receives from and sends to.
pub(super) struct Ports {
    pub(super) outside: Outside,
    pub(super) inside: Inside,
    /// For inner packets whose next hop the kernel has to resolve; a TUN device needs none.
    slow_inside: Option<SlowPath>,
    slow_rate: RateLimit,
}

impl Ports {
    pub(super) fn new(
        outside: Outside,
        inside: Inside,
        slow_inside: Option<SlowPath>,
        now: Instant,
    ) -> Self {
        let slow_rate = RateLimit::new(SLOW_RATE.0, SLOW_RATE.1, now);
        Self {
            outside,
            inside,
            slow_inside,
            slow_rate,
        }
    }

    /// Lets a frame out. Every frame leaves by exactly one door.
    pub(super) fn deliver(&mut self, core: &mut Core, umem: &mut Umem, frame: Frame, way: Way) {
        let refused = match way {
            Way::Outside => match &mut self.outside {
                Outside::Nic(sockets, _) => {
                    send(sockets, frame).map_err(|f| (f, Counter::TxRingFull))
                }
                Outside::Udp(_) => Err((frame, Counter::NoNeighbour)),
            },
            Way::Inside => match &mut self.inside {
                Inside::Nic(sockets) => send(sockets, frame).map_err(|f| (f, Counter::TxRingFull)),
                Inside::Tun(tun) | Inside::Routed(tun, _) => {
                    count(core, Counter::InsideRefused, tun.send(umem, frame));
                    Ok(())
                }
            },
            Way::Lan => match &mut self.inside {
                Inside::Nic(sockets) => send(sockets, frame).map_err(|f| (f, Counter::TxRingFull)),
                Inside::Routed(_, segment) => match segment.send(umem.packet(&frame)) {
                    Ok(()) => {
                        umem.free(frame);
                        Ok(())
                    }
                    Err(_) => Err((frame, Counter::InsideRefused)),
                },
                Inside::Tun(_) => Err((frame, Counter::NotOurs)),
            },
            Way::SlowOutside => match &mut self.outside {
                Outside::Nic(_, path) if self.slow_rate.allow(core.now) => {
                    slow(Some(path), core, umem, frame)
                }
                Outside::Nic(..) => Err((frame, Counter::SlowPathFull)),
                Outside::Udp(port) => {
                    count_refused(core, port.send(umem, frame));
                    Ok(())
                }
            },
            Way::SlowInside if self.slow_rate.allow(core.now) => {
                slow(self.slow_inside.as_mut(), core, umem, frame)
            }
            Way::SlowInside => Err((frame, Counter::SlowPathFull)),
            Way::Hold(group) => core.hold(group, frame).map_err(|f| (f, Counter::QueueFull)),
            Way::Done => {
                umem.free(frame);
                Ok(())
            }
            Way::Drop(reason) => Err((frame, reason)),
        };
        if let Err((frame, reason)) = refused {
            core.count(reason);
            umem.free(frame);
        }
    }

    /// Wakes the kernel for what was sent, takes back what it has sent, and gives it frames to
    /// receive into. Says whether frames still wait for being sent.
    pub(super) fn kick(&mut self, core: &mut Core, umem: &mut Umem) -> bool {
        let mut waiting = false;
        let inside: &mut [Socket] = match &mut self.inside {
            Inside::Nic(sockets) => sockets,
            Inside::Tun(tun) | Inside::Routed(tun, _) => {
                count(core, Counter::InsideRefused, tun.flush(umem));
                &mut []
            }
        };
        let outside: &mut [Socket] = match &mut self.outside {
            Outside::Nic(sockets, _) => sockets,
            Outside::Udp(port) => {
                count_refused(core, port.flush(umem));
                &mut []
            }
        };
        for socket in outside.iter_mut().chain(inside) {
            waiting |= socket.kick();
            socket.complete(umem);
            socket.refill(umem);
            socket.wake_receive();
        }
        waiting
    }
}

/// Counts a thing so many times.
fn count(core: &mut Core, what: Counter, times: usize) {
    for _ in 0..times {
        core.count(what);
    }
}

/// Counts what a socket refused.
fn count_refused(core: &mut Core, refused: Option<(Counter, usize)>) {
    if let Some((reason, packets)) = refused {
        count(core, reason, packets);
    }
}

/// Hands a packet to the kernel, which resolves its next hop.
fn slow(
    path: Option<&mut SlowPath>,
    core: &mut Core,
    umem: &mut Umem,
    frame: Frame,
) -> Result<(), (Frame, Counter)> {
    match path.map(|path| path.send(umem.packet(&frame))) {
        Some(Ok(())) => {
            core.count(Counter::SlowPath);
            umem.free(frame);
            Ok(())
        }
        _ => Err((frame, Counter::NoNeighbour)),
    }
}

/// Puts a frame into the first transmit ring that has room.
fn send(sockets: &mut [Socket], mut frame: Frame) -> Result<(), Frame> {
    for socket in sockets {
        match socket.send(frame) {
            Ok(()) => return Ok(()),
            Err(back) => frame = back,
        }
    }
    Err(frame)
}
