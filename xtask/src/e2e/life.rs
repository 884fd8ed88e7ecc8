//! Sessions that go on by a ticket, that end because their gateway has forgotten them, and that are
//! authenticated anew.

use super::failover::{WITH_EXCHANGE, survives};
use super::rekey::{few_sas, undisturbed};
use super::{Case, active, ensure, in_order, up, wait_active, wait_event};
use crate::lab::topology::TARGETS;
use crate::lab::{Event, Lab, Place, Setup};
use crate::probe::now_ns;
use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    (
        "failover_resumes_the_session_by_a_ticket",
        resumed_elsewhere,
    ),
    (
        "ticket_of_another_cluster_ends_in_the_full_exchange",
        another_cluster,
    ),
    ("ticket_keys_are_read_again", keys_read_again),
    ("restarted_gateway_is_noticed_and_resumed", crashed),
    ("reauthentication_loses_no_packet", reauthenticated),
    ("gateway_says_when_to_authenticate_anew", gateway_says_when),
];

/// A file of ticket keys that all nodes name.
const KEYS: &str = "tickets.keys";

/// Makes one more key, before the others.
fn add_key(lab: &Lab) -> Result<()> {
    let path = lab.dir().join(KEYS);
    let fresh = lab.evergate(Place::Client, &["ticket-key"])?;
    let older = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, fresh + &older)?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, private).context("the file of ticket keys")
}

fn new_keys(lab: &Lab) -> Result<()> {
    let _ = std::fs::remove_file(lab.dir().join(KEYS));
    add_key(lab)
}

fn with_keys(ike: &str) -> Setup {
    Setup {
        extra: format!("\n[ike]\nticket_keys = \"{KEYS}\"\n{ike}\n"),
        ..in_order(0)
    }
}

/// The newest session that the client has told of with a gateway.
fn session_up(lab: &Lab, number: u8, since: u64) -> Result<Event> {
    lab.wait("a session is told", Duration::from_secs(10), |lab| {
        let events = lab.events(Place::Client, since)?;
        let told = |e: &Event| e.kind == "session_up" && e.gateway_number() == Some(number);
        Ok(events.into_iter().rfind(told))
    })
}

fn last_event(lab: &Lab) -> Result<u64> {
    Ok(lab.events(Place::Client, 0)?.last().map_or(0, |e| e.seq))
}

fn must_be_resumed(lab: &Lab, number: u8, since: u64) -> Result<()> {
    let told = session_up(lab, number, since)?;
    ensure(told.text.contains("resumed"), || format!("told: {told:?}"))?;
    for place in [Place::Client, Place::Gateway(number)] {
        let sessions = lab.status(place)?.sessions;
        ensure(sessions.iter().any(|s| s.resumed), || {
            format!("{place} shows {sessions:?}")
        })?;
    }
    Ok(())
}

/// gw1 dies; the client goes on with gw2 by gw1's ticket, and then with gw3 by gw2's.
fn resumed_elsewhere(lab: &mut Lab) -> Result<()> {
    new_keys(lab)?;
    up(lab, &with_keys(""))?;
    ensure(active(lab)? == 1, || "gw1 is the first in order".into())?;
    for next in [2, 3] {
        let since = last_event(lab)?;
        survives(lab, WITH_EXCHANGE, |lab, number| {
            lab.kill(Place::Gateway(number))
        })?;
        ensure(active(lab)? == next, || {
            format!("gw{next} is next in order")
        })?;
        must_be_resumed(lab, next, since)?;
    }
    Ok(())
}

/// Without keys in common gw2 can not open what gw1 has issued.
fn another_cluster(lab: &mut Lab) -> Result<()> {
    up(lab, &in_order(0))?;
    let since = last_event(lab)?;
    survives(lab, WITH_EXCHANGE, |lab, number| {
        lab.kill(Place::Gateway(number))
    })?;
    let told = session_up(lab, 2, since)?;
    ensure(!told.text.contains("resumed"), || format!("told: {told:?}"))
}

/// All gateways get another key; the ticket of before still counts.
fn keys_read_again(lab: &mut Lab) -> Result<()> {
    new_keys(lab)?;
    up(lab, &with_keys(""))?;
    add_key(lab)?;
    for number in 1..=3 {
        lab.hang_up(Place::Gateway(number))?;
        wait_event(lab, Place::Gateway(number), "the keys are read", |event| {
            event.text.contains("ticket keys were read again: 2")
        })?;
    }
    let since = last_event(lab)?;
    lab.kill(Place::Gateway(1))?;
    wait_active(lab, 2, Duration::from_secs(10))?;
    must_be_resumed(lab, 2, since)
}

/// No heartbeats, no liveness check for an hour: only the gateway itself can tell.
fn crashed(lab: &mut Lab) -> Result<()> {
    new_keys(lab)?;
    let mut setup = with_keys("liveness = \"1h\"");
    setup.general = "Heartbeat = NONE\nStandby = 0\nRandomOrder = no\n".into();
    setup.cluster = vec![1];
    up(lab, &setup)?;
    let since = last_event(lab)?;
    lab.kill(Place::Gateway(1))?;
    lab.start_gateway(1)?;
    let begun = now_ns();
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let took = (now_ns() - begun) / 1_000_000;
    wait_event(lab, Place::Client, "the loss is told", |event| {
        event.kind == "session_down" && event.text.contains("the peer has lost its state")
    })?;
    must_be_resumed(lab, 1, since)?;
    // A second of doubt, and two round trips.
    ensure(took < 4000, || format!("took {took} ms"))
}

const EXPECTED_ENDS: [&str; 2] = ["replaced", "deleted by the peer"];

/// How many sessions of the client came about. Those that end do so because another took their
/// place: whichever end is first deletes them.
fn renewed(lab: &Lab, since: u64) -> Result<usize> {
    let events = lab.events(Place::Client, since)?;
    let ended = events.iter().find(|e| {
        e.kind == "session_down" && !EXPECTED_ENDS.iter().any(|end| e.text.contains(end))
    });
    ensure(ended.is_none(), || format!("ended: {ended:?}"))?;
    let up = events.iter().filter(|e| e.kind == "session_up");
    let up: Vec<&Event> = up.collect();
    // By proof, not by a ticket.
    ensure(up.iter().all(|e| !e.text.contains("resumed")), || {
        format!("resumed: {up:?}")
    })?;
    Ok(up.len())
}

fn reauthenticated(lab: &mut Lab) -> Result<()> {
    let setup = Setup {
        extra: "\n[ike]\nreauth = \"6s\"\n".into(),
        ..in_order(1)
    };
    up(lab, &setup)?;
    let (number, since) = (active(lab)?, last_event(lab)?);
    undisturbed(lab, Duration::from_secs(22))?;
    let count = renewed(lab, since)?;
    // Two gateways are keyed.
    ensure(count >= 6, || format!("{count} sessions"))?;
    ensure(active(lab)? == number, || {
        "another gateway became active".into()
    })?;
    few_sas(lab)
}

/// Only gateways have a limit; the client obeys it.
fn gateway_says_when(lab: &mut Lab) -> Result<()> {
    let mut setup = in_order(0);
    setup.extra = "\n[ike]\nreauth = \"5s\"\n".into();
    lab.configure(&setup)?;
    let client = lab.dir().join("client.toml");
    let text = std::fs::read_to_string(&client)?;
    std::fs::write(&client, text.replace(&setup.extra, ""))?;
    lab.start_all()?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let since = last_event(lab)?;
    undisturbed(lab, Duration::from_secs(14))?;
    let count = renewed(lab, since)?;
    ensure(count >= 2, || format!("{count} sessions"))
}
