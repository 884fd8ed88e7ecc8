//! REDIRECT (RFC 5685): a responder sends an initiator to another gateway; in its answer to
//! IKE_SA_INIT, in that to IKE_AUTH, or at any time later.
//!
//! ```text
//! HDR(A,0), …, Ni, N(REDIRECT_SUPPORTED) -->
//!                                <-- HDR(A,0), N(REDIRECT, gateway, Ni)
//!
//! HDR(A,B), SK {IDi, …, AUTH, SAi2, TSi, TSr} -->
//!                                <-- HDR(A,B), SK {IDr, AUTH, N(REDIRECT, gateway)}
//!
//!                                <-- HDR, SK {N(REDIRECT, gateway)}
//! HDR, SK {} -->
//! ```

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::super::event::{Event, Failure};
use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::redirect::GatewayIdentity;
use super::super::settings::Initiate;
use super::super::state::Core;
use super::{Cx, Request, Response, Step, notify};

/// MAX_REDIRECTS and REDIRECT_LOOP_DETECT_PERIOD (RFC 5685 section 10).
const MAX_REDIRECTS: usize = 5;
const LOOP_DETECT_PERIOD: Duration = Duration::from_secs(300);

/// Tells redirects from a loop of them: whoever follows them asks this before each.
#[derive(Debug, Clone, Default)]
pub struct RedirectLimit {
    followed: Vec<Instant>,
}

impl RedirectLimit {
    /// Whether one more may be followed: not more than five in five minutes.
    pub fn pass(&mut self, now: Instant) -> bool {
        self.followed
            .retain(|at| now.saturating_duration_since(*at) < LOOP_DETECT_PERIOD);
        let passes = self.followed.len() < MAX_REDIRECTS;
        if passes {
            self.followed.push(now);
        }
        passes
    }
}

/// What an initiator says of redirects in IKE_SA_INIT.
pub(super) fn announce(initiate: &Initiate) -> Option<Payload> {
    let notify = match initiate.redirected_from {
        // Says both (section 4).
        Some(from) => {
            let from = GatewayIdentity::from(from).to_wire(&[]);
            Notify::new(kind::REDIRECTED_FROM, from)
        }
        None if initiate.follows_redirects => Notify::new(kind::REDIRECT_SUPPORTED, []),
        None => return None,
    };
    Some(Payload::Notify(notify))
}

/// Whether the sender of a first message can be redirected.
pub(crate) fn supported(payloads: &[Payload]) -> bool {
    [kind::REDIRECT_SUPPORTED, kind::REDIRECTED_FROM]
        .into_iter()
        .any(|kind| notify(payloads, kind).is_some())
}

/// Who has sent the sender of a first message here.
pub(crate) fn redirected_from(payloads: &[Payload]) -> Option<IpAddr> {
    let notify = notify(payloads, kind::REDIRECTED_FROM)?;
    match GatewayIdentity::parse(&notify.data) {
        Ok((GatewayIdentity::Address(from), _)) => Some(from),
        _ => None,
    }
}

/// A REDIRECT notification. `nonce`: Ni, in an answer to IKE_SA_INIT.
pub(crate) fn notification(to: &GatewayIdentity, nonce: &[u8]) -> Notify {
    Notify::new(kind::REDIRECT, to.to_wire(nonce))
}

/// Where an answer to IKE_SA_INIT sends us. `None` for one that counts for nothing: anybody can have
/// sent it who has not seen our nonce (section 3).
pub(super) fn of_init(notify: &Notify, ni: &[u8]) -> Option<GatewayIdentity> {
    let (to, nonce) = GatewayIdentity::parse(&notify.data).ok()?;
    (nonce == ni).then_some(to)
}

/// Where an answer to IKE_AUTH sends us.
pub(super) fn of_auth(core: &Core, payloads: &[Payload]) -> Option<Failure> {
    let notify = notify(payloads, kind::REDIRECT).filter(|_| core.follows_redirects)?;
    Some(match GatewayIdentity::parse(&notify.data) {
        Ok((to, _)) => Failure::Redirected(to),
        Err(malformed) => malformed.into(),
    })
}

/// Takes a REDIRECT out of an INFORMATIONAL request. The session stays until the owner closes it.
pub(super) fn of_informational(core: &Core, cx: &mut Cx<'_>, payloads: &[Payload]) {
    let Some(notify) = notify(payloads, kind::REDIRECT) else {
        return;
    };
    if !core.follows_redirects || !core.is_announced() {
        cx.stats.unexpected += 1;
        return;
    }
    match GatewayIdentity::parse(&notify.data) {
        Ok((to, _)) => cx.events.push(Event::Redirected { id: core.id, to }),
        Err(_) => cx.stats.malformed += 1,
    }
}

/// Sends an established peer to another gateway (section 5).
pub(crate) struct Redirect {
    pub(crate) to: GatewayIdentity,
}

impl Request for Redirect {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn build(&mut self, _: &mut Core, _: &mut Cx<'_>) -> Vec<Payload> {
        vec![Payload::Notify(notification(&self.to, &[]))]
    }

    /// The peer deletes the IKE SA when it has another one; if it does not, that is the owner's to
    /// judge.
    fn process(&mut self, _: &mut Core, _: &mut Cx<'_>, _: &Response<'_>) -> Step {
        Step::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_redirects_in_five_minutes() {
        let (mut limit, start) = (RedirectLimit::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let followed = (0..9).filter(|i| limit.pass(at(10 * i))).count();
        assert_eq!(followed, 5);
        assert!(!limit.pass(at(299)));
        // The first one is forgotten, the second is not.
        assert!(limit.pass(at(300)) && !limit.pass(at(301)));
        assert!(limit.pass(at(10_000)));
    }
}
