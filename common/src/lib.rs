#![no_std]
//! What the XDP programs and user space share: wire constants, the packet parser, the heartbeat
//! codec, the guard before IKE, the packet filter of an edge, steering between gateways of one address and to the nodes behind it, the relay of IKE by translation, the decisions of the XDP programs, map types, and the one list of counters.
//!
//! Everything here runs in two worlds: compiled for the BPF target inside the kernel, and on the
//! host in user space and in tests. So it allocates nothing, indexes nothing without a check, and
//! has only loops that the BPF verifier can bound.

pub mod checksum;
pub mod filter;
pub mod front;
pub mod guard;
pub mod heartbeat;
pub mod maps;
pub mod packet;
pub mod reason;
pub mod sample;
pub mod siphash;
pub mod steering;
pub mod translation;
pub mod verdict;
pub mod wire;

#[cfg(test)]
extern crate std;
