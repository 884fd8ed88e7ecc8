//! Our private key. `ring` signs: its nonces for ECDSA and its salts for RSA-PSS come from the
//! system, because it takes no other source; nothing else in this room asks the system.

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RsaEncoding, RsaKeyPair,
};
use zeroize::Zeroizing;

use super::super::payload::auth::{Auth, ECDSA_256, ECDSA_384};
use super::signature::{Hash, Hashes, KeyKind, Scheme, write_auth};

/// How the bytes of a private key are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEncoding {
    /// PrivateKeyInfo (RFC 5208), the usual one.
    Pkcs8,
    /// RSAPrivateKey (RFC 8017).
    Pkcs1,
    /// ECPrivateKey (RFC 5915).
    Sec1,
}

/// A private key that can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the private key can not be used: expected ECDSA on P-256 or P-384, Ed25519, or RSA with 2048 \
     to 4096 bits"
)]
pub struct BadKey;

/// Which form a signature has in AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Method 14.
    Digital(Scheme),
    /// Method 9 or 10: r | s (RFC 4754 section 7).
    Fixed(u8),
}

/// A private key for signatures; never shown. `ring` holds its bytes, and does not wipe them when it
/// is dropped.
pub struct PrivateKey(Pair);

enum Pair {
    /// For RFC 7427, and for the older methods of RFC 4754, which encode signatures otherwise.
    Ecdsa {
        kind: KeyKind,
        asn1: Box<EcdsaKeyPair>,
        fixed: Box<EcdsaKeyPair>,
    },
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// AlgorithmIdentifiers of EC keys, to make PKCS #8 of SEC 1.
const EC_P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
const EC_P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];

impl PrivateKey {
    /// Reads a private key in DER.
    ///
    /// # Errors
    /// It is none of the kinds that are spoken.
    pub fn from_der(encoding: KeyEncoding, der: &[u8]) -> Result<PrivateKey, BadKey> {
        match encoding {
            KeyEncoding::Pkcs8 => PrivateKey::from_pkcs8(der),
            KeyEncoding::Pkcs1 => match RsaKeyPair::from_der(der) {
                Ok(pair) => Ok(PrivateKey(Pair::Rsa(Box::new(pair)))),
                Err(_) => Err(BadKey),
            },
            KeyEncoding::Sec1 => {
                let mut tries = [EC_P256, EC_P384].iter();
                tries
                    .find_map(|algorithm| PrivateKey::from_pkcs8(&pkcs8(algorithm, der)).ok())
                    .ok_or(BadKey)
            }
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<PrivateKey, BadKey> {
        let random = SystemRandom::new();
        for (kind, asn1, fixed) in [
            (
                KeyKind::EcdsaP256,
                &ECDSA_P256_SHA256_ASN1_SIGNING,
                &ECDSA_P256_SHA256_FIXED_SIGNING,
            ),
            (
                KeyKind::EcdsaP384,
                &ECDSA_P384_SHA384_ASN1_SIGNING,
                &ECDSA_P384_SHA384_FIXED_SIGNING,
            ),
        ] {
            if let (Ok(asn1), Ok(fixed)) = (
                EcdsaKeyPair::from_pkcs8(asn1, der, &random),
                EcdsaKeyPair::from_pkcs8(fixed, der, &random),
            ) {
                let (asn1, fixed) = (Box::new(asn1), Box::new(fixed));
                return Ok(PrivateKey(Pair::Ecdsa { kind, asn1, fixed }));
            }
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(PrivateKey(Pair::Ed25519(pair)));
        }
        match RsaKeyPair::from_pkcs8(der) {
            Ok(pair) => Ok(PrivateKey(Pair::Rsa(Box::new(pair)))),
            Err(_) => Err(BadKey),
        }
    }

    pub fn kind(&self) -> KeyKind {
        match &self.0 {
            Pair::Ecdsa { kind, .. } => *kind,
            Pair::Ed25519(_) => KeyKind::Ed25519,
            Pair::Rsa(_) => KeyKind::Rsa,
        }
    }

    /// The bits of the public key, as in its SubjectPublicKeyInfo.
    pub fn public(&self) -> &[u8] {
        match &self.0 {
            Pair::Ecdsa { asn1, .. } => asn1.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    /// How to sign for a peer that announced `hashes`: by RFC 7427, or if it does not know that, by
    /// the older methods for ECDSA. `None` if the peer understands nothing that this key can do.
    /// RSA signs by PSS (RFC 8247 section 3.2).
    pub(crate) fn way(&self, hashes: Hashes) -> Option<Way> {
        let own: &[Scheme] = match self.kind() {
            KeyKind::EcdsaP256 => &[Scheme::Ecdsa(Hash::Sha256)],
            KeyKind::EcdsaP384 => &[Scheme::Ecdsa(Hash::Sha384)],
            KeyKind::Ed25519 => &[Scheme::Ed25519],
            KeyKind::Rsa => &[
                Scheme::RsaPss(Hash::Sha256),
                Scheme::RsaPss(Hash::Sha384),
                Scheme::RsaPss(Hash::Sha512),
            ],
        };
        let scheme = own.iter().copied().find(|s| hashes.contains(s.hash()));
        match (scheme, self.kind()) {
            (Some(scheme), _) => Some(Way::Digital(scheme)),
            (None, KeyKind::EcdsaP256) if hashes.is_empty() => Some(Way::Fixed(ECDSA_256)),
            (None, KeyKind::EcdsaP384) if hashes.is_empty() => Some(Way::Fixed(ECDSA_384)),
            (None, _) => None,
        }
    }

    /// The AUTH payload over `octets` for a peer that announced `hashes`; `None` if there is no way.
    pub(crate) fn auth(&self, hashes: Hashes, octets: &[u8]) -> Option<Auth> {
        match (self.way(hashes)?, &self.0) {
            (Way::Digital(scheme), _) => Some(write_auth(scheme, &self.sign(scheme, octets)?)),
            (Way::Fixed(method), Pair::Ecdsa { fixed, .. }) => {
                let signature = fixed.sign(&SystemRandom::new(), octets).ok()?;
                let data = signature.as_ref().to_vec();
                Some(Auth { method, data })
            }
            (Way::Fixed(_), _) => None,
        }
    }

    /// The signature over `octets`; `None` if it is no scheme for this key.
    pub fn sign(&self, scheme: Scheme, octets: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match (&self.0, scheme) {
            (
                Pair::Ecdsa {
                    kind: KeyKind::EcdsaP256,
                    asn1,
                    ..
                },
                Scheme::Ecdsa(Hash::Sha256),
            )
            | (
                Pair::Ecdsa {
                    kind: KeyKind::EcdsaP384,
                    asn1,
                    ..
                },
                Scheme::Ecdsa(Hash::Sha384),
            ) => Some(asn1.sign(&random, octets).ok()?.as_ref().to_vec()),
            (Pair::Ed25519(pair), Scheme::Ed25519) => Some(pair.sign(octets).as_ref().to_vec()),
            (Pair::Rsa(pair), scheme) => {
                let padding: &'static dyn RsaEncoding = match scheme {
                    Scheme::RsaPss(Hash::Sha256) => &signature::RSA_PSS_SHA256,
                    Scheme::RsaPss(Hash::Sha384) => &signature::RSA_PSS_SHA384,
                    Scheme::RsaPss(Hash::Sha512) => &signature::RSA_PSS_SHA512,
                    Scheme::RsaPkcs1(Hash::Sha256) => &signature::RSA_PKCS1_SHA256,
                    Scheme::RsaPkcs1(Hash::Sha384) => &signature::RSA_PKCS1_SHA384,
                    Scheme::RsaPkcs1(Hash::Sha512) => &signature::RSA_PKCS1_SHA512,
                    _ => return None,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, octets, &mut signature).ok()?;
                Some(signature)
            }
            _ => None,
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?}, not shown)", self.kind())
    }
}

/// Wraps an ECPrivateKey as PrivateKeyInfo, which is all that `ring` reads.
fn pkcs8(algorithm: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let value = |tag: u8, body: &[&[u8]]| {
        let length: usize = body.iter().map(|part| part.len()).sum();
        let mut out = Zeroizing::new(Vec::with_capacity(length + 4));
        out.push(tag);
        match length {
            0..=0x7f => out.push(length as u8),
            0x80..=0xff => out.extend_from_slice(&[0x81, length as u8]),
            _ => out.extend_from_slice(&[0x82, (length >> 8) as u8, length as u8]),
        }
        body.iter().for_each(|part| out.extend_from_slice(part));
        out
    };
    let key = value(0x04, &[key]);
    value(0x30, &[&[0x02, 0x01, 0x00], algorithm, &key])
}
