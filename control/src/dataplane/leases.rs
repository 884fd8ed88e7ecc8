//! Shared sessions in a worker: which numbers it may use, what it says about them, and what waits for them.
//!
//! Who may use which numbers is decided elsewhere (`cluster`); here a session without numbers opens nothing
//! and seals nothing. What needs numbers that are not there waits in the [`Parking`], so the ways of a
//! packet do not know of leases but by a refusal.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use evergate_common::reason::Counter;

use super::command::{Lease, Progress, WorkerEvent};
use super::core::{Core, Way, counter};
use super::net::icmp::RateLimit;
use super::parking::{Parking, Waits};
use super::session::Session;
use super::xsk::{CHUNK, Frame, Umem};

/// Least time between two reports of progress, unless one is due at once: half of the interval in which an
/// edge reports to its authority, so that what it says is fresh.
const REPORT: Duration = Duration::from_millis(5);

/// Time until a report is tried again for which there was no room.
const REPORT_AGAIN: Duration = Duration::from_millis(1);

/// Sessions in one report; the others follow in the next.
const REPORTED: usize = 4096;

/// A session is claimed again after so long. Until then its packets are not even looked at.
const CLAIM_AGAIN: Duration = Duration::from_millis(20);

/// An SPI that nobody knows is asked about again after so long, at most so many are remembered, and so many
/// asked about in a second (and at once): all that strangers can send must cost little.
const ASK_AGAIN: Duration = Duration::from_millis(50);
const ASKED: usize = 64;
const ASK_RATE: (u32, u32) = (1000, 64);

/// The numbers of a shared session that are this node's, and what was said of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tenure {
    /// The last inbound number that may be accepted, and the last outbound one that may be used.
    inbound: u64,
    outbound: u64,
    /// A quarter of the last block of outbound numbers.
    quarter: u64,
    /// How far it had come when it was told of last.
    told: (u64, u64),
    /// It has come further since, and is in the list of those.
    news: bool,
}

impl Tenure {
    /// Whether numbers run short, and nobody was told of that yet.
    fn runs_short(&self, top: u64, sent: u64) -> bool {
        let half = |from: u64, to: u64| from.saturating_add(to.saturating_sub(from) / 2);
        let (top_told, sent_told) = self.told;
        if top > half(top_told, self.inbound) && top > top_told {
            return true;
        }
        let left = |sent: u64| self.outbound.saturating_sub(sent);
        sent > sent_told
            && left(sent) <= self.quarter
            && (left(sent_told) > self.quarter || sent > half(sent_told, self.outbound))
    }
}

/// How far a session came in its tenure.
struct Reached {
    progress: Progress,
    missing: u64,
}

impl Session {
    /// Whether it has numbers here.
    pub(super) fn has_numbers(&self) -> bool {
        let awake = self.awake.as_deref();
        awake.is_some_and(|awake| awake.tenure.is_some())
    }

    /// Whether it may carry packets in this worker; a shared one only with numbers.
    pub(super) fn may_be_used(&self) -> bool {
        !self.spec.shared || self.here && self.has_numbers()
    }

    fn reached(&self) -> Option<Reached> {
        let awake = self.awake.as_deref()?;
        let (inbound, outbound) = (awake.inbound.as_ref()?, awake.outbound.as_ref()?);
        Some(Reached {
            progress: Progress {
                spi: self.spi,
                top: inbound.sequence(),
                sent: outbound.sequence(),
            },
            missing: inbound.missing(),
        })
    }

    /// Goes on with these numbers. Says whether it can.
    fn take_numbers(
        &mut self,
        (floor, missing, inbound): (u64, u64, u64),
        (first, outbound): (u64, u64),
    ) -> bool {
        self.give_up_numbers();
        // Of what came before only this counts, and only as a limit: no number is ever used twice here, even
        // if it is lent twice.
        let opened = std::mem::take(&mut self.rest.opened);
        self.awake = None;
        let made = self.awake().and_then(|awake| {
            Some((
                awake.inbound.as_mut()?,
                awake.outbound.as_mut()?,
                &mut awake.tenure,
            ))
        });
        let taken = made.map(|(receiver, sender, tenure)| {
            receiver.take_over(floor, missing);
            receiver.resume(opened);
            receiver.set_limit(inbound);
            sender.skip_to(first.saturating_sub(1));
            sender.set_limit(outbound);
            *tenure = Some(Tenure {
                inbound,
                outbound,
                quarter: sender.remaining() / 4,
                told: (receiver.sequence(), sender.sequence()),
                news: false,
            });
        });
        self.rest.opened = opened;
        taken.is_some()
    }

    /// May go on up to these numbers.
    fn widen_numbers(&mut self, inbound: u64, outbound: u64) {
        let Some(awake) = self.awake.as_deref_mut() else {
            return;
        };
        let (Some(tenure), Some(receiver), Some(sender)) =
            (&mut awake.tenure, &mut awake.inbound, &mut awake.outbound)
        else {
            return;
        };
        tenure.inbound = tenure.inbound.max(inbound);
        receiver.set_limit(tenure.inbound);
        if outbound > tenure.outbound {
            tenure.outbound = outbound;
            sender.set_limit(outbound);
            tenure.quarter = sender.remaining() / 4;
        }
    }

    /// Uses no number any more. Says how far it has come, if it had any.
    fn give_up_numbers(&mut self) -> Option<Reached> {
        let reached = self.reached();
        self.awake.as_deref_mut()?.tenure.take()?;
        // What made its SAs refuse nothing is gone with them.
        self.sleep();
        reached
    }
}

/// What a worker has besides its shared sessions themselves.
pub(super) struct Leases {
    /// ESP for an SPI that no session has waits for one.
    asks: bool,
    /// Sessions that have numbers.
    tenures: usize,
    /// Sessions that have come further than was told, each once; room for all that have numbers.
    news: Vec<u32>,
    /// There was none: those that have news say so themselves.
    missed: bool,
    /// One of them runs short.
    urgent: bool,
    /// When the next report is due.
    report_at: Instant,
    /// SPIs that were asked about lately.
    asked: ArrayVec<(u32, Instant), ASKED>,
    ask_rate: RateLimit,
    /// What has waited goes its way again: it was looked at when it came.
    again: bool,
    pub(super) parking: Parking,
}

impl Leases {
    pub(super) fn new(asks: bool, now: Instant) -> Self {
        Self {
            asks,
            tenures: 0,
            news: Vec::new(),
            missed: false,
            urgent: false,
            report_at: now,
            asked: ArrayVec::new(),
            ask_rate: RateLimit::new(ASK_RATE.0, ASK_RATE.1, now),
            again: false,
            parking: match asks {
                true => Parking::new(),
                // No room is taken before a session is shared.
                false => Parking::default(),
            },
        }
    }

    /// A session has used a number.
    #[inline]
    pub(super) fn moved(&mut self, index: usize, session: &mut Session) {
        let Some(awake) = session.awake.as_deref_mut() else {
            return;
        };
        let (Some(tenure), Some(inbound), Some(outbound)) =
            (&mut awake.tenure, &awake.inbound, &awake.outbound)
        else {
            return;
        };
        self.urgent |= tenure.runs_short(inbound.sequence(), outbound.sequence());
        if std::mem::replace(&mut tenure.news, true) {
            return;
        }
        match self.news.len() < self.news.capacity() {
            true => self.news.push(index as u32),
            false => self.missed = true,
        }
    }

    /// When [`Core::look_after_leases`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let report = (!self.news.is_empty() || self.missed).then_some(self.report_at);
        report.into_iter().chain(self.parking.deadline()).min()
    }

    /// Whether an SPI that no session has may be asked about, or was so lately.
    fn may_ask(&mut self, spi: u32, now: Instant) -> Asked {
        if self.asked.iter().any(|(asked, _)| *asked == spi) {
            self.asked.retain(|(_, at)| now < *at + ASK_AGAIN);
            if self.asked.iter().any(|(asked, _)| *asked == spi) {
                return Asked::Lately;
            }
        }
        if self.asked.is_full() {
            self.asked.retain(|(_, at)| now < *at + ASK_AGAIN);
        }
        if self.asked.is_full() || !self.ask_rate.allow(now) {
            return Asked::Never;
        }
        self.asked.push((spi, now));
        Asked::Now
    }
}

/// Whether a question about an SPI is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Now,
    Lately,
    Never,
}

impl Core {
    /// Carries out what was said about the numbers of a session that may be this worker's.
    pub(super) fn carry_out_lease(&mut self, lease: Lease, umem: &mut Umem, now: Instant) {
        let (Lease::Take { spi, .. } | Lease::Bound { spi, .. } | Lease::Stop { spi, .. }) = lease;
        let Some(index) = self.sessions.by_spi(spi) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(index).filter(|s| s.spec.shared) else {
            return;
        };
        match lease {
            Lease::Take {
                floor,
                missing,
                inbound,
                first,
                outbound,
                ..
            } => {
                let (had, group) = (session.has_numbers(), session.group);
                let has = session.take_numbers((floor, missing, inbound), (first, outbound));
                // Else the LAN is told with the first packet: another gateway may have told it something
                // meanwhile.
                let announced = self.in_use(group);
                if let Some(session) = self.sessions.get_mut(index) {
                    session.announced = announced;
                }
                let leases = &mut self.leases;
                leases.tenures = (leases.tenures + usize::from(has)) - usize::from(had);
                let more = leases.tenures.saturating_sub(leases.news.len());
                leases.news.reserve(more);
                self.release(spi, umem, now);
            }
            Lease::Bound {
                inbound, outbound, ..
            } => {
                session.widen_numbers(inbound, outbound);
                self.release(spi, umem, now);
            }
            Lease::Stop { term, tell, .. } => {
                let reached = session.give_up_numbers();
                self.leases.tenures -= usize::from(reached.is_some());
                // Without numbers: what it had come to before.
                let reached = reached.unwrap_or(Reached {
                    progress: Progress {
                        spi,
                        top: session.rest.opened,
                        sent: session.rest.sealed,
                    },
                    missing: 0,
                });
                if tell {
                    self.send_quietly(WorkerEvent::Stopped {
                        progress: reached.progress,
                        term,
                        missing: reached.missing,
                    });
                }
                self.client_left(index);
            }
        }
    }

    /// A session is about to be forgotten: what it has used must be known all the same.
    pub(super) fn end_lease(&mut self, session: &mut Session) {
        if let Some(reached) = session.give_up_numbers() {
            self.leases.tenures -= 1;
            self.send_quietly(WorkerEvent::Progress(vec![reached.progress]));
        }
    }

    /// What becomes of ESP, at `esp` in the frame's chunk, that has come for a session that may not accept
    /// it now.
    #[cold]
    pub(super) fn wait_to_open(
        &mut self,
        index: usize,
        frame: &Frame,
        umem: &Umem,
        esp: std::ops::Range<usize>,
        now: Instant,
    ) -> Result<Way, Counter> {
        let session = self.sessions.get_mut(index).ok_or(Counter::UnknownSpi)?;
        if !session.spec.shared {
            return Err(Counter::LeaseExhausted);
        }
        let spi = session.spi;
        let way = Ok(Way::Park(spi, Waits::Esp));
        if self.leases.again {
            return way;
        }
        let awake = session.awake().ok_or(Counter::UnknownSpi)?;
        if awake.claimed.is_some_and(|at| now < at + CLAIM_AGAIN) {
            // The first authentic one has asked for all that follow; whether they are is seen when they are
            // opened.
            return way;
        }
        let inbound = awake.inbound.as_mut().ok_or(Counter::UnknownSpi)?;
        let mut copy = [0; CHUNK];
        let packet = umem.chunk(frame).get(esp).ok_or(Counter::BadLength)?;
        let copy = copy.get_mut(..packet.len()).ok_or(Counter::BadLength)?;
        copy.copy_from_slice(packet);
        let seen = inbound.verify(copy).map_err(counter)?;
        // Also of a session that has numbers, but none so high: only this says how far its peer is.
        awake.claimed = Some(now);
        self.send_quietly(WorkerEvent::Claimed { spi, seen });
        way
    }

    /// What becomes of ESP for an SPI that no session of any worker has.
    #[cold]
    pub(super) fn wait_for_session(&mut self, spi: u32, now: Instant) -> Result<Way, Counter> {
        if !self.leases.asks {
            return Err(Counter::UnknownSpi);
        }
        match self.leases.may_ask(spi, now) {
            Asked::Now => self.send_quietly(WorkerEvent::UnknownSpi(spi)),
            Asked::Lately => {}
            Asked::Never => return Err(Counter::UnknownSpi),
        }
        Ok(Way::Park(spi, Waits::Strange))
    }

    /// Keeps a frame that waits, or gives it back with the reason why not.
    pub(super) fn park(
        &mut self,
        frame: Frame,
        spi: u32,
        waits: Waits,
    ) -> Result<(), (Frame, Counter)> {
        self.leases.parking.put(frame, spi, waits, self.now)
    }

    /// What waits for this SPI goes its way, as if it had just come; what a peer sent first, as it says where
    /// the peer is.
    pub(super) fn release(&mut self, spi: u32, umem: &mut Umem, now: Instant) {
        if !self.leases.parking.waits_for(spi) {
            return;
        }
        let mut parking = std::mem::take(&mut self.leases.parking);
        for inner in [false, true] {
            for at in 0..parking.len() {
                let Some((mut frame, waits)) = parking.take(at, spi, inner) else {
                    continue;
                };
                self.leases.again = waits != Waits::Strange;
                let way = match waits {
                    Waits::Inner => self.take_tun(&mut frame, umem, now),
                    Waits::Esp | Waits::Strange => self.take_outside(&mut frame, umem, now),
                };
                self.leases.again = false;
                match way {
                    Way::Park(spi, waits) => {
                        if let Err(frame) = parking.put_back(at, frame, spi, waits) {
                            self.push(frame, Way::Drop(Counter::ParkedFull));
                        }
                    }
                    way => self.push(frame, way),
                }
            }
        }
        parking.close_up();
        self.leases.parking = parking;
    }

    /// Ends what has waited too long, and says what there is to say.
    pub(super) fn look_after_leases(&mut self, now: Instant) {
        while let Some((frame, reason)) = self.leases.parking.late(now) {
            self.push(frame, Way::Drop(reason));
        }
        let leases = &mut self.leases;
        let due = leases.urgent || now >= leases.report_at;
        if leases.news.is_empty() && !leases.missed || !due {
            return;
        }
        leases.urgent = false;
        if !self.has_room_to_tell() {
            self.leases.report_at = now + REPORT_AGAIN;
            return;
        }
        if std::mem::take(&mut self.leases.missed) {
            self.leases.news.clear();
            let indexes = self.sessions.indexes().map(|index| index as u32);
            self.leases.news.extend(indexes);
        }
        let most = self.leases.news.len().min(REPORTED);
        let mut report = Vec::with_capacity(most);
        for index in self.leases.news.drain(..most) {
            let Some(session) = self.sessions.get_mut(index as usize) else {
                continue;
            };
            let reached = session.reached();
            let tenure = session.awake.as_deref_mut().and_then(|a| a.tenure.as_mut());
            let (Some(Reached { progress, .. }), Some(tenure)) = (reached, tenure) else {
                continue;
            };
            if std::mem::take(&mut tenure.news) {
                tenure.told = (progress.top, progress.sent);
                report.push(progress);
            }
        }
        self.leases.report_at = match self.leases.news.is_empty() {
            true => now + REPORT,
            false => now,
        };
        if !report.is_empty() {
            self.send_quietly(WorkerEvent::Progress(report));
        }
    }

    /// Nobody waits any more: the worker ends.
    pub(super) fn clear_parking(&mut self, umem: &mut Umem) {
        self.leases.parking.clear(umem);
    }
}

#[cfg(test)]
#[path = "leases_tests/mod.rs"]
mod tests;
