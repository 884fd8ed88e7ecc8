//! An authority that is killed goes on with its sessions: they get fresh keys, and survive the death of their
//! edge, with no new key exchange.

use super::sharing::one_session;
use super::{Case, ensure, must_ping};
use crate::lab::sharing::{AUTHORITY, Sharing};
use crate::lab::topology::TARGETS;
use crate::lab::{Lab, Place};
use crate::probe::{Probe, now_ns};
use anyhow::Result;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("memory_a_killed_authority_gives_fresh_keys", rekeys),
    ("memory_an_edge_dies_with_its_authority", edge_dies),
    ("memory_a_session_ends_in_good_order_after_a_kill", ends),
];

fn up(lab: &mut Lab, sharing: &Sharing) -> Result<()> {
    lab.share(sharing)?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))
}

/// Inbound SPIs of the client's sessions.
fn spis(lab: &Lab) -> Result<Vec<String>> {
    let sessions = lab.status(Place::Client)?.sessions;
    Ok(sessions.iter().map(|s| s.spi_in.clone()).collect())
}

fn count(lab: &Lab, place: Place, kind: &str) -> Result<usize> {
    let events = lab.events(place, 0)?;
    Ok(events.iter().filter(|event| event.kind == kind).count())
}

/// Kills the authority, which is away for a while, and comes back with what its repository has.
fn kill_and_come_back(lab: &mut Lab, away: Duration) -> Result<()> {
    lab.kill(AUTHORITY)?;
    std::thread::sleep(away);
    lab.start(AUTHORITY)?;
    lab.wait("the edges are back", Duration::from_secs(10), |lab| {
        Ok((count(lab, AUTHORITY, "edge_up")? >= 3).then_some(()))
    })
}

fn rekeys(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        authority_extra: "\n[ike]\nrekey_child = \"10s\"\n".into(),
        ..Sharing::default()
    };
    up(lab, &sharing)?;
    let probe = Probe::start(lab)?;
    let first = spis(lab)?;
    for round in 0..2 {
        kill_and_come_back(lab, Duration::from_millis(1500))?;
        let before = spis(lab)?;
        lab.wait("fresh keys", Duration::from_secs(20), |lab| {
            Ok((spis(lab)? != before).then_some(()))
        })?;
        ensure(count(lab, AUTHORITY, "session_up")? == 0, || {
            format!("after death {round}: a session was made")
        })?;
    }
    one_session(lab)?;
    ensure(spis(lab)? != first, || "no fresh keys".into())?;
    // An edge that dies now costs no more than at any other time.
    std::thread::sleep(Duration::from_secs(1));
    let event = now_ns();
    lab.kill_and(Place::Gateway(1), |lab| lab.bring_to(2))?;
    std::thread::sleep(Duration::from_millis(1500));
    let outage = probe.outage_until_now(event).millis();
    drop(probe.finish()?);
    ensure(outage < 300.0, || {
        format!("{outage:.1} ms; dropped were {}", lab.drops())
    })?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    one_session(lab)?;
    print!("{outage:.1} ms … ");
    Ok(())
}

/// The edge was alone, and nobody knows how far it has come: the client goes on behind all that it may have
/// accepted (RFC 6311), with the keys that it has.
fn edge_dies(lab: &mut Lab) -> Result<()> {
    // A client that looked for another way meanwhile would begin anew as soon as there is somebody.
    let patient = Sharing {
        general: "Heartbeat = DEFERRED\nHeartbeatDeferTime = 2000ms\n\
                  HeartbeatResponseTime = 10000ms\nStandby = 0\n"
            .into(),
        ..Sharing::default()
    };
    up(lab, &patient)?;
    let before = spis(lab)?;
    let probe = Probe::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    lab.kill(AUTHORITY)?;
    std::thread::sleep(Duration::from_secs(2));
    lab.kill_and(Place::Gateway(1), |lab| lab.bring_to(2))?;
    std::thread::sleep(Duration::from_millis(500));
    let event = now_ns();
    lab.start(AUTHORITY)?;
    std::thread::sleep(Duration::from_secs(3));
    let outage = probe.outage_until_now(event);
    drop(probe.finish()?);
    ensure(outage.recovered && outage.millis() < 2000.0, || {
        format!("{outage:?}; dropped were {}", lab.drops())
    })?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    one_session(lab)?;
    ensure(spis(lab)? == before, || "fresh keys".into())?;
    print!("{:.0} ms after its start … ", outage.millis());
    Ok(())
}

fn ends(lab: &mut Lab) -> Result<()> {
    up(lab, &Sharing::default())?;
    kill_and_come_back(lab, Duration::from_millis(300))?;
    // The client says so in its IKE SA, which the new process has to know.
    lab.stop(Place::Client)?;
    lab.wait("the authority knows", Duration::from_secs(5), |lab| {
        Ok(lab.status(AUTHORITY)?.sessions.is_empty().then_some(()))
    })?;
    let ended = lab.events(AUTHORITY, 0)?;
    let ended = ended.iter().filter(|event| event.kind == "session_down");
    let ended: Vec<&str> = ended.map(|event| event.text.as_str()).collect();
    ensure(
        ended
            .iter()
            .any(|text| text.contains("deleted by the peer")),
        || format!("{ended:?}"),
    )
}
