//! Questions to other edges, and which of their answers counts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Asked, Party, QUESTIONS};
use crate::cluster::wire::Carrier;

/// A question that has an end: what was found, the most current first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) link: Option<u16>,
    pub(super) what: Asked,
    pub(super) carriers: Vec<(Party, Carrier)>,
}

/// What became of a wish to ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It is to be put, under this number.
    New(u64),
    /// It was put already, and has no end yet.
    Already,
    /// There are too many.
    Full,
}

struct Open {
    link: Option<u16>,
    what: Asked,
    /// Those who have not answered.
    waiting: BTreeSet<Party>,
    until: Instant,
    carriers: Vec<(Party, Carrier)>,
}

/// Questions without an end yet.
#[derive(Default)]
pub(super) struct Queries {
    open: BTreeMap<u64, Open>,
    last: u64,
}

impl Queries {
    pub(super) fn begin(
        &mut self,
        link: Option<u16>,
        what: Asked,
        of: BTreeSet<Party>,
        until: Instant,
    ) -> Begun {
        let mut open = self.open.values();
        if open.any(|open| open.link == link && open.what == what) {
            return Begun::Already;
        }
        if self.open.len() >= QUESTIONS {
            return Begun::Full;
        }
        self.last += 1;
        let open = Open {
            link,
            what,
            waiting: of,
            until,
            carriers: Vec::new(),
        };
        self.open.insert(self.last, open);
        Begun::New(self.last)
    }

    /// What a question was about that this party has not answered yet.
    pub(super) fn awaits(&self, id: u64, from: Party) -> Option<Asked> {
        let open = self.open.get(&id)?;
        open.waiting.contains(&from).then_some(open.what)
    }

    /// A party has answered, once.
    pub(super) fn answered(&mut self, id: u64, from: Party, carriers: Vec<Carrier>) {
        if let Some(open) = self.open.get_mut(&id)
            && open.waiting.remove(&from)
        {
            let carriers = carriers.into_iter().map(|carrier| (from, carrier));
            open.carriers.extend(carriers);
        }
    }

    /// A party will not answer any more.
    pub(super) fn gone(&mut self, party: Party) {
        for open in self.open.values_mut() {
            open.waiting.remove(&party);
        }
    }

    /// The next question that all have answered, or that has waited for long enough.
    pub(super) fn ended(&mut self, now: Instant) -> Option<Ended> {
        let over = |open: &Open| open.waiting.is_empty() || open.until <= now;
        let id = *self.open.iter().find(|(_, open)| over(open))?.0;
        let Open {
            link,
            what,
            mut carriers,
            ..
        } = self.open.remove(&id)?;
        carriers.sort_by_key(|(_, carrier)| Reverse((carrier.stamp, carrier.sequence)));
        Some(Ended {
            link,
            what,
            carriers,
        })
    }

    /// When [`Queries::ended`] has something, if nobody answers before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|open| open.until).min()
    }
}

/// Whether a pair can be used by who has asked for this.
pub(super) fn usable(carrier: &Carrier, what: &Asked, seconds: u64) -> bool {
    what.is_for(carrier) && carrier.pair.expires > seconds && carrier.pair.session().is_ok()
}
