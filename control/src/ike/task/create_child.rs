//! CREATE_CHILD_SA (RFC 7296 section 1.3): what its three forms share, and the one for a further
//! child SA.
//!
//! ```text
//! HDR, SK {SA, Ni, [KEi,] TSi, TSr} -->
//!                                <-- HDR, SK {SA, Nr, [KEr,] TSi, TSr}
//! ```

use super::super::crypto::{Group, KeyPair, Secret};
use super::super::event::{Child, CloseReason, Event, Failure, Outbound};
use super::super::life::{Busy, ChildSa, Life, Lowest};
use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::ke::KeyExchange;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::sa::{Proposal, Transform, protocol, transform};
use super::super::payload::ts;
use super::super::proposal::{EspProposal, choose_esp, chosen_esp, offers};
use super::super::settings::{Beside, Settings};
use super::super::state::{Core, Phase};
use super::super::ts::{TrafficSelector, is_narrowing, merge};
use super::child::{keyed, merge_within, parts};
use super::informational::DeleteChild;
use super::init::{initiator_nonce, key_exchange, nonce};
use super::{Cx, Request, Response, Step, error, find, notify, rekey_child, rekey_ike};

/// Children that have been replaced and wait for their deletion, for each one in use: of more the
/// peer must first delete some.
const MOST_REPLACED: usize = 4;

/// Local and remote.
pub(super) type Selectors = (Vec<TrafficSelector>, Vec<TrafficSelector>);

/// What we, as initiator, want for a child SA that is made after the first one.
pub(super) struct Wish {
    /// The SPI that we will receive on.
    pub(super) spi: u32,
    lane: u16,
    ni: Vec<u8>,
    pair: Option<KeyPair>,
    /// The responder has asked for another method: once is enough for whoever means it.
    changed: bool,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
}

/// A child SA that an exchange has made.
pub(super) struct Made {
    pub(super) child: Child,
    pub(super) nonces: Lowest,
}

impl Wish {
    pub(super) fn new(
        cx: &mut Cx<'_>,
        lane: u16,
        beside: Option<Beside>,
        (local_ts, remote_ts): Selectors,
    ) -> Wish {
        let group = cx.settings.child_groups.first().copied();
        Wish {
            spi: cx.hooks.allocate_spi(beside),
            lane,
            ni: nonce(cx),
            pair: group.map(|group| KeyPair::generate(group, cx.rng)),
            changed: false,
            local_ts,
            remote_ts,
        }
    }

    /// [N(SA_RESOURCE_INFO),] SA, Ni, [KEi,] TSi and TSr of the request.
    pub(super) fn write(&self, settings: &Settings, payloads: &mut Vec<Payload>) {
        let mut esp = offers(&settings.esp_proposals, |p: &EspProposal, n| {
            p.offer(n, self.spi)
        });
        if !settings.child_groups.is_empty() {
            // NONE comes last: a peer that wants no key exchange may choose it.
            let groups = settings.child_groups.iter().map(|g| g.number());
            let groups = groups.chain([NONE]).map(ke_transform);
            for proposal in &mut esp {
                proposal.transforms.extend(groups.clone());
            }
        }
        if self.lane > 0 {
            payloads.push(resource(settings.own_ports));
        }
        payloads.push(Payload::Sa(esp));
        payloads.push(Payload::Nonce(self.ni.clone()));
        payloads.extend(self.pair.as_ref().map(key_exchange));
        payloads.push(Payload::TsI(self.local_ts.clone()));
        payloads.push(Payload::TsR(self.remote_ts.clone()));
    }

    /// The responder wants another key exchange method: whether it can have it.
    pub(super) fn change_group(&mut self, wanted: &Notify, cx: &mut Cx<'_>) -> bool {
        let Some(group) = wanted_group(wanted, cx.settings.child_groups.iter()) else {
            return false;
        };
        let current = self.pair.as_ref().map(KeyPair::group);
        if current == Some(group) || std::mem::replace(&mut self.changed, true) {
            return false;
        }
        self.pair = Some(KeyPair::generate(group, cx.rng));
        true
    }

    /// Reads the responder's choice.
    pub(super) fn accept(
        &self,
        core: &Core,
        settings: &Settings,
        payloads: &[Payload],
    ) -> Result<Made, Failure> {
        let wrong = Failure::WrongAnswer;
        let (Some(sa), Some(local_ts), Some(remote_ts)) = parts(payloads) else {
            let missing = wrong("CREATE_CHILD_SA without a child SA");
            return Err(error(payloads).map_or(missing, Failure::notified));
        };
        let nr = initiator_nonce(payloads).ok_or(wrong("CREATE_CHILD_SA without a nonce"))?;
        let (without, groups) = split_groups(sa);
        let (suite, spi_out) = chosen_esp(&settings.esp_proposals, &without)
            .ok_or(wrong("the peer chose what was not offered for a child SA"))?;
        let shared = match (groups.as_slice(), &self.pair, ke_of(payloads)) {
            ([] | [NONE], _, None) => Secret::default(),
            ([chosen], Some(pair), Some(ke))
                if *chosen == pair.group().number() && ke.group == *chosen =>
            {
                let bad = wrong("the peer's public value is bad");
                pair.agree(&ke.public).ok_or(bad)?
            }
            _ => {
                return Err(wrong(
                    "the peer's key exchange is not the one that was offered",
                ));
            }
        };
        if !is_narrowing(local_ts, &self.local_ts) || !is_narrowing(remote_ts, &self.remote_ts) {
            return Err(Failure::TsUnacceptable);
        }
        let nonces = [&self.ni[..], nr];
        let no_keys = wrong("a child SA before IKE_SA_INIT");
        let keys = core.keys.as_ref().ok_or(no_keys)?;
        let made = keys.child_with(suite.cipher, &shared, nonces);
        let selectors = (local_ts.clone(), remote_ts.clone());
        let mut child = keyed(suite, made, true, [self.spi, spi_out], selectors);
        (child.lane, child.own_port) = (self.lane, self.lane > 0 && settings.own_ports);
        Ok(Made {
            child,
            nonces: Lowest::of(nonces),
        })
    }
}

/// Data of SA_RESOURCE_INFO, which is free: its sender may send from another port than that of IKE.
const OWN_PORT: [u8; 1] = *b"P";

/// Says that a child SA is one resource's (RFC 9611 section 5). Which one is nobody's business.
fn resource(own_port: bool) -> Payload {
    let data: &[u8] = if own_port { &OWN_PORT } else { &[] };
    Payload::Notify(Notify::new(kind::SA_RESOURCE_INFO, data))
}

/// The number of no key exchange.
const NONE: u16 = 0;

fn ke_transform(number: u16) -> Transform {
    Transform::new(transform::KE, number, None)
}

/// The Key Exchange payload.
pub(super) fn ke_of(payloads: &[Payload]) -> Option<&KeyExchange> {
    find(payloads, |p| {
        if let Payload::Ke(ke) = p {
            Some(ke)
        } else {
            None
        }
    })
}

/// The key exchange method that INVALID_KE_PAYLOAD asks for, if it is one of ours: an attacker must
/// not talk us into another one.
pub(super) fn wanted_group<'a>(
    wanted: &Notify,
    mut offered: impl Iterator<Item = &'a Group>,
) -> Option<Group> {
    let number = u16::from_be_bytes(wanted.data.as_slice().try_into().ok()?);
    offered.find(|g| g.number() == number).copied()
}

/// Proposals without their key exchange methods, and those.
fn split_groups(proposals: &[Proposal]) -> (Vec<Proposal>, Vec<u16>) {
    let mut without = proposals.to_vec();
    for proposal in &mut without {
        proposal.transforms.retain(|t| t.kind != transform::KE);
    }
    let transforms = proposals.iter().flat_map(|p| &p.transforms);
    let groups = transforms.filter(|t| t.kind == transform::KE);
    (without, groups.map(|t| t.id).collect())
}

/// Makes the child SA that a CREATE_CHILD_SA request asks for, as responder: yields it and the
/// payloads that answer. `select` narrows what the peer proposes as (our side, its side).
///
/// # Errors
/// The notification to answer with.
pub(super) fn make(
    core: &Core,
    cx: &mut Cx<'_>,
    payloads: &[Payload],
    (lane, beside): (u16, Option<Beside>),
    select: impl FnOnce(&mut Cx<'_>, &[TrafficSelector], &[TrafficSelector]) -> Option<Selectors>,
) -> Result<(Made, Vec<Payload>), Notify> {
    let refused = |kind| Notify::new(kind, []);
    let (Some(sa), Some(ts_i), Some(ts_r)) = parts(payloads) else {
        return Err(refused(kind::INVALID_SYNTAX));
    };
    let (Some(ni), Some(keys)) = (initiator_nonce(payloads), &core.keys) else {
        return Err(refused(kind::INVALID_SYNTAX));
    };
    let settings = cx.settings;
    // With or without a key exchange is the peer's choice; with, it is one that we speak.
    let ours = settings.ike_proposals.iter().flat_map(|p| &p.groups);
    let ours: Vec<Group> = settings.child_groups.iter().chain(ours).copied().collect();
    let group_of = |p: &Proposal| {
        let methods = p.transforms.iter().filter(|t| t.kind == transform::KE);
        let all: Vec<u16> = methods.map(|t| t.id).collect();
        let offered = |g: &&Group| all.contains(&g.number());
        let sent = ke_of(payloads).and_then(|ke| ours.iter().find(|g| g.number() == ke.group));
        // The one that came saves a round trip.
        match sent.filter(offered).or(ours.iter().find(offered)) {
            Some(group) if ke_of(payloads).is_some() || !all.contains(&NONE) => Some(Some(*group)),
            _ if all.is_empty() || all.contains(&NONE) => Some(None),
            _ => None,
        }
    };
    let possible: Vec<Proposal> = sa
        .iter()
        .filter(|p| group_of(p).is_some())
        .cloned()
        .collect();
    let (suite, spi_out, mut chosen) = choose_esp(&settings.esp_proposals, &possible)
        .ok_or_else(|| refused(kind::NO_PROPOSAL_CHOSEN))?;
    let group = possible.iter().find(|p| p.number == chosen.number);
    let group = group.and_then(group_of).flatten();
    let (shared, pair) = match (group, ke_of(payloads)) {
        (None, _) => (Secret::default(), None),
        (Some(group), Some(ke)) if ke.group == group.number() => {
            let pair = KeyPair::generate(group, cx.rng);
            let shared = pair.agree(&ke.public);
            (
                shared.ok_or_else(|| refused(kind::INVALID_SYNTAX))?,
                Some(pair),
            )
        }
        (Some(group), _) => {
            let wanted = group.number().to_be_bytes();
            return Err(Notify::new(kind::INVALID_KE_PAYLOAD, wanted));
        }
    };
    let unacceptable = || refused(kind::TS_UNACCEPTABLE);
    let (local, remote) = select(cx, ts_r, ts_i).ok_or_else(unacceptable)?;
    if !is_narrowing(&local, ts_r) || !is_narrowing(&remote, ts_i) {
        return Err(unacceptable());
    }
    let (local, remote) = (merge_within(local, ts_r), merge_within(remote, ts_i));
    for list in [&local, &remote] {
        ts::check(list).map_err(|_| unacceptable())?;
    }
    // Last of all, so that no SPI is allocated in vain.
    let spi_in = cx.hooks.allocate_spi(beside);
    let nr = nonce(cx);
    chosen.spi = spi_in.to_be_bytes().to_vec();
    chosen
        .transforms
        .extend(group.map(|g| ke_transform(g.number())));
    let mut answer: Vec<Payload> = (lane > 0).then(|| resource(false)).into_iter().collect();
    answer.extend([Payload::Sa(vec![chosen]), Payload::Nonce(nr.clone())]);
    answer.extend(pair.as_ref().map(key_exchange));
    answer.push(Payload::TsI(remote.clone()));
    answer.push(Payload::TsR(local.clone()));
    let nonces = [&ni[..], &nr];
    let made = keys.child_with(suite.cipher, &shared, nonces);
    let mut child = keyed(suite, made, false, [spi_in, spi_out], (local, remote));
    child.lane = lane;
    let nonces = Lowest::of(nonces);
    Ok((Made { child, nonces }, answer))
}

/// Answers a CREATE_CHILD_SA request of an authenticated peer.
pub(crate) fn respond(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Vec<Payload> {
    match answer(core, cx, payloads) {
        Ok(answer) => answer,
        Err(refusal) => {
            if refusal.kind == kind::INVALID_SYNTAX {
                // Section 2.21.3: that is fatal on both sides.
                core.invalid_syntax(cx, "CREATE_CHILD_SA that lacks something");
            }
            vec![Payload::Notify(refusal)]
        }
    }
}

fn answer(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Result<Vec<Payload>, Notify> {
    match core.phase {
        Phase::Established => {}
        Phase::Childless => return Err(Notify::new(kind::NO_ADDITIONAL_SAS, [])),
        // Section 2.25: one that is being closed, or replaced.
        _ => return Err(Notify::new(kind::TEMPORARY_FAILURE, [])),
    }
    let (Some(sa), ..) = parts(payloads) else {
        return Err(Notify::new(kind::INVALID_SYNTAX, []));
    };
    if sa.iter().any(|p| p.protocol == protocol::IKE) {
        return rekey_ike::answer(core, cx, payloads, sa);
    }
    // Section 2.25.2: we rekey the IKE SA.
    if matches!(core.busy, Busy::RekeyIke { .. }) {
        return Err(Notify::new(kind::TEMPORARY_FAILURE, []));
    }
    let in_use = core.children.iter().filter(|c| c.is_in_use()).count();
    if core.children.len() - in_use > MOST_REPLACED * in_use.max(1) {
        return Err(Notify::new(kind::TEMPORARY_FAILURE, []));
    }
    if let Some(about) = notify(payloads, kind::REKEY_SA) {
        return rekey_child::answer(core, cx, payloads, about);
    }
    let resource = notify(payloads, kind::SA_RESOURCE_INFO);
    let lane = match resource {
        Some(_) => {
            let free = (1..cx.settings.lanes).find(|lane| !core.has_lane(*lane));
            free.ok_or(Notify::new(kind::TS_MAX_QUEUE, []))?
        }
        None => {
            let plain = core
                .children
                .iter()
                .filter(|c| c.is_in_use() && c.lane == 0);
            if plain.count() >= cx.settings.children_limit {
                return Err(Notify::new(kind::NO_ADDITIONAL_SAS, []));
            }
            0
        }
    };
    let beside = core.beside(lane);
    let peer = core.peer.clone();
    let select = |cx: &mut Cx<'_>, local: &[_], remote: &[_]| {
        let selectors = cx.hooks.selectors(&peer?, &core.assigned, local, remote);
        selectors.ok()
    };
    let (mut made, answer) = make(core, cx, payloads, (lane, beside), select)?;
    made.child.own_port = resource.is_some_and(|info| info.data == OWN_PORT);
    core.add_child(cx, made.child, false);
    Ok(answer)
}

/// The exchange for a further child SA, as initiator.
pub(crate) struct CreateChild {
    lane: u16,
    selectors: Selectors,
    wish: Option<Wish>,
}

impl CreateChild {
    /// Empty lists mean everything.
    pub(crate) fn new(
        lane: u16,
        local_ts: &[TrafficSelector],
        remote_ts: &[TrafficSelector],
    ) -> CreateChild {
        let or_any = |list: &[TrafficSelector]| match list.is_empty() {
            true => vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()],
            false => merge(list),
        };
        CreateChild {
            lane,
            selectors: (or_any(local_ts), or_any(remote_ts)),
            wish: None,
        }
    }
}

impl Request for CreateChild {
    fn exchange(&self) -> u8 {
        exchange::CREATE_CHILD_SA
    }

    fn is_due(&self, core: &Core) -> bool {
        core.phase == Phase::Established && (self.lane == 0 || !core.has_lane(self.lane))
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        core.busy = Busy::Create;
        let selectors = &self.selectors;
        let (lane, beside) = (self.lane, core.beside(self.lane));
        let wish = self
            .wish
            .get_or_insert_with(|| Wish::new(cx, lane, beside, selectors.clone()));
        core.spi_in = Some(wish.spi);
        let mut payloads = Vec::new();
        wish.write(cx.settings, &mut payloads);
        payloads
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        core.busy = Busy::Free;
        let Some(mut wish) = self.wish.take() else {
            return Step::Done;
        };
        match wish.accept(core, cx.settings, response.payloads) {
            Ok(made) => {
                core.spi_in = None;
                core.add_child(cx, made.child, true);
                Step::Done
            }
            Err(failure) => {
                if let Some(wanted) = notify(response.payloads, kind::INVALID_KE_PAYLOAD)
                    && wish.change_group(wanted, cx)
                {
                    let selectors = std::mem::take(&mut self.selectors);
                    let (lane, wish) = (self.lane, Some(wish));
                    return Step::Next(Box::new(CreateChild {
                        lane,
                        selectors,
                        wish,
                    }));
                }
                core.child_failed(cx, wish.spi, failure, response.payloads)
            }
        }
    }
}

impl Core {
    /// A child SA beside the others.
    fn add_child(&mut self, cx: &mut Cx<'_>, child: Child, began: bool) {
        let Some(keys) = &self.keys else { return };
        let life = Life::new(cx.settings.child_lifetime, cx.now, began, cx.rng);
        self.children.push(ChildSa::new(&child, life));
        cx.events.push(Event::ChildAdded {
            id: self.id,
            child,
            outbound: match began {
                true => Outbound::AtOnce,
                false => Outbound::WhenHeard,
            },
            exporter: keys.exporter(),
        });
    }

    /// An exchange of ours made no child SA. If only we think so, the peer must be told.
    pub(super) fn child_failed(
        &mut self,
        cx: &mut Cx<'_>,
        spi_in: u32,
        error: Failure,
        payloads: &[Payload],
    ) -> Step {
        let (id, made) = (self.id, super::error(payloads).is_none());
        cx.stats.rekeyings_failed += 1;
        self.spi_in = None;
        self.failure = Some(error.clone());
        cx.events.push(Event::ChildFailed { id, spi_in, error });
        match made {
            true => Step::Next(Box::new(DeleteChild { spi_in })),
            false => {
                self.close_if_childless();
                Step::Done
            }
        }
    }

    /// An IKE SA without any child SA in use is of no use. What was replaced waits for its end, and it may wait
    /// in vain if the peer has forgotten by what. Says whether it is to be deleted.
    pub(super) fn close_if_childless(&mut self) -> bool {
        let making = matches!(self.busy, Busy::Create | Busy::RekeyChild { .. });
        let childless = !self.children.iter().any(ChildSa::is_in_use);
        let over = childless && self.phase == Phase::Established && !making;
        self.wants_delete |= over;
        over
    }

    /// The peer and we are out of step: only another IKE SA helps.
    pub(super) fn give_up(&mut self, failure: Failure) {
        self.closing = CloseReason::Error(failure);
        self.wants_delete = true;
    }

    /// The peer breaks the protocol.
    pub(super) fn invalid_syntax(&mut self, cx: &mut Cx<'_>, what: &'static str) {
        self.end(cx, CloseReason::Error(Failure::WrongAnswer(what)));
    }
}
