//! The program of the outside interface and its maps.

use std::{collections::HashMap, net::IpAddr, os::fd::AsFd};

use aya::maps::{Array, HashMap as BpfHashMap, MapData, MapError, PerCpuArray, XskMap};
use evergate_common::filter::{MAX_DIRECT, MAX_USERS};
use evergate_common::front::SLOTS;
use evergate_common::guard::Guard;
use evergate_common::maps::{
    ADDRESSES, Address, AddressEntry, BEHIND, CLASS_COUNTERS, CLASSES, DIRECT, FILTER, FRONT,
    GATEWAYS, GUARD, INSIDE_V4, INSIDE_V6, MAX_ADDRESSES, MAX_SAS, NODE_STATE, NODES,
    OUTSIDE_COUNTERS, OUTSIDE_LOCAL, OUTSIDE_XSKS, OWN_ADDRESS, OWNERS, PEER_SLOTS, PEERS,
    REFLECT_KEYED, REFLECT_PLAIN, SAS, SHARED, STATIONS, STEERING, STRANGERS, SaEntry, TOWARD,
    TRANSLATES, TRANSLATION, USERS, address, halves, peer_slot,
};

use super::super::command::Steer;
use super::{
    Attached, Counters, LoadError, NodeStateWriter, Run, XdpMode,
    error::map_error,
    filter::FilterMaps,
    front::SlotsWriter,
    group::GroupMaps,
    local::LocalMap,
    program::{Program, set_only, set_xsk, sum},
    translation::TranslationMaps,
};

/// What is fixed when `outside` is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideSettings {
    /// Answer plain heartbeats.
    pub reflect_plain: bool,
    /// Answer keyed heartbeats.
    pub reflect_keyed: bool,
    /// Answer plain heartbeats of nodes that are no peers.
    pub strangers: bool,
    /// The node's number among the gateways that share its address; 0: it shares none.
    pub number: u8,
    /// The node is one of several that share SAs: ESP with an SPI that it does not know goes to the worker,
    /// where it waits for a session that may yet be had.
    pub shared: bool,
    /// IKE is relayed by address translation.
    pub translates: bool,
    /// The node is a front, and this is its own number among the encryption nodes, or
    /// [`NO_SHARE`](evergate_common::front::NO_SHARE); 0: it is none.
    pub front: u8,
    /// There are fronts before the node: it takes what they have sent on, in IP too.
    pub behind: bool,
    /// There is a packet filter: classes of users, and what they may have past the tunnel.
    pub filter: bool,
    /// Security associations that can be held, 1 to [`MAX_SAS`]; memory is taken per association
    /// and 8 bytes for each possible one.
    pub max_sas: u32,
}

impl Default for OutsideSettings {
    fn default() -> Self {
        OutsideSettings {
            reflect_plain: false,
            reflect_keyed: true,
            strangers: false,
            number: 0,
            shared: false,
            translates: false,
            front: 0,
            behind: false,
            filter: false,
            max_sas: MAX_SAS,
        }
    }
}

/// The program `outside`, loaded; detached and unloaded when dropped.
pub struct Outside {
    program: Program,
    sas: BpfHashMap<MapData, [u8; 4], SaEntry>,
    max_sas: u32,
    addresses: BpfHashMap<MapData, Address, AddressEntry>,
    known: HashMap<IpAddr, AddressEntry>,
    peers: Array<MapData, [u64; 2]>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, u64>,
    local: LocalMap,
    guard: Array<MapData, Guard>,
    pub(super) group: GroupMaps,
    pub(super) slots: Option<SlotsWriter>,
    pub(super) filter: FilterMaps,
    filters: bool,
    pub(super) translation: TranslationMaps,
    node_state: NodeStateWriter,
}

impl Outside {
    /// Loads the program into the kernel. It does nothing before [`Outside::attach`].
    ///
    /// # Errors
    /// [`LoadError`] names the missing privilege or kernel feature.
    pub fn load(settings: OutsideSettings) -> Result<Self, LoadError> {
        Self::load_as("outside", settings, None)
    }

    /// The same for benchmarks: each repetition of a run begins with a bare IPv4 heartbeat request
    /// again, keyed with this MAC or, if it is 0, plain. Not to be attached.
    ///
    /// # Errors
    /// [`LoadError`] names the missing privilege or kernel feature.
    pub fn load_repeating(settings: OutsideSettings, request_mac: u64) -> Result<Self, LoadError> {
        Self::load_as("again", settings, Some(request_mac))
    }

    fn load_as(
        name: &'static str,
        settings: OutsideSettings,
        request_mac: Option<u64>,
    ) -> Result<Self, LoadError> {
        let max_sas = settings.max_sas.clamp(1, MAX_SAS);
        let max_owners = if settings.number == 0 { 1 } else { max_sas };
        let only = |most| if settings.filter { most } else { 1 };
        let mut program = Program::load(
            name,
            &[
                (REFLECT_PLAIN, settings.reflect_plain.into()),
                (REFLECT_KEYED, settings.reflect_keyed.into()),
                (STRANGERS, settings.strangers.into()),
                (STEERING, settings.number),
                (SHARED, settings.shared.into()),
                (FRONT, settings.front),
                (BEHIND, settings.behind.into()),
                (FILTER, settings.filter.into()),
                (TRANSLATES, settings.translates.into()),
            ],
            request_mac,
            &[
                (SAS, max_sas),
                (OWNERS, max_owners),
                (USERS, only(MAX_USERS)),
                (DIRECT, only(MAX_DIRECT)),
                (NODES, if settings.front == 0 { 1 } else { SLOTS }),
                (INSIDE_V4, 1),
                (INSIDE_V6, 1),
            ],
        )?;
        Ok(Outside {
            sas: program.map(SAS)?,
            max_sas,
            addresses: program.map(ADDRESSES)?,
            known: HashMap::new(),
            peers: program.map(PEERS)?,
            sockets: program.map(OUTSIDE_XSKS)?,
            counters: program.map(OUTSIDE_COUNTERS)?,
            local: LocalMap::new(OUTSIDE_LOCAL, program.map(OUTSIDE_LOCAL)?),
            guard: program.map(GUARD)?,
            group: GroupMaps {
                gateways: program.map(GATEWAYS)?,
                owners: program.map(OWNERS)?,
                max_owners,
                stations: program.map(STATIONS)?,
                own_address: program.map(OWN_ADDRESS)?,
            },
            translation: TranslationMaps {
                addresses: program.map(TRANSLATION)?,
                toward: program.map(TOWARD)?,
            },
            slots: Some(SlotsWriter::new(program.map(NODES)?)),
            filters: settings.filter,
            filter: FilterMaps {
                users: program.map(USERS)?,
                classes: program.map(CLASSES)?,
                direct: program.map(DIRECT)?,
                counters: program.map(CLASS_COUNTERS)?,
            },
            node_state: NodeStateWriter::new(program.map(NODE_STATE)?),
            program,
        })
    }

    /// Attaches to an interface. The last step of setting up: sockets and associations first.
    /// From here on only frames to the interface's own link address are taken.
    ///
    /// # Errors
    /// [`LoadError`], with the interface's name.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, LoadError> {
        self.local.follow_interface(interface)?;
        self.program.attach(interface, mode)
    }

    /// Detaches, if attached. The first step of shutting down.
    pub fn detach(&mut self) {
        self.program.detach();
    }

    /// The node's own outer addresses: packets to others are left to the kernel. None (as at the
    /// start): packets to any address are taken.
    ///
    /// # Errors
    /// [`LoadError::TooMany`] beyond [`MAX_LOCAL`] addresses.
    pub fn set_own_addresses(&mut self, own: &[IpAddr]) -> Result<(), LoadError> {
        self.local.set_own("own outer addresses", own)
    }

    /// Puts the guard before IKE up, with the keys of its cookies, or down (as at the start).
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_guard(&mut self, guard: Guard) -> Result<(), LoadError> {
        set_only(GUARD, &mut self.guard, guard)
    }

    /// Whether it was loaded with a packet filter.
    pub fn has_filter(&self) -> bool {
        self.filters
    }

    /// Hands frames of a receive queue to an AF_XDP socket that is bound to it.
    ///
    /// # Errors
    /// [`LoadError`] if there is no such queue or it is no AF_XDP socket.
    pub fn set_xsk(&mut self, queue: u32, socket: impl AsFd) -> Result<(), LoadError> {
        set_xsk(OUTSIDE_XSKS, &mut self.sockets, queue, socket)
    }

    /// Carries out a change of what is steered to the workers.
    ///
    /// # Errors
    /// [`LoadError::Full`], or if the kernel refuses.
    pub(in crate::dataplane) fn steer(&mut self, change: Steer) -> Result<(), LoadError> {
        match change {
            Steer::AddSa(spi, entry) => self.add_sa(spi, &entry),
            Steer::RemoveSa(spi) => self.remove_sa(spi),
            Steer::AddPeer(peer) => self.add_peer(peer),
            Steer::RemovePeer(peer) => self.remove_peer(peer),
            Steer::NeverReflect(own) => self.never_reflect(own),
        }
    }

    /// Adds or replaces an inbound security association. `spi` in host order.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn add_sa(&mut self, spi: u32, entry: &SaEntry) -> Result<(), LoadError> {
        self.sas
            .insert(spi.to_be_bytes(), entry, 0)
            .map_err(|error| map_error(SAS, self.max_sas, &error))
    }

    /// Removes an inbound security association; none there is no error. `spi` in host order.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove_sa(&mut self, spi: u32) -> Result<(), LoadError> {
        gone(SAS, self.max_sas, self.sas.remove(&spi.to_be_bytes()))
    }

    /// A peer: its plain heartbeats are answered, its answers handed to the worker.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn add_peer(&mut self, peer: IpAddr) -> Result<(), LoadError> {
        let known = self.entry(peer);
        let entry = AddressEntry::new(true, known.never_reflect());
        self.set_address(peer, entry.of_gateway(known.gateway()))
    }

    /// A peer no longer.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove_peer(&mut self, peer: IpAddr) -> Result<(), LoadError> {
        let known = self.entry(peer);
        let entry = AddressEntry::new(false, known.never_reflect());
        self.set_address(peer, entry.of_gateway(known.gateway()))
    }

    /// Nothing that claims to come from this address is ever reflected: the node's own addresses
    /// and those of its cluster. Goes before [`Outside::add_peer`].
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn never_reflect(&mut self, own: IpAddr) -> Result<(), LoadError> {
        let known = self.entry(own);
        let entry = AddressEntry::new(known.peer(), true);
        self.set_address(own, entry.of_gateway(known.gateway()))
    }

    /// Undoes [`Outside::never_reflect`] for one address.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn may_reflect(&mut self, own: IpAddr) -> Result<(), LoadError> {
        let known = self.entry(own);
        let entry = AddressEntry::new(known.peer(), false);
        self.set_address(own, entry.of_gateway(known.gateway()))
    }

    /// Undoes [`Outside::never_reflect`] for all addresses.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn clear_never_reflect(&mut self) -> Result<(), LoadError> {
        let never = self.known.iter().filter(|(_, entry)| entry.never_reflect());
        let never: Vec<IpAddr> = never.map(|(ip, _)| *ip).collect();
        never.into_iter().try_for_each(|ip| self.may_reflect(ip))
    }

    pub(super) fn entry(&self, ip: IpAddr) -> AddressEntry {
        self.known.get(&ip).copied().unwrap_or_default()
    }

    pub(super) fn set_address(&mut self, ip: IpAddr, entry: AddressEntry) -> Result<(), LoadError> {
        let key = address(ip);
        // Out of the fast table first and into it last, so that it never says more than the map.
        self.set_peer_slot(&key, false)?;
        if entry == AddressEntry::default() {
            gone(ADDRESSES, MAX_ADDRESSES, self.addresses.remove(&key))?;
            self.known.remove(&ip);
        } else {
            self.addresses
                .insert(key, entry, 0)
                .map_err(|error| map_error(ADDRESSES, MAX_ADDRESSES, &error))?;
            self.known.insert(ip, entry);
        }
        if entry == AddressEntry::new(true, false) {
            self.set_peer_slot(&key, true)?;
        }
        Ok(())
    }

    /// A peer takes its slot from another one of the same slot, which then is looked up the slow
    /// way; it leaves the slot only if it has it.
    fn set_peer_slot(&mut self, key: &Address, taken: bool) -> Result<(), LoadError> {
        let whole = halves(key);
        let slot = peer_slot(whole);
        let held = self.peers.get(&slot, 0).is_ok_and(|there| there == whole);
        let value = match (taken, held) {
            (true, false) => whole,
            (false, true) => [0; 2],
            _ => return Ok(()),
        };
        self.peers
            .set(slot, value, 0)
            .map_err(|error| map_error(PEERS, PEER_SLOTS, &error))
    }

    /// A handle for the dead-man switch and the health; clones may go to other threads.
    pub fn node_state(&self) -> NodeStateWriter {
        self.node_state.clone()
    }

    /// The program's counters, summed over all CPUs.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        sum(OUTSIDE_COUNTERS, &self.counters)
    }

    /// Runs the program on a packet without an interface, for tests and benchmarks.
    ///
    /// # Errors
    /// If the kernel refuses; it takes packets of 14 bytes or more.
    pub fn run(&mut self, packet: &[u8], repeat: u32) -> Result<Run, LoadError> {
        self.program.run(packet, repeat)
    }
}

/// Removing what is not there is no error.
pub(super) fn gone(
    map: &'static str,
    capacity: u32,
    result: Result<(), MapError>,
) -> Result<(), LoadError> {
    match result {
        Err(error) if super::error::errno(&error) != Some(libc::ENOENT) => {
            Err(map_error(map, capacity, &error))
        }
        _ => Ok(()),
    }
}
