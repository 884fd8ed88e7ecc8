//! An edge's side: which SAs it owns, what its data plane may do with them, and what to say when.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::message::{Claim, FromEdge, Grant, Limits, Mark, Refusal, Report, ToEdge, Yielded};
use super::{Run, Terms};

/// Marks of one report; what is left goes with the next.
const MARKS: usize = 4096;

/// Claims that wait for an answer.
const CLAIMS: usize = 4096;

/// What an edge has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Tell the authority. Without a connection: not at all.
    Send(FromEdge),
    /// The data plane is to use the SA pair from now on. What it accepted and sent before does not count.
    Take {
        spi: u32,
        grant: Grant,
        /// The highest inbound number that it may accept.
        inbound: u64,
    },
    /// It may go so far now, in and out.
    Bound {
        spi: u32,
        inbound: u64,
        outbound: u64,
    },
    /// It is to stop, and [`Edge::stopped`] to be told where. Without `tell`: just to stop.
    Stop { spi: u32, term: u32, tell: bool },
    /// The authority knows no such pair: nobody is to have it.
    Forget { spi: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    limits: Limits,
    top: u64,
    sent: u64,
    /// It may have gone past its soft limit.
    wide: bool,
    /// The authority does not know all of this yet.
    news: bool,
    /// The highest inbound number that the authority was told.
    told: u64,
    /// The data plane was told to stop.
    stopping: bool,
}

/// What an edge owns of what an authority has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    terms: Terms,
    run: Run,
    /// Somebody else can say how far it came if its process dies.
    notary: bool,
    held: BTreeMap<u32, Held>,
    connected: bool,
    /// Reports sent on this connection, and the last one that was acknowledged.
    reports: u64,
    echo: u64,
    /// The one that the authority was told of.
    echoed: u64,
    /// The last pair that was reported, of more than go into one report.
    cursor: Option<u32>,
    /// When which pair was claimed.
    claims: BTreeMap<u32, Instant>,
    draining: bool,
    /// Without an answer the edge is alone from then on; `None`: it is.
    alone_at: Option<Instant>,
    /// When the next report is due if there is news, and if there is none.
    news_at: Option<Instant>,
    report_at: Option<Instant>,
    acts: VecDeque<Act>,
}

impl Edge {
    /// An edge that owns nothing and knows no authority.
    #[must_use]
    pub fn new(terms: Terms, run: Run) -> Self {
        Self {
            terms,
            run,
            notary: false,
            held: BTreeMap::new(),
            connected: false,
            reports: 0,
            echo: 0,
            echoed: 0,
            cursor: None,
            claims: BTreeMap::new(),
            draining: false,
            alone_at: None,
            news_at: None,
            report_at: None,
            acts: VecDeque::new(),
        }
    }

    /// The same, with somebody who can say how far it came if its process dies.
    #[must_use]
    pub fn with_notary(self) -> Self {
        Self {
            notary: true,
            ..self
        }
    }

    /// The next thing to do.
    pub fn act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// Whether the edge owns the pair with this inbound SPI.
    #[must_use]
    pub fn owns(&self, spi: u32) -> bool {
        self.held.get(&spi).is_some_and(|held| !held.stopping)
    }

    /// There is a new connection to the authority.
    pub fn connected(&mut self, now: Instant) {
        self.connected = true;
        (self.reports, self.echo, self.echoed) = (0, 0, 0);
        self.claims.clear();
        for held in self.held.values_mut() {
            // What was answered last may have been lost: it is asked for anew.
            held.news = true;
        }
        let held = self.held.iter().map(|(spi, held)| held.mark(*spi));
        let hello = FromEdge::Hello {
            run: self.run,
            notary: self.notary,
            held: held.collect(),
        };
        self.acts.push_back(Act::Send(hello));
        (self.news_at, self.report_at) = (Some(now), Some(now));
    }

    /// The edge is about to end its connection: to be called before, and what follows from it sent.
    pub fn leave(&mut self) {
        if self.connected {
            self.acts.push_back(Act::Send(FromEdge::Leaving));
        }
    }

    /// There is none any more.
    pub fn disconnected(&mut self) {
        self.connected = false;
        (self.news_at, self.report_at) = (None, None);
    }

    /// The authority says something.
    pub fn hear(&mut self, message: ToEdge, now: Instant) {
        match message {
            ToEdge::Grant { spi, grant } => {
                self.claims.remove(&spi);
                self.take(spi, grant);
                // What was on its way when it began to drain goes back at once.
                if self.draining
                    && let Some(held) = self.held.get_mut(&spi)
                {
                    self.acts.push_back(held.stop(spi));
                }
            }
            ToEdge::AskBack { spi, term, seen } => {
                if let Some(held) = self.held.get_mut(&spi)
                    && held.limits.term == term
                    && !held.stopping
                {
                    if seen > held.top {
                        self.acts.push_back(held.stop(spi));
                    } else {
                        // A copy of what has come here: the report that says so is to be there in time.
                        (held.news, self.news_at) = (true, Some(now));
                    }
                }
            }
            ToEdge::Revoke { spi, term } => {
                if let Some(held) = self.held.get(&spi)
                    && held.limits.term == term
                {
                    self.held.remove(&spi);
                    let tell = false;
                    self.acts.push_back(Act::Stop { spi, term, tell });
                }
            }
            ToEdge::Widen { spi, limits } => {
                self.claims.remove(&spi);
                self.widen(spi, limits);
            }
            // As long as the pair is here its client is not told that nobody serves it.
            ToEdge::Refuse {
                spi,
                refusal: Refusal::Unknown,
            } => self.acts.push_back(Act::Forget { spi }),
            // It may be claimed again after a time.
            ToEdge::Refuse { .. } => (),
            ToEdge::Acknowledge { number, limits } => {
                self.echo = self.echo.max(number);
                self.alone_at = Some(now + self.terms.alone);
                for (spi, limits) in limits {
                    self.widen(spi, limits);
                }
            }
        }
    }

    /// The data plane has an authentic packet for a pair that it does not own, or one beyond what it may accept.
    pub fn claim(&mut self, claim: Claim, now: Instant) {
        let Claim { spi, .. } = claim;
        let idle = match self.held.get(&spi) {
            Some(held) => held.stopping || claim.seen <= held.inbound(),
            None => self.draining,
        };
        if !self.connected || idle {
            return;
        }
        let again = self.terms.again;
        if self.claims.len() >= CLAIMS {
            self.claims.retain(|_, at| now < *at + again);
        }
        let waits = self.claims.get(&spi).is_some_and(|at| now < *at + again);
        if !waits && self.claims.len() < CLAIMS {
            self.claims.insert(spi, now);
            self.acts.push_back(Act::Send(FromEdge::Claim(claim)));
        }
    }

    /// How far the data plane has come with a pair.
    pub fn progress(&mut self, spi: u32, top: u64, sent: u64, now: Instant) {
        let Some(held) = self.held.get_mut(&spi) else {
            return;
        };
        if held.top >= top && held.sent >= sent {
            return;
        }
        held.top = held.top.max(top);
        held.sent = held.sent.max(sent);
        held.news = true;
        let half = |from: u64, to: u64| from + to.saturating_sub(from) / 2;
        // Who may accept one more packet sends so few that the usual report is soon enough.
        let one = held.limits.soft.saturating_sub(held.told) <= 1;
        let short = held.top > half(held.told, held.limits.soft) && !one
            || held.limits.last.saturating_sub(held.sent) <= self.terms.block / 4;
        let at = match short && !held.wide {
            true => now,
            false => now + self.terms.interval,
        };
        if self.connected {
            self.news_at = Some(self.news_at.map_or(at, |before| before.min(at)));
        }
    }

    /// The data plane has stopped using a pair, as [`Act::Stop`] says. Bit n of `missing` is set if `top - n`
    /// was not accepted.
    pub fn stopped(&mut self, spi: u32, term: u32, top: u64, missing: u64, sent: u64) {
        if self
            .held
            .get(&spi)
            .is_none_or(|held| held.limits.term != term)
        {
            return;
        }
        let Some(mut held) = self.held.remove(&spi) else {
            return;
        };
        (held.top, held.sent) = (held.top.max(top), held.sent.max(sent));
        let mark = held.mark(spi);
        let yielded = Yielded { mark, missing };
        self.acts.push_back(Act::Send(FromEdge::Yielded(yielded)));
    }

    /// The data plane has no such pair any more, and did not say where it stopped. The authority finds out when
    /// it asks for the pair, and reckons with the worst.
    pub fn forgotten(&mut self, spi: u32) {
        self.held.remove(&spi);
        self.claims.remove(&spi);
    }

    /// How many pairs the edge owns and need not give back.
    #[must_use]
    pub fn owned(&self) -> usize {
        self.held.values().filter(|held| !held.stopping).count()
    }

    /// How many pairs the data plane may still be using.
    #[must_use]
    pub fn holds(&self) -> usize {
        self.held.len()
    }

    /// The authority ends, and has said so: from now on the edge goes on by itself.
    pub fn abandoned(&mut self) {
        self.alone_at = None;
        self.widen_all();
    }

    /// Takes pairs again, after [`Edge::give_back`].
    pub fn take_again(&mut self) {
        self.draining = false;
    }

    /// Gives everything back: the edge drains or ends.
    pub fn give_back(&mut self) {
        self.draining = true;
        for (spi, held) in &mut self.held {
            if !held.stopping {
                self.acts.push_back(held.stop(*spi));
            }
        }
    }

    /// Time has passed.
    pub fn poll(&mut self, now: Instant) {
        if self.alone_at.is_some_and(|at| at <= now) {
            self.alone_at = None;
            self.widen_all();
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if !self.connected || !(due(self.news_at) || due(self.report_at)) {
            return;
        }
        if due(self.report_at) {
            // Whoever may go no further has no news to tell, but waits for some.
            for held in self.held.values_mut() {
                held.news |= held.top >= held.inbound() || held.sent >= held.limits.last;
            }
        }
        let start = self.cursor.take().map_or(0, |spi| spi.saturating_add(1));
        let news = self.held.iter_mut().filter(|(_, held)| held.news);
        let (before, after): (Vec<_>, Vec<_>) = news.partition(|(spi, _)| **spi < start);
        let cut = before.len() + after.len() > MARKS;
        let mut marks = Vec::new();
        for (spi, held) in after.into_iter().chain(before).take(MARKS) {
            (held.news, held.told) = (false, held.top);
            marks.push(held.mark(*spi));
        }
        if cut {
            self.cursor = marks.last().map(|mark| mark.spi);
        } else {
            self.echoed = self.echo;
        }
        self.news_at = cut.then_some(now);
        self.reports += 1;
        self.report_at = Some(now + self.terms.alone / 8);
        let report = Report {
            number: self.reports,
            echo: self.echoed,
            marks,
        };
        self.acts.push_back(Act::Send(FromEdge::Report(report)));
    }

    /// When [`Edge::poll`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let all = [self.alone_at, self.news_at, self.report_at];
        all.into_iter().flatten().min()
    }

    fn take(&mut self, spi: u32, grant: Grant) {
        let mut held = Held {
            limits: grant.limits,
            top: grant.floor,
            sent: grant.first.saturating_sub(1),
            wide: false,
            news: false,
            told: grant.floor,
            stopping: false,
        };
        if self.alone_at.is_none() {
            held.widen();
        }
        let inbound = held.inbound();
        self.held.insert(spi, held);
        self.acts.push_back(Act::Take {
            spi,
            grant,
            inbound,
        });
    }

    /// All pairs may be used as far as without an authority.
    fn widen_all(&mut self) {
        for (spi, held) in &mut self.held {
            held.widen();
            self.acts.push_back(held.bound(*spi));
        }
    }

    fn widen(&mut self, spi: u32, limits: Limits) {
        let Some(held) = self.held.get_mut(&spi) else {
            return;
        };
        if held.limits.term != limits.term || held.stopping {
            return;
        }
        let old = std::mem::replace(&mut held.limits, limits);
        if old != limits {
            self.acts.push_back(held.bound(spi));
        }
    }
}

impl Held {
    fn mark(&self, spi: u32) -> Mark {
        Mark {
            spi,
            term: self.limits.term,
            top: self.top,
            sent: self.sent,
            soft: self.limits.soft,
            wide: self.wide,
        }
    }

    /// From now on it counts as gone past its soft limit.
    fn widen(&mut self) {
        self.news |= !self.wide;
        self.wide = true;
    }

    /// From now on the data plane does no more for it.
    fn stop(&mut self, spi: u32) -> Act {
        self.stopping = true;
        Act::Stop {
            spi,
            term: self.limits.term,
            tell: true,
        }
    }

    fn inbound(&self) -> u64 {
        match self.wide {
            true => self.limits.hard,
            false => self.limits.soft,
        }
    }

    fn bound(&self, spi: u32) -> Act {
        Act::Bound {
            spi,
            inbound: self.inbound(),
            outbound: self.limits.last,
        }
    }
}
