//! What must hold at every step.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::Duration;

use super::label;

/// A client changes gateways no more often in a minute.
const SWITCHES: usize = 60;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub seed: u64,
    pub at: Duration,
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Broken { seed, at, what } = self;
        write!(f, "seed {seed}, after {:.6} s: {what}", at.as_secs_f64())
    }
}

/// One client.
#[derive(Clone, Default)]
struct Served {
    /// Since when it sends and hears nothing.
    waits_from: Option<Duration>,
    last_answer: Option<Duration>,
    switches: Vec<Duration>,
    promised: Option<Promise>,
    /// When it sent what is not answered yet, by number; the newest last.
    sent: VecDeque<(u64, Duration)>,
}

/// That the client is through again.
#[derive(Clone, Copy, Debug)]
struct Promise {
    /// Answers to what was sent before prove nothing.
    from: Duration,
    until: Duration,
}

/// So many packets of a client are remembered.
const REMEMBERED: usize = 64;

pub(super) struct Watch {
    now: Duration,
    broken: Option<String>,
    /// What each key sealed, and what was accepted under it.
    sealed: HashMap<Vec<u8>, HashSet<u64>>,
    opened: HashMap<Vec<u8>, HashSet<u64>>,
    at_target: HashSet<(usize, u64)>,
    answers: HashSet<(usize, u64)>,
    clients: Vec<Served>,
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) switches: u64,
    pub(super) longest: Duration,
    pub(super) digest: u64,
    /// The soonest that something promised is due.
    earliest: Option<Duration>,
}

impl Watch {
    pub(super) fn new(clients: usize) -> Watch {
        Watch {
            now: Duration::ZERO,
            broken: None,
            sealed: HashMap::new(),
            opened: HashMap::new(),
            at_target: HashSet::new(),
            answers: HashSet::new(),
            clients: vec![Served::default(); clients],
            sent: 0,
            answered: 0,
            switches: 0,
            longest: Duration::ZERO,
            digest: 0,
            earliest: None,
        }
    }

    pub(super) fn at(&mut self, now: Duration) {
        self.now = now;
    }

    /// The first thing that did not hold.
    pub(super) fn verdict(&mut self, at: Duration, seed: u64) -> Result<(), Broken> {
        match self.broken.take() {
            Some(what) => Err(Broken { seed, at, what }),
            None => Ok(()),
        }
    }

    pub(super) fn holds(&mut self, it: bool, what: &str) {
        if !it && self.broken.is_none() {
            self.broken = Some(what.to_owned());
        }
    }

    fn note(&mut self, what: impl std::hash::Hash) {
        let mut hasher = DefaultHasher::new();
        (self.digest, self.now, what).hash(&mut hasher);
        self.digest = hasher.finish();
    }

    /// No key seals two packets with the same nonce: it is the sequence number.
    pub(super) fn sealed(&mut self, key: &[u8], sequence: u64) {
        let fresh = self
            .sealed
            .entry(key.to_vec())
            .or_default()
            .insert(sequence);
        self.holds(fresh, "a key and a nonce are used twice");
    }

    pub(super) fn opened(&mut self, key: &[u8], sequence: u64) {
        let fresh = self
            .opened
            .entry(key.to_vec())
            .or_default()
            .insert(sequence);
        self.holds(fresh, "a packet is accepted twice");
        let known = self
            .sealed
            .get(key)
            .is_some_and(|all| all.contains(&sequence));
        self.holds(known, "a packet is accepted that nobody has sealed");
    }

    /// Nothing of the inner packet is in the clear.
    pub(super) fn on_the_wire(&mut self, esp: &[u8], inner: &[u8]) {
        let seen = esp.windows(inner.len()).any(|window| window == inner);
        self.holds(!seen, "an inner packet is in the clear");
    }

    pub(super) fn payload(&mut self, client: usize, number: u64) {
        self.sent += 1;
        let now = self.now;
        let served = &mut self.clients[client];
        served.waits_from.get_or_insert(now);
        if served.sent.len() >= REMEMBERED {
            served.sent.pop_front();
        }
        served.sent.push_back((number, now));
    }

    pub(super) fn at_target(&mut self, packet: &[u8]) {
        if let Some(label) = label(packet) {
            let fresh = self.at_target.insert(label);
            self.holds(fresh, "a target gets a packet twice");
            self.note(label);
        }
    }

    pub(super) fn answer(&mut self, client: usize, number: u64) {
        let fresh = self.answers.insert((client, number));
        self.holds(fresh, "a client gets an answer twice");
        self.answered += 1;
        let now = self.now;
        let served = &mut self.clients[client];
        // Before the first answer it was not served yet.
        if let (Some(from), Some(_)) = (served.waits_from, served.last_answer) {
            self.longest = self.longest.max(now.saturating_sub(from));
        }
        served.waits_from = None;
        let sent_at = served.sent.iter().find(|(sent, _)| *sent == number);
        if let (Some((_, at)), Some(promise)) = (sent_at, served.promised)
            && *at >= promise.from
        {
            served.promised = None;
        }
        served.last_answer = Some(now);
        self.note((client, number));
    }

    pub(super) fn switched(&mut self, client: usize, gateway: IpAddr) {
        self.switches += 1;
        self.note((client, gateway));
        let now = self.now;
        let switches = &mut self.clients[client].switches;
        switches.retain(|at| *at + Duration::from_secs(60) > now);
        switches.push(now);
        let often = switches.len() > SWITCHES;
        self.holds(!often, "a client goes from gateway to gateway without end");
    }

    /// Something has changed: what was promised before is promised no more.
    pub(super) fn nothing_is_promised(&mut self) {
        for served in &mut self.clients {
            served.promised = None;
        }
        self.earliest = None;
    }

    /// What a client sends from `from` on is answered until `until`, at the latest.
    pub(super) fn promise(&mut self, client: usize, from: Duration, until: Duration) {
        let served = &mut self.clients[client];
        served.promised = Some(Promise { from, until });
        self.earliest = self.earliest.min(Some(until)).or(Some(until));
    }

    /// Whether all that was promised until now came true.
    pub(super) fn judge(&mut self) {
        let now = self.now;
        if self.earliest.is_none_or(|earliest| now <= earliest) {
            return;
        }
        let late = |served: &Served| served.promised.is_some_and(|p| p.until < now);
        if let Some(client) = self.clients.iter().position(late) {
            let promise = self.clients[client].promised;
            let what = format!("client {client} is not through in time: {promise:?}");
            self.holds(false, &what);
        }
        let all = self.clients.iter();
        self.earliest = all
            .filter_map(|served| served.promised)
            .map(|p| p.until)
            .min();
    }
}
