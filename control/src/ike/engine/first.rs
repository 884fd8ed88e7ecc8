//! The first message of a stranger: what it may cost us.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::super::crypto::sha256;
use super::super::event::{SaId, Transmit};
use super::super::payload::header::{HEADER, Header, exchange};
use super::super::payload::notify::{Notify, kind};
use super::super::payload::{Malformed, Payload, parse_chain, sk};
use super::super::sa::Sa;
use super::super::settings::{Admission, Arrival, Hooks};
use super::super::state::Core;
use super::super::task::{Cx, Succession, auth, init, notify, redirect, resume};
use super::Engine;

/// A first message is kept until its sender is authenticated; a longer one is dropped. Room for many
/// proposals and any public value of today.
const LONGEST_FIRST_MESSAGE: usize = 4096;

/// A first message that is acceptable.
enum Accepted {
    New(init::Accepted),
    Resumed(resume::Accepted),
}

impl Engine {
    /// An IKE_SA_INIT or IKE_SESSION_RESUME request, as responder.
    pub(super) fn first_message(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        data: &[u8],
        hooks: &mut dyn Hooks,
    ) {
        match self.admit(now, local, remote, header, data, hooks) {
            Verdict::No => {}
            Verdict::Again(id) => {
                self.with(id, now, hooks, |sa, cx| sa.repeat_first(local, remote, cx));
            }
            Verdict::Yes(first) => {
                let mut cx = Cx {
                    now,
                    settings: &self.settings,
                    rng: &mut *self.rng,
                    hooks,
                    stats: &mut self.stats,
                    guesses: &mut self.guesses,
                    events: Vec::new(),
                    initial_contact: None,
                    succession: Succession::default(),
                };
                let answered = first.answer(&mut cx);
                self.answered(answered);
            }
        }
    }

    /// What a first message may cost. One that is admitted has its place among the half-open
    /// sessions from now on, and its repetition is known.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        data: &[u8],
        hooks: &mut dyn Hooks,
    ) -> Verdict {
        let in_place = header.initiator && header.message_id == 0;
        if !in_place || header.spi_r != 0 || header.spi_i == 0 {
            self.stats.unexpected += 1;
            return Verdict::No;
        }
        if data.len() > LONGEST_FIRST_MESSAGE {
            self.stats.malformed += 1;
            return Verdict::No;
        }
        let digest = sha256(&[&address(remote), data]);
        if let Some(id) = self.by_first_message.get(&digest).copied() {
            return Verdict::Again(id);
        }
        let payloads = match parse_chain(header.next, data.get(HEADER..).unwrap_or_default()) {
            Ok(payloads) => payloads,
            Err(malformed) => {
                self.stats.malformed += 1;
                let notify = match malformed {
                    Malformed::Critical(kind) => {
                        Notify::new(kind::UNSUPPORTED_CRITICAL_PAYLOAD, [kind])
                    }
                    _ => Notify::new(kind::INVALID_SYNTAX, []),
                };
                self.complain(now, local, remote, header, notify);
                return Verdict::No;
            }
        };
        if !self.check_cookie(now, local, remote, header, &payloads) {
            return Verdict::No;
        }
        if let Some(elsewhere) = self.turn_away(remote, &payloads, hooks) {
            self.answer_plain(local, remote, header, vec![Payload::Notify(elsewhere)]);
            return Verdict::No;
        }
        let source = remote.ip().into();
        if self.half_open.of(source) >= self.settings.half_open_per_source {
            self.stats.half_open_refused += 1;
            return Verdict::No;
        }
        let mut core = Core::new(self.new_id(), false, local, remote);
        core.begun = Some(now);
        core.spi_i = header.spi_i;
        core.spi_r = self.new_spi();
        self.half_open.insert(core.id, source);
        self.by_first_message.insert(digest, core.id);
        Verdict::Yes(Box::new(First {
            core,
            header: *header,
            payloads,
            data: data.to_vec(),
            digest,
        }))
    }

    /// A first message has been judged: its session is half open, or its sender is refused.
    pub(super) fn answered(&mut self, answered: Answered) {
        let Answered {
            id,
            local,
            remote,
            header,
            digest,
            outcome,
        } = answered;
        let (sa, message) = match outcome {
            Ok(made) => made,
            Err(notify) => {
                self.half_open.remove(id);
                self.by_first_message.remove(&digest);
                match notify {
                    Some(notify) => {
                        self.answer_plain(local, remote, &header, vec![Payload::Notify(notify)]);
                    }
                    None => self.stats.unexpected += 1,
                }
                return;
            }
        };
        // A true handshake is through in one round trip: the oldest is the least likely to be one.
        while self.half_open.len() > self.settings.half_open_limit.max(1)
            && let Some(oldest) = self.half_open.oldest()
            && self.remove(oldest).is_some()
        {
            self.stats.half_open_evicted += 1;
        }
        self.stats.sent += 1;
        self.transmits.push_back(Transmit {
            local,
            remote,
            data: message,
        });
        self.insert(sa);
        self.settle(id);
    }

    /// What the sender of a first message is told if the owner does not want it; nothing is kept
    /// (RFC 5685 section 3).
    fn turn_away(
        &mut self,
        remote: SocketAddr,
        payloads: &[Payload],
        hooks: &mut dyn Hooks,
    ) -> Option<Notify> {
        let ni = init::initiator_nonce(payloads)?;
        let arrival = Arrival {
            remote: remote.ip(),
            peer: None,
            redirected_from: redirect::redirected_from(payloads),
        };
        let told = match hooks.admit(arrival) {
            Admission::Take => return None,
            Admission::Redirect(to) if redirect::supported(payloads) => {
                self.stats.redirected += 1;
                return Some(redirect::notification(&to, ni));
            }
            Admission::Redirect(_) | Admission::Refuse => kind::TEMPORARY_FAILURE,
        };
        self.stats.turned_away += 1;
        Some(Notify::new(told, []))
    }

    /// Whether a first message may cost us state; asks for a cookie if not.
    fn check_cookie(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        payloads: &[Payload],
    ) -> bool {
        let of_source = self.half_open.of(remote.ip().into());
        let few = of_source < self.settings.half_open_per_source.div_ceil(2);
        if few && self.half_open.len() < self.settings.cookie_threshold {
            return true;
        }
        // Without a nonce it is refused for its syntax.
        let Some(ni) = init::initiator_nonce(payloads) else {
            return true;
        };
        let (rng, spi_i) = (&mut *self.rng, header.spi_i);
        if let Some(Notify { data, .. }) = notify(payloads, kind::COOKIE) {
            if self.cookies.check(now, rng, remote.ip(), spi_i, ni, data) {
                return true;
            }
            self.stats.cookies_wrong += 1;
        }
        let cookie = self.cookies.make(now, rng, remote.ip(), spi_i, ni);
        self.stats.cookies_sent += 1;
        let notify = Payload::Notify(Notify::new(kind::COOKIE, cookie));
        self.answer_plain(local, remote, header, vec![notify]);
        false
    }
}

/// Whether a first message is worth the work of an answer.
pub(super) enum Verdict {
    No,
    /// It has an answer already.
    Again(SaId),
    Yes(Box<First>),
}

/// A first message that is to be answered.
pub(super) struct First {
    core: Core,
    header: Header,
    payloads: Vec<Payload>,
    data: Vec<u8>,
    /// By which its repetition is known.
    digest: [u8; 32],
}

/// What came of it.
pub(super) struct Answered {
    id: SaId,
    local: SocketAddr,
    remote: SocketAddr,
    header: Header,
    digest: [u8; 32],
    /// The IKE SA and the answer, or a refusal.
    outcome: Result<(Sa, Vec<u8>), Option<Notify>>,
}

impl First {
    /// The work: a key exchange, and keys.
    pub(super) fn answer(self, cx: &mut Cx<'_>) -> Answered {
        let Core {
            id, local, remote, ..
        } = self.core;
        Answered {
            id,
            local,
            remote,
            header: self.header,
            digest: self.digest,
            outcome: self.judge(cx),
        }
    }

    fn judge(self, cx: &mut Cx<'_>) -> Result<(Sa, Vec<u8>), Option<Notify>> {
        let First {
            mut core,
            header,
            payloads,
            data,
            digest,
        } = self;
        let accepted = match header.exchange {
            exchange::IKE_SESSION_RESUME => resume::respond(&payloads, cx).map(Accepted::Resumed),
            _ => init::respond(&payloads, cx).map(Accepted::New),
        };
        let mut accepted = accepted.map_err(Some)?;
        let mut answer = match &mut accepted {
            Accepted::New(new) => std::mem::take(&mut new.answer),
            Accepted::Resumed(resumed) => std::mem::take(&mut resumed.answer),
        };
        init::common(&core, cx.settings, &mut answer);
        if cx.settings.follows_redirects {
            let follows = Notify::new(kind::REDIRECT_SUPPORTED, []);
            answer.push(Payload::Notify(follows));
        }
        core.follows_redirects = cx.settings.follows_redirects;
        core.redirectable = redirect::supported(&payloads);
        core.redirected_from = redirect::redirected_from(&payloads);
        if let Accepted::New(_) = accepted {
            answer.extend(auth::request(cx.settings));
        }
        let response = Header {
            spi_r: core.spi_r,
            initiator: false,
            response: true,
            ..header
        };
        let message = sk::write_plain(response, &answer).map_err(|_| None)?;
        match accepted {
            Accepted::New(new) => {
                core.agree(new.suite, new.nonces, &new.shared, message.clone(), data);
            }
            Accepted::Resumed(resumed) => resumed.enter(&mut core, [message.clone(), data]),
        }
        core.learn(&payloads, cx.settings);
        let until = cx.now + cx.settings.half_open_timeout;
        let sa = Sa::responder(core, digest, message.clone(), until);
        Ok((sa, message))
    }
}

/// Address and port as bytes.
fn address(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => [&ip.octets()[..], &port].concat(),
        IpAddr::V6(ip) => [&ip.octets()[..], &port].concat(),
    }
}
