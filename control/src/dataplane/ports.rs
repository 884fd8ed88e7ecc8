//! The ports of a worker, and the doors by which frames leave it.

use std::net::UdpSocket;
use std::time::Instant;

use evergate_common::reason::Counter;

use super::command::Steer;
use super::core::{Core, Way};
use super::handover::Desk;
use super::loader::NodeStateWriter;
use super::net::icmp::RateLimit;
use super::net::segment::Segment;
use super::net::slow::SlowPath;
use super::tun::{MAX_SEGMENTS, Tun};
use super::udp::{Gate, Judged, UdpPort};
use super::worker::BATCH;
use super::xsk::{Frame, Socket, Umem};

/// Packets a second that the kernel is handed while a next hop is unresolved, and at once.
const SLOW_RATE: (u32, u32) = (2000, 256);

/// Frames that one system call sends in copy mode (`TX_BATCH_SIZE` of the kernel): what comes from a TUN device
/// goes on in such portions, or a stream's packets would pile up in front of the next hop.
const SENT_AT_ONCE: usize = 32;

/// The outside of a node.
pub(super) enum Outside {
    /// An interface with an XDP program.
    Nic {
        /// One for each queue.
        sockets: Vec<Socket>,
        /// For ESP whose next hop the kernel has to resolve.
        slow: SlowPath,
        /// What the program knows of this node when it answers heartbeats; the first worker says it.
        state: Option<NodeStateWriter>,
    },
    /// A UDP socket of each worker's own, and what is done instead of such a program.
    Udp { port: Box<UdpPort>, gate: Gate },
}

impl Outside {
    /// How many queues there are to receive from.
    pub(super) fn queues(&self) -> usize {
        match self {
            Self::Nic { sockets, .. } => sockets.len(),
            Self::Udp { port, .. } => port.sockets(),
        }
    }

    /// Takes a batch from a queue, and gives the kernel frames for more. Counts what could not be taken
    /// by `count`. Says whether the queue is empty.
    pub(super) fn receive(
        &mut self,
        queue: usize,
        umem: &mut Umem,
        batch: &mut Vec<Frame>,
        count: impl FnMut(Counter),
    ) -> bool {
        match self {
            Self::Nic { sockets, .. } => sockets.get_mut(queue).is_none_or(|socket| {
                let received = socket.receive(umem, batch, BATCH);
                socket.refill(umem);
                received < BATCH
            }),
            Self::Udp { port, .. } => port.receive(queue, umem, batch, count),
        }
    }

    /// Whether this queue is the socket on the worker's own port.
    pub(super) fn is_own_port(&self, queue: usize) -> bool {
        matches!(self, Self::Udp { .. }) && queue > 0
    }

    /// The port of the worker's own, if it has one.
    pub(super) fn own_port(&self) -> Option<u16> {
        match self {
            Self::Nic { .. } => None,
            Self::Udp { port, .. } => port.own_port(),
        }
    }

    /// Goes on over other sockets. Yields the worker's own port.
    pub(super) fn rebind(
        &mut self,
        umem: &mut Umem,
        socket: UdpSocket,
        own: Option<UdpSocket>,
    ) -> Option<u16> {
        let Self::Udp { port, .. } = self else {
            return None;
        };
        port.rebind(umem, socket, own);
        self.own_port()
    }

    /// Changes what is steered here, where no XDP program does.
    pub(super) fn steer(&mut self, change: Steer) {
        if let Self::Udp { gate, .. } = self {
            gate.steer(change);
        }
    }

    /// What becomes of a frame, where no XDP program has said so.
    pub(super) fn judge(&self, umem: &mut Umem, frame: &mut Frame) -> Judged {
        match self {
            Self::Nic { .. } => Judged::Take(None),
            Self::Udp { gate, .. } => gate.judge(umem, frame),
        }
    }

    /// How many packets a TUN device may hand over at once; none if there is no room for them.
    pub(super) fn room(&self) -> Option<usize> {
        match self {
            Self::Nic { sockets, .. } => {
                let room = sockets.first().map_or(0, Socket::room);
                (room >= SENT_AT_ONCE + MAX_SEGMENTS).then_some(SENT_AT_ONCE)
            }
            Self::Udp { .. } => Some(BATCH),
        }
    }

    /// Heartbeats are answered until this time, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn set_alive_until(&mut self, nanoseconds: u64) {
        match self {
            Self::Nic { state: None, .. } => {}
            Self::Nic {
                state: Some(state), ..
            } => {
                if let Err(error) = state.set_alive_until(nanoseconds) {
                    tracing::warn!("the dead-man switch could not be renewed: {error}");
                }
            }
            Self::Udp { gate, .. } => gate.set_alive_until(nanoseconds),
        }
    }

    /// Whether no heartbeat is to be answered.
    pub(super) fn set_silent(&mut self, silent: bool) {
        match self {
            Self::Nic { state: None, .. } => {}
            Self::Nic {
                state: Some(state), ..
            } => {
                if let Err(error) = state.set_silent(silent) {
                    tracing::warn!("the XDP program could not be told of a link: {error}");
                }
            }
            Self::Udp { gate, .. } => gate.set_silent(silent),
        }
    }
}

/// The inside of a node.
pub(super) enum Inside {
    /// A gateway's LAN interface.
    Nic(Vec<Socket>),
    /// A TUN device that the kernel forwards to on a gateway, and the stations of its LAN; the first worker
    /// hears them, all speak to them.
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
    /// The way to the other workers.
    pub(super) desk: Desk,
    /// For inner packets whose next hop the kernel has to resolve; a TUN device needs none.
    slow_inside: Option<SlowPath>,
    slow_rate: RateLimit,
    /// Rings were full and could not be emptied: it is not tried again before the next kick.
    stuck: bool,
}

impl Ports {
    pub(super) fn new(
        outside: Outside,
        inside: Inside,
        desk: Desk,
        slow_inside: Option<SlowPath>,
        now: Instant,
    ) -> Self {
        let slow_rate = RateLimit::new(SLOW_RATE.0, SLOW_RATE.1, now);
        Self {
            outside,
            inside,
            desk,
            slow_inside,
            slow_rate,
            stuck: false,
        }
    }

    /// Lets a frame out. Every frame leaves by exactly one door.
    pub(super) fn deliver(&mut self, core: &mut Core, umem: &mut Umem, frame: Frame, way: Way) {
        let refused = match way {
            Way::Outside => match &mut self.outside {
                Outside::Nic { sockets, .. } => {
                    let sent = send(sockets, umem, frame, &mut self.stuck);
                    sent.map_err(|f| (f, Counter::TxRingFull))
                }
                Outside::Udp { .. } => Err((frame, Counter::NoNeighbour)),
            },
            Way::Inside => match &mut self.inside {
                Inside::Nic(sockets) => {
                    let sent = send(sockets, umem, frame, &mut self.stuck);
                    sent.map_err(|f| (f, Counter::TxRingFull))
                }
                Inside::Tun(tun) | Inside::Routed(tun, _) => {
                    count(core, Counter::InsideRefused, tun.send(umem, frame));
                    Ok(())
                }
            },
            Way::Lan => match &mut self.inside {
                Inside::Nic(sockets) => {
                    let sent = send(sockets, umem, frame, &mut self.stuck);
                    sent.map_err(|f| (f, Counter::TxRingFull))
                }
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
                Outside::Nic { slow: path, .. } if self.slow_rate.allow(core.now) => {
                    slow(Some(path), core, umem, frame)
                }
                Outside::Nic { .. } => Err((frame, Counter::SlowPathFull)),
                Outside::Udp { port, .. } => {
                    count_refused(core, port.send(umem, frame));
                    Ok(())
                }
            },
            Way::SlowInside if self.slow_rate.allow(core.now) => {
                slow(self.slow_inside.as_mut(), core, umem, frame)
            }
            Way::SlowInside => Err((frame, Counter::SlowPathFull)),
            Way::HandOver(worker, door) => match self.desk.hand_over(worker, frame, door) {
                Ok(()) => {
                    core.count(Counter::HandedOver);
                    Ok(())
                }
                Err(frame) => Err((frame, Counter::HandOverFull)),
            },
            Way::Hold(group) => core.hold(group, frame).map_err(|f| (f, Counter::QueueFull)),
            Way::Park(spi, waits) => core.park(frame, spi, waits),
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

    /// Packets that sockets could not take, since they were opened.
    pub(super) fn lost(&self) -> [(Counter, u64); 2] {
        let outside = match &self.outside {
            Outside::Nic { sockets, .. } => sockets.as_slice(),
            Outside::Udp { .. } => &[],
        };
        let inside = match &self.inside {
            Inside::Nic(sockets) => sockets.as_slice(),
            Inside::Tun(_) | Inside::Routed(..) => &[],
        };
        let all = outside.iter().chain(inside).map(Socket::lost);
        let [full, no_frame] = all.fold([0; 2], |[a, b], [c, d]| [a + c, b + d]);
        [(Counter::RxRingFull, full), (Counter::RxNoFrame, no_frame)]
    }

    /// Has the kernel look into the queues now.
    pub(super) fn look(&mut self) {
        let outside = match &mut self.outside {
            Outside::Nic { sockets, .. } => sockets.as_mut_slice(),
            Outside::Udp { .. } => &mut [],
        };
        let inside = match &mut self.inside {
            Inside::Nic(sockets) => sockets.as_mut_slice(),
            Inside::Tun(_) | Inside::Routed(..) => &mut [],
        };
        outside.iter_mut().chain(inside).for_each(Socket::look);
    }

    /// Wakes the kernel for what was sent, takes back what it has sent, and gives it frames to
    /// receive into. Says whether frames still wait for being sent.
    pub(super) fn kick(&mut self, core: &mut Core, umem: &mut Umem) -> bool {
        let mut waiting = false;
        self.stuck = false;
        let inside: &mut [Socket] = match &mut self.inside {
            Inside::Nic(sockets) => sockets,
            Inside::Tun(tun) | Inside::Routed(tun, _) => {
                count(core, Counter::InsideRefused, tun.flush(umem));
                &mut []
            }
        };
        let outside: &mut [Socket] = match &mut self.outside {
            Outside::Nic { sockets, .. } => sockets,
            Outside::Udp { port, .. } => {
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

/// Puts a frame into a transmit ring. If all are full the kernel is woken first: what comes together, as when
/// many clients change hands, is more than a ring holds.
fn send(
    sockets: &mut [Socket],
    umem: &mut Umem,
    frame: Frame,
    stuck: &mut bool,
) -> Result<(), Frame> {
    let Err(frame) = put(sockets, frame) else {
        return Ok(());
    };
    if *stuck {
        return Err(frame);
    }
    for socket in sockets.iter_mut() {
        socket.kick();
        socket.complete(umem);
    }
    let sent = put(sockets, frame);
    *stuck = sent.is_err();
    sent
}

/// Puts a frame into the first transmit ring that has room.
fn put(sockets: &mut [Socket], mut frame: Frame) -> Result<(), Frame> {
    for socket in sockets {
        match socket.send(frame) {
            Ok(()) => return Ok(()),
            Err(back) => frame = back,
        }
    }
    Err(frame)
}
