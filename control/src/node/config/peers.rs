//! The part of the check that is about others: the pool of inner addresses, and the peers.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;

use super::check::{Checker, Place, TOP};
use super::file::{self, Table, Text, problem};
use super::groups::is_pattern;
use super::secret::{GOOD_PSK, MIN_PSK, SecretText};
use super::{Auth, Group, Identity, Peer, Psk, Role};
use crate::ike::X509;

impl Checker<'_> {
    pub(super) fn pool(&mut self, table: Table<file::Pool>, role: Role) -> (Vec<IpNet>, Place) {
        let Some(table) = table else {
            return (Vec::new(), TOP);
        };
        let at = table.span();
        if role == Role::Client {
            self.error(
                &at,
                "[pool]: found on a client, expected only on a gateway, which hands \
                out inner addresses",
            );
            return (Vec::new(), at);
        }
        let table = table.into_inner();
        if table.networks.is_empty() {
            self.error(
                &at,
                "pool.networks: found none, expected networks such as \
                [\"10.99.0.0/24\"]",
            );
        }
        let mut pool: Vec<IpNet> = Vec::new();
        for text in table.networks {
            let Some(network) = self.pool_network(&text) else {
                continue;
            };
            let overlap = |n: &&IpNet| n.contains(&network) || network.contains(*n);
            match pool.iter().find(overlap) {
                Some(other) => {
                    let said = format!("pool.networks: found {network}, which overlaps {other}");
                    self.error(&text.span(), said);
                }
                None => pool.push(network),
            }
        }
        (pool, at)
    }

    fn pool_network(&mut self, text: &Spanned<String>) -> Option<IpNet> {
        let at = text.span();
        let what = "a network such as 10.99.0.0/24 or 2001:db8:99::/64";
        let network: IpNet = self.parsed(text, "pool.networks", what)?;
        let wrong = |said: String| format!("pool.networks: found {network}, {said}");
        // Room for the network's own address, the broadcast address and two clients; and a limit
        // that tells a typing mistake from a network.
        let (widest, narrowest) = match network {
            IpNet::V4(_) => (8, 30),
            IpNet::V6(_) => (32, 126),
        };
        let first = network.network();
        let special = first.is_multicast() || first.is_loopback() || first.is_unspecified();
        if network.trunc() != network {
            let meant = network.trunc();
            self.error(
                &at,
                wrong(format!(
                    "an address inside a network; did you mean {meant}?"
                )),
            );
        } else if special {
            self.error(
                &at,
                wrong("which clients can not have; expected private networks".into()),
            );
        } else if !(widest..=narrowest).contains(&network.prefix_len()) {
            let expected = format!("expected a prefix length of {widest} to {narrowest}");
            self.error(&at, wrong(expected));
        } else {
            return Some(network);
        }
        None
    }

    pub(super) fn not_pooled(&mut self, address: IpAddr, pool: &[IpNet], at: &Place, key: &str) {
        if let Some(network) = pool.iter().find(|network| network.contains(&address)) {
            let said = format!(
                "{key}: found {address}, which lies in the pool {network}; inner \
                and outside addresses must not mix"
            );
            self.error(at, said);
        }
    }

    pub(super) fn peers(
        &mut self,
        peers: Vec<Spanned<file::Peer>>,
        role: Role,
        x509: &X509,
        own: Option<&Identity>,
        own_address: Option<IpAddr>,
        pool: Option<&Vec<IpNet>>,
    ) -> (Vec<Peer>, Vec<Group>) {
        // A pool that is there but wrong was complained about already.
        let no_pool = pool.is_none();
        let pool = pool.map_or(&[][..], Vec::as_slice);
        if role == Role::Client && !peers.iter().any(|p| p.get_ref().outside.is_some()) {
            self.error(
                &TOP,
                "no [[peer]] with `outside`: expected one for each gateway of the \
                policy, with its identity, psk and outside address",
            );
        }
        let mut seen = Seen::default();
        let (mut checked, mut groups) = (Vec::new(), Vec::new());
        for peer in peers {
            let at = peer.span();
            let peer = peer.into_inner();
            if is_pattern(peer.identity.as_ref()) {
                let seen = &mut seen.identities;
                groups.extend(self.peer_group(peer, &at, role, x509, no_pool, seen));
                continue;
            }
            self.no_authorities(&peer.ca, "peer.ca");
            let expected = "the peer's IKE identity, such as \"client-1.example\"";
            let identity_at = peer.identity.as_ref().map_or(at.clone(), Spanned::span);
            let identity = self.required(peer.identity, &at, "peer.identity", expected);
            let identity = identity.and_then(|text| self.identity(&text, "peer.identity"));
            let who = identity
                .as_ref()
                .map_or("this peer".to_owned(), ToString::to_string);
            if identity.is_some() && identity.as_ref() == own {
                let said = format!("peer.identity: found {who}, which is this node's own");
                self.error(&identity_at, said);
            }
            if identity.is_some() {
                self.once(
                    &mut seen.identities,
                    who.to_lowercase(),
                    &identity_at,
                    "peer.identity",
                );
            }
            let auth = self.auth(peer.auth, peer.auth_own, x509, &who);
            let psk = match auth {
                None => None,
                Some((Auth::Cert, Auth::Cert)) => {
                    self.no_psk(peer.psk.as_ref(), peer.psk_file.as_ref(), &who);
                    Some(None)
                }
                Some(_) => self.psk(peer.psk, peer.psk_file, &at, &who).map(Some),
            };
            let outside = peer.outside.and_then(|text| {
                let at = text.span();
                let address = self.unicast(&text, "peer.outside")?;
                if Some(address) == own_address {
                    let said = format!("peer.outside: found {address}, which is this node's own");
                    self.error(&at, said);
                }
                self.not_pooled(address, pool, &at, "peer.outside");
                self.once(&mut seen.outsides, address, &at, "peer.outside");
                Some(address)
            });
            if role != Role::Client {
                let why = "only clients are sent elsewhere";
                self.unused(peer.redirects.as_ref(), "peer.redirects", role, why);
            }
            let redirects = peer.redirects.is_none_or(Spanned::into_inner);
            if role == Role::Client {
                let why = "the filter is a gateway's";
                self.unused(peer.class.as_ref(), "peer.class", role, why);
            }
            let class = peer.class.map(Spanned::into_inner);
            let inner = self.inner(peer.inner, role, pool, &mut seen);
            if role != Role::Client && no_pool && inner.is_empty() {
                self.error(
                    &at,
                    format!(
                        "{who} can get no inner address: expected a [pool] or \
                    `inner` of this peer"
                    ),
                );
            }
            if let (Some(identity), Some((auth, auth_own)), Some(psk)) = (identity, auth, psk) {
                checked.push(Peer {
                    identity,
                    auth,
                    auth_own,
                    psk,
                    outside,
                    redirects,
                    class,
                    inner,
                });
            }
        }
        (checked, groups)
    }

    /// How the peer proves itself, and how we do: in the same way unless said otherwise.
    pub(super) fn auth(
        &mut self,
        auth: Text,
        auth_own: Text,
        x509: &X509,
        who: &str,
    ) -> Option<(Auth, Auth)> {
        let at = auth.as_ref().map(Spanned::span);
        let own_at = auth_own.as_ref().map(Spanned::span).or(at.clone());
        let theirs = match auth {
            Some(text) => self.named(&text, "peer.auth")?,
            None => Auth::default(),
        };
        let ours = match auth_own {
            Some(text) => self.named(&text, "peer.auth_own")?,
            None => theirs,
        };
        if let (Auth::Cert, true, Some(at)) = (theirs, x509.trust.is_empty(), at) {
            let said = format!(
                "peer.auth: {who} is to show a certificate, but no CA is trusted; expected `ca` in \
                 [local]"
            );
            self.error(&at, said);
        }
        if let (Auth::Cert, None, Some(at)) = (ours, &x509.own, own_at) {
            let said = format!(
                "peer.auth_own: found no certificate to show to {who}; expected `cert` and `key` \
                 in [local]"
            );
            self.error(&at, said);
        }
        Some((theirs, ours))
    }

    fn no_psk(
        &mut self,
        psk: Option<&Spanned<SecretText>>,
        psk_file: Option<&Spanned<String>>,
        who: &str,
    ) {
        let at = psk.map(Spanned::span);
        if let Some(at) = at.or(psk_file.map(Spanned::span)) {
            let said = format!("the pre-shared key of {who} has no effect: auth is \"cert\"");
            self.warn(&at, said);
        }
    }

    pub(super) fn inner(
        &mut self,
        texts: Vec<Spanned<String>>,
        role: Role,
        pool: &[IpNet],
        seen: &mut Seen,
    ) -> Vec<IpAddr> {
        let mut inner = Vec::new();
        for text in texts {
            let at = text.span();
            if role == Role::Client {
                self.error(
                    &at,
                    "peer.inner: found on a client, expected only on a gateway; a \
                    gateway tells its clients their inner addresses",
                );
                continue;
            }
            let Some(address) = self.unicast(&text, "peer.inner") else {
                continue;
            };
            let edge = |n: &&IpNet| {
                let broadcast = matches!(n, IpNet::V4(n) if IpAddr::V4(n.broadcast()) == address);
                broadcast || n.network() == address
            };
            if let Some(network) = pool.iter().find(edge) {
                self.error(
                    &at,
                    format!(
                        "peer.inner: found {address}, the network or broadcast \
                    address of the pool {network}"
                    ),
                );
            }
            self.once(&mut seen.inners, address, &at, "peer.inner");
            inner.push(address);
        }
        inner
    }

    /// Complains if a value appeared before.
    pub(super) fn once<K: std::hash::Hash + Eq + Display>(
        &mut self,
        seen: &mut HashMap<K, Place>,
        value: K,
        at: &Place,
        key: &str,
    ) {
        if let Some(before) = seen.get(&value) {
            // Only now: to find the line of each of ten thousand peers takes minutes.
            let line = problem(self.source, before, String::new()).line;
            self.error(
                at,
                format!("{key}: found {value} again; line {line} has it already"),
            );
        } else {
            seen.insert(value, at.clone());
        }
    }

    fn psk(
        &mut self,
        inline: Option<Spanned<SecretText>>,
        file: Text,
        at: &Place,
        who: &str,
    ) -> Option<Psk> {
        let (key, place, read) = match (inline, file) {
            (Some(text), None) => (
                "psk",
                text.span(),
                Psk::from_text(text.get_ref().as_str()).map_err(String::from),
            ),
            (None, Some(path)) => (
                "psk_file",
                path.span(),
                Psk::from_file(&self.beside(path.get_ref())),
            ),
            (Some(_), Some(path)) => {
                self.error(
                    &path.span(),
                    format!(
                        "psk_file: {who} has a psk too; expected one of \
                    the two"
                    ),
                );
                return None;
            }
            (None, None) => {
                self.error(
                    at,
                    format!(
                        "the pre-shared key of {who} is missing: expected `psk` \
                    or `psk_file`"
                    ),
                );
                return None;
            }
        };
        let psk = match read {
            Ok(psk) => psk,
            Err(said) => {
                self.error(&place, format!("{key} of {who}: {said}"));
                return None;
            }
        };
        let bytes = psk.as_bytes().len();
        if bytes < MIN_PSK {
            self.error(
                &place,
                format!(
                    "{key} of {who}: found {bytes} bytes, expected at least \
                {MIN_PSK}, better {GOOD_PSK} or more random ones"
                ),
            );
            return None;
        }
        if bytes < GOOD_PSK {
            self.warn(
                &place,
                format!(
                    "{key} of {who} has only {bytes} bytes: who plays the \
                gateway can try passwords against an exchange; use {GOOD_PSK} random bytes or more"
                ),
            );
        }
        Some(psk)
    }
}

/// What may be there once, with the line where it was first.
#[derive(Default)]
pub(super) struct Seen {
    identities: HashMap<String, Place>,
    outsides: HashMap<IpAddr, Place>,
    inners: HashMap<IpAddr, Place>,
}
