//! A user who wants to prove itself by EAP: any packets; and a conversation of EAP-TLS in which some
//! bytes are changed. Nobody succeeds who has no certificate.

use std::io::Read as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use evergate::ike::eap::{EapUser, Outcome, Server, Users};
use evergate::ike::payload::eap::{Eap, RESPONSE};
use evergate::ike::x509::{KeyEncoding, Own, PrivateKey, Subject, Trust};
use evergate::ike::{Identity, X509};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::script::Script;

const TLS: u8 = 13;
const LENGTH: u8 = 0x80;
const MORE: u8 = 0x40;
/// A day on which all certificates are valid, in seconds since 1970.
const NOW: u64 = 1_893_456_000;
/// An answer goes in parts of so many bytes.
const PART: usize = 700;

struct Fixture {
    x509: X509,
    /// With a certificate of anna's, and without one, for either version of TLS.
    clients: [Arc<ClientConfig>; 4],
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let named = |name: &str, alternative: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let text = alternative.try_into().expect("a good name");
        params.subject_alt_names = vec![match alternative.contains('@') {
            true => SanType::Rfc822Name(text),
            false => SanType::DnsName(text),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params
    };
    let mut authority = named("root", "root.example");
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let root = CertifiedIssuer::self_signed(authority, key).expect("a CA");
    let sign = |name: &str, alternative: &str| {
        let key = KeyPair::generate().expect("a key");
        let signed = named(name, alternative).signed_by(&key, &root);
        (signed.expect("a certificate").der().clone(), key)
    };
    let (der, key) = sign("gateway", "gw.example");
    let key = PrivateKey::from_der(KeyEncoding::Pkcs8, key.serialized_der());
    let own = Own::new(vec![der.to_vec()], key.expect("a key")).expect("a certificate and its key");
    let trust = Trust::new(&[root.der().to_vec()], &[]).expect("a CA");
    let (anna, anna_key) = sign("anna", "anna@example.org");
    let client = |version, shown: bool| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).expect("a CA");
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(anna_key.serialize_der()));
        Arc::new(match shown {
            true => config
                .with_client_auth_cert(vec![anna.clone()], key)
                .expect("a certificate and its key"),
            false => config.with_no_client_auth(),
        })
    };
    let (old, new) = (&rustls::version::TLS12, &rustls::version::TLS13);
    Fixture {
        x509: X509 {
            own: Some(Arc::new(own)),
            trust: Arc::new(trust),
        },
        clients: [
            client(new, true),
            client(new, false),
            client(old, true),
            client(old, false),
        ],
    }
});

struct All {
    passwords: bool,
}

impl Users for All {
    fn have_passwords(&self) -> bool {
        self.passwords
    }

    fn by_password(&mut self, name: &str) -> Option<EapUser> {
        let anna = Identity::Email("anna@example.org".to_owned());
        (name == "anna").then(|| EapUser::new(anna, "a password of 22 bytes"))
    }

    fn wait(&mut self, _: &str) -> Option<Duration> {
        None
    }

    fn judged(&mut self, _: &str, right: bool) {
        assert!(!right, "a password was guessed");
    }

    fn certificates(&mut self) -> Option<(X509, u64)> {
        Some((FIXTURE.x509.clone(), NOW))
    }

    fn by_certificate(&mut self, subject: &Subject) -> Option<Identity> {
        let anna = "anna@example.org";
        let known = subject.is_user(anna);
        known.then(|| Identity::Email(anna.to_owned()))
    }
}

/// A client as it should be.
struct Client {
    tls: ClientConnection,
    heard: Vec<u8>,
    saying: Vec<u8>,
}

impl Client {
    fn answer(&mut self, request: &Eap) -> Option<Vec<u8>> {
        let (flags, data) = match &request.body[..] {
            [1] => return Some(b"\x01@example.org".to_vec()),
            [TLS, flags, data @ ..] => (*flags, data),
            _ => return None,
        };
        let skipped = if flags & LENGTH != 0 { 4 } else { 0 };
        self.heard.extend_from_slice(data.get(skipped..)?);
        if flags & MORE != 0 {
            return Some(vec![TLS, 0]);
        }
        if self.saying.is_empty() {
            let heard = std::mem::take(&mut self.heard);
            let mut heard = &heard[..];
            while self.tls.read_tls(&mut heard).is_ok_and(|read| read > 0) {
                // It has an alert for what it does not like.
                let _ = self.tls.process_new_packets();
            }
            let mut zero = Vec::new();
            let _ = self.tls.reader().read_to_end(&mut zero);
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.saying).ok()?;
            }
        }
        let rest = self.saying.split_off(self.saying.len().min(PART));
        let part = std::mem::replace(&mut self.saying, rest);
        let more = if self.saying.is_empty() { 0 } else { MORE };
        Some([&[TLS, more], &part[..]].concat())
    }

    fn msk(&self) -> Option<Vec<u8>> {
        let (label, context): (&[u8], Option<&[u8]>) = match self.tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => {
                (b"EXPORTER_EAP_TLS_Key_Material", Some(&[TLS]))
            }
            _ => (b"client EAP encryption", None),
        };
        let keys = self.tls.export_keying_material([0; 128], label, context);
        Some(keys.ok()?[..64].to_vec())
    }
}

/// Byte 0: who the client is, and who may come how. Then parts with a length: packets of EAP; or changes
/// of what the client says, each with the number of the answer, a place, and a byte.
pub fn ike_eap(data: &[u8]) {
    let mut script = Script::new(data);
    let how = script.byte();
    let mut users = All {
        passwords: how & 1 != 0,
    };
    let mut rng = StdRng::seed_from_u64(1);
    let (mut server, mut request) = Server::new(&mut rng);
    let answer = |request: &Eap, body: Vec<u8>| Eap {
        code: RESPONSE,
        identifier: request.identifier,
        body,
    };
    if how & 2 == 0 {
        while !script.over() {
            let body = script.part().to_vec();
            match server.handle(&answer(&request, body), &mut rng, &mut users) {
                Outcome::Request(next) => request = next,
                Outcome::Success(..) => panic!("nobody was proven"),
                Outcome::Failure(..) => return,
            }
        }
        return;
    }
    let which = usize::from(how >> 2 & 3);
    let has_certificate = which % 2 == 0;
    let config = Arc::clone(&FIXTURE.clients[which]);
    let name = "gw.example".try_into().expect("a name");
    let mut client = Client {
        tls: ClientConnection::new(config, name).expect("a client"),
        heard: Vec::new(),
        saying: Vec::new(),
    };
    users.passwords = false;
    let mut changes = Vec::new();
    while !script.over() && changes.len() < 8 {
        changes.push((script.byte() % 16, script.word(), script.byte()));
    }
    for number in 0..40 {
        let Some(mut body) = client.answer(&request) else {
            return;
        };
        for (at, place, change) in &changes {
            if *at == number && !body.is_empty() {
                let place = usize::from(*place) % body.len();
                body[place] ^= change;
            }
        }
        match server.handle(&answer(&request, body), &mut rng, &mut users) {
            Outcome::Request(next) => request = next,
            Outcome::Success(_, identity, msk) => {
                assert!(has_certificate, "nobody was proven");
                assert_eq!(identity, Identity::Email("anna@example.org".to_owned()));
                assert_eq!(Some(msk.to_vec()), client.msk(), "the two have other keys");
                return;
            }
            Outcome::Failure(..) => return,
        }
    }
    panic!("an endless conversation");
}
