//! What goes wrong, and what is promised all the same.

use std::net::IpAddr;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::session::Session;
use super::{Fault, Node, Place, RETRANSMIT, What, World, gateway_address, policy, promise};

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        let hits = match fault {
            Fault::Crash(g)
            | Fault::Freeze(g)
            | Fault::PullWan(g)
            | Fault::PullLan(g)
            | Fault::Deafen(g)
            | Fault::Mute(g) => Some(g),
            _ => None,
        };
        if let Some(g) = hits {
            let address = gateway_address(g);
            let used = self.clients.iter().filter(|c| c.active() == Some(address));
            self.failovers += used.count() as u64;
        }
        match fault {
            Fault::Crash(g) => self.gateways[g].crash(),
            Fault::Restart(g) => {
                let rng = StdRng::from_rng(&mut self.rng);
                self.gateways[g].restart(&self.scenario, rng);
            }
            Fault::Freeze(g) => self.gateways[g].freeze(),
            Fault::Thaw(g) => {
                {
                    let shown = self.clocks.of(Place::Gateway(g)).shows(self.now);
                    self.gateways[g].thaw(shown);
                }
                self.later(Duration::ZERO, What::Wake(Place::Gateway(g)));
            }
            Fault::Drain(g) => self.step(Place::Gateway(g), |node, step| {
                if let Node::Gateway(gateway) = node {
                    gateway.drain(step);
                }
            }),
            Fault::Undrain(g) => {
                self.gateways[g].undrain();
                self.drained[g] = Some(self.now);
            }
            Fault::Unlist(g) => self.list(g, false),
            Fault::List(g) => self.list(g, true),
            Fault::Move(c) => self.step(Place::Client(c), |node, step| {
                if let Node::Client(client) = node {
                    client.move_on(step);
                }
            }),
            Fault::Remap(c) => self.clients[c].remap(),
            _ => self.net.fault(fault),
        }
        for g in 0..self.gateways.len() {
            let link = self.net.has_lan(g) && self.net.has_wan(g);
            self.gateways[g].link(link);
        }
        self.promise(hits);
    }

    /// All clients read a policy with this gateway, or without it.
    fn list(&mut self, gateway: usize, listed: bool) {
        let last = self.listed.iter().filter(|listed| **listed).count() == 1;
        if self.listed[gateway] == listed || last && !listed {
            return;
        }
        self.listed[gateway] = listed;
        for index in 0..self.clients.len() {
            let policy = policy::read(&self.scenario, &self.listed, &mut self.rng);
            self.step(Place::Client(index), |node, step| {
                if let Node::Client(client) = node {
                    client.reload(&policy, step);
                }
            });
        }
    }

    /// Whether a gateway is well, and no exchange that began while it was not can still be given up, and a
    /// session with it.
    fn has_been_well(&self, gateway: usize) -> bool {
        let settled = |since: Duration| since.is_zero() || self.now >= since + RETRANSMIT.total();
        self.well_since[gateway].is_some_and(settled)
    }

    /// What the clients are promised after a fault that hit `gateway`.
    pub(super) fn promise(&mut self, gateway: Option<usize>) {
        self.watch.nothing_is_promised();
        for g in 0..self.gateways.len() {
            let well = self.is_healthy(g);
            let since = &mut self.well_since[g];
            *since = since.or(Some(self.now)).filter(|_| well);
        }
        if self.net.loses() || self.well_since.iter().all(Option::is_none) {
            return;
        }
        let most = promise::without_standby(&self.scenario);
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            let hit = gateway.filter(|g| client.active() == Some(gateway_address(*g)));
            let usable = |address: IpAddr, session: &Session, kept: bool| {
                let g = (0..self.gateways.len()).find(|g| gateway_address(*g) == address);
                g.is_some_and(|g| {
                    let said = self.drained[g].is_some_and(|at| self.now < at + promise::HEALTH);
                    kept && !said
                        && self.has_been_well(g)
                        && self.gateways[g].keeps(session.spi_out(), client.outer())
                })
            };
            let keyed: Vec<bool> = client
                .keyed()
                .map(|(at, s, kept)| usable(at, s, kept))
                .collect();
            let dead = keyed.iter().filter(|usable| !**usable).count();
            let standby = hit.is_some() && dead < keyed.len();
            let within = match standby {
                true => {
                    promise::with_standby(&self.scenario, u32::try_from(dead).unwrap_or(u32::MAX))
                }
                false => most,
            };
            let time = [self.now, self.now + within];
            self.watch.promise(index, time, standby);
        }
    }
}
