//! What IKE asks the node: keys, SPIs, inner addresses, traffic selectors.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use rand::rngs::StdRng;

use super::config;
use super::drain::Elsewhere;
use super::peers::{Peer, Peers, pool_key};
use super::pool::Pool;
use crate::ike::x509::Subject;
use crate::ike::{
    Admission, Arrival, AssignRefused, Beside, EapUser, Hooks, Identity, Methods, Proof,
    TrafficSelector, TsRefused, narrow,
};
use crate::sadb::Sadb;

/// The answers of the node.
pub(super) struct Answers {
    pub(super) peers: Peers,
    /// Who may come by EAP.
    pub(super) users: Vec<config::User>,
    /// Peers and users that are not named one by one.
    pub(super) groups: Vec<config::Group>,
    pub(super) sadb: Sadb,
    pub(super) rng: StdRng,
    pub(super) side: Side,
    /// A gateway that drains takes nobody, and says where to go.
    pub(super) elsewhere: Option<Elsewhere>,
}

/// What depends on the role.
pub(super) enum Side {
    /// A client: its inner addresses, and the tunnel ranges behind each gateway.
    Client {
        inner: Vec<IpAddr>,
        ranges: Vec<(IpAddr, Vec<IpNet>)>,
    },
    /// A gateway: addresses for clients.
    Gateway { pool: Pool },
}

impl Answers {
    pub(super) fn peer(&self, identity: &Identity) -> Option<&Peer> {
        self.peers.named(identity)
    }

    /// The identity as the configuration spells it. A peer may spell its own in several ways, and
    /// is one peer all the same.
    pub(super) fn configured(&self, identity: Identity) -> Identity {
        match self.peer(&identity) {
            Some(peer) => peer.identity.clone(),
            None => identity,
        }
    }

    /// The fixed inner addresses of a peer or a user; `None` if it is neither.
    pub(super) fn inner_of(&self, identity: &Identity) -> Option<&[IpAddr]> {
        let user = || {
            let mut users = self.users.iter();
            let user = users.find(|user| user.identity.matches(identity));
            user.map(|user| &user.inner[..])
        };
        let group = || {
            let mut groups = self.groups.iter();
            groups
                .any(|group| group.names.fits(identity))
                .then_some(&[][..])
        };
        self.peer(identity)
            .map(|peer| &peer.inner[..])
            .or_else(user)
            .or_else(group)
    }

    /// How a peer and this node prove who they are to each other: as for the peer itself, or else
    /// as for the groups that it is in.
    pub(super) fn methods(&self, identity: &Identity) -> Option<Methods> {
        if let Some(peer) = self.peer(identity) {
            return Some(peer.auth.clone());
        }
        let groups = self.groups.iter().filter(|group| !group.eap);
        let groups: Vec<_> = groups.filter(|group| group.names.fits(identity)).collect();
        let remote = match groups.iter().any(|group| group.authorities.is_empty()) {
            true => Proof::Certificate,
            false => {
                let authorities = groups.iter().flat_map(|group| group.authorities.clone());
                Proof::CertificateOf(authorities.collect())
            }
        };
        let local = Proof::Certificate;
        (!groups.is_empty()).then_some(Methods { local, remote })
    }

    pub(super) fn peer_at(&self, outside: IpAddr) -> Option<&Peer> {
        self.peers.at(outside)
    }

    /// The tunnel ranges that lead through this gateway.
    pub(super) fn ranges_of(&self, gateway: IpAddr) -> Vec<IpNet> {
        match &self.side {
            Side::Client { ranges, .. } => ranges
                .iter()
                .filter(|(at, _)| *at == gateway)
                .flat_map(|(_, ranges)| ranges.iter().copied())
                .collect(),
            Side::Gateway { .. } => Vec::new(),
        }
    }
}

impl Hooks for Answers {
    fn admit(&mut self, arrival: Arrival<'_>) -> Admission {
        match &mut self.elsewhere {
            None => Admission::Take,
            Some(elsewhere) => match elsewhere.next(arrival.remote, arrival.redirected_from) {
                Some(gateway) => Admission::Redirect(gateway),
                None => Admission::Refuse,
            },
        }
    }

    fn auth(&mut self, _local: &Identity, remote: &Identity) -> Option<Methods> {
        self.methods(remote)
    }

    fn eap_user(&mut self, name: &str) -> Option<EapUser> {
        // Windows sends the domain too.
        let plain = name.rsplit('\\').next().unwrap_or_default();
        let known = |user: &&config::User| user.name == name || user.name == plain;
        self.users
            .iter()
            .find(known)
            .and_then(|user| user.password.clone())
    }

    fn eap_certificate(&mut self, subject: &Subject) -> Option<Identity> {
        let mut users = self.users.iter().filter(|user| user.password.is_none());
        if let Some(user) = users.find(|user| subject.is_user(&user.name)) {
            return Some(user.identity.clone());
        }
        let names = subject.users().into_iter();
        let mut names = names.filter_map(|name| name.parse::<Identity>().ok());
        names.find(|name| {
            let mut groups = self.groups.iter().filter(|group| group.eap);
            let of = |group: &config::Group| {
                group.authorities.is_empty() || group.authorities.contains(&subject.authority())
            };
            // Who is named by itself proves itself as it is said there.
            let named = self.peer(name).is_some()
                || self.users.iter().any(|user| user.identity.matches(name));
            !named && groups.any(|group| group.names.fits(name) && of(group))
        })
    }

    fn may_resume(&mut self, user: &Identity) -> bool {
        let mut users = self.users.iter();
        // One with a certificate shows it again: it may have been revoked.
        users.any(|known| known.password.is_some() && known.identity.matches(user))
    }

    fn unix_time(&mut self) -> u64 {
        // Before 1970 no certificate is valid.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |since| since.as_secs())
    }

    fn allocate_spi(&mut self, beside: Option<Beside>) -> u32 {
        match beside {
            Some(Beside { spi, lane }) => self.sadb.allocate_spi_beside(spi, lane, &mut self.rng),
            None => self.sadb.allocate_spi(&mut self.rng),
        }
    }

    fn assign(
        &mut self,
        peer: &Identity,
        requested: &[IpAddr],
        wants_v4: bool,
        wants_v6: bool,
    ) -> Result<Vec<IpAddr>, AssignRefused> {
        let client = pool_key(&self.configured(peer.clone()));
        let Side::Gateway { pool } = &mut self.side else {
            return Err(AssignRefused);
        };
        let sadb = &self.sadb;
        let in_use = |address: IpAddr| {
            let host = IpNet::from(address);
            sadb.iter().any(|spec| spec.remote_inner.contains(&host))
        };
        let assigned = pool.assign(&client, requested, (wants_v4, wants_v6), in_use);
        match assigned {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) => Err(AssignRefused),
            Err(error) => {
                tracing::warn!("{error}");
                Err(AssignRefused)
            }
        }
    }

    fn selectors(
        &mut self,
        peer: &Identity,
        assigned: &[IpAddr],
        proposed_local: &[TrafficSelector],
        proposed_remote: &[TrafficSelector],
    ) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>), TsRefused> {
        let fixed = self.inner_of(peer).ok_or(TsRefused)?;
        let (local, remote) = match &self.side {
            // A client may reach whatever the gateway's routes and the operator's filters let it,
            // from the addresses that are its own.
            Side::Gateway { .. } => {
                let own = if assigned.is_empty() { fixed } else { assigned };
                let own: Vec<_> = own.iter().copied().map(TrafficSelector::host).collect();
                (
                    vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()],
                    own,
                )
            }
            // A gateway reaches the client's inner addresses, from the tunnel ranges that lead
            // through it.
            Side::Client { inner, .. } => {
                let gateway = self.peer(peer).and_then(|known| known.outside);
                let gateway = gateway.ok_or(TsRefused)?;
                let ranges: Vec<_> = self.ranges_of(gateway).iter().map(selector).collect();
                (
                    inner
                        .iter()
                        .copied()
                        .map(TrafficSelector::host)
                        .collect::<Vec<_>>(),
                    ranges,
                )
            }
        };
        let (local, remote) = (
            narrow(proposed_local, &local),
            narrow(proposed_remote, &remote),
        );
        if local.is_empty() || remote.is_empty() {
            return Err(TsRefused);
        }
        Ok((local, remote))
    }
}

/// A prefix as a traffic selector.
pub(super) fn selector(prefix: &IpNet) -> TrafficSelector {
    TrafficSelector::range(prefix.network(), prefix.broadcast())
}

/// Traffic selectors as prefixes. Ports and protocols are not told apart here: what is negotiated
/// is always all of them, and a peer that insists on less gets a wider check than it needs.
pub(super) fn prefixes(selectors: &[TrafficSelector]) -> Vec<IpNet> {
    selectors
        .iter()
        .flat_map(|selector| crate::policy::prefixes::cover(selector.start, selector.end))
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::ike::Psk;
    use crate::ike::x509::AuthorityId;
    use crate::ike::x509::tests::{Authority, NOW, P256, params};

    fn peer(name: &str) -> Peer {
        Peer {
            identity: name.parse().unwrap(),
            auth: Psk::new(vec![7; 16]).into(),
            outside: None,
            redirects: true,
            class: None,
            inner: Vec::new(),
        }
    }

    fn answers(peers: Vec<Peer>, side: Side) -> Answers {
        Answers {
            peers: peers.into(),
            users: Vec::new(),
            groups: Vec::new(),
            sadb: Sadb::new(),
            rng: StdRng::seed_from_u64(1),
            side,
            elsewhere: None,
        }
    }

    #[test]
    fn a_client_is_the_same_in_every_spelling() {
        let pool = Pool::new(vec!["10.99.0.0/24".parse().unwrap()], []);
        let answers = answers(
            vec![peer("Client-1.example"), peer("192.0.2.7")],
            Side::Gateway { pool },
        );
        let configured = |name: &str| answers.configured(name.parse().unwrap()).to_string();
        for (wire, expected) in [
            ("client-1.EXAMPLE", "Client-1.example"),
            ("Client-1.example", "Client-1.example"),
            ("192.0.2.7", "192.0.2.7"),
            ("stranger.example", "stranger.example"),
        ] {
            assert_eq!(configured(wire), expected);
        }
    }

    fn group(names: &str, eap: bool, authorities: Vec<AuthorityId>) -> config::Group {
        config::Group {
            names: names.parse().unwrap(),
            authorities,
            eap,
        }
    }

    #[test]
    fn whoever_fits_a_pattern_is_a_peer_with_a_certificate() {
        let pool = Pool::new(vec!["10.99.0.0/24".parse().unwrap()], []);
        let mut answers = answers(vec![peer("boss@example.org")], Side::Gateway { pool });
        let root = Authority::new("root");
        let some = root.trust().ids();
        answers.groups = vec![
            group("*@example.org", false, Vec::new()),
            group("*.branch.example.org", false, some.clone()),
            group("*@users.example.org", true, Vec::new()),
        ];
        let mut auth = |name: &str| {
            let local = "gw.example".parse().unwrap();
            answers.auth(&local, &name.parse().unwrap())
        };
        let any = auth("anna@example.org").unwrap();
        assert!(matches!(
            (any.local, any.remote),
            (Proof::Certificate, Proof::Certificate)
        ));
        let of_some = auth("b7.branch.example.org").unwrap().remote;
        assert!(matches!(of_some, Proof::CertificateOf(ids) if ids == some));
        // Who is named proves itself as it is said there; users come by EAP.
        let named = auth("boss@example.org").unwrap();
        assert!(matches!(named.remote, Proof::Psk(_)));
        assert!(auth("anna@users.example.org").is_none());
        assert!(auth("anna@example.net").is_none());
        for known in ["anna@example.org", "anna@users.example.org"] {
            let none: Option<&[IpAddr]> = Some(&[]);
            assert_eq!(answers.inner_of(&known.parse().unwrap()), none);
        }
    }

    #[test]
    fn a_certificate_is_of_a_user_who_is_named_or_fits() {
        let pool = Pool::new(vec!["10.99.0.0/24".parse().unwrap()], []);
        let mut answers = answers(vec![peer("boss@example.org")], Side::Gateway { pool });
        let (root, other) = (Authority::new("root"), Authority::new("other"));
        let user = |name: &str, password: Option<&str>| {
            let identity = config::users::identity(name);
            config::User {
                name: name.to_owned(),
                password: password.map(|text| EapUser::new(identity.clone(), text)),
                identity,
                inner: Vec::new(),
            }
        };
        answers.users = vec![
            user("Berta", None),
            user("carla@example.org", Some("a password")),
        ];
        answers.groups = vec![
            group("*@example.org", true, root.trust().ids()),
            group("*@example.net", false, Vec::new()),
        ];
        let mut who = |root: &Authority, names: &[&str]| {
            let (der, _) = root.sign(&params(names), P256);
            let subject = root.trust().believe(&[&der], NOW).unwrap();
            let found = answers.eap_certificate(&subject);
            found.map(|identity| identity.to_string())
        };
        for (names, expected) in [
            (&["anna@example.org"][..], Some("anna@example.org")),
            (&["x.example", "anna@example.org"], Some("anna@example.org")),
            (&["berta"], Some("Berta")),
            (&["anna@example.net"], None),
            // They have a key, and a password.
            (&["boss@example.org"], None),
            (&["carla@example.org"], None),
        ] {
            assert_eq!(who(&root, names).as_deref(), expected, "{names:?}");
        }
        assert_eq!(who(&other, &["anna@example.org"]), None);
    }

    #[test]
    fn a_client_has_one_address_in_every_spelling() {
        let pool = |network: &str| Pool::new(vec![network.parse().unwrap()], []);
        let mut first = answers(
            vec![peer("Client-1.example")],
            Side::Gateway {
                pool: pool("10.99.0.0/24"),
            },
        );
        let mut second = answers(
            vec![peer("client-1.example")],
            Side::Gateway {
                pool: pool("10.99.0.0/24"),
            },
        );
        let given = |answers: &mut Answers, wire: &str| {
            let wire = wire.parse().unwrap();
            answers.assign(&wire, &[], true, false).unwrap()
        };
        let address = given(&mut first, "CLIENT-1.example");
        assert_eq!(given(&mut first, "client-1.EXAMPLE"), address);
        assert_eq!(given(&mut second, "Client-1.Example"), address);
    }
}
