//! The tunnel while nothing goes wrong.

use super::{Case, active, ensure, in_order, must_ping, ping, up, wait_active};
use crate::lab::topology::{
    CLIENT_INNER, CLIENT_OUTSIDE, TARGET_V6, TARGETS, TUN, gateway_inside, gateway_outside,
};
use crate::lab::{Lab, Place, Setup};
use crate::probe::Stream;
use crate::traffic::transfer;
use anyhow::{Context, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("tunnel_reaches_every_target", reaches_every_target),
    ("tunnel_carries_tcp_both_ways", carries_tcp_both_ways),
    ("tunnel_mtu_is_what_it_says", mtu_is_what_it_says),
    ("tunnel_cuts_what_may_be_cut", cuts_what_may_be_cut),
    ("tunnel_hides_inner_packets", hides_inner_packets),
    ("tunnel_plain_heartbeats", plain_heartbeats),
    ("tunnel_ipv6_inside", ipv6_inside),
    ("tunnel_with_sas_by_hand", sas_by_hand),
    ("gateway_starts_the_session", gateway_starts_the_session),
    (
        "answer_over_another_gateway_makes_a_session_there",
        answer_over_another_gateway,
    ),
];

fn reaches_every_target(lab: &mut Lab) -> Result<()> {
    let status = up(lab, &Setup::default())?;
    for target in TARGETS {
        must_ping(lab, Place::Client, &[target])?;
    }
    let session = status
        .sessions
        .iter()
        .find(|s| s.active)
        .context("no session is active")?;
    ensure(session.initiator, || {
        format!("the client did not initiate: {session:?}")
    })?;
    let gateway = Place::Gateway(active(lab)?);
    // The data plane tells its figures a few times a second.
    lab.wait(
        "the gateway counts packets of the session both ways",
        Duration::from_secs(2),
        |lab| {
            let sessions = lab.status(gateway)?.sessions;
            Ok(sessions
                .iter()
                .any(|s| s.packets_in > 0 && s.packets_out > 0)
                .then_some(()))
        },
    )?;
    for place in [Place::Client, Place::Gateway(1)] {
        let status = lab.status(place)?;
        let outside = status.interfaces.iter().find(|i| i.side == "outside");
        ensure(outside.is_some_and(|i| i.kind == "xdp-native"), || {
            format!("{place}: the outside interface is {outside:?}, expected xdp-native on veth")
        })?;
    }
    Ok(())
}

fn carries_tcp_both_ways(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    let stream = Stream::start(lab)?;
    transfer(lab, TARGETS[0], 2, &[])?;
    transfer(lab, TARGETS[0], 2, &["-R"])?;
    // Super-packets of as many segments as there can be.
    transfer(lab, TARGETS[0], 2, &["-M", "100"])?;
    let report = stream.finish()?;
    ensure(report.error.is_none(), || format!("{report:?}"))
}

fn mtu_is_what_it_says(lab: &mut Lab) -> Result<()> {
    let status = up(lab, &Setup::default())?;
    let tun = status
        .interfaces
        .iter()
        .find(|i| i.name == TUN)
        .context("no TUN in the status")?;
    ensure((1400..1500).contains(&tun.mtu), || {
        format!("MTU of the TUN: {}", tun.mtu)
    })?;
    // IPv4 and ICMP headers are 28 bytes; -M do: no fragments.
    for size in [1400, tun.mtu] {
        must_ping(
            lab,
            Place::Client,
            &["-M", "do", "-s", &(size - 28).to_string(), TARGETS[0]],
        )?;
    }
    let too_big = (tun.mtu - 27).to_string();
    let (answered, said) = ping(
        lab,
        Place::Client,
        &["-M", "do", "-s", &too_big, TARGETS[0]],
    )?;
    ensure(!answered && said.contains("too long"), || {
        format!("one byte too many: {said}")
    })
}

/// A packet as long as the LAN carries is longer than the tunnel does. Without the don't-fragment bit it
/// arrives all the same, with it its sender is told.
fn cuts_what_may_be_cut(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    let whole = ["-s", "1472", "-I", TARGETS[0], CLIENT_INNER];
    must_ping(lab, Place::Target, &[&["-M", "dont"], &whole[..]].concat())?;
    let gateway = Place::Gateway(active(lab)?);
    lab.wait("it is counted", Duration::from_secs(2), |lab| {
        let cut = lab.status(gateway)?.counter("inner_fragmented");
        Ok((cut > 0).then_some(()))
    })?;
    let (answered, said) = ping(lab, Place::Target, &[&["-M", "do"], &whole[..]].concat())?;
    ensure(!answered && said.contains("Frag needed"), || said)
}

/// Nothing readable on the outside: neither the inner addresses nor the payload's pattern.
fn hides_inner_packets(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    let before = no_route(lab)?;
    must_ping(lab, Place::Client, &["-c20", "-i0.01", TARGETS[1]])?;
    // The router has no route to the targets: a packet that left in the clear is counted there.
    let after = no_route(lab)?;
    ensure(before == after, || {
        format!("{} packets left unprotected", after - before)
    })
}

/// Packets that the router outside had no route for.
pub(super) fn no_route(lab: &Lab) -> Result<u64> {
    let text = lab.exec(Place::Wan, &["cat", "/proc/net/netstat"])?;
    let mut lines = text.lines().filter(|l| l.starts_with("IpExt:"));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let found = names
        .split(' ')
        .zip(values.split(' '))
        .find(|(name, _)| *name == "InNoRoutes");
    found
        .and_then(|(_, value)| value.parse().ok())
        .context("no InNoRoutes in /proc/net/netstat")
}

fn plain_heartbeats(lab: &mut Lab) -> Result<()> {
    let mut setup = Setup {
        accept: "plain".into(),
        ..Setup::default()
    };
    setup.general.push_str("HeartbeatForm = PLAIN\n");
    up(lab, &setup)?;
    let number = active(lab)?;
    std::thread::sleep(Duration::from_secs(1));
    ensure(active(lab)? == number, || {
        "plain heartbeats did not keep the gateway".into()
    })?;
    let answered = lab
        .status(Place::Gateway(number))?
        .counter("heartbeat_plain");
    ensure(answered > 10, || {
        format!("{answered} plain heartbeats answered in a silent second")
    })
}

fn ipv6_inside(lab: &mut Lab) -> Result<()> {
    up(
        lab,
        &Setup {
            ipv6: true,
            ..Setup::default()
        },
    )?;
    must_ping(lab, Place::Client, &["-6", TARGET_V6])?;
    let stream = Stream::start_at(lab, TARGET_V6)?;
    std::thread::sleep(Duration::from_millis(500));
    let report = stream.finish()?;
    ensure(report.error.is_none() && report.checked > 100_000, || {
        format!("{report:?}")
    })
}

/// No IKE at all (the keys are wrong everywhere): the data plane runs with SAs written by hand.
fn sas_by_hand(lab: &mut Lab) -> Result<()> {
    let setup = Setup {
        wrong_psk: vec![1, 2, 3],
        ..in_order(0)
    };
    lab.configure(&setup)?;
    lab.start_all()?;
    let gateway = gateway_outside(1).to_string();
    let (up_key, down_key) = (
        format!("0x{}", "5a".repeat(36)),
        format!("0x{}", "c3".repeat(36)),
    );
    let client = format!(
        "in spi 0x2001 key {down_key} out spi 0x1001 key {up_key} \
         sel {CLIENT_INNER} 10.0.0.0/24 \
         local {CLIENT_OUTSIDE} remote {gateway} gateway {gateway}"
    );
    let other = format!(
        "in spi 0x1001 key {up_key} out spi 0x2001 key {down_key} \
         sel 10.0.0.0/24 {CLIENT_INNER} \
         local {gateway} remote {CLIENT_OUTSIDE}"
    );
    for (place, words) in [(Place::Gateway(1), other), (Place::Client, client)] {
        let mut all = vec!["sa", "add"];
        all.extend(words.split_whitespace());
        lab.evergate(place, &all)
            .with_context(|| format!("sa add at {place}"))?;
    }
    // Without IKE nobody hands the client its inner address.
    let has = lab.exec(Place::Client, &["ip", "addr", "show", "dev", TUN])?;
    if !has.contains(CLIENT_INNER) {
        let address = format!("{CLIENT_INNER}/32");
        lab.exec(Place::Client, &["ip", "addr", "add", &address, "dev", TUN])?;
    }
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let list = lab.evergate(Place::Client, &["sa", "list"])?;
    ensure(list.contains("manual") && !list.contains("5a5a5a"), || {
        format!("sa list: {list}")
    })?;
    lab.evergate(Place::Client, &["sa", "flush"])?;
    let (answered, _) = ping(lab, Place::Client, &[TARGETS[0]])?;
    ensure(!answered, || "traffic flows after `sa flush`".into())
}

/// Traffic from the LAN for a client without a session: the gateway starts the exchange.
fn gateway_starts_the_session(lab: &mut Lab) -> Result<()> {
    lab.configure(&in_order(0))?;
    lab.start_all()?;
    let idle = lab.status(Place::Client)?;
    let route = format!("{CLIENT_INNER}/32");
    let via = gateway_inside(2).to_string();
    lab.exec(Place::Target, &["ip", "route", "add", &route, "via", &via])?;
    lab.ping_until(Place::Target, CLIENT_INNER, Duration::from_secs(10))?;
    let status = wait_active(lab, 2, Duration::from_secs(5))?;
    let session = status
        .sessions
        .iter()
        .find(|s| s.outside == gateway_outside(2).to_string())
        .context("the client has no session with gw2")?;
    ensure(!session.initiator && session.active, || {
        format!(
            "expected a session that gw2 started: {session:?}, before: {:?}",
            idle.sessions
        )
    })?;
    must_ping(lab, Place::Client, &[TARGETS[0]])
}

fn answer_over_another_gateway(lab: &mut Lab) -> Result<()> {
    up(lab, &in_order(0))?;
    ensure(active(lab)? == 1, || "gw1 is the first in order".into())?;
    let route = format!("{CLIENT_INNER}/32");
    let via = gateway_inside(3).to_string();
    lab.exec(Place::Target, &["ip", "route", "add", &route, "via", &via])?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let other = gateway_outside(3).to_string();
    lab.wait_client("a session with gw3", Duration::from_secs(2), |status| {
        status.sessions.iter().any(|s| s.outside == other)
    })
    .map(drop)
}
