//! What a peer proves itself with: certificates, an AUTH payload, and answers of EAP. Nobody is
//! believed.

use std::sync::LazyLock;

use evergate::ike::Identity;
use evergate::ike::eap::{EapUser, Outcome, Server};
use evergate::ike::payload::auth::Auth;
use evergate::ike::payload::eap::{Eap, RESPONSE};
use evergate::ike::x509::Trust;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

const CA: &[u8] = include_bytes!("../../../control/src/ike/x509/tests/keys/weak-ca.pem");
/// A day on which the CA is valid, in seconds since 1970.
const NOW: u64 = 1_893_456_000;

static AUTHORITY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    CertificateDer::from_pem_slice(CA)
        .expect("the fixture is good")
        .to_vec()
});
static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    Trust::new(std::slice::from_ref(&*AUTHORITY), &[]).expect("the fixture is good")
});

/// Byte 0: authentication method; 1 and 2: length of the first part, often a certificate; the second
/// part is another one, a CRL, or the AUTH data.
pub fn ike_proof(data: &[u8]) {
    let [method, high, low, data @ ..] = data else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (first, second) = data.split_at(data.len().min(length));
    for name in [
        "client.example",
        "192.0.2.1",
        "anna@example.org",
        "CN=client,O=Example",
    ] {
        let identity: Identity = name.parse().expect("the name is good");
        if let Ok(key) = TRUST.verify(&[first, second, &AUTHORITY], &identity, NOW) {
            let auth = Auth {
                method: *method,
                data: second.to_vec(),
            };
            let _ = key.verify(&auth, b"octets");
        }
    }
    let mut rng = StdRng::seed_from_u64(1);
    let (mut server, mut request) = Server::new(&mut rng);
    let mut users = |name: &str| {
        let identity = Identity::Fqdn(name.to_owned());
        (!name.is_empty()).then(|| EapUser::new(identity, "a password of 22 bytes"))
    };
    for body in [first, second, data] {
        let answer = Eap {
            code: RESPONSE,
            identifier: request.identifier,
            body: body.to_vec(),
        };
        match server.handle(&answer, &mut rng, &mut users) {
            Outcome::Request(next) => request = next,
            Outcome::Success(..) => panic!("nobody knew the password"),
            Outcome::Failure(..) => break,
        }
    }
}
