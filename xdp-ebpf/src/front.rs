//! A front before encryption nodes. Nothing of this is reached, or even verified, where there is none.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};
use evergate_common::{
    front::{Front, judge},
    reason::Counter,
};

use crate::{
    counters, group,
    heartbeat::World,
    maps::{self, NODES, OUTSIDE_COUNTERS},
    packet::Packet,
};

impl Front for World {
    #[inline(always)]
    fn own_share(&self) -> u8 {
        maps::own_share()
    }

    #[inline(always)]
    fn leads_to(&self, slot: u32) -> Option<u8> {
        NODES.get(slot).map(|number| *number as u8)
    }
}

/// A verdict, and counted, or `XDP_PASS`: the packet stays here, and the rest of the program goes on. A
/// function of its own, so that the stack suffices, and the verifier goes through it once.
#[inline(never)]
pub fn way(ctx: &XdpContext) -> u32 {
    let steered = judge(&Packet::new(ctx), &World);
    let (verdict, counter) = if steered.goes() {
        group::send(ctx, &steered)
    } else if steered.counter == Counter::Passed {
        return XDP_PASS;
    } else {
        (XDP_DROP, steered.counter)
    };
    counters::count(&OUTSIDE_COUNTERS, counter);
    verdict
}
