//! The connectivity protocol: edges get pairs of SAs from each other, and IKE goes in its messages.

use super::sharing::{kill_and_measure, same_session, up};
use super::{Case, ensure, must_be_whole, must_ping};
use crate::lab::sharing::{AUTHORITY, Negotiation, Sharing};
use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Connectivity, Lab, Place};
use crate::probe::Stream;
use anyhow::{Context as _, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("sharing_edges_ask_each_other_first", ask_each_other),
    ("sharing_ike_goes_in_messages", carries_ike),
];

fn of(lab: &Lab, place: Place) -> Result<Connectivity> {
    let connectivity = lab.status(place)?.connectivity;
    connectivity.with_context(|| format!("{place} takes no part"))
}

/// Waits until everybody has heard everybody.
fn acquainted(lab: &mut Lab) -> Result<()> {
    let places = GATEWAYS.map(Place::Gateway).into_iter().chain([AUTHORITY]);
    for place in places {
        let what = format!("{place} hears all others");
        lab.wait(&what, Duration::from_secs(10), |lab| {
            let parties = of(lab, place)?.parties;
            let all = parties.len() == GATEWAYS.len() && parties.iter().all(|p| p.present);
            Ok(all.then_some(()))
        })?;
    }
    Ok(())
}

fn ask_each_other(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        distribution: "last",
        connectivity: true,
        ..Sharing::default()
    };
    let session = up(lab, &sharing)?;
    acquainted(lab)?;
    ensure(lab.status(Place::Gateway(2))?.sessions.is_empty(), || {
        "gw2 has what it has not asked for".into()
    })?;
    let stream = Stream::start(lab)?;
    std::thread::sleep(Duration::from_millis(300));
    lab.bring_to(2)?;
    std::thread::sleep(Duration::from_millis(700));
    must_be_whole(lab, stream)?;
    let second = of(lab, Place::Gateway(2))?;
    ensure((second.found, second.lacking) == (1, 0), || {
        format!("gw2 has it from elsewhere: {second:?}")
    })?;
    let first = of(lab, Place::Gateway(1))?;
    ensure(first.answered == 1, || format!("gw1: {first:?}"))?;
    // Its owner dies; the one before it still has the pair.
    let outage = kill_and_measure(lab, 2, 3)?;
    same_session(lab, &session)?;
    let third = of(lab, Place::Gateway(3))?;
    ensure((third.found, third.lacking) == (1, 0), || {
        format!("gw3 has it from elsewhere: {third:?}")
    })?;
    ensure(outage < 200.0, || {
        format!("{outage:.1} ms; dropped were {}", lab.drops())
    })?;
    print!("{outage:.1} ms … ");
    Ok(())
}

fn carries_ike(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        connectivity: true,
        negotiation: Negotiation::Messages,
        extra: "\n[ike]\nrekey_child = \"2s\"\n".into(),
        authority_extra: "\n[ike]\nrekey_child = \"2s\"\n".into(),
        ..Sharing::default()
    };
    lab.share(&sharing)?;
    acquainted(lab)?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let stream = Stream::start(lab)?;
    for round in 0..12_u8 {
        std::thread::sleep(Duration::from_millis(300));
        lab.bring_to(round % 3 + 1)?;
    }
    must_be_whole(lab, stream)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    let authority = of(lab, AUTHORITY)?;
    // IKE_SA_INIT, IKE_AUTH, and what the rekeying took, by several edges.
    ensure(
        authority.ike_received >= 4 && authority.ike_sent >= 4,
        || format!("the authority: {authority:?}"),
    )?;
    let mut carriers = 0;
    for number in GATEWAYS {
        let edge = of(lab, Place::Gateway(number))?;
        carriers += u32::from(edge.ike_sent > 0);
    }
    ensure(carriers >= 2, || format!("{carriers} edges carried IKE"))
}
