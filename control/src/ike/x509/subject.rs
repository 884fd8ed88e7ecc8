//! A certificate that is believed: whom it names.

use std::fmt;

use x509_cert::Certificate;

use super::super::identity::Identity;
use super::name;
use super::trust::AuthorityId;

/// The owner of a certificate that leads to a CA that is trusted.
pub struct Subject {
    certificate: Certificate,
    authority: AuthorityId,
}

impl Subject {
    pub(super) fn new(certificate: Certificate, authority: AuthorityId) -> Subject {
        Subject {
            certificate,
            authority,
        }
    }

    /// The CA that it leads to.
    pub fn authority(&self) -> AuthorityId {
        self.authority
    }

    /// Whether it names an identity, as in IKE: the common name counts for nothing.
    pub fn names(&self, identity: &Identity) -> bool {
        name::names(&self.certificate, identity)
    }

    /// Whether a user of that name has it: by one of its subject alternative names (RFC 5216 section
    /// 5.2), among them the user principal name of Windows, or if it has none, by its common name.
    pub fn is_user(&self, user: &str) -> bool {
        let users = self.users();
        users.iter().any(|known| known.eq_ignore_ascii_case(user))
    }

    /// The names that a user can have by it.
    pub fn users(&self) -> Vec<String> {
        name::users(&self.certificate)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({:?})", name::shown(&self.certificate))
    }
}
