//! The authority's side: who owns each SA, and which numbers it may use.

mod entry;
mod grants;
mod partings;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use super::message::{Claim, Kept, Mark, Refusal, Report, ToEdge, Yielded};
use super::{EdgeId, Run, Terms};
use entry::{Entry, Holder, Rest};

/// Acknowledgements of an edge whose times are remembered until they are echoed.
const ACKNOWLEDGED: usize = 64;

/// What an authority has to do. All of it may be done in any order, but what is sent to one edge stays in
/// order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Tell an edge. Without a connection to it: not at all.
    Send { edge: EdgeId, message: ToEdge },
    /// Have the repository keep this, then call [`Ledger::stored`]. There is one for each SA at a time. Only the
    /// authority that wrote last may write: one that was taken for dead must not.
    Store { spi: u32, kept: Kept },
    /// Have the repository forget the SA, after all that was to be stored of it.
    Erase { spi: u32 },
    /// Give the pair fresh keys soon: numbers were skipped that the peer still has to use, or none are left.
    /// `lost`: so many of the peer's next packets may be lost until then.
    Rekey { spi: u32, lost: u64 },
}

/// How a connection to an edge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parting {
    /// The edge's kernel ended it, and the edge had not said that it would: its process is gone. Only right if
    /// no kernel ends a living edge's connection in less time than [`Terms::alone`].
    Closed,
    /// Anything else.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Contact {
    run: Run,
    connected: bool,
    /// It has said that it would end the connection, and lives.
    leaving: bool,
    /// The edge is known to have had the acknowledgement that was sent then.
    heard: Option<Instant>,
    /// Numbers and times of acknowledgements since.
    sent: VecDeque<(u64, Instant)>,
    notary: Notary,
}

/// Whether somebody can say how far a run of an edge came, after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Notary {
    None,
    /// It has not said anything yet.
    Silent,
    /// The edge's connection was closed at this time, and nothing is taken from it until the notary has spoken.
    Awaited(Instant),
    Heard,
}

/// Who owns which SA of an authority's, and how far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    terms: Terms,
    entries: BTreeMap<u32, Entry>,
    edges: BTreeMap<EdgeId, Contact>,
    /// Until when owners were asked to give which SA back; some have.
    asked: BTreeSet<(Instant, u32)>,
    /// Until when the notaries of which edges are waited for; some have spoken.
    awaited: BTreeSet<(Instant, EdgeId)>,
    orders: VecDeque<Order>,
}

impl Ledger {
    /// A ledger without SAs.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            entries: BTreeMap::new(),
            edges: BTreeMap::new(),
            asked: BTreeSet::new(),
            awaited: BTreeSet::new(),
            orders: VecDeque::new(),
        }
    }

    /// An SA pair by its inbound SPI, negotiated just now, or as a repository has it after an authority
    /// ended. `esn`: its numbers have 64 bits. One that is there already stays as it is.
    pub fn add(&mut self, spi: u32, esn: bool, kept: Option<Kept>) {
        if self.entries.contains_key(&spi) {
            return;
        }
        let fresh = kept.is_none();
        let kept = kept.unwrap_or_default();
        if kept.rekey {
            self.orders.push_back(Order::Rekey { spi, lost: 0 });
        }
        let holder = match kept.owner {
            Some(owner) => Holder::Owner(owner),
            None => Holder::Nobody(Rest {
                floor: kept.hard,
                missing: 0,
                guessed: !fresh,
            }),
        };
        let entry = Entry {
            term: kept.term,
            kept,
            storing: None,
            holder,
            next: None,
            leased: kept.reserved,
            top: 0,
            reported: kept.hard.saturating_sub(self.terms.reserve),
            rushed: None,
            soft: kept.hard,
            wide: !fresh,
            restored: !fresh,
            base: kept.reserved,
            rekey: kept.rekey,
            wanted: 0,
            asked: None,
            highest: if esn { u64::MAX } else { u32::MAX.into() },
        };
        self.entries.insert(spi, entry);
    }

    /// The pair exists no longer. Its owner is told.
    pub fn remove(&mut self, spi: u32) {
        let Some(entry) = self.entries.remove(&spi) else {
            return;
        };
        if let Some(edge) = entry.owner() {
            let term = entry.term;
            self.send(edge, ToEdge::Revoke { spi, term });
        }
        self.orders.push_back(Order::Erase { spi });
    }

    /// Who owns the pair now.
    #[must_use]
    pub fn owner(&self, spi: u32) -> Option<EdgeId> {
        self.entries.get(&spi)?.owner()
    }

    /// The next thing to do.
    pub fn order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// What the repository has of a pair's numbers, or was asked to keep last.
    #[must_use]
    pub fn kept(&self, spi: u32) -> Option<Kept> {
        let entry = self.entries.get(&spi)?;
        Some(entry.storing.unwrap_or(entry.kept))
    }

    /// When [`Ledger::poll`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let asked = self.asked.first().map(|(until, _)| *until);
        let awaited = self.awaited.first().map(|(until, _)| *until);
        asked.into_iter().chain(awaited).min()
    }

    /// An edge has connected, and owns what it says. An earlier connection of it has ended.
    pub fn hello(&mut self, edge: EdgeId, run: Run, held: &[Mark]) {
        self.wait_no_more(edge);
        let contact = Contact {
            run,
            connected: true,
            leaving: false,
            heard: None,
            sent: VecDeque::new(),
            notary: Notary::None,
        };
        self.edges.insert(edge, contact);
        self.forget_orders(edge);
        let terms: HashMap<u32, u32> = held.iter().map(|mark| (mark.spi, mark.term)).collect();
        let mut freed = Vec::new();
        for (spi, entry) in &mut self.entries {
            if entry.owner() == Some(edge) && terms.get(spi) != Some(&entry.term) {
                entry.free(entry.past_all());
                freed.push(*spi);
            }
        }
        for mark in held {
            if let Some(entry) = self.entries.get_mut(&mark.spi)
                && entry.is_of(edge, mark.term)
                && std::mem::take(&mut entry.restored)
                && !mark.wide
            {
                // As far as it has come an earlier authority knew.
                entry.top = entry.top.max(mark.top);
                entry.reported = entry.reported.max(mark.top);
                (entry.soft, entry.wide) = (mark.soft, false);
            }
            self.mark(edge, mark, None);
        }
        freed.into_iter().for_each(|spi| self.settle(spi));
    }

    /// Somebody can say how far an edge that has connected came, should its process die.
    pub fn has_notary(&mut self, edge: EdgeId) {
        if let Some(contact) = self.edges.get_mut(&edge) {
            contact.notary = Notary::Silent;
        }
    }

    /// An edge is about to end its connection, and lives on.
    pub fn leaving(&mut self, edge: EdgeId) {
        if let Some(contact) = self.edges.get_mut(&edge) {
            contact.leaving = true;
        }
    }

    /// An edge has an authentic packet for an SA that it does not own.
    pub fn claim(&mut self, edge: EdgeId, claim: Claim, now: Instant) {
        let Claim { spi, seen } = claim;
        let connected = |owner| self.edges.get(&owner).is_some_and(|edge| edge.connected);
        let mut widened = false;
        let refusal = match self.entries.get_mut(&spi) {
            None => Some(Refusal::Unknown),
            Some(entry) => match entry.holder {
                Holder::Owner(owner) if owner == edge => {
                    widened = entry.reach(seen, self.terms.burst);
                    None
                }
                Holder::Granting(to, _) if to == edge => None,
                Holder::Granting(..) => Some(Refusal::Busy),
                _ if entry.next.is_some_and(|next| next != edge) => Some(Refusal::Busy),
                Holder::Nobody(_) => {
                    entry.next = Some(edge);
                    None
                }
                Holder::Owner(_) | Holder::Asked { .. } if seen <= entry.top => Some(Refusal::Old),
                Holder::Asked { .. } => None,
                Holder::Owner(owner) if !connected(owner) => {
                    entry.next = Some(edge);
                    entry.free(entry.past_all());
                    None
                }
                // What comes by two ways in turn must not move it with each packet.
                Holder::Owner(_) if entry.asked.is_some_and(|at| now < at + self.terms.tenure) => {
                    Some(Refusal::Busy)
                }
                Holder::Owner(owner) => {
                    entry.next = Some(edge);
                    entry.asked = Some(now);
                    let (until, term) = (now + self.terms.patience, entry.term);
                    entry.holder = Holder::Asked { owner, until, seen };
                    self.asked.insert((until, spi));
                    self.send(owner, ToEdge::AskBack { spi, term, seen });
                    None
                }
            },
        };
        if let Some(entry) = self.entries.get_mut(&spi)
            && refusal.is_none()
        {
            // Whoever gets it must be able to take the packet for which it has asked.
            entry.wanted = entry.wanted.max(seen);
            entry.reported = entry.reported.max(seen);
        }
        match refusal {
            Some(refusal) => self.send(edge, ToEdge::Refuse { spi, refusal }),
            None if widened => self.widen(edge, spi),
            None => self.settle(spi),
        }
    }

    /// Gives a pair that nobody owns, or one that is not connected, to an edge: the one last heard from its
    /// peer.
    pub fn offer(&mut self, spi: u32, edge: EdgeId) {
        let connected = |owner| self.edges.get(&owner).is_some_and(|edge| edge.connected);
        let there = |edge: &Contact| !matches!(edge.notary, Notary::Awaited(_));
        if !connected(edge) || !self.edges.get(&edge).is_some_and(there) {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&spi) {
            match entry.holder {
                Holder::Nobody(_) => entry.next = Some(edge),
                Holder::Owner(owner) if !connected(owner) => {
                    entry.next = Some(edge);
                    entry.free(entry.past_all());
                }
                _ => (),
            }
        }
        self.settle(spi);
    }

    /// An owner has stopped.
    pub fn yielded(&mut self, edge: EdgeId, yielded: &Yielded) {
        let Yielded { mark, missing } = yielded;
        self.mark(edge, mark, None);
        if let Some(entry) = self.entries.get_mut(&mark.spi)
            && entry.is_of(edge, mark.term)
        {
            // It has stopped: what it did not send nobody has.
            entry.leased = entry.leased.min(mark.sent.max(entry.base));
            entry.free(Rest {
                floor: mark.top,
                missing: *missing,
                guessed: false,
            });
        }
        self.settle(mark.spi);
    }

    /// An edge says how far it has come.
    pub fn report(&mut self, edge: EdgeId, report: &Report, now: Instant) {
        for mark in &report.marks {
            self.mark(edge, mark, Some(now));
            self.judge_claim(edge, mark);
        }
        let Some(contact) = self.edges.get_mut(&edge).filter(|edge| edge.connected) else {
            return;
        };
        while let Some((number, at)) = contact.sent.front().copied()
            && number <= report.echo
            && number < report.number
        {
            contact.heard = Some(at);
            contact.sent.pop_front();
        }
        if contact.sent.len() < ACKNOWLEDGED {
            contact.sent.push_back((report.number, now));
        }
        let limits = report.marks.iter().filter_map(|mark| {
            let entry = self.entries.get(&mark.spi)?;
            entry
                .is_of(edge, mark.term)
                .then(|| (mark.spi, entry.limits()))
        });
        let message = ToEdge::Acknowledge {
            number: report.number,
            limits: limits.collect(),
        };
        self.send(edge, message);
    }

    /// Time has passed.
    pub fn poll(&mut self, now: Instant) {
        while let Some((until, edge)) = self.awaited.first().copied()
            && until <= now
        {
            self.awaited.remove(&(until, edge));
            self.wait_no_more(edge);
        }
        while let Some((until, spi)) = self.asked.first().copied()
            && until <= now
        {
            self.asked.remove(&(until, spi));
            let Some(entry) = self.entries.get_mut(&spi) else {
                continue;
            };
            if let Holder::Asked {
                owner, until: at, ..
            } = entry.holder
                && at == until
            {
                let term = entry.term;
                entry.free(entry.past_all());
                self.send(owner, ToEdge::Revoke { spi, term });
                self.settle(spi);
            }
        }
    }

    /// Takes note of how far an owner has come. Who is none is told.
    fn mark(&mut self, edge: EdgeId, mark: &Mark, now: Option<Instant>) {
        let Mark { spi, term, .. } = *mark;
        let terms = &self.terms;
        match self.entries.get_mut(&spi) {
            Some(entry) if entry.is_of(edge, term) => {
                // One that sends now and then gets one more: all that it may lose. For the others half of it is
                // what came since the last report, so that the next one comes as soon.
                let margin = (mark.top.saturating_sub(entry.top))
                    .saturating_mul(2)
                    .saturating_sub(1)
                    .clamp(terms.least_margin, terms.most_margin);
                if margin > terms.burst {
                    entry.rushed = now.or(entry.rushed);
                }
                if mark.top > entry.top {
                    entry.reported = entry.reported.max(mark.top);
                }
                entry.top = entry.top.max(mark.top);
                entry.wide |= mark.wide;
                if mark.wide && !std::mem::replace(&mut entry.rekey, true) {
                    // What it may have accepted is far above what it has: only fresh keys bring these together.
                    self.orders.push_back(Order::Rekey { spi, lost: 0 });
                }
                let soft = entry.top.saturating_add(margin).min(entry.kept.hard);
                entry.soft = entry.soft.max(soft);
                let ahead = entry.leased.saturating_sub(mark.sent);
                if ahead <= terms.block / 2 {
                    let more = mark.sent.saturating_add(terms.block);
                    entry.leased = entry.leased.max(more.min(entry.kept.reserved));
                }
                self.settle(spi);
            }
            _ => self.send(edge, ToEdge::Revoke { spi, term }),
        }
    }

    /// An owner that was asked to give a pair back has come so far as it says: what was claimed may be a copy of what
    /// it has had itself.
    fn judge_claim(&mut self, edge: EdgeId, mark: &Mark) {
        let Mark { spi, term, top, .. } = *mark;
        let Some(entry) = self.entries.get_mut(&spi) else {
            return;
        };
        let Holder::Asked { owner, until, seen } = entry.holder else {
            return;
        };
        if !entry.is_of(edge, term) || top < seen {
            return;
        }
        if top < entry.wanted {
            // It does not give back what it was asked for; something newer has been claimed since.
            let seen = entry.wanted;
            entry.holder = Holder::Asked { owner, until, seen };
            return self.send(owner, ToEdge::AskBack { spi, term, seen });
        }
        entry.holder = Holder::Owner(owner);
        entry.asked = None;
        if let Some(edge) = entry.next.take() {
            let refusal = Refusal::Old;
            self.send(edge, ToEdge::Refuse { spi, refusal });
        }
    }

    /// What was to be said on a connection that is no more.
    fn forget_orders(&mut self, gone: EdgeId) {
        self.orders
            .retain(|order| !matches!(order, Order::Send { edge, .. } if *edge == gone));
    }

    fn send(&mut self, edge: EdgeId, message: ToEdge) {
        self.orders.push_back(Order::Send { edge, message });
    }
}
