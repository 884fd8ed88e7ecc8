//! What another worker than the first one sends and hears of a client's gateways, told to the first one,
//! which watches them: at once, but not more often than it takes to judge by.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::command::GroupId;
use super::core::Core;
use super::handover::{FIRST, Note};

/// Least time between two reports.
const PACE: Duration = Duration::from_millis(1);

/// Gateways and groups that one report tells of; a client has few.
const MOST: usize = 64;

/// What is to be told, and when.
pub(super) struct Signs {
    heard: Vec<IpAddr>,
    sent: Vec<GroupId>,
    earliest: Instant,
}

impl Signs {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            heard: Vec::with_capacity(MOST),
            sent: Vec::with_capacity(MOST),
            earliest: now,
        }
    }

    fn is_empty(&self) -> bool {
        self.heard.is_empty() && self.sent.is_empty()
    }

    /// When there is something to tell.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.is_empty()).then_some(self.earliest)
    }
}

/// Adds what is not there yet.
fn note<T: PartialEq>(list: &mut Vec<T>, new: T) {
    if list.len() < MOST && !list.contains(&new) {
        list.push(new);
    }
}

impl Core {
    /// Tells the first worker what was sent and heard.
    pub(super) fn give_signs(&mut self, now: Instant) {
        while let Some(index) = self.heard.pop() {
            let Some(session) = self.sessions.get_mut(index) else {
                continue;
            };
            session.heard = false;
            if let Some(gateway) = session.spec.gateway {
                note(&mut self.signs.heard, gateway);
            }
        }
        for group in self.groups.take_sent() {
            note(&mut self.signs.sent, group);
        }
        // Where many notes wait, nobody reads them.
        if self.signs.is_empty() || now < self.signs.earliest || self.notes_left() > MOST {
            return;
        }
        self.signs.earliest = now + PACE;
        // What was sent counts from before what was heard, as it would in one worker.
        while let Some(group) = self.signs.sent.pop() {
            self.tell(FIRST, Note::Sent(group));
        }
        while let Some(gateway) = self.signs.heard.pop() {
            self.tell(FIRST, Note::Heard(gateway));
        }
    }
}
