//! The peers of the configuration, as IKE knows them.

use std::collections::HashMap;
use std::net::IpAddr;

use super::config;
use crate::ike::{Identity, Methods, Proof, Psk};

/// A peer of the configuration, as IKE knows it.
pub(super) struct Peer {
    pub(super) identity: Identity,
    pub(super) auth: Methods,
    pub(super) outside: Option<IpAddr>,
    /// It may send us to another gateway.
    pub(super) redirects: bool,
    /// Of the packet filter.
    pub(super) class: Option<String>,
    pub(super) inner: Vec<IpAddr>,
}

impl Peer {
    pub(super) fn new(peer: &config::Peer) -> Self {
        Self {
            identity: identity(&peer.identity),
            auth: methods(peer),
            outside: peer.outside,
            redirects: peer.redirects,
            class: peer.class.clone(),
            inner: peer.inner.clone(),
        }
    }
}

fn methods(peer: &config::Peer) -> Methods {
    let proof = |auth| match (auth, &peer.psk) {
        (config::Auth::Psk, Some(psk)) => Proof::Psk(Psk::new(psk.as_bytes().to_vec())),
        // The check of the configuration leaves nobody without a key who needs one.
        (config::Auth::Psk, None) | (config::Auth::Cert, _) => Proof::Certificate,
    };
    Methods {
        local: proof(peer.auth_own),
        remote: proof(peer.auth),
    }
}

/// An identity of the configuration, as IKE spells it.
pub(super) fn identity(identity: &config::Identity) -> Identity {
    match identity {
        config::Identity::Address(address) => (*address).into(),
        config::Identity::Email(text) => Identity::Email(text.clone()),
        config::Identity::Fqdn(text) => Identity::Fqdn(text.clone()),
        // What is not a name any more when it is read again names nobody.
        config::Identity::Dn(text) => match text.parse() {
            Ok(name @ Identity::Dn(_)) => name,
            _ => Identity::Dn(Vec::new()),
        },
    }
}

/// A client's name in the pool. Addresses are computed from it, so gateways that spell a name in
/// upper and in lower case must agree.
pub(super) fn pool_key(identity: &Identity) -> String {
    match identity {
        Identity::Fqdn(name) => name.to_ascii_lowercase(),
        name @ Identity::Dn(_) => name.to_string().to_lowercase(),
        other => other.to_string(),
    }
}

/// All peers of the configuration, to be found by name and by place.
#[derive(Default)]
pub(super) struct Peers {
    list: Vec<Peer>,
    by_name: HashMap<Identity, usize>,
    by_outside: HashMap<IpAddr, usize>,
}

impl From<Vec<Peer>> for Peers {
    fn from(list: Vec<Peer>) -> Self {
        let (mut by_name, mut by_outside) = (HashMap::new(), HashMap::new());
        for (at, peer) in list.iter().enumerate() {
            by_name.entry(peer.identity.key()).or_insert(at);
            if let Some(outside) = peer.outside {
                by_outside.entry(outside).or_insert(at);
            }
        }
        Self {
            list,
            by_name,
            by_outside,
        }
    }
}

impl Peers {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.list.iter()
    }

    pub(super) fn named(&self, identity: &Identity) -> Option<&Peer> {
        let peer = self.list.get(*self.by_name.get(&identity.key())?)?;
        peer.identity.matches(identity).then_some(peer)
    }

    pub(super) fn at(&self, outside: IpAddr) -> Option<&Peer> {
        self.list.get(*self.by_outside.get(&outside)?)
    }
}
