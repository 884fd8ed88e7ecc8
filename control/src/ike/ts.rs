//! Traffic selectors and their narrowing (RFC 7296 sections 2.9 and 3.13.1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// A set of packets: an address range of one family, a protocol, a port range.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    /// IP protocol; 0 means any.
    pub protocol: u8,
    /// Ports, or ICMP type and code; `0..=65535` means any. `65535..=0` is OPAQUE: packets whose
    /// ports can not be seen.
    pub ports: RangeInclusive<u16>,
    pub start: IpAddr,
    /// The last address, of the same family as `start`.
    pub end: IpAddr,
}

const ANY_PORT: RangeInclusive<u16> = 0..=u16::MAX;
/// Backwards on purpose (RFC 7296 section 3.13.1).
const OPAQUE: RangeInclusive<u16> = RangeInclusive::new(u16::MAX, 0);

impl TrafficSelector {
    /// All traffic of the addresses `start` to `end`.
    pub fn range(start: impl Into<IpAddr>, end: impl Into<IpAddr>) -> TrafficSelector {
        TrafficSelector {
            protocol: 0,
            ports: ANY_PORT,
            start: start.into(),
            end: end.into(),
        }
    }

    /// All traffic of one address.
    pub fn host(address: impl Into<IpAddr>) -> TrafficSelector {
        let address = address.into();
        TrafficSelector::range(address, address)
    }

    /// All IPv4 traffic.
    pub fn any_v4() -> TrafficSelector {
        TrafficSelector::range(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)
    }

    /// All IPv6 traffic.
    pub fn any_v6() -> TrafficSelector {
        TrafficSelector::range(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from([0xff; 16]))
    }

    /// One family, no range backwards (OPAQUE ports aside).
    pub fn is_valid(&self) -> bool {
        let opaque = self.ports == OPAQUE;
        self.start.is_ipv4() == self.end.is_ipv4()
            && self.start <= self.end
            && (opaque || self.ports.start() <= self.ports.end())
    }

    /// The packets that belong to both, if there are any.
    pub fn intersect(&self, other: &TrafficSelector) -> Option<TrafficSelector> {
        if self.start.is_ipv4() != other.start.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, p) | (p, 0) => p,
            (a, b) if a == b => a,
            _ => return None,
        };
        let ports = if self.ports == ANY_PORT {
            other.ports.clone()
        } else if other.ports == ANY_PORT || other.ports == self.ports {
            self.ports.clone()
        } else {
            let start = *self.ports.start().max(other.ports.start());
            let end = *self.ports.end().min(other.ports.end());
            // OPAQUE runs backwards and so meets no other range but ANY and itself.
            if start > end {
                return None;
            }
            start..=end
        };
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start <= end).then_some(TrafficSelector {
            protocol,
            ports,
            start,
            end,
        })
    }

    /// Whether every packet of this selector belongs to `other`.
    pub fn is_within(&self, other: &TrafficSelector) -> bool {
        self.intersect(other).as_ref() == Some(self)
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.start == self.end {
            true => write!(f, "{}", self.start)?,
            false => write!(f, "{}-{}", self.start, self.end)?,
        }
        if self.protocol != 0 || self.ports != ANY_PORT {
            write!(
                f,
                "[{}/{}-{}]",
                self.protocol,
                self.ports.start(),
                self.ports.end()
            )?;
        }
        Ok(())
    }
}

/// The same packets in fewer selectors: ranges of the same protocol and ports become one where they
/// overlap or touch. Sorted by family, protocol, ports and address.
pub fn merge(selectors: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let key = |s: &TrafficSelector| {
        (
            s.start.is_ipv6(),
            s.protocol,
            *s.ports.start(),
            *s.ports.end(),
        )
    };
    let mut sorted: Vec<&TrafficSelector> = selectors.iter().collect();
    sorted.sort_by_key(|s| (key(s), s.start));
    let mut merged: Vec<TrafficSelector> = Vec::new();
    for selector in sorted {
        match merged.last_mut() {
            Some(last)
                if key(last) == key(selector)
                    && last.is_valid()
                    && selector.is_valid()
                    && touches(last.end, selector.start) =>
            {
                last.end = last.end.max(selector.end);
            }
            _ => merged.push(selector.clone()),
        }
    }
    merged
}

/// Whether a range that starts at `start` goes on where one up to `end` of the same family, which
/// starts no later, stops.
fn touches(end: IpAddr, start: IpAddr) -> bool {
    let next = match end {
        IpAddr::V4(a) => u32::from(a)
            .checked_add(1)
            .map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(a) => u128::from(a)
            .checked_add(1)
            .map(|n| Ipv6Addr::from(n).into()),
    };
    next.is_none_or(|next: IpAddr| start <= next)
}

/// So many selectors are looked for. More than a payload can hold, since some of them may merge; but
/// who names 255 networks and then 255 ports must not have us compare 65,025 with each other.
const MOST_NARROWED: usize = 512;

/// The part of `proposed` that `allowed` lets through, in the order of `proposed`, without
/// repetition; all that is beyond 512 selectors is left out. Empty means that nothing is left, which
/// a responder answers with TS_UNACCEPTABLE.
pub fn narrow(proposed: &[TrafficSelector], allowed: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for selector in proposed
        .iter()
        .flat_map(|p| allowed.iter().filter_map(|a| p.intersect(a)))
    {
        if narrowed.len() == MOST_NARROWED {
            break;
        }
        if !narrowed.iter().any(|n| selector.is_within(n)) {
            narrowed.retain(|n| !n.is_within(&selector));
            narrowed.push(selector);
        }
    }
    narrowed
}

/// Whether `narrowed` says something, and nothing beyond `proposed`.
pub fn is_narrowing(narrowed: &[TrafficSelector], proposed: &[TrafficSelector]) -> bool {
    !narrowed.is_empty()
        && narrowed
            .iter()
            .all(|n| proposed.iter().any(|p| n.is_within(p)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(start: [u8; 4], end: [u8; 4]) -> TrafficSelector {
        TrafficSelector::range(start, end)
    }

    #[test]
    fn narrowing_is_the_intersection() {
        let proposed = [TrafficSelector::any_v4(), TrafficSelector::any_v6()];
        let net = [v4([10, 0, 0, 0], [10, 0, 0, 255])];
        assert_eq!(narrow(&proposed, &net), net);
        assert_eq!(narrow(&net, &proposed), net);
        let upper = v4([10, 0, 0, 128], [10, 0, 1, 5]);
        assert_eq!(
            narrow(&net, &[upper]),
            [v4([10, 0, 0, 128], [10, 0, 0, 255])]
        );
        assert_eq!(narrow(&net, &[v4([10, 0, 1, 0], [10, 0, 1, 9])]), []);
        assert_eq!(narrow(&net, &[TrafficSelector::any_v6()]), []);
        // A selector that is in another is not repeated.
        let host = TrafficSelector::host([10, 0, 0, 7]);
        assert_eq!(narrow(&[host, net[0].clone()], &proposed), net);
    }

    #[test]
    fn the_work_of_narrowing_is_bounded() {
        // All of it would be 65,025 selectors that have nothing in common.
        let nets = |i: u8| v4([10, i, 0, 0], [10, i, 0, 255]);
        let ports = |i: u8| TrafficSelector {
            protocol: 6,
            ports: u16::from(i)..=u16::from(i),
            ..v4([10, 0, 0, 0], [10, 255, 255, 255])
        };
        let nets: Vec<TrafficSelector> = (0..255).map(nets).collect();
        let ports: Vec<TrafficSelector> = (0..255).map(ports).collect();
        assert_eq!(narrow(&nets, &ports).len(), MOST_NARROWED);
        assert_eq!(narrow(&nets, &nets), nets);
    }

    #[test]
    fn protocols_and_ports_narrow_too() {
        let any = v4([0; 4], [255; 4]);
        let tcp = TrafficSelector {
            protocol: 6,
            ports: 0..=1023,
            ..any.clone()
        };
        let web = TrafficSelector {
            protocol: 6,
            ports: 443..=8080,
            ..any.clone()
        };
        let both = TrafficSelector {
            protocol: 6,
            ports: 443..=1023,
            ..any.clone()
        };
        assert_eq!(tcp.intersect(&web), Some(both));
        assert_eq!(tcp.intersect(&any), Some(tcp.clone()));
        assert_eq!(
            tcp.intersect(&TrafficSelector {
                protocol: 17,
                ..any.clone()
            }),
            None
        );
        let opaque = TrafficSelector {
            ports: OPAQUE,
            ..any.clone()
        };
        assert!(opaque.is_valid());
        assert_eq!(opaque.intersect(&any), Some(opaque.clone()));
        assert_eq!(opaque.intersect(&opaque), Some(opaque.clone()));
        assert_eq!(opaque.intersect(&tcp), None);
    }

    #[test]
    fn an_answer_must_stay_within_the_offer() {
        let offer = [
            v4([10, 0, 0, 0], [10, 0, 0, 255]),
            TrafficSelector::host([10, 9, 9, 9]),
        ];
        assert!(is_narrowing(
            &[TrafficSelector::host([10, 0, 0, 4])],
            &offer
        ));
        assert!(is_narrowing(&offer, &offer));
        assert!(!is_narrowing(&[], &offer));
        assert!(!is_narrowing(&[v4([10, 0, 0, 0], [10, 0, 1, 0])], &offer));
    }
}
