//! Handing a frame to the AF_XDP socket of its receive queue.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_REDIRECT},
    maps::XskMap,
    programs::XdpContext,
};
use evergate_common::reason::Counter;

/// Without a socket on the queue the frame is dropped: what was meant for a worker must not reach
/// the kernel's own stack.
#[inline(always)]
pub fn to_socket(ctx: &XdpContext, sockets: &XskMap, counter: Counter) -> (u32, Counter) {
    match sockets.redirect(ctx.rx_queue_index(), XDP_DROP.into()) {
        Ok(_) => (XDP_REDIRECT, counter),
        Err(_) => (XDP_DROP, Counter::NoSocket),
    }
}
