//! What `outside` knows, and the answer to a heartbeat.

use core::cell::UnsafeCell;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_TX},
    helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
};
use evergate_common::{
    maps::{Address, AddressEntry, Local, NodeState, SaEntry, halves, peer_slot},
    packet::{Bytes as _, BytesMut as _},
    reason::Counter,
    steering,
    verdict::{OutsideWorld, Reflection},
};

use crate::{
    maps::{self, ADDRESSES, NODE_STATE, OUTSIDE_LOCAL, PEERS, SAS, STATIONS},
    packet::Packet,
};

pub struct World;

/// A time that had not passed, by the clock of the tick [`AHEAD_IN`]. Another CPU may write one of
/// the two between our looks at them: then a time is believed that was ahead a tick before.
static AHEAD: Noted = Noted::new();
static AHEAD_IN: Noted = Noted::new();

/// A number that all CPUs may read and write at any time, whole; the compiler has no relaxed atomics
/// for this target.
struct Noted(UnsafeCell<u64>);

// SAFETY: only aligned words are loaded and stored, volatile: nothing is torn or assumed.
unsafe impl Sync for Noted {}

impl Noted {
    const fn new() -> Self {
        Noted(UnsafeCell::new(0))
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: the cell's own pointer, valid and aligned.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        // SAFETY: as above.
        unsafe { self.0.get().write_volatile(value) }
    }
}

impl OutsideWorld for World {
    #[inline(always)]
    fn sa(&self, spi: &[u8; 4]) -> Option<&SaEntry> {
        // SAFETY: SAS does not preallocate, so an entry that is removed meanwhile stays as it is
        // until the program has ended.
        unsafe { SAS.get(u32::from_ne_bytes(*spi)) }
    }

    #[inline(always)]
    fn address(&self, address: &Address) -> AddressEntry {
        let key = halves(address);
        if PEERS.get(peer_slot(key)).is_some_and(|peer| *peer == key) {
            return AddressEntry::new(true, false);
        }
        // SAFETY: as above.
        unsafe { ADDRESSES.get(key) }.copied().unwrap_or_default()
    }

    #[inline(always)]
    fn node(&self) -> Option<NodeState> {
        NODE_STATE.get(0).copied()
    }

    #[inline(always)]
    fn local(&self) -> Option<&Local> {
        OUTSIDE_LOCAL.get(0)
    }

    #[inline(always)]
    fn passed(&self, time: u64) -> bool {
        // The coarse clock is at most one tick (1 to 10 ms) behind, which a dead-man period of tens
        // of milliseconds does not notice; reading the fine one costs more than all the rest. It
        // moves with the ticks, so what it said in this tick need not be asked again: their number
        // is one load (the kernel inlines the helper), the clock a call.
        // SAFETY: helpers without arguments.
        unsafe {
            let tick = bpf_jiffies64();
            if AHEAD_IN.load() == tick && AHEAD.load() == time {
                return false;
            }
            let passed = bpf_ktime_get_coarse_ns() > time;
            if !passed {
                AHEAD.store(time);
                AHEAD_IN.store(tick);
            }
            passed
        }
    }

    #[inline(always)]
    fn reflect_plain(&self) -> bool {
        maps::reflect_plain()
    }

    #[inline(always)]
    fn reflect_keyed(&self) -> bool {
        maps::reflect_keyed()
    }

    #[inline(always)]
    fn strangers(&self) -> bool {
        maps::strangers()
    }

    #[inline(always)]
    fn shared(&self) -> bool {
        maps::shared()
    }

    #[inline(always)]
    fn steers(&self) -> bool {
        maps::takes_sent_on() || maps::is_front()
    }

    #[inline(always)]
    fn station(&self, mac: &[u8; 6]) -> bool {
        // SAFETY: as above.
        unsafe { STATIONS.get(steering::station(mac)) }.is_some()
    }
}

/// Turns the request into its answer and sends it back.
#[inline(always)]
pub fn reflect(packet: &mut Packet, reflection: &Reflection) -> (u32, Counter) {
    match reflection.apply(packet) {
        Some(()) => (XDP_TX, reflection.counter()),
        None => (XDP_DROP, Counter::Malformed),
    }
}

/// Swaps the link addresses.
#[inline(always)]
pub fn swap(packet: &mut Packet) -> Option<()> {
    let destination = packet.read::<6>(0)?;
    let source = packet.read::<6>(6)?;
    packet.write(0, source)?;
    packet.write(6, destination)
}

/// MAC of the keyed request that a benchmark repeats; 0 for a plain one.
#[unsafe(no_mangle)]
static REQUEST_MAC: u64 = 0;

/// Makes a benchmark's bare IPv4 heartbeat, already answered, a request again: sequence number,
/// TTL, and of the keyed form health and MAC. The addresses stay swapped.
#[inline(always)]
pub fn undo(packet: &mut Packet) -> Option<()> {
    const ESP: usize = 34;
    // As wide as the parser reads, so that the processor can forward the stores to its loads.
    packet.write(22, [64, 50, 0, 0])?;
    packet.write(ESP, [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 1])?;
    // SAFETY: a valid reference; volatile because the loader changes the value.
    let mac = unsafe { core::ptr::read_volatile(&raw const REQUEST_MAC) };
    if mac != 0 {
        packet.write(ESP + 16, [0; 4])?;
        packet.write(ESP + 28, mac.to_ne_bytes())?;
    }
    Some(())
}
