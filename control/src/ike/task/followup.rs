//! IKE_FOLLOWUP_KE (RFC 9370 section 2.2.4): the additional key exchange when an IKE SA is replaced. It
//! goes on in the old one, after CREATE_CHILD_SA and before anything is new.
//!
//! ```text
//! HDR(A,B), SK {SA(C), Ni, KEi} -->
//!                   <-- HDR(A,B), SK {SA(D), Nr, KEr, N(ADDITIONAL_KEY_EXCHANGE, link)}
//! HDR(A,B), SK {KEi(1), N(ADDITIONAL_KEY_EXCHANGE, link)} -->
//!                   <-- HDR(A,B), SK {KEr(1)}
//! ```
//!
//! If both ends replace it at once, the nonces of CREATE_CHILD_SA decide: whoever's exchange has the
//! lowest of the four does not go on.

use std::time::{Duration, Instant};

use super::super::crypto::{Group, KeyPair, respond as respond_to};
use super::super::event::Failure;
use super::super::life::{Busy, Rival};
use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::state::{Core, Phase};
use super::create_child::ke_of;
use super::informational::Delete;
use super::init::{key_exchange, public_value};
use super::rekey_ike::Agreed;
use super::{Cx, Request, Response, Step, error, notify};

/// How long the responder waits: at the upper end of what section 2.2.4 advises, since a lost request
/// comes again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of our links.
const LINK: usize = 8;

/// What the responder keeps of a CREATE_CHILD_SA that is to go on.
pub(crate) struct Awaited {
    agreed: Agreed,
    group: Group,
    link: [u8; LINK],
    /// When it is given up.
    pub(crate) until: Instant,
}

/// Keeps what CREATE_CHILD_SA has agreed, in place of what an earlier one has; yields the notification
/// that the next request is known by.
pub(super) fn expect(core: &mut Core, cx: &mut Cx<'_>, agreed: Agreed, group: Group) -> Payload {
    let mut link = [0; LINK];
    cx.rng.fill_bytes(&mut link);
    core.awaited = Some(Box::new(Awaited {
        agreed,
        group,
        link,
        until: cx.now + PATIENCE,
    }));
    Payload::Notify(Notify::new(kind::ADDITIONAL_KEY_EXCHANGE, link))
}

/// The exchange as initiator.
struct Followup {
    agreed: Agreed,
    pair: KeyPair,
    link: Vec<u8>,
}

/// Goes on after the answer to CREATE_CHILD_SA, unless the peer's exchange is the one that counts.
pub(super) fn begin(
    core: &mut Core,
    cx: &mut Cx<'_>,
    agreed: Agreed,
    group: Group,
    rival: Option<Rival>,
    payloads: &[Payload],
) -> Step {
    let rival = match rival {
        Some(rival) if agreed.lowest() < rival.nonces => {
            if rival.is_made {
                cx.succession.heir = Some(rival.spi);
                return Step::Replaced;
            }
            // It goes on; if it does not, we begin anew.
            core.life.retry(cx.now, cx.rng);
            return Step::Done;
        }
        // One that needs no more may have taken over at the peer before it knew of ours.
        rival => rival.filter(|rival| rival.is_made),
    };
    // One that needs more does not get it.
    core.awaited = None;
    let Some(link) = notify(payloads, kind::ADDITIONAL_KEY_EXCHANGE) else {
        let failure = Failure::WrongAnswer("an additional key exchange without a link");
        return Step::Fail(failure, Some(Box::new(Delete)));
    };
    core.busy = Busy::RekeyIke {
        rival,
        decided: true,
    };
    Step::Next(Box::new(Followup {
        agreed,
        pair: KeyPair::generate(group, cx.rng),
        link: link.data.clone(),
    }))
}

impl Request for Followup {
    fn exchange(&self) -> u8 {
        exchange::IKE_FOLLOWUP_KE
    }

    fn is_due(&self, core: &Core) -> bool {
        core.phase == Phase::Established
    }

    fn build(&mut self, _: &mut Core, _: &mut Cx<'_>) -> Vec<Payload> {
        let link = Notify::new(kind::ADDITIONAL_KEY_EXCHANGE, self.link.clone());
        vec![key_exchange(&self.pair), Payload::Notify(link)]
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        let rival = match std::mem::take(&mut core.busy) {
            Busy::RekeyIke { rival, .. } => rival,
            _ => None,
        };
        if let Some(refusal) = error(response.payloads) {
            return core.not_rekeyed(cx, refusal, rival);
        }
        let wrong = |what| Step::Fail(Failure::WrongAnswer(what), Some(Box::new(Delete)));
        let Some(ke) = ke_of(response.payloads) else {
            return wrong("IKE_FOLLOWUP_KE without a key exchange");
        };
        if ke.group != self.pair.group().number() {
            return wrong("the peer's additional key exchange is of another group");
        }
        let Some(shared) = self.pair.agree(&ke.public) else {
            return wrong("the peer's additional public value is bad");
        };
        core.rekeyed(cx, &self.agreed, &shared, rival, response.payloads)
    }
}

/// Answers an IKE_FOLLOWUP_KE request of an authenticated peer.
pub(crate) fn respond(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Vec<Payload> {
    let told = |kind| vec![Payload::Notify(Notify::new(kind, []))];
    if core.phase != Phase::Established {
        return told(kind::TEMPORARY_FAILURE);
    }
    let link = notify(payloads, kind::ADDITIONAL_KEY_EXCHANGE);
    let awaited = core.awaited.take();
    let awaited = awaited.filter(|awaited| link.is_some_and(|link| link.data == awaited.link));
    // As for CREATE_CHILD_SA (RFC 7296 section 2.25.1).
    let in_time = matches!(core.busy, Busy::Free | Busy::RekeyIke { .. });
    let Some(awaited) = awaited.filter(|_| in_time) else {
        core.rekey_after_all(cx);
        return told(match in_time {
            true => kind::STATE_NOT_FOUND,
            false => kind::TEMPORARY_FAILURE,
        });
    };
    let made = ke_of(payloads)
        .filter(|ke| ke.group == awaited.group.number())
        .and_then(|ke| respond_to(awaited.group, &ke.public, cx.rng))
        .and_then(|(public, shared)| Some((public, awaited.agreed.make(core, false, &shared)?)));
    let Some((public, made)) = made else {
        core.invalid_syntax(cx, "IKE_FOLLOWUP_KE without the key exchange agreed on");
        return told(kind::INVALID_SYNTAX);
    };
    let (spi, token) = (made.spi_r, core.token_for(&made, cx));
    cx.succession.made = Some(Box::new(made));
    match &mut core.busy {
        // Ours is under way too: its answer, or the peer's DELETE, tells which one counts.
        Busy::RekeyIke {
            rival: Some(rival), ..
        } if rival.spi == spi => rival.is_made = true,
        _ => cx.succession.heir = Some(spi),
    }
    let ke = public_value(awaited.group, public);
    std::iter::once(ke).chain(token).collect()
}

impl Core {
    /// The peer does not go on with its rekeying in time.
    pub(crate) fn give_up_awaited(&mut self, cx: &mut Cx<'_>) {
        let over = |awaited: &mut Box<Awaited>| awaited.until <= cx.now;
        if self.awaited.take_if(over).is_some() {
            self.rekey_after_all(cx);
        }
    }

    /// What has waited for the peer's rekeying is ours to do.
    fn rekey_after_all(&mut self, cx: &mut Cx<'_>) {
        if self.life.rekeying && !matches!(self.busy, Busy::RekeyIke { .. }) {
            self.life.retry(cx.now, cx.rng);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::crypto::{IkeCipher, Prf};
    use super::super::super::keys::IkeKeys;
    use super::super::super::proposal::IkeSuite;

    /// RFC 9370 section 2.2.4: SKEYSEED = prf(SK_d, SK(0) | Ni | Nr | SK(1)).
    #[test]
    fn all_secrets_are_in_the_seed() {
        let suite = IkeSuite {
            cipher: IkeCipher::Aes256Gcm16,
            prf: Prf::HmacSha256,
            group: super::Group::X25519,
            additional: Some(super::Group::MlKem768),
        };
        let keys = IkeKeys::derive(suite, &[7; 32], [&[1; 32], &[2; 32]], [3, 4], true);
        let nonces = [&b"Ni"[..], b"Nr"];
        let seed = |parts: &[u8]| suite.prf.compute(keys.sk_d(), &[parts]);
        assert!(keys.next_seed_with(b"SK(0)", nonces, b"SK(1)") == seed(b"SK(0)NiNrSK(1)"));
        assert!(keys.next_seed(b"SK(0)", nonces) == seed(b"SK(0)NiNr"));
    }
}
