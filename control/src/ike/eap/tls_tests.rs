//! Users with certificates, against `rustls` as the client.

use std::io::Read as _;
use std::sync::Arc;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::super::event::Failure;
use super::super::identity::Identity;
use super::super::payload::eap::{self, Eap};
use super::super::settings::X509;
use super::super::x509::tests::{Authority, DAY, ED25519, Key, NOW, P256, P384, RSA_2048, params};
use super::super::x509::{Refused, Subject, Trust};
use super::tls_crypto::StoppedClock;
use super::*;

const TLS: u8 = 13;
const MORE: u8 = 0x40;
const V1_2: &SupportedProtocolVersion = &rustls::version::TLS12;
const V1_3: &SupportedProtocolVersion = &rustls::version::TLS13;

/// Anna has a certificate; passwords are as the test wants.
struct Users {
    x509: X509,
    passwords: bool,
}

impl super::Users for Users {
    fn have_passwords(&self) -> bool {
        self.passwords
    }

    fn by_password(&mut self, _: &str) -> Option<EapUser> {
        None
    }

    fn wait(&mut self, _: &str) -> Option<std::time::Duration> {
        None
    }

    fn judged(&mut self, _: &str, _: bool) {}

    fn certificates(&mut self) -> Option<(X509, u64)> {
        Some((self.x509.clone(), NOW))
    }

    fn by_certificate(&mut self, subject: &Subject) -> Option<Identity> {
        let anna = "anna@example.org";
        subject.is_user(anna).then(|| anna.parse().unwrap())
    }
}

fn users(root: &Authority, key: Key) -> Users {
    let x509 = X509 {
        own: Some(Arc::new(root.own("gw.example", key))),
        trust: Arc::new(root.trust()),
    };
    Users {
        x509,
        passwords: false,
    }
}

/// The client: what it has heard of a message, what it has to say, in parts of so many bytes.
pub(crate) struct Peer {
    tls: ClientConnection,
    heard: Vec<u8>,
    saying: Vec<u8>,
    part: usize,
}

impl Peer {
    /// `shown`: a certificate and its key.
    pub(crate) fn new(
        root: &Authority,
        shown: Option<(Vec<u8>, rcgen::KeyPair)>,
        version: &'static SupportedProtocolVersion,
        part: usize,
    ) -> Peer {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(root.der.clone())).unwrap();
        let config = ClientConfig::builder_with_details(provider, Arc::new(StoppedClock(NOW)))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            None => config.with_no_client_auth(),
            Some((der, key)) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                let chain = vec![CertificateDer::from(der)];
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = "gw.example".try_into().unwrap();
        Peer {
            tls: ClientConnection::new(Arc::new(config), name).unwrap(),
            heard: Vec::new(),
            saying: Vec::new(),
            part,
        }
    }

    /// Answers a request as a good client does.
    pub(crate) fn answer(&mut self, request: &Eap) -> Eap {
        let body = match &request.body[..] {
            [1] => b"\x01@example.org".to_vec(),
            [TLS, flags, data @ ..] => [&[TLS][..], &self.reply(*flags, data)].concat(),
            other => panic!("{other:02x?}"),
        };
        Eap {
            code: eap::RESPONSE,
            identifier: request.identifier,
            body,
        }
    }

    fn reply(&mut self, flags: u8, data: &[u8]) -> Vec<u8> {
        let data = if flags & 0x80 != 0 { &data[4..] } else { data };
        self.heard.extend_from_slice(data);
        if flags & MORE != 0 {
            return vec![0];
        }
        if self.saying.is_empty() {
            let heard = std::mem::take(&mut self.heard);
            let mut heard = &heard[..];
            while self.tls.read_tls(&mut heard).is_ok_and(|read| read > 0) {
                // It has an alert for what it does not like.
                let _ = self.tls.process_new_packets();
            }
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.saying).unwrap();
            }
        }
        let rest = self.saying.split_off(self.saying.len().min(self.part));
        let part = std::mem::replace(&mut self.saying, rest);
        let more = if self.saying.is_empty() { 0 } else { MORE };
        [&[more], &part[..]].concat()
    }

    pub(crate) fn msk(&self) -> Vec<u8> {
        let (label, context): (&[u8], Option<&[u8]>) = match self.tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => {
                (b"EXPORTER_EAP_TLS_Key_Material", Some(&[TLS]))
            }
            _ => (b"client EAP encryption", None),
        };
        let keys = self.tls.export_keying_material([0; 128], label, context);
        keys.unwrap()[..64].to_vec()
    }
}

/// Lets a peer talk to its end; yields the number of its answers, and what came of it.
fn talk(peer: &mut Peer, users: &mut Users) -> (usize, Result<(Identity, Vec<u8>), Failure>) {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut server, mut request) = Server::new(&mut rng);
    for count in 1..100 {
        let answer = peer.answer(&request);
        match server.handle(&answer, &mut rng, users) {
            Outcome::Request(next) => {
                assert!(next.body.len() <= 1024 + 6, "{}", next.body.len());
                request = next;
            }
            Outcome::Success(last, identity, msk) => {
                assert_eq!(last.code, eap::SUCCESS);
                return (count, Ok((identity, msk.to_vec())));
            }
            Outcome::Failure(last, failure) => {
                assert_eq!(last.code, eap::FAILURE);
                return (count, Err(failure));
            }
        }
    }
    panic!("an endless conversation")
}

#[test]
fn a_certificate_proves_a_user_with_both_versions_and_every_key() {
    let root = Authority::new("root");
    for key in [P256, P384, ED25519, Key::File(RSA_2048)] {
        for version in [V1_2, V1_3] {
            for part in [100, 1000, 100_000] {
                let mut users = users(&root, key);
                let shown = root.sign(&params(&["anna@example.org"]), key);
                let mut peer = Peer::new(&root, Some(shown), version, part);
                let (_, proven) = talk(&mut peer, &mut users);
                let (identity, msk) = proven.unwrap();
                assert_eq!(identity, Identity::Email("anna@example.org".into()));
                assert_eq!(msk, peer.msk(), "{version:?}");
                // RFC 9190 section 2.5.
                let mut zero = Vec::new();
                let _ = peer.tls.reader().read_to_end(&mut zero);
                let expected: &[u8] = if version == V1_3 { &[0] } else { &[] };
                assert_eq!(zero, expected);
            }
        }
    }
}

#[test]
fn whom_nobody_vouches_for_is_refused() {
    let (root, other) = (Authority::new("root"), Authority::new("other"));
    let anna = || params(&["anna@example.org"]);
    let mut expired = anna();
    (expired.not_before, expired.not_after) = (
        expired.not_before - time::Duration::days(30),
        expired.not_before - time::Duration::days(1),
    );
    let mut revoked = anna();
    revoked.serial_number = Some(7u64.into());
    let certificate = Failure::Certificate;
    for version in [V1_2, V1_3] {
        for (shown, expected) in [
            (
                Some(root.sign(&expired, P256)),
                certificate(Refused::Expired(NOW - 2 * DAY)),
            ),
            (
                Some(root.sign(&revoked, P256)),
                certificate(Refused::Revoked),
            ),
            (
                Some(other.sign(&anna(), P256)),
                certificate(Refused::UnknownIssuer),
            ),
            (
                Some(root.sign(&params(&["berta@example.org"]), P256)),
                Failure::NoUser(vec!["berta@example.org".into()]),
            ),
            (None, Failure::Tls("peer sent no certificates".to_owned())),
        ] {
            let mut users = users(&root, P256);
            let crl = root.crl(&[7], 10);
            users.x509.trust =
                Arc::new(Trust::new(std::slice::from_ref(&root.der), &[crl]).unwrap());
            let mut peer = Peer::new(&root, shown, version, 1000);
            let (_, proven) = talk(&mut peer, &mut users);
            assert_eq!(proven, Err(expected), "{version:?}");
        }
    }
}

/// A client that does not believe the gateway ends it.
#[test]
fn a_client_that_does_not_trust_us_gets_no_success() {
    let (root, other) = (Authority::new("root"), Authority::new("other"));
    for version in [V1_2, V1_3] {
        let shown = root.sign(&params(&["anna@example.org"]), P256);
        let mut peer = Peer::new(&other, Some(shown), version, 1000);
        let (_, proven) = talk(&mut peer, &mut users(&root, P256));
        let Err(Failure::Tls(said)) = proven else {
            panic!("{proven:?}")
        };
        assert!(said.contains("alert"), "{said}");
    }
}

/// Someone may have a name by the common name only if there is no other.
#[test]
fn the_common_name_counts_only_alone() {
    let root = Authority::new("root");
    for (alternative, expected) in [(None, true), (Some("berta@example.org"), false)] {
        let names: Vec<&str> = alternative.into_iter().collect();
        let mut params = params(&names);
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CommonName, "anna@example.org");
        params.distinguished_name = name;
        let mut peer = Peer::new(&root, Some(root.sign(&params, P256)), V1_2, 1000);
        let (_, proven) = talk(&mut peer, &mut users(&root, P256));
        assert_eq!(proven.is_ok(), expected);
    }
}

/// Where both methods are offered the password is asked for first; whoever has none says so.
#[test]
fn a_nak_changes_the_method() {
    let root = Authority::new("root");
    let mut rng = StdRng::seed_from_u64(1);
    for (passwords, first, wanted, second) in [
        (true, 26, 13, Some(13)),
        (false, 13, 26, None),
        (true, 26, 6, None),
    ] {
        let mut users = Users {
            passwords,
            ..users(&root, P256)
        };
        let (mut server, request) = Server::new(&mut rng);
        let answer = |request: &Eap, body: &[u8]| Eap {
            code: eap::RESPONSE,
            identifier: request.identifier,
            body: body.to_vec(),
        };
        let named = answer(&request, b"\x01anna");
        let Outcome::Request(offer) = server.handle(&named, &mut rng, &mut users) else {
            panic!()
        };
        assert_eq!(offer.body[0], first);
        let nak = answer(&offer, &[3, wanted]);
        let got = match server.handle(&nak, &mut rng, &mut users) {
            Outcome::Request(next) => Some(next.body[0]),
            _ => None,
        };
        assert_eq!(got, second);
    }
}

/// What a stranger can make us take is bounded.
#[test]
fn too_much_is_refused() {
    let root = Authority::new("root");
    let big = [&[TLS, MORE, 22, 3, 3, 0x3f, 0xff][..], &[0; 9000]].concat();
    for (body, most) in [
        // A record that never ends, in small parts and in large ones.
        (vec![TLS, MORE, 22], 65),
        (big, 6),
        // A length that nobody needs, and one that is not kept to.
        (vec![TLS, 0x80 | MORE, 0, 1, 0, 0, 22], 1),
        (vec![TLS, 0x80, 0, 0, 0, 2, 22], 1),
        (vec![TLS, 0x80, 0, 0, 0, 1, 22, 3], 1),
        (vec![TLS, 0x80, 0, 0], 1),
        (vec![TLS, MORE], 1),
        (vec![TLS, 0], 1),
        (vec![TLS], 1),
    ] {
        let mut rng = StdRng::seed_from_u64(1);
        let mut users = users(&root, P256);
        let (mut server, request) = Server::new(&mut rng);
        let answer = |request: &Eap, body: &[u8]| Eap {
            code: eap::RESPONSE,
            identifier: request.identifier,
            body: body.to_vec(),
        };
        let named = answer(&request, b"\x01anna");
        let Outcome::Request(mut request) = server.handle(&named, &mut rng, &mut users) else {
            panic!()
        };
        let mut count = 0;
        while let Outcome::Request(next) =
            server.handle(&answer(&request, &body), &mut rng, &mut users)
        {
            request = next;
            count += 1;
            assert!(count <= most, "{:02x?}", &body[..body.len().min(8)]);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        parts in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
        flip in prop::option::of((0usize..6, any::<prop::sample::Index>(), 1u8..)),
        version in prop_oneof![Just(V1_2), Just(V1_3)],
    ) {
        let root = Authority::new("root");
        let mut rng = StdRng::seed_from_u64(1);
        let mut all = users(&root, P256);
        // Bytes by chance.
        let (mut server, mut request) = Server::new(&mut rng);
        let first = std::iter::once(b"\x01anna".to_vec());
        let noise = parts.into_iter().map(|(flags, data)| [&[TLS, flags][..], &data].concat());
        for body in first.chain(noise) {
            let (code, identifier) = (eap::RESPONSE, request.identifier);
            match server.handle(&Eap { code, identifier, body }, &mut rng, &mut all) {
                Outcome::Request(next) => request = next,
                Outcome::Success(..) => prop_assert!(false, "nobody was proven"),
                Outcome::Failure(..) => break,
            }
        }
        // One byte of a good conversation that is wrong: it must not succeed with other keys.
        let shown = root.sign(&params(&["anna@example.org"]), P256);
        let mut peer = Peer::new(&root, Some(shown), version, 700);
        let (mut server, mut request) = Server::new(&mut rng);
        for count in 0..20 {
            let mut answer = peer.answer(&request);
            if let Some((at, index, change)) = flip && at == count {
                let place = index.index(answer.body.len());
                answer.body[place] ^= change;
            }
            match server.handle(&answer, &mut rng, &mut all) {
                Outcome::Request(next) if next.body[0] == TLS || next.body[0] == 1 => request = next,
                Outcome::Success(_, _, msk) => {
                    prop_assert_eq!(msk.to_vec(), peer.msk());
                    break;
                }
                _ => break,
            }
        }
    }
}
