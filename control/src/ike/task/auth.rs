//! IKE_AUTH (RFC 7296 sections 1.2 and 2.15) with pre-shared keys or certificates, each side its own
//! way. It makes the first child SA too.
//!
//! ```text
//! HDR(A,B), SK {IDi, [CERT+,] [N(INITIAL_CONTACT),] [CERTREQ,] [IDr,] AUTH, [CP(CFG_REQUEST),]
//!     SAi2, TSi, TSr} -->
//!                       <-- HDR(A,B), SK {IDr, [CERT+,] AUTH, [CP(CFG_REPLY),] SAr2, TSi, TSr}
//! ```

use std::net::IpAddr;

use super::super::auth::{Signed, shared_key, verify};
use super::super::crash;
use super::super::crypto::{Prf, Psk};
use super::super::event::{Event, Failure};
use super::super::identity::Identity;
use super::super::payload::Payload;
use super::super::payload::auth::{Auth as AuthPayload, SHARED_KEY};
use super::super::payload::cert::{Cert, CertReq, X509_SIGNATURE};
use super::super::payload::header::exchange;
use super::super::payload::id::Id;
use super::super::payload::notify::{Notify, kind};
use super::super::settings::{Admission, Arrival, Initiate, Methods, Proof, Settings};
use super::super::state::{Core, Phase};
use super::super::x509::Refused;
use super::child::{self, Offer};
use super::informational::{Abort, Delete};
use super::{
    Cx, Request, Response, Step, eap, error, find, mobike, notify, redirect, resume, sync, ticket,
};

/// The exchange as initiator.
pub(crate) struct Auth {
    initiate: Box<Initiate>,
    offer: Option<Offer>,
}

impl Auth {
    pub(crate) fn new(initiate: Box<Initiate>) -> Auth {
        Auth {
            initiate,
            offer: None,
        }
    }

    /// Whether the responder is who it says, and the one that we want.
    fn authenticate(
        &self,
        core: &Core,
        cx: &mut Cx<'_>,
        payloads: &[Payload],
    ) -> Result<Id, Failure> {
        let id = find(payloads, |p| {
            if let Payload::IdR(id) = p {
                Some(id)
            } else {
                None
            }
        })
        .ok_or(Failure::WrongAnswer("IKE_AUTH without an identity"))?;
        let auth = find(payloads, |p| {
            if let Payload::Auth(a) = p {
                Some(a)
            } else {
                None
            }
        })
        .ok_or(Failure::WrongAnswer("IKE_AUTH without authentication"))?;
        core.verify(cx, &self.initiate.auth.remote, id, auth, payloads)?;
        if let Some(resumed) = core.resumed() {
            return resumed.responder(id, self.initiate.remote_id.as_ref());
        }
        if let Some(expected) = &self.initiate.remote_id
            && !id.identity.matches(expected)
        {
            let (found, expected) = (id.identity.clone(), expected.clone());
            return Err(Failure::WrongIdentity { found, expected });
        }
        Ok(id.clone())
    }
}

impl Request for Auth {
    fn exchange(&self) -> u8 {
        exchange::IKE_AUTH
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        let id = Id::new(core.local_id(cx.settings).clone());
        let Ok((certificates, auth)) = core.prove(cx.settings, &self.initiate.auth.local, &id)
        else {
            // The certificate has changed since IKE_SA_INIT. The responder refuses this, and the
            // owner tries anew.
            let failed = Notify::new(kind::AUTHENTICATION_FAILED, []);
            return vec![Payload::Notify(failed)];
        };
        let mut payloads = vec![Payload::IdI(id)];
        payloads.extend(certificates);
        if self.initiate.initial_contact {
            payloads.push(Payload::Notify(Notify::new(kind::INITIAL_CONTACT, [])));
        }
        let resumed = core.resumed().map(|resumed| resumed.idr.clone());
        if self.initiate.auth.remote.is_certificate() && resumed.is_none() {
            payloads.extend(request(cx.settings));
        }
        // A ticket's session goes on with whom it was begun with.
        let wanted = resumed.or_else(|| self.initiate.remote_id.clone());
        payloads.extend(wanted.map(|id| Payload::IdR(Id::new(id))));
        payloads.push(Payload::Auth(auth));
        payloads.extend(mobike::announce(cx.settings));
        payloads.extend(sync::announce(cx.settings));
        let offer = Offer::new(&self.initiate, cx);
        core.spi_in = Some(offer.spi);
        offer.write(cx.settings, &mut payloads);
        self.offer = Some(offer);
        payloads.extend(ticket::request(cx.settings));
        payloads.extend(crash::token(core, cx.settings));
        payloads
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        let payloads = response.payloads;
        let has_auth = payloads.iter().any(|p| matches!(p, Payload::Auth(_)));
        if let (Some(error), false) = (error(payloads), has_auth) {
            return Step::Fail(Failure::notified(error), None);
        }
        // From here on the responder holds an established IKE SA: it must be told if we do not.
        let id = match self.authenticate(core, cx, payloads) {
            Ok(id) => id,
            Err(failure) => return Step::Fail(failure, Some(Box::new(Abort))),
        };
        if let Some(elsewhere) = redirect::of_auth(core, payloads) {
            return Step::Fail(elsewhere, Some(Box::new(Delete)));
        }
        let Some(offer) = self.offer.take() else {
            return Step::Ignore;
        };
        let (child, assigned) = match offer.accept(core, cx.settings, payloads) {
            Ok(made) => made,
            Err(failure) => return Step::Fail(failure, Some(Box::new(Delete))),
        };
        core.originate(cx, id.identity.clone(), None);
        // Whom the owner has asked for, where a ticket is good for several.
        let peer = core.resumed().and(self.initiate.remote_id.clone());
        core.peer = Some(peer.unwrap_or(id.identity));
        core.take_token(payloads);
        mobike::learn(core, cx.settings, payloads);
        core.sync = sync::learn(cx.settings, payloads);
        core.establish(cx, child, assigned);
        ticket::take(core, cx, payloads);
        ticket::take_lifetime(core, cx, payloads);
        Step::Done
    }
}

/// Judges an IKE_AUTH request and yields the payloads of the response. Whether the IKE SA lives on
/// shows in its phase.
pub(crate) fn respond(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Vec<Payload> {
    if let Some(conversation) = core.eap.take() {
        return eap::respond(core, cx, conversation, payloads);
    }
    if core.resumed().is_some() {
        return resume::authenticate(core, cx, payloads);
    }
    let id = find(payloads, |p| {
        if let Payload::IdI(id) = p {
            Some(id)
        } else {
            None
        }
    });
    let Some(id) = id else {
        return refuse(
            core,
            cx,
            kind::INVALID_SYNTAX,
            Failure::WrongAnswer("no identity"),
        );
    };
    if cx.settings.mobike && mobike::is_translated(payloads, core.remote, core.local) {
        let kind = kind::UNEXPECTED_NAT_DETECTED;
        return refuse(core, cx, kind, Failure::UnexpectedNat);
    }
    let local_id = cx.settings.local_id.clone();
    let auth = find(payloads, |p| {
        if let Payload::Auth(a) = p {
            Some(a)
        } else {
            None
        }
    });
    let Some(auth) = auth else {
        return eap::begin(core, cx, id, payloads);
    };
    let methods = cx.hooks.auth(&local_id, &id.identity);
    // An unknown peer costs the same work as a wrong key.
    let known = methods.is_some();
    let methods = methods.unwrap_or_else(|| Methods::from(Psk::new(vec![0; 32])));
    let proven = core.verify(cx, &methods.remote, id, auth, payloads);
    core.peer = Some(id.identity.clone());
    let failure = match proven {
        // The answer on the wire is the same: who is a peer is nobody's business but ours.
        _ if !known => Some(Failure::UnknownPeer),
        Ok(()) => None,
        Err(Failure::PeerNotAuthenticated) => Some(Failure::AuthenticationFailed),
        Err(failure) => Some(failure),
    };
    if let Some(failure) = failure {
        cx.stats.authentication_failed += 1;
        return refuse(core, cx, kind::AUTHENTICATION_FAILED, failure);
    }
    let ours = Id::new(local_id);
    let (certificates, auth) = match core.prove(cx.settings, &methods.local, &ours) {
        Ok(proof) => proof,
        Err(failure) => return refuse(core, cx, kind::AUTHENTICATION_FAILED, failure),
    };
    let way = resume::way(cx, &methods.remote, &id.identity, payloads);
    core.originate(cx, id.identity.clone(), Some(way));
    let mut answer = vec![Payload::IdR(ours)];
    answer.extend(certificates);
    answer.push(Payload::Auth(auth));
    finish(core, cx, payloads, &id.identity, answer)
}

/// Both sides are authenticated: makes the child SA that `payloads` ask for. `answer` has what goes
/// before it.
pub(super) fn finish(
    core: &mut Core,
    cx: &mut Cx<'_>,
    payloads: &[Payload],
    peer: &Identity,
    mut answer: Vec<Payload>,
) -> Vec<Payload> {
    let mut assigned = Vec::new();
    let arrival = Arrival {
        remote: core.remote.ip(),
        peer: Some(peer),
        redirected_from: core.redirected_from,
    };
    if core.redirectable
        && let Admission::Redirect(to) = cx.hooks.admit(arrival)
    {
        answer.push(Payload::Notify(redirect::notification(&to, &[])));
        refused(core, cx, assigned, Failure::Redirected(to));
        // The peer deletes it; if it does not, time does.
        core.phase = Phase::Childless;
        return answer;
    }
    match child::respond_first(core, cx, payloads, peer, &mut assigned) {
        Ok((child, chosen)) => {
            answer.extend(chosen);
            if notify(payloads, kind::INITIAL_CONTACT).is_some() {
                cx.initial_contact = Some(peer.clone());
            }
            core.take_token(payloads);
            answer.extend(crash::token(core, cx.settings));
            mobike::learn(core, cx.settings, payloads);
            if core.mobike {
                answer.extend(mobike::announce(cx.settings));
            }
            core.sync = sync::learn(cx.settings, payloads);
            answer.extend(core.sync.answer());
            core.establish(cx, child, assigned);
            answer.extend(ticket::answer(core, cx, payloads));
            answer.extend(ticket::lifetime(core, cx));
        }
        // Section 2.21.2: the IKE SA comes about even if its child does not. It has no use for us,
        // and the peer should delete it; if it does not, time does.
        Err((notify, error)) => {
            answer.push(Payload::Notify(Notify::new(notify, [])));
            refused(core, cx, assigned, error);
            core.phase = Phase::Childless;
        }
    }
    answer
}

pub(super) fn refuse(
    core: &mut Core,
    cx: &mut Cx<'_>,
    notify: u16,
    error: Failure,
) -> Vec<Payload> {
    refused(core, cx, Vec::new(), error);
    core.phase = Phase::Ended;
    vec![Payload::Notify(Notify::new(notify, []))]
}

/// Tells the owner that the peer gets no session.
pub(crate) fn refused(core: &Core, cx: &mut Cx<'_>, assigned: Vec<IpAddr>, error: Failure) {
    let (id, remote, peer) = (core.id, core.remote, core.peer.clone());
    cx.events.push(Event::Refused {
        id,
        remote,
        peer,
        assigned,
        error,
        untold: 0,
    });
}

/// Which CAs we trust; nothing if none.
pub(crate) fn request(settings: &Settings) -> Option<Payload> {
    let trust = &settings.x509.trust;
    let request = || Payload::CertReq(CertReq::x509(trust.authorities()));
    (!trust.is_empty()).then(request)
}

/// Whether we can prove ourselves in that way to a peer that has answered our first message.
///
/// # Errors
/// [`Failure::NoProof`].
pub(crate) fn can_prove(core: &Core, settings: &Settings, proof: &Proof) -> Result<(), Failure> {
    match (proof, &settings.x509.own) {
        (Proof::Psk(_), _) => Ok(()),
        (_, None) => Err(NO_CERTIFICATE),
        (_, Some(own)) if own.can_sign(core.hashes) => Ok(()),
        (_, Some(_)) => Err(NO_HASH),
    }
}

const NO_CERTIFICATE: Failure = Failure::NoProof("there is no certificate of ours");
const NO_HASH: Failure = Failure::NoProof(
    "the peer announces no hash algorithm that the key of our certificate signs with",
);

impl Core {
    /// What the AUTH payload of one side covers; `None` before IKE_SA_INIT and after IKE_AUTH.
    pub(super) fn signed<'a>(&'a self, local: bool, id: &'a Id) -> Option<(Prf, Signed<'a>)> {
        let (keys, handshake) = (self.keys.as_ref()?, self.handshake.as_ref()?);
        let (message, sk_p) = match local {
            true => (&handshake.ours, &keys.sk_p_local),
            false => (&handshake.theirs, &keys.sk_p_remote),
        };
        let signed = Signed {
            message,
            nonce: handshake.nonce(self.initiator != local),
            id,
            sk_p,
            int_auth: handshake.intermediate.int_auth(),
        };
        Some((self.prf?, signed))
    }

    /// Our CERT payloads, if any, and our AUTH payload.
    pub(crate) fn prove(
        &self,
        settings: &Settings,
        proof: &Proof,
        id: &Id,
    ) -> Result<(Vec<Payload>, AuthPayload), Failure> {
        let (prf, signed) = self
            .signed(true, id)
            .ok_or(Failure::NoProof("IKE_SA_INIT has not been"))?;
        if self.resumed().is_some() {
            return Ok((Vec::new(), resume::auth(prf, &signed)));
        }
        match proof {
            Proof::Psk(psk) => {
                let data = shared_key(prf, psk, signed).to_vec();
                let method = SHARED_KEY;
                Ok((Vec::new(), AuthPayload { method, data }))
            }
            Proof::Certificate | Proof::CertificateOf(_) => {
                let own = settings.x509.own.as_ref();
                let own = own.ok_or(NO_CERTIFICATE)?;
                let auth = own.auth(self.hashes, &signed.octets(prf)).ok_or(NO_HASH)?;
                Ok((own.payloads().collect(), auth))
            }
        }
    }

    /// Whether the peer's AUTH payload proves its identity, in the way that it has to.
    pub(crate) fn verify(
        &self,
        cx: &mut Cx<'_>,
        proof: &Proof,
        id: &Id,
        auth: &AuthPayload,
        payloads: &[Payload],
    ) -> Result<(), Failure> {
        let (prf, signed) = self
            .signed(false, id)
            .ok_or(Failure::PeerNotAuthenticated)?;
        if self.resumed().is_some() {
            let proven = resume::verify(prf, &signed, auth);
            return proven.then_some(()).ok_or(Failure::PeerNotAuthenticated);
        }
        match proof {
            Proof::Psk(psk) => {
                let proven = auth.method == SHARED_KEY && verify(prf, psk, signed, &auth.data);
                proven.then_some(()).ok_or(Failure::PeerNotAuthenticated)
            }
            // A shared key does not do where a certificate is asked for.
            _ if auth.method == SHARED_KEY => Err(Failure::PeerNotAuthenticated),
            Proof::Certificate | Proof::CertificateOf(_) => {
                let chain: Vec<&[u8]> = payloads.iter().filter_map(x509).collect();
                let (trust, now) = (&cx.settings.x509.trust, cx.hooks.unix_time());
                let (key, authority) = trust.verify_named(&chain, &id.identity, now)?;
                if let Proof::CertificateOf(some) = proof
                    && !some.contains(&authority)
                {
                    return Err(Refused::OtherAuthority.into());
                }
                Ok(key.verify(auth, &signed.octets(prf))?)
            }
        }
    }
}

pub(super) fn x509(payload: &Payload) -> Option<&[u8]> {
    match payload {
        Payload::Cert(Cert {
            encoding: X509_SIGNATURE,
            data,
        }) => Some(data),
        _ => None,
    }
}
