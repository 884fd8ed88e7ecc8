//! A worker that goes to sleep while another one writes something for it.

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

use crate::doze::Doze;

/// A worker that sleeps although there is a letter sleeps for ever.
pub(crate) fn letters_are_found() {
    let letters = Arc::new(AtomicUsize::new(0));
    let (doze, wake) = (Arc::new(Doze::new()), Arc::new(Notify::new()));
    let writer = {
        let (letters, doze, wake) = (Arc::clone(&letters), Arc::clone(&doze), Arc::clone(&wake));
        thread::spawn(move || {
            for number in 1..=2 {
                letters.store(number, Ordering::Release);
                if doze.must_be_woken() {
                    wake.notify();
                }
            }
        })
    };
    loop {
        let read = letters.load(Ordering::Acquire);
        if read == 2 {
            break;
        }
        doze.lies_down();
        if letters.load(Ordering::Acquire) == read {
            wake.wait();
        }
        doze.gets_up();
    }
    writer.join().unwrap();
}
