//! The packet filter as the node's core sees it: classes by name, and users by address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use evergate_common::filter::{ClassEntry, DEFAULT, Hit, MAX_CLASSES, OWN};
use ipnet::IpNet;
use serde::Serialize;

pub use evergate_common::filter::Rule;

use super::handle::Dataplane;
use super::loader::{LoadError, Outside};
use crate::sadb::SessionId;

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
    /// Addresses that have a class whoever is there.
    fixed: HashMap<IpAddr, String>,
    /// Where the peers of sessions are, with the class of each.
    sessions: HashMap<SessionId, (IpAddr, String)>,
    at: HashMap<IpAddr, Vec<SessionId>>,
    /// What is in the map.
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
        let known = self.classes.get(name).map(|placed| placed.number);
        let number = match known {
            Some(number) => number,
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
        if self.default.as_deref() == Some(name) {
            self.set_default(outside, Some(name))?;
        }
        if known.is_none() {
            // Users may have been there before their class.
            let users: BTreeSet<IpAddr> =
                self.fixed.keys().chain(self.at.keys()).copied().collect();
            let mut users = users.into_iter();
            return users.try_for_each(|user| self.apply(outside, user));
        }
        Ok(())
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
        if self.default.as_deref() == Some(name) {
            self.set_default(outside, None)?;
        }
        let off = ClassSpec {
            rule: Rule::Off,
            direct: Vec::new(),
        };
        self.set_class(outside, name, &off)?;
        self.classes.remove(name);
        let users = self.users.iter().filter(|(_, class)| **class == number);
        let users: Vec<IpAddr> = users.map(|(user, _)| *user).collect();
        let mut users = users.into_iter();
        users.try_for_each(|user| self.apply(outside, user))
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

    /// Whoever is at this address has this class, unless a session says otherwise. False: there is no such
    /// class, and until there is the address has the default one.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn set_user(
        &mut self,
        outside: &mut Outside,
        user: IpAddr,
        class: &str,
    ) -> Result<bool, LoadError> {
        self.fixed.insert(user, class.to_owned());
        self.apply(outside, user)?;
        Ok(self.classes.contains_key(class))
    }

    /// Undoes [`Filter::set_user`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove_user(&mut self, outside: &mut Outside, user: IpAddr) -> Result<(), LoadError> {
        self.fixed.remove(&user);
        self.apply(outside, user)
    }

    /// The peer of a session is at this address, and has this class, or the session is no more. Of several at
    /// one address the last one counts. False: there is no such class.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn set_session(
        &mut self,
        outside: &mut Outside,
        session: SessionId,
        user: Option<(IpAddr, &str)>,
    ) -> Result<bool, LoadError> {
        let before = self.sessions.remove(&session).map(|(address, _)| address);
        if let Some(sessions) = before.and_then(|address| self.at.get_mut(&address)) {
            sessions.retain(|other| *other != session);
        }
        if let Some((address, class)) = user {
            self.sessions.insert(session, (address, class.to_owned()));
            self.at.entry(address).or_default().push(session);
            self.apply(outside, address)?;
        }
        if let Some(address) = before {
            self.apply(outside, address)?;
            if self.at.get(&address).is_some_and(Vec::is_empty) {
                self.at.remove(&address);
            }
        }
        Ok(user.is_none_or(|(_, class)| self.classes.contains_key(class)))
    }

    /// Brings what is in the map of an address up to date.
    fn apply(&mut self, outside: &mut Outside, user: IpAddr) -> Result<(), LoadError> {
        let session = self.at.get(&user).and_then(|sessions| sessions.last());
        let class = session.and_then(|session| self.sessions.get(session));
        let class = class.map(|(_, class)| class).or(self.fixed.get(&user));
        let placed = class.and_then(|class| self.classes.get(class));
        let number = placed.map(|placed| placed.number);
        if !self.own.contains(&user) && number != self.users.get(&user).copied() {
            outside.set_user(user, number)?;
        }
        match number {
            Some(number) => self.users.insert(user, number),
            None => self.users.remove(&user),
        };
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

    /// Whoever is at this outside address has this class, unless a session says otherwise. False: there is no
    /// such class, and until there is the address has the default one.
    pub fn set_user(&mut self, user: IpAddr, class: &str) -> Result<bool, LoadError> {
        match &mut self.outside {
            Some(outside) => self.filter.set_user(outside, user, class),
            None => Ok(false),
        }
    }

    /// Undoes [`Dataplane::set_user`].
    pub fn remove_user(&mut self, user: IpAddr) -> Result<(), LoadError> {
        match &mut self.outside {
            Some(outside) => self.filter.remove_user(outside, user),
            None => Ok(()),
        }
    }

    /// The peer of a session is at this outside address now, and has this class; none: the session is no more.
    /// Of several at one address the last one counts. False: there is no such class.
    pub fn set_session_class(
        &mut self,
        session: SessionId,
        user: Option<(IpAddr, &str)>,
    ) -> Result<bool, LoadError> {
        match &mut self.outside {
            Some(outside) => self.filter.set_session(outside, session, user),
            None => Ok(false),
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
