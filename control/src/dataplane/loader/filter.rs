//! The packet filter, in the maps of `outside`.

use std::net::IpAddr;

use aya::maps::{Array, HashMap as BpfHashMap, LpmTrie, MapData, PerCpuArray, lpm_trie::Key};
use evergate_common::filter::{
    ClassEntry, DirectKey, Hit, MAX_CLASSES, MAX_DIRECT, MAX_USERS, direct_net, hit_slot,
};
use evergate_common::maps::{Address, CLASS_COUNTERS, CLASSES, DIRECT, USERS, address};
use ipnet::IpNet;

use super::LoadError;
use super::error::map_error;
use super::outside::{Outside, gone};

/// The maps that say what users may have past the tunnel.
pub(super) struct FilterMaps {
    pub(super) users: BpfHashMap<MapData, Address, u32>,
    pub(super) classes: Array<MapData, ClassEntry>,
    pub(super) direct: LpmTrie<MapData, DirectKey, u32>,
    pub(super) counters: PerCpuArray<MapData, u64>,
}

impl Outside {
    /// What the class of this number may; [`DEFAULT`](evergate_common::filter::DEFAULT) is that of users
    /// without one.
    ///
    /// # Errors
    /// If there can be no such number.
    pub fn set_class(&mut self, number: u32, class: ClassEntry) -> Result<(), LoadError> {
        let set = self.filter.classes.set(number, class, 0);
        set.map_err(|error| map_error(CLASSES, MAX_CLASSES, &error))
    }

    /// A class has this network directly.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn add_direct(&mut self, class: u32, net: IpNet) -> Result<(), LoadError> {
        let insert = self.filter.direct.insert(&direct(class, net), 1, 0);
        insert.map_err(|error| map_error(DIRECT, MAX_DIRECT, &error))
    }

    /// Not any more; none there is no error.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove_direct(&mut self, class: u32, net: IpNet) -> Result<(), LoadError> {
        let removed = self.filter.direct.remove(&direct(class, net));
        gone(DIRECT, MAX_DIRECT, removed)
    }

    /// The class of the user at an address, [`OWN`](evergate_common::filter::OWN) for one of the node's
    /// own, or none.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn set_user(&mut self, user: IpAddr, class: Option<u32>) -> Result<(), LoadError> {
        let (users, key) = (&mut self.filter.users, address(user));
        match class {
            Some(number) => users
                .insert(key, number, 0)
                .map_err(|error| map_error(USERS, MAX_USERS, &error)),
            None => gone(USERS, MAX_USERS, users.remove(&key)),
        }
    }

    /// A counter of a class, summed over all CPUs.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn class_hits(&self, class: u32, hit: Hit) -> Result<u64, LoadError> {
        let values = self.filter.counters.get(&hit_slot(class, hit), 0);
        let values = values.map_err(|error| map_error(CLASS_COUNTERS, MAX_CLASSES, &error))?;
        let sum = |sum: u64, value: &u64| sum.wrapping_add(*value);
        Ok(values.iter().fold(0, sum))
    }
}

fn direct(class: u32, net: IpNet) -> Key<DirectKey> {
    let (bits, key) = direct_net(class, net.network(), net.prefix_len());
    Key::new(bits, key)
}
