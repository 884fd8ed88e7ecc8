//! The packet filter: what users may have past the tunnel, by class; in the kernel and on the host alike.

mod xdp_support;

use std::net::IpAddr;

use evergate::dataplane::loader::{Outside, OutsideSettings};
use evergate::dataplane::{ClassHits, ClassSpec, Filter};
use evergate::sadb::SessionId;
use evergate_common::{
    filter::{ClassEntry, DEFAULT, OWN, Rule},
    reason::Counter,
    wire::*,
};
use xdp_support::{host::OutsidePair, *};

const TUNNEL: u32 = 1;
const SPLIT: u32 = 2;
const PLAIN: u32 = 3;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node with a filter, and a user of each class, in both families.
fn edge() -> OutsidePair {
    let mut pair = OutsidePair::with(OutsideSettings {
        reflect_plain: true,
        filter: true,
        max_sas: 1024,
        ..OutsideSettings::default()
    });
    pair.own_addresses(&[GATEWAY_V4.into(), GATEWAY_V6.into()]);
    pair.class(TUNNEL, ClassEntry::new(Rule::Tunnel, TUNNEL), &[]);
    let nets = ["203.0.113.0/24", "2001:db8:5::/48"];
    pair.class(SPLIT, ClassEntry::new(Rule::Split, SPLIT), &nets);
    pair.class(
        PLAIN,
        ClassEntry::new(Rule::Plain, PLAIN),
        &["203.0.113.7/32"],
    );
    for class in [TUNNEL, SPLIT, PLAIN] {
        for user in users(class) {
            pair.user(user, Some(class));
        }
    }
    pair
}

fn users(class: u32) -> [IpAddr; 2] {
    [
        ip(&format!("198.51.100.{class}")),
        ip(&format!("2001:db8:7::{class}")),
    ]
}

/// A UDP packet from one address to another, with and without a tag.
fn past(source: IpAddr, destination: IpAddr) -> [Vec<u8>; 2] {
    [None, Some(7)].map(|vlan| {
        let mut frame = Frame::v4(IPPROTO_UDP, *b"past the tunnel");
        (frame.source, frame.destination) = (source, destination);
        frame.udp = Some((5000, 53, true));
        frame.vlan = vlan;
        frame.bytes()
    })
}

const LISTED: [&str; 2] = ["203.0.113.7", "2001:db8:5::7"];
const ELSEWHERE: [&str; 2] = ["192.88.99.1", "2001:db8:6::7"];

#[test]
fn who_must_use_the_tunnel_gets_nothing_past_it() {
    let mut pair = edge();
    for index in 0..2 {
        for target in [LISTED[index], ELSEWHERE[index]] {
            for frame in past(users(TUNNEL)[index], ip(target)) {
                assert_eq!(pair.judge(&frame), (DROP, Counter::FilterTunnel));
            }
        }
    }
    assert_eq!(pair.hits(TUNNEL), [0, 8, 0]);
    assert_eq!(pair.hits(SPLIT), [0; 3]);
}

#[test]
fn some_networks_are_had_directly() {
    let mut pair = edge();
    for index in 0..2 {
        let user = users(SPLIT)[index];
        for frame in past(user, ip(LISTED[index])) {
            assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
        }
        for frame in past(user, ip(ELSEWHERE[index])) {
            assert_eq!(pair.judge(&frame), (DROP, Counter::FilterUnlisted));
        }
    }
    assert_eq!(pair.hits(SPLIT), [4, 4, 0]);
    // The networks of one class are not those of another, nor an IPv6 network all of IPv4.
    let [user, _] = users(PLAIN);
    for frame in past(user, ip("203.0.113.8")) {
        assert_eq!(pair.judge(&frame), (DROP, Counter::FilterUnlisted));
    }
    pair.class(SPLIT, ClassEntry::new(Rule::Split, SPLIT), &["::/0"]);
    let [v4, v6] = users(SPLIT);
    for frame in past(v6, ip(ELSEWHERE[1])) {
        assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
    }
    for frame in past(v4, ip(ELSEWHERE[0])) {
        assert_eq!(pair.judge(&frame), (DROP, Counter::FilterUnlisted));
    }
    pair.no_direct(SPLIT, "203.0.113.0/24");
    for frame in past(v4, ip(LISTED[0])) {
        assert_eq!(pair.judge(&frame), (DROP, Counter::FilterUnlisted));
    }
    pair.class(SPLIT, ClassEntry::new(Rule::Split, SPLIT), &["0.0.0.0/0"]);
    for frame in past(v4, ip(ELSEWHERE[0])) {
        assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
    }
}

/// IKE and ESP of the kinds that there are, from a user to the node.
fn service(user: IpAddr) -> Vec<Vec<u8>> {
    let gateway: IpAddr = match user {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    };
    let mut frames = Vec::new();
    for payload in [esp(SPI, 1), esp(SPI + 1, 1), plain(1, b"payload"), keyed(1)] {
        let frame = Frame::v4(IPPROTO_ESP, payload);
        frames.extend([frame.clone(), frame.in_udp(true)]);
    }
    for (port, payload) in [
        (PORT_IKE, vec![1; 40]),
        (PORT_NAT_T, vec![0; 40]),
        (PORT_NAT_T, vec![0xFF]),
    ] {
        let mut frame = Frame::v4(IPPROTO_UDP, payload);
        frame.udp = Some((40_000, port, true));
        frames.push(frame);
    }
    let address = |mut frame: Frame| {
        (frame.source, frame.destination) = (user, gateway);
        frame.bytes()
    };
    frames.into_iter().map(address).collect()
}

#[test]
fn without_the_service_there_is_no_ike_and_no_esp() {
    let mut pair = edge();
    for user in users(PLAIN) {
        for frame in service(user) {
            assert_eq!(pair.judge(&frame), (DROP, Counter::FilterService));
        }
    }
    let [_, _, service_hits] = pair.hits(PLAIN);
    assert_eq!(service_hits, 22);
    // Others have it: nothing of theirs is the filter's.
    for user in [users(TUNNEL), users(SPLIT)].concat() {
        for frame in service(user) {
            let (_, counter) = pair.judge(&frame);
            assert_ne!(counter, Counter::FilterService);
        }
    }
    assert_eq!((pair.hits(TUNNEL), pair.hits(SPLIT)), ([0; 3], [0; 3]));
}

#[test]
fn what_stays_here_is_not_filtered() {
    let mut pair = edge();
    pair.user(ip("10.9.9.9"), Some(OWN));
    let [user, user_v6] = users(TUNNEL);
    let here = [
        "192.0.2.1",
        "10.9.9.9",
        "255.255.255.255",
        "224.0.0.1",
        "169.254.1.1",
    ];
    let here_v6 = ["2001:db8:1::1", "ff02::1:2", "fe80::1"];
    for (user, targets) in [(user, &here[..]), (user_v6, &here_v6)] {
        for target in targets {
            for frame in past(user, ip(target)) {
                assert_eq!(pair.judge(&frame), (PASS, Counter::Passed), "{target}");
            }
        }
    }
    let frame = arp(1, CLIENT_V4, GATEWAY_V4);
    assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
    assert_eq!(pair.hits(TUNNEL), [0; 3]);
}

#[test]
fn whoever_has_no_class_has_the_default_one() {
    let mut pair = edge();
    let stranger = ip("198.51.100.200");
    let [frame, _] = past(stranger, ip(LISTED[0]));
    assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
    // The default is one of the classes: its networks, its counters.
    pair.class(DEFAULT, ClassEntry::new(Rule::Split, SPLIT), &[]);
    assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
    assert_eq!(pair.hits(SPLIT), [1, 0, 0]);
    let [other, _] = past(stranger, ip(ELSEWHERE[0]));
    assert_eq!(pair.judge(&other), (DROP, Counter::FilterUnlisted));
    assert_eq!(pair.hits(SPLIT), [1, 1, 0]);
    // A user of another class is not touched, and one without a class any more is.
    let [user, _] = users(TUNNEL);
    let [frame, _] = past(user, ip(LISTED[0]));
    assert_eq!(pair.judge(&frame), (DROP, Counter::FilterTunnel));
    pair.user(user, None);
    assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
}

#[test]
fn what_the_parser_does_not_understand_does_not_get_by() {
    let mut pair = edge();
    let [user, user_v6] = users(TUNNEL);
    let mut later = Frame::v4(IPPROTO_UDP, vec![0; 64]);
    (later.source, later.destination, later.fragment) = (user, ip(LISTED[0]), 0x2010);
    let mut options = Frame::v4(6, vec![0; 40]);
    (options.source, options.destination) = (user, ip(LISTED[0]));
    options.options = vec![1; 8];
    let mut many = Frame::v6(6, vec![0; 40]);
    (many.source, many.destination) = (user_v6, ip(LISTED[1]));
    many.extensions = vec![(IPV6_DESTINATION_OPTIONS, vec![0; 8]); 9];
    for frame in [later, options, many] {
        assert_eq!(pair.judge(&frame.bytes()), (DROP, Counter::FilterTunnel));
    }
    // Headers that are cut short, which the kernel forwards over IPv6 all the same.
    let mut cut = Frame::v6(IPPROTO_UDP, [1; 4]);
    (cut.source, cut.destination) = (user_v6, ip(LISTED[1]));
    assert_eq!(pair.judge(&cut.bytes()), (DROP, Counter::FilterTunnel));
}

#[test]
fn without_a_filter_nothing_is_filtered() {
    let mut pair = OutsidePair::new(true, true, true);
    pair.own_addresses(&[GATEWAY_V4.into(), GATEWAY_V6.into()]);
    let [user, _] = users(TUNNEL);
    pair.class(TUNNEL, ClassEntry::new(Rule::Tunnel, TUNNEL), &[]);
    pair.user(user, Some(TUNNEL));
    for frame in past(user, ip(LISTED[0])) {
        assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
    }
}

/// A program with a filter, and what says its classes by name.
fn named() -> (Outside, Filter) {
    need_root();
    let outside = Outside::load(OutsideSettings {
        filter: true,
        max_sas: 1024,
        ..OutsideSettings::default()
    });
    let mut outside = outside.expect("outside loads");
    let own = [GATEWAY_V4.into()];
    outside.set_own_addresses(&own).expect("own addresses");
    (outside, Filter::default())
}

fn spec(rule: Rule, direct: &[&str]) -> ClassSpec {
    let direct = direct.iter().map(|net| net.parse().unwrap()).collect();
    ClassSpec { rule, direct }
}

#[test]
fn classes_have_names_and_users_come_and_go() {
    let (mut outside, mut filter) = named();
    let [user, _] = users(SPLIT);
    let [listed, elsewhere] =
        ["203.0.113.7", "192.88.99.1"].map(|target| past(user, ip(target))[0].clone());
    let judge = |outside: &mut Outside| {
        [&listed, &elsewhere].map(|frame| outside.run(frame, 1).expect("outside runs").verdict)
    };
    let nets = ["203.0.113.0/24"];
    // A user of a class that there is not.
    assert!(!filter.set_user(&mut outside, user, "staff").unwrap());
    assert_eq!(judge(&mut outside), [PASS, PASS]);
    filter
        .set_class(&mut outside, "staff", &spec(Rule::Split, &nets))
        .unwrap();
    filter
        .set_class(&mut outside, "guests", &spec(Rule::Tunnel, &[]))
        .unwrap();
    assert_eq!(judge(&mut outside), [PASS, DROP]);
    assert!(filter.set_user(&mut outside, user, "staff").unwrap());
    assert_eq!(judge(&mut outside), [PASS, DROP]);
    // Another class, and back.
    assert!(filter.set_user(&mut outside, user, "guests").unwrap());
    assert_eq!(judge(&mut outside), [DROP, DROP]);
    assert!(filter.set_user(&mut outside, user, "staff").unwrap());
    // Other networks.
    filter
        .set_class(
            &mut outside,
            "staff",
            &spec(Rule::Split, &["192.88.99.0/24"]),
        )
        .unwrap();
    assert_eq!(judge(&mut outside), [DROP, PASS]);
    filter
        .set_class(&mut outside, "staff", &spec(Rule::Split, &nets))
        .unwrap();
    assert_eq!(judge(&mut outside), [PASS, DROP]);
    // Whoever is no user has the default, which follows its class.
    filter.set_default(&mut outside, Some("guests")).unwrap();
    assert_eq!(judge(&mut outside), [PASS, DROP]);
    filter.remove_user(&mut outside, user).unwrap();
    assert_eq!(judge(&mut outside), [DROP, DROP]);
    filter
        .set_class(&mut outside, "guests", &spec(Rule::Split, &["0.0.0.0/0"]))
        .unwrap();
    assert_eq!(judge(&mut outside), [PASS, PASS]);
    // A class goes, and its users and networks with it; the next one has its number.
    assert!(filter.set_user(&mut outside, user, "staff").unwrap());
    assert_eq!(judge(&mut outside), [PASS, DROP]);
    filter.remove_class(&mut outside, "guests").unwrap();
    filter.remove_class(&mut outside, "staff").unwrap();
    assert_eq!(judge(&mut outside), [PASS, PASS]);
    filter
        .set_class(&mut outside, "a", &spec(Rule::Split, &[]))
        .unwrap();
    filter
        .set_class(&mut outside, "b", &spec(Rule::Split, &[]))
        .unwrap();
    for class in ["a", "b"] {
        assert!(filter.set_user(&mut outside, user, class).unwrap());
        assert_eq!(judge(&mut outside), [DROP, DROP], "{class}");
    }
    let hits = filter.hits(&outside).unwrap();
    let names: Vec<&str> = hits.iter().map(|hits| hits.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(
        hits.iter().all(|hits: &ClassHits| hits.refused >= 2),
        "{hits:?}"
    );
}

#[test]
fn an_address_of_the_node_is_nobody_elses() {
    let (mut outside, mut filter) = named();
    let [user, _] = users(TUNNEL);
    let inside = ip("10.0.0.251");
    let [frame, _] = past(user, inside);
    let judge = |outside: &mut Outside| outside.run(&frame, 1).expect("outside runs").verdict;
    filter
        .set_class(&mut outside, "all", &spec(Rule::Tunnel, &[]))
        .unwrap();
    filter.set_user(&mut outside, user, "all").unwrap();
    assert_eq!(judge(&mut outside), DROP);
    filter.set_own(&mut outside, [inside].into()).unwrap();
    assert_eq!(judge(&mut outside), PASS);
    // Neither a user who claims to be there, nor one who leaves, changes that.
    filter.set_user(&mut outside, inside, "all").unwrap();
    assert_eq!(judge(&mut outside), PASS);
    filter.remove_user(&mut outside, inside).unwrap();
    assert_eq!(judge(&mut outside), PASS);
    filter.set_own(&mut outside, [].into()).unwrap();
    assert_eq!(judge(&mut outside), DROP);
}

#[test]
fn there_are_so_many_classes_and_no_more() {
    let (mut outside, mut filter) = named();
    for number in 1..64 {
        let name = number.to_string();
        filter
            .set_class(&mut outside, &name, &spec(Rule::Tunnel, &[]))
            .unwrap();
    }
    let more = filter.set_class(&mut outside, "more", &spec(Rule::Tunnel, &[]));
    assert!(
        more.unwrap_err()
            .to_string()
            .contains("64 found, at most 63")
    );
}

#[test]
fn a_session_brings_a_class_and_takes_it_along() {
    let (mut outside, mut filter) = named();
    let [here, there] = ["198.51.100.30", "198.51.100.31"].map(ip);
    let (one, two) = (SessionId(1), SessionId(2));
    let frames = [here, there].map(|user| past(user, ip("203.0.113.7"))[0].clone());
    let judge = |outside: &mut Outside| {
        frames
            .each_ref()
            .map(|frame| outside.run(frame, 1).expect("outside runs").verdict)
    };
    filter
        .set_class(&mut outside, "closed", &spec(Rule::Tunnel, &[]))
        .unwrap();
    filter
        .set_class(&mut outside, "open", &spec(Rule::Split, &["0.0.0.0/0"]))
        .unwrap();
    let mut set = |outside: &mut Outside, session, user: Option<(IpAddr, &str)>| {
        filter.set_session(outside, session, user).unwrap()
    };
    assert!(set(&mut outside, one, Some((here, "closed"))));
    assert_eq!(judge(&mut outside), [DROP, PASS]);
    // It moves, and its class with it.
    assert!(set(&mut outside, one, Some((there, "closed"))));
    assert_eq!(judge(&mut outside), [PASS, DROP]);
    // A second one of the same user, as at a rekeying; the class stays until both are gone.
    assert!(set(&mut outside, two, Some((there, "closed"))));
    assert!(set(&mut outside, one, None));
    assert_eq!(judge(&mut outside), [PASS, DROP]);
    assert!(set(&mut outside, two, None));
    assert_eq!(judge(&mut outside), [PASS, PASS]);
    // The last one at an address counts, and what the address has by itself thereafter.
    assert!(filter.set_user(&mut outside, here, "closed").unwrap());
    assert_eq!(judge(&mut outside), [DROP, PASS]);
    assert!(
        filter
            .set_session(&mut outside, one, Some((here, "open")))
            .unwrap()
    );
    assert_eq!(judge(&mut outside), [PASS, PASS]);
    assert!(filter.set_session(&mut outside, one, None).unwrap());
    assert_eq!(judge(&mut outside), [DROP, PASS]);
    assert!(
        !filter
            .set_session(&mut outside, two, Some((there, "none")))
            .unwrap()
    );
    assert_eq!(judge(&mut outside), [DROP, PASS]);
}
