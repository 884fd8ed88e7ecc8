//! What the nodes of a lab are configured as.

use super::KeyKind;
use super::topology::{CLIENT_OUTSIDE, GATEWAYS, gateway_outside, gateway_outside_v6};
use crate::rootless;
use std::net::IpAddr;

/// What a test or the demo may want different from the usual.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// `[GENERAL]` lines of the client's policy.
    pub(crate) general: String,
    /// The order of the gateways in the policy's cluster.
    pub(crate) cluster: Vec<u8>,
    /// Further lines of the `[TUNNEL]` section.
    pub(crate) tunnels: String,
    /// `[heartbeat] accept` of the gateways.
    pub(crate) accept: String,
    /// Gateways that hold another pre-shared key than the client.
    pub(crate) wrong_psk: Vec<u8>,
    /// Client and gateways reach each other by IPv6.
    pub(crate) outside_v6: bool,
    /// An inner IPv6 address too.
    pub(crate) ipv6: bool,
    /// The client's inner address is computed from the pool, not fixed in the gateways' files.
    pub(crate) from_pool: bool,
    /// All nodes prove themselves by certificates, of keys of that kind, not by keys.
    pub(crate) certificates: Option<KeyKind>,
    /// The client is a user; the gateways need certificates then.
    pub(crate) user: Option<User>,
    /// Where the client is for the gateways: none behind a NAT, which nobody can speak to first.
    pub(crate) client_outside: Option<&'static str>,
    /// No node has XDP programs: ESP goes in UDP by sockets, and the gateways' kernels forward.
    pub(crate) without_xdp: bool,
    /// `[outside] path_mtu` of all nodes.
    pub(crate) path_mtu: Option<&'static str>,
    /// All nodes write their keys to [`Lab::keys`].
    pub(crate) keylog: bool,
    /// Lines to append to every node's file (whole TOML tables).
    pub(crate) extra: String,
}

/// How a client that is a user proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// As [`USER`], by EAP-MSCHAPv2.
    Password,
    /// As the host that its certificate names, by EAP-TLS.
    Certificate,
}

/// Whom the daemons become: a user that no machine has, so that nothing else is its.
pub(crate) const NODE_USER: u32 = 61_999;

/// Who the client is where it has a password.
pub(crate) const USER: &str = "anna";

/// The policy of the demo, as the tests of the issue ask for it.
pub(crate) const GENERAL: &str = "\
Heartbeat = INSTANT
HeartbeatDeferTime = 5ms
HeartbeatResponseTime = 5ms
Standby = 1
";

impl Default for Setup {
    fn default() -> Self {
        Self {
            general: GENERAL.into(),
            cluster: GATEWAYS.to_vec(),
            tunnels: String::new(),
            accept: "keyed".into(),
            wrong_psk: Vec::new(),
            from_pool: false,
            outside_v6: false,
            ipv6: false,
            certificates: None,
            user: None,
            client_outside: Some(CLIENT_OUTSIDE),
            without_xdp: rootless::without_xdp(),
            path_mtu: None,
            keylog: false,
            extra: String::new(),
        }
    }
}

impl Setup {
    /// A key for the table of an interface.
    pub(super) fn xdp(&self) -> &'static str {
        match self.without_xdp {
            true => "xdp = \"off\"\n",
            false => "",
        }
    }

    /// Further keys for the outside interface.
    pub(super) fn outside(&self) -> String {
        let how = self.path_mtu.map(|how| format!("path_mtu = \"{how}\"\n"));
        how.unwrap_or_default() + self.xdp()
    }

    /// Where this gateway is for the client.
    pub(super) fn gateway(&self, number: u8) -> IpAddr {
        match self.outside_v6 {
            true => gateway_outside_v6(number),
            false => gateway_outside(number),
        }
    }

    /// The client's policy in the syntax of the source.
    pub(crate) fn policy(&self) -> String {
        let addresses: Vec<String> = self
            .cluster
            .iter()
            .map(|n| self.gateway(*n).to_string())
            .collect();
        let v6 = if self.ipv6 {
            "Tunnel2 = 2001:db8:3::1 - 2001:db8:3::3 Cluster 1\n"
        } else {
            ""
        };
        format!(
            "[GENERAL]\n{}\n[CLUSTER]\nCluster 1 = {}\n\n[TUNNEL]\nTunnel1 = 10.0.0.1 – 10.0.0.3 \
             Cluster 1\n{v6}{}",
            self.general,
            addresses.join(" "),
            self.tunnels
        )
    }
}
