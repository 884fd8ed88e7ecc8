//! The certificate that we show, with its chain and its private key.

use std::fmt;

use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use super::super::identity::Identity;
use super::super::payload::Payload;
use super::super::payload::auth::Auth;
use super::super::payload::cert::Cert;
use super::key::PrivateKey;
use super::name;
use super::refused::Refused;
use super::signature::{Hashes, PublicKey};
use super::trust::MOST_CERTIFICATES;

/// Our certificate, those that lead from it to a CA, and the key.
pub struct Own {
    /// In DER, our own first, without the CA that everybody has.
    chain: Vec<Vec<u8>>,
    leaf: Certificate,
    key: PrivateKey,
}

/// A certificate and key that can not be used to authenticate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadChain {
    #[error("found no certificate, expected at least the node's own")]
    Empty,
    #[error("found {0} certificates, expected at most {MOST_CERTIFICATES}")]
    TooMany(usize),
    #[error("certificate {0} can not be read")]
    Unreadable(usize),
    #[error("{0}")]
    Useless(Refused),
    #[error("the private key does not belong to the first certificate, which is of {0}")]
    OtherKey(String),
}

impl Own {
    /// From certificates in DER, the own one first. A CA's self-signed one at the end is left out
    /// of what is sent.
    ///
    /// # Errors
    /// They can not be read, are not for signatures, or the key is not that of the first one.
    pub fn new(mut chain: Vec<Vec<u8>>, key: PrivateKey) -> Result<Own, BadChain> {
        if chain.len() > MOST_CERTIFICATES {
            return Err(BadChain::TooMany(chain.len()));
        }
        let mut read = Vec::new();
        for (index, der) in chain.iter().enumerate() {
            let certificate = Certificate::from_der(der);
            read.push(certificate.map_err(|_| BadChain::Unreadable(index + 1))?);
        }
        let rooted = read.last().is_some_and(|last| {
            let last = last.tbs_certificate();
            last.issuer() == last.subject()
        });
        if rooted && chain.len() > 1 {
            chain.pop();
        }
        let leaf = read.into_iter().next().ok_or(BadChain::Empty)?;
        name::check_usage(&leaf).map_err(BadChain::Useless)?;
        let public = PublicKey::of(&leaf).map_err(BadChain::Useless)?;
        if public.kind != key.kind() || public.bits() != key.public() {
            let subject = leaf.tbs_certificate().subject();
            return Err(BadChain::OtherKey(subject.to_string()));
        }
        Ok(Own { chain, leaf, key })
    }

    /// Whether the certificate names this identity.
    pub fn names(&self, identity: &Identity) -> bool {
        name::names(&self.leaf, identity)
    }

    /// The subject, as an identity.
    pub fn subject(&self) -> Option<Identity> {
        let subject = self.leaf.tbs_certificate().subject();
        Some(Identity::Dn(subject.to_der().ok()?))
    }

    /// All names of the certificate, for messages: the subject first.
    pub fn shown(&self) -> Vec<String> {
        name::shown(&self.leaf)
    }

    /// Seconds since 1970: not before, not after.
    pub fn validity(&self) -> (u64, u64) {
        let validity = self.leaf.tbs_certificate().validity();
        let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
        (seconds(&validity.not_before), seconds(&validity.not_after))
    }

    /// The certificates as CERT payloads, our own first.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = Payload> {
        let chain = self.chain.iter();
        chain.map(|der| Payload::Cert(Cert::x509(der.as_slice())))
    }

    /// The certificates in DER, our own first.
    pub(crate) fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    pub(crate) fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Whether a peer that announced `hashes` understands signatures of this key.
    pub(crate) fn can_sign(&self, hashes: Hashes) -> bool {
        self.key.way(hashes).is_some()
    }

    /// The AUTH payload; see [`PrivateKey::auth`].
    pub(crate) fn auth(&self, hashes: Hashes, octets: &[u8]) -> Option<Auth> {
        self.key.auth(hashes, octets)
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.leaf.tbs_certificate().subject();
        write!(f, "Own({subject}, {:?})", self.key)
    }
}
