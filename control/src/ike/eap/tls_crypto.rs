//! What `rustls` asks: the time, our signature, and whether the user's certificate is believed. The
//! same code answers as for certificates in IKE.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{Signer, SigningKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::super::x509::{Hash, KeyKind, Own, Refused, Scheme, Subject, Trust};

/// The time when the conversation began, seconds since 1970: it lasts for some seconds.
#[derive(Debug)]
pub(super) struct StoppedClock(pub(super) u64);

impl TimeProvider for StoppedClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

/// Signs with the key of our certificate.
#[derive(Debug)]
pub(super) struct Signing(pub(super) Arc<Own>);

impl Signing {
    /// What its key can do, the preferred first.
    fn schemes(&self) -> &'static [(SignatureScheme, Scheme)] {
        match self.0.key().kind() {
            KeyKind::EcdsaP256 => &[(
                SignatureScheme::ECDSA_NISTP256_SHA256,
                Scheme::Ecdsa(Hash::Sha256),
            )],
            KeyKind::EcdsaP384 => &[(
                SignatureScheme::ECDSA_NISTP384_SHA384,
                Scheme::Ecdsa(Hash::Sha384),
            )],
            KeyKind::Ed25519 => &[(SignatureScheme::ED25519, Scheme::Ed25519)],
            KeyKind::Rsa => &[
                (
                    SignatureScheme::RSA_PSS_SHA256,
                    Scheme::RsaPss(Hash::Sha256),
                ),
                (
                    SignatureScheme::RSA_PSS_SHA384,
                    Scheme::RsaPss(Hash::Sha384),
                ),
                (
                    SignatureScheme::RSA_PSS_SHA512,
                    Scheme::RsaPss(Hash::Sha512),
                ),
                (
                    SignatureScheme::RSA_PKCS1_SHA256,
                    Scheme::RsaPkcs1(Hash::Sha256),
                ),
                (
                    SignatureScheme::RSA_PKCS1_SHA384,
                    Scheme::RsaPkcs1(Hash::Sha384),
                ),
                (
                    SignatureScheme::RSA_PKCS1_SHA512,
                    Scheme::RsaPkcs1(Hash::Sha512),
                ),
            ],
        }
    }
}

impl SigningKey for Signing {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let mut schemes = self.schemes().iter();
        let (name, scheme) = schemes.find(|(name, _)| offered.contains(name))?;
        Some(Box::new(OneScheme {
            own: Arc::clone(&self.0),
            name: *name,
            scheme: *scheme,
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0.key().kind() {
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 => SignatureAlgorithm::ECDSA,
            KeyKind::Ed25519 => SignatureAlgorithm::ED25519,
            KeyKind::Rsa => SignatureAlgorithm::RSA,
        }
    }
}

#[derive(Debug)]
struct OneScheme {
    own: Arc<Own>,
    name: SignatureScheme,
    scheme: Scheme,
}

impl Signer for OneScheme {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.own.key().sign(self.scheme, message);
        signature.ok_or_else(|| Error::General("the key does not sign".to_owned()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.name
    }
}

/// Judges the user's certificate, and keeps the verdict.
pub(super) struct Verifier {
    trust: Arc<Trust>,
    time: u64,
    algorithms: WebPkiSupportedAlgorithms,
    hints: Vec<DistinguishedName>,
    verdict: Mutex<Option<Result<Arc<Subject>, Refused>>>,
}

impl Verifier {
    pub(super) fn new(
        trust: Arc<Trust>,
        time: u64,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Verifier {
        let hints = trust.subjects().map(DistinguishedName::in_sequence);
        Verifier {
            hints: hints.collect(),
            trust,
            time,
            algorithms,
            verdict: Mutex::new(None),
        }
    }

    /// Whose certificate was believed.
    pub(super) fn subject(&self) -> Option<Arc<Subject>> {
        match self.verdict.lock().ok()?.as_ref()? {
            Ok(subject) => Some(Arc::clone(subject)),
            Err(_) => None,
        }
    }

    /// Why it was not.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.verdict.lock().ok()?.as_ref()?.as_ref().err().cloned()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        first: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<&[u8]> = std::iter::once(first)
            .chain(others)
            .map(AsRef::as_ref)
            .collect();
        let verdict = self.trust.believe(&chain, self.time).map(Arc::new);
        let answer = match &verdict {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(refused) => Err(Error::InvalidCertificate(alert(refused))),
        };
        if let Ok(mut kept) = self.verdict.lock() {
            *kept = Some(verdict);
        }
        answer
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What the peer is told.
fn alert(refused: &Refused) -> CertificateError {
    match refused {
        Refused::Expired(_) => CertificateError::Expired,
        Refused::NotYetValid(_) => CertificateError::NotValidYet,
        Refused::Revoked => CertificateError::Revoked,
        Refused::UnknownIssuer | Refused::NoTrust => CertificateError::UnknownIssuer,
        Refused::Unreadable => CertificateError::BadEncoding,
        Refused::Signature | Refused::Chain => CertificateError::BadSignature,
        Refused::Purpose => CertificateError::InvalidPurpose,
        _ => CertificateError::ApplicationVerificationFailure,
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({:?})", self.trust)
    }
}
