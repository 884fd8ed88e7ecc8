//! X.509 certificates (RFC 5280 with the rules of RFC 4945 for IKE): our own, which ones are
//! trusted, whom a certificate names, and signatures in AUTH (RFC 7427). No I/O and no clock: files
//! are read, and the time is told, by the owner.

mod key;
mod name;
mod own;
mod refused;
mod signature;
mod subject;
mod trust;

#[cfg(test)]
pub(crate) mod tests;

pub use key::{BadKey, KeyEncoding, PrivateKey};
pub(crate) use name::{dn_fits, dn_from_text, dn_key, dn_matches, dn_to_text};
pub use own::{BadChain, Own};
pub use refused::Refused;
pub use signature::{Hash, Hashes, KeyKind, PublicKey, Scheme};
pub use subject::Subject;
pub use trust::{AuthorityId, BadTrust, MOST_CERTIFICATES, Trust};
