//! The numbers of a shared session while they are this node's.

use super::command::Progress;
use super::logbook::Page;
use super::session::Session;

/// The numbers of a shared session that are this node's, and what was said of them.
#[derive(Debug)]
pub(super) struct Tenure {
    /// The last inbound number that may be accepted, and the last outbound one that may be used.
    inbound: u64,
    outbound: u64,
    /// A quarter of the last block of outbound numbers.
    quarter: u64,
    /// How far it had come when it was told of last.
    pub(super) told: (u64, u64),
    /// It has come further since, and is in the list of those.
    pub(super) news: bool,
    /// It ends once what had come for it is carried.
    stops: bool,
    /// Where it is written how far it has come, should the process die.
    page: Option<Page>,
}

impl Tenure {
    /// It has come so far: to be called before the packet that had this number goes on.
    #[inline]
    pub(super) fn note(&self, top: u64) {
        if let Some(page) = &self.page {
            page.note(top);
        }
    }

    /// Whether numbers run short, and nobody was told of that yet.
    pub(super) fn runs_short(&self, top: u64, sent: u64) -> bool {
        let half = |from: u64, to: u64| from.saturating_add(to.saturating_sub(from) / 2);
        let (top_told, sent_told) = self.told;
        // Of a peer that sends so little that it may send one more the usual report is soon enough.
        let one = self.inbound.saturating_sub(top_told) <= 1;
        if top > half(top_told, self.inbound) && top > top_told && !one {
            return true;
        }
        let left = |sent: u64| self.outbound.saturating_sub(sent);
        sent > sent_told
            && left(sent) <= self.quarter
            && (left(sent_told) > self.quarter || sent > half(sent_told, self.outbound))
    }
}

/// How far a session came in its tenure.
pub(super) struct Reached {
    pub(super) progress: Progress,
    /// Bit n is set if the inbound number n below the top was not accepted.
    pub(super) missing: u64,
}

impl Session {
    /// Whether it has numbers here.
    pub(super) fn has_numbers(&self) -> bool {
        let awake = self.awake.as_deref();
        awake.is_some_and(|awake| awake.tenure.is_some())
    }

    /// Whether its tenure is about to end.
    pub(super) fn is_stopping(&self) -> bool {
        let awake = self.awake.as_deref();
        let tenure = awake.and_then(|awake| awake.tenure.as_ref());
        tenure.is_some_and(|tenure| tenure.stops)
    }

    /// Its tenure is about to end. False: it has none.
    pub(super) fn stops_soon(&mut self) -> bool {
        let tenure = self.awake.as_deref_mut().and_then(|a| a.tenure.as_mut());
        tenure.map(|tenure| tenure.stops = true).is_some()
    }

    /// Whether it may carry packets in this worker; a shared one only with numbers.
    pub(super) fn may_be_used(&self) -> bool {
        !self.spec.shared || self.here && self.has_numbers()
    }

    /// How far it has come.
    pub(super) fn reached(&self) -> Option<Reached> {
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

    /// Goes on with these numbers, and writes on a page how far it comes. Says whether it can.
    pub(super) fn take_numbers(
        &mut self,
        (floor, missing, inbound): (u64, u64, u64),
        (first, outbound): (u64, u64),
        page: impl FnOnce(u64) -> Option<Page>,
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
                stops: false,
                page: page(receiver.sequence()),
            });
        });
        self.rest.opened = opened;
        taken.is_some()
    }

    /// May go on up to these numbers.
    pub(super) fn widen_numbers(&mut self, inbound: u64, outbound: u64) {
        let Some(awake) = self.awake.as_deref_mut() else {
            return;
        };
        let (Some(tenure), Some(receiver), Some(sender)) =
            (&mut awake.tenure, &mut awake.inbound, &mut awake.outbound)
        else {
            return;
        };
        if inbound > tenure.inbound {
            // If that is not enough either, it may be said at once.
            awake.claimed = None;
        }
        tenure.inbound = tenure.inbound.max(inbound);
        receiver.set_limit(tenure.inbound);
        if outbound > tenure.outbound {
            tenure.outbound = outbound;
            sender.set_limit(outbound);
            tenure.quarter = sender.remaining() / 4;
        }
    }

    /// Uses no number any more. Says how far it has come, if it had any.
    pub(super) fn give_up_numbers(&mut self) -> Option<Reached> {
        let reached = self.reached();
        self.awake.as_deref_mut()?.tenure.take()?;
        // What made its SAs refuse nothing is gone with them.
        self.sleep();
        reached
    }
}
