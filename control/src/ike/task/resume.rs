//! IKE_SESSION_RESUME (RFC 5723 section 4.3): a session goes on by a ticket, without key exchange and
//! without anybody proving anew who it is. IKE_AUTH follows, with AUTH from the new SK_p alone.
//!
//! ```text
//! HDR(A,0), [N(COOKIE),] Ni, N(TICKET_OPAQUE), N(NAT_DETECTION_*),
//!   N(IKEV2_FRAGMENTATION_SUPPORTED) -->
//!                                <-- HDR(A,B), Nr, N(NAT_DETECTION_*),
//!                                      N(IKEV2_FRAGMENTATION_SUPPORTED)
//!                             or <-- HDR(A,0), N(TICKET_NACK)
//! ```

use std::time::Duration;

use subtle::ConstantTimeEq;

use super::super::auth::Signed;
use super::super::crypto::{Prf, Secret, sha256};
use super::super::event::Failure;
use super::super::identity::Identity;
use super::super::keys::IkeKeys;
use super::super::payload::Payload;
use super::super::payload::auth::{Auth as AuthPayload, SHARED_KEY};
use super::super::payload::header::exchange;
use super::super::payload::id::Id;
use super::super::payload::notify::{Notify, kind};
use super::super::proposal::{IkeProposal, IkeSuite};
use super::super::settings::{Initiate, Proof, Settings};
use super::super::state::Core;
use super::super::ticket::{State, Ticket, TicketId, Way};
use super::super::x509::AuthorityId;
use super::auth::{Auth, finish, refuse, x509};
use super::init::{Init, LONGEST_COOKIE, MOST_ROUNDS, common, initiator_nonce, nonce, status};
use super::{Cx, Request, Response, Step, error, find, notify};

/// So often a request is sent before the full exchange is tried: a responder that does not know this
/// one says nothing.
const SENDINGS: u32 = 2;

/// What an IKE SA that is being resumed knows of the former one.
pub(crate) struct Resumed {
    pub(crate) idi: Identity,
    pub(crate) idr: Identity,
    /// When the initiator has proven who it is, in seconds since 1970.
    authenticated: u64,
    /// As responder: what the ticket holds.
    opened: Option<(TicketId, State)>,
}

/// Who the two sides are for each other, and since when that is proven.
pub(crate) struct Origin {
    pub(crate) idi: Identity,
    pub(crate) idr: Identity,
    /// How the initiator has proven it, as responder.
    pub(crate) way: Option<Way>,
    /// Seconds since 1970.
    pub(crate) authenticated: u64,
    /// As initiator: the responder issues tickets.
    pub(crate) has_ticket: bool,
}

impl Resumed {
    /// Who the responder is, as initiator. It speaks in the name that the ticket's session was begun
    /// with, whoever it is: that it could open the ticket is its proof.
    pub(super) fn responder(&self, found: &Id, wanted: Option<&Identity>) -> Result<Id, Failure> {
        if found.identity.matches(&self.idr) {
            return Ok(found.clone());
        }
        Err(Failure::WrongIdentity {
            found: found.identity.clone(),
            expected: wanted.unwrap_or(&self.idr).clone(),
        })
    }
}

/// The exchange as initiator.
pub(crate) struct Resume {
    /// Taken when the next exchange begins.
    initiate: Option<Box<Initiate>>,
    ticket: Ticket,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    rounds: u32,
    message: Vec<u8>,
}

impl Resume {
    pub(crate) fn new(initiate: Initiate, ticket: Ticket, cx: &mut Cx<'_>) -> Resume {
        Resume {
            initiate: Some(Box::new(initiate)),
            ticket,
            nonce: nonce(cx),
            cookie: None,
            rounds: 0,
            message: Vec::new(),
        }
    }

    /// Whether our settings still let us go on with that ticket's session.
    pub(crate) fn is_possible(ticket: &Ticket, cx: &Cx<'_>) -> bool {
        ticket.expires > cx.now
            && ticket.idi.matches(&cx.settings.local_id)
            && allows(&cx.settings.ike_proposals, ticket.suite)
    }

    fn begin_anew(&mut self, cx: &mut Cx<'_>) -> Option<Box<dyn Request>> {
        let initiate = self.initiate.take()?;
        let init = Init::new(*initiate, cx)?;
        Some(Box::new(init))
    }
}

impl Request for Resume {
    fn exchange(&self) -> u8 {
        exchange::IKE_SESSION_RESUME
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        let cookie = self.cookie.clone();
        let cookie = cookie.map(|c| Payload::Notify(Notify::new(kind::COOKIE, c)));
        let mut payloads: Vec<Payload> = cookie.into_iter().collect();
        payloads.push(Payload::Nonce(self.nonce.clone()));
        let ticket = Notify::new(kind::TICKET_OPAQUE, self.ticket.opaque.clone());
        payloads.push(Payload::Notify(ticket));
        if cx.settings.fragment_size.is_some() {
            payloads.push(status(kind::IKEV2_FRAGMENTATION_SUPPORTED));
        }
        common(core, cx.settings, &mut payloads);
        payloads
    }

    fn sent(&mut self, message: &[u8]) {
        self.message = message.to_vec();
    }

    fn instead(&mut self, sent: u32, cx: &mut Cx<'_>) -> Option<Box<dyn Request>> {
        match sent >= SENDINGS {
            true => self.begin_anew(cx),
            false => None,
        }
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        let payloads = response.payloads;
        if let Some(cookie) = notify(payloads, kind::COOKIE) {
            if !(1..=LONGEST_COOKIE).contains(&cookie.data.len())
                || self.cookie.as_ref() == Some(&cookie.data)
                || self.rounds == MOST_ROUNDS
            {
                return Step::Ignore;
            }
            self.rounds += 1;
            self.cookie = Some(cookie.data.clone());
            return Step::Again;
        }
        if notify(payloads, kind::TICKET_NACK).is_some() || error(payloads).is_some() {
            // Anyone can have sent it. The full exchange does no harm, only takes longer.
            return match self.begin_anew(cx) {
                Some(init) => Step::Restart(init),
                None => Step::Fail(Failure::NoProposalChosen, None),
            };
        }
        let spi_r = response.header.spi_r;
        let Some(nr) = initiator_nonce(payloads) else {
            return Step::Ignore;
        };
        if spi_r == 0 || spi_r == core.spi_i {
            return Step::Ignore;
        }
        let Some(initiate) = self.initiate.take() else {
            return Step::Ignore;
        };
        core.spi_r = spi_r;
        let nonces = [std::mem::take(&mut self.nonce), nr.clone()];
        let Ticket {
            suite,
            sk_d,
            idi,
            idr,
            ..
        } = &self.ticket;
        let resumed = Resumed {
            idi: idi.clone(),
            idr: idr.clone(),
            authenticated: self.ticket.authenticated,
            opened: None,
        };
        let messages = [
            std::mem::take(&mut self.message),
            response.datagram.to_vec(),
        ];
        core.resume(*suite, sk_d, nonces, messages, resumed);
        core.learn(payloads, cx.settings);
        Step::Next(Box::new(Auth::new(initiate)))
    }
}

/// A first message with a ticket that is good, and what to answer to it.
pub(crate) struct Accepted {
    nonces: [Vec<u8>; 2],
    opened: Box<(TicketId, State)>,
    pub(crate) answer: Vec<Payload>,
}

/// Judges a first message with a ticket, as responder. Nothing is kept if it is refused.
///
/// # Errors
/// The notification to answer with, in the clear.
pub(crate) fn respond(payloads: &[Payload], cx: &mut Cx<'_>) -> Result<Accepted, Notify> {
    let ticket = notify(payloads, kind::TICKET_OPAQUE);
    let (Some(ticket), Some(ni)) = (ticket, initiator_nonce(payloads)) else {
        return Err(Notify::new(kind::INVALID_SYNTAX, []));
    };
    let tickets = cx.settings.tickets.clone();
    let opened = tickets.and_then(|tickets| {
        let (id, state) = tickets.open(&ticket.data).ok()?;
        (!tickets.is_used(&id) && is_wanted(&state, cx)).then_some((id, state))
    });
    let Some(opened) = opened else {
        cx.stats.tickets_refused += 1;
        return Err(Notify::new(kind::TICKET_NACK, []));
    };
    let nr = nonce(cx);
    let mut answer = vec![Payload::Nonce(nr.clone())];
    let fragments = notify(payloads, kind::IKEV2_FRAGMENTATION_SUPPORTED);
    if cx.settings.fragment_size.is_some() && fragments.is_some() {
        answer.push(status(kind::IKEV2_FRAGMENTATION_SUPPORTED));
    }
    Ok(Accepted {
        nonces: [ni.clone(), nr],
        opened: Box::new(opened),
        answer,
    })
}

impl Accepted {
    /// Gives an IKE SA its keys. `messages`: ours, theirs.
    pub(crate) fn enter(self, core: &mut Core, messages: [Vec<u8>; 2]) {
        let state = &self.opened.1;
        let (suite, sk_d) = (state.suite, state.sk_d.clone());
        let resumed = Resumed {
            idi: state.idi.clone(),
            idr: state.idr.clone(),
            authenticated: state.authenticated,
            opened: Some(*self.opened),
        };
        core.resume(suite, &sk_d, self.nonces, messages, resumed);
    }
}

/// Whether that session may go on: it is not too old, and its peer would get a new one in the same
/// way.
fn is_wanted(state: &State, cx: &mut Cx<'_>) -> bool {
    let now = cx.hooks.unix_time();
    let settings = cx.settings;
    let reauth = settings.reauth.map_or(u64::MAX, |limit| limit.as_secs());
    if state.expires <= now
        || state.authenticated.saturating_add(reauth) <= now
        || !allows(&settings.ike_proposals, state.suite)
    {
        return false;
    }
    let methods = |cx: &mut Cx<'_>| cx.hooks.auth(&settings.local_id, &state.peer);
    match &state.way {
        Way::Psk(check) => match methods(cx).map(|methods| methods.remote) {
            // Another gateway of the cluster shares another key with that peer.
            Some(Proof::Psk(psk)) => {
                !state.issuer.matches(&settings.local_id)
                    || bool::from(check.ct_eq(&check_of(psk.as_bytes(), &state.peer)))
            }
            _ => false,
        },
        Way::Certificate(trust, until) => {
            let wanted = methods(cx).and_then(|methods| believed(&methods.remote, cx));
            wanted == Some(*trust) && *until > now
        }
        Way::Eap => settings.eap && cx.hooks.may_resume(&state.peer),
    }
}

fn check_of(psk: &[u8], peer: &Identity) -> [u8; 16] {
    let (kind, name) = peer.to_wire();
    let made = Prf::HmacSha256.compute(psk, &[b"ticket of", &[kind], &name]);
    made.first_chunk().copied().unwrap_or_default()
}

/// How a peer has proven who it is, for its ticket.
pub(super) fn way(cx: &mut Cx<'_>, proof: &Proof, peer: &Identity, payloads: &[Payload]) -> Way {
    match proof {
        Proof::Psk(psk) => Way::Psk(check_of(psk.as_bytes(), peer)),
        Proof::Certificate | Proof::CertificateOf(_) => {
            let trust = &cx.settings.x509.trust;
            let chain: Vec<&[u8]> = payloads.iter().filter_map(x509).collect();
            let until = trust.believes_until(&chain, cx.hooks.unix_time());
            Way::Certificate(believed(proof, cx).unwrap_or_default(), until)
        }
    }
}

/// A hash of all that decides which certificates a peer may show.
fn believed(proof: &Proof, cx: &Cx<'_>) -> Option<[u8; 32]> {
    let trust = cx.settings.x509.trust.digest();
    match proof {
        Proof::Psk(_) => None,
        Proof::Certificate => Some(trust),
        Proof::CertificateOf(some) => {
            let parts = some.iter().map(AuthorityId::as_bytes);
            let parts: Vec<&[u8]> = std::iter::once(&trust[..]).chain(parts).collect();
            Some(sha256(&parts))
        }
    }
}

fn allows(proposals: &[IkeProposal], suite: IkeSuite) -> bool {
    proposals.iter().any(|p| {
        p.ciphers.contains(&suite.cipher)
            && p.prfs.contains(&suite.prf)
            && p.groups.contains(&suite.group)
            && (p.additional.contains(&suite.additional)
                || p.additional.is_empty() && suite.additional.is_none())
    })
}

/// IKE_AUTH of a session that is resumed, as responder.
pub(super) fn authenticate(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Vec<Payload> {
    let denied = |core: &mut Core, cx: &mut Cx<'_>| {
        cx.stats.authentication_failed += 1;
        let kind = kind::AUTHENTICATION_FAILED;
        refuse(core, cx, kind, Failure::AuthenticationFailed)
    };
    let opened = core.resumed().and_then(|resumed| resumed.opened.clone());
    let id = find(payloads, |p| match p {
        Payload::IdI(id) => Some(id),
        _ => None,
    });
    let auth = find(payloads, |p| match p {
        Payload::Auth(auth) => Some(auth),
        _ => None,
    });
    let (Some((ticket, state)), Some(id), Some(auth)) = (opened, id, auth) else {
        let failure = Failure::WrongAnswer("a session is resumed without identity or AUTH");
        return refuse(core, cx, kind::INVALID_SYNTAX, failure);
    };
    core.peer = Some(state.peer.clone());
    let resumed = |core: &Core| {
        let (prf, signed) = core.signed(false, id)?;
        verify(prf, &signed, auth).then_some(())
    };
    let idr = find(payloads, |p| match p {
        Payload::IdR(id) => Some(&id.identity),
        _ => None,
    });
    // Section 4.3.3: identities are those of the ticket.
    let same = id.identity == state.idi && idr.is_none_or(|idr| idr.matches(&state.idr));
    if resumed(core).is_none() || !same {
        return denied(core, cx);
    }
    // Only now it is used: whoever only replays it must not spoil it. What has changed since the
    // first message counts too.
    let now = cx.hooks.unix_time();
    let unused = |settings: &Settings| {
        let tickets = settings.tickets.as_ref();
        tickets.is_some_and(|tickets| tickets.take(ticket, now, state.expires))
    };
    if !is_wanted(&state, cx) || !unused(cx.settings) {
        cx.stats.tickets_refused += 1;
        return denied(core, cx);
    }
    let ours = Id::new(state.idr.clone());
    let Some(auth) = core
        .signed(true, &ours)
        .map(|(prf, signed)| self::auth(prf, &signed))
    else {
        return denied(core, cx);
    };
    core.originate(cx, state.idi.clone(), Some(state.way.clone()));
    let answer = vec![Payload::IdR(ours), Payload::Auth(auth)];
    finish(core, cx, payloads, &state.peer, answer)
}

/// AUTH = prf(SK_p, octets), of the side whose SK_p that is (section 4.3.3).
pub(super) fn auth(prf: Prf, signed: &Signed<'_>) -> AuthPayload {
    AuthPayload {
        method: SHARED_KEY,
        data: prf.compute(signed.sk_p, &[&signed.octets(prf)]).to_vec(),
    }
}

/// Whether `auth` is the peer's; in constant time.
pub(super) fn verify(prf: Prf, signed: &Signed<'_>, auth: &AuthPayload) -> bool {
    let expected: Secret = prf.compute(signed.sk_p, &[&signed.octets(prf)]);
    auth.method == SHARED_KEY && bool::from(expected.ct_eq(&auth.data))
}

impl Core {
    /// What is known of the former session, while this one is being resumed.
    pub(crate) fn resumed(&self) -> Option<&Resumed> {
        self.handshake.as_ref()?.resumed.as_deref()
    }

    /// What we call ourselves.
    pub(super) fn local_id<'a>(&'a self, settings: &'a Settings) -> &'a Identity {
        match self.resumed() {
            Some(resumed) if self.initiator => &resumed.idi,
            Some(resumed) => &resumed.idr,
            None => &settings.local_id,
        }
    }

    /// Inner addresses of the former session: the peer is to get them again, unless it asks for
    /// others.
    pub(super) fn former_addresses(&self) -> &[std::net::IpAddr] {
        let opened = self.resumed().and_then(|resumed| resumed.opened.as_ref());
        opened.map_or(&[], |(_, state)| &state.assigned)
    }

    fn resume(
        &mut self,
        suite: IkeSuite,
        sk_d: &Secret,
        nonces: [Vec<u8>; 2],
        messages: [Vec<u8>; 2],
        resumed: Resumed,
    ) {
        let [ni, nr] = &nonces;
        let seed = IkeKeys::resumed_seed(suite.prf, sk_d, [ni, nr]);
        // What the additional key exchange has made is in SK_d; it is not made again.
        self.take_keys(suite, nonces, &seed, messages, Some(Box::new(resumed)));
    }

    /// Both sides have proven who they are, now or when the session was begun. `peer`: what the peer
    /// calls itself; `way`: how it has proven it, as responder.
    pub(super) fn originate(&mut self, cx: &mut Cx<'_>, peer: Identity, way: Option<Way>) {
        let now = cx.hooks.unix_time();
        let resumed = self.resumed();
        let authenticated = resumed.map_or(now, |resumed| resumed.authenticated.min(now));
        let ours = self.local_id(cx.settings).clone();
        let (idi, idr) = match self.initiator {
            true => (ours, peer),
            false => (peer, ours),
        };
        if let (false, Some(limit)) = (self.initiator, cx.settings.reauth) {
            let spent = Duration::from_secs(now.saturating_sub(authenticated));
            self.reauth_until = cx.now.checked_add(limit.saturating_sub(spent));
        }
        self.origin = Some(Box::new(Origin {
            idi,
            idr,
            way,
            authenticated,
            has_ticket: false,
        }));
    }
}
