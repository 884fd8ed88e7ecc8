//! Names, keys and values of the BPF maps. Values are wire types: `repr(C)`, byte arrays in
//! network order, no padding; sizes are asserted. They are aligned for loads of whole words. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d.

use core::net::IpAddr;

/// SPI (`[u8; 4]`, network order) to [`SaEntry`]: the inbound security associations.
pub const SAS: &str = "SAS";
/// Address to [`AddressEntry`]: which senders are peers, which must never be reflected.
pub const ADDRESSES: &str = "ADDRESSES";
/// Array of [`PEER_SLOTS`] addresses: a peer, at [`peer_slot`] of its address. What is found here
/// need not be looked up in [`ADDRESSES`], which costs more than all else about a heartbeat; what
/// is not found must be. Peers that must never be reflected are not here.
pub const PEERS: &str = "PEERS";
/// Array of one [`NodeState`].
pub const NODE_STATE: &str = "NODE_STATE";
/// Array of one [`Local`]: what is addressed to the outside interface.
pub const OUTSIDE_LOCAL: &str = "OUTSIDE_LOCAL";
/// Array of one [`Local`]: what is addressed to the inside interface.
pub const INSIDE_LOCAL: &str = "INSIDE_LOCAL";
/// Array of one [`Guard`](crate::guard::Guard).
pub const GUARD: &str = "GUARD";
/// Array of [`GATEWAY_SLOTS`](crate::steering::GATEWAY_SLOTS) ways, by number, to the
/// [gateways](crate::steering::Gateway) that share the node's address.
pub const GATEWAYS: &str = "GATEWAYS";
/// SPI (`[u8; 4]`, network order) to the number (u32) of the gateway that owns it, whatever the SPI
/// itself says.
pub const OWNERS: &str = "OWNERS";
/// Link address ([`station`](crate::steering::station)) to anything: the other gateways that share the
/// node's address, on the segment.
pub const STATIONS: &str = "STATIONS";
/// Array of one [`Address`], as two words: where other gateways send packets in IP.
pub const OWN_ADDRESS: &str = "OWN_ADDRESS";
/// Array of [`SLOTS`](crate::front::SLOTS) numbers (u32): the encryption node that each slot of clients goes
/// to, [`NO_NODE`](crate::front::NO_NODE) if none lives.
pub const NODES: &str = "NODES";
/// Address to the number (u32) of the [class](crate::filter) of its user, or [`OWN`](crate::filter::OWN).
pub const USERS: &str = "USERS";
/// Array of [`MAX_CLASSES`](crate::filter::MAX_CLASSES) [classes](crate::filter::ClassEntry).
pub const CLASSES: &str = "CLASSES";
/// Longest prefix match of [networks](crate::filter::DirectKey) that classes have directly, to anything.
pub const DIRECT: &str = "DIRECT";
/// Per-CPU counters of the classes, by [`hit_slot`](crate::filter::hit_slot).
pub const CLASS_COUNTERS: &str = "CLASS_COUNTERS";
/// Array of one [`Translation`](crate::translation::Translation).
pub const TRANSLATION: &str = "TRANSLATION";
/// Array of [`TOWARD_SLOTS`](crate::translation::TOWARD_SLOTS) addresses, as two words: where the messages of a slot
/// go by translation, or zero.
pub const TOWARD: &str = "TOWARD";
/// AF_XDP sockets of the outside interface by receive queue.
pub const OUTSIDE_XSKS: &str = "OUTSIDE_XSKS";
/// AF_XDP sockets of the inside interface by receive queue.
pub const INSIDE_XSKS: &str = "INSIDE_XSKS";
/// Per-CPU counters of program `outside`, by [`crate::reason::Counter`].
pub const OUTSIDE_COUNTERS: &str = "OUTSIDE_COUNTERS";
/// Per-CPU counters of program `inside`, by [`crate::reason::Counter`].
pub const INSIDE_COUNTERS: &str = "INSIDE_COUNTERS";
/// Longest prefix match of inner IPv4 destinations to [`TunnelEntry`].
pub const INSIDE_V4: &str = "INSIDE_V4";
/// Longest prefix match of inner IPv6 destinations to [`TunnelEntry`].
pub const INSIDE_V6: &str = "INSIDE_V6";

/// Load-time global of `outside` (u8): 1 = answer plain heartbeats.
pub const REFLECT_PLAIN: &str = "REFLECT_PLAIN";
/// Load-time global of `outside` (u8): 1 = answer keyed heartbeats.
pub const REFLECT_KEYED: &str = "REFLECT_KEYED";
/// Load-time global of `outside` (u8): 1 = answer plain heartbeats of nodes that are no peers.
pub const STRANGERS: &str = "STRANGERS";

/// Load-time global of `outside` (u8): the node's number among the gateways that share its address;
/// 0: it shares none.
pub const STEERING: &str = "STEERING";
/// Load-time global of `outside` (u8): the node is a front, and this is its own number among the nodes, or
/// [`NO_SHARE`](crate::front::NO_SHARE); 0: it is none.
pub const FRONT: &str = "FRONT";
/// Load-time global of `outside` (u8): 1 = there are fronts before this node, whose packets it takes.
pub const BEHIND: &str = "BEHIND";
/// Load-time global of `outside` (u8): 1 = ESP with an SPI that is not known goes to the worker.
pub const SHARED: &str = "SHARED";

/// Load-time global of `outside` (u8): 1 = there is a packet filter.
pub const FILTER: &str = "FILTER";

/// Load-time global of `outside` and `inside` (u8): 1 = IKE is relayed by address translation.
pub const TRANSLATES: &str = "TRANSLATES";

/// Receive queues that an interface can have.
pub const MAX_QUEUES: u32 = 64;
/// Security associations that [`SAS`] can hold at most; the loader may choose less.
pub const MAX_SAS: u32 = 1_048_576;
/// Entries of [`ADDRESSES`].
pub const MAX_ADDRESSES: u32 = 65_536;
/// Slots of [`PEERS`].
pub const PEER_SLOTS: u32 = 65_536;
/// Prefixes of one family that the inside program can hold.
pub const MAX_PREFIXES: u32 = 131_072;
/// Own addresses that [`Local`] can hold.
pub const MAX_LOCAL: usize = 8;

/// An address as a map key.
pub type Address = [u8; 16];

/// The map key of an address: IPv4 as v4-mapped IPv6 (RFC 4291 section 2.5.5.2).
pub const fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The two halves of an address, each as a little-endian number.
#[inline(always)]
pub const fn halves(address: &Address) -> [u64; 2] {
    let whole = u128::from_le_bytes(*address);
    [whole as u64, (whole >> 64) as u64]
}

/// The slot of [`PEERS`] in which a peer is kept.
#[inline(always)]
pub const fn peer_slot([first, second]: [u64; 2]) -> u32 {
    ((first ^ second).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u32
}

/// One inbound security association as `outside` needs it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct SaEntry {
    hb_key: [u8; 16],
    peer: Address,
    flags: [u8; 4],
    port: [u8; 2],
    reserved: [u8; 2],
}

impl SaEntry {
    const KEYED: u8 = 1;

    /// `hb_key`: SipHash key of the session's heartbeats; `None`: keyed heartbeats that name this
    /// SPI are refused. `peer`: the only outer source that they may come from; `None`: any.
    pub const fn new(hb_key: Option<[u8; 16]>, peer: Option<IpAddr>) -> Self {
        let (hb_key, flag) = match hb_key {
            Some(key) => (key, Self::KEYED),
            None => ([0; 16], 0),
        };
        let peer = match peer {
            Some(ip) => address(ip),
            None => [0; 16],
        };
        SaEntry {
            hb_key,
            peer,
            flags: [flag, 0, 0, 0],
            port: [0; 2],
            reserved: [0; 2],
        }
    }

    /// The same for ESP in UDP: heartbeats may come from this source port only. Behind a NAT another
    /// one is another mapping, and what the session sends would not get there.
    #[must_use]
    pub const fn from_port(mut self, port: u16) -> Self {
        self.port = port.to_be_bytes();
        self
    }

    /// The heartbeat key, unless keyed heartbeats are not allowed for this association.
    #[inline(always)]
    pub const fn hb_key(&self) -> Option<&[u8; 16]> {
        if self.flags[0] & Self::KEYED != 0 {
            Some(&self.hb_key)
        } else {
            None
        }
    }

    /// Whether a heartbeat may come from this outer source address and, in UDP, this port.
    #[inline(always)]
    pub fn admits(&self, source: &Address, port: Option<u16>) -> bool {
        let peer = u128::from_ne_bytes(self.peer);
        let wanted = u16::from_be_bytes(self.port);
        (peer == 0 || peer == u128::from_ne_bytes(*source)) && (wanted == 0 || port == Some(wanted))
    }
}

impl core::fmt::Debug for SaEntry {
    // The heartbeat key is a secret: it never shows.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SaEntry")
            .field("peer", &core::net::Ipv6Addr::from(self.peer))
            .field("port", &u16::from_be_bytes(self.port))
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

/// What is known about an outer source address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct AddressEntry {
    flags: [u8; 4],
}

impl AddressEntry {
    const PEER: u8 = 1;
    const NEVER_REFLECT: u8 = 2;
    const GATEWAY: u8 = 4;

    /// `peer`: its plain heartbeats are answered and its answers believed to be answers.
    /// `never_reflect`: nothing that claims to come from it is ever reflected.
    pub const fn new(peer: bool, never_reflect: bool) -> Self {
        let peer = if peer { Self::PEER } else { 0 };
        let never = if never_reflect {
            Self::NEVER_REFLECT
        } else {
            0
        };
        AddressEntry {
            flags: [peer | never, 0, 0, 0],
        }
    }

    /// The same for another gateway that shares the node's address: packets that it sends in IP are
    /// taken out of it.
    #[must_use]
    pub const fn of_gateway(mut self, gateway: bool) -> Self {
        self.flags[0] &= !Self::GATEWAY;
        if gateway {
            self.flags[0] |= Self::GATEWAY;
        }
        self
    }

    /// Whether the address is another gateway's that shares the node's address.
    #[inline(always)]
    pub const fn gateway(&self) -> bool {
        self.flags[0] & Self::GATEWAY != 0
    }

    /// Whether the address is a peer's.
    #[inline(always)]
    pub const fn peer(&self) -> bool {
        self.flags[0] & Self::PEER != 0
    }

    /// Whether the address is one of the gateway's own or its cluster's.
    #[inline(always)]
    pub const fn never_reflect(&self) -> bool {
        self.flags[0] & Self::NEVER_REFLECT != 0
    }
}

/// Whether the node may answer heartbeats, and with which health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct NodeState {
    alive_until: u64,
    health: u8,
    silent: u8,
    reserved: [u8; 6],
}

impl NodeState {
    /// `alive_until`: nanoseconds of `CLOCK_MONOTONIC` until which heartbeats are answered.
    /// `health`: byte for keyed answers. `silent`: answer nothing at all.
    pub const fn new(alive_until: u64, health: u8, silent: bool) -> Self {
        NodeState {
            alive_until,
            health,
            silent: silent as u8,
            reserved: [0; 6],
        }
    }

    /// Nanoseconds of `CLOCK_MONOTONIC` until which heartbeats are answered.
    #[inline(always)]
    pub const fn alive_until(&self) -> u64 {
        self.alive_until
    }

    /// The health byte of keyed answers.
    #[inline(always)]
    pub const fn health(&self) -> u8 {
        self.health
    }

    /// Whether nothing is to be answered.
    #[inline(always)]
    pub const fn silent(&self) -> bool {
        self.silent != 0
    }
}

/// What is addressed to an interface. Frames for others (a switch floods them, or the node routes
/// them) are left to the kernel. All zero: everything counts as ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Local {
    mac: [u8; 6],
    count: [u8; 2],
    addresses: [Address; MAX_LOCAL],
}

impl Local {
    /// `mac`: the interface's link address, `None` for any. `addresses`: its addresses, none for
    /// any; only the first [`MAX_LOCAL`] are taken.
    pub fn new(mac: Option<[u8; 6]>, addresses: &[IpAddr]) -> Self {
        let mut local = Local {
            mac: mac.unwrap_or_default(),
            ..Local::default()
        };
        let mut count = 0;
        for (slot, ip) in local.addresses.iter_mut().zip(addresses) {
            *slot = address(*ip);
            count += 1;
        }
        local.count = [count, 0];
        local
    }

    /// Whether a frame to this link address is for the interface.
    #[inline(always)]
    pub fn has_mac(&self, destination: &[u8; 6]) -> bool {
        self.mac == [0; 6] || self.mac == *destination
    }

    /// Whether a packet to this address is for the interface; without addresses every one is.
    #[inline(always)]
    pub fn has_address(&self, destination: &Address) -> bool {
        self.count[0] == 0 || self.owns(destination)
    }

    /// Whether the address is one of the interface's. An unused slot holds `::`, which is
    /// nobody's.
    #[inline(always)]
    pub fn owns(&self, address: &Address) -> bool {
        let wanted = u128::from_ne_bytes(*address);
        for own in &self.addresses {
            if u128::from_ne_bytes(*own) == wanted {
                return true;
            }
        }
        false
    }
}

/// The tunnel of an inner prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct TunnelEntry {
    id: [u8; 4],
    flags: [u8; 4],
}

impl TunnelEntry {
    /// `id`: the tunnel's number, chosen by user space.
    pub const fn new(id: u32) -> Self {
        TunnelEntry {
            id: id.to_be_bytes(),
            flags: [0; 4],
        }
    }

    /// The tunnel's number.
    #[inline(always)]
    pub const fn id(&self) -> u32 {
        u32::from_be_bytes(self.id)
    }
}

const _: () = {
    assert!(size_of::<SaEntry>() == 16 + 16 + 4 + 2 + 2);
    assert!(size_of::<AddressEntry>() == 4);
    assert!(size_of::<NodeState>() == 8 + 1 + 1 + 6);
    assert!(size_of::<Local>() == 6 + 2 + 16 * MAX_LOCAL);
    assert!(size_of::<TunnelEntry>() == 4 + 4);
};

#[cfg(feature = "user")]
mod user {
    use super::{AddressEntry, Local, NodeState, SaEntry, TunnelEntry};
    use crate::filter::ClassEntry;
    use crate::guard::Guard;
    use crate::steering::Gateway;
    use crate::translation::Translation;

    // SAFETY: repr(C), integers and byte arrays only, and no padding (sizes asserted above).
    unsafe impl aya::Pod for SaEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for AddressEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NodeState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Local {}
    // SAFETY: as above.
    unsafe impl aya::Pod for TunnelEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Guard {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Gateway {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ClassEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Translation {}
}
