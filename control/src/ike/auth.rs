//! What AUTH covers, and authentication by a shared key (RFC 7296 section 2.15).

use std::fmt;

use subtle::ConstantTimeEq;

use super::crypto::{Prf, Psk, Secret};
use super::payload::id::Id;

/// What one side's AUTH covers: its own first message, the other's nonce, its own identity under
/// its own SK_p.
#[derive(Clone)]
pub struct Signed<'a> {
    /// The IKE_SA_INIT message that this side sent, from the header on.
    pub message: &'a [u8],
    /// The other side's nonce.
    pub nonce: &'a [u8],
    /// This side's identity payload.
    pub id: &'a Id,
    /// This side's SK_pi or SK_pr.
    pub sk_p: &'a [u8],
    /// What was said in IKE_INTERMEDIATE (RFC 9242 section 3.3.2); empty without.
    pub int_auth: Vec<u8>,
}

impl Signed<'_> {
    /// The octets that AUTH covers, whatever method signs them.
    pub fn octets(&self, prf: Prf) -> Vec<u8> {
        let id = prf.compute(self.sk_p, &[&self.id.body()]);
        [self.message, self.nonce, &id, &self.int_auth].concat()
    }
}

impl fmt::Debug for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({})", self.id.identity)
    }
}

/// AUTH = prf(prf(shared secret, "Key Pad for IKEv2"), signed octets).
pub fn shared_key(prf: Prf, psk: &Psk, signed: Signed<'_>) -> Secret {
    let key = prf.compute(psk.as_bytes(), &[b"Key Pad for IKEv2"]);
    prf.compute(&key, &[&signed.octets(prf)])
}

/// Whether `auth` is the peer's; in constant time.
pub fn verify(prf: Prf, psk: &Psk, signed: Signed<'_>, auth: &[u8]) -> bool {
    shared_key(prf, psk, signed).ct_eq(auth).into()
}
