use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::hooks::Side;
use super::super::peers::Peer;
use super::*;
use crate::esp::{Cipher, Key};
use crate::ike::Psk;
use crate::kms::{Action, RequestState, Settings};
use crate::policy::ClusterId;
use crate::sadb::{Nets, SaSpec};

const ONE: ClusterId = ClusterId(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn session(origin: Producer, spi: u32, key: u8) -> SessionSpec {
    let mut spec = SessionSpec::new(ip("192.0.2.9"), ip("192.0.2.1"), origin);
    let key = Key::new(&[key; 32]).unwrap();
    let salt = [0; 4].into();
    spec.inbound = Some(SaSpec::new(spi, Cipher::Aes256Gcm, key, salt));
    spec.local_inner = vec!["10.99.0.1/32".parse().unwrap()].into();
    spec.remote_inner = vec!["10.0.0.0/24".parse().unwrap()].into();
    spec
}

#[test]
fn what_is_refused_leaves_nothing_in_the_set() {
    type Make = fn(u32) -> Result<SessionSpec, BadSecret>;
    let good: Make = |spi| Ok(session(Producer::Ike, spi, 1));
    let no_key: Make = |_| Err(BadSecret::NotHex);
    let no_selectors: Make = |spi| {
        let mut spec = session(Producer::Ike, spi, 1);
        spec.remote_inner = Nets::new();
        Ok(spec)
    };
    let here = || Ok(GroupId::Cluster(ONE));
    let nowhere = || Err(Refusal::NotInPolicy);
    for (place, make, text) in [
        (
            nowhere(),
            good,
            "no cluster of the policy lists this gateway",
        ),
        (here(), no_key, "its keys are of no use"),
        (here(), no_selectors, "it can not be installed"),
    ] {
        let mut sadb = Sadb::new();
        let spi = sadb.allocate_spi(&mut StdRng::seed_from_u64(1));
        let refusal = install(&mut sadb, spi, place, || make(spi)).unwrap_err();
        assert!(refusal.to_string().starts_with(text), "{refusal}");
        assert!(sadb.is_empty(), "{text}");
        // The SPI is nobody's: whoever wants it by hand gets it.
        assert!(sadb.insert(session(Producer::Manual, spi, 2)).is_ok());
    }
    let mut sadb = Sadb::new();
    let spi = sadb.allocate_spi(&mut StdRng::seed_from_u64(1));
    let (group, changes) = install(&mut sadb, spi, here(), || good(spi)).unwrap();
    assert_eq!((group, changes.len()), (GroupId::Cluster(ONE), 1));
    assert!(sadb.by_inbound_spi(spi).is_some());
}

#[test]
fn a_gateway_speaks_only_for_its_own_address() {
    let peer = |name: &str, outside: Option<&str>| Peer {
        identity: name.parse().unwrap(),
        auth: Psk::new(vec![7; 16]).into(),
        outside: outside.map(ip),
        redirects: true,
        class: None,
        inner: Vec::new(),
    };
    let answers = Answers {
        peers: vec![
            peer("gw-a.example", Some("192.0.2.1")),
            peer("gw-b.example", Some("192.0.2.2")),
            peer("roaming.example", None),
        ]
        .into(),
        users: Vec::new(),
        groups: Vec::new(),
        sadb: Sadb::new(),
        rng: StdRng::seed_from_u64(1),
        side: Side::Client {
            inner: Vec::new(),
            ranges: Vec::new(),
        },
        elsewhere: None,
    };
    let another = Some("this is the address of gw-a.example");
    let nobody = Some("the configuration has no [[peer]] at this address");
    for (who, at, refused) in [
        ("gw-a.example", "192.0.2.1", None),
        ("GW-A.example", "192.0.2.1", None),
        ("gw-b.example", "192.0.2.2", None),
        ("gw-b.example", "192.0.2.1", another),
        ("roaming.example", "192.0.2.1", another),
        ("gw-a.example", "192.0.2.3", nobody),
    ] {
        let found = is_gateway(&answers, &who.parse().unwrap(), ip(at));
        let found = found.err().map(|refusal| refusal.to_string());
        assert_eq!(found.as_deref(), refused, "{who} at {at}");
    }
}

#[test]
fn whoever_waits_hears_of_a_refusal() {
    let now = Instant::now();
    let gateway = ip("192.0.2.1");
    let mut kms = KeyManagement::new(Settings::default(), StdRng::seed_from_u64(1));
    kms.set_clusters(vec![(ONE, vec![gateway])], now);
    kms.request(ONE, None, now);
    assert_eq!(kms.next_action(), Some(Action::Authenticate { gateway }));

    let purpose = Purpose::Gateway {
        gateway,
        ranges: Vec::new(),
        ticket: None,
    };
    assert!(give_up(&purpose, "refused", Some(&mut kms), now).is_none());
    let Some(Action::Rejected { tried, .. }) = kms.next_action() else {
        panic!("the request hangs: {:?}", kms.request_state(ONE))
    };
    assert_eq!(tried, [(gateway, "refused".to_owned())]);
    assert!(matches!(
        kms.request_state(ONE),
        Some(RequestState::BackOff(_))
    ));

    let purpose = Purpose::Client(GroupId::Peer(3));
    let none: Option<&mut KeyManagement<StdRng>> = None;
    assert!(matches!(
        give_up(&purpose, "refused", none, now),
        Some(Command::Rejected(GroupId::Peer(3), REFUSED))
    ));
}
