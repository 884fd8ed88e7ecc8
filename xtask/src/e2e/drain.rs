//! A gateway that lets go of its clients.

use super::{Case, ensure, in_order, must_ping, up, wait_active, wait_event};
use crate::lab::topology::{GATEWAYS, TARGETS, gateway_outside};
use crate::lab::{Lab, Place, Setup};
use crate::probe::{Probe, Stream, now_ns};
use anyhow::{Context, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("drain_to_the_standby_loses_no_packet", to_the_standby),
    (
        "drain_to_a_named_gateway_loses_no_packet",
        to_a_named_gateway,
    ),
    ("drain_of_all_but_one_in_turn", one_after_the_other),
    ("drain_of_a_gateway_in_reserve", in_reserve),
    ("drained_gateway_redirects_who_begins", who_begins),
    ("drained_gateway_refuses_who_begins", who_begins_unnamed),
    ("drain_of_the_only_gateway_ends_by_force", the_only_one),
];

/// The policy in order, where gateways that drain name these.
fn naming(standby: u8, gateways: &[u8], patience: &str) -> Setup {
    let named: Vec<String> = gateways
        .iter()
        .map(|number| format!("\"{}\"", gateway_outside(*number)))
        .collect();
    Setup {
        extra: format!(
            "\n[drain]\ngateways = [{}]\npatience = \"{patience}\"\n",
            named.join(", ")
        ),
        ..in_order(standby)
    }
}

/// Drains a gateway under 1,000 packets a second and a checked stream: not one packet is lost, and
/// all of it goes through `next` afterwards.
fn without_loss(lab: &mut Lab, number: u8, next: u8) -> Result<()> {
    let probe = Probe::start(lab)?;
    let stream = Stream::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let gateway = Place::Gateway(number);
    let (at_ns, before) = (now_ns(), std::time::Instant::now());
    let said = lab.evergate(gateway, &["drain", "--wait"])?;
    let drained = before.elapsed();
    ensure(said.contains("drained"), || format!("it said {said:?}"))?;
    wait_active(lab, next, Duration::from_secs(5))?;
    std::thread::sleep(Duration::from_millis(500));
    let gap = probe.outage_until_now(at_ns);
    let record = probe.finish()?;
    let report = stream.finish()?;
    let sent = record.sent.context("the probe tells what it sent")?;
    let lost = sent.saturating_sub(record.answers.len() as u64);
    print!(
        "{lost} of {sent} packets lost, longest gap {:.1} ms, drained in {:.1} s … ",
        gap.millis(),
        drained.as_secs_f64()
    );
    ensure(lost == 0, || {
        let drops = lab.drops();
        format!("{lost} of {sent} packets lost; dropped were {drops}")
    })?;
    ensure(report.error.is_none(), || {
        format!("the TCP stream: {report:?}")
    })?;
    let status = lab.status(gateway)?;
    ensure(
        status.sessions.is_empty() && status.drain.is_some_and(|d| d.sessions == 0),
        || format!("{gateway} still has {:?}", status.sessions),
    )?;
    wait_event(lab, gateway, "it says that it is drained", |event| {
        event.kind == "drain" && event.text.starts_with("drained")
    })?;
    let carries = lab.status(Place::Gateway(next))?;
    ensure(carries.sessions.iter().any(|s| s.active), || {
        format!("gw{next} does not carry the traffic: {carries:?}")
    })
}

fn to_the_standby(lab: &mut Lab) -> Result<()> {
    up(lab, &in_order(1))?;
    wait_active(lab, 1, Duration::from_secs(5))?;
    without_loss(lab, 1, 2)
}

/// No session with it yet: it is made first.
fn to_a_named_gateway(lab: &mut Lab) -> Result<()> {
    up(lab, &naming(0, &[1, 3], "60s"))?;
    wait_active(lab, 1, Duration::from_secs(5))?;
    without_loss(lab, 1, 3)?;
    wait_event(lab, Place::Client, "the client tells of it", |event| {
        event.kind == "redirected" && event.text.contains("for 192.0.2.3")
    })
    .map(drop)
}

/// As one restarts all gateways of a cluster.
fn one_after_the_other(lab: &mut Lab) -> Result<()> {
    up(lab, &naming(1, &GATEWAYS, "60s"))?;
    for _ in GATEWAYS {
        let status = lab.wait_client("a standby is keyed", Duration::from_secs(20), |s| {
            s.keyed().len() == 2 && s.active().is_some()
        })?;
        let number = status.active().context("no gateway is active")?;
        let next = status.keyed().into_iter().find(|n| *n != number);
        without_loss(lab, number, next.context("no standby")?)?;
        lab.evergate(Place::Gateway(number), &["drain", "--undo"])?;
    }
    Ok(())
}

/// It is left without a word from the traffic.
fn in_reserve(lab: &mut Lab) -> Result<()> {
    let status = up(lab, &in_order(1))?;
    let reserve = status
        .keyed()
        .into_iter()
        .find(|n| Some(*n) != status.active());
    let reserve = reserve.context("no gateway in reserve")?;
    lab.evergate(Place::Gateway(reserve), &["drain", "--wait"])?;
    let after = lab.wait_client("another standby", Duration::from_secs(10), |s| {
        s.keyed().len() == 2 && !s.keyed().contains(&reserve)
    })?;
    ensure(after.active() == status.active(), || {
        format!("traffic moved: {after:?}")
    })
}

/// A client that comes while the gateway drains.
fn begins_elsewhere(lab: &mut Lab, setup: &Setup, next: u8, why: &str) -> Result<()> {
    lab.configure(setup)?;
    for number in GATEWAYS {
        lab.start_gateway(number)?;
    }
    lab.evergate(Place::Gateway(1), &["drain"])?;
    lab.start(Place::Client)?;
    wait_active(lab, next, Duration::from_secs(10))?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    wait_event(lab, Place::Client, "the client tells why", |event| {
        event.kind == "key_failed" && event.text.contains(why)
    })?;
    let status = lab.status(Place::Gateway(1))?;
    ensure(status.sessions.is_empty(), || format!("{status:?}"))?;
    // Clients are taken again.
    lab.evergate(Place::Gateway(1), &["drain", "--undo"])?;
    for number in [2, 3] {
        lab.kill(Place::Gateway(number))?;
    }
    wait_active(lab, 1, Duration::from_secs(20)).map(drop)
}

fn who_begins(lab: &mut Lab) -> Result<()> {
    let setup = naming(0, &[1, 3], "60s");
    begins_elsewhere(lab, &setup, 3, "redirected to 192.0.2.3")
}

fn who_begins_unnamed(lab: &mut Lab) -> Result<()> {
    begins_elsewhere(lab, &in_order(0), 2, "not now")
}

/// The client has nowhere to go: it stays until the patience is over, and comes back when it may.
fn the_only_one(lab: &mut Lab) -> Result<()> {
    let setup = Setup {
        cluster: vec![1],
        ..naming(0, &[], "2s")
    };
    up(lab, &setup)?;
    let before = std::time::Instant::now();
    lab.evergate(Place::Gateway(1), &["drain"])?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    lab.evergate(Place::Gateway(1), &["drain", "--wait"])?;
    let took = before.elapsed();
    ensure((2.0..4.0).contains(&took.as_secs_f64()), || {
        format!("drained after {took:?}, with a patience of 2 s")
    })?;
    wait_event(lab, Place::Client, "the client tells why", |event| {
        event.kind == "redirected" && event.text.contains("no other gateway")
    })?;
    lab.evergate(Place::Gateway(1), &["drain", "--undo"])?;
    wait_active(lab, 1, Duration::from_secs(20))?;
    must_ping(lab, Place::Client, &[TARGETS[0]])
}
