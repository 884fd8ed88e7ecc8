//! The record of what has happened, and what follows from it.

use std::net::IpAddr;
use std::time::Duration;

use super::At;
use super::history::Pace;

/// The least grain of time.
const GRAIN: Duration = Duration::from_nanos(1);

/// A time that chance decides: not before `low`, at `high` at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) low: At,
    pub(super) high: At,
}

impl Span {
    /// The wait after the so-many-th failure in a row, from 1, which was at `at`: `first`, doubling to
    /// `cap`, and of that from one half to all.
    pub(super) fn wait(pace: Pace, failures: usize, at: At) -> Span {
        let mut full = pace.first;
        for _ in 1..failures.min(40) {
            full = (full * 2).min(pace.cap);
        }
        Span {
            low: at + full / 2,
            high: at + full,
        }
    }
}

/// How a session came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Deleted or expired.
    Over,
    /// Its gateway was declared dead.
    Dead,
    /// A newer one with the same gateway was made.
    Replaced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) session: u64,
    pub(super) from: At,
    pub(super) end: Option<(At, End)>,
}

impl Life {
    fn longer_than(&self, long: Duration) -> bool {
        self.end.is_some_and(|(at, _)| at - self.from > long)
    }
}

/// What the machine has shown of a time that chance decides, since it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shown {
    /// It was still ahead then, at last.
    ahead: Option<At>,
    /// It was over then, at first.
    over: Option<At>,
}

impl Shown {
    fn narrow(&self, span: Span) -> Span {
        Span {
            low: self.ahead.map_or(span.low, |at| span.low.max(at + GRAIN)),
            high: self.over.map_or(span.high, |at| span.high.min(at)),
        }
    }

    /// Nothing is learnt outside of the span.
    fn show(&mut self, span: Span, at: At, over: bool) {
        match (at >= span.low && at < span.high, over) {
            (true, true) => self.over = Some(at),
            (true, false) => self.ahead = Some(at),
            (false, _) => {}
        }
    }
}

/// What is on record of a gateway, for all clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gateway {
    pub(super) lives: Vec<Life>,
    /// An exchange that we began runs.
    pub(super) exchange: bool,
    /// Exchanges that failed while it was not keyed, and sessions that ended.
    pub(super) blames: Vec<At>,
    /// Since when its session is to be made anew, and which attempts failed.
    pub(super) refresh: Option<(At, Vec<At>)>,
    hold_shown: Shown,
    damping_shown: Shown,
}

impl Gateway {
    pub(super) fn session(&self) -> Option<u64> {
        let last = self.lives.last()?;
        last.end.is_none().then_some(last.session)
    }

    pub(super) fn keyed(&self) -> bool {
        self.session().is_some()
    }

    /// It is blamed for a failed exchange, or for the end of a session.
    pub(super) fn blame(&mut self, at: At) {
        self.blames.push(at);
        self.hold_shown = Shown::default();
    }

    pub(super) fn end(&mut self, at: At, how: End) {
        if how == End::Dead {
            self.damping_shown = Shown::default();
        }
        if let Some(last) = self.lives.last_mut().filter(|last| last.end.is_none()) {
            last.end = Some((at, how));
        }
    }

    /// Until when it is held down for the background (S27): blames since the last long life count.
    pub(super) fn hold(&self, pace: Pace) -> Span {
        let Some(last) = self.blames.last() else {
            return Span {
                low: At::ZERO,
                high: At::ZERO,
            };
        };
        let long = self.lives.iter().filter(|life| life.longer_than(pace.cap));
        let forgiven = long
            .filter_map(|life| life.end)
            .map(|(at, _)| at)
            .max()
            .unwrap_or_default();
        let count = self.blames.iter().filter(|at| **at >= forgiven).count();
        self.hold_shown
            .narrow(Span::wait(pace, count.max(1), *last))
    }

    /// Until when requests pass it over (S29), if they do.
    pub(super) fn damping(&self, pace: Pace) -> Option<Span> {
        let lives = self.lives.iter().rev().filter(|life| life.end.is_some());
        let recent = lives.take_while(|life| !life.longer_than(pace.cap));
        let deaths: Vec<At> = recent
            .filter_map(|life| life.end)
            .filter_map(|(at, how)| (how == End::Dead).then_some(at))
            .collect();
        let last = *deaths.first()?;
        let more = deaths.len() - 1;
        (more > 0).then(|| self.damping_shown.narrow(Span::wait(pace, more, last)))
    }

    /// The machine has shown whether the hold was over.
    pub(super) fn show_hold(&mut self, pace: Pace, at: At, over: bool) {
        let span = self.hold(pace);
        self.hold_shown.show(span, at, over);
    }

    /// The same of damping.
    pub(super) fn show_damping(&mut self, pace: Pace, at: At, over: bool) {
        if let Some(span) = self.damping(pace) {
            self.damping_shown.show(span, at, over);
        }
    }

    /// When the next attempt to make its session anew begins.
    pub(super) fn refresh_at(&self, pace: Pace) -> Option<Span> {
        let (since, failed) = self.refresh.as_ref()?;
        Some(match failed.last() {
            Some(last) => Span::wait(pace, failed.len(), *last),
            None => Span {
                low: *since,
                high: *since,
            },
        })
    }
}

/// A key request that is being worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) after: Option<IpAddr>,
    /// Whose exchange it waits for.
    pub(super) with: Option<IpAddr>,
    pub(super) tried: Vec<IpAddr>,
}

/// The wait after a rejected request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) until: At,
    /// It is made again then, going on from there.
    pub(super) again: Option<Option<IpAddr>>,
}

/// What becomes of payload while no gateway is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// It would ask for a key.
    Asks,
    /// It waits for the key that was asked for.
    Waits,
    /// It is refused, and asks again.
    RefusedAsks,
    /// It is refused.
    Refused,
}

/// What decides whether and when a standby is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) active: IpAddr,
    /// In order from the active one on, with their last blame.
    pub(super) unkeyed: Vec<(IpAddr, Option<At>)>,
}

/// What is on record of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) number: u32,
    pub(super) order: Vec<IpAddr>,
    pub(super) active: Option<IpAddr>,
    /// Since when.
    pub(super) active_from: At,
    pub(super) payload: Payload,
    /// The gateway that was lost, or was to be left, last.
    pub(super) lost: Option<IpAddr>,
    pub(super) request: Option<Request>,
    pub(super) wait: Option<Wait>,
    /// Rejected requests in a row.
    pub(super) rejected: Vec<At>,
    /// A gateway that another one has named.
    pub(super) named: Option<IpAddr>,
    pub(super) short: Option<(At, Shortage)>,
    /// When payload went to the active gateway.
    pub(super) sent: Vec<At>,
    pub(super) heard: Vec<(At, IpAddr)>,
    /// What gateways said of themselves; a first session clears it.
    pub(super) health: Vec<(At, IpAddr, u8)>,
    /// When silence was to be counted afresh.
    pub(super) fresh: At,
    /// Heartbeats, the first has number 1.
    pub(super) beats: Vec<(At, IpAddr)>,
    /// How many heartbeats there were when this round began.
    pub(super) round: usize,
    pub(super) answered: Vec<u32>,
    /// A gateway was lost when so many heartbeats had been sent.
    pub(super) gone: Vec<(IpAddr, usize)>,
}

impl Cluster {
    pub(super) fn new(number: u32, order: Vec<IpAddr>) -> Cluster {
        Cluster {
            number,
            order,
            active: None,
            active_from: At::ZERO,
            payload: Payload::Asks,
            lost: None,
            request: None,
            wait: None,
            rejected: Vec::new(),
            named: None,
            short: None,
            sent: Vec::new(),
            heard: Vec::new(),
            health: Vec::new(),
            fresh: At::ZERO,
            beats: Vec::new(),
            round: 0,
            answered: Vec::new(),
            gone: Vec::new(),
        }
    }

    pub(super) fn has(&self, gateway: IpAddr) -> bool {
        self.order.contains(&gateway)
    }

    /// Every gateway once, from the one behind `after` on and round; from the first on without.
    pub(super) fn round_from(&self, after: Option<IpAddr>) -> Vec<IpAddr> {
        let at = after.and_then(|after| self.order.iter().position(|gateway| *gateway == after));
        let mut round = self.order.clone();
        round.rotate_left(at.map_or(0, |at| at + 1) % self.order.len().max(1));
        round
    }

    /// Whether a gateway has said within 30 seconds that it would rather be left (S17).
    pub(super) fn unwell(&self, gateway: IpAddr, now: At) -> bool {
        let last = self.health.iter().rev().find(|(_, who, _)| *who == gateway);
        last.is_some_and(|(at, _, health)| *health != 0 && now < *at + Duration::from_secs(30))
    }

    pub(super) fn heard_last(&self, gateway: IpAddr) -> Option<At> {
        let last = self.heard.iter().rev().find(|(_, who)| *who == gateway);
        last.map(|(at, _)| *at)
    }
}
