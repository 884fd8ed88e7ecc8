//! Which encryption nodes live: each is asked by heartbeats, all the time.

use std::time::{Duration, Instant};

use evergate_common::heartbeat::HEALTH_DRAINING;
use rand::Rng;

use super::Standing;

/// A node that was dead lives so long before it gets clients again; twice as long each time that it dies
/// anew soon.
const PROOF: Duration = Duration::from_secs(1);
const LONGEST_PROOF: Duration = Duration::from_secs(32);

/// A node that has lived so long has made up for earlier deaths.
const SOUND: Duration = Duration::from_secs(60);

/// Counters of heartbeats have 31 bits.
const COUNTER: u32 = 0x7FFF_FFFF;

/// How often nodes are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one heartbeat to the next.
    pub interval: Duration,
    /// So many heartbeats unanswered in a row, and a node is dead.
    pub tries: u32,
}

/// A heartbeat to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The node.
    pub number: u8,
    /// 31 bits.
    pub counter: u32,
    /// Nobody can guess it.
    pub token: [u8; 8],
}

/// A node, for whoever wants to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    pub number: u8,
    pub standing: Standing,
    /// Heartbeats sent and answered.
    pub sent: u64,
    pub answered: u64,
    /// Round-trip time of the last one that was answered.
    pub rtt: Option<Duration>,
}

/// A node that is asked; or the front itself, which is not.
struct Node {
    number: u8,
    remote: bool,
    /// The kernel knows a way there.
    way: bool,
    /// What it said last, while it lives.
    health: Option<u8>,
    /// Asked, and not answered since; oldest first.
    open: Vec<(Ask, Instant)>,
    lives_since: Instant,
    died: bool,
    /// It had died before it lived now.
    returned: bool,
    proves_until: Option<Instant>,
    /// How long it proves itself next time.
    proof: Duration,
    sent: u64,
    answered: u64,
    rtt: Option<Duration>,
}

/// All nodes of a front.
///
/// Contract: hand in every answer that has come, then [`poll`](Self::poll), then take every
/// [`next_ask`](Self::next_ask); again no later than [`next_deadline`](Self::next_deadline).
pub struct Roster {
    nodes: Vec<Node>,
    pace: Pace,
    counter: u32,
    beat_at: Instant,
    /// Until then it is not known yet who lives.
    ready_at: Instant,
    asks: Vec<Ask>,
}

impl Roster {
    /// Nobody is known to live. `own`: the number of the front itself, if it is a node.
    pub fn new(others: &[u8], own: Option<u8>, pace: Pace, now: Instant) -> Self {
        let node = |number: u8, remote: bool| Node {
            number,
            remote,
            way: !remote,
            health: None,
            open: Vec::new(),
            lives_since: now,
            died: false,
            returned: false,
            proves_until: None,
            proof: PROOF,
            sent: 0,
            answered: 0,
            rtt: None,
        };
        let others = others.iter().map(|number| node(*number, true));
        Self {
            nodes: others.chain(own.map(|own| node(own, false))).collect(),
            pace,
            counter: 0,
            beat_at: now,
            ready_at: now + pace.interval * (pace.tries + 1),
            asks: Vec::new(),
        }
    }

    /// Whether a way leads to a node, as routes and neighbours say.
    pub fn set_way(&mut self, number: u8, way: bool) {
        if let Some(node) = self.node(number).filter(|node| node.remote) {
            node.way = way;
        }
    }

    /// The front's own health as a node; `None`: it could not answer either.
    pub fn set_own(&mut self, health: Option<u8>, now: Instant) {
        for node in self.nodes.iter_mut().filter(|node| !node.remote) {
            match health {
                Some(health) => node.lives(health, now),
                None => node.dies(now),
            }
        }
    }

    /// An answer, which has proved itself, to the heartbeat with this counter and token. Says whether one
    /// is under way to this node.
    pub fn on_answer(
        &mut self,
        number: u8,
        counter: u32,
        token: [u8; 8],
        health: u8,
        now: Instant,
    ) -> bool {
        let ask = Ask {
            number,
            counter,
            token,
        };
        let Some(node) = self.node(number) else {
            return false;
        };
        let Some(at) = node.open.iter().position(|(open, _)| *open == ask) else {
            return false;
        };
        if let Some((_, sent)) = node.open.drain(..=at).next_back() {
            node.rtt = Some(now.saturating_duration_since(sent));
        }
        node.answered += 1;
        node.lives(health, now);
        true
    }

    /// Judges who has been silent for too long, and asks everybody anew, if it is time.
    pub fn poll(&mut self, now: Instant, rng: &mut impl Rng) {
        for node in &mut self.nodes {
            if node.proves_until.is_some_and(|until| now >= until) {
                node.proves_until = None;
            }
        }
        if now < self.beat_at {
            return;
        }
        // Late is late: what was missed is not made up for.
        self.beat_at = now + self.pace.interval;
        self.counter = self.counter.wrapping_add(1) & COUNTER;
        for node in self.nodes.iter_mut().filter(|node| node.remote) {
            // Each one had at least an interval to be answered, and what has come meanwhile was handed in.
            if node.open.len() >= self.pace.tries as usize {
                node.dies(now);
                node.open.remove(0);
            }
            let ask = Ask {
                number: node.number,
                counter: self.counter,
                token: rng.next_u64().to_ne_bytes(),
            };
            node.open.push((ask, now));
            node.sent += 1;
            self.asks.push(ask);
        }
    }

    /// The next heartbeat to send.
    pub fn next_ask(&mut self) -> Option<Ask> {
        self.asks.pop()
    }

    /// When to poll again.
    pub fn next_deadline(&self) -> Instant {
        let proofs = self.nodes.iter().filter_map(|node| node.proves_until);
        proofs.fold(self.beat_at, Instant::min)
    }

    /// Whether it is known who lives: everybody does, or has had the time to answer. Slots that were given
    /// out before would be taken back at once.
    pub fn is_ready(&self, now: Instant) -> bool {
        let all = self
            .nodes
            .iter()
            .all(|node| node.standing() != Standing::Dead);
        all || now >= self.ready_at
    }

    /// All nodes with their standing.
    pub fn standings(&self) -> Vec<(u8, Standing)> {
        let nodes = self.nodes.iter();
        nodes.map(|node| (node.number, node.standing())).collect()
    }

    /// All nodes.
    pub fn watched(&self) -> impl Iterator<Item = Watched> + '_ {
        self.nodes.iter().map(|node| Watched {
            number: node.number,
            standing: node.standing(),
            sent: node.sent,
            answered: node.answered,
            rtt: node.rtt,
        })
    }

    fn node(&mut self, number: u8) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.number == number)
    }
}

impl Node {
    fn standing(&self) -> Standing {
        match self.health {
            Some(_) if !self.way => Standing::Dead,
            None => Standing::Dead,
            Some(health) if health & HEALTH_DRAINING != 0 => Standing::Draining,
            Some(_) if self.proves_until.is_some() => Standing::Proving,
            Some(_) => Standing::Well,
        }
    }

    fn lives(&mut self, health: u8, now: Instant) {
        if self.health.replace(health).is_some() {
            return;
        }
        self.lives_since = now;
        // At first nobody has anything that could be lost.
        if self.died {
            self.proves_until = Some(now + self.proof);
        }
        self.returned = self.died;
    }

    fn dies(&mut self, now: Instant) {
        if self.health.take().is_none() {
            return;
        }
        let soon = now.saturating_duration_since(self.lives_since) < SOUND;
        self.proof = match self.returned && soon {
            true => (self.proof * 2).min(LONGEST_PROOF),
            false => PROOF,
        };
        self.died = true;
        self.proves_until = None;
    }
}
