//! The XDP programs of evergate.
//!
//! What becomes of a frame is decided in `evergate_common::verdict`; here the decision meets the
//! maps and is turned into a verdict and a counter.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod counters;
mod filter;
mod front;
mod group;
mod guard;
mod heartbeat;
mod lookup;
mod maps;
mod packet;
mod steer;
mod translate;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    macros::xdp,
    maps::{PerCpuArray, XskMap},
    programs::XdpContext,
};
use evergate_common::{
    reason::{Counter, Kind},
    sample, steering,
    verdict::{self, Action},
};
use packet::Packet;

/// The outside interface: ESP and heartbeats.
#[xdp]
pub fn outside(ctx: XdpContext) -> u32 {
    from_outside(&ctx)
}

#[inline(always)]
fn from_outside(ctx: &XdpContext) -> u32 {
    if maps::takes_sent_on() {
        match group::unwrap(ctx) {
            XDP_PASS => {}
            verdict => return verdict,
        }
    }
    if maps::filter() && filter::way(ctx) != XDP_PASS {
        return XDP_DROP;
    }
    if maps::is_front() {
        match front::way(ctx) {
            XDP_PASS => {}
            verdict => return verdict,
        }
    }
    if let Some(mut packet) = Packet::with::<{ verdict::PLAIN_V4_LEN }>(ctx) {
        if let Some(reflection) = verdict::plain_v4(&packet, &heartbeat::World) {
            return answer(&mut packet, &reflection);
        }
        if verdict::looks_keyed_v4(&packet) {
            match keyed_way(ctx) {
                NOT_THIS_WAY => {}
                verdict => return verdict,
            }
        }
    }
    let mut verdict = long_way(ctx);
    if maps::steering() != 0 && verdict == ASK_THE_OTHERS {
        verdict = group::way(ctx);
    }
    if verdict == ASK_THE_GUARD {
        verdict = guard::way(ctx);
    }
    if maps::translates() && verdict == ASK_THE_AUTHORITY {
        verdict = translate::toward(ctx);
    }
    verdict
}

/// No verdict: the long way has to find one, and nothing was counted.
const NOT_THIS_WAY: u32 = u32::MAX;

/// The short way of the keyed form. A function of its own, because it needs much of the stack.
#[inline(never)]
fn keyed_way(ctx: &XdpContext) -> u32 {
    // So that the compiler hands over the context, not what it reads from it: the verifier would not
    // know that again.
    let ctx = XdpContext::new(core::hint::black_box(ctx.ctx));
    let Some(mut packet) = Packet::with::<{ verdict::KEYED_V4_LEN }>(&ctx) else {
        return NOT_THIS_WAY;
    };
    match verdict::keyed_v4(&packet, &heartbeat::World) {
        Some(reflection) => answer(&mut packet, &reflection),
        None => NOT_THIS_WAY,
    }
}

#[inline(always)]
fn answer(packet: &mut Packet, reflection: &verdict::Reflection) -> u32 {
    let (verdict, counter) = heartbeat::reflect(packet, reflection);
    counters::count(&maps::OUTSIDE_COUNTERS, counter);
    verdict
}

/// No verdict: the guard before IKE has to say something, and nothing was counted.
const ASK_THE_GUARD: u32 = u32::MAX;

/// No verdict: another gateway that shares the node's address may own the packet, and nothing was counted.
const ASK_THE_OTHERS: u32 = u32::MAX - 1;

/// No verdict: an authority has to answer, and nothing was counted.
const ASK_THE_AUTHORITY: u32 = u32::MAX - 2;

/// A function of its own, so that the verifier forgets what the short way had found out and goes
/// through this once, not once for each place where the short way gives up.
#[inline(never)]
fn long_way(ctx: &XdpContext) -> u32 {
    let mut packet = Packet::new(ctx);
    let decision = verdict::outside(&packet, &heartbeat::World);
    if maps::translates() && matches!(decision, Ok(Action::Guard)) {
        return match guard::is_up() {
            true => ASK_THE_GUARD,
            false => ASK_THE_AUTHORITY,
        };
    }
    if maps::steering() != 0 && steering::asks(&decision) {
        return ASK_THE_OTHERS;
    }
    carry_out(
        ctx,
        &mut packet,
        decision,
        &maps::OUTSIDE_XSKS,
        &maps::OUTSIDE_COUNTERS,
    )
}

/// `outside` for benchmarks: makes the answer of the run before a request again, because a run that
/// is repeated goes on with the packet that it left. Never attached to an interface.
#[xdp]
pub fn again(ctx: XdpContext) -> u32 {
    heartbeat::undo(&mut Packet::new(&ctx));
    from_outside(&ctx)
}

/// What `again` does beside `outside`, and the yardstick's swap, to be taken off in benchmarks.
#[xdp]
pub fn undo(ctx: XdpContext) -> u32 {
    let mut packet = Packet::new(&ctx);
    heartbeat::undo(&mut packet);
    match heartbeat::swap(&mut packet) {
        Some(()) => XDP_TX,
        None => XDP_DROP,
    }
}

/// The inside interface: packets that belong into a tunnel.
#[xdp]
pub fn inside(ctx: XdpContext) -> u32 {
    if maps::translates() && translate::back(&ctx) == XDP_PASS {
        return XDP_PASS;
    }
    let mut packet = Packet::new(&ctx);
    let decision = verdict::inside(&packet, &lookup::World);
    carry_out(
        &ctx,
        &mut packet,
        decision,
        &maps::INSIDE_XSKS,
        &maps::INSIDE_COUNTERS,
    )
}

/// The interface toward an authority, where that is not the inside one: its answers get the address that the
/// edges share. Everything goes to the kernel.
#[xdp]
pub fn answers(ctx: XdpContext) -> u32 {
    translate::back(&ctx);
    XDP_PASS
}

/// Leaves everything to the kernel. A veth takes frames from XDP only if its other end has a
/// program too.
#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Swaps the link addresses and sends every frame back: the yardstick of the benchmarks.
#[xdp]
pub fn swap(ctx: XdpContext) -> u32 {
    match heartbeat::swap(&mut Packet::new(&ctx)) {
        Some(()) => XDP_TX,
        None => XDP_DROP,
    }
}

/// Test packets go to the socket of their queue, everything else to the kernel.
#[xdp]
pub fn collect(ctx: XdpContext) -> u32 {
    match sample::is_sample(&Packet::new(&ctx)) {
        true => steer::to_socket(&ctx, &maps::INSIDE_XSKS, Counter::Passed).0,
        false => XDP_PASS,
    }
}

/// The verdict table.
#[inline(always)]
fn carry_out(
    ctx: &XdpContext,
    packet: &mut Packet,
    decision: Result<Action, Counter>,
    sockets: &XskMap,
    counters: &PerCpuArray<u64>,
) -> u32 {
    let (verdict, counter) = match decision {
        Ok(Action::Pass) => (XDP_PASS, Counter::Passed),
        Ok(Action::Steer(counter)) => steer::to_socket(ctx, sockets, counter),
        Ok(Action::Absorb(counter)) => (XDP_DROP, counter),
        Ok(Action::Reflect(reflection)) => heartbeat::reflect(packet, &reflection),
        Ok(Action::Guard) if guard::is_up() => return ASK_THE_GUARD,
        Ok(Action::Guard) => (XDP_PASS, Counter::Passed),
        Err(counter) => match counter.kind() {
            Kind::Drop => (XDP_DROP, counter),
            Kind::Pass | Kind::Info => (XDP_PASS, counter),
        },
    };
    counters::count(counters, counter);
    verdict
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lets programs under GPL-compatible licences call all helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
