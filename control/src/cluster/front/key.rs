//! The key that fronts and encryption nodes have in common: its heartbeats prove that a node lives.

use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes in the file, as hexadecimal digits.
const LENGTH: usize = 32;
const LABEL: &[u8] = b"evergate front: heartbeats";

/// A heartbeat key.
#[derive(Clone)]
pub struct FrontKey(Zeroizing<[u8; 16]>);

impl FrontKey {
    /// Reads the file with the common key.
    ///
    /// # Errors
    /// It can not be read, is open to everybody, or holds something else.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = crate::files::read_private(path, 4096)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim_end();
        match crate::esp::decode_hex(text) {
            Ok(key) if key.len() == LENGTH => Ok(Self::derived(&key)),
            _ => Err(format!(
                "{}: expected 64 hexadecimal digits; `openssl rand -hex 32` makes some",
                path.display()
            )),
        }
    }

    /// The file's key has one use for each label, of which this is the first.
    fn derived(key: &[u8]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        mac.update(LABEL);
        let made = mac.finalize().into_bytes();
        let first = made.first_chunk::<16>().copied().unwrap_or_default();
        Self(Zeroizing::new(first))
    }

    /// The SipHash key.
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Debug for FrontKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrontKey(not shown)")
    }
}
