//! The ways of packets: between clients and edges, and on the LAN behind these.

use std::net::IpAddr;
use std::time::Duration;

use evergate::dataplane::trial::edge::Out;
use evergate::ike::Transmit;
use rand::RngExt as _;

use super::super::packet::{echo, label, source_and_destination};
use super::super::{LAN, client_at, client_inner};
use super::edge::Frame;
use super::{Packet, SHARED, What, World, frames};

impl World {
    /// What the LAN side of an edge's worker, and the outer one, let out.
    pub(super) fn leaves(&mut self, edge: usize, out: Out) {
        match out {
            Out::Outside(packet) => {
                let Some((to, bytes)) = frames::esp_of(&packet) else {
                    return;
                };
                let client = self.sealed(edge, to, &bytes);
                if let Some(client) = client {
                    let udp = false;
                    self.deliver(edge, client, Packet::Esp { bytes, udp });
                }
            }
            Out::Inside(packet) => {
                if self.links[edge].lan {
                    self.later(LAN, What::Target(edge, packet));
                }
            }
            Out::Lan(frame) => {
                if self.links[edge].lan {
                    self.later(LAN, What::Claim(frame.clone()));
                    for other in (0..self.edges.len()).filter(|other| *other != edge) {
                        self.later(LAN, What::Frame(other, Frame::Lan(frame.clone())));
                    }
                }
            }
        }
    }

    /// An edge has sealed a packet: for a nonce that nobody has used, and nothing of it is in the clear.
    /// Whose it is, if that client is there.
    fn sealed(&mut self, edge: usize, to: IpAddr, bytes: &[u8]) -> Option<usize> {
        let spi = bytes.first_chunk().map(|spi| u32::from_be_bytes(*spi))?;
        let iv = bytes.get(8..16)?.try_into().map(u64::from_be_bytes).ok()?;
        let client = client_at(to).filter(|client| *client < self.clients.len())?;
        match self.keys.0.get(&(client, spi)) {
            Some(key) => self.watch.sealed(*key, iv),
            None => self.watch.holds(false, "nobody has negotiated this"),
        }
        for client in 0..self.clients.len() {
            let mut mark = [0; 8];
            if let IpAddr::V4(inner) = client_inner(client) {
                mark[..4].copy_from_slice(&inner.octets());
            }
            mark[4..].copy_from_slice(&(client as u32).to_be_bytes());
            let seen = bytes.get(16..).unwrap_or_default();
            let seen = seen.windows(8).any(|window| window == mark);
            self.watch.holds(!seen, "an inner packet is in the clear");
        }
        if self.serves[client].replace(edge) != Some(edge) {
            self.report.changes += 1;
        }
        (self.clients[client].outer() == to).then_some(client)
    }

    /// A target hears a client's packet and answers.
    pub(super) fn target(&mut self, edge: usize, packet: Vec<u8>) {
        let Some((source, _)) = source_and_destination(&packet) else {
            return;
        };
        let client = label(&packet).map(|(client, _)| client);
        let owned = client.is_some_and(|client| client_inner(client) == source);
        self.watch
            .holds(owned, "a target hears from an address that no session owns");
        self.watch.at_target(&packet);
        if !self.links[edge].lan {
            return;
        }
        let Some(answer) = echo(packet) else { return };
        let Some(mac) = self.neighbours.get(&source).copied() else {
            return;
        };
        let at = self.edges.iter().position(|edge| edge.mac() == mac);
        if let Some(at) = at {
            self.later(LAN, What::Frame(at, Frame::Kernel(answer)));
        }
    }

    /// An edge says that it has an address.
    pub(super) fn claim(&mut self, frame: &[u8]) {
        let Some((mac, address)) = frames::claim_of(frame) else {
            return;
        };
        self.neighbours.insert(address, mac);
    }

    /// A client's packet goes where the router says, and elsewhere.
    pub(super) fn client_sends(&mut self, index: usize, mut packet: Packet) {
        let from = self.clients[index].outer();
        if let Packet::Ike(transmit) = &mut packet {
            transmit.local.set_ip(from);
        }
        let many = self.edges.len();
        let mut to = self.routes[index];
        if self.rng.random_range(0..1000) < self.scatter {
            to = self.rng.random_range(0..many);
        }
        let mut ways = Vec::new();
        if self.rng.random_range(0..1000) >= self.loss {
            ways.push((to, Duration::ZERO));
        }
        if self.rng.random_range(0..1000) < self.scenario.doubled {
            let other = self.rng.random_range(0..many);
            let other = if self.calm { to } else { other };
            ways.push((other, Duration::ZERO));
        }
        let esp = matches!(packet, Packet::Esp { .. }) && !self.calm;
        if esp && self.rng.random_range(0..1000) < self.scenario.repeated {
            for _ in 0..self.rng.random_range(1..=4) {
                let after = Duration::from_micros(self.rng.random_range(0..3_000_000));
                ways.push((self.rng.random_range(0..many), after));
                self.report.repeated += 1;
            }
        }
        for (edge, after) in ways {
            let delay = self.delay() + after;
            self.later(delay, What::ToEdge(edge, from, packet.clone()));
        }
    }

    fn delay(&mut self) -> Duration {
        self.scenario.delay + self.rng.random_range(Duration::ZERO..=self.scenario.jitter)
    }

    pub(super) fn edge_hears(&mut self, edge: usize, from: IpAddr, packet: Packet) {
        if !self.links[edge].wan {
            return;
        }
        match packet {
            Packet::Ike(transmit) => self.with_edge(edge, |edge, _| edge.relay(transmit)),
            Packet::Esp { bytes, udp } => {
                let frame = Frame::Outside(frames::frame(from, SHARED, &bytes, udp));
                self.with_edge(edge, |edge, step| edge.arrive(frame, step));
            }
        }
    }

    /// An edge sends an IKE message to a client.
    pub(super) fn edge_says(&mut self, edge: usize, packet: Packet) {
        let Packet::Ike(transmit) = packet else {
            return;
        };
        let to = transmit.remote.ip();
        let client = client_at(to).filter(|client| *client < self.clients.len());
        let client = client.filter(|client| self.clients[*client].outer() == to);
        let Some(client) = client else { return };
        // As it sees the two.
        let mut seen = Transmit {
            local: transmit.remote,
            remote: transmit.local,
            data: transmit.data,
        };
        seen.local.set_ip(self.clients[client].address());
        self.deliver(edge, client, Packet::Ike(seen));
    }

    fn deliver(&mut self, edge: usize, client: usize, packet: Packet) {
        if !self.links[edge].wan || self.rng.random_range(0..1000) < self.loss {
            return;
        }
        let times = 1 + usize::from(self.rng.random_range(0..1000) < self.scenario.doubled);
        for _ in 0..times {
            let delay = self.delay();
            self.later(delay, What::ToClient(client, packet.clone()));
        }
    }
}
