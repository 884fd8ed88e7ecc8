//! What holds whatever happens, in any order.

use proptest::prelude::*;

use super::*;
use crate::liveness::Phase;

#[derive(Clone, Debug)]
enum Event {
    Script(Do),
    /// Time passes in microseconds; a worker that is awake polls at each deadline on the way.
    Awake(u64),
    /// Time passes and the worker sleeps through it.
    Asleep(u64),
    /// An answer to one of the last heartbeats: how many back, and its health.
    Reply(usize, u8),
}

fn gateway() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(vec![A, B, C, X])
}

fn mode() -> impl Strategy<Value = HeartbeatMode> {
    prop::sample::select(vec![
        HeartbeatMode::None,
        HeartbeatMode::Deferred,
        HeartbeatMode::Instant,
    ])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => gateway().prop_map(|gw| Event::Script(Do::Keyed(gw))),
        1 => gateway().prop_map(|gw| Event::Script(Do::Granted(gw))),
        1 => gateway().prop_map(|gw| Event::Script(Do::Unkeyed(gw))),
        1 => gateway().prop_map(|gw| Event::Script(Do::PeerInitiated(gw))),
        1 => Just(Event::Script(Do::KeyFailed)),
        4 => Just(Event::Script(Do::Sent)),
        4 => Just(Event::Script(Do::Wanted)),
        2 => gateway().prop_map(|gw| Event::Script(Do::Heard(gw))),
        1 => (gateway(), any::<u32>(), any::<u8>())
            .prop_map(|(gw, counter, health)| Event::Script(Do::Answer(gw, counter, health))),
        1 => (gateway(), prop::option::of(gateway()))
            .prop_map(|(gw, to)| Event::Script(Do::Leave(gw, to))),
        1 => any::<bool>().prop_map(|up| Event::Script(Do::Link(up))),
        1 => prop::collection::vec(gateway(), 0..5)
            .prop_map(|order| Event::Script(Do::Order(order))),
        1 => mode().prop_map(|mode| Event::Script(Do::Mode(mode))),
        6 => (0..50_000u64).prop_map(Event::Awake),
        2 => (0..80_000u64).prop_map(Event::Asleep),
        4 => (0..3usize, prop::sample::select(vec![0, 0, 0, 1, 2]))
            .prop_map(|(back, health)| Event::Reply(back, health)),
    ]
}

/// A monitor beside what a bystander knows from its inputs and its actions alone.
struct Watched {
    monitor: Monitor,
    now: Instant,
    mode: HeartbeatMode,
    keyed: Vec<IpAddr>,
    active: Option<IpAddr>,
    asking: bool,
    beats: Vec<(IpAddr, u32)>,
}

impl Watched {
    fn drain(&mut self) -> Result<(), TestCaseError> {
        while let Some(action) = self.monitor.next_action() {
            match action {
                Action::Heartbeat { gateway, counter } => {
                    prop_assert_ne!(self.mode, HeartbeatMode::None);
                    prop_assert_eq!(
                        self.active,
                        Some(gateway),
                        "heartbeat beside the active one"
                    );
                    prop_assert!(self.keyed.contains(&gateway), "heartbeat without a key");
                    prop_assert!(counter <= 0x7fff_ffff);
                    self.beats.push((gateway, counter));
                }
                Action::Activate { gateway } => {
                    prop_assert!(self.keyed.contains(&gateway), "active without a key");
                    prop_assert_ne!(self.active, Some(gateway), "activated twice");
                    self.active = Some(gateway);
                    self.asking = false;
                }
                Action::Inactive => {
                    prop_assert!(self.active.is_some());
                    self.active = None;
                }
                Action::Dead { gateway, .. } => {
                    prop_assert_eq!(self.active, Some(gateway));
                    prop_assert_ne!(self.mode, HeartbeatMode::None);
                    self.keyed.retain(|known| *known != gateway);
                }
                Action::RequestKey { .. } => {
                    prop_assert!(!self.asking, "a second request beside one that runs");
                    self.asking = true;
                }
                Action::Health { gateway, .. } => prop_assert_eq!(self.active, Some(gateway)),
            }
        }
        Ok(())
    }

    fn play(&mut self, event: Event) -> Result<(), TestCaseError> {
        let now = self.now;
        match event {
            Event::Awake(micros) => {
                let until = now + Duration::from_micros(micros);
                while let Some((at, _)) = self.monitor.next_deadline().filter(|d| d.0 <= until) {
                    self.now = self.now.max(at);
                    self.monitor.poll(self.now);
                    let next = self.monitor.next_deadline();
                    prop_assert!(next.is_none_or(|next| next.0 > self.now), "it spins");
                    self.drain()?;
                }
                self.now = until;
            }
            Event::Asleep(micros) => {
                self.now += Duration::from_micros(micros);
                self.monitor.poll(self.now);
            }
            Event::Reply(back, health) => {
                let nth = self.beats.len().checked_sub(back + 1);
                if let Some(&(gateway, counter)) = nth.and_then(|nth| self.beats.get(nth)) {
                    self.monitor.on_answer(gateway, counter, health, now);
                }
            }
            Event::Script(what) => self.script(what),
        }
        self.drain()
    }

    fn script(&mut self, what: Do) {
        let now = self.now;
        let listed = |gw: IpAddr| self.monitor.snapshot().any(|known| known.address == gw);
        match what {
            Do::Keyed(gw) | Do::Granted(gw) | Do::PeerInitiated(gw) => {
                if listed(gw) && !self.keyed.contains(&gw) {
                    self.keyed.push(gw);
                }
                match what {
                    Do::Keyed(_) => self.monitor.on_keyed(gw, now),
                    Do::Granted(_) => {
                        self.asking = false;
                        self.monitor.on_granted(gw, now);
                    }
                    _ => self.monitor.on_peer_initiated(gw, now),
                }
            }
            Do::Unkeyed(gw) => {
                self.keyed.retain(|known| *known != gw);
                self.monitor.on_unkeyed(gw, now);
            }
            Do::Order(order) => {
                self.keyed.retain(|known| order.contains(known));
                self.monitor.set_order(order, now);
            }
            Do::KeyFailed => {
                self.asking = false;
                self.monitor.on_key_failed(now);
            }
            Do::Mode(mode) => {
                self.mode = mode;
                self.monitor.set_timing(timing(mode), now);
            }
            Do::Sent => self.monitor.on_sent(now),
            Do::Wanted => self.monitor.on_wanted(now),
            Do::Heard(gw) => self.monitor.on_heard(gw, now),
            Do::Answer(gw, counter, health) => {
                self.monitor.on_answer(gw, counter, health, now);
            }
            Do::Leave(gw, to) => self.monitor.on_leave(gw, to, now),
            Do::Link(up) => self.monitor.on_link(up, now),
        }
    }

    fn agrees(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.monitor.active(), self.active);
        prop_assert_eq!(self.monitor.phase().has_active(), self.active.is_some());
        let mut keyed: Vec<IpAddr> = self
            .monitor
            .snapshot()
            .filter(|gw| gw.keyed)
            .map(|gw| gw.address)
            .collect();
        keyed.sort();
        let mut expected = self.keyed.clone();
        expected.sort();
        prop_assert_eq!(&keyed, &expected);
        prop_assert!(
            self.active.is_some() || keyed.is_empty(),
            "keyed, but none is active"
        );
        prop_assert!(self.active.is_none_or(|gw| keyed.contains(&gw)));
        let waits = matches!(self.monitor.phase(), Phase::Asking | Phase::Retrying);
        prop_assert!(
            !waits || self.asking,
            "waits for an answer that nobody owes"
        );
        for gw in self.monitor.snapshot() {
            prop_assert!(gw.heartbeats_answered <= gw.heartbeats_sent);
            prop_assert!(gw.heartbeats_lost <= gw.heartbeats_sent);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn invariants_hold(mode in mode(), events in prop::collection::vec(event(), 1..200)) {
        let mut watched = Watched {
            monitor: Monitor::new(ClusterId(1), vec![A, B, C], timing(mode)),
            now: Instant::now(),
            mode,
            keyed: Vec::new(),
            active: None,
            asking: false,
            beats: Vec::new(),
        };
        for event in events {
            watched.play(event)?;
            watched.agrees()?;
        }
    }

    // From its last packet on a silent gateway is dead within defer time + gap between payload
    // packets + twice the response time, each wake-up late by less than the tolerance.
    #[test]
    fn a_silent_gateway_is_found_dead_in_time(
        instant in any::<bool>(),
        defer in 1..200u64,
        response in 1..200u64,
        gap in 1..50u64,
        late in prop::collection::vec(0..500u64, 8),
    ) {
        let mode = if instant { HeartbeatMode::Instant } else { HeartbeatMode::Deferred };
        let ms = Duration::from_millis;
        let timing = Timing { mode, response_time: ms(response), defer_time: ms(defer) };
        let mut monitor = Monitor::new(ClusterId(1), vec![A, B], timing);
        let start = Instant::now();
        monitor.on_keyed(A, start);
        monitor.on_keyed(B, start);
        let mut lateness = late.into_iter().cycle().map(Duration::from_micros);
        let mut slack = Duration::ZERO;
        let mut payload = start;
        let dead_at = loop {
            let timer = monitor.next_deadline().map(|(at, _)| at);
            let now = match timer.filter(|at| *at < payload) {
                Some(at) => {
                    let late = lateness.next().unwrap_or_default();
                    slack += late;
                    at + late
                }
                None => {
                    let now = payload;
                    monitor.on_sent(now);
                    payload += ms(gap);
                    now
                }
            };
            monitor.poll(now);
            let mut dead = false;
            while let Some(action) = monitor.next_action() {
                dead |= matches!(action, Action::Dead { .. });
            }
            if dead {
                break now;
            }
            prop_assert!(now < start + ms(10_000));
        };
        let took = dead_at - start;
        let wait = if instant { Duration::ZERO } else { ms(gap) };
        prop_assert!(took >= ms(defer + 2 * response), "too early: {took:?}");
        prop_assert!(took <= ms(defer + 2 * response) + wait + slack, "too late: {took:?}");
        prop_assert_eq!(monitor.active(), Some(B));
        prop_assert_eq!(monitor.windows_restarted(), 0);
    }

    // A gateway that answers within the response time is never declared dead, though one
    // heartbeat of two is lost and the worker sleeps as it likes.
    #[test]
    fn a_gateway_that_answers_never_dies(
        instant in any::<bool>(),
        naps in prop::collection::vec((0..60_000u64, any::<bool>(), 0..9_999u64), 50..300),
    ) {
        let mode = if instant { HeartbeatMode::Instant } else { HeartbeatMode::Deferred };
        let mut monitor = Monitor::new(ClusterId(1), vec![A, B], timing(mode));
        let start = Instant::now();
        let mut now = start;
        monitor.on_keyed(A, now);
        let mut on_wire: Vec<(Instant, u32)> = Vec::new();
        let mut lost_before = false;
        for (nap, lose, rtt) in naps {
            // Wake at the deadline or later; the ring holds what arrived until then.
            let wake = monitor.next_deadline().map_or(now, |(at, _)| at);
            let short = Duration::from_micros(if nap < 40_000 { nap / 1_000 } else { nap });
            now = now.max(wake) + short;
            on_wire.retain(|(arrives, counter)| {
                if *arrives <= now {
                    monitor.on_answer(A, *counter, 0, now);
                }
                *arrives > now
            });
            monitor.on_sent(now);
            monitor.poll(now);
            while let Some(action) = monitor.next_action() {
                match action {
                    Action::Heartbeat { counter, .. } => {
                        let lost = lose && !lost_before;
                        if !lost {
                            on_wire.push((now + Duration::from_micros(rtt), counter));
                        }
                        lost_before = lost;
                    }
                    Action::Dead { .. } => prop_assert!(false, "{:?} in", now - start),
                    _ => {}
                }
            }
        }
        prop_assert_eq!(monitor.active(), Some(A));
    }
}
