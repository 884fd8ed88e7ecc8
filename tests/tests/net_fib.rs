//! The Fib follows the kernel; the slow path and the announcements work with a real one.
//!
//! Needs root for network namespaces; nothing leaves those that it makes.

use std::net::{IpAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use evergate::dataplane::net::announce::{Announcer, FRAME, Yielded};
use evergate::dataplane::net::fib::{Fib, NextHop, Refusal, Resolution};
use evergate::dataplane::net::fib_watch::{FibWatch, InUse, LinkChange, Subscription};
use evergate::dataplane::net::frame::Mac;
use evergate::dataplane::net::links::{self, LinkError, LinkInfo};
use evergate::dataplane::net::slow::{Refused, SlowPath};
use nix::sched::{CloneFlags, setns};

/// How long a change may take to be seen. Typical is under a millisecond; the machine may be busy.
const BOUND: Duration = Duration::from_secs(2);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A network namespace that goes with this value, also when a test panics.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "this test needs root, to make network namespaces"
        );
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("egfib{}-{serial}", std::process::id());
        run("ip", &format!("netns add {name}"));
        let this = Self(name);
        this.ip("link set lo up");
        this
    }

    fn ip(&self, arguments: &str) -> String {
        run("ip", &format!("-n {} {arguments}", self.0))
    }

    fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{key}");
        let done = self.inside({
            let value = value.to_owned();
            move || std::fs::write(&path, value)
        });
        done.unwrap_or_else(|error| panic!("set {key} to {value}: {error}"));
    }

    /// Runs `work` on a thread of its own in this namespace.
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let name = self.0.clone();
        let thread = thread::spawn(move || {
            enter(&name);
            work()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

fn enter(namespace: &str) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

fn run(program: &str, arguments: &str) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("can not run {program}: {error}"));
    let error = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{program} {arguments}: {error}");
    String::from_utf8_lossy(&stdout).into_owned()
}

/// A host and a LAN peer: `lan0` 10.1.0.1/24, fd00:1::1/64 to 10.1.0.2, fd00:1::2; and `wan0`
/// 192.0.2.1/24 with the default route.
struct Lab {
    host: Namespace,
    peer: Namespace,
}

impl Lab {
    fn new() -> Self {
        let (host, peer) = (Namespace::new(), Namespace::new());
        host.ip(&format!(
            "link add lan0 type veth peer name lan0 netns {}",
            peer.0
        ));
        host.ip(&format!(
            "link add wan0 type veth peer name wan0 netns {}",
            peer.0
        ));
        for (namespace, last) in [(&host, 1), (&peer, 2)] {
            namespace.ip(&format!("addr add 10.1.0.{last}/24 dev lan0"));
            namespace.ip(&format!("addr add fd00:1::{last}/64 dev lan0 nodad"));
            namespace.ip("link set lan0 up");
            namespace.ip("link set wan0 up");
        }
        host.ip("addr add 192.0.2.1/24 dev wan0");
        host.ip("route add default via 192.0.2.254");
        Self { host, peer }
    }

    fn watch(&self) -> Watched {
        Watched::new(&self.host, || ())
    }
}

/// A watch that runs on a thread in the namespace until this value goes.
struct Watched {
    subscription: Subscription,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watched {
    /// `between` runs after the watch was opened and before it begins to follow.
    fn new(namespace: &Namespace, between: impl FnOnce() + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let name = namespace.0.clone();
        let thread = thread::spawn(move || {
            enter(&name);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let names = ["lan0".to_owned(), "wan0".to_owned()];
                let (watch, subscription) = FibWatch::open(&names).await.unwrap();
                between();
                sender.send(subscription).unwrap();
                tokio::select! {
                    error = watch.run() => panic!("the watch ended: {error}"),
                    _ = stopped => {}
                }
            });
        });
        let subscription = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        Self {
            subscription,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn lookup(&self, address: &str) -> NextHop {
        self.subscription.fib.load().lookup(ip(address))
    }

    fn fib(&self) -> std::sync::Arc<Fib> {
        self.subscription.fib.load_full()
    }

    fn in_use(&self) -> &InUse {
        &self.subscription.in_use
    }

    fn index(&self, name: &str) -> u32 {
        let fib = self.fib();
        fib.interfaces()
            .iter()
            .find(|interface| interface.name == name)
            .unwrap()
            .index
    }

    /// Waits until the look-up answers so; returns how long that took.
    fn until(&self, address: &str, wanted: impl Fn(&NextHop) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            let found = self.lookup(address);
            if wanted(&found) {
                return start.elapsed();
            }
            assert!(start.elapsed() < BOUND, "{address} is still {found:?}");
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn until_resolution(&self, address: &str, wanted: Resolution) -> Duration {
        self.until(address, |found| found.resolution == wanted)
    }

    fn change(&mut self) -> LinkChange {
        let start = Instant::now();
        loop {
            if let Ok(change) = self.subscription.changes.try_recv() {
                return change;
            }
            assert!(start.elapsed() < BOUND, "no link change came");
            thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(thread::JoinHandle::join)
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn unresolved(text: &str) -> Resolution {
    Resolution::Unresolved(ip(text))
}

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
    assert!(watched.change().up);
    watched.until("10.1.0.2", |found| found.resolution != LINK_DOWN);

    // Switched off: the kernel drops the IPv4 routes without announcing them.
    lab.host.ip("link set lan0 down");
    watched.until("10.1.0.2", |found| found.via == Some(ip("192.0.2.254")));
    assert!(!watched.change().up);
    lab.host.ip("link set lan0 up");
    watched.until("10.1.0.2", |found| {
        found.interface == lan.index && found.via.is_none()
    });
    assert!(watched.change().up);
    lab.host.ip("link set lan0 mtu 1400");
    watched.until("10.1.0.2", |found| found.mtu == 1400);
    assert_eq!(watched.change().mtu, 1400);

    // Gone, and made anew under the same name.
    lab.host.ip("link del lan0");
    let gone = loop {
        let change = watched.change();
        if change.index == 0 {
            break change;
        }
    };
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
    let made = loop {
        let change = watched.change();
        if change.up {
            break change;
        }
    };
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

/// An inner UDP packet from a client, addressed by hand. The IPv4 checksum is left to the kernel.
fn inner(source: &str, destination: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = [
        7777u16.to_be_bytes(),
        port.to_be_bytes(),
        length.to_be_bytes(),
    ]
    .concat();
    udp.extend([0, 0]);
    udp.extend(payload);
    let mut packet = match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (20 + length).to_be_bytes();
            let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 63, 17, 0, 0];
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            use evergate::dataplane::net::checksum::transport_v6;
            let sum = transport_v6(source, destination, 17, &udp);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            let length = length.to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], 17, 63];
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        _ => unreachable!("one family"),
    };
    packet.extend(udp);
    packet
}

#[test]
fn the_slow_path_resolves_and_stays_inside() {
    let lab = Lab::new();
    let watched = lab.watch();
    let mut slow = lab.host.inside(|| SlowPath::open("lan0").unwrap());
    let missing = lab
        .host
        .inside(|| SlowPath::open("lan7").unwrap_err().to_string());
    assert!(missing.contains("lan7"), "{missing}");
    for (client, target) in [("10.99.0.7", "10.1.0.2"), ("fd00:99::7", "fd00:1::2")] {
        lab.peer.ip(&format!("route add {client} dev lan0"));
        let socket = lab
            .peer
            .inside(move || UdpSocket::bind((ip(target), 0)).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        assert_eq!(watched.lookup(target).resolution, unresolved(target));
        let port = socket.local_addr().unwrap().port();
        slow.send(&inner(client, target, port, b"through the kernel"))
            .unwrap();
        let mut buffer = [0; 100];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"through the kernel");
        assert_eq!((from.ip(), from.port()), (ip(client), 7777));
        watched.until(target, |found| {
            matches!(found.resolution, Resolution::Resolved(_))
        });
    }
    // Routed to the outside interface; the socket keeps it in.
    let sent = || {
        let text = run(
            "ip",
            &format!(
                "netns exec {} cat /sys/class/net/wan0/statistics/tx_packets",
                lab.host.0
            ),
        );
        text.trim().parse::<u64>().unwrap()
    };
    lab.host
        .ip("neigh replace 192.0.2.254 dev wan0 lladdr 02:00:00:00:aa:01 nud permanent");
    let before = sent();
    let _ = slow.send(&inner("10.99.0.7", "8.8.8.8", 9, b"secret"));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(sent(), before, "plaintext left by the outside interface");
    assert_eq!(
        slow.send(&inner("10.99.0.7", "10.1.0.2", 9, &[0; 1600])),
        Err(Refused::TooBig)
    );
    assert_eq!(slow.send(&[]), Err(Refused::NotIp));
    assert_eq!(slow.send(&[0x45; 10]), Err(Refused::NotIp));
    let counters = slow.counters();
    assert_eq!((counters.too_big, counters.not_ip), (1, 2));
}

#[test]
fn interfaces_by_name() {
    let lab = Lab::new();
    lab.host.ip("route add default via fd00:1::2 dev lan0");
    let (lan, wan, missing) = lab.host.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let handle = links::connect().unwrap();
            let lan = LinkInfo::by_name(&handle, "lan0").await.unwrap();
            let wan = LinkInfo::by_name(&handle, "wan0").await.unwrap();
            let missing = LinkInfo::by_name(&handle, "lan7").await.unwrap_err();
            // What a TUN needs, on the LAN interface here.
            let index = lan.interface.index;
            links::set_up(&handle, index, 1380).await.unwrap();
            for (address, length) in [("10.55.0.1", 32), ("fd00:55::1", 128)] {
                links::add_address(&handle, index, ip(address), length)
                    .await
                    .unwrap();
                links::add_address(&handle, index, ip(address), length)
                    .await
                    .unwrap();
            }
            for (prefix, length, source) in [
                ("10.66.0.0", 16, "10.55.0.1"),
                ("fd00:66::", 32, "fd00:55::1"),
            ] {
                links::add_route(&handle, index, ip(prefix), length, Some(ip(source)))
                    .await
                    .unwrap();
            }
            let again = links::add_route(&handle, index, ip("10.66.0.0"), 16, None).await;
            assert!(matches!(again, Err(LinkError::Set { .. })));
            (lan, wan, missing)
        })
    });
    assert_eq!(lan.v4, Some((ip("10.1.0.1"), 24)));
    assert_eq!(lan.v6, Some((ip("fd00:1::1"), 64)));
    assert_eq!(
        (lan.router_v4, lan.router_v6),
        (None, Some(ip("fd00:1::2")))
    );
    assert_eq!(wan.router_v4, Some(ip("192.0.2.254")));
    assert!(lan.interface.up && lan.mac().is_ok());
    let sentence = missing.to_string();
    assert!(
        sentence.contains("\"lan7\"") && sentence.contains("lan0, "),
        "{sentence}"
    );
    assert!(lab.host.ip("link show lan0").contains("mtu 1380"));
    let routes = lab.host.ip("route show 10.66.0.0/16");
    assert!(
        routes.contains("dev lan0") && routes.contains("src 10.55.0.1"),
        "{routes}"
    );
    assert!(
        lab.host
            .ip("-6 route show fd00:66::/32")
            .contains("dev lan0")
    );
}

#[test]
fn a_linux_host_believes_the_announcements() {
    const FIRST: Mac = [2, 0, 0, 0, 0, 0xa1];
    const SECOND: Mac = [2, 0, 0, 0, 0, 0xa2];
    let host = Namespace::new();
    host.sysctl("net/ipv6/conf/default/accept_dad", "0");
    // We are the wire of the host's interface, and the two gateways on it.
    let wire = host.inside(|| {
        let builder = tun_rs::DeviceBuilder::new()
            .name("lan0")
            .layer(tun_rs::Layer::L2);
        let device = builder.build_sync().unwrap();
        device.set_nonblocking(true).unwrap();
        device
    });
    host.ip("addr add 10.1.0.1/24 dev lan0");
    host.ip("addr add fd00:1::1/64 dev lan0 nodad");
    host.ip("link set lan0 up");
    for address in ["10.1.0.7", "fd00:1::7"] {
        let mut first = Announcer::new(FIRST, None, 8);
        let mut second = Announcer::new(SECOND, None, 8);
        let (mut frame, mut out) = ([0; 2048], [0; FRAME]);
        let entry = || host.ip(&format!("neigh show {address} dev lan0"));

        // The host asks, the active gateway answers.
        second.register(ip(address));
        first.activate(ip(address), Instant::now());
        host.inside(move || {
            let any = if ip(address).is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            UdpSocket::bind(any)
                .unwrap()
                .send_to(b"x", (ip(address), 9))
                .unwrap();
        });
        let start = Instant::now();
        while !entry().contains("02:00:00:00:00:a1") {
            assert!(
                start.elapsed() < BOUND,
                "the host did not take the answer: {}",
                entry()
            );
            while let Ok(length) = wire.recv(&mut frame) {
                assert_eq!(
                    second
                        .on_frame(&frame[..length], Instant::now(), &mut out)
                        .reply,
                    None
                );
                let heard = first.on_frame(&frame[..length], Instant::now(), &mut out);
                if let Some(reply) = heard.reply {
                    wire.send(&out[..reply]).unwrap();
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        while first.poll(Instant::now(), &mut out).is_some() {}

        // The client moves: the other one announces, the host follows, the first yields.
        thread::sleep(Duration::from_millis(20));
        second.activate(ip(address), Instant::now());
        let length = second.poll(Instant::now(), &mut out).unwrap();
        wire.send(&out[..length]).unwrap();
        let heard = first.on_frame(&out[..length], Instant::now(), &mut [0; FRAME]);
        assert_eq!(
            heard.yielded,
            Some(Yielded {
                address: ip(address),
                to: SECOND
            })
        );
        let start = Instant::now();
        while !entry().contains("02:00:00:00:00:a2") {
            assert!(
                start.elapsed() < BOUND,
                "the host did not follow: {}",
                entry()
            );
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!first.is_active(ip(address)) && second.is_active(ip(address)));
    }
}
