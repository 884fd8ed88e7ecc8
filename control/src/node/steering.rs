//! Gateways that share this one's address, the encryption nodes behind a front, and the fronts before a node:
//! the ways to them follow routes and neighbours.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use evergate_common::steering::Gateway;
use rtnetlink::Handle;

use super::config::{self, Config, SteeredWay};
use super::core::Node;
use super::events::{EventKind, NewEvent};
use crate::dataplane::loader::LoadError;
use crate::dataplane::net::fib::{Fib, Resolution};
use crate::dataplane::net::fib_watch::InUse;
use crate::dataplane::net::links::LinkInfo;

/// The kernel hears so often that the ways are in use: it resolves a neighbour again that it would
/// forget.
const REPORT: Duration = Duration::from_secs(1);

type Mac = [u8; 6];

/// Another gateway, node or front.
struct Other {
    spec: config::SteeredGateway,
    /// Nothing is sent there: only its link address is of interest.
    only_station: bool,
    /// Index of the interface that leads there.
    interface: u32,
    /// As the program knows it.
    way: Option<Gateway>,
    /// Its link address on the segment; the last one stays while it is silent.
    station: Option<Mac>,
}

/// The interfaces that lead to others, by name.
pub(super) struct Links {
    /// Index of the outside interface.
    outside: u32,
    named: HashMap<String, u32>,
}

impl Links {
    /// Names of the interfaces, but the outside one.
    pub(super) fn names(config: &Config) -> BTreeSet<String> {
        let steering = config.steering.as_ref().map(|steering| &steering.gateways);
        let nodes = steering.or(config.front.as_ref().map(|front| &front.nodes));
        let names = nodes.into_iter().flatten();
        let names = names.filter_map(|other| other.interface.clone());
        names
            .filter(|name| *name != config.outside.interface)
            .collect()
    }

    /// Looks them up.
    pub(super) async fn find(handle: &Handle, config: &Config, outside: u32) -> Result<Self> {
        let mut named = HashMap::new();
        for name in Self::names(config) {
            let link = LinkInfo::by_name(handle, &name).await?;
            link.mac()?;
            named.insert(name, link.interface.index);
        }
        Ok(Self { outside, named })
    }

    fn of(&self, spec: &config::SteeredGateway) -> u32 {
        let index = spec
            .interface
            .as_ref()
            .and_then(|name| self.named.get(name));
        index.copied().unwrap_or(self.outside)
    }
}

/// The others of a group.
pub(super) struct Group {
    /// What one of them is called.
    what: &'static str,
    own: IpAddr,
    /// Index of the outside interface.
    outside: u32,
    others: Vec<Other>,
    in_use: InUse,
    report_at: Instant,
}

/// What is to be changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// By number, with what operators are told.
    pub(super) ways: Vec<(u8, Gateway, String)>,
    /// Link addresses that are no gateway's any more, and those that are.
    pub(super) gone: Vec<Mac>,
    pub(super) new: Vec<Mac>,
}

impl Group {
    /// The group that a configuration speaks of, if it does.
    pub(super) fn of(config: &Config, links: &Links, in_use: InUse) -> Option<Self> {
        let other = |only_station| {
            move |spec: &config::SteeredGateway| Other {
                spec: spec.clone(),
                only_station,
                interface: links.of(spec),
                way: None,
                station: None,
            }
        };
        let (what, own, others) = if let Some(steering) = &config.steering {
            let others = steering.gateways.iter().map(other(false));
            ("gateway", steering.address, others.collect())
        } else {
            let (front, behind) = (config.front.as_ref(), config.behind.as_ref());
            let own = front.map(|front| front.address);
            let own = own.or(behind.map(|behind| behind.address))?;
            let nodes = front.map_or(&[][..], |front| &front.nodes);
            let mut others: Vec<Other> = nodes.iter().map(other(false)).collect();
            let fronts = behind.map_or(&[][..], |behind| &behind.fronts);
            for address in fronts {
                if others.iter().all(|other| other.spec.address != *address) {
                    let spec = config::SteeredGateway {
                        number: 0,
                        address: *address,
                        way: SteeredWay::Auto,
                        mtu: None,
                        interface: None,
                    };
                    others.push(other(true)(&spec));
                }
            }
            ("node", own, others)
        };
        Some(Self {
            what,
            own,
            outside: links.outside,
            others,
            in_use,
            report_at: Instant::now(),
        })
    }

    /// The node's own address, beside the shared one.
    pub(super) fn own(&self) -> IpAddr {
        self.own
    }

    /// The addresses of the others.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.others.iter().map(|other| other.spec.address)
    }

    /// Compares the ways with routes and neighbours.
    pub(super) fn look(&mut self, fib: &Fib, now: Instant) -> News {
        let mut news = News::default();
        let before = self.stations();
        let report = now >= self.report_at;
        if report {
            self.report_at = now + REPORT;
        }
        for other in &mut self.others {
            let (mut way, station, by) = way_to(&other.spec, self.own, fib, other.interface);
            if other.interface != self.outside && way != Gateway::silent() {
                way = way.by_interface(other.interface);
            }
            other.station = station.or(other.station);
            if report {
                let address = other.spec.address;
                let next = fib.lookup_on(other.interface, address).next(address);
                self.in_use.report(other.interface, next);
            }
            if !other.only_station && other.way != Some(way) {
                // A gateway that was never there is no news.
                let told = other.way.is_some() || way != Gateway::silent();
                let text = format!(
                    "{} {} at {} {by}",
                    self.what, other.spec.number, other.spec.address
                );
                let text = if told { text } else { String::new() };
                other.way = Some(way);
                news.ways.push((other.spec.number, way, text));
            }
        }
        let after = self.stations();
        news.gone = before.difference(&after).copied().collect();
        news.new = after.difference(&before).copied().collect();
        news
    }

    fn stations(&self) -> BTreeSet<Mac> {
        let stations = self.others.iter().filter_map(|other| other.station);
        stations.collect()
    }
}

/// The way to another gateway, its link address if it is on the segment, and words for it.
fn way_to(
    spec: &config::SteeredGateway,
    own: IpAddr,
    fib: &Fib,
    interface: u32,
) -> (Gateway, Option<Mac>, String) {
    let hop = fib.lookup_on(interface, spec.address);
    let (Resolution::Resolved(mac), Some(source)) = (hop.resolution, hop.source_mac) else {
        let text = "does not answer: what is for it is dropped".to_owned();
        return (Gateway::silent(), None, text);
    };
    let near = Gateway::on_segment(mac, source);
    let station = hop.via.is_none().then_some(mac);
    if station.is_some() && spec.way == SteeredWay::Auto {
        return (near, station, "gets its packets on the segment".to_owned());
    }
    let mtu = spec.mtu.map_or(hop.mtu, |mtu| hop.mtu.min(mtu.into()));
    let way = near.in_ip(own, spec.address, u16::try_from(mtu).unwrap_or(u16::MAX));
    let text = format!("gets its packets in IP of at most {mtu} bytes");
    (way, station, text)
}

impl Node {
    /// Tells the program how to get to the other gateways of this one's address, if that has changed.
    pub(super) fn steer(&mut self, now: Instant) -> Result<(), LoadError> {
        let Some(group) = &mut self.group else {
            return Ok(());
        };
        let news = group.look(&self.fib.load(), now);
        // Whoever may send something here is known before anything is sent there.
        self.dataplane.set_stations(news.gone, news.new)?;
        for (number, way, text) in news.ways {
            self.dataplane.set_gateway(number, way)?;
            if let Some(front) = &self.front {
                front.set_way(number, way != Gateway::silent());
            }
            if !text.is_empty() {
                self.note(NewEvent::new(EventKind::Steering, text).at(now));
            }
        }
        Ok(())
    }
}
