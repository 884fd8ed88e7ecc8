//! Users that prove themselves by EAP-MSCHAPv2 or EAP-TLS, the gateway by its certificate.

use std::sync::Arc;

use super::super::payload::auth::{Auth, SHARED_KEY};
use super::super::payload::eap::{self, Eap};
use super::super::payload::header::{Header, VERSION, exchange};
use super::super::payload::id::Id;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::{Payload, parse_chain, sk, write_chain};
use super::*;
use crate::ike::eap::tests::Peer;
use x509::tests::{Authority, P256};

/// A gateway with a certificate, and a client that has come through IKE_SA_INIT.
struct Talk {
    pair: Pair,
    sa: SaId,
    third: Transmit,
    root: Authority,
}

impl Talk {
    fn new() -> Talk {
        Talk::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Talk {
        let root = Authority::new("root");
        let trust = Arc::new(root.trust());
        let own = Arc::new(root.own("gw.example", P256));
        let mut pair = Pair::with(|a, b| {
            a.x509.trust = trust;
            b.x509.own = Some(own);
            b.eap = true;
            change(b);
        });
        let (sa, third) = Talk::reach(&mut pair);
        Talk {
            pair,
            sa,
            third,
            root,
        }
    }

    /// Goes through IKE_SA_INIT.
    fn reach(pair: &mut Pair) -> (SaId, Transmit) {
        let wish = pair.wish();
        let sa = pair.initiate(wish);
        let first = pair.a.take().remove(0);
        let second = pair.deliver(&first).remove(0);
        (sa, pair.deliver(&second).remove(0))
    }

    /// The client comes once more.
    fn again(&mut self) {
        (self.sa, self.third) = Talk::reach(&mut self.pair);
    }

    /// HDR(A,B), SK {IDi, IDr, CP(CFG_REQUEST), SAi2, TSi, TSr} -->
    fn begin(&mut self) -> Vec<Payload> {
        let tampered = self.pair.a.engine.tamper(&self.third.data, |first, plain| {
            let mut payloads = parse_chain(*first, plain).unwrap();
            payloads.retain(|p| !matches!(p, Payload::Auth(_)));
            plain.clear();
            *first = write_chain(&payloads, plain).unwrap();
        });
        self.third.data = tampered.unwrap();
        let third = self.third.clone();
        let answer = self.pair.deliver(&third);
        self.open(&answer)
    }

    fn open(&self, answer: &[Transmit]) -> Vec<Payload> {
        let [answer] = answer else {
            panic!("{answer:?}")
        };
        let keys = self.pair.a.engine.core(self.sa).unwrap().keys.as_ref();
        let header = Header::parse(&answer.data).unwrap();
        let (first, plain) = sk::open(&header, &answer.data, &keys.unwrap().open).unwrap();
        parse_chain(first, &plain).unwrap()
    }

    /// A further request of IKE_AUTH.
    fn message(&self, message_id: u32, payloads: &[Payload]) -> Transmit {
        let core = self.pair.a.engine.core(self.sa).unwrap();
        let header = Header {
            spi_i: core.spi_i,
            spi_r: core.spi_r,
            next: 0,
            version: VERSION,
            exchange: exchange::IKE_AUTH,
            initiator: true,
            response: false,
            message_id,
        };
        let key = &core.keys.as_ref().unwrap().seal;
        let data = sk::write_sealed(header, payloads, key, u64::MAX - u64::from(message_id));
        Transmit {
            data: data.unwrap(),
            ..self.third.clone()
        }
    }

    fn send(&mut self, message_id: u32, payloads: &[Payload]) -> Vec<Payload> {
        let message = self.message(message_id, payloads);
        let answer = self.pair.deliver(&message);
        self.open(&answer)
    }

    /// Speaks EAP until it ends; yields the last packet and the next message ID.
    fn converse(&mut self, peer: &mut Peer, second: &'static str) -> (Eap, u32) {
        let mut answer = self.begin();
        for message_id in 2..20 {
            let packet = packet(&answer).clone();
            if packet.code != eap::REQUEST {
                return (packet, message_id);
            }
            let reply = peer.answer(&packet, second);
            answer = self.send(message_id, &[Payload::Eap(reply)]);
        }
        panic!("an endless conversation")
    }

    /// AUTH of the client with the key that EAP has made.
    fn auth(&self, msk: &[u8]) -> Payload {
        let core = self.pair.a.engine.core(self.sa).unwrap();
        let id = Id::new(id("client.example"));
        let settings = self.pair.a.engine.settings();
        let proof = Proof::Psk(Psk::new(msk.to_vec()));
        let (_, auth) = core.prove(settings, &proof, &id).unwrap();
        Payload::Auth(auth)
    }
}

fn packet(payloads: &[Payload]) -> &Eap {
    let eap = payloads.iter().find_map(|p| match p {
        Payload::Eap(packet) => Some(packet),
        _ => None,
    });
    eap.unwrap_or_else(|| panic!("{payloads:?}"))
}

fn auth(payloads: &[Payload]) -> &Auth {
    let auth = payloads.iter().find_map(|p| match p {
        Payload::Auth(auth) => Some(auth),
        _ => None,
    });
    auth.unwrap_or_else(|| panic!("{payloads:?}"))
}

#[test]
fn a_user_gets_a_session_and_an_address() {
    let mut talk = Talk::new();
    // The gateway proves itself first: IDr, CERT, AUTH, EAP.
    let answer = talk.begin();
    let kinds: Vec<u8> = answer.iter().map(Payload::kind).collect();
    assert_eq!(kinds, [36, 37, 39, 48]);
    let Payload::Cert(cert) = &answer[1] else {
        panic!()
    };
    let gw = id("gw.example");
    let key = talk
        .root
        .trust()
        .verify(&[&cert.data], &gw, x509::tests::NOW);
    assert!(key.is_ok());
    let mut peer = Peer::new("anna", "clientPass");
    let mut packet = packet(&answer).clone();
    for message_id in 2..5 {
        let reply = peer.answer(&packet, "");
        let answer = talk.send(message_id, &[Payload::Eap(reply)]);
        packet = self::packet(&answer).clone();
    }
    assert_eq!(packet.code, eap::SUCCESS);
    assert!(talk.pair.b.events.is_empty());
    let msk = peer.msk.unwrap();
    // HDR(A,B), SK {AUTH} -->
    let last = talk.auth(&msk);
    // <-- HDR(A,B), SK {AUTH, CP(CFG_REPLY), SAr2, TSi, TSr, N(IKEV2_MESSAGE_ID_SYNC_SUPPORTED),
    //     N(IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED)}
    let answer = talk.send(5, &[last]);
    let kinds: Vec<u8> = answer.iter().map(Payload::kind).collect();
    assert_eq!(kinds, [39, 47, 33, 44, 45, 41, 41]);
    assert_eq!(auth(&answer).method, SHARED_KEY);
    let [Event::Established { peer, assigned, .. }] = &talk.pair.b.events[..] else {
        panic!("{:?}", talk.pair.b.events)
    };
    // Whom the password belongs to counts, not what the client calls itself.
    assert_eq!(peer, &id("anna"));
    assert_eq!(assigned, &[IpAddr::from([10, 99, 0, 7])]);
    let core = talk.pair.a.engine.core(talk.sa).unwrap();
    let proof = Proof::Psk(Psk::new(msk));
    let mut owner = Node::new(Settings::new(id("x")), "192.0.2.9:500", 9).owner;
    let mut stats = Stats::default();
    let mut guesses = guesses::Guesses::default();
    let mut rng = StdRng::seed_from_u64(1);
    let mut cx = task::Cx {
        now: talk.pair.now,
        settings: talk.pair.a.engine.settings(),
        rng: &mut rng,
        hooks: &mut owner,
        stats: &mut stats,
        guesses: &mut guesses,
        events: Vec::new(),
        initial_contact: None,
        succession: task::Succession::default(),
    };
    let gateway = Id::new(gw);
    let proven = core.verify(&mut cx, &proof, &gateway, auth(&answer), &answer);
    assert_eq!(proven, Ok(()));
}

#[test]
fn a_wrong_password_can_be_mended() {
    let mut talk = Talk::new();
    let mut peer = Peer::new("anna", "guess");
    let (packet, message_id) = talk.converse(&mut peer, "clientPass");
    assert_eq!((packet.code, message_id), (eap::SUCCESS, 6));
    let last = talk.auth(&peer.msk.unwrap());
    talk.send(message_id, &[last]);
    assert!(talk.pair.b.established().is_some());
}

#[test]
fn wrong_passwords_end_the_session() {
    for name in ["anna", "nobody"] {
        let mut talk = Talk::new();
        let mut peer = Peer::new(name, "guess");
        let (packet, message_id) = talk.converse(&mut peer, "again");
        assert_eq!((packet.code, message_id), (eap::FAILURE, 7));
        assert_eq!(talk.pair.b.failure(), Some(&Failure::Eap));
        let stats = talk.pair.b.engine.stats();
        assert_eq!((stats.half_open, stats.authentication_failed), (0, 1));
        // Whatever follows is not answered.
        let auth = talk.auth(&[0; 64]);
        let message = talk.message(message_id, &[auth]);
        assert_eq!(talk.pair.deliver(&message), []);
        assert!(talk.pair.b.established().is_none());
    }
}

#[test]
fn the_last_auth_needs_the_key() {
    for wrong in [&[0u8; 64][..], b"clientPass", b""] {
        let mut talk = Talk::new();
        let mut peer = Peer::new("anna", "clientPass");
        let (_, message_id) = talk.converse(&mut peer, "");
        let last = talk.auth(wrong);
        talk.send(message_id, &[last]);
        assert_eq!(talk.pair.b.failure(), Some(&Failure::AuthenticationFailed));
        assert!(talk.pair.b.established().is_none());
    }
}

#[test]
fn auth_before_success_is_of_no_use() {
    let mut talk = Talk::new();
    talk.begin();
    let early = talk.auth(&[0; 64]);
    talk.send(2, &[early]);
    assert!(matches!(
        talk.pair.b.failure(),
        Some(Failure::WrongAnswer(_))
    ));
    assert!(talk.pair.b.established().is_none());
}

#[test]
fn who_does_not_offer_eap_refuses_it() {
    let mut off = Talk::with(|b| b.eap = false);
    off.begin();
    assert_eq!(off.pair.b.failure(), Some(&Failure::AuthenticationFailed));
    let mut bare = Talk::with(|b| b.x509.own = None);
    bare.begin();
    assert!(matches!(bare.pair.b.failure(), Some(Failure::NoProof(_))));
}

#[test]
fn a_silent_user_is_forgotten() {
    let mut talk = Talk::new();
    talk.begin();
    assert_eq!(talk.pair.b.engine.stats().half_open, 1);
    talk.pair.now += Duration::from_secs(11);
    talk.pair
        .b
        .engine
        .handle_timeout(talk.pair.now, &mut talk.pair.b.owner);
    let stats = talk.pair.b.engine.stats();
    assert_eq!(
        (stats.sas, stats.half_open, stats.half_open_expired),
        (0, 0, 1)
    );
    talk.pair.b.take();
    assert_eq!(talk.pair.b.failure(), Some(&Failure::Timeout));
}

/// What strongSwan does after a wrong password: HDR(A,B), SK {N(AUTHENTICATION_FAILED)} -->
#[test]
fn a_user_who_gives_up_is_told_of() {
    for wrong in [true, false] {
        let mut talk = Talk::new();
        let mut answer = talk.begin();
        let mut peer = Peer::new("anna", "guess");
        for message_id in 2..if wrong { 4 } else { 3 } {
            let reply = peer.answer(packet(&answer), "");
            answer = talk.send(message_id, &[Payload::Eap(reply)]);
        }
        let next = if wrong { 4 } else { 3 };
        let failed = Notify::new(kind::AUTHENTICATION_FAILED, []);
        let mut message = talk.message(next, &[Payload::Notify(failed)]);
        let core = talk.pair.a.engine.core(talk.sa).unwrap();
        let mut header = Header::parse(&message.data).unwrap();
        let seal = &core.keys.as_ref().unwrap().seal;
        let (first, plain) = sk::open(&header, &message.data, seal).unwrap();
        header.exchange = exchange::INFORMATIONAL;
        message.data = sk::seal(header, first, plain, seal, u64::MAX).unwrap();
        // <-- HDR(A,B), SK {}
        let answer = talk.pair.deliver(&message);
        assert_eq!(talk.open(&answer), []);
        let told = if wrong {
            Failure::Eap
        } else {
            Failure::Timeout
        };
        assert_eq!(talk.pair.b.failure(), Some(&told));
        assert_eq!(talk.pair.b.engine.stats().half_open, 0);
    }
}

#[test]
fn a_repeated_answer_gets_its_question_again() {
    let mut talk = Talk::new();
    let answer = talk.begin();
    let reply = Peer::new("anna", "clientPass").answer(packet(&answer), "");
    let message = talk.message(2, &[Payload::Eap(reply)]);
    let first = talk.pair.deliver(&message);
    let again = talk.pair.deliver(&message);
    assert_eq!(first, again);
    assert_eq!(talk.pair.b.engine.stats().repeated, 1);
}

/// Six wrong passwords cost two seconds, in which the right one does not help either.
#[test]
fn who_guesses_waits() {
    let mut talk = Talk::new();
    for _ in 0..2 {
        let mut peer = Peer::new("anna", "guess");
        let (packet, _) = talk.converse(&mut peer, "again");
        assert_eq!(packet.code, eap::FAILURE);
        assert_eq!(talk.pair.b.failure(), Some(&Failure::Eap));
        talk.pair.b.events.clear();
        talk.again();
    }
    let mut peer = Peer::new("anna", "clientPass");
    let (packet, message_id) = talk.converse(&mut peer, "clientPass");
    // One answer, and no second try.
    assert_eq!((packet.code, message_id), (eap::FAILURE, 5));
    let wait = Failure::TooManyGuesses(Duration::from_secs(2));
    assert_eq!(talk.pair.b.failure(), Some(&wait));
    // What was not looked at does not make the wait longer.
    talk.pair.now += Duration::from_secs(2);
    talk.again();
    let mut peer = Peer::new("anna", "clientPass");
    let (packet, message_id) = talk.converse(&mut peer, "");
    assert_eq!(packet.code, eap::SUCCESS);
    let last = talk.auth(&peer.msk.unwrap());
    talk.send(message_id, &[last]);
    assert!(talk.pair.b.established().is_some());
}

#[test]
fn a_user_with_a_certificate_gets_a_session() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut talk = Talk::with(|b| (b.eap, b.eap_tls) = (false, true));
        talk.pair.b.engine.set_x509(X509 {
            own: Some(Arc::new(talk.root.own("gw.example", P256))),
            trust: Arc::new(talk.root.trust()),
        });
        let names = x509::tests::params(&["anna@example.org"]);
        let shown = Some(talk.root.sign(&names, P256));
        let mut peer = crate::ike::eap::tls_tests::Peer::new(&talk.root, shown, version, 500);
        let mut answer = talk.begin();
        let mut message_id = 2;
        while packet(&answer).code == eap::REQUEST {
            let reply = peer.answer(packet(&answer));
            answer = talk.send(message_id, &[Payload::Eap(reply)]);
            message_id += 1;
        }
        assert_eq!(packet(&answer).code, eap::SUCCESS);
        let last = talk.auth(&peer.msk());
        talk.send(message_id, &[last]);
        let [Event::Established { peer, .. }] = &talk.pair.b.events[..] else {
            panic!("{:?}", talk.pair.b.events)
        };
        assert_eq!(peer, &id("anna@example.org"));
    }
}
