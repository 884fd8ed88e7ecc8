//! What the rig compares: plain routing, evergate, and others that do the same work, each of which is set
//! up between the client and gw1 of a short lab.

mod evergate;
mod kernel;
mod nebula;
mod openvpn;
mod strongswan;
mod wireguard;

use crate::lab::topology::{CLIENT_OUTSIDE, PLAIN_TARGET, TARGETS};
use crate::lab::{Lab, Offloads, Place, Process};
use crate::sh;
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Addresses inside the tunnels of peers.
const PEER_CLIENT: &str = "10.91.9.2";
const PEER_GATEWAY: &str = "10.91.9.1";
/// What lies behind the gateway.
const LAN: &str = "10.0.0.0/24";
const CLIENT: Place = Place::Client;
const GATEWAY: Place = Place::Gateway(1);
/// How long a tunnel may take to come up.
const SOON: Duration = Duration::from_secs(20);

/// What carries packets from client to target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum System {
    /// Routing with the offloads of the veth pairs.
    Plain,
    /// Routing frame by frame.
    PlainFrames,
    Evergate,
    /// Without XDP: by sockets.
    EvergateSockets,
    /// Its gateway alone: the generator seals what it sends.
    EvergateGateway,
    /// The same with many tunnels, among which the packets take turns.
    EvergateTunnels,
    Gotatun,
    WireguardGo,
    Boringtun,
    /// The gateway alone of these.
    GotatunGateway,
    WireguardGoGateway,
    BoringtunGateway,
    Strongswan,
    Openvpn,
    Nebula,
    KernelWireguard,
    KernelEsp,
}

/// A system that carries packets.
pub(super) struct Up {
    /// Where test packets come from and go to.
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// Tunnels: where packets come from are so many addresses, from `from` on.
    pub(super) tunnels: u16,
    /// Process ids of daemons.
    pub(super) client: Vec<i32>,
    pub(super) gateway: Vec<i32>,
    pub(super) sealed: Sealed,
    /// End with it.
    _processes: Vec<Process>,
    _leftovers: Vec<Leftover>,
}

impl System {
    pub(super) const PEERS: [Self; 8] = [
        Self::Gotatun,
        Self::WireguardGo,
        Self::Boringtun,
        Self::Strongswan,
        Self::Openvpn,
        Self::Nebula,
        Self::KernelWireguard,
        Self::KernelEsp,
    ];

    /// As people write it, on the command line too.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::PlainFrames => "plain-frames",
            Self::Evergate => "evergate",
            Self::EvergateSockets => "evergate-sockets",
            Self::EvergateGateway => "evergate-gateway",
            Self::EvergateTunnels => "evergate-tunnels",
            Self::GotatunGateway => "gotatun-gateway",
            Self::WireguardGoGateway => "wireguard-go-gateway",
            Self::BoringtunGateway => "boringtun-gateway",
            Self::Gotatun => "gotatun",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Strongswan => "strongswan",
            Self::Openvpn => "openvpn",
            Self::Nebula => "nebula",
            Self::KernelWireguard => "kernel-wireguard",
            Self::KernelEsp => "kernel-esp",
        }
    }

    /// The gateway alone of a peer, where the generator speaks its protocol.
    fn gateway(self) -> Option<Self> {
        match self {
            Self::Gotatun => Some(Self::GotatunGateway),
            Self::WireguardGo => Some(Self::WireguardGoGateway),
            Self::Boringtun => Some(Self::BoringtunGateway),
            _ => None,
        }
    }

    /// Whether it is a gateway alone.
    pub(super) fn is_gateway(self) -> bool {
        matches!(self, Self::EvergateGateway | Self::EvergateTunnels)
            || Self::PEERS.iter().any(|p| p.gateway() == Some(self))
    }

    /// Whether it is evergate.
    pub(super) fn is_own(self) -> bool {
        matches!(
            self,
            Self::Evergate | Self::EvergateSockets | Self::EvergateGateway | Self::EvergateTunnels
        )
    }

    /// Whether it is routing, with nothing in between.
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Self::Plain | Self::PlainFrames)
    }

    /// Gets what it needs; returns the version, as it says it. An error says why it can not be had here.
    pub(super) fn install(self) -> Result<String> {
        match self {
            Self::Plain
            | Self::PlainFrames
            | Self::Evergate
            | Self::EvergateSockets
            | Self::EvergateGateway
            | Self::EvergateTunnels => Ok(String::new()),
            Self::Gotatun | Self::GotatunGateway => wireguard::install(Self::Gotatun),
            Self::WireguardGo | Self::WireguardGoGateway => wireguard::install(Self::WireguardGo),
            Self::Boringtun | Self::BoringtunGateway => wireguard::install(Self::Boringtun),
            Self::Strongswan => strongswan::install(),
            Self::Openvpn => openvpn::install(),
            Self::Nebula => nebula::install(),
            Self::KernelWireguard => kernel::has_wireguard(),
            Self::KernelEsp => kernel::has_esp(),
        }
    }

    /// Sets it up, and waits until the client reaches the target through it. Of many tunnels there are so
    /// many.
    pub(super) fn up(self, lab: &mut Lab, tunnels: u16) -> Result<Up> {
        lab.tune(match self {
            Self::PlainFrames => Offloads::None,
            Self::Evergate | Self::EvergateGateway | Self::EvergateTunnels => Offloads::Usual,
            _ => Offloads::All,
        })?;
        let up = match self {
            Self::Plain | Self::PlainFrames => Up {
                from: CLIENT_OUTSIDE,
                to: PLAIN_TARGET,
                ..Up::default()
            },
            Self::Evergate => evergate::up(lab, false)?,
            Self::EvergateSockets => evergate::up(lab, true)?,
            Self::EvergateGateway => return evergate::gateway(lab, 1),
            Self::EvergateTunnels => return evergate::gateway(lab, tunnels),
            Self::Gotatun | Self::WireguardGo | Self::Boringtun => wireguard::up(self, lab)?,
            Self::GotatunGateway => return wireguard::gateway(Self::Gotatun, lab),
            Self::WireguardGoGateway => return wireguard::gateway(Self::WireguardGo, lab),
            Self::BoringtunGateway => return wireguard::gateway(Self::Boringtun, lab),
            Self::Strongswan => strongswan::up(lab)?,
            Self::Openvpn => openvpn::up(lab)?,
            Self::Nebula => nebula::up(lab)?,
            Self::KernelWireguard => kernel::wireguard(lab)?,
            Self::KernelEsp => kernel::esp(lab)?,
        };
        lab.ping_until(CLIENT, up.to, SOON)
            .with_context(|| format!("{} does not come up", self.name()))?;
        Ok(up)
    }
}

impl Default for Up {
    /// A tunnel of a peer.
    fn default() -> Self {
        Self {
            from: PEER_CLIENT,
            to: TARGETS[0],
            tunnels: 1,
            client: Vec::new(),
            gateway: Vec::new(),
            sealed: Sealed::ByClient,
            _processes: Vec::new(),
            _leftovers: Vec::new(),
        }
    }
}

impl Up {
    /// One daemon at each end.
    fn pair(client: Process, gateway: Process) -> Self {
        Self {
            client: vec![client.pid()],
            gateway: vec![gateway.pid()],
            _processes: vec![client, gateway],
            ..Self::default()
        }
    }
}

/// By whom packets are sealed.
#[derive(Clone, Debug)]
pub(super) enum Sealed {
    ByClient,
    /// By the generator, with SAs written by hand, which the gateway has.
    Esp {
        /// Of the first tunnel; those of the others follow.
        spi: u32,
        /// Key and salt of each in hexadecimal.
        secrets: Vec<String>,
        /// Outer addresses.
        from: &'static str,
        to: &'static str,
    },
    /// By the generator, which is a peer of the gateway.
    Wireguard {
        /// Where the gateway listens.
        gateway: String,
        /// As `wg` writes keys.
        private: String,
        public: String,
    },
}

/// The systems of a list such as `gotatun,nebula`, gateways alone behind them; all without a list, none for
/// `none`.
pub(super) fn chosen(list: Option<&str>) -> Result<Vec<System>> {
    let with_gateways = |peers: &[System]| -> Vec<System> {
        let alone = peers.iter().filter_map(|peer| peer.gateway());
        peers.iter().copied().chain(alone).collect()
    };
    let Some(list) = list else {
        return Ok(with_gateways(&System::PEERS));
    };
    let named = |name: &str| {
        let found = System::PEERS.into_iter().find(|s| s.name() == name);
        found.with_context(|| {
            let all = System::PEERS.map(System::name).join(", ");
            format!("no peer {name:?}: expected none or some of {all}")
        })
    };
    match list {
        "none" => Ok(Vec::new()),
        list => {
            let peers = list.split(',').map(|name| named(name.trim()));
            Ok(with_gateways(&peers.collect::<Result<Vec<_>>>()?))
        }
    }
}

/// A file that a daemon leaves behind when it is killed; removed when dropped.
struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The version of a program, in what it says when it is asked for it.
fn version(program: &Path, word: &str) -> Result<String> {
    let output = sh::output(Command::new(program).arg(word))?;
    let said = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&said).into_owned();
    let found = number(&text).map(str::to_owned);
    found.with_context(|| format!("{} {word} says no version", program.display()))
}

/// The first word that looks like a version.
fn number(text: &str) -> Option<&str> {
    let words = text.split_whitespace();
    let mut words = words.map(|word| word.trim_matches(|c: char| c == 'v' || c == ','));
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(number("wireguard-go v0.0.20220316\n"), Some("0.0.20220316"));
        let charon = "connecting to 'unix:///var/run/charon.vici' failed\nstrongSwan 5.9.8 swanctl";
        assert_eq!(number(charon), Some("5.9.8"));
        assert_eq!(number("usage: x 3"), None);
    }

    #[test]
    fn lists_of_peers() {
        assert_eq!(chosen(None).unwrap().len(), System::PEERS.len() + 3);
        assert_eq!(chosen(Some("none")).unwrap(), []);
        assert_eq!(
            chosen(Some("gotatun, nebula")).unwrap(),
            [System::Gotatun, System::Nebula, System::GotatunGateway]
        );
        let error = chosen(Some("gotatun,plain")).unwrap_err().to_string();
        assert!(error.contains("wireguard-go"), "{error}");
        assert!(chosen(Some("")).is_err());
    }
}
