//! Nonce payload (RFC 7296 section 3.9).

use super::Malformed;
use super::reader::Reader;

/// Bytes in a nonce of ours: half the key size of the strongest PRF, and at least 16.
pub const NONCE: usize = 32;

pub(super) fn parse(r: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    let nonce = r.rest();
    if !(16..=256).contains(&nonce.len()) {
        return Err(Malformed::Value {
            what: "nonce length",
            found: nonce.len() as u64,
            expected: "16 to 256",
        });
    }
    Ok(nonce.to_vec())
}
