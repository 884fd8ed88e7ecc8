//! Inner addresses on one side of a session.

use std::ops::Deref;
use std::{fmt, slice};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Prefixes in the order in which they were given: mostly one, which takes no memory of its own then.
#[derive(Clone)]
pub struct Nets(Kept);

#[derive(Clone)]
enum Kept {
    One(IpNet),
    /// None, or several.
    Many(Box<[IpNet]>),
}

// A gateway has four of them for each client.
const _: () = assert!(size_of::<Nets>() == 24);

impl Nets {
    /// No prefix at all.
    #[must_use]
    pub fn new() -> Self {
        Self(Kept::Many(Box::default()))
    }

    /// One more prefix, at the end.
    pub fn push(&mut self, net: IpNet) {
        *self = self.iter().copied().chain([net]).collect();
    }

    /// Keeps those of which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&IpNet) -> bool) {
        *self = self.iter().copied().filter(|net| keep(net)).collect();
    }
}

impl Default for Nets {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Nets {
    type Target = [IpNet];

    #[inline]
    fn deref(&self) -> &[IpNet] {
        match &self.0 {
            Kept::One(net) => slice::from_ref(net),
            Kept::Many(nets) => nets,
        }
    }
}

impl fmt::Debug for Nets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for Nets {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Nets {}

impl From<Vec<IpNet>> for Nets {
    fn from(nets: Vec<IpNet>) -> Self {
        match *nets {
            [net] => Self(Kept::One(net)),
            _ => Self(Kept::Many(nets.into())),
        }
    }
}

impl From<&[IpNet]> for Nets {
    fn from(nets: &[IpNet]) -> Self {
        match nets {
            [net] => Self(Kept::One(*net)),
            _ => Self(Kept::Many(nets.into())),
        }
    }
}

impl FromIterator<IpNet> for Nets {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        Vec::from_iter(nets).into()
    }
}

impl<'a> IntoIterator for &'a Nets {
    type Item = &'a IpNet;
    type IntoIter = slice::Iter<'a, IpNet>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for Nets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Nets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_or_many_they_keep_their_order() {
        let all: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/64", "192.0.2.7/32"]
            .map(|net| net.parse().unwrap())
            .into();
        let mut nets = Nets::new();
        for count in 0..=all.len() {
            let expected = all.get(..count).unwrap();
            assert_eq!(*nets, *expected);
            assert_eq!(nets, Nets::from(expected));
            assert_eq!(nets, Nets::from(expected.to_vec()));
            let text = serde_json::to_string(&nets).unwrap();
            assert_eq!(text, serde_json::to_string(expected).unwrap());
            assert_eq!(serde_json::from_str::<Nets>(&text).unwrap(), nets);
            assert_eq!(format!("{nets:?}"), format!("{expected:?}"));
            if let Some(next) = all.get(count) {
                nets.push(*next);
            }
        }
        nets.retain(|net| net.prefix_len() != 64);
        assert_eq!(*nets, [all[0], all[2]]);
        nets.retain(|net| *net == all[2]);
        assert_eq!(*nets, [all[2]]);
        nets.retain(|_| false);
        assert_eq!((nets.len(), nets), (0, Nets::default()));
    }
}
