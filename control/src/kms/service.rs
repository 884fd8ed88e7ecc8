//! Key requests and the session cache.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use rand::Rng;

use super::cluster::{Cluster, Gateway, Job, Run};
use super::{Action, RequestState, SessionHandle, Settings, Timer};
use crate::policy::ClusterId;

/// The key management service of a node.
///
/// Contract: call what happened, then take every `next_action`; call `poll` no later than
/// `next_deadline`. Times never go backwards. The module page says what the task owes it.
#[derive(Debug)]
pub struct KeyManagement<R> {
    pub(super) settings: Settings,
    pub(super) rng: R,
    pub(super) gateways: Vec<Gateway>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) actions: VecDeque<Action>,
}

impl<R: Rng> KeyManagement<R> {
    /// A service that knows no cluster yet.
    pub fn new(settings: Settings, rng: R) -> KeyManagement<R> {
        KeyManagement {
            settings: settings.clamped(),
            rng,
            gateways: Vec::new(),
            clusters: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes the clusters of a policy, at the start and at each reload, each with its gateways in
    /// the order drawn at this read. Sessions with gateways that are still in some cluster stay
    /// as they are; those with any other gateway are dropped. A request under way goes on with
    /// the gateways that it has not asked yet.
    pub fn set_clusters(&mut self, clusters: Vec<(ClusterId, Vec<IpAddr>)>, now: Instant) {
        let mut old = std::mem::take(&mut self.clusters);
        for (id, order) in clusters {
            if self.clusters.iter().any(|known| known.id == id) {
                continue;
            }
            let mut cluster = match old.iter().position(|known| known.id == id) {
                Some(at) => old.swap_remove(at),
                None => Cluster::new(id, Vec::new()),
            };
            let changed = cluster.set_order(order);
            if changed && let Job::BackOff { until, .. } = &mut cluster.job {
                // The wait was for the gateways as they were.
                *until = (*until).min(now);
            }
            self.clusters.push(cluster);
        }
        for cluster in &self.clusters {
            for &address in &cluster.order {
                if self.gateways.iter().all(|known| known.address != address) {
                    self.gateways.push(Gateway::new(address, now));
                }
            }
        }
        for i in 0..self.gateways.len() {
            let address = self.gateways[i].address;
            if self.listed(address) {
                continue;
            }
            // An exchange may still run; nothing else is kept.
            let fresh = Gateway {
                authenticating: self.gateways[i].authenticating,
                ..Gateway::new(address, now)
            };
            let gone = std::mem::replace(&mut self.gateways[i], fresh);
            if let Some((session, _)) = gone.session {
                self.actions.push_back(Action::DropSession {
                    gateway: address,
                    session,
                });
            }
        }
        self.forget_strangers();
        for c in 0..self.clusters.len() {
            let cluster = &self.clusters[c];
            let Some(run) = cluster.running() else {
                continue;
            };
            // Another cluster may have the key already; the gateway asked may be gone.
            if let Some(gateway) = self.keyed_in(cluster, run.after) {
                self.grant(c, gateway);
            } else if run.current.is_none_or(|gateway| !cluster.has(gateway)) {
                self.advance(c, now);
            }
        }
        self.poll(now);
    }

    /// Takes new settings; they hold for what is planned from now on.
    pub fn set_settings(&mut self, settings: Settings, now: Instant) {
        self.settings = settings.clamped();
        self.plan_standby(now);
    }

    /// A key for `cluster` is wanted. With `after`, from another gateway than that one if there
    /// is any: the search starts behind it in list order. Does nothing while a request of this
    /// cluster runs; after a rejection it waits for the back-off. An unknown cluster is rejected.
    pub fn request(&mut self, cluster: ClusterId, after: Option<IpAddr>, now: Instant) {
        let Some(c) = self.clusters.iter().position(|known| known.id == cluster) else {
            self.actions.push_back(Action::Rejected {
                cluster,
                tried: Vec::new(),
                retry_at: now,
            });
            return;
        };
        let keyed = self.keyed_in(&self.clusters[c], after);
        match &mut self.clusters[c].job {
            Job::Running(_) => {}
            Job::BackOff { until, wanted } if now < *until && keyed.is_none() => {
                *wanted = Some(after);
            }
            Job::Idle | Job::BackOff { .. } => self.start(c, after, now),
        }
        self.plan_standby(now);
    }

    /// The exchange that [`Action::Authenticate`] asked for made a session.
    pub fn on_authenticated(&mut self, gateway: IpAddr, session: SessionHandle, now: Instant) {
        if let Some(entry) = self.entry(gateway) {
            entry.authenticating = false;
        }
        self.cache(gateway, session, now);
    }

    /// A gateway made a session with us by itself.
    pub fn on_peer_initiated(&mut self, gateway: IpAddr, session: SessionHandle, now: Instant) {
        self.cache(gateway, session, now);
    }

    /// The session with `gateway` goes on under another name, with fresh keys.
    pub fn on_rekeyed(&mut self, gateway: IpAddr, old: SessionHandle, new: SessionHandle) {
        if let Some(entry) = self.entry(gateway)
            && let Some((session, _)) = &mut entry.session
            && *session == old
        {
            *session = new;
        }
    }

    /// The exchange that [`Action::Authenticate`] asked for failed.
    pub fn on_failed(&mut self, gateway: IpAddr, reason: String, now: Instant) {
        let Some(entry) = self.entry(gateway) else {
            return;
        };
        entry.authenticating = false;
        if entry.session.is_none() {
            self.hold(gateway, now);
        }
        self.refresh_later(gateway, now);
        for c in 0..self.clusters.len() {
            if let Job::Running(run) = &mut self.clusters[c].job
                && run.current == Some(gateway)
            {
                run.tried.push((gateway, reason.clone()));
                self.advance(c, now);
            }
        }
        self.forget_strangers();
        self.plan_standby(now);
    }

    /// This session exists no more: deleted by either side, or expired. One that is not in the
    /// cache, because a newer one has replaced it, changes nothing.
    pub fn on_session_lost(&mut self, gateway: IpAddr, session: SessionHandle, now: Instant) {
        if self.session(gateway) == Some(session) {
            self.lose(gateway, now);
        }
    }

    /// A monitor found `gateway` dead: its key is removed, for every cluster.
    pub fn on_dead(&mut self, gateway: IpAddr, now: Instant) {
        let Some((session, since)) = self.find(gateway).and_then(|entry| entry.session) else {
            return;
        };
        self.actions
            .push_back(Action::DropSession { gateway, session });
        self.lose(gateway, now);
        self.damp(gateway, now.saturating_duration_since(since), now);
    }

    /// The monitor of `cluster` uses this gateway now, or none. Standby gateways are the ones
    /// next to it in list order.
    pub fn on_active(&mut self, cluster: ClusterId, gateway: Option<IpAddr>, now: Instant) {
        if let Some(known) = self.clusters.iter_mut().find(|known| known.id == cluster) {
            known.active = gateway.filter(|gateway| known.has(*gateway));
            known.preferred = None;
        }
        self.plan_standby(now);
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Instant) {
        for c in 0..self.clusters.len() {
            if let Job::BackOff {
                until,
                wanted: Some(after),
            } = self.clusters[c].job
                && until <= now
            {
                self.start(c, after, now);
            }
        }
        self.start_refresh(now);
        self.start_standby(now);
        self.plan_standby(now);
    }

    /// When to call [`KeyManagement::poll`] at the latest, and why.
    pub fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        let retries = self
            .clusters
            .iter()
            .filter_map(|cluster| match cluster.job {
                Job::BackOff {
                    until,
                    wanted: Some(_),
                } => Some((until, Timer::Retry)),
                _ => None,
            });
        let standbys = self
            .clusters
            .iter()
            .filter_map(|c| Some((c.standby_at?, Timer::Standby)));
        let refreshes = self.next_refresh().map(|at| (at, Timer::Refresh));
        retries
            .chain(standbys)
            .chain(refreshes)
            .min_by_key(|(at, _)| *at)
            .map(|(at, timer)| (at, timer.reason()))
    }

    /// The next thing to do, oldest first.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The cached session with `gateway`.
    pub fn session(&self, gateway: IpAddr) -> Option<SessionHandle> {
        let (session, _) = self.find(gateway)?.session?;
        Some(session)
    }

    /// The clusters that list `gateway`: whose monitors have to hear of its sessions.
    pub fn clusters_of(&self, gateway: IpAddr) -> impl Iterator<Item = ClusterId> + '_ {
        self.clusters
            .iter()
            .filter(move |cluster| cluster.has(gateway))
            .map(|cluster| cluster.id)
    }

    /// What the key request of `cluster` is doing, if there is such a cluster.
    pub fn request_state(&self, cluster: ClusterId) -> Option<RequestState> {
        let known = self.clusters.iter().find(|known| known.id == cluster)?;
        Some(match &known.job {
            Job::Running(Run {
                current: Some(gateway),
                ..
            }) => RequestState::Authenticating(*gateway),
            Job::Idle | Job::Running(_) => RequestState::Idle,
            Job::BackOff { until, .. } => RequestState::BackOff(*until),
        })
    }

    fn cache(&mut self, gateway: IpAddr, session: SessionHandle, now: Instant) {
        if !self.listed(gateway) {
            // The policy lost this gateway while the exchange ran, or never had it.
            self.actions
                .push_back(Action::DropSession { gateway, session });
            self.forget_strangers();
            return;
        }
        let Some(entry) = self.entry(gateway) else {
            return;
        };
        let before = entry.session.replace((session, now));
        entry.refresh = None;
        if let Some((old, since)) = before {
            self.forgive(gateway, now.saturating_duration_since(since));
            if old != session {
                self.actions.push_back(Action::DropSession {
                    gateway,
                    session: old,
                });
            }
        }
        for c in 0..self.clusters.len() {
            let cluster = &mut self.clusters[c];
            let asks_for = match &cluster.job {
                Job::Running(run) => Some(run.after),
                Job::BackOff { wanted: None, .. } if before.is_none() && cluster.has(gateway) => {
                    // Nobody asks any more, but whoever does next shall not wait.
                    cluster.job = Job::Idle;
                    cluster.failures = 0;
                    None
                }
                Job::BackOff { wanted, .. } => *wanted,
                Job::Idle => None,
            };
            let cluster = &self.clusters[c];
            // A new session with the very gateway that shall be left is no answer.
            let answers = |after| after != Some(gateway) || before.is_none();
            if cluster.has(gateway) && asks_for.is_some_and(answers) {
                self.grant(c, gateway);
            }
        }
        self.plan_standby(now);
    }

    fn start(&mut self, c: usize, after: Option<IpAddr>, now: Instant) {
        let cluster = &mut self.clusters[c];
        let forgiven = self.settings.retry_cap * 2;
        if cluster
            .failed_at
            .is_some_and(|at| now.saturating_duration_since(at) > forgiven)
        {
            cluster.failures = 0;
        }
        cluster.job = Job::Running(Run {
            after,
            current: None,
            tried: Vec::new(),
        });
        match self.keyed_in(&self.clusters[c], after) {
            Some(gateway) => self.grant(c, gateway),
            None => self.advance(c, now),
        }
    }

    /// Goes on to the next gateway that this request has not asked, or rejects it.
    fn advance(&mut self, c: usize, now: Instant) {
        let preferred = self.clusters[c].preferred.take();
        let cluster = &self.clusters[c];
        let Some(run) = cluster.running() else { return };
        let preferred = preferred.filter(|gateway| cluster.has(*gateway));
        let mut round = preferred.into_iter().chain(cluster.round_from(run.after));
        let next = round.find(|gateway| {
            // Keyed can only be the gateway that shall be left: no need to ask it.
            self.session(*gateway).is_none()
                && run.tried.iter().all(|(asked, _)| asked != gateway)
                && self.damped(*gateway, now).is_none()
        });
        drop(round);
        let Some(gateway) = next else {
            return self.reject(c, now);
        };
        if let Job::Running(run) = &mut self.clusters[c].job {
            run.current = Some(gateway);
        }
        self.authenticate(gateway);
    }

    fn grant(&mut self, c: usize, gateway: IpAddr) {
        let cluster = &mut self.clusters[c];
        cluster.job = Job::Idle;
        cluster.preferred = None;
        cluster.failures = 0;
        // Where one is in use, the monitor says whether it moves.
        cluster.active = cluster.active.or(Some(gateway));
        self.actions.push_back(Action::Granted {
            cluster: cluster.id,
            gateway,
        });
    }

    fn reject(&mut self, c: usize, now: Instant) {
        let cluster = &self.clusters[c];
        let after = cluster.running().and_then(|run| run.after);
        let passed_over = self.passed_over(cluster, now);
        // Without any key the cluster is of no use: nobody needs to ask again, and a client that
        // only answers never would.
        let keyless = cluster.order.iter().all(|gw| self.session(*gw).is_none());
        let wanted = (keyless && !cluster.order.is_empty()).then_some(after);
        let cluster = &mut self.clusters[c];
        cluster.failures = cluster.failures.saturating_add(1);
        cluster.failed_at = Some(now);
        let waited = now + self.settings.backoff(cluster.failures, &mut self.rng);
        let ends = passed_over.iter().map(|(_, until, _)| *until);
        let retry_at = ends.fold(waited, Instant::min);
        let done = std::mem::replace(
            &mut cluster.job,
            Job::BackOff {
                until: retry_at,
                wanted,
            },
        );
        let mut tried = if let Job::Running(run) = done {
            run.tried
        } else {
            Vec::new()
        };
        // One that died while it was asked is both.
        for (gateway, _, reason) in passed_over {
            if tried.iter().all(|(asked, _)| *asked != gateway) {
                tried.push((gateway, reason));
            }
        }
        self.actions.push_back(Action::Rejected {
            cluster: cluster.id,
            tried,
            retry_at,
        });
    }

    /// Starts an exchange, unless one with this gateway runs already: then that one counts.
    pub(super) fn authenticate(&mut self, gateway: IpAddr) {
        if let Some(entry) = self.entry(gateway)
            && !std::mem::replace(&mut entry.authenticating, true)
        {
            self.actions.push_back(Action::Authenticate { gateway });
        }
    }

    pub(super) fn lose(&mut self, gateway: IpAddr, now: Instant) {
        if let Some(entry) = self.entry(gateway) {
            entry.refresh = None;
            if let Some((_, since)) = entry.session.take() {
                self.forgive(gateway, now.saturating_duration_since(since));
            }
        }
        self.hold(gateway, now);
        for cluster in &mut self.clusters {
            if cluster.active == Some(gateway) {
                cluster.active = None;
            }
        }
        self.plan_standby(now);
    }

    /// Keeps background attempts away from `gateway` for a while.
    fn hold(&mut self, gateway: IpAddr, now: Instant) {
        let Some(entry) = self
            .gateways
            .iter_mut()
            .find(|entry| entry.address == gateway)
        else {
            return;
        };
        entry.failures = entry.failures.saturating_add(1);
        entry.hold_until = now + self.settings.backoff(entry.failures, &mut self.rng);
    }

    /// The first keyed gateway in round-robin order, other than the one that shall be left.
    fn keyed_in(&self, cluster: &Cluster, after: Option<IpAddr>) -> Option<IpAddr> {
        cluster
            .round_from(after)
            .find(|gateway| Some(*gateway) != after && self.session(*gateway).is_some())
    }

    pub(super) fn find(&self, gateway: IpAddr) -> Option<&Gateway> {
        self.gateways.iter().find(|entry| entry.address == gateway)
    }

    pub(super) fn entry(&mut self, gateway: IpAddr) -> Option<&mut Gateway> {
        self.gateways
            .iter_mut()
            .find(|entry| entry.address == gateway)
    }

    fn listed(&self, gateway: IpAddr) -> bool {
        self.clusters.iter().any(|cluster| cluster.has(gateway))
    }

    /// Forgets gateways that no cluster lists, once no exchange with them runs.
    fn forget_strangers(&mut self) {
        let clusters = &self.clusters;
        self.gateways.retain(|entry| {
            entry.authenticating || clusters.iter().any(|cluster| cluster.has(entry.address))
        });
    }
}
