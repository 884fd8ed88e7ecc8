//! Test packets: a generator that sends them over AF_XDP at a rate or as fast as it can, in the clear or
//! sealed by an SA written by hand, and a collector that counts them where they arrive. Each packet has its
//! number and the time it was sent, by the machine's monotonic clock.

mod frames;
mod receive;
mod send;
mod tally;

use std::time::{Duration, Instant};

use crate::dataplane::xsk::XskError;

pub use evergate_common::sample::{Sizes, Turns};
pub use frames::Seal;
pub use receive::receive;
pub use send::{Plan, Sent, send};
pub use tally::{Latency, Received};

/// How long the kernel may take to give up a queue whose former socket is closed: it does so in a thread of
/// its own, which waits its turn on a busy machine.
const QUEUE_FREED: Duration = Duration::from_secs(2);

/// Opens sockets, and again as long as a queue is taken.
fn patiently<T>(mut open: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + QUEUE_FREED;
    loop {
        match open() {
            Err(error)
                if Instant::now() < deadline
                    && matches!(error.downcast_ref(), Some(XskError::Busy { .. })) =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_queue_that_is_taken_is_waited_for() {
        let mut tries = 0;
        let busy = || XskError::Busy {
            interface: "eth0".into(),
            queue: 0,
        };
        let opened = patiently(|| {
            tries += 1;
            match tries {
                3 => Ok(()),
                _ => Err(busy().into()),
            }
        });
        assert!(opened.is_ok());
        assert_eq!(tries, 3);
        let mut tries = 0;
        let refused: anyhow::Result<()> = patiently(|| {
            tries += 1;
            anyhow::bail!("no such interface")
        });
        assert!(refused.is_err());
        assert_eq!(tries, 1);
    }
}
