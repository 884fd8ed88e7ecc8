//! The command line.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::Targets;

use crate::api::model::Spi;
use crate::ike::{EspProposal, Identity, IkeProposal};
use crate::load::packets::Sizes;

/// Resilient IPsec gateway and client
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 done; 1 refused, or a file has errors; 2 mistake in the command \
                  line; 3 no running evergate was reached."
)]
pub(super) struct Cli {
    /// What to log to standard error: a level (error, warn, info, debug, trace), or a list such as
    /// `info,evergate::ike=debug`. Default: info for `run`, warn otherwise
    #[arg(long, global = true, env = "EVERGATE_LOG", value_name = "FILTER")]
    pub(super) log: Option<Targets>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node in the foreground, until SIGTERM or SIGINT
    Run {
        /// The node's configuration
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// For debugging only: write the keys of ALL sessions to this folder, in Wireshark's form.
        /// Whoever reads them reads the traffic
        #[arg(long, value_name = "DIR")]
        keylog: Option<PathBuf>,
    },
    /// What an edge starts beside itself, to tell its authorities how far it came if it dies
    #[command(hide = true)]
    Notary {
        /// The edge's configuration
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a node's configuration and the policy that it names; changes nothing
    Check {
        /// The node's configuration
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Say it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key for the tickets of a cluster's gateways (`[ike] ticket_keys`); write it to a file
    /// that nobody else may read
    TicketKey,
    /// Show gateways, sessions, and what was counted and dropped
    Status {
        #[command(flatten)]
        node: NodeArgs,
        /// Draw it again each second, or at the given interval
        #[arg(
            long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
            default_missing_value = "1", value_parser = seconds
        )]
        watch: Option<Duration>,
    },
    /// Show what happened, oldest first
    Events {
        #[command(flatten)]
        node: NodeArgs,
        /// Only events after this number
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        since: u64,
        /// Go on with events as they happen
        #[arg(short, long)]
        follow: bool,
    },
    /// Check a policy file, or have the node read its own again
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Security associations: list all, write some by hand
    Sa {
        #[command(flatten)]
        node: NodeArgs,
        #[command(subcommand)]
        command: SaCommand,
    },
    /// Have a gateway let go of its clients, before maintenance: they go on through others
    Drain {
        #[command(flatten)]
        node: NodeArgs,
        /// Take clients again
        #[arg(long, conflicts_with = "wait")]
        undo: bool,
        /// Return when no session is left
        #[arg(long)]
        wait: bool,
    },
    /// Tell an edge that a station has come to the network in front of it: it asks for the SAs of the client
    /// that this may be, before its first packet
    Associate {
        #[command(flatten)]
        node: NodeArgs,
        /// Its address
        address: IpAddr,
    },
    /// Sessions with peers
    Session {
        #[command(subcommand)]
        command: SessionCommand,
    },
    /// Measure
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// What helps to find faults
    Debug {
        #[command(subcommand)]
        command: DebugCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Make many sessions with a gateway, and tell how many handshakes a second it did. Only with
    /// gateways of your own: to others this is an attack
    Handshakes(Handshakes),
    /// Make the sessions of many clients, keep them, and send echo requests by each. Reads `arm`, and `report NS`
    /// since an event by the monotonic clock, from standard input, and ends with it. Only with gateways of your own
    Clients(Clients),
    /// Send test packets over AF_XDP. Only through networks of your own: to others this is an attack
    Send(SendArgs),
    /// Count test packets where they arrive
    Receive(ReceiveArgs),
}

/// Test packets: UDP over IPv4 to port 9.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// The interface that they leave by
    #[arg(long)]
    pub(super) interface: String,
    /// The link address of the next hop
    #[arg(long, value_name = "MAC", value_parser = link_address)]
    pub(super) next_hop: [u8; 6],
    /// Their source address; with several tunnels that of the first one, the others have those that follow
    #[arg(long, value_name = "ADDRESS")]
    pub(super) from: Ipv4Addr,
    /// Their destination address
    #[arg(long, value_name = "ADDRESS")]
    pub(super) to: Ipv4Addr,
    /// Bytes of each IP packet, or imix: 64, 576 and 1400 bytes as 7 : 4 : 1
    #[arg(long, default_value = "1400")]
    pub(super) size: Sizes,
    /// So many tunnels in turn: source addresses, and with --spi SAs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) tunnels: u16,
    /// So many source ports in turn in each tunnel
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) flows: u16,
    /// Packets a second. Default: as fast as it can
    #[arg(long, value_name = "PACKETS")]
    pub(super) rate: Option<u64>,
    /// How long
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub(super) seconds: Duration,
    /// Tells these packets from those of other runs
    #[arg(long, default_value_t = 1)]
    pub(super) run: u32,
    /// Seal them in tunnel mode by an SA with this SPI, whose key and salt are read from standard input.
    /// Further tunnels have the SPIs that follow, each with a line of its own
    #[arg(long, requires_all = ["outer_from", "outer_to"])]
    pub(super) spi: Option<Spi>,
    /// The outer source address
    #[arg(long, value_name = "ADDRESS", requires = "spi")]
    pub(super) outer_from: Option<Ipv4Addr>,
    /// The outer destination address
    #[arg(long, value_name = "ADDRESS", requires = "spi")]
    pub(super) outer_to: Option<Ipv4Addr>,
    /// The sequence number after which the SAs go on; one is never to be used twice with one key
    #[arg(long, default_value_t = 0, requires = "spi")]
    pub(super) after: u64,
    /// Say it as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A collector of test packets.
#[derive(Debug, Args)]
pub(super) struct ReceiveArgs {
    /// The interface that they come by
    #[arg(long)]
    pub(super) interface: String,
    /// How long. Default: until standard input ends, with a report for each line of it
    #[arg(long, value_parser = seconds)]
    pub(super) seconds: Option<Duration>,
    /// Say it as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Clients that make sessions with one gateway, each one once.
#[derive(Debug, Args)]
pub(super) struct Handshakes {
    /// The gateway's outside address
    #[arg(long, value_name = "ADDRESS")]
    pub(super) remote: IpAddr,
    /// The gateway's identity
    #[arg(long, value_name = "IDENTITY")]
    pub(super) remote_id: Identity,
    /// Addresses of this host to send from; one client at a time at each
    #[arg(long, value_name = "ADDRESS", required = true, value_delimiter = ',')]
    pub(super) local: Vec<IpAddr>,
    /// Identity of the clients; {} becomes 1, 2, ...
    #[arg(long, value_name = "IDENTITY", default_value = "client-{}.example")]
    pub(super) identity: String,
    /// The pre-shared key of all clients
    #[arg(long, value_name = "FILE", required_unless_present = "credentials")]
    pub(super) psk_file: Option<PathBuf>,
    /// A certificate and a private key (PEM, PKCS #8) for each client
    #[arg(
        long,
        value_name = "FILE",
        requires = "ca",
        conflicts_with = "psk_file"
    )]
    pub(super) credentials: Option<PathBuf>,
    /// CAs of the gateway's certificate
    #[arg(long, value_name = "FILE", requires = "credentials")]
    pub(super) ca: Option<PathBuf>,
    /// So many handshakes in all
    #[arg(long, default_value_t = 10_000)]
    pub(super) count: usize,
    /// Proposals for IKE, as in the configuration
    #[arg(long, value_name = "PROPOSAL")]
    pub(super) ike: Vec<IkeProposal>,
    /// Proposals for ESP, as in the configuration
    #[arg(long, value_name = "PROPOSAL")]
    pub(super) esp: Vec<EspProposal>,
    /// Leave the sessions to the gateway, which will find out that nobody is there
    #[arg(long)]
    pub(super) leave: bool,
    /// Say it as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Clients that make a session each, keep it, and send by it.
#[derive(Debug, Args)]
pub(super) struct Clients {
    /// The gateway's outside address
    #[arg(long, value_name = "ADDRESS")]
    pub(super) remote: Ipv4Addr,
    /// The gateway's identity
    #[arg(long, value_name = "IDENTITY")]
    pub(super) remote_id: Identity,
    /// The first client's outside address, which this host has, and those that follow
    #[arg(long, value_name = "ADDRESS")]
    pub(super) local: Ipv4Addr,
    /// So many clients
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) count: u16,
    /// Identity of the clients; {} becomes 1, 2, ...
    #[arg(long, value_name = "IDENTITY", default_value = "client-{}.example")]
    pub(super) identity: String,
    /// The pre-shared key of all clients
    #[arg(long, value_name = "FILE")]
    pub(super) psk_file: PathBuf,
    /// Where a UDP echo service listens, behind the gateway, on port 9
    #[arg(long, value_name = "ADDRESS")]
    pub(super) to: Ipv4Addr,
    /// Echo requests of each client in a second
    #[arg(long, default_value = "20")]
    pub(super) rate: NonZeroU32,
    /// Send one of so many packets a second time, as it was
    #[arg(long, value_name = "PACKETS")]
    pub(super) repeat: Option<NonZeroU32>,
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Say what is wrong with a policy file, with line and column; changes nothing
    Check {
        file: PathBuf,
        /// Say it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the node read its policy again; a broken one is refused and the old one stays
    Reload {
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SaCommand {
    /// List all SAs, without their keys
    List,
    /// Add SAs by hand, in the manner of `ip xfrm state`; docs/esp.md has the words
    Add {
        /// The SA. A lone `-` reads it from standard input, so that no other user sees its key; several with
        /// empty lines between them
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Delete the SA with this SPI
    Delete { spi: Spi },
    /// Delete all SAs that were written by hand
    Flush,
}

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// End the session with a peer
    Delete {
        #[command(flatten)]
        node: NodeArgs,
        /// Its identity or its outside address
        peer: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DebugCommand {
    /// Whether the keys of all sessions are written for Wireshark; begins or ends it. Only on a node
    /// that was started with `run --keylog DIR`
    Keylog {
        #[command(flatten)]
        node: NodeArgs,
        /// Without it, tells how it is
        switch: Option<Switch>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

/// Which node to speak to, and how to show its answer.
#[derive(Clone, Debug, Args)]
pub(super) struct NodeArgs {
    /// The node's socket. Default: the one in /run/evergate, if only one node runs here
    #[arg(long, global = true, env = "EVERGATE_SOCKET", value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// Show it as JSON, as the API says it
    #[arg(long, global = true)]
    pub(super) json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let found: f64 = text
        .parse()
        .map_err(|_| "expected a number of seconds".to_owned())?;
    if !(0.05..=3600.0).contains(&found) {
        return Err("expected 0.05 to 3600 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(found))
}

fn link_address(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    let address = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    address.ok_or_else(|| "expected an Ethernet address such as 02:00:00:00:00:01".to_owned())
}
