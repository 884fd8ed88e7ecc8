//! Shared sessions in a worker: which numbers it may use, what it says about them, and what waits for them.
//!
//! Who may use which numbers is decided elsewhere (`cluster`); here a session without numbers opens nothing
//! and seals nothing. What needs numbers that are not there waits in the [`Parking`], so the ways of a
//! packet do not know of leases but by a refusal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evergate_common::reason::Counter;

use super::asking::{Asked, Questions};
use super::command::{Lease, WorkerEvent};
use super::core::{Core, Way, counter};
use super::logbook::Logbook;
use super::parking::{Parking, Waits};
use super::session::Session;
use super::tenure::Reached;
use super::xsk::{CHUNK, Frame, Umem};

/// Least time between two reports of progress, unless one is due at once: half of the interval in which an
/// edge reports to its authority, so that what it says is fresh.
const REPORT: Duration = Duration::from_millis(2);

/// Time until a report is tried again for which there was no room.
const REPORT_AGAIN: Duration = Duration::from_millis(1);

/// So long may a session that is to stop wait until the rings are empty. Less than an authority waits for the
/// answer by far.
const STOP_BY: Duration = Duration::from_millis(2);

/// Answers of sessions that stop that may wait for room: none may be lost, or an authority would have to take
/// all its numbers as used.
const STOPPED: usize = 4096;

/// Sessions in one report; the others follow in the next.
const REPORTED: usize = 4096;

/// A session is claimed again after so long. Until then its packets are not even looked at.
const CLAIM_AGAIN: Duration = Duration::from_millis(20);

/// A session that is to stop, and to say how far it came.
struct Stop {
    spi: u32,
    term: u32,
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
    questions: Questions,
    /// Sessions that stop once what had come for them is carried, and by when all the same.
    stops: Vec<Stop>,
    stop_by: Instant,
    pub(super) parking: Parking,
    /// Where it is written how far each has come.
    logbook: Option<Arc<Logbook>>,
}

impl Leases {
    pub(super) fn new(asks: bool, logbook: Option<Arc<Logbook>>, now: Instant) -> Self {
        Self {
            asks,
            logbook,
            tenures: 0,
            news: Vec::new(),
            missed: false,
            urgent: false,
            report_at: now,
            questions: Questions::new(asks, now),
            stops: Vec::new(),
            stop_by: now,
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
        tenure.note(inbound.sequence());
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
        let stop = (!self.stops.is_empty()).then_some(self.stop_by);
        let all = [report, stop, self.parking.deadline()];
        all.into_iter().flatten().min()
    }
}

impl Core {
    /// Carries out what was said about the numbers of a session that may be this worker's.
    pub(super) fn carry_out_lease(&mut self, lease: Lease, umem: &mut Umem, now: Instant) {
        let (Lease::Take { spi, .. } | Lease::Bound { spi, .. } | Lease::Stop { spi, .. }) = lease;
        let Some(index) = self.sessions.by_spi(spi) else {
            return;
        };
        if self
            .sessions
            .get(index)
            .is_some_and(|session| session.spec.shared && session.is_stopping())
        {
            // In the order in which it was said.
            let stops = &mut self.leases.stops;
            if let Some(at) = stops.iter().position(|stop| stop.spi == spi) {
                let stop = stops.remove(at);
                self.stop(&stop, true);
            }
        }
        let Some(session) = self.sessions.get_mut(index).filter(|s| s.spec.shared) else {
            return;
        };
        match lease {
            Lease::Take {
                term,
                floor,
                missing,
                inbound,
                first,
                outbound,
                ..
            } => {
                let (had, group) = (session.has_numbers(), session.group());
                let awake = session.awake.as_deref();
                let claimed = awake.is_some_and(|awake| awake.claimed.is_some());
                let logbook = self.leases.logbook.as_ref();
                let page = |top| logbook?.open(spi, term, top);
                let has = session.take_numbers((floor, missing, inbound), (first, outbound), page);
                // Else the LAN is told with the first packet: another gateway may have told it something
                // meanwhile.
                let announced = self.in_use(group);
                if let Some(session) = self.sessions.get_mut(index) {
                    session.announced = announced;
                }
                if has && claimed {
                    // Its client is here. What answers the packets that wait must find this gateway.
                    self.client_sends(index, now);
                    self.announce(umem, now);
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
            Lease::Stop {
                term, tell: true, ..
            } if session.stops_soon() => {
                // What lies in the rings has come while the numbers were here; elsewhere it is of no use.
                if self.leases.stops.is_empty() {
                    self.leases.stop_by = now + STOP_BY;
                }
                self.leases.stops.push(Stop { spi, term });
            }
            Lease::Stop { term, tell, .. } => self.stop(&Stop { spi, term }, tell),
        }
    }

    /// Stops a session, and answers.
    fn stop(&mut self, stop: &Stop, tell: bool) {
        let Stop { spi, term } = *stop;
        let Some(index) = self.sessions.by_spi(spi) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let reached = session.give_up_numbers();
        self.leases.tenures -= usize::from(reached.is_some());
        // Without numbers nothing is known for certain: who asked hears nothing, and reckons with the worst.
        if tell && let Some(reached) = reached {
            self.send_quietly(WorkerEvent::Stopped {
                progress: reached.progress,
                term,
                missing: reached.missing,
            });
        }
        self.client_left(index);
    }

    /// Stops those that were told to, once the rings are empty or it has taken too long; so many at once that
    /// their answers find room.
    fn stop_some(&mut self, now: Instant, drained: bool) {
        let waiting = self.leases.stops.len();
        if waiting == 0 || !drained && now < self.leases.stop_by {
            return;
        }
        let room = STOPPED.saturating_sub(self.unsent.len()).min(waiting);
        let rest = self.leases.stops.split_off(room);
        for stop in std::mem::replace(&mut self.leases.stops, rest) {
            let index = self.sessions.by_spi(stop.spi);
            let session = index.and_then(|index| self.sessions.get(index));
            // It may have been stopped by another word since.
            if session.is_some_and(Session::is_stopping) {
                self.stop(&stop, true);
            }
        }
        self.leases.stop_by = now + REPORT_AGAIN;
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
        match self.leases.questions.may_ask(spi, now) {
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
            let mut next = parking.first(spi);
            while let Some(at) = next {
                next = parking.next(at);
                let Some((mut frame, waits)) = parking.take(at, inner) else {
                    continue;
                };
                let way = match waits {
                    Waits::Inner => self.take_tun(&mut frame, umem, now),
                    Waits::Esp | Waits::Strange => self.take_outside(&mut frame, umem, now),
                };
                match way {
                    Way::Park(spi, waits) => {
                        if let Err(frame) = parking.put_back(at, frame, spi, waits) {
                            self.push(frame, Way::Drop(Counter::ParkedFull));
                        }
                    }
                    way => {
                        parking.vacate(at);
                        self.push(frame, way);
                    }
                }
            }
        }
        self.leases.parking = parking;
    }

    /// Ends what has waited too long, and says what there is to say.
    pub(super) fn look_after_leases(&mut self, now: Instant, drained: bool) {
        self.stop_some(now, drained);
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
