//! What the API says, as JSON. Times are whole numbers with their unit in the name (`_ns`, `_us`,
//! `_ms`); addresses are text; a gateway is named by its outside address. Nothing here holds keys.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

pub use super::front::{Front, FrontNode, NodeState};
pub use crate::node::config::Role;
pub use crate::node::events::{Event, EventKind};

/// `GET /v1/status`: the node at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the node, from its configuration.
    pub name: String,
    pub role: Role,
    /// IKE identity of the node.
    pub identity: String,
    /// Version of the running program.
    pub version: String,
    /// Milliseconds since the node started.
    pub uptime_ms: u64,
    /// Age in milliseconds of this picture: how long ago the node's core last drew it. Packets and
    /// heartbeats do not need the core, so a large age means that key exchange hangs, not traffic.
    #[serde(default)]
    pub snapshot_age_ms: u64,
    pub interfaces: Vec<Interface>,
    /// Gateway: how far it has let go of its clients; none while it takes clients.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// Authority: the edges that it knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Edge>,
    /// Edge: its authorities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<Authority>,
    /// Authority and edges: who else is there, if the connectivity protocol is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connectivity: Option<Connectivity>,
    /// Front: the encryption nodes behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front: Option<Front>,
    /// Gateway: what its packet filter has done, by class of users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<FilterClass>,
    /// Client: the clusters of its policy. Empty on a gateway.
    pub clusters: Vec<Cluster>,
    /// Client: the tunnels of its policy, lowest number first. Empty on a gateway.
    pub tunnels: Vec<Tunnel>,
    pub sessions: Vec<Session>,
    /// What was counted that is not a drop.
    pub counters: Vec<CounterValue>,
    /// Packets that were dropped, by reason.
    pub drops: Vec<CounterValue>,
    /// Only of a node that was started with `--keylog`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keylog: Option<KeyLog>,
}

/// What the packet filter has done with packets of a class of users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterClass {
    pub name: String,
    /// Packets past the tunnel, to networks that the class has directly.
    pub direct: u64,
    /// Packets past the tunnel that were dropped.
    pub refused: u64,
    /// IKE and ESP that were dropped, as the class has no encryption service.
    pub service: u64,
}

/// Keys that are written for Wireshark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLog {
    /// They are being written; else they were, or will be.
    pub on: bool,
    pub directory: String,
    /// Lines written since the node started.
    pub lines: u64,
}

/// A gateway that lets go of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Sessions that are still there; with 0 it is drained.
    pub sessions: u64,
    /// Milliseconds since it was told to.
    pub since_ms: u64,
    /// Milliseconds until what is left is deleted; 0 if that time has passed.
    pub patience_ms: u64,
}

/// An edge as its authority sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    pub number: u16,
    /// Of its certificate.
    pub name: String,
    /// Where it connects from; none: it does not.
    pub from: Option<SocketAddr>,
    /// Pairs of SAs that it may use now.
    pub owned: u64,
    /// Messages of IKE that have come by the channel.
    #[serde(default)]
    pub relayed: u64,
    /// Messages of IKE that have come by address translation.
    #[serde(default)]
    pub translated: u64,
}

/// What an edge knows of an authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Of those that share the work; none: there is no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u8>,
    /// Where it is connected to; none: its clients' traffic goes on with what is there, and it serves nobody new.
    pub at: Option<SocketAddr>,
    /// Pairs of SAs that this edge has of it.
    pub pairs: u64,
    /// Those of them that it may use now.
    pub owned: u64,
}

/// A node's part in the connectivity protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connectivity {
    /// Where others find it.
    pub at: SocketAddr,
    pub parties: Vec<Party>,
    /// Questions for the pair of an SPI that were put to other edges.
    pub asked: u64,
    /// Those that another edge had it for.
    pub found: u64,
    /// Such questions that went to the authority.
    pub lacking: u64,
    /// Questions for the pairs of a station that has come, and those that another edge had some for.
    pub stations: u64,
    pub stations_found: u64,
    /// Answers that came too late.
    pub late: u64,
    /// Pairs in answers that could not be used.
    pub unusable: u64,
    /// Questions of others that were answered with a pair.
    pub answered: u64,
    /// IKE messages that were sent, and that came.
    pub ike_sent: u64,
    pub ike_received: u64,
    /// Datagrams that were refused: of something else or under an unknown key; repeated or too late; not sealed
    /// with the key; not to be read.
    pub strange: u64,
    pub repeated: u64,
    pub forged: u64,
    pub unreadable: u64,
}

/// Another node in the connectivity protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Of the edge; 0: it is the authority.
    pub number: u16,
    pub at: SocketAddr,
    /// It was heard within the last three seconds.
    pub present: bool,
    /// Milliseconds since it was heard last; none: it was not.
    pub silent_ms: Option<u64>,
    /// Pairs of SAs that it has, and those of them that it may use now, as it says.
    pub pairs: u64,
    pub owned: u64,
}

/// One port of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub side: Side,
    pub name: String,
    pub kind: InterfaceKind,
    /// Whether the link is up.
    pub up: bool,
    /// Bytes.
    pub mtu: u32,
}

/// Which way a port looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Toward the untrusted network.
    Outside,
    /// Toward targets or the local host.
    Inside,
}

/// How packets reach a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceKind {
    /// XDP in the driver.
    XdpNative,
    /// XDP in the generic path: works on every interface, slower.
    XdpGeneric,
    /// Outside without XDP: ESP in UDP by a socket.
    Udp,
    /// Inside of a gateway without XDP: the kernel forwards to a TUN device.
    Routed,
    /// A client's TUN device.
    Tun,
}

/// A cluster of the client's policy and how it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Number in the policy.
    pub id: u32,
    /// The gateway that carries the traffic now.
    pub active: Option<IpAddr>,
    pub state: ClusterState,
    /// In the order in which they are asked, which is drawn afresh at each read of the policy.
    pub gateways: Vec<Gateway>,
}

/// How a cluster does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// Nothing has needed it yet.
    Idle,
    /// A gateway is being asked for a key; traffic waits.
    Authenticating,
    /// A gateway is active.
    Up,
    /// No gateway authenticated; traffic is refused, and asking goes on with growing pauses.
    Rejected,
}

/// One gateway as its client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Outside address.
    pub address: IpAddr,
    /// IKE identity, if the configuration names a peer at this address.
    pub identity: Option<String>,
    /// A session with it exists now.
    pub keyed: bool,
    /// It carries the traffic of its cluster now.
    pub active: bool,
    /// Microseconds since it last proved that it lives.
    pub last_heard_us: Option<u64>,
    /// Round-trip time of the last answered heartbeat, microseconds.
    pub rtt_us: Option<u64>,
    pub heartbeats_sent: u64,
    pub heartbeats_answered: u64,
}

/// A tunnel of the client's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Number in the policy; the lowest wins where ranges overlap.
    pub number: u32,
    /// Target addresses, as a person writes them.
    pub range: String,
    /// The cluster that leads there.
    pub cluster: u32,
}

/// An IKE session with its pair of SAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// IKE identity of the other end.
    pub peer: String,
    /// Outside address of the other end.
    pub outside: IpAddr,
    /// Inner addresses: the client's own, or those the gateway gave this client.
    pub inner: Vec<IpAddr>,
    /// SPI on packets that arrive here.
    pub spi_in: Spi,
    /// SPI on packets that leave here.
    pub spi_out: Spi,
    pub cipher: String,
    /// It carries the traffic now: on a client its gateway is active, on a gateway its client uses
    /// this gateway.
    pub active: bool,
    /// Authority: the edge that may use it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<u16>,
    /// The longest IP packet, outside, that goes to the other end; 0 if that is not known yet.
    #[serde(default)]
    pub path_mtu: u32,
    /// What is known of it: `followed`, `base`, `searching`, `complete` or `error`.
    #[serde(default)]
    pub path_state: String,
    /// Milliseconds since it was authenticated.
    pub age_ms: u64,
    /// Milliseconds until this end replaces its pair of SAs; none while it does, or never.
    #[serde(default)]
    pub rekey_in_ms: Option<u64>,
    /// Packets and bytes are those of the pair of SAs in use.
    pub packets_in: u64,
    /// Bytes of inner packets.
    pub bytes_in: u64,
    pub packets_out: u64,
    /// Bytes of inner packets.
    pub bytes_out: u64,
    /// This end started the exchange.
    pub initiator: bool,
    /// It was made by a ticket of a former session (RFC 5723).
    #[serde(default)]
    pub resumed: bool,
}

/// A counter with its label and meaning, both from the one list of reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterValue {
    /// Label, snake case.
    pub name: String,
    /// One line for a person.
    pub text: String,
    pub value: u64,
}

/// `GET /v1/sa`: one security association. Never its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaView {
    pub spi: Spi,
    pub direction: Direction,
    /// Outer address of this end.
    pub local: IpAddr,
    /// Outer address of the other end.
    pub remote: IpAddr,
    pub cipher: String,
    /// Inner traffic it may carry, one prefix or range each.
    pub selectors: Vec<String>,
    /// Who made it: `ike` or `manual`.
    pub origin: String,
    pub packets: u64,
    /// Bytes of inner packets.
    pub bytes: u64,
}

/// Direction of an SA, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    In,
    Out,
}

/// `POST /v1/sa`: an SA as typed, split at blanks.
#[derive(Serialize, Deserialize)]
pub struct SaAdd {
    pub words: SaWords,
}

/// The words of an SA. One of them is a key: they are wiped when dropped and not shown by `Debug`.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SaWords(pub Vec<String>);

impl fmt::Debug for SaWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SaWords({} words, not shown)", self.0.len())
    }
}

impl std::ops::Deref for SaWords {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl Drop for SaWords {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The answer to a command that changed something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// One sentence: what was done.
    pub text: String,
    /// Further lines, for example the warnings of a policy.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Done {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            notes: Vec::new(),
        }
    }
}

/// Every answer with a status code of 400 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong, as a sentence.
    pub error: String,
}

/// A security parameter index: `0x` and eight hexadecimal digits in text and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spi(pub u32);

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("0x{:08x}", self.0))
    }
}

impl FromStr for Spi {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => text.parse(),
        };
        number.map(Self).map_err(|_| {
            format!("found `{text}`, expected an SPI such as 0xc0ffee01 (or a decimal number)")
        })
    }
}

impl Serialize for Spi {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Spi {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spi_reads_what_it_writes() {
        assert_eq!(Spi(0xC0FF).to_string(), "0x0000c0ff");
        assert_eq!("0x0000c0ff".parse(), Ok(Spi(0xC0FF)));
        assert_eq!("49407".parse(), Ok(Spi(0xC0FF)));
        for bad in ["", "0x", "c0ffee", "0x1ffffffff", "-1"] {
            assert!(
                bad.parse::<Spi>()
                    .unwrap_err()
                    .contains(&format!("`{bad}`")),
                "{bad}"
            );
        }
        assert_eq!(serde_json::to_string(&Spi(1)).unwrap(), "\"0x00000001\"");
    }

    #[test]
    fn words_do_not_show_the_key() {
        let add = SaWords(vec!["key".into(), "0xdeadbeef".into()]);
        assert_eq!(format!("{add:?}"), "SaWords(2 words, not shown)");
    }

    #[test]
    fn names_are_those_of_the_documentation() {
        let name = |v: serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        assert_eq!(
            name(serde_json::to_value(InterfaceKind::XdpNative).unwrap()),
            "xdp-native"
        );
        assert_eq!(
            name(serde_json::to_value(InterfaceKind::Tun).unwrap()),
            "tun"
        );
        assert_eq!(
            name(serde_json::to_value(Side::Outside).unwrap()),
            "outside"
        );
        assert_eq!(
            name(serde_json::to_value(ClusterState::Rejected).unwrap()),
            "rejected"
        );
        assert_eq!(name(serde_json::to_value(Direction::In).unwrap()), "in");
        assert_eq!(
            name(serde_json::to_value(Role::Gateway).unwrap()),
            "gateway"
        );
    }
}
