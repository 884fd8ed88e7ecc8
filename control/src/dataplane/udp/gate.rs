//! What the XDP program of the outside does, where there is none: the same code with tables of its own.

use std::collections::HashMap;
use std::net::IpAddr;

use evergate_common::maps::{Address, AddressEntry, Local, NodeState, SaEntry, address};
use evergate_common::reason::Counter;
use evergate_common::verdict::{self, Action, OutsideWorld};
use evergate_common::wire::ETHERNET_LEN;
use rustc_hash::FxHashMap;

use crate::dataplane::command::Steer;
use crate::dataplane::loader::{OutsideSettings, monotonic_ns};
use crate::dataplane::xsk::{Frame, Umem};

/// What becomes of a frame.
pub(in crate::dataplane) enum Judged {
    /// It is the core's; it is counted as this, if it was not counted before.
    Take(Option<Counter>),
    /// It has become an IP packet to send, counted as this.
    Answer(Counter),
    /// Its content was taken in, counted as this.
    Done(Counter),
    /// It is dropped for this reason.
    Drop(Counter),
}

/// The tables of a node without an XDP program on its outside.
pub(in crate::dataplane) struct Gate {
    settings: OutsideSettings,
    sas: FxHashMap<[u8; 4], SaEntry>,
    addresses: HashMap<Address, AddressEntry>,
    node: NodeState,
}

impl Gate {
    /// Tables with nothing in them; no heartbeat is answered before [`Self::set_alive_until`].
    pub(in crate::dataplane) fn new(settings: OutsideSettings) -> Self {
        Self {
            settings,
            sas: FxHashMap::default(),
            addresses: HashMap::new(),
            node: NodeState::default(),
        }
    }

    /// Carries out a change of what is steered to the worker.
    pub(in crate::dataplane) fn steer(&mut self, change: Steer) {
        match change {
            Steer::AddSa(spi, entry) => {
                self.sas.insert(spi.to_be_bytes(), entry);
            }
            Steer::RemoveSa(spi) => {
                self.sas.remove(&spi.to_be_bytes());
            }
            Steer::AddPeer(peer) => {
                self.change(peer, |old| AddressEntry::new(true, old.never_reflect()));
            }
            Steer::RemovePeer(peer) => {
                self.change(peer, |old| AddressEntry::new(false, old.never_reflect()));
            }
            Steer::NeverReflect(own) => {
                self.change(own, |old| AddressEntry::new(old.peer(), true));
            }
        }
    }

    fn change(&mut self, ip: IpAddr, new: impl FnOnce(AddressEntry) -> AddressEntry) {
        let key = address(ip);
        let entry = new(self.addresses.get(&key).copied().unwrap_or_default());
        match entry == AddressEntry::default() {
            true => self.addresses.remove(&key),
            false => self.addresses.insert(key, entry),
        };
    }

    /// As [`NodeStateWriter::set_alive_until`](super::super::loader::NodeStateWriter::set_alive_until).
    pub(in crate::dataplane) fn set_alive_until(&mut self, nanoseconds: u64) {
        self.node = NodeState::new(nanoseconds, self.node.health(), self.node.silent());
    }

    /// The health byte of keyed answers.
    pub(in crate::dataplane) fn set_health(&mut self, health: u8) {
        self.node = NodeState::new(self.node.alive_until(), health, self.node.silent());
    }

    /// Whether to answer no heartbeat at all.
    pub(in crate::dataplane) fn set_silent(&mut self, silent: bool) {
        self.node = NodeState::new(self.node.alive_until(), self.node.health(), silent);
    }

    /// Judges a frame as the XDP program would. An answer is made in place.
    pub(in crate::dataplane) fn judge(&self, umem: &mut Umem, frame: &mut Frame) -> Judged {
        let bytes = umem.packet(frame);
        match self.decide(bytes) {
            Ok(Action::Steer(counter)) => Judged::Take(Some(counter)),
            Ok(Action::Absorb(counter)) => Judged::Done(counter),
            Ok(Action::Reflect(reflection)) => match reflection.apply(bytes) {
                Some(()) => {
                    let range = frame.range();
                    frame.set_range(range.start + ETHERNET_LEN..range.end);
                    Judged::Answer(reflection.counter())
                }
                None => Judged::Drop(Counter::Malformed),
            },
            // Neither for us nor for anybody else: the socket is ours alone.
            Ok(Action::Pass | Action::Guard) => Judged::Drop(Counter::NotOurs),
            Err(reason) => Judged::Drop(reason),
        }
    }

    fn decide(&self, frame: &[u8]) -> Result<Action, Counter> {
        verdict::outside(frame, self)
    }
}

impl OutsideWorld for Gate {
    fn sa(&self, spi: &[u8; 4]) -> Option<&SaEntry> {
        self.sas.get(spi)
    }

    fn address(&self, address: &Address) -> AddressEntry {
        self.addresses.get(address).copied().unwrap_or_default()
    }

    fn node(&self) -> Option<NodeState> {
        Some(self.node)
    }

    /// The socket is bound to the node's address: what comes by it is addressed to us.
    fn local(&self) -> Option<&Local> {
        None
    }

    fn passed(&self, time: u64) -> bool {
        monotonic_ns() > time
    }

    fn reflect_plain(&self) -> bool {
        self.settings.reflect_plain
    }

    fn reflect_keyed(&self) -> bool {
        self.settings.reflect_keyed
    }

    fn strangers(&self) -> bool {
        self.settings.strangers
    }

    fn shared(&self) -> bool {
        self.settings.shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::udp::headers;
    use evergate_common::heartbeat;

    const SPI: u32 = 0x1234_5678;
    const KEY: [u8; 16] = [7; 16];

    /// A datagram from the peer as the port makes a frame of it.
    fn frame(payload: &[u8], from: &str) -> Vec<u8> {
        let mut frame = vec![0; headers::MOST];
        frame.extend_from_slice(payload);
        let (from, to) = (from.parse().unwrap(), "192.0.2.1:4500".parse().unwrap());
        let range = headers::put(&mut frame, headers::MOST, payload.len(), from, to, 0).unwrap();
        frame[range].to_vec()
    }

    fn gate() -> Gate {
        let mut gate = Gate::new(OutsideSettings::default());
        let peer: IpAddr = "198.51.100.7".parse().unwrap();
        let entry = SaEntry::new(Some(KEY), Some(peer)).from_port(4500);
        gate.steer(Steer::AddSa(SPI, entry));
        gate.steer(Steer::AddPeer(peer));
        gate.set_alive_until(u64::MAX);
        gate
    }

    fn request() -> [u8; heartbeat::KEYED_LEN] {
        heartbeat::encode_request(&KEY, 5, SPI.to_be_bytes(), [1; 8])
    }

    #[test]
    fn esp_of_a_session_is_taken_and_of_others_not() {
        let mut gate = gate();
        let esp = [&SPI.to_be_bytes()[..], &[0; 40]].concat();
        let from = "198.51.100.7:4500";
        let steered = Ok(Action::Steer(Counter::EspSteered));
        assert_eq!(gate.decide(&frame(&esp, from)), steered);
        gate.steer(Steer::RemoveSa(SPI));
        assert_eq!(gate.decide(&frame(&esp, from)), Err(Counter::UnknownSpi));
    }

    #[test]
    fn esp_of_others_is_taken_where_sas_are_shared() {
        let gate = Gate::new(OutsideSettings {
            shared: true,
            ..OutsideSettings::default()
        });
        let esp = [&SPI.to_be_bytes()[..], &[0; 40]].concat();
        let taken = Ok(Action::Steer(Counter::EspUnknown));
        assert_eq!(gate.decide(&frame(&esp, "198.51.100.7:4500")), taken);
    }

    #[test]
    fn a_keyed_heartbeat_is_answered_by_its_peer_while_the_node_lives() {
        let mut gate = gate();
        let from = "198.51.100.7:4500";
        gate.set_health(heartbeat::HEALTH_DRAINING);
        let mut asked = frame(&request(), from);
        let Ok(Action::Reflect(reflection)) = gate.decide(&asked) else {
            panic!("no answer");
        };
        reflection.apply(&mut asked[..]).unwrap();
        let (to, payload, _) = headers::read(&asked[14..]).unwrap();
        assert_eq!(to, from.parse().unwrap());
        let answer = heartbeat::verify_answer(&asked[14 + payload..], &KEY).unwrap();
        assert_eq!(answer.health, heartbeat::HEALTH_DRAINING);

        let elsewhere = gate.decide(&frame(&request(), "198.51.100.8:4500"));
        assert_eq!(elsewhere, Err(Counter::HeartbeatPeer));
        gate.set_silent(true);
        let silent = gate.decide(&frame(&request(), from));
        assert_eq!(silent, Err(Counter::HeartbeatSilent));
        gate.set_silent(false);
        gate.set_alive_until(1);
        let dead = gate.decide(&frame(&request(), from));
        assert_eq!(dead, Err(Counter::HeartbeatDead));
    }

    #[test]
    fn what_comes_from_ourselves_is_never_reflected() {
        let mut gate = gate();
        gate.steer(Steer::NeverReflect("198.51.100.7".parse().unwrap()));
        let own = gate.decide(&frame(&request(), "198.51.100.7:4500"));
        assert_eq!(own, Err(Counter::HeartbeatOwn));
    }
}
