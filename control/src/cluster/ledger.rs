//! The authority's side: who owns each SA, and which numbers it may use.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::message::{Claim, Grant, Kept, Limits, Mark, Refusal, Report, ToEdge, Yielded};
use super::{EdgeId, Run, Terms};

/// Acknowledgements of an edge whose times are remembered until they are echoed.
const ACKNOWLEDGED: usize = 64;

/// What an authority has to do. All of it may be done in any order, but what is sent to one edge stays in
/// order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Tell an edge. Without a connection to it: not at all.
    Send { edge: EdgeId, message: ToEdge },
    /// Have the repository keep this, then call [`Ledger::stored`]. There is one for each SA at a time.
    Store { spi: u32, kept: Kept },
    /// Give the pair fresh keys soon: numbers were skipped that the peer still has to use, or none are left.
    Rekey { spi: u32 },
}

/// How a connection to an edge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parting {
    /// The edge's kernel ended it, and the edge said nothing before: its process is gone.
    Closed,
    /// Anything else.
    Lost,
}

/// Who may use an SA.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Nobody(Rest),
    /// To be granted as soon as the repository has it.
    Granting(EdgeId, Rest),
    Owner(EdgeId),
    /// The owner was asked to give it back, until then.
    Asked(EdgeId, Instant),
}

/// Where the last owner of an SA stopped, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Rest {
    floor: u64,
    missing: u64,
    /// It is only known what it may have done.
    guessed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    /// What the repository is known to have.
    kept: Kept,
    /// What it was asked to keep.
    storing: Option<Kept>,
    holder: Holder,
    /// Who gets it next.
    next: Option<EdgeId>,
    /// Outbound numbers up to this one have been granted.
    leased: u64,
    /// As the owner last said.
    top: u64,
    soft: u64,
    wide: bool,
    /// The last number that the SA has.
    highest: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Contact {
    run: Run,
    connected: bool,
    /// The edge is known to have had the acknowledgement that was sent then.
    heard: Option<Instant>,
    /// Numbers and times of acknowledgements since.
    sent: VecDeque<(u64, Instant)>,
}

/// Who owns which SA of an authority's, and how far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    terms: Terms,
    entries: BTreeMap<u32, Entry>,
    edges: BTreeMap<EdgeId, Contact>,
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
            orders: VecDeque::new(),
        }
    }

    /// An SA pair by its inbound SPI, negotiated just now, or as a repository has it after an authority
    /// ended. `esn`: its numbers have 64 bits.
    pub fn add(&mut self, spi: u32, esn: bool, kept: Option<Kept>) {
        let fresh = kept.is_none();
        let kept = kept.unwrap_or(Kept {
            term: 0,
            owner: None,
            reserved: 0,
            hard: 0,
        });
        let holder = match kept.owner {
            Some(owner) => Holder::Owner(owner),
            None => Holder::Nobody(Rest {
                floor: kept.hard,
                missing: 0,
                guessed: !fresh,
            }),
        };
        let entry = Entry {
            kept,
            storing: None,
            holder,
            next: None,
            leased: kept.reserved,
            top: 0,
            soft: kept.hard,
            wide: !fresh,
            highest: if esn { u64::MAX } else { u32::MAX.into() },
        };
        self.entries.insert(spi, entry);
    }

    /// The pair exists no longer. Its owner is told.
    pub fn remove(&mut self, spi: u32) {
        if let Some(entry) = self.entries.remove(&spi)
            && let Holder::Owner(edge) | Holder::Asked(edge, _) = entry.holder
        {
            let term = entry.kept.term;
            self.send(edge, ToEdge::Revoke { spi, term });
        }
    }

    /// Who owns the pair now.
    #[must_use]
    pub fn owner(&self, spi: u32) -> Option<EdgeId> {
        match self.entries.get(&spi)?.holder {
            Holder::Owner(edge) | Holder::Asked(edge, _) => Some(edge),
            Holder::Nobody(_) | Holder::Granting(..) => None,
        }
    }

    /// The next thing to do.
    pub fn order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// When [`Ledger::poll`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let asked = self
            .entries
            .values()
            .filter_map(|entry| match entry.holder {
                Holder::Asked(_, until) => Some(until),
                _ => None,
            });
        asked.min()
    }

    /// An edge has connected, and owns what it says. An earlier connection of it has ended.
    pub fn hello(&mut self, edge: EdgeId, run: Run, held: &[Mark]) {
        let contact = Contact {
            run,
            connected: true,
            heard: None,
            sent: VecDeque::new(),
        };
        self.edges.insert(edge, contact);
        for (spi, entry) in &mut self.entries {
            let (Holder::Owner(owner) | Holder::Asked(owner, _)) = entry.holder else {
                continue;
            };
            let has = |mark: &Mark| mark.spi == *spi && mark.term == entry.kept.term;
            if owner == edge && !held.iter().any(has) {
                entry.free(entry.past_all());
            }
        }
        self.settle();
        for mark in held {
            self.mark(edge, mark);
        }
        self.settle();
    }

    /// The connection to an edge has ended.
    pub fn gone(&mut self, edge: EdgeId, parting: Parting, now: Instant) {
        let Some(contact) = self.edges.get_mut(&edge) else {
            return;
        };
        contact.connected = false;
        // Until then it kept to its soft limits: it was not alone.
        let until = contact
            .heard
            .and_then(|heard| (heard + self.terms.alone).checked_sub(self.terms.drift));
        let proven = parting == Parting::Closed && until.is_some_and(|until| now < until);
        for entry in self.entries.values_mut() {
            match entry.holder {
                Holder::Owner(owner) | Holder::Asked(owner, _) if owner == edge && proven => {
                    entry.free(entry.past_soft());
                }
                Holder::Granting(to, rest) if to == edge => entry.holder = Holder::Nobody(rest),
                _ => (),
            }
            entry.next = entry.next.filter(|next| *next != edge);
        }
        self.settle();
    }

    /// An edge has an authentic packet for an SA that it does not own.
    pub fn claim(&mut self, edge: EdgeId, claim: Claim, now: Instant) {
        let Claim { spi, seen } = claim;
        let refusal = match self.entries.get_mut(&spi) {
            None => Some(Refusal::Unknown),
            Some(entry) if seen <= entry.top => Some(Refusal::Old),
            Some(entry) if entry.next.is_some_and(|next| next != edge) => Some(Refusal::Busy),
            Some(entry) => match entry.holder {
                Holder::Granting(to, _) if to != edge => Some(Refusal::Busy),
                // It is on its way.
                Holder::Granting(..) => None,
                Holder::Owner(owner) if owner == edge => None,
                Holder::Nobody(_) => {
                    entry.next = Some(edge);
                    None
                }
                Holder::Owner(owner) => {
                    entry.next = Some(edge);
                    entry.holder = Holder::Asked(owner, now + self.terms.patience);
                    let term = entry.kept.term;
                    if self.edges.get(&owner).is_some_and(|owner| owner.connected) {
                        self.send(owner, ToEdge::AskBack { spi, term });
                    } else if let Some(entry) = self.entries.get_mut(&spi) {
                        entry.free(entry.past_all());
                    }
                    None
                }
                Holder::Asked(..) => None,
            },
        };
        match refusal {
            Some(refusal) => self.send(edge, ToEdge::Refuse { spi, refusal }),
            None => self.settle(),
        }
    }

    /// Gives a pair that nobody owns to an edge: the one last heard from its peer.
    pub fn offer(&mut self, spi: u32, edge: EdgeId) {
        if let Some(entry) = self.entries.get_mut(&spi)
            && matches!(entry.holder, Holder::Nobody(_))
        {
            entry.next = Some(edge);
        }
        self.settle();
    }

    /// An owner has stopped.
    pub fn yielded(&mut self, edge: EdgeId, yielded: &Yielded) {
        let Yielded { mark, missing } = yielded;
        self.mark(edge, mark);
        if let Some(entry) = self.entries.get_mut(&mark.spi)
            && entry.kept.term == mark.term
            && let Holder::Owner(owner) | Holder::Asked(owner, _) = entry.holder
            && owner == edge
        {
            entry.free(Rest {
                floor: mark.top,
                missing: *missing,
                guessed: false,
            });
        }
        self.settle();
    }

    /// An edge says how far it has come.
    pub fn report(&mut self, edge: EdgeId, report: &Report, now: Instant) {
        for mark in &report.marks {
            self.mark(edge, mark);
        }
        self.settle();
        let Some(contact) = self.edges.get_mut(&edge).filter(|edge| edge.connected) else {
            return;
        };
        while let Some((number, at)) = contact.sent.front().copied()
            && number <= report.echo
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

    /// The repository has what it was to keep.
    pub fn stored(&mut self, spi: u32, kept: Kept) {
        let Some(entry) = self.entries.get_mut(&spi) else {
            return;
        };
        if entry.storing != Some(kept) {
            return;
        }
        entry.storing = None;
        let Holder::Granting(edge, rest) = entry.holder else {
            // Whoever owns it, these are the numbers that may be used.
            entry.kept.reserved = kept.reserved;
            entry.kept.hard = kept.hard;
            entry.kept.term = entry.kept.term.max(kept.term);
            return self.settle();
        };
        entry.kept = kept;
        entry.holder = Holder::Owner(edge);
        entry.top = rest.floor;
        entry.wide = false;
        entry.soft = rest.floor.saturating_add(self.terms.least_margin);
        let first = entry.leased.saturating_add(1);
        entry.leased = (entry.leased.saturating_add(self.terms.block)).min(kept.reserved);
        let grant = Grant {
            floor: rest.floor,
            missing: rest.missing,
            first,
            limits: entry.limits(),
        };
        if rest.guessed {
            self.orders.push_back(Order::Rekey { spi });
        }
        self.send(edge, ToEdge::Grant { spi, grant });
    }

    /// Time has passed.
    pub fn poll(&mut self, now: Instant) {
        let mut late = Vec::new();
        for (spi, entry) in &mut self.entries {
            if let Holder::Asked(owner, until) = entry.holder
                && until <= now
            {
                late.push((owner, *spi, entry.kept.term));
                entry.free(entry.past_all());
            }
        }
        for (owner, spi, term) in late {
            self.send(owner, ToEdge::Revoke { spi, term });
        }
        self.settle();
    }

    /// Takes note of how far an owner has come. Who is none is told.
    fn mark(&mut self, edge: EdgeId, mark: &Mark) {
        let Mark { spi, term, .. } = *mark;
        let terms = &self.terms;
        match self.entries.get_mut(&spi) {
            Some(entry) if entry.is_of(edge, term) => {
                let margin = (mark.top.saturating_sub(entry.top))
                    .saturating_mul(2)
                    .clamp(terms.least_margin, terms.most_margin);
                entry.top = entry.top.max(mark.top);
                if mark.wide && !entry.wide {
                    // What it may have accepted is far above what it has: only fresh keys bring these together.
                    entry.wide = true;
                    self.orders.push_back(Order::Rekey { spi });
                }
                let soft = entry.top.saturating_add(margin).min(entry.kept.hard);
                entry.soft = entry.soft.max(soft);
                let ahead = entry.leased.saturating_sub(mark.sent);
                if ahead <= terms.block / 2 {
                    let more = mark.sent.saturating_add(terms.block);
                    entry.leased = entry.leased.max(more.min(entry.kept.reserved));
                }
            }
            _ => self.send(edge, ToEdge::Revoke { spi, term }),
        }
    }

    /// Grants what somebody waits for, and has the repository keep more numbers where they run out.
    fn settle(&mut self) {
        let terms = self.terms.clone();
        for (spi, entry) in &mut self.entries {
            if entry.storing.is_some() {
                continue;
            }
            let more = |from: u64, by: u64| from.saturating_add(by).min(entry.highest);
            let mut kept = entry.kept;
            if kept.reserved.saturating_sub(entry.leased) <= terms.chunk / 2 {
                kept.reserved = kept.reserved.max(more(entry.leased, terms.chunk));
            }
            match (&entry.holder, entry.next) {
                (Holder::Nobody(rest), Some(edge)) => {
                    entry.next = None;
                    if more(entry.leased, 1) == entry.leased {
                        let refusal = Refusal::Exhausted;
                        let message = ToEdge::Refuse { spi: *spi, refusal };
                        self.orders.push_back(Order::Send { edge, message });
                        self.orders.push_back(Order::Rekey { spi: *spi });
                        continue;
                    }
                    kept.term = kept.term.saturating_add(1);
                    kept.owner = Some(edge);
                    kept.hard = kept.hard.max(more(rest.floor, terms.reserve));
                    entry.holder = Holder::Granting(edge, *rest);
                }
                (Holder::Owner(_), _) => {
                    if kept.hard.saturating_sub(entry.top) <= terms.reserve / 2 {
                        kept.hard = kept.hard.max(more(entry.top, terms.reserve));
                    }
                    if kept == entry.kept {
                        continue;
                    }
                }
                (Holder::Nobody(_) | Holder::Granting(..) | Holder::Asked(..), _) => continue,
            }
            entry.storing = Some(kept);
            self.orders.push_back(Order::Store { spi: *spi, kept });
        }
    }

    fn send(&mut self, edge: EdgeId, message: ToEdge) {
        self.orders.push_back(Order::Send { edge, message });
    }
}

impl Entry {
    fn is_of(&self, edge: EdgeId, term: u32) -> bool {
        let (Holder::Owner(owner) | Holder::Asked(owner, _)) = self.holder else {
            return false;
        };
        owner == edge && self.kept.term == term
    }

    /// Nobody owns it any more.
    fn free(&mut self, rest: Rest) {
        self.holder = Holder::Nobody(rest);
    }

    fn limits(&self) -> Limits {
        Limits {
            term: self.kept.term,
            soft: self.soft,
            hard: self.kept.hard,
            last: self.leased,
        }
    }

    /// Above all that its owner may have accepted, as long as it was in contact.
    fn past_soft(&self) -> Rest {
        match self.wide {
            true => self.past_all(),
            false => Rest {
                floor: self.soft,
                missing: 0,
                guessed: false,
            },
        }
    }

    /// Above all that it may have accepted, whatever happened to it.
    fn past_all(&self) -> Rest {
        Rest {
            floor: self.kept.hard,
            missing: 0,
            guessed: true,
        }
    }
}
