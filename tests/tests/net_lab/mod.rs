//! Network namespaces with a host, a LAN peer and a watch, for the tests that need a real kernel.
//!
//! Needs root; nothing leaves the namespaces made here.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::IpAddr;
use std::panic::resume_unwind;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use evergate::dataplane::net::fib::{Fib, NextHop, Resolution};
use evergate::dataplane::net::fib_watch::{FibWatch, InUse, LinkChange, Subscription};
use nix::sched::{CloneFlags, setns};

/// How long a change may take to be seen. Typical is under a millisecond; the machine may be busy.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A network namespace that goes with this value, also when a test panics.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn ip(&self, arguments: &str) -> String {
        run("ip", &format!("-n {} {arguments}", self.0))
    }

    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{key}");
        let done = self.inside({
            let value = value.to_owned();
            move || std::fs::write(&path, value)
        });
        done.unwrap_or_else(|error| panic!("set {key} to {value}: {error}"));
    }

    /// Runs `work` on a thread of its own in this namespace.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
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

pub(crate) fn enter(namespace: &str) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
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
pub(crate) struct Lab {
    pub(crate) host: Namespace,
    pub(crate) peer: Namespace,
}

impl Lab {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn watch(&self) -> Watched {
        Watched::new(&self.host, || ())
    }
}

/// A watch that runs on a thread in the namespace until this value goes.
pub(crate) struct Watched {
    pub(crate) subscription: Subscription,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watched {
    /// `between` runs after the watch was opened and before it begins to follow.
    pub(crate) fn new(namespace: &Namespace, between: impl FnOnce() + Send + 'static) -> Self {
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

    pub(crate) fn lookup(&self, address: &str) -> NextHop {
        self.subscription.fib.load().lookup(ip(address))
    }

    pub(crate) fn fib(&self) -> Arc<Fib> {
        self.subscription.fib.load_full()
    }

    pub(crate) fn in_use(&self) -> &InUse {
        &self.subscription.in_use
    }

    pub(crate) fn index(&self, name: &str) -> u32 {
        let fib = self.fib();
        fib.interfaces()
            .iter()
            .find(|interface| interface.name == name)
            .unwrap()
            .index
    }

    /// Waits until the look-up answers so; returns how long that took.
    pub(crate) fn until(&self, address: &str, wanted: impl Fn(&NextHop) -> bool) -> Duration {
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

    pub(crate) fn until_resolution(&self, address: &str, wanted: Resolution) -> Duration {
        self.until(address, |found| found.resolution == wanted)
    }

    /// The first change that is so. A link that goes down is told at once, and again when its addresses
    /// have been read.
    pub(crate) fn until_change(&mut self, wanted: impl Fn(&LinkChange) -> bool) -> LinkChange {
        loop {
            let change = self.change();
            if wanted(&change) {
                return change;
            }
        }
    }

    pub(crate) fn change(&mut self) -> LinkChange {
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

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn unresolved(text: &str) -> Resolution {
    Resolution::Unresolved(ip(text))
}
