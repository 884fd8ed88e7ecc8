//! From what the operator wrote to what a node works with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use rand::Rng;
use rand::seq::SliceRandom;

use super::address::not_unicast;
use super::model::{ClusterId, General, Policy, Target, TunnelDef, Via};
use super::ownership::Ownership;

/// A cluster with its gateways in the order in which they are to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub id: ClusterId,
    /// `Cluster 1`, or `gateway 192.0.2.1` for one that stands for a plain address.
    pub name: String,
    /// At least one, none twice.
    pub gateways: Vec<IpAddr>,
}

/// A tunnel whose target is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub number: u32,
    /// The range as written; tunnels with lower numbers may own a part of it.
    pub start: IpAddr,
    /// Inclusive.
    pub end: IpAddr,
    /// The minimal cover of what this tunnel owns; disjoint from that of every other tunnel.
    /// Empty if lower-numbered tunnels own the whole range.
    pub prefixes: Vec<IpNet>,
    /// One of [`Resolved::clusters`].
    pub cluster: ClusterId,
}

/// Why an AUTO tunnel leads nowhere yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyUnresolved {
    /// The node knows no server address.
    NoServer,
    /// The server address it knows belongs to no single host.
    UnusableServer(IpAddr),
}

/// An AUTO tunnel without a server. It owns its addresses all the same: they belong to no other
/// tunnel, and traffic for them must not leave in plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    pub number: u32,
    pub start: IpAddr,
    /// Inclusive.
    pub end: IpAddr,
    pub prefixes: Vec<IpNet>,
    pub why: WhyUnresolved,
}

/// A policy as a node works with it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Resolved {
    pub general: General,
    /// By ascending id; those of the policy come before those of plain gateways.
    pub clusters: Vec<Cluster>,
    /// By ascending number.
    pub tunnels: Vec<Tunnel>,
    /// AUTO tunnels that lead nowhere yet, by ascending number.
    pub unresolved: Vec<Unresolved>,
}

impl fmt::Display for WhyUnresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => f.write_str("AUTO, but no server address is known"),
            Self::UnusableServer(server) => write!(f, "AUTO, but {server} can not be a server"),
        }
    }
}

impl Resolved {
    /// The cluster named by `id`.
    pub fn cluster(&self, id: ClusterId) -> Option<&Cluster> {
        let at = self
            .clusters
            .binary_search_by_key(&id, |cluster| cluster.id)
            .ok()?;
        self.clusters.get(at)
    }
}

impl Policy {
    /// Settles what the text leaves open: AUTO, the order of gateways, and overlaps.
    ///
    /// `auto` is the server address that the node detected. An AUTO tunnel leads to it, or to
    /// where a redirect of that tunnel for that server says. Unless `RandomOrder = no`, the
    /// gateways of each cluster are shuffled afresh by each call, so that the clients of a dead
    /// gateway spread over the others.
    pub fn resolve(&self, auto: Option<IpAddr>, rng: &mut impl Rng) -> Resolved {
        let auto = match auto.map(|server| server.to_canonical()) {
            None => Err(WhyUnresolved::NoServer),
            Some(server) if not_unicast(server).is_some() => {
                Err(WhyUnresolved::UnusableServer(server))
            }
            Some(server) => Ok(server),
        };
        let (_, claims) = Ownership::of(&self.tunnels);
        let redirects: BTreeMap<(u32, IpAddr), Via> = self
            .redirects
            .iter()
            .map(|r| ((r.tunnel, r.server), r.via))
            .collect();
        let vias: Vec<Result<Via, WhyUnresolved>> = claims
            .iter()
            .map(|(tunnel, _)| match tunnel.target {
                Target::Via(via) => Ok(via),
                Target::Auto => auto.map(|server| {
                    let redirected = redirects.get(&(tunnel.number, server)).copied();
                    redirected.unwrap_or(Via::Gateway(server))
                }),
            })
            .collect();
        let implicit = implicit_ids(vias.iter().flatten());
        let mut clusters: Vec<Cluster> = self
            .clusters
            .iter()
            .map(|(number, cluster)| {
                let mut gateways = cluster.gateways.clone();
                if self.general.random_order {
                    gateways.shuffle(rng);
                }
                Cluster {
                    id: ClusterId(*number),
                    name: format!("Cluster {number}"),
                    gateways,
                }
            })
            .collect();
        clusters.extend(implicit.iter().map(|(gateway, id)| Cluster {
            id: *id,
            name: format!("gateway {gateway}"),
            gateways: vec![*gateway],
        }));
        clusters.sort_by_key(|cluster| cluster.id);
        let mut resolved = Resolved {
            general: self.general.clone(),
            clusters,
            ..Resolved::default()
        };
        for ((tunnel, claim), via) in claims.into_iter().zip(vias) {
            let TunnelDef {
                number, start, end, ..
            } = *tunnel;
            let prefixes = claim.prefixes();
            let cluster = via.map(|via| match via {
                Via::Cluster(number) => ClusterId(number),
                // Every gateway of `vias` has an id; the default is never taken.
                Via::Gateway(gateway) => implicit.get(&gateway).copied().unwrap_or_default(),
            });
            match cluster {
                Ok(cluster) => {
                    resolved.tunnels.push(Tunnel {
                        number,
                        start,
                        end,
                        prefixes,
                        cluster,
                    });
                }
                Err(why) => {
                    let unresolved = Unresolved {
                        number,
                        start,
                        end,
                        prefixes,
                        why,
                    };
                    resolved.unresolved.push(unresolved);
                }
            }
        }
        resolved
    }
}

/// Ids for plain gateways: bit 31 set, the rest a hash of the address, so that the same gateway
/// has the same id in every policy. Should two gateways of one policy collide, the higher
/// address takes the next free id.
fn implicit_ids<'a>(vias: impl Iterator<Item = &'a Via>) -> BTreeMap<IpAddr, ClusterId> {
    let gateways: BTreeSet<IpAddr> = vias
        .filter_map(|via| match via {
            Via::Gateway(gateway) => Some(*gateway),
            Via::Cluster(_) => None,
        })
        .collect();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeMap::new();
    for gateway in gateways {
        let mut id = hash(gateway);
        while !taken.insert(id) {
            id = (id + 1) & ClusterId::HIGHEST_NAMED;
        }
        ids.insert(gateway, ClusterId(id | !ClusterId::HIGHEST_NAMED));
    }
    ids
}

/// FNV-1a over the address as IPv6 octets, folded to 31 bits; the same in every build.
fn hash(address: IpAddr) -> u32 {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let hash = octets.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let folded = (hash ^ (hash >> 32)) & u64::from(ClusterId::HIGHEST_NAMED);
    u32::try_from(folded).unwrap_or_default()
}
