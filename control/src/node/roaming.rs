//! NATs on the way: which sessions go in UDP, peers that their NAT has given another address, and
//! NATs before us, whose mapping must not run out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::core::{Node, Role};
use super::events::{EventKind, NewEvent};
use crate::dataplane::pmtu::Phase;
use crate::ike::{NAT_T_PORT, Nat, SaId};
use crate::sadb::{Change, Producer, SessionId, UdpEncap};

/// Who has heard a peer at another address. The other one has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    Ike,
    Worker,
}

/// How ESP of a session between these ends of its IKE SA goes. Only over port 4500: a peer that has
/// stayed on port 500 behind a NAT can not be reached.
pub(super) fn encapsulation(nat: Nat, local: SocketAddr, remote: SocketAddr) -> Option<UdpEncap> {
    (nat.encapsulates() && local.port() == NAT_T_PORT).then(|| UdpEncap {
        local_port: local.port(),
        remote_port: remote.port(),
    })
}

impl Node {
    /// An authentic packet of a session's peer came from `remote`.
    pub(super) fn peer_moved(
        &mut self,
        id: SessionId,
        remote: SocketAddr,
        witness: Witness,
    ) -> Result<()> {
        let Some(live) = self.table.live.get_mut(&id) else {
            return Ok(());
        };
        // A client knows its gateways by their addresses.
        if live.spec.gateway.is_some_and(|at| at != remote.ip()) {
            return Ok(());
        }
        let changes = match self.answers.sadb.move_peer(Producer::Ike, id, remote) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!("{} can not be followed to {remote}: {error}", live.peer);
                return Ok(());
            }
        };
        // A port of its own says nothing about that of IKE.
        let alone = live.spec.own_port;
        if witness == Witness::Worker && !changes.is_empty() && !alone {
            // What goes by the session's other pairs has the same NAT to pass.
            let sa = live.sa;
            for other in self
                .table
                .all_of(sa)
                .into_iter()
                .filter(|other| *other != id)
            {
                self.peer_moved(other, remote, Witness::Ike)?;
            }
        }
        let Some(live) = self.table.live.get_mut(&id) else {
            return Ok(());
        };
        let mut told = Vec::new();
        for change in changes {
            let Change::Move(spec) = change else { continue };
            self.keylog.esp(&spec);
            let before = std::mem::replace(&mut live.spec, spec.clone()).peer_at();
            let tell = witness == Witness::Ike;
            self.dataplane.move_session(&spec, tell)?;
            if alone {
                continue;
            }
            if !tell {
                self.engine.peer_moved(Instant::now(), live.sa, remote);
                told.push((Arc::clone(&spec), remote));
            }
            if let Role::Gateway(gateway) = &mut self.role {
                gateway.moved(&live.peer, remote);
            }
            let text = format!("{} is at {remote} now, before at {before}", live.peer);
            self.events.push(NewEvent::new(EventKind::PeerMoved, text));
        }
        self.classify(id)?;
        for (spec, remote) in told {
            self.tell_moved(&spec, remote);
        }
        Ok(())
    }

    /// Packets to a session's peer may be of another size.
    pub(super) fn path_mtu(
        &mut self,
        id: SessionId,
        before: u32,
        size: u32,
        phase: Phase,
        at: Instant,
    ) {
        let Some(live) = self.table.live.get(&id) else {
            return;
        };
        let text = format!(
            "packets to {} may have {size} bytes, before {before} ({})",
            live.peer,
            phase.word()
        );
        self.note(
            NewEvent::new(EventKind::PathMtu, text)
                .gateway(live.spec.outside_remote)
                .at(at),
        );
    }

    /// Notes an IKE SA that goes through a NAT before us.
    pub(super) fn keeps_mapping(&mut self, sa: SaId, nat: Nat) {
        if nat.local {
            self.mappings.insert(sa, 0);
        } else {
            self.mappings.remove(&sa);
        }
    }

    /// Where ESP went out, IKE need not keep the NAT's mapping alive.
    pub(super) fn keep_mappings(&mut self, now: Instant) {
        if self.mappings.is_empty() {
            return;
        }
        self.mappings
            .retain(|sa, _| self.table.of_sa(*sa).is_some());
        let mut sent: HashMap<SaId, u64> = HashMap::new();
        for session in self.dataplane.views().load().sessions.iter() {
            // What goes by ports of their own keeps those open.
            let live = self.table.live.get(&session.id);
            if let Some(live) = live.filter(|live| !live.spec.own_port) {
                *sent.entry(live.sa).or_default() += session.outbound.packets;
            }
        }
        for (sa, before) in &mut self.mappings {
            let sent = sent.get(sa).copied().unwrap_or_default();
            if std::mem::replace(before, sent) != sent {
                self.engine.spoke(now, *sa);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn esp_goes_in_udp_only_over_port_4500() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let (here, there) = (at("192.0.2.1:4500"), at("203.0.113.9:40123"));
        let behind = Nat {
            detected: true,
            remote: true,
            ..Nat::default()
        };
        let encap = encapsulation(behind, here, there).unwrap();
        assert_eq!((encap.local_port, encap.remote_port), (4500, 40123));
        assert_eq!(encapsulation(behind, at("192.0.2.1:500"), there), None);
        // A peer may use port 4500 without any need.
        let none = Nat {
            detected: true,
            ..Nat::default()
        };
        assert_eq!(encapsulation(none, here, at("203.0.113.9:4500")), None);
    }
}
