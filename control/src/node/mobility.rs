//! Nodes that move (MOBIKE, RFC 4555): a client whose outside address is replaced, and a gateway
//! whose client is elsewhere. Sessions and connections go on.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::Result;

use super::core::{Node, Role};
use super::events::{EventKind, NewEvent};
use super::roaming::encapsulation;
use crate::dataplane::net::fib_watch::LinkChange;
use crate::ike::{Nat, SaId};
use crate::sadb::{Change, Path, Producer, SessionId};

/// The address that a node goes on from if its interface has these now; `None`: it stays.
fn successor(current: IpAddr, addresses: &[IpAddr]) -> Option<IpAddr> {
    if addresses.contains(&current) {
        return None;
    }
    // A family that the gateways may not have is no successor.
    let mut addresses = addresses.iter();
    addresses
        .find(|a| a.is_ipv4() == current.is_ipv4())
        .copied()
}

impl Node {
    /// The addresses of the outside interface may have changed. A gateway stays where it is: its
    /// clients know it by its address.
    pub(super) async fn follow_own_address(&mut self, change: &LinkChange) -> Result<()> {
        let Role::Client(client) = &mut self.role else {
            return Ok(());
        };
        if change.interface != self.config.outside.interface {
            return Ok(());
        }
        // The configuration may name an address that was never this interface's.
        client.at_home |= change.addresses.contains(&self.address);
        let next = successor(self.address, &change.addresses);
        client.next_address = next.filter(|_| client.at_home);
        client.stays = client.stays.filter(|_| client.next_address.is_some());
        self.go_to_next_address().await
    }

    /// Goes on from the address that is to come after the present one, if there is one. What is in the way
    /// (no descriptors left, another process on its ports) may pass: it is tried again at each tick.
    pub(super) async fn go_to_next_address(&mut self) -> Result<()> {
        let Role::Client(client) = &mut self.role else {
            return Ok(());
        };
        let Some(address) = client.next_address else {
            return Ok(());
        };
        let workers = self.dataplane.workers();
        let sockets = match self.sockets.rebind(address, workers).await {
            Ok(sockets) => sockets,
            Err(error) => {
                if client.stays.replace(address) != Some(address) {
                    tracing::warn!(
                        "the outside address has changed to {address}, but {error:#}; it is tried again"
                    );
                }
                return Ok(());
            }
        };
        (client.next_address, client.stays) = (None, None);
        let before = std::mem::replace(&mut self.address, address);
        self.dataplane.set_outside_address(address, sockets)?;
        let text = format!("our outside address is {address} now, before {before}");
        self.note(NewEvent::new(EventKind::Moved, text));
        let now = Instant::now();
        // What had only begun begins again.
        let begun: Vec<SaId> = self.pending.keys().copied().collect();
        for sa in begun {
            self.engine.close(now, sa);
        }
        for id in self.table.current() {
            let Some(live) = self.table.live.get(&id) else {
                continue;
            };
            let (sa, encap, remote) = (live.sa, live.spec.encap, live.spec.outside_remote);
            if self.engine.local_moved(now, sa, address) {
                let path = Path {
                    local: address,
                    remote,
                    encap,
                    roams: live.spec.roams,
                };
                self.relocate(sa, &path)?;
            } else {
                // The peer can not be told, and answers to where we were: a new session takes over.
                self.engine.forget(sa);
                self.end_session(id, "our address has changed", false)?;
            }
        }
        Ok(())
    }

    /// IKE and its peer agree that a session goes between these addresses now.
    pub(super) fn relocated(
        &mut self,
        sa: SaId,
        local: SocketAddr,
        remote: SocketAddr,
        nat: Nat,
    ) -> Result<()> {
        let Some(live) = self.table.of_sa(sa).and_then(|id| self.table.live.get(&id)) else {
            return Ok(());
        };
        // A client knows its gateways by their addresses.
        if live.spec.gateway.is_some_and(|at| at != remote.ip()) {
            return Ok(());
        }
        let (peer, before) = (live.peer.clone(), live.spec.outside_remote);
        self.relocate(
            sa,
            &Path {
                local: local.ip(),
                remote: remote.ip(),
                encap: encapsulation(nat, local, remote),
                roams: nat.follows(),
            },
        )?;
        self.keeps_mapping(sa, nat);
        if let Role::Gateway(gateway) = &mut self.role {
            gateway.moved(&peer, remote);
        }
        if before != remote.ip() {
            let text = format!("{peer} has moved to {remote}, before at {before}");
            self.note(NewEvent::new(EventKind::PeerMoved, text));
        }
        Ok(())
    }

    /// All pairs of SAs of a session take another path.
    fn relocate(&mut self, sa: SaId, path: &Path) -> Result<()> {
        for id in self.table.all_of(sa) {
            self.relocate_pair(id, path)?;
        }
        Ok(())
    }

    pub(super) fn relocate_pair(&mut self, id: SessionId, path: &Path) -> Result<()> {
        let changes = match self.answers.sadb.relocate(Producer::Ike, id, path) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!("a session can not move to {}: {error}", path.remote);
                return Ok(());
            }
        };
        for change in changes {
            let Change::Move(spec) = change else { continue };
            if let Some(live) = self.table.live.get_mut(&id) {
                live.spec = spec.clone();
            }
            self.dataplane.relocate_session(&spec)?;
        }
        self.classify(id)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_moves_only_when_its_address_is_gone() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let [a, b, c] = ["198.51.100.2", "203.0.113.2", "203.0.113.9"].map(ip);
        let six = ip("2001:db8::2");
        for (addresses, next) in [
            (&[a][..], None),
            (&[b, a], None),
            (&[], None),
            (&[six], None),
            (&[six, b, c], Some(b)),
        ] {
            assert_eq!(successor(a, addresses), next, "{addresses:?}");
        }
        assert_eq!(successor(six, &[a]), None);
    }
}
