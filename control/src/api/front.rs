//! What the API says of a front.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A front and the encryption nodes behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// Its own address, beside the shared one.
    pub address: IpAddr,
    /// Slots of clients, all nodes together.
    pub slots: u32,
    pub nodes: Vec<FrontNode>,
}

/// An encryption node as its front sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontNode {
    pub number: u8,
    /// Its own address, beside the shared one.
    pub address: IpAddr,
    /// It is the front itself.
    pub own: bool,
    pub state: NodeState,
    /// Slots of clients that lead to it.
    pub slots: u32,
    pub heartbeats_sent: u64,
    pub heartbeats_answered: u64,
    /// Round-trip time of the last answered heartbeat, microseconds.
    pub rtt_us: Option<u64>,
}

/// How an encryption node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It has its share of clients.
    Well,
    /// It was dead, lives again, and has to do so for a while before it gets clients.
    Proving,
    /// It lets go of its clients.
    Draining,
    /// It does not answer, or no way leads there.
    Dead,
}
