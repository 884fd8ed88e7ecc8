//! Edges that share an outside address, and an authority that negotiates for them. The authority runs beside the
//! target, behind the edges; the router in front of them says which edge packets for the shared address come to.

use super::topology::{CLIENT_INNER, GATEWAYS, POOL, TARGETS, gateway_inside};
use super::{KeyKind, Lab, Place, Setup};
use anyhow::Result;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The address that the edges share.
pub(crate) const SHARED: &str = "192.0.2.100";

/// Where edges find the authority.
const CHANNEL: &str = "10.0.0.1:4510";

/// Where the authority runs.
pub(crate) const AUTHORITY: Place = Place::Target;

/// What may be different from the usual.
#[derive(Clone, Debug)]
pub(crate) struct Sharing {
    /// `channel.distribution`.
    pub(crate) distribution: &'static str,
    /// Edges and authority take part in the connectivity protocol.
    pub(crate) connectivity: bool,
    /// `channel.negotiation` of edges.
    pub(crate) negotiation: &'static str,
    /// `[repository]` beside the key; empty: a file.
    pub(crate) repository: String,
    /// The key of it, in hexadecimal digits.
    pub(crate) key: String,
    /// Tables for edges and client.
    pub(crate) extra: String,
    /// Tables for the authority.
    pub(crate) authority_extra: String,
    /// `[GENERAL]` lines of the client's policy.
    pub(crate) general: String,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            distribution: "all",
            connectivity: false,
            negotiation: "channel",
            repository: String::new(),
            key: "5a".repeat(32),
            extra: String::new(),
            authority_extra: String::new(),
            // An address that moves takes longer than a heartbeat between two gateways.
            general: "Heartbeat = DEFERRED\nHeartbeatDeferTime = 100ms\n\
                      HeartbeatResponseTime = 300ms\nStandby = 0\n"
                .into(),
        }
    }
}

impl Lab {
    /// Writes the configuration of an authority, edges and client, and starts all but the client.
    pub(crate) fn share(&mut self, sharing: &Sharing) -> Result<()> {
        let setup = Setup {
            cluster: vec![1],
            general: sharing.general.clone(),
            extra: sharing.extra.clone(),
            ..Setup::default()
        };
        self.configure(&setup)?;
        self.make_certificates(KeyKind::Ecdsa)?;
        self.rename(AUTHORITY, "authority.example")?;
        self.write_policy(&setup.policy().replace("192.0.2.1", SHARED))?;
        let dir = self.dir().to_path_buf();
        let client = dir.join("client.toml");
        let text = std::fs::read_to_string(&client)?;
        let text = text.replacen(
            "outside = \"192.0.2.1\"",
            &format!("outside = \"{SHARED}\""),
            1,
        );
        std::fs::write(&client, text)?;
        for number in GATEWAYS {
            std::fs::write(
                dir.join(format!("gw{number}.toml")),
                self.edge_toml(number, sharing),
            )?;
            let place = Place::Gateway(number);
            let address = format!("{SHARED}/32");
            self.exec(place, &["ip", "addr", "replace", &address, "dev", "lo"])?;
            // Nobody learns the shared address by ARP.
            let quiet = "echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce\n\
                         echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore";
            self.exec(place, &["sh", "-c", quiet])?;
        }
        std::fs::write(
            dir.join(format!("{AUTHORITY}.toml")),
            self.authority_toml(sharing),
        )?;
        self.write_secret("repository.key", &sharing.key)?;
        self.bring_to(1)?;
        self.start(AUTHORITY)?;
        for number in GATEWAYS {
            self.start_gateway(number)?;
        }
        Ok(())
    }

    /// From now on the router brings what is for the shared address to this edge.
    pub(crate) fn bring_to(&self, number: u8) -> Result<()> {
        let (shared, via) = (format!("{SHARED}/32"), format!("192.0.2.{number}"));
        let words = ["ip", "route", "replace", &shared, "via", &via];
        self.exec(Place::Wan, &words).map(drop)
    }

    fn edge_toml(&self, number: u8, sharing: &Sharing) -> String {
        format!(
            "\
name = \"gw{number}\"
role = \"gateway\"
identity = \"gw1.example\"
socket = \"{}\"
state = \"state\"

[outside]
interface = \"wan0\"
address = \"{SHARED}\"

[inside]
interface = \"lan0\"

[privileges]
{user}

[heartbeat]
dead_man = \"50ms\"

[channel]
cert = \"gw{number}.pem\"
key = \"gw{number}.key\"
ca = [\"ca.pem\"]
negotiation = \"{}\"

[[channel.authority]]
address = \"{CHANNEL}\"
name = \"authority.example\"

{}{}",
            self.socket(Place::Gateway(number)).display(),
            sharing.negotiation,
            connectivity_toml(sharing, gateway_inside(number)),
            sharing.extra,
            user = self.user_line(),
        )
    }

    fn authority_toml(&self, sharing: &Sharing) -> String {
        let mut text = format!(
            "\
name = \"authority\"
role = \"authority\"
identity = \"gw1.example\"
socket = \"{}\"
state = \"authority\"

[outside]
address = \"{SHARED}\"

[privileges]
{user}

[channel]
listen = \"{CHANNEL}\"
cert = \"{AUTHORITY}.pem\"
key = \"{AUTHORITY}.key\"
ca = [\"ca.pem\"]
distribution = \"{}\"
",
            self.socket(AUTHORITY).display(),
            sharing.distribution,
            user = self.user_line(),
        );
        for number in GATEWAYS {
            let _ = write!(
                text,
                "\n[[channel.edge]]\nnumber = {number}\nname = \"gw{number}.example\"\n"
            );
        }
        let _ = write!(
            text,
            "\n[repository]\nkey = \"repository.key\"\n{}\n\n[pool]\nnetworks = [\"{POOL}\"]\n\n\
             [[peer]]\nidentity = \"client.example\"\npsk_file = \"gw1-held.psk\"\n\
             inner = [\"{CLIENT_INNER}\"]\n\n{}",
            sharing.repository, sharing.authority_extra,
        );
        text.push_str(&connectivity_toml(
            sharing,
            TARGETS[0].parse().expect("an address"),
        ));
        text
    }
}

/// The table of a node in the network behind the edges. Others are waited for as long as a busy machine takes.
fn connectivity_toml(sharing: &Sharing, address: IpAddr) -> String {
    match sharing.connectivity {
        true => format!("\n[connectivity]\nlisten = \"{address}:4511\"\npatience = \"40ms\"\n\n"),
        false => String::new(),
    }
}
