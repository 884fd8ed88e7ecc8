//! Gateways that share this one's address: the ways to them follow routes and neighbours.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use evergate_common::steering::Gateway;

use super::config::{self, SteeredWay};
use super::core::Node;
use super::events::{EventKind, NewEvent};
use crate::dataplane::loader::LoadError;
use crate::dataplane::net::fib::{Fib, Resolution};
use crate::dataplane::net::fib_watch::InUse;

/// The kernel hears so often that the ways are in use: it resolves a neighbour again that it would
/// forget.
const REPORT: Duration = Duration::from_secs(1);

type Mac = [u8; 6];

/// Another gateway.
struct Other {
    spec: config::SteeredGateway,
    /// As the program knows it.
    way: Option<Gateway>,
    /// Its link address on the segment; the last one stays while it is silent.
    station: Option<Mac>,
}

/// The others of a group.
pub(super) struct Group {
    own: IpAddr,
    /// Index of the outside interface.
    outside: u32,
    others: Vec<Other>,
    in_use: InUse,
    report_at: Instant,
}

/// What is to be changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// By number, with what operators are told.
    ways: Vec<(u8, Gateway, String)>,
    /// Link addresses that are no gateway's any more, and those that are.
    gone: Vec<Mac>,
    new: Vec<Mac>,
}

impl Group {
    pub(super) fn new(spec: &config::Steering, outside: u32, in_use: InUse) -> Self {
        let others = spec.gateways.iter().map(|spec| Other {
            spec: spec.clone(),
            way: None,
            station: None,
        });
        Self {
            own: spec.address,
            outside,
            others: others.collect(),
            in_use,
            report_at: Instant::now(),
        }
    }

    /// The addresses of the others.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.others.iter().map(|other| other.spec.address)
    }

    /// Compares the ways with routes and neighbours.
    fn look(&mut self, fib: &Fib, now: Instant) -> News {
        let mut news = News::default();
        let before = self.stations();
        let report = now >= self.report_at;
        if report {
            self.report_at = now + REPORT;
        }
        for other in &mut self.others {
            let (way, station, by) = way_to(&other.spec, self.own, fib, self.outside);
            other.station = station.or(other.station);
            if report {
                let address = other.spec.address;
                let next = fib.lookup_on(self.outside, address).next(address);
                self.in_use.report(self.outside, next);
            }
            if other.way != Some(way) {
                // A gateway that was never there is no news.
                let told = other.way.is_some() || way != Gateway::silent();
                let text = format!(
                    "gateway {} at {} {by}",
                    other.spec.number, other.spec.address
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
    outside: u32,
) -> (Gateway, Option<Mac>, String) {
    let hop = fib.lookup_on(outside, spec.address);
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
            if !text.is_empty() {
                self.note(NewEvent::new(EventKind::Steering, text).at(now));
            }
        }
        Ok(())
    }
}
