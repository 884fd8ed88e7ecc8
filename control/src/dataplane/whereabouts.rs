//! Which sessions have their peer at an outside address: a few behind one NAT, else one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::sadb::SessionId;

/// Sessions by their peers' addresses. Those of IPv4, which most have, take half as much memory apart.
#[derive(Default)]
pub(super) struct Whereabouts {
    v4: BTreeSet<(Ipv4Addr, SessionId)>,
    v6: BTreeSet<(Ipv6Addr, SessionId)>,
}

impl Whereabouts {
    pub(super) fn insert(&mut self, peer: IpAddr, id: SessionId) {
        match peer {
            IpAddr::V4(peer) => self.v4.insert((peer, id)),
            IpAddr::V6(peer) => self.v6.insert((peer, id)),
        };
    }

    pub(super) fn remove(&mut self, peer: IpAddr, id: SessionId) {
        match peer {
            IpAddr::V4(peer) => self.v4.remove(&(peer, id)),
            IpAddr::V6(peer) => self.v6.remove(&(peer, id)),
        };
    }

    /// The sessions whose peer is there, the oldest first.
    pub(super) fn of(&self, peer: IpAddr) -> impl Iterator<Item = SessionId> {
        const ALL: (SessionId, SessionId) = (SessionId(0), SessionId(u64::MAX));
        let (v4, v6) = match peer {
            IpAddr::V4(peer) => (Some(self.v4.range((peer, ALL.0)..=(peer, ALL.1))), None),
            IpAddr::V6(peer) => (None, Some(self.v6.range((peer, ALL.0)..=(peer, ALL.1)))),
        };
        let v4 = v4.into_iter().flatten().map(|(_, id)| *id);
        v4.chain(v6.into_iter().flatten().map(|(_, id)| *id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_found_by_where_their_peers_are() {
        let peers = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|a| a.parse().unwrap());
        let [nat, other, v6] = peers;
        let mut at = Whereabouts::default();
        let all = [(nat, 7), (other, 2), (v6, 3), (nat, 1), (nat, u64::MAX)];
        for (peer, id) in all {
            at.insert(peer, SessionId(id));
        }
        let of = |at: &Whereabouts, peer| at.of(peer).map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(of(&at, nat), [1, 7, u64::MAX]);
        assert_eq!((of(&at, other), of(&at, v6)), (vec![2], vec![3]));
        at.remove(nat, SessionId(7));
        at.remove(v6, SessionId(3));
        at.remove(v6, SessionId(1));
        assert_eq!(of(&at, nat), [1, u64::MAX]);
        assert!(of(&at, v6).is_empty());
        assert!(of(&at, "192.0.2.3".parse().unwrap()).is_empty());
    }
}
