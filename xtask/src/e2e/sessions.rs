//! Sessions come, are refused, and go.

use super::tunnel::no_route;
use super::{
    Case, active, ensure, in_order, must_ping, ping, up, wait_active, wait_event, without_standby,
};
use crate::lab::topology::{CLIENT_INNER, TARGETS, TUN, gateway_outside};
use crate::lab::{Lab, Place, Setup};
use crate::probe::Stream;
use anyhow::{Context, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("wrong_psk_is_refused_and_the_next_gateway_tried", wrong_psk),
    ("all_gateways_down_is_told_and_recovered_from", all_down),
    ("sigterm_leaves_nothing_behind", sigterm_leaves_nothing),
    (
        "sigkill_leaves_nothing_that_stops_the_next_start",
        sigkill_and_start,
    ),
    ("policy_reload_refuses_a_broken_file", reload_broken),
    ("policy_reload_leaves_other_sessions_alone", reload_changed),
];

fn wrong_psk(lab: &mut Lab) -> Result<()> {
    up(
        lab,
        &Setup {
            wrong_psk: vec![1],
            ..in_order(0)
        },
    )?;
    ensure(active(lab)? == 2, || "gw2 is the next after gw1".into())?;
    let refused = wait_event(lab, Place::Client, "gw1's refusal is told", |event| {
        event.gateway_number() == Some(1) && event.text.to_lowercase().contains("authentication")
    })?;
    ensure(refused.kind != "session_up", || format!("{refused:?}"))?;
    let keyed = lab.status(Place::Client)?.keyed();
    ensure(!keyed.contains(&1), || format!("keyed: {keyed:?}"))
}

fn all_down(lab: &mut Lab) -> Result<()> {
    up(lab, &without_standby())?;
    for number in 1..=3 {
        lab.kill(Place::Gateway(number))?;
    }
    let leaked = no_route(lab)?;
    let told = lab.wait(
        "the application is told by ICMP",
        Duration::from_secs(30),
        |lab| {
            let (answered, said) = ping(lab, Place::Client, &[TARGETS[0]])?;
            ensure(!answered, || {
                "a ping was answered by nobody's gateway".into()
            })?;
            Ok((said.contains("nreachable") || said.contains("rohibited")).then_some(said))
        },
    )?;
    ensure(!told.contains("198.51.100.1 "), || {
        format!("told by the router: {told}")
    })?;
    wait_event(
        lab,
        Place::Client,
        "the rejected key request is told",
        |event| event.kind == "key_rejected",
    )?;
    lab.wait_client(
        "the counter `rejected` rises",
        Duration::from_secs(2),
        |status| status.counter("rejected") > 0,
    )?;
    ensure(no_route(lab)? == leaked, || {
        "packets left unprotected while no gateway was up".into()
    })?;
    lab.start_gateway(2)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(40))?;
    wait_active(lab, 2, Duration::from_secs(1)).map(drop)
}

fn sigterm_leaves_nothing(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    let number = active(lab)?;
    let gateway = Place::Gateway(number);
    let status = lab.stop(Place::Client)?;
    ensure(status.success(), || {
        format!("the client ended with {status}")
    })?;
    lab.wait(
        "the gateway's session is deleted",
        Duration::from_secs(3),
        |lab| Ok(lab.status(gateway)?.sessions.is_empty().then_some(())),
    )?;
    let links = lab.exec(Place::Client, &["ip", "link"])?;
    ensure(!links.contains(TUN), || {
        format!("the TUN device is still there: {links}")
    })?;
    no_program(lab, Place::Client, "out0")?;
    let status = lab.stop(gateway)?;
    ensure(status.success(), || {
        format!("gw{number} ended with {status}")
    })?;
    no_program(lab, gateway, "wan0")?;
    no_program(lab, gateway, "lan0")?;
    for place in [Place::Client, gateway] {
        let socket = lab.socket(place);
        ensure(!socket.exists(), || {
            format!("{} is still there", socket.display())
        })?;
    }
    lab.start(Place::Client)?;
    lab.start(gateway)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))
}

fn no_program(lab: &Lab, place: Place, interface: &str) -> Result<()> {
    let link = lab.exec(place, &["ip", "link", "show", interface])?;
    ensure(!link.contains("xdp"), || {
        format!("{place}: a program is still attached: {link}")
    })
}

fn sigkill_and_start(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    let number = active(lab)?;
    lab.kill(Place::Client)?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))?;
    for number in 1..=3 {
        lab.kill(Place::Gateway(number))?;
        lab.start_gateway(number)?;
    }
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(40))
        .with_context(|| format!("gw{number} was active first"))
}

fn reload_broken(lab: &mut Lab) -> Result<()> {
    let setup = Setup::default();
    let before = up(lab, &setup)?;
    lab.write_policy(&setup.policy().replace("Cluster 1 =", "Clutser 1 ="))?;
    let output = lab.try_evergate(Place::Client, &["policy", "reload"])?;
    let said = crate::sh::said(&output);
    ensure(!output.status.success(), || {
        format!("a broken policy was taken up: {said}")
    })?;
    ensure(
        said.contains("Clutser") && said.contains("policy.conf"),
        || format!("the error names neither the file nor what was found: {said}"),
    )?;
    // Cut short before the tunnels: no error stands in it, and nothing would be protected.
    for cut in ["", "[GENERAL]\nStandby = 1\n"] {
        lab.write_policy(cut)?;
        let output = lab.try_evergate(Place::Client, &["policy", "reload"])?;
        ensure(!output.status.success(), || {
            format!("a policy without tunnels was taken up: {cut:?}")
        })?;
    }
    must_ping(lab, Place::Client, &[TARGETS[2]])?;
    let after = lab.status(Place::Client)?;
    ensure(spis(&before) == spis(&after), || "sessions changed".into())
}

/// A further tunnel through gw2, and a gateway fewer: gw1's session keeps its SPIs, gw2 gets one that
/// knows the new range, and TCP goes on.
fn reload_changed(lab: &mut Lab) -> Result<()> {
    let before = up(lab, &in_order(2))?;
    lab.wait_client(
        "all three gateways are keyed",
        Duration::from_secs(10),
        |s| s.keyed().len() == 3,
    )?;
    let all = spis(&lab.status(Place::Client)?);
    let stream = Stream::start(lab)?;
    let mut setup = in_order(1);
    setup.cluster = vec![1, 2];
    setup.tunnels = format!("Tunnel7 = 10.0.0.77 {}\n", gateway_outside(2));
    lab.write_policy(&setup.policy())?;
    lab.evergate(Place::Client, &["policy", "reload"])?;
    let route = |lab: &Lab| lab.exec(Place::Client, &["ip", "route", "get", "10.0.0.77"]);
    ensure(route(lab)?.contains(TUN), || {
        "the new tunnel has no route".into()
    })?;
    lab.wait_client("the session with gw3 ends", Duration::from_secs(5), |s| {
        !s.keyed().contains(&3)
    })?;
    let after = lab.wait_client("gw2's old session ends", Duration::from_secs(10), |s| {
        s.sessions.len() == 2
    })?;
    let left = spis(&after);
    let (same, fresh): (Vec<_>, Vec<_>) = left.iter().partition(|spi| all.contains(spi));
    let of = |list: &[&(String, String, String)], name: &str| matches!(list, [(peer, _, _)] if peer.starts_with(name));
    ensure(of(&same, "gw1") && of(&fresh, "gw2"), || {
        format!("sessions before {all:?}, after {left:?}")
    })?;
    ensure(after.active() == before.active(), || {
        "another gateway became active".into()
    })?;
    must_ping(lab, Place::Client, &["-I", CLIENT_INNER, TARGETS[0]])?;
    let report = stream.finish()?;
    ensure(report.error.is_none(), || format!("{report:?}"))
}

/// Peers with the SPIs of their sessions, sorted.
fn spis(status: &crate::lab::Status) -> Vec<(String, String, String)> {
    let sessions = status.sessions.iter();
    let mut all: Vec<_> = sessions
        .map(|s| (s.peer.clone(), s.spi_in.clone(), s.spi_out.clone()))
        .collect();
    all.sort();
    all
}
