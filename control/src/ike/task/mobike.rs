//! MOBIKE (RFC 4555): a session goes on from another address.
//!
//! ```text
//! HDR, SK {N(UPDATE_SA_ADDRESSES), N(NAT_DETECTION_*)} -->
//!                                <-- HDR, SK {N(NAT_DETECTION_*)}
//!                                <-- HDR, SK {N(COOKIE2)}
//! HDR, SK {N(COOKIE2)} -->
//! ```
//!
//! The second exchange proves that the peer receives where it says it is; before that no ESP goes
//! there (section 3.7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use subtle::ConstantTimeEq;

use super::super::event::{CloseReason, Event, Failure, Nat};
use super::super::nat;
use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::settings::Settings;
use super::super::state::Core;
use super::{Cx, Request, Response, Step, error, notifies, notify};

/// Other addresses of a peer that are kept.
const MOST_ADDRESSES: usize = 16;

/// Bytes of a COOKIE2 (section 4.2.5), of others and of ours.
const COOKIE2: std::ops::RangeInclusive<usize> = 8..=64;
const OUR_COOKIE2: usize = 16;

/// What IKE_AUTH says of MOBIKE: that it is understood, and where else we are.
pub(super) fn announce(settings: &Settings) -> Vec<Payload> {
    if !settings.mobike {
        return Vec::new();
    }
    let supported = Payload::Notify(Notify::new(kind::MOBIKE_SUPPORTED, []));
    let others = settings.additional_addresses.iter().map(additional);
    std::iter::once(supported).chain(others).collect()
}

/// Takes in what the peer's IKE_AUTH says of it.
pub(super) fn learn(core: &mut Core, settings: &Settings, payloads: &[Payload]) {
    // Without NAT detection there is no port 4500 to go over to (section 3.3).
    core.mobike = settings.mobike && notify(payloads, kind::MOBIKE_SUPPORTED).is_some();
    if core.mobike {
        learn_addresses(core, payloads);
    }
}

fn additional(address: &IpAddr) -> Payload {
    Payload::Notify(match address {
        IpAddr::V4(ip) => Notify::new(kind::ADDITIONAL_IP4_ADDRESS, ip.octets()),
        IpAddr::V6(ip) => Notify::new(kind::ADDITIONAL_IP6_ADDRESS, ip.octets()),
    })
}

/// A message that names addresses names all of them (section 3.6).
fn learn_addresses(core: &mut Core, payloads: &[Payload]) {
    let named = notifies(payloads).filter_map(|n| match n.kind {
        kind::ADDITIONAL_IP4_ADDRESS => {
            let octets = <[u8; 4]>::try_from(n.data.as_slice()).ok()?;
            Some(IpAddr::from(Ipv4Addr::from(octets)))
        }
        kind::ADDITIONAL_IP6_ADDRESS => {
            let octets = <[u8; 16]>::try_from(n.data.as_slice()).ok()?;
            Some(IpAddr::from(Ipv6Addr::from(octets)))
        }
        _ => None,
    });
    let named: Vec<IpAddr> = named.take(MOST_ADDRESSES).collect();
    if !named.is_empty() || notify(payloads, kind::NO_ADDITIONAL_ADDRESSES).is_some() {
        core.peer_addresses = named;
    }
}

/// Tells the peer all our other addresses, or that there are none.
pub(crate) struct Addresses;

impl Request for Addresses {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn elsewhere(&self) -> Option<Box<dyn Request>> {
        Some(Box::new(Addresses))
    }

    fn is_due(&self, core: &Core) -> bool {
        core.mobike
    }

    fn build(&mut self, _: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        let others = &cx.settings.additional_addresses;
        if others.is_empty() {
            let none = Notify::new(kind::NO_ADDITIONAL_ADDRESSES, []);
            return vec![Payload::Notify(none)];
        }
        others.iter().map(additional).collect()
    }

    fn process(&mut self, _: &mut Core, _: &mut Cx<'_>, _: &Response<'_>) -> Step {
        Step::Done
    }
}

/// Tells the peer where we are now.
pub(crate) struct Update {
    /// Our address when the request was built; it may have changed since.
    local: Option<SocketAddr>,
}

impl Update {
    pub(crate) fn new() -> Update {
        Update { local: None }
    }
}

impl Request for Update {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn is_due(&self, core: &Core) -> bool {
        core.mobike && core.is_announced()
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        self.local = Some(core.local);
        core.seen_as = None;
        let update = Payload::Notify(Notify::new(kind::UPDATE_SA_ADDRESSES, []));
        let mut payloads = vec![update];
        payloads.extend(nat::detection(core, cx.settings));
        payloads
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        if let Some(refused) = error(response.payloads) {
            // There is no other address to try.
            core.closing = CloseReason::Error(Failure::notified(refused));
            core.wants_delete = true;
            return Step::Done;
        }
        // Further moves have requests of their own.
        if self.local == Some(core.local) {
            core.relearn_nat(response.payloads, cx.settings, core.local, core.remote);
            note_seen_as(core, response.payloads);
            core.relocated(cx);
        }
        Step::Done
    }
}

/// Asks a peer to prove that it receives where it says it is.
pub(crate) struct ReturnRoutability {
    cookie: Vec<u8>,
    /// What it is asked of; it may change before the answer.
    at: Option<(SocketAddr, SocketAddr, Nat)>,
}

impl ReturnRoutability {
    pub(crate) fn new() -> ReturnRoutability {
        ReturnRoutability {
            cookie: Vec::new(),
            at: None,
        }
    }
}

impl Request for ReturnRoutability {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn is_due(&self, core: &Core) -> bool {
        core.is_announced()
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        self.cookie = vec![0; OUR_COOKIE2];
        cx.rng.fill_bytes(&mut self.cookie);
        self.at = Some((core.local, core.remote, core.nat));
        core.wants_check = false;
        vec![Payload::Notify(Notify::new(
            kind::COOKIE2,
            self.cookie.clone(),
        ))]
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        let returned = notify(response.payloads, kind::COOKIE2);
        let same = returned.is_some_and(|n| self.cookie.ct_eq(&n.data).into());
        if !same {
            // Section 3.7: the IKE SA must be closed.
            core.closing = CloseReason::Error(Failure::WrongAnswer("another COOKIE2"));
            core.wants_delete = true;
        } else if self.at == Some((core.local, core.remote, core.nat)) {
            core.relocated(cx);
        } else {
            // Asked of another place than it is at now.
            core.wants_check = true;
        }
        Step::Done
    }
}

/// Answers what an INFORMATIONAL request says of addresses.
pub(super) fn respond(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Vec<Payload> {
    let Some((local, remote)) = core.heard_at.filter(|_| core.mobike) else {
        return Vec::new();
    };
    // Whatever else is answered (section 3.7).
    let cookie = notify(payloads, kind::COOKIE2).filter(|n| COOKIE2.contains(&n.data.len()));
    let mut answer: Vec<Payload> = cookie.cloned().map(Payload::Notify).into_iter().collect();
    let mut refused = |kind| {
        let refusal = Payload::Notify(Notify::new(kind, []));
        std::iter::once(refusal).chain(answer.drain(..)).collect()
    };
    if is_translated(payloads, remote, local) {
        return refused(kind::UNEXPECTED_NAT_DETECTED);
    }
    learn_addresses(core, payloads);
    if notify(payloads, kind::UPDATE_SA_ADDRESSES).is_some() && core.is_announced() {
        let peer = core.peer.as_ref();
        let may = |peer| cx.hooks.may_move(peer, remote.ip());
        if !may_be_at(remote) || !peer.is_some_and(may) {
            return refused(kind::UNACCEPTABLE_ADDRESSES);
        }
        let before = (core.local, core.remote, core.nat);
        (core.local, core.remote) = (local, remote);
        core.relearn_nat(payloads, cx.settings, local, remote);
        if before != (core.local, core.remote, core.nat) {
            core.wants_check = true;
        }
    }
    if notify(payloads, kind::NAT_DETECTION_SOURCE_IP).is_some() {
        answer.extend(nat::detection_between(core, cx.settings, local, remote));
    }
    answer
}

fn may_be_at(address: SocketAddr) -> bool {
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
}

/// Whether a message that names or changes addresses has come otherwise than it was sent, where the
/// peer allows no NATs (section 3.9).
pub(super) fn is_translated(
    payloads: &[Payload],
    source: SocketAddr,
    destination: SocketAddr,
) -> bool {
    let none = notify(payloads, kind::NO_NATS_ALLOWED);
    none.is_some_and(|n| n.data != no_nats(source, destination))
}

/// Data of NO_NATS_ALLOWED (section 4.2.6): both addresses and ports as the sender has them.
fn no_nats(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let octets = |at: SocketAddr| match at.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = [source, destination].map(|at| at.port().to_be_bytes());
    let [from, to] = ports;
    [
        octets(source),
        octets(destination),
        from.to_vec(),
        to.to_vec(),
    ]
    .concat()
}

/// Behind a NAT: the hashes by which a question about the peer's life also tells a new mapping
/// (section 3.8).
pub(super) fn question(core: &Core, settings: &Settings) -> Vec<Payload> {
    match core.mobike && core.nat.local {
        true => nat::detection(core, settings).into(),
        false => Vec::new(),
    }
}

/// The peer sees us elsewhere than before: our NAT has another mapping, which the peer must hear
/// of.
pub(super) fn answered(core: &mut Core, payloads: &[Payload]) {
    if !core.mobike || !core.nat.local {
        return;
    }
    let before = core.seen_as.take();
    note_seen_as(core, payloads);
    core.wants_update = before.is_some() && core.seen_as.is_some() && before != core.seen_as;
}

fn note_seen_as(core: &mut Core, payloads: &[Payload]) {
    let hash = notify(payloads, kind::NAT_DETECTION_DESTINATION_IP);
    core.seen_as = hash.map(|n| n.data.clone());
}

impl Core {
    /// The owner moves the child SAs.
    fn relocated(&self, cx: &mut Cx<'_>) {
        cx.events.push(Event::Relocated {
            id: self.id,
            local: self.local,
            remote: self.remote,
            nat: self.nat,
        });
    }
}
