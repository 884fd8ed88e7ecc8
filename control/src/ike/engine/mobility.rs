//! Addresses that change (MOBIKE, RFC 4555).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::super::event::SaId;
use super::{Engine, NoHooks};

impl Engine {
    /// Our own address is another one now: a session goes on from there, and the owner may send ESP
    /// from it at once. [`Event::Relocated`](super::super::Event::Relocated) follows when the peer
    /// knows. False if the peer does not understand MOBIKE, or there is no such session.
    pub fn local_moved(&mut self, now: Instant, id: SaId, local: IpAddr) -> bool {
        let mut moves = false;
        self.with(id, now, &mut NoHooks, |sa, cx| {
            moves = sa.local_moved(local, cx);
        });
        moves
    }

    /// Other addresses that we can be reached at, beside that of each session: told to all peers that
    /// understand MOBIKE.
    pub fn set_additional_addresses(&mut self, now: Instant, addresses: Vec<IpAddr>) {
        if self.settings.additional_addresses == addresses {
            return;
        }
        self.settings.additional_addresses = addresses;
        let ids: Vec<SaId> = self.sas.keys().copied().collect();
        for id in ids {
            self.with(id, now, &mut NoHooks, |sa, cx| sa.tell_addresses(cx));
        }
    }

    /// Other addresses of a session's peer, as it says.
    pub fn peer_addresses(&self, id: SaId) -> &[IpAddr] {
        let entry = self.sas.get(&id);
        entry.map_or(&[], |entry| &entry.sa.core.peer_addresses[..])
    }

    /// The owner has heard an authentic, new ESP packet of a session from `remote`: a peer behind a
    /// NAT is there now, unless we are behind one too.
    pub fn peer_moved(&mut self, now: Instant, id: SaId, remote: SocketAddr) {
        self.with(id, now, &mut NoHooks, |sa, _| {
            sa.core.move_to(remote);
        });
    }

    /// The owner has sent ESP to the peer of a session: a keep-alive is not needed for a while.
    pub fn spoke(&mut self, now: Instant, id: SaId) {
        self.with(id, now, &mut NoHooks, |sa, cx| sa.spoke(cx));
    }
}
