//! The node's configuration file (TOML): what it may say, its defaults, and what is wrong with it.
//!
//! `docs/configuration.md` describes each key for operators. Reading is strict: an unknown key, a
//! key of the other role or a value out of range is an error with its line and column, all of them
//! are reported at once, and nothing is half read.

mod certificates;
mod channel;
mod check;
mod connectivity;
mod drain;
mod duration;
mod exchange;
mod file;
mod filter;
mod front;
mod groups;
mod heartbeat;
mod peers;
mod privileges;
mod repository;
mod secret;
mod steering;
#[cfg(test)]
mod tests;
mod translation;
pub(super) mod users;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use crate::esp::Backend;
use crate::ike::{EspProposal, IkeProposal};
use crate::privilege::Privileges;

pub use channel::{Channel, ChannelEnd, Distribution, NamedAuthority, NamedEdge, Negotiation};
pub use connectivity::Connectivity;
pub use filter::Filter;
pub use front::{Behind, Front};
pub use repository::{EtcdTls, RepositoryAt, Store};
pub use secret::Psk;
pub use steering::{SteeredGateway, SteeredWay, Steering};

use crate::ike::x509::AuthorityId;
use crate::ike::{EapUser, GatewayIdentity, Pattern, TicketKey, X509};

pub(super) use secret::read_private;

/// Where API sockets are unless the configuration says otherwise.
pub const SOCKET_DIRECTORY: &str = "/run/evergate";

/// Where nodes keep what outlives a restart, unless the configuration says otherwise.
pub const STATE_DIRECTORY: &str = "/var/lib/evergate";

/// A node's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Name of the node, for logs and status: 1 to 64 letters, digits, `.`, `_`, `-`.
    pub name: String,
    pub role: Role,
    pub identity: Identity,
    /// Path of the API socket.
    pub socket: PathBuf,
    /// The folder for what the node keeps over a restart.
    pub state: PathBuf,
    /// The policy file; there on a client, never on a gateway.
    pub policy: Option<PathBuf>,
    pub outside: Outside,
    pub inside: Inside,
    /// The node's own certificate, and the CAs that it trusts, as read from their files.
    pub x509: X509,
    pub heartbeat: Heartbeat,
    pub esp: Esp,
    pub ike: Ike,
    pub drain: Drain,
    /// Gateway: the others that have the same outside address.
    pub steering: Option<Steering>,
    /// The encryption nodes behind this one: there on a front, and on a gateway that is one too.
    pub front: Option<Front>,
    /// Gateway: the fronts before it.
    pub behind: Option<Behind>,
    /// Authority, and gateways that are edges: how they speak to each other.
    pub channel: Option<Channel>,
    /// Authority and edges: how they speak to each other without a channel.
    pub connectivity: Option<Connectivity>,
    /// Gateway: what users may have past the tunnel.
    pub filter: Option<Filter>,
    /// There on an authority.
    pub repository: Option<RepositoryAt>,
    /// Gateway: the networks that inner addresses of clients are taken from. They do not overlap.
    pub pool: Vec<IpNet>,
    pub peers: Vec<Peer>,
    /// Gateway: who may come by EAP.
    pub users: Vec<User>,
    /// Gateway: peers and users that are not named one by one.
    pub groups: Vec<Group>,
    /// What the running node may do.
    pub privileges: Privileges,
    /// The folders of the files that this one names, and its own.
    pub folders: BTreeSet<PathBuf>,
    /// What is allowed but probably not meant; for the log at start.
    pub warnings: Vec<Problem>,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Owns a policy, and sends traffic for targets through a gateway.
    Client,
    /// Ends tunnels, and forwards to targets.
    Gateway,
    /// Negotiates for edges, and keeps their SAs. Has no packets to carry.
    Authority,
    /// Sends what comes for a shared address on to the gateways behind it. Has no tunnels.
    Front,
}

/// The port toward the untrusted network. An authority has only the address that its edges share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    pub interface: String,
    /// The node's own outside address; otherwise the interface's first global one.
    pub address: Option<IpAddr>,
    pub xdp: XdpMode,
    pub path_mtu: PathMtu,
}

/// The port toward targets (gateway: a NIC) or the local host (client: a TUN device). An authority has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    pub interface: String,
    /// Client: MTU of the TUN device in bytes, 576 to 9000; otherwise derived from the path.
    pub mtu: Option<u16>,
    /// Gateway only.
    pub xdp: XdpMode,
}

/// Where the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, else in the generic path with a warning.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the generic path.
    Generic,
    /// Nowhere: the kernel's sockets and routes do, which needs fewer privileges.
    Off,
}

/// How it is found out how long packets outside may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathMtu {
    /// ICMP is followed, and a client probes the path to the gateway in use.
    #[default]
    Probe,
    /// ICMP is followed.
    Follow,
    /// The routes alone count.
    Off,
}

/// Which heartbeats this node reflects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub accept: HeartbeatForm,
    /// Plain form: reflect for addresses without a session too.
    pub strangers: bool,
    /// How long the XDP program goes on answering without its daemon, 10 ms to 10 s.
    pub dead_man: Duration,
}

/// Form of the heartbeats that are reflected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeartbeatForm {
    /// With the MAC of a session.
    #[default]
    Keyed,
    /// Any payload, echoed.
    Plain,
    Both,
}

/// The packet path's cryptography.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Esp {
    /// For child SAs, in order of preference; 1 to 16.
    pub proposals: Vec<EspProposal>,
    pub backend: Backend,
    /// Packets, 1024 to 131072, a power of two.
    pub replay_window: u32,
    /// How long a worker looks for packets before it sleeps, 1 µs to 10 ms; zero: not at all.
    pub busy_poll: Duration,
    /// Threads that seal and open, 1 to 64; no more than every interface has receive queues.
    pub workers: usize,
}

/// Algorithms, timers and sizes of the key exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ike {
    /// For IKE SAs, in order of preference; 1 to 16.
    pub proposals: Vec<IkeProposal>,
    /// The longest IP packet that a message goes in, 576 to 65535 bytes; a longer one goes in parts.
    pub fragment_size: u16,
    /// Wait before the first retransmission, 10 ms to 60 s; doubles each time.
    pub retransmit: Duration,
    /// Give up after so many sends, 1 to 20.
    pub tries: u32,
    /// Ask a silent peer after this time whether it lives, 1 s to 24 h.
    pub liveness: Duration,
    /// So many first messages a second that must be asked for cookies put the guard before IKE up, 1
    /// to 1,000,000; 0: it stays down.
    pub guard: u32,
    /// Threads for the key exchange; half of the processor's cores, and at most 8, unless it says
    /// otherwise.
    pub threads: Option<usize>,
    /// When ESP goes in UDP.
    pub encap: Encap,
    /// Sessions go on when a client's address changes (RFC 4555).
    pub mobike: bool,
    /// Behind a NAT: silence after which its mapping is renewed, 1 s to 1 h.
    pub keep_alive: Duration,
    /// The keys of a pair of SAs are replaced after this time, 1 s to 30 days.
    pub rekey_child: Duration,
    /// The keys of an IKE SA are replaced after this time, 1 s to 30 days.
    pub rekey_ike: Duration,
    /// The part by which chance moves both, percent, 0 to 50.
    pub rekey_jitter: u8,
    /// Whoever began a session authenticates anew within this time, 1 s to 30 days; on a gateway a
    /// client that does not loses its session.
    pub reauth: Option<Duration>,
    /// Keys of tickets that all gateways of the cluster have, the current one first; at most 16. None:
    /// one of the gateway's own.
    pub ticket_keys: Vec<TicketKey>,
    /// A pair of SAs is replaced when either has carried so many bytes of inner packets.
    pub rekey_bytes: u64,
    /// A pair of SAs is replaced when either has carried so many packets, 1000 to 2^31.
    pub rekey_packets: u64,
}

/// How a gateway lets go of its clients (`evergate drain`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Where clients are sent, in turn: other gateways of the cluster, by outside address or host
    /// name.
    pub gateways: Vec<GatewayIdentity>,
    /// Sessions that are still there after this time are deleted, 1 s to 24 h.
    pub patience: Duration,
}

/// When ESP goes in UDP port 4500 (RFC 3948).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encap {
    /// When there is a NAT on the way.
    #[default]
    Auto,
    Always,
}

/// Another node.
#[derive(Clone, Debug)]
pub struct Peer {
    pub identity: Identity,
    /// How it proves who it is, and how this node does to it.
    pub auth: Auth,
    pub auth_own: Auth,
    /// There if one of the two is [`Auth::Psk`].
    pub psk: Option<Psk>,
    /// Its outside address: needed to start a session toward it.
    pub outside: Option<IpAddr>,
    /// Client: this gateway may send us to another one of its cluster (RFC 5685).
    pub redirects: bool,
    /// Gateway and authority: the class of the packet filter that this client has while it has a session.
    pub class: Option<String>,
    /// Gateway: the inner addresses that always belong to this client.
    pub inner: Vec<IpAddr>,
}

/// Someone who may authenticate by EAP.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    /// Whom the sessions are with.
    pub identity: crate::ike::Identity,
    /// Without one the user has a certificate.
    pub password: Option<EapUser>,
    /// The inner addresses that always belong to this user.
    pub inner: Vec<IpAddr>,
}

/// All who have a certificate that names somebody like that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub names: Pattern,
    /// The CAs that it may be of; empty: all that are trusted.
    pub authorities: Vec<AuthorityId>,
    /// They come by EAP-TLS, else by their certificate in IKE.
    pub eap: bool,
}

/// How a user proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserAuth {
    /// By a password: EAP-MSCHAPv2.
    #[default]
    Password,
    /// By a certificate: EAP-TLS.
    Cert,
}

/// How a node proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// By the pre-shared key.
    #[default]
    Psk,
    /// By its certificate.
    Cert,
}

/// An IKE identity (RFC 7296 section 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// `ID_IPV4_ADDR` or `ID_IPV6_ADDR`.
    Address(IpAddr),
    /// `ID_RFC822_ADDR`: it has an `@`.
    Email(String),
    /// `ID_FQDN`.
    Fqdn(String),
    /// `ID_DER_ASN1_DN`, as text (RFC 4514).
    Dn(String),
}

/// Something wrong at one place of the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What was found and what was expected.
    pub text: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}", shown(.path, .problems))]
    Invalid {
        path: PathBuf,
        problems: Vec<Problem>,
    },
}

/// One `file:line:column: text` per line.
fn shown(path: &Path, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}:{problem}", path.display()))
        .collect();
    lines.join("\n")
}

impl Config {
    /// Reads and checks a configuration file, and the key files that it names.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] lists everything that is wrong, each with line and column.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        };
        // The text holds keys, so it is wiped after reading.
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
        let mode = std::fs::metadata(path)
            .map_err(failed)?
            .permissions()
            .mode();
        let (mut config, has_psk) = Self::read(path, &text)?;
        if has_psk && mode & 0o004 != 0 {
            let text = format!(
                "this file holds a secret and everybody may read it (mode {:04o}); run \
                 `chmod 600 {}` or use psk_file or password_file",
                mode & 0o7777,
                path.display()
            );
            config.warnings.insert(
                0,
                Problem {
                    line: 1,
                    column: 1,
                    text,
                },
            );
        }
        Ok(config)
    }

    /// Checks the text of a configuration. Relative paths in it are relative to `path`'s directory.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::read(path, text).map(|(config, _)| config)
    }

    /// The second half of the answer tells whether the text itself holds a key.
    fn read(path: &Path, text: &str) -> Result<(Self, bool), ConfigError> {
        let invalid = |problems| ConfigError::Invalid {
            path: path.to_path_buf(),
            problems,
        };
        let file = file::parse(text).map_err(|problem| invalid(vec![problem]))?;
        let has_psk = file.peers.iter().any(|peer| peer.get_ref().psk.is_some())
            || file
                .users
                .iter()
                .any(|user| user.get_ref().password.is_some());
        let config = check::check(path, text, file).map_err(invalid)?;
        Ok((config, has_psk))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.text)
    }
}

/// An enum whose values have names in the file.
pub(crate) trait Named: Copy + Sized + 'static {
    const NAMES: &'static [(&'static str, Self)];
}

macro_rules! named {
    ($type:ty { $($(#[$built:meta])? $name:literal => $value:ident),+ $(,)? }) => {
        impl Named for $type {
            const NAMES: &'static [(&'static str, Self)] =
                &[$($(#[$built])? ($name, Self::$value)),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($(#[$built])? Self::$value => $name),+ })
            }
        }
    };
}

named!(Auth { "psk" => Psk, "cert" => Cert });
named!(UserAuth { "password" => Password, "cert" => Cert });
named!(Role { "client" => Client, "gateway" => Gateway, "authority" => Authority, "front" => Front });
named!(Distribution { "all" => All, "chosen" => Chosen, "last" => Last });
named!(Negotiation { "channel" => Channel, "translation" => Translation, "messages" => Messages });
named!(PathMtu { "probe" => Probe, "follow" => Follow, "off" => Off });
named!(XdpMode { "auto" => Auto, "native" => Native, "generic" => Generic, "off" => Off });
named!(HeartbeatForm { "keyed" => Keyed, "plain" => Plain, "both" => Both });
named!(SteeredWay { "auto" => Auto, "ip" => Ip });
named!(Encap { "auto" => Auto, "always" => Always });
named!(Backend {
    "ring" => Ring,
    "rust-crypto" => RustCrypto,
    #[cfg(feature = "aws-lc")]
    "aws-lc" => AwsLc,
    #[cfg(feature = "ipsec-mb")]
    "ipsec-mb" => IpsecMb,
});

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => fmt::Display::fmt(address, f),
            Self::Email(text) | Self::Fqdn(text) | Self::Dn(text) => f.pad(text),
        }
    }
}

impl FromStr for Identity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if let Ok(name @ crate::ike::Identity::Dn(_)) = text.parse() {
            return Ok(Self::Dn(name.to_string()));
        }
        if let Some((user, host)) = text.rsplit_once('@') {
            let printable = user.chars().all(|c| c.is_ascii_graphic() && c != '@');
            let sane = !user.is_empty() && printable && is_host_name(host);
            return if sane {
                Ok(Self::Email(text.to_owned()))
            } else {
                Err(())
            };
        }
        if is_host_name(text) {
            Ok(Self::Fqdn(text.to_owned()))
        } else {
            Err(())
        }
    }
}

/// Labels of letters, digits, `-` and `_`; 253 bytes at most. A name of four numbers is a mistyped
/// address.
fn is_host_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.len() <= 253 && !numeric && text.split('.').all(label)
}
