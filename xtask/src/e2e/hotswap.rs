//! Edges that share an address behind routes of equal cost, and on one segment where the address is announced
//! by whoever has it: an edge dies, and its clients' packets come to others.

use super::sharing::{same_session, up};
use super::{Case, ensure, must_be_whole, must_ping};
use crate::lab::herd::{Herd, sharing};
use crate::lab::sharing::Sharing;
use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Lab, Place};
use crate::probe::{Stream, now_ns};
use anyhow::Result;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("sharing_edges_behind_routes_of_equal_cost", equal_costs),
    ("sharing_the_address_moves_by_gratuitous_arp", announced),
];

/// Enough that each edge has some, whatever the router's hash makes of their addresses.
const CLIENTS: u16 = 24;
/// Echo requests of each in a second.
const RATE: u32 = 50;
/// One of so many packets is sent a second time.
const REPEAT: u32 = 10;
/// Far more than any of it takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn opened(lab: &Lab, number: u8) -> Result<u64> {
    Ok(lab.status(Place::Gateway(number))?.counter("esp_opened"))
}

fn equal_costs(lab: &mut Lab) -> Result<()> {
    let session = up(lab, &sharing(CLIENTS, Sharing::default()))?;
    lab.spread(&GATEWAYS)?;
    let mut herd = Herd::start(lab, CLIENTS, RATE, REPEAT)?;
    let stream = Stream::start(lab)?;
    for number in GATEWAYS {
        let what = format!("gw{number} has clients");
        lab.wait(&what, PATIENCE, |lab| {
            Ok((opened(lab, number)? > 100).then_some(()))
        })?;
    }
    let mut outages = Vec::new();
    for dead in GATEWAYS {
        herd.arm()?;
        let mut event = 0;
        lab.kill_and(Place::Gateway(dead), |lab| {
            event = now_ns();
            lab.no_next_hop(dead)
        })?;
        std::thread::sleep(Duration::from_millis(1500));
        let fared = herd.report(event)?;
        let worst = fared.gaps_ms.iter().copied().fold(0.0, f64::max);
        ensure(worst < 500.0, || {
            format!(
                "a client was without answers for {worst:.1} ms; dropped were {}",
                lab.drops()
            )
        })?;
        outages.push(format!("{worst:.1}"));
        lab.start_gateway(dead)?;
        // As a router has it whose neighbour is there again: some come back to it, and nobody notices.
        let before = herd.settled()?.lost;
        lab.spread(&GATEWAYS)?;
        lab.wait("clients have come back", PATIENCE, |lab| {
            Ok((opened(lab, dead)? > 100).then_some(()))
        })?;
        let lost = herd.settled()?.lost - before;
        ensure(lost == 0, || {
            format!(
                "{lost} packets were lost on the way back to gw{dead}; dropped were {}",
                lab.drops()
            )
        })?;
    }
    must_be_whole(lab, stream)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    same_session(lab, &session)?;
    let fared = herd.settled()?;
    ensure(fared.ike == 0, || {
        format!("{} datagrams of IKE came and went", fared.ike)
    })?;
    let echoed = herd.finish()?;
    ensure(
        fared.repeated > 100 && echoed.requests > 1000 && echoed.twice == 0,
        || format!("{fared:?}, {echoed:?}"),
    )?;
    print!("at most {} ms … ", outages.join(", "));
    Ok(())
}

fn announced(lab: &mut Lab) -> Result<()> {
    let session = up(lab, &Sharing::default())?;
    lab.on_one_segment(1)?;
    let stream = Stream::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    // One that lives gives the address away.
    lab.take_address(2)?;
    std::thread::sleep(Duration::from_millis(500));
    for (dead, next) in [(2, 3), (3, 1)] {
        let before = opened(lab, next)?;
        lab.kill_and(Place::Gateway(dead), |lab| lab.take_address(next))?;
        lab.wait("the next one has it", PATIENCE, |lab| {
            Ok((opened(lab, next)? > before + 50).then_some(()))
        })?;
        lab.start_gateway(dead)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    let report = must_be_whole(lab, stream)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    same_session(lab, &session)?;
    print!(
        "TCP stood still for {:.1} ms at most … ",
        report.longest_stall_ms
    );
    Ok(())
}
