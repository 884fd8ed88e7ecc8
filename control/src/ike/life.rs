//! How long SAs live, and what is known of a child SA meanwhile (RFC 7296 section 2.8).

use std::time::{Duration, Instant};

use rand::CryptoRng;

use super::event::{Child, Event, SaId};
use super::ts::TrafficSelector;

/// Whoever replaced an SA deletes it. If it does not for so long, we do.
pub(crate) const REPLACED: Duration = Duration::from_secs(60);

/// A peer that has no time for a rekeying for so long is out of step with us (section 2.25).
const OUT_OF_STEP: Duration = Duration::from_secs(300);

/// A rekeying that failed is tried again after this time, which doubles up to the second one.
const RETRY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// When an SA is replaced, and when it ends if that fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lifetime {
    /// The side that began the SA replaces it after this time.
    pub rekey: Duration,
    /// The part of `rekey` by which chance moves it, 0 to 0.5: earlier at the side that began the
    /// SA, later at the other one, so that two ends with the same settings rarely begin at once.
    pub jitter: f64,
    /// From the beginning to the end; longer than `rekey` and its jitter.
    pub hard: Duration,
}

impl Lifetime {
    /// `rekey`, a tenth of jitter, and the end at twice the time.
    pub fn new(rekey: Duration) -> Lifetime {
        Lifetime {
            rekey,
            jitter: 0.1,
            hard: rekey * 2,
        }
    }

    /// The wait until the rekeying. `chance` is 0 to 1.
    fn wait(&self, began: bool, chance: f64) -> Duration {
        let jitter = self.jitter.clamp(0.0, 0.5);
        let factor = match began {
            true => 1.0 - jitter * chance,
            // Half of it at least, or the two could still meet.
            false => 1.0 + jitter * (0.5 + 0.5 * chance),
        };
        Duration::try_from_secs_f64(self.rekey.as_secs_f64() * factor).unwrap_or(self.rekey)
    }
}

/// The time that an SA has left.
#[derive(Debug, Default)]
pub(crate) struct Life {
    rekey_at: Option<Instant>,
    ends_at: Option<Instant>,
    /// We are about to replace it.
    pub(crate) rekeying: bool,
    failures: u32,
    /// Since when the peer says TEMPORARY_FAILURE.
    put_off: Option<Instant>,
}

impl Life {
    /// Of an SA that comes about now; `began`: by an exchange that we began.
    pub(crate) fn new(
        lifetime: Option<Lifetime>,
        now: Instant,
        began: bool,
        rng: &mut dyn CryptoRng,
    ) -> Life {
        let wait = lifetime.map(|l| l.wait(began, chance(rng)));
        Life {
            rekey_at: wait.and_then(|wait| now.checked_add(wait)),
            ends_at: lifetime.and_then(|l| now.checked_add(l.hard)),
            rekeying: false,
            failures: 0,
            put_off: None,
        }
    }

    /// As it was written down.
    pub(crate) fn of(rekey_at: Option<Instant>, ends_at: Option<Instant>) -> Life {
        Life {
            rekey_at,
            ends_at,
            ..Life::default()
        }
    }

    /// When it is to be replaced, and when it ends.
    pub(crate) fn times(&self) -> (Option<Instant>, Option<Instant>) {
        (self.rekey_at, self.ends_at)
    }

    pub(crate) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let rekey = self.rekey_at.map(|at| (at, "rekey"));
        let end = self.ends_at.map(|at| (at, "lifetime"));
        [rekey, end].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Whether the time to replace it has come; told once.
    pub(crate) fn rekey_is_due(&mut self, now: Instant) -> bool {
        let due = self.rekey_at.is_some_and(|at| at <= now);
        if due {
            self.rekey_at = None;
            self.rekeying = true;
        }
        due
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.ends_at.is_some_and(|at| at <= now)
    }

    /// The owner wants it replaced. One that failed keeps the time of its next try.
    pub(crate) fn rekey_now(&mut self, now: Instant) {
        if !self.rekeying && self.failures == 0 {
            self.rekey_at = Some(now);
        }
    }

    /// When it is to be replaced, if that is not under way.
    pub(crate) fn rekey_at(&self) -> Option<Instant> {
        self.rekey_at
    }

    /// Replacing it failed: again later. RFC 7296 section 2.25 forbids to do so at once after
    /// TEMPORARY_FAILURE, and chance keeps two ends from failing in step.
    pub(crate) fn retry(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let [first, cap] = RETRY;
        let wait = first.saturating_mul(1 << self.failures.min(16)).min(cap);
        self.failures = self.failures.saturating_add(1);
        self.rekeying = false;
        self.rekey_at = Some(now + wait.mul_f64(0.75 + 0.5 * chance(rng)));
    }

    /// Whether the peer has said TEMPORARY_FAILURE for too long. `busy`: it says so now.
    pub(crate) fn is_put_off_for_good(&mut self, now: Instant, busy: bool) -> bool {
        if !busy {
            self.put_off = None;
            return false;
        }
        let since = *self.put_off.get_or_insert(now);
        now.saturating_duration_since(since) >= OUT_OF_STEP
    }

    /// Another SA is in its place; whoever made that deletes this one.
    pub(crate) fn replaced(&mut self, now: Instant) {
        self.rekey_at = None;
        self.ends_at = Some(now + REPLACED);
    }

    /// Its deletion is under way, and bounded by that of the exchange.
    pub(crate) fn deleting(&mut self) {
        (self.rekey_at, self.ends_at) = (None, None);
    }
}

/// 0 to 1.
fn chance(rng: &mut dyn CryptoRng) -> f64 {
    f64::from(rng.next_u32()) / f64::from(u32::MAX)
}

/// How far a child SA has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    InUse,
    /// Another one is in its place; the peer, who made that, deletes this one.
    Replaced,
    /// We delete it.
    Deleting,
}

/// A child SA of an IKE SA. Its keys are the owner's.
#[derive(Debug)]
pub(crate) struct ChildSa {
    pub(crate) spi_in: u32,
    pub(crate) spi_out: u32,
    /// See [`Child::lane`].
    pub(crate) lane: u16,
    /// Extended sequence numbers.
    pub(crate) esn: bool,
    pub(crate) local_ts: Box<[TrafficSelector]>,
    pub(crate) remote_ts: Box<[TrafficSelector]>,
    pub(crate) stage: Stage,
    pub(crate) life: Life,
    /// The peer may have another one in its place, of which nothing but this inbound SPI is known.
    pub(crate) orphan: Option<u32>,
}

impl ChildSa {
    pub(crate) fn new(child: &Child, life: Life) -> ChildSa {
        ChildSa {
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            lane: child.lane,
            esn: child.esn,
            local_ts: child.local_ts.clone().into(),
            remote_ts: child.remote_ts.clone().into(),
            stage: Stage::InUse,
            life,
            orphan: None,
        }
    }

    pub(crate) fn is_in_use(&self) -> bool {
        self.stage == Stage::InUse
    }

    /// The peer has another one in its place.
    pub(crate) fn replace(&mut self, now: Instant) {
        self.stage = Stage::Replaced;
        self.life.replaced(now);
    }

    /// We are going to delete it.
    pub(crate) fn delete(&mut self) {
        self.stage = Stage::Deleting;
        self.life.deleting();
    }

    pub(crate) fn closed(&self, id: SaId) -> Event {
        Event::ChildClosed {
            id,
            spi_in: self.spi_in,
            spi_out: self.spi_out,
        }
    }
}

/// What the peer made by an exchange of its own while ours for the same purpose was under way.
#[derive(Debug)]
pub(crate) struct Rival {
    /// Ours: that of the child SA, or of the IKE SA.
    pub(crate) spi: u64,
    pub(crate) nonces: Lowest,
    /// The SA is there; else an additional key exchange is to follow.
    pub(crate) is_made: bool,
}

/// The lower nonce of an exchange. Of two that did the same, the SA of the one with the lowest of
/// all four nonces is redundant (section 2.8.1).
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lowest(Box<[u8]>);

impl Lowest {
    pub(crate) fn of([ni, nr]: [&[u8]; 2]) -> Lowest {
        Lowest(ni.min(nr).into())
    }
}

/// An exchange of ours under way that makes or ends SAs: what it must not cross, and what it may
/// (section 2.25).
#[derive(Debug, Default)]
pub(crate) enum Busy {
    #[default]
    Free,
    /// A further child SA.
    Create,
    /// A child SA is replaced, which has this inbound SPI.
    RekeyChild { spi_in: u32, rival: Option<Rival> },
    /// The child SA with this inbound SPI is deleted.
    DeleteChild { spi_in: u32 },
    /// The IKE SA is replaced. `decided`: in spite of what the peer may have begun for the same
    /// purpose.
    RekeyIke { rival: Option<Rival>, decided: bool },
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn whoever_began_comes_first() {
        let hour = Lifetime::new(Duration::from_secs(3600));
        let minutes = |began, chance| hour.wait(began, chance).as_secs_f64() / 60.0;
        for (began, chance, expected) in [
            (true, 0.0, 60.0),
            (true, 1.0, 54.0),
            (false, 0.0, 63.0),
            (false, 1.0, 66.0),
        ] {
            assert!((minutes(began, chance) - expected).abs() < 1e-6);
        }
        let exact = Lifetime {
            jitter: 0.0,
            ..hour
        };
        assert_eq!(exact.wait(true, 0.7), exact.wait(false, 0.2));
    }

    #[test]
    fn tries_again_later_each_time() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let lifetime = Lifetime::new(Duration::from_secs(100));
        let mut life = Life::new(Some(lifetime), now, true, &mut rng);
        assert!(!life.rekey_is_due(now + Duration::from_secs(89)));
        let at = now + Duration::from_secs(100);
        assert!(life.rekey_is_due(at) && life.rekeying);
        assert!(!life.rekey_is_due(at), "told once");
        let mut waits = Vec::new();
        for _ in 0..12 {
            life.retry(at, &mut rng);
            // The owner can not hurry what failed.
            life.rekey_now(at);
            waits.push((life.rekey_at().unwrap() - at).as_millis());
        }
        assert!((187..=313).contains(&waits[0]), "{waits:?}");
        assert!((1500..=2500).contains(&waits[3]), "{waits:?}");
        assert!((22_500..=37_500).contains(&waits[11]), "{waits:?}");
        assert!(!life.is_over(now + Duration::from_secs(199)));
        assert!(life.is_over(now + Duration::from_secs(200)));
    }

    #[test]
    fn out_of_step_is_who_has_no_time_on_end() {
        let (mut life, now) = (Life::default(), Instant::now());
        let mut for_good = |seconds, busy| {
            let at = now + Duration::from_secs(seconds);
            life.is_put_off_for_good(at, busy)
        };
        assert!(!for_good(0, true) && !for_good(299, true));
        // Something else is wrong now.
        assert!(!for_good(299, false) && !for_good(300, true));
        assert!(!for_good(599, true) && for_good(600, true));
    }

    #[test]
    fn the_lowest_nonce_decides() {
        let lowest = |a: &[u8], b: &[u8]| Lowest::of([a, b]);
        assert!(lowest(&[9], &[2]) < lowest(&[3], &[8]));
        // A nonce that is the beginning of another is the lower one.
        assert!(lowest(&[2], &[9]) < lowest(&[2, 0], &[3]));
    }
}
