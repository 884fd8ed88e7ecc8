//! What the node's core and a worker tell each other.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evergate_common::maps::SaEntry;
use ipnet::IpNet;
use tokio::sync::oneshot;

use super::net::quote::TooLong;
use super::pmtu::Phase;
use crate::liveness::Timing;
use crate::policy::{ClusterId, HeartbeatForm};
use crate::sadb::{SessionId, SessionSpec};

/// Where traffic for a set of inner prefixes goes: on a client one group a cluster, on a gateway
/// one a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupId {
    /// A cluster of the client's policy.
    Cluster(ClusterId),
    /// A peer of a gateway; the number is the node's own.
    Peer(u32),
    /// Sessions written by hand; the number is the node's own.
    Manual(u64),
}

/// A group as it should be.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// Name of the group.
    pub id: GroupId,
    /// Inner prefixes that belong to it.
    pub prefixes: Vec<IpNet>,
    /// On a client: the gateways in the order drawn, and how they are watched.
    pub watch: Option<Box<Watch>>,
    /// Whether a session can be had by asking the node's core for one; if not, traffic without a
    /// session is refused at once.
    pub on_demand: bool,
}

/// How a client watches the gateways of a cluster.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Outside addresses of the gateways, in the order in which they are tried.
    pub order: Vec<IpAddr>,
    /// Heartbeat timers.
    pub timing: Timing,
    /// Which form of heartbeat is sent.
    pub form: HeartbeatForm,
}

/// When the SA of a session that sends is used. All receive from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sending {
    /// Only when told to by [`Command::SendOn`].
    Told,
    /// Once the peer is heard on the session, or there is no other one: it takes the place of one
    /// that still works, and the peer may not receive on it yet.
    WhenHeard,
    /// At once.
    AtOnce,
}

/// A change of what is steered to the workers, and of whose heartbeats are answered.
#[derive(Clone, Copy, Debug)]
pub enum Steer {
    /// What comes for this inbound SPI (host order).
    AddSa(u32, SaEntry),
    /// Nothing for this inbound SPI any more.
    RemoveSa(u32),
    /// Plain heartbeats of this address are answered, and its answers believed.
    AddPeer(IpAddr),
    /// They are not any more.
    RemovePeer(IpAddr),
    /// Nothing that claims to come from this address is ever reflected.
    NeverReflect(IpAddr),
}

/// From the node's core to a worker. Each is carried out in the order sent.
#[derive(Debug)]
pub enum Command {
    /// Installs both directions of a session, or what it has of them.
    AddSession {
        /// The session.
        spec: Arc<SessionSpec>,
        /// The group that its traffic belongs to.
        group: GroupId,
        /// How one sends that takes the place of another; any other waits for [`Command::Begin`].
        succeeds: Option<Sending>,
    },
    /// What the peer of a new session sends is steered here: it may be sent to.
    Begin {
        /// The session.
        id: SessionId,
        /// Whether it becomes the active one of its group at once (sessions that the peer began,
        /// and those written by hand).
        activate: bool,
    },
    /// The peer of a session with ESP in UDP is there now.
    MoveSession(SessionId, SocketAddr),
    /// A session goes between other outer addresses.
    Relocate(Arc<SessionSpec>),
    /// Our own address has changed: what gateways did not answer meanwhile says nothing about them.
    Resume,
    /// Sends on this session from now on, and no longer on the one whose place it takes.
    SendOn(SessionId),
    /// Sends no more on this session, which is one beside another.
    Cease(SessionId),
    /// The outbound sequence numbers of a session go on so much higher.
    SkipAhead(SessionId, u64),
    /// A router says that a packet to the peer of one of these sessions was too long.
    TooLong(Vec<SessionId>, TooLong),
    /// Which numbers of a shared session may be used here.
    Lease(Lease),
    /// Forgets a session.
    RemoveSession(SessionId),
    /// Makes or changes a group.
    SetGroup(GroupSpec),
    /// Forgets a group and what it holds.
    RemoveGroup(GroupId),
    /// A gateway wants to be left, for the other one if there is a session with it.
    Leave(IpAddr, Option<IpAddr>),
    /// The key management service has a key for this gateway already.
    Granted(GroupId, IpAddr),
    /// No session can be had for a group; packets are refused until the time has passed.
    Rejected(GroupId, Duration),
    /// The inside link is up or down: a gateway with a dead link answers no heartbeats.
    Link {
        /// Whether every link that the node needs is up.
        up: bool,
    },
    /// Where no XDP program steers: a change of what the workers' own tables say.
    Steer(Steer),
    /// The health of this node, for what the worker answers itself.
    Health(u8),
    /// Where the outside is a socket for each worker: another one, and one on a port of its own.
    Rebind(UdpSocket, Option<UdpSocket>),
    /// Answers once all earlier commands are carried out.
    Barrier(oneshot::Sender<()>),
    /// Ends the worker.
    Stop,
}

impl Command {
    /// What the other workers than the first one are told: all of sessions and groups, but gateways are
    /// watched by the first one.
    pub(super) fn for_others(&self) -> Option<Self> {
        Some(match self {
            Self::AddSession {
                spec,
                group,
                succeeds,
            } => Self::AddSession {
                spec: Arc::clone(spec),
                group: *group,
                succeeds: *succeeds,
            },
            Self::Begin { id, activate } => Self::Begin {
                id: *id,
                activate: *activate,
            },
            Self::MoveSession(id, remote) => Self::MoveSession(*id, *remote),
            Self::Relocate(spec) => Self::Relocate(Arc::clone(spec)),
            Self::SendOn(id) => Self::SendOn(*id),
            Self::Cease(id) => Self::Cease(*id),
            Self::SkipAhead(id, by) => Self::SkipAhead(*id, *by),
            Self::Lease(lease) => Self::Lease(*lease),
            Self::RemoveSession(id) => Self::RemoveSession(*id),
            Self::SetGroup(spec) => Self::SetGroup(GroupSpec {
                watch: None,
                ..spec.clone()
            }),
            Self::RemoveGroup(id) => Self::RemoveGroup(*id),
            Self::Link { up } => Self::Link { up: *up },
            Self::Steer(change) => Self::Steer(*change),
            Self::Health(health) => Self::Health(*health),
            Self::Stop => Self::Stop,
            Self::Resume
            | Self::TooLong(..)
            | Self::Leave(..)
            | Self::Granted(..)
            | Self::Rejected(..)
            | Self::Rebind(..)
            | Self::Barrier(_) => return None,
        })
    }
}

/// What a worker may do with the numbers of a [shared](SessionSpec::shared) session. It has none at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// They are this node's from now on. What it opened and sealed before does not count.
    Take {
        /// The inbound SPI.
        spi: u32,
        /// The tenure that they are for.
        term: u32,
        /// Inbound numbers up to this one count as seen,
        floor: u64,
        /// but for these: bit n is set if the number `floor - n` was not seen.
        missing: u64,
        /// The highest inbound number that may be accepted.
        inbound: u64,
        /// The first outbound number.
        first: u64,
        /// The last one.
        outbound: u64,
    },
    /// It may go so far now. Never less far than before.
    Bound {
        spi: u32,
        inbound: u64,
        outbound: u64,
    },
    /// They are this node's no longer.
    Stop {
        spi: u32,
        /// Given back with the answer.
        term: u32,
        /// Answered by [`WorkerEvent::Stopped`], once what has come already is carried. Else at once.
        tell: bool,
    },
}

/// How far a worker has come with a shared session that is this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The inbound SPI.
    pub spi: u32,
    /// The highest inbound number accepted.
    pub top: u64,
    /// The highest outbound number used.
    pub sent: u64,
}

/// Something that a worker tells the node's core.
#[derive(Clone, Debug)]
pub struct WorkerReport {
    /// When it happened.
    pub at: Instant,
    /// What happened.
    pub event: WorkerEvent,
}

/// What can happen in a worker.
#[derive(Clone, Debug)]
pub enum WorkerEvent {
    /// A client's group needs a key, of the gateway after this one if given.
    KeyRequest {
        /// The group.
        group: GroupId,
        /// The gateway whose successor is asked first.
        after: Option<IpAddr>,
    },
    /// The gateway that traffic of this group uses now.
    Active {
        /// The group.
        group: GroupId,
        /// The gateway, or none.
        gateway: Option<IpAddr>,
    },
    /// A gateway answers no more; its session is of no use.
    Dead {
        /// The group that noticed.
        group: GroupId,
        /// The gateway.
        gateway: IpAddr,
        /// For how long nothing was heard of it.
        silent_for: Duration,
    },
    /// A heartbeat had no answer in time; a second one was sent.
    HeartbeatLost {
        /// The group.
        group: GroupId,
        /// The gateway.
        gateway: IpAddr,
    },
    /// The active gateway's health byte changed; 0 is well.
    Health {
        /// The group.
        group: GroupId,
        /// The gateway.
        gateway: IpAddr,
        /// The new health byte.
        health: u8,
    },
    /// A client's inner address became active on this gateway, or moved to another one.
    InnerActive {
        /// The group.
        group: GroupId,
        /// The inner address.
        address: IpAddr,
        /// Whether it is active here now.
        here: bool,
    },
    /// A peer's NAT has given it another address or port; the worker sends there already.
    PeerMoved {
        /// The session.
        session: SessionId,
        /// Where the peer is now.
        remote: SocketAddr,
    },
    /// Packets to the peer of a session may be longer than before, or must be shorter.
    PathMtu {
        /// The session.
        session: SessionId,
        /// The longest IP packet outside, before.
        before: u32,
        /// Now.
        size: u32,
        /// What is known of it.
        phase: Phase,
    },
    /// A router says that a packet was too long; the worker has still to be told, which knows whether it has
    /// sent any such.
    TooLong(TooLong),
    /// How far shared sessions have come that carried packets since they were told of last.
    Progress(Vec<Progress>),
    /// An authentic packet has come for a shared session that is not this node's, or is, but not with a number
    /// so high. It waits.
    Claimed {
        /// The inbound SPI.
        spi: u32,
        /// The packet's number.
        seen: u64,
    },
    /// ESP has come for an SPI that this node has no session with. It waits.
    UnknownSpi(u32),
    /// A shared session is not used any more, as [`Lease::Stop`] said.
    Stopped {
        progress: Progress,
        term: u32,
        /// Bit n is set if the inbound number `top - n` was not accepted.
        missing: u64,
    },
    /// The worker can not go on.
    Failed(String),
}
