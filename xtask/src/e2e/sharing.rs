//! One negotiation, many edges: a client's packets come to another edge, or its edge dies, and its session
//! goes on with no new key exchange.

use super::{Case, ensure, must_be_whole, must_lose_nothing, must_ping};
use crate::lab::sharing::{AUTHORITY, Sharing};
use crate::lab::topology::TARGETS;
use crate::lab::{Lab, Place};
use crate::probe::{Probe, Stream, now_ns};
use crate::traffic::Iperf;
use anyhow::{Context as _, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("sharing_a_client_moves_between_edges", moves),
    ("sharing_an_edge_is_killed", killed),
    ("sharing_edges_ask_for_what_they_lack", asked_for),
    ("sharing_new_keys_while_it_moves", rekeys),
    ("sharing_new_keys_by_what_all_edges_carry", by_bytes),
    ("sharing_an_edge_drains_without_a_lost_packet", drains),
    (
        "sharing_an_authority_is_restarted_and_nobody_notices",
        restarted,
    ),
    (
        "sharing_goes_on_when_the_authority_is_killed",
        authority_killed,
    ),
];

/// The client has its session, which the authority made; the SPIs that name it.
pub(super) fn up(lab: &mut Lab, sharing: &Sharing) -> Result<(String, String)> {
    lab.share(sharing)?;
    up_to(lab)
}

/// The same where all but the client runs.
pub(super) fn up_to(lab: &mut Lab) -> Result<(String, String)> {
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    spis(lab)
}

pub(super) fn spis(lab: &Lab) -> Result<(String, String)> {
    let status = lab.status(Place::Client)?;
    let session = status.sessions.first();
    let session = session.context("the client has no session")?;
    Ok((session.spi_in.clone(), session.spi_out.clone()))
}

/// Nothing was negotiated since.
pub(super) fn same_session(lab: &Lab, before: &(String, String)) -> Result<()> {
    one_session(lab)?;
    let after = spis(lab)?;
    ensure(after == *before, || format!("{after:?} was {before:?}"))
}

/// Nothing was negotiated since but fresh keys.
pub(super) fn one_session(lab: &Lab) -> Result<()> {
    let events = lab.events(Place::Client, 0)?;
    let ups = events.iter().filter(|event| event.kind == "session_up");
    let ups = ups.count();
    ensure(ups == 1, || format!("{ups} sessions were made"))
}

fn moves(lab: &mut Lab) -> Result<()> {
    let session = up(lab, &Sharing::default())?;
    let stream = Stream::start(lab)?;
    for number in [2, 3, 1, 3, 2, 1] {
        std::thread::sleep(Duration::from_millis(300));
        lab.bring_to(number)?;
    }
    std::thread::sleep(Duration::from_millis(300));
    must_be_whole(lab, stream)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    same_session(lab, &session)?;
    for number in [1, 2, 3] {
        let opened = lab.status(Place::Gateway(number))?.counter("esp_opened");
        ensure(opened > 10, || {
            format!("gw{number} opened {opened} packets")
        })?;
    }
    Ok(())
}

/// How long a client is without its targets when the edge that it uses is killed and the router brings its
/// packets to another one, in milliseconds.
pub(super) fn kill_and_measure(lab: &mut Lab, dead: u8, next: u8) -> Result<f64> {
    let probe = Probe::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let event = now_ns();
    lab.kill_and(Place::Gateway(dead), |lab| lab.bring_to(next))?;
    std::thread::sleep(Duration::from_millis(1500));
    let until = now_ns();
    let record = probe.finish()?;
    Ok(record.outage(event, until).millis())
}

fn killed(lab: &mut Lab) -> Result<()> {
    let session = up(lab, &Sharing::default())?;
    let first = kill_and_measure(lab, 1, 2)?;
    let second = kill_and_measure(lab, 2, 3)?;
    same_session(lab, &session)?;
    let events = lab.events(AUTHORITY, 0)?;
    let heard = events
        .iter()
        .filter(|event| event.text.contains("its notary says"));
    let heard = heard.count();
    ensure(heard == 2, || {
        format!("{heard} notaries were heard, of 2 edges")
    })?;
    // The router's part, and the process's end, are in it.
    ensure(first < 200.0 && second < 200.0, || {
        format!(
            "{first:.1} and {second:.1} ms; dropped were {}",
            lab.drops()
        )
    })?;
    print!("{first:.1} ms, {second:.1} ms … ");
    Ok(())
}

fn asked_for(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        distribution: "last",
        ..Sharing::default()
    };
    let session = up(lab, &sharing)?;
    ensure(lab.status(Place::Gateway(2))?.sessions.is_empty(), || {
        "gw2 has what it has not asked for".into()
    })?;
    let outage = kill_and_measure(lab, 1, 2)?;
    same_session(lab, &session)?;
    ensure(outage < 200.0, || {
        format!("{outage:.1} ms; dropped were {}", lab.drops())
    })?;
    print!("{outage:.1} ms … ");
    Ok(())
}

fn rekeys(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        extra: "\n[ike]\nrekey_child = \"2s\"\n".into(),
        authority_extra: "\n[ike]\nrekey_child = \"2s\"\n".into(),
        ..Sharing::default()
    };
    let session = up(lab, &sharing)?;
    let stream = Stream::start(lab)?;
    for round in 0..20_u8 {
        std::thread::sleep(Duration::from_millis(300));
        lab.bring_to(round % 3 + 1)?;
    }
    must_be_whole(lab, stream)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    ensure(spis(lab)? != session, || "no fresh keys".into())?;
    one_session(lab)
}

/// No edge carries as much as the limit between two of them: it is the sum that counts.
fn by_bytes(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        authority_extra: "\n[ike]\nrekey_bytes = 2000000\n".into(),
        ..Sharing::default()
    };
    up(lab, &sharing)?;
    // A megabyte a second.
    let transfer = Iperf::start(lab, TARGETS[2], 9, &["-u", "-b", "8M"])?;
    for round in 0..16_u8 {
        std::thread::sleep(Duration::from_millis(500));
        lab.bring_to(round % 3 + 1)?;
    }
    let transfer = transfer.finish(Duration::from_secs(30));
    ensure(transfer.error.is_none(), || format!("iperf3: {transfer:?}"))?;
    one_session(lab)?;
    let events = lab.events(Place::Client, 0)?;
    let fresh = events
        .iter()
        .filter(|event| event.kind == "session_rekeyed");
    let fresh = fresh.count();
    ensure((2..=4).contains(&fresh), || {
        format!("{fresh} fresh pairs of SAs after 9 MB, expected 3 or so")
    })?;
    print!("{fresh} … ");
    Ok(())
}

fn drains(lab: &mut Lab) -> Result<()> {
    let session = up(lab, &Sharing::default())?;
    let probe = Probe::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let from = now_ns();
    lab.evergate(Place::Gateway(1), &["drain"])?;
    lab.bring_to(2)?;
    lab.wait("gw1 has nothing any more", Duration::from_secs(5), |lab| {
        let status = lab.status(Place::Gateway(1))?;
        Ok(status
            .drain
            .is_some_and(|drain| drain.sessions == 0)
            .then_some(()))
    })?;
    std::thread::sleep(Duration::from_millis(500));
    must_lose_nothing(lab, probe, from)?;
    same_session(lab, &session)
}

/// An authority that is restarted as it should be: nobody notices.
fn restarted(lab: &mut Lab) -> Result<()> {
    up(lab, &Sharing::default())?;
    let probe = Probe::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let from = now_ns();
    lab.stop(AUTHORITY)?;
    std::thread::sleep(Duration::from_secs(2));
    come_back(lab)?;
    must_lose_nothing(lab, probe, from)?;
    one_session(lab)?;
    // It knows from its repository who may do what, and gives the pair to another edge.
    lab.bring_to(2)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(2))?;
    one_session(lab)
}

fn come_back(lab: &mut Lab) -> Result<()> {
    lab.start(AUTHORITY)?;
    lab.wait("the edges are back", Duration::from_secs(10), |lab| {
        let events = lab.events(AUTHORITY, 0)?;
        let ups = events
            .iter()
            .filter(|event| event.kind == "edge_up")
            .count();
        Ok((ups >= 3).then_some(()))
    })?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// One that is killed: edges go on with what they may surely use, and after a second with all that they have.
fn authority_killed(lab: &mut Lab) -> Result<()> {
    up(lab, &Sharing::default())?;
    let probe = Probe::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let event = now_ns();
    lab.kill(AUTHORITY)?;
    std::thread::sleep(Duration::from_secs(3));
    let outage = probe.outage_until_now(event).millis();
    ensure(outage < 1500.0, || {
        format!("{outage:.1} ms; dropped were {}", lab.drops())
    })?;
    let from = now_ns();
    come_back(lab)?;
    must_lose_nothing(lab, probe, from)?;
    // It goes on with what it had: fresh keys for what is lost with an edge, and no new negotiation.
    let event = now_ns();
    lab.kill(Place::Gateway(1))?;
    lab.bring_to(2)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(20))?;
    let again = (now_ns() - event) / 1_000_000;
    one_session(lab)?;
    print!("{outage:.1} ms, and {again} ms with the edge … ");
    Ok(())
}
