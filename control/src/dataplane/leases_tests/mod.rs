//! Edges with the keys of one session, a client that does not know of them, and somebody who forges.

mod allocations;
mod clients;
mod numbers;
mod waiting;

use std::fs::File;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use super::*;
use crate::dataplane::announcing::Lan;
use crate::dataplane::command::{Command, GroupId, GroupSpec, Sending, WorkerReport};
use crate::dataplane::core::Settings;
use crate::dataplane::handover::{Door, Note};
use crate::dataplane::logbook::{self, Logbook};
use crate::dataplane::net::announce::Announcer;
use crate::dataplane::net::checksum::checksum;
use crate::dataplane::net::fib::{
    Fib, Hop, Interface, Neighbours, Route, RouteKind, RouteTables, TABLE_MAIN,
};
use crate::dataplane::net::fib_watch::InUse;
use crate::dataplane::parking::{OF_SESSION, OF_STRANGE, PATIENCE};
use crate::dataplane::paths::Discovery;
use crate::dataplane::xsk::HEADROOM;
use crate::esp::{Backend, InboundSa, NEXT_IPV4, OutboundSa, parse_inner};
use crate::sadb::{Cipher, Key, Producer, SaSpec, SessionId, SessionSpec};

const FRAMES: u32 = 2048;
const LAN: u32 = 3;
/// The inbound SPI of the first session; of the others the following ones.
const SPI: u32 = 0x0050_0000;
const PEER: GroupId = GroupId::Peer(7);
const CLIENT: [u8; 4] = [10, 99, 0, 7];
const TARGET: [u8; 4] = [10, 0, 0, 1];

fn sa(spi: u32, key: u8) -> SaSpec {
    let key = Key::new(&[key; 32]).unwrap();
    SaSpec::new(spi, Cipher::Aes256Gcm, key, [0; 4].into())
}

/// The session of this number, as an edge has it.
fn spec(number: u32) -> SessionSpec {
    let [local, remote] = ["192.0.2.1", "198.51.100.7"].map(|a| a.parse().unwrap());
    let mut spec = SessionSpec::new(local, remote, Producer::Ike);
    spec.id = SessionId(u64::from(number) + 1);
    spec.inbound = Some(sa(SPI + number, number as u8));
    spec.outbound = Some(sa(0x9000 + number, number as u8 + 100));
    spec.remote_inner.push(IpAddr::from(CLIENT).into());
    spec.local_inner.push("10.0.0.0/24".parse().unwrap());
    spec.shared = true;
    spec
}

/// A UDP packet with a number in it.
fn inner(from: [u8; 4], to: [u8; 4], number: u32) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([from, to].concat());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0, 7, 0, 7, 0, 12, 0, 0]);
    packet.extend(number.to_be_bytes());
    packet
}

fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[packet.len() - 4..].try_into().unwrap())
}

/// The client's side of a session.
struct Client {
    out: OutboundSa,
    into: InboundSa,
    sent: u32,
}

impl Client {
    fn of(spec: &SessionSpec) -> Self {
        Self {
            out: spec
                .inbound
                .as_ref()
                .unwrap()
                .sender(Backend::Ring)
                .unwrap(),
            into: spec
                .outbound
                .as_ref()
                .unwrap()
                .receiver(Backend::Ring)
                .unwrap(),
            sent: 0,
        }
    }

    /// A frame with its next packet, whose number is the sequence number too.
    fn send(&mut self) -> Vec<u8> {
        self.sent += 1;
        let mut buffer = vec![0; 256];
        let packet = inner(CLIENT, TARGET, self.sent);
        let at = 34 + 16..34 + 16 + packet.len();
        buffer[at.clone()].copy_from_slice(&packet);
        let esp = self.out.seal(&mut buffer, at, NEXT_IPV4).unwrap();
        assert_eq!(self.out.sequence(), u64::from(self.sent));
        assert_eq!(esp.start, 34);
        buffer.truncate(esp.end);
        let length = (esp.len() + 20) as u16;
        let mut header = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        header.extend(length.to_be_bytes());
        header.extend([0, 0, 0, 0, 64, 50, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1]);
        let sum = checksum(&header[14..]);
        header[24..26].copy_from_slice(&sum.to_be_bytes());
        buffer[..34].copy_from_slice(&header);
        buffer
    }

    fn send_many(&mut self, count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.send()).collect()
    }

    /// The sequence number of an IP packet of the edge's, and the packet in it.
    fn open(&mut self, packet: &[u8]) -> (u64, Vec<u8>) {
        let mut buffer = packet.to_vec();
        let opened = self.into.open(&mut buffer, 20..packet.len()).unwrap();
        (opened.sequence, buffer[opened.inner].to_vec())
    }
}

/// What became of a frame.
#[derive(Debug, PartialEq)]
enum Fate {
    /// The packet with this number went inside.
    Inside(u32),
    /// This IP packet went out.
    Outside(Vec<u8>),
    Waits,
    Dropped(Counter),
    HandedOver(usize, Door),
    /// A word to the LAN.
    Announced,
}

struct Edge {
    core: Core,
    umem: Umem,
    reports: mpsc::Receiver<WorkerReport>,
    /// Its logbook, as whoever outlives it has it.
    left: File,
    start: Instant,
    now: Instant,
}

impl Edge {
    /// A worker of so many, with this session.
    fn new(sessions: &[SessionSpec]) -> Self {
        let mut edge = Self::of_workers(0, 1, true, 1024);
        sessions.iter().for_each(|spec| drop(edge.add(spec)));
        edge
    }

    fn of_workers(worker: usize, workers: usize, shared: bool, room: usize) -> Self {
        let now = Instant::now();
        let (reports, heard) = mpsc::channel(room);
        let (logbook, left) = Logbook::create(1).unwrap();
        let mac = [2, 0, 0, 0, 0, 3];
        let settings = Settings {
            worker,
            workers,
            backend: Backend::Ring,
            discovery: Discovery::Off,
            outside_index: LAN,
            own_port: None,
            keep_alive: Duration::from_secs(20),
            outside_frames: false,
            lan: Some(Lan::new(
                LAN,
                mac,
                1500,
                Vec::new(),
                true,
                Announcer::new(mac, None, 16),
            )),
            fib: Arc::new(ArcSwap::from_pointee(fib())),
            in_use: InUse::unheard(),
            shared,
            logbook: Some(logbook),
            reports,
            rng: StdRng::seed_from_u64(1),
        };
        let mut edge = Self {
            core: Core::new(settings, now),
            umem: Umem::new(FRAMES).unwrap(),
            reports: heard,
            left,
            start: now,
            now,
        };
        edge.command(Command::SetGroup(GroupSpec {
            id: PEER,
            prefixes: vec![IpAddr::from(CLIENT).into()],
            watch: None,
            on_demand: false,
        }));
        edge
    }

    fn add(&mut self, spec: &SessionSpec) -> Vec<Fate> {
        let (spec, id) = (Arc::new(spec.clone()), spec.id);
        let added = self.command(Command::AddSession {
            spec,
            group: PEER,
            succeeds: None,
        });
        self.command(Command::Begin { id, activate: true });
        added
    }

    fn at(&mut self, ms: u64) -> &mut Self {
        self.now = self.start + Duration::from_millis(ms);
        self
    }

    fn command(&mut self, command: Command) -> Vec<Fate> {
        self.core.carry_out(command, &mut self.umem, self.now);
        self.came_out()
    }

    /// Numbers of the first session: inbound above a floor, with what is missing below, and outbound.
    fn take(&mut self, seen: (u64, u64), inbound: u64, out: (u64, u64)) -> Vec<Fate> {
        let mut fates = self.take_and_tell(seen, inbound, out);
        fates.retain(|fate| *fate != Fate::Announced);
        fates
    }

    /// The same, and what the LAN hears.
    fn take_and_tell(
        &mut self,
        (floor, missing): (u64, u64),
        inbound: u64,
        out: (u64, u64),
    ) -> Vec<Fate> {
        self.command(Command::Lease(Lease::Take {
            spi: SPI,
            term: 5,
            floor,
            missing,
            inbound,
            first: out.0,
            outbound: out.1,
        }))
    }

    fn bound(&mut self, inbound: u64, outbound: u64) -> Vec<Fate> {
        let spi = SPI;
        self.command(Command::Lease(Lease::Bound {
            spi,
            inbound,
            outbound,
        }))
    }

    /// How far it had come if it had died now: SPI, term, and the highest number of each tenure.
    fn logbook(&self) -> Vec<(u32, u32, u64)> {
        let (_, reached) = logbook::read(&self.left).unwrap();
        let all = reached.iter().map(|at| (at.spi, at.term, at.top));
        all.collect()
    }

    /// How far it had come, top and sent, and what is missing.
    fn stop(&mut self) -> (u64, u64, u64) {
        let (spi, term, tell) = (SPI, 5, true);
        self.command(Command::Lease(Lease::Stop { spi, term, tell }));
        self.stopped()
    }

    /// The same of one that has no numbers: nobody hears anything.
    fn stop_in_vain(&mut self) {
        let (spi, term, tell) = (SPI, 5, true);
        self.command(Command::Lease(Lease::Stop { spi, term, tell }));
        self.after_batch();
        let told = self.told();
        let answered = told
            .iter()
            .any(|event| matches!(event, WorkerEvent::Stopped { .. }));
        assert!(!answered, "{told:?}");
    }

    /// The same, once the rings are empty.
    fn stopped(&mut self) -> (u64, u64, u64) {
        self.after_batch();
        let told = self.told().into_iter().find_map(|event| match event {
            WorkerEvent::Stopped {
                progress,
                term,
                missing,
            } => {
                assert_eq!((progress.spi, term), (SPI, 5));
                Some((progress.top, progress.sent, missing))
            }
            _ => None,
        });
        told.expect("an answer")
    }

    fn frame(&mut self, bytes: &[u8]) -> Frame {
        let mut frame = self.umem.take().unwrap();
        frame.set_range(HEADROOM..HEADROOM + bytes.len());
        self.umem.packet(&frame).copy_from_slice(bytes);
        frame
    }

    /// A frame from outside.
    fn hear(&mut self, bytes: &[u8]) -> Fate {
        let mut frame = self.frame(bytes);
        self.core.now = self.now;
        let way = self.core.take_outside(&mut frame, &mut self.umem, self.now);
        self.end(frame, way)
    }

    fn hear_all(&mut self, frames: &[Vec<u8>]) -> Vec<Fate> {
        frames.iter().map(|frame| self.hear(frame)).collect()
    }

    /// A packet from the kernel, for the client.
    fn send(&mut self, number: u32) -> Fate {
        let mut frame = self.frame(&inner(TARGET, CLIENT, number));
        self.core.now = self.now;
        let way = self.core.take_tun(&mut frame, &mut self.umem, self.now);
        self.end(frame, way)
    }

    /// The same from a LAN, where the worker itself forwards.
    fn send_from_lan(&mut self, number: u32) -> Fate {
        let packet = inner(TARGET, CLIENT, number);
        let header = [&[2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 9, 8, 0][..], &packet].concat();
        let mut frame = self.frame(&header);
        let way = self.core.take_inside(&mut frame, &mut self.umem, self.now);
        self.end(frame, way)
    }

    /// As the ports do.
    fn end(&mut self, frame: Frame, way: Way) -> Fate {
        let bytes = self.umem.packet(&frame).to_vec();
        let (frame, fate) = match way {
            Way::Park(spi, waits) => match self.core.park(frame, spi, waits) {
                Ok(()) => return Fate::Waits,
                Err((frame, reason)) => (frame, Fate::Dropped(reason)),
            },
            Way::Inside | Way::SlowInside => (frame, Fate::Inside(number(&bytes))),
            Way::Outside | Way::SlowOutside => (frame, Fate::Outside(bytes)),
            Way::Lan => (frame, Fate::Announced),
            Way::HandOver(worker, door) => (frame, Fate::HandedOver(worker, door)),
            Way::Drop(reason) => (frame, Fate::Dropped(reason)),
            way => panic!("{way:?}"),
        };
        self.umem.free(frame);
        fate
    }

    fn came_out(&mut self) -> Vec<Fate> {
        let mut all = Vec::new();
        while let Some((frame, way)) = self.core.next_outgoing() {
            all.push(self.end(frame, way));
        }
        all
    }

    fn after_batch(&mut self) -> Vec<Fate> {
        let now = self.now;
        self.core.after_batch(&mut self.umem, now, Some(now));
        let mut all = self.came_out();
        all.retain(|fate| *fate != Fate::Announced);
        all
    }

    fn told(&mut self) -> Vec<WorkerEvent> {
        std::iter::from_fn(|| self.reports.try_recv().ok())
            .map(|report| report.event)
            .collect()
    }

    /// Top and sent of the first session, in every report of progress since.
    fn progress(&mut self) -> Vec<(u64, u64)> {
        let told = self.told().into_iter().filter_map(|event| match event {
            WorkerEvent::Progress(of) => Some((of[0].top, of[0].sent)),
            _ => None,
        });
        told.collect()
    }

    fn claims(&mut self) -> Vec<(u32, u64)> {
        let told = self.told().into_iter().filter_map(|event| match event {
            WorkerEvent::Claimed { spi, seen } => Some((spi, seen)),
            _ => None,
        });
        told.collect()
    }

    fn sleeps(&self, spi: u32) -> bool {
        let index = self.core.sessions.by_spi(spi).unwrap();
        self.core.sessions.get(index).unwrap().sleeps()
    }

    fn announces(&self) -> bool {
        let lan = self.core.lan.as_ref().unwrap();
        lan.announcer.is_active(CLIENT.into())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.core.clear_parking(&mut self.umem);
            assert_eq!(self.umem.free_chunks(), FRAMES as usize, "frames are lost");
        }
    }
}

fn fib() -> Fib {
    let interface = Interface {
        name: "lan0".into(),
        index: LAN,
        mac: Some([2, 0, 0, 0, 0, 3]),
        mtu: 1500,
        up: true,
        addresses: vec![(IpAddr::from([10, 0, 0, 254]), 24)],
    };
    let route = Route {
        table: TABLE_MAIN,
        destination: IpAddr::from([0; 4]),
        length: 0,
        metric: 0,
        kind: RouteKind::Unicast,
        hops: vec![Hop {
            interface: LAN,
            via: None,
            dead: false,
            link_down: false,
        }],
        mtu: None,
    };
    let tables = RouteTables::new(&[route], &[LAN]);
    Fib::new(
        vec![interface],
        Arc::new(tables),
        Arc::new(Neighbours::new([])),
    )
}

const ALL: u64 = 1 << 40;

fn inside(numbers: impl IntoIterator<Item = u32>) -> Vec<Fate> {
    numbers.into_iter().map(Fate::Inside).collect()
}

fn waits(count: usize) -> Vec<Fate> {
    (0..count).map(|_| Fate::Waits).collect()
}
