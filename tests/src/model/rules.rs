//! The model: what has to happen, by the sentences of `docs/failover.md` (S1, S2 …).

use std::collections::BTreeMap;
use std::net::IpAddr;

use evergate::liveness::Phase;
use evergate::policy::HeartbeatMode;

use super::facts::{Cluster, End, Gateway, Life, Payload, Request};
use super::history::Pace;
use super::{At, Input, Output, Policy};

/// Answers to what can not be seen yet, so that all of them can be followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forks {
    pub(super) taken: Vec<bool>,
    used: usize,
}

impl Forks {
    /// Takes these first.
    pub(super) fn of(taken: Vec<bool>) -> Forks {
        Forks { taken, used: 0 }
    }

    pub(super) fn next(&mut self) -> bool {
        if self.used == self.taken.len() {
            self.taken.push(false);
        }
        self.used += 1;
        self.taken[self.used - 1]
    }
}

/// One way in which all that was seen can be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) pace: Pace,
    pub(super) policy: Policy,
    pub(super) link: bool,
    pub(super) now: At,
    /// The last look at the clock.
    pub(super) looked: At,
    pub(super) gateways: BTreeMap<IpAddr, Gateway>,
    pub(super) clusters: Vec<Cluster>,
    /// What the machine does now: the model looks there only where chance decides.
    pub(super) seen: Vec<Output>,
    pub(super) said: Vec<Output>,
    pub(super) forks: Forks,
}

impl Rules {
    /// A client that starts.
    pub(super) fn new(pace: Pace, policy: &Policy, link: bool, at: At, seen: &[Output]) -> Rules {
        let mut rules = Rules {
            pace,
            policy: Policy {
                clusters: Vec::new(),
                ..policy.clone()
            },
            link,
            now: at,
            looked: At::ZERO,
            gateways: BTreeMap::new(),
            clusters: Vec::new(),
            seen: seen.to_vec(),
            said: Vec::new(),
            forks: Forks::default(),
        };
        rules.reload(policy);
        rules
    }

    /// What has to be done now.
    pub(super) fn said(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.said)
    }

    pub(super) fn session(&self, gateway: IpAddr) -> Option<u64> {
        self.gateways.get(&gateway)?.session()
    }

    pub(super) fn keyed(&self, gateway: IpAddr) -> bool {
        self.session(gateway).is_some()
    }

    /// Whether more than one thing could explain what is seen now.
    pub(super) fn doubtful(&self, now: At, seen: &[Output]) -> bool {
        let short =
            self.policy.standby > 0 && seen.iter().any(|o| matches!(o, Output::Exchange(_)));
        short
            || self.gateways.values().any(|gateway| {
                let span = gateway.damping(self.pace);
                span.is_some_and(|span| now >= span.low && now < span.high)
            })
    }

    /// The state of each cluster, in the words of the status page.
    pub(super) fn phases(&self) -> Vec<(u32, Phase, Option<IpAddr>)> {
        let all = self.clusters.iter();
        all.map(|cluster| (cluster.number, self.phase(cluster), cluster.active))
            .collect()
    }

    fn phase(&self, cluster: &Cluster) -> Phase {
        match (cluster.active, cluster.payload) {
            (Some(_), _) => match self.stage(cluster).heartbeats {
                0 if self.is_waiting(cluster) => Phase::Waiting,
                0 => Phase::Hearing,
                1 => Phase::First,
                _ => Phase::Second,
            },
            (None, Payload::Asks) => Phase::Idle,
            (None, Payload::Waits) => Phase::Asking,
            (None, Payload::RefusedAsks) => Phase::Refused,
            (None, Payload::Refused) => Phase::Retrying,
        }
    }

    pub(super) fn feed(&mut self, input: &Input, at: At, seen: &[Output]) {
        self.now = at;
        self.seen = seen.to_vec();
        match *input {
            Input::Reload(ref policy) => self.reload(policy),
            Input::Payload(number) => {
                if let Some(c) = self
                    .clusters
                    .iter()
                    .position(|known| known.number == number)
                {
                    self.payload(c);
                }
            }
            Input::Heard(from) => {
                if self.keyed(from) {
                    self.heard(from);
                }
            }
            Input::Answer {
                gateway,
                number,
                health,
            } => self.answered(gateway, number, health),
            Input::Made(with, session) => {
                if let Some(entry) = self.gateways.get_mut(&with) {
                    entry.exchange = false;
                }
                self.made(with, session, false);
            }
            Input::Initiated(by, session) => self.made(by, session, true),
            Input::Failed(with, to) => self.failed(with, to),
            Input::Ended(with) => {
                if self.keyed(with) {
                    self.lost(with, None);
                }
            }
            Input::Link(up) => {
                if up && !self.link {
                    self.fresh();
                }
                self.link = up;
            }
            Input::Moved => self.fresh(),
            Input::Refresh(gateway) => self.refresh(gateway),
        }
        self.note_shortages();
    }

    /// Judges what is due.
    pub(super) fn look(&mut self, at: At, seen: &[Output]) {
        self.now = at;
        self.seen = seen.to_vec();
        self.look_at_keys();
        for c in 0..self.clusters.len() {
            self.look_at_silence(c);
        }
        self.looked = at;
        self.note_shortages();
    }

    /// When something has to happen by itself, at the latest.
    pub(super) fn due(&self) -> Option<At> {
        let silence = self
            .clusters
            .iter()
            .filter_map(|cluster| self.silence_due(cluster));
        silence.chain(self.keys_due()).min()
    }

    pub(super) fn say(&mut self, output: Output) {
        self.said.push(output);
    }

    fn cluster(&self, c: usize) -> &Cluster {
        &self.clusters[c]
    }

    /// A session exists (S1, S2, S3); the gateway has begun it (S5) or we have.
    fn made(&mut self, gateway: IpAddr, session: u64, by_it: bool) {
        let now = self.now;
        if !self.policy.lists(gateway) {
            self.say(Output::Dropped(gateway, session));
            return;
        }
        let entry = self.gateways.entry(gateway).or_default();
        let before = entry.session();
        entry.end(now, End::Replaced);
        entry.refresh = None;
        entry.lives.push(Life {
            session,
            from: now,
            end: None,
        });
        if let Some(old) = before {
            self.say(Output::Dropped(gateway, old));
        }
        for c in 0..self.clusters.len() {
            if !self.cluster(c).has(gateway) {
                continue;
            }
            if before.is_none() {
                self.clusters[c].health.push((now, gateway, 0));
            }
            self.heard_by(c, gateway);
            self.answer_request(c, gateway, before.is_some());
            if by_it && self.cluster(c).active != Some(gateway) {
                self.activate(c, gateway);
            } else {
                self.offer(c, gateway);
            }
        }
    }

    /// A gateway is keyed: it is used if none is (S4), or if the one in use would rather be left and
    /// this one not (S18).
    pub(super) fn offer(&mut self, c: usize, gateway: IpAddr) {
        let cluster = self.cluster(c);
        let use_it = match cluster.active {
            None => true,
            Some(active) => cluster.unwell(active, self.now) && !cluster.unwell(gateway, self.now),
        };
        if use_it {
            self.activate(c, gateway);
        }
    }

    pub(super) fn activate(&mut self, c: usize, gateway: IpAddr) {
        let now = self.now;
        let cluster = &mut self.clusters[c];
        cluster.active = Some(gateway);
        cluster.active_from = now;
        cluster.round = cluster.beats.len();
        cluster.named = None;
        let number = cluster.number;
        self.say(Output::Active(number, Some(gateway)));
    }

    /// No session with a gateway exists any more: it ended, or its silence toward a cluster was its
    /// death. For other clusters it has ended (S8).
    pub(super) fn lost(&mut self, gateway: IpAddr, dead_for: Option<usize>) {
        let how = dead_for.map_or(End::Over, |_| End::Dead);
        let now = self.now;
        let Some(entry) = self.gateways.get_mut(&gateway) else {
            return;
        };
        entry.end(now, how);
        entry.refresh = None;
        entry.blame(now);
        for c in 0..self.clusters.len() {
            let sent = self.cluster(c).beats.len();
            self.clusters[c].gone.push((gateway, sent));
            if self.cluster(c).active == Some(gateway) {
                let idle = dead_for != Some(c) && self.is_idle(c, gateway);
                self.fail_over(c, gateway, idle);
            }
        }
    }

    /// Of some gateways, the first that is keyed; one that would rather be left only if no other is
    /// (S6).
    fn first_keyed(&self, c: usize, gateways: &[IpAddr]) -> Option<IpAddr> {
        let keyed = || {
            gateways
                .iter()
                .copied()
                .filter(|gateway| self.keyed(*gateway))
        };
        let well = keyed().find(|gateway| !self.cluster(c).unwell(*gateway, self.now));
        well.or_else(|| keyed().next())
    }

    /// The active gateway is gone: the next keyed one on from it (S6), or none, and a key is asked for
    /// (S7), unless nobody uses the tunnel (S8).
    fn fail_over(&mut self, c: usize, gone: IpAddr, idle: bool) {
        let mut others = self.cluster(c).round_from(Some(gone));
        others.retain(|other| *other != gone);
        match self.first_keyed(c, &others) {
            Some(next) => self.activate(c, next),
            None => self.without(c, Some(gone), idle),
        }
    }

    fn without(&mut self, c: usize, lost: Option<IpAddr>, idle: bool) {
        let open = self.is_open(c);
        let payload = if idle && !open {
            Payload::Asks
        } else {
            Payload::Waits
        };
        self.gone_without_asking(c, lost, payload);
        if !open && !idle {
            self.ask(c, lost);
        }
    }

    fn gone_without_asking(&mut self, c: usize, lost: Option<IpAddr>, payload: Payload) {
        let cluster = &mut self.clusters[c];
        cluster.active = None;
        cluster.named = None;
        cluster.lost = lost;
        cluster.payload = payload;
        let number = cluster.number;
        self.say(Output::Active(number, None));
    }

    /// Whether a key request is under way, or will be made by itself.
    pub(super) fn is_open(&self, c: usize) -> bool {
        let cluster = self.cluster(c);
        cluster.request.is_some() || cluster.wait.is_some_and(|wait| wait.again.is_some())
    }

    fn payload(&mut self, c: usize) {
        let now = self.now;
        let cluster = &mut self.clusters[c];
        if cluster.active.is_some() {
            cluster.sent.push(now);
            let cluster = self.cluster(c);
            // S11.
            if self.is_waiting(cluster) && self.link {
                self.beat(c);
            }
            return;
        }
        // S19, S21: once, until there is an answer.
        let (next, lost) = (cluster.payload, cluster.lost);
        cluster.payload = match next {
            Payload::Asks => Payload::Waits,
            Payload::RefusedAsks => Payload::Refused,
            Payload::Waits | Payload::Refused => return,
        };
        self.ask(c, lost);
    }

    /// The policy is read (S31 to S35), or was for the first time.
    fn reload(&mut self, policy: &Policy) {
        let now = self.now;
        let old = std::mem::replace(&mut self.policy, policy.clone());
        let gone: Vec<IpAddr> = self
            .gateways
            .keys()
            .copied()
            .filter(|g| !policy.lists(*g))
            .collect();
        for gateway in gone {
            if let Some(session) = self.session(gateway) {
                self.say(Output::Dropped(gateway, session));
            }
            // S33: what was held against it is forgotten; an exchange goes on to its end.
            let exchange = self
                .gateways
                .remove(&gateway)
                .is_some_and(|entry| entry.exchange);
            if exchange {
                let entry = self.gateways.entry(gateway).or_default();
                entry.exchange = true;
            }
        }
        let mut known = std::mem::take(&mut self.clusters);
        let mut before = Vec::new();
        for (number, order) in &policy.clusters {
            let mut cluster = match known.iter().position(|known| known.number == *number) {
                // S31.
                Some(at) => known.swap_remove(at),
                None => Cluster::new(*number, Vec::new()),
            };
            let others = order.iter().any(|gateway| !cluster.has(*gateway))
                || cluster.order.iter().any(|gateway| !order.contains(gateway));
            for gateway in cluster
                .order
                .iter()
                .filter(|gateway| !order.contains(gateway))
            {
                cluster.gone.push((*gateway, cluster.beats.len()));
                // What it said of itself is forgotten with it.
                cluster.health.push((now, *gateway, 0));
            }
            before.push(std::mem::replace(&mut cluster.order, order.clone()));
            // S34.
            if others && let Some(wait) = &mut cluster.wait {
                wait.until = wait.until.min(now);
            }
            // S35.
            let still = |gateway: Option<IpAddr>| gateway.filter(|gateway| order.contains(gateway));
            cluster.lost = still(cluster.lost);
            if let Some(Request { after, .. }) = &mut cluster.request {
                *after = still(*after);
            }
            if let Some(again) = cluster.wait.as_mut().and_then(|wait| wait.again.as_mut()) {
                *again = still(*again);
            }
            self.clusters.push(cluster);
        }
        let timers = |policy: &Policy| (policy.mode, policy.defer, policy.response);
        let mut asks = Vec::new();
        for (c, before) in before.iter().enumerate() {
            if timers(&old) != timers(policy) {
                self.fresh_for(c);
            }
            asks.push(self.leave_the_unlisted(c, before));
            for gateway in self.cluster(c).order.clone() {
                if !before.contains(&gateway) && self.keyed(gateway) {
                    self.heard_by(c, gateway);
                    self.offer(c, gateway);
                }
            }
        }
        self.requests_after_reload();
        for (c, asks) in asks.into_iter().enumerate() {
            let order = &self.cluster(c).order;
            if asks || !order.iter().any(|gateway| self.keyed(*gateway)) {
                self.ask(c, None);
            }
        }
    }

    /// The active gateway may not be in the list any more: the first that stays is next (S32). If none
    /// does, a key is asked for; that may be one of a gateway that comes.
    fn leave_the_unlisted(&mut self, c: usize, before: &[IpAddr]) -> bool {
        let cluster = self.cluster(c);
        if cluster.active.is_none_or(|active| cluster.has(active)) {
            return false;
        }
        let stay = cluster.order.iter().copied();
        let stay: Vec<IpAddr> = stay.filter(|gateway| before.contains(gateway)).collect();
        match self.first_keyed(c, &stay) {
            Some(next) => {
                self.activate(c, next);
                false
            }
            None => {
                self.gone_without_asking(c, None, Payload::Waits);
                true
            }
        }
    }

    pub(super) fn instant(&self) -> bool {
        self.policy.mode == HeartbeatMode::Instant
    }
}
