//! Sessions in the worker and in the maps that steer to it: a session is known to the worker before
//! anything is steered there, and forgotten after.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

use evergate_common::maps::SaEntry;

use super::command::{Command, GroupId, Sending, Steer};
use super::handle::Dataplane;
use super::loader::LoadError;
use super::start::own_socket;
use super::udp;
use crate::sadb::{Named, SessionId, SessionSpec};

impl Dataplane {
    /// Installs a session: first in the worker, then, by [`let_all_in`](Self::let_all_in), in the maps
    /// that steer to it. Only then is it sent on: its peer answers within microseconds.
    ///
    /// # Errors
    /// If the kernel does not take its peer's address.
    pub fn add_session(
        &mut self,
        spec: Arc<SessionSpec>,
        group: GroupId,
        activate: bool,
    ) -> Result<(), LoadError> {
        self.command(Command::AddSession {
            spec: Arc::clone(&spec),
            group,
            succeeds: None,
        });
        self.outdoors.push((spec.id, activate));
        self.keep(spec).map(drop)
    }

    /// Steers to the worker what comes for the sessions that were added; to wait for it costs the
    /// same for many as for one. When this returns, packets for them are taken.
    pub async fn let_all_in(&mut self) -> Result<(), LoadError> {
        if self.outdoors.is_empty() {
            return Ok(());
        }
        self.settled().await;
        for (id, activate) in std::mem::take(&mut self.outdoors) {
            if let Some(Named(spec)) = self.sessions.get(&id).cloned() {
                self.let_in(&spec)?;
                self.command(Command::Begin { id, activate });
            }
        }
        self.steered().await;
        Ok(())
    }

    /// Waits until a worker that steers by itself has heard of what was told it.
    async fn steered(&self) {
        if self.outside.is_none() {
            self.settled().await;
        }
    }

    /// Changes what is steered to the worker, in the maps or in the worker's own tables.
    pub(super) fn steer(&mut self, change: Steer) -> Result<(), LoadError> {
        match &mut self.outside {
            Some(outside) => outside.steer(change),
            None => {
                self.command(Command::Steer(change));
                Ok(())
            }
        }
    }

    /// Installs a session that takes the place of another one with the same peer. It receives when
    /// this returns, and sends as `sending` says: at once means from then on.
    pub async fn succeed_session(
        &mut self,
        spec: Arc<SessionSpec>,
        group: GroupId,
        sending: Sending,
    ) -> Result<(), LoadError> {
        let id = spec.id;
        // As with a new one: not before what the peer answers is steered here.
        let at_first = sending.min(Sending::WhenHeard);
        self.install(spec, group, at_first).await?;
        if sending == Sending::AtOnce {
            self.send_on(id);
        }
        Ok(())
    }

    /// Sends on this session from now on, and no longer on the one whose place it takes.
    pub fn send_on(&self, id: SessionId) {
        self.command(Command::SendOn(id));
    }

    async fn install(
        &mut self,
        spec: Arc<SessionSpec>,
        group: GroupId,
        sending: Sending,
    ) -> Result<(), LoadError> {
        self.command(Command::AddSession {
            spec: Arc::clone(&spec),
            group,
            succeeds: Some(sending),
        });
        self.settled().await;
        self.keep(Arc::clone(&spec))?;
        self.let_in(&spec)?;
        self.steered().await;
        Ok(())
    }

    /// Steers what a session's peer sends to the worker.
    fn let_in(&mut self, spec: &SessionSpec) -> Result<(), LoadError> {
        let Some(inbound) = &spec.inbound else {
            return Ok(());
        };
        let key = spec.heartbeat_key.as_ref().map(|key| *key.expose());
        let at = spec.peer_at();
        let mut entry = SaEntry::new(key, Some(at.ip()));
        // Of a client's own port its heartbeats find out whether it is a way.
        if !spec.own_port {
            entry = entry.from_port(at.port());
        }
        self.steer(Steer::AddSa(inbound.spi, entry))
    }

    /// The peer of a session is elsewhere now: its heartbeats are answered there. `tell`: the worker
    /// does not know yet.
    pub fn move_session(&mut self, spec: &Arc<SessionSpec>, tell: bool) -> Result<(), LoadError> {
        if !self.sessions.contains(&spec.id) {
            return Ok(());
        }
        if tell {
            self.command(Command::MoveSession(spec.id, spec.peer_at()));
        }
        let before = self.keep(Arc::clone(spec))?;
        self.let_in(spec)?;
        match before {
            Some(before) => self.forget_peer(before.outside_remote),
            None => Ok(()),
        }
    }

    /// Notes a session, in the place of what was known of it; its peer's heartbeats are answered.
    fn keep(&mut self, spec: Arc<SessionSpec>) -> Result<Option<Arc<SessionSpec>>, LoadError> {
        let (peer, id) = (spec.outside_remote, spec.id);
        if !self.has_peer(spec.outside_remote) {
            self.steer(Steer::AddPeer(spec.outside_remote))?;
        }
        let before = self.sessions.replace(Named(spec)).map(|Named(spec)| spec);
        if let Some(before) = &before {
            self.at.remove(before.outside_remote, before.id);
        }
        self.at.insert(peer, id);
        Ok(before)
    }

    /// A session goes between other outer addresses, or with UDP where it was without: in the worker,
    /// and for its heartbeats.
    pub fn relocate_session(&mut self, spec: &Arc<SessionSpec>) -> Result<(), LoadError> {
        if self.sessions.contains(&spec.id) {
            self.command(Command::Relocate(Arc::clone(spec)));
        }
        self.move_session(spec, false)
    }

    /// The node has another outside address; `sockets` are bound to it, one for each worker, where the
    /// outside is a socket.
    pub fn set_outside_address(
        &mut self,
        address: IpAddr,
        sockets: Option<Vec<UdpSocket>>,
    ) -> Result<(), LoadError> {
        if let Some(outside) = &mut self.outside {
            outside.set_own_addresses(&[address])?;
        }
        if let Some(sockets) = sockets {
            if let Err(error) = udp::spread(&sockets) {
                tracing::warn!("what comes to {address} is spread by chance: {error}");
            }
            for (number, (worker, socket)) in self.workers.iter().zip(sockets).enumerate() {
                let own = own_socket(self.own_ports, number, address);
                let _ = worker.commands.send(Command::Rebind(socket, own));
            }
        }
        self.never_reflect(address)?;
        self.command(Command::Resume);
        Ok(())
    }

    /// Whether a session is there.
    fn has_peer(&self, peer: IpAddr) -> bool {
        self.at.of(peer).next().is_some()
    }

    /// Takes an address out of the peers, unless a session is there.
    fn forget_peer(&mut self, peer: IpAddr) -> Result<(), LoadError> {
        match self.has_peer(peer) {
            true => Ok(()),
            false => self.steer(Steer::RemovePeer(peer)),
        }
    }

    /// Removes a session: first from the maps, then from the worker.
    pub fn remove_session(&mut self, id: SessionId) -> Result<(), LoadError> {
        let Some(Named(spec)) = self.sessions.take(&id) else {
            return Ok(());
        };
        self.at.remove(spec.outside_remote, id);
        self.command(Command::RemoveSession(id));
        if let Some(at) = self.outdoors.iter().position(|(new, _)| *new == id) {
            self.outdoors.swap_remove(at);
            return Ok(());
        }
        if let Some(inbound) = &spec.inbound {
            self.steer(Steer::RemoveSa(inbound.spi))?;
        }
        self.forget_peer(spec.outside_remote)
    }
}
