//! Gateways that share an address: what is for another one goes to it, and what another one has sent in
//! IP is taken out. Nothing of this is reached, or even verified, where no address is shared.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    helpers::{bpf_redirect, bpf_xdp_adjust_head},
    programs::XdpContext,
};
use evergate_common::{
    maps::Address,
    reason::Counter,
    steering::{self, Gateway, Group, Steered},
};

use crate::{
    ASK_THE_GUARD, counters, guard,
    heartbeat::World,
    maps::{self, GATEWAYS, OUTSIDE_COUNTERS, OUTSIDE_XSKS, OWN_ADDRESS, OWNERS},
    packet::Packet,
    steer,
};

impl Group for World {
    #[inline(always)]
    fn number(&self) -> u8 {
        maps::steering()
    }

    #[inline(always)]
    fn owner(&self, spi: &[u8; 4]) -> Option<u8> {
        // SAFETY: OWNERS does not preallocate, so an entry that is removed meanwhile stays as it is
        // until the program has ended.
        let owner = unsafe { OWNERS.get(u32::from_ne_bytes(*spi)) };
        owner.map(|number| *number as u8)
    }

    #[inline(always)]
    fn gateway(&self, number: u8) -> Option<&Gateway> {
        GATEWAYS.get(u32::from(number))
    }

    #[inline(always)]
    fn own_address(&self) -> Option<Address> {
        let [first, second] = *OWN_ADDRESS.get(0)?;
        Some((u128::from(second) << 64 | u128::from(first)).to_le_bytes())
    }
}

/// Sends what belongs to another gateway on its way. A function of its own that starts from the frame
/// again: so the stack suffices, and the verifier goes through it once.
#[inline(never)]
pub fn way(ctx: &XdpContext) -> u32 {
    let steered = steering::judge(&Packet::new(ctx), &World);
    let (verdict, counter) = if steered.goes() {
        send(ctx, &steered)
    } else if steered.counter == Counter::EspUnknown {
        steer::to_socket(ctx, &OUTSIDE_XSKS, Counter::EspUnknown)
    } else if steered.counter != Counter::Passed {
        (XDP_DROP, steered.counter)
    } else if guard::is_up() {
        return ASK_THE_GUARD;
    } else {
        (XDP_PASS, Counter::Passed)
    };
    counters::count(&OUTSIDE_COUNTERS, counter);
    verdict
}

/// Readies the frame and sends it: verdict and counter.
#[inline(always)]
pub fn send(ctx: &XdpContext, steered: &Steered) -> (u32, Counter) {
    let room = steered.room() as i32;
    // SAFETY: the program's own context; the frame is looked up anew afterwards.
    if room > 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, -room) } != 0 {
        return (XDP_DROP, Counter::NoRoom);
    }
    let interface = steered.interface();
    match steered.apply(&mut Packet::new(ctx)) {
        Some(()) if interface == 0 => (XDP_TX, steered.counter),
        // SAFETY: a helper that takes numbers; it fails for unknown flags alone.
        Some(()) => (unsafe { bpf_redirect(interface, 0) } as u32, steered.counter),
        None => (XDP_DROP, Counter::Malformed),
    }
}

/// Takes a packet that another gateway has sent in IP out of it, for the program to go on with. Anything
/// but `XDP_PASS` is a verdict.
#[inline(never)]
pub fn unwrap(ctx: &XdpContext) -> u32 {
    let mut packet = Packet::new(ctx);
    let Some(wrapping) = steering::wrapped(&packet, &World) else {
        return XDP_PASS;
    };
    let counter = if !wrapping.ours() {
        Counter::SteerAstray
    } else if wrapping.apply(&mut packet).is_none() {
        Counter::Malformed
    } else {
        // SAFETY: as above.
        match unsafe { bpf_xdp_adjust_head(ctx.ctx, wrapping.excess() as i32) } {
            0 => Counter::SteerUnwrapped,
            _ => Counter::Malformed,
        }
    };
    counters::count(&OUTSIDE_COUNTERS, counter);
    match counter {
        Counter::SteerUnwrapped => XDP_PASS,
        _ => XDP_DROP,
    }
}
