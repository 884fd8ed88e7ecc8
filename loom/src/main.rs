//! Models for loom: the node's own synchronisation, from the node's own sources, in every order that
//! two threads can have and with every value that an atomic may yield. `cargo xtask check-memory loom`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The atomics that the sources below use.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
}

#[path = "../../control/src/dataplane/bell.rs"]
mod bell;
#[path = "../../control/src/dataplane/doze.rs"]
mod doze;
// The models make no sockets.
#[allow(dead_code)]
#[path = "../../control/src/dataplane/xsk/ring.rs"]
mod ring;

mod bell_models;
mod doze_models;
mod ring_models;

/// More than so many times a thread is not interrupted in one order: three threads have too many.
const INTERRUPTIONS: usize = 3;

fn main() {
    run(
        "ring: frames go over whole",
        None,
        ring_models::frames_go_over,
    );
    run(
        "bell: no command is slept through",
        None,
        bell_models::one_sender,
    );
    run(
        "doze: no letter is slept through",
        None,
        doze_models::letters_are_found,
    );
    let two = bell_models::two_senders;
    run("bell: the same with two senders", Some(INTERRUPTIONS), two);
}

fn run(name: &str, interruptions: Option<usize>, model: fn()) {
    let orders = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = interruptions;
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        model();
    });
    println!("{name}: {} orders", orders.load(Relaxed));
}
