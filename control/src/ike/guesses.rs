//! How often passwords may be guessed: the more of them were wrong, the longer the next one has to
//! wait. Nobody is locked out for good.
//!
//! Wrong passwords are counted for each source, whatever the names, and for each name, wherever they
//! come from. Where a user has come from with the right password is known: there only what is wrong
//! there counts, so that strangers who guess elsewhere do not slow that user down.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::limits::Source;

/// So many wrong passwords cost nothing.
const FREE: u32 = 5;
/// The wait after one more. It doubles with each further one …
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// … up to this for a name …
const LONGEST_WAIT_OF_NAME: Duration = Duration::from_secs(60);
/// … and this for a source.
const LONGEST_WAIT_OF_SOURCE: Duration = Duration::from_secs(15 * 60);
/// After so long without another wrong one all is forgotten.
const MEMORY: Duration = Duration::from_secs(60 * 60);
/// So many counts are kept, and so many known places of users; of more the oldest goes.
const MOST: usize = 8192;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Name(String),
    Source(Source),
    /// A name where its user is known.
    Known(String, Source),
}

#[derive(Debug, Clone, Copy)]
struct Count {
    wrong: u32,
    last: Instant,
}

/// Wrong passwords of late.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    counts: HashMap<Who, Count>,
    known: HashMap<(String, Source), Instant>,
}

impl Guesses {
    /// How long this name must wait, at this source, until its password is looked at again.
    pub(crate) fn wait(&self, now: Instant, name: &str, source: Source) -> Option<Duration> {
        let name = plain(name);
        let left = |who: &Who| {
            let count = self.counts.get(who)?;
            let until = count.last + who.pause(count.wrong)?;
            until.checked_duration_since(now).filter(|d| !d.is_zero())
        };
        match self.known.contains_key(&(name.clone(), source)) {
            true => left(&Who::Known(name, source)),
            false => left(&Who::Name(name)).max(left(&Who::Source(source))),
        }
    }

    /// A password was wrong.
    pub(crate) fn wrong(&mut self, now: Instant, name: &str, source: Source) {
        let name = plain(name);
        match self.known.contains_key(&(name.clone(), source)) {
            true => self.count(now, Who::Known(name, source)),
            false => {
                self.count(now, Who::Name(name));
                self.count(now, Who::Source(source));
            }
        }
    }

    /// A password was right: the user is known at this source.
    pub(crate) fn right(&mut self, now: Instant, name: &str, source: Source) {
        let name = plain(name);
        self.counts.remove(&Who::Known(name.clone(), source));
        let place = (name, source);
        if !self.known.contains_key(&place) {
            make_room(&mut self.known, |at| *at);
        }
        self.known.insert(place, now);
    }

    fn count(&mut self, now: Instant, who: Who) {
        if !self.counts.contains_key(&who) {
            make_room(&mut self.counts, |count| count.last);
        }
        let count = self.counts.entry(who).or_insert(Count {
            wrong: 0,
            last: now,
        });
        if now.saturating_duration_since(count.last) >= MEMORY {
            count.wrong = 0;
        }
        count.wrong = count.wrong.saturating_add(1);
        count.last = now;
    }
}

impl Who {
    /// How long so many wrong passwords make wait.
    fn pause(&self, wrong: u32) -> Option<Duration> {
        let longest = match self {
            Who::Name(_) | Who::Known(..) => LONGEST_WAIT_OF_NAME,
            Who::Source(_) => LONGEST_WAIT_OF_SOURCE,
        };
        let beyond = wrong.checked_sub(FREE + 1)?;
        let factor = 2u32.saturating_pow(beyond);
        Some(FIRST_WAIT.saturating_mul(factor).min(longest))
    }
}

/// Two spellings that the owner may take for the same user.
fn plain(name: &str) -> String {
    let name = name.rsplit('\\').next().unwrap_or_default();
    name.to_lowercase()
}

/// Drops the oldest entry of a table that is full.
fn make_room<K: Clone + Eq + std::hash::Hash, V>(
    table: &mut HashMap<K, V>,
    at: impl Fn(&V) -> Instant,
) {
    if table.len() < MOST {
        return;
    }
    let oldest = table.iter().min_by_key(|(_, value)| at(value));
    if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
        table.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Guesses as often as it may until `until`; yields how often that was.
    fn guess(
        guesses: &mut Guesses,
        now: &mut Instant,
        until: Instant,
        mut who: impl FnMut(u32) -> (&'static str, Source),
    ) -> u32 {
        let mut count = 0;
        while *now < until {
            let (name, source) = who(count);
            match guesses.wait(*now, name, source) {
                Some(wait) => *now += wait,
                None => {
                    guesses.wrong(*now, name, source);
                    count += 1;
                }
            }
        }
        count
    }

    #[test]
    fn each_further_guess_waits_twice_as_long() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let (here, mut now) = (source("192.0.2.1"), start);
        let mut waits = Vec::new();
        for _ in 0..17 {
            guesses.wrong(now, "anna", here);
            let wait = guesses.wait(now, "anna", here);
            waits.push(wait.map_or(0, |w| w.as_secs()));
            now += wait.unwrap_or_default();
            assert_eq!(guesses.wait(now, "anna", here), None);
        }
        let expected = [
            0, 0, 0, 0, 0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900,
        ];
        assert_eq!(waits, expected);
        // All is forgotten after an hour of peace.
        now += MEMORY;
        guesses.wrong(now, "anna", here);
        assert_eq!(guesses.wait(now, "anna", here), None);
    }

    #[test]
    fn one_source_gets_nowhere_with_many_names() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let names = ["anna", "berta", "carla", "dora"];
        let (mut now, here) = (start, source("2001:db8::1"));
        let day = start + seconds(86_400);
        let count = guess(&mut guesses, &mut now, day, |count| {
            (names[count as usize % names.len()], here)
        });
        assert_eq!(count, 109, "in a day");
        now -= seconds(1);
        assert!(guesses.wait(now, "emil", source("2001:db8::2")).is_some());
        assert!(
            guesses
                .wait(now, "emil", source("2001:db8:0:1::1"))
                .is_none()
        );
    }

    /// A thousand places guess one name.
    #[test]
    fn one_name_is_not_found_from_many_sources() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let mut now = start;
        let day = start + seconds(86_400);
        let count = guess(&mut guesses, &mut now, day, |count| {
            let [.., a, b] = count.to_be_bytes();
            ("anna", IpAddr::from([198, 51, a % 4, b]).into())
        });
        assert_eq!(count, 1449, "in a day");
    }

    #[test]
    fn strangers_do_not_lock_a_user_out() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let (home, elsewhere) = (source("192.0.2.1"), source("192.0.2.99"));
        guesses.right(start, "anna", home);
        for _ in 0..1000 {
            guesses.wrong(start, r"DOMAIN\Anna", elsewhere);
        }
        // Where the user is known nothing has happened.
        assert_eq!(guesses.wait(start, "anna", home), None);
        assert_eq!(guesses.wait(start, "anna", elsewhere), Some(seconds(900)));
        // In a new place it takes a minute at most, as it does for the stranger.
        let hotel = source("203.0.113.7");
        assert_eq!(guesses.wait(start, "anna", hotel), Some(seconds(60)));
        assert_eq!(guesses.wait(start + seconds(60), "anna", hotel), None);
        // Somebody else at home guesses: that counts there, and not for long.
        for _ in 0..1000 {
            guesses.wrong(start, "anna", home);
        }
        assert_eq!(guesses.wait(start, "anna", home), Some(seconds(60)));
        assert_eq!(guesses.wait(start, "berta", home), None);
        guesses.right(start + seconds(60), "anna", home);
        assert_eq!(guesses.wait(start + seconds(60), "anna", home), None);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        for number in 0..8_500u32 {
            let place = IpAddr::from(number.to_be_bytes()).into();
            let now = start + Duration::from_millis(number.into());
            guesses.wrong(now, &format!("user-{number}"), place);
            guesses.right(now, &format!("user-{number}"), place);
        }
        assert_eq!((guesses.counts.len(), guesses.known.len()), (MOST, MOST));
        // The oldest has gone, the newest has not.
        let known = |number: u32| {
            let place = IpAddr::from(number.to_be_bytes()).into();
            guesses
                .known
                .contains_key(&(format!("user-{number}"), place))
        };
        assert_eq!((known(0), known(8_499)), (false, true));
    }
}
