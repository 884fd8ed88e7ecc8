//! The links of the interfaces that a node stands on.

use std::collections::HashMap;

use anyhow::{Result, bail};

use crate::dataplane::net::fib_watch::LinkChange;

/// One interface.
#[derive(Debug)]
struct Known {
    /// The index that programs and sockets are bound to.
    index: u32,
    /// The watch has seen this very interface.
    seen: bool,
    /// As it was told last.
    up: Option<bool>,
}

/// What a change means.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Whether every link is up now, if that has to be told.
    pub(super) all_up: Option<bool>,
    /// This link went up, or down.
    pub(super) flipped: Option<bool>,
}

/// The interfaces that the node uses.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    known: HashMap<String, Known>,
}

impl Interfaces {
    pub(super) fn new(bound: impl IntoIterator<Item = (String, u32)>) -> Self {
        let known = |index| Known {
            index,
            seen: false,
            up: None,
        };
        let bound = bound.into_iter();
        Self {
            known: bound.map(|(name, index)| (name, known(index))).collect(),
        }
    }

    /// Takes a change in.
    ///
    /// # Errors
    /// The interface was made anew. What is bound to the old one (programs, sockets) is of no use
    /// any more, and does not say so.
    pub(super) fn on_change(&mut self, change: &LinkChange) -> Result<News> {
        let name = &change.interface;
        let Some(known) = self.known.get_mut(name) else {
            return Ok(News::default());
        };
        if change.index != 0 && change.index != known.index {
            // Before the first sight of ours it may be one of an earlier run that just goes.
            if known.seen || change.index > known.index {
                bail!(
                    "interface {name} was made anew (its index is {}, it was {}): evergate has to \
                     be started again to use it",
                    change.index,
                    known.index
                );
            }
            return Ok(News::default());
        }
        known.seen |= change.index == known.index;
        let before = known.up.replace(change.up);
        if before == Some(change.up) {
            return Ok(News::default());
        }
        let all_up = self.known.values().all(|known| known.up != Some(false));
        Ok(News {
            all_up: Some(all_up),
            flipped: before.map(|_| change.up),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(interface: &str, index: u32, up: bool) -> LinkChange {
        LinkChange {
            interface: interface.to_owned(),
            index,
            up,
            mtu: 1500,
            mac: None,
            addresses: Vec::new(),
        }
    }

    fn news(all_up: bool, flipped: Option<bool>) -> News {
        News {
            all_up: Some(all_up),
            flipped,
        }
    }

    fn interfaces() -> Interfaces {
        Interfaces::new([("wan".to_owned(), 3), ("lan".to_owned(), 4)])
    }

    #[test]
    fn every_link_counts() {
        let mut interfaces = interfaces();
        for (name, index, up, expected) in [
            ("wan", 3, true, news(true, None)),
            // The TUN device is made after the watch has begun.
            ("lan", 0, false, news(false, None)),
            ("lan", 4, true, news(true, Some(true))),
            ("lan", 4, true, News::default()),
            ("wan", 3, false, news(false, Some(false))),
            ("lan", 4, false, news(false, Some(false))),
            ("wan", 3, true, news(false, Some(true))),
            ("lan", 4, true, news(true, Some(true))),
            // Gone, and back as the same one (from another namespace).
            ("wan", 0, false, news(false, Some(false))),
            ("wan", 3, true, news(true, Some(true))),
            ("other", 9, false, News::default()),
        ] {
            let found = interfaces.on_change(&change(name, index, up)).unwrap();
            assert_eq!(found, expected, "{name} {index} {up}");
        }
    }

    #[test]
    fn an_interface_that_was_made_anew_is_the_end() {
        for earlier in [
            None,
            Some(change("wan", 3, true)),
            Some(change("wan", 0, false)),
        ] {
            let mut interfaces = interfaces();
            if let Some(earlier) = earlier {
                interfaces.on_change(&earlier).unwrap();
            }
            let error = interfaces.on_change(&change("wan", 9, true)).unwrap_err();
            let text = "interface wan was made anew (its index is 9, it was 3)";
            assert!(error.to_string().starts_with(text), "{error}");
        }
        // What an earlier run of the node left is told before ours.
        let mut interfaces = interfaces();
        let stale = interfaces.on_change(&change("lan", 2, true)).unwrap();
        assert_eq!(stale, News::default());
        assert_eq!(
            interfaces.on_change(&change("lan", 4, true)).unwrap(),
            news(true, None)
        );
        assert!(interfaces.on_change(&change("lan", 2, true)).is_err());
    }
}
