//! All IKE SAs of a node: who a datagram belongs to, what is half open, when something is due.

mod batch;
pub(super) mod export;
mod first;
mod mobility;
mod peers;
mod restoring;
mod succession;
#[cfg(test)]
mod testing;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use rand::CryptoRng;

pub use batch::{Datagram, Job, Spread};
use restoring::Keeping;

use super::cookie::{CookieKeys, Cookies};
use super::crash;
use super::event::{Event, Failure, SaId, Transmit};
use super::guesses::Guesses;
use super::identity::Identity;
use super::limits::{HalfOpen, Refusals};
use super::payload::header::{Header, VERSION};
use super::payload::notify::{Notify, kind};
use super::payload::redirect::GatewayIdentity;
use super::payload::ts;
use super::sa::Sa;
use super::sa::restored::Told;
use super::settings::{Hooks, Initiate, NoHooks, Settings, X509};
use super::state::{Core, Phase};
use super::stats::Stats;
use super::task::redirect::Redirect;
use super::task::resume::Resume;
use super::task::{Cx, Request, Succession, init};
use super::ticket::Ticket;
use super::ts::merge;

/// IKEv2 for one node, as initiator and responder. See the [module](super) for how to drive it.
pub struct Engine {
    settings: Settings,
    rng: Box<dyn CryptoRng + Send>,
    /// Boxed: a table has room for up to twice as many.
    sas: HashMap<SaId, Box<Entry>>,
    /// By the SPI that is ours.
    by_spi: HashMap<u64, SaId>,
    /// By the hash of the first message, so that its repetition makes no second SA.
    by_first_message: HashMap<[u8; 32], SaId>,
    /// Those whose peer is proven, by its identity's key.
    by_peer: BTreeSet<(Identity, SaId)>,
    timers: BTreeSet<(Instant, SaId, &'static str)>,
    half_open: HalfOpen,
    /// Those that linger, the oldest first.
    lingering: BTreeSet<SaId>,
    cookies: Cookies,
    refusals: Refusals,
    guesses: Guesses,
    tokens: crash::Ration,
    complaints: crash::Ration,
    events: VecDeque<Event>,
    transmits: VecDeque<Transmit>,
    stats: Stats,
    last_id: u64,
    /// Only if the owner keeps snapshots.
    keeping: Option<Keeping>,
}

/// An SA and what the tables say about it.
struct Entry {
    sa: Sa,
    timer: Option<(Instant, &'static str)>,
    /// The key of its peer's identity, once that is proven.
    peer: Option<Identity>,
    /// What the owner keeps of it.
    told: Option<Told>,
}

impl Engine {
    /// An engine without any session. `rng` makes SPIs, nonces and private keys.
    pub fn new(settings: Settings, rng: impl CryptoRng + Send + 'static) -> Engine {
        Engine {
            settings,
            rng: Box::new(rng),
            sas: HashMap::new(),
            by_spi: HashMap::new(),
            by_first_message: HashMap::new(),
            by_peer: BTreeSet::new(),
            timers: BTreeSet::new(),
            half_open: HalfOpen::default(),
            lingering: BTreeSet::new(),
            cookies: Cookies::default(),
            refusals: Refusals::default(),
            guesses: Guesses::default(),
            tokens: crash::Ration::default(),
            complaints: crash::Ration::default(),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            stats: Stats::default(),
            last_id: 0,
            keeping: None,
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes other certificates, of ours and of CAs, for sessions that are made from now on.
    pub fn set_x509(&mut self, x509: X509) {
        self.settings.x509 = x509;
    }

    /// What has been counted.
    pub fn stats(&self) -> Stats {
        Stats {
            sas: self.sas.len(),
            half_open: self.half_open.len(),
            ..self.stats
        }
    }

    /// The keys of the cookies that first messages are asked for (RFC 7296 section 2.6), for a filter
    /// that takes that work over in a flood. To be asked for anew every few seconds.
    pub fn cookie_keys(&mut self, now: Instant) -> CookieKeys {
        self.cookies.keys(now, &mut *self.rng)
    }

    /// Starts a session. [`Event::Established`] or [`Event::Failed`] follows, at once if it can not
    /// even begin.
    pub fn initiate(&mut self, now: Instant, wish: Initiate, hooks: &mut dyn Hooks) -> SaId {
        self.begin(now, wish, None, hooks)
    }

    fn begin(
        &mut self,
        now: Instant,
        mut wish: Initiate,
        ticket: Option<Ticket>,
        hooks: &mut dyn Hooks,
    ) -> SaId {
        // INITIAL_CONTACT beside another session would be a lie (section 2.4), and have the peer
        // drop one that we keep: it may have come about since the owner wished.
        wish.initial_contact &= !self.has_session(&wish);
        let id = self.new_id();
        let mut core = Core::new(id, true, wish.local, wish.remote);
        core.spi_i = self.new_spi();
        self.insert(Sa::initiator(core));
        (wish.local_ts, wish.remote_ts) = (merge(&wish.local_ts), merge(&wish.remote_ts));
        let fits = ts::check(&wish.local_ts).and_then(|_| ts::check(&wish.remote_ts));
        self.with(id, now, hooks, |sa, cx| {
            let ticket = ticket.filter(|ticket| Resume::is_possible(ticket, cx));
            let task: Result<Box<dyn Request>, Failure> = match (fits, ticket) {
                (Ok(_), Some(ticket)) => Ok(Box::new(Resume::new(wish, ticket, cx))),
                (Ok(_), None) => match init::Init::new(wish, cx) {
                    Some(init) => Ok(Box::new(init)),
                    None => Err(Failure::NoProposalChosen),
                },
                // Said at once, not after an exchange of no use.
                (Err(too_many), _) => Err(too_many.into()),
            };
            match task {
                Ok(task) => sa.start(task, cx),
                Err(failure) => {
                    sa.core.fail(cx, failure);
                    sa.dead = true;
                }
            }
        });
        id
    }

    /// As [`Engine::initiate`], but goes on with a former session by its ticket: without a key
    /// exchange, and without proof of who either side is, which is what the ticket stands for.
    /// [`Event::Established`] says whether it was `resumed`; where the responder does not take the
    /// ticket, or does not answer, the full exchange follows by itself. A ticket is for one use, and
    /// for a responder that may speak in the name of the one it was made with:
    /// [`Event::Established`] names the peer as `wish.remote_id`.
    pub fn resume(
        &mut self,
        now: Instant,
        wish: Initiate,
        ticket: Ticket,
        hooks: &mut dyn Hooks,
    ) -> SaId {
        self.begin(now, wish, Some(ticket), hooks)
    }

    /// Takes one datagram, without non-ESP marker, as it came from `remote` to `local`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        data: &[u8],
        hooks: &mut dyn Hooks,
    ) {
        let Some(header) = self.read_header(now, local, remote, data) else {
            return;
        };
        if header.begins() && !header.response {
            return self.first_message(now, local, remote, &header, data, hooks);
        }
        match self.recipient(&header) {
            Some(id) => self.with(id, now, hooks, |sa, cx| {
                sa.handle(local, remote, &header, data, cx);
            }),
            None => self.nobody(now, local, remote, &header),
        }
    }

    /// A message in an IKE SA that we do not know.
    fn nobody(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, header: &Header) {
        self.stats.unknown_spi += 1;
        self.show_token(now, local, remote, header);
    }

    /// The header of a datagram that is an IKE message of our version.
    fn read_header(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        data: &[u8],
    ) -> Option<Header> {
        self.stats.received += 1;
        let Ok(header) = Header::parse(data) else {
            self.stats.bad_header += 1;
            return None;
        };
        if header.version >> 4 != VERSION >> 4 {
            self.stats.bad_version += 1;
            // Section 2.5. A response to a response would go round for ever.
            if header.version >> 4 > VERSION >> 4 && !header.response {
                let notify = Notify::new(kind::INVALID_MAJOR_VERSION, []);
                self.complain(now, local, remote, &header, notify);
            }
            return None;
        }
        Some(header)
    }

    /// Whose message it is by its SPIs.
    fn recipient(&self, header: &Header) -> Option<SaId> {
        let (ours, theirs) = match header.initiator {
            true => (header.spi_r, header.spi_i),
            false => (header.spi_i, header.spi_r),
        };
        self.by_spi.get(&ours).copied().filter(|id| {
            // One that is away, because it is at work, will judge for itself.
            self.sas.get(id).is_none_or(|entry| {
                let sa = &entry.sa;
                let known = if sa.core.initiator {
                    sa.core.spi_r
                } else {
                    sa.core.spi_i
                };
                sa.core.initiator != header.initiator && (known == 0 || known == theirs)
            })
        })
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, hooks: &mut dyn Hooks) {
        while let Some(&(at, id, _)) = self.timers.first() {
            if at > now {
                return;
            }
            self.with(id, now, hooks, |sa, cx| sa.handle_timeout(cx));
        }
    }

    /// When to call [`Engine::handle_timeout`] at the latest, and what for.
    pub fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.first().map(|&(at, _, why)| (at, why))
    }

    /// The next thing that happened. Take all of them before the first datagram.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Ends a session: the peer is told, and [`Event::Closed`] follows when it has answered or does
    /// not any more. One that is not established yet fails at once. No effect on an unknown one.
    pub fn close(&mut self, now: Instant, id: SaId) {
        self.with(id, now, &mut NoHooks, |sa, cx| sa.close(cx));
    }

    /// Drops a session without a word to anyone. No event follows, but for the SPI of a child SA
    /// that was being made.
    pub fn forget(&mut self, id: SaId) {
        let released = self.remove(id).and_then(|mut e| e.sa.core.release());
        self.events.extend(released);
    }

    /// Asks the peer of an established session for a sign of life: [`Event::Alive`], or
    /// [`Event::Closed`] for lack of an answer. No effect while another question is on its way.
    pub fn check_liveness(&mut self, now: Instant, id: SaId) {
        self.with(id, now, &mut NoHooks, |sa, cx| sa.check_liveness(cx));
    }

    /// Sends an established peer to another gateway; its session stays until it closes it. False if
    /// there is no such session, or the peer has not said that it follows.
    pub fn redirect(&mut self, now: Instant, id: SaId, to: GatewayIdentity) -> bool {
        let core = self.sas.get(&id).map(|entry| &entry.sa.core);
        let follows = core.is_some_and(|c| c.redirectable && c.phase == Phase::Established);
        if follows {
            self.with(id, now, &mut NoHooks, |sa, cx| {
                sa.start(Box::new(Redirect { to }), cx);
            });
        }
        follows
    }

    fn new_id(&mut self) -> SaId {
        self.last_id += 1;
        SaId(self.last_id)
    }

    fn new_spi(&mut self) -> u64 {
        loop {
            let spi = self.settings.spi_prefix.on(self.rng.next_u64());
            if !self.by_spi.contains_key(&spi) {
                return spi;
            }
        }
    }

    fn insert(&mut self, mut sa: Sa) -> SaId {
        sa.begin_run(self.keeping.as_ref().map_or(0, |keeping| keeping.run));
        let id = sa.core.id;
        self.by_spi.insert(sa.core.spi_local(), id);
        if let Some(digest) = sa.first_message {
            self.by_first_message.insert(digest, id);
        }
        let entry = Entry {
            sa,
            timer: None,
            peer: None,
            told: None,
        };
        self.sas.insert(id, Box::new(entry));
        id
    }

    /// Lets one SA do something, and then brings the tables up to date.
    fn with(
        &mut self,
        id: SaId,
        now: Instant,
        hooks: &mut dyn Hooks,
        act: impl FnOnce(&mut Sa, &mut Cx<'_>),
    ) {
        let Some(sa) = self.sas.get_mut(&id).map(|entry| &mut entry.sa) else {
            return;
        };
        let mut cx = Cx {
            now,
            settings: &self.settings,
            rng: &mut *self.rng,
            hooks: &mut *hooks,
            stats: &mut self.stats,
            guesses: &mut self.guesses,
            events: Vec::new(),
            initial_contact: None,
            succession: Succession::default(),
        };
        act(sa, &mut cx);
        let Cx {
            events,
            initial_contact,
            succession,
            ..
        } = cx;
        self.finish(id, now, initial_contact, events, succession, hooks);
    }

    /// Brings the tables up to date with what one SA has done.
    fn finish(
        &mut self,
        id: SaId,
        now: Instant,
        initial_contact: Option<Identity>,
        events: Vec<Event>,
        succession: Succession,
        hooks: &mut dyn Hooks,
    ) {
        if let Some(entry) = self.sas.get_mut(&id) {
            self.transmits.extend(entry.sa.outbox.drain(..));
        }
        if let Some(peer) = initial_contact {
            // The old sessions are gone before the new one is there: it may well get their
            // addresses.
            self.replace(&peer, id);
        }
        for event in events {
            self.tell(now, event);
        }
        self.settle(id);
        self.succeed(now, id, succession, hooks);
    }

    /// Queues an event, unless strangers have caused too many of its kind.
    fn tell(&mut self, now: Instant, mut event: Event) {
        if let Event::Refused {
            assigned, untold, ..
        } = &mut event
        {
            match self.refusals.pass(now) {
                Some(count) => *untold = count,
                // The owner must take back what it has assigned, and only the authenticated get so
                // far.
                None if !assigned.is_empty() => {}
                None => return self.stats.untold_refusals += 1,
            }
        }
        self.events.push_back(event);
    }

    fn settle(&mut self, id: SaId) {
        let Some(entry) = self.sas.get_mut(&id) else {
            return;
        };
        if entry.sa.dead {
            self.remove(id);
            return;
        }
        let core = &entry.sa.core;
        if entry.peer.is_none() && (core.is_announced() || core.phase == Phase::Childless) {
            entry.peer = core.peer.as_ref().map(Identity::key);
            self.by_peer.extend(entry.peer.clone().map(|key| (key, id)));
        }
        let deadline = entry.sa.deadline();
        if deadline != entry.timer {
            if let Some((at, why)) = entry.timer {
                self.timers.remove(&(at, id, why));
            }
            self.timers.extend(deadline.map(|(at, why)| (at, id, why)));
            entry.timer = deadline;
        }
        // A refusal frees the slot at once: what is left of it is bounded below.
        if entry.sa.core.phase == Phase::HalfOpen {
            self.half_open.insert(id, entry.sa.core.remote.ip().into());
        } else {
            self.half_open.remove(id);
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.look_at(entry);
        }
        if entry.sa.lingers() {
            self.lingering.insert(id);
        }
        if self.lingering.len() > self.settings.last_answers_limit
            && let Some(oldest) = self.lingering.first().copied()
        {
            self.stats.last_answers_evicted += 1;
            self.remove(oldest);
        }
    }

    fn remove(&mut self, id: SaId) -> Option<Box<Entry>> {
        let entry = self.sas.remove(&id)?;
        self.by_spi.remove(&entry.sa.core.spi_local());
        if let Some(digest) = entry.sa.first_message {
            self.by_first_message.remove(&digest);
        }
        if let Some((at, why)) = entry.timer {
            self.timers.remove(&(at, id, why));
        }
        if let Some(key) = entry.peer.clone() {
            self.by_peer.remove(&(key, id));
        }
        self.half_open.remove(id);
        self.lingering.remove(&id);
        if let (Some(keeping), Some(_)) = (&mut self.keeping, entry.told) {
            keeping.note(entry.sa.core.spi_local(), false);
        }
        Some(entry)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({}, {:?})", self.settings.local_id, self.stats())
    }
}
