//! An authority in the connectivity protocol: it makes edges known to each other and to itself, and takes and
//! sends IKE messages for those that want it so.

use std::net::SocketAddr;
use std::time::Instant;

use rand::Rng as _;
use zeroize::Zeroizing;

use super::Authority;
use crate::cluster::EdgeId;
use crate::cluster::connectivity::{AUTHORITY, Introduction, KEY, Output, Party};
use crate::cluster::wire::{Down, Relayed};
use crate::node::sockets::Datagram;

/// Where an edge takes part.
#[derive(Clone, Copy)]
pub(super) struct Here {
    at: SocketAddr,
    /// IKE goes that way: as it came last.
    messages: bool,
}

/// An edge as its authority has it among the parties.
fn party(number: EdgeId) -> Party {
    Party { link: 0, number }
}

/// A key for two, and what each of them is told of the other.
fn introduce(
    (one, one_at): (EdgeId, SocketAddr),
    (two, two_at): (EdgeId, SocketAddr),
) -> [Introduction; 2] {
    let mut key = Zeroizing::new([0; KEY]);
    rand::rng().fill_bytes(&mut *key);
    let epoch = rand::rng().next_u32();
    let told = |own, number, at| Introduction {
        own,
        number,
        at,
        key: key.as_slice().into(),
        epoch,
    };
    [told(one, two, two_at), told(two, one, one_at)]
}

impl Authority {
    /// An edge says that it takes part: it gets to know all who do, and they get to know it.
    pub(super) fn takes_part(&mut self, edge: EdgeId, at: SocketAddr, messages: bool) {
        let now = Instant::now();
        let Some(known) = self.edges.get_mut(&edge) else {
            return;
        };
        known.here = Some(Here { at, messages });
        if let Some(connectivity) = &mut self.connectivity {
            let own = (AUTHORITY, connectivity.at());
            let [told, tells] = introduce((edge, at), own);
            connectivity.core.introduce(0, &tells, now);
            self.listener.send(edge, Down::Acquaint(Box::new(told)));
        }
        let others = self.edges.iter().filter(|(other, _)| **other != edge);
        for (other, known) in others {
            let Some(there) = known.here else { continue };
            let [told, tells] = introduce((edge, at), (*other, there.at));
            self.listener.send(edge, Down::Acquaint(Box::new(told)));
            self.listener.send(*other, Down::Acquaint(Box::new(tells)));
        }
    }

    /// An edge is gone, or has connected anew: it has to say again that it takes part.
    pub(super) fn takes_part_no_more(&mut self, edge: EdgeId) {
        let known = self.edges.get_mut(&edge);
        if known.and_then(|known| known.here.take()).is_none() {
            return;
        }
        if let Some(connectivity) = &mut self.connectivity {
            connectivity.core.part(party(edge), Instant::now());
        }
        for (other, known) in &self.edges {
            if known.here.is_some() {
                self.listener.send(*other, Down::Part { number: edge });
            }
        }
    }

    /// An edge has got a pair from another one: it is told if that is not what there is.
    pub(super) fn fetched(&mut self, edge: EdgeId, spi: u32, sequence: u64) {
        match self.shared.get(&spi) {
            None => self.listener.send(edge, Down::Forget { spi }),
            Some(shared) if shared.carrier.sequence > sequence => {
                self.listener.send(edge, shared.install());
            }
            Some(_) => {}
        }
    }

    /// IKE has come from an edge, by a message or by the channel: answers go the same way. An edge that does not
    /// hear this node uses the channel.
    pub(super) fn answer_by(&mut self, edge: EdgeId, messages: bool) {
        let known = self.edges.get_mut(&edge);
        if let Some(here) = known.and_then(|known| known.here.as_mut()) {
            here.messages = messages;
        }
    }

    /// Sends an IKE message to an edge; what can not go in a datagram, or is not to, is given back.
    pub(super) fn relay_by_message(
        &mut self,
        edge: EdgeId,
        relayed: Relayed,
    ) -> Result<(), Relayed> {
        let here = self.edges.get(&edge).and_then(|known| known.here);
        let wanted = here.is_some_and(|here| here.messages);
        match self.connectivity.as_mut().filter(|_| wanted) {
            Some(connectivity) => connectivity.core.relay(party(edge), relayed),
            None => Err(relayed),
        }
    }

    /// Does what the connectivity protocol wants to be done. Says whether there was anything.
    pub(super) fn converse(&mut self) -> bool {
        let (mut worked, mut datagrams) = (false, Vec::<Datagram>::new());
        while let Some(connectivity) = &mut self.connectivity
            && let Some(output) = connectivity.next()
        {
            worked = true;
            match output {
                Output::Ike { from, relayed } => {
                    self.answer_by(from.number, true);
                    datagrams.extend(self.heard_from_client(from.number, relayed));
                }
                // Edges ask the authority by the channel.
                Output::Asked { from, id, .. } => connectivity.core.answer(from, id, Vec::new()),
                Output::Send { .. } | Output::Found { .. } | Output::Lacking { .. } => {}
            }
        }
        if !datagrams.is_empty() {
            self.negotiate(&datagrams);
        }
        worked
    }

    /// Something has come, or time has passed. `ticked`: it is time for what is done now and then.
    pub(super) fn poll_connectivity(&mut self, now: Instant, ticked: bool) {
        let pairs = self.shared.len() as u64;
        if let Some(connectivity) = &mut self.connectivity {
            connectivity.receive();
            if ticked {
                connectivity.core.have(pairs, 0, now);
            }
            connectivity.core.poll(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_told_the_same_key_and_nobody_ever_the_same_again() {
        let at = |last: u8| SocketAddr::from(([10, 0, 0, last], 4511));
        let (one, two) = ((EdgeId(1), at(1)), (EdgeId(2), at(2)));
        let [told, tells] = introduce(one, two);
        assert_eq!(
            (told.own, told.number, told.at),
            (EdgeId(1), EdgeId(2), at(2))
        );
        assert_eq!(
            (tells.own, tells.number, tells.at),
            (EdgeId(2), EdgeId(1), at(1))
        );
        assert_eq!((&told.key, told.epoch), (&tells.key, tells.epoch));
        assert_eq!(told.key.expose().len(), KEY);
        let [again, _] = introduce(one, two);
        assert_ne!(told.key, again.key);
    }
}
