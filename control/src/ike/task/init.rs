//! IKE_SA_INIT (RFC 7296 section 1.2): algorithms, nonces, key exchange; in the clear.
//!
//! ```text
//! HDR(A,0), [N(COOKIE),] SAi1, KEi, Ni, N(NAT_DETECTION_*) -->
//!                                <-- HDR(A,B), SAr1, KEr, Nr, N(NAT_DETECTION_*)
//! ```

use std::net::{IpAddr, SocketAddr};

use super::super::crypto::{Group, KeyPair, Secret, sha1};
use super::super::event::{Failure, Nat};
use super::super::keys::{IkeKeys, skeyseed};
use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::ke::KeyExchange;
use super::super::payload::nonce::NONCE;
use super::super::payload::notify::{Notify, kind};
use super::super::proposal::{IkeProposal, IkeSuite, choose_ike, chosen_ike, offers};
use super::super::settings::{Initiate, Settings};
use super::super::state::{Core, Handshake};
use super::auth::Auth;
use super::{Cx, Request, Response, Step, error, find, notifies, notify};

/// A responder may send us back this often, with cookies and other groups; then we listen no more.
const MOST_ROUNDS: u32 = 5;
/// RFC 7296 section 2.6.
const LONGEST_COOKIE: usize = 64;
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
        common(core, cx.settings, &mut payloads);
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
        let ni = std::mem::take(&mut self.nonce);
        let message = std::mem::take(&mut self.message);
        core.agree(
            suite,
            [ni, nr],
            &shared,
            message,
            response.datagram.to_vec(),
        );
        core.learn(response.payloads);
        Step::Next(Box::new(Auth::new(initiate)))
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
    let (suite, proposal) = choose_ike(&cx.settings.ike_proposals, sa)
        .ok_or_else(|| Notify::new(kind::NO_PROPOSAL_CHOSEN, []))?;
    if Group::from_number(ke.group) != Some(suite.group) {
        let wanted = suite.group.number().to_be_bytes();
        return Err(Notify::new(kind::INVALID_KE_PAYLOAD, wanted));
    }
    let pair = KeyPair::generate(suite.group, cx.rng);
    let shared = pair.agree(&ke.public).ok_or_else(syntax)?;
    let nr = nonce(cx);
    let answer = vec![
        Payload::Sa(vec![proposal]),
        key_exchange(&pair),
        Payload::Nonce(nr.clone()),
    ];
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

/// What both sides send: NAT detection and vendor IDs.
pub(crate) fn common(core: &Core, settings: &Settings, payloads: &mut Vec<Payload>) {
    for (kind, address) in [
        (kind::NAT_DETECTION_SOURCE_IP, core.local),
        (kind::NAT_DETECTION_DESTINATION_IP, core.remote),
    ] {
        let hash = nat_hash([core.spi_i, core.spi_r], address);
        payloads.push(Payload::Notify(Notify::new(kind, hash)));
    }
    payloads.extend(settings.vendor_ids.iter().cloned().map(Payload::Vendor));
}

/// SHA1(SPIi | SPIr | address | port), with the SPIs as in the header of the message that carries
/// it.
fn nat_hash(spis: [u64; 2], address: SocketAddr) -> [u8; 20] {
    let [spi_i, spi_r] = spis.map(u64::to_be_bytes);
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => sha1(&[&spi_i, &spi_r, &ip.octets(), &port]),
        IpAddr::V6(ip) => sha1(&[&spi_i, &spi_r, &ip.octets(), &port]),
    }
}

/// Compares the hashes of a received message with the addresses that it came from and to.
pub(crate) fn detect_nat(
    payloads: &[Payload],
    spis: [u64; 2],
    local: SocketAddr,
    remote: SocketAddr,
) -> Nat {
    // None: no hash of that kind came. A host with several addresses may send several for its
    // source.
    let changed = |kind, address| {
        let hash = nat_hash(spis, address);
        let equal = notifies(payloads)
            .filter(|n| n.kind == kind)
            .map(|n| n.data == hash);
        equal.reduce(|a, b| a || b).map(|any| !any)
    };
    let theirs = changed(kind::NAT_DETECTION_SOURCE_IP, remote);
    let ours = changed(kind::NAT_DETECTION_DESTINATION_IP, local);
    Nat {
        detected: theirs.is_some() || ours.is_some(),
        local: ours == Some(true),
        remote: theirs == Some(true),
    }
}

/// The vendor IDs of a received message, as many as are kept.
pub(crate) fn vendor_ids(payloads: &[Payload]) -> Vec<Vec<u8>> {
    let ids = payloads.iter().filter_map(|p| match p {
        Payload::Vendor(id) if id.len() <= LONGEST_VENDOR_ID => Some(id.clone()),
        _ => None,
    });
    ids.take(MOST_VENDOR_IDS).collect()
}

pub(crate) fn key_exchange(pair: &KeyPair) -> Payload {
    Payload::Ke(KeyExchange {
        group: pair.group().number(),
        public: pair.public().to_vec(),
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
        let spis = [self.spi_i, self.spi_r];
        self.prf = Some(suite.prf);
        self.keys = Some(IkeKeys::derive(
            suite,
            &seed,
            [ni, nr],
            spis,
            self.initiator,
        ));
        self.handshake = Some(Box::new(Handshake {
            nonces,
            ours,
            theirs,
        }));
    }

    /// Notes what the peer's first message says besides.
    pub(crate) fn learn(&mut self, payloads: &[Payload]) {
        // In a request the responder's SPI is not known yet, and hashed as zero.
        let spi_r = if self.initiator { self.spi_r } else { 0 };
        self.nat = detect_nat(payloads, [self.spi_i, spi_r], self.local, self.remote);
        self.vendor_ids = vendor_ids(payloads);
    }
}
