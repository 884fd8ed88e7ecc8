//! IKE_SA_INIT (RFC 7296 section 1.2): algorithms, nonces, key exchange; in the clear.
//!
//! ```text
//! HDR(A,0), [N(COOKIE),] SAi1, KEi, Ni, N(NAT_DETECTION_*),
//!   N(IKEV2_FRAGMENTATION_SUPPORTED), [N(INTERMEDIATE_EXCHANGE_SUPPORTED)] -->
//!                                <-- HDR(A,B), SAr1, KEr, Nr, N(NAT_DETECTION_*),
//!                                      [N(IKEV2_FRAGMENTATION_SUPPORTED),]
//!                                      [N(INTERMEDIATE_EXCHANGE_SUPPORTED)]
//! ```

use super::super::crypto::{Group, KeyPair, Secret, respond as respond_to};
use super::super::event::Failure;
use super::super::keys::{IkeKeys, skeyseed};
use super::super::nat;
use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::ke::KeyExchange;
use super::super::payload::nonce::NONCE;
use super::super::payload::notify::{Notify, kind};
use super::super::proposal::{IkeProposal, IkeSuite, choose_ike, chosen_ike, offers};
use super::super::settings::{Initiate, Settings};
use super::super::state::{Core, Handshake};
use super::super::x509::Hashes;
use super::auth::{Auth, can_prove};
use super::intermediate::{Additional, Intermediate};
use super::resume::Resumed;
use super::{Cx, Request, Response, Step, error, find, notify, redirect};

/// A responder may send us back this often, with cookies and other groups; then we listen no more.
pub(super) const MOST_ROUNDS: u32 = 5;
/// RFC 7296 section 2.6.
pub(super) const LONGEST_COOKIE: usize = 64;
/// Vendor IDs of a peer that are kept, and the longest of them.
const MOST_VENDOR_IDS: usize = 16;
const LONGEST_VENDOR_ID: usize = 128;

/// The exchange as initiator.
pub(crate) struct Init {
    /// Taken when the next exchange begins.
    initiate: Option<Box<Initiate>>,
    pair: KeyPair,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    rounds: u32,
    message: Vec<u8>,
}

impl Init {
    /// `None` if the settings hold no key exchange method.
    pub(crate) fn new(initiate: Initiate, cx: &mut Cx<'_>) -> Option<Init> {
        let group = *cx.settings.ike_proposals.first()?.groups.first()?;
        Some(Init {
            initiate: Some(Box::new(initiate)),
            pair: KeyPair::generate(group, cx.rng),
            nonce: nonce(cx),
            cookie: None,
            rounds: 0,
            message: Vec::new(),
        })
    }

    /// The responder wants to see that we are where we say we are (section 2.6).
    fn return_cookie(&mut self, cookie: &Notify) -> Step {
        // The same cookie again is the answer to a request that we sent twice.
        if !(1..=LONGEST_COOKIE).contains(&cookie.data.len())
            || self.cookie.as_ref() == Some(&cookie.data)
            || self.rounds == MOST_ROUNDS
        {
            return Step::Ignore;
        }
        self.rounds += 1;
        self.cookie = Some(cookie.data.clone());
        Step::Again
    }

    /// The responder wants another key exchange method (section 1.3). The cookie stays (section
    /// 2.6.1).
    fn change_group(&mut self, notify: &Notify, cx: &mut Cx<'_>) -> Step {
        let Ok(number) = <[u8; 2]>::try_from(notify.data.as_slice()) else {
            return Step::Ignore;
        };
        let wanted = u16::from_be_bytes(number);
        // The same again is the answer to a request that we sent twice. Back to a group of before is
        // allowed: whoever asked for another one may not have been the responder.
        if wanted == self.pair.group().number() || self.rounds == MOST_ROUNDS {
            return Step::Ignore;
        }
        // Only what we offer: an attacker must not talk us into another group.
        let mut offered = cx.settings.ike_proposals.iter().flat_map(|p| &p.groups);
        match offered.find(|g| g.number() == wanted) {
            Some(group) => {
                self.rounds += 1;
                self.pair = KeyPair::generate(*group, cx.rng);
                Step::Again
            }
            None => Step::Fail(Failure::NoProposalChosen, None),
        }
    }

    fn accept(
        &self,
        core: &Core,
        cx: &Cx<'_>,
        response: &Response<'_>,
    ) -> Result<(IkeSuite, Vec<u8>, Secret), Failure> {
        let payloads = response.payloads;
        let wrong = Failure::WrongAnswer;
        let sa = find(payloads, |p| {
            if let Payload::Sa(sa) = p {
                Some(sa)
            } else {
                None
            }
        })
        .ok_or(wrong("IKE_SA_INIT without a proposal"))?;
        let ke = find(payloads, |p| {
            if let Payload::Ke(ke) = p {
                Some(ke)
            } else {
                None
            }
        })
        .ok_or(wrong("IKE_SA_INIT without a key exchange"))?;
        let nonce = find(payloads, |p| {
            if let Payload::Nonce(n) = p {
                Some(n)
            } else {
                None
            }
        })
        .ok_or(wrong("IKE_SA_INIT without a nonce"))?;
        if response.header.spi_r == 0 || response.header.spi_r == core.spi_i {
            return Err(wrong("IKE_SA_INIT without an SPI of its own"));
        }
        let suite = chosen_ike(&cx.settings.ike_proposals, sa)
            .ok_or(wrong("the peer chose what was not offered"))?;
        if suite.group != self.pair.group() || ke.group != suite.group.number() {
            return Err(wrong("the peer's key exchange is of another group"));
        }
        if suite.additional.is_some() && !intermediate_supported(payloads) {
            return Err(wrong("an additional key exchange without IKE_INTERMEDIATE"));
        }
        let shared = self
            .pair
            .agree(&ke.public)
            .ok_or(wrong("the peer's public value is bad"))?;
        Ok((suite, nonce.clone(), shared))
    }
}

impl Request for Init {
    fn exchange(&self) -> u8 {
        exchange::IKE_SA_INIT
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        let cookie = self
            .cookie
            .clone()
            .map(|c| Payload::Notify(Notify::new(kind::COOKIE, c)));
        let mut payloads: Vec<Payload> = cookie.into_iter().collect();
        payloads.push(Payload::Sa(offers(
            &cx.settings.ike_proposals,
            IkeProposal::offer,
        )));
        payloads.push(key_exchange(&self.pair));
        payloads.push(Payload::Nonce(self.nonce.clone()));
        if cx.settings.fragment_size.is_some() {
            payloads.push(status(kind::IKEV2_FRAGMENTATION_SUPPORTED));
        }
        if cx
            .settings
            .ike_proposals
            .iter()
            .any(IkeProposal::has_additional)
        {
            payloads.push(status(kind::INTERMEDIATE_EXCHANGE_SUPPORTED));
        }
        common(core, cx.settings, &mut payloads);
        let wish = self.initiate.as_deref();
        payloads.extend(wish.and_then(redirect::announce));
        payloads
    }

    fn sent(&mut self, message: &[u8]) {
        self.message = message.to_vec();
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        if let Some(cookie) = notify(response.payloads, kind::COOKIE) {
            return self.return_cookie(cookie);
        }
        if let Some(other) = notify(response.payloads, kind::INVALID_KE_PAYLOAD) {
            return self.change_group(other, cx);
        }
        let follows = self.initiate.as_ref().is_some_and(|i| i.follows_redirects);
        if let (Some(elsewhere), true) = (notify(response.payloads, kind::REDIRECT), follows) {
            return match redirect::of_init(elsewhere, &self.nonce) {
                Some(to) => Step::Fail(Failure::Redirected(to), None),
                None => Step::Ignore,
            };
        }
        if let Some(error) = error(response.payloads) {
            return Step::Fail(Failure::notified(error), None);
        }
        let (suite, nr, shared) = match self.accept(core, cx, response) {
            Ok(accepted) => accepted,
            Err(failure) => return Step::Fail(failure, None),
        };
        let Some(initiate) = self.initiate.take() else {
            return Step::Ignore;
        };
        core.spi_r = response.header.spi_r;
        core.follows_redirects = initiate.follows_redirects;
        core.redirectable = redirect::supported(response.payloads);
        let ni = std::mem::take(&mut self.nonce);
        let message = std::mem::take(&mut self.message);
        core.agree(
            suite,
            [ni, nr],
            &shared,
            message,
            response.datagram.to_vec(),
        );
        core.learn(response.payloads, cx.settings);
        // Said at once, not after an exchange of no use.
        if let Err(failure) = can_prove(core, cx.settings, &initiate.auth.local) {
            return Step::Fail(failure, None);
        }
        let next: Box<dyn Request> = match suite.additional {
            Some(group) => Box::new(Additional::new(initiate, group, cx)),
            None => Box::new(Auth::new(initiate)),
        };
        Step::Next(next)
    }
}

/// A first message that is acceptable, and what to answer to it.
pub(crate) struct Accepted {
    pub(crate) suite: IkeSuite,
    pub(crate) nonces: [Vec<u8>; 2],
    pub(crate) shared: Secret,
    pub(crate) answer: Vec<Payload>,
}

/// Judges a first message as responder. Nothing is kept if it is refused.
///
/// # Errors
/// The notification to answer with, in the clear.
pub(crate) fn respond(payloads: &[Payload], cx: &mut Cx<'_>) -> Result<Accepted, Notify> {
    let syntax = || Notify::new(kind::INVALID_SYNTAX, []);
    let sa = find(payloads, |p| {
        if let Payload::Sa(sa) = p {
            Some(sa)
        } else {
            None
        }
    });
    let ke = find(payloads, |p| {
        if let Payload::Ke(ke) = p {
            Some(ke)
        } else {
            None
        }
    });
    let ni = initiator_nonce(payloads);
    let (Some(sa), Some(ke), Some(ni)) = (sa, ke, ni) else {
        return Err(syntax());
    };
    let ours = cx.settings.ike_proposals.as_slice();
    let chosen = match intermediate_supported(payloads) {
        true => choose_ike(ours, sa),
        false => {
            let plain = ours.iter().filter_map(IkeProposal::without_additional);
            choose_ike(&plain.collect::<Vec<_>>(), sa)
        }
    };
    let (suite, proposal) = chosen.ok_or_else(|| Notify::new(kind::NO_PROPOSAL_CHOSEN, []))?;
    if Group::from_number(ke.group) != Some(suite.group) {
        let wanted = suite.group.number().to_be_bytes();
        return Err(Notify::new(kind::INVALID_KE_PAYLOAD, wanted));
    }
    let (public, shared) = respond_to(suite.group, &ke.public, cx.rng).ok_or_else(syntax)?;
    let nr = nonce(cx);
    let mut answer = vec![
        Payload::Sa(vec![proposal]),
        public_value(suite.group, public),
        Payload::Nonce(nr.clone()),
    ];
    let fragments = notify(payloads, kind::IKEV2_FRAGMENTATION_SUPPORTED);
    if cx.settings.fragment_size.is_some() && fragments.is_some() {
        answer.push(status(kind::IKEV2_FRAGMENTATION_SUPPORTED));
    }
    if suite.additional.is_some() {
        answer.push(status(kind::INTERMEDIATE_EXCHANGE_SUPPORTED));
    }
    Ok(Accepted {
        suite,
        nonces: [ni.clone(), nr],
        shared,
        answer,
    })
}

/// Ni of a first message.
pub(crate) fn initiator_nonce(payloads: &[Payload]) -> Option<&Vec<u8>> {
    find(payloads, |p| {
        if let Payload::Nonce(n) = p {
            Some(n)
        } else {
            None
        }
    })
}

/// What both sides send: NAT detection, the hashes that signatures may use, and vendor IDs.
pub(crate) fn common(core: &Core, settings: &Settings, payloads: &mut Vec<Payload>) {
    payloads.extend(nat::detection(core, settings));
    if !settings.x509.trust.is_empty() {
        let (kind, hashes) = (kind::SIGNATURE_HASH_ALGORITHMS, Hashes::ALL.to_wire());
        payloads.push(Payload::Notify(Notify::new(kind, hashes)));
    }
    payloads.extend(settings.vendor_ids.iter().cloned().map(Payload::Vendor));
}

/// The vendor IDs of a received message, as many as are kept.
pub(crate) fn vendor_ids(payloads: &[Payload]) -> Vec<Vec<u8>> {
    let ids = payloads.iter().filter_map(|p| match p {
        Payload::Vendor(id) if id.len() <= LONGEST_VENDOR_ID => Some(id.clone()),
        _ => None,
    });
    ids.take(MOST_VENDOR_IDS).collect()
}

fn intermediate_supported(payloads: &[Payload]) -> bool {
    notify(payloads, kind::INTERMEDIATE_EXCHANGE_SUPPORTED).is_some()
}

/// A notification that says all by its type.
pub(super) fn status(kind: u16) -> Payload {
    Payload::Notify(Notify::new(kind, []))
}

pub(crate) fn key_exchange(pair: &KeyPair) -> Payload {
    public_value(pair.group(), pair.public().to_vec())
}

/// A Key Exchange payload.
pub(crate) fn public_value(group: Group, public: Vec<u8>) -> Payload {
    Payload::Ke(KeyExchange {
        group: group.number(),
        public,
    })
}

pub(crate) fn nonce(cx: &mut Cx<'_>) -> Vec<u8> {
    let mut nonce = vec![0; NONCE];
    cx.rng.fill_bytes(&mut nonce);
    nonce
}

impl Core {
    /// Takes up what IKE_SA_INIT has agreed.
    pub(crate) fn agree(
        &mut self,
        suite: IkeSuite,
        nonces: [Vec<u8>; 2],
        shared: &[u8],
        ours: Vec<u8>,
        theirs: Vec<u8>,
    ) {
        let [ni, nr] = &nonces;
        let seed = skeyseed(suite.prf, ni, nr, shared);
        self.take_keys(suite, nonces, &seed, [ours, theirs], None);
    }

    /// Makes the keys that follow from `seed`, and notes what AUTH will cover: the first messages,
    /// ours before theirs.
    pub(crate) fn take_keys(
        &mut self,
        suite: IkeSuite,
        nonces: [Vec<u8>; 2],
        seed: &[u8],
        [ours, theirs]: [Vec<u8>; 2],
        resumed: Option<Box<Resumed>>,
    ) {
        let [ni, nr] = &nonces;
        let spis = [self.spi_i, self.spi_r];
        self.prf = Some(suite.prf);
        self.suite = Some(suite);
        self.keys = Some(IkeKeys::derive(suite, seed, [ni, nr], spis, self.initiator));
        self.handshake = Some(Box::new(Handshake {
            nonces,
            ours,
            theirs,
            intermediate: Intermediate::new(suite),
            resumed,
        }));
    }

    /// Notes what the peer's first message says besides.
    pub(crate) fn learn(&mut self, payloads: &[Payload], settings: &Settings) {
        let fragments = notify(payloads, kind::IKEV2_FRAGMENTATION_SUPPORTED);
        self.fragment_size = settings.fragment_size.filter(|_| fragments.is_some());
        self.learn_nat(payloads, settings);
        self.vendor_ids = vendor_ids(payloads);
        let hashes = notify(payloads, kind::SIGNATURE_HASH_ALGORITHMS);
        self.hashes = hashes.map_or(Hashes::default(), |n| Hashes::from_wire(&n.data));
    }
}
