use super::*;

const LAN: u32 = 3;
const WAN: u32 = 4;
const TUNNEL: u32 = 9;
const OURS: Mac = [2, 0, 0, 0, 0, 3];
const ROUTER: Mac = [2, 0, 0, 0, 0, 0xfe];
const HOST: Mac = [2, 0, 0, 0, 0, 0x10];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `10.0.0.0/24` with `via` and the interface.
fn route(prefix: &str, via: Option<&str>, interface: u32) -> Route {
    let (destination, length) = prefix.split_once('/').unwrap();
    Route {
        table: TABLE_MAIN,
        destination: ip(destination),
        length: length.parse().unwrap(),
        metric: 0,
        kind: RouteKind::Unicast,
        hops: vec![hop(via, interface)],
        mtu: None,
    }
}

fn hop(via: Option<&str>, interface: u32) -> Hop {
    Hop {
        interface,
        via: via.map(ip),
        dead: false,
        link_down: false,
    }
}

fn special(prefix: &str, table: u32, kind: RouteKind) -> Route {
    Route {
        table,
        kind,
        hops: vec![],
        ..route(prefix, None, LAN)
    }
}

fn interface(index: u32) -> Interface {
    Interface {
        name: format!("eth{index}"),
        index,
        mac: Some(OURS),
        mtu: 1500,
        up: true,
        addresses: vec![(ip("10.0.0.254"), 24), (ip("fd00::254"), 64)],
    }
}

fn fib(routes: &[Route]) -> Fib {
    let neighbours = [
        ((LAN, ip("10.0.0.1")), ROUTER),
        ((LAN, ip("10.0.0.10")), HOST),
        ((LAN, ip("fd00::1")), ROUTER),
        ((WAN, ip("192.0.2.1")), ROUTER),
    ];
    Fib::new(
        vec![interface(LAN), interface(WAN)],
        Arc::new(RouteTables::new(routes, &[LAN, WAN])),
        Arc::new(Neighbours::new(neighbours)),
    )
}

#[test]
fn on_link_and_via_a_router() {
    let fib = fib(&[
        route("10.0.0.0/24", None, LAN),
        route("0.0.0.0/0", Some("10.0.0.1"), LAN),
        route("fd00::/64", None, LAN),
        route("2001:db8::/32", Some("fd00::1"), LAN),
        route("198.51.100.0/24", Some("fd00::1"), LAN),
    ]);
    let host = fib.lookup(ip("10.0.0.10"));
    let expected = NextHop {
        interface: LAN,
        via: None,
        source_mac: Some(OURS),
        mtu: 1500,
        resolution: Resolution::Resolved(HOST),
    };
    assert_eq!(host, expected);
    let beyond = fib.lookup(ip("8.8.8.8"));
    assert_eq!(beyond.via, Some(ip("10.0.0.1")));
    assert_eq!(beyond.resolution, Resolution::Resolved(ROUTER));
    let unknown = fib.lookup(ip("10.0.0.99"));
    assert_eq!(unknown.resolution, Resolution::Unresolved(ip("10.0.0.99")));
    assert_eq!(
        fib.lookup(ip("2001:db8::9")).resolution,
        Resolution::Resolved(ROUTER)
    );
    assert_eq!(
        fib.lookup(ip("fd00::9")).resolution,
        Resolution::Unresolved(ip("fd00::9"))
    );
    let mixed = fib.lookup(ip("198.51.100.9"));
    assert_eq!(
        mixed.via,
        Some(ip("fd00::1")),
        "IPv4 through an IPv6 router"
    );
    assert_eq!(mixed.resolution, Resolution::Resolved(ROUTER));
    let nowhere = Resolution::Unreachable(Refusal::NoRoute);
    assert_eq!(fib.lookup(ip("2001:db9::9")).resolution, nowhere);
    assert_eq!(fib.default_router(LAN, false), Some(ip("10.0.0.1")));
    assert_eq!(fib.default_router(LAN, true), None);
    assert_eq!(fib.default_router(WAN, false), None);
}

#[test]
fn the_local_table_comes_first() {
    let fib = fib(&[
        special("10.0.0.254/32", TABLE_LOCAL, RouteKind::Local),
        special("10.0.0.255/32", TABLE_LOCAL, RouteKind::Group),
        // Even a longer prefix elsewhere does not matter.
        special("10.7.0.0/16", TABLE_LOCAL, RouteKind::Local),
        route("10.7.7.0/24", None, LAN),
        route("10.0.0.0/24", None, LAN),
        Route {
            table: TABLE_DEFAULT,
            ..route("10.0.0.0/8", None, WAN)
        },
        Route {
            table: 220,
            ..route("10.0.0.10/32", None, WAN)
        },
    ]);
    assert_eq!(fib.lookup(ip("10.0.0.254")).resolution, Resolution::Local);
    assert_eq!(fib.lookup(ip("10.7.7.7")).resolution, Resolution::Local);
    assert_eq!(
        fib.lookup(ip("10.0.0.255")).resolution,
        Resolution::NotForwarded
    );
    assert_eq!(
        fib.lookup(ip("10.0.0.10")).interface,
        LAN,
        "table 220 is not ours to know"
    );
    assert_eq!(fib.lookup(ip("10.9.9.9")).interface, WAN);
}

#[test]
fn what_stays_on_its_link() {
    let fib = fib(&[route("0.0.0.0/0", None, LAN), route("::/0", None, LAN)]);
    for address in [
        "224.0.0.5",
        "255.255.255.255",
        "169.254.1.1",
        "fe80::1",
        "ff02::1",
    ] {
        assert_eq!(
            fib.lookup(ip(address)).resolution,
            Resolution::NotForwarded,
            "{address}"
        );
    }
}

#[test]
fn metrics_and_order() {
    let cheap = Route {
        metric: 10,
        ..route("10.1.0.0/16", Some("10.0.0.1"), LAN)
    };
    let dear = Route {
        metric: 20,
        ..route("10.1.0.0/16", Some("192.0.2.1"), WAN)
    };
    for routes in [[cheap.clone(), dear.clone()], [dear.clone(), cheap.clone()]] {
        assert_eq!(fib(&routes).lookup(ip("10.1.1.1")).interface, LAN);
    }
    let twin = Route { metric: 10, ..dear };
    assert_eq!(
        fib(&[cheap.clone(), twin.clone()])
            .lookup(ip("10.1.1.1"))
            .interface,
        LAN
    );
    assert_eq!(
        fib(&[twin, cheap]).lookup(ip("10.1.1.1")).interface,
        WAN,
        "the first listed"
    );
}

#[test]
fn refusals() {
    let fib = fib(&[
        route("0.0.0.0/0", None, LAN),
        special(
            "10.1.0.0/16",
            TABLE_MAIN,
            RouteKind::Refuse(Refusal::Blackhole),
        ),
        special(
            "10.2.0.0/16",
            TABLE_MAIN,
            RouteKind::Refuse(Refusal::Prohibited),
        ),
        special("10.3.0.0/16", TABLE_MAIN, RouteKind::Throw),
        Route {
            table: TABLE_DEFAULT,
            ..route("10.3.3.0/24", None, WAN)
        },
    ]);
    let refused = |address| fib.lookup(ip(address)).resolution;
    assert_eq!(
        refused("10.1.2.3"),
        Resolution::Unreachable(Refusal::Blackhole)
    );
    assert_eq!(
        refused("10.2.2.3"),
        Resolution::Unreachable(Refusal::Prohibited)
    );
    assert_eq!(
        refused("10.3.2.3"),
        Resolution::Unreachable(Refusal::NoRoute)
    );
    assert_eq!(
        fib.lookup(ip("10.3.3.3")).interface,
        WAN,
        "the table below a throw"
    );
}

#[test]
fn the_first_living_next_hop() {
    let (dead, down, fine) = (
        Hop {
            dead: true,
            ..hop(Some("10.0.0.1"), LAN)
        },
        Hop {
            link_down: true,
            ..hop(Some("10.0.0.2"), LAN)
        },
        hop(Some("192.0.2.1"), WAN),
    );
    let multi = |hops: &[Hop]| Route {
        hops: hops.to_vec(),
        ..route("10.8.0.0/16", None, 0)
    };
    let below = route("10.0.0.0/8", None, LAN);
    let to = ip("10.8.1.1");
    assert_eq!(fib(&[multi(&[dead, down, fine])]).lookup(to).interface, WAN);
    let lost = fib(&[multi(&[dead, down]), below.clone()]).lookup(to);
    assert_eq!(lost.resolution, Resolution::Unreachable(Refusal::LinkDown));
    let shorter = fib(&[multi(&[dead]), below]).lookup(to);
    assert_eq!(
        (shorter.via, shorter.interface),
        (None, LAN),
        "a dead route does not exist"
    );
}

#[test]
fn interfaces_that_are_not_ours_or_not_up() {
    let routes = [
        route("10.0.0.0/24", None, LAN),
        route("10.5.0.0/16", None, TUNNEL),
    ];
    let all = fib(&routes);
    let other = all.lookup(ip("10.5.0.1"));
    assert_eq!(
        (other.interface, other.resolution),
        (TUNNEL, Resolution::OtherInterface)
    );
    let down = Fib::new(
        vec![Interface {
            up: false,
            ..interface(LAN)
        }],
        all.routes.clone(),
        all.neighbours.clone(),
    );
    let refused = Resolution::Unreachable(Refusal::LinkDown);
    assert_eq!(down.lookup(ip("10.0.0.10")).resolution, refused);
}

#[test]
fn a_tunnel_over_everything_does_not_catch_its_carrier() {
    let fib = fib(&[
        route("0.0.0.0/1", None, TUNNEL),
        route("128.0.0.0/1", None, TUNNEL),
        route("0.0.0.0/0", Some("192.0.2.1"), WAN),
        special("192.0.2.7/32", TABLE_LOCAL, RouteKind::Local),
    ]);
    let gateway = ip("203.0.113.5");
    assert_eq!(fib.lookup(gateway).resolution, Resolution::OtherInterface);
    assert_eq!(
        fib.lookup_on(WAN, gateway).resolution,
        Resolution::Resolved(ROUTER)
    );
    assert_eq!(
        fib.lookup_on(WAN, ip("192.0.2.7")).resolution,
        Resolution::Local
    );
    let nowhere = Resolution::Unreachable(Refusal::NoRoute);
    assert_eq!(fib.lookup_on(LAN, gateway).resolution, nowhere);
    assert_eq!(
        fib.lookup_on(77, gateway).resolution,
        Resolution::OtherInterface
    );
}

#[test]
fn a_routes_mtu_only_lowers() {
    let small = Route {
        mtu: Some(1400),
        ..route("10.1.0.0/16", None, LAN)
    };
    let large = Route {
        mtu: Some(9000),
        ..route("10.2.0.0/16", None, LAN)
    };
    let fib = fib(&[small, large]);
    assert_eq!(fib.lookup(ip("10.1.0.1")).mtu, 1400);
    assert_eq!(fib.lookup(ip("10.2.0.1")).mtu, 1500);
}

#[test]
fn the_address_for_our_own_packets() {
    let lan = interface(LAN);
    assert_eq!(lan.source_for(ip("1.2.3.4")), Some(ip("10.0.0.254")));
    assert_eq!(lan.source_for(ip("2001:db8::1")), Some(ip("fd00::254")));
}
