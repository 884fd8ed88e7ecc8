//! Every rule as a table under a virtual clock; invariants under random events.

mod draining;
mod failover;
mod properties;
mod reload;
mod rules;
mod states;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::{Action, Monitor, Timing};
use crate::policy::{ClusterId, HeartbeatMode};

/// Three gateways in list order, and one that is in no list.
const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const C: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
const X: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

/// Different on purpose, so that a test tells which of them ran.
const DEFER: Duration = Duration::from_millis(20);
const RESPONSE: Duration = Duration::from_millis(10);

const DRAINING: u8 = 0x01;

/// What happens to a monitor in a script.
#[derive(Clone, Debug)]
enum Do {
    Keyed(IpAddr),
    Granted(IpAddr),
    Unkeyed(IpAddr),
    PeerInitiated(IpAddr),
    KeyFailed,
    Sent,
    Wanted,
    Heard(IpAddr),
    Answer(IpAddr, u32, u8),
    Leave(IpAddr, Option<IpAddr>),
    Link(bool),
    Order(Vec<IpAddr>),
    Mode(HeartbeatMode),
}

/// A monitor of the cluster A B C with a clock that only tests move.
struct Bench {
    monitor: Monitor,
    start: Instant,
    now: Instant,
    log: Vec<String>,
}

fn timing(mode: HeartbeatMode) -> Timing {
    Timing {
        mode,
        response_time: RESPONSE,
        defer_time: DEFER,
    }
}

fn name(gateway: IpAddr) -> String {
    match [A, B, C, X].iter().position(|known| *known == gateway) {
        Some(at) => "ABCX"[at..=at].to_owned(),
        None => gateway.to_string(),
    }
}

impl Bench {
    fn new(mode: HeartbeatMode) -> Bench {
        let start = Instant::now();
        let monitor = Monitor::new(ClusterId(1), vec![A, B, C], timing(mode));
        Bench {
            monitor,
            start,
            now: start,
            log: Vec::new(),
        }
    }

    /// Lets the time pass until `ms` after the start, waking exactly at each deadline.
    fn pass(&mut self, ms: u64) {
        let until = self.start + Duration::from_millis(ms);
        while let Some((at, _)) = self.monitor.next_deadline().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            self.monitor.poll(self.now);
            self.drain();
        }
        self.now = self.now.max(until);
    }

    /// Jumps over every deadline and polls only once, as a process that was stopped.
    fn oversleep(&mut self, ms: u64) {
        self.now = self.start + Duration::from_millis(ms);
        self.monitor.poll(self.now);
        self.drain();
    }

    fn act(&mut self, what: Do) {
        let now = self.now;
        match what {
            Do::Keyed(gateway) => self.monitor.on_keyed(gateway, now),
            Do::Granted(gateway) => self.monitor.on_granted(gateway, now),
            Do::Unkeyed(gateway) => self.monitor.on_unkeyed(gateway, now),
            Do::PeerInitiated(gateway) => self.monitor.on_peer_initiated(gateway, now),
            Do::KeyFailed => self.monitor.on_key_failed(now),
            Do::Sent => self.monitor.on_sent(now),
            Do::Wanted => self.monitor.on_wanted(now),
            Do::Heard(gateway) => self.monitor.on_heard(gateway, now),
            Do::Answer(gateway, counter, health) => {
                self.monitor.on_answer(gateway, counter, health, now);
            }
            Do::Leave(gateway, to) => self.monitor.on_leave(gateway, to, now),
            Do::Link(up) => self.monitor.on_link(up, now),
            Do::Order(order) => self.monitor.set_order(order, now),
            Do::Mode(mode) => self.monitor.set_timing(timing(mode), now),
        }
        self.drain();
    }

    fn drain(&mut self) {
        let ms = self.now.duration_since(self.start).as_millis();
        while let Some(action) = self.monitor.next_action() {
            let text = match action {
                Action::Heartbeat { gateway, counter } => {
                    format!("heartbeat {} {counter}", name(gateway))
                }
                Action::Activate { gateway } => format!("activate {}", name(gateway)),
                Action::Inactive => "inactive".to_owned(),
                Action::Dead {
                    gateway,
                    silent_for,
                } => {
                    format!("dead {} after {}", name(gateway), silent_for.as_millis())
                }
                Action::RequestKey { after: Some(after) } => format!("ask after {}", name(after)),
                Action::RequestKey { after: None } => "ask".to_owned(),
                Action::Health { gateway, health } => format!("health {} {health}", name(gateway)),
            };
            self.log.push(format!("{ms}: {text}"));
        }
    }
}

/// Plays a script (milliseconds and what happens then) to its end time and compares the actions.
#[track_caller]
fn plays(mode: HeartbeatMode, script: &[(u64, Do)], end: u64, expected: &[&str]) -> Bench {
    let mut bench = Bench::new(mode);
    for (ms, what) in script {
        bench.pass(*ms);
        bench.act(what.clone());
    }
    bench.pass(end);
    assert_eq!(bench.log, expected);
    bench
}

/// The script's actions after `from` ms, with times cut off: for tests that care what, not when.
fn what(bench: &Bench, from: u64) -> Vec<&str> {
    let lines = bench.log.iter().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(ms, _)| ms.parse::<u64>().unwrap() >= from)
        .map(|(_, text)| text)
        .collect()
}
