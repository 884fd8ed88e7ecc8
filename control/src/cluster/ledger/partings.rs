//! How connections to edges end, and what becomes of what those owned.

use std::time::Instant;

use super::entry::{Holder, Rest};
use super::{Ledger, Notary, Parting};
use crate::cluster::message::Reached;
use crate::cluster::{EdgeId, Run};

impl Ledger {
    /// The connection to a run of an edge has ended. `now`: taken after its end was read, or later.
    pub fn gone(&mut self, edge: EdgeId, run: Run, parting: Parting, now: Instant) {
        let found = self.edges.get_mut(&edge);
        let Some(contact) = found.filter(|edge| edge.run == run && edge.connected) else {
            return;
        };
        match contact.notary {
            // The first word counts: this is how it ended.
            Notary::Awaited(_) => self.wait_no_more(edge),
            Notary::Silent if parting == Parting::Closed && !contact.leaving => {
                contact.notary = Notary::Awaited(now);
                self.awaited.insert((now + self.terms.testimony, edge));
                self.forget_orders(edge);
            }
            _ => self.part(edge, parting, now),
        }
    }

    /// The process of an edge's run has ended, and its notary says how far it had come with what it owned. Nothing
    /// is in doubt then, however it was connected before.
    pub fn testified(&mut self, edge: EdgeId, run: Run, reached: &[Reached]) {
        let found = self.edges.get_mut(&edge);
        let Some(contact) = found.filter(|edge| edge.run == run) else {
            return;
        };
        let awaited = matches!(contact.notary, Notary::Awaited(_));
        if !awaited {
            contact.notary = Notary::Heard;
        }
        let mut freed = Vec::new();
        for Reached { spi, term, top } in reached {
            let entry = self.entries.get_mut(spi);
            let Some(entry) = entry.filter(|entry| entry.is_of(edge, *term)) else {
                continue;
            };
            // Never below what it was granted: a term may have been given twice, by two authorities.
            entry.top = entry.top.max(*top);
            entry.reported = entry.reported.max(*top);
            entry.free(Rest {
                floor: entry.top,
                missing: 0,
                guessed: false,
            });
            freed.push(*spi);
        }
        freed.into_iter().for_each(|spi| self.settle(spi));
        if awaited {
            self.wait_no_more(edge);
        }
    }

    /// An edge's notary has spoken, or is not waited for any longer: what it did not speak of goes by how the
    /// connection ended.
    pub(super) fn wait_no_more(&mut self, edge: EdgeId) {
        let Some(contact) = self.edges.get_mut(&edge) else {
            return;
        };
        if let Notary::Awaited(closed) = contact.notary {
            contact.notary = Notary::Heard;
            self.part(edge, Parting::Closed, closed);
        }
    }

    fn part(&mut self, edge: EdgeId, parting: Parting, now: Instant) {
        let Some(contact) = self.edges.get_mut(&edge) else {
            return;
        };
        contact.connected = false;
        // Until then it kept to its soft limits: it was not alone.
        let until = contact
            .heard
            .and_then(|heard| (heard + self.terms.alone).checked_sub(self.terms.drift));
        let proven = parting == Parting::Closed
            && !contact.leaving
            && until.is_some_and(|until| now < until);
        self.forget_orders(edge);
        let terms = &self.terms;
        let mut freed = Vec::new();
        for (spi, entry) in &mut self.entries {
            match entry.holder {
                Holder::Owner(owner) | Holder::Asked { owner, .. } if owner == edge && proven => {
                    entry.free(entry.past_soft(terms, now));
                    freed.push(*spi);
                }
                Holder::Granting(to, rest) if to == edge => entry.holder = Holder::Nobody(rest),
                _ => (),
            }
            entry.next = entry.next.filter(|next| *next != edge);
        }
        freed.into_iter().for_each(|spi| self.settle(spi));
    }
}
