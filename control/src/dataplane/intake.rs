//! The way into the worker for ESP that did not come by its ports: what the kernel has put together of
//! fragments.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use evergate_common::packet::{self, Class};

use super::handover::Sleeper;
use super::udp::{MOST, put};
use super::xsk::{CHUNK, HEADROOM};

/// Packets that may wait for the worker.
const WAITING: usize = 128;

/// The longest frame that has room in a chunk; the tail stays free, as in what a NIC brings.
const LONGEST: usize = CHUNK - 2 * HEADROOM;

/// What could not be handed over, since the worker has looked last.
#[derive(Debug, Default)]
struct Lost {
    long: AtomicU64,
    full: AtomicU64,
}

/// The end that hands over.
#[derive(Clone)]
pub struct Intake {
    frames: SyncSender<Vec<u8>>,
    lost: Arc<Lost>,
    sleeper: Arc<Sleeper>,
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Taken {
    frames: Receiver<Vec<u8>>,
    lost: Arc<Lost>,
}

/// A way in to the worker that may have to be woken so.
pub(super) fn intake(sleeper: Arc<Sleeper>) -> (Intake, Taken) {
    let (sender, frames) = sync_channel(WAITING);
    let lost = Arc::new(Lost::default());
    let intake = Intake {
        frames: sender,
        lost: Arc::clone(&lost),
        sleeper,
    };
    (intake, Taken { frames, lost })
}

impl Intake {
    /// Hands over a frame that a NIC might have brought. Never waits: what does not fit is counted.
    pub fn hand(&self, frame: Vec<u8>) {
        let lost = if frame.len() > LONGEST {
            Some(&self.lost.long)
        } else {
            self.frames.try_send(frame).err().map(|_| &self.lost.full)
        };
        match lost {
            Some(lost) => drop(lost.fetch_add(1, Ordering::Relaxed)),
            None => self.sleeper.wake(),
        }
    }

    /// Hands over the payload of a datagram with ESP in it.
    pub fn hand_datagram(&self, payload: &[u8], from: SocketAddr, to: SocketAddr) {
        let mut frame = vec![0; MOST + payload.len()];
        if let Some(place) = frame.get_mut(MOST..) {
            place.copy_from_slice(payload);
        }
        // The type of service is not known: a congestion mark of a fragment is lost.
        if let Some(range) = put(&mut frame, MOST, payload.len(), from, to, 0) {
            frame.truncate(range.end);
            frame.drain(..range.start);
            self.hand(frame);
        }
    }
}

impl Taken {
    /// The next frame.
    pub(super) fn next(&self) -> Option<Vec<u8>> {
        self.frames.try_recv().ok()
    }

    /// How many were too long, and how many found the queue full, since the last call.
    pub(super) fn lost(&self) -> (u64, u64) {
        // Read before it is written: the worker asks often, and there are hardly ever any.
        let take = |lost: &AtomicU64| match lost.load(Ordering::Relaxed) {
            0 => 0,
            _ => lost.swap(0, Ordering::Relaxed),
        };
        (take(&self.lost.long), take(&self.lost.full))
    }
}

/// Whether a frame holds ESP of a session, and no heartbeat.
pub(super) fn is_esp(frame: &[u8]) -> bool {
    let Ok(parsed) = packet::parse(frame) else {
        return false;
    };
    matches!(packet::classify(&parsed, frame), Ok(Class::Esp(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evergate_common::packet::{Class, classify, parse};
    use std::time::Instant;

    fn way() -> (Intake, Taken) {
        intake(Arc::new(Sleeper::new(Instant::now()).unwrap()))
    }

    #[test]
    fn a_queue_has_an_end_and_so_has_a_frame() {
        let (intake, taken) = way();
        for _ in 0..WAITING + 3 {
            intake.hand(vec![0; LONGEST]);
        }
        intake.hand(vec![0; LONGEST + 1]);
        assert_eq!(taken.lost(), (1, 3));
        assert_eq!(taken.lost(), (0, 0));
        assert_eq!(std::iter::from_fn(|| taken.next()).count(), WAITING);
    }

    #[test]
    fn a_datagram_becomes_a_frame_with_esp() {
        let (intake, taken) = way();
        let esp = [&7777u32.to_be_bytes()[..], &[1; 60]].concat();
        for (from, to) in [
            ("192.0.2.7:40000", "192.0.2.1:4500"),
            ("[2001:db8::7]:40000", "[2001:db8::1]:4500"),
        ] {
            intake.hand_datagram(&esp, from.parse().unwrap(), to.parse().unwrap());
            let frame = taken.next().unwrap();
            let parsed = parse(&frame[..]).unwrap();
            let Ok(Class::Esp(found)) = classify(&parsed, &frame[..]) else {
                panic!("no ESP");
            };
            assert_eq!(found.udp.unwrap().source, 40_000);
            assert_eq!(frame[found.offset..], esp[..]);
        }
    }
}
