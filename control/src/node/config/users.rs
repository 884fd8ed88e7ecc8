//! The part of the check that is about users who authenticate by EAP.

use std::collections::HashMap;

use ipnet::IpNet;
use toml::Spanned;
use zeroize::Zeroizing;

use super::check::{Checker, Place};
use super::file::{self, Text};
use super::groups::is_pattern;
use super::peers::Seen;
use super::secret::{self, MIN_PSK, SecretText};
use super::{Group, Peer, Role, User, UserAuth};
use crate::ike::{EapUser, Identity, X509};

/// A longer name is refused by EAP too.
const MAX_NAME: usize = 253;

impl Checker<'_> {
    pub(super) fn users(
        &mut self,
        users: Vec<Spanned<file::EapUser>>,
        role: Role,
        x509: &X509,
        peers: &[Peer],
        pool: Option<&Vec<IpNet>>,
    ) -> (Vec<User>, Vec<Group>) {
        if let Some(first) = users.first() {
            if role == Role::Client {
                let said = "[[eap_user]]: found on a client, expected only on a gateway";
                self.error(&first.span(), said);
                return (Vec::new(), Vec::new());
            }
            if x509.own.is_none() {
                let said = "[[eap_user]]: a gateway proves itself to users by its certificate; \
                            expected `cert` and `key` in [local]";
                self.error(&first.span(), said);
            }
        }
        let mut names = HashMap::new();
        let mut seen = Seen::default();
        let (mut checked, mut groups) = (Vec::new(), Vec::new());
        for user in users {
            let at = user.span();
            let user = user.into_inner();
            if is_pattern(user.name.as_ref()) {
                self.trusted(&at, x509);
                groups.extend(self.user_group(user, &at, x509, pool.is_none(), &mut names));
                continue;
            }
            self.no_authorities(&user.ca, "eap_user.ca");
            let expected = "the user's name, such as \"anna\"";
            let name_at = user.name.as_ref().map_or(at.clone(), Spanned::span);
            let name = self.required(user.name, &at, "eap_user.name", expected);
            let name = name.and_then(|name| self.user_name(&name, peers));
            if let Some(name) = &name {
                self.once(&mut names, name.to_lowercase(), &name_at, "eap_user.name");
            }
            let who = name.clone().unwrap_or_else(|| "this user".to_owned());
            let auth: UserAuth = self.named_or(user.auth, "eap_user.auth");
            let password = match auth {
                UserAuth::Password => self.password(user.password, user.password_file, &at, &who),
                UserAuth::Cert => {
                    self.trusted(&at, x509);
                    let inline = user.password.as_ref().map(Spanned::span);
                    let file = user.password_file.as_ref().map(Spanned::span);
                    if let Some(place) = inline.or(file) {
                        let said = format!("the password of {who} has no effect: auth is \"cert\"");
                        self.warn(&place, said);
                    }
                    None
                }
            };
            let inner = self.inner(
                user.inner,
                role,
                pool.map_or(&[][..], Vec::as_slice),
                &mut seen,
            );
            let owned = |peer: &&Peer| peer.inner.iter().any(|a| inner.contains(a));
            if let Some(peer) = peers.iter().find(owned) {
                let other = &peer.identity;
                let said = format!("eap_user.inner: {who} has an address that is {other}'s");
                self.error(&at, said);
            }
            if pool.is_none() && inner.is_empty() {
                let said = format!(
                    "{who} can get no inner address: expected a [pool] or `inner` of this user"
                );
                self.error(&at, said);
            }
            if let Some(name) = name
                && (auth == UserAuth::Cert || password.is_some())
            {
                let identity = identity(&name);
                let password = password.map(|text| EapUser::new(identity.clone(), &text));
                checked.push(User {
                    name,
                    identity,
                    password,
                    inner,
                });
            }
        }
        (checked, groups)
    }

    /// Users with certificates need a CA.
    fn trusted(&mut self, at: &Place, x509: &X509) {
        if x509.trust.is_empty() {
            let said = "eap_user.auth: users are to show certificates, but no CA is trusted; \
                        expected `ca` in [local]";
            self.error(at, said);
        }
    }

    fn user_name(&mut self, name: &Spanned<String>, peers: &[Peer]) -> Option<String> {
        let (at, name) = (name.span(), name.get_ref());
        if !(1..=MAX_NAME).contains(&name.len()) || name.chars().any(char::is_control) {
            let said = format!(
                "eap_user.name: found {name:?}, expected 1 to {MAX_NAME} bytes without control \
                 characters"
            );
            self.error(&at, said);
            return None;
        }
        // Both would be the same to everything that knows identities.
        let same = |peer: &Peer| peer.identity.to_string().eq_ignore_ascii_case(name);
        if peers.iter().any(same) {
            let said = format!("eap_user.name: found {name}, which is a [[peer]] too");
            self.error(&at, said);
            return None;
        }
        Some(name.clone())
    }

    fn password(
        &mut self,
        inline: Option<Spanned<SecretText>>,
        file: Text,
        at: &Place,
        who: &str,
    ) -> Option<Zeroizing<String>> {
        let (place, key, read) = match (inline, file) {
            (Some(text), None) => {
                let password = Zeroizing::new(text.get_ref().as_str().to_owned());
                (text.span(), "password", Ok(password))
            }
            (None, Some(path)) => {
                let read = secret::read_line(&self.beside(path.get_ref()), "");
                (path.span(), "password_file", read)
            }
            (Some(_), Some(path)) => {
                let said =
                    format!("password_file: {who} has a password too; expected one of the two");
                self.error(&path.span(), said);
                return None;
            }
            (None, None) => {
                let said = format!(
                    "the password of {who} is missing: expected `password` or `password_file`"
                );
                self.error(at, said);
                return None;
            }
        };
        match read {
            Err(said) => {
                self.error(&place, format!("{key} of {who}: {said}"));
                None
            }
            Ok(password) if password.len() < MIN_PSK => {
                let bytes = password.len();
                let said =
                    format!("{key} of {who}: found {bytes} bytes, expected at least {MIN_PSK}");
                self.error(&place, said);
                None
            }
            Ok(password) => Some(password),
        }
    }
}

/// Whom a user's sessions are with.
pub(crate) fn identity(name: &str) -> Identity {
    match name.contains('@') {
        true => Identity::Email(name.to_owned()),
        false => Identity::Fqdn(name.to_owned()),
    }
}
