//! What must hold at every step.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::Duration;

use super::bits::{Bits, Sparse};
use super::label;

/// SPI, sequence number and IV (RFC 4303 section 2, RFC 4106 section 3.1).
const ESP_HEADER: usize = 16;

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
    /// When it sent each of its packets: the first has number 1.
    sent: Vec<Duration>,
    at_target: Bits,
    answered: Bits,
}

impl Served {
    fn sent_at(&self, number: u64) -> Option<Duration> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.sent.get(index).copied()
    }
}

/// That the client is through again.
#[derive(Clone, Copy, Debug)]
struct Promise {
    /// Answers to what was sent before prove nothing.
    from: Duration,
    until: Duration,
    /// It has a session to go on with.
    standby: bool,
}

/// Promises that came true: with a session to go on with, and without.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Promises {
    pub standby: u64,
    pub others: u64,
    /// How much of the promised time was used, at most.
    pub tightest: [f64; 2],
}

impl Promises {
    /// Counts in those of another run.
    pub fn add(&mut self, other: &Promises) {
        self.standby += other.standby;
        self.others += other.others;
        for (own, other) in self.tightest.iter_mut().zip(other.tightest) {
            *own = own.max(other);
        }
    }

    fn kept(&mut self, promise: &Promise, now: Duration) {
        let used = now.saturating_sub(promise.from).as_secs_f64();
        let used = used / (promise.until - promise.from).as_secs_f64();
        let mut one = Promises::default();
        match promise.standby {
            true => (one.standby, one.tightest) = (1, [used, 0.0]),
            false => (one.others, one.tightest) = (1, [0.0, used]),
        }
        self.add(&one);
    }
}

/// A key of ESP, in one direction: its sequence numbers are its nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(usize);

#[derive(Default)]
struct Used {
    sealed: Sparse,
    opened: Sparse,
}

pub(super) struct Watch {
    now: Duration,
    broken: Option<String>,
    keys: HashMap<Vec<u8>, Key>,
    used: Vec<Used>,
    clients: Vec<Served>,
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) switches: u64,
    pub(super) rekeyings: u64,
    pub(super) resumed: u64,
    pub(super) moves: u64,
    pub(super) promises: Promises,
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
            keys: HashMap::new(),
            used: Vec::new(),
            clients: vec![Served::default(); clients],
            sent: 0,
            answered: 0,
            switches: 0,
            rekeyings: 0,
            resumed: 0,
            moves: 0,
            promises: Promises::default(),
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

    /// The same for the same bytes, whoever has them.
    pub(super) fn key(&mut self, key: &[u8]) -> Key {
        if let Some(known) = self.keys.get(key) {
            return *known;
        }
        let new = Key(self.used.len());
        self.used.push(Used::default());
        self.keys.insert(key.to_vec(), new);
        new
    }

    /// No key seals two packets with the same nonce: it is the sequence number.
    pub(super) fn sealed(&mut self, key: Key, sequence: u64) {
        let fresh = self.used[key.0].sealed.insert(sequence);
        self.holds(fresh, "a key and a nonce are used twice");
    }

    pub(super) fn opened(&mut self, key: Key, sequence: u64) {
        let used = &mut self.used[key.0];
        let (fresh, known) = (used.opened.insert(sequence), used.sealed.contains(sequence));
        self.holds(fresh, "a packet is accepted twice");
        self.holds(known, "a packet is accepted that nobody has sealed");
    }

    /// Nothing of the inner packet is in the clear: its last 16 octets are nowhere behind the ESP header. That
    /// has SPI, sequence number and IV, which can be a destination, a client and a number.
    pub(super) fn on_the_wire(&mut self, esp: &[u8], inner: &[u8]) {
        let esp = esp.get(ESP_HEADER..).unwrap_or_default();
        let octets = |window: &[u8]| window.try_into().ok().map(u128::from_be_bytes);
        let Some(last) = inner.last_chunk::<16>().map(|l| u128::from_be_bytes(*l)) else {
            return;
        };
        let seen = esp.windows(16).any(|window| octets(window) == Some(last));
        self.holds(!seen, "an inner packet is in the clear");
    }

    /// A client sends a packet: they are numbered from 1 on.
    pub(super) fn payload(&mut self, client: usize, number: u64) {
        self.sent += 1;
        let now = self.now;
        let served = &mut self.clients[client];
        served.waits_from.get_or_insert(now);
        served.sent.push(now);
        let all = served.sent.len() as u64;
        self.holds(all == number, "packets are not numbered in order");
    }

    pub(super) fn at_target(&mut self, packet: &[u8]) {
        let Some((client, number)) = label(packet) else {
            return;
        };
        let served = self.clients.get_mut(client);
        let fresh = served.is_some_and(|served| served.at_target.insert(number));
        self.holds(fresh, "a target gets a packet twice");
        self.note((client, number));
    }

    pub(super) fn answer(&mut self, client: usize, number: u64) {
        self.answered += 1;
        let now = self.now;
        let served = &mut self.clients[client];
        let fresh = served.answered.insert(number);
        // Before the first answer it was not served yet.
        if let (Some(from), Some(_)) = (served.waits_from, served.last_answer) {
            self.longest = self.longest.max(now.saturating_sub(from));
        }
        served.waits_from = None;
        if let (Some(at), Some(promise)) = (served.sent_at(number), served.promised)
            && at >= promise.from
        {
            served.promised = None;
            self.promises.kept(&promise, now);
        }
        served.last_answer = Some(now);
        self.holds(fresh, "a client gets an answer twice");
        self.note((client, number));
    }

    /// Whether something promised has not come true yet.
    pub(super) fn somebody_waits(&self) -> bool {
        let mut all = self.clients.iter();
        all.any(|served| served.promised.is_some())
    }

    /// Whatever was sent in this time is answered.
    pub(super) fn all_is_answered(&mut self, from: Duration, until: Duration) {
        for client in 0..self.clients.len() {
            let served = &self.clients[client];
            let first = served.sent.partition_point(|at| *at < from);
            let last = served.sent.partition_point(|at| *at < until);
            let mut numbers = (first..last).map(|index| index as u64 + 1);
            let lost = numbers.find(|number| !served.answered.contains(*number));
            if let Some(number) = lost {
                let at = served.sent_at(number);
                let what =
                    format!("nothing is wrong, and client {client} loses {number} at {at:?}");
                self.holds(false, &what);
            }
        }
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
    /// `standby`: it has a session to go on with.
    pub(super) fn promise(&mut self, client: usize, [from, until]: [Duration; 2], standby: bool) {
        let served = &mut self.clients[client];
        served.promised = Some(Promise {
            from,
            until,
            standby,
        });
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
