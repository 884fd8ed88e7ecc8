//! What the data plane needs of the network around it: next hops, the slow path through the
//! kernel, address announcement, and the small codecs of the inner side.
//!
//! All of it is free of I/O except [`errors`], [`fib_watch`], [`groups`], [`links`], [`slow`] and [`whole`]. `docs/neighbours.md`
//! tells how the pieces work together.

pub mod announce;
pub mod arp;
pub mod checksum;
pub mod coalesce;
pub mod errors;
pub mod fib;
pub mod fib_watch;
pub mod fragment;
pub mod frame;
pub mod groups;
pub mod icmp;
mod ip;
pub mod links;
pub mod lpm;
pub mod mss;
pub mod nd;
pub mod overhead;
pub mod quote;
pub mod segment;
pub mod slow;
pub mod whole;

mod netlink;
mod notices;
pub(crate) mod offline;
