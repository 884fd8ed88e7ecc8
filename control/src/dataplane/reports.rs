//! What a worker tells the node's core.

use evergate_common::reason::Counter;

use super::command::{WorkerEvent, WorkerReport};
use super::core::Core;

/// Reports that wait for room in the core's queue; one that is lost could leave a group asking
/// for ever.
const UNSENT: usize = 65_536;

impl Core {
    /// Tells the node's core that something has happened.
    pub(super) fn send_event(&mut self, event: WorkerEvent) {
        self.view_wanted = true;
        self.send_quietly(event);
    }

    /// Whether the node's core would hear now of what it is told.
    pub(super) fn has_room_to_tell(&self) -> bool {
        self.unsent.is_empty() && self.reports.capacity() > 0
    }

    /// The same as [`Self::send_event`], of what changes nothing that readers see.
    pub(super) fn send_quietly(&mut self, event: WorkerEvent) {
        if self.unsent.len() >= UNSENT {
            return self.count(Counter::EventLost);
        }
        self.unsent.push_back(WorkerReport {
            at: self.now,
            event,
        });
        self.send_reports();
    }

    /// Gives the node's core what it has room for; the rest waits.
    pub(super) fn send_reports(&mut self) {
        while !self.unsent.is_empty() {
            let Ok(slot) = self.reports.try_reserve() else {
                return;
            };
            if let Some(report) = self.unsent.pop_front() {
                slot.send(report);
            }
        }
    }
}
