//! The machine: the real key management and the real monitors, wired as a client's shell does it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use evergate::kms::{self, KeyManagement, SessionHandle, Settings};
use evergate::liveness::{self, Monitor, Phase, Timing};
use evergate::policy::ClusterId;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::history::Pace;
use super::{At, Input, Output, Policy};

pub(super) struct Machine {
    start: Instant,
    pace: Pace,
    kms: KeyManagement<StdRng>,
    /// As the policy has the clusters.
    monitors: Vec<(u32, Monitor)>,
    sessions: BTreeMap<IpAddr, u64>,
    link: bool,
    seen: Vec<Output>,
}

fn timing(policy: &Policy) -> Timing {
    Timing {
        mode: policy.mode,
        response_time: policy.response,
        defer_time: policy.defer,
    }
}

fn settings(pace: Pace, policy: &Policy) -> Settings {
    Settings {
        retry_first: pace.first,
        retry_cap: pace.cap,
        standby: policy.standby,
    }
}

impl Machine {
    pub(super) fn new(pace: Pace, policy: &Policy, seed: u64, link: bool, at: At) -> Machine {
        let kms = KeyManagement::new(settings(pace, policy), StdRng::seed_from_u64(seed));
        let mut machine = Machine {
            start: Instant::now(),
            pace,
            kms,
            monitors: Vec::new(),
            sessions: BTreeMap::new(),
            link,
            seen: Vec::new(),
        };
        machine.take_up(policy, machine.start + at);
        machine
    }

    /// When it wants to look at the clock.
    pub(super) fn deadline(&self) -> Option<At> {
        let monitors = self
            .monitors
            .iter()
            .map(|(_, monitor)| monitor.next_deadline());
        let all = monitors.chain([self.kms.next_deadline()]).flatten();
        all.map(|(at, _)| at.saturating_duration_since(self.start))
            .min()
    }

    /// What it has done since this was asked last.
    pub(super) fn seen(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.seen)
    }

    pub(super) fn session(&self, gateway: IpAddr) -> Option<u64> {
        self.kms.session(gateway).map(|session| session.0)
    }

    pub(super) fn phases(&self) -> impl Iterator<Item = (u32, Phase, Option<IpAddr>)> + '_ {
        let monitors = self.monitors.iter();
        monitors.map(|(number, monitor)| (*number, monitor.phase(), monitor.active()))
    }

    /// Judges what is due.
    pub(super) fn look(&mut self, at: At) {
        let now = self.start + at;
        self.kms.poll(now);
        self.obey(now);
        for n in 0..self.monitors.len() {
            if let Some((_, monitor)) = self.monitors.get_mut(n) {
                monitor.poll(now);
            }
            self.obey(now);
        }
    }

    pub(super) fn feed(&mut self, input: &Input, at: At) {
        let now = self.start + at;
        match *input {
            Input::Reload(ref policy) => self.take_up(policy, now),
            Input::Payload(cluster) => {
                if let Some((_, monitor)) = self.monitors.iter_mut().find(|(n, _)| *n == cluster) {
                    match monitor.active() {
                        Some(_) => monitor.on_sent(now),
                        None => monitor.on_wanted(now),
                    }
                }
            }
            Input::Heard(from) => self.each(|monitor| monitor.on_heard(from, now)),
            Input::Answer {
                gateway,
                number,
                health,
            } => self.answered(gateway, number, health, now),
            Input::Made(gateway, session) => {
                self.sessions.insert(gateway, session);
                self.kms
                    .on_authenticated(gateway, SessionHandle(session), now);
                self.each(|monitor| monitor.on_keyed(gateway, now));
            }
            Input::Failed(gateway, to) => {
                if let Some(to) = to
                    && self.kms.is_asked(gateway)
                {
                    self.kms.prefer(gateway, to);
                }
                self.kms.on_failed(gateway, "no".to_owned(), now);
            }
            Input::Initiated(gateway, session) => {
                self.sessions.insert(gateway, session);
                self.kms
                    .on_peer_initiated(gateway, SessionHandle(session), now);
                self.each(|monitor| monitor.on_peer_initiated(gateway, now));
            }
            Input::Ended(gateway) => {
                if let Some(session) = self.sessions.get(&gateway).copied() {
                    self.end(gateway, session, now);
                }
            }
            Input::Link(up) => {
                self.link = up;
                self.each(|monitor| monitor.on_link(up, now));
            }
            Input::Moved => self.each(|monitor| monitor.on_moved(now)),
            Input::Refresh(gateway) => self.kms.refresh(gateway, now),
        }
        self.obey(now);
    }

    fn each(&mut self, tell: impl Fn(&mut Monitor)) {
        self.monitors
            .iter_mut()
            .for_each(|(_, monitor)| tell(monitor));
    }

    /// One cluster's heartbeat has shown to all of them that the gateway lives.
    fn answered(&mut self, gateway: IpAddr, number: u32, health: u8, now: Instant) {
        self.each(|monitor| {
            monitor.on_answer(gateway, number, health, now);
        });
    }

    fn take_up(&mut self, policy: &Policy, now: Instant) {
        self.kms.set_settings(settings(self.pace, policy), now);
        let clusters = policy.clusters.iter();
        let clusters = clusters.map(|(number, list)| (ClusterId(*number), list.clone()));
        self.kms.set_clusters(clusters.collect(), now);
        let mut old = std::mem::take(&mut self.monitors);
        for (number, list) in &policy.clusters {
            let monitor = match old.iter().position(|(known, _)| known == number) {
                Some(at) => {
                    let (_, mut monitor) = old.swap_remove(at);
                    monitor.set_timing(timing(policy), now);
                    monitor.set_order(list.clone(), now);
                    monitor
                }
                None => {
                    let mut monitor =
                        Monitor::new(ClusterId(*number), list.clone(), timing(policy));
                    monitor.on_link(self.link, now);
                    monitor
                }
            };
            self.monitors.push((*number, monitor));
            self.tell_keyed(now);
            let keyed = |gateway: &IpAddr| self.kms.session(*gateway).is_some();
            if !list.iter().any(keyed) {
                self.kms.request(ClusterId(*number), None, now);
            }
        }
        self.obey(now);
    }

    /// Tells the newest monitor which gateways are keyed already.
    fn tell_keyed(&mut self, now: Instant) {
        let Some((_, monitor)) = self.monitors.last_mut() else {
            return;
        };
        let unkeyed = monitor.snapshot().filter(|gateway| !gateway.keyed);
        let unkeyed: Vec<IpAddr> = unkeyed.map(|gateway| gateway.address).collect();
        for gateway in unkeyed {
            if self.sessions.contains_key(&gateway) {
                monitor.on_keyed(gateway, now);
            }
        }
    }

    fn obey(&mut self, now: Instant) {
        loop {
            if let Some(action) = self.kms.next_action() {
                self.of_kms(action, now);
                continue;
            }
            let mut monitors = self.monitors.iter_mut();
            let action = monitors.find_map(|(number, m)| Some((*number, m.next_action()?)));
            match action {
                Some((number, action)) => self.of_monitor(number, action, now),
                None => return,
            }
        }
    }

    fn of_kms(&mut self, action: kms::Action, now: Instant) {
        match action {
            kms::Action::Authenticate { gateway } => self.seen.push(Output::Exchange(gateway)),
            kms::Action::Granted { cluster, gateway } => {
                let keyed = self.sessions.contains_key(&gateway);
                if let Some((_, monitor)) = self.monitors.iter_mut().find(|(n, _)| *n == cluster.0)
                {
                    match keyed {
                        true => monitor.on_granted(gateway, now),
                        false => monitor.on_key_failed(now),
                    }
                }
            }
            kms::Action::Rejected {
                cluster,
                tried,
                retry_at,
            } => {
                let tried = tried.into_iter().map(|(gateway, _)| gateway).collect();
                let until = retry_at.saturating_duration_since(self.start);
                self.seen.push(Output::Refused(cluster.0, tried, until));
                if let Some((_, monitor)) = self.monitors.iter_mut().find(|(n, _)| *n == cluster.0)
                {
                    monitor.on_key_failed(now);
                }
            }
            kms::Action::DropSession { gateway, session } => {
                self.seen.push(Output::Dropped(gateway, session.0));
                self.end(gateway, session.0, now);
            }
        }
    }

    fn of_monitor(&mut self, number: u32, action: liveness::Action, now: Instant) {
        let cluster = ClusterId(number);
        match action {
            liveness::Action::Heartbeat { gateway, counter } => {
                self.seen.push(Output::Beat(number, gateway, counter));
            }
            liveness::Action::Activate { gateway } => {
                self.seen.push(Output::Active(number, Some(gateway)));
                self.kms.on_active(cluster, Some(gateway), now);
            }
            liveness::Action::Inactive => {
                self.seen.push(Output::Active(number, None));
                self.kms.on_active(cluster, None, now);
            }
            liveness::Action::Dead { gateway, .. } => {
                self.seen.push(Output::Dead(number, gateway));
                self.kms.on_dead(gateway, now);
            }
            liveness::Action::RequestKey { after } => self.kms.request(cluster, after, now),
            liveness::Action::Health { .. } => {}
        }
    }

    /// A session is gone, unless a newer one has replaced it.
    fn end(&mut self, gateway: IpAddr, session: u64, now: Instant) {
        if self.sessions.get(&gateway) == Some(&session) {
            self.sessions.remove(&gateway);
            self.each(|monitor| monitor.on_unkeyed(gateway, now));
        }
        self.kms
            .on_session_lost(gateway, SessionHandle(session), now);
    }
}
