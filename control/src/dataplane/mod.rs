//! Room `dataplane`: XDP programs, AF_XDP workers and ports. The only writer of BPF maps.

mod announcing;
mod asking;
mod awake;
mod bell;
mod command;
mod core;
mod doze;
mod filter;
mod group;
mod groups;
mod handle;
mod handover;
mod hops;
mod intake;
mod joining;
mod lane_paths;
mod leases;
mod listener;
pub mod loader;
pub mod logbook;
pub mod net;
mod notes;
mod opening;
mod own_port;
mod owners;
mod parking;
mod paths;
pub mod pmtu;
mod ports;
mod probing;
mod pulse;
mod reports;
mod roaming;
mod sealing;
mod session;
mod signs;
mod socket_set;
mod sockopt;
mod start;
mod steering;
mod succession;
mod tenure;
mod translation;
#[doc(hidden)]
pub mod trial;
mod tun;
pub mod udp;
mod view;
mod watching;
mod whereabouts;
mod worker;
pub mod xsk;

pub use command::{
    Command, GroupId, GroupSpec, Lease, Progress, Sending, Steer, Watch, WorkerEvent, WorkerReport,
};
pub use filter::{ClassHits, ClassSpec, Filter, Rule};
pub use handle::Dataplane;
pub use intake::Intake;
pub use paths::Discovery;
pub use start::{InsideOptions, Options, OutsideOptions, SetupError};
pub use translation::TranslationOptions;
pub use tun::{MAX_SEGMENTS, TUN_QUEUE};
pub use view::{GroupView, SessionView, SessionViews, Traffic, Views, WorkerView};
