//! The outer network and the gateways' links.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::{Fault, Place, Scenario};

struct Link {
    wan: bool,
    lan: bool,
    /// Nothing gets to it, or from it.
    deaf: bool,
    mute: bool,
}

pub(super) struct Net {
    links: Vec<Link>,
    delay: Duration,
    jitter: Duration,
    /// Per mille.
    loss: u32,
    doubled: u32,
}

impl Net {
    pub(super) fn new(scenario: &Scenario) -> Net {
        let link = || Link {
            wan: true,
            lan: true,
            deaf: false,
            mute: false,
        };
        Net {
            links: (0..scenario.gateways).map(|_| link()).collect(),
            delay: scenario.delay,
            jitter: scenario.jitter,
            loss: scenario.loss,
            doubled: scenario.doubled,
        }
    }

    pub(super) fn loses(&self) -> bool {
        self.loss > 0
    }

    pub(super) fn has_wan(&self, gateway: usize) -> bool {
        self.links[gateway].wan
    }

    pub(super) fn has_lan(&self, gateway: usize) -> bool {
        self.links[gateway].lan
    }

    /// Nothing is wrong with the way through it.
    pub(super) fn is_open(&self, gateway: usize) -> bool {
        let link = &self.links[gateway];
        link.wan && link.lan && !link.deaf && !link.mute
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::PullWan(g) => self.links[g].wan = false,
            Fault::PullLan(g) => self.links[g].lan = false,
            Fault::Deafen(g) => self.links[g].deaf = true,
            Fault::Mute(g) => self.links[g].mute = true,
            Fault::Mend(g) => {
                self.links[g] = Link {
                    wan: true,
                    lan: true,
                    deaf: false,
                    mute: false,
                };
            }
            Fault::Loss(loss) => self.loss = loss,
            _ => {}
        }
    }

    /// When a packet arrives: once, never, or twice. Jitter changes the order.
    pub(super) fn ways(&self, from: Place, to: Place, rng: &mut StdRng) -> Vec<Duration> {
        let (gateway, inbound) = match (from, to) {
            (Place::Client(_), Place::Gateway(g)) => (g, true),
            (Place::Gateway(g), _) => (g, false),
            _ => return Vec::new(),
        };
        let link = &self.links[gateway];
        let cut = !link.wan || inbound && link.deaf || !inbound && link.mute;
        if cut || rng.random_range(0..1000) < self.loss {
            return Vec::new();
        }
        let times = 1 + usize::from(rng.random_range(0..1000) < self.doubled);
        (0..times)
            .map(|_| self.delay + rng.random_range(Duration::ZERO..=self.jitter))
            .collect()
    }
}
