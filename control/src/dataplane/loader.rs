//! Loads the XDP programs, attaches them, and is the only writer of their maps.
//!
//! Loading and attaching are two steps, because the program attaches last: first sockets, SAs and
//! addresses go into the maps, then traffic meets the program. A program is attached by a BPF link
//! whose file descriptor ends with the process, so a daemon that is killed leaves nothing behind.

mod bare;
mod collector;
mod error;
mod filter;
mod front;
mod group;
mod inside;
mod interface;
mod local;
mod node_state;
mod outside;
mod program;
mod translation;

pub use bare::{Bare, BareProgram};
pub use collector::Collector;
pub use error::LoadError;
pub use front::SlotsWriter;
pub use inside::Inside;
pub use interface::{link_address, queues};
pub use node_state::{NodeStateWriter, monotonic_ns};
pub use outside::{Outside, OutsideSettings};
pub use program::{Attached, AttachedMode, Counters, Run, XdpMode};
pub use translation::Answers;

/// The object file with all programs, as built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/evergate-xdp"));
