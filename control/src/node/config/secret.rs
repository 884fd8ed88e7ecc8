//! Pre-shared keys: wiped when dropped, never shown.

use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
use zeroize::{Zeroize as _, Zeroizing};

pub(in super::super) use crate::files::read_private;

/// A shorter key is refused.
pub(super) const MIN_PSK: usize = 8;
/// A shorter key gets a warning: who plays the gateway can try passwords against an exchange.
pub(super) const GOOD_PSK: usize = 16;
/// A longer key file is not a key.
const MAX_FILE: u64 = 4096;

/// A pre-shared key.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk(Zeroizing<Vec<u8>>);

impl Psk {
    /// The key as it goes into the key derivation (RFC 7296 section 2.15).
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the text of a key: its bytes, or after `0x` hexadecimal digits (RFC 7296 section 2.15
    /// asks for both). The error never quotes the key.
    pub(super) fn from_text(text: &str) -> Result<Self, &'static str> {
        let Some(hex) = text.strip_prefix("0x") else {
            return Ok(Self(Zeroizing::new(text.as_bytes().to_vec())));
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(hex.len() / 2));
        for pair in hex.as_bytes().chunks(2) {
            let digit = |b: Option<&u8>| char::from(*b.unwrap_or(&b'?')).to_digit(16);
            let (Some(high), Some(low)) = (digit(pair.first()), digit(pair.get(1))) else {
                return Err(
                    "a key that starts with 0x must go on with an even number of \
                            hexadecimal digits",
                );
            };
            // Two hexadecimal digits are below 256.
            bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
        }
        Ok(Self(bytes))
    }

    /// Reads a key file.
    pub(crate) fn from_file(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let line = read_line(path, "; write other bytes as 0x and digits")?;
        Self::from_text(&line).map_err(|problem| format!("{shown}: {problem}"))
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Psk({} bytes, not shown)", self.0.len())
    }
}

/// Reads a file that holds one line of a secret. One line end at its end does not belong to it.
pub(super) fn read_line(path: &Path, otherwise: &str) -> Result<Zeroizing<String>, String> {
    let bytes = read_private(path, MAX_FILE)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| format!("{} is not text{otherwise}", path.display()))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Ok(Zeroizing::new(line.to_owned()))
}

/// The text of a key in the file. Unlike a `String`, it never appears in a type error.
pub(super) struct SecretText(Zeroizing<String>);

impl SecretText {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hidden;

        impl Visitor<'_> for Hidden {
            type Value = SecretText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key or password in quotes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretText, E> {
                Ok(SecretText(Zeroizing::new(text.to_owned())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<SecretText, E> {
                Ok(SecretText(Zeroizing::new(text)))
            }

            fn visit_i64<E: de::Error>(self, mut number: i64) -> Result<SecretText, E> {
                number.zeroize();
                Err(E::invalid_type(Unexpected::Other("a number"), &self))
            }

            fn visit_f64<E: de::Error>(self, mut number: f64) -> Result<SecretText, E> {
                number.zeroize();
                Err(E::invalid_type(Unexpected::Other("a number"), &self))
            }
        }

        deserializer.deserialize_string(Hidden)
    }
}
