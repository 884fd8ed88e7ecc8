//! Histories: what a client's gateways, its network and its operator do, one thing after the other.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use evergate::policy::HeartbeatMode;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Policy, gateway, name};

/// How a gateway takes an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A session is made after so long.
    Yes(Duration),
    /// It fails after so long.
    No(Duration),
    /// It fails, and another gateway is named.
    Names(Duration, IpAddr),
}

/// The waits of the key management service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub first: Duration,
    pub cap: Duration,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// One packet of an application for a cluster.
    Payload(u32),
    /// A packet each time so long has passed; none any more if it is zero.
    Traffic(u32, Duration),
    /// A gateway sends a packet that is not an answer to a heartbeat.
    Speaks(IpAddr),
    /// A gateway answers heartbeats after so long, or not.
    Answers(IpAddr, Option<Duration>),
    /// What its answers say of it.
    Health(IpAddr, u8),
    /// How it takes exchanges that begin from now on.
    Takes(IpAddr, Takes),
    /// It makes a session.
    Initiates(IpAddr),
    /// It ends its session.
    Ends(IpAddr),
    /// An answer that it gave comes again: so many heartbeats back.
    Repeats(IpAddr, u32),
    Link(bool),
    Moved,
    Refresh(IpAddr),
    Reload(Policy),
    /// The client is started again.
    Restart,
    /// It looks at nothing for so long.
    Sleep(Duration),
    /// It looks at each deadline so late, from now on.
    Late(Duration),
}

/// A policy and what happens under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub pace: Pace,
    pub policy: Policy,
    /// Of the machine's own choices.
    pub seed: u64,
    /// Each deed, so long after the one before.
    pub deeds: Vec<(Duration, Deed)>,
    /// How long it goes on after the last.
    pub rest: Duration,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// Gateways that there are.
pub(super) const GATEWAYS: usize = 5;

/// Draws histories.
struct Draw {
    rng: StdRng,
    policy: Policy,
    /// Short timers make for many heartbeats, so the history has to be short.
    slow: bool,
    several: bool,
}

impl Draw {
    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_range(0..one_in) == 0
    }

    fn timers(&mut self) {
        let rng = &mut self.rng;
        self.policy.mode = pick(
            rng,
            &[
                HeartbeatMode::Instant,
                HeartbeatMode::Deferred,
                HeartbeatMode::Deferred,
                HeartbeatMode::Instant,
                HeartbeatMode::None,
            ],
        );
        let (defer, response): (&[u64], &[u64]) = match self.slow {
            true => (&[200, 500, 1000, 3000], &[50, 100, 500]),
            false => (&[2, 5, 20, 50, 200], &[1, 3, 5, 10, 50]),
        };
        self.policy.defer = ms(pick(rng, defer));
        self.policy.response = ms(pick(rng, response));
    }

    fn list(&mut self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = (0..GATEWAYS).map(gateway).collect();
        let count = pick(&mut self.rng, &[1, 2, 2, 3, 3, 3, 4]);
        (0..count)
            .map(|_| all.swap_remove(self.rng.random_range(0..all.len())))
            .collect()
    }

    fn clusters(&mut self) -> Vec<(u32, Vec<IpAddr>)> {
        let count = if self.several {
            self.rng.random_range(1..=3)
        } else {
            1
        };
        (1..=count).map(|number| (number, self.list())).collect()
    }

    fn any(&mut self) -> IpAddr {
        // Mostly one of the policy.
        let listed: Vec<IpAddr> = self
            .policy
            .clusters
            .iter()
            .flat_map(|(_, list)| list.clone())
            .collect();
        match listed.is_empty() || self.chance(20) {
            true => gateway(self.rng.random_range(0..GATEWAYS)),
            false => pick(&mut self.rng, &listed),
        }
    }

    fn cluster(&mut self) -> u32 {
        let numbers: Vec<u32> = self
            .policy
            .clusters
            .iter()
            .map(|(number, _)| *number)
            .collect();
        if numbers.is_empty() {
            1
        } else {
            pick(&mut self.rng, &numbers)
        }
    }

    fn takes(&mut self) -> Takes {
        let after = match self.rng.random_range(0..4) {
            0 => ms(self.rng.random_range(1..=5)),
            1 => ms(self.rng.random_range(1..=50)),
            2 => ms(self.rng.random_range(1..=400)),
            _ => ms(self.rng.random_range(1..=2000)),
        };
        match self.rng.random_range(0..10) {
            0..6 => Takes::Yes(after),
            6..9 => Takes::No(after),
            _ => Takes::Names(after, self.any()),
        }
    }

    fn gap(&mut self) -> Duration {
        let rng = &mut self.rng;
        let micros = match rng.random_range(0..20) {
            0..3 => 0,
            // Whole multiples come at the very time of a deadline.
            3..6 => 1000 * u64::from(pick(rng, &[1_u32, 5, 10, 50, 100])),
            6..12 => rng.random_range(0..20_000),
            12..16 => rng.random_range(0..100_000),
            _ if !self.slow => rng.random_range(0..300_000),
            16 => rng.random_range(0..1_000_000),
            17 | 18 => rng.random_range(0..5_000_000),
            _ => rng.random_range(0..70_000_000),
        };
        Duration::from_micros(micros)
    }

    fn deed(&mut self) -> Deed {
        match self.rng.random_range(0..100) {
            0..8 => Deed::Payload(self.cluster()),
            8..16 => {
                let every = if self.slow {
                    [0, 0, 0, 90, 300, 1500]
                } else {
                    [0, 0, 2, 7, 20, 50]
                };
                let cluster = self.cluster();
                Deed::Traffic(cluster, ms(pick(&mut self.rng, &every)))
            }
            16..22 => Deed::Speaks(self.any()),
            22..34 => {
                let after = (!self.chance(2))
                    .then(|| Duration::from_micros(self.rng.random_range(100..12_000)));
                Deed::Answers(self.any(), after)
            }
            34..40 => {
                let health = pick(&mut self.rng, &[0, 0, 1, 2]);
                Deed::Health(self.any(), health)
            }
            40..54 => {
                let takes = self.takes();
                Deed::Takes(self.any(), takes)
            }
            54..60 => Deed::Initiates(self.any()),
            60..68 => Deed::Ends(self.any()),
            68..71 => {
                let back = self.rng.random_range(0..6);
                Deed::Repeats(self.any(), back)
            }
            71..76 => Deed::Link(self.rng.random()),
            76..78 => Deed::Moved,
            78..82 => Deed::Refresh(self.any()),
            82..90 => {
                if self.chance(3) {
                    self.timers();
                }
                if self.chance(3) {
                    self.policy.standby = self.rng.random_range(0..3);
                }
                if !self.chance(4) {
                    self.policy.clusters = self.clusters();
                }
                Deed::Reload(self.policy.clone())
            }
            90 => Deed::Restart,
            91..94 => {
                let quarters = pick(&mut self.rng, &[0, 0, 1, 3, 8]);
                Deed::Late(self.policy.response * quarters / 4)
            }
            _ => {
                let long = self.policy.response + self.policy.defer;
                let nap = u64::try_from(long.as_micros()).unwrap_or(0) * 2;
                Deed::Sleep(Duration::from_micros(self.rng.random_range(0..=nap)))
            }
        }
    }
}

impl History {
    /// Any history; the same for the same seed.
    pub fn random(seed: u64) -> History {
        let mut rng = StdRng::seed_from_u64(seed);
        let pace = pick(&mut rng, &[(500, 30_000), (100, 1000), (20, 300)]);
        let (slow, several) = (rng.random(), rng.random());
        let policy = Policy {
            mode: HeartbeatMode::None,
            defer: ms(1),
            response: ms(1),
            standby: pick(&mut rng, &[0, 0, 1, 1, 2]),
            clusters: Vec::new(),
        };
        let mut draw = Draw {
            rng,
            policy,
            slow,
            several,
        };
        draw.timers();
        draw.policy.clusters = draw.clusters();
        let policy = draw.policy.clone();
        let count = draw.rng.random_range(5..60);
        let deeds = (0..count).map(|_| (draw.gap(), draw.deed())).collect();
        History {
            pace: Pace {
                first: ms(pace.0),
                cap: ms(pace.1),
            },
            policy,
            seed,
            deeds,
            rest: ms(if slow { 8000 } else { 400 }),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::Payload(cluster) => write!(f, "a packet for cluster {cluster}"),
            Deed::Traffic(cluster, every) => {
                write!(f, "a packet for cluster {cluster} every {every:?}")
            }
            Deed::Speaks(who) => write!(f, "{} sends a packet", name(*who)),
            Deed::Answers(who, Some(after)) => write!(f, "{} answers after {after:?}", name(*who)),
            Deed::Answers(who, None) => write!(f, "{} does not answer", name(*who)),
            Deed::Health(who, health) => write!(f, "{} says health {health}", name(*who)),
            Deed::Takes(who, Takes::Yes(after)) => {
                write!(f, "{} takes us after {after:?}", name(*who))
            }
            Deed::Takes(who, Takes::No(after)) => {
                write!(f, "{} does not take us after {after:?}", name(*who))
            }
            Deed::Takes(who, Takes::Names(after, to)) => {
                write!(f, "{} names {} after {after:?}", name(*who), name(*to))
            }
            Deed::Initiates(who) => write!(f, "{} makes a session", name(*who)),
            Deed::Ends(who) => write!(f, "{} ends its session", name(*who)),
            Deed::Repeats(who, back) => {
                write!(
                    f,
                    "{} answers the heartbeat {back} before the last",
                    name(*who)
                )
            }
            Deed::Link(up) => write!(f, "link {}", if *up { "up" } else { "down" }),
            Deed::Moved => write!(f, "another address"),
            Deed::Refresh(who) => write!(f, "the session with {} to be made anew", name(*who)),
            Deed::Reload(policy) => write!(f, "policy: {policy}"),
            Deed::Restart => write!(f, "the client is started again"),
            Deed::Sleep(long) => write!(f, "it sleeps for {long:?}"),
            Deed::Late(late) => write!(f, "it is late by {late:?}"),
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pace { first, cap } = self.pace;
        writeln!(f, "seed {}, waits from {first:?} to {cap:?}", self.seed)?;
        writeln!(f, "policy: {}", self.policy)?;
        let mut at = Duration::ZERO;
        for (gap, deed) in &self.deeds {
            at += *gap;
            writeln!(f, "{at:>12?}  {deed}")?;
        }
        write!(f, "{:>12?}  the end", at + self.rest)
    }
}
