//! Edges that share an outside address, and an authority that negotiates for them. The authority runs beside the
//! target, behind the edges; the router in front of them says which edge packets for the shared address come to.

use super::topology::{CLIENT_INNER, GATEWAYS, POOL};
use super::{KeyKind, Lab, Place, Setup};
use anyhow::Result;
use std::fmt::Write as _;

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
    /// `[repository]` beside the key; empty: a file.
    pub(crate) repository: String,
    /// Two authorities share the work.
    pub(crate) second: bool,
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
            repository: String::new(),
            second: false,
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
        let (shared, via) = (format!("{SHARED}/32"), format!("192.0.2.{number}"));
        let words = ["ip", "route", "replace", &shared, "via", &via];
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
cert = \"gw{number}.pem\"
key = \"gw{number}.key\"
ca = [\"ca.pem\"]

[[channel.authority]]
{which}address = \"{CHANNEL}\"
name = \"authority.example\"

{second}
{}",
            self.socket(Place::Gateway(number)).display(),
            sharing.extra,
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
        text
    }
}
