//! Inner addresses for clients.
//!
//! A client must have the same inner address on every gateway of a cluster, or its connections
//! would not outlive a gateway. Gateways do not talk to each other, so the rule is: a fixed
//! address from the configuration if there is one; else the address that the client asks for
//! (it asks for the one that it has); else one computed from its identity, which is the same on
//! every gateway with the same pool as long as nobody else has it.

use std::collections::HashMap;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use siphasher::sip::SipHasher24;
use thiserror::Error;

/// How many addresses are looked at for a free one.
const MAX_PROBES: u128 = 65_536;

/// How many of a full pool are looked at for one whose owner has no session; each costs a walk
/// through all sessions.
const MAX_RECLAIMED: u128 = 256;

/// Why a client gets no inner address.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum PoolError {
    /// The pool has nothing (left) of that family.
    #[error("the pool has no free {family} address for {identity}")]
    Exhausted {
        /// "IPv4" or "IPv6".
        family: &'static str,
        /// Who asked.
        identity: String,
    },
    /// Somebody else has the address that the client uses on another gateway; giving it another
    /// one would break its connections without a word.
    #[error("{address}, which {identity} asks for, belongs to {owner}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who asked.
        identity: String,
        /// Who has it.
        owner: String,
    },
    /// A client has one address of each family, or it could take the whole pool.
    #[error("{identity} asks for {address}, but has a session with {held}")]
    Held {
        /// The address asked for.
        address: IpAddr,
        /// Who asked.
        identity: String,
        /// The address that it has.
        held: IpAddr,
    },
}

/// The pool of a gateway.
#[derive(Debug, Default)]
pub(super) struct Pool {
    networks: Vec<IpNet>,
    fixed: HashMap<String, Vec<IpAddr>>,
    owners: HashMap<IpAddr, String>,
    /// What each has of a family: one at most.
    held: HashMap<String, Held>,
}

/// Addresses of one client that are not fixed.
#[derive(Debug, Default)]
struct Held {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl Held {
    fn of(&mut self, v4: bool) -> &mut Option<IpAddr> {
        if v4 { &mut self.v4 } else { &mut self.v6 }
    }
}

impl Pool {
    /// A pool of `networks`, with addresses that are fixed for some identities.
    pub(super) fn new(
        networks: Vec<IpNet>,
        fixed: impl IntoIterator<Item = (String, Vec<IpAddr>)>,
    ) -> Self {
        let fixed: HashMap<_, _> = fixed.into_iter().filter(|(_, a)| !a.is_empty()).collect();
        let owners = fixed
            .iter()
            .flat_map(|(identity, addresses)| addresses.iter().map(|a| (*a, identity.clone())))
            .collect();
        Self {
            networks,
            fixed,
            owners,
            held: HashMap::new(),
        }
    }

    /// Addresses for `identity`: at most one of each family that it wants. An address that was
    /// given stays with the identity, also after its session has ended, until another one takes
    /// its place, or the pool is full and somebody else needs it. `in_use` tells whether a session still has an address.
    pub(super) fn assign(
        &mut self,
        identity: &str,
        requested: &[IpAddr],
        (wants_v4, wants_v6): (bool, bool),
        in_use: impl Fn(IpAddr) -> bool,
    ) -> Result<Vec<IpAddr>, PoolError> {
        if let Some(fixed) = self.fixed.get(identity) {
            let wanted = |a: &&IpAddr| if a.is_ipv4() { wants_v4 } else { wants_v6 };
            return Ok(fixed.iter().filter(wanted).copied().collect());
        }
        let mut assigned = Vec::new();
        for (wanted, v4) in [(wants_v4, true), (wants_v6, false)] {
            if wanted && self.networks.iter().any(|n| n.addr().is_ipv4() == v4) {
                let asked = requested.iter().copied().find(|a| a.is_ipv4() == v4);
                assigned.push(self.assign_one(identity, asked, v4, &in_use)?);
            }
        }
        let mut released = Vec::new();
        for address in assigned.iter().copied() {
            let Some(held) = self.held(identity, address.is_ipv4()) else {
                continue;
            };
            if held == address {
                continue;
            }
            if in_use(held) {
                return Err(PoolError::Held {
                    address,
                    identity: identity.to_owned(),
                    held,
                });
            }
            released.push(held);
        }
        for address in released {
            self.owners.remove(&address);
        }
        let held = self.held.entry(identity.to_owned()).or_default();
        for address in &assigned {
            self.owners.insert(*address, identity.to_owned());
            *held.of(address.is_ipv4()) = Some(*address);
        }
        Ok(assigned)
    }

    fn is_fixed(&self, address: IpAddr) -> bool {
        self.fixed.values().flatten().any(|fixed| *fixed == address)
    }

    /// The address of this family that `identity` has: one at most.
    fn held(&self, identity: &str, v4: bool) -> Option<IpAddr> {
        let held = self.held.get(identity)?;
        if v4 { held.v4 } else { held.v6 }
    }

    fn assign_one(
        &self,
        identity: &str,
        asked: Option<IpAddr>,
        v4: bool,
        in_use: &impl Fn(IpAddr) -> bool,
    ) -> Result<IpAddr, PoolError> {
        if let Some(address) = asked
            && !address.is_unspecified()
            && self.networks.iter().any(|n| is_host(n, address))
        {
            return match self.owners.get(&address) {
                Some(owner) if owner != identity => Err(PoolError::Taken {
                    address,
                    identity: identity.to_owned(),
                    owner: owner.clone(),
                }),
                _ => Ok(address),
            };
        }
        if let Some(held) = self.held(identity, v4) {
            return Ok(held);
        }
        for network in self.networks.iter().filter(|n| n.addr().is_ipv4() == v4) {
            let size = host_count(network);
            let first = hash(identity) % size;
            for probe in 0..size.min(MAX_PROBES) {
                let address = nth(network, (first + probe) % size);
                if is_host(network, address) && !self.owners.contains_key(&address) {
                    return Ok(address);
                }
            }
        }
        // Nothing is free. Better one that somebody had who is not here than none at all: where
        // peers are not named one by one, everybody who ever came would keep an address for ever.
        for network in self.networks.iter().filter(|n| n.addr().is_ipv4() == v4) {
            let size = host_count(network);
            let first = hash(identity) % size;
            for probe in 0..size.min(MAX_RECLAIMED) {
                let address = nth(network, (first + probe) % size);
                if is_host(network, address) && !self.is_fixed(address) && !in_use(address) {
                    return Ok(address);
                }
            }
        }
        let family = if v4 { "IPv4" } else { "IPv6" };
        Err(PoolError::Exhausted {
            family,
            identity: identity.to_owned(),
        })
    }
}

/// Stable across nodes and versions: gateways must agree without talking.
fn hash(identity: &str) -> u128 {
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    hasher.write(identity.as_bytes());
    u128::from(hasher.finish())
}

fn host_count(network: &IpNet) -> u128 {
    let bits = u32::from(network.max_prefix_len() - network.prefix_len());
    1u128.checked_shl(bits).unwrap_or(u128::MAX)
}

fn nth(network: &IpNet, n: u128) -> IpAddr {
    match network.network() {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).wrapping_add(n as u32)).into(),
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(n)).into(),
    }
}

/// Whether a host may have the address: not the network's own nor its broadcast address.
fn is_host(network: &IpNet, address: IpAddr) -> bool {
    network.contains(&address)
        && (network.max_prefix_len() - network.prefix_len() < 2
            || (address != network.network()
                && (address != network.broadcast() || address.is_ipv6())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(networks: &[&str]) -> Pool {
        Pool::new(networks.iter().map(|n| n.parse().unwrap()).collect(), [])
    }

    /// No session has any address.
    fn free(_: IpAddr) -> bool {
        false
    }

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn two_gateways_compute_the_same_address() {
        let (mut a, mut b) = (pool(&["10.99.0.0/16"]), pool(&["10.99.0.0/16"]));
        for client in ["a.example", "b.example", "c@example"] {
            assert_eq!(
                a.assign(client, &[], (true, true), free),
                b.assign(client, &[], (true, true), free)
            );
        }
    }

    #[test]
    fn the_address_that_a_client_has_is_kept() {
        let mut pool = pool(&["10.99.0.0/24"]);
        assert_eq!(
            pool.assign("a", &[ip("10.99.0.7")], (true, false), free),
            Ok(vec![ip("10.99.0.7")])
        );
        assert_eq!(
            pool.assign("a", &[], (true, false), free),
            Ok(vec![ip("10.99.0.7")])
        );
        assert_eq!(
            pool.assign("b", &[ip("10.99.0.7")], (true, false), free),
            Err(PoolError::Taken {
                address: ip("10.99.0.7"),
                identity: "b".into(),
                owner: "a".into()
            })
        );
    }

    #[test]
    fn a_fixed_address_beats_what_is_asked_for_and_nobody_else_gets_it() {
        let networks = vec!["10.99.0.0/30".parse().unwrap()];
        let mut pool = Pool::new(networks, [("a".to_owned(), vec![ip("10.99.0.1")])]);
        assert_eq!(
            pool.assign("a", &[ip("10.99.0.2")], (true, true), free),
            Ok(vec![ip("10.99.0.1")])
        );
        assert_eq!(
            pool.assign("b", &[], (true, false), free),
            Ok(vec![ip("10.99.0.2")])
        );
        assert!(matches!(
            pool.assign("c", &[], (true, false), |_| true),
            Err(PoolError::Exhausted { family: "IPv4", .. })
        ));
    }

    #[test]
    fn an_address_outside_the_pool_is_not_given() {
        let mut pool = pool(&["10.99.0.0/24", "2001:db8::/64"]);
        for foreign in ["10.98.0.7", "10.99.0.0", "10.99.0.255", "0.0.0.0"] {
            let given = pool
                .assign("a", &[ip(foreign)], (true, true), free)
                .unwrap();
            assert_eq!(given.len(), 2);
            assert!(!given.contains(&ip(foreign)), "{foreign}");
            assert!("10.99.0.0/24".parse::<IpNet>().unwrap().contains(&given[0]));
        }
    }

    #[test]
    fn a_small_pool_is_used_to_the_last_address() {
        let mut pool = pool(&["10.99.0.0/28"]);
        let mut seen = std::collections::HashSet::new();
        for client in 0..14 {
            let given = pool
                .assign(&client.to_string(), &[], (true, false), free)
                .unwrap();
            assert!(seen.insert(given[0]));
        }
        let all = |_| true;
        let more = |pool: &mut Pool, in_use: &dyn Fn(IpAddr) -> bool| {
            pool.assign("one more", &[], (true, false), in_use)
        };
        assert!(more(&mut pool, &all).is_err());
        // Somebody who is not here makes room for one who is.
        let absent = ip("10.99.0.9");
        assert_eq!(more(&mut pool, &|a| a != absent), Ok(vec![absent]));
        assert_eq!(pool.owners.len(), 14);
        assert_eq!(more(&mut pool, &all), Ok(vec![absent]));
    }

    #[test]
    fn a_fixed_address_is_kept_for_its_owner_when_the_pool_is_full() {
        let network = "10.99.0.0/30".parse().unwrap();
        let fixed = [("a".to_owned(), vec![ip("10.99.0.1")])];
        let mut pool = Pool::new(vec![network], fixed);
        let b = pool.assign("b", &[], (true, false), free);
        assert_eq!(b, Ok(vec![ip("10.99.0.2")]));
        let c = pool.assign("c", &[], (true, false), free);
        assert_eq!(c, Ok(vec![ip("10.99.0.2")]));
    }

    #[test]
    fn a_client_has_one_address_however_often_it_asks() {
        let mut pool = pool(&["10.99.0.0/24", "2001:db8:99::/64"]);
        for n in 1..=254 {
            let asked = [
                ip(&format!("10.99.0.{n}")),
                ip(&format!("2001:db8:99::{n:x}")),
            ];
            let given = pool.assign("a", &asked, (true, true), free);
            assert_eq!(given, Ok(asked.to_vec()));
            assert_eq!(pool.owners.len(), 2);
        }
        // What it had is free for others again.
        let asked = [ip("10.99.0.1")];
        let given = pool.assign("b", &asked, (true, false), free);
        assert_eq!(given, Ok(asked.to_vec()));
    }

    #[test]
    fn an_address_with_a_session_is_not_given_up() {
        let mut pool = pool(&["10.99.0.0/24", "2001:db8:99::/64"]);
        let (old, new) = (ip("10.99.0.7"), ip("10.99.0.8"));
        pool.assign("a", &[old], (true, false), free).unwrap();
        let busy = |address| address == old;
        assert_eq!(
            pool.assign("a", &[new], (true, true), busy),
            Err(PoolError::Held {
                address: new,
                identity: "a".into(),
                held: old
            })
        );
        assert_eq!(pool.owners.len(), 1, "a refusal changes nothing");
        let again = pool.assign("a", &[old], (true, false), busy);
        assert_eq!(again, Ok(vec![old]), "the same one is always had");
        let after = pool.assign("a", &[new], (true, false), free);
        assert_eq!(after, Ok(vec![new]));
    }
}
