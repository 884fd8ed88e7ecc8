//! A client whose outside address is replaced (MOBIKE).

use super::failover::{SOON, survives};
use super::{Case, active, ensure, in_order, must_ping, up, wait_event};
use crate::lab::topology::{CLIENT_ELSEWHERE, CLIENT_OUTSIDE, TARGETS};
use crate::lab::{Lab, Mapping, Place, Setup, Status, limits};
use crate::probe::{Probe, Stream, now_ns};
use anyhow::Result;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("moving_client_keeps_its_connections", keeps_connections),
    (
        "moving_client_takes_all_its_sockets_along",
        takes_sockets_along,
    ),
    ("moving_client_fails_over_from_there", fails_over),
    ("moving_client_without_descriptors_moves_later", moves_later),
    (
        "moving_client_leaves_a_nat_and_comes_back",
        in_and_out_of_a_nat,
    ),
    ("moving_client_without_mobike_begins_anew", without_mobike),
];

/// Longer than this nothing may stand still.
const OUTAGE: f64 = 1000.0;

/// In order, with heartbeats that a move may take as long as on a path with 50 ms.
fn in_order_unhurried(standby: u8) -> Setup {
    let mut setup = in_order(standby);
    setup.general = setup.general.replace("= 5ms", "= 50ms");
    setup
}

fn spis(status: &Status) -> Vec<String> {
    let mut all: Vec<String> = status.sessions.iter().map(|s| s.spi_in.clone()).collect();
    all.sort();
    all
}

/// Moves the client under a probe, and returns when both gateways know where it is.
fn moves(lab: &Lab, probe: &Probe, to: &str, act: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let at_ns = now_ns();
    act(lab)?;
    lab.wait("the gateways know it", Duration::from_secs(10), |lab| {
        let keyed = lab.status(Place::Client)?.keyed();
        let knows = |number: &u8| -> Result<bool> {
            let status = lab.status(Place::Gateway(*number))?;
            Ok(status.sessions.iter().any(|s| s.outside == to))
        };
        let all: Vec<bool> = keyed.iter().map(knows).collect::<Result<_>>()?;
        Ok((!all.is_empty() && all.iter().all(|knows| *knows)).then_some(()))
    })?;
    std::thread::sleep(Duration::from_millis(800));
    let outage = probe.outage_until_now(at_ns);
    print!(
        "{:.1} ms and {} packets to {to} … ",
        outage.millis(),
        outage.lost
    );
    ensure(outage.recovered && outage.millis() <= OUTAGE, || {
        format!("outage of {:.1} ms ({outage:?})", outage.millis())
    })
}

/// The stream is whole, and carried by the sessions that the client had before.
fn unbroken(lab: &Lab, stream: Stream, before: &Status) -> Result<()> {
    let report = stream.finish()?;
    ensure(report.error.is_none(), || {
        format!("the TCP stream: {report:?}")
    })?;
    let after = lab.status(Place::Client)?;
    ensure(spis(before) == spis(&after), || {
        format!("sessions were made anew: {after:?}")
    })
}

fn keeps_connections(lab: &mut Lab) -> Result<()> {
    up(lab, &in_order_unhurried(1))?;
    stays_whole(lab)
}

/// Without XDP programs each worker has a socket, and pairs of SAs of its own.
fn takes_sockets_along(lab: &mut Lab) -> Result<()> {
    let setup = Setup {
        without_xdp: true,
        extra: "\n[esp]\nworkers = 2\n".into(),
        ..in_order_unhurried(1)
    };
    up(lab, &setup)?;
    let what = "two pairs of SAs with each of two gateways";
    lab.wait_client(what, Duration::from_secs(10), |s| s.sessions.len() == 4)?;
    stays_whole(lab)
}

fn stays_whole(lab: &mut Lab) -> Result<()> {
    let number = active(lab)?;
    let before = lab.status(Place::Client)?;
    let probe = Probe::start(lab)?;
    let stream = Stream::start(lab)?;
    std::thread::sleep(Duration::from_millis(300));
    moves(lab, &probe, CLIENT_ELSEWHERE, Lab::client_moves_away)?;
    moves(lab, &probe, CLIENT_OUTSIDE, Lab::client_moves_back)?;
    moves(lab, &probe, CLIENT_ELSEWHERE, Lab::client_moves_away)?;
    unbroken(lab, stream, &before)?;
    ensure(active(lab)? == number, || {
        "another gateway is active".into()
    })?;
    for (place, kind) in [
        (Place::Client, "moved"),
        (Place::Gateway(number), "peer_moved"),
    ] {
        wait_event(lab, place, "it tells of the move", |event| {
            event.kind == kind && event.text.contains(CLIENT_ELSEWHERE)
        })?;
    }
    // IKE has moved along: the deletion is answered.
    lab.stop(Place::Client)?;
    lab.wait("the session is deleted", Duration::from_secs(3), |lab| {
        let sessions = lab.status(Place::Gateway(number))?.sessions;
        Ok(sessions.is_empty().then_some(()))
    })
}

/// What it needs can not be had at once: it moves as soon as it can.
fn moves_later(lab: &mut Lab) -> Result<()> {
    up(lab, &in_order_unhurried(1))?;
    let had = limits::take_descriptors(lab.pid(Place::Client)?)?;
    lab.client_moves_away()?;
    let log = lab.log(Place::Client);
    lab.wait("the client can not move", Duration::from_secs(5), |_| {
        let told = std::fs::read_to_string(&log)?;
        Ok(told.contains("it is tried again").then_some(()))
    })?;
    limits::set(lab.pid(Place::Client)?, &had)?;
    wait_event(lab, Place::Client, "it moves", |event| {
        event.kind == "moved" && event.text.contains(CLIENT_ELSEWHERE)
    })?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(5))
}

/// Heartbeats go and come from the new address too, also those of the gateway in reserve.
fn fails_over(lab: &mut Lab) -> Result<()> {
    up(lab, &in_order_unhurried(1))?;
    let probe = Probe::start(lab)?;
    moves(lab, &probe, CLIENT_ELSEWHERE, Lab::client_moves_away)?;
    probe.finish()?;
    let number = active(lab)?;
    // Silence: heartbeats alone keep the gateway.
    std::thread::sleep(Duration::from_secs(1));
    let status = lab.status(Place::Gateway(number))?;
    ensure(active(lab)? == number, || {
        "a silent second changed the gateway".into()
    })?;
    ensure(status.counter("heartbeat_keyed") > 10, || {
        format!("heartbeats: {status:?}")
    })?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))
}

/// ESP goes in UDP behind the NAT, and without it elsewhere.
fn in_and_out_of_a_nat(lab: &mut Lab) -> Result<()> {
    let mapping = Mapping {
        host: 254,
        first_port: 20_000,
    };
    lab.nat(mapping)?;
    up(
        lab,
        &Setup {
            client_outside: None,
            ..in_order_unhurried(0)
        },
    )?;
    let before = lab.status(Place::Client)?;
    let probe = Probe::start(lab)?;
    let stream = Stream::start(lab)?;
    moves(lab, &probe, CLIENT_ELSEWHERE, |lab| {
        lab.no_nat()?;
        lab.client_moves_away()
    })?;
    moves(lab, &probe, &mapping.address(), |lab| {
        lab.nat(mapping)?;
        lab.client_moves_back()
    })?;
    unbroken(lab, stream, &before)
}

/// Connections go on all the same: the new session has the old inner address.
fn without_mobike(lab: &mut Lab) -> Result<()> {
    up(
        lab,
        &Setup {
            extra: "\n[ike]\nmobike = false\n".into(),
            ..in_order_unhurried(1)
        },
    )?;
    let before = lab.status(Place::Client)?;
    let stream = Stream::start(lab)?;
    lab.client_moves_away()?;
    lab.wait_client("a new session", Duration::from_secs(15), |status| {
        status.active().is_some() && spis(status) != spis(&before)
    })?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(5))?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    std::thread::sleep(Duration::from_millis(500));
    let report = stream.finish()?;
    ensure(report.error.is_none(), || {
        format!("the TCP stream: {report:?}")
    })
}
