//! Commands to a worker: a queue, and a bell that is rung once for all that came before.

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

use crate::bell::Bell;

/// A queue and what wakes its reader, as the kernel's event counter does.
struct Desk {
    /// Commands in the queue. A reader is only sure to see what was sent before something that it
    /// has synchronised with, as with any queue that has no lock.
    sent: AtomicUsize,
    bell: Bell,
    wake: Notify,
}

impl Desk {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            sent: AtomicUsize::new(0),
            bell: Bell::new(),
            wake: Notify::new(),
        })
    }

    fn command(&self) {
        self.sent.fetch_add(1, Ordering::Release);
        self.bell.sent();
    }

    fn wake(&self) {
        if self.bell.must_ring() {
            self.wake.notify();
        }
    }

    /// The worker: sleeps until it is woken, unless there is work.
    fn work_off(&self, all: usize) {
        while self.sent.load(Ordering::Acquire) < all {
            self.wake.wait();
        }
    }
}

/// Two commands, one wake-up after both or one after each.
pub(crate) fn one_sender() {
    let desk = Desk::new();
    let sender = Arc::clone(&desk);
    let sender = thread::spawn(move || {
        sender.command();
        sender.wake();
        sender.command();
        sender.wake();
    });
    desk.work_off(2);
    sender.join().unwrap();
}

/// One of them may wake the worker for both: a worker that then misses a command sleeps for ever.
pub(crate) fn two_senders() {
    let desk = Desk::new();
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let desk = Arc::clone(&desk);
            thread::spawn(move || {
                desk.command();
                desk.wake();
            })
        })
        .collect();
    desk.work_off(2);
    for sender in senders {
        sender.join().unwrap();
    }
}
