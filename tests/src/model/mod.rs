//! A slow reference model of failover. It says, from the sentences of `docs/failover.md` ("Sentence by
//! sentence") and so from source A, which gateway is active, when heartbeats go, who is dead, and when
//! an exchange begins and with whom. It shares nothing with `kms` and `liveness` but the types of their
//! interface; what it has to know it finds in a record of all that has happened.
//!
//! [`check`] lets the machine and the model live through the same [`History`] under a virtual clock, and
//! compares what they do after every event. Where the text leaves something to chance (back-off, the
//! spread of standby exchanges), the machine's choice has to lie within the bounds, and the model goes
//! on from it.

mod facts;
mod history;
mod hunt;
mod keys;
mod machine;
mod rules;
mod run;
mod watch;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use evergate::policy::HeartbeatMode;

use history::GATEWAYS;
pub use history::{Deed, History, Pace, Takes};
pub use hunt::{Found, Sum, hunt, shrunk};
pub use run::{Broken, Report, check, traced};

/// Time since the start.
pub type At = Duration;

/// What a client's policy says about failover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub mode: HeartbeatMode,
    pub defer: Duration,
    pub response: Duration,
    pub standby: usize,
    /// Number and gateways of each cluster.
    pub clusters: Vec<(u32, Vec<IpAddr>)>,
}

impl Policy {
    fn lists(&self, gateway: IpAddr) -> bool {
        self.clusters
            .iter()
            .any(|(_, list)| list.contains(&gateway))
    }
}

/// What happens to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Input {
    /// The policy is read again.
    Reload(Policy),
    /// An application sends a packet for the targets of a cluster.
    Payload(u32),
    /// An authenticated packet comes from a gateway.
    Heard(IpAddr),
    /// An answer to a heartbeat comes.
    Answer {
        gateway: IpAddr,
        number: u32,
        health: u8,
    },
    /// An exchange that we began is over: this session was made.
    Made(IpAddr, u64),
    /// Or none, and perhaps the gateway names another one.
    Failed(IpAddr, Option<IpAddr>),
    /// A gateway makes a session with us.
    Initiated(IpAddr, u64),
    /// A session ends: it was deleted, or expired.
    Ended(IpAddr),
    /// Our outside link.
    Link(bool),
    /// Our outside address changes.
    Moved,
    /// The session with a gateway is to be made anew.
    Refresh(IpAddr),
}

/// What a client does that can be seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Output {
    /// Traffic of a cluster goes through another gateway, or through none.
    Active(u32, Option<IpAddr>),
    /// A heartbeat, counted by cluster.
    Beat(u32, IpAddr, u32),
    /// A gateway is declared dead.
    Dead(u32, IpAddr),
    /// A key request is rejected: who was asked, and when it may be made again.
    Refused(u32, Vec<IpAddr>, At),
    /// An exchange begins.
    Exchange(IpAddr),
    /// A session is given up.
    Dropped(IpAddr, u64),
}

/// In an order that does not depend on who of several clusters comes first: for each cluster what it does,
/// one after the other, and of its changes of the gateway the last.
fn sorted(outputs: &[Output]) -> Vec<Output> {
    let mut all: Vec<Output> = Vec::with_capacity(outputs.len());
    for (at, output) in outputs.iter().enumerate() {
        let again = |other: &Output| match (output, other) {
            (Output::Active(one, _), Output::Active(other, _)) => one == other,
            _ => false,
        };
        if !outputs[at + 1..].iter().any(again) {
            all.push(output.clone());
        }
    }
    all.sort_by_key(|output| match output {
        Output::Active(cluster, _) => (0, *cluster, 0),
        Output::Beat(cluster, ..) => (1, *cluster, 0),
        Output::Dead(cluster, _) => (2, *cluster, 0),
        Output::Refused(cluster, ..) => (3, *cluster, 0),
        Output::Exchange(with) => (4, u32::from(name(*with)), 0),
        Output::Dropped(with, session) => (5, u32::from(name(*with)), *session),
    });
    all
}

fn list(outputs: &[Output]) -> String {
    match outputs {
        [] => "nothing".to_owned(),
        some => some
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
    }
}

/// The address of a gateway, from 0.
pub fn gateway(index: usize) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, u8::try_from(index).unwrap_or(u8::MAX)).into()
}

/// A, B, C …
fn name(gateway: IpAddr) -> char {
    match gateway {
        IpAddr::V4(address) => char::from(b'A'.saturating_add(address.octets()[3])),
        IpAddr::V6(_) => '?',
    }
}

fn names(gateways: &[IpAddr]) -> String {
    gateways.iter().map(|gateway| name(*gateway)).collect()
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}, defer {:?}, response {:?}, standby {},",
            self.mode, self.defer, self.response, self.standby
        )?;
        for (number, list) in &self.clusters {
            write!(f, " {number} = {}", names(list))?;
        }
        Ok(())
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Reload(policy) => write!(f, "policy: {policy}"),
            Input::Payload(cluster) => write!(f, "payload for cluster {cluster}"),
            Input::Heard(from) => write!(f, "a packet from {}", name(*from)),
            Input::Answer {
                gateway,
                number,
                health,
            } => write!(
                f,
                "{} answers heartbeat {number}, health {health}",
                name(*gateway)
            ),
            Input::Made(with, session) => write!(f, "session {session} with {}", name(*with)),
            Input::Failed(with, None) => write!(f, "no session with {}", name(*with)),
            Input::Failed(with, Some(to)) => {
                write!(
                    f,
                    "no session with {}, which names {}",
                    name(*with),
                    name(*to)
                )
            }
            Input::Initiated(by, session) => write!(f, "{} makes session {session}", name(*by)),
            Input::Ended(with) => write!(f, "the session with {} ends", name(*with)),
            Input::Link(up) => write!(f, "link {}", if *up { "up" } else { "down" }),
            Input::Moved => write!(f, "another address"),
            Input::Refresh(with) => write!(f, "the session with {} to be made anew", name(*with)),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Active(cluster, Some(by)) => write!(f, "{cluster} through {}", name(*by)),
            Output::Active(cluster, None) => write!(f, "{cluster} through none"),
            Output::Beat(cluster, to, number) => {
                write!(f, "heartbeat {number} of {cluster} to {}", name(*to))
            }
            Output::Dead(cluster, who) => write!(f, "{} dead for {cluster}", name(*who)),
            Output::Refused(cluster, tried, until) => {
                write!(
                    f,
                    "{cluster} refused until {until:?} after {}",
                    names(tried)
                )
            }
            Output::Exchange(with) => write!(f, "exchange with {}", name(*with)),
            Output::Dropped(with, session) => {
                write!(f, "session {session} with {} dropped", name(*with))
            }
        }
    }
}
