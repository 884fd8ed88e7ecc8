//! Which gateway traffic uses next: the search through the list, and the moves it leads to.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Action;
use super::monitor::Monitor;
use super::table::Event;
use crate::policy::HeartbeatMode;

/// A tunnel that carried nothing for so long is idle: a session that ends then is not replaced
/// before payload asks (INSTANT replaces it at once).
const IDLE_AFTER: Duration = Duration::from_secs(60);

impl Monitor {
    /// The active gateway `i` would rather not be used: it is not dead, so it stays in use until
    /// another one is keyed.
    pub(super) fn move_away(&mut self, i: usize, now: Instant) {
        let others = self.cyclic_after(i);
        let well = others.into_iter().find(|&j| {
            let other = &self.gateways[j];
            other.keyed && !other.unwell(now)
        });
        match well {
            Some(next) => self.activate(next, now),
            None if !self.asked => {
                self.after = Some(self.gateways[i].address);
                self.ask();
            }
            None => {}
        }
    }

    /// The session with the active gateway `i` is gone.
    pub(super) fn fail_over(&mut self, i: usize, event: Event, now: Instant) {
        match self.first_keyed(self.cyclic_after(i), now) {
            Some(next) => self.activate(next, now),
            None => self.deactivate(Some(self.gateways[i].address), event),
        }
    }

    pub(super) fn deactivate(&mut self, after: Option<IpAddr>, event: Event) {
        self.active = None;
        self.after = after;
        self.push(Action::Inactive);
        // A request that runs already (the gateway was unwell) will be answered too.
        let event = if self.asked { Event::Lost } else { event };
        self.step(event);
        if event == Event::Lost && !self.asked {
            self.ask();
        }
    }

    pub(super) fn activate(&mut self, i: usize, now: Instant) {
        self.active = Some(i);
        self.silence_from = Some(now);
        self.restarts = 0;
        self.asked = false;
        self.step(Event::Activated);
        self.push(Action::Activate {
            gateway: self.gateways[i].address,
        });
    }

    pub(super) fn ask(&mut self) {
        self.asked = true;
        self.push(Action::RequestKey { after: self.after });
    }

    /// The first keyed gateway of `candidates`; an unwell one only if no other is keyed.
    pub(super) fn first_keyed(
        &self,
        candidates: impl IntoIterator<Item = usize>,
        now: Instant,
    ) -> Option<usize> {
        let mut unwell = None;
        for i in candidates {
            let gateway = &self.gateways[i];
            if gateway.keyed && !gateway.unwell(now) {
                return Some(i);
            }
            if gateway.keyed {
                unwell = unwell.or(Some(i));
            }
        }
        unwell
    }

    /// Every other gateway in list order, starting behind `i` and wrapping around.
    fn cyclic_after(&self, i: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.gateways.len();
        (1..count).map(move |step| (i + step) % count)
    }

    /// Whether the tunnel through gateway `i` carried anything lately, or is kept up regardless.
    pub(super) fn in_use(&self, i: usize, now: Instant) -> bool {
        let last = self.sent_at.max(self.gateways[i].last_heard);
        self.timing.mode == HeartbeatMode::Instant
            || last.is_some_and(|at| now.saturating_duration_since(at) < IDLE_AFTER)
    }
}
