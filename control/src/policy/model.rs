//! The policy as written: sections, entries and their defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration::spell;

/// Names a cluster everywhere in evergate.
///
/// A cluster of the policy has its own number, 0 to [`ClusterId::HIGHEST_NAMED`]. A plain gateway
/// address acts as a cluster of one, whose id has bit 31 set.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ClusterId(pub u32);

impl ClusterId {
    /// The highest number that a policy may give to a cluster; the ids above are derived.
    pub const HIGHEST_NAMED: u32 = 0x7FFF_FFFF;

    /// Whether this is the cluster of one that a plain gateway address stands for.
    pub fn is_implicit(self) -> bool {
        self.0 > Self::HIGHEST_NAMED
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When heartbeats are sent toward a silent active gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeartbeatMode {
    /// Never; the default, as in the source.
    #[default]
    None,
    /// Only once there is outbound payload for the gateway.
    Deferred,
    /// As soon as the gateway has been silent for the defer time.
    Instant,
}

/// What a heartbeat carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeartbeatForm {
    /// Any payload, reflected without proof: for gateways that are not evergate.
    Plain,
    /// A token and a MAC under a key of the session.
    #[default]
    Keyed,
}

/// The `[GENERAL]` section with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct General {
    pub heartbeat: HeartbeatMode,
    /// How long an answer to a heartbeat may take before the second one is sent, and after the
    /// second one before the gateway is held for dead. 1 ms to 1 h; default 500 ms.
    pub response_time: Duration,
    /// How long the active gateway must have been silent before a heartbeat is due.
    /// 1 ms to 1 h; default 1 s.
    pub defer_time: Duration,
    pub form: HeartbeatForm,
    /// Whether the gateways of each cluster are shuffled at each read of the policy.
    pub random_order: bool,
    /// How many further gateways of a cluster are kept keyed beside the active one.
    pub standby: u32,
}

impl Default for General {
    fn default() -> Self {
        Self {
            heartbeat: HeartbeatMode::None,
            response_time: Duration::from_millis(500),
            defer_time: Duration::from_secs(1),
            form: HeartbeatForm::Keyed,
            random_order: true,
            standby: 0,
        }
    }
}

/// One `Cluster <number>` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDef {
    /// In the order written; at least one, none twice.
    pub gateways: Vec<IpAddr>,
}

/// What leads to a target: one gateway, or a cluster by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Gateway(IpAddr),
    Cluster(u32),
}

/// Where a tunnel leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Via(Via),
    /// The server address that the node detects, possibly redirected.
    Auto,
}

/// One `Tunnel <number>` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelDef {
    /// Where ranges overlap, the lowest number wins.
    pub number: u32,
    /// First address of the range; same family as `end`.
    pub start: IpAddr,
    /// Last address of the range (inclusive), not below `start`.
    pub end: IpAddr,
    pub target: Target,
}

/// One `Redirect Tunnel <number>` entry: where an AUTO tunnel leads when `server` was detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectDef {
    /// The number of the AUTO tunnel.
    pub tunnel: u32,
    pub server: IpAddr,
    pub via: Via,
}

/// A policy as the operator wrote it, checked.
///
/// `Display` writes it in the syntax of the file; parsing that gives an equal policy.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Policy {
    pub general: General,
    pub clusters: BTreeMap<u32, ClusterDef>,
    /// By ascending number.
    pub tunnels: Vec<TunnelDef>,
    /// By ascending tunnel number, then server.
    pub redirects: Vec<RedirectDef>,
}

impl fmt::Display for HeartbeatMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::Deferred => "DEFERRED",
            Self::Instant => "INSTANT",
        })
    }
}

impl fmt::Display for HeartbeatForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "PLAIN",
            Self::Keyed => "KEYED",
        })
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(address) => address.fmt(f),
            Self::Cluster(number) => write!(f, "Cluster {number}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Via(via) => via.fmt(f),
            Self::Auto => f.write_str("AUTO"),
        }
    }
}

impl fmt::Display for General {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Heartbeat = {}", self.heartbeat)?;
        writeln!(f, "HeartbeatResponseTime = {}", spell(self.response_time))?;
        writeln!(f, "HeartbeatDeferTime = {}", spell(self.defer_time))?;
        writeln!(f, "HeartbeatForm = {}", self.form)?;
        writeln!(
            f,
            "RandomOrder = {}",
            if self.random_order { "yes" } else { "no" }
        )?;
        writeln!(f, "Standby = {}", self.standby)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[GENERAL]\n{}", self.general)?;
        if !self.clusters.is_empty() {
            f.write_str("\n[CLUSTER]\n")?;
        }
        for (number, cluster) in &self.clusters {
            write!(f, "Cluster {number} =")?;
            for gateway in &cluster.gateways {
                write!(f, " {gateway}")?;
            }
            f.write_str("\n")?;
        }
        if !self.tunnels.is_empty() || !self.redirects.is_empty() {
            f.write_str("\n[TUNNEL]\n")?;
        }
        for TunnelDef {
            number,
            start,
            end,
            target,
        } in &self.tunnels
        {
            write!(f, "Tunnel{number} = {start}")?;
            if end != start {
                write!(f, " - {end}")?;
            }
            writeln!(f, " {target}")?;
        }
        for RedirectDef {
            tunnel,
            server,
            via,
        } in &self.redirects
        {
            writeln!(f, "Redirect Tunnel{tunnel} = {server} {via}")?;
        }
        Ok(())
    }
}
