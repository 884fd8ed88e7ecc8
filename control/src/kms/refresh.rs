//! Sessions that are made anew beside the old one, because the policy wants more of them than was
//! agreed.

use std::net::IpAddr;
use std::time::Instant;

use rand::Rng;

use super::service::KeyManagement;

/// A session that is to be made anew.
#[derive(Debug)]
pub(super) struct Refresh {
    /// When the next exchange may begin.
    pub(super) at: Instant,
    /// Exchanges that failed.
    pub(super) failures: u32,
}

impl<R: Rng> KeyManagement<R> {
    /// The session with `gateway` is to be made anew. It stays until the new one is there; while
    /// that fails, it is tried again after the usual waits. Does nothing for a gateway that is not
    /// keyed: its next session will be the right one anyway.
    pub fn refresh(&mut self, gateway: IpAddr, now: Instant) {
        if let Some(entry) = self.entry(gateway)
            && entry.session.is_some()
        {
            entry.refresh = Some(Refresh {
                at: now,
                failures: 0,
            });
        }
        self.start_refresh(now);
    }

    /// Starts the exchanges that are due; one that runs with the gateway already comes first.
    pub(super) fn start_refresh(&mut self, now: Instant) {
        let due = self.gateways.iter().filter(|entry| {
            let due = entry.refresh.as_ref().is_some_and(|r| r.at <= now);
            due && !entry.authenticating
        });
        for gateway in due.map(|entry| entry.address).collect::<Vec<_>>() {
            self.authenticate(gateway);
        }
    }

    /// When the next one is due.
    pub(super) fn next_refresh(&self) -> Option<Instant> {
        let waiting = self.gateways.iter().filter(|entry| !entry.authenticating);
        let due = waiting.filter_map(|entry| entry.refresh.as_ref().map(|r| r.at));
        due.min()
    }

    /// An exchange with `gateway` failed.
    pub(super) fn refresh_later(&mut self, gateway: IpAddr, now: Instant) {
        let Some(entry) = self.gateways.iter_mut().find(|g| g.address == gateway) else {
            return;
        };
        if let Some(refresh) = &mut entry.refresh {
            refresh.failures = refresh.failures.saturating_add(1);
            refresh.at = now + self.settings.backoff(refresh.failures, &mut self.rng);
        }
    }
}
