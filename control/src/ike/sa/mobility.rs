//! An IKE SA whose ends move (RFC 4555).

use std::net::IpAddr;

use super::super::nat::{IKE_PORT, NAT_T_PORT};
use super::super::state::Phase;
use super::super::task::mobike::{Addresses, ReturnRoutability, Update};
use super::super::task::{Cx, Request};
use super::Sa;

impl Sa {
    /// The owner has another address. Says whether the session goes on from there.
    pub(crate) fn local_moved(&mut self, local: IpAddr, cx: &mut Cx<'_>) -> bool {
        if !self.core.mobike || self.core.phase != Phase::Established {
            return false;
        }
        self.core.local.set_ip(local);
        for address in [&mut self.core.local, &mut self.core.remote] {
            if address.port() == IKE_PORT {
                address.set_port(NAT_T_PORT);
            }
        }
        // What is on its way was sent from the old address, and its answer would go there.
        let message = self.pending.as_ref().map(|p| p.message.clone());
        message
            .into_iter()
            .flatten()
            .for_each(|data| self.transmit(data, cx));
        // What it says of our addresses is not so any more (section 3.6).
        let anew = self.pending.as_ref().and_then(|p| p.task.elsewhere());
        anew.into_iter().for_each(|task| self.queue_once(task));
        self.core.wants_update = true;
        self.relocate(cx);
        true
    }

    /// Our other addresses have changed.
    pub(crate) fn tell_addresses(&mut self, cx: &mut Cx<'_>) {
        if self.core.mobike && self.core.phase == Phase::Established {
            self.start(Box::new(Addresses), cx);
        }
    }

    /// Tells the peer that we have moved, and asks one that has whether it receives there, before
    /// anything else that waits.
    pub(super) fn relocate(&mut self, cx: &mut Cx<'_>) {
        if self.core.phase != Phase::Established {
            return;
        }
        if std::mem::take(&mut self.core.wants_update) {
            self.ask_first(Box::new(Update::new()), cx);
        }
        if std::mem::take(&mut self.core.wants_check) {
            self.ask_first(Box::new(ReturnRoutability::new()), cx);
        }
    }

    /// Before all others, and but once: what it says it takes from how things are when its turn has
    /// come.
    fn ask_first(&mut self, task: Box<dyn Request>, cx: &mut Cx<'_>) {
        self.queue.retain(|other| other.name() != task.name());
        self.queue.push_front(task);
        self.go_on(cx);
    }
}

#[cfg(test)]
impl Sa {
    /// How many exchanges wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }
}
