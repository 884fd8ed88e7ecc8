//! The parties of the model, what may happen to them, and what they do at once.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use evergate::cluster::{
    Act, Edge, EdgeId, FromEdge, Kept, Ledger, Order, Parting, Reached, Run, Terms, ToEdge,
};

pub(crate) const SPI: u32 = 0x1000;
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// The time after so many ticks.
pub(crate) fn at(tick: u8) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + TICK * u32::from(tick)
}

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) edges: usize,
    /// Packets that the client sends, which arrive anywhere and again and again.
    pub(crate) arriving: u64,
    /// The highest number that is sent to it.
    pub(crate) sending: u64,
    pub(crate) ticks: u8,
    /// Edges killed or machines lost; edges started again; connections cut; authorities killed; claims.
    pub(crate) deaths: u8,
    pub(crate) starts: u8,
    pub(crate) cuts: u8,
    pub(crate) restarts: u8,
    pub(crate) claims: u8,
    /// Edges have notaries, who can say how far one that was killed came.
    pub(crate) notaries: bool,
    pub(crate) terms: Terms,
}

impl Bounds {
    pub(crate) fn edge(&self, run: u64) -> Edge {
        let edge = Edge::new(self.terms.clone(), Run(run));
        match self.notaries {
            true => edge.with_notary(),
            false => edge,
        }
    }
}

/// The data plane of an edge that owns the pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Plane {
    pub(crate) term: u32,
    pub(crate) top: u64,
    /// Bit n: the number n has been seen, or counts as seen.
    pub(crate) seen: u64,
    pub(crate) inbound: u64,
    pub(crate) sent: u64,
    pub(crate) outbound: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Link {
    Up,
    /// The edge's process is gone; its kernel says so behind all that it sent.
    Closing,
    Down,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    /// `None`: the process is dead.
    pub(crate) core: Option<Edge>,
    pub(crate) run: u64,
    /// The one that made the connection.
    pub(crate) link_run: u64,
    /// What the notary of one that was killed has to say.
    pub(crate) reached: Option<(Run, Reached)>,
    pub(crate) plane: Option<Plane>,
    pub(crate) link: Link,
    pub(crate) up: VecDeque<FromEdge>,
    pub(crate) down: VecDeque<ToEdge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: u8,
    pub(crate) ledger: Ledger,
    pub(crate) nodes: Vec<Node>,
    pub(crate) kept: Option<Kept>,
    pub(crate) storing: Option<Kept>,
    pub(crate) client_sent: u64,
    /// Bit n: number n was accepted by somebody; used by somebody.
    pub(crate) accepted: u64,
    pub(crate) used: u64,
    pub(crate) accepted_twice: bool,
    pub(crate) used_twice: bool,
    pub(crate) rekeyed: bool,
    /// Accepted by the second edge, when the first had owned the pair.
    pub(crate) moved: bool,
    /// What an edge that was killed could have accepted, and has not; and the second one did.
    pub(crate) doubtful: u64,
    pub(crate) saved: bool,
    pub(crate) deaths: u8,
    pub(crate) starts: u8,
    pub(crate) cuts: u8,
    pub(crate) restarts: u8,
    pub(crate) claims: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Tick,
    ClientSends,
    /// A packet of the client's arrives at an edge, for the first time or not.
    Arrives(usize, u64),
    EdgeSends(usize),
    /// The next message of a connection is read.
    Up(usize),
    Down(usize),
    Stored,
    /// SIGKILL: of what was to be sent, so many messages had left the process. Or the whole machine: then
    /// nobody is told.
    Kill(usize, usize),
    Vanish(usize),
    /// What the notary of one that was killed says is heard.
    Testimony(usize),
    Start(usize),
    Cut(usize),
    /// A living edge ends its connection.
    Leave(usize),
    /// The authority notices that a connection is no more.
    Notice(usize),
    Connect(usize),
    /// The authority dies and another one takes its place; what was being stored was, or was not.
    Restart {
        stored: bool,
    },
}

impl World {
    /// Whose time has come is called at once: later is no other than that the message came late.
    pub(crate) fn polls(&mut self) {
        let now = at(self.now);
        let due = |deadline: Option<Instant>| deadline.is_some_and(|due| due <= now);
        if due(self.ledger.deadline()) {
            self.ledger.poll(now);
        }
        self.orders();
        for index in 0..self.nodes.len() {
            if let Some(core) = &mut self.nodes[index].core
                && due(core.deadline())
            {
                core.poll(now);
                self.acts(index);
            }
        }
    }

    pub(crate) fn orders(&mut self) {
        while let Some(order) = self.ledger.order() {
            match order {
                Order::Send { edge, message } => {
                    let node = &mut self.nodes[usize::from(edge.0)];
                    if node.link == Link::Up && node.core.is_some() {
                        node.down.push_back(message);
                    }
                }
                Order::Store { kept, .. } => {
                    assert_eq!(self.storing, None, "one at a time");
                    self.storing = Some(kept);
                }
                Order::Rekey { .. } => self.rekeyed = true,
                Order::Erase { .. } => unreachable!("nothing is removed"),
            }
        }
    }

    pub(crate) fn acts(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(core) = &mut node.core else { return };
        while let Some(act) = core.act() {
            match act {
                Act::Send(message) => {
                    if node.link == Link::Up {
                        node.up.push_back(message);
                    }
                }
                Act::Take { grant, inbound, .. } => {
                    let mut seen = ones(grant.floor);
                    for n in 0..=grant.floor.min(63) {
                        if grant.missing >> n & 1 == 1 {
                            seen &= !(1 << (grant.floor - n));
                        }
                    }
                    node.plane = Some(Plane {
                        term: grant.limits.term,
                        top: grant.floor,
                        seen,
                        inbound,
                        sent: grant.first - 1,
                        outbound: grant.limits.last,
                    });
                }
                Act::Bound {
                    inbound, outbound, ..
                } => {
                    let plane = node.plane.as_mut().expect("bounds of what is owned");
                    assert!(plane.inbound <= inbound && plane.outbound <= outbound);
                    (plane.inbound, plane.outbound) = (inbound, outbound);
                }
                Act::Forget { .. } => unreachable!("nothing is removed"),
                Act::Stop { term, tell, .. } => {
                    let plane = node.plane.take().expect("what is owned is stopped");
                    if tell {
                        let missing = (0..plane.top)
                            .filter(|n| plane.seen >> (plane.top - n) & 1 == 0)
                            .fold(0, |bits, n| bits | 1 << n);
                        core.stopped(SPI, term, plane.top, missing, plane.sent);
                    }
                }
            }
        }
    }

    /// The authority learns that a connection is no more.
    pub(crate) fn gone(&mut self, index: usize, parting: Parting) {
        let run = Run(self.nodes[index].link_run);
        let edge = EdgeId(index as u16);
        self.ledger.gone(edge, run, parting, at(self.now));
    }

    /// The connection is no more; the authority does not know yet.
    pub(crate) fn cut(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.up.clear();
        node.down.clear();
        node.link = Link::Down;
        if let Some(core) = &mut node.core {
            core.disconnected();
        }
    }
}

/// Bits 0 to `n`.
pub(crate) fn ones(n: u64) -> u64 {
    (1 << (n + 1)) - 1
}
