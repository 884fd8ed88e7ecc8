//! What the repository is given to write, when, and what becomes of it.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::task::coop::unconstrained;

use super::Authority;
use crate::cluster::repository::{Outcome, Write};
use crate::node::events::{EventKind, NewEvent};

/// What is not urgent waits so long for a moment with nothing else to do.
const LINGER: Duration = Duration::from_millis(5);

/// Words of the repository that are taken at once.
const OUTCOMES: usize = 1024;

impl Authority {
    /// Has the repository write this at once, after all that it was to write before.
    pub(super) fn write(&mut self, write: Write) -> u64 {
        let number = self.write_soon(write);
        self.write_waiting();
        number
    }

    /// Has it write this when there is nothing else to do, or after [`LINGER`]. A thousand pairs may change hands in one
    /// moment, and edges are to hear of it before a thread is busy with keeping who has them.
    pub(super) fn write_soon(&mut self, write: Write) -> u64 {
        self.writes += 1;
        self.unwritten.push((self.writes, write));
        self.write_by.get_or_insert_with(|| Instant::now() + LINGER);
        self.writes
    }

    /// Gives the repository what was not urgent.
    pub(super) fn write_waiting(&mut self) {
        self.write_by = None;
        for (number, write) in self.unwritten.drain(..) {
            self.repository.write(number, write);
        }
    }

    /// What has become of writes, as much as there is: what one commit has kept comes at once.
    pub(super) fn on_outcomes(&mut self, first: Outcome) -> anyhow::Result<()> {
        let mut next = Some(first);
        for _ in 0..OUTCOMES {
            let Some(outcome) = next.take() else { break };
            self.on_outcome(outcome)?;
            next = unconstrained(self.repository.next()).now_or_never();
        }
        // What was taken out must not be lost.
        next.map_or(Ok(()), |outcome| self.on_outcome(outcome))
    }

    fn on_outcome(&mut self, outcome: Outcome) -> anyhow::Result<()> {
        match outcome {
            Outcome::Done { number } => {
                self.held.written(number);
                if let Some((spi, kept)) = self.storing.remove(&number) {
                    self.ledger.stored(spi, kept);
                }
            }
            Outcome::Away { why } => {
                self.is_away = true;
                let text = format!("the repository is away, new work waits: {why}");
                self.note(NewEvent::new(EventKind::Repository, text));
            }
            Outcome::Back => {
                self.is_away = false;
                let text = "the repository is back".to_owned();
                self.note(NewEvent::new(EventKind::Repository, text));
            }
            Outcome::Deposed { why } => {
                anyhow::bail!(
                    "nothing can be kept any more, and this authority must not go on: {why}"
                )
            }
        }
        Ok(())
    }
}
