//! Fresh keys while traffic flows: nothing is lost, whoever begins.

use super::{Case, SOON, active, ensure, in_order, survives, up};
use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Event, Lab, Place, Setup};
use crate::probe::{Probe, Stream, now_ns};
use crate::traffic::Iperf;
use anyhow::{Context, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("rekey_loses_no_packet", loses_no_packet),
    ("rekey_begun_by_both_at_once", begun_by_both),
    ("rekey_by_traffic_at_full_rate", by_traffic),
    ("failover_right_after_an_ike_rekey", failover_after),
];

/// Reasons to drop that a rekey which goes wrong would show in.
const DROPS: [&str; 7] = [
    "unknown_spi",
    "bad_icv",
    "too_old",
    "replayed",
    "no_session",
    "inner_source",
    "sequence_exhausted",
];

fn rekeying(ike: &str) -> Setup {
    Setup {
        extra: format!("\n[ike]\n{ike}\n"),
        ..in_order(1)
    }
}

/// What a node has told about fresh keys with the active gateway's session: pairs of SAs, IKE SAs.
fn rekeyed(lab: &Lab, place: Place) -> Result<(usize, usize)> {
    let events = lab.events(place, 0)?;
    let of = |what: &str| {
        let told = |e: &&Event| e.kind == "session_rekeyed" && e.text.contains(what);
        events.iter().filter(told).count()
    };
    Ok((of("pair of SAs"), of("IKE SA")))
}

fn drops(lab: &Lab) -> Result<Vec<(String, u64)>> {
    // The data plane tells its figures a few times a second.
    std::thread::sleep(Duration::from_millis(500));
    let mut all = Vec::new();
    for place in GATEWAYS
        .map(Place::Gateway)
        .into_iter()
        .chain([Place::Client])
    {
        let status = lab.status(place)?;
        all.extend(DROPS.map(|name| (format!("{place} {name}"), status.counter(name))));
    }
    Ok(all)
}

/// Runs a probe and a checked stream for so long; none of it may be lost.
pub(super) fn undisturbed(lab: &Lab, time: Duration) -> Result<()> {
    let before = drops(lab)?;
    let probe = Probe::start(lab)?;
    let stream = Stream::start(lab)?;
    let from = now_ns();
    std::thread::sleep(time);
    let until = now_ns();
    let report = stream.finish()?;
    let record = probe.finish()?;
    let lost = record.lost(from, until);
    let after = drops(lab)?;
    ensure(lost == 0 && before == after, || {
        let more: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
        format!("{lost} packets of the probe lost; dropped: {more:?}")
    })?;
    ensure(report.error.is_none() && report.checked > 1_000_000, || {
        format!("the TCP stream: {report:?}")
    })
}

fn loses_no_packet(lab: &mut Lab) -> Result<()> {
    up(lab, &rekeying("rekey_child = \"2s\"\nrekey_ike = \"5s\""))?;
    let number = active(lab)?;
    undisturbed(lab, Duration::from_secs(16))?;
    // Two gateways are keyed, and the sessions with both get fresh keys.
    let (pairs, ike) = rekeyed(lab, Place::Client)?;
    ensure(pairs >= 12 && ike >= 4, || {
        format!("fresh keys: {pairs} pairs of SAs, {ike} IKE SAs")
    })?;
    ensure(active(lab)? == number, || {
        "another gateway became active".into()
    })?;
    few_sas(lab)
}

/// Neither jitter nor patience: both ends begin when the time has come, again and again.
fn begun_by_both(lab: &mut Lab) -> Result<()> {
    up(
        lab,
        &rekeying("rekey_child = \"1s\"\nrekey_ike = \"3s\"\nrekey_jitter = 0"),
    )?;
    undisturbed(lab, Duration::from_secs(15))?;
    let (pairs, ike) = rekeyed(lab, Place::Client)?;
    ensure(pairs >= 20 && ike >= 6, || {
        format!("fresh keys: {pairs} pairs of SAs, {ike} IKE SAs")
    })?;
    few_sas(lab)
}

/// A limit of packets that the traffic reaches several times a second.
fn by_traffic(lab: &mut Lab) -> Result<()> {
    up(lab, &rekeying("rekey_packets = 5000"))?;
    let before = drops(lab)?;
    let stream = Stream::start(lab)?;
    let transfer = Iperf::start(lab, TARGETS[2], 8, &[])?.finish(Duration::from_secs(30));
    ensure(transfer.error.is_none(), || format!("iperf3: {transfer:?}"))?;
    let report = stream.finish()?;
    ensure(report.error.is_none(), || {
        format!("the TCP stream: {report:?}")
    })?;
    let (pairs, _) = rekeyed(lab, Place::Client)?;
    ensure(pairs >= 8, || format!("{pairs} fresh pairs of SAs"))?;
    let after = drops(lab)?;
    ensure(before == after, || {
        format!("dropped: {before:?}, then {after:?}")
    })?;
    few_sas(lab)
}

/// What was replaced goes after a while.
pub(super) fn few_sas(lab: &Lab) -> Result<()> {
    for place in [Place::Client, Place::Gateway(1)] {
        lab.wait("old SAs are gone", Duration::from_secs(8), |lab| {
            let sessions = lab.status(place)?.sessions.len();
            let list = lab.evergate(place, &["sa", "list", "--json"])?;
            let list: serde_json::Value = serde_json::from_str(&list)?;
            let pairs = list.as_array().context("no list of SAs")?.len() / 2;
            // Replaced ones receive for three seconds more.
            Ok((pairs <= 6 * sessions).then_some(()))
        })?;
    }
    Ok(())
}

fn failover_after(lab: &mut Lab) -> Result<()> {
    up(lab, &rekeying("rekey_child = \"2s\"\nrekey_ike = \"3s\""))?;
    survives(lab, SOON, |lab, number| {
        let since = lab.events(Place::Client, 0)?.last().map_or(0, |e| e.seq);
        lab.wait("a fresh IKE SA", Duration::from_secs(10), |lab| {
            let fresh = lab
                .events(Place::Client, since)?
                .into_iter()
                .any(|e| e.gateway_number() == Some(number) && e.text.contains("fresh IKE SA"));
            Ok(fresh.then_some(()))
        })?;
        lab.kill(Place::Gateway(number))
    })
}
