use std::fmt;

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// A secret of `N` bytes: wiped when dropped, compared in constant time, never printed or
/// serialised. Deserialises from hexadecimal digits with or without `0x`.
#[derive(Clone)]
pub struct Secret<const N: usize>([u8; N]);

/// The salt of RFC 4106 section 4: the first four bytes of every nonce.
pub type Salt = Secret<4>;

/// A cipher's key of 16 or 32 bytes: wiped when dropped, compared in constant time, never printed or
/// serialised. Deserialises from hexadecimal digits with or without `0x`.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; Self::MAX],
    len: u8,
}

/// A secret that could not be read. The message never holds a digit of it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadSecret {
    /// Not an even number of hexadecimal digits.
    #[error("expected pairs of hexadecimal digits, found something else")]
    NotHex,
    /// Another length than needed.
    #[error("expected {expected} bytes in hexadecimal, found {found}")]
    Length {
        /// The lengths that would be right, in bytes.
        expected: &'static str,
        /// The length found, in bytes.
        found: usize,
    },
}

impl Key {
    const MAX: usize = 32;

    /// Takes a key of 16 or 32 bytes.
    ///
    /// # Errors
    /// Any other length.
    pub fn new(key: &[u8]) -> Result<Self, BadSecret> {
        let mut bytes = [0; Self::MAX];
        match (key.len(), bytes.get_mut(..key.len())) {
            (16 | 32, Some(room)) => room.copy_from_slice(key),
            (found, _) => {
                return Err(BadSecret::Length {
                    expected: "16 or 32",
                    found,
                });
            }
        }
        let len = key.len() as u8;
        Ok(Self { bytes, len })
    }

    /// Reads a key from hexadecimal digits, with or without `0x`.
    ///
    /// # Errors
    /// Something else than digits, or another length than 16 or 32 bytes.
    pub fn from_hex(text: &str) -> Result<Self, BadSecret> {
        Self::new(&decode(text)?)
    }

    /// The key itself. Keep the slice short-lived.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl<const N: usize> Secret<N> {
    /// Reads a secret from hexadecimal digits, with or without `0x`.
    ///
    /// # Errors
    /// Something else than digits, or another length than `N` bytes.
    pub fn from_hex(text: &str) -> Result<Self, BadSecret> {
        let bytes = decode(text)?;
        let expected = match N {
            4 => "4",
            16 => "16",
            _ => "another number of",
        };
        let array = bytes.as_slice().try_into();
        array.map(Self).map_err(|_| BadSecret::Length {
            expected,
            found: bytes.len(),
        })
    }

    /// The secret itself. Keep the reference short-lived.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> From<[u8; N]> for Secret<N> {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} secret bytes]", self.len)
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{N} secret bytes]")
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && same(&self.bytes, &other.bytes)
    }
}

impl Eq for Key {}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Self::from_hex(&text).map_err(de::Error::custom)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Secret<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Self::from_hex(&text).map_err(de::Error::custom)
    }
}

/// Compares without leaving early, so that the time tells nothing of the place of a difference.
fn same<const N: usize>(left: &[u8; N], right: &[u8; N]) -> bool {
    let difference = left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Decodes hexadecimal digits, with or without `0x`.
///
/// # Errors
/// [`BadSecret::NotHex`].
pub(crate) fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, BadSecret> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    let nibble = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    // Sized once: a vector that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    for pair in digits.chunks(2) {
        match *pair {
            [high, low] => match (nibble(high), nibble(low)) {
                (Some(high), Some(low)) => bytes.push(high << 4 | low),
                _ => return Err(BadSecret::NotHex),
            },
            _ => return Err(BadSecret::NotHex),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{BadSecret, Key, Salt};

    #[test]
    fn reads_hexadecimal_and_prints_nothing_of_it() {
        let key = Key::from_hex("0x000102030405060708090a0b0c0D0E0F").expect("16 bytes");
        assert_eq!(key.expose(), (0..16).collect::<Vec<u8>>());
        assert_eq!(format!("{key:?}"), "[16 secret bytes]");
        assert_eq!(
            Salt::from_hex("01020304").expect("4 bytes").expose(),
            &[1, 2, 3, 4]
        );
        assert_eq!(
            format!("{:?}", Salt::from([1, 2, 3, 4])),
            "[4 secret bytes]"
        );
    }

    #[test]
    fn refuses_what_is_no_key_without_repeating_it() {
        assert_eq!(Key::from_hex("0x123"), Err(BadSecret::NotHex));
        assert_eq!(Key::from_hex("zz"), Err(BadSecret::NotHex));
        assert_eq!(Key::from_hex("+1"), Err(BadSecret::NotHex));
        let short = Key::from_hex("abcdef").expect_err("3 bytes");
        assert_eq!(
            short.to_string(),
            "expected 16 or 32 bytes in hexadecimal, found 3"
        );
        let long = Salt::from_hex("0102030405").expect_err("5 bytes");
        assert_eq!(long.to_string(), "expected 4 bytes in hexadecimal, found 5");
    }

    #[test]
    fn keys_differ_by_each_byte_and_by_length() {
        let zero = Key::new(&[0; 16]).expect("16 bytes");
        assert_eq!(zero, zero.clone());
        assert_ne!(zero, Key::new(&[0; 32]).expect("32 bytes"));
        for at in 0..16 {
            let mut other = [0; 16];
            other[at] = 1;
            assert_ne!(zero, Key::new(&other).expect("16 bytes"));
        }
    }
}
