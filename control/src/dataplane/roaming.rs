//! Peers behind NATs: a session follows its peer to where its newest authentic packet came from
//! (RFC 7296 section 2.23).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use evergate_common::packet::{Esp, Ip};
use evergate_common::reason::Counter;

use super::command::WorkerEvent;
use super::core::Core;
use super::opening::unmapped;
use crate::sadb::SessionSpec;

impl Core {
    /// An authentic packet, the newest of its session, came in.
    pub(super) fn follow_peer(&mut self, index: usize, ip: &Ip, esp: &Esp, now: Instant) {
        let (Some(udp), Some(session)) = (esp.udp, self.sessions.get_mut(index)) else {
            return;
        };
        let remote = SocketAddr::new(unmapped(ip.source), udp.source);
        let id = session.spec.id;
        if session.may_follow(remote, now) && self.move_session(index, remote) {
            self.count(Counter::PeerMoved);
            self.send_event(WorkerEvent::PeerMoved {
                session: id,
                remote,
            });
        }
    }

    /// A session goes between other outer addresses from now on.
    pub(super) fn relocate_session(&mut self, spec: &Arc<SessionSpec>) {
        let Some(index) = self.sessions.by_id(spec.id) else {
            return;
        };
        let (mtu, header) = self.way_to(spec.peer_at().ip());
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        match session.relocate(Arc::clone(spec), self.now) {
            Ok(()) => {
                session.follow_mtu(mtu, self.now);
                session.ethernet = header;
                self.paths_at = self.now;
            }
            Err(error) => tracing::error!("session with {} can not move: {error}", spec.peer),
        }
    }

    /// Sends what is for a session's peer to `remote` from now on. Says whether that is news.
    pub(super) fn move_session(&mut self, index: usize, remote: SocketAddr) -> bool {
        let (mtu, header) = self.way_to(remote.ip());
        let Some(session) = self.sessions.get_mut(index) else {
            return false;
        };
        let now = self.now;
        let moved = session.move_to(remote, now);
        if moved {
            session.follow_mtu(mtu, now);
            session.ethernet = header;
            self.paths_at = now;
        }
        moved
    }
}
