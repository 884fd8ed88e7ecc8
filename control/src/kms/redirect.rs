//! Gateways that send us elsewhere. Where to is theirs to propose; that it is a gateway of the same
//! cluster is ours to see to.

use std::net::IpAddr;
use std::time::Instant;

use rand::Rng;

use super::service::KeyManagement;

impl<R: Rng> KeyManagement<R> {
    /// `from` wants us to use `to`. In clusters that list both, the next exchange is with `to`. Says
    /// whether there is one.
    pub fn prefer(&mut self, from: IpAddr, to: IpAddr) -> bool {
        let mut any = false;
        for cluster in &mut self.clusters {
            if from != to && cluster.has(from) && cluster.has(to) {
                cluster.preferred = Some(to);
                any = true;
            }
        }
        any
    }

    /// Whether a key request waits for an exchange with `gateway`.
    pub fn is_asked(&self, gateway: IpAddr) -> bool {
        let mut running = self.clusters.iter().filter_map(|cluster| cluster.running());
        running.any(|run| run.current == Some(gateway))
    }

    /// Whether some cluster lists others beside `gateway`.
    pub fn has_other(&self, gateway: IpAddr) -> bool {
        let mut clusters = self.clusters.iter();
        clusters.any(|cluster| cluster.has(gateway) && cluster.order.len() > 1)
    }

    /// Nothing uses the session with `gateway` any more, and nothing shall: the task ends it by
    /// itself.
    pub fn on_left(&mut self, gateway: IpAddr, now: Instant) {
        if self.session(gateway).is_some() {
            self.lose(gateway, now);
        }
    }
}
