//! Key exchange methods: Curve25519, the NIST curves, and ML-KEM. One seam over the crates that
//! compute them.

use std::fmt;

use ml_kem::kem::{Decapsulate, Encapsulate, KeyExport};
use ml_kem::ml_kem_768;
use p256::elliptic_curve::sec1::ToSec1Point;
use rand::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use super::crypto::Secret;

/// A key exchange method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Curve25519 (RFC 8031).
    X25519,
    /// The 256-bit random ECP group (RFC 5903).
    P256,
    /// The 384-bit random ECP group (RFC 5903).
    P384,
    /// ML-KEM-768 (FIPS 203, draft-ietf-ipsecme-ikev2-mlkem), which a quantum computer does not
    /// break. Its public values are long: an additional key exchange (RFC 9370), not a first one.
    MlKem768,
}

impl Group {
    /// Every method.
    pub const ALL: [Group; 4] = [Group::X25519, Group::P256, Group::P384, Group::MlKem768];

    /// The number of the key exchange method.
    pub fn number(self) -> u16 {
        match self {
            Group::P256 => 19,
            Group::P384 => 20,
            Group::X25519 => 31,
            Group::MlKem768 => 36,
        }
    }

    /// The method with that number, if it is spoken.
    pub fn from_number(number: u16) -> Option<Group> {
        Group::ALL.into_iter().find(|g| g.number() == number)
    }

    /// Bytes of a private key; of ML-KEM its seed.
    fn private_length(self) -> usize {
        match self {
            Group::X25519 | Group::P256 => 32,
            Group::P384 => 48,
            Group::MlKem768 => 64,
        }
    }
}

/// The initiator's half of a key exchange.
pub struct KeyPair {
    secret: PrivateKey,
    public: Vec<u8>,
}

enum PrivateKey {
    X25519(x25519_dalek::StaticSecret),
    P256(p256::SecretKey),
    P384(p384::SecretKey),
    MlKem768(Box<ml_kem_768::DecapsulationKey>),
}

impl KeyPair {
    pub fn generate(group: Group, rng: &mut dyn CryptoRng) -> KeyPair {
        let mut bytes = Zeroizing::new(vec![0; group.private_length()]);
        loop {
            rng.fill_bytes(&mut bytes);
            if let Some(pair) = KeyPair::from_bytes(group, &bytes) {
                return pair;
            }
            // A scalar outside the order of P-256: one in 2^32 draws.
        }
    }

    /// From the bytes of a private key (32; P-384: 48; ML-KEM: 64 of seed). `None` if they are of
    /// another length, or no scalar of the group.
    pub fn from_bytes(group: Group, bytes: &[u8]) -> Option<KeyPair> {
        let (secret, public) = match group {
            Group::X25519 => {
                let secret = x25519_dalek::StaticSecret::from(<[u8; 32]>::try_from(bytes).ok()?);
                let public = x25519_dalek::PublicKey::from(&secret).as_bytes().to_vec();
                (PrivateKey::X25519(secret), public)
            }
            // RFC 5903 section 7: x | y, without the SEC 1 prefix.
            Group::P256 => {
                let secret = p256::SecretKey::from_slice(bytes).ok()?;
                let point = secret.public_key().to_sec1_point(false);
                (PrivateKey::P256(secret), point.as_bytes()[1..].to_vec())
            }
            Group::P384 => {
                let secret = p384::SecretKey::from_slice(bytes).ok()?;
                let point = secret.public_key().to_sec1_point(false);
                (PrivateKey::P384(secret), point.as_bytes()[1..].to_vec())
            }
            Group::MlKem768 => {
                let mut seed = ml_kem::Seed::try_from(bytes).ok()?;
                let secret = ml_kem_768::DecapsulationKey::from_seed(seed);
                seed.as_mut_slice().zeroize();
                let public = secret.encapsulation_key().to_bytes().to_vec();
                (PrivateKey::MlKem768(Box::new(secret)), public)
            }
        };
        Some(KeyPair { secret, public })
    }

    pub fn group(&self) -> Group {
        match self.secret {
            PrivateKey::X25519(_) => Group::X25519,
            PrivateKey::P256(_) => Group::P256,
            PrivateKey::P384(_) => Group::P384,
            PrivateKey::MlKem768(_) => Group::MlKem768,
        }
    }

    /// The public value, as a Key Exchange payload carries it.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret, from the responder's public value; `None` if that has the wrong length, is
    /// not on the curve, or is of small order. A false ciphertext of ML-KEM yields a secret that the
    /// peer does not have (FIPS 203 section 6.3).
    pub fn agree(&self, peer: &[u8]) -> Option<Secret> {
        match &self.secret {
            PrivateKey::X25519(secret) => {
                let peer = x25519_dalek::PublicKey::from(<[u8; 32]>::try_from(peer).ok()?);
                let shared = secret.diffie_hellman(&peer);
                shared
                    .was_contributory()
                    .then(|| Secret::new(shared.as_bytes()))
            }
            PrivateKey::P256(secret) => {
                if peer.len() != 64 {
                    return None;
                }
                let peer = p256::PublicKey::from_sec1_bytes(&[&[4], peer].concat()).ok()?;
                let shared =
                    p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), peer.as_affine());
                Some(Secret::new(shared.raw_secret_bytes()))
            }
            PrivateKey::P384(secret) => {
                if peer.len() != 96 {
                    return None;
                }
                let peer = p384::PublicKey::from_sec1_bytes(&[&[4], peer].concat()).ok()?;
                let shared =
                    p384::ecdh::diffie_hellman(secret.to_nonzero_scalar(), peer.as_affine());
                Some(Secret::new(shared.raw_secret_bytes()))
            }
            PrivateKey::MlKem768(secret) => {
                let ciphertext = ml_kem_768::Ciphertext::try_from(peer).ok()?;
                let mut shared = secret.decapsulate(&ciphertext);
                let kept = Secret::new(&shared);
                shared.as_mut_slice().zeroize();
                Some(kept)
            }
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?})", self.group())
    }
}

/// The responder's half of a key exchange, which of ML-KEM is another one than the initiator's: its
/// public value and the shared secret, from the initiator's public value. `None` if that is bad, see [`KeyPair::agree`]; of ML-KEM also if a
/// coefficient is out of range (FIPS 203 section 7.2).
pub fn respond(group: Group, peer: &[u8], rng: &mut dyn CryptoRng) -> Option<(Vec<u8>, Secret)> {
    if group == Group::MlKem768 {
        let key = ml_kem_768::EncapsulationKey::new(peer.try_into().ok()?).ok()?;
        let (ciphertext, mut shared) = key.encapsulate_with_rng(rng);
        let kept = Secret::new(&shared);
        shared.as_mut_slice().zeroize();
        return Some((ciphertext.to_vec(), kept));
    }
    let pair = KeyPair::generate(group, rng);
    let shared = pair.agree(peer)?;
    Some((pair.public, shared))
}
