//! The heartbeat state machine of one cluster.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use evergate_common::heartbeat::HEALTH_DRAINING;

use super::gateway::{Gateway, GatewayView, Outstanding};
use super::table::{Event, Phase, Timer};
use super::{Action, Timing};
use crate::policy::{ClusterId, HeartbeatMode};

/// Heartbeat counters have 31 bits: bit 31 of the sequence number tells answers from requests.
const COUNTER_MASK: u32 = 0x7fff_ffff;

/// How often in one round a window starts again because we overslept. After that the verdict
/// falls all the same, so a machine that is always late still leaves a dead gateway.
const MAX_RESTARTS: u8 = 2;

/// The least lateness that counts as oversleeping; below it lies ordinary scheduling noise.
const LATE_AT_LEAST: Duration = Duration::from_millis(2);

/// Watches the active gateway of one cluster and chooses the next one.
///
/// Contract: call `on_…` for what happened, then `poll`, then take every `next_action`; wake it
/// no later than `next_deadline`. Times never go backwards. Gateways that are not in the order
/// are ignored. See the module page for the order of calls within a batch.
#[derive(Debug)]
pub struct Monitor {
    cluster: ClusterId,
    pub(super) timing: Timing,
    pub(super) gateways: Vec<Gateway>,
    pub(super) active: Option<usize>,
    pub(super) phase: Phase,
    /// The silence is counted from here or from the last sign of life, whichever is later.
    pub(super) silence_from: Option<Instant>,
    pub(super) sent_at: Option<Instant>,
    window_from: Option<Instant>,
    pub(super) restarts: u8,
    link_up: bool,
    pub(super) asked: bool,
    pub(super) after: Option<IpAddr>,
    pub(super) counter: u32,
    outstanding: Outstanding,
    unmatched: u64,
    overslept: u64,
    pub(super) actions: VecDeque<Action>,
}

impl Monitor {
    /// A monitor with no gateway keyed. `order` is the list as the policy's reader drew it; a
    /// repeated address counts once.
    pub fn new(cluster: ClusterId, order: Vec<IpAddr>, timing: Timing) -> Monitor {
        let mut gateways: Vec<Gateway> = Vec::with_capacity(order.len());
        for address in order {
            if gateways.iter().all(|known| known.address != address) {
                gateways.push(Gateway::new(address));
            }
        }
        Monitor {
            cluster,
            timing: timing.clamped(),
            gateways,
            active: None,
            phase: Phase::Idle,
            silence_from: None,
            sent_at: None,
            window_from: None,
            restarts: 0,
            link_up: true,
            asked: false,
            after: None,
            counter: 0,
            outstanding: Outstanding::default(),
            unmatched: 0,
            overslept: 0,
            actions: VecDeque::with_capacity(16),
        }
    }

    /// The cluster this monitor is for.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The gateway that traffic uses now. It is keyed.
    pub fn active(&self) -> Option<IpAddr> {
        self.active_gateway().map(|gateway| gateway.address)
    }

    /// Where in the state table this monitor is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Every gateway in list order.
    pub fn snapshot(&self) -> impl Iterator<Item = GatewayView> + '_ {
        self.gateways
            .iter()
            .enumerate()
            .map(|(i, gateway)| gateway.view(self.active == Some(i)))
    }

    /// Answers that matched no heartbeat under way: too old, doubled, or never asked for.
    pub fn unmatched_answers(&self) -> u64 {
        self.unmatched
    }

    /// Windows that started again because we looked at the clock too late.
    pub fn windows_restarted(&self) -> u64 {
        self.overslept
    }

    /// Payload went to the active gateway. At most once a batch is enough.
    pub fn on_sent(&mut self, now: Instant) {
        self.sent_at = Some(now);
        // DEFERRED: the heartbeat was waiting for exactly this.
        if self.phase == Phase::Waiting && self.link_up {
            self.step(Event::Sent);
            self.heartbeat(now);
        }
    }

    /// Payload wants the tunnel but no gateway is active. Asks for a key once, however often it
    /// is called, until a gateway is active or the request was rejected.
    pub fn on_wanted(&mut self, _now: Instant) {
        if matches!(self.phase, Phase::Idle | Phase::Refused) {
            self.step(Event::Wanted);
            self.ask();
        }
    }

    /// An authenticated packet (ESP) came from `gateway`.
    pub fn on_heard(&mut self, gateway: IpAddr, now: Instant) {
        if let Some(i) = self.keyed(gateway) {
            self.heard(i, now);
        }
    }

    /// A verified answer to a heartbeat came from `gateway`, with the low 31 bits of its sequence
    /// number and its health byte (0 = well). Returns the round-trip time if a heartbeat under
    /// way is answered by it; any other answer proves nothing and is only counted.
    pub fn on_answer(
        &mut self,
        gateway: IpAddr,
        counter: u32,
        health: u8,
        now: Instant,
    ) -> Option<Duration> {
        let taken = self.keyed(gateway).and_then(|i| {
            self.outstanding
                .take(gateway, counter)
                .map(|sent_at| (i, sent_at))
        });
        let Some((i, sent_at)) = taken else {
            self.unmatched = self.unmatched.wrapping_add(1);
            return None;
        };
        let rtt = now.saturating_duration_since(sent_at);
        let entry = &mut self.gateways[i];
        entry.answered = entry.answered.wrapping_add(1);
        entry.rtt = Some(rtt);
        let news = entry.set_health(health, now);
        self.heard(i, now);
        if self.active == Some(i) {
            if news {
                self.push(Action::Health { gateway, health });
            }
            if health != 0 {
                self.move_away(i, now);
            }
        }
        Some(rtt)
    }

    /// `gateway` wants to be left, for `to` if possible (RFC 5685). A keyed one that is well is used
    /// at once, `to` first; else a key is requested, and the gateway stays in use until it is there.
    pub fn on_leave(&mut self, gateway: IpAddr, to: Option<IpAddr>, now: Instant) {
        let Some(i) = self.keyed(gateway) else { return };
        let news = self.gateways[i].set_health(HEALTH_DRAINING, now);
        if self.active != Some(i) {
            return;
        }
        if news {
            self.push(Action::Health {
                gateway,
                health: HEALTH_DRAINING,
            });
        }
        let named = to.and_then(|to| self.keyed(to));
        match named.filter(|&j| j != i && !self.gateways[j].unwell(now)) {
            Some(named) => self.activate(named, now),
            None => self.move_away(i, now),
        }
    }

    /// A session with `gateway` exists now. It becomes active if none is, or if the active one
    /// said that it would rather not be used. Calling it again for the same gateway is harmless.
    pub fn on_keyed(&mut self, gateway: IpAddr, now: Instant) {
        let Some(i) = self.index(gateway) else { return };
        self.mark_keyed(i, now);
        match self.active_gateway() {
            None => self.activate(i, now),
            Some(active) if active.unwell(now) && !self.gateways[i].unwell(now) => {
                self.activate(i, now);
            }
            Some(_) => {}
        }
    }

    /// The key request was granted: there is a session with `gateway`. As [`Monitor::on_keyed`], and
    /// the request is over even if that changes nothing: where nobody else answers, it is the gateway
    /// to be left that is keyed anew.
    pub fn on_granted(&mut self, gateway: IpAddr, now: Instant) {
        self.asked = false;
        self.on_keyed(gateway, now);
        if self.active.is_none() {
            self.on_key_failed(now);
        }
    }

    /// The gateway itself made a session with us: it becomes the active one.
    pub fn on_peer_initiated(&mut self, gateway: IpAddr, now: Instant) {
        let Some(i) = self.index(gateway) else { return };
        self.mark_keyed(i, now);
        if self.active != Some(i) {
            self.activate(i, now);
        }
    }

    /// No session with `gateway` exists any more: deleted by either side, or expired. Not for an
    /// old session that a new one has replaced.
    pub fn on_unkeyed(&mut self, gateway: IpAddr, now: Instant) {
        let Some(i) = self.keyed(gateway) else { return };
        self.gateways[i].keyed = false;
        self.outstanding.forget(gateway);
        if self.active == Some(i) {
            let event = if self.in_use(i, now) {
                Event::Lost
            } else {
                Event::LostIdle
            };
            self.fail_over(i, event, now);
        }
    }

    /// The whole key request was rejected.
    pub fn on_key_failed(&mut self, now: Instant) {
        self.asked = false;
        if matches!(self.phase, Phase::Asking | Phase::Retrying) {
            self.step(Event::Rejected);
            // INSTANT does not wait for payload; the service's back-off sets the pace.
            if self.timing.mode == HeartbeatMode::Instant {
                self.on_wanted(now);
            }
        }
    }

    /// Our own outside link went down or came up. While it is down nothing can be heard, so no
    /// heartbeat goes out and no verdict falls; when it is back the silence starts afresh.
    pub fn on_link(&mut self, up: bool, now: Instant) {
        if up && !self.link_up {
            self.resume(now);
        }
        self.link_up = up;
    }

    /// Our own outside address has changed: gateways that answer to the old one are not dead, and the
    /// silence starts afresh.
    pub fn on_moved(&mut self, now: Instant) {
        self.resume(now);
    }

    /// A policy was read anew. Gateways that stay keep everything, the active one stays active;
    /// one that is gone counts as unkeyed. A gateway that is new here but keyed already (it is in
    /// another cluster) has to be reported by [`Monitor::on_keyed`] after this.
    pub fn set_order(&mut self, order: Vec<IpAddr>, now: Instant) {
        let active = self.active();
        let fresh = Monitor::new(self.cluster, order, self.timing).gateways;
        let mut old = std::mem::replace(&mut self.gateways, fresh);
        for slot in &mut self.gateways {
            if let Some(at) = old
                .iter()
                .position(|gateway| gateway.address == slot.address)
            {
                *slot = old.swap_remove(at);
            }
        }
        for gone in &old {
            self.outstanding.forget(gone.address);
        }
        if self.after.is_some_and(|after| self.index(after).is_none()) {
            self.after = None;
        }
        let Some(active) = active else { return };
        self.active = self.index(active);
        if self.active.is_some() {
            return;
        }
        // The active one is no longer in the policy: the search starts at the top of the list.
        match self.first_keyed(0..self.gateways.len(), now) {
            Some(next) => self.activate(next, now),
            None => self.deactivate(None, Event::Lost),
        }
    }

    /// A policy was read anew. A round under way starts again, if anything changed.
    pub fn set_timing(&mut self, timing: Timing, now: Instant) {
        let timing = timing.clamped();
        if self.timing != timing {
            self.timing = timing;
            self.resume(now);
        }
    }

    /// Judges the deadline. Call it once a batch, with the receive rings drained, and whenever
    /// [`Monitor::next_deadline`] has come.
    pub fn poll(&mut self, now: Instant) {
        let Some((deadline, timer)) = self.timer() else {
            return;
        };
        if now < deadline {
            return;
        }
        match timer {
            Timer::Silence => self.silent(deadline, now),
            Timer::FirstAnswer | Timer::SecondAnswer => {
                let late = now.saturating_duration_since(deadline);
                let tolerated = (self.timing.response_time / 2).max(LATE_AT_LEAST);
                if late > tolerated && self.restarts < MAX_RESTARTS {
                    // We slept, and so perhaps did our transmit queue: the window starts again,
                    // with a heartbeat of its own, for the old one or its answer may be lost.
                    self.restarts += 1;
                    self.overslept = self.overslept.wrapping_add(1);
                    self.step(Event::Overslept);
                    self.heartbeat(now);
                } else {
                    self.unanswered(timer, now);
                }
            }
        }
    }

    /// When to call [`Monitor::poll`] at the latest, and why.
    pub fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        self.timer().map(|(at, timer)| (at, timer.reason()))
    }

    /// The next thing to do, oldest first.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn timer(&self) -> Option<(Instant, Timer)> {
        if !self.link_up {
            return None;
        }
        match self.phase {
            // Source A: by default, no heartbeats are sent.
            Phase::Hearing if self.timing.mode != HeartbeatMode::None => {
                Some((self.quiet_since()? + self.timing.defer_time, Timer::Silence))
            }
            Phase::First => Some((
                self.window_from? + self.timing.response_time,
                Timer::FirstAnswer,
            )),
            Phase::Second => Some((
                self.window_from? + self.timing.response_time,
                Timer::SecondAnswer,
            )),
            _ => None,
        }
    }

    /// Since when the active gateway has been silent.
    fn quiet_since(&self) -> Option<Instant> {
        self.active_gateway()
            .and_then(|active| active.last_heard.max(self.silence_from))
    }

    fn silent(&mut self, deadline: Instant, now: Instant) {
        let used = self.sent_at.is_some_and(|sent_at| sent_at >= deadline);
        if self.timing.mode == HeartbeatMode::Instant || used {
            self.step(Event::Silent);
            self.heartbeat(now);
        } else {
            self.step(Event::SilentUnused);
        }
    }

    fn unanswered(&mut self, timer: Timer, now: Instant) {
        let Some(i) = self.active else { return };
        let entry = &mut self.gateways[i];
        entry.lost = entry.lost.wrapping_add(1);
        if timer == Timer::FirstAnswer {
            self.step(Event::Unanswered);
            self.heartbeat(now);
            return;
        }
        let gateway = entry.address;
        let silent_for = self
            .quiet_since()
            .map_or(Duration::ZERO, |since| now - since);
        self.gateways[i].keyed = false;
        self.outstanding.forget(gateway);
        self.push(Action::Dead {
            gateway,
            silent_for,
        });
        self.fail_over(i, Event::Lost, now);
    }

    fn heartbeat(&mut self, now: Instant) {
        let Some(active) = self.active.and_then(|i| self.gateways.get_mut(i)) else {
            return;
        };
        let gateway = active.address;
        active.sent = active.sent.wrapping_add(1);
        self.counter = self.counter.wrapping_add(1) & COUNTER_MASK;
        let counter = self.counter;
        self.window_from = Some(now);
        self.outstanding.push(gateway, counter, now);
        self.push(Action::Heartbeat { gateway, counter });
    }

    fn heard(&mut self, i: usize, now: Instant) {
        self.gateways[i].last_heard = Some(now);
        if self.active == Some(i) && self.phase != Phase::Hearing {
            self.restarts = 0;
            self.step(Event::Heard);
        }
    }

    fn mark_keyed(&mut self, i: usize, now: Instant) {
        if !std::mem::replace(&mut self.gateways[i].keyed, true) {
            self.gateways[i].set_health(0, now);
        }
        // The key exchange that ended just now was authenticated, so it counts as life.
        self.heard(i, now);
    }

    fn resume(&mut self, now: Instant) {
        if self.active.is_some() {
            self.silence_from = Some(now);
            self.restarts = 0;
            self.step(Event::Resumed);
        }
    }

    fn active_gateway(&self) -> Option<&Gateway> {
        self.active.and_then(|i| self.gateways.get(i))
    }

    fn index(&self, address: IpAddr) -> Option<usize> {
        self.gateways
            .iter()
            .position(|gateway| gateway.address == address)
    }

    fn keyed(&self, address: IpAddr) -> Option<usize> {
        self.index(address).filter(|&i| self.gateways[i].keyed)
    }

    pub(super) fn step(&mut self, event: Event) {
        let next = self.phase.after(event);
        debug_assert!(
            next.is_some(),
            "{event:?} can not happen in {:?}",
            self.phase
        );
        self.phase = next.unwrap_or(self.phase);
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }
}
