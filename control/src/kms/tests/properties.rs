//! What holds whatever happens, in any order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::kms::RequestState;

const ALL: [IpAddr; 4] = [A, B, C, D];

#[derive(Clone, Debug)]
enum Event {
    Request(u32, Option<IpAddr>),
    /// The oldest exchange under way ends: well, or not.
    Ends(bool),
    PeerInitiated(IpAddr),
    Lost(IpAddr),
    Dead(IpAddr),
    Active(u32, Option<IpAddr>),
    Reload(Vec<IpAddr>, Vec<IpAddr>),
    Pass(u64),
}

fn some_gateway() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(ALL.to_vec())
}

fn event() -> impl Strategy<Value = Event> {
    let maybe = || prop::option::of(some_gateway());
    let order = || prop::collection::vec(some_gateway(), 0..6);
    prop_oneof![
        6 => (1..4u32, maybe()).prop_map(|(cluster, after)| Event::Request(cluster, after)),
        12 => any::<bool>().prop_map(Event::Ends),
        1 => some_gateway().prop_map(Event::PeerInitiated),
        1 => some_gateway().prop_map(Event::Lost),
        2 => some_gateway().prop_map(Event::Dead),
        2 => (1..3u32, maybe()).prop_map(|(cluster, gw)| Event::Active(cluster, gw)),
        1 => (order(), order()).prop_map(|(one, two)| Event::Reload(one, two)),
        6 => (0..1_500u64).prop_map(Event::Pass),
    ]
}

/// The service beside what a bystander knows from its inputs and its actions alone.
struct Watched {
    bench: Bench,
    exchanges: Vec<IpAddr>,
    sessions: BTreeMap<IpAddr, u64>,
    orders: BTreeMap<u32, Vec<IpAddr>>,
    /// Clusters whose request is owed an answer.
    owed: BTreeSet<u32>,
    /// Clusters whose request will be made again after the wait.
    waiting: BTreeSet<u32>,
}

impl Watched {
    fn session(&mut self) -> SessionHandle {
        self.bench.next_session += 1;
        SessionHandle(self.bench.next_session)
    }

    fn play(&mut self, event: Event) -> Result<(), TestCaseError> {
        let now = self.bench.now;
        match event {
            Event::Request(cluster, after) => {
                let id = ClusterId(cluster);
                match self.bench.kms.request_state(id) {
                    Some(RequestState::BackOff(until)) if until > now => {
                        self.waiting.insert(cluster);
                    }
                    _ => {
                        self.waiting.remove(&cluster);
                        self.owed.insert(cluster);
                    }
                }
                self.bench.kms.request(id, after, now);
            }
            Event::Ends(well) => {
                if self.exchanges.is_empty() {
                    return Ok(());
                }
                let gateway = self.exchanges.remove(0);
                if well {
                    let session = self.session();
                    if self.listed(gateway) {
                        self.sessions.insert(gateway, session.0);
                    }
                    self.bench.kms.on_authenticated(gateway, session, now);
                } else {
                    self.bench.kms.on_failed(gateway, "no answer".into(), now);
                }
            }
            Event::PeerInitiated(gateway) => {
                let session = self.session();
                if self.listed(gateway) {
                    self.sessions.insert(gateway, session.0);
                }
                self.bench.kms.on_peer_initiated(gateway, session, now);
            }
            Event::Lost(gateway) => {
                if let Some(session) = self.sessions.remove(&gateway) {
                    self.bench
                        .kms
                        .on_session_lost(gateway, SessionHandle(session), now);
                }
            }
            Event::Dead(gateway) => {
                self.sessions.remove(&gateway);
                self.bench.kms.on_dead(gateway, now);
            }
            Event::Active(cluster, gateway) => {
                self.bench.kms.on_active(ClusterId(cluster), gateway, now);
            }
            Event::Reload(one, two) => {
                self.orders = BTreeMap::from([(1, one.clone()), (2, two.clone())]);
                let orders = &self.orders;
                self.sessions
                    .retain(|gw, _| orders.values().any(|order| order.contains(gw)));
                let before = [ONE, TWO].map(|id| self.bench.kms.request_state(id));
                self.bench
                    .kms
                    .set_clusters(vec![(ONE, one), (TWO, two)], now);
                self.waits_that_ended(before);
            }
            Event::Pass(millis) => return self.pass(Duration::from_millis(millis)),
        }
        self.drain()
    }

    fn pass(&mut self, span: Duration) -> Result<(), TestCaseError> {
        let until = self.bench.now + span;
        while let Some((at, _)) = self.bench.kms.next_deadline().filter(|d| d.0 <= until) {
            self.bench.now = self.bench.now.max(at);
            let before = [ONE, TWO].map(|id| self.bench.kms.request_state(id));
            self.bench.kms.poll(self.bench.now);
            self.waits_that_ended(before);
            let next = self.bench.kms.next_deadline();
            prop_assert!(next.is_none_or(|next| next.0 > self.bench.now), "it spins");
            self.drain()?;
        }
        self.bench.now = until;
        Ok(())
    }

    /// A request that waited and does so no more, or anew, was made: an answer is owed.
    fn waits_that_ended(&mut self, before: [Option<RequestState>; 2]) {
        for (id, before) in [ONE, TWO].into_iter().zip(before) {
            if self.bench.kms.request_state(id) != before && self.waiting.remove(&id.0) {
                self.owed.insert(id.0);
            }
        }
    }

    fn drain(&mut self) -> Result<(), TestCaseError> {
        while let Some(action) = self.bench.kms.next_action() {
            match action {
                Action::Authenticate { gateway } => {
                    prop_assert!(!self.exchanges.contains(&gateway), "two exchanges with one");
                    prop_assert!(!self.sessions.contains_key(&gateway), "it is keyed");
                    prop_assert!(self.listed(gateway), "not in the policy");
                    self.exchanges.push(gateway);
                }
                Action::Granted { cluster, gateway } => {
                    prop_assert!(
                        self.sessions.contains_key(&gateway),
                        "granted without a key"
                    );
                    prop_assert!(self.orders[&cluster.0].contains(&gateway));
                    let owed = self.owed.remove(&cluster.0);
                    prop_assert!(self.waiting.remove(&cluster.0) || owed, "nobody asked");
                }
                Action::Rejected {
                    cluster,
                    tried,
                    retry_at,
                } => {
                    prop_assert!(self.owed.remove(&cluster.0), "nobody asked");
                    prop_assert!(retry_at >= self.bench.now);
                    let once: BTreeSet<_> = tried.iter().map(|(gateway, _)| *gateway).collect();
                    prop_assert_eq!(once.len(), tried.len(), "a gateway asked twice");
                    // Only a gateway that shall be left may be keyed and unasked.
                    let order = self.orders.get(&cluster.0).cloned().unwrap_or_default();
                    let left: BTreeSet<_> = order
                        .iter()
                        .filter(|gateway| !once.contains(gateway))
                        .collect();
                    prop_assert!(left.len() <= 1, "rejected with {left:?} unasked");
                    prop_assert!(
                        left.iter()
                            .all(|gateway| self.sessions.contains_key(gateway))
                    );
                    let keyless = order.iter().all(|gw| !self.sessions.contains_key(gw));
                    if keyless && !order.is_empty() {
                        // Nobody needs to ask again.
                        self.waiting.insert(cluster.0);
                    }
                }
                Action::DropSession { gateway, session } => {
                    prop_assert_ne!(self.sessions.get(&gateway), Some(&session.0));
                }
            }
        }
        Ok(())
    }

    fn listed(&self, gateway: IpAddr) -> bool {
        self.orders.values().any(|order| order.contains(&gateway))
    }

    fn agrees(&self) -> Result<(), TestCaseError> {
        for gateway in ALL {
            let session = self.bench.kms.session(gateway).map(|session| session.0);
            prop_assert_eq!(session, self.sessions.get(&gateway).copied());
        }
        // Whoever is owed an answer has an exchange under way that will bring it on.
        for cluster in &self.owed {
            let state = self.bench.kms.request_state(ClusterId(*cluster));
            let Some(RequestState::Authenticating(gateway)) = state else {
                return Err(TestCaseError::fail(format!(
                    "cluster {cluster} hangs: {state:?}"
                )));
            };
            prop_assert!(self.exchanges.contains(&gateway), "nobody asks {gateway}");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn invariants_hold(
        standby in 0..4usize,
        seed in any::<u64>(),
        events in prop::collection::vec(event(), 1..200),
    ) {
        let mut watched = Watched {
            bench: Bench::new(standby, seed),
            exchanges: Vec::new(),
            sessions: BTreeMap::new(),
            orders: BTreeMap::from([(1, vec![A, B, C])]),
            owed: BTreeSet::new(),
            waiting: BTreeSet::new(),
        };
        for event in events {
            watched.play(event)?;
            watched.agrees()?;
        }
    }

    // Left alone with gateways of which some work, every request ends, and the cluster comes to
    // have its standbys: as many as were asked for and as there are gateways that work.
    #[test]
    fn it_settles(
        standby in 0..4usize,
        seed in any::<u64>(),
        works in prop::collection::vec(any::<bool>(), 4),
        after in prop::option::of(some_gateway()),
    ) {
        let mut bench = Bench::new(standby, seed);
        bench.kms.set_clusters(vec![(ONE, ALL.to_vec())], bench.now);
        bench.kms.request(ONE, after, bench.now);
        let mut granted = 0;
        for _ in 0..200 {
            while let Some(action) = bench.kms.next_action() {
                match action {
                    Action::Authenticate { gateway } => {
                        let at = ALL.iter().position(|known| *known == gateway).unwrap();
                        if works[at] {
                            bench.next_session += 1;
                            let session = SessionHandle(bench.next_session);
                            bench.kms.on_authenticated(gateway, session, bench.now);
                        } else {
                            bench.kms.on_failed(gateway, "no answer".into(), bench.now);
                        }
                    }
                    Action::Granted { .. } => granted += 1,
                    Action::Rejected { tried, .. } => prop_assert_eq!(tried.len(), ALL.len()),
                    Action::DropSession { .. } => prop_assert!(false, "nothing to drop"),
                }
            }
            let Some((at, _)) = bench.kms.next_deadline() else { break };
            bench.now = at;
            bench.kms.poll(at);
        }
        let working = works.iter().filter(|works| **works).count();
        prop_assert_eq!(granted, working.min(1));
        let keyed = ALL.iter().filter(|gateway| bench.kms.session(**gateway).is_some()).count();
        prop_assert_eq!(keyed, working.min(standby + 1));
    }
}
