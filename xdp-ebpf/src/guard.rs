//! The guard before IKE: what becomes of first messages while it is up.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    helpers::bpf_xdp_adjust_tail,
    programs::XdpContext,
};
use evergate_common::{
    guard::{Judged, Question, judge},
    packet::Bytes as _,
    reason::Counter,
};

use crate::{ASK_THE_AUTHORITY, counters, maps, packet::Packet};

/// Whether it is up.
#[inline(always)]
pub fn is_up() -> bool {
    maps::GUARD.get(0).is_some_and(|guard| guard.is_up())
}

/// Judges a message of IKE. A function of its own that starts from the frame again: so the stack
/// suffices, and the verifier goes through it once.
#[inline(never)]
pub fn way(ctx: &XdpContext) -> u32 {
    let judged = match maps::GUARD.get(0) {
        Some(guard) => judge(&Packet::new(ctx), guard),
        None => Judged::Pass(Counter::Passed),
    };
    let (verdict, counter) = match judged {
        Judged::Pass(_) if maps::translates() => return ASK_THE_AUTHORITY,
        Judged::Pass(counter) => (XDP_PASS, counter),
        Judged::Refuse => (XDP_DROP, Counter::IkeGuarded),
        Judged::Ask(question) => match ask(ctx, &question) {
            0 => (XDP_TX, Counter::IkeAsked),
            _ => (XDP_DROP, Counter::IkeGuarded),
        },
    };
    counters::count(&maps::OUTSIDE_COUNTERS, counter);
    verdict
}

/// Turns the first message into the request for a cookie and cuts the frame to its length; 0 if all
/// went well.
#[inline(never)]
fn ask(ctx: &XdpContext, question: &Question) -> i64 {
    let mut packet = Packet::new(ctx);
    let length = packet.length();
    let Some(kept) = question.apply(&mut packet) else {
        return -1;
    };
    let change = kept as i32 - length as i32;
    // SAFETY: the program's own context; nothing looks into the frame afterwards.
    unsafe { bpf_xdp_adjust_tail(ctx.ctx, change) }
}
