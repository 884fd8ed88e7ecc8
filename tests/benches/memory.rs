//! Memory of idle pairs of SAs, user space and BPF maps together.
//!
//! A real data plane (its programs loaded, its worker running) on a veth pair in a namespace of its own gets sessions
//! as a gateway does: each of another client, with a pair of SAs, a heartbeat key, an inner address and
//! ESP in UDP; four clients behind each outer address. Counted are the resident memory of this process
//! and what the kernel says that the maps take (`memlock` in `/proc/self/fdinfo`), before and after.

#[allow(unused, reason = "only the namespaces are needed")]
#[path = "../tests/net_lab/mod.rs"]
mod net_lab;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use evergate::dataplane::loader::{OutsideSettings, XdpMode};
use evergate::dataplane::{
    Dataplane, Discovery, GroupId, GroupSpec, InsideOptions, Options, OutsideOptions,
};
use evergate::esp::{Backend, UdpEncap};
use evergate::sadb::{
    Change, Cipher, HeartbeatKey, Key, Producer, SaSpec, Sadb, Salt, SessionSpec,
};
use evergate_common::maps::MAX_SAS;
use ipnet::IpNet;
use net_lab::{Lab, Watched, enter};

/// Fewer than the inner prefixes that the map has room for.
const PAIRS: u32 = 100_000;
/// Sessions that are added at once, as a herd of clients does it.
const AT_ONCE: u32 = 500;

fn main() -> Result<()> {
    // As a node does.
    evergate::privilege::memory::keep_tables_apart();
    // `cargo test --benches` only wants to know that it runs.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let pairs = if quick { 2 * AT_ONCE } else { PAIRS };
    let lab = Lab::new();
    let watched = lab.watch();
    enter(&lab.host.0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(&watched, pairs))
}

async fn measure(watched: &Watched, pairs: u32) -> Result<()> {
    let interface = |name: &str| {
        let fib = watched.fib();
        let found = fib.interfaces().iter().find(|one| one.name == name);
        found
            .cloned()
            .with_context(|| format!("no interface {name}"))
    };
    let outside_address = IpAddr::from([192, 0, 2, 1]);
    let (mut dataplane, mut reports) = Dataplane::start(Options {
        logbook: None,
        outside: interface("wan0")?,
        outside_address,
        port: OutsideOptions::Xdp(XdpMode::Auto),
        inside: InsideOptions::Lan {
            interface: interface("lan0")?,
            mode: XdpMode::Auto,
        },
        reflect: OutsideSettings {
            reflect_plain: false,
            reflect_keyed: true,
            strangers: false,
            max_sas: MAX_SAS,
            ..OutsideSettings::default()
        },
        translation: None,
        discovery: Discovery::Probe,
        dead_man: Duration::from_secs(1),
        backend: Backend::default(),
        fib: Arc::clone(&watched.subscription.fib),
        in_use: watched.in_use().clone(),
        workers: 1,
        keep_alive: Duration::from_secs(20),
        busy_poll: Duration::ZERO,
    })?;
    let mut sadb = Sadb::new();
    add(&mut sadb, &mut dataplane, 0..AT_ONCE).await?;
    settle(&dataplane);

    let (process, maps) = (resident()?, map_bytes()?);
    let start = Instant::now();
    for first in (AT_ONCE..AT_ONCE + pairs).step_by(AT_ONCE as usize) {
        dataplane.pulse().beat(Instant::now());
        add(&mut sadb, &mut dataplane, first..first + AT_ONCE).await?;
        while reports.try_recv().is_ok() {}
    }
    let took = start.elapsed();
    settle(&dataplane);
    let held = dataplane.views().load().sessions.len();
    assert_eq!(held, (AT_ONCE + pairs) as usize, "the worker has them all");

    let process = (resident()? - process) as f64 / f64::from(pairs);
    println!("{pairs} idle pairs of SAs, added in {took:.1?}; bytes a pair");
    println!("{:<28} {process:>8.0}", "process, resident");
    let mut kernel = 0.0;
    for ((id, name), bytes) in map_bytes()? {
        let before = maps.get(&(id, name.clone())).copied().unwrap_or(0);
        let each = (bytes as f64 - before as f64) / f64::from(pairs);
        if each >= 0.5 {
            println!("{:<28} {each:>8.0}", format!("map {name}"));
        }
        kernel += each;
    }
    println!("{:<28} {:>8.0}", "together", process + kernel);
    dataplane.stop();
    Ok(())
}

/// Waits until the worker has shown itself twice: what it needs for that is counted too.
fn settle(dataplane: &Dataplane) {
    let view = dataplane.views();
    for _ in 0..2 {
        let at = view.load().at;
        let start = Instant::now();
        while view.load().at == at && start.elapsed() < Duration::from_secs(10) {
            dataplane.pulse().beat(Instant::now());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

async fn add(
    sadb: &mut Sadb,
    dataplane: &mut Dataplane,
    numbers: std::ops::Range<u32>,
) -> Result<()> {
    for number in numbers {
        let group = GroupId::Peer(number);
        dataplane.set_group(GroupSpec {
            id: group,
            prefixes: vec![IpNet::from(inner(number))],
            watch: None,
            on_demand: false,
        })?;
        // Drawn as the key exchange does it.
        let spi = sadb.allocate_spi(&mut rand::rng());
        for change in sadb.insert(session(number, spi)?)? {
            if let Change::Add(spec) = change {
                dataplane.add_session(spec, group, true)?;
            }
        }
    }
    dataplane.let_all_in().await?;
    Ok(())
}

fn inner(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0A80_0000 + number).into()
}

fn session(number: u32, spi: u32) -> Result<SessionSpec> {
    let outside = Ipv4Addr::from(0xC612_0000 + number / 4);
    let mut spec = SessionSpec::new(IpAddr::from([192, 0, 2, 1]), outside.into(), Producer::Ike);
    spec.peer = format!("client-{number}.example").into();
    spec.encap = Some(UdpEncap {
        local_port: 4500,
        remote_port: 40_000 + (number % 4) as u16,
    });
    spec.roams = true;
    let sa = |spi: u32, direction: u8| -> Result<SaSpec> {
        let mut key = [direction; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let key = Key::new(&key)?;
        Ok(SaSpec::new(spi, Cipher::Aes256Gcm, key, Salt::from([9; 4])))
    };
    spec.inbound = Some(sa(spi, 1)?);
    spec.outbound = Some(sa(0x1000 + number, 2)?);
    spec.remote_inner = vec![IpNet::from(inner(number))].into();
    spec.local_inner = vec!["10.1.0.0/24".parse()?].into();
    spec.heartbeat_key = Some(HeartbeatKey::from([3; 16]));
    Ok(spec)
}

/// Bytes of this process that lie in memory.
fn resident() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm
        .split_whitespace()
        .nth(1)
        .context("no second number")?;
    Ok(pages.parse::<u64>()? * rustix::param::page_size() as u64)
}

/// What the kernel takes for each map that this process holds, by the map's number and name.
fn map_bytes() -> Result<BTreeMap<(u32, String), u64>> {
    let mut maps = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        // Closed meanwhile: the descriptor of this very directory.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else {
            continue;
        };
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|line| line.trim().to_owned())
        };
        let (Some(id), Some(bytes)) = (value("map_id:"), value("memlock:")) else {
            continue;
        };
        let kind = match value("map_type:").as_deref() {
            Some("1") => "of hashes",
            Some("11") => "of prefixes",
            _ => "of another type",
        };
        maps.insert((id.parse()?, kind.to_owned()), bytes.parse()?);
    }
    Ok(maps)
}
