//! The programs beside the same decisions run on the host: both must agree on every frame.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    os::fd::OwnedFd,
};

use evergate::dataplane::loader::{Counters, Inside, Outside, OutsideSettings, SlotsWriter};
use evergate_common::{
    filter::{self, ClassEntry, DIRECT_BITS, DirectKey, FilterWorld, Filtered, Hit, direct_net},
    front::{self, FRONT_SPI, Front},
    guard::{Guard, Judged, judge},
    maps::{Address, AddressEntry, Local, NodeState, SaEntry, TunnelEntry, address},
    reason::{Counter, Kind},
    steering::{self, Gateway, Group, station},
    translation::{self, Translates, Translation},
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
    pub shared: bool,
    pub number: u8,
    pub gateways: HashMap<u8, Gateway>,
    pub owners: HashMap<[u8; 4], u8>,
    pub stations: HashSet<u64>,
    pub group_address: Option<IpAddr>,
    /// Whether IKE is translated, and what is known for that.
    pub translates: bool,
    pub translation: Translation,
    pub toward: HashMap<u32, IpAddr>,
    /// A front's own number, whether there are fronts before the node, and where slots lead.
    pub front: u8,
    pub behind: bool,
    pub slots: HashMap<u32, u8>,
    /// Whether there is a packet filter, and what it knows.
    pub filter: bool,
    pub users: HashMap<Address, u32>,
    pub classes: HashMap<u32, ClassEntry>,
    pub direct: HashSet<(u32, DirectKey)>,
    pub hits: HashMap<(u32, u32), u64>,
}

impl Translates for Model {
    fn translation(&self) -> Option<&Translation> {
        Some(&self.translation)
    }
    fn toward(&self, slot: u32) -> Option<Address> {
        self.toward.get(&slot).map(|to| address(*to))
    }
    fn local(&self) -> Option<&Local> {
        Some(&self.local)
    }
}

impl FilterWorld for Model {
    fn user(&self, address: &Address) -> Option<u32> {
        self.users.get(address).copied()
    }
    fn class(&self, number: u32) -> Option<&ClassEntry> {
        self.classes.get(&number)
    }
    fn direct(&self, key: &DirectKey) -> bool {
        let bits = |key: &DirectKey| {
            let (head, tail) = key.split_at(4);
            let head = u32::from_be_bytes(head.try_into().unwrap());
            (head, u128::from_be_bytes(tail.try_into().unwrap()))
        };
        let (class, address) = bits(key);
        self.direct.iter().any(|(length, net)| {
            let (of, network) = bits(net);
            let behind = 128 - (length - DIRECT_BITS);
            of == class && (address ^ network).checked_shr(behind).unwrap_or(0) == 0
        })
    }
    fn local(&self) -> Option<&Local> {
        Some(&self.local)
    }
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
    fn shared(&self) -> bool {
        self.shared
    }
    fn steers(&self) -> bool {
        self.number != 0 || self.behind || self.front != 0
    }
    fn station(&self, mac: &[u8; 6]) -> bool {
        self.stations.contains(&station(mac))
    }
}

impl Group for Model {
    fn number(&self) -> u8 {
        self.number
    }
    fn owner(&self, spi: &[u8; 4]) -> Option<u8> {
        self.owners.get(spi).copied()
    }
    fn gateway(&self, number: u8) -> Option<&Gateway> {
        self.gateways.get(&number)
    }
    fn own_address(&self) -> Option<Address> {
        self.group_address.map(address)
    }
}

impl Front for Model {
    fn own_share(&self) -> u8 {
        self.front
    }
    fn leads_to(&self, slot: u32) -> Option<u8> {
        Some(self.slots.get(&slot).copied().unwrap_or(front::NO_NODE))
    }
}

impl Model {
    /// What the program does with a frame, step by step as it does: the counters are two where a packet
    /// was taken out of another.
    pub fn outcome(&mut self, frame: &[u8]) -> (u32, Vec<Counter>, Vec<u8>) {
        let mut packet = frame.to_vec();
        let mut counters = Vec::new();
        if self.number != 0 || self.behind {
            match steering::wrapped(frame, self) {
                None => {}
                Some(wrapping) if !wrapping.ours() => {
                    return (DROP, vec![Counter::SteerAstray], packet);
                }
                Some(wrapping) => {
                    wrapping
                        .apply(packet.as_mut_slice())
                        .expect("a frame that was looked at can be unwrapped");
                    packet.drain(..wrapping.excess());
                    counters.push(Counter::SteerUnwrapped);
                }
            }
        }
        if self.filter {
            match filter::judge(packet.as_slice(), self) {
                Filtered::Aside => {}
                Filtered::Direct(class) => self.hit(class, Hit::Direct),
                Filtered::Refused(class, counter) => {
                    self.hit(class, Hit::Refused);
                    counters.push(counter);
                    return (DROP, counters, packet);
                }
                Filtered::NoService(class) if filter::is_service(packet.as_slice()) => {
                    self.hit(class, Hit::Service);
                    counters.push(Counter::FilterService);
                    return (DROP, counters, packet);
                }
                Filtered::NoService(_) => {}
            }
        }
        if self.front != 0 {
            let steered = front::judge(packet.as_slice(), self);
            if steered.goes() {
                packet.splice(..0, std::iter::repeat_n(0, steered.room()));
                steered
                    .apply(packet.as_mut_slice())
                    .expect("a decided frame can be readied");
                counters.push(steered.counter);
                let verdict = if steered.interface() == 0 {
                    TX
                } else {
                    REDIRECT
                };
                return (verdict, counters, packet);
            }
            if steered.counter != Counter::Passed {
                counters.push(steered.counter);
                return (DROP, counters, packet);
            }
        }
        let decision = verdict::outside(packet.as_slice(), self);
        let plain = verdict::plain_v4(packet.as_slice(), self);
        let keyed = verdict::keyed_v4(packet.as_slice(), self);
        assert!(keyed.is_none() || verdict::looks_keyed_v4(packet.as_slice()));
        if let Some(short) = plain.or(keyed) {
            assert_eq!(decision, Ok(Action::Reflect(short)), "{frame:02x?}");
        }
        let guarded =
            self.guard.is_up() && !matches!(judge(packet.as_slice(), &self.guard), Judged::Pass(_));
        if self.translates && decision == Ok(Action::Guard) && !guarded {
            let verdict = match translation::toward(packet.as_slice(), self) {
                Ok(message) => {
                    let applied = message.apply(packet.as_mut_slice());
                    applied.expect("a decided frame can be readdressed");
                    counters.push(message.counter);
                    PASS
                }
                Err(counter) => {
                    counters.push(counter);
                    if counter.kind() == Kind::Drop {
                        DROP
                    } else {
                        PASS
                    }
                }
            };
            return (verdict, counters, packet);
        }
        if self.number != 0 && steering::asks(&decision) {
            let steered = steering::judge(packet.as_slice(), self);
            if steered.goes() {
                packet.splice(..0, std::iter::repeat_n(0, steered.room()));
                steered
                    .apply(packet.as_mut_slice())
                    .expect("a decided frame can be readied");
                counters.push(steered.counter);
                let verdict = if steered.interface() == 0 {
                    TX
                } else {
                    REDIRECT
                };
                return (verdict, counters, packet);
            }
            if !matches!(steered.counter, Counter::Passed | Counter::EspUnknown) {
                counters.push(steered.counter);
                return (DROP, counters, packet);
            }
        }
        let (verdict, counter, packet) = outcome(decision, &self.guard, &packet);
        counters.push(counter);
        (verdict, counters, packet)
    }
}

impl Model {
    fn hit(&mut self, class: u32, hit: Hit) {
        *self.hits.entry((class, hit as u32)).or_default() += 1;
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

/// The counters that went up, each by one.
fn counted(before: &Counters, after: &Counters) -> Vec<Counter> {
    let changed: Vec<Counter> = Counter::ALL
        .iter()
        .copied()
        .filter(|counter| after[counter.index()] != before[counter.index()])
        .collect();
    for counter in &changed {
        let index = counter.index();
        assert_eq!(after[index], before[index] + 1, "{counter:?}");
    }
    changed
}

fn sorted(mut counters: Vec<Counter>) -> Vec<Counter> {
    counters.sort();
    counters
}

/// The one counter that says what became of a frame.
fn only(counters: Vec<Counter>) -> Counter {
    let mut fates = counters
        .into_iter()
        .filter(|c| *c != Counter::SteerUnwrapped);
    match (fates.next(), fates.next()) {
        (Some(fate), None) => fate,
        other => panic!("one counter for each frame, not {other:?}"),
    }
}

/// The program `outside` and its model, changed together.
pub struct OutsidePair {
    pub program: Outside,
    pub model: Model,
    slots: SlotsWriter,
    _socket: OwnedFd,
}

impl OutsidePair {
    /// One SA of the client's, the client a peer, alive, a socket on queue 0.
    pub fn new(plain: bool, keyed: bool, strangers: bool) -> OutsidePair {
        Self::in_group(plain, keyed, strangers, 0)
    }

    /// The same as the gateway of this number in a group.
    pub fn in_group(plain: bool, keyed: bool, strangers: bool, number: u8) -> OutsidePair {
        Self::with(OutsideSettings {
            reflect_plain: plain,
            reflect_keyed: keyed,
            strangers,
            number,
            max_sas: 1024,
            ..OutsideSettings::default()
        })
    }

    /// The same with settings of one's own.
    pub fn with(settings: OutsideSettings) -> OutsidePair {
        need_root();
        let mut program = Outside::load(settings).expect("outside loads");
        let socket = xsk();
        program
            .set_xsk(0, &socket)
            .expect("the socket goes into the map");
        let model = Model {
            plain: settings.reflect_plain,
            keyed: settings.reflect_keyed,
            strangers: settings.strangers,
            shared: settings.shared,
            number: settings.number,
            translates: settings.translates,
            front: settings.front,
            behind: settings.behind,
            filter: settings.filter,
            ..Model::default()
        };
        let mut pair = OutsidePair {
            slots: program.take_slots().expect("once"),
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

    /// Another gateway of the group.
    pub fn gateway(&mut self, number: u8, way: Gateway) {
        self.program
            .set_gateway(number, way)
            .expect("a gateway goes into the map");
        self.model.gateways.insert(number, way);
    }

    /// Every slot leads to this node.
    pub fn lead_all(&mut self, number: u8) {
        (0..front::SLOTS).for_each(|slot| self.lead(slot, number));
    }

    pub fn lead(&mut self, slot: u32, number: u8) {
        self.slots
            .lead(slot, number)
            .expect("a slot goes into the map");
        self.model.slots.insert(slot, number);
    }

    /// A front before this node, and the node's own address; the front has the key [`KEY`].
    pub fn front_address(&mut self, own: IpAddr, front: IpAddr) {
        self.program
            .set_group_address(own)
            .expect("the own address goes into the map");
        self.model.group_address = Some(own);
        self.program
            .add_front_address(front)
            .expect("an address goes into the map");
        let slot = self.model.addresses.entry(address(front)).or_default();
        *slot = slot.of_gateway(true);
        self.program
            .answer_fronts(&KEY)
            .expect("the key goes into the map");
        let entry = SaEntry::new(Some(KEY), None);
        self.model.sas.insert(FRONT_SPI, entry);
    }

    pub fn owner(&mut self, spi: u32, owner: Option<u8>) {
        self.program
            .set_owner(spi, owner)
            .expect("an owner goes into the map");
        match owner {
            Some(number) => self.model.owners.insert(spi.to_be_bytes(), number),
            None => self.model.owners.remove(&spi.to_be_bytes()),
        };
    }

    pub fn station(&mut self, mac: [u8; 6]) {
        self.program
            .add_station(mac)
            .expect("a link address goes into the map");
        self.model.stations.insert(station(&mac));
    }

    /// The node's own address, and that of another gateway.
    pub fn group_addresses(&mut self, own: IpAddr, other: IpAddr) {
        self.program
            .set_group_address(own)
            .expect("the own address goes into the map");
        self.model.group_address = Some(own);
        self.program
            .add_gateway_address(other)
            .expect("an address goes into the map");
        let slot = self.model.addresses.entry(address(other)).or_default();
        *slot = AddressEntry::new(slot.peer(), true).of_gateway(true);
    }

    /// The addresses that are translated.
    pub fn translation(&mut self, translation: Translation) {
        self.program
            .set_translation(translation)
            .expect("addresses go into the map");
        self.model.translation = translation;
    }

    /// Where messages of a slot go.
    pub fn toward(&mut self, slot: u32, to: Option<IpAddr>) {
        self.program
            .set_toward(slot, to)
            .expect("a destination goes into the map");
        match to {
            Some(to) => self.model.toward.insert(slot, to),
            None => self.model.toward.remove(&slot),
        };
    }

    /// What a class may have, and what it has directly.
    pub fn class(&mut self, number: u32, class: ClassEntry, direct: &[&str]) {
        self.program
            .set_class(number, class)
            .expect("a class goes into the map");
        self.model.classes.insert(number, class);
        for net in direct {
            let net: IpNet = net.parse().expect("a network");
            self.program
                .add_direct(number, net)
                .expect("a network goes into the map");
            let placed = direct_net(number, net.network(), net.prefix_len());
            self.model.direct.insert(placed);
        }
    }

    pub fn no_direct(&mut self, number: u32, net: &str) {
        let net: IpNet = net.parse().expect("a network");
        self.program
            .remove_direct(number, net)
            .expect("a network goes");
        let placed = direct_net(number, net.network(), net.prefix_len());
        assert!(self.model.direct.remove(&placed));
    }

    pub fn user(&mut self, user: IpAddr, class: Option<u32>) {
        self.program
            .set_user(user, class)
            .expect("a user goes into the map");
        match class {
            Some(number) => self.model.users.insert(address(user), number),
            None => self.model.users.remove(&address(user)),
        };
    }

    /// The hits of a class, in the kernel as in the model.
    pub fn hits(&self, class: u32) -> [u64; 3] {
        [Hit::Direct, Hit::Refused, Hit::Service].map(|hit| {
            let found = self.program.class_hits(class, hit).expect("counters");
            let expected = self.model.hits.get(&(class, hit as u32));
            assert_eq!(found, expected.copied().unwrap_or(0), "{hit:?}");
            found
        })
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
        let expected = self.model.outcome(frame);
        let before = self.program.counters().expect("counters");
        let run = self.program.run(frame, 1).expect("outside runs");
        let after = self.program.counters().expect("counters");
        let found = (run.verdict, counted(&before, &after), run.packet);
        assert_eq!(
            (found.0, sorted(found.1.clone()), &found.2),
            (expected.0, sorted(expected.1), &expected.2),
            "kernel and host disagree about {frame:02x?}"
        );
        (found.0, only(found.1), found.2)
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
    translation: Option<Translation>,
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

impl Translates for InsidePair {
    fn translation(&self) -> Option<&Translation> {
        self.translation.as_ref()
    }
    fn toward(&self, _slot: u32) -> Option<Address> {
        None
    }
    fn local(&self) -> Option<&Local> {
        Some(&self.local)
    }
}

impl InsidePair {
    pub fn new(prefixes: &[&str]) -> InsidePair {
        need_root();
        Self::with(Inside::load().expect("inside loads"), prefixes, None)
    }

    /// The same where answers of an authority come.
    pub fn translating(prefixes: &[&str], translation: Translation) -> InsidePair {
        need_root();
        let mut program = Inside::load_translating().expect("inside loads");
        program
            .set_translation(translation)
            .expect("addresses go into the map");
        Self::with(program, prefixes, Some(translation))
    }

    fn with(
        mut program: Inside,
        prefixes: &[&str],
        translation: Option<Translation>,
    ) -> InsidePair {
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
            translation,
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

    /// Runs both on a frame; they must agree.
    pub fn run(&mut self, frame: &[u8]) -> Outcome {
        let expected = match translation::back(frame, self) {
            Some(answer) => {
                let mut packet = frame.to_vec();
                let applied = answer.apply(packet.as_mut_slice());
                applied.expect("a decided frame can be readdressed");
                (PASS, answer.counter, packet)
            }
            None => outcome(verdict::inside(frame, self), &Guard::down(), frame),
        };
        let before = self.program.counters().expect("counters");
        let run = self.program.run(frame, 1).expect("inside runs");
        let after = self.program.counters().expect("counters");
        let found = (run.verdict, only(counted(&before, &after)), run.packet);
        assert_eq!(
            found, expected,
            "kernel and host disagree about {frame:02x?}"
        );
        found
    }

    /// The same for a frame that stays as it is.
    pub fn judge(&mut self, frame: &[u8]) -> (u32, Counter) {
        let found = self.run(frame);
        assert_eq!(found.2, frame);
        (found.0, found.1)
    }
}
