//! IKE_AUTH with pre-shared keys (RFC 7296 sections 1.2 and 2.15), which makes the first child SA
//! too.
//!
//! ```text
//! HDR(A,B), SK {IDi, [N(INITIAL_CONTACT),] [IDr,] AUTH, [CP(CFG_REQUEST),] SAi2, TSi, TSr} -->
//!                                <-- HDR(A,B), SK {IDr, AUTH, [CP(CFG_REPLY),] SAr2, TSi, TSr}
//! ```

use std::net::IpAddr;

use super::super::auth::{Signed, shared_key, verify};
use super::super::crypto::Psk;
use super::super::event::{Event, Failure};
use super::super::payload::Payload;
use super::super::payload::auth::{Auth as AuthPayload, SHARED_KEY};
use super::super::payload::header::exchange;
use super::super::payload::id::Id;
use super::super::payload::notify::{Notify, kind};
use super::super::settings::Initiate;
use super::super::state::{Core, Phase};
use super::child::{self, Offer};
use super::informational::{Abort, Delete};
use super::{Cx, Request, Response, Step, error, find, notify};

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
    fn authenticate(&self, core: &Core, payloads: &[Payload]) -> Result<Id, Failure> {
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
        if !core.verify(&self.initiate.psk, id, auth) {
            return Err(Failure::PeerNotAuthenticated);
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
        let id = Id::new(cx.settings.local_id.clone());
        let auth = core.prove(&self.initiate.psk, &id);
        let mut payloads = vec![Payload::IdI(id)];
        if self.initiate.initial_contact {
            payloads.push(Payload::Notify(Notify::new(kind::INITIAL_CONTACT, [])));
        }
        payloads.extend(
            self.initiate
                .remote_id
                .clone()
                .map(|id| Payload::IdR(Id::new(id))),
        );
        payloads.push(Payload::Auth(auth));
        let offer = Offer::new(&self.initiate, cx);
        core.spi_in = Some(offer.spi);
        offer.write(cx.settings, &mut payloads);
        self.offer = Some(offer);
        payloads
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        let payloads = response.payloads;
        let has_auth = payloads.iter().any(|p| matches!(p, Payload::Auth(_)));
        if let (Some(error), false) = (error(payloads), has_auth) {
            return Step::Fail(Failure::notified(error), None);
        }
        // From here on the responder holds an established IKE SA: it must be told if we do not.
        let id = match self.authenticate(core, payloads) {
            Ok(id) => id,
            Err(failure) => return Step::Fail(failure, Some(Box::new(Abort))),
        };
        let Some(offer) = self.offer.take() else {
            return Step::Ignore;
        };
        let (child, assigned) = match offer.accept(core, cx.settings, payloads) {
            Ok(made) => made,
            Err(failure) => return Step::Fail(failure, Some(Box::new(Delete))),
        };
        core.peer = Some(id.identity);
        core.establish(cx, child, assigned);
        Step::Done
    }
}

/// Judges an IKE_AUTH request and yields the payloads of the response. Whether the IKE SA lives on
/// shows in its phase.
pub(crate) fn respond(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Vec<Payload> {
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
    let local_id = cx.settings.local_id.clone();
    let auth = find(payloads, |p| {
        if let Payload::Auth(a) = p {
            Some(a)
        } else {
            None
        }
    });
    let psk = cx.hooks.psk(&local_id, &id.identity);
    // Without AUTH the peer wants EAP, which is not spoken. An unknown peer costs the same work as
    // a wrong key.
    let known = psk.is_some();
    let psk = psk.unwrap_or_else(|| Psk::new(vec![0; 32]));
    let proven = auth.is_some_and(|auth| core.verify(&psk, id, auth));
    core.peer = Some(id.identity.clone());
    if !(known && proven) {
        cx.stats.authentication_failed += 1;
        return refuse(
            core,
            cx,
            kind::AUTHENTICATION_FAILED,
            Failure::AuthenticationFailed,
        );
    }
    let ours = Id::new(local_id);
    let mut answer = vec![Payload::Auth(core.prove(&psk, &ours))];
    answer.insert(0, Payload::IdR(ours));
    let mut assigned = Vec::new();
    match child::respond_first(core, cx, payloads, &id.identity, &mut assigned) {
        Ok((child, chosen)) => {
            answer.extend(chosen);
            if notify(payloads, kind::INITIAL_CONTACT).is_some() {
                cx.initial_contact = Some(id.identity.clone());
            }
            core.establish(cx, child, assigned);
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

fn refuse(core: &mut Core, cx: &mut Cx<'_>, notify: u16, error: Failure) -> Vec<Payload> {
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

impl Core {
    /// Our AUTH payload.
    fn prove(&self, psk: &Psk, id: &Id) -> AuthPayload {
        let data = match (&self.keys, &self.handshake, self.prf) {
            (Some(keys), Some(handshake), Some(prf)) => {
                let nonce = handshake.nonce(!self.initiator);
                let message = handshake.ours.as_slice();
                let signed = Signed {
                    message,
                    nonce,
                    id,
                    sk_p: &keys.sk_p_local,
                    int_auth: &handshake.intermediate.int_auth(),
                };
                shared_key(prf, psk, signed).to_vec()
            }
            _ => unreachable!("IKE_AUTH follows IKE_SA_INIT"),
        };
        AuthPayload {
            method: SHARED_KEY,
            data,
        }
    }

    /// Whether the peer's AUTH payload proves its identity.
    fn verify(&self, psk: &Psk, id: &Id, auth: &AuthPayload) -> bool {
        let (Some(keys), Some(handshake), Some(prf)) = (&self.keys, &self.handshake, self.prf)
        else {
            return false;
        };
        let nonce = handshake.nonce(self.initiator);
        let message = handshake.theirs.as_slice();
        let signed = Signed {
            message,
            nonce,
            id,
            sk_p: &keys.sk_p_remote,
            int_auth: &handshake.intermediate.int_auth(),
        };
        auth.method == SHARED_KEY && verify(prf, psk, signed, &auth.data)
    }
}
