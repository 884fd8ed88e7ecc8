//! The vectors of RFC 2759 and RFC 3079, and conversations.

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::super::identity::Identity;
use super::super::payload::eap::{self, Eap};
use super::mschapv2::{self, Exchange, PasswordHash};
use super::*;

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|c| c.to_digit(16).map(|d| d as u8))
        .collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    bytes.try_into().unwrap()
}

/// RFC 2759 section 9.2; the MSK's second half is RFC 3079 section 3.5.3.
#[test]
fn the_rfc_s_vectors() {
    let password = PasswordHash::new("clientPass");
    let response = bytes("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF");
    for name in ["User", r"DOMAIN\User"] {
        let exchange = Exchange {
            authenticator: bytes("5B5D7C7D7B3F2F3E3C2C602132262628"),
            peer: bytes("21402324255E262A28295F2B3A337C7E"),
            name,
        };
        assert_eq!(password.nt_response(&exchange), response);
        assert!(password.verify(&exchange, &response));
        assert_eq!(
            password.authenticator_response(&exchange, &response),
            "S=407A5589115FD0D6209F510FE9C04566932CDA56"
        );
        for at in 0..24 {
            let mut wrong = response;
            wrong[at] ^= 1;
            assert!(!password.verify(&exchange, &wrong));
        }
        assert!(!PasswordHash::new("clientpass").verify(&exchange, &response));
    }
    let msk = password.msk(&response);
    assert_eq!(msk.len(), 64);
    assert_eq!(msk[16..32], bytes::<16>("8B7CDC149B993A1BA118CB153F56DCCB"));
    assert_ne!(msk[..16], msk[16..32]);
    assert_eq!(msk[32..], [0; 32]);
}

/// The side that proves itself, as far as tests need it.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) password: &'static str,
    /// The key, once the password was right.
    pub(crate) msk: Option<Vec<u8>>,
    response: [u8; 24],
}

impl Peer {
    pub(crate) fn new(name: &'static str, password: &'static str) -> Peer {
        Peer {
            name,
            password,
            msk: None,
            response: [0; 24],
        }
    }

    /// Answers a request as a good client does; a second try has the right password.
    pub(crate) fn answer(&mut self, request: &Eap, second: &'static str) -> Eap {
        assert_eq!(request.code, eap::REQUEST);
        let body = match &request.body[..] {
            [1] => [&[1], self.name.as_bytes()].concat(),
            [26, mschapv2::CHALLENGE, id, _, _, 16, rest @ ..] => {
                let challenge = rest[..16].try_into().unwrap();
                self.respond(*id, challenge)
            }
            [26, mschapv2::FAILURE, id, _, _, text @ ..] => {
                let text = std::str::from_utf8(text).unwrap();
                if !text.starts_with("E=691 R=1 ") {
                    assert!(text.starts_with("E=691 R=0 "), "{text}");
                    let body = vec![26, mschapv2::FAILURE];
                    return self.packet(request, body);
                }
                self.password = second;
                let hex = text.split("C=").nth(1).unwrap();
                self.respond(id.wrapping_add(1), bytes(&hex[..32]))
            }
            [26, mschapv2::SUCCESS, _, _, _, text @ ..] => {
                let password = PasswordHash::new(self.password);
                assert!(text.starts_with(b"S="));
                self.msk = Some(password.msk(&self.response).to_vec());
                vec![26, mschapv2::SUCCESS]
            }
            other => panic!("{other:?}"),
        };
        self.packet(request, body)
    }

    fn packet(&self, request: &Eap, body: Vec<u8>) -> Eap {
        Eap {
            code: eap::RESPONSE,
            identifier: request.identifier,
            body,
        }
    }

    fn respond(&mut self, id: u8, authenticator: [u8; 16]) -> Vec<u8> {
        let peer = [7; 16];
        let exchange = Exchange {
            authenticator,
            peer,
            name: self.name,
        };
        self.response = PasswordHash::new(self.password).nt_response(&exchange);
        let value = [&[49][..], &peer, &[0; 8], &self.response, &[0]].concat();
        let body = [&value[..], self.name.as_bytes()].concat();
        let data = mschapv2::write(mschapv2::RESPONSE, id, &[&body]);
        [&[26], &data[..]].concat()
    }
}

fn users(name: &str) -> Option<EapUser> {
    (name == "anna").then(|| EapUser::new(Identity::Fqdn("anna".into()), "right"))
}

/// Lets a peer talk to its end; yields the number of its answers, whether it succeeded, and the
/// server's key.
fn talk(mut peer: Peer, second: &'static str) -> (usize, bool) {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut server, mut request) = Server::new(&mut rng);
    for count in 1..10 {
        let answer = peer.answer(&request, second);
        match server.handle(&answer, &mut rng, &mut users) {
            Outcome::Request(next) => {
                assert_ne!(next.identifier, request.identifier);
                request = next;
            }
            Outcome::Success(last, identity, msk) => {
                assert_eq!(
                    (last.code, last.identifier),
                    (eap::SUCCESS, request.identifier)
                );
                assert_eq!(identity, Identity::Fqdn("anna".into()));
                assert_eq!(Some(msk.to_vec()), peer.msk);
                return (count, true);
            }
            Outcome::Failure(last, _) => {
                assert_eq!(
                    (last.code, last.identifier),
                    (eap::FAILURE, request.identifier)
                );
                assert_eq!(peer.msk, None);
                return (count, false);
            }
        }
    }
    panic!("an endless conversation")
}

#[test]
fn passwords_decide() {
    for (name, password, second, expected) in [
        ("anna", "right", "", (3, true)),
        ("anna", "wrong", "right", (4, true)),
        ("anna", "wrong", "wronger", (5, false)),
        ("anna", "", "", (5, false)),
        ("nobody", "right", "right", (5, false)),
        ("Anna", "right", "right", (5, false)),
        // What an unknown user is compared with is no password that works.
        ("nobody", "", "", (5, false)),
    ] {
        assert_eq!(
            talk(Peer::new(name, password), second),
            expected,
            "{name} {password}"
        );
    }
}

/// Each wrong answer ends the conversation, at each of its steps.
#[test]
fn whatever_is_out_of_place_fails() {
    type Change = fn(&mut Eap);
    let changes: [Change; 8] = [
        |p| p.identifier = p.identifier.wrapping_add(1),
        |p| p.code = eap::REQUEST,
        |p| p.code = eap::SUCCESS,
        |p| p.body.clear(),
        // A Nak that wants EAP-TLS.
        |p| p.body = vec![3, 13],
        |p| p.body = vec![26],
        |p| p.body = vec![26, 9],
        |p| p.body = vec![1],
    ];
    for change in changes {
        for step in 0..3 {
            let mut rng = StdRng::seed_from_u64(1);
            let mut peer = Peer::new("anna", "right");
            let (mut server, mut request) = Server::new(&mut rng);
            for at in 0..=step {
                let mut answer = peer.answer(&request, "");
                if at == step {
                    change(&mut answer);
                }
                match server.handle(&answer, &mut rng, &mut users) {
                    Outcome::Request(next) if at < step => request = next,
                    Outcome::Failure(..) if at == step => {}
                    _ => panic!("step {step}"),
                }
            }
            // And it stays over.
            let answer = peer.answer(&request, "");
            let outcome = server.handle(&answer, &mut rng, &mut users);
            assert!(matches!(outcome, Outcome::Failure(..)));
        }
    }
}

/// A peer that says that it succeeded before it did, or sends an old answer to a new challenge.
#[test]
fn no_step_can_be_skipped() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut peer = Peer::new("anna", "right");
    let (mut server, request) = Server::new(&mut rng);
    let answer = peer.answer(&request, "");
    let Outcome::Request(challenge) = server.handle(&answer, &mut rng, &mut users) else {
        panic!()
    };
    let mut early = peer.answer(&challenge, "");
    early.body = vec![26, mschapv2::SUCCESS];
    let outcome = server.handle(&early, &mut rng, &mut users);
    assert!(matches!(outcome, Outcome::Failure(..)));

    let (mut server, request) = Server::new(&mut rng);
    let old = peer.answer(&challenge, "");
    let answer = peer.answer(&request, "");
    let Outcome::Request(next) = server.handle(&answer, &mut rng, &mut users) else {
        panic!()
    };
    let replayed = Eap {
        identifier: next.identifier,
        ..old
    };
    let Outcome::Request(denied) = server.handle(&replayed, &mut rng, &mut users) else {
        panic!()
    };
    assert_eq!(denied.body[1], mschapv2::FAILURE);
}

#[test]
fn names_are_sane() {
    for (name, good) in [
        (&b"anna"[..], true),
        (b"anna\0", true),
        (b"", false),
        (b"\0", false),
        (b"an\nna", false),
        (b"\xff\xfe", false),
        (&[b'x'; 253], true),
        (&[b'x'; 254], false),
    ] {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut server, request) = Server::new(&mut rng);
        let answer = Eap {
            code: eap::RESPONSE,
            identifier: request.identifier,
            body: [&[1], name].concat(),
        };
        let outcome = server.handle(&answer, &mut rng, &mut users);
        assert_eq!(matches!(outcome, Outcome::Request(_)), good, "{name:?}");
    }
}

proptest! {
    #[test]
    fn any_answers_are_survived(
        answers in prop::collection::vec(
            (prop::option::of(any::<u8>()), prop::collection::vec(any::<u8>(), 0..80)),
            0..6,
        ),
        kind in prop_oneof![Just(1u8), Just(26), any::<u8>()],
    ) {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut server, mut request) = Server::new(&mut rng);
        for (identifier, data) in answers {
            let answer = Eap {
                code: eap::RESPONSE,
                identifier: identifier.unwrap_or(request.identifier),
                body: [&[kind], &data[..]].concat(),
            };
            match server.handle(&answer, &mut rng, &mut users) {
                Outcome::Request(next) => request = next,
                Outcome::Success(..) => prop_assert!(false, "nobody knew the password"),
                Outcome::Failure(..) => {}
            }
        }
    }
}
