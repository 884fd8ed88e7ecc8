//! The part of the check that is about peers and users that are not named one by one: whoever has a
//! certificate with a name like that.

use std::collections::HashMap;

use rustls_pki_types::CertificateDer;
use toml::Spanned;

use super::certificates::read;
use super::check::{Checker, Place};
use super::file;
use super::{Auth, Group, Role, UserAuth};
use crate::ike::x509::{AuthorityId, Trust};
use crate::ike::{Pattern, X509};

/// Whether a name stands for many.
pub(super) fn is_pattern(name: Option<&Spanned<String>>) -> bool {
    name.is_some_and(|name| name.get_ref().contains('*'))
}

const EXPECTED: &str = "`*@` and a domain, `*.` and a domain, or a distinguished name with `*` for \
                        some of its values";

impl Checker<'_> {
    /// A `[[peer]]` whose identity is a pattern.
    pub(super) fn peer_group(
        &mut self,
        peer: file::Peer,
        at: &Place,
        role: Role,
        x509: &X509,
        no_pool: bool,
        seen: &mut HashMap<String, Place>,
    ) -> Option<Group> {
        let identity = peer.identity?;
        let (key, who) = ("peer.identity", identity.get_ref().clone());
        if role == Role::Client {
            let said = format!(
                "{key}: found the pattern {who} on a client, expected the identity of one gateway"
            );
            self.error(&identity.span(), said);
            return None;
        }
        let auth: Option<Auth> = peer.auth.as_ref().and_then(|a| self.named(a, "peer.auth"));
        if auth != Some(Auth::Cert) {
            let place = peer.auth.as_ref().map_or(at.clone(), Spanned::span);
            let said = format!(
                "peer.auth: {who} are many, who can not share a key; expected auth = \"cert\""
            );
            self.error(&place, said);
            return None;
        }
        let psk = peer.psk.as_ref().map(Spanned::span);
        let of_one = [
            ("psk", psk),
            ("psk_file", peer.psk_file.as_ref().map(Spanned::span)),
            ("outside", peer.outside.as_ref().map(Spanned::span)),
            ("inner", peer.inner.first().map(Spanned::span)),
        ];
        for (key, place) in of_one {
            if let Some(place) = place {
                self.not_of_many(&place, &format!("peer.{key}"), &who);
            }
        }
        self.auth(peer.auth, peer.auth_own.clone(), x509, &who)?;
        if let Some(own) = peer.auth_own
            && let Some(Auth::Psk) = self.named(&own, "peer.auth_own")
        {
            let said = format!(
                "peer.auth_own: {who} are many, who can not share a key; expected \"cert\""
            );
            self.error(&own.span(), said);
        }
        self.pooled(at, no_pool, &who);
        let names = self.pattern(&identity, key)?;
        self.once(seen, who.to_lowercase(), &identity.span(), key);
        let authorities = self.authorities(&peer.ca, x509, "peer.ca")?;
        Some(Group {
            names,
            authorities,
            eap: false,
        })
    }

    /// An `[[eap_user]]` whose name is a pattern.
    pub(super) fn user_group(
        &mut self,
        user: file::EapUser,
        at: &Place,
        x509: &X509,
        no_pool: bool,
        seen: &mut HashMap<String, Place>,
    ) -> Option<Group> {
        let name = user.name?;
        let (key, who) = ("eap_user.name", name.get_ref().clone());
        let auth: UserAuth = self.named_or(user.auth, "eap_user.auth");
        if auth != UserAuth::Cert {
            let said = format!(
                "eap_user.auth: {who} are many, who can not share a password; expected auth = \
                 \"cert\""
            );
            self.error(at, said);
            return None;
        }
        let of_one = [
            ("password", user.password.as_ref().map(Spanned::span)),
            (
                "password_file",
                user.password_file.as_ref().map(Spanned::span),
            ),
            ("inner", user.inner.first().map(Spanned::span)),
        ];
        for (key, place) in of_one {
            if let Some(place) = place {
                self.not_of_many(&place, &format!("eap_user.{key}"), &who);
            }
        }
        self.pooled(at, no_pool, &who);
        let names = self.pattern(&name, key)?;
        if let Pattern::Dn(_) = names {
            let said = format!("{key}: found `{who}`, expected `*@` or `*.` and a domain");
            self.error(&name.span(), said);
            return None;
        }
        self.once(seen, who.to_lowercase(), &name.span(), key);
        let authorities = self.authorities(&user.ca, x509, "eap_user.ca")?;
        Some(Group {
            names,
            authorities,
            eap: true,
        })
    }

    /// `ca` where there is one name.
    pub(super) fn no_authorities(&mut self, files: &[Spanned<String>], key: &str) {
        if let Some(first) = files.first() {
            let said = format!(
                "{key}: found with a single name, expected only with a pattern such as \
                 \"*@example.org\""
            );
            self.error(&first.span(), said);
        }
    }

    fn not_of_many(&mut self, at: &Place, key: &str, who: &str) {
        self.error(
            at,
            format!("{key}: found for {who}, expected only for a single name"),
        );
    }

    fn pooled(&mut self, at: &Place, no_pool: bool, who: &str) {
        if no_pool {
            let said = format!("{who} can get no inner address: expected a [pool]");
            self.error(at, said);
        }
    }

    fn pattern(&mut self, text: &Spanned<String>, key: &str) -> Option<Pattern> {
        self.parsed(text, key, EXPECTED)
    }

    /// The CAs in these files, all of which must be trusted; none if there are no files.
    fn authorities(
        &mut self,
        files: &[Spanned<String>],
        x509: &X509,
        key: &str,
    ) -> Option<Vec<AuthorityId>> {
        let known = x509.trust.ids();
        let mut found = Vec::new();
        for file in files {
            let path = self.beside(file.get_ref());
            let ids = read::<CertificateDer<'_>>(&path, "CERTIFICATE").and_then(|ders| {
                let trust = Trust::new(&ders, &[]);
                trust.map_err(|bad| format!("{}: {bad}", path.display()))
            });
            match ids.map(|trust| trust.ids()) {
                Ok(ids) if ids.iter().all(|id| known.contains(id)) => found.extend(ids),
                Ok(_) => {
                    let shown = path.display();
                    let said = format!(
                        "{key}: {shown}: found a CA that is not trusted; expected one of `ca` in \
                         [local]"
                    );
                    self.error(&file.span(), said);
                    return None;
                }
                Err(said) => {
                    self.error(&file.span(), format!("{key}: {said}"));
                    return None;
                }
            }
        }
        Some(found)
    }
}
