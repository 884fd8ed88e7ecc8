//! The worker of an edge for the simulator: the real one, with its leases, its parking and its words to the LAN,
//! but without sockets, rings and a thread.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use evergate_common::reason::Counter;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use crate::dataplane::announcing::Lan;
use crate::dataplane::command::{Command, WorkerReport};
use crate::dataplane::core::{Core, Settings, Way};
use crate::dataplane::logbook::Logbook;
use crate::dataplane::net::announce::Announcer;
use crate::dataplane::net::fib::{
    Fib, Hop, Interface, Neighbours, Route, RouteKind, RouteTables, TABLE_MAIN,
};
use crate::dataplane::net::fib_watch::InUse;
use crate::dataplane::paths::Discovery;
use crate::dataplane::xsk::{Frame, HEADROOM, Umem};
use crate::esp::Backend;

/// The number of the one interface.
const LAN: u32 = 3;
const MTU: u32 = 1500;
/// Client addresses that the LAN may be told of.
const ADDRESSES: usize = 64;
/// Reports that the node's core has room for.
const REPORTS: usize = 4096;

/// What leaves a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// An IP packet to the outer network.
    Outside(Vec<u8>),
    /// An IP packet to the LAN.
    Inside(Vec<u8>),
    /// A frame to the stations of the LAN: who has which address.
    Lan(Vec<u8>),
}

/// A worker that has all sessions of an edge.
pub struct EdgeWorker {
    core: Core,
    umem: Umem,
    reports: mpsc::Receiver<WorkerReport>,
    dropped: [u64; Counter::COUNT],
    out: Vec<Out>,
}

impl EdgeWorker {
    /// One whose LAN interface has this address, with the frames of `umem`.
    #[must_use]
    pub fn new(
        mac: [u8; 6],
        umem: Umem,
        logbook: Option<Arc<Logbook>>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let (reports, heard) = mpsc::channel(REPORTS);
        let announcer = Announcer::new(mac, None, ADDRESSES);
        let settings = Settings {
            worker: 0,
            workers: 1,
            backend: Backend::default(),
            discovery: Discovery::Off,
            outside_index: LAN,
            own_port: None,
            keep_alive: Duration::from_secs(20),
            outside_frames: false,
            lan: Some(Lan::new(
                LAN,
                mac,
                MTU as usize,
                Vec::new(),
                true,
                announcer,
            )),
            fib: Arc::new(ArcSwap::from_pointee(fib(mac))),
            in_use: InUse::unheard(),
            shared: true,
            logbook,
            reports,
            rng: StdRng::seed_from_u64(seed),
        };
        Self {
            core: Core::new(settings, now),
            umem,
            reports: heard,
            dropped: [0; Counter::COUNT],
            out: Vec::new(),
        }
    }

    /// Frames for workers.
    ///
    /// # Errors
    /// There is no memory.
    pub fn frames(count: u32) -> io::Result<Umem> {
        Umem::new(count)
    }

    /// The process is gone; its frames can be used again. None of them may have been lost.
    #[must_use]
    pub fn end(mut self) -> (Umem, bool) {
        self.core.clear_parking(&mut self.umem);
        while let Some((frame, _)) = self.core.next_outgoing() {
            self.umem.free(frame);
        }
        let whole = self.umem.free_chunks() == self.umem.chunks();
        (self.umem, whole)
    }

    /// Carries out what the node's core says.
    pub fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Link { up } => self.core.on_link(up, now),
            command => self.core.carry_out(command, &mut self.umem, now),
        }
        self.let_out();
    }

    /// A frame has come from outside, with its Ethernet header.
    pub fn from_outside(&mut self, bytes: &[u8], now: Instant) {
        self.take(bytes, now, Core::take_outside);
    }

    /// A frame has come by the LAN that says who has which address.
    pub fn from_lan(&mut self, bytes: &[u8], now: Instant) {
        self.take(bytes, now, Core::take_inside);
    }

    /// The kernel forwards a packet of a target.
    pub fn from_kernel(&mut self, packet: &[u8], now: Instant) {
        self.take(packet, now, Core::take_tun);
    }

    fn take(
        &mut self,
        bytes: &[u8],
        now: Instant,
        door: fn(&mut Core, &mut Frame, &mut Umem, Instant) -> Way,
    ) {
        let Some(mut frame) = self.umem.take() else {
            self.count(Counter::NoFrame);
            return;
        };
        frame.set_range(HEADROOM..HEADROOM + bytes.len());
        self.umem.packet(&frame).copy_from_slice(bytes);
        self.core.now = now;
        let way = door(&mut self.core, &mut frame, &mut self.umem, now);
        self.deliver(frame, way);
        self.let_out();
    }

    /// What a worker does after each batch. `drained`: nothing lies in its rings.
    pub fn after_batch(&mut self, now: Instant, drained: bool) {
        let drained = drained.then_some(now);
        self.core.after_batch(&mut self.umem, now, drained);
        self.let_out();
    }

    /// When [`EdgeWorker::after_batch`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.core.next_deadline().map(|(at, _)| at)
    }

    /// Its thread did not run for long.
    pub fn overslept(&mut self, now: Instant) {
        self.core.overslept(now);
    }

    /// What has left it since it was asked last.
    pub fn out(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    /// What it tells the node's core next.
    pub fn told(&mut self) -> Option<WorkerReport> {
        self.reports.try_recv().ok()
    }

    /// Sessions that it has.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.core.sessions.iter().count()
    }

    /// Why packets went nowhere, and how many.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = Counter::ALL.iter().zip(self.dropped);
        all.filter(|(_, count)| *count > 0)
            .map(|(counter, count)| (counter.label(), count))
    }

    fn count(&mut self, counter: Counter) {
        if let Some(count) = self.dropped.get_mut(counter.index()) {
            *count += 1;
        }
    }

    fn let_out(&mut self) {
        while let Some((frame, way)) = self.core.next_outgoing() {
            self.deliver(frame, way);
        }
    }

    /// As the ports do.
    fn deliver(&mut self, frame: Frame, way: Way) {
        let out = match way {
            Way::Park(spi, waits) => match self.core.park(frame, spi, waits) {
                Ok(()) => return,
                Err((frame, reason)) => return self.deliver(frame, Way::Drop(reason)),
            },
            Way::Hold(group) => match self.core.hold(group, frame) {
                Ok(()) => return,
                Err(frame) => return self.deliver(frame, Way::Drop(Counter::QueueFull)),
            },
            Way::Outside | Way::SlowOutside => Some(Out::Outside(self.umem.bytes(&frame).to_vec())),
            Way::Inside | Way::SlowInside => Some(Out::Inside(self.umem.bytes(&frame).to_vec())),
            Way::Lan => Some(Out::Lan(self.umem.bytes(&frame).to_vec())),
            Way::Drop(reason) => {
                self.count(reason);
                None
            }
            // There is no other worker.
            Way::Done | Way::HandOver(..) => None,
        };
        self.out.extend(out);
        self.umem.free(frame);
    }
}

/// All goes by one interface, without a router.
fn fib(mac: [u8; 6]) -> Fib {
    let interface = Interface {
        name: "lan0".into(),
        index: LAN,
        mac: Some(mac),
        mtu: MTU,
        up: true,
        addresses: vec![(IpAddr::from([10, 0, 255, 254]), 16)],
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
    let neighbours = Arc::new(Neighbours::new([]));
    Fib::new(vec![interface], Arc::new(tables), neighbours)
}
