//! Which tunnel owns which addresses: where ranges overlap, the one that claims first wins.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::model::TunnelDef;
use super::prefixes::cover;

/// An address as (is IPv6, value): ranges of one family are intervals of these.
type Point = (bool, u128);

fn point(address: IpAddr) -> Point {
    match address {
        IpAddr::V4(v4) => (false, u32::from(v4).into()),
        IpAddr::V6(v6) => (true, v6.into()),
    }
}

fn address((is_v6, value): Point) -> IpAddr {
    if is_v6 {
        Ipv6Addr::from(value).into()
    } else {
        // The points of IPv4 come from `point` and from gaps between such, so they fit.
        Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX)).into()
    }
}

/// What one tunnel got of its range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// The parts it owns, ascending, not adjacent to each other.
    pub(super) parts: Vec<(IpAddr, IpAddr)>,
    /// The tunnels that own the rest.
    pub(super) lost_to: BTreeSet<u32>,
}

impl Claim {
    /// The minimal cover of what the tunnel owns.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        self.parts
            .iter()
            .flat_map(|(start, end)| cover(*start, *end))
            .collect()
    }
}

/// Disjoint intervals and their owners.
#[derive(Clone, Debug, Default)]
pub(super) struct Ownership {
    /// First point of an interval to its last value and its owner.
    owned: BTreeMap<Point, (u128, u32)>,
}

impl Ownership {
    /// Lets the tunnels claim their ranges, lowest number first; one claim for each, in order of
    /// number.
    pub(super) fn of(tunnels: &[TunnelDef]) -> (Self, Vec<(&TunnelDef, Claim)>) {
        let mut ordered: Vec<&TunnelDef> = tunnels.iter().collect();
        ordered.sort_by_key(|tunnel| tunnel.number);
        let mut ownership = Self::default();
        let claims = ordered
            .into_iter()
            .map(|tunnel| {
                (
                    tunnel,
                    ownership.claim(tunnel.number, tunnel.start, tunnel.end),
                )
            })
            .collect();
        (ownership, claims)
    }

    /// Gives tunnel `number` all of `start..=end` that no one owns yet.
    fn claim(&mut self, number: u32, start: IpAddr, end: IpAddr) -> Claim {
        let (family, first) = point(start);
        let (end_family, last) = point(end);
        let mut claim = Claim::default();
        if family != end_family || first > last {
            return claim;
        }
        let mut gaps: Vec<(u128, u128)> = Vec::new();
        // The first value that is not yet known to be owned or free; None behind the last one.
        let mut open = Some(first);
        let reaches_in = self
            .owned
            .range(..(family, first))
            .next_back()
            .filter(|((of, _), (to, _))| *of == family && *to >= first);
        let inside = self.owned.range((family, first)..=(family, last));
        for ((_, from), (to, owner)) in reaches_in.into_iter().chain(inside) {
            if let Some(free) = open.filter(|free| free < from) {
                gaps.push((free, from - 1));
            }
            claim.lost_to.insert(*owner);
            open = to.checked_add(1);
        }
        if let Some(free) = open.filter(|free| *free <= last) {
            gaps.push((free, last));
        }
        for (from, to) in gaps {
            self.owned.insert((family, from), (to, number));
            claim
                .parts
                .push((address((family, from)), address((family, to))));
        }
        claim
    }

    /// The tunnel that owns `address`.
    pub(super) fn owner(&self, address: IpAddr) -> Option<u32> {
        let (family, value) = point(address);
        let ((of, _), (to, owner)) = self.owned.range(..=(family, value)).next_back()?;
        (*of == family && *to >= value).then_some(*owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::Target;
    use proptest::prelude::*;

    fn tunnel(number: u32, start: IpAddr, end: IpAddr) -> TunnelDef {
        TunnelDef {
            number,
            start,
            end,
            target: Target::Auto,
        }
    }

    #[test]
    fn both_ends_of_both_families() {
        let all_v4 = (
            "0.0.0.0".parse().unwrap(),
            "255.255.255.255".parse().unwrap(),
        );
        let top = IpAddr::from([0xff; 16]);
        let all_v6 = ("::".parse().unwrap(), top);
        let tunnels = [
            tunnel(1, top, top),
            tunnel(2, all_v4.0, all_v4.1),
            tunnel(3, all_v6.0, all_v6.1),
            tunnel(4, all_v4.1, all_v4.1),
            tunnel(5, all_v6.0, all_v6.0),
        ];
        let (ownership, claims) = Ownership::of(&tunnels);
        let lost: Vec<Vec<u32>> = claims
            .iter()
            .map(|(_, claim)| claim.lost_to.iter().copied().collect())
            .collect();
        assert_eq!(lost, [vec![], vec![], vec![1], vec![2], vec![3]]);
        assert_eq!(claims[2].1.prefixes().len(), 128);
        assert!(claims[3].1.parts.is_empty() && claims[4].1.parts.is_empty());
        assert_eq!(ownership.owner(top), Some(1));
        assert_eq!(ownership.owner(all_v6.0), Some(3));
        assert_eq!(ownership.owner(all_v4.1), Some(2));
    }

    proptest! {
        /// Against a table with one slot per address of a /24 and its IPv6 twin.
        #[test]
        fn the_lowest_number_wins(
            ranges in prop::collection::vec((any::<bool>(), any::<u8>(), any::<u8>(), 0u32..50), 0..12)
        ) {
            let at = |v6: bool, last: u8| -> IpAddr {
                if v6 { Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(last)).into() }
                else { IpAddr::from([10, 0, 0, last]) }
            };
            let mut numbers = BTreeSet::new();
            let tunnels: Vec<TunnelDef> = ranges
                .into_iter()
                .filter(|(.., number)| numbers.insert(*number))
                .map(|(v6, a, b, number)| tunnel(number, at(v6, a.min(b)), at(v6, a.max(b))))
                .collect();
            let (ownership, claims) = Ownership::of(&tunnels);
            for v6 in [false, true] {
                for last in 0..=255 {
                    let address = at(v6, last);
                    let inside = |t: &&TunnelDef| {
                        t.start.is_ipv6() == v6 && t.start <= address && address <= t.end
                    };
                    let want = tunnels.iter().filter(inside).map(|t| t.number).min();
                    prop_assert_eq!(ownership.owner(address), want);
                    let holders: Vec<u32> = claims
                        .iter()
                        .filter(|(_, claim)| claim.prefixes().iter().any(|p| p.contains(&address)))
                        .map(|(t, _)| t.number)
                        .collect();
                    prop_assert_eq!(holders, Vec::from_iter(want));
                    for (t, claim) in &claims {
                        if inside(t) {
                            let lost = want != Some(t.number);
                            prop_assert!(!lost || claim.lost_to.contains(&want.unwrap()));
                        }
                    }
                }
            }
        }
    }
}
