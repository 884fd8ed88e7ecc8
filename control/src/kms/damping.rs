//! Flap damping: a gateway that authenticates and is found dead at once, again and again, is passed
//! over for a while, as a route that flaps is (RFC 2439 has the idea). Such a gateway has a link that
//! is out, or there is a firewall in the way that lets IKE through and no ESP.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::Rng;

use super::cluster::Cluster;
use super::service::KeyManagement;

/// What requests hold against a gateway.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Damping {
    /// Sessions in a row that were found dead before they had lived for the longest wait.
    early_deaths: u32,
    /// Requests pass it over until then.
    until: Option<Instant>,
}

impl<R: Rng> KeyManagement<R> {
    /// A session with `gateway` that lived for `age` was found dead. The first early death is free: the
    /// gateway may have been restarted, and nobody shall wait for it.
    pub(super) fn damp(&mut self, gateway: IpAddr, age: Duration, now: Instant) {
        let early = age <= self.settings.retry_cap;
        let Some(deaths) = self.entry(gateway).map(|g| g.damping.early_deaths) else {
            return;
        };
        let early_deaths = if early { deaths.saturating_add(1) } else { 0 };
        let until = match early_deaths.saturating_sub(1) {
            0 => None,
            more => Some(now + self.settings.backoff(more, &mut self.rng)),
        };
        if let Some(entry) = self.entry(gateway) {
            entry.damping = Damping {
                early_deaths,
                until,
            };
        }
    }

    /// A session with `gateway` that lived for `age` is no more, however it ended: one that lived long
    /// clears its name.
    pub(super) fn forgive(&mut self, gateway: IpAddr, age: Duration) {
        let steady = self.settings.retry_cap;
        if let Some(entry) = self.entry(gateway)
            && age > steady
        {
            entry.failures = 0;
            entry.damping = Damping::default();
        }
    }

    /// Until when requests pass `gateway` over; `None` if they need not.
    pub(super) fn damped(&self, gateway: IpAddr, now: Instant) -> Option<Instant> {
        let until = self.find(gateway)?.damping.until;
        until.filter(|until| now < *until)
    }

    /// The gateways of `cluster` that requests pass over: until when, and why. One that is keyed is to be
    /// left, and would not be asked anyway.
    pub(super) fn passed_over(
        &self,
        cluster: &Cluster,
        now: Instant,
    ) -> Vec<(IpAddr, Instant, String)> {
        let unkeyed = cluster
            .order
            .iter()
            .filter(|gateway| self.session(**gateway).is_none());
        let damped = unkeyed.filter_map(|gateway| {
            let until = self.damped(*gateway, now)?;
            let deaths = self.find(*gateway)?.damping.early_deaths;
            let left = (until - now).as_millis();
            let reason = format!(
                "not asked for another {left} ms: its last {deaths} sessions were dead soon after they came up"
            );
            Some((*gateway, until, reason))
        });
        damped.collect()
    }
}
