//! Edges that share an outside address, and an authority that negotiates for them. The authority runs beside the
//! target, behind the edges; the router in front of them says which edge packets for the shared address come to.

use super::topology::{CLIENT_INNER, GATEWAYS, POOL, TARGETS, gateway_inside};
use super::{KeyKind, Lab, Place, Setup};
use anyhow::Result;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The address that the edges share.
pub(crate) const SHARED: &str = "192.0.2.100";

/// Where edges find the authority, and the second one if there is.
const CHANNEL: &str = "10.0.0.1:4510";
const SECOND_CHANNEL: &str = "10.0.0.4:4510";

/// Where the authority runs.
pub(crate) const AUTHORITY: Place = Place::Target;
/// Where the second one runs: in the switch.
pub(crate) const SECOND_AUTHORITY: Place = Place::Lan;

/// What may be different from the usual.
#[derive(Clone, Debug)]
pub(crate) struct Sharing {
    /// `channel.distribution`.
    pub(crate) distribution: &'static str,
    /// Edges and authority take part in the connectivity protocol.
    pub(crate) connectivity: bool,
    /// `[repository]` beside the key; empty: a file.
    pub(crate) repository: String,
    /// Two authorities share the work.
    pub(crate) second: bool,
    /// The key of it, in hexadecimal digits.
    pub(crate) key: String,
    /// What the authority gives inner addresses from.
    pub(crate) pool: &'static str,
    /// How messages of IKE get to the authority.
    pub(crate) negotiation: Negotiation,
    /// Edges have notaries.
    pub(crate) notary: bool,
    /// Tables for edges and client.
    pub(crate) extra: String,
    /// Tables for a single edge.
    pub(crate) of_edge: fn(u8) -> String,
    /// Tables for the authority.
    pub(crate) authority_extra: String,
    /// `[GENERAL]` lines of the client's policy.
    pub(crate) general: String,
}

/// How messages of IKE get to the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Negotiation {
    /// By the channel.
    Channel,
    /// By address translation, over the LAN.
    Translation,
    /// By address translation, over a link of each edge.
    TranslationApart,
    /// In messages of the connectivity protocol.
    Messages,
}

impl Negotiation {
    /// What stands for an edge at the authority.
    fn stands(self, number: u8) -> Option<String> {
        match self {
            Self::Channel | Self::Messages => None,
            Self::Translation => Some(format!("10.0.0.2{number}")),
            Self::TranslationApart => Some(format!("10.0.2{number}.1")),
        }
    }

    /// What the edge of this number has of it in `[channel]`.
    fn keys(self) -> &'static str {
        match self {
            Self::Channel => "",
            Self::Translation => "negotiation = \"translation\"\n",
            Self::TranslationApart => "negotiation = \"translation\"\ninterface = \"up0\"\n",
            Self::Messages => "negotiation = \"messages\"\n",
        }
    }
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            distribution: "all",
            connectivity: false,
            repository: String::new(),
            second: false,
            negotiation: Negotiation::Channel,
            notary: true,
            key: "5a".repeat(32),
            pool: POOL,
            extra: String::new(),
            of_edge: |_| String::new(),
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
            self.lead_answers(number, sharing.negotiation)?;
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
        let first = dir.join(format!("{AUTHORITY}.toml"));
        std::fs::write(first, self.authority_toml(AUTHORITY, sharing))?;
        self.write_secret("repository.key", &sharing.key)?;
        self.bring_to(1)?;
        self.start(AUTHORITY)?;
        if sharing.second {
            self.share_work(sharing)?;
        }
        for number in GATEWAYS {
            self.start_gateway(number)?;
        }
        Ok(())
    }

    /// The authority's answers from the address that stands for an edge go to that edge.
    fn lead_answers(&self, number: u8, negotiation: Negotiation) -> Result<()> {
        let Some(stands) = negotiation.stands(number) else {
            return Ok(());
        };
        let edge = Place::Gateway(number);
        let (interface, via) = match negotiation {
            Negotiation::TranslationApart => ("up0", format!("10.0.2{number}.2")),
            _ => ("lan0", gateway_inside(number).to_string()),
        };
        let shell = |place, script: &str| self.exec(place, &["sh", "-ec", script]).map(drop);
        if negotiation == Negotiation::TranslationApart {
            let link = format!(
                "ip link add up0 type veth peer name gw{number} netns {authority}\n\
                 ip link set up0 up\nip addr add {via}/24 dev up0",
                authority = self.ns(AUTHORITY),
            );
            shell(edge, &link)?;
            // The program on the other end needs whole checksums.
            let end = format!(
                "ethtool -K gw{number} tx off >/dev/null\nip link set gw{number} up\n\
                 ip addr add {stands}/24 dev gw{number}"
            );
            shell(AUTHORITY, &end)?;
        } else {
            let own = format!("ip addr replace {stands}/32 dev eth0");
            shell(AUTHORITY, &own)?;
        }
        let route = format!(
            "ip route replace default via {via} table 2{number}\n\
             ip rule add from {stands} table 2{number}"
        );
        shell(AUTHORITY, &route)?;
        // Answers that come in have the edge's own address as their source by then.
        let accept = format!("echo 1 > /proc/sys/net/ipv4/conf/{interface}/accept_local");
        shell(edge, &accept)
    }

    /// A second authority.
    fn share_work(&mut self, sharing: &Sharing) -> Result<()> {
        let place = SECOND_AUTHORITY;
        self.rename(place, "second.example")?;
        let address = SECOND_CHANNEL.replace(":4510", "/24");
        self.exec(place, &["ip", "addr", "add", &address, "dev", "br0"])?;
        let file = self.dir().join(format!("{place}.toml"));
        std::fs::write(file, self.authority_toml(place, sharing))?;
        self.start(place)
    }

    /// From now on the router brings what is for the shared address to this edge.
    pub(crate) fn bring_to(&self, number: u8) -> Result<()> {
        self.bring_by(&format!("192.0.2.{number}"))
    }

    /// The same to whoever has this address.
    pub(super) fn bring_by(&self, via: &str) -> Result<()> {
        let shared = format!("{SHARED}/32");
        let words = ["ip", "route", "replace", &shared, "via", via];
        self.exec(Place::Wan, &words).map(drop)
    }

    fn edge_toml(&self, number: u8, sharing: &Sharing) -> String {
        let (which, second) = match sharing.second {
            true => (
                "number = 1\n",
                format!(
                    "[[channel.authority]]\nnumber = 2\naddress = \"{SECOND_CHANNEL}\"\n\
                     name = \"second.example\"\n"
                ),
            ),
            false => ("", String::new()),
        };
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
{keys}{notary}cert = \"gw{number}.pem\"
key = \"gw{number}.key\"
ca = [\"ca.pem\"]

[[channel.authority]]
{which}address = \"{CHANNEL}\"
name = \"authority.example\"
{stands}

{second}
{}
{}
{}",
            self.socket(Place::Gateway(number)).display(),
            connectivity_toml(sharing, gateway_inside(number)),
            sharing.extra,
            (sharing.of_edge)(number),
            keys = sharing.negotiation.keys(),
            notary = if sharing.notary {
                ""
            } else {
                "notary = false\n"
            },
            stands = stands(number, sharing),
            user = self.user_line(),
        )
    }

    fn authority_toml(&self, place: Place, sharing: &Sharing) -> String {
        let (listen, number) = match (place, sharing.second) {
            (SECOND_AUTHORITY, _) => (SECOND_CHANNEL, "number = 2"),
            (_, true) => (CHANNEL, "number = 1"),
            (_, false) => (CHANNEL, ""),
        };
        let mut text = format!(
            "\
name = \"authority\"
role = \"authority\"
identity = \"gw1.example\"
socket = \"{}\"
state = \"{place}-kept\"

[outside]
address = \"{SHARED}\"

[privileges]
{user}

[channel]
listen = \"{listen}\"
{number}
cert = \"{place}.pem\"
key = \"{place}.key\"
ca = [\"ca.pem\"]
distribution = \"{}\"
",
            self.socket(place).display(),
            sharing.distribution,
            user = self.user_line(),
        );
        for number in GATEWAYS {
            let _ = write!(
                text,
                "\n[[channel.edge]]\nnumber = {number}\nname = \"gw{number}.example\"\n{}{}",
                chosen(number, sharing),
                stands(number, sharing)
            );
        }
        let _ = write!(
            text,
            "\n[repository]\nkey = \"repository.key\"\n{}\n\n[pool]\nnetworks = [\"{}\"]\n\n\
             [[peer]]\nidentity = \"client.example\"\npsk_file = \"gw1-held.psk\"\n\
             inner = [\"{CLIENT_INNER}\"]\n\n{}",
            sharing.repository, sharing.pool, sharing.authority_extra,
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

/// The last edge is the one that is chosen.
fn chosen(number: u8, sharing: &Sharing) -> &'static str {
    match sharing.distribution == "chosen" && GATEWAYS.last() == Some(&number) {
        true => "chosen = true\n",
        false => "",
    }
}

/// What stands for an edge, as a key.
fn stands(number: u8, sharing: &Sharing) -> String {
    let stands = sharing.negotiation.stands(number);
    stands.map_or_else(String::new, |to| format!("translated = \"{to}\"\n"))
}
