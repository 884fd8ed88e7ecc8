//! The algorithms: pseudo-random functions, the AEAD of the Encrypted payload. With key exchange, in
//! `group.rs`, the one seam over the crates that compute them.

use std::fmt;
use std::ops::Deref;

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use hmac::{Hmac, Mac};
use sha1::Digest as _;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use super::group::{Group, KeyPair, respond};

/// Bytes of the explicit initialisation vector (RFC 5282 section 3.1, RFC 7634 section 2).
pub const IV: usize = 8;
/// Bytes of the authentication tag.
pub const TAG: usize = 16;
/// Bytes of the salt that makes IV a nonce (RFC 5282 section 4, RFC 7634 section 2).
pub const SALT: usize = 4;

/// Bytes that are wiped when dropped, compared in constant time, and never shown.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: &[u8]) -> Secret {
        Secret(Zeroizing::new(bytes.to_vec()))
    }
}

impl ZeroizeOnDrop for Secret {}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    // `Zeroizing` would show what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.len())
    }
}

/// A pseudo-random function (RFC 7296 section 2.13, RFC 4868).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prf {
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// More output than 255 blocks of the PRF, which prf+ can not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("prf+ asked for {asked} bytes: at most {most}")]
pub struct TooMuchKey {
    pub asked: usize,
    pub most: usize,
}

impl Prf {
    /// Bytes of output, and of the keys made for it.
    pub fn length(self) -> usize {
        match self {
            Prf::HmacSha256 => 32,
            Prf::HmacSha384 => 48,
            Prf::HmacSha512 => 64,
        }
    }

    /// prf(key, parts[0] | parts[1] | …).
    pub fn compute(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        match self {
            Prf::HmacSha256 => hmac_of::<Hmac<sha2::Sha256>>(key, parts),
            Prf::HmacSha384 => hmac_of::<Hmac<sha2::Sha384>>(key, parts),
            Prf::HmacSha512 => hmac_of::<Hmac<sha2::Sha512>>(key, parts),
        }
    }

    /// prf+(key, seed[0] | seed[1] | …), RFC 7296 section 2.13.
    ///
    /// # Errors
    /// `out` is longer than 255 blocks.
    pub fn plus(self, key: &[u8], seed: &[&[u8]], out: &mut [u8]) -> Result<(), TooMuchKey> {
        let most = 255 * self.length();
        if out.len() > most {
            return Err(TooMuchKey {
                asked: out.len(),
                most,
            });
        }
        let mut block = Secret::default();
        for (chunk, counter) in out.chunks_mut(self.length()).zip(1..=u8::MAX) {
            let counter = [counter];
            let mut parts: Vec<&[u8]> = Vec::with_capacity(seed.len() + 2);
            parts.push(&block);
            parts.extend_from_slice(seed);
            parts.push(&counter);
            let next = self.compute(key, &parts);
            chunk.copy_from_slice(&next[..chunk.len()]);
            block = next;
        }
        Ok(())
    }
}

fn hmac_of<M: Mac + hmac::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut mac =
        <M as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    let mut output = mac.finalize().into_bytes();
    let secret = Secret::new(&output);
    output.as_mut_slice().zeroize();
    secret
}

/// SHA-1, for the NAT detection hashes alone (RFC 7296 section 2.23), where nothing hangs on its
/// strength.
pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut hash = sha1::Sha1::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// SHA-256.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The cipher of the Encrypted payload. AEADs only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IkeCipher {
    Aes128Gcm16,
    Aes256Gcm16,
    ChaCha20Poly1305,
}

impl IkeCipher {
    /// Bytes of key without salt.
    pub fn key_length(self) -> usize {
        match self {
            IkeCipher::Aes128Gcm16 => 16,
            IkeCipher::Aes256Gcm16 | IkeCipher::ChaCha20Poly1305 => 32,
        }
    }
}

/// Key and salt of one direction. The key schedule is expanded for each message: they are few, and
/// a session stays small.
pub struct AeadKey {
    cipher: IkeCipher,
    key: Secret,
    salt: Zeroizing<[u8; SALT]>,
}

impl AeadKey {
    /// From key | salt; `None` if the length is wrong.
    pub fn new(cipher: IkeCipher, material: &[u8]) -> Option<AeadKey> {
        let (key, salt) = material.split_at_checked(cipher.key_length())?;
        let salt = Zeroizing::new(salt.try_into().ok()?);
        Some(AeadKey {
            cipher,
            key: Secret::new(key),
            salt,
        })
    }

    pub(super) fn cipher(&self) -> IkeCipher {
        self.cipher
    }

    /// Key, then salt.
    pub(super) fn material(&self) -> Secret {
        Secret::new(&Zeroizing::new([&self.key[..], &self.salt[..]].concat()))
    }

    fn nonce(&self, iv: [u8; IV]) -> [u8; SALT + IV] {
        let mut nonce = [0; SALT + IV];
        nonce[..SALT].copy_from_slice(&*self.salt);
        nonce[SALT..].copy_from_slice(&iv);
        nonce
    }

    /// Encrypts `text` in place; yields the tag. `iv` must never repeat.
    pub fn seal(&self, iv: [u8; IV], aad: &[u8], text: &mut [u8]) -> [u8; TAG] {
        let nonce = self.nonce(iv);
        match self.cipher {
            IkeCipher::Aes128Gcm16 => seal_with::<Aes128Gcm>(&self.key, &nonce, aad, text),
            IkeCipher::Aes256Gcm16 => seal_with::<Aes256Gcm>(&self.key, &nonce, aad, text),
            IkeCipher::ChaCha20Poly1305 => {
                seal_with::<ChaCha20Poly1305>(&self.key, &nonce, aad, text)
            }
        }
    }

    /// Decrypts `text` in place; false, and garbage in `text`, if the tag does not match.
    pub fn open(&self, iv: [u8; IV], aad: &[u8], text: &mut [u8], tag: &[u8; TAG]) -> bool {
        let nonce = self.nonce(iv);
        match self.cipher {
            IkeCipher::Aes128Gcm16 => open_with::<Aes128Gcm>(&self.key, &nonce, aad, text, tag),
            IkeCipher::Aes256Gcm16 => open_with::<Aes256Gcm>(&self.key, &nonce, aad, text, tag),
            IkeCipher::ChaCha20Poly1305 => {
                open_with::<ChaCha20Poly1305>(&self.key, &nonce, aad, text, tag)
            }
        }
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AeadKey({:?})", self.cipher)
    }
}

fn seal_with<A: AeadInOut + aes_gcm::KeyInit>(
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    text: &mut [u8],
) -> [u8; TAG] {
    let aead = A::new_from_slice(key).expect("the key has the cipher's length");
    let nonce = nonce.try_into().expect("a nonce has 12 bytes");
    let tag = aead
        .encrypt_inout_detached(nonce, aad, InOutBuf::from(text))
        .expect("a message is shorter than 2^36 bytes");
    tag.as_slice().try_into().expect("a tag has 16 bytes")
}

fn open_with<A: AeadInOut + aes_gcm::KeyInit>(
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    text: &mut [u8],
    tag: &[u8; TAG],
) -> bool {
    let aead = A::new_from_slice(key).expect("the key has the cipher's length");
    let nonce = nonce.try_into().expect("a nonce has 12 bytes");
    let tag = tag[..].try_into().expect("a tag has 16 bytes");
    aead.decrypt_inout_detached(nonce, aad, InOutBuf::from(text), tag)
        .is_ok()
}

/// A pre-shared key: wiped when dropped, compared in constant time, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk(Secret);

impl Psk {
    pub fn new(mut key: impl AsRef<[u8]> + Zeroize) -> Psk {
        let psk = Psk(Secret::new(key.as_ref()));
        key.zeroize();
        psk
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(…)")
    }
}
