//! The relay of IKE by address translation. Nothing of this is reached, or even verified, where it goes another
//! way.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};
use evergate_common::{
    maps::{Address, Local},
    reason::{Counter, Kind},
    translation::{self, Translates, Translation},
};

use crate::{
    NOT_THIS_WAY, counters,
    maps::{INSIDE_COUNTERS, INSIDE_LOCAL, OUTSIDE_COUNTERS, TOWARD, TRANSLATION},
    packet::Packet,
};

struct World;

impl Translates for World {
    #[inline(always)]
    fn translation(&self) -> Option<&Translation> {
        TRANSLATION.get(0)
    }

    #[inline(always)]
    fn toward(&self, slot: u32) -> Option<Address> {
        let [first, second] = *TOWARD.get(slot)?;
        Some((u128::from(second) << 64 | u128::from(first)).to_le_bytes())
    }

    #[inline(always)]
    fn local(&self) -> Option<&Local> {
        INSIDE_LOCAL.get(0)
    }
}

/// Gives a message of IKE an authority as its destination. A function of its own that starts from the frame
/// again: so the stack suffices, and the verifier goes through it once.
#[inline(never)]
pub fn toward(ctx: &XdpContext) -> u32 {
    // So that the compiler hands over the context, not what it reads from it, as in `keyed_way`.
    let ctx = XdpContext::new(core::hint::black_box(ctx.ctx));
    let mut packet = Packet::new(&ctx);
    let (verdict, counter) = match translation::toward(&packet, &World) {
        Ok(message) => match message.apply(&mut packet) {
            Some(()) => (XDP_PASS, message.counter),
            None => (XDP_DROP, Counter::Malformed),
        },
        Err(counter) => match counter.kind() {
            Kind::Drop => (XDP_DROP, counter),
            Kind::Pass | Kind::Info => (XDP_PASS, counter),
        },
    };
    counters::count(&OUTSIDE_COUNTERS, counter);
    verdict
}

/// Gives an answer the edges' address as its source; then the verdict is `XDP_PASS`. Anything else is none, and
/// nothing was counted.
#[inline(never)]
pub fn back(ctx: &XdpContext) -> u32 {
    let ctx = XdpContext::new(core::hint::black_box(ctx.ctx));
    let mut packet = Packet::new(&ctx);
    let Some(message) = translation::back(&packet, &World) else {
        return NOT_THIS_WAY;
    };
    if message.apply(&mut packet).is_none() {
        return NOT_THIS_WAY;
    }
    counters::count(&INSIDE_COUNTERS, message.counter);
    XDP_PASS
}
