//! How each fault is begun and ended.

use super::home::Home;
use super::plan::{Fault, Kind};
use crate::lab::topology::{GATEWAYS, gateway_outside};
use crate::lab::{Lab, Place, Setup, limits};
use crate::sh;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

/// What the clock of a node may leap by: a day either way.
const DAY: u64 = 86_400;

/// Does the deeds, and knows which are not undone yet.
pub(super) struct Hand {
    pub(super) homes: HashMap<Place, Home>,
    setup: Setup,
    /// What the router drops: of which gateway, to it or from it, per cent.
    losses: Vec<(Place, Kind, u64)>,
    /// Limits that were lowered, and what they were.
    limits: HashMap<Place, String>,
    /// Nodes that can not be asked for their status now.
    pub(super) silent: HashSet<Place>,
}

impl Hand {
    /// `setup`: what the client's policy is made of.
    pub(super) fn new(homes: HashMap<Place, Home>, setup: Setup) -> Self {
        Self {
            homes,
            setup,
            losses: Vec::new(),
            limits: HashMap::new(),
            silent: HashSet::new(),
        }
    }

    pub(super) fn begin(&mut self, lab: &mut Lab, fault: &Fault) -> Result<()> {
        let place = fault.place;
        match fault.kind {
            Kind::Kill => {
                self.silent.insert(place);
                lab.kill(place)
            }
            Kind::Terminate => {
                self.silent.insert(place);
                let status = lab.stop(place)?;
                ensure!(status.success(), "{place} was told to end: {status}");
                Ok(())
            }
            Kind::Freeze => {
                self.silent.insert(place);
                lab.freeze(place)
            }
            Kind::LanPulled => lab.pull_lan(number(place)?),
            Kind::WanPulled => lab.pull_wan(number(place)?),
            Kind::LanDown => link(lab, place, "lan0", &["down"]),
            Kind::WanDown => link(lab, place, "wan0", &["down"]),
            Kind::ClientLink => link(lab, Place::Wan, "client", &["down"]),
            Kind::Moves => lab.client_moves_away(),
            Kind::NothingTo | Kind::NothingFrom => self.lose(lab, fault, 100),
            Kind::LossTo | Kind::LossFrom => self.lose(lab, fault, fault.amount),
            Kind::Mtu => mtu(lab, place, outside(place), fault.amount),
            Kind::MtuPath => path_mtu(lab, fault.amount),
            Kind::Reorder => {
                let mut order = GATEWAYS.to_vec();
                order.rotate_left((fault.amount % 3) as usize);
                if fault.amount / 3 % 2 == 1 {
                    order.swap(1, 2);
                }
                self.policy(lab, order)
            }
            Kind::Fewer => {
                let mut fewer = self.setup.cluster.clone();
                fewer.retain(|number| u64::from(*number) != fault.amount);
                self.policy(lab, fewer)
            }
            Kind::Broken => self.broken(lab, fault.amount),
            Kind::Drain => lab.evergate(place, &["drain"]).map(drop),
            Kind::DiskFull => self.home(place)?.fill(),
            Kind::NoDescriptors => {
                self.silent.insert(place);
                let pid = lab.pid(place)?;
                self.limits.insert(place, limits::take_descriptors(pid)?);
                Ok(())
            }
            Kind::Clock => {
                let seconds = fault.amount % (2 * DAY);
                self.home(place)?.leap(seconds as i64 - DAY as i64)
            }
        }
    }

    pub(super) fn end(&mut self, lab: &mut Lab, fault: &Fault) -> Result<()> {
        let place = fault.place;
        match fault.kind {
            Kind::Kill | Kind::Terminate => {
                lab.start(place)?;
                self.silent.remove(&place);
                Ok(())
            }
            Kind::Freeze => {
                lab.thaw(place)?;
                self.silent.remove(&place);
                Ok(())
            }
            Kind::LanPulled => lab.restore_lan(number(place)?),
            Kind::WanPulled => lab.restore_wan(number(place)?),
            Kind::LanDown => link(lab, place, "lan0", &["up"]),
            Kind::WanDown => {
                link(lab, place, "wan0", &["up"])?;
                // It went with the interface, as it does wherever nothing looks after it.
                let route = ["ip", "route", "replace", "default", "via", "192.0.2.254"];
                lab.exec(place, &route).map(drop)
            }
            Kind::ClientLink => link(lab, Place::Wan, "client", &["up"]),
            Kind::Moves => lab.client_moves_back(),
            Kind::NothingTo | Kind::NothingFrom | Kind::LossTo | Kind::LossFrom => {
                let it = (place, fault.kind);
                self.losses.retain(|(place, kind, _)| (*place, *kind) != it);
                self.drop_packets(lab)
            }
            Kind::Mtu => mtu(lab, place, outside(place), 1500),
            Kind::MtuPath => path_mtu(lab, 1500),
            Kind::Reorder | Kind::Broken => Ok(()),
            Kind::Fewer => self.policy(lab, GATEWAYS.to_vec()),
            Kind::Drain => lab.evergate(place, &["drain", "--undo"]).map(drop),
            Kind::DiskFull => self.home(place)?.empty(),
            Kind::NoDescriptors => {
                let had = self.limits.remove(&place).context("no limit was set")?;
                limits::set(lab.pid(place)?, &had)?;
                self.silent.remove(&place);
                Ok(())
            }
            Kind::Clock => self.home(place)?.leap(0),
        }
    }

    fn home(&self, place: Place) -> Result<&Home> {
        let home = self.homes.get(&place);
        home.with_context(|| format!("{place} has no disk of its own"))
    }

    fn lose(&mut self, lab: &Lab, fault: &Fault, percent: u64) -> Result<()> {
        self.losses.push((fault.place, fault.kind, percent));
        self.drop_packets(lab)
    }

    /// Loads the router's rules anew.
    fn drop_packets(&self, lab: &Lab) -> Result<()> {
        let mut rules = String::from(
            "add table ip chaos\ndelete table ip chaos\ntable ip chaos {\n  chain through {\n    \
             type filter hook forward priority filter\n",
        );
        for (place, kind, percent) in &self.losses {
            let end = match kind {
                Kind::NothingTo | Kind::LossTo => "daddr",
                _ => "saddr",
            };
            let address = gateway_outside(number(*place)?);
            let _ = match percent {
                100 => writeln!(rules, "    ip {end} {address} counter drop"),
                _ => writeln!(
                    rules,
                    "    ip {end} {address} numgen random mod 100 < {percent} counter drop"
                ),
            };
        }
        lab.wan_rules(&(rules + "  }\n}\n"))
    }

    fn policy(&mut self, lab: &Lab, cluster: Vec<u8>) -> Result<()> {
        self.setup.cluster = cluster;
        lab.write_policy(&self.setup.policy())?;
        lab.evergate(Place::Client, &["policy", "reload"]).map(drop)
    }

    /// A file that is no policy must be refused, and what was read before stays.
    fn broken(&self, lab: &Lab, chance: u64) -> Result<()> {
        let whole = self.setup.policy();
        let text = match chance % 4 {
            0 => String::new(),
            1 => whole.replace("192.0.2.", "192.0.2.300."),
            2 => whole.replace("[CLUSTER]", "[CLUTTER]"),
            _ => whole.chars().take(whole.chars().count() - 20).collect(),
        };
        lab.write_policy(&text)?;
        let output = lab.try_evergate(Place::Client, &["policy", "reload"])?;
        lab.write_policy(&whole)?;
        if output.status.code() != Some(1) {
            bail!(
                "a broken policy ({}) was not refused ({}): {}",
                chance % 4,
                output.status,
                sh::said(&output)
            );
        }
        Ok(())
    }
}

fn number(place: Place) -> Result<u8> {
    match place {
        Place::Gateway(number) => Ok(number),
        _ => bail!("{place} is no gateway"),
    }
}

/// The outside interface of a node.
fn outside(place: Place) -> &'static str {
    match place {
        Place::Client => "out0",
        _ => "wan0",
    }
}

fn link(lab: &Lab, place: Place, interface: &str, words: &[&str]) -> Result<()> {
    let all = [&["ip", "link", "set", interface][..], words].concat();
    lab.exec(place, &all).map(drop)
}

fn mtu(lab: &Lab, place: Place, interface: &str, mtu: u64) -> Result<()> {
    link(lab, place, interface, &["mtu", &mtu.to_string()])
}

/// Of the router, on both sides.
fn path_mtu(lab: &Lab, size: u64) -> Result<()> {
    mtu(lab, Place::Wan, "client", size)?;
    mtu(lab, Place::Wan, "br0", size)
}
