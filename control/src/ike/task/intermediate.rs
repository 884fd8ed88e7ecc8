//! IKE_INTERMEDIATE (RFC 9242) with an additional key exchange (RFC 9370): what a quantum computer
//! would read of IKE_SA_INIT's does not suffice for the keys from here on.
//!
//! ```text
//! HDR(A,B), SK {KEi(1)} -->
//!                                <-- HDR(A,B), SK {KEr(1)}
//! ```

use super::super::crypto::{Group, KeyPair, respond as respond_to};
use super::super::event::Failure;
use super::super::keys::IkeKeys;
use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::ke::KeyExchange;
use super::super::payload::notify::{Notify, kind};
use super::super::proposal::IkeSuite;
use super::super::settings::Initiate;
use super::super::state::{Core, Phase};
use super::auth::{self, Auth};
use super::init::{key_exchange, public_value};
use super::{Cx, Request, Response, Step, error, find};

/// What the exchange needs to know of IKE_SA_INIT, and leaves to IKE_AUTH.
pub(crate) struct Intermediate {
    suite: IkeSuite,
    /// The key exchange that is still to be made.
    awaited: Option<Group>,
    /// IntAuth_iN and IntAuth_rN.
    covered: [Vec<u8>; 2],
    /// How many exchanges these cover.
    count: u32,
}

impl Intermediate {
    pub(crate) fn new(suite: IkeSuite) -> Intermediate {
        Intermediate {
            suite,
            awaited: suite.additional,
            covered: [Vec::new(), Vec::new()],
            count: 0,
        }
    }

    /// IntAuth = IntAuth_iN | IntAuth_rN | message ID of the first IKE_AUTH; empty without an
    /// intermediate exchange (RFC 9242 section 3.3.2).
    pub(crate) fn int_auth(&self) -> Vec<u8> {
        if self.count == 0 {
            return Vec::new();
        }
        let [i, r] = &self.covered;
        // IKE_SA_INIT was message 0.
        let message_id = (self.count + 1).to_be_bytes();
        [&i[..], r, &message_id].concat()
    }
}

/// The exchange as initiator.
pub(crate) struct Additional {
    /// Taken when the next exchange begins.
    initiate: Option<Box<Initiate>>,
    pair: KeyPair,
}

impl Additional {
    pub(crate) fn new(initiate: Box<Initiate>, group: Group, cx: &mut Cx<'_>) -> Additional {
        Additional {
            initiate: Some(initiate),
            pair: KeyPair::generate(group, cx.rng),
        }
    }
}

impl Request for Additional {
    fn exchange(&self) -> u8 {
        exchange::IKE_INTERMEDIATE
    }

    fn build(&mut self, _: &mut Core, _: &mut Cx<'_>) -> Vec<Payload> {
        vec![key_exchange(&self.pair)]
    }

    fn process(&mut self, core: &mut Core, _: &mut Cx<'_>, response: &Response<'_>) -> Step {
        if let Some(error) = error(response.payloads) {
            return Step::Fail(Failure::notified(error), None);
        }
        let wrong = |what| Step::Fail(Failure::WrongAnswer(what), None);
        let Some(ke) = ke(response.payloads) else {
            return wrong("IKE_INTERMEDIATE without a key exchange");
        };
        if ke.group != self.pair.group().number() {
            return wrong("the peer's additional key exchange is of another group");
        }
        let Some(shared) = self.pair.agree(&ke.public) else {
            return wrong("the peer's additional public value is bad");
        };
        let Some(initiate) = self.initiate.take() else {
            return Step::Ignore;
        };
        core.mix(&shared);
        Step::Next(Box::new(Auth::new(initiate)))
    }
}

/// Judges an IKE_INTERMEDIATE request and yields the payloads of the response.
pub(crate) fn respond(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Vec<Payload> {
    let group = core.handshake.as_ref().and_then(|h| h.intermediate.awaited);
    let made = ke(payloads)
        .zip(group)
        .filter(|(ke, group)| ke.group == group.number())
        .and_then(|(ke, group)| Some((group, respond_to(group, &ke.public, cx.rng)?)));
    let Some((group, (public, shared))) = made else {
        let wrong = Failure::WrongAnswer("IKE_INTERMEDIATE without the key exchange agreed on");
        auth::refused(core, cx, Vec::new(), wrong);
        core.phase = Phase::Ended;
        return vec![Payload::Notify(Notify::new(kind::INVALID_SYNTAX, []))];
    };
    core.mix(&shared);
    vec![public_value(group, public)]
}

fn ke(payloads: &[Payload]) -> Option<&KeyExchange> {
    find(payloads, |p| {
        if let Payload::Ke(ke) = p {
            Some(ke)
        } else {
            None
        }
    })
}

impl Core {
    /// Whether the initiator must make an additional key exchange before it is authenticated.
    pub(crate) fn awaits_intermediate(&self) -> bool {
        let handshake = self.handshake.as_ref();
        handshake.is_some_and(|h| h.intermediate.awaited.is_some())
    }

    /// Adds a message of IKE_INTERMEDIATE, `ours` or the peer's, to what AUTH covers: IntAuth_xN =
    /// prf(SK_pxN, IntAuth_xN-1 | message), with SK_p as it is before the exchange takes effect.
    pub(crate) fn cover(&mut self, ours: bool, message: &[&[u8]]) {
        let (Some(keys), Some(prf), Some(handshake)) =
            (&self.keys, self.prf, self.handshake.as_mut())
        else {
            return;
        };
        let sk_p = if ours {
            &keys.sk_p_local
        } else {
            &keys.sk_p_remote
        };
        let Intermediate { covered, count, .. } = &mut handshake.intermediate;
        let [by_initiator, by_responder] = covered;
        let chunk = match ours == self.initiator {
            true => by_initiator,
            false => {
                *count += 1;
                by_responder
            }
        };
        let parts = [&[&chunk[..]], message].concat();
        *chunk = prf.compute(sk_p, &parts).to_vec();
    }

    /// Mixes the secret of an additional key exchange into the keys, which change when the exchange
    /// is over.
    fn mix(&mut self, shared: &[u8]) {
        let (Some(keys), Some(handshake)) = (&self.keys, self.handshake.as_mut()) else {
            return;
        };
        let nonces = [handshake.nonce(true), handshake.nonce(false)];
        let seed = keys.next_seed(shared, nonces);
        let suite = handshake.intermediate.suite;
        let spis = [self.spi_i, self.spi_r];
        let next = IkeKeys::derive(suite, &seed, nonces, spis, self.initiator);
        self.next_keys = Some(Box::new(next));
        handshake.intermediate.awaited = None;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::super::SaId;
    use super::super::super::crypto::{IkeCipher, Prf};
    use super::super::super::keys::skeyseed;
    use super::super::super::state::Handshake;
    use super::*;

    /// A responder whose keys follow from `shared`.
    fn core(shared: &[u8]) -> Core {
        let suite = IkeSuite {
            cipher: IkeCipher::Aes128Gcm16,
            prf: Prf::HmacSha384,
            group: Group::X25519,
            additional: Some(Group::MlKem768),
        };
        let address = SocketAddr::from(([192, 0, 2, 1], 500));
        let mut core = Core::new(SaId(1), false, address, address);
        (core.spi_i, core.spi_r) = (3, 4);
        let nonces = [vec![1; 32], vec![2; 32]];
        let [ni, nr] = &nonces;
        let seed = skeyseed(suite.prf, ni, nr, shared);
        core.keys = Some(IkeKeys::derive(suite, &seed, [ni, nr], [3, 4], false));
        core.prf = Some(suite.prf);
        core.handshake = Some(Box::new(Handshake {
            nonces,
            ours: Vec::new(),
            theirs: Vec::new(),
            intermediate: Intermediate::new(suite),
            resumed: None,
        }));
        core
    }

    /// RFC 9242 section 3.3.2, with two exchanges: IntAuth_i1 = prf(SK_pi1, IntAuth_i1A | IntAuth_i1P),
    /// IntAuth_i2 = prf(SK_pi2, IntAuth_i1 | …), and so the responder's.
    #[test]
    fn int_auth_is_chained_under_the_keys_of_each_exchange() {
        let prf = Prf::HmacSha384;
        let mut core = core(b"first");
        let int_auth = |core: &Core| core.handshake.as_ref().unwrap().intermediate.int_auth();
        assert_eq!(int_auth(&core), b"");
        let keys = |core: &Core| {
            let keys = core.keys.as_ref().unwrap();
            (keys.sk_p_remote.clone(), keys.sk_p_local.clone())
        };
        let (pi1, pr1) = keys(&core);
        core.cover(false, &[b"i1A", b"i1P"]);
        core.mix(b"second");
        core.cover(true, &[b"r1A", b"r1P"]);
        let i1 = prf.compute(&pi1, &[b"i1Ai1P"]);
        let r1 = prf.compute(&pr1, &[b"r1Ar1P"]);
        assert_eq!(int_auth(&core), [&i1[..], &r1, &[0, 0, 0, 2]].concat());
        core.keys = core.next_keys.take().map(|keys| *keys);
        let (pi2, pr2) = keys(&core);
        assert!(pi2 != pi1 && pr2 != pr1);
        core.cover(false, &[b"i2"]);
        core.cover(true, &[b"r2"]);
        let i2 = prf.compute(&pi2, &[&i1, b"i2"]);
        let r2 = prf.compute(&pr2, &[&r1, b"r2"]);
        assert_eq!(int_auth(&core), [&i2[..], &r2, &[0, 0, 0, 3]].concat());
    }
}
