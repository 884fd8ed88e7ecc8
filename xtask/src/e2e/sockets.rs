//! Nodes without XDP programs: ESP in UDP by sockets, and gateways whose kernel forwards.

use super::failover::{SOON, survives};
use super::{Case, ensure, must_ping, ping, up};
use crate::lab::topology::{TARGET_V6, TARGETS, gateway_inside};
use crate::lab::{Lab, NODE_USER, Offloads, Place, Setup};
use crate::probe::Stream;
use crate::traffic::transfer;
use crate::{paths, rootless, sh};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;
use std::time::Duration;

/// The router on the outside.
const ROUTER: &str = "192.0.2.254";

pub(super) const CASES: &[Case] = &[
    ("sockets_reach_every_target", reach_every_target),
    ("sockets_forward_to_the_lan_only", forward_to_the_lan_only),
    ("sockets_carry_tcp_both_ways", carry_tcp_both_ways),
    ("sockets_over_ipv6", over_ipv6),
    ("sockets_fail_over_after_kill", after_kill),
    ("sockets_fail_over_after_lan_cable_pulled", after_lan_pulled),
    ("sockets_fail_over_from_frozen_daemon", from_frozen),
    ("sockets_and_xdp_together", together),
    ("demo_without_root", demo_without_root),
];

fn setup() -> Setup {
    Setup {
        without_xdp: true,
        ..Setup::default()
    }
}

fn reach_every_target(lab: &mut Lab) -> Result<()> {
    up(lab, &setup())?;
    for target in TARGETS {
        must_ping(lab, Place::Client, &[target])?;
    }
    for (place, inside) in [(Place::Client, "tun"), (Place::Gateway(1), "routed")] {
        let status = lab.status(place)?;
        let kinds: Vec<&str> = status.interfaces.iter().map(|i| i.kind.as_str()).collect();
        ensure(kinds == ["udp", inside], || format!("{place}: {kinds:?}"))?;
    }
    Ok(())
}

/// What comes out of a tunnel goes to the LAN or nowhere, though the kernel could forward it elsewhere.
fn forward_to_the_lan_only(lab: &mut Lab) -> Result<()> {
    let gateway = gateway_inside(1).to_string();
    let setup = Setup {
        tunnels: format!(
            "Tunnel8 = {gateway} - {gateway} Cluster 1\nTunnel9 = {ROUTER} - {ROUTER} Cluster 1\n"
        ),
        cluster: vec![1],
        ..setup()
    };
    lab.configure(&setup)?;
    lab.start_all()?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    for (address, counter) in [
        (gateway.as_str(), "local_destination"),
        (ROUTER, "no_route"),
    ] {
        let before = counted(lab, counter)?;
        let (answered, said) = ping(lab, Place::Client, &["-W1", address])?;
        ensure(!answered, || {
            format!("{address} answers by the tunnel: {said}")
        })?;
        lab.wait(counter, Duration::from_secs(2), |lab| {
            Ok((counted(lab, counter)? > before).then_some(()))
        })?;
    }
    Ok(())
}

fn counted(lab: &Lab, counter: &str) -> Result<u64> {
    Ok(lab.status(Place::Gateway(1))?.counter(counter))
}

fn carry_tcp_both_ways(lab: &mut Lab) -> Result<()> {
    // As on a machine whose interfaces have all their offloads.
    lab.set_offloads(Offloads::All)?;
    up(lab, &setup())?;
    let stream = Stream::start(lab)?;
    transfer(lab, TARGETS[0], 2, &[])?;
    transfer(lab, TARGETS[0], 2, &["-R"])?;
    transfer(lab, TARGETS[0], 2, &["-M", "100"])?;
    let report = stream.finish()?;
    lab.set_offloads(Offloads::Usual)?;
    ensure(report.error.is_none(), || format!("{report:?}"))
}

fn over_ipv6(lab: &mut Lab) -> Result<()> {
    let setup = Setup {
        outside_v6: true,
        ipv6: true,
        client_outside: None,
        ..setup()
    };
    up(lab, &setup)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    must_ping(lab, Place::Client, &[TARGET_V6])
}

fn after_kill(lab: &mut Lab) -> Result<()> {
    up(lab, &setup())?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))
}

fn after_lan_pulled(lab: &mut Lab) -> Result<()> {
    up(lab, &setup())?;
    survives(lab, SOON, |lab, number| lab.pull_lan(number))?;
    for number in 1..=3 {
        lab.restore_lan(number)?;
    }
    must_ping(lab, Place::Client, &[TARGETS[1]])
}

/// Nobody reflects its heartbeats any more: without an XDP program it is dead at once.
fn from_frozen(lab: &mut Lab) -> Result<()> {
    up(lab, &setup())?;
    let mut frozen = None;
    let outcome = survives(lab, SOON, |lab, number| {
        frozen = Some(number);
        lab.freeze(Place::Gateway(number))
    });
    if let Some(number) = frozen {
        lab.thaw(Place::Gateway(number))?;
    }
    outcome
}

/// A gateway with XDP and clients without understand each other: it takes ESP in UDP too.
fn together(lab: &mut Lab) -> Result<()> {
    lab.configure(&Setup::default())?;
    let file = lab.dir().join("client.toml");
    let text = fs::read_to_string(&file)?;
    let without = text.replace("[inside]", "xdp = \"off\"\n[inside]");
    fs::write(&file, without)?;
    lab.start_all()?;
    let soon = Duration::from_secs(15);
    lab.ping_until(Place::Client, TARGETS[0], soon)?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))
}

/// As whoever has no privileges sees it: the programs are a copy in a folder of theirs.
fn demo_without_root(_: &mut Lab) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("evergate-demo-{}", std::process::id()));
    let release = folder.join("release");
    fs::create_dir_all(&release)?;
    let outcome = (|| {
        let own = release.join("xtask");
        fs::copy(paths::own(), &own)?;
        fs::copy(
            paths::target().join("release/evergate"),
            release.join("evergate"),
        )?;
        for path in [&folder, &release] {
            chown(path, Some(NODE_USER), Some(NODE_USER))?;
        }
        let user = NODE_USER.to_string();
        let mut demo = Command::new("setpriv");
        demo.args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            .args(rootless::entering())
            .arg(own)
            .args(["demo", "--seconds", "21"])
            .env(rootless::INSIDE, "1")
            .env("HOME", &folder)
            .current_dir("/");
        let said = sh::read(&mut demo).context(
            "as a user without privileges, in a user namespace (may users make them here? see \
             user.max_user_namespaces)",
        )?;
        ensure(said.contains("outlived 4 failures"), || said)
    })();
    fs::remove_dir_all(&folder)?;
    outcome
}
