//! A stock client: it knows one gateway by its address, has one session with it, asks whether it lives when
//! nothing comes back, and begins anew when its session has ended.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use evergate::ike::{
    AddressRequest, Engine, Event, IKE_PORT, Identity, Initiate, SaId, Settings, TrafficSelector,
    Transmit,
};
use evergate::sadb::{Path, SessionId};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::super::nat::{encapsulation, path};
use super::super::owner::{Owner, client_name, methods, targets};
use super::super::scenario::{Rekeying, lifetimes};
use super::super::session::Session;
use super::super::table::Table;
use super::super::{
    RETRANSMIT, TARGET, client_address, client_inner, inner_packet, label, nat_address,
};
use super::{Packet, SHARED, Scenario, Step};

/// It asks for a sign of life when nothing has come for so long.
pub(super) const SILENCE: Duration = Duration::from_secs(4);
/// After an exchange in vain it waits for so long.
pub(super) const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Client {
    index: usize,
    engine: Engine,
    owner: Owner,
    table: Table,
    rekeying: Option<Rekeying>,
    address: IpAddr,
    nat: Option<IpAddr>,
    moves: [u8; 2],
    pending: BTreeSet<SaId>,
    /// When it begins a session.
    begin_at: Option<Instant>,
    heard: Instant,
    asked: Instant,
    number: u64,
    pub(super) out: Vec<Packet>,
    /// It began its first session, or one in the place of another that has ended; told once.
    pub(super) begun: u64,
    /// It has had a session since it began one.
    had: bool,
    pub(super) wake_at: Option<Duration>,
}

impl Client {
    pub(super) fn new(index: usize, scenario: &Scenario, start: Instant, rng: &mut StdRng) -> Self {
        let mut settings = Settings::new(Identity::Fqdn(client_name(index)));
        (settings.child_lifetime, settings.ike_lifetime) = lifetimes(scenario.rekeying);
        settings.retransmit = RETRANSMIT;
        settings.mobike = true;
        Client {
            index,
            engine: Engine::new(settings, StdRng::from_rng(rng)),
            owner: Owner::new(rng),
            table: Table::default(),
            rekeying: scenario.rekeying,
            address: client_address(index, 0),
            nat: scenario.nat.then(|| nat_address(index, 0)),
            moves: [0; 2],
            pending: BTreeSet::new(),
            begin_at: Some(start),
            heard: start,
            asked: start,
            number: 0,
            out: Vec::new(),
            begun: 0,
            had: true,
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

    /// The SPI that it sends on now.
    pub(super) fn sends_on(&self) -> Option<u32> {
        let id = self.table.lead(SHARED)?;
        Some(self.table.get(id)?.spi_out())
    }

    pub(super) fn remap(&mut self) {
        if let Some(nat) = &mut self.nat {
            self.moves[1] = self.moves[1].wrapping_add(1);
            *nat = nat_address(self.index, self.moves[1]);
        }
    }

    pub(super) fn move_on(&mut self, step: &mut Step<'_>) {
        self.moves[0] = self.moves[0].wrapping_add(1);
        self.address = client_address(self.index, self.moves[0]);
        let (now, local) = (step.now, self.address);
        for sa in std::mem::take(&mut self.pending) {
            self.engine.close(now, sa);
            self.begin_at = Some(now);
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

    pub(super) fn next(&self) -> Option<Instant> {
        let ike = self.engine.next_timeout().map(|(at, _)| at);
        let timers = [ike, self.begin_at, self.table.next()];
        timers.into_iter().flatten().min()
    }

    pub(super) fn wake(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        self.engine.handle_timeout(now, &mut self.owner);
        if self.begin_at.is_some_and(|at| at <= now) {
            self.begin_at = None;
            self.begin(now);
        }
        let [dying, retired] = self.table.due(now);
        for id in dying {
            self.end(id, true, now);
        }
        for id in retired {
            self.table.remove(&mut self.owner.sadb, id);
        }
        self.pump(step);
    }

    fn begin(&mut self, now: Instant) {
        if !self.pending.is_empty() || self.table.lead(SHARED).is_some() {
            return;
        }
        let at = |ip| SocketAddr::new(ip, IKE_PORT);
        let wish = Initiate {
            local: at(self.address),
            remote: at(SHARED),
            remote_id: None,
            auth: methods(),
            request_addresses: Some(AddressRequest {
                v4: Some(None),
                v6: None,
            }),
            local_ts: vec![TrafficSelector::any_v4()],
            remote_ts: vec![targets()],
            initial_contact: true,
            follows_redirects: false,
            redirected_from: None,
        };
        self.begun += u64::from(std::mem::take(&mut self.had));
        let id = self.engine.initiate(now, wish, &mut self.owner);
        self.pending.insert(id);
    }

    pub(super) fn payload(&mut self, step: &mut Step<'_>) {
        self.number += 1;
        let source = client_inner(self.index);
        let packet = inner_packet(source, TARGET, self.index as u32, self.number);
        step.watch.payload(self.index, self.number);
        let now = step.now;
        if let Some(session) = self.table.leading(SHARED) {
            let (id, sa, udp) = (session.id, session.sa, session.spec.encap.is_some());
            if let Some(bytes) = session.seal(Some(&packet), step.watch) {
                self.out.push(Packet::Esp { bytes, udp });
            }
            if now >= self.heard + SILENCE && now >= self.asked + SILENCE {
                self.asked = now;
                self.engine.check_liveness(now, sa);
            }
            self.judge_traffic(id, now);
        }
        self.pump(step);
    }

    pub(super) fn arrive(&mut self, packet: Packet, step: &mut Step<'_>) {
        match packet {
            Packet::Ike(Transmit {
                local,
                remote,
                data,
            }) => {
                let engine = &mut self.engine;
                engine.handle_datagram(step.now, local, remote, &data, &mut self.owner);
            }
            Packet::Esp { bytes, .. } => self.open(bytes, step),
        }
        self.pump(step);
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
        self.heard = step.now;
        if let Some((client, number)) = inner.and_then(|inner| label(&inner)) {
            step.watch
                .holds(client == self.index, "a client hears what is another's");
            step.watch.answer(client, number);
        }
        self.table.heard(id);
        self.judge_traffic(id, step.now);
    }

    fn judge_traffic(&mut self, id: SessionId, now: Instant) {
        if let Some(rekeying) = self.rekeying
            && let Some(session) = self.table.get(id)
            && session.has_carried(rekeying.packets)
        {
            self.engine.rekey_child(now, session.sa, session.spi_in());
        }
    }

    fn pump(&mut self, step: &mut Step<'_>) {
        while let Some(event) = self.engine.poll_event() {
            self.on_ike(event, step);
        }
        while let Some(transmit) = self.engine.poll_transmit() {
            if !transmit.is_keep_alive() {
                self.out.push(Packet::Ike(transmit));
            }
        }
    }

    fn on_ike(&mut self, event: Event, step: &mut Step<'_>) {
        trace!(
            "{:?} client {}: {}",
            step.world,
            self.index,
            format!("{event:?}").chars().take(60).collect::<String>()
        );
        let now = step.now;
        match event {
            Event::Established {
                id,
                local,
                remote,
                nat,
                child,
                exporter,
                ..
            } => {
                let ends = [local.ip(), remote.ip()];
                let encap = encapsulation(nat, local, remote);
                let (sadb, keys) = (&mut self.owner.sadb, (&child, &exporter));
                let session = Session::new(sadb, step.watch, id, ends, Some(SHARED), keys, encap);
                self.pending.remove(&id);
                let others = self.table.others(SHARED, id);
                self.table.insert(session);
                for other in others {
                    self.table.let_die(other, now);
                }
                (self.heard, self.asked) = (now, now);
                self.had = true;
            }
            Event::Failed { id, spi_in, .. } => {
                if let Some(spi) = spi_in {
                    self.owner.sadb.release_spi(spi);
                }
                self.pending.remove(&id);
                self.begin_at = Some(now + RETRY);
            }
            Event::ChildRekeyed {
                id: sa,
                child,
                outbound,
                exporter,
                ..
            } => {
                let (sadb, made) = (&mut self.owner.sadb, (sa, &child, &exporter));
                let renamed = self.table.rekeyed(sadb, step.watch, made, outbound);
                step.watch.rekeyings += u64::from(renamed.is_some());
            }
            Event::ChildClosed { id: sa, spi_in, .. } => {
                let of = (sa, self.engine.is_established(sa));
                if let Some(id) = self.table.child_closed(of, spi_in, now) {
                    self.end(id, true, now);
                }
            }
            Event::Alive { .. } => self.heard = now,
            Event::Rekeyed { .. } => step.watch.rekeyings += 1,
            Event::ChildFailed { spi_in, .. } => self.owner.sadb.release_spi(spi_in),
            Event::Relocated {
                id,
                local,
                remote,
                nat,
            } => {
                let path = path(nat, local, remote);
                self.table.relocate(&mut self.owner.sadb, id, &path);
            }
            Event::Closed { id: sa, reason, .. } => {
                trace!("{:?} client {}: closed {reason}", step.world, self.index);
                if let Some(id) = self.table.of_sa(sa).map(|session| session.id) {
                    self.end(id, false, now);
                }
            }
            _ => {}
        }
    }

    /// A session has ended: if it was the one in use, another one is begun.
    fn end(&mut self, id: SessionId, close: bool, now: Instant) {
        let Some(sa) = self.table.get(id).map(|session| session.sa) else {
            return;
        };
        if close {
            self.engine.close(now, sa);
        }
        for pair in self.table.all_of(sa) {
            self.table.remove(&mut self.owner.sadb, pair);
        }
        if self.table.lead(SHARED).is_none() && self.pending.is_empty() {
            self.begin_at = Some(now);
        }
    }
}
