//! Handshakes per second of the `ike` room as responder on one thread, without sockets and data plane,
//! and the memory that a session takes there.

mod handshakes;

use std::alloc::System;

use handshakes::{Proven, measure};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what is allocated and freed.
#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that are allocated and not yet freed.
fn live() -> isize {
    let stats = MEMORY.stats();
    let live = stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated);
    live as isize
}

fn main() {
    println!("  responder, one thread           handshakes       each    per session");
    for (name, proven, count) in [
        ("PSK, x25519", Proven::Psk, 4096),
        ("ECDSA P-256 both ways, x25519", Proven::Ecdsa, 2048),
    ] {
        let (time, memory) = measure(proven, 1, count, live);
        let seconds = time.as_secs_f64();
        println!(
            "  {name:<30} {:>8.0} /s {:>7.1} µs {:>8} bytes",
            1.0 / seconds,
            seconds * 1e6,
            memory
        );
    }
}
