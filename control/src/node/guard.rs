//! When the guard before IKE goes up: the XDP program then asks first messages for cookies in our
//! place, as fast as they come in.

use std::time::{Duration, Instant};

use evergate_common::guard::Guard;
use evergate_common::reason::Counter;

use super::core::Node;
use super::events::{EventKind, NewEvent};
use crate::dataplane::loader::LoadError;
use crate::ike::CookieKeys;

/// Below a quarter of the threshold for so long, and the guard goes down.
const CALM: Duration = Duration::from_secs(10);

/// Rates over a shorter time mean nothing.
const LEAST: Duration = Duration::from_millis(50);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Put the guard up: so many first messages a second were asked for a cookie.
    Up(u64),
    /// Put it down.
    Down,
}

/// Judges how many first messages must be asked for cookies.
pub(super) struct Flood {
    /// A second; 0: never up.
    threshold: u64,
    up: bool,
    /// The count at the last look.
    last: Option<(Instant, u64)>,
    calm_since: Option<Instant>,
}

impl Flood {
    pub(super) fn new(threshold: u32) -> Self {
        Self {
            threshold: threshold.into(),
            up: false,
            last: None,
            calm_since: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// `asked`: how many first messages have been asked for a cookie since the start, by whomever.
    pub(super) fn look(&mut self, now: Instant, asked: u64) -> Option<Turn> {
        let Some((at, before)) = self.last else {
            self.last = Some((now, asked));
            return None;
        };
        let elapsed = now.saturating_duration_since(at);
        if self.threshold == 0 || elapsed < LEAST {
            return None;
        }
        self.last = Some((now, asked));
        let rate = u128::from(asked.saturating_sub(before)) * 1_000_000 / elapsed.as_micros();
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        if !self.up {
            self.up = rate >= self.threshold;
            return self.up.then_some(Turn::Up(rate));
        }
        if rate > self.threshold / 4 {
            self.calm_since = None;
            return None;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(since) < CALM {
            return None;
        }
        (self.up, self.calm_since) = (false, None);
        Some(Turn::Down)
    }
}

impl Node {
    /// Puts the guard up or down, and gives it the keys of now.
    pub(super) fn guard(&mut self, now: Instant) -> Result<(), LoadError> {
        let counters = self.dataplane.xdp_counters();
        let by_guard = counters[Counter::IkeAsked.index()];
        // An edge does not know whom its authority asks: what comes there by it counts.
        let behind = match &self.edge {
            Some(edge) => edge.first_messages() + counters[Counter::IkeFirstTranslated.index()],
            None => self.engine.stats().cookies_sent,
        };
        let asked = behind + by_guard;
        match self.flood.look(now, asked) {
            Some(Turn::Up(rate)) => {
                let text = format!(
                    "a flood of first messages: {rate} a second without a cookie; the guard is up"
                );
                self.note(NewEvent::new(EventKind::Flood, text));
            }
            Some(Turn::Down) => {
                let text = "the flood of first messages is over; the guard is down";
                self.note(NewEvent::new(EventKind::Flood, text));
                return self.dataplane.set_guard(Guard::down());
            }
            None => {}
        }
        if self.flood.is_up() {
            let keys = match &self.edge {
                Some(edge) => edge.cookies(),
                None => Some(self.engine.cookie_keys(now)),
            };
            // Nobody would take the cookies of an edge without an authority.
            let Some(CookieKeys { current, before }) = keys else {
                return self.dataplane.set_guard(Guard::down());
            };
            self.dataplane.set_guard(Guard::up(*current, *before))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::{Engine, Identity, Settings};
    use evergate_common::guard::cookie;
    use evergate_common::maps::address;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// Looks every 200 ms, with so many first messages a second in between.
    fn run(flood: &mut Flood, now: &mut Instant, asked: &mut u64, rates: &[u64]) -> Vec<Turn> {
        let mut turns = Vec::new();
        for rate in rates {
            *now += Duration::from_millis(200);
            *asked += rate / 5;
            turns.extend(flood.look(*now, *asked));
        }
        turns
    }

    #[test]
    fn up_at_the_threshold_and_down_after_a_calm() {
        let (mut now, mut asked) = (Instant::now(), 0);
        let mut flood = Flood::new(1_000);
        let mut go = |flood: &mut Flood, rates: &[u64]| run(flood, &mut now, &mut asked, rates);
        assert_eq!(go(&mut flood, &[0, 500, 995, 0]), []);
        assert_eq!(go(&mut flood, &[1_000]), [Turn::Up(1_000)]);
        // Less than the threshold keeps it up, a quarter of it does not.
        assert_eq!(go(&mut flood, &[255; 100]), []);
        assert_eq!(go(&mut flood, &[250; 50]), []);
        assert_eq!(go(&mut flood, &[260]), [], "the calm begins anew");
        assert_eq!(go(&mut flood, &[0; 50]), []);
        assert!(flood.is_up());
        assert_eq!(go(&mut flood, &[0]), [Turn::Down]);
        assert!(!flood.is_up());
        assert_eq!(go(&mut flood, &[5_000, 5_000]), [Turn::Up(5_000)]);
    }

    #[test]
    fn zero_never_puts_it_up() {
        let (mut now, mut asked) = (Instant::now(), 0);
        let mut flood = Flood::new(0);
        assert_eq!(run(&mut flood, &mut now, &mut asked, &[1_000_000; 5]), []);
    }

    #[test]
    fn looks_in_quick_succession_do_not_multiply_the_rate() {
        let now = Instant::now();
        let mut flood = Flood::new(1_000);
        assert_eq!(flood.look(now, 0), None);
        assert_eq!(flood.look(now, 900), None);
        assert_eq!(flood.look(now + Duration::from_millis(10), 900), None);
        assert_eq!(flood.look(now + Duration::from_secs(1), 900), None);
    }

    /// The program and the engine must make the same cookies: its answer is taken from the other.
    #[test]
    fn engine_and_guard_make_the_same_cookies() {
        let id = Identity::Fqdn("gw.example".into());
        let mut engine = Engine::new(Settings::new(id), StdRng::seed_from_u64(1));
        let now = Instant::now();
        let keys = engine.cookie_keys(now);
        assert_eq!(*keys.current, *keys.before);
        let later = engine.cookie_keys(now + Duration::from_secs(40));
        assert_eq!(*later.before, *keys.current);
        assert_ne!(*later.current, *keys.current);
        for remote in ["192.0.2.7", "2001:db8::7"] {
            let remote = remote.parse().unwrap();
            let nonce = *b"sixteen bytes or more of a nonce";
            let made = engine.cookie(now + Duration::from_secs(40), remote, 0x0102_0304, &nonce);
            let first = *nonce.first_chunk().unwrap();
            let spi = 0x0102_0304_u64.to_be_bytes();
            let same = cookie(&later.current, &address(remote), spi, first);
            assert_eq!(made, same);
        }
    }
}
