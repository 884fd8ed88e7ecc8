//! Test packets: a generator that sends them over AF_XDP at a rate or as fast as it can, in the clear or
//! sealed by an SA written by hand, and a collector that counts them where they arrive. Each packet has its
//! number and the time it was sent, by the machine's monotonic clock.

mod frames;
mod receive;
mod send;
mod tally;

pub use frames::{Seal, Sizes};
pub use receive::receive;
pub use send::{Plan, Sent, send};
pub use tally::{Latency, Received};
