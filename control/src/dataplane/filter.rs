//! The packet filter as the node's core sees it: classes by name, and users by address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use evergate_common::filter::{ClassEntry, DEFAULT, Hit, MAX_CLASSES, OWN};
use ipnet::IpNet;
use serde::Serialize;

pub use evergate_common::filter::Rule;

use super::handle::Dataplane;
use super::loader::{LoadError, Outside};

/// What the users of a class may have past the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassSpec {
    /// What is done with their packets.
    pub rule: Rule,
    /// Networks that they have directly; not looked at where everything, or nothing, passes.
    pub direct: Vec<IpNet>,
}

/// What has happened to packets of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassHits {
    pub name: String,
    /// Packets to networks that it has directly.
    pub direct: u64,
    /// Packets past the tunnel that were refused.
    pub refused: u64,
    /// IKE and ESP that were refused, as it has no encryption service.
    pub service: u64,
}

/// The classes and users that are in the maps of a program, of one and the same always.
#[derive(Default)]
pub struct Filter {
    classes: BTreeMap<String, Placed>,
    default: Option<String>,
    users: HashMap<IpAddr, u32>,
    own: BTreeSet<IpAddr>,
}

/// A class and its number.
struct Placed {
    number: u32,
    rule: Rule,
    direct: BTreeSet<IpNet>,
}

impl Filter {
    /// Makes a class, or changes it.
    ///
    /// # Errors
    /// [`LoadError::TooMany`], [`LoadError::Full`]; what could be done is done then.
    pub fn set_class(
        &mut self,
        outside: &mut Outside,
        name: &str,
        spec: &ClassSpec,
    ) -> Result<(), LoadError> {
        let number = match self.classes.get(name) {
            Some(placed) => placed.number,
            None => self.free_number()?,
        };
        let placed = self.classes.entry(name.to_owned()).or_insert(Placed {
            number,
            rule: Rule::Off,
            direct: BTreeSet::new(),
        });
        let now: BTreeSet<IpNet> = spec.direct.iter().map(IpNet::trunc).collect();
        // New networks first and old ones last: what both allow is never refused. Step by step: after an
        // error it has what it has.
        for net in &now {
            if !placed.direct.contains(net) {
                outside.add_direct(number, *net)?;
                placed.direct.insert(*net);
            }
        }
        outside.set_class(number, ClassEntry::new(spec.rule, number))?;
        placed.rule = spec.rule;
        let old: Vec<IpNet> = placed.direct.difference(&now).copied().collect();
        for net in old {
            outside.remove_direct(number, net)?;
            placed.direct.remove(&net);
        }
        match self.default.as_deref() == Some(name) {
            true => self.set_default(outside, Some(name)),
            false => Ok(()),
        }
    }

    fn free_number(&self) -> Result<u32, LoadError> {
        let taken: BTreeSet<u32> = self.classes.values().map(|c| c.number).collect();
        let mut numbers = DEFAULT + 1..MAX_CLASSES;
        let free = numbers.find(|number| !taken.contains(number));
        free.ok_or_else(|| LoadError::TooMany {
            what: "classes of users".to_owned(),
            found: taken.len() + 1,
            limit: taken.len(),
        })
    }

    /// Removes a class; its users have the default one then.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove_class(&mut self, outside: &mut Outside, name: &str) -> Result<(), LoadError> {
        let Some(number) = self.classes.get(name).map(|placed| placed.number) else {
            return Ok(());
        };
        let users = self.users.iter().filter(|(_, class)| **class == number);
        let users: Vec<IpAddr> = users.map(|(user, _)| *user).collect();
        for user in users {
            self.remove_user(outside, user)?;
        }
        if self.default.as_deref() == Some(name) {
            self.set_default(outside, None)?;
        }
        let off = ClassSpec {
            rule: Rule::Off,
            direct: Vec::new(),
        };
        self.set_class(outside, name, &off)?;
        self.classes.remove(name);
        Ok(())
    }

    /// The class of addresses that are no user's; none, or one that there is not: everything passes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_default(
        &mut self,
        outside: &mut Outside,
        name: Option<&str>,
    ) -> Result<(), LoadError> {
        let class = match name.and_then(|name| self.classes.get(name)) {
            Some(placed) => ClassEntry::new(placed.rule, placed.number),
            None => ClassEntry::default(),
        };
        self.default = name.map(str::to_owned);
        outside.set_class(DEFAULT, class)
    }

    /// The user at this address has this class. False: there is no such class, and the user has the default one.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn set_user(
        &mut self,
        outside: &mut Outside,
        user: IpAddr,
        class: &str,
    ) -> Result<bool, LoadError> {
        let Some(number) = self.classes.get(class).map(|placed| placed.number) else {
            self.remove_user(outside, user)?;
            return Ok(false);
        };
        if !self.own.contains(&user) {
            outside.set_user(user, Some(number))?;
        }
        self.users.insert(user, number);
        Ok(true)
    }

    /// Nobody with a class is at this address any more.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove_user(&mut self, outside: &mut Outside, user: IpAddr) -> Result<(), LoadError> {
        if !self.own.contains(&user) {
            outside.set_user(user, None)?;
        }
        self.users.remove(&user);
        Ok(())
    }

    /// All addresses of the node.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn set_own(
        &mut self,
        outside: &mut Outside,
        own: BTreeSet<IpAddr>,
    ) -> Result<(), LoadError> {
        for new in &own {
            if !self.own.contains(new) {
                outside.set_user(*new, Some(OWN))?;
                self.own.insert(*new);
            }
        }
        let gone: Vec<IpAddr> = self.own.difference(&own).copied().collect();
        for address in gone {
            outside.set_user(address, self.users.get(&address).copied())?;
            self.own.remove(&address);
        }
        Ok(())
    }

    /// What has happened to packets of each class.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn hits(&self, outside: &Outside) -> Result<Vec<ClassHits>, LoadError> {
        let classes = self.classes.iter().map(|(name, placed)| {
            let hits = |hit| outside.class_hits(placed.number, hit);
            Ok(ClassHits {
                name: name.clone(),
                direct: hits(Hit::Direct)?,
                refused: hits(Hit::Refused)?,
                service: hits(Hit::Service)?,
            })
        });
        classes.collect()
    }
}

impl Dataplane {
    /// Whether packets of users can be filtered: there is an XDP program that was loaded for it.
    #[must_use]
    pub fn has_filter(&self) -> bool {
        self.outside.as_ref().is_some_and(Outside::has_filter)
    }

    /// Makes a class of users, or changes it.
    pub fn set_class(&mut self, name: &str, spec: &ClassSpec) -> Result<(), LoadError> {
        match &mut self.outside {
            Some(outside) => self.filter.set_class(outside, name, spec),
            None => Ok(()),
        }
    }

    /// Removes a class; its users have the default one then.
    pub fn remove_class(&mut self, name: &str) -> Result<(), LoadError> {
        match &mut self.outside {
            Some(outside) => self.filter.remove_class(outside, name),
            None => Ok(()),
        }
    }

    /// The class of addresses that are no user's; none, or one that there is not: everything of theirs
    /// passes.
    pub fn set_default_class(&mut self, name: Option<&str>) -> Result<(), LoadError> {
        match &mut self.outside {
            Some(outside) => self.filter.set_default(outside, name),
            None => Ok(()),
        }
    }

    /// The user at this outside address has this class. False: there is no such class, and the user has the
    /// default one.
    pub fn set_user(&mut self, user: IpAddr, class: &str) -> Result<bool, LoadError> {
        match &mut self.outside {
            Some(outside) => self.filter.set_user(outside, user, class),
            None => Ok(false),
        }
    }

    /// Nobody with a class is at this address any more.
    pub fn remove_user(&mut self, user: IpAddr) -> Result<(), LoadError> {
        match &mut self.outside {
            Some(outside) => self.filter.remove_user(outside, user),
            None => Ok(()),
        }
    }

    /// All addresses of the node: packets to them are not forwarded, and not filtered.
    pub fn set_filter_own(
        &mut self,
        own: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), LoadError> {
        match &mut self.outside {
            Some(outside) => self.filter.set_own(outside, own.into_iter().collect()),
            None => Ok(()),
        }
    }

    /// What has happened to packets of each class.
    pub fn class_hits(&self) -> Result<Vec<ClassHits>, LoadError> {
        match &self.outside {
            Some(outside) => self.filter.hits(outside),
            None => Ok(Vec::new()),
        }
    }
}
