//! CREATE_CHILD_SA that replaces the IKE SA (RFC 7296 sections 1.3.2, 2.8.2 and 2.18).
//!
//! ```text
//! HDR(A,B), SK {SA(C), Ni, KEi} -->
//!                                <-- HDR(A,B), SK {SA(D), Nr, KEr}
//! HDR(A,B), SK {D(IKE)} -->
//!                                <-- HDR(A,B), SK {}
//! ```
//!
//! An additional key exchange comes before the deletion, see `followup.rs`.
//!
//! The new IKE SA, with the SPIs C and D, has all child SAs of the old one. If both ends do it at
//! once, each answers as usual; which of the two new ones has the child SAs is decided by the nonces
//! as for child SAs.

use super::super::crash;
use super::super::crypto::{KeyPair, Secret};
use super::super::event::{CloseReason, Failure};
use super::super::keys::IkeKeys;
use super::super::life::{Busy, Lowest, Rival};
use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::sa::Proposal;
use super::super::proposal::{IkeProposal, IkeSuite, choose_ike, chosen_ike, offers};
use super::super::state::{Core, Phase};
use super::child::parts;
use super::create_child::{ke_of, wanted_group};
use super::informational::Delete;
use super::init::{initiator_nonce, key_exchange, nonce};
use super::{Cx, Request, Response, Step, error, followup, notify};

/// The exchange as initiator.
pub(crate) struct RekeyIke {
    /// SPI of ours of the IKE SA that is replaced.
    old: u64,
    wish: Option<Wish>,
}

struct Wish {
    spi: u64,
    ni: Vec<u8>,
    pair: KeyPair,
    /// The responder has asked for another method: once is enough for whoever means it.
    changed: bool,
}

impl RekeyIke {
    pub(crate) fn new(core: &Core) -> RekeyIke {
        RekeyIke {
            old: core.spi_local(),
            wish: None,
        }
    }

    /// Reads the responder's choice.
    fn accept(wish: &Wish, cx: &Cx<'_>, payloads: &[Payload]) -> Result<Agreed, Failure> {
        let wrong = Failure::WrongAnswer;
        let (Some(sa), ..) = parts(payloads) else {
            return Err(wrong("rekeying of the IKE SA without a proposal"));
        };
        let nr =
            initiator_nonce(payloads).ok_or(wrong("rekeying of the IKE SA without a nonce"))?;
        let ke = ke_of(payloads).ok_or(wrong("rekeying of the IKE SA without a key exchange"))?;
        let spi_r = sa.first().and_then(spi_of);
        let spi_r = spi_r.ok_or(wrong("rekeying of the IKE SA without an SPI"))?;
        let suite = chosen_ike(&proposals(cx), &without_spi(sa));
        let suite = suite.ok_or(wrong("the peer chose what was not offered"))?;
        if suite.group != wish.pair.group() || ke.group != suite.group.number() {
            return Err(wrong("the peer's key exchange is of another group"));
        }
        let shared = wish.pair.agree(&ke.public);
        let shared = shared.ok_or(wrong("the peer's public value is bad"))?;
        Ok(Agreed {
            suite,
            shared,
            nonces: [wish.ni.clone(), nr.clone()],
            spis: [wish.spi, spi_r],
        })
    }
}

/// What CREATE_CHILD_SA has agreed for the IKE SA that takes the place of this one.
pub(super) struct Agreed {
    pub(super) suite: IkeSuite,
    shared: Secret,
    /// Ni, Nr.
    nonces: [Vec<u8>; 2],
    /// The initiator's, the responder's.
    pub(super) spis: [u64; 2],
}

impl Agreed {
    pub(super) fn lowest(&self) -> Lowest {
        let [ni, nr] = &self.nonces;
        Lowest::of([ni, nr])
    }

    /// The new IKE SA. `began`: we are its initiator; `additional`: the secret of an additional key
    /// exchange, or nothing.
    pub(super) fn make(&self, core: &Core, began: bool, additional: &[u8]) -> Option<Core> {
        let [ni, nr] = &self.nonces;
        let (suite, nonces) = (self.suite, [&ni[..], nr]);
        let keys = core.keys.as_ref()?;
        let seed = keys.next_seed_with(&self.shared, nonces, additional);
        let mut new = Core::new(core.id, began, core.local, core.remote);
        [new.spi_i, new.spi_r] = self.spis;
        new.phase = Phase::Heir;
        new.prf = Some(suite.prf);
        new.suite = Some(suite);
        new.keys = Some(IkeKeys::derive(suite, &seed, nonces, self.spis, began));
        Some(new)
    }
}

impl Request for RekeyIke {
    fn exchange(&self) -> u8 {
        exchange::CREATE_CHILD_SA
    }

    /// The peer may have replaced the IKE SA meanwhile.
    fn is_due(&self, core: &Core) -> bool {
        let replaced = core.spi_local() != self.old || core.awaited.is_some();
        core.phase == Phase::Established && !replaced
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        core.busy = Busy::RekeyIke {
            rival: None,
            decided: false,
        };
        if self.wish.is_none() {
            self.wish = Wish::new(cx);
        }
        let Some(wish) = &self.wish else {
            return Vec::new();
        };
        let mut sa = offers(&proposals(cx), IkeProposal::offer);
        for proposal in &mut sa {
            proposal.spi = wish.spi.to_be_bytes().to_vec();
        }
        vec![
            Payload::Sa(sa),
            Payload::Nonce(wish.ni.clone()),
            key_exchange(&wish.pair),
        ]
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        let rival = match std::mem::take(&mut core.busy) {
            Busy::RekeyIke { rival, .. } => rival,
            _ => None,
        };
        let Some(mut wish) = self.wish.take() else {
            return Step::Done;
        };
        if let Some(refusal) = error(response.payloads) {
            let offered = cx.settings.ike_proposals.iter().flat_map(|p| &p.groups);
            let wanted = notify(response.payloads, kind::INVALID_KE_PAYLOAD);
            if let Some(group) = wanted.and_then(|wanted| wanted_group(wanted, offered))
                && rival.is_none()
                && group != wish.pair.group()
                && !std::mem::replace(&mut wish.changed, true)
            {
                wish.pair = KeyPair::generate(group, cx.rng);
                let wish = Some(wish);
                return Step::Next(Box::new(RekeyIke { wish, ..*self }));
            }
            return core.not_rekeyed(cx, refusal, rival);
        }
        let agreed = match RekeyIke::accept(&wish, cx, response.payloads) {
            Ok(agreed) => agreed,
            // The peer uses a new IKE SA that we do not have.
            Err(failure) => return Step::Fail(failure, Some(Box::new(Delete))),
        };
        match agreed.suite.additional {
            Some(group) => followup::begin(core, cx, agreed, group, rival, response.payloads),
            None => core.rekeyed(cx, &agreed, &[], rival, response.payloads),
        }
    }
}

impl Wish {
    /// `None` if the settings hold no key exchange method.
    fn new(cx: &mut Cx<'_>) -> Option<Wish> {
        let group = *cx.settings.ike_proposals.first()?.groups.first()?;
        Some(Wish {
            spi: new_spi(cx),
            ni: nonce(cx),
            pair: KeyPair::generate(group, cx.rng),
            changed: false,
        })
    }
}

/// Behind all others those without the additional key exchange that they require: for peers that make
/// none when they rekey. The new keys come from the old ones too.
fn proposals(cx: &Cx<'_>) -> Vec<IkeProposal> {
    let mut all = cx.settings.ike_proposals.clone();
    let plain = all.iter().filter(|p| p.has_additional());
    let plain: Vec<IkeProposal> = plain.map(IkeProposal::plain).collect();
    for proposal in plain {
        if !all.contains(&proposal) {
            all.push(proposal);
        }
    }
    all
}

/// Chance makes it unused; the engine looks once more.
fn new_spi(cx: &mut Cx<'_>) -> u64 {
    cx.settings.spi_prefix.on(cx.rng.next_u64())
}

/// The SPI of a proposal for an IKE SA that replaces another.
fn spi_of(proposal: &Proposal) -> Option<u64> {
    let spi = u64::from_be_bytes(proposal.spi.as_slice().try_into().ok()?);
    (spi != 0).then_some(spi)
}

fn without_spi(proposals: &[Proposal]) -> Vec<Proposal> {
    let without = |p: &Proposal| Proposal {
        spi: Vec::new(),
        ..p.clone()
    };
    proposals.iter().map(without).collect()
}

/// Answers a request to replace the IKE SA.
pub(super) fn answer(
    core: &mut Core,
    cx: &mut Cx<'_>,
    payloads: &[Payload],
    sa: &[Proposal],
) -> Result<Vec<Payload>, Notify> {
    let refused = |kind| Notify::new(kind, []);
    match core.busy {
        Busy::Free
        | Busy::RekeyIke {
            rival: None,
            decided: false,
        } => {}
        // Section 2.25.2: our exchange about a child SA, or one of the peer's that is answered.
        _ => return Err(refused(kind::TEMPORARY_FAILURE)),
    }
    let (Some(ni), Some(ke)) = (initiator_nonce(payloads), ke_of(payloads)) else {
        return Err(refused(kind::INVALID_SYNTAX));
    };
    let possible: Vec<Proposal> = sa.iter().filter(|p| spi_of(p).is_some()).cloned().collect();
    let chosen = choose_ike(&proposals(cx), &without_spi(&possible));
    let (suite, mut proposal) = chosen.ok_or_else(|| refused(kind::NO_PROPOSAL_CHOSEN))?;
    let theirs = possible.iter().find(|p| p.number == proposal.number);
    let spi_i = theirs.and_then(spi_of);
    let spi_i = spi_i.ok_or_else(|| refused(kind::NO_PROPOSAL_CHOSEN))?;
    if ke.group != suite.group.number() {
        let wanted = suite.group.number().to_be_bytes();
        return Err(Notify::new(kind::INVALID_KE_PAYLOAD, wanted));
    }
    let pair = KeyPair::generate(suite.group, cx.rng);
    let syntax = || refused(kind::INVALID_SYNTAX);
    let shared = pair.agree(&ke.public).ok_or_else(syntax)?;
    let (spi, nr) = (new_spi(cx), nonce(cx));
    let agreed = Agreed {
        suite,
        shared,
        nonces: [ni.clone(), nr.clone()],
        spis: [spi_i, spi],
    };
    let lowest = agreed.lowest();
    proposal.spi = spi.to_be_bytes().to_vec();
    let mut answer = vec![
        Payload::Sa(vec![proposal]),
        Payload::Nonce(nr),
        key_exchange(&pair),
    ];
    let is_made = suite.additional.is_none();
    match suite.additional {
        Some(group) => answer.push(followup::expect(core, cx, agreed, group)),
        None => {
            let made = agreed.make(core, false, &[]).ok_or_else(syntax)?;
            answer.extend(core.token_for(&made, cx));
            cx.succession.made = Some(Box::new(made));
        }
    }
    match &mut core.busy {
        Busy::RekeyIke { rival, .. } => {
            *rival = Some(Rival {
                spi,
                nonces: lowest,
                is_made,
            });
        }
        _ if is_made => cx.succession.heir = Some(spi),
        _ => {}
    }
    Ok(answer)
}

impl Core {
    /// Our exchange has made an IKE SA that can take the place of this one; the peer's may have done
    /// so too. `payloads`: the last answer.
    pub(super) fn rekeyed(
        &mut self,
        cx: &mut Cx<'_>,
        agreed: &Agreed,
        additional: &[u8],
        rival: Option<Rival>,
        payloads: &[Payload],
    ) -> Step {
        let Some(mut made) = agreed.make(self, true, additional) else {
            let failure = Failure::WrongAnswer("rekeying of the IKE SA before IKE_SA_INIT");
            return Step::Fail(failure, Some(Box::new(Delete)));
        };
        made.take_token(payloads);
        cx.succession.made = Some(Box::new(made));
        let [spi, _] = agreed.spis;
        match rival.filter(|rival| rival.is_made) {
            Some(rival) if agreed.lowest() < rival.nonces => {
                cx.succession.heir = Some(rival.spi);
                cx.succession.redundant = Some(spi);
            }
            // The peer deletes its own.
            _ => {
                cx.succession.heir = Some(spi);
                cx.succession.delete_old = true;
            }
        }
        Step::Replaced
    }

    /// The peer does not want our exchange.
    pub(super) fn not_rekeyed(
        &mut self,
        cx: &mut Cx<'_>,
        refusal: &Notify,
        rival: Option<Rival>,
    ) -> Step {
        if let Some(rival) = rival.filter(|rival| rival.is_made) {
            // Its own was the one that counts.
            cx.succession.heir = Some(rival.spi);
            return Step::Replaced;
        }
        cx.stats.rekeyings_failed += 1;
        let failure = Failure::notified(refusal);
        self.life.retry(cx.now, cx.rng);
        let busy = [kind::TEMPORARY_FAILURE, kind::STATE_NOT_FOUND].contains(&refusal.kind);
        if self.life.is_put_off_for_good(cx.now, busy) {
            self.give_up(failure.clone());
        }
        self.failure = Some(failure);
        Step::Done
    }

    /// Our token of the IKE SA that takes the place of this one: what we know of the peer's tokens
    /// tells whether it knows of ours.
    pub(super) fn token_for(&self, made: &Core, cx: &Cx<'_>) -> Option<Payload> {
        self.token.as_ref().and(crash::token(made, cx.settings))
    }

    /// Takes over what the old IKE SA has beside its keys.
    pub(crate) fn inherit(&mut self, old: &mut Core) {
        self.phase = match old.phase {
            Phase::Closing => Phase::Closing,
            _ => Phase::Established,
        };
        old.phase = Phase::Replaced;
        (old.busy, old.awaited) = (Busy::Free, None);
        self.peer.clone_from(&old.peer);
        self.children = std::mem::take(&mut old.children);
        self.assigned = std::mem::take(&mut old.assigned);
        self.closing = std::mem::replace(&mut old.closing, CloseReason::Local);
        self.spi_in = old.spi_in.take();
        self.nat = old.nat;
        // The peer may have moved since this one was made.
        (self.local, self.remote) = (old.local, old.remote);
        self.fragment_size = old.fragment_size;
        self.origin = old.origin.take();
        self.reauth_until = old.reauth_until;
        self.mobike = old.mobike;
        self.peer_addresses = std::mem::take(&mut old.peer_addresses);
        // A check that was under way is made again here.
        self.wants_check = old.wants_check;
        self.wants_update = old.wants_update;
        self.follows_redirects = old.follows_redirects;
        self.redirectable = old.redirectable;
        self.sync = old.sync;
        self.predecessor = Some(old.spi_local());
        (self.begun, self.established, self.ours) = (old.begun, old.established, old.ours);
        std::mem::swap(&mut self.id, &mut old.id);
    }
}
