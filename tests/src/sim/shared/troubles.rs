//! What goes wrong.

use std::time::Duration;

use rand::RngExt as _;

use super::edge::State;
use super::{Edge, Place, Trouble, What, World};

impl World {
    pub(super) fn trouble(&mut self, trouble: Trouble) {
        trace!("{:?} trouble {trouble:?}", self.now);
        self.count(trouble);
        match trouble {
            Trouble::Kill(e) => {
                if self.edges[e].state != State::Dead {
                    self.dies(e);
                    let left = self.edges[e].logbook();
                    self.edges[e].die();
                    self.edge_ended(e, false);
                    if let Some((run, reached)) = left {
                        self.notary_wakes(e, run, reached);
                    }
                }
            }
            Trouble::Vanish(e) => {
                if self.edges[e].state != State::Dead {
                    self.edges[e].die();
                    self.edge_vanished(e);
                }
            }
            Trouble::Stop(e) => self.with_edge(e, |edge, step| edge.stop(step)),
            Trouble::Start(e) => {
                if self.edges[e].state == State::Dead {
                    let (run, now) = (self.rng.random(), self.shown(Place::Edge(e)));
                    self.edges[e].start(run, now);
                    self.edge_is_back(e);
                    self.dial_anew(e);
                    self.plan(Place::Edge(e));
                }
            }
            Trouble::Freeze(e) => {
                let now = self.shown(Place::Edge(e));
                self.edges[e].freeze(now);
            }
            Trouble::Thaw(e) => {
                let now = self.shown(Place::Edge(e));
                if self.edges[e].thaw(now) {
                    // Its threads go on in any order.
                    let mut next = vec![What::Rings(e), What::Wake(Place::Edge(e))];
                    match self.dials[e].current {
                        Some(serial) => next.push(What::Line(serial)),
                        None => self.dial_anew(e),
                    }
                    self.edges[e].wake_at = None;
                    self.soon(next);
                }
            }
            Trouble::Cut(e) => self.cut(e),
            Trouble::Join(e) => self.join(e),
            Trouble::PullWan(e) => self.links[e].wan = false,
            Trouble::PullLan(e) => self.link(e, false),
            Trouble::Mend(e) => {
                self.links[e].wan = true;
                self.link(e, true);
            }
            Trouble::Drain(e, patience) => {
                let until = self.shown(Place::Edge(e)) + patience;
                self.with_edge(e, |edge, _| edge.drain(until));
            }
            Trouble::Undrain(e) => self.with_edge(e, |edge, step| {
                if edge.runs() {
                    edge.undrain(step);
                }
            }),
            Trouble::AuthorityKilled => self.authority_dies(),
            Trouble::AuthorityStopped => self.authority_stops(),
            Trouble::AuthorityStarts => {
                if self.authority_parts {
                    // It is started again once it has ended.
                    self.later(Duration::from_millis(50), What::Trouble(trouble));
                } else if self.authority.is_none() {
                    self.start_authority();
                }
            }
            Trouble::AuthorityFrozen => {
                self.authority_frozen = self.authority.is_some() && !self.authority_parts;
            }
            Trouble::AuthorityThawed => {
                if std::mem::take(&mut self.authority_frozen) {
                    self.authority_wake = None;
                    let lines = self.lines.keys().map(|serial| What::Line(*serial));
                    let mut next: Vec<What> = lines.collect();
                    next.push(What::Wake(Place::Authority));
                    self.soon(next);
                }
            }
            Trouble::Away => self.disk.full = true,
            Trouble::Back => self.disk.full = false,
            Trouble::Route(c, e) => self.route(c, e),
            Trouble::Herd(e) => (0..self.clients.len()).for_each(|c| self.route(c, e)),
            Trouble::Scatter(some) => self.scatter = some,
            Trouble::Move(c) => self.with_client(c, |client, step| client.move_on(step)),
            Trouble::Remap(c) => self.clients[c].remap(),
            Trouble::Loss(loss) => self.loss = loss,
        }
        self.promise(Some(trouble));
    }

    fn count(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Kill(e)
            | Trouble::Vanish(e)
            | Trouble::Stop(e)
            | Trouble::Freeze(e)
            | Trouble::Cut(e)
            | Trouble::PullWan(e)
            | Trouble::PullLan(e)
                if self.edges[e].state == State::Runs =>
            {
                self.report.deaths += 1;
            }
            Trouble::AuthorityKilled | Trouble::AuthorityStopped | Trouble::AuthorityFrozen
                if self.authority.is_some() =>
            {
                self.report.authorities += 1;
            }
            _ => {}
        }
    }

    /// All this happens in any order, soon.
    fn soon(&mut self, all: Vec<What>) {
        for what in all {
            let after = Duration::from_micros(self.rng.random_range(0..300));
            self.later(after, what);
        }
    }

    fn link(&mut self, edge: usize, up: bool) {
        if self.links[edge].lan != up {
            self.links[edge].lan = up;
            self.with_edge(edge, |edge, step| edge.link(up, step));
        }
    }

    fn route(&mut self, client: usize, edge: usize) {
        if self.routes[client] != edge {
            self.routes[client] = edge;
            self.report.routes += 1;
        }
    }
}

impl Edge {
    /// Its process does not do anything now, and will again.
    pub(super) fn is_frozen(&self) -> bool {
        matches!(self.state, State::Frozen(_))
    }
}
