//! Certificates made for each test, and what becomes of each kind that is wrong.

mod chain;
mod names;
mod signatures;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::super::identity::Identity;
use super::*;

/// The time of day in tests: 2030-01-01 00:00:00 UTC.
pub(crate) const NOW: u64 = 1_893_456_000;

pub(crate) const DAY: u64 = 24 * 3600;

pub(crate) const RSA_2048: &str = include_str!("keys/rsa-2048.pem");
pub(crate) const RSA_3072: &str = include_str!("keys/rsa-3072.pem");

/// A CA that signs what a test needs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
}

/// How to make a key: by `rcgen`, or from a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    Made(&'static SignatureAlgorithm),
    File(&'static str),
}

pub(crate) const P256: Key = Key::Made(&rcgen::PKCS_ECDSA_P256_SHA256);
pub(crate) const P384: Key = Key::Made(&rcgen::PKCS_ECDSA_P384_SHA384);
pub(crate) const ED25519: Key = Key::Made(&rcgen::PKCS_ED25519);

impl Key {
    pub(crate) fn pair(self) -> KeyPair {
        match self {
            Key::Made(algorithm) => KeyPair::generate_for(algorithm).unwrap(),
            Key::File(pem) => KeyPair::from_pem(pem).unwrap(),
        }
    }
}

/// `NOW` and so many days, as `rcgen` wants it.
fn day(days: i64) -> time::OffsetDateTime {
    let seconds = i64::try_from(NOW).unwrap() + days * i64::try_from(DAY).unwrap();
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

/// A certificate for these names, valid from yesterday to tomorrow.
pub(crate) fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Example");
    let first = names.first().copied().unwrap_or("nobody");
    params.distinguished_name.push(DnType::CommonName, first);
    params.subject_alt_names = names.iter().map(|name| san(name)).collect();
    (params.not_before, params.not_after) = (day(-1), day(1));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn san(name: &str) -> SanType {
    match name.parse::<Identity>().unwrap() {
        Identity::Ipv4(a) => SanType::IpAddress(a.into()),
        Identity::Ipv6(a) => SanType::IpAddress(a.into()),
        Identity::Email(name) => SanType::Rfc822Name(name.try_into().unwrap()),
        _ => SanType::DnsName(name.try_into().unwrap()),
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(&[]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        Authority::with(name, P256, |_| {})
    }

    fn with(name: &str, key: Key, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = authority_params(name);
        change(&mut params);
        let key = key.pair();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let issuer = Issuer::new(params, key);
        Authority { issuer, der }
    }

    /// A CA below this one.
    fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = authority_params(name);
        change(&mut params);
        let key = P256.pair();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        let issuer = Issuer::new(params, key);
        Authority { issuer, der }
    }

    /// A certificate in DER, and its key.
    pub(crate) fn sign(&self, params: &CertificateParams, key: Key) -> (Vec<u8>, KeyPair) {
        let key = key.pair();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().to_vec(), key)
    }

    /// A certificate for a name, ready to be shown.
    pub(crate) fn own(&self, name: &str, key: Key) -> Own {
        let (der, key) = self.sign(&params(&[name]), key);
        Own::new(vec![der], private(&key)).unwrap()
    }

    /// A CRL that is fresh for so many days from yesterday on.
    pub(crate) fn crl(&self, revoked: &[u64], days: i64) -> Vec<u8> {
        let params = CertificateRevocationListParams {
            this_update: day(-1),
            next_update: day(days - 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: day(-1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::new(std::slice::from_ref(&self.der), &[]).unwrap()
    }
}

pub(crate) fn private(key: &KeyPair) -> PrivateKey {
    PrivateKey::from_der(KeyEncoding::Pkcs8, key.serialized_der()).unwrap()
}

/// A private key from a PEM file of any of the three formats.
fn from_pem(pem: &str) -> Result<PrivateKey, BadKey> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let encoding = match &der {
        PrivateKeyDer::Pkcs1(_) => KeyEncoding::Pkcs1,
        PrivateKeyDer::Sec1(_) => KeyEncoding::Sec1,
        _ => KeyEncoding::Pkcs8,
    };
    PrivateKey::from_der(encoding, der.secret_der())
}

fn certificate_from_pem(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}
