//! The Fib follows the kernel's routes, neighbours and links. Needs root for network namespaces.

mod net_lab;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use evergate::dataplane::net::fib::{Refusal, Resolution};
use evergate::dataplane::net::frame::Mac;
use net_lab::{Lab, Watched, ip, run, unresolved};

const NO_ROUTE: Resolution = Resolution::Unreachable(Refusal::NoRoute);
const LINK_DOWN: Resolution = Resolution::Unreachable(Refusal::LinkDown);
const STATIC: Mac = [2, 0, 0, 0, 0xaa, 0x01];
const OTHER: Mac = [2, 0, 0, 0, 0xaa, 0x02];

#[test]
fn the_fib_follows_routes() {
    let lab = Lab::new();
    let watched = lab.watch();
    let (lan, wan) = (watched.index("lan0"), watched.index("wan0"));

    // What was there before the watch.
    assert_eq!(watched.lookup("10.1.0.1").resolution, Resolution::Local);
    assert_eq!(watched.lookup("127.0.0.1").resolution, Resolution::Local);
    assert_eq!(
        watched.lookup("10.1.0.255").resolution,
        Resolution::NotForwarded
    );
    assert_eq!(watched.lookup("fd00:1::1").resolution, Resolution::Local);
    assert_eq!(watched.lookup("8.8.8.8").via, Some(ip("192.0.2.254")));
    assert_eq!(watched.lookup("8.8.8.8").interface, wan);
    assert_eq!(
        watched.fib().default_router(wan, false),
        Some(ip("192.0.2.254"))
    );
    assert_eq!(watched.lookup("fd00:7::7").resolution, NO_ROUTE);

    let mut times = Vec::new();
    for (prefix, via, inside) in [
        ("10.9.0.0/16", "10.1.0.2", "10.9.1.1"),
        ("fd00:9::/32", "fd00:1::2", "fd00:9::7"),
    ] {
        let before = watched.lookup(inside);
        lab.host.ip(&format!("route add {prefix} via {via}"));
        times.push(watched.until(inside, |found| found.via == Some(ip(via))));
        assert_eq!(watched.lookup(inside).interface, lan);
        lab.host
            .ip(&format!("route replace {prefix} via {via} mtu 1300"));
        times.push(watched.until(inside, |found| found.mtu == 1300));
        lab.host.ip(&format!("route del {prefix}"));
        times.push(watched.until(inside, |found| *found == before));
    }
    lab.host.ip("route add blackhole 10.9.0.0/16");
    watched.until_resolution("10.9.1.1", Resolution::Unreachable(Refusal::Blackhole));
    lab.host.ip("route replace prohibit 10.9.0.0/16");
    watched.until_resolution("10.9.1.1", Resolution::Unreachable(Refusal::Prohibited));
    lab.host
        .ip("route add 10.9.1.0/24 nexthop via 192.0.2.9 nexthop via 10.1.0.2");
    watched.until("10.9.1.1", |found| found.via == Some(ip("192.0.2.9")));
    lab.peer.ip("link set wan0 down");
    watched.until("10.9.1.1", |found| found.via == Some(ip("10.1.0.2")));
    lab.host.ip("addr add 10.1.0.77/24 dev lan0");
    watched.until_resolution("10.1.0.77", Resolution::Local);
    times.sort();
    println!("route changes were seen after {times:?}");
}

#[test]
fn the_fib_follows_neighbours() {
    let lab = Lab::new();
    let watched = lab.watch();
    let mut times = Vec::new();
    for address in ["10.1.0.50", "fd00:1::50"] {
        assert_eq!(watched.lookup(address).resolution, unresolved(address));
        let change = |verb: &str, state: &str| {
            lab.host
                .ip(&format!("neigh {verb} {address} dev lan0 {state}"));
        };
        for state in ["permanent", "reachable", "stale", "delay", "probe"] {
            change("replace", &format!("lladdr 02:00:00:00:aa:01 nud {state}"));
            times.push(watched.until_resolution(address, Resolution::Resolved(STATIC)));
        }
        change("replace", "lladdr 02:00:00:00:aa:02 nud permanent");
        times.push(watched.until_resolution(address, Resolution::Resolved(OTHER)));
        change("del", "");
        times.push(watched.until_resolution(address, unresolved(address)));
    }
    times.sort();
    println!("neighbour changes were seen after {times:?}");
}

#[test]
fn the_fib_follows_links() {
    let lab = Lab::new();
    lab.host
        .ip("neigh replace 10.1.0.2 dev lan0 lladdr 02:00:00:00:aa:01 nud permanent");
    let mut watched = lab.watch();
    let resolved = Resolution::Resolved(STATIC);
    let first = [watched.change(), watched.change()];
    let lan = first
        .iter()
        .find(|change| change.interface == "lan0")
        .unwrap();
    assert!(
        first
            .iter()
            .all(|change| change.up && change.mtu == 1500 && change.mac.is_some())
    );
    assert_eq!(watched.lookup("10.1.0.2").resolution, resolved);

    // The carrier goes and comes back.
    lab.peer.ip("link set lan0 down");
    watched.until_resolution("10.1.0.2", LINK_DOWN);
    let change = watched.change();
    assert_eq!((change.interface.as_str(), change.up), ("lan0", false));
    lab.peer.ip("link set lan0 up");
    watched.until_change(|change| change.up);
    watched.until("10.1.0.2", |found| found.resolution != LINK_DOWN);

    // Switched off: the kernel drops the IPv4 routes without announcing them.
    lab.host.ip("link set lan0 down");
    watched.until("10.1.0.2", |found| found.via == Some(ip("192.0.2.254")));
    watched.until_change(|change| !change.up);
    lab.host.ip("link set lan0 up");
    watched.until("10.1.0.2", |found| {
        found.interface == lan.index && found.via.is_none()
    });
    watched.until_change(|change| change.up);
    lab.host.ip("link set lan0 mtu 1400");
    watched.until("10.1.0.2", |found| found.mtu == 1400);
    watched.until_change(|change| change.mtu == 1400);

    // Gone, and made anew under the same name.
    lab.host.ip("link del lan0");
    let gone = watched.until_change(|change| change.index == 0);
    assert_eq!((gone.interface.as_str(), gone.up), ("lan0", false));
    lab.host.ip(&format!(
        "link add lan0 type veth peer name lan0 netns {}",
        lab.peer.0
    ));
    lab.host.ip("addr add 10.1.0.1/24 dev lan0");
    lab.host.ip("link set lan0 up");
    lab.peer.ip("link set lan0 up");
    lab.host
        .ip("neigh replace 10.1.0.2 dev lan0 lladdr 02:00:00:00:aa:02 nud permanent");
    watched.until_resolution("10.1.0.2", Resolution::Resolved(OTHER));
    let made = watched.until_change(|change| change.up);
    assert!(made.index != 0 && made.index != lan.index);
}

#[test]
fn lost_notifications_are_made_up_for() {
    let lab = Lab::new();
    let name = lab.host.0.clone();
    let (report, drops) = mpsc::channel();
    let watched = Watched::new(&lab.host, move || {
        // The watch does not read meanwhile, so its buffer runs over.
        let batch: String = (0..20_000)
            .map(|n| {
                format!(
                    "route add 10.{}.{}.0/24 via 10.1.0.2\n",
                    100 + n / 250,
                    n % 250
                )
            })
            .collect();
        let file = std::env::temp_dir().join(format!("{name}.batch"));
        std::fs::write(&file, batch).unwrap();
        let done = catch_unwind(AssertUnwindSafe(|| {
            run("ip", &format!("-n {name} -batch {}", file.display()));
        }));
        let _ = std::fs::remove_file(&file);
        done.unwrap_or_else(|panic| resume_unwind(panic));
        // Column "Drops" of the sockets of this namespace.
        let table = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
        let column = |line: &str| line.split_whitespace().nth(8)?.parse::<u64>().ok();
        report
            .send(table.lines().filter_map(column).sum::<u64>())
            .unwrap();
    });
    assert!(
        drops.recv().unwrap() > 0,
        "nothing was lost, so this test shows nothing"
    );
    let took = watched.until("10.179.249.1", |found| found.via == Some(ip("10.1.0.2")));
    println!("20,000 routes were seen after {took:?}");
    // And it still follows.
    lab.host.ip("route del 10.179.249.0/24");
    watched.until("10.179.249.1", |found| found.via != Some(ip("10.1.0.2")));
}

#[test]
fn next_hops_in_use_are_resolved_and_kept() {
    let lab = Lab::new();
    for family in ["ipv4", "ipv6"] {
        lab.host.sysctl(
            &format!("net/{family}/neigh/lan0/delay_first_probe_time"),
            "1",
        );
    }
    let watched = lab.watch();
    let lan = watched.index("lan0");
    for address in ["10.1.0.2", "fd00:1::2"] {
        assert_eq!(watched.lookup(address).resolution, unresolved(address));
        watched.in_use().report(lan, ip(address));
        watched.until(address, |found| {
            matches!(found.resolution, Resolution::Resolved(_))
        });
        let mac = watched.lookup(address).resolution;
        let Resolution::Resolved(bytes) = mac else {
            unreachable!()
        };
        let text = bytes.map(|byte| format!("{byte:02x}")).join(":");
        lab.host.ip(&format!(
            "neigh replace {address} dev lan0 lladdr {text} nud stale"
        ));
        let state = || lab.host.ip(&format!("neigh show {address} dev lan0"));
        assert!(state().contains("STALE"), "{}", state());
        let start = Instant::now();
        while !state().contains("REACHABLE") {
            watched.in_use().report(lan, ip(address));
            assert_eq!(
                watched.lookup(address).resolution,
                mac,
                "usable all the time"
            );
            assert!(
                start.elapsed() < Duration::from_secs(15),
                "still {}",
                state()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}
