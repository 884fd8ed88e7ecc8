//! Two engines back to back under a virtual clock.

mod batch;
mod certificates;
mod codec;
mod collision;
mod crash;
mod eap;
mod errors;
mod exchange;
mod export;
mod flood;
mod followup;
mod fragments;
mod hostile;
mod intermediate;
mod lanes;
mod life;
mod mobike;
mod mobike_rules;
mod mutated;
mod nat;
mod negotiation;
mod network;
mod other_group;
mod proofs;
mod reauth;
mod redirect;
mod refused;
mod rekey;
mod rekey_network;
mod restore;
mod restore_ahead;
mod restore_chance;
mod resume;
mod resume_hostile;
mod secrets;
mod selectors;
mod session;
mod simultaneous;
mod vectors;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use proptest::prelude::ProptestConfig;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

/// The owner of a test engine: answers what it was told to answer.
pub(super) struct Owner {
    pub(super) keys: HashMap<Identity, &'static str>,
    /// Come before `keys`.
    pub(super) auth: HashMap<Identity, Methods>,
    pub(super) unix_time: u64,
    /// Names and passwords.
    pub(super) users: HashMap<&'static str, &'static str>,
    pub(super) next_spi: u32,
    /// What SPIs were asked for.
    pub(super) besides: Vec<Option<Beside>>,
    pub(super) addresses: Result<Vec<IpAddr>, AssignRefused>,
    /// (peer, requested, wants v4, wants v6) of the last question.
    pub(super) asked: Option<(Identity, Vec<IpAddr>, bool, bool)>,
    pub(super) local_ts: Vec<TrafficSelector>,
    /// Whom it takes before and after it knows who it is.
    pub(super) admission: [Admission; 2],
    pub(super) may_move: bool,
    /// What is assigned is its own, and not the peer's.
    pub(super) is_client: bool,
    /// Who had sent the last one that it was asked of.
    pub(super) sent_from: Option<IpAddr>,
}

impl Hooks for Owner {
    fn may_move(&mut self, _: &Identity, _: IpAddr) -> bool {
        self.may_move
    }

    fn admit(&mut self, arrival: Arrival<'_>) -> Admission {
        self.sent_from = arrival.redirected_from;
        let [stranger, known] = &self.admission;
        if arrival.peer.is_some() {
            known
        } else {
            stranger
        }
        .clone()
    }

    fn auth(&mut self, _: &Identity, remote: &Identity) -> Option<Methods> {
        match self.auth.get(remote) {
            Some(methods) => Some(methods.clone()),
            None => self.keys.get(remote).map(|key| psk(key).into()),
        }
    }

    fn eap_user(&mut self, name: &str) -> Option<EapUser> {
        let password = self.users.get(name)?;
        Some(EapUser::new(Identity::Fqdn(name.to_owned()), password))
    }

    fn eap_certificate(&mut self, subject: &x509::Subject) -> Option<Identity> {
        let anna = "anna@example.org";
        subject.is_user(anna).then(|| id(anna))
    }

    fn unix_time(&mut self) -> u64 {
        self.unix_time
    }

    fn allocate_spi(&mut self, beside: Option<Beside>) -> u32 {
        self.besides.push(beside);
        self.next_spi = self.next_spi.wrapping_add(1);
        self.next_spi.wrapping_sub(1)
    }

    fn assign(
        &mut self,
        peer: &Identity,
        requested: &[IpAddr],
        wants_v4: bool,
        wants_v6: bool,
    ) -> Result<Vec<IpAddr>, AssignRefused> {
        self.asked = Some((peer.clone(), requested.to_vec(), wants_v4, wants_v6));
        let mut addresses = self.addresses.clone()?;
        addresses.retain(|a| if a.is_ipv4() { wants_v4 } else { wants_v6 });
        Ok(addresses)
    }

    fn selectors(
        &mut self,
        _: &Identity,
        assigned: &[IpAddr],
        proposed_local: &[TrafficSelector],
        proposed_remote: &[TrafficSelector],
    ) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>), TsRefused> {
        if self.is_client {
            return Ok((proposed_local.to_vec(), proposed_remote.to_vec()));
        }
        let local = narrow(proposed_local, &self.local_ts);
        let hosts: Vec<TrafficSelector> = assigned
            .iter()
            .copied()
            .map(TrafficSelector::host)
            .collect();
        let remote = match hosts.is_empty() {
            true => proposed_remote.to_vec(),
            false => narrow(proposed_remote, &hosts),
        };
        if local.is_empty() || remote.is_empty() {
            Err(TsRefused)
        } else {
            Ok((local, remote))
        }
    }
}

/// So many cases for a property test; a failure is in its output, not in a file.
pub(super) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..Default::default()
    }
}

pub(super) fn psk(key: &str) -> Psk {
    Psk::new(key.to_owned())
}

pub(super) fn id(name: &str) -> Identity {
    name.parse().unwrap()
}

pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) owner: Owner,
    pub(super) address: SocketAddr,
    pub(super) events: Vec<Event>,
}

impl Node {
    fn new(settings: Settings, address: &str, seed: u64) -> Node {
        let owner = Owner {
            keys: [("client.example", "secret"), ("gw.example", "secret")]
                .map(|(name, key)| (id(name), key))
                .into(),
            auth: HashMap::new(),
            unix_time: x509::tests::NOW,
            users: [("anna", "clientPass")].into(),
            next_spi: 0x1000 * (seed as u32 + 1),
            besides: Vec::new(),
            addresses: Ok(vec![[10, 99, 0, 7].into(), "fd00::7".parse().unwrap()]),
            asked: None,
            admission: [Admission::Take, Admission::Take],
            may_move: true,
            is_client: false,
            sent_from: None,
            local_ts: vec![
                TrafficSelector::range([10, 0, 0, 0], [10, 0, 255, 255]),
                TrafficSelector::any_v6(),
            ],
        };
        let engine = Engine::new(settings, StdRng::seed_from_u64(seed));
        Node {
            engine,
            owner,
            address: address.parse().unwrap(),
            events: Vec::new(),
        }
    }

    /// Takes the events, as an owner must, and then the datagrams.
    pub(super) fn take(&mut self) -> Vec<Transmit> {
        self.events
            .extend(std::iter::from_fn(|| self.engine.poll_event()));
        std::iter::from_fn(|| self.engine.poll_transmit()).collect()
    }

    pub(super) fn receive(&mut self, now: Instant, t: &Transmit) -> Vec<Transmit> {
        self.engine
            .handle_datagram(now, t.remote, t.local, &t.data, &mut self.owner);
        self.take()
    }

    /// The only child SA established, if any.
    pub(super) fn established(&self) -> Option<(SaId, &Child)> {
        let mut found = self.events.iter().filter_map(|e| match e {
            Event::Established { id, child, .. } => Some((*id, child)),
            _ => None,
        });
        let first = found.next();
        assert!(found.next().is_none(), "established twice");
        first
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        self.events.iter().find_map(|e| match e {
            Event::Failed { error, .. } | Event::Refused { error, .. } => Some(error),
            _ => None,
        })
    }

    /// Does what is due, and takes what that sends.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Transmit> {
        self.engine.handle_timeout(now, &mut self.owner);
        self.take()
    }

    pub(super) fn closed(&self) -> Option<&CloseReason> {
        self.events.iter().find_map(|e| match e {
            Event::Closed { reason, .. } => Some(reason),
            _ => None,
        })
    }
}

/// A client (`a`) and a gateway (`b`).
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) a: Node,
    pub(super) b: Node,
}

impl Pair {
    pub(super) fn new() -> Pair {
        Pair::with(|_, _| {})
    }

    /// With other settings for client and gateway.
    pub(super) fn with(change: impl FnOnce(&mut Settings, &mut Settings)) -> Pair {
        let mut a = Settings::new(id("client.example"));
        let mut b = Settings::new(id("gw.example"));
        a.vendor_ids = vec![b"test client".to_vec()];
        b.vendor_ids = vec![b"test gateway".to_vec(), b"another".to_vec()];
        for settings in [&mut a, &mut b] {
            // Tests that are about lifetimes say so; the others come to rest.
            (settings.child_lifetime, settings.ike_lifetime) = (None, None);
        }
        change(&mut a, &mut b);
        Pair {
            now: Instant::now(),
            a: Node::new(a, "198.51.100.7:500", 1),
            b: Node::new(b, "192.0.2.1:500", 2),
        }
    }

    pub(super) fn wish(&self) -> Initiate {
        Initiate {
            local: self.a.address,
            remote: self.b.address,
            remote_id: Some(id("gw.example")),
            auth: psk("secret").into(),
            request_addresses: Some(AddressRequest {
                v4: Some(None),
                v6: None,
            }),
            local_ts: Vec::new(),
            remote_ts: vec![TrafficSelector::range([10, 0, 0, 1], [10, 0, 0, 3])],
            initial_contact: false,
            follows_redirects: false,
            redirected_from: None,
        }
    }

    pub(super) fn initiate(&mut self, wish: Initiate) -> SaId {
        self.a.engine.initiate(self.now, wish, &mut self.a.owner)
    }

    /// Delivers everything that is sent until nothing is sent any more; yields how many datagrams
    /// that were.
    pub(super) fn run(&mut self) -> usize {
        let mut wire: VecDeque<Transmit> = self.a.take().into();
        wire.extend(self.b.take());
        let mut count = 0;
        while let Some(t) = wire.pop_front() {
            count += 1;
            assert!(count < 100, "an endless conversation");
            wire.extend(self.deliver(&t));
        }
        count
    }

    /// Hands a datagram to whom it is for; yields what that sends.
    pub(super) fn deliver(&mut self, t: &Transmit) -> Vec<Transmit> {
        let node = if t.remote.ip() == self.a.address.ip() {
            &mut self.a
        } else {
            &mut self.b
        };
        node.receive(self.now, t)
    }

    /// Lets time pass up to the next deadline of either; false if there is none.
    pub(super) fn wait(&mut self) -> bool {
        let due = [&self.a, &self.b]
            .into_iter()
            .filter_map(|n| n.engine.next_timeout());
        let Some(at) = due.map(|(at, _)| at).min() else {
            return false;
        };
        self.now = self.now.max(at);
        for node in [&mut self.a, &mut self.b] {
            node.engine.handle_timeout(self.now, &mut node.owner);
        }
        true
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((at, _)) = [&self.a, &self.b]
            .into_iter()
            .filter_map(|n| n.engine.next_timeout())
            .min_by_key(|(at, _)| *at)
            && at <= until
        {
            self.wait();
            self.run();
        }
        self.now = until;
    }

    /// An established session; (client's id, gateway's id).
    pub(super) fn up(&mut self) -> (SaId, SaId) {
        let wish = self.wish();
        self.up_by(wish)
    }

    /// The same by another wish.
    pub(super) fn up_by(&mut self, wish: Initiate) -> (SaId, SaId) {
        self.initiate(wish);
        assert_eq!(self.run(), 4);
        let ids = (
            self.a.established().unwrap().0,
            self.b.established().unwrap().0,
        );
        assert_mirrored(
            self.a.established().unwrap().1,
            self.b.established().unwrap().1,
        );
        self.a.events.clear();
        self.b.events.clear();
        ids
    }
}

/// What one sends the other must be able to receive.
pub(super) fn assert_mirrored(a: &Child, b: &Child) {
    for (a, b) in [(a, b), (b, a)] {
        assert_eq!((a.spi_out, a.cipher, a.esn), (b.spi_in, b.cipher, b.esn));
        assert_eq!((&a.key_out, a.salt_out), (&b.key_in, b.salt_in));
        assert_eq!(a.local_ts, b.remote_ts);
        assert_ne!(a.key_out, a.key_in);
    }
}
