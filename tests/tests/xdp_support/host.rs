//! The programs beside the same decisions run on the host: both must agree on every frame.

use std::{collections::HashMap, net::IpAddr, os::fd::OwnedFd};

use evergate::dataplane::loader::{Counters, Inside, Outside, OutsideSettings};
use evergate_common::{
    guard::{Guard, Judged, judge},
    maps::{Address, AddressEntry, Local, NodeState, SaEntry, TunnelEntry, address},
    reason::{Counter, Kind},
    verdict::{self, Action, InsideWorld, OutsideWorld},
};
use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketType, socket};

use super::{CLIENT_V4, CLIENT_V6, DROP, KEY, PASS, REDIRECT, SPI, TX, need_root};

/// An AF_XDP socket bound to nothing: enough for a map, and for a run without an interface.
pub fn xsk() -> OwnedFd {
    socket(AddressFamily::XDP, SocketType::RAW, None).expect("an AF_XDP socket")
}

/// What `outside` knows, in plain maps.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub sas: HashMap<[u8; 4], SaEntry>,
    pub addresses: HashMap<Address, AddressEntry>,
    pub node: NodeState,
    pub local: Local,
    pub guard: Guard,
    pub now: u64,
    pub plain: bool,
    pub keyed: bool,
    pub strangers: bool,
}

impl OutsideWorld for Model {
    fn sa(&self, spi: &[u8; 4]) -> Option<&SaEntry> {
        self.sas.get(spi)
    }
    fn address(&self, address: &Address) -> AddressEntry {
        self.addresses.get(address).copied().unwrap_or_default()
    }
    fn node(&self) -> Option<NodeState> {
        Some(self.node)
    }
    fn local(&self) -> Option<&Local> {
        Some(&self.local)
    }
    fn passed(&self, time: u64) -> bool {
        self.now > time
    }
    fn reflect_plain(&self) -> bool {
        self.plain
    }
    fn reflect_keyed(&self) -> bool {
        self.keyed
    }
    fn strangers(&self) -> bool {
        self.strangers
    }
}

/// What a decision comes to: verdict, counter, packet afterwards.
pub type Outcome = (u32, Counter, Vec<u8>);

fn outcome(decision: Result<Action, Counter>, guard: &Guard, frame: &[u8]) -> Outcome {
    let mut packet = frame.to_vec();
    let (verdict, counter) = match decision {
        Ok(Action::Pass) => (PASS, Counter::Passed),
        Ok(Action::Steer(counter)) => (REDIRECT, counter),
        Ok(Action::Absorb(counter)) => (DROP, counter),
        Ok(Action::Reflect(reflection)) => {
            reflection
                .apply(packet.as_mut_slice())
                .expect("a decided frame can be turned");
            (TX, reflection.counter())
        }
        Ok(Action::Guard) if !guard.is_up() => (PASS, Counter::Passed),
        Ok(Action::Guard) => match judge(frame, guard) {
            Judged::Pass(counter) => (PASS, counter),
            Judged::Refuse => (DROP, Counter::IkeGuarded),
            Judged::Ask(question) => {
                let length = question
                    .apply(packet.as_mut_slice())
                    .expect("a judged frame can be turned");
                packet.truncate(length);
                (TX, Counter::IkeAsked)
            }
        },
        Err(counter) if counter.kind() == Kind::Drop => (DROP, counter),
        Err(counter) => (PASS, counter),
    };
    (verdict, counter, packet)
}

/// The one counter that went up by one.
fn counted(before: &Counters, after: &Counters) -> Counter {
    let changed: Vec<Counter> = Counter::ALL
        .iter()
        .copied()
        .filter(|counter| after[counter.index()] != before[counter.index()])
        .collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(after[changed[0].index()], before[changed[0].index()] + 1);
    changed[0]
}

/// The program `outside` and its model, changed together.
pub struct OutsidePair {
    pub program: Outside,
    pub model: Model,
    _socket: OwnedFd,
}

impl OutsidePair {
    /// One SA of the client's, the client a peer, alive, a socket on queue 0.
    pub fn new(plain: bool, keyed: bool, strangers: bool) -> OutsidePair {
        need_root();
        let settings = OutsideSettings {
            reflect_plain: plain,
            reflect_keyed: keyed,
            strangers,
            max_sas: 1024,
        };
        let mut program = Outside::load(settings).expect("outside loads");
        let socket = xsk();
        program
            .set_xsk(0, &socket)
            .expect("the socket goes into the map");
        let model = Model {
            plain,
            keyed,
            strangers,
            ..Model::default()
        };
        let mut pair = OutsidePair {
            program,
            model,
            _socket: socket,
        };
        pair.add_sa(SPI, SaEntry::new(Some(KEY), None));
        pair.add_peer(CLIENT_V4.into());
        pair.add_peer(CLIENT_V6.into());
        pair.alive(true);
        pair
    }

    pub fn add_sa(&mut self, spi: u32, entry: SaEntry) {
        self.program
            .add_sa(spi, &entry)
            .expect("an SA goes into the map");
        self.model.sas.insert(spi.to_be_bytes(), entry);
    }

    pub fn add_peer(&mut self, ip: IpAddr) {
        self.program.add_peer(ip).expect("a peer goes into the map");
        let slot = self.model.addresses.entry(address(ip)).or_default();
        *slot = AddressEntry::new(true, slot.never_reflect());
    }

    pub fn never_reflect(&mut self, ip: IpAddr) {
        self.program
            .never_reflect(ip)
            .expect("an address goes into the map");
        let slot = self.model.addresses.entry(address(ip)).or_default();
        *slot = AddressEntry::new(slot.peer(), true);
    }

    pub fn guard(&mut self, guard: Guard) {
        self.program
            .set_guard(guard)
            .expect("the guard goes into the map");
        self.model.guard = guard;
    }

    pub fn own_addresses(&mut self, own: &[IpAddr]) {
        self.program
            .set_own_addresses(own)
            .expect("own addresses go into the map");
        self.model.local = Local::new(None, own);
    }

    /// The dead-man switch far in the future, or just passed.
    pub fn alive(&mut self, alive: bool) {
        let until = if alive { u64::MAX } else { 1 };
        self.program
            .node_state()
            .set_alive_until(until)
            .expect("the state is written");
        self.model.node = NodeState::new(until, self.model.node.health(), self.model.node.silent());
        self.model.now = 1_000;
    }

    pub fn health(&mut self, health: u8, silent: bool) {
        let state = self.program.node_state();
        state.set_health(health).expect("the state is written");
        state.set_silent(silent).expect("the state is written");
        self.model.node = NodeState::new(self.model.node.alive_until(), health, silent);
    }

    /// Runs both on a frame; they must agree.
    pub fn run(&mut self, frame: &[u8]) -> Outcome {
        let decision = verdict::outside(frame, &self.model);
        let plain = verdict::plain_v4(frame, &self.model);
        let keyed = verdict::keyed_v4(frame, &self.model);
        assert!(keyed.is_none() || verdict::looks_keyed_v4(frame));
        if let Some(short) = plain.or(keyed) {
            assert_eq!(decision, Ok(Action::Reflect(short)), "{frame:02x?}");
        }
        let expected = outcome(decision, &self.model.guard, frame);
        let before = self.program.counters().expect("counters");
        let run = self.program.run(frame, 1).expect("outside runs");
        let after = self.program.counters().expect("counters");
        let found = (run.verdict, counted(&before, &after), run.packet);
        assert_eq!(
            found, expected,
            "kernel and host disagree about {frame:02x?}"
        );
        found
    }

    /// Verdict and counter of a frame.
    pub fn judge(&mut self, frame: &[u8]) -> (u32, Counter) {
        let (verdict, counter, _) = self.run(frame);
        (verdict, counter)
    }
}

/// The program `inside` and its model.
pub struct InsidePair {
    pub program: Inside,
    prefixes: Vec<IpNet>,
    local: Local,
    _socket: OwnedFd,
}

impl InsideWorld for InsidePair {
    fn tunnel_v4(&self, destination: &[u8; 4]) -> bool {
        self.prefixes
            .iter()
            .any(|net| net.contains(&IpAddr::from(*destination)))
    }
    fn tunnel_v6(&self, destination: &[u8; 16]) -> bool {
        self.prefixes
            .iter()
            .any(|net| net.contains(&IpAddr::from(*destination)))
    }
    fn local(&self) -> Option<&Local> {
        Some(&self.local)
    }
}

impl InsidePair {
    pub fn new(prefixes: &[&str]) -> InsidePair {
        need_root();
        let mut program = Inside::load().expect("inside loads");
        let socket = xsk();
        program
            .set_xsk(0, &socket)
            .expect("the socket goes into the map");
        let prefixes: Vec<IpNet> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        for (id, prefix) in (1u32..).zip(&prefixes) {
            program
                .add_prefix(*prefix, TunnelEntry::new(id))
                .expect("a prefix goes in");
        }
        InsidePair {
            program,
            prefixes,
            local: Local::default(),
            _socket: socket,
        }
    }

    pub fn own_addresses(&mut self, own: &[IpAddr]) {
        self.program
            .set_own_addresses(own)
            .expect("own addresses go into the map");
        self.local = Local::new(None, own);
    }

    pub fn remove_prefix(&mut self, prefix: &str) {
        let prefix = prefix.parse().unwrap();
        self.program.remove_prefix(prefix).expect("a prefix goes");
        self.prefixes.retain(|other| *other != prefix);
    }

    /// Runs both on a frame; they must agree, and leave it as it is.
    pub fn judge(&mut self, frame: &[u8]) -> (u32, Counter) {
        let expected = outcome(verdict::inside(frame, self), &Guard::down(), frame);
        let before = self.program.counters().expect("counters");
        let run = self.program.run(frame, 1).expect("inside runs");
        let after = self.program.counters().expect("counters");
        let found = (run.verdict, counted(&before, &after), run.packet);
        assert_eq!(
            found, expected,
            "kernel and host disagree about {frame:02x?}"
        );
        assert_eq!(found.2, frame);
        (found.0, found.1)
    }
}
