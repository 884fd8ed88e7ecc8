//! A client and a gateway as they look on an ordinary bad day, for tests and documentation.

use super::model::{
    Cluster, ClusterState, CounterValue, Direction, Gateway, Interface, InterfaceKind, KeyLog,
    Role, SaView, Session, Side, Spi, Status, Tunnel,
};

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

fn counted(name: &str, text: &str, value: u64) -> CounterValue {
    CounterValue {
        name: name.into(),
        text: text.into(),
        value,
    }
}

fn gateway(address: &str, identity: &str) -> Gateway {
    Gateway {
        address: ip(address),
        identity: Some(identity.into()),
        keyed: false,
        active: false,
        last_heard_us: None,
        rtt_us: None,
        heartbeats_sent: 0,
        heartbeats_answered: 0,
    }
}

fn session(peer: &str, outside: &str, spi: u32, active: bool) -> Session {
    Session {
        peer: peer.into(),
        outside: ip(outside),
        inner: vec![ip("10.99.0.7")],
        spi_in: Spi(spi),
        spi_out: Spi(spi.rotate_left(8)),
        cipher: "aes-256-gcm".into(),
        active,
        edge: None,
        age_ms: 754_321,
        rekey_in_ms: Some(2_845_679),
        packets_in: 1_204_881,
        bytes_in: 1_688_901_234,
        packets_out: 611_002,
        bytes_out: 31_772_104,
        path_mtu: 1500,
        path_state: "complete".into(),
        initiator: true,
        resumed: false,
    }
}

/// A client with one gateway active, one in reserve and one dead, and a second cluster rejected.
pub(crate) fn client() -> Status {
    let active = Gateway {
        keyed: true,
        active: true,
        last_heard_us: Some(412),
        rtt_us: Some(184),
        heartbeats_sent: 1204,
        heartbeats_answered: 1203,
        ..gateway("192.0.2.2", "gw-b.example")
    };
    let standby = Gateway {
        keyed: true,
        last_heard_us: Some(12_400_000),
        ..gateway("192.0.2.1", "gw-a.example")
    };
    let dead = Gateway {
        heartbeats_sent: 88,
        heartbeats_answered: 86,
        ..gateway("192.0.2.3", "gw-c.example")
    };
    let stranger = Gateway {
        identity: None,
        ..gateway("2001:db8::64", "")
    };
    Status {
        name: "client-1".into(),
        role: Role::Client,
        identity: "client-1.example".into(),
        version: "0.1.0".into(),
        uptime_ms: 93_784_005,
        snapshot_age_ms: 3,
        drain: None,
        edges: Vec::new(),
        authorities: Vec::new(),
        connectivity: None,
        front: None,
        filter: Vec::new(),
        interfaces: vec![
            Interface {
                side: Side::Outside,
                name: "wan0".into(),
                kind: InterfaceKind::XdpNative,
                up: true,
                mtu: 1500,
            },
            Interface {
                side: Side::Inside,
                name: "evergate0".into(),
                kind: InterfaceKind::Tun,
                up: true,
                mtu: 1400,
            },
        ],
        clusters: vec![
            Cluster {
                id: 1,
                active: Some(ip("192.0.2.2")),
                state: ClusterState::Up,
                gateways: vec![dead, active, standby],
            },
            Cluster {
                id: 2,
                active: None,
                state: ClusterState::Rejected,
                gateways: vec![stranger],
            },
        ],
        tunnels: vec![
            Tunnel {
                number: 1,
                range: "10.0.0.1 – 10.0.0.3".into(),
                cluster: 1,
            },
            Tunnel {
                number: 2,
                range: "10.8.0.0 – 10.8.255.255".into(),
                cluster: 2,
            },
        ],
        sessions: vec![
            session("gw-b.example", "192.0.2.2", 0xc0ff_ee01, true),
            session("gw-a.example", "192.0.2.1", 0x1f3a_9b02, false),
        ],
        counters: vec![
            counted("heartbeat_answered", "heartbeats answered for peers", 0),
            counted("esp_opened", "ESP packets opened", 2_409_762),
        ],
        drops: vec![
            counted(
                "bad_icv",
                "ESP packets that were not sealed with the SA's key",
                0,
            ),
            counted("replayed", "ESP packets that were received before", 3),
            counted(
                "no_session",
                "packets toward a gateway without a session",
                41,
            ),
        ],
        keylog: None,
    }
}

/// A gateway with one client, whose inside link is down and whose core hangs.
pub(crate) fn gateway_in_trouble() -> Status {
    let mut served = session("client-1.example", "198.51.100.7", 0xc0ff_ee01, true);
    served.initiator = false;
    Status {
        name: "gw-a".into(),
        role: Role::Gateway,
        identity: "gw-a.example".into(),
        version: "0.1.0".into(),
        uptime_ms: 61_000,
        snapshot_age_ms: 12_345,
        drain: None,
        edges: Vec::new(),
        authorities: Vec::new(),
        connectivity: None,
        front: None,
        filter: Vec::new(),
        interfaces: vec![
            Interface {
                side: Side::Outside,
                name: "wan0".into(),
                kind: InterfaceKind::XdpGeneric,
                up: true,
                mtu: 1500,
            },
            Interface {
                side: Side::Inside,
                name: "lan0".into(),
                kind: InterfaceKind::XdpNative,
                up: false,
                mtu: 1500,
            },
        ],
        clusters: vec![],
        tunnels: vec![],
        sessions: vec![served],
        counters: vec![],
        drops: vec![counted(
            "replayed",
            "ESP packets that were received before",
            0,
        )],
        keylog: Some(KeyLog {
            on: true,
            directory: "/run/evergate/keys".into(),
            lines: 12,
        }),
    }
}

/// One SA of a session and one written by hand.
pub(crate) fn sas() -> Vec<SaView> {
    let sa = SaView {
        spi: Spi(0xc0ff_ee01),
        direction: Direction::In,
        local: ip("198.51.100.7"),
        remote: ip("192.0.2.2"),
        cipher: "aes-256-gcm".into(),
        selectors: vec!["10.0.0.1-10.0.0.3".into(), "10.99.0.7/32".into()],
        origin: "ike".into(),
        packets: 1_204_881,
        bytes: 1_688_901_234,
    };
    let by_hand = SaView {
        spi: Spi(0x100),
        direction: Direction::Out,
        selectors: vec![],
        origin: "manual".into(),
        packets: 0,
        bytes: 0,
        ..sa.clone()
    };
    vec![sa, by_hand]
}
