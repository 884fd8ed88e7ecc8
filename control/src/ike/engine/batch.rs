//! Many datagrams at once, on several cores: what is expensive about a message concerns one IKE SA
//! alone. One IKE SA's datagrams stay in their order; those of different ones have none.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::eap::EapUser;
use super::super::event::Event;
use super::super::guesses::Guesses;
use super::super::identity::Identity;
use super::super::payload::header::Header;
use super::super::settings::{
    Admission, Arrival, AssignRefused, Beside, Hooks, Methods, Settings, TsRefused,
};
use super::super::state::Phase;
use super::super::stats::Stats;
use super::super::task::{Cx, Succession};
use super::super::ts::TrafficSelector;
use super::super::x509::Subject;
use super::first::{Answered, First, Verdict};
use super::{Engine, Entry};

/// One datagram, without non-ESP marker, as it came from `remote` to `local`.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub data: &'a [u8],
}

/// Work of one message.
pub type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Threads of the owner, to spread work over.
pub trait Spread {
    /// Does all jobs, each once, in any order and at the same time; returns when all are done.
    fn run<'a>(&self, jobs: Vec<Job<'a>>);
}

/// A message at work, away from the tables.
enum Work<'a> {
    First(Box<First>),
    Message(Box<Entry>, Header, Datagram<'a>),
}

/// What is to be brought into the tables.
enum Done {
    First(Box<Answered>),
    Message {
        entry: Box<Entry>,
        events: Vec<Event>,
        initial_contact: Option<Identity>,
    },
}

impl Engine {
    /// As [`Engine::handle_datagram`] for each of them, with the work spread over threads.
    pub fn handle_datagrams(
        &mut self,
        now: Instant,
        datagrams: &[Datagram<'_>],
        hooks: &mut (dyn Hooks + Send),
        spread: &dyn Spread,
    ) {
        let mut rest = datagrams;
        while let [first, more @ ..] = rest {
            let work = match more {
                [] => Vec::new(),
                _ => self.take(now, rest, hooks),
            };
            // What is alone needs no other thread, nor does what has to wait for its turn.
            if work.is_empty() {
                self.handle_datagram(now, first.local, first.remote, first.data, hooks);
                rest = more;
                continue;
            }
            rest = rest.get(work.len()..).unwrap_or_default();
            let work = work.into_iter().flatten().collect();
            self.work(now, work, hooks, spread);
        }
    }

    /// Work out of the first datagrams, one entry for each, up to one that has to wait for an earlier
    /// one. `None` is a datagram that is dealt with.
    fn take<'a>(
        &mut self,
        now: Instant,
        datagrams: &[Datagram<'a>],
        hooks: &mut dyn Hooks,
    ) -> Vec<Option<Work<'a>>> {
        let mut work = Vec::with_capacity(datagrams.len());
        for datagram in datagrams {
            let Datagram {
                local,
                remote,
                data,
            } = *datagram;
            let Some(header) = self.read_header(now, local, remote, data) else {
                work.push(None);
                continue;
            };
            if header.begins() && !header.response {
                match self.admit(now, local, remote, &header, data, hooks) {
                    Verdict::Yes(first) => work.push(Some(Work::First(first))),
                    Verdict::No => work.push(None),
                    Verdict::Again(_) => {
                        // It is counted once it is dealt with.
                        self.stats.received -= 1;
                        break;
                    }
                }
                continue;
            }
            let Some(id) = self.recipient(&header) else {
                self.nobody(now, local, remote, &header);
                work.push(None);
                continue;
            };
            // One that is not there is at work already; others than handshakes may concern more than
            // one IKE SA, and are no herd.
            let alone = |entry: &mut Box<Entry>| {
                let core = &entry.sa.core;
                // Guesses of passwords are counted in one place.
                core.phase != Phase::HalfOpen || core.eap.is_some()
            };
            if self.sas.get_mut(&id).is_none_or(alone) {
                self.stats.received -= 1;
                break;
            }
            let Some(entry) = self.sas.remove(&id) else {
                break;
            };
            work.push(Some(Work::Message(entry, header, *datagram)));
        }
        work
    }

    fn work(
        &mut self,
        now: Instant,
        work: Vec<Work<'_>>,
        hooks: &mut (dyn Hooks + Send),
        spread: &dyn Spread,
    ) {
        let shared = Mutex::new(&mut *hooks);
        let seeds: Vec<StdRng> = work
            .iter()
            .map(|_| StdRng::from_rng(&mut *self.rng))
            .collect();
        let mut done: Vec<(Option<Done>, Stats)> =
            work.iter().map(|_| Default::default()).collect();
        let settings = &self.settings;
        let jobs = work.into_iter().zip(seeds).zip(&mut done);
        let jobs = jobs.map(|((work, rng), (done, stats))| -> Job<'_> {
            let shared = &shared;
            Box::new(move || *done = Some(work.carry_out(now, settings, rng, shared, stats)))
        });
        spread.run(jobs.collect());
        let (mut messages, mut firsts) = (Vec::new(), Vec::new());
        for (done, stats) in done {
            self.stats.add(&stats);
            match done {
                Some(Done::First(answered)) => firsts.push(*answered),
                Some(Done::Message {
                    entry,
                    events,
                    initial_contact,
                }) => messages.push((entry, events, initial_contact)),
                None => {}
            }
        }
        // Those that may put an end to others come when these are back in the tables.
        messages.sort_by_key(|(.., initial_contact)| initial_contact.is_some());
        for (entry, events, initial_contact) in messages {
            let id = entry.sa.core.id;
            self.sas.insert(id, entry);
            self.finish(
                id,
                now,
                initial_contact,
                events,
                Succession::default(),
                hooks,
            );
        }
        // Now that whoever is through has left its half-open slot.
        firsts
            .into_iter()
            .for_each(|answered| self.answered(answered));
    }
}

impl Work<'_> {
    fn carry_out<'b, 'c>(
        self,
        now: Instant,
        settings: &Settings,
        mut rng: StdRng,
        hooks: &Mutex<&'b mut (dyn Hooks + Send + 'c)>,
        stats: &mut Stats,
    ) -> Done {
        let mut cx = Cx {
            now,
            settings,
            rng: &mut rng,
            hooks: &mut Shared(hooks),
            stats,
            guesses: &mut Guesses::default(),
            events: Vec::new(),
            initial_contact: None,
            succession: Succession::default(),
        };
        match self {
            Work::First(first) => Done::First(Box::new(first.answer(&mut cx))),
            Work::Message(mut entry, header, datagram) => {
                let Datagram {
                    local,
                    remote,
                    data,
                } = datagram;
                entry.sa.handle(local, remote, &header, data, &mut cx);
                Done::Message {
                    entry,
                    events: cx.events,
                    initial_contact: cx.initial_contact,
                }
            }
        }
    }
}

/// The owner answers one thread at a time: every question is passed on, also those with a default.
struct Shared<'a, 'b, 'c>(&'a Mutex<&'b mut (dyn Hooks + Send + 'c)>);

impl<'b, 'c> Shared<'_, 'b, 'c> {
    fn owner(&self) -> MutexGuard<'_, &'b mut (dyn Hooks + Send + 'c)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hooks for Shared<'_, '_, '_> {
    fn admit(&mut self, arrival: Arrival<'_>) -> Admission {
        self.owner().admit(arrival)
    }

    fn may_move(&mut self, peer: &Identity, remote: IpAddr) -> bool {
        self.owner().may_move(peer, remote)
    }

    fn auth(&mut self, local: &Identity, remote: &Identity) -> Option<Methods> {
        self.owner().auth(local, remote)
    }

    fn eap_user(&mut self, name: &str) -> Option<EapUser> {
        self.owner().eap_user(name)
    }

    fn eap_certificate(&mut self, subject: &Subject) -> Option<Identity> {
        self.owner().eap_certificate(subject)
    }

    fn may_resume(&mut self, user: &Identity) -> bool {
        self.owner().may_resume(user)
    }

    fn unix_time(&mut self) -> u64 {
        self.owner().unix_time()
    }

    fn allocate_spi(&mut self, beside: Option<Beside>) -> u32 {
        self.owner().allocate_spi(beside)
    }

    fn assign(
        &mut self,
        peer: &Identity,
        requested: &[IpAddr],
        wants_v4: bool,
        wants_v6: bool,
    ) -> Result<Vec<IpAddr>, AssignRefused> {
        self.owner().assign(peer, requested, wants_v4, wants_v6)
    }

    fn selectors(
        &mut self,
        peer: &Identity,
        assigned: &[IpAddr],
        proposed_local: &[TrafficSelector],
        proposed_remote: &[TrafficSelector],
    ) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>), TsRefused> {
        self.owner()
            .selectors(peer, assigned, proposed_local, proposed_remote)
    }
}
