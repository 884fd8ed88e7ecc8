//! How long packets toward a peer may be: what ICMP says (RFC 1191, RFC 8201), and what probes find
//! (RFC 8899). Sans-IO: time and input come in as arguments, sizes of probes come out.
//!
//! All sizes are those of whole IP packets outside. The shell sends a probe of the size that [`PathMtu::poll`]
//! yields, and reports an answer, which must be as long, by [`PathMtu::on_answer`].

mod table;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use table::Event;
pub use table::Phase;

/// The size that every path carries (RFC 8200 section 5, RFC 8899 section 5.1.2); nobody makes us send less,
/// unless our own route does.
pub const BASE: u32 = 1280;

/// Sizes that links usually have; they are tried first.
const USUAL: [u32; 6] = [BASE, 1400, 1420, 1492, 1500, 9000];

/// A gap so small is not worth probes that will not be answered.
const GRAIN: u32 = 16;

/// Probes of one size that go unanswered before it counts as too long (RFC 8899 section 5.1.2).
const MAX_PROBES: u8 = 3;

/// How long the answer to a probe may take; RFC 8899 section 5.1.1 allows no less.
const ANSWER: Duration = Duration::from_secs(1);

/// While nothing at all is heard of the peer, that is no sign about sizes: probes become rare.
const LONGEST_ANSWER: Duration = Duration::from_secs(64);

/// The size in use is confirmed so often while long packets go (RFC 8899: CONFIRMATION_TIMER).
const CONFIRM: Duration = Duration::from_secs(5);

/// After this time it is tried whether the path carries more again (RFC 8899: PMTU_RAISE_TIMER).
pub const RAISE: Duration = Duration::from_secs(600);

/// What ICMP said is believed for so long where nothing can be probed (RFC 1191 section 6.3).
const AGE: Duration = Duration::from_secs(600);

/// What the peer found is believed for so long; it repeats it.
const SAID: Duration = Duration::from_secs(1200);

/// Pause between tries where not even the least size goes through.
const RETRY: Duration = Duration::from_secs(30);

/// Whoever was shown to be wrong about a path is not listened to for so long.
const DEAF: Duration = Duration::from_secs(60);

/// A probe that is under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    size: u32,
    sent_at: Instant,
    wait: Duration,
    lost: u8,
}

/// What is known of the path toward one peer.
#[derive(Clone, Debug)]
pub struct PathMtu {
    /// What the first link carries; no path carries more.
    limit: u32,
    /// What packets may have.
    size: u32,
    phase: Phase,
    /// Whether probes may go now.
    on: bool,
    /// The largest size that a probe has shown to pass; 0 if none has.
    low: u32,
    /// The smallest size that is taken not to pass.
    high: u32,
    /// What ICMP said and no probe has confirmed or refuted yet.
    told: Option<u32>,
    probe: Option<Probe>,
    /// Until when a smaller size holds where nothing is probed.
    until: Option<Instant>,
    /// When the next thing is due that is no answer.
    due: Instant,
    raise_at: Instant,
    confirm_at: Instant,
    /// Packets longer than [`BASE`] have gone since the size was confirmed.
    long: bool,
    deaf_until: Option<Instant>,
}

impl PathMtu {
    /// A path of which only the first link is known. It is taken to carry as much until something says
    /// otherwise, as a host does (RFC 1191 section 3).
    #[must_use]
    pub fn new(limit: u32, now: Instant) -> Self {
        Self {
            limit,
            size: limit,
            phase: Phase::Followed,
            on: false,
            low: 0,
            high: limit.saturating_add(1),
            told: None,
            probe: None,
            until: None,
            due: now,
            raise_at: now + RAISE,
            confirm_at: now + CONFIRM,
            long: false,
            deaf_until: None,
        }
    }

    /// How long a packet may be.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// What is known about it.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it says no more than the first link does: such a one can be forgotten.
    #[must_use]
    pub fn is_trivial(&self) -> bool {
        self.phase == Phase::Followed && self.size == self.limit
    }

    fn base(&self) -> u32 {
        BASE.min(self.limit)
    }

    fn step(&mut self, event: Event, now: Instant) {
        self.phase = self.phase.after(event).unwrap_or(self.phase);
        self.due = now;
    }

    /// The first link carries this now.
    pub fn set_limit(&mut self, limit: u32, now: Instant) {
        if limit == self.limit {
            return;
        }
        self.limit = limit;
        self.high = limit.saturating_add(1);
        self.low = self.low.min(limit);
        self.told = self.told.filter(|told| *told < limit);
        self.size = match (self.phase, self.until) {
            (Phase::Followed, None) => limit,
            _ => self.size.min(limit).max(self.base()),
        };
        self.probe = None;
        self.step(Event::Again, now);
    }

    /// The session carries traffic, and its peer answers probes.
    pub fn begin(&mut self, now: Instant) {
        if self.on {
            return;
        }
        self.on = true;
        self.until = None;
        self.confirm_at = now;
        self.step(Event::Begun, now);
    }

    /// Another session carries the traffic: nothing is probed any more, what is known stays.
    pub fn pause(&mut self) {
        self.on = false;
        self.probe = None;
    }

    /// The peer is reached by another path: nothing is known of it.
    pub fn restart(&mut self, now: Instant) {
        let (on, probed) = (self.on, self.phase != Phase::Followed);
        *self = Self::new(self.limit, now);
        self.on = on;
        if probed {
            self.step(Event::Begun, now);
        }
    }

    /// A packet longer than [`BASE`] was sent.
    pub fn on_long(&mut self) {
        self.long = true;
    }

    /// A router says that a packet of ours was longer than the `mtu` of its next link; 0 if it does not
    /// say how long that is. Whoever calls has made sure that there was such a packet. Returns whether
    /// it was news.
    pub fn on_too_long(&mut self, mtu: u32, now: Instant) -> bool {
        //= rfc8201#section-4
        //# A node MUST NOT reduce its estimate of the Path MTU below the IPv6 minimum link MTU in
        //# response to a Packet Too Big message.
        let mtu = mtu.max(self.base());
        if self.phase == Phase::Followed {
            let believed = mtu < self.size || mtu == self.size && self.until.is_some();
            if believed {
                self.size = mtu;
                self.until = Some(now + AGE);
            }
            return believed;
        }
        if self.deaf_until.is_some_and(|until| now < until) {
            return false;
        }
        if mtu < self.size {
            // Believed at once, and tried at once: first whether so much passes, then whether what
            // was in use before really does not.
            self.high = self.size.saturating_add(1);
            (self.size, self.low, self.told) = (mtu, 0, Some(mtu));
            self.probe = None;
            self.step(Event::Again, now);
            return true;
        }
        // RFC 8899 section 4.6.2: the probe was too long, and this is the next size to try.
        let about_probe = self.probe.is_some_and(|probe| probe.size > mtu);
        if about_probe {
            self.high = self.high.min(mtu.saturating_add(1));
            self.told = Some(mtu).filter(|mtu| *mtu > self.low);
            self.probe = None;
            self.due = now;
        }
        about_probe
    }

    /// The peer itself, by an authentic packet, says what it has found. Only where nothing is probed here.
    pub fn on_said(&mut self, size: u32, now: Instant) {
        if self.phase == Phase::Followed {
            self.size = size.clamp(self.base(), self.limit);
            self.until = (self.size < self.limit).then_some(now + SAID);
        }
    }

    /// A probe of this size was answered, by an answer of the same size.
    pub fn on_answer(&mut self, size: u32, now: Instant) {
        if size > self.limit || self.phase == Phase::Followed {
            return;
        }
        if self.probe.is_some_and(|probe| probe.size <= size) {
            self.probe = None;
        }
        self.low = self.low.max(size);
        self.high = self.high.max(self.low.saturating_add(1));
        if self.told.is_some_and(|told| size > told) {
            self.told = None;
            self.deaf_until = Some(now + DEAF);
        }
        if size >= self.size {
            self.size = size;
            self.confirm_at = now + CONFIRM;
            self.long = false;
        }
        self.step(Event::Passed, now);
    }

    /// What is to be probed now. `heard`: when anything authentic came from the peer last.
    pub fn poll(&mut self, now: Instant, heard: Option<Instant>) -> Option<u32> {
        if self.phase == Phase::Followed {
            if self.until.is_some_and(|until| now >= until) {
                (self.until, self.size) = (None, self.limit);
            }
            return None;
        }
        if !self.on || self.limit == 0 {
            return None;
        }
        if let Some(mut probe) = self.probe {
            if now < probe.sent_at + probe.wait {
                return None;
            }
            if heard.is_some_and(|at| at >= probe.sent_at) {
                probe.lost += 1;
                probe.wait = ANSWER;
            } else {
                probe.wait = (probe.wait * 2).min(LONGEST_ANSWER);
            }
            if probe.lost > 0 && probe.size == self.size && self.low < self.size {
                // It was never shown to pass: nothing is risked for it.
                self.size = self.base();
            }
            if probe.lost < MAX_PROBES {
                probe.sent_at = now;
                self.probe = Some(probe);
                return Some(probe.size);
            }
            self.lost(probe.size, now);
        }
        let size = self.next(now)?;
        self.probe = Some(Probe {
            size,
            sent_at: now,
            wait: ANSWER,
            lost: 0,
        });
        Some(size)
    }

    /// A size does not pass.
    fn lost(&mut self, size: u32, now: Instant) {
        self.probe = None;
        let told = self.told.take();
        if size > self.size && self.low >= self.size {
            // Only more than what is in use. ICMP has said how much passes, and was right.
            let high = told.filter(|told| *told <= self.low);
            self.high = high.map_or(size, |told| told.saturating_add(1));
            self.due = now;
            return;
        }
        let base = self.base();
        (self.size, self.low) = (base, 0);
        self.high = self.high.min(size).max(base.saturating_add(1));
        match size > base {
            true => self.step(Event::Lost, now),
            false => {
                self.high = self.limit.saturating_add(1);
                self.step(Event::BaseLost, now);
                self.due = now + RETRY;
            }
        }
    }

    /// The size of the next probe, if it is time for one.
    fn next(&mut self, now: Instant) -> Option<u32> {
        if self.phase == Phase::Complete && self.size < self.limit && now >= self.raise_at {
            self.high = self.limit.saturating_add(1);
            self.step(Event::Again, now);
        }
        match self.phase {
            Phase::Followed => None,
            Phase::Base => Some(self.base()),
            Phase::Error => (now >= self.due).then(|| self.base()),
            Phase::Complete => (self.long && now >= self.confirm_at).then_some(self.size),
            Phase::Searching => {
                let candidate = self.candidate();
                if candidate.is_none() {
                    self.step(Event::Found, now);
                    self.raise_at = now + RAISE;
                }
                candidate
            }
        }
    }

    /// What to try next in a search: first what is in use, then what ICMP said, then sizes that are usual,
    /// the smallest first, so that all but the last are answered at once; then the middle of what is left.
    fn candidate(&self) -> Option<u32> {
        if self.low < self.size {
            return Some(self.size);
        }
        if let Some(told) = self.told {
            return match told > self.low {
                true => Some(told),
                false => Some(self.high.saturating_sub(1)).filter(|size| *size > self.low),
            };
        }
        let open = |size: &u32| *size > self.low && *size < self.high && *size <= self.limit;
        let usual = USUAL.into_iter().find(open);
        // Routes may have any MTU.
        let usual = usual.or(Some(self.limit).filter(open));
        let gap = self.high.saturating_sub(self.low);
        let middle = || self.low + gap / 2 - (self.low + gap / 2) % 4;
        usual.or_else(|| Some(middle()).filter(|size| gap > GRAIN && open(size)))
    }

    /// When to call [`Self::poll`] at the latest, and why.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        if self.phase == Phase::Followed {
            return self.until.map(|until| (until, "path MTU ages"));
        }
        if !self.on || self.limit == 0 {
            return None;
        }
        if let Some(probe) = &self.probe {
            return Some((probe.sent_at + probe.wait, "probe unanswered"));
        }
        match self.phase {
            Phase::Complete => {
                let raise = (self.size < self.limit).then_some((self.raise_at, "path MTU raise"));
                let confirm = self.long.then_some((self.confirm_at, "path MTU confirm"));
                raise.into_iter().chain(confirm).min_by_key(|(at, _)| *at)
            }
            _ => Some((self.due, "path MTU probe")),
        }
    }
}
