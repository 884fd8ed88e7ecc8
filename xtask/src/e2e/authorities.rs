//! Several authorities, and clients whose SAs are there before their packets.

use super::sharing::{same_session, up};
use super::{Case, ensure, must_lose_nothing, must_ping};
use crate::lab::sharing::{AUTHORITY, SECOND_AUTHORITY, Sharing};
use crate::lab::topology::{CLIENT_OUTSIDE, TARGETS};
use crate::lab::{Lab, Place};
use crate::probe::{Probe, now_ns};
use anyhow::Result;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(2);

pub(super) const CASES: &[Case] = &[
    (
        "sharing_another_authority_serves_the_clients_of_a_dead_one",
        another_serves,
    ),
    ("sharing_an_association_brings_the_sas", associated),
    ("sharing_a_chosen_edge_has_the_sas_before", chosen),
];

/// The authority that has a session, and the other one. What a status says is up to a moment old.
fn by_session(lab: &Lab) -> Result<(Place, Place)> {
    let both = [AUTHORITY, SECOND_AUTHORITY];
    lab.wait("one authority has the session", SOON, |lab| {
        let mut with = Vec::new();
        for (at, place) in both.into_iter().enumerate() {
            // One of them may be dead.
            if lab.status(place).is_ok_and(|s| !s.sessions.is_empty()) {
                with.push((place, both[1 - at]));
            }
        }
        Ok(match with[..] {
            [one] => Some(one),
            _ => None,
        })
    })
}

fn another_serves(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        second: true,
        ..Sharing::default()
    };
    let session = up(lab, &sharing)?;
    let (first, other) = by_session(lab)?;
    // What one of them has negotiated moves between edges as ever, by its own authority.
    for number in [2, 3, 1] {
        lab.bring_to(number)?;
        lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(2))?;
    }
    same_session(lab, &session)?;
    let events = lab.events(other, 0)?;
    ensure(
        events.iter().all(|event| event.kind != "session_up"),
        || format!("{other} has negotiated too"),
    )?;
    // With it dies what only it could give fresh keys to. The other one takes the client.
    lab.kill(first)?;
    lab.kill(Place::Gateway(1))?;
    lab.bring_to(2)?;
    let event = now_ns();
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(20))?;
    let anew = (now_ns() - event) / 1_000_000;
    let now = by_session(lab)?;
    ensure(now.0 == other, || format!("the session is at {}", now.0))?;
    // The first one comes back, and believes what it has kept: nothing of that disturbs the client.
    let probe = Probe::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let from = now_ns();
    lab.start(first)?;
    lab.wait(
        "the first authority has let go",
        Duration::from_secs(10),
        |lab| {
            let ended = lab.events(first, 0)?.into_iter();
            let mut ended = ended.filter(|event| event.kind == "session_down");
            Ok(ended
                .any(|event| event.text.contains("another authority"))
                .then_some(()))
        },
    )?;
    std::thread::sleep(Duration::from_millis(500));
    must_lose_nothing(lab, probe, from)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    ensure(by_session(lab)?.0 == other, || "it has gone back".into())?;
    print!("anew after {anew} ms … ");
    Ok(())
}

/// Whoever knows that a client is here now says so, and its SAs come before its packets.
fn associated(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        distribution: "last",
        ..Sharing::default()
    };
    let session = up(lab, &sharing)?;
    for number in [2, 3] {
        let found = pairs(lab, number)?;
        ensure(found == 0, || format!("gw{number} has {found} pairs"))?;
    }
    // By the local API.
    lab.evergate(Place::Gateway(2), &["associate", CLIENT_OUTSIDE])?;
    lab.wait("gw2 has the pair", Duration::from_secs(2), |lab| {
        Ok((pairs(lab, 2)? == 1).then_some(()))
    })?;
    // By the neighbour table: as if the client were on the segment of gw3.
    let station = [
        "ip",
        "neigh",
        "replace",
        CLIENT_OUTSIDE,
        "lladdr",
        "02:00:00:00:00:77",
        "dev",
        "wan0",
    ];
    lab.exec(Place::Gateway(3), &station)?;
    lab.wait("gw3 has the pair", Duration::from_secs(2), |lab| {
        Ok((pairs(lab, 3)? == 1).then_some(()))
    })?;
    lab.exec(
        Place::Gateway(3),
        &["ip", "neigh", "del", CLIENT_OUTSIDE, "dev", "wan0"],
    )?;
    lab.bring_to(2)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(2))?;
    let asked = lab.status(Place::Gateway(2))?.counter("esp_unknown");
    ensure(asked == 0, || {
        format!("{asked} packets came for an SPI that gw2 did not know")
    })?;
    same_session(lab, &session)
}

fn chosen(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        distribution: "chosen",
        ..Sharing::default()
    };
    let session = up(lab, &sharing)?;
    for (number, expected) in [(1, 1), (2, 0), (3, 1)] {
        let what = format!("gw{number} has {expected} pairs");
        lab.wait(&what, SOON, |lab| {
            Ok((pairs(lab, number)? == expected).then_some(()))
        })?;
    }
    lab.bring_to(3)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(2))?;
    same_session(lab, &session)
}

/// Pairs that an edge has.
fn pairs(lab: &Lab, number: u8) -> Result<u64> {
    let status = lab.status(Place::Gateway(number))?;
    Ok(status.authorities.iter().map(|a| a.pairs).sum())
}
