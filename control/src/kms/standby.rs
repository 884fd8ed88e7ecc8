//! Standby: gateways kept keyed in the background, so that failover needs no exchange.

use std::net::IpAddr;
use std::time::Instant;

use rand::Rng;

use super::cluster::Cluster;
use super::service::KeyManagement;

impl<R: Rng> KeyManagement<R> {
    /// Sets each cluster's standby timer to what its shortage asks for now.
    pub(super) fn plan_standby(&mut self, now: Instant) {
        for c in 0..self.clusters.len() {
            let ready = self.standby_ready(&self.clusters[c]);
            let planned = self.clusters[c].standby_at;
            self.clusters[c].standby_at = match (ready, planned) {
                (None, _) => None,
                // The plan still fits: the timer is not pushed back by every event.
                (Some(ready), Some(at))
                    if at >= ready && at <= ready.max(now) + self.settings.retry_first =>
                {
                    Some(at)
                }
                (Some(ready), _) => Some(ready.max(now) + self.settings.spread(&mut self.rng)),
            };
        }
    }

    /// Starts the background exchanges that are due.
    pub(super) fn start_standby(&mut self, now: Instant) {
        for c in 0..self.clusters.len() {
            let cluster = &self.clusters[c];
            if cluster.standby_at.is_none_or(|at| now < at) || self.standby_ready(cluster).is_none()
            {
                continue;
            }
            let next = cluster
                .round_from(cluster.active)
                .find(|gw| self.could_stand_by(*gw).is_some_and(|ready| ready <= now));
            self.clusters[c].standby_at = None;
            if let Some(gateway) = next {
                self.authenticate(gateway);
            }
        }
    }

    /// If this cluster lacks a standby gateway and may look for one: from when on. It may not
    /// while any exchange with one of its gateways runs, so a request is never crowded.
    fn standby_ready(&self, cluster: &Cluster) -> Option<Instant> {
        let active = cluster.active?;
        self.session(active)?;
        let busy = cluster.running().is_some()
            || cluster
                .order
                .iter()
                .any(|gw| self.find(*gw).is_some_and(|g| g.authenticating));
        let spare = cluster
            .order
            .iter()
            .filter(|gw| **gw != active && self.session(**gw).is_some())
            .count();
        if busy || spare >= self.settings.standby {
            return None;
        }
        cluster
            .order
            .iter()
            .filter_map(|gw| self.could_stand_by(*gw))
            .min()
    }

    /// From when on an unkeyed gateway may be asked in the background; `None` if it is keyed.
    fn could_stand_by(&self, gateway: IpAddr) -> Option<Instant> {
        let entry = self.find(gateway)?;
        let free = entry.session.is_none() && !entry.authenticating;
        free.then_some(entry.hold_until)
    }
}
