//! What edges say, and what becomes of it.

use std::net::SocketAddr;
use std::time::Instant;

use evergate::cluster::wire::{Down, Relayed, Up};
use evergate::cluster::{FromEdge, Mark};

use super::{Authority, PAUSE, PIECE, Step, id};

impl Authority {
    pub(super) fn on_up(
        &mut self,
        edge: usize,
        message: Up,
        step: &mut Step<'_>,
    ) -> Option<Relayed> {
        match message {
            Up::Ike(relayed) => {
                self.batch.insert(relayed.remote, id(edge));
                return Some(relayed);
            }
            Up::Numbers(numbers) => self.on_numbers(edge, numbers, step.now),
            Up::Installed { spi } => self.confirmed(edge, spi),
            Up::NotInstalled { spi, why } => {
                let what = format!("an edge can not use a pair: {why}");
                step.watch.holds(false, &what);
                self.confirmed(edge, spi);
            }
            Up::Query { spi } => {
                let answer = match self.shared.get(&spi) {
                    Some(shared) => shared.install(),
                    None => Down::Unknown { spi },
                };
                self.tell(edge, answer);
            }
            Up::Moved { spi, remote } => self.moved_says(edge, spi, remote, step),
            _ => {}
        }
        None
    }

    fn on_numbers(&mut self, edge: usize, numbers: FromEdge, now: Instant) {
        match numbers {
            FromEdge::Hello { run, notary, held } => {
                self.edges[edge].run = Some(run);
                self.came_so_far(edge, &held, now);
                self.ledger.hello(id(edge), run, &held);
                if notary {
                    self.ledger.has_notary(id(edge));
                }
            }
            FromEdge::Report(report) => {
                self.came_so_far(edge, &report.marks, now);
                self.ledger.report(id(edge), &report, now);
            }
            FromEdge::Claim(claim) => {
                self.ledger.claim(id(edge), claim, now);
                if let Some(sa) = self.shared.get(&claim.spi).and_then(|shared| shared.sa) {
                    self.heard_by.insert(sa, id(edge));
                }
            }
            FromEdge::Yielded(yielded) => self.ledger.yielded(id(edge), &yielded),
            FromEdge::Leaving => self.ledger.leaving(id(edge)),
        }
    }

    /// Who sends lives; and what has protected enough gets fresh keys.
    fn came_so_far(&mut self, edge: usize, marks: &[Mark], now: Instant) {
        let most = self.rekeying.map_or(u64::MAX, |rekeying| rekeying.packets);
        for mark in marks {
            let Some(shared) = self.shared.get_mut(&mark.spi) else {
                continue;
            };
            let news = mark.top > shared.top;
            shared.top = shared.top.max(mark.top);
            let Some(live) = self.live.get_mut(&shared.session) else {
                continue;
            };
            if news {
                live.alive = now;
                self.heard_by.insert(live.sa, id(edge));
            }
            if mark.top.max(mark.sent) >= most && !live.retired {
                self.engine.rekey_child(now, live.sa, mark.spi);
            }
        }
    }

    fn confirmed(&mut self, edge: usize, spi: u32) {
        if let Some(shared) = self.shared.get(&spi) {
            self.held.confirmed(shared.told, spi, id(edge));
        }
    }

    /// Tells edges that have connected what they are to have, piece by piece.
    pub(super) fn go_on_telling(&mut self, now: Instant) {
        if self.tell_at.is_some_and(|at| now < at) {
            return;
        }
        self.tell_at = None;
        for (edge, known) in self.edges.iter_mut().enumerate() {
            let Some(from) = known.from_pair else {
                continue;
            };
            let mut some = self.shared.range(from..);
            for (_, shared) in some.by_ref().take(PIECE) {
                self.out.push((edge, shared.install()));
            }
            known.from_pair = some.next().map(|(spi, _)| *spi);
            match known.from_pair {
                Some(_) => self.tell_at = Some(now + PAUSE),
                None => self.out.push((edge, Down::Complete)),
            }
        }
    }

    /// An edge has heard a client elsewhere. Only the pair's owner can have.
    fn moved_says(&mut self, edge: usize, spi: u32, remote: SocketAddr, step: &mut Step<'_>) {
        if self.ledger.owner(spi) != Some(id(edge)) {
            return;
        }
        let Some(shared) = self.shared.get(&spi) else {
            return;
        };
        let (session, sa) = (shared.session, shared.sa);
        step.watch.moves += 1;
        if let Some(live) = self.live.get(&session) {
            self.engine.peer_moved(step.now, live.sa, remote);
            self.heard_by.insert(live.sa, id(edge));
        }
        let pairs = match sa {
            Some(sa) => self.all_of(sa),
            None => vec![session],
        };
        for pair in pairs {
            self.move_pair(pair, remote, Some(edge), step);
        }
    }
}
