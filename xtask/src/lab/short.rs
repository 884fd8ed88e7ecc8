//! The short lab of the rig: nothing between the ends but the client and one gateway.
//!
//! ```text
//! generator ── client ── gw1 ── target
//! ```

use super::build::{FORWARD, SYSCTLS, check_prefix, down};
use super::topology::{CLIENT_OUTSIDE, PLAIN_TARGET, Place, TARGETS, gateway_inside};
use super::{Lab, Offloads};
use crate::sh;
use anyhow::Result;
use std::process::Command;

/// The gateway's address outside.
const OUTSIDE: &str = "192.0.2.1";
/// The network of tunnel addresses of peers that have such, for the target's way back.
const PEERS: &str = "10.91.9.0/24";
/// The link address of the client's side toward the generator.
pub(crate) const CLIENT_MAC: &str = "02:00:00:04:00:01";
/// The link address of the gateway's side toward the client.
pub(crate) const GATEWAY_MAC: &str = "02:00:00:02:00:01";

const PLACES: [Place; 4] = [
    Place::Generator,
    Place::Client,
    Place::Gateway(1),
    Place::Target,
];

/// Removes what a former run left, then builds everything afresh.
pub(super) fn up(prefix: &str) -> Result<()> {
    check_prefix(prefix)?;
    down(prefix)?;
    let built = build(prefix);
    if built.is_err() {
        let _ = down(prefix);
    }
    built
}

fn build(prefix: &str) -> Result<()> {
    let ns = |place: Place| format!("{prefix}{place}");
    let shell = |place, script: &str| {
        let words = ["netns", "exec", &ns(place), "sh", "-c", script];
        sh::read(Command::new("ip").args(words)).map(drop)
    };
    for place in PLACES {
        sh::read(Command::new("ip").args(["netns", "add", &ns(place)]))?;
        shell(place, SYSCTLS)?;
    }
    for place in [Place::Client, Place::Gateway(1)] {
        shell(place, FORWARD)?;
    }
    let (client, gateway, target) = (Place::Client, Place::Gateway(1), Place::Target);
    let cables = [
        (
            Place::Generator,
            "eth0",
            "02:00:00:04:00:02",
            client,
            "lan0",
            CLIENT_MAC,
        ),
        (
            client,
            "out0",
            "02:00:00:01:00:02",
            gateway,
            "wan0",
            GATEWAY_MAC,
        ),
        (
            gateway,
            "lan0",
            "02:00:00:03:00:f1",
            target,
            "eth0",
            "02:00:00:03:00:01",
        ),
    ];
    for (one, interface, mac, other, peer, peer_mac) in cables {
        let words = format!(
            "link add {interface} address {mac} type veth peer name {peer} address {peer_mac} \
             netns {}\nlink set {interface} up\n",
            ns(other)
        );
        batch(&ns(one), &words)?;
        batch(&ns(other), &format!("link set {peer} up\n"))?;
    }
    batch(&ns(Place::Generator), "addr add 10.99.0.2/24 dev eth0\n")?;
    batch(
        &ns(client),
        &format!(
            "addr add 10.99.0.1/24 dev lan0\naddr add {CLIENT_OUTSIDE}/24 dev out0\n\
             route add {OUTSIDE}/32 dev out0\nroute add default via {OUTSIDE}\n"
        ),
    )?;
    // Test packets have the client's own address, as if its applications sent them.
    shell(client, "echo 1 > /proc/sys/net/ipv4/conf/lan0/accept_local")?;
    // One address outside, since some daemons answer from the first one, whichever they were asked at.
    let inside = gateway_inside(1);
    batch(
        &ns(gateway),
        &format!(
            "addr add {OUTSIDE}/32 dev wan0\nroute add 198.51.100.0/24 dev wan0\n\
             addr add {inside}/24 dev lan0\nroute add {PLAIN_TARGET}/32 via {}\n",
            TARGETS[0]
        ),
    )?;
    batch(
        &ns(target),
        &format!(
            "addr add {}/24 dev eth0\naddr add {PLAIN_TARGET}/32 dev lo\n\
             route add 198.51.100.0/24 via {inside}\nroute add {PEERS} via {inside}\n",
            TARGETS[0]
        ),
    )
}

fn batch(ns: &str, words: &str) -> Result<()> {
    sh::feed(Command::new("ip").args(["-n", ns, "-batch", "-"]), words)
}

impl Lab {
    /// Sets what the veth pairs of a short lab do for the stack: [`Offloads::All`] at first.
    pub(crate) fn tune(&self, offloads: Offloads) -> Result<()> {
        let features: &[&str] = match offloads {
            Offloads::All => return Ok(()),
            // An XDP program at the other end would see unfinished checksums.
            Offloads::Usual => &["tx", "off", "gro", "on"],
            Offloads::None => &["tso", "off", "gso", "off", "gro", "off"],
        };
        let ends = [
            (Place::Client, "out0"),
            (Place::Gateway(1), "wan0"),
            (Place::Target, "eth0"),
        ];
        let inside = [(Place::Gateway(1), "lan0")];
        let also: &[_] = match offloads {
            Offloads::None => &inside,
            _ => &[],
        };
        for (place, interface) in ends.iter().chain(also) {
            let words = [&["ethtool", "-K", interface], features].concat();
            self.exec(*place, &words)?;
        }
        Ok(())
    }
}
