//! The monitor of a cluster and the key management, wired as in a client, while gateways do what they
//! like: answer, refuse, fall silent, delete sessions, begin some, ask to be left.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use evergate::kms::{self, KeyManagement, SessionHandle, Settings};
use evergate::liveness::{self, Monitor, Timing};
use evergate::policy::{ClusterId, HeartbeatMode};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::script::Script;

const CLUSTER: ClusterId = ClusterId(1);

/// Four of them; the last is in no list at first.
fn gateway(byte: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, byte & 3).into()
}

fn timing(byte: u8) -> Timing {
    Timing {
        mode: match byte & 3 {
            0 => HeartbeatMode::None,
            1 => HeartbeatMode::Instant,
            _ => HeartbeatMode::Deferred,
        },
        response_time: Duration::from_millis(1 + u64::from(byte >> 2 & 7)),
        defer_time: Duration::from_millis(1 + u64::from(byte >> 5) * 7),
    }
}

struct Client {
    now: Instant,
    monitor: Monitor,
    kms: KeyManagement<StdRng>,
    /// Gateways with which an exchange runs.
    exchanges: Vec<IpAddr>,
    sessions: BTreeMap<IpAddr, SessionHandle>,
    newest: u64,
    beats: Vec<(IpAddr, u32)>,
    heartbeats: bool,
}

impl Client {
    fn made(&mut self) -> SessionHandle {
        self.newest += 1;
        SessionHandle(self.newest)
    }

    fn obey(&mut self) {
        for turn in 0.. {
            assert!(turn < 1000, "they talk for ever");
            if let Some(action) = self.kms.next_action() {
                self.of_kms(action);
            } else if let Some(action) = self.monitor.next_action() {
                self.of_monitor(action);
            } else {
                return;
            }
        }
    }

    fn of_kms(&mut self, action: kms::Action) {
        match action {
            kms::Action::Authenticate { gateway } => {
                assert!(!self.exchanges.contains(&gateway), "two exchanges with one");
                self.exchanges.push(gateway);
            }
            kms::Action::Granted { gateway, .. } => match self.sessions.contains_key(&gateway) {
                true => self.monitor.on_granted(gateway, self.now),
                false => self.monitor.on_key_failed(self.now),
            },
            kms::Action::Rejected { .. } => self.monitor.on_key_failed(self.now),
            kms::Action::DropSession { gateway, session } => self.end(gateway, session),
        }
    }

    fn of_monitor(&mut self, action: liveness::Action) {
        match action {
            liveness::Action::Heartbeat { gateway, counter } => {
                assert!(self.heartbeats, "a heartbeat that nobody wanted");
                assert!(
                    self.sessions.contains_key(&gateway),
                    "a heartbeat without a session"
                );
                self.beats.push((gateway, counter));
            }
            liveness::Action::Activate { gateway } => {
                self.kms.on_active(CLUSTER, Some(gateway), self.now);
            }
            liveness::Action::Inactive => self.kms.on_active(CLUSTER, None, self.now),
            liveness::Action::Dead { gateway, .. } => {
                self.kms.on_dead(gateway, self.now);
                while let Some(action) = self.kms.next_action() {
                    self.of_kms(action);
                }
                assert!(
                    !self.sessions.contains_key(&gateway),
                    "a session with a dead gateway"
                );
            }
            liveness::Action::RequestKey { after } => self.kms.request(CLUSTER, after, self.now),
            liveness::Action::Health { .. } => {}
        }
    }

    fn end(&mut self, gateway: IpAddr, session: SessionHandle) {
        if self.sessions.get(&gateway) == Some(&session) {
            self.sessions.remove(&gateway);
            self.monitor.on_unkeyed(gateway, self.now);
        }
        self.kms.on_session_lost(gateway, session, self.now);
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for turn in 0.. {
            assert!(turn < 20_000, "it spins");
            let deadlines = [self.kms.next_deadline(), self.monitor.next_deadline()];
            let next = deadlines.into_iter().flatten().map(|(at, _)| at).min();
            let Some(at) = next.filter(|at| *at <= until) else {
                break;
            };
            self.now = self.now.max(at);
            self.kms.poll(self.now);
            self.monitor.poll(self.now);
            self.obey();
        }
        self.now = until;
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let (what, more) = (script.byte(), script.byte());
        let (now, one) = (self.now, gateway(what >> 4));
        match what & 15 {
            0 => self.monitor.on_wanted(now),
            1 => self.monitor.on_sent(now),
            2 | 3 if !self.exchanges.is_empty() => {
                let gateway = self
                    .exchanges
                    .remove(usize::from(more) % self.exchanges.len());
                if what & 1 == 0 {
                    let session = self.made();
                    self.sessions.insert(gateway, session);
                    self.kms.on_authenticated(gateway, session, now);
                    self.monitor.on_keyed(gateway, now);
                } else {
                    self.kms.on_failed(gateway, "no".to_owned(), now);
                }
            }
            4 => {
                let session = self.made();
                self.sessions.insert(one, session);
                self.kms.on_peer_initiated(one, session, now);
                self.monitor.on_peer_initiated(one, now);
            }
            5 => {
                // The gateway has deleted the session, or one that was replaced.
                if let Some(session) = self.sessions.get(&one).copied() {
                    let old = SessionHandle(session.0.saturating_sub(u64::from(more & 1)));
                    self.end(one, old);
                }
            }
            6 => self.monitor.on_heard(one, now),
            7 => drop(self.monitor.on_answer(one, u32::from(more), more, now)),
            8 | 9 => {
                let back = usize::from(more & 7);
                let nth = self.beats.len().checked_sub(back + 1);
                if let Some((gateway, counter)) = nth.and_then(|nth| self.beats.get(nth).copied()) {
                    let health = if what & 1 == 0 { 0 } else { more >> 4 };
                    self.monitor.on_answer(gateway, counter, health, now);
                }
            }
            10 => {
                let to = (more & 4 != 0).then(|| gateway(more));
                self.monitor.on_leave(one, to, now);
            }
            11 => self.monitor.on_link(more & 1 == 0, now),
            12 => {
                // A policy is read again.
                let order: Vec<_> = (0..usize::from(more & 3) + 1)
                    .map(|n| gateway((more >> 2).wrapping_add(n as u8)))
                    .collect();
                self.kms.set_clusters(vec![(CLUSTER, order.clone())], now);
                self.monitor.set_order(order, now);
                // What the node does for a gateway that is new in this cluster but keyed already.
                for gateway in self.sessions.keys() {
                    self.monitor.on_keyed(*gateway, now);
                }
            }
            13 => {
                self.heartbeats = timing(more).mode != HeartbeatMode::None;
                self.monitor.set_timing(timing(more), now);
            }
            14 => {
                // It sleeps through its deadlines.
                self.now += Duration::from_micros(u64::from(more) * 400);
                self.kms.poll(self.now);
                self.monitor.poll(self.now);
            }
            _ => self.pass(Duration::from_millis(u64::from(more) * 4)),
        }
        self.obey();
    }

    fn agrees(&self) {
        for view in self.monitor.snapshot() {
            let session = self.sessions.get(&view.address);
            assert_eq!(
                view.keyed,
                session.is_some(),
                "keyed means that there is a session"
            );
            assert_eq!(self.kms.session(view.address), session.copied());
            assert!(view.heartbeats_answered <= view.heartbeats_sent);
        }
        let active = self.monitor.active();
        assert!(active.is_none_or(|gateway| self.sessions.contains_key(&gateway)));
    }
}

/// Byte 0: timing; 1: standby gateways. Then steps of two bytes.
pub fn failover(data: &[u8]) {
    let mut script = Script::new(data);
    let first = script.byte();
    let settings = Settings {
        retry_first: Duration::from_millis(20),
        retry_cap: Duration::from_millis(500),
        standby: usize::from(script.byte() & 3),
    };
    let order: Vec<_> = (0..3).map(gateway).collect();
    let now = Instant::now();
    let mut kms = KeyManagement::new(settings, StdRng::seed_from_u64(1));
    kms.set_clusters(vec![(CLUSTER, order.clone())], now);
    let mut client = Client {
        now,
        monitor: Monitor::new(CLUSTER, order, timing(first)),
        kms,
        exchanges: Vec::new(),
        sessions: BTreeMap::new(),
        newest: 0,
        beats: Vec::new(),
        heartbeats: timing(first).mode != HeartbeatMode::None,
    };
    client.obey();
    for _ in 0..400 {
        if script.over() {
            return;
        }
        client.step(&mut script);
        client.agrees();
    }
}
