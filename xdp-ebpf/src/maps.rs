//! The maps and load-time settings. Only user space writes them, but for the counters.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, XskMap},
};
use evergate_common::{
    filter::{ClassEntry, DirectKey, HITS, MAX_CLASSES, MAX_DIRECT, MAX_USERS},
    front::SLOTS,
    guard::Guard,
    maps::{
        AddressEntry, Local, MAX_ADDRESSES, MAX_PREFIXES, MAX_QUEUES, MAX_SAS, NodeState,
        PEER_SLOTS, SaEntry, TunnelEntry,
    },
    reason::Counter,
    steering::{GATEWAY_SLOTS, Gateway},
    translation::{TOWARD_SLOTS, Translation},
};

// Keys are bytes in network order; here they have types that the stack aligns.
//
// Entries are allocated one by one: the kernel then frees a removed one only after all programs
// that might read it have ended, so that a reference into the map never sees another's entry.
#[map]
pub static SAS: HashMap<u32, SaEntry> = HashMap::with_max_entries(MAX_SAS, BPF_F_NO_PREALLOC);

#[map]
pub static ADDRESSES: HashMap<[u64; 2], AddressEntry> =
    HashMap::with_max_entries(MAX_ADDRESSES, BPF_F_NO_PREALLOC);

#[map]
pub static PEERS: Array<[u64; 2]> = Array::with_max_entries(PEER_SLOTS, 0);

#[map]
pub static NODE_STATE: Array<NodeState> = Array::with_max_entries(1, 0);

#[map]
pub static OUTSIDE_LOCAL: Array<Local> = Array::with_max_entries(1, 0);

#[map]
pub static GUARD: Array<Guard> = Array::with_max_entries(1, 0);

#[map]
pub static GATEWAYS: Array<Gateway> = Array::with_max_entries(GATEWAY_SLOTS, 0);

#[map]
pub static OWNERS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_SAS, BPF_F_NO_PREALLOC);

#[map]
pub static STATIONS: HashMap<u64, u32> =
    HashMap::with_max_entries(GATEWAY_SLOTS, BPF_F_NO_PREALLOC);

#[map]
pub static OWN_ADDRESS: Array<[u64; 2]> = Array::with_max_entries(1, 0);

#[map]
pub static NODES: Array<u32> = Array::with_max_entries(SLOTS, 0);

#[map]
pub static USERS: HashMap<[u64; 2], u32> = HashMap::with_max_entries(MAX_USERS, BPF_F_NO_PREALLOC);

#[map]
pub static CLASSES: Array<ClassEntry> = Array::with_max_entries(MAX_CLASSES, 0);

#[map]
pub static DIRECT: LpmTrie<DirectKey, u32> = LpmTrie::with_max_entries(MAX_DIRECT, 0);

#[map]
pub static CLASS_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_CLASSES * HITS, 0);

#[map]
pub static TRANSLATION: Array<Translation> = Array::with_max_entries(1, 0);

#[map]
pub static TOWARD: Array<[u64; 2]> = Array::with_max_entries(TOWARD_SLOTS, 0);

#[map]
pub static INSIDE_LOCAL: Array<Local> = Array::with_max_entries(1, 0);

#[map]
pub static OUTSIDE_XSKS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

#[map]
pub static INSIDE_XSKS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

#[map]
pub static OUTSIDE_COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(Counter::COUNT as u32, 0);

#[map]
pub static INSIDE_COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(Counter::COUNT as u32, 0);

#[map]
pub static INSIDE_V4: LpmTrie<[u8; 4], TunnelEntry> = LpmTrie::with_max_entries(MAX_PREFIXES, 0);

#[map]
pub static INSIDE_V6: LpmTrie<[u8; 16], TunnelEntry> = LpmTrie::with_max_entries(MAX_PREFIXES, 0);

#[unsafe(no_mangle)]
static REFLECT_PLAIN: u8 = 0;
#[unsafe(no_mangle)]
static REFLECT_KEYED: u8 = 1;
#[unsafe(no_mangle)]
static STRANGERS: u8 = 0;
#[unsafe(no_mangle)]
static STEERING: u8 = 0;
#[unsafe(no_mangle)]
static SHARED: u8 = 0;

#[unsafe(no_mangle)]
static FRONT: u8 = 0;
#[unsafe(no_mangle)]
static BEHIND: u8 = 0;

#[unsafe(no_mangle)]
static FILTER: u8 = 0;

#[unsafe(no_mangle)]
static TRANSLATES: u8 = 0;

/// Whether IKE is relayed by address translation.
#[inline(always)]
pub fn translates() -> bool {
    setting(&TRANSLATES)
}

/// Whether there is a packet filter.
#[inline(always)]
pub fn filter() -> bool {
    setting(&FILTER)
}

/// Whether plain heartbeats are answered.
#[inline(always)]
pub fn reflect_plain() -> bool {
    setting(&REFLECT_PLAIN)
}

/// Whether keyed heartbeats are answered.
#[inline(always)]
pub fn reflect_keyed() -> bool {
    setting(&REFLECT_KEYED)
}

/// Whether plain heartbeats of nodes that are no peers are answered.
#[inline(always)]
pub fn strangers() -> bool {
    setting(&STRANGERS)
}

/// The node's number among the gateways that share its address; 0: it shares none.
#[inline(always)]
pub fn steering() -> u8 {
    number(&STEERING)
}

/// Whether the node is a front.
#[inline(always)]
pub fn is_front() -> bool {
    setting(&FRONT)
}

/// A front's own number among the encryption nodes.
#[inline(always)]
pub fn own_share() -> u8 {
    number(&FRONT)
}

/// Whether other nodes send packets on to this one, in IP too.
#[inline(always)]
pub fn takes_sent_on() -> bool {
    steering() != 0 || setting(&BEHIND)
}

/// Whether ESP with an SPI that is not known goes to the worker.
#[inline(always)]
pub fn shared() -> bool {
    setting(&SHARED)
}

#[inline(always)]
fn setting(global: &'static u8) -> bool {
    number(global) != 0
}

#[inline(always)]
fn number(global: &'static u8) -> u8 {
    // SAFETY: a valid reference. Volatile, because the loader changes the value in the object file
    // and the compiler must not fold the one that stands here.
    unsafe { core::ptr::read_volatile(global) }
}
