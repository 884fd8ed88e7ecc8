//! An immutable snapshot of the kernel's routes and neighbours, made for the packet path.
//!
//! It answers what the kernel would do with a packet that nothing but its destination tells
//! about: the local table first, then main, then default; the longest prefix, of equal ones the
//! lowest metric; of several next hops the first that is alive. Not looked at: policy rules other
//! than the three that every system has, routes for one TOS or one source, VRFs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::frame::Mac;
use super::lpm::{Key, Ranges};

/// `RT_TABLE_LOCAL`.
pub const TABLE_LOCAL: u32 = 255;
/// `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;
/// `RT_TABLE_DEFAULT`.
pub const TABLE_DEFAULT: u32 = 253;

/// An interface that we use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// The kernel's index, never 0.
    pub index: u32,
    /// `None` if it is no Ethernet.
    pub mac: Option<Mac>,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Switched on and with carrier.
    pub up: bool,
    /// Usable addresses with prefix length, in the kernel's order, global ones first.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Interface {
    /// The addresses that reach beyond the link.
    pub(super) fn reachable(&self) -> Vec<IpAddr> {
        let addresses = self.addresses.iter().map(|(address, _)| *address);
        let global = addresses.filter(|address| match address {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        });
        global.collect()
    }

    /// The first address of `like`'s family, for packets of our own.
    #[must_use]
    pub fn source_for(&self, like: IpAddr) -> Option<IpAddr> {
        let fits = |address: &IpAddr| address.is_ipv4() == like.is_ipv4();
        self.addresses
            .iter()
            .map(|(address, _)| *address)
            .find(fits)
    }
}

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Gives it to this host.
    Local,
    /// Broadcast or multicast: to many stations of one link.
    Group,
    /// Refuses it.
    Refuse(Refusal),
    /// Leaves the table, as if nothing had matched.
    Throw,
}

/// Why a packet can not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No route matches.
    NoRoute,
    /// A `blackhole` route: drop without a word.
    Blackhole,
    /// An `unreachable` route.
    Unreachable,
    /// A `prohibit` route.
    Prohibited,
    /// The route's interface is down or has no carrier.
    LinkDown,
}

/// One way on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Index of the interface.
    pub interface: u32,
    /// The router; `None` if the destination is on the link itself.
    pub via: Option<IpAddr>,
    /// The kernel does not use it (`RTNH_F_DEAD`).
    pub dead: bool,
    /// Its interface has no carrier (`RTNH_F_LINKDOWN`).
    pub link_down: bool,
}

/// One route as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// [`TABLE_LOCAL`], [`TABLE_MAIN`] or [`TABLE_DEFAULT`]; other tables are ignored.
    pub table: u32,
    pub destination: IpAddr,
    /// Prefix length.
    pub length: u8,
    /// Lower is better.
    pub metric: u32,
    pub kind: RouteKind,
    /// Empty for kinds that send nowhere.
    pub hops: Vec<Hop>,
    /// A limit below the interface's MTU.
    pub mtu: Option<u32>,
}

/// What is known of the way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface to send by; 0 if there is none.
    pub interface: u32,
    /// The router, if the destination is not on the link.
    pub via: Option<IpAddr>,
    /// The interface's own MAC.
    pub source_mac: Option<Mac>,
    /// Largest IP packet for this way, in bytes; 0 if there is none.
    pub mtu: u32,
    pub resolution: Resolution,
}

/// Whether and how a packet can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Send to this MAC.
    Resolved(Mac),
    /// The kernel must resolve this address first: take the slow path.
    Unresolved(IpAddr),
    Unreachable(Refusal),
    /// For this host.
    Local,
    /// By an interface that is not among ours.
    OtherInterface,
    /// Multicast, broadcast or link-local: such packets stay on their link.
    NotForwarded,
}

/// The part of a route that a look-up needs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    kind: RouteKind,
    hop: Option<Hop>,
    mtu: Option<u32>,
}

/// Tables of both families. Values are indices into `entries`.
#[derive(Debug, Default)]
struct Tables {
    v4: Ranges<u32, u32>,
    v6: Ranges<u128, u32>,
}

/// All routes, ready for look-ups. Shared between snapshots that differ in neighbours only.
#[derive(Debug, Default)]
pub struct RouteTables {
    entries: Vec<Entry>,
    all: Tables,
    /// Routes that leave by one interface, local ones above them.
    by_interface: BTreeMap<u32, Tables>,
}

/// Usable neighbours: sorted keys, and the MACs in the same order. One number as a key makes the
/// search several times faster than comparing addresses of two families.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Interface in the high half, address in the low one.
    v4: (Vec<u64>, Vec<Mac>),
    v6: (Vec<(u128, u32)>, Vec<Mac>),
}

/// The snapshot.
#[derive(Debug, Default)]
pub struct Fib {
    interfaces: Vec<Interface>,
    routes: Arc<RouteTables>,
    neighbours: Arc<Neighbours>,
}

fn key_v4(interface: u32, address: Ipv4Addr) -> u64 {
    u64::from(interface) << 32 | u64::from(address.to_bits())
}

impl Neighbours {
    /// From `((interface, address), MAC)` in any order.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = ((u32, IpAddr), Mac)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for ((interface, address), mac) in all {
            match address {
                IpAddr::V4(address) => v4.push((key_v4(interface, address), mac)),
                IpAddr::V6(address) => v6.push(((address.to_bits(), interface), mac)),
            }
        }
        v4.sort_unstable_by_key(|(key, _)| *key);
        v6.sort_unstable_by_key(|(key, _)| *key);
        Self {
            v4: v4.into_iter().unzip(),
            v6: v6.into_iter().unzip(),
        }
    }

    fn get(&self, interface: u32, address: IpAddr) -> Option<Mac> {
        let (at, macs) = match address {
            IpAddr::V4(address) => (
                self.v4.0.binary_search(&key_v4(interface, address)),
                &self.v4.1,
            ),
            IpAddr::V6(address) => (
                self.v6.0.binary_search(&(address.to_bits(), interface)),
                &self.v6.1,
            ),
        };
        macs.get(at.ok()?).copied()
    }
}

impl RouteTables {
    /// Flattens `routes`; `interfaces` are the indices that get a table of their own.
    #[must_use]
    pub fn new(routes: &[Route], interfaces: &[u32]) -> Self {
        let mut tables = Self::default();
        let mut order: Vec<&Route> = routes.iter().collect();
        // The best last, because the last of equal prefixes counts. Stable: of equal metrics the
        // kernel's first one is the best, so the list is turned over first.
        order.reverse();
        order.sort_by_key(|route| Reverse(route.metric));
        tables.all = tables.build(&order, None);
        for index in interfaces {
            let built = tables.build(&order, Some(*index));
            tables.by_interface.insert(*index, built);
        }
        tables
    }

    fn build(&mut self, routes: &[&Route], only: Option<u32>) -> Tables {
        let mut v4: [Vec<(u32, u8, Option<u32>)>; 3] = Default::default();
        let mut v6: [Vec<(u128, u8, Option<u32>)>; 3] = Default::default();
        for route in routes {
            let slot = match route.table {
                TABLE_LOCAL => 0,
                TABLE_MAIN => 1,
                TABLE_DEFAULT => 2,
                _ => continue,
            };
            let hop = alive(&route.hops, only);
            // A route without a living next hop does not exist for the kernel, so the next metric
            // or a shorter prefix is used.
            if route.kind == RouteKind::Unicast && hop.is_none() {
                continue;
            }
            let value = if route.kind == RouteKind::Throw {
                None
            } else {
                let Ok(index) = u32::try_from(self.entries.len()) else {
                    break;
                };
                self.entries.push(Entry {
                    kind: route.kind,
                    hop,
                    mtu: route.mtu,
                });
                Some(index)
            };
            match route.destination {
                IpAddr::V4(address) => v4[slot].push((address.to_bits(), route.length, value)),
                IpAddr::V6(address) => v6[slot].push((address.to_bits(), route.length, value)),
            }
        }
        Tables {
            v4: stack(v4),
            v6: stack(v6),
        }
    }
}

/// Local over main over default.
fn stack<K: Key>(tables: [Vec<(K, u8, Option<u32>)>; 3]) -> Ranges<K, u32> {
    let [local, main, default] = tables.map(Ranges::new);
    local.over(&main.over(&default))
}

/// The first next hop with carrier, else the first that is not dead.
fn alive(hops: &[Hop], only: Option<u32>) -> Option<Hop> {
    let usable = |hop: &&Hop| !hop.dead && only.is_none_or(|interface| hop.interface == interface);
    let with_carrier = hops.iter().filter(usable).find(|hop| !hop.link_down);
    with_carrier.or_else(|| hops.iter().find(usable)).copied()
}

fn link_local(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

impl Fib {
    #[must_use]
    pub fn new(
        interfaces: Vec<Interface>,
        routes: Arc<RouteTables>,
        neighbours: Arc<Neighbours>,
    ) -> Self {
        Self {
            interfaces,
            routes,
            neighbours,
        }
    }

    /// The interfaces that we use, those that exist.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    #[must_use]
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.index == index)
    }

    /// The way to `destination`. No allocation, no lock; some tens of nanoseconds.
    #[must_use]
    pub fn lookup(&self, destination: IpAddr) -> NextHop {
        self.find(&self.routes.all, destination)
    }

    /// The way to `destination` among the routes that leave by `interface`, as a socket bound to
    /// that interface has it: a route into our own tunnel can not catch what carries the tunnel.
    #[must_use]
    pub fn lookup_on(&self, interface: u32, destination: IpAddr) -> NextHop {
        match self.routes.by_interface.get(&interface) {
            Some(tables) => self.find(tables, destination),
            None => NextHop::without(Resolution::OtherInterface),
        }
    }

    fn find(&self, tables: &Tables, destination: IpAddr) -> NextHop {
        let broadcast = destination == IpAddr::V4(Ipv4Addr::BROADCAST);
        if destination.is_multicast() || broadcast || link_local(destination) {
            return NextHop::without(Resolution::NotForwarded);
        }
        let index = match destination {
            IpAddr::V4(address) => tables.v4.get(address.to_bits()),
            IpAddr::V6(address) => tables.v6.get(address.to_bits()),
        };
        let entry = index.and_then(|index| self.routes.entries.get(index as usize));
        let Some(entry) = entry else {
            return NextHop::without(Resolution::Unreachable(Refusal::NoRoute));
        };
        match (entry.kind, entry.hop) {
            (RouteKind::Unicast, Some(hop)) => self.by_hop(entry, hop, destination),
            (RouteKind::Unicast | RouteKind::Throw, _) => {
                NextHop::without(Resolution::Unreachable(Refusal::NoRoute))
            }
            (RouteKind::Local, _) => NextHop::without(Resolution::Local),
            (RouteKind::Group, _) => NextHop::without(Resolution::NotForwarded),
            (RouteKind::Refuse(why), _) => NextHop::without(Resolution::Unreachable(why)),
        }
    }

    fn by_hop(&self, entry: &Entry, hop: Hop, destination: IpAddr) -> NextHop {
        let Some(interface) = self.interface(hop.interface) else {
            return NextHop {
                interface: hop.interface,
                ..NextHop::without(Resolution::OtherInterface)
            };
        };
        let next = hop.via.unwrap_or(destination);
        let resolution = if !interface.up || hop.link_down {
            Resolution::Unreachable(Refusal::LinkDown)
        } else {
            match self.neighbours.get(interface.index, next) {
                Some(mac) => Resolution::Resolved(mac),
                None => Resolution::Unresolved(next),
            }
        };
        NextHop {
            interface: interface.index,
            via: hop.via,
            source_mac: interface.mac,
            mtu: entry
                .mtu
                .map_or(interface.mtu, |mtu| mtu.min(interface.mtu)),
            resolution,
        }
    }

    /// The router of the default route that leaves by `interface`.
    #[must_use]
    pub fn default_router(&self, interface: u32, v6: bool) -> Option<IpAddr> {
        let tables = self.routes.by_interface.get(&interface)?;
        // The default route is what an address outside every other route gets.
        let index = if v6 {
            tables.v6.get(Ipv6Addr::UNSPECIFIED.to_bits())
        } else {
            tables.v4.get(Ipv4Addr::UNSPECIFIED.to_bits())
        };
        self.routes.entries.get(index? as usize)?.hop?.via
    }
}

impl NextHop {
    const fn without(resolution: Resolution) -> Self {
        Self {
            interface: 0,
            via: None,
            source_mac: None,
            mtu: 0,
            resolution,
        }
    }

    /// The address that must be resolved to a MAC for `destination`.
    #[must_use]
    pub fn next(&self, destination: IpAddr) -> IpAddr {
        self.via.unwrap_or(destination)
    }
}

#[cfg(test)]
#[path = "fib_tests.rs"]
mod tests;
