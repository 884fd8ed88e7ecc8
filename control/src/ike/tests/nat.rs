//! NAT traversal, with the wire above each step.

use super::*;

/// A pair with a NAT before the client: it adds `shift` to the client's ports, under an address of
/// its own.
struct Behind {
    pair: Pair,
    outer: IpAddr,
    shift: u16,
}

impl Behind {
    fn new() -> Behind {
        Behind {
            pair: Pair::new(),
            outer: [203, 0, 113, 9].into(),
            shift: 40_000,
        }
    }

    fn outside(&self, inside: u16) -> SocketAddr {
        SocketAddr::new(self.outer, self.shift + inside)
    }

    /// What the gateway sends in answer to a datagram of the client.
    fn out(&mut self, t: &Transmit) -> Vec<Transmit> {
        let local = self.outside(t.local.port());
        let t = Transmit { local, ..t.clone() };
        self.pair.b.receive(self.pair.now, &t)
    }

    /// What the client sends in answer to a datagram of the gateway, if the NAT lets it in.
    fn back(&mut self, t: &Transmit) -> Vec<Transmit> {
        let inside = t.remote.port().wrapping_sub(self.shift);
        if t.remote.ip() != self.outer || ![IKE_PORT, NAT_T_PORT].contains(&inside) {
            return Vec::new();
        }
        let remote = SocketAddr::new(self.pair.a.address.ip(), inside);
        let t = Transmit {
            remote,
            ..t.clone()
        };
        self.pair.a.receive(self.pair.now, &t)
    }

    fn run(&mut self) {
        let (mut out, mut back) = (self.pair.a.take(), self.pair.b.take());
        while !out.is_empty() || !back.is_empty() {
            let answers = out.iter().flat_map(|t| self.out(t)).collect::<Vec<_>>();
            out = back.iter().flat_map(|t| self.back(t)).collect();
            back = answers;
        }
    }

    /// An established session; (client's id, gateway's id).
    fn up(&mut self) -> (SaId, SaId) {
        let wish = self.pair.wish();
        self.pair.initiate(wish);
        self.run();
        let ids = [&self.pair.a, &self.pair.b].map(|node| node.established().unwrap().0);
        self.pair.a.events.clear();
        self.pair.b.events.clear();
        (ids[0], ids[1])
    }
}

fn established(node: &Node) -> (Nat, SocketAddr, SocketAddr) {
    match &node.events[..] {
        [
            Event::Established {
                nat, local, remote, ..
            },
        ] => (*nat, *local, *remote),
        other => panic!("{other:?}"),
    }
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

const NONE: Nat = Nat {
    detected: true,
    local: false,
    remote: false,
    forced: false,
};

#[test]
fn behind_a_nat_both_go_over_to_port_4500() {
    let mut nat = Behind::new();
    let wish = nat.pair.wish();
    nat.pair.initiate(wish);
    // 500 → 500: HDR(A,0), SAi1, KEi, Ni, N(NATD_S), N(NATD_D), V -->
    let first = nat.pair.a.take();
    assert_eq!((first[0].local.port(), first[0].remote.port()), (500, 500));
    // <-- HDR(A,B), SAr1, KEr, Nr, N(NATD_S), N(NATD_D), V, V
    let second = nat.out(&first[0]);
    assert_eq!(second[0].remote, nat.outside(500));
    // 4500 → 4500: HDR(A,B), SK {…} -->
    let third = nat.back(&second[0]);
    assert_eq!(
        (third[0].local, third[0].remote),
        (at("198.51.100.7:4500"), at("192.0.2.1:4500"))
    );
    let fourth = nat.out(&third[0]);
    assert_eq!(
        (fourth[0].local, fourth[0].remote),
        (at("192.0.2.1:4500"), nat.outside(4500))
    );
    nat.back(&fourth[0]);
    let (ours, theirs) = (established(&nat.pair.a), established(&nat.pair.b));
    let behind = Nat {
        local: true,
        ..NONE
    };
    assert_eq!(
        ours,
        (behind, at("198.51.100.7:4500"), at("192.0.2.1:4500"))
    );
    let before = Nat {
        remote: true,
        ..NONE
    };
    assert_eq!(theirs, (before, at("192.0.2.1:4500"), nat.outside(4500)));
    assert!(ours.0.encapsulates() && theirs.0.encapsulates());
    assert!(!ours.0.follows() && theirs.0.follows());
}

#[test]
fn without_a_nat_all_stays_on_port_500() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    pair.initiate(wish);
    pair.run();
    assert_eq!(established(&pair.a), (NONE, pair.a.address, pair.b.address));
    assert_eq!(established(&pair.b), (NONE, pair.b.address, pair.a.address));
    assert!(!NONE.encapsulates());
}

#[test]
fn either_side_can_insist_on_udp() {
    for client in [true, false] {
        let mut pair = Pair::with(|a, b| {
            let settings = if client { a } else { b };
            settings.encapsulation = Encapsulation::Always;
        });
        let wish = pair.wish();
        pair.initiate(wish);
        assert_eq!(pair.run(), 4);
        let forced = Nat {
            forced: true,
            ..NONE
        };
        let seen = Nat {
            remote: true,
            ..NONE
        };
        let (a, b) = (established(&pair.a), established(&pair.b));
        let expected = if client {
            (forced, seen)
        } else {
            (seen, forced)
        };
        assert_eq!((a.0, b.0), expected);
        assert!(a.0.encapsulates() && b.0.encapsulates());
        assert_eq!((a.1.port(), a.2.port()), (NAT_T_PORT, NAT_T_PORT));
        assert_eq!((b.1.port(), b.2.port()), (NAT_T_PORT, NAT_T_PORT));
        // There is no mapping to keep.
        pair.pass(Duration::from_secs(60));
        assert_eq!(pair.a.engine.stats().keep_alives, 0);
        assert_eq!(pair.b.engine.stats().keep_alives, 0);
    }
}

#[test]
fn only_who_is_behind_the_nat_keeps_it_alive_and_only_while_silent() {
    let mut nat = Behind::new();
    let (a, _) = nat.up();
    let start = nat.pair.now;
    let due = |nat: &Behind| nat.pair.a.engine.next_timeout();
    assert_eq!(
        due(&nat),
        Some((start + Duration::from_secs(20), "keep-alive"))
    );
    assert_eq!(nat.pair.b.engine.next_timeout(), None);
    // ESP went out meanwhile.
    nat.pair.now = start + Duration::from_secs(15);
    nat.pair.a.engine.spoke(nat.pair.now, a);
    assert_eq!(due(&nat).map(|(at, _)| at - start).unwrap().as_secs(), 35);
    for seconds in [35, 55] {
        // FF -->
        nat.pair.now = start + Duration::from_secs(seconds);
        let Pair { now, a: node, .. } = &mut nat.pair;
        node.engine.handle_timeout(*now, &mut node.owner);
        let sent = node.take();
        assert!(matches!(&sent[..], [t] if t.is_keep_alive()
            && t.local == at("198.51.100.7:4500") && t.remote == at("192.0.2.1:4500")));
    }
    // HDR, SK {} --> <-- HDR, SK {}
    nat.pair.now = start + Duration::from_secs(60);
    nat.pair.a.engine.check_liveness(nat.pair.now, a);
    nat.run();
    assert_eq!(due(&nat).map(|(at, _)| at - start).unwrap().as_secs(), 80);
    assert_eq!(nat.pair.a.engine.stats().keep_alives, 2);
    // A session that is over keeps nothing alive.
    nat.pair.a.engine.close(nat.pair.now, a);
    nat.run();
    assert_eq!(due(&nat), None);
}

#[test]
fn a_new_mapping_is_followed_and_a_replay_is_not() {
    let mut nat = Behind::new();
    let (a, b) = nat.up();
    let old = nat.outside(NAT_T_PORT);
    nat.pair.a.engine.check_liveness(nat.pair.now, a);
    // HDR, SK {} -->, and somebody keeps a copy.
    let asked = nat.pair.a.take();
    let answer = nat.out(&asked[0]);
    nat.back(&answer[0]);

    // The NAT has another port for the client.
    nat.shift = 50_000;
    let new = nat.outside(NAT_T_PORT);
    nat.pair.a.engine.check_liveness(nat.pair.now, a);
    let request = nat.pair.a.take();
    let answer = nat.out(&request[0]);
    assert_eq!(answer[0].remote, new);
    assert!(
        matches!(nat.pair.b.events[..], [Event::Moved { id, remote }] if id == b && remote == new)
    );
    nat.back(&answer[0]);
    nat.pair.b.events.clear();

    // Copies of both from the old place get their answer there, or none, and change nothing; nor
    // does a forged one.
    let mut forged = request[0].clone();
    *forged.data.last_mut().unwrap() ^= 1;
    for (t, answers) in [(&asked[0], 0), (&request[0], 1), (&forged, 0)] {
        let t = Transmit {
            local: old,
            ..t.clone()
        };
        let answer = nat.pair.b.receive(nat.pair.now, &t);
        assert_eq!(answer.len(), answers);
        assert!(answer.iter().all(|t| t.remote == old));
    }
    assert!(nat.pair.b.events.is_empty());
    nat.pair.b.engine.check_liveness(nat.pair.now, b);
    let request = nat.pair.b.take();
    assert_eq!(request[0].remote, new);

    // Another address as well; the answer to a request of ours tells it, and what is sent again goes
    // there.
    nat.outer = [203, 0, 113, 10].into();
    let answer = {
        let inside = at("198.51.100.7:4500");
        let t = Transmit {
            remote: inside,
            ..request[0].clone()
        };
        nat.pair.a.receive(nat.pair.now, &t)
    };
    nat.out(&answer[0]);
    let moved = nat.outside(NAT_T_PORT);
    assert!(matches!(nat.pair.b.events[..],
        [Event::Moved { remote, .. }, Event::Alive { .. }] if remote == moved));
}

#[test]
fn who_is_behind_a_nat_does_not_follow() {
    let mut nat = Behind::new();
    let (a, b) = nat.up();
    nat.pair.b.engine.check_liveness(nat.pair.now, b);
    // <-- HDR, SK {}, from an attacker who passes it on.
    let request = nat.pair.b.take();
    let t = Transmit {
        local: at("192.0.2.66:4500"),
        remote: at("198.51.100.7:4500"),
        ..request[0].clone()
    };
    let answer = nat.pair.a.receive(nat.pair.now, &t);
    assert_eq!(answer[0].remote, at("192.0.2.66:4500"));
    assert!(nat.pair.a.events.is_empty());
    nat.pair
        .a
        .engine
        .peer_moved(nat.pair.now, a, at("192.0.2.66:4500"));
    nat.pair.a.engine.check_liveness(nat.pair.now, a);
    assert_eq!(nat.pair.a.take()[0].remote, at("192.0.2.1:4500"));
}

#[test]
fn esp_from_elsewhere_moves_ike_too() {
    let mut nat = Behind::new();
    let (_, b) = nat.up();
    nat.shift = 30_000;
    let new = nat.outside(NAT_T_PORT);
    nat.pair.b.engine.peer_moved(nat.pair.now, b, new);
    assert!(nat.pair.b.take().is_empty() && nat.pair.b.events.is_empty());
    nat.pair.b.engine.check_liveness(nat.pair.now, b);
    nat.run();
    assert!(matches!(nat.pair.b.events[..], [Event::Alive { id }] if id == b));

    // Without a NAT nobody is followed.
    let mut pair = Pair::new();
    let (_, b) = pair.up();
    pair.b
        .engine
        .peer_moved(pair.now, b, at("203.0.113.66:4500"));
    pair.b.engine.check_liveness(pair.now, b);
    assert_eq!(pair.b.take()[0].remote, pair.a.address);
}
