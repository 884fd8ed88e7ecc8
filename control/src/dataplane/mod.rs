//! Room `dataplane`: XDP programs, AF_XDP workers and ports. The only writer of BPF maps.

mod announcing;
mod bell;
mod command;
mod core;
mod doze;
mod group;
mod groups;
mod handle;
mod handover;
mod hops;
mod intake;
mod joining;
mod listener;
pub mod loader;
pub mod net;
mod opening;
mod paths;
pub mod pmtu;
mod ports;
mod roaming;
mod sealing;
mod session;
mod signs;
mod socket_set;
mod sockopt;
mod start;
mod steering;
#[doc(hidden)]
pub mod trial;
mod tun;
pub mod udp;
mod view;
mod watching;
mod worker;
pub mod xsk;

pub use command::{Command, GroupId, GroupSpec, Sending, Steer, Watch, WorkerEvent, WorkerReport};
pub use handle::Dataplane;
pub use intake::Intake;
pub use paths::Discovery;
pub use start::{InsideOptions, Options, OutsideOptions, SetupError};
pub use tun::{MAX_SEGMENTS, TUN_QUEUE};
pub use view::{GroupView, SessionView, Traffic, Views, WorkerView};
