//! How many groups have an inner prefix: mostly one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Prefixes and how many have each. Those of IPv4, which most have, take half as much memory apart.
#[derive(Default)]
pub(super) struct Owners {
    v4: HashMap<Ipv4Net, u32>,
    v6: HashMap<Ipv6Net, u32>,
}

impl Owners {
    /// One more group has it.
    pub(super) fn add(&mut self, prefix: IpNet) {
        *match prefix {
            IpNet::V4(prefix) => self.v4.entry(prefix).or_default(),
            IpNet::V6(prefix) => self.v6.entry(prefix).or_default(),
        } += 1;
    }

    /// One group fewer has it. Says whether it was the last one.
    pub(super) fn remove(&mut self, prefix: IpNet) -> bool {
        match prefix {
            IpNet::V4(prefix) => remove(&mut self.v4, prefix),
            IpNet::V6(prefix) => remove(&mut self.v6, prefix),
        }
    }
}

fn remove<K: Eq + Hash>(owners: &mut HashMap<K, u32>, prefix: K) -> bool {
    let Entry::Occupied(mut count) = owners.entry(prefix) else {
        return false;
    };
    if *count.get() > 1 {
        *count.get_mut() -= 1;
        return false;
    }
    count.remove();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_goes_with_the_last_group_that_has_it() {
        for prefix in ["10.99.0.7/32", "2001:db8::/64"] {
            let prefix: IpNet = prefix.parse().unwrap();
            let mut owners = Owners::default();
            assert!(!owners.remove(prefix));
            owners.add(prefix);
            owners.add(prefix);
            assert!(!owners.remove(prefix));
            assert!(owners.remove(prefix));
            assert!(!owners.remove(prefix));
        }
    }
}
