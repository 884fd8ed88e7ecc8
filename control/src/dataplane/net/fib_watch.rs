//! Keeps a [`Fib`] current by netlink.
//!
//! A notification about routes, links or addresses only says that it is worth reading again: the
//! kernel does not announce every route that goes (IPv4 routes vanish silently with their
//! interface), so the dump is the truth. Neighbours change often and are announced in full, so
//! they are followed one by one.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use rtnetlink::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::fib::{Fib, Interface, Neighbours, RouteTables, TABLE_DEFAULT, TABLE_LOCAL};
use super::frame::Mac;
use super::links;
pub use super::netlink::NetlinkError;
use super::netlink::{self, Link};
use super::notices::{Dirty, Known, note};

/// Rebuilding may take one part in this many of the thread's time.
const SHARE: u32 = 5;
/// How much of that time may be used in advance, so that single changes are seen at once.
const CREDIT: Duration = Duration::from_millis(50);
/// Datagrams read before the Fib is published in between.
const BATCH: usize = 256;
/// One next hop is brought to the kernel's attention no more often than this.
const POKE_GAP: Duration = Duration::from_secs(1);
/// Next hops whose last poke is remembered.
const POKES: usize = 4096;
/// Reports of next hops in use that may wait; more are dropped, they will come again.
const REPORTS: usize = 1024;
/// Link changes that may wait; the latest state of each interface is never lost.
const CHANGES: usize = 64;
/// Neighbours that have arrived and may wait to be told.
const ARRIVALS: usize = 256;
/// When a full channel of link changes is tried again.
const RETRY: Duration = Duration::from_millis(5);
/// Receive buffer that is asked for, in bytes; the system's limit applies.
const BUFFER: i32 = 4 << 20;

/// Multicast groups of route netlink: link, neighbour, IPv4 address and route, IPv6 address and
/// route, next hop objects (`RTNLGRP_*`).
const GROUPS: [u32; 7] = [1, 3, 5, 7, 9, 11, 32];

/// An interface has changed, appeared or gone. The first one tells the state at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkChange {
    /// Its name, as it was given.
    pub interface: String,
    /// Its index now; 0 if it does not exist. Another one means that it was made anew.
    pub index: u32,
    /// Switched on and with carrier.
    pub up: bool,
    /// Bytes; 0 if it does not exist.
    pub mtu: u32,
    pub mac: Option<Mac>,
    /// Its addresses that others can reach, in the kernel's order.
    pub addresses: Vec<IpAddr>,
}

/// The consumer's side of a [`FibWatch`].
#[derive(Debug)]
pub struct Subscription {
    /// The current snapshot. It is complete from the start.
    pub fib: Arc<ArcSwap<Fib>>,
    pub changes: mpsc::Receiver<LinkChange>,
    /// Neighbours, by interface, that can be reached now and could not before.
    pub arrivals: mpsc::Receiver<(u32, IpAddr)>,
    pub in_use: InUse,
}

/// Tells the kernel, through the watch, which next hops carry traffic: it does not see what is
/// sent by AF_XDP, so it would let them go stale and forget them.
#[derive(Debug, Clone)]
pub struct InUse(mpsc::Sender<(u32, IpAddr)>);

impl InUse {
    /// One that nobody hears.
    pub(in crate::dataplane) fn unheard() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Packets go to `address` (a [`NextHop::next`](super::fib::NextHop::next)) by `interface`.
    /// Call it when a next hop is first used and then about once a second while it is; also for
    /// one that is unresolved. Never blocks; a report that finds no room is dropped.
    pub fn report(&self, interface: u32, address: IpAddr) {
        // Dropped or closed: the entry may go stale, which the slow path heals.
        let _ = self.0.try_send((interface, address));
    }
}

/// Which changes of links are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    All,
    /// Those of links that are down: they do not wait for the next reading.
    Downs,
}

/// The task. Open it in the network namespace that it is to watch, then spawn [`run`](Self::run).
pub struct FibWatch {
    monitor: TokioSocket,
    handle: Handle,
    names: Vec<String>,
    fib: Arc<ArcSwap<Fib>>,
    changes: mpsc::Sender<LinkChange>,
    arrivals: mpsc::Sender<(u32, IpAddr)>,
    reports: mpsc::Receiver<(u32, IpAddr)>,
    interfaces: Vec<Interface>,
    routes: Arc<RouteTables>,
    neighbours: Known,
    announced: HashMap<String, LinkChange>,
    pokes: HashMap<(u32, IpAddr), Instant>,
    dirty: Dirty,
    /// When the share of the time spent on rebuilding will be kept again.
    paid: Instant,
    retry_changes: Option<Instant>,
}

impl FibWatch {
    /// Opens the sockets in the calling thread's network namespace and reads everything once.
    /// `interfaces` are the names of those that we use; one that does not exist yet is waited for.
    /// Must be called within a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// The kernel refuses sockets or answers.
    pub async fn open(interfaces: &[String]) -> Result<(Self, Subscription), NetlinkError> {
        // First listen, then read, so that no change falls between.
        let monitor = monitor().map_err(NetlinkError::Open)?;
        let handle = links::connect()?;
        let fib = Arc::new(ArcSwap::from_pointee(Fib::default()));
        let (changes, receiver) = mpsc::channel(CHANGES);
        let (reporter, reports) = mpsc::channel(REPORTS);
        let (arrivals, arrived) = mpsc::channel(ARRIVALS);
        let mut watch = Self {
            monitor,
            handle,
            names: interfaces.to_vec(),
            fib: Arc::clone(&fib),
            changes,
            arrivals,
            reports,
            interfaces: Vec::new(),
            routes: Arc::default(),
            neighbours: BTreeMap::new(),
            announced: HashMap::new(),
            pokes: HashMap::new(),
            dirty: Dirty::ALL,
            paid: Instant::now(),
            retry_changes: None,
        };
        watch.warn_of_rules().await?;
        watch.update().await?;
        Ok((
            watch,
            Subscription {
                fib,
                changes: receiver,
                arrivals: arrived,
                in_use: InUse(reporter),
            },
        ))
    }

    /// Follows the kernel until it no longer can, and returns why. Dropping it ends the watch.
    pub async fn run(mut self) -> NetlinkError {
        loop {
            if let Err(error) = self.turn().await {
                return error;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), NetlinkError> {
        let rebuild_at = self.dirty.any().then_some(self.not_before());
        let wake = [rebuild_at, self.retry_changes].into_iter().flatten().min();
        let far = Instant::now() + Duration::from_secs(3600);
        tokio::select! {
            biased;
            datagram = self.monitor.recv_from_full() => {
                self.take(datagram)?;
                for _ in 0..BATCH {
                    // Only what is there already: the change so far must not wait for the next.
                    let Some(next) = self.monitor.recv_from_full().now_or_never() else { break };
                    self.take(next)?;
                }
                self.tell_changes(Tells::Downs);
            }
            Some((interface, address)) = self.reports.recv() => self.poke(interface, address)?,
            () = sleep_until(wake.unwrap_or(far)) => {}
        }
        let now = Instant::now();
        if self.dirty.any() && now >= self.not_before() {
            self.update().await?;
            self.paid = self.paid.max(now) + now.elapsed() * SHARE;
        } else if self.retry_changes.is_some_and(|at| at <= now) {
            self.tell_changes(Tells::All);
        }
        Ok(())
    }

    /// When the Fib may be rebuilt next.
    fn not_before(&self) -> Instant {
        self.paid.checked_sub(CREDIT).unwrap_or(self.paid)
    }

    /// Takes in what the monitor socket gave.
    fn take(
        &mut self,
        received: std::io::Result<(Vec<u8>, SocketAddr)>,
    ) -> Result<(), NetlinkError> {
        match received {
            Ok((datagram, _)) => {
                let mut arrived = Vec::new();
                note(
                    &datagram,
                    &mut self.interfaces,
                    &mut self.neighbours,
                    &mut self.dirty,
                    &mut arrived,
                );
                for one in arrived {
                    // Whoever finds no room is heard by its first packet.
                    let _ = self.arrivals.try_send(one);
                }
            }
            // The kernel had to drop notifications: read everything again.
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => self.dirty = Dirty::ALL,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(NetlinkError::Read(error)),
        }
        Ok(())
    }

    /// Reads what is dirty, publishes, and tells of link changes.
    async fn update(&mut self) -> Result<(), NetlinkError> {
        let mut dirty = std::mem::take(&mut self.dirty);
        if dirty.links {
            let all: Vec<Link> = links::links(&self.handle).await?;
            let addresses = links::addresses(&self.handle).await?;
            let wanted = all.iter().filter(|link| self.names.contains(&link.name));
            let interfaces: Vec<_> = wanted
                .map(|link| links::interface(link, &addresses))
                .collect();
            let indices = |list: &[Interface]| list.iter().map(|i| i.index).collect::<Vec<_>>();
            dirty.neighbours |= indices(&interfaces) != indices(&self.interfaces);
            self.interfaces = interfaces;
        }
        if dirty.routes {
            let mut all = links::routes(&self.handle, AddressFamily::Inet).await?;
            all.extend(links::routes(&self.handle, AddressFamily::Inet6).await?);
            let indices: Vec<_> = self.interfaces.iter().map(|i| i.index).collect();
            self.routes = Arc::new(RouteTables::new(&all, &indices));
        }
        if dirty.neighbours {
            self.neighbours = self.read_neighbours().await?;
        }
        let usable = self
            .neighbours
            .iter()
            .filter_map(|(key, (_, mac))| Some((*key, (*mac)?)));
        self.fib.store(Arc::new(Fib::new(
            self.interfaces.clone(),
            Arc::clone(&self.routes),
            Arc::new(Neighbours::new(usable)),
        )));
        if dirty.links {
            self.tell_changes(Tells::All);
        }
        Ok(())
    }

    async fn read_neighbours(&self) -> Result<Known, NetlinkError> {
        let mut all = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetNeighbour(request);
            for message in netlink::dump(&self.handle, "the neighbours", request).await? {
                let RouteNetlinkMessage::NewNeighbour(message) = message else {
                    continue;
                };
                let Some(one) = netlink::neighbour(&message) else {
                    continue;
                };
                if self.interfaces.iter().any(|own| own.index == one.interface) {
                    all.insert((one.interface, one.address), (one.state, one.mac));
                }
            }
        }
        Ok(all)
    }

    /// Sends the state of each interface that differs from what was sent last. What finds no room
    /// is tried again soon.
    fn tell_changes(&mut self, which: Tells) {
        if which == Tells::All {
            self.retry_changes = None;
        }
        for name in &self.names {
            let own = self
                .interfaces
                .iter()
                .find(|interface| interface.name == *name);
            let state = LinkChange {
                interface: name.clone(),
                index: own.map_or(0, |own| own.index),
                up: own.is_some_and(|own| own.up),
                mtu: own.map_or(0, |own| own.mtu),
                mac: own.and_then(|own| own.mac),
                addresses: own.map(Interface::reachable).unwrap_or_default(),
            };
            if self.announced.get(name) == Some(&state) || which == Tells::Downs && state.up {
                continue;
            }
            match self.changes.try_send(state.clone()) {
                Ok(()) => {
                    self.announced.insert(name.clone(), state);
                }
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.retry_changes = Some(Instant::now() + RETRY);
                }
                // Nobody listens; the Fib still has readers.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
    }

    /// Makes the kernel confirm or resolve a next hop that is in use, as if it had sent a packet
    /// itself (`NTF_USE`): a stale one is probed after its delay, an unknown one is asked for.
    fn poke(&mut self, interface: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let state = self
            .neighbours
            .get(&(interface, address))
            .map(|(state, _)| *state);
        use NeighbourState::{Failed, None as Unknown, Stale};
        let needed = matches!(state, None | Some(Stale | Failed | Unknown));
        if !needed || !self.interfaces.iter().any(|own| own.index == interface) {
            return Ok(());
        }
        let now = Instant::now();
        if self
            .pokes
            .get(&(interface, address))
            .is_some_and(|last| now - *last < POKE_GAP)
        {
            return Ok(());
        }
        if self.pokes.len() >= POKES {
            self.pokes.retain(|_, last| now - *last < POKE_GAP);
            if self.pokes.len() >= POKES {
                return Ok(());
            }
        }
        self.pokes.insert((interface, address), now);
        let mut message = NeighbourMessage::default();
        message.header.family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        message.header.ifindex = interface;
        message.header.flags = NeighbourFlags::Use;
        message
            .attributes
            .push(NeighbourAttribute::Destination(NeighbourAddress::from(
                address,
            )));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_CREATE;
        self.handle
            .notify(request)
            .map_err(|_| NetlinkError::Closed)
    }

    /// Says once that there are policy rules which the Fib does not follow.
    async fn warn_of_rules(&self) -> Result<(), NetlinkError> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RuleMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetRule(request);
            for message in netlink::dump(&self.handle, "the routing rules", request).await? {
                let RouteNetlinkMessage::NewRule(rule) = message else {
                    continue;
                };
                let table = rule
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        RuleAttribute::Table(table) => Some(*table),
                        _ => None,
                    });
                let table = table.unwrap_or(u32::from(rule.header.table));
                if !(TABLE_DEFAULT..=TABLE_LOCAL).contains(&table) {
                    tracing::warn!(
                        table,
                        "a policy routing rule leads to another table; next hops are looked up \
                         in the tables local, main and default only"
                    );
                }
            }
        }
        Ok(())
    }
}

const ENOBUFS: i32 = 105;

fn monitor() -> std::io::Result<TokioSocket> {
    let mut monitor = TokioSocket::new(NETLINK_ROUTE)?;
    let socket = monitor.socket_mut();
    // Beyond the system's limit the kernel takes what it allows.
    socket.set_rx_buf_sz(BUFFER)?;
    let groups = GROUPS.iter().fold(0, |all, group| all | 1 << (group - 1));
    socket.bind(&SocketAddr::new(0, groups))?;
    Ok(monitor)
}
