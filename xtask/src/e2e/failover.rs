//! What a TCP connection lives through.

use super::{Case, active, ensure, in_order, must_ping, up, wait_active, without_standby};
use crate::lab::topology::{CLIENT_INNER, TARGETS, TUN};
use crate::lab::{Lab, Place, Setup};
use crate::probe::{Probe, Stream, now_ns};
use anyhow::{Context, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("failover_after_kill", after_kill),
    ("failover_after_kill_under_load", after_kill_under_load),
    ("failover_without_standby", without_standby_keyed),
    ("failover_after_lan_cable_pulled", after_lan_pulled),
    ("failover_after_wan_cable_pulled", after_wan_pulled),
    ("claim_unheard_while_the_lan_was_out", claim_unheard),
    ("failover_from_frozen_daemon", from_frozen),
    ("failover_with_deferred_heartbeats", deferred),
    ("failover_after_sigterm", after_sigterm),
    ("failover_with_address_from_the_pool", from_pool),
    ("failover_seen_first_by_the_target", target_first),
    ("failover_twice", twice),
    ("gateway_that_comes_back_is_used_again", comes_back),
];

/// With a standby keyed. Generous: build machines are busy; `cargo xtask bench` measures.
pub(super) const SOON: f64 = 500.0;
/// Until a node knows of a link.
const SOON_UP: Duration = Duration::from_secs(5);
/// With an IKE exchange, which may meet a dead gateway first.
pub(super) const WITH_EXCHANGE: f64 = 6000.0;

/// Does something to the active gateway under a probe and a checked stream, which must go on
/// over another gateway after at most `most_ms`.
pub(super) fn survives(
    lab: &mut Lab,
    most_ms: f64,
    act: impl FnOnce(&mut Lab, u8) -> Result<()>,
) -> Result<()> {
    let probe = Probe::start(lab)?;
    let stream = Stream::start(lab)?;
    std::thread::sleep(Duration::from_millis(300));
    let before = active(lab)?;
    let at_ns = now_ns();
    act(lab, before)?;
    lab.wait_client(
        "another gateway is active",
        Duration::from_millis(most_ms as u64),
        |s| s.active().is_some_and(|now| now != before),
    )?;
    std::thread::sleep(Duration::from_millis(800));
    let outage = probe.outage_until_now(at_ns);
    ensure(outage.recovered && outage.millis() <= most_ms, || {
        format!(
            "outage of {:.1} ms, expected at most {most_ms} ms ({outage:?})",
            outage.millis()
        )
    })?;
    let report = stream.finish()?;
    ensure(report.error.is_none(), || {
        format!("the TCP stream: {report:?}")
    })
}

fn after_kill(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))
}

fn after_kill_under_load(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    let iperf = crate::traffic::Iperf::start(lab, TARGETS[2], 4, &[])?;
    std::thread::sleep(Duration::from_secs(1));
    survives(lab, 2.0 * SOON, |lab, number| {
        lab.kill(Place::Gateway(number))
    })?;
    let transfer = iperf.finish(Duration::from_secs(20));
    ensure(transfer.error.is_none(), || format!("iperf3: {transfer:?}"))
}

fn without_standby_keyed(lab: &mut Lab) -> Result<()> {
    let status = up(lab, &without_standby())?;
    ensure(status.keyed().len() == 1, || {
        format!("keyed without standby: {:?}", status.keyed())
    })?;
    survives(lab, WITH_EXCHANGE, |lab, number| {
        lab.kill(Place::Gateway(number))
    })
}

fn after_lan_pulled(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    survives(lab, SOON, |lab, number| lab.pull_lan(number))?;
    for number in 1..=3 {
        lab.restore_lan(number)?;
    }
    must_ping(lab, Place::Client, &[TARGETS[1]])
}

/// While a gateway's cable is out, someone else says that he has the client's address. When it is back
/// the gateway must say otherwise as soon as the client speaks: nobody tells it what it has missed.
fn claim_unheard(lab: &mut Lab) -> Result<()> {
    let alone = Setup {
        general: "Heartbeat = NONE\nStandby = 0\nRandomOrder = no\n".into(),
        cluster: vec![1],
        ..Setup::default()
    };
    up(lab, &alone)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    // The address is announced several times; this is after the last.
    std::thread::sleep(Duration::from_millis(1500));
    lab.pull_lan(1)?;
    let nobody = "02:00:00:00:00:aa";
    let claim = ["ip", "neigh", "replace", CLIENT_INNER, "lladdr", nobody];
    let claim = [&claim[..], &["dev", "eth0", "nud", "reachable"]].concat();
    lab.exec(Place::Target, &claim)?;
    lab.restore_lan(1)?;
    lab.wait("the gateway sees its link", SOON_UP, |lab| {
        let events = lab.events(Place::Gateway(1), 0)?;
        let back = events.iter().any(|event| event.text.contains("lan0 is up"));
        Ok(back.then_some(()))
    })?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(3))
}

fn after_wan_pulled(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    survives(lab, SOON, |lab, number| lab.pull_wan(number))?;
    for number in 1..=3 {
        lab.restore_wan(number)?;
    }
    must_ping(lab, Place::Client, &[TARGETS[1]])
}

fn from_frozen(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    let mut frozen = 0;
    survives(lab, SOON, |lab, number| {
        frozen = number;
        lab.freeze(Place::Gateway(number))
    })?;
    // Thawed, it must not take the client's address back on the LAN by itself.
    lab.thaw(Place::Gateway(frozen))?;
    for _ in 0..20 {
        must_ping(lab, Place::Client, &[TARGETS[0]])?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn deferred(lab: &mut Lab) -> Result<()> {
    let general = super::general(1, true).replace("INSTANT", "DEFERRED");
    up(
        lab,
        &Setup {
            general,
            ..Setup::default()
        },
    )?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))
}

/// A gateway that goes in order says so: nobody waits for a heartbeat.
fn after_sigterm(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    survives(lab, SOON, |lab, number| {
        lab.stop(Place::Gateway(number)).map(drop)
    })
}

/// Gateways do not talk to each other: each computes the same inner address.
fn from_pool(lab: &mut Lab) -> Result<()> {
    up(
        lab,
        &Setup {
            from_pool: true,
            ..Setup::default()
        },
    )?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))?;
    let inner = lab.exec(
        Place::Client,
        &["ip", "-4", "-o", "addr", "show", "dev", TUN],
    )?;
    let address = inner
        .split_whitespace()
        .find_map(|word| word.strip_suffix("/32"))
        .context("the TUN device has no address")?;
    lab.ping_until(Place::Target, address, Duration::from_secs(5))
}

/// Nobody sends but the target, so the client notices nothing: the gateway in reserve hears that
/// the target asks for the client in vain, and takes over.
fn target_first(lab: &mut Lab) -> Result<()> {
    let mut setup = Setup::default();
    setup.general = setup.general.replace("INSTANT", "DEFERRED");
    up(lab, &setup)?;
    let before = active(lab)?;
    lab.kill(Place::Gateway(before))?;
    lab.exec(Place::Target, &["ip", "neigh", "flush", "dev", "eth0"])?;
    lab.ping_until(Place::Target, CLIENT_INNER, Duration::from_secs(10))?;
    let after = active(lab)?;
    ensure(after != before, || format!("gw{before} is still active"))
}

fn twice(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))?;
    survives(lab, WITH_EXCHANGE, |lab, number| {
        lab.kill(Place::Gateway(number))
    })
}

/// In order gw1, gw2, gw3: a gw1 that died and came back is the next one after gw2 and gw3.
fn comes_back(lab: &mut Lab) -> Result<()> {
    up(lab, &in_order(0))?;
    ensure(active(lab)? == 1, || "gw1 is the first in order".into())?;
    lab.kill(Place::Gateway(1))?;
    wait_active(lab, 2, Duration::from_secs(10))?;
    lab.start_gateway(1)?;
    lab.kill(Place::Gateway(3))?;
    lab.kill(Place::Gateway(2))?;
    wait_active(lab, 1, Duration::from_secs(20))?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(5))
}
