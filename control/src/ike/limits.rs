//! What bounds the traces that strangers leave.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::event::SaId;

/// So many refusals of strangers are told at once …
const BURST: u32 = 10;
/// … and then one in this time.
const PERIOD: Duration = Duration::from_secs(1);

/// A token bucket for events that anyone on the network can cause.
#[derive(Default)]
pub(crate) struct Refusals {
    /// When the bucket will be full again, less what is in it: the later, the emptier.
    spent: Option<Instant>,
    untold: u64,
}

impl Refusals {
    /// Whether one more may be told, and then how many before it were not.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        let spent = self.spent.map_or(now, |at| at.max(now));
        if spent.saturating_duration_since(now) > PERIOD * (BURST - 1) {
            self.untold += 1;
            return None;
        }
        self.spent = Some(spent + PERIOD);
        Some(std::mem::take(&mut self.untold))
    }
}

/// Who is taken for one sender: an IPv4 address, or an IPv6 /64, of which one host commands all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        Source(match address.to_canonical() {
            IpAddr::V6(a) => {
                let network = u128::from(a) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            v4 => v4,
        })
    }
}

/// Half-open IKE SAs as responder, by age and by sender.
#[derive(Default)]
pub(crate) struct HalfOpen {
    /// IDs grow, so the first is the oldest.
    by_age: BTreeMap<SaId, Source>,
    by_source: HashMap<Source, usize>,
}

impl HalfOpen {
    pub(crate) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(crate) fn of(&self, source: Source) -> usize {
        self.by_source.get(&source).copied().unwrap_or(0)
    }

    pub(crate) fn oldest(&self) -> Option<SaId> {
        self.by_age.first_key_value().map(|(id, _)| *id)
    }

    pub(crate) fn insert(&mut self, id: SaId, source: Source) {
        if self.by_age.insert(id, source).is_none() {
            *self.by_source.entry(source).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, id: SaId) {
        let Some(source) = self.by_age.remove(&id) else {
            return;
        };
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            // A source that holds nothing is not remembered.
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_at_once_then_one_a_second() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let told = |r: &mut Refusals, now| (0..50).filter_map(|_| r.pass(now)).collect::<Vec<_>>();
        assert_eq!(told(&mut refusals, start), [0; 10]);
        assert_eq!(told(&mut refusals, start + PERIOD), [40]);
        assert_eq!(told(&mut refusals, start + PERIOD * 3), [49, 0]);
        // However long it is quiet, no more than the burst is saved up.
        let told = told(&mut refusals, start + PERIOD * 1000);
        assert_eq!((told.len(), told.first()), (10, Some(&48)));
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::9"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
    }

    #[test]
    fn half_open_ones_are_counted_by_source_and_forgotten() {
        let (mut table, one, two) = (
            HalfOpen::default(),
            Source::from(IpAddr::from([192, 0, 2, 1])),
            Source::from(IpAddr::from([192, 0, 2, 2])),
        );
        for (id, source) in [(3, one), (1, two), (2, one), (2, one)] {
            table.insert(SaId(id), source);
        }
        assert_eq!((table.len(), table.of(one), table.of(two)), (3, 2, 1));
        assert_eq!(table.oldest(), Some(SaId(1)));
        for id in [1, 1, 2, 3] {
            table.remove(SaId(id));
        }
        assert_eq!((table.len(), table.oldest()), (0, None));
        assert!(table.by_source.is_empty());
    }
}
