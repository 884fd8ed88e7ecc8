//! IKE_AUTH with EAP, as responder (RFC 7296 section 2.16): the user proves itself by a password
//! or in TLS, we by our certificate.
//!
//! ```text
//! HDR(A,B), SK {IDi, [IDr,] [CP(CFG_REQUEST),] SAi2, TSi, TSr} -->
//!                                <-- HDR(A,B), SK {IDr, CERT+, AUTH, EAP}
//! HDR(A,B), SK {EAP} -->
//!                                <-- HDR(A,B), SK {EAP}
//! …
//!                                <-- HDR(A,B), SK {EAP(success)}
//! HDR(A,B), SK {AUTH} -->
//!                                <-- HDR(A,B), SK {AUTH, [CP(CFG_REPLY),] SAr2, TSi, TSr}
//! ```

use std::time::{Duration, Instant};

use super::super::crypto::Psk;
use super::super::eap::{EapUser, Outcome, Server, Users};
use super::super::event::Failure;
use super::super::guesses::Guesses;
use super::super::identity::Identity;
use super::super::limits::Source;
use super::super::payload::id::Id;
use super::super::payload::notify::kind;
use super::super::payload::{Payload, write_chain};
use super::super::settings::{Hooks, Proof, Settings, X509};
use super::super::state::{Core, Phase};
use super::super::ticket::Way;
use super::super::x509::Subject;
use super::auth::{finish, refuse, refused};
use super::{Cx, find};

/// So many bytes of the first request are kept while a user is not authenticated.
const LONGEST_REQUEST: usize = 4096;

/// A conversation with a user.
pub(crate) struct Conversation {
    server: Server,
    /// What the initiator calls itself; AUTH covers it.
    id: Id,
    /// What the first request wants.
    request: Vec<Payload>,
    /// Who the user is, and the key that both have.
    proven: Option<(Identity, Psk)>,
}

/// The users that the owner knows.
struct Owners<'a> {
    now: Instant,
    source: Source,
    guesses: &'a mut Guesses,
    settings: &'a Settings,
    hooks: &'a mut dyn Hooks,
}

impl Users for Owners<'_> {
    fn have_passwords(&self) -> bool {
        self.settings.eap
    }

    fn by_password(&mut self, name: &str) -> Option<EapUser> {
        self.hooks.eap_user(name)
    }

    fn wait(&mut self, name: &str) -> Option<Duration> {
        self.guesses.wait(self.now, name, self.source)
    }

    fn judged(&mut self, name: &str, right: bool) {
        match right {
            true => self.guesses.right(self.now, name, self.source),
            false => self.guesses.wrong(self.now, name, self.source),
        }
    }

    fn certificates(&mut self) -> Option<(X509, u64)> {
        let time = self.hooks.unix_time();
        let x509 = || (self.settings.x509.clone(), time);
        self.settings.eap_tls.then(x509)
    }

    fn by_certificate(&mut self, subject: &Subject) -> Option<Identity> {
        self.hooks.eap_certificate(subject)
    }
}

/// An IKE_AUTH request without AUTH: the initiator wants EAP.
pub(super) fn begin(
    core: &mut Core,
    cx: &mut Cx<'_>,
    id: &Id,
    payloads: &[Payload],
) -> Vec<Payload> {
    core.peer = Some(id.identity.clone());
    if !cx.settings.eap && !cx.settings.eap_tls {
        return deny(core, cx, Failure::AuthenticationFailed);
    }
    let wanted = |payload: &&Payload| {
        matches!(
            payload,
            Payload::Sa(_)
                | Payload::TsI(_)
                | Payload::TsR(_)
                | Payload::Config(_)
                | Payload::Notify(_)
        )
    };
    let request: Vec<Payload> = payloads.iter().filter(wanted).cloned().collect();
    let mut bytes = Vec::new();
    if write_chain(&request, &mut bytes).is_err() || bytes.len() > LONGEST_REQUEST {
        let failure = Failure::WrongAnswer("a first request beyond measure");
        return refuse(core, cx, kind::INVALID_SYNTAX, failure);
    }
    let ours = Id::new(cx.settings.local_id.clone());
    let (certificates, auth) = match core.prove(cx.settings, &Proof::Certificate, &ours) {
        Ok(proof) => proof,
        Err(failure) => return deny(core, cx, failure),
    };
    let (server, question) = Server::new(cx.rng);
    core.eap = Some(Box::new(Conversation {
        server,
        id: id.clone(),
        request,
        proven: None,
    }));
    let mut answer = vec![Payload::IdR(ours)];
    answer.extend(certificates);
    answer.push(Payload::Auth(auth));
    answer.push(Payload::Eap(question));
    answer
}

/// A further IKE_AUTH request of a conversation.
pub(super) fn respond(
    core: &mut Core,
    cx: &mut Cx<'_>,
    mut talk: Box<Conversation>,
    payloads: &[Payload],
) -> Vec<Payload> {
    if let Some((identity, msk)) = talk.proven.take() {
        return conclude(core, cx, &talk, identity, msk, payloads);
    }
    let packet = find(payloads, |p| match p {
        Payload::Eap(packet) => Some(packet),
        _ => None,
    });
    let Some(packet) = packet else {
        let failure = Failure::WrongAnswer("IKE_AUTH without EAP");
        return refuse(core, cx, kind::INVALID_SYNTAX, failure);
    };
    let mut users = Owners {
        now: cx.now,
        source: core.remote.ip().into(),
        settings: cx.settings,
        guesses: &mut *cx.guesses,
        hooks: &mut *cx.hooks,
    };
    let outcome = talk.server.handle(packet, cx.rng, &mut users);
    let packet = match outcome {
        Outcome::Request(packet) => packet,
        Outcome::Success(packet, identity, msk) => {
            talk.proven = Some((identity, Psk::new(msk.to_vec())));
            packet
        }
        Outcome::Failure(packet, failure) => {
            cx.stats.authentication_failed += 1;
            refused(core, cx, Vec::new(), failure);
            core.phase = Phase::Ended;
            return vec![Payload::Eap(packet)];
        }
    };
    core.eap = Some(talk);
    vec![Payload::Eap(packet)]
}

/// The user says no more, or something else: clients end like this after a wrong password, without
/// another try. No effect without a conversation.
pub(crate) fn give_up(core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
    if let Some(talk) = core.eap.take() {
        let failure = talk.server.denied().cloned();
        let failure = failure.unwrap_or(Failure::Timeout);
        cx.stats.authentication_failed += 1;
        refused(core, cx, Vec::new(), failure);
        core.phase = Phase::Ended;
    }
    Vec::new()
}

/// Both have the key now: each proves so.
fn conclude(
    core: &mut Core,
    cx: &mut Cx<'_>,
    talk: &Conversation,
    identity: Identity,
    msk: Psk,
    payloads: &[Payload],
) -> Vec<Payload> {
    let auth = find(payloads, |p| match p {
        Payload::Auth(auth) => Some(auth),
        _ => None,
    });
    let proof = Proof::Psk(msk);
    let proven = auth.is_some_and(|a| core.verify(cx, &proof, &talk.id, a, payloads).is_ok());
    if !proven {
        return deny(core, cx, Failure::AuthenticationFailed);
    }
    core.peer = Some(identity.clone());
    core.originate(cx, talk.id.identity.clone(), Some(Way::Eap));
    let ours = Id::new(cx.settings.local_id.clone());
    match core.prove(cx.settings, &proof, &ours) {
        Ok((_, auth)) => finish(
            core,
            cx,
            &talk.request,
            &identity,
            vec![Payload::Auth(auth)],
        ),
        Err(failure) => deny(core, cx, failure),
    }
}

fn deny(core: &mut Core, cx: &mut Cx<'_>, failure: Failure) -> Vec<Payload> {
    cx.stats.authentication_failed += 1;
    refuse(core, cx, kind::AUTHENTICATION_FAILED, failure)
}
