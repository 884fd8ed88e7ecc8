//! The tables `[front]` and `[behind]`: encryption nodes, and what stands before them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::check::{Checker, Place, TOP};
use super::file::{self, File, Table, Text};
use super::{
    Channel, ChannelEnd, Heartbeat, HeartbeatForm, Outside, Role, SteeredGateway, XdpMode,
};

/// What a front is told of the encryption nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// Its own address, beside the shared one.
    pub address: IpAddr,
    /// Its own number, if it is one of the nodes: 1 to 62.
    pub number: Option<u8>,
    /// The file of the key that fronts and nodes have in common.
    pub key: PathBuf,
    /// From one heartbeat to the next, 1 ms to 10 s.
    pub heartbeat: Duration,
    /// So many heartbeats unanswered, and a node is dead; 2 to 20.
    pub tries: u32,
    /// The others.
    pub nodes: Vec<SteeredGateway>,
}

/// What a node is told of the fronts before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Its own address, beside the shared one.
    pub address: IpAddr,
    pub key: PathBuf,
    pub fronts: Vec<IpAddr>,
}

impl Checker<'_> {
    /// What a front, which carries no packets itself, has no use for.
    pub(super) fn of_no_use(&mut self, file: &File) {
        let role = Role::Front;
        let found = file.role.as_ref().map(Spanned::get_ref);
        if found.is_none_or(|found| *found != role.to_string()) {
            return;
        }
        let why = "it has no tunnels, the nodes behind it have them";
        self.unused(file.local.as_ref(), "[local]", role, why);
        self.unused(file.heartbeat.as_ref(), "[heartbeat]", role, why);
        self.unused(file.esp.as_ref(), "[esp]", role, why);
        self.unused(file.ike.as_ref(), "[ike]", role, why);
        self.unused(file.drain.as_ref(), "[drain]", role, why);
        self.unused(file.pool.as_ref(), "[pool]", role, why);
        self.unused(file.peers.first(), "[[peer]]", role, why);
        self.unused(file.users.first(), "[[eap_user]]", role, why);
    }

    pub(super) fn front(
        &mut self,
        table: Table<file::Front>,
        role: Role,
        outside: Option<&Outside>,
        channel: Option<&Channel>,
    ) -> Option<Front> {
        if !matches!(role, Role::Front | Role::Gateway) {
            let why = "only a front, or a gateway that is one, has nodes behind it";
            self.unused(table.as_ref(), "[front]", role, why);
            return None;
        }
        if role == Role::Front {
            let what = "the encryption nodes behind this front";
            self.required(table.as_ref(), &TOP, "[front]", what);
        }
        let table = table?;
        let at = table.span();
        let table = table.into_inner();
        let shared = self.shared_by_nodes(&at, "[front]", outside);
        if role == Role::Gateway {
            self.is_an_edge(&at, "[front]", channel);
        }
        let address = self.beside_shared(table.address, &at, "front.address", shared);
        let key = self.front_key(table.key, &at, "front.key");
        let number = match role {
            Role::Gateway => self.steering_number(table.number, &at, "front.number"),
            _ => {
                let why = "it is no node itself; a gateway with a [front] is";
                self.unused(table.number.as_ref(), "front.number", role, why);
                None
            }
        };
        let range = Duration::from_millis(1)..=Duration::from_secs(10);
        let heartbeat = self.time(table.heartbeat, "front.heartbeat", range);
        let tries = self.number(table.tries, "front.tries", 2..=20);
        let mut numbers: HashSet<u8> = number.into_iter().collect();
        let mut addresses: HashSet<IpAddr> = address.into_iter().chain(shared).collect();
        let mut nodes = Vec::new();
        for node in table.nodes {
            let at = node.span();
            let node = node.into_inner();
            let key = "front.node";
            nodes.extend(self.steered(key, node, &at, address, &mut numbers, &mut addresses));
        }
        if nodes.is_empty() {
            let said = "no [[front.node]]: expected one or more, each with number and address";
            match role {
                Role::Front => self.error(&at, said),
                _ => self.warn(&at, "[front] names no other node: no packet goes anywhere"),
            }
        }
        if role == Role::Gateway {
            number?;
        }
        Some(Front {
            address: address?,
            number,
            key: key?,
            heartbeat: heartbeat.unwrap_or(Duration::from_millis(10)),
            tries: tries
                .and_then(|tries| u32::try_from(tries).ok())
                .unwrap_or(5),
            nodes,
        })
    }

    pub(super) fn behind(
        &mut self,
        table: Table<file::Behind>,
        role: Role,
        outside: Option<&Outside>,
        channel: Option<&Channel>,
        heartbeat: &Heartbeat,
        front: Option<&Front>,
    ) -> Option<Behind> {
        if role != Role::Gateway {
            let why = "only a gateway is an encryption node";
            self.unused(table.as_ref(), "[behind]", role, why);
            return None;
        }
        let table = table?;
        let at = table.span();
        let table = table.into_inner();
        let shared = self.shared_by_nodes(&at, "[behind]", outside);
        self.is_an_edge(&at, "[behind]", channel);
        if heartbeat.accept == HeartbeatForm::Plain {
            let said = "[behind]: found heartbeat.accept = \"plain\", expected \"keyed\" or \"both\": fronts ask \
                        by keyed heartbeats whether this node lives";
            self.error(&at, said);
        }
        let address_at = table.address.as_ref().map_or(at.clone(), Spanned::span);
        let address = self.beside_shared(table.address, &at, "behind.address", shared);
        if let (Some(address), Some(front)) = (address, front)
            && address != front.address
        {
            let said = format!(
                "behind.address: found {address}, expected {} as in front.address",
                front.address
            );
            self.error(&address_at, said);
        }
        let key_at = table.key.as_ref().map_or(at.clone(), Spanned::span);
        let key = self.front_key(table.key, &at, "behind.key");
        if let (Some(key), Some(front)) = (&key, front)
            && *key != front.key
        {
            let said = format!(
                "behind.key: found {}, expected {} as in front.key",
                key.display(),
                front.key.display()
            );
            self.error(&key_at, said);
        }
        let mut fronts = Vec::new();
        for text in &table.fronts {
            let Some(found) = self.unicast(text, "behind.fronts") else {
                continue;
            };
            if Some(found) == address || Some(found) == shared || fronts.contains(&found) {
                let said = format!(
                    "behind.fronts: found {found}, expected addresses that fronts have beside the shared \
                     one, each once"
                );
                self.error(&text.span(), said);
            } else if address.is_some_and(|own| own.is_ipv4() != found.is_ipv4()) {
                let said = format!(
                    "behind.fronts: found {found}, expected one of the same family as behind.address"
                );
                self.error(&text.span(), said);
            }
            fronts.push(found);
        }
        if table.fronts.is_empty() {
            let said = "behind.fronts: found none, expected the fronts' own addresses, such as \
                        [\"192.0.2.11\"]";
            self.error(&at, said);
        }
        Some(Behind {
            address: address?,
            key: key?,
            fronts,
        })
    }

    /// The address that front and nodes share, and an XDP program at it.
    fn shared_by_nodes(
        &mut self,
        at: &Place,
        table: &str,
        outside: Option<&Outside>,
    ) -> Option<IpAddr> {
        let outside = outside?;
        if outside.xdp == XdpMode::Off {
            let said = format!(
                "{table}: found outside.xdp = \"off\", expected an XDP program, which does it"
            );
            self.error(at, said);
        }
        if outside.address.is_none() {
            let said = format!(
                "{table}: `outside.address` is missing: expected the address that front and nodes share"
            );
            self.error(at, said);
        }
        outside.address
    }

    /// Only an edge can go on with what another node has begun.
    fn is_an_edge(&mut self, at: &Place, table: &str, channel: Option<&Channel>) {
        if !channel.is_some_and(|channel| matches!(channel.end, ChannelEnd::Edge { .. })) {
            let said = format!(
                "{table}: found no [channel], expected one to an authority: only so can an encryption node go \
                 on with what another one had"
            );
            self.error(at, said);
        }
    }

    fn beside_shared(
        &mut self,
        text: Text,
        at: &Place,
        key: &str,
        shared: Option<IpAddr>,
    ) -> Option<IpAddr> {
        let what = "this node's own address beside the shared one";
        let text = self.required(text, at, key, what)?;
        let address = self.unicast(&text, key)?;
        if Some(address) == shared {
            let said = format!(
                "{key}: found the address that front and nodes share (outside.address), expected this \
                 node's own"
            );
            self.error(&text.span(), said);
            return None;
        }
        Some(address)
    }

    fn front_key(&mut self, path: Text, at: &Place, key: &str) -> Option<PathBuf> {
        let what = "a file with 64 hexadecimal digits, such as \"front.key\"";
        let path = self.required(path, at, key, what)?;
        Some(self.beside(path.get_ref()))
    }
}
