//! Watches the encryption nodes and writes the table of slots: a thread of its own, so that a core that has
//! much to do keeps no client waiting.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use evergate_common::front::{FRONT_SPI, SLOTS};
use evergate_common::heartbeat::{encode_request, verify_answer};
use evergate_common::wire::PORT_NAT_T;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::api::model::{Front as View, FrontNode, NodeState};
use crate::cluster::front::{FrontKey, Pace, Roster, Slots, Standing};
use crate::dataplane::Dataplane;
use crate::dataplane::loader::{NodeStateWriter, SlotsWriter};
use crate::node::config::{Config, Front};
use crate::node::events::{EventKind, EventLog, NewEvent};

/// Slots that may go back to a node that has come back, and how often: all of them in two seconds.
const SLOTS_AT_ONCE: usize = 20;
const MOVES: Duration = Duration::from_millis(10);

/// Whoever reads the status sees this at the latest.
const SHOW: Duration = Duration::from_millis(100);

/// Answers that are read at once; no more come from a hundred nodes in one turn.
const AT_ONCE: usize = 256;

/// The running thread.
pub(in crate::node) struct Watch {
    shared: Arc<Shared>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and others tell each other.
struct Shared {
    /// The nodes that a way leads to, a bit for each number.
    ways: AtomicU64,
    view: ArcSwap<View>,
    /// Slots were given out for the first time.
    ready: AtomicBool,
}

impl Watch {
    /// Begins to watch. `own`: what this node would answer itself, where it is one of the nodes.
    pub(in crate::node) fn start(
        front: &Front,
        key: FrontKey,
        slots: SlotsWriter,
        own: Option<NodeStateWriter>,
        events: EventLog,
    ) -> Result<Self> {
        let address = front.address;
        let socket = UdpSocket::bind((address, 0))
            .with_context(|| format!("front.address: {address} is no address of this machine"))?;
        socket.set_nonblocking(true)?;
        let others = front.nodes.iter().map(|node| (node.number, node.address));
        let others: BTreeMap<u8, IpAddr> = others.collect();
        let shared = Arc::new(Shared {
            ways: AtomicU64::new(0),
            view: ArcSwap::from_pointee(View {
                address,
                slots: SLOTS,
                nodes: Vec::new(),
            }),
            ready: AtomicBool::new(false),
        });
        let pace = Pace {
            interval: front.heartbeat,
            tries: front.tries,
        };
        let now = Instant::now();
        let numbers: Vec<u8> = others.keys().copied().collect();
        let stop = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let mut watcher = Watcher {
            address,
            socket,
            stop: stop.try_clone()?,
            key,
            roster: Roster::new(&numbers, front.number, pace, now),
            tries: front.tries,
            slots: Slots::default(),
            writer: slots,
            others,
            own,
            told: BTreeMap::new(),
            events,
            shared: Arc::clone(&shared),
            move_at: now,
            show_at: now,
            rng: StdRng::from_rng(&mut rand::rng()),
        };
        watcher.show(now);
        let thread = std::thread::Builder::new()
            .name("front".to_owned())
            .spawn(move || {
                crate::privilege::drop_capabilities();
                watcher.run();
            })
            .context("starting the thread that watches the nodes")?;
        Ok(Self {
            shared,
            stop,
            thread: Some(thread),
        })
    }

    /// The same on a gateway, if it is a front.
    pub(in crate::node) fn of_gateway(
        config: &Config,
        key: FrontKey,
        dataplane: &mut Dataplane,
        events: &EventLog,
    ) -> Result<Option<Self>> {
        let Some(front) = &config.front else {
            return Ok(None);
        };
        let Some((slots, state)) = dataplane.front() else {
            bail!("[front] needs an XDP program on the outside interface");
        };
        Self::start(front, key, slots, Some(state), events.clone()).map(Some)
    }

    /// Whether routes and neighbours know a way to a node.
    pub(in crate::node) fn set_way(&self, number: u8, way: bool) {
        let bit = 1 << (number & 63);
        match way {
            true => self.shared.ways.fetch_or(bit, Ordering::Relaxed),
            false => self.shared.ways.fetch_and(!bit, Ordering::Relaxed),
        };
    }

    /// Whether slots were given out.
    pub(in crate::node) fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Relaxed)
    }

    /// What operators see.
    pub(in crate::node) fn view(&self) -> View {
        View::clone(&self.shared.view.load())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread.
struct Watcher {
    address: IpAddr,
    socket: UdpSocket,
    stop: OwnedFd,
    key: FrontKey,
    roster: Roster,
    tries: u32,
    slots: Slots,
    writer: SlotsWriter,
    others: BTreeMap<u8, IpAddr>,
    own: Option<NodeStateWriter>,
    /// The standing of each node as it was told last.
    told: BTreeMap<u8, Standing>,
    events: EventLog,
    shared: Arc<Shared>,
    move_at: Instant,
    show_at: Instant,
    rng: StdRng,
}

impl Watcher {
    fn run(&mut self) {
        loop {
            let now = Instant::now();
            self.hear(now);
            let ways = self.shared.ways.load(Ordering::Relaxed);
            for number in self.others.keys() {
                self.roster.set_way(*number, ways >> (number & 63) & 1 == 1);
            }
            if let Some(own) = &self.own {
                self.roster.set_own(own.answers(), now);
            }
            self.roster.poll(now, &mut self.rng);
            self.ask();
            if self.is_ready(now) {
                self.lead(now);
            }
            if now >= self.show_at {
                self.show(now);
            }
            if self.wait() {
                return;
            }
        }
    }

    fn is_ready(&self, now: Instant) -> bool {
        self.shared.ready.load(Ordering::Relaxed) || self.roster.is_ready(now)
    }

    /// Takes in all answers that have come.
    fn hear(&mut self, now: Instant) {
        let mut buffer = [0; 128];
        for _ in 0..AT_ONCE {
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(heard) => heard,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // That somebody is not there, as a rule, which his silence says too.
                Err(_) => continue,
            };
            let mut others = self.others.iter();
            let Some((number, _)) = others.find(|(_, address)| **address == from.ip()) else {
                continue;
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            if let Ok(answer) = verify_answer(bytes, self.key.expose())
                && answer.spi == FRONT_SPI
            {
                let (counter, token) = (answer.counter, answer.token);
                let number = *number;
                self.roster
                    .on_answer(number, counter, token, answer.health, now);
            }
        }
    }

    fn ask(&mut self) {
        while let Some(ask) = self.roster.next_ask() {
            let Some(address) = self.others.get(&ask.number) else {
                continue;
            };
            let request = encode_request(self.key.expose(), ask.counter, FRONT_SPI, ask.token);
            // One that can not be sent is one that is not answered.
            let to = SocketAddr::new(*address, PORT_NAT_T);
            let _ = self.socket.send_to(&request, to);
        }
    }

    /// Lets slots lead to who should have them, and says what has changed.
    fn lead(&mut self, now: Instant) {
        let pace = match now >= self.move_at {
            true => {
                self.move_at = now + MOVES;
                SLOTS_AT_ONCE
            }
            false => 0,
        };
        let standings = self.roster.standings();
        let news = standings
            .iter()
            .filter(|(number, standing)| self.told.get(number) != Some(standing));
        let news: Vec<_> = news.copied().collect();
        let before: Vec<usize> = news
            .iter()
            .map(|(number, _)| self.slots.share(*number))
            .collect();
        for (slot, number) in self.slots.change(&standings, pace) {
            if let Err(error) = self.writer.lead(slot, number) {
                tracing::error!("slot {slot} does not lead to node {number}: {error}");
            }
        }
        self.shared.ready.store(true, Ordering::Relaxed);
        for ((number, standing), had) in news.into_iter().zip(before) {
            self.tell(number, standing, had, now);
        }
    }

    fn tell(&mut self, number: u8, standing: Standing, had: usize, now: Instant) {
        let before = self.told.insert(number, standing);
        let who = match self.others.get(&number) {
            Some(address) => format!("node {number} at {address}"),
            None => format!("node {number}, which is this one,"),
        };
        let alone = match self
            .told
            .values()
            .all(|standing| *standing == Standing::Dead)
        {
            true => "; NO NODE IS LEFT: all packets are dropped",
            false => "",
        };
        let had = percent(had);
        let (kind, text) = match (standing, before) {
            // Not there when the front came: it may be made only later.
            (Standing::Dead, None) => (
                EventKind::EncryptionNodeDead,
                format!("{who} does not answer{alone}"),
            ),
            (Standing::Dead, _) => (
                EventKind::EncryptionNodeDead,
                format!(
                    "{who} is dead: {} heartbeats unanswered, or no way there; it had {had} of the clients\
                     {alone}",
                    self.tries
                ),
            ),
            (Standing::Draining, _) => (
                EventKind::EncryptionNode,
                format!("{who} drains: its clients, {had} of all, go to others"),
            ),
            (Standing::Proving, _) => (
                EventKind::EncryptionNode,
                format!("{who} lives again, and gets clients when it has for a while"),
            ),
            (Standing::Well, _) => (
                EventKind::EncryptionNode,
                format!("{who} lives and takes its share of the clients"),
            ),
        };
        self.events.push(NewEvent::new(kind, text).at(now));
        self.show_at = now;
    }

    fn show(&mut self, now: Instant) {
        self.show_at = now + SHOW;
        let nodes = self.roster.watched().map(|node| FrontNode {
            number: node.number,
            address: self
                .others
                .get(&node.number)
                .copied()
                .unwrap_or(self.address),
            own: !self.others.contains_key(&node.number),
            state: match node.standing {
                Standing::Well => NodeState::Well,
                Standing::Proving => NodeState::Proving,
                Standing::Draining => NodeState::Draining,
                Standing::Dead => NodeState::Dead,
            },
            slots: u32::try_from(self.slots.share(node.number)).unwrap_or(u32::MAX),
            heartbeats_sent: node.sent,
            heartbeats_answered: node.answered,
            rtt_us: node.rtt.map(|rtt| rtt.as_micros() as u64),
        });
        let mut nodes: Vec<FrontNode> = nodes.collect();
        nodes.sort_by_key(|node| node.number);
        self.shared.view.store(Arc::new(View {
            address: self.address,
            slots: SLOTS,
            nodes,
        }));
    }

    /// Waits for answers, until something is to be done. Whether it is the end.
    fn wait(&self) -> bool {
        let mut wake = self.roster.next_deadline().min(self.show_at);
        if self.slots.is_moving() {
            wake = wake.min(self.move_at);
        }
        let time = wake.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(time).unwrap_or_default();
        let mut fds = [
            PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
        ];
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&time));
        let [stop, _] = &fds;
        !stop.revents().is_empty()
    }
}

/// A part of all slots.
fn percent(slots: usize) -> String {
    format!("{} %", (slots * 100 + SLOTS as usize / 2) / SLOTS as usize)
}
