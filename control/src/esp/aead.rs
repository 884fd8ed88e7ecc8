//! The AEAD seam: AES-GCM and ChaCha20-Poly1305 with a 16-byte tag, from one of several libraries.

use std::hint::black_box;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[cfg(feature = "ipsec-mb")]
use super::ipsec_mb::GcmKey;
use super::{Key, Refused};

/// Length of a nonce in bytes: salt (4) and IV (8), RFC 4106 section 4 and RFC 7634 section 2.
pub const NONCE_LEN: usize = 12;
/// Length of the integrity check value in bytes; RFC 4106 section 6 demands this one of everybody,
/// and RFC 7634 knows no other.
pub const TAG_LEN: usize = 16;

/// The ciphers of an SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cipher {
    /// AES-GCM with a key of 16 bytes and an ICV of 16 bytes.
    #[serde(rename = "aes-128-gcm")]
    Aes128Gcm,
    /// AES-GCM with a key of 32 bytes and an ICV of 16 bytes.
    #[default]
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 7634): a key of 32 bytes and an ICV of 16 bytes.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

/// The library that seals and opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// `ring`: assembly, the fastest one that needs nothing but Rust.
    #[cfg_attr(not(feature = "ipsec-mb"), default)]
    Ring,
    /// `aes-gcm` and `chacha20poly1305` of the RustCrypto project: pure Rust.
    RustCrypto,
    /// AWS-LC, by `aws-lc-rs`.
    #[cfg(feature = "aws-lc")]
    AwsLc,
    /// AES-GCM by Intel's multi-buffer library; ChaCha20-Poly1305 by `ring`.
    #[cfg(feature = "ipsec-mb")]
    #[cfg_attr(feature = "ipsec-mb", default)]
    IpsecMb,
}

impl Backend {
    /// Every backend of this build.
    pub const ALL: &'static [Self] = &[
        Self::Ring,
        Self::RustCrypto,
        #[cfg(feature = "aws-lc")]
        Self::AwsLc,
        #[cfg(feature = "ipsec-mb")]
        Self::IpsecMb,
    ];
}

/// A key that does not fit its cipher.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a key for {} has {} bytes, found {found}", .cipher.name(), .cipher.key_len())]
pub struct WrongKeyLength {
    /// The cipher that was asked for.
    pub cipher: Cipher,
    /// The length of the key found, in bytes.
    pub found: usize,
}

/// A key, expanded once, when it is first used: an SA that carries no traffic takes little memory.
pub struct Aead {
    expanded: Option<Expanded>,
    key: Key,
    cipher: Cipher,
    backend: Backend,
}

/// Boxed, so that moving an SA leaves no copies of expanded keys behind.
enum Expanded {
    Ring(Box<RingKey>),
    Soft128(Box<Aes128Gcm>),
    Soft256(Box<Aes256Gcm>),
    SoftChaCha(Box<ChaCha20Poly1305>),
    /// Wipes its keys itself.
    #[cfg(feature = "aws-lc")]
    AwsLc(Box<aws_lc_rs::aead::LessSafeKey>),
    #[cfg(feature = "ipsec-mb")]
    IpsecMb(Box<GcmKey>),
}

struct RingKey(LessSafeKey);

impl Drop for RingKey {
    /// `ring` does not wipe its keys: writes the expansion of a zero key over this one.
    fn drop(&mut self) {
        let algorithm = self.0.algorithm();
        let zero = [0; 32];
        if let Some(Ok(key)) = zero
            .get(..algorithm.key_len())
            .map(|zero| UnboundKey::new(algorithm, zero))
        {
            self.0 = LessSafeKey::new(key);
            black_box(&self.0);
        }
    }
}

impl Cipher {
    /// Every cipher, the default first.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// Length of the key in bytes, without the salt.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// The name in configuration, CLI and API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    fn ring(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    #[cfg(feature = "aws-lc")]
    fn aws_lc(self) -> &'static aws_lc_rs::aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aws_lc_rs::aead::AES_128_GCM,
            Self::Aes256Gcm => &aws_lc_rs::aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aws_lc_rs::aead::CHACHA20_POLY1305,
        }
    }
}

impl Aead {
    /// Takes `key` for `cipher`.
    ///
    /// # Errors
    /// A key of the wrong length.
    pub fn new(backend: Backend, cipher: Cipher, key: &Key) -> Result<Self, WrongKeyLength> {
        let found = key.expose().len();
        if found != cipher.key_len() {
            return Err(WrongKeyLength { cipher, found });
        }
        Ok(Self {
            expanded: None,
            key: key.clone(),
            cipher,
            backend,
        })
    }

    /// Forgets the expanded key; the next packet expands it again.
    pub fn sleep(&mut self) {
        self.expanded = None;
    }

    /// Whether the next packet has to expand the key, for which it allocates.
    #[must_use]
    pub fn sleeps(&self) -> bool {
        self.expanded.is_none()
    }

    /// The expanded key; `None` only if a library refuses a key of the right length.
    #[inline]
    fn awake(&mut self) -> Option<&Expanded> {
        if self.expanded.is_none() {
            self.wake();
        }
        self.expanded.as_ref()
    }

    #[cold]
    #[inline(never)]
    fn wake(&mut self) {
        self.expanded = Self::expand(self.backend, self.cipher, self.key.expose());
    }

    fn expand(backend: Backend, cipher: Cipher, key: &[u8]) -> Option<Expanded> {
        Some(match (backend, cipher) {
            #[cfg(feature = "aws-lc")]
            (Backend::AwsLc, _) => {
                let key = aws_lc_rs::aead::UnboundKey::new(cipher.aws_lc(), key);
                let key = aws_lc_rs::aead::LessSafeKey::new(key.ok()?);
                Expanded::AwsLc(Box::new(key))
            }
            #[cfg(feature = "ipsec-mb")]
            (Backend::IpsecMb, Cipher::Aes128Gcm | Cipher::Aes256Gcm) => {
                Expanded::IpsecMb(GcmKey::new(key)?)
            }
            #[cfg(feature = "ipsec-mb")]
            (Backend::IpsecMb, Cipher::ChaCha20Poly1305) => Self::ring(cipher, key)?,
            (Backend::Ring, _) => Self::ring(cipher, key)?,
            (Backend::RustCrypto, Cipher::Aes128Gcm) => {
                Expanded::Soft128(Box::new(Aes128Gcm::new_from_slice(key).ok()?))
            }
            (Backend::RustCrypto, Cipher::Aes256Gcm) => {
                Expanded::Soft256(Box::new(Aes256Gcm::new_from_slice(key).ok()?))
            }
            (Backend::RustCrypto, Cipher::ChaCha20Poly1305) => {
                let key = ChaCha20Poly1305::new_from_slice(key).ok()?;
                Expanded::SoftChaCha(Box::new(key))
            }
        })
    }

    fn ring(cipher: Cipher, key: &[u8]) -> Option<Expanded> {
        let key = UnboundKey::new(cipher.ring(), key).ok()?;
        Some(Expanded::Ring(Box::new(RingKey(LessSafeKey::new(key)))))
    }

    /// Encrypts `data` in place and returns the tag over it and `aad`. The caller answers for it
    /// that no nonce is used twice.
    ///
    /// # Errors
    /// [`Refused::TooBig`] past the length that the cipher allows (64 GiB or more).
    #[inline]
    pub fn seal_in_place(
        &mut self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Refused> {
        match self.awake().ok_or(Refused::TooBig)? {
            Expanded::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let tag = key
                    .0
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), data);
                tag.ok()
                    .and_then(|tag| tag.as_ref().try_into().ok())
                    .ok_or(Refused::TooBig)
            }
            Expanded::Soft128(key) => soft_seal(&**key, nonce, aad, data),
            Expanded::Soft256(key) => soft_seal(&**key, nonce, aad, data),
            Expanded::SoftChaCha(key) => soft_seal(&**key, nonce, aad, data),
            #[cfg(feature = "aws-lc")]
            Expanded::AwsLc(key) => {
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(*nonce);
                let aad = aws_lc_rs::aead::Aad::from(aad);
                let tag = key.seal_in_place_separate_tag(nonce, aad, data);
                tag.ok()
                    .and_then(|tag| tag.as_ref().try_into().ok())
                    .ok_or(Refused::TooBig)
            }
            #[cfg(feature = "ipsec-mb")]
            Expanded::IpsecMb(key) => key.seal(nonce, aad, data),
        }
    }

    /// Checks and decrypts in place what [`Aead::seal_in_place`] made, the tag behind the data.
    /// Returns the length of the data. After an error the buffer holds nothing of use.
    ///
    /// # Errors
    /// [`Refused::TooShort`] without room for a tag, [`Refused::BadIcv`] if nonce, aad, data and
    /// tag do not belong together.
    #[inline]
    pub fn open_in_place(
        &mut self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data_and_tag: &mut [u8],
    ) -> Result<usize, Refused> {
        let len = data_and_tag
            .len()
            .checked_sub(TAG_LEN)
            .ok_or(Refused::TooShort)?;
        match self.awake().ok_or(Refused::BadIcv)? {
            Expanded::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let opened = key.0.open_in_place(nonce, Aad::from(aad), data_and_tag);
                opened.map(|data| data.len()).map_err(|_| Refused::BadIcv)
            }
            Expanded::Soft128(key) => soft_open(&**key, nonce, aad, data_and_tag, len),
            Expanded::Soft256(key) => soft_open(&**key, nonce, aad, data_and_tag, len),
            Expanded::SoftChaCha(key) => soft_open(&**key, nonce, aad, data_and_tag, len),
            #[cfg(feature = "aws-lc")]
            Expanded::AwsLc(key) => {
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(*nonce);
                let aad = aws_lc_rs::aead::Aad::from(aad);
                let opened = key.open_in_place(nonce, aad, data_and_tag);
                opened.map(|data| data.len()).map_err(|_| Refused::BadIcv)
            }
            #[cfg(feature = "ipsec-mb")]
            Expanded::IpsecMb(key) => {
                let (data, tag) = split(data_and_tag, len)?;
                key.open(nonce, aad, data, tag).map(|()| len)
            }
        }
    }
}

fn soft_seal<A: SoftAead>(
    key: &A,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    data: &mut [u8],
) -> Result<[u8; TAG_LEN], Refused> {
    let tag = key.encrypt_inout_detached(nonce.into(), aad, data.into());
    tag.map(Into::into).map_err(|_| Refused::TooBig)
}

fn soft_open<A: SoftAead>(
    key: &A,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    data_and_tag: &mut [u8],
    len: usize,
) -> Result<usize, Refused> {
    let (data, tag) = split(data_and_tag, len)?;
    let opened = key.decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into());
    opened.map(|()| len).map_err(|_| Refused::BadIcv)
}

/// Parts data of `len` bytes from the tag behind it.
fn split(data_and_tag: &mut [u8], len: usize) -> Result<(&mut [u8], &[u8; TAG_LEN]), Refused> {
    let (data, tag) = data_and_tag
        .split_at_mut_checked(len)
        .ok_or(Refused::TooShort)?;
    let tag = (&*tag).try_into().map_err(|_| Refused::TooShort)?;
    Ok((data, tag))
}

/// A cipher of RustCrypto with the nonce and tag lengths of ESP.
trait SoftAead:
    AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>
{
}

impl SoftAead for Aes128Gcm {}
impl SoftAead for Aes256Gcm {}
impl SoftAead for ChaCha20Poly1305 {}

#[cfg(test)]
mod tests {
    use super::{Aead, Backend, Cipher};
    use crate::esp::Key;

    #[test]
    fn a_key_of_the_wrong_length_is_named() {
        let key = Key::new(&[7; 16]).expect("16 bytes");
        let wrong = Aead::new(Backend::Ring, Cipher::Aes256Gcm, &key)
            .err()
            .expect("too short");
        assert_eq!(
            wrong.to_string(),
            "a key for aes-256-gcm has 32 bytes, found 16"
        );
    }
}
