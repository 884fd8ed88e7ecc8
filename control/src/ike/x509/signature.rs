//! Signatures in AUTH: which algorithms there are, how they are named on the wire (RFC 7427,
//! RFC 8420), and the check of one.

use der::asn1::UintRef;
use der::{Decode as _, Reader as _, SliceReader};
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::{AlgorithmIdentifier, alg_id};
use sha2::Digest as _;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;

use super::super::payload::Malformed;
use super::super::payload::auth::{Auth, DIGITAL_SIGNATURE, ECDSA_256, ECDSA_384};
use super::super::payload::reader::Reader;
use super::refused::Refused;

/// An RSA key must have so many bits.
const LEAST_RSA: usize = 2048;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A hash algorithm of RFC 7427 section 7. SHA-1 is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    Sha256 = 2,
    Sha384 = 3,
    Sha512 = 4,
    /// The signature algorithm hashes by itself (RFC 8420).
    Identity = 5,
}

/// A set of hash algorithms, as SIGNATURE_HASH_ALGORITHMS announces it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hashes(u8);

impl Hashes {
    /// All that we can verify.
    pub const ALL: Hashes = Hashes(0b11_1100);

    /// From the data of the notification; numbers that we do not know are left out.
    pub fn from_wire(data: &[u8]) -> Hashes {
        let numbers = data
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |n, b| n << 8 | u16::from(*b)));
        let known = numbers.filter(|n| (2..=5).contains(n));
        Hashes(known.fold(0, |set, n| set | 1 << n))
    }

    pub fn to_wire(self) -> Vec<u8> {
        let numbers = (2u16..=5).filter(|n| self.0 & 1 << n != 0);
        numbers.flat_map(u16::to_be_bytes).collect()
    }

    pub fn contains(self, hash: Hash) -> bool {
        self.0 & 1 << (hash as u8) != 0
    }

    /// Nothing was announced: the peer does not know RFC 7427.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What kind of key a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    EcdsaP256,
    EcdsaP384,
    Ed25519,
    Rsa,
}

/// How a signature is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Ecdsa(Hash),
    Ed25519,
    RsaPkcs1(Hash),
    RsaPss(Hash),
}

impl Scheme {
    pub const ALL: [Scheme; 10] = [
        Scheme::Ecdsa(Hash::Sha256),
        Scheme::Ecdsa(Hash::Sha384),
        Scheme::Ecdsa(Hash::Sha512),
        Scheme::Ed25519,
        Scheme::RsaPss(Hash::Sha256),
        Scheme::RsaPss(Hash::Sha384),
        Scheme::RsaPss(Hash::Sha512),
        Scheme::RsaPkcs1(Hash::Sha256),
        Scheme::RsaPkcs1(Hash::Sha384),
        Scheme::RsaPkcs1(Hash::Sha512),
    ];

    pub fn hash(self) -> Hash {
        match self {
            Scheme::Ecdsa(hash) | Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash) => hash,
            Scheme::Ed25519 => Hash::Identity,
        }
    }

    fn algorithm(self) -> Option<AlgorithmIdentifier> {
        Some(match self {
            Scheme::Ecdsa(Hash::Sha256) => alg_id::ECDSA_SHA256,
            Scheme::Ecdsa(Hash::Sha384) => alg_id::ECDSA_SHA384,
            Scheme::Ecdsa(Hash::Sha512) => alg_id::ECDSA_SHA512,
            Scheme::Ed25519 => alg_id::ED25519,
            Scheme::RsaPkcs1(Hash::Sha256) => alg_id::RSA_PKCS1_SHA256,
            Scheme::RsaPkcs1(Hash::Sha384) => alg_id::RSA_PKCS1_SHA384,
            Scheme::RsaPkcs1(Hash::Sha512) => alg_id::RSA_PKCS1_SHA512,
            Scheme::RsaPss(Hash::Sha256) => alg_id::RSA_PSS_SHA256,
            Scheme::RsaPss(Hash::Sha384) => alg_id::RSA_PSS_SHA384,
            Scheme::RsaPss(Hash::Sha512) => alg_id::RSA_PSS_SHA512,
            _ => return None,
        })
    }

    /// The AlgorithmIdentifier in DER (RFC 7427 appendix A).
    pub fn to_der(self) -> Vec<u8> {
        let body = self.algorithm();
        sequence(body.as_deref().unwrap_or_default())
    }

    /// The scheme that an AlgorithmIdentifier names. NULL parameters of a hash, or of PKCS #1, may
    /// be left out (RFC 4055 section 2.1 and RFC 7427 appendix A.1).
    pub fn from_der(der: &[u8]) -> Option<Scheme> {
        Scheme::ALL.into_iter().find(|scheme| {
            let full = scheme.to_der();
            full == der || without_nulls(&full).as_deref() == Some(der)
        })
    }

    /// How a key of that kind verifies it; ECDSA with SHA-512 is not `ring`'s.
    fn verification(self, kind: KeyKind) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match (kind, self) {
            (KeyKind::EcdsaP256, Scheme::Ecdsa(Hash::Sha256)) => &signature::ECDSA_P256_SHA256_ASN1,
            (KeyKind::EcdsaP256, Scheme::Ecdsa(Hash::Sha384)) => &signature::ECDSA_P256_SHA384_ASN1,
            (KeyKind::EcdsaP384, Scheme::Ecdsa(Hash::Sha256)) => &signature::ECDSA_P384_SHA256_ASN1,
            (KeyKind::EcdsaP384, Scheme::Ecdsa(Hash::Sha384)) => &signature::ECDSA_P384_SHA384_ASN1,
            (KeyKind::Ed25519, Scheme::Ed25519) => &signature::ED25519,
            (KeyKind::Rsa, Scheme::RsaPkcs1(hash)) => match hash {
                Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                Hash::Identity => return None,
            },
            (KeyKind::Rsa, Scheme::RsaPss(hash)) => match hash {
                Hash::Sha256 => &signature::RSA_PSS_2048_8192_SHA256,
                Hash::Sha384 => &signature::RSA_PSS_2048_8192_SHA384,
                Hash::Sha512 => &signature::RSA_PSS_2048_8192_SHA512,
                Hash::Identity => return None,
            },
            _ => return None,
        })
    }
}

/// A DER SEQUENCE with a body of fewer than 128 bytes.
fn sequence(body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
    [&[0x30, length], body].concat()
}

/// The same DER value without any NULL in it; `None` if it is not one that we write.
fn without_nulls(der: &[u8]) -> Option<Vec<u8>> {
    let (&[tag, length], body) = der.split_first_chunk::<2>()?;
    if usize::from(length) != body.len() {
        return None;
    }
    // Of what is in here only sequences and explicit context tags hold further values.
    if tag & 0x20 == 0 {
        return Some(der.to_vec());
    }
    let (mut kept, mut rest) = (Vec::new(), body);
    while let [_, length, ..] = rest {
        let (value, tail) = rest.split_at_checked(2 + usize::from(*length))?;
        rest = tail;
        if value != [5, 0] {
            kept.extend(without_nulls(value)?);
        }
    }
    let length = u8::try_from(kept.len()).ok()?;
    Some([&[tag, length][..], &kept].concat())
}

/// The data of an AUTH payload of method 14: its length, the AlgorithmIdentifier, the signature
/// (RFC 7427 section 3).
pub(crate) fn write_auth(scheme: Scheme, signature: &[u8]) -> Auth {
    let algorithm = scheme.to_der();
    let length = u8::try_from(algorithm.len()).unwrap_or_default();
    Auth {
        method: DIGITAL_SIGNATURE,
        data: [&[length][..], &algorithm, signature].concat(),
    }
}

fn read_auth(data: &[u8]) -> Result<(Option<Scheme>, &[u8]), Malformed> {
    let mut r = Reader::new(data);
    let length = r.u8("length of the signature's algorithm")?;
    let algorithm = r.take(length.into(), "the signature's algorithm")?;
    Ok((Scheme::from_der(algorithm), r.rest()))
}

/// The key of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub kind: KeyKind,
    bits: Vec<u8>,
}

impl PublicKey {
    /// The key of a certificate.
    ///
    /// # Errors
    /// It is of a kind that is not spoken, or too weak.
    pub fn of(certificate: &Certificate) -> Result<PublicKey, Refused> {
        let info = certificate.tbs_certificate().subject_public_key_info();
        let curve = || {
            let parameters = info.algorithm.parameters.as_ref();
            parameters.and_then(|p| p.decode_as::<ObjectIdentifier>().ok())
        };
        let kind = match info.algorithm.oid {
            RSA => KeyKind::Rsa,
            ED25519 => KeyKind::Ed25519,
            EC if curve() == Some(P256) => KeyKind::EcdsaP256,
            EC if curve() == Some(P384) => KeyKind::EcdsaP384,
            _ => return Err(Refused::KeyKind),
        };
        let bits = info.subject_public_key.raw_bytes().to_vec();
        if kind == KeyKind::Rsa {
            let found = rsa_bits(&bits).ok_or(Refused::KeyKind)?;
            if found < LEAST_RSA {
                return Err(Refused::WeakKey(found));
            }
        }
        Ok(PublicKey { kind, bits })
    }

    /// The bits of the key, as in its SubjectPublicKeyInfo.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// Whether an AUTH payload is this key's signature over `octets`.
    ///
    /// # Errors
    /// The method or the algorithm is not one for this key, or the signature is wrong.
    pub fn verify(&self, auth: &Auth, octets: &[u8]) -> Result<(), Refused> {
        let (algorithm, signature): (Option<&dyn VerificationAlgorithm>, &[u8]) =
            match (auth.method, self.kind) {
                (DIGITAL_SIGNATURE, kind) => {
                    let (scheme, signature) =
                        read_auth(&auth.data).map_err(|_| Refused::Algorithm)?;
                    if scheme == Some(Scheme::Ecdsa(Hash::Sha512)) {
                        return self.verify_ecdsa_sha512(octets, signature);
                    }
                    // A hash that we have not announced is in no scheme.
                    (scheme.and_then(|s| s.verification(kind)), signature)
                }
                // RFC 4754 section 7: r | s, each as long as the curve's order.
                (ECDSA_256, KeyKind::EcdsaP256) => {
                    (Some(&signature::ECDSA_P256_SHA256_FIXED), &auth.data)
                }
                (ECDSA_384, KeyKind::EcdsaP384) => {
                    (Some(&signature::ECDSA_P384_SHA384_FIXED), &auth.data)
                }
                // Method 1 is RSA with SHA-1.
                _ => (None, &[]),
            };
        let algorithm = algorithm.ok_or(Refused::Algorithm)?;
        UnparsedPublicKey::new(algorithm, &self.bits)
            .verify(octets, signature)
            .map_err(|_| Refused::Signature)
    }
}

impl PublicKey {
    /// Which hash goes with which curve RFC 7427 leaves open: libreswan takes the longest that we
    /// announce.
    fn verify_ecdsa_sha512(&self, octets: &[u8], signature: &[u8]) -> Result<(), Refused> {
        let hash = sha2::Sha512::digest(octets);
        let right = match self.kind {
            KeyKind::EcdsaP256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(&self.bits)
                .and_then(|key| {
                    let signature = p256::ecdsa::Signature::from_der(signature)?;
                    key.verify_prehash(&hash, &signature)
                })
                .is_ok(),
            KeyKind::EcdsaP384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(&self.bits)
                .and_then(|key| {
                    let signature = p384::ecdsa::Signature::from_der(signature)?;
                    key.verify_prehash(&hash, &signature)
                })
                .is_ok(),
            KeyKind::Ed25519 | KeyKind::Rsa => return Err(Refused::Algorithm),
        };
        if right {
            Ok(())
        } else {
            Err(Refused::Signature)
        }
    }
}

/// Bits of the modulus of an RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa_bits(key: &[u8]) -> Option<usize> {
    let mut r = SliceReader::new(key).ok()?;
    let modulus: Result<usize, der::Error> = r.sequence(|r| {
        let modulus = UintRef::decode(r)?;
        UintRef::decode(r)?;
        let bytes = modulus.as_bytes();
        let unused = bytes.first().map_or(0, |b| b.leading_zeros() as usize);
        Ok((8 * bytes.len()).saturating_sub(unused))
    });
    modulus.ok()
}
