//! The first message of a stranger: what it may cost us.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::super::crypto::sha256;
use super::super::event::Transmit;
use super::super::payload::header::{HEADER, Header};
use super::super::payload::notify::{Notify, kind};
use super::super::payload::{Malformed, Payload, parse_chain, sk};
use super::super::sa::Sa;
use super::super::settings::{Admission, Arrival, Hooks};
use super::super::state::Core;
use super::super::task::{Cx, Succession, auth, init, notify, redirect};
use super::Engine;

/// A first message is kept until its sender is authenticated; a longer one is dropped. Room for many
/// proposals and any public value of today.
const LONGEST_FIRST_MESSAGE: usize = 4096;

impl Engine {
    /// An IKE_SA_INIT request, as responder.
    pub(super) fn first_message(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        data: &[u8],
        hooks: &mut dyn Hooks,
    ) {
        let in_place = header.initiator && header.message_id == 0;
        if !in_place || header.spi_r != 0 || header.spi_i == 0 {
            self.stats.unexpected += 1;
            return;
        }
        if data.len() > LONGEST_FIRST_MESSAGE {
            self.stats.malformed += 1;
            return;
        }
        let digest = sha256(&[&address(remote), data]);
        if let Some(id) = self.by_first_message.get(&digest).copied() {
            return self.with(id, now, hooks, |sa, cx| sa.repeat_first(local, remote, cx));
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
                return self.answer_plain(local, remote, header, vec![Payload::Notify(notify)]);
            }
        };
        if !self.check_cookie(now, local, remote, header, &payloads) {
            return;
        }
        if let Some(elsewhere) = self.turn_away(remote, &payloads, hooks) {
            return self.answer_plain(local, remote, header, vec![Payload::Notify(elsewhere)]);
        }
        if self.half_open.of(remote.ip().into()) >= self.settings.half_open_per_source {
            self.stats.half_open_refused += 1;
            return;
        }
        let mut core = Core::new(self.new_id(), false, local, remote);
        core.begun = Some(now);
        core.spi_i = header.spi_i;
        core.spi_r = self.new_spi();
        let mut cx = Cx {
            now,
            settings: &self.settings,
            rng: &mut *self.rng,
            hooks,
            stats: &mut self.stats,
            events: Vec::new(),
            initial_contact: None,
            succession: Succession::default(),
        };
        let redirectable = redirect::supported(&payloads);
        let init::Accepted {
            suite,
            nonces,
            shared,
            mut answer,
        } = match init::respond(&payloads, &mut cx) {
            Ok(accepted) => accepted,
            Err(notify) => {
                return self.answer_plain(local, remote, header, vec![Payload::Notify(notify)]);
            }
        };
        init::common(&core, &self.settings, &mut answer);
        if self.settings.follows_redirects {
            let follows = Notify::new(kind::REDIRECT_SUPPORTED, []);
            answer.push(Payload::Notify(follows));
        }
        core.follows_redirects = self.settings.follows_redirects;
        core.redirectable = redirectable;
        core.redirected_from = redirect::redirected_from(&payloads);
        answer.extend(auth::request(&self.settings));
        let response = Header {
            spi_r: core.spi_r,
            initiator: false,
            response: true,
            ..*header
        };
        let Ok(message) = sk::write_plain(response, &answer) else {
            self.stats.unexpected += 1;
            return;
        };
        // A true handshake is through in one round trip: the oldest is the least likely to be one.
        while self.half_open.len() >= self.settings.half_open_limit.max(1)
            && let Some(oldest) = self.half_open.oldest()
        {
            self.stats.half_open_evicted += 1;
            self.remove(oldest);
        }
        core.agree(suite, nonces, &shared, message.clone(), data.to_vec());
        core.learn(&payloads, &self.settings);
        self.stats.sent += 1;
        self.transmits.push_back(Transmit {
            local,
            remote,
            data: message.clone(),
        });
        let until = now + self.settings.half_open_timeout;
        let id = self.insert(Sa::responder(core, digest, message, until));
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

/// Address and port as bytes.
fn address(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => [&ip.octets()[..], &port].concat(),
        IpAddr::V6(ip) => [&ip.octets()[..], &port].concat(),
    }
}
