//! Child SAs: what is offered, what is accepted, which keys they get (RFC 7296 sections 1.2, 2.9,
//! 2.17 and 2.19).

use std::net::IpAddr;

use super::super::Identity;
use super::super::event::{Child, Event, Failure};
use super::super::keys::EspKey;
use super::super::life::{ChildSa, Life};
use super::super::payload::Payload;
use super::super::payload::config::{Attribute, Config, Kind};
use super::super::payload::notify::kind;
use super::super::payload::sa::Proposal;
use super::super::payload::ts;
use super::super::proposal::{EspProposal, EspSuite, choose_esp, chosen_esp, offers};
use super::super::rank::Rank;
use super::super::settings::{AddressRequest, Initiate, Settings};
use super::super::state::{Core, Phase};
use super::super::ts::{TrafficSelector, is_narrowing, merge};
use super::{Cx, error, find};

/// Addresses of each family that one request may name.
const MOST_REQUESTED: usize = 8;

/// What we, as initiator, want for a child SA.
pub(crate) struct Offer {
    /// The SPI that we will receive on.
    pub(crate) spi: u32,
    addresses: Option<AddressRequest>,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
}

impl Offer {
    pub(crate) fn new(initiate: &Initiate, cx: &mut Cx<'_>) -> Offer {
        let or_any = |list: &Vec<TrafficSelector>| match list.is_empty() {
            true => vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()],
            false => list.clone(),
        };
        Offer {
            spi: cx.hooks.allocate_spi(None),
            addresses: initiate.request_addresses,
            local_ts: or_any(&initiate.local_ts),
            remote_ts: or_any(&initiate.remote_ts),
        }
    }

    /// CP, SA, TSi and TSr of the request.
    pub(crate) fn write(&self, settings: &Settings, payloads: &mut Vec<Payload>) {
        if let Some(AddressRequest { v4, v6 }) = self.addresses {
            let v4 = v4.map(Attribute::Ip4Address);
            let v6 = v6.map(|a| Attribute::Ip6Address(a.map(|a| (a, 128))));
            let attributes = v4.into_iter().chain(v6).collect();
            payloads.push(Payload::Config(Config {
                kind: Kind::Request,
                attributes,
            }));
        }
        let esp = offers(&settings.esp_proposals, |p: &EspProposal, n| {
            p.offer(n, self.spi)
        });
        payloads.push(Payload::Sa(esp));
        payloads.push(Payload::TsI(self.local_ts.clone()));
        payloads.push(Payload::TsR(self.remote_ts.clone()));
    }

    /// Reads the responder's choice; yields the child SA and our inner addresses.
    pub(crate) fn accept(
        &self,
        core: &Core,
        settings: &Settings,
        payloads: &[Payload],
    ) -> Result<(Child, Vec<IpAddr>), Failure> {
        let (sa, ts_i, ts_r) = parts(payloads);
        let (Some(sa), Some(local_ts), Some(remote_ts)) = (sa, ts_i, ts_r) else {
            let missing = Failure::WrongAnswer("IKE_AUTH without a child SA");
            return Err(error(payloads).map_or(missing, Failure::notified));
        };
        let (suite, spi_out) = chosen_esp(&settings.esp_proposals, sa).ok_or(
            Failure::WrongAnswer("the peer chose what was not offered for the child SA"),
        )?;
        if !is_narrowing(local_ts, &self.local_ts) || !is_narrowing(remote_ts, &self.remote_ts) {
            return Err(Failure::TsUnacceptable);
        }
        let assigned = self.assigned(payloads)?;
        let selectors = (local_ts.clone(), remote_ts.clone());
        let child = make(core, suite, self.spi, spi_out, selectors).ok_or(NO_KEYS)?;
        Ok((child, assigned))
    }

    fn assigned(&self, payloads: &[Payload]) -> Result<Vec<IpAddr>, Failure> {
        let Some(AddressRequest { v4, v6 }) = self.addresses else {
            return Ok(Vec::new());
        };
        let reply = payloads.iter().filter_map(|p| match p {
            Payload::Config(c) if c.kind == Kind::Reply => Some(&c.attributes),
            _ => None,
        });
        let granted = reply.flatten().filter_map(|attribute| match attribute {
            Attribute::Ip4Address(Some(a)) if v4.is_some() => Some(IpAddr::V4(*a)),
            Attribute::Ip6Address(Some((a, _))) if v6.is_some() => Some(IpAddr::V6(*a)),
            _ => None,
        });
        let granted: Vec<IpAddr> = granted.take(MOST_REQUESTED).collect();
        match granted.is_empty() && (v4.is_some() || v6.is_some()) {
            true => Err(Failure::InternalAddressFailure),
            false => Ok(granted),
        }
    }
}

const NO_KEYS: Failure = Failure::WrongAnswer("a child SA before IKE_SA_INIT");

/// Makes the child SA that an IKE_AUTH request asks for: yields it and the payloads that answer.
/// `assigned` is filled as soon as the owner has assigned something, also if the child SA fails
/// later.
///
/// # Errors
/// The notification to answer with, and what the owner is told.
pub(crate) fn respond_first(
    core: &Core,
    cx: &mut Cx<'_>,
    payloads: &[Payload],
    peer: &Identity,
    assigned: &mut Vec<IpAddr>,
) -> Result<(Child, Vec<Payload>), (u16, Failure)> {
    let (sa, ts_i, ts_r) = parts(payloads);
    let (Some(sa), Some(ts_i), Some(ts_r)) = (sa, ts_i, ts_r) else {
        let missing = Failure::WrongAnswer("IKE_AUTH without a child SA");
        return Err((kind::NO_PROPOSAL_CHOSEN, missing));
    };
    let (suite, spi_out, mut chosen) = choose_esp(&cx.settings.esp_proposals, sa)
        .ok_or((kind::NO_PROPOSAL_CHOSEN, Failure::NoProposalChosen))?;
    let mut answer = Vec::new();
    if let Some(request) = find(payloads, |p| match p {
        Payload::Config(c) if c.kind == Kind::Request => Some(c),
        _ => None,
    }) {
        *assigned = assign(cx, peer, request, core.former_addresses()).ok_or((
            kind::INTERNAL_ADDRESS_FAILURE,
            Failure::InternalAddressFailure,
        ))?;
        let attributes = assigned.iter().map(|a| match a {
            IpAddr::V4(a) => Attribute::Ip4Address(Some(*a)),
            IpAddr::V6(a) => Attribute::Ip6Address(Some((*a, 128))),
        });
        let attributes = attributes.collect();
        answer.push(Payload::Config(Config {
            kind: Kind::Reply,
            attributes,
        }));
    }
    let unacceptable = (kind::TS_UNACCEPTABLE, Failure::TsUnacceptable);
    let (local, remote) = match cx.hooks.selectors(peer, assigned, ts_r, ts_i) {
        Ok((local, remote)) if is_narrowing(&local, ts_r) && is_narrowing(&remote, ts_i) => {
            (merge_within(local, ts_r), merge_within(remote, ts_i))
        }
        _ => return Err(unacceptable),
    };
    for list in [&local, &remote] {
        ts::check(list).map_err(|too_many| (kind::TS_UNACCEPTABLE, too_many.into()))?;
    }
    // Last of all, so that no SPI is allocated in vain.
    let spi_in = cx.hooks.allocate_spi(None);
    chosen.spi = spi_in.to_be_bytes().to_vec();
    answer.push(Payload::Sa(vec![chosen]));
    answer.push(Payload::TsI(remote.clone()));
    answer.push(Payload::TsR(local.clone()));
    let child = make(core, suite, spi_in, spi_out, (local, remote));
    Ok((child.ok_or((kind::INVALID_SYNTAX, NO_KEYS))?, answer))
}

/// Merges what narrows `proposed`, unless that joins what the peer has proposed apart: then it would
/// not know it again.
pub(super) fn merge_within(
    narrowed: Vec<TrafficSelector>,
    proposed: &[TrafficSelector],
) -> Vec<TrafficSelector> {
    let merged = merge(&narrowed);
    match is_narrowing(&merged, proposed) {
        true => merged,
        false => narrowed,
    }
}

/// `former`: what the peer has had, unless it names others.
fn assign(
    cx: &mut Cx<'_>,
    peer: &Identity,
    request: &Config,
    former: &[IpAddr],
) -> Option<Vec<IpAddr>> {
    let (mut requested, mut wants_v4, mut wants_v6) = (Vec::new(), false, false);
    for attribute in &request.attributes {
        let named = match attribute {
            Attribute::Ip4Address(a) => {
                wants_v4 = true;
                a.filter(|a| !a.is_unspecified()).map(IpAddr::V4)
            }
            Attribute::Ip6Address(a) => {
                wants_v6 = true;
                a.filter(|(a, _)| !a.is_unspecified())
                    .map(|(a, _)| IpAddr::V6(a))
            }
            Attribute::Other { .. } => None,
        };
        requested.extend(named.filter(|_| requested.len() < MOST_REQUESTED));
    }
    let names = |v4| requested.iter().any(|a: &IpAddr| a.is_ipv4() == v4);
    let (v4, v6) = (names(true), names(false));
    let again = former
        .iter()
        .filter(|a| if a.is_ipv4() { !v4 } else { !v6 });
    requested.extend(again);
    cx.hooks.assign(peer, &requested, wants_v4, wants_v6).ok()
}

type Parts<'a> = (
    Option<&'a [Proposal]>,
    Option<&'a Vec<TrafficSelector>>,
    Option<&'a Vec<TrafficSelector>>,
);

/// SA, TSi and TSr of a message.
pub(super) fn parts(payloads: &[Payload]) -> Parts<'_> {
    (
        find(payloads, |p| {
            if let Payload::Sa(sa) = p {
                Some(sa.as_slice())
            } else {
                None
            }
        }),
        find(payloads, |p| {
            if let Payload::TsI(ts) = p {
                Some(ts)
            } else {
                None
            }
        }),
        find(payloads, |p| {
            if let Payload::TsR(ts) = p {
                Some(ts)
            } else {
                None
            }
        }),
    )
}

/// Keys and selectors (local, remote) make a child SA.
fn make(
    core: &Core,
    suite: EspSuite,
    spi_in: u32,
    spi_out: u32,
    (local_ts, remote_ts): (Vec<TrafficSelector>, Vec<TrafficSelector>),
) -> Option<Child> {
    let (keys, handshake) = (core.keys.as_ref()?, core.handshake.as_ref()?);
    let nonces = [handshake.nonce(true), handshake.nonce(false)];
    let made = keys.child(suite.cipher, nonces);
    let selectors = (local_ts, remote_ts);
    Some(keyed(
        suite,
        made,
        core.initiator,
        [spi_in, spi_out],
        selectors,
    ))
}

/// Puts together what a child SA is made of. Keys: initiator to responder of the exchange first;
/// `began`: that is us. SPIs: the inbound one first.
pub(super) fn keyed(
    suite: EspSuite,
    (to_responder, to_initiator): (EspKey, EspKey),
    began: bool,
    [spi_in, spi_out]: [u32; 2],
    (local_ts, remote_ts): (Vec<TrafficSelector>, Vec<TrafficSelector>),
) -> Child {
    let (out, inbound) = match began {
        true => (to_responder, to_initiator),
        false => (to_initiator, to_responder),
    };
    Child {
        spi_in,
        spi_out,
        lane: 0,
        own_port: false,
        cipher: suite.cipher,
        key_in: inbound.key,
        salt_in: *inbound.salt,
        key_out: out.key,
        salt_out: *out.salt,
        esn: suite.esn,
        local_ts,
        remote_ts,
    }
}

impl Core {
    /// Both sides are authenticated and have a child SA: tells the owner, and lets go of what was
    /// needed to get here.
    pub(crate) fn establish(&mut self, cx: &mut Cx<'_>, child: Child, assigned: Vec<IpAddr>) {
        let (Some(keys), Some(peer), Some(handshake)) =
            (&self.keys, &self.peer, self.handshake.take())
        else {
            return;
        };
        let (settings, began) = (cx.settings, self.initiator);
        self.life = Life::new(settings.ike_lifetime, cx.now, began, cx.rng);
        let life = Life::new(settings.child_lifetime, cx.now, began, cx.rng);
        self.children.push(ChildSa::new(&child, life));
        self.assigned.clone_from(&assigned);
        self.phase = Phase::Established;
        self.established = Some(cx.now);
        self.spi_in = None;
        cx.stats.established += 1;
        let resumed = handshake.resumed.is_some();
        cx.stats.resumed += u64::from(resumed);
        cx.events.push(Event::Established {
            id: self.id,
            initiator: self.initiator,
            local: self.local,
            remote: self.remote,
            peer: peer.clone(),
            assigned,
            child,
            vendor_ids: std::mem::take(&mut self.vendor_ids),
            exporter: keys.exporter(),
            nat: self.nat,
            rank: Rank::new(&handshake.nonces),
            resumed,
        });
    }
}
