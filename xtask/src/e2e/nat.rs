//! A NAT between the client and the gateways.

use super::failover::{SOON, survives};
use super::{Case, active, ensure, in_order, must_ping, up, wait_event};
use crate::lab::topology::TARGETS;
use crate::lab::{Lab, Mapping, Place, Setup, Status};
use crate::probe::Stream;
use crate::traffic::transfer;
use anyhow::{Context, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("nat_client_reaches_every_target", reaches_every_target),
    ("nat_failover_after_kill", failover_after_kill),
    ("nat_mapping_changes_in_mid_flow", mapping_changes),
    ("nat66_client_reaches_every_target", reaches_every_target_v6),
    ("nat66_failover_after_kill", failover_after_kill_v6),
    ("nat66_mapping_changes_in_mid_flow", mapping_changes_v6),
    ("nat_keep_alives_only_while_silent", keep_alives),
    ("udp_encapsulation_by_configuration", encap_always),
];

const FIRST: Mapping = Mapping {
    host: 254,
    first_port: 20_000,
};

/// Which IP version is outside.
#[derive(Clone, Copy)]
enum Outside {
    V4,
    V6,
}

impl Outside {
    fn nat(self, lab: &Lab, mapping: Mapping) -> Result<()> {
        match self {
            Self::V4 => lab.nat(mapping),
            Self::V6 => lab.nat66(mapping),
        }
    }

    fn address(self, mapping: Mapping) -> String {
        match self {
            Self::V4 => mapping.address(),
            Self::V6 => mapping.address_v6(),
        }
    }

    /// Address and port as they are written.
    fn at(self, mapping: Mapping) -> String {
        let (address, thousands) = (self.address(mapping), mapping.first_port / 1000);
        match self {
            Self::V4 => format!("{address}:{thousands}"),
            Self::V6 => format!("[{address}]:{thousands}"),
        }
    }
}

/// The client behind a NAT, and up.
fn up_behind(lab: &mut Lab, outside: Outside, setup: Setup) -> Result<Status> {
    outside.nat(lab, FIRST)?;
    up(
        lab,
        &Setup {
            client_outside: None,
            outside_v6: matches!(outside, Outside::V6),
            ..setup
        },
    )
}

fn reaches_every_target(lab: &mut Lab) -> Result<()> {
    reaches(lab, Outside::V4)
}

fn reaches_every_target_v6(lab: &mut Lab) -> Result<()> {
    reaches(lab, Outside::V6)
}

fn reaches(lab: &mut Lab, outside: Outside) -> Result<()> {
    let status = up_behind(lab, outside, Setup::default())?;
    for target in TARGETS {
        must_ping(lab, Place::Client, &[target])?;
    }
    let number = active(lab)?;
    let seen = lab.status(Place::Gateway(number))?;
    let session = seen
        .sessions
        .first()
        .context("the gateway has no session")?;
    ensure(session.outside == outside.address(FIRST), || {
        format!("the gateway sees the client at {}", session.outside)
    })?;
    transfer(lab, TARGETS[0], 2, &[])?;
    transfer(lab, TARGETS[0], 2, &["-R"])?;
    // The largest packet, without fragments: 28 bytes are IPv4 and ICMP headers.
    let tun = status.interfaces.iter().find(|i| i.side == "inside");
    let size = tun.context("no TUN device in the status")?.mtu - 28;
    let largest = size.to_string();
    must_ping(
        lab,
        Place::Client,
        &["-M", "do", "-s", &largest, TARGETS[0]],
    )?;
    // Heartbeats go in UDP as well: silence must not cost the gateway.
    std::thread::sleep(Duration::from_secs(1));
    let after = lab.status(Place::Gateway(number))?;
    ensure(active(lab)? == number, || {
        "a silent second changed the gateway".into()
    })?;
    let answered = after.counter("heartbeat_keyed");
    ensure(
        answered > 10 && after.counter("heartbeat_peer") == 0,
        || {
            format!(
                "{answered} heartbeats answered, {} refused for their address",
                after.counter("heartbeat_peer")
            )
        },
    )
}

fn failover_after_kill(lab: &mut Lab) -> Result<()> {
    up_behind(lab, Outside::V4, Setup::default())?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))
}

fn failover_after_kill_v6(lab: &mut Lab) -> Result<()> {
    up_behind(lab, Outside::V6, Setup::default())?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))
}

fn mapping_changes(lab: &mut Lab) -> Result<()> {
    follows_mappings(lab, Outside::V4)
}

fn mapping_changes_v6(lab: &mut Lab) -> Result<()> {
    follows_mappings(lab, Outside::V6)
}

/// Another port, and then another address: the gateway follows, and TCP does not notice.
fn follows_mappings(lab: &mut Lab, outside: Outside) -> Result<()> {
    let mut setup = in_order(0);
    // Until a packet has come from the new mapping no heartbeat from there is answered: a client that waits for 5 ms
    // alone may take its gateway for dead on a busy machine, which is not what this is about.
    setup.general = setup
        .general
        .replace("ResponseTime = 5ms", "ResponseTime = 50ms");
    up_behind(lab, outside, setup)?;
    let gateway = Place::Gateway(active(lab)?);
    // Its status is a moment behind its packets.
    let what = "the gateway shows the session";
    let before = lab.wait(what, Duration::from_secs(3), |lab| {
        Ok(Some(lab.status(gateway)?).filter(|status| status.sessions.len() == 1))
    })?;
    let stream = Stream::start(lab)?;
    for mapping in [
        Mapping {
            host: 254,
            first_port: 30_000,
        },
        Mapping {
            host: 253,
            first_port: 40_000,
        },
    ] {
        std::thread::sleep(Duration::from_millis(500));
        outside.nat(lab, mapping)?;
        let there = format!("is at {}", outside.at(mapping));
        wait_event(lab, gateway, "the gateway follows the client", |event| {
            event.kind == "peer_moved" && event.text.contains(&there)
        })?;
    }
    std::thread::sleep(Duration::from_millis(500));
    let after = lab.status(gateway)?;
    let spis = |status: &Status| {
        let sessions = status.sessions.iter();
        sessions.map(|s| s.spi_in.clone()).collect::<Vec<_>>()
    };
    ensure(spis(&before) == spis(&after), || {
        let (before, after) = (&before.sessions, &after.sessions);
        format!("the session was made anew: {before:?}, {after:?}")
    })?;
    let last = Mapping {
        host: 253,
        first_port: 40_000,
    };
    ensure(after.sessions[0].outside == outside.address(last), || {
        format!("the gateway sees the client at {:?}", after.sessions)
    })?;
    let report = stream.finish()?;
    ensure(
        report.error.is_none() && report.longest_stall_ms < 1000.0,
        || format!("the TCP stream: {report:?}"),
    )?;
    // IKE has followed too: the client's deletion is answered.
    let status = lab.stop(Place::Client)?;
    ensure(status.success(), || {
        format!("the client ended with {status}")
    })?;
    lab.wait("the session is deleted", Duration::from_secs(3), |lab| {
        Ok(lab.status(gateway)?.sessions.is_empty().then_some(()))
    })
}

fn keep_alives(lab: &mut Lab) -> Result<()> {
    let mut setup = Setup {
        extra: "\n[ike]\nkeep_alive = \"1s\"\n".into(),
        ..in_order(0)
    };
    // No heartbeats without traffic.
    setup.general = setup.general.replace("INSTANT", "DEFERRED");
    up_behind(lab, Outside::V4, setup)?;
    let gateway = Place::Gateway(active(lab)?);
    let heard = |lab: &Lab| -> Result<u64> { Ok(lab.status(gateway)?.counter("nat_keep_alive")) };
    let silent = heard(lab)?;
    lab.wait("two keep-alives", Duration::from_secs(6), |lab| {
        Ok((heard(lab)? >= silent + 2).then_some(()))
    })?;
    let stream = Stream::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let before = heard(lab)?;
    std::thread::sleep(Duration::from_millis(3500));
    let during = heard(lab)? - before;
    ensure(during == 0, || {
        format!("{during} keep-alives beside a stream")
    })?;
    let report = stream.finish()?;
    ensure(report.error.is_none(), || format!("{report:?}"))
}

/// No NAT, but a path that lets only UDP through.
fn encap_always(lab: &mut Lab) -> Result<()> {
    lab.drop_esp()?;
    up(
        lab,
        &Setup {
            extra: "\n[ike]\nencap = \"always\"\n".into(),
            ..Setup::default()
        },
    )?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))
}
