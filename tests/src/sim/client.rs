//! A client: policy's list of gateways, key management, initiator, and the worker's monitor.

mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use evergate::ike::{Engine, Identity, SaId, Settings, Ticket};
use evergate::kms::{self, KeyManagement, SessionHandle};
use evergate::liveness::{Monitor, Timing};
use evergate::policy::{ClusterId, Resolved};
use evergate::sadb::{Path, SessionId};
use evergate_common::heartbeat;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::owner::{Owner, client_name};
use super::scenario::{Rekeying, lifetimes};
use super::session::Session;
use super::table::Table;
use super::{
    Packet, RETRANSMIT, Scenario, Step, client_address, client_inner, inner_packet, label,
    nat_address,
};

const CLUSTER: ClusterId = ClusterId(1);
const HEARTBEAT: [u8; 4] = [0xff; 4];
/// Heartbeats whose answers are waited for.
const ASKED: usize = 8;

pub(super) struct Client {
    index: usize,
    engine: Engine,
    owner: Owner,
    kms: KeyManagement<StdRng>,
    monitor: Monitor,
    table: Table,
    rekeying: Option<Rekeying>,
    address: IpAddr,
    nat: Option<IpAddr>,
    /// How often it has moved, and its NAT.
    moves: [u8; 2],
    /// The ticket of each gateway.
    wallet: BTreeMap<IpAddr, (SaId, Ticket)>,
    policy: Vec<IpAddr>,
    pending: HashMap<SaId, IpAddr>,
    /// Gateways that want to be left.
    leaving: Vec<IpAddr>,
    /// Sessions that were left, and end soon.
    left: HashMap<IpAddr, SessionId>,
    refused_until: Option<Instant>,
    number: u64,
    /// When it began exchanges, since the start.
    pub(super) begun: Vec<Duration>,
    start: Instant,
    pub(super) wake_at: Option<Duration>,
}

fn order(policy: &Resolved) -> Vec<IpAddr> {
    let cluster = policy.cluster(CLUSTER);
    cluster
        .map(|cluster| cluster.gateways.clone())
        .unwrap_or_default()
}

fn timing(policy: &Resolved) -> Timing {
    Timing {
        mode: policy.general.heartbeat,
        response_time: policy.general.response_time,
        defer_time: policy.general.defer_time,
    }
}

impl Client {
    pub(super) fn new(
        index: usize,
        policy: &Resolved,
        scenario: &Scenario,
        start: Instant,
        rng: &mut StdRng,
    ) -> Client {
        let order = order(policy);
        let mut settings = Settings::new(Identity::Fqdn(client_name(index)));
        (settings.child_lifetime, settings.ike_lifetime) = lifetimes(scenario.rekeying);
        settings.retransmit = RETRANSMIT;
        (settings.mobike, settings.request_tickets) = (true, scenario.tickets);
        let kms = kms::Settings {
            standby: policy.general.standby as usize,
            retry_cap: scenario.retry_cap(),
            ..kms::Settings::default()
        };
        let mut kms = KeyManagement::new(kms, StdRng::from_rng(rng));
        kms.set_clusters(vec![(CLUSTER, order.clone())], start);
        Client {
            index,
            engine: Engine::new(settings, StdRng::from_rng(rng)),
            owner: Owner::new(rng),
            kms,
            monitor: Monitor::new(CLUSTER, order.clone(), timing(policy)),
            table: Table::default(),
            rekeying: scenario.rekeying,
            address: client_address(index, 0),
            nat: scenario.nat.then(|| nat_address(index, 0)),
            moves: [0; 2],
            wallet: BTreeMap::new(),
            policy: order,
            pending: HashMap::new(),
            leaving: Vec::new(),
            left: HashMap::new(),
            refused_until: None,
            number: 0,
            begun: Vec::new(),
            start,
            wake_at: None,
        }
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// As the outer network knows it.
    pub(super) fn outer(&self) -> IpAddr {
        self.nat.unwrap_or(self.address)
    }

    /// Its NAT has another address, if it has one. It does not know.
    pub(super) fn remap(&mut self) {
        if let Some(nat) = &mut self.nat {
            self.moves[1] = self.moves[1].wrapping_add(1);
            *nat = nat_address(self.index, self.moves[1]);
        }
    }

    /// Its own address is replaced.
    pub(super) fn move_on(&mut self, step: &mut Step<'_>) {
        self.moves[0] = self.moves[0].wrapping_add(1);
        self.address = client_address(self.index, self.moves[0]);
        let (now, local) = (step.now, self.address);
        // What had only begun begins again.
        for sa in self.pending.keys().copied().collect::<BTreeSet<_>>() {
            self.engine.close(now, sa);
        }
        for sa in self.table.sas() {
            let Some(spec) = self.table.of_sa(sa).map(|session| session.spec.clone()) else {
                continue;
            };
            if self.engine.local_moved(now, sa, local) {
                let path = Path {
                    local,
                    remote: spec.outside_remote,
                    encap: spec.encap,
                    roams: spec.roams,
                };
                self.table.relocate(&mut self.owner.sadb, sa, &path);
            } else {
                self.engine.forget(sa);
                self.end(spec.id, false, now);
            }
        }
        self.pump(step);
    }

    /// The policy was read again.
    pub(super) fn reload(&mut self, policy: &Resolved, step: &mut Step<'_>) {
        let (order, now) = (order(policy), step.now);
        self.policy = order.clone();
        self.kms.set_clusters(vec![(CLUSTER, order.clone())], now);
        self.monitor.set_timing(timing(policy), now);
        self.monitor.set_order(order.clone(), now);
        for gateway in &order {
            if self.table.lead(*gateway).is_some() {
                self.monitor.on_keyed(*gateway, now);
            }
        }
        if order
            .iter()
            .all(|gateway| self.kms.session(*gateway).is_none())
        {
            self.kms.request(CLUSTER, None, now);
        }
        self.pump(step);
    }

    /// The sessions that it would use: with whom, and whether it is going to keep them.
    pub(super) fn keyed(&self) -> impl Iterator<Item = (IpAddr, &Session, bool)> {
        let leads = self.table.leads();
        leads.map(|(at, session)| (at, session, !self.table.dies(session.id)))
    }

    pub(super) fn active(&self) -> Option<IpAddr> {
        self.monitor.active()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let timers = [
            self.engine.next_timeout(),
            self.kms.next_deadline(),
            self.monitor.next_deadline(),
        ];
        let timers = timers.into_iter().flatten().map(|(at, _)| at);
        timers.chain(self.table.next()).min()
    }

    pub(super) fn wake(&mut self, step: &mut Step<'_>) {
        self.engine.handle_timeout(step.now, &mut self.owner);
        self.kms.poll(step.now);
        self.monitor.poll(step.now);
        let [dying, retired] = self.table.due(step.now);
        for id in dying {
            self.end(id, true, step.now);
            self.obey_monitor(step);
        }
        for id in retired {
            self.remove_pair(id, step.now);
            self.obey_monitor(step);
        }
        self.pump(step);
    }

    /// An application sends a packet.
    pub(super) fn payload(&mut self, target: IpAddr, step: &mut Step<'_>) {
        self.number += 1;
        let source = client_inner(self.index);
        let packet = inner_packet(source, target, self.index as u32, self.number);
        step.watch.payload(self.index, self.number);
        let active = self.monitor.active();
        match active.and_then(|gateway| self.table.leading(gateway)) {
            Some(session) => {
                let id = session.id;
                if let Some(sealed) = session.seal(Some(&packet), step.watch) {
                    step.out
                        .push((session.spec.outside_remote, Packet::Esp(sealed)));
                    self.monitor.on_sent(step.now);
                }
                self.judge_traffic(id, step.now);
            }
            None if self.refused_until.is_some_and(|until| step.now < until) => {}
            None => self.monitor.on_wanted(step.now),
        }
        self.pump(step);
    }

    pub(super) fn arrive(&mut self, from: IpAddr, packet: Packet, step: &mut Step<'_>) {
        match packet {
            Packet::Ike(t) => {
                let engine = &mut self.engine;
                engine.handle_datagram(step.now, t.remote, t.local, &t.data, &mut self.owner);
            }
            Packet::Esp(bytes) if bytes.starts_with(&HEARTBEAT) => {
                self.answered(from, &bytes, step)
            }
            Packet::Esp(bytes) => self.open(bytes, step),
        }
        self.pump(step);
    }

    fn answered(&mut self, from: IpAddr, bytes: &[u8], step: &mut Step<'_>) {
        let Some(heartbeat) = heartbeat::decode(bytes) else {
            return;
        };
        let spi = u32::from_be_bytes(heartbeat.spi);
        let mut sessions = self.table.iter_mut();
        let Some(session) = sessions.find(|s| s.spec.gateway == Some(from) && s.spi_out() == spi)
        else {
            return;
        };
        let Ok(answer) = heartbeat::verify_answer(bytes, &session.heartbeat_key) else {
            return;
        };
        let asked = (answer.counter, answer.token);
        if session.asked.contains(&asked) {
            session.asked.retain(|other| *other != asked);
            self.monitor
                .on_answer(from, answer.counter, answer.health, step.now);
        }
    }

    fn open(&mut self, bytes: Vec<u8>, step: &mut Step<'_>) {
        let spi = bytes.first_chunk().map(|spi| u32::from_be_bytes(*spi));
        let id = spi.and_then(|spi| self.table.by_spi(spi));
        let Some(session) = id.and_then(|id| self.table.get_mut(id)) else {
            return;
        };
        let id = session.id;
        let Some(inner) = session.open(bytes, step.watch) else {
            return;
        };
        if let Some(gateway) = session.spec.gateway {
            self.monitor.on_heard(gateway, step.now);
        }
        if let Some((client, number)) = inner.and_then(|inner| label(&inner)) {
            step.watch
                .holds(client == self.index, "a client hears what is another's");
            step.watch.answer(client, number);
        }
        self.table.heard(id);
        self.judge_traffic(id, step.now);
    }

    /// Fresh keys, where the old ones have protected enough.
    fn judge_traffic(&mut self, id: SessionId, now: Instant) {
        if let Some(rekeying) = self.rekeying
            && let Some(session) = self.table.get(id)
            && session.has_carried(rekeying.packets)
        {
            self.engine.rekey_child(now, session.sa, session.spi_in());
        }
    }

    fn pump(&mut self, step: &mut Step<'_>) {
        loop {
            let mut worked = false;
            while let Some(event) = self.engine.poll_event() {
                worked = true;
                self.on_ike(event, step);
                self.obey_monitor(step);
            }
            while let Some(action) = self.kms.next_action() {
                worked = true;
                self.on_key_action(action, step.now);
                self.obey_monitor(step);
            }
            worked |= self.obey_monitor(step);
            self.leave_the_unused(step.now);
            while let Some(t) = self.engine.poll_transmit() {
                worked = true;
                if !t.is_keep_alive() {
                    step.out.push((t.remote.ip(), Packet::Ike(t)));
                }
            }
            if !worked {
                return;
            }
        }
    }

    /// As the worker does after each command: what the monitor wants may be of no use after the next one.
    fn obey_monitor(&mut self, step: &mut Step<'_>) -> bool {
        let mut worked = false;
        while let Some(action) = self.monitor.next_action() {
            worked = true;
            self.on_monitor(action, step);
        }
        worked
    }

    fn leave_the_unused(&mut self, now: Instant) {
        let active = self.monitor.active();
        let left = self
            .leaving
            .extract_if(.., |gateway| Some(*gateway) != active);
        for gateway in left.collect::<Vec<_>>() {
            if let Some(session) = self.kms.session(gateway) {
                self.kms.on_left(gateway, now);
                self.table.let_die(SessionId(session.0), now);
                self.left.insert(gateway, SessionId(session.0));
            }
        }
    }

    /// Traffic has gone back to a gateway that was left.
    fn taken_back(&mut self, gateway: IpAddr, now: Instant) {
        let Some(id) = self.left.remove(&gateway) else {
            return;
        };
        if self.table.dies(id) && self.kms.session(gateway).is_none() {
            self.table.let_live(id);
            self.leaving.push(gateway);
            self.kms
                .on_peer_initiated(gateway, SessionHandle(id.0), now);
        }
    }

    /// Ends a session, with all its pairs of SAs.
    fn end(&mut self, id: SessionId, close: bool, now: Instant) {
        let Some(sa) = self.table.get(id).map(|session| session.sa) else {
            return;
        };
        let current = self.table.of_sa(sa);
        // The key management knows it by the pair that is in use.
        let (id, gateway) = match current {
            Some(session) => (session.id, session.spec.gateway),
            None => (id, None),
        };
        if close {
            self.engine.close(now, sa);
        }
        for pair in self.table.all_of(sa) {
            self.remove_pair(pair, now);
        }
        if let Some(gateway) = gateway {
            self.kms.on_session_lost(gateway, SessionHandle(id.0), now);
        }
    }

    fn remove_pair(&mut self, id: SessionId, now: Instant) {
        let removed = self.table.remove(&mut self.owner.sadb, id);
        if let Some(gateway) = removed.and_then(|session| session.spec.gateway)
            && self.table.lead(gateway).is_none()
        {
            self.monitor.on_unkeyed(gateway, now);
        }
    }
}
