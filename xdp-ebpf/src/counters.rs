//! Counting what became of a frame.

use aya_ebpf::maps::PerCpuArray;
use evergate_common::reason::Counter;

#[inline(always)]
pub fn count(counters: &PerCpuArray<u64>, counter: Counter) {
    if let Some(slot) = counters.get_ptr_mut(counter as u32) {
        // SAFETY: the slot is this CPU's own and lives as long as the map; a program is not
        // interrupted by another run of itself on the same CPU.
        unsafe { *slot += 1 };
    }
}
