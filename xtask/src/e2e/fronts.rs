//! A front before encryption nodes: it follows which of them live, and clients notice nothing but that.

use super::sharing::{one_session, same_session, spis, up_to};
use super::{Case, ensure, must_be_whole, must_lose_nothing, must_ping, wait_event};
use crate::lab::fronting::Front;
use crate::lab::sharing::Sharing;
use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Lab, Place};
use crate::probe::{Probe, Stream, now_ns};
use anyhow::{Context as _, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("front_a_node_is_killed_and_comes_back", killed),
    ("front_a_node_drains_without_a_lost_packet", drained),
    ("front_nodes_ask_for_what_they_lack", asked_for),
    ("front_new_keys_while_nodes_come_and_go", rekeys),
    ("front_that_is_elsewhere", far),
    ("front_with_nodes_behind_it", between),
    ("front_that_is_a_node_itself", first),
    ("front_is_killed_and_another_one_does_the_same", second),
];

/// The client has its session through the front; the front, the node that has the client, and the SPIs.
fn up(lab: &mut Lab, front: Front, sharing: Sharing) -> Result<(Place, u8, (String, String))> {
    let place = lab.front(front, sharing)?;
    let session = up_to(lab)?;
    let node = serving(lab)?;
    Ok((place, node, session))
}

/// The node that opens the client's packets.
fn serving(lab: &Lab) -> Result<u8> {
    let counts = |lab: &Lab| -> Result<Vec<(u8, u64)>> {
        let living = GATEWAYS
            .into_iter()
            .filter(|n| lab.runs(Place::Gateway(*n)));
        living
            .map(|n| Ok((n, lab.status(Place::Gateway(n))?.counter("esp_opened"))))
            .collect()
    };
    let before = counts(lab)?;
    must_ping(lab, Place::Client, &["-c20", "-i0.02", TARGETS[0]])?;
    std::thread::sleep(Duration::from_millis(300));
    let after = counts(lab)?;
    let mut pairs = after.iter().zip(&before);
    let found = pairs.find(|((_, after), (_, before))| after - before >= 20);
    let ((node, _), _) = found.with_context(|| format!("{before:?}, then {after:?}"))?;
    Ok(*node)
}

/// The state that a front says a node has.
fn wait_state(lab: &Lab, front: Place, node: u8, state: &str) -> Result<()> {
    let what = format!("node {node} is {state}");
    lab.wait(&what, Duration::from_secs(15), |lab| {
        let view = lab.status(front)?.front.context("no front")?;
        let found = view.nodes.iter().find(|n| n.number == node);
        Ok(found.is_some_and(|n| n.state == state).then_some(()))
    })
}

/// A node has all its slots again, or none.
fn wait_share(lab: &Lab, front: Place, node: u8, share: u32) -> Result<()> {
    let what = format!("node {node} has {share} slots");
    lab.wait(&what, Duration::from_secs(15), |lab| {
        Ok(lab.shares(front)?.contains(&(node, share)).then_some(()))
    })
}

fn share_of(lab: &Lab, front: Place, node: u8) -> Result<u32> {
    let shares = lab.shares(front)?;
    let found = shares.iter().find(|(number, _)| *number == node);
    Ok(found.context("no such node")?.1)
}

/// How long the client is without its targets when a node is killed and nobody but the front does anything.
fn kill_and_measure(lab: &mut Lab, node: u8) -> Result<f64> {
    let probe = Probe::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let event = now_ns();
    lab.kill(Place::Gateway(node))?;
    std::thread::sleep(Duration::from_millis(1500));
    let until = now_ns();
    let record = probe.finish()?;
    Ok(record.outage(event, until).millis())
}

fn killed(lab: &mut Lab) -> Result<()> {
    let (front, node, session) = up(lab, Front::Alone, Sharing::default())?;
    let share = share_of(lab, front, node)?;
    let stream = Stream::start(lab)?;
    let outage = kill_and_measure(lab, node)?;
    ensure(outage < 300.0, || {
        format!("{outage:.1} ms; dropped were {}", lab.drops())
    })?;
    wait_event(lab, front, "the front tells it", |event| {
        event.kind == "encryption_node_dead" && event.text.contains(&format!("node {node} "))
    })?;
    ensure(share_of(lab, front, node)? == 0, || "it has slots".into())?;
    same_session(lab, &session)?;
    let next = serving(lab)?;
    ensure(next != node, || "a dead node serves".into())?;
    // It comes back, proves that it lives, and gets its slots and its client again.
    lab.start(Place::Gateway(node))?;
    wait_share(lab, front, node, share)?;
    std::thread::sleep(Duration::from_millis(500));
    let again = serving(lab)?;
    ensure(again == node, || format!("node {again} serves"))?;
    same_session(lab, &session)?;
    must_be_whole(lab, stream)?;
    print!("{outage:.1} ms … ");
    Ok(())
}

fn drained(lab: &mut Lab) -> Result<()> {
    let (front, node, session) = up(lab, Front::Alone, Sharing::default())?;
    let share = share_of(lab, front, node)?;
    let probe = Probe::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let from = now_ns();
    lab.evergate(Place::Gateway(node), &["drain"])?;
    wait_state(lab, front, node, "draining")?;
    ensure(share_of(lab, front, node)? == 0, || "it has slots".into())?;
    lab.wait("it has nothing any more", Duration::from_secs(5), |lab| {
        let status = lab.status(Place::Gateway(node))?;
        let drained = status.drain.is_some_and(|drain| drain.sessions == 0);
        Ok(drained.then_some(()))
    })?;
    lab.evergate(Place::Gateway(node), &["drain", "--undo"])?;
    wait_share(lab, front, node, share)?;
    std::thread::sleep(Duration::from_millis(500));
    must_lose_nothing(lab, probe, from)?;
    ensure(serving(lab)? == node, || "it is not back".into())?;
    same_session(lab, &session)
}

fn asked_for(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        distribution: "last",
        ..Sharing::default()
    };
    let (_, node, session) = up(lab, Front::Alone, sharing)?;
    for other in GATEWAYS.into_iter().filter(|other| *other != node) {
        let status = lab.status(Place::Gateway(other))?;
        ensure(status.sessions.is_empty(), || {
            format!(
                "gw{other} has what it has not asked for: IKE and ESP of a client went two ways"
            )
        })?;
    }
    let outage = kill_and_measure(lab, node)?;
    same_session(lab, &session)?;
    ensure(outage < 300.0, || {
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
    let (front, _, session) = up(lab, Front::Alone, sharing)?;
    let stream = Stream::start(lab)?;
    for _ in 0..3 {
        let node = serving(lab)?;
        lab.evergate(Place::Gateway(node), &["drain"])?;
        wait_state(lab, front, node, "draining")?;
        std::thread::sleep(Duration::from_millis(1500));
        lab.evergate(Place::Gateway(node), &["drain", "--undo"])?;
        wait_state(lab, front, node, "well")?;
        std::thread::sleep(Duration::from_millis(1500));
    }
    must_be_whole(lab, stream)?;
    ensure(spis(lab)? != session, || "no fresh keys".into())?;
    one_session(lab)
}

fn far(lab: &mut Lab) -> Result<()> {
    let (front, node, session) = up(lab, Front::Far, Sharing::default())?;
    let stream = Stream::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let outage = kill_and_measure(lab, node)?;
    ensure(outage < 300.0, || {
        format!("{outage:.1} ms; dropped were {}", lab.drops())
    })?;
    must_be_whole(lab, stream)?;
    same_session(lab, &session)?;
    let wrapped = lab.status(front)?.counter("steer_wrapped");
    ensure(wrapped > 100, || format!("{wrapped} went in IP"))
}

fn between(lab: &mut Lab) -> Result<()> {
    let (front, node, session) = up(lab, Front::Between, Sharing::default())?;
    let stream = Stream::start(lab)?;
    let outage = kill_and_measure(lab, node)?;
    ensure(outage < 300.0, || {
        format!("{outage:.1} ms; dropped were {}", lab.drops())
    })?;
    must_be_whole(lab, stream)?;
    same_session(lab, &session)?;
    let sent = lab.status(front)?.counter("steer_sent");
    ensure(sent > 100, || format!("{sent} were sent on"))
}

fn first(lab: &mut Lab) -> Result<()> {
    let (front, _, session) = up(lab, Front::First, Sharing::default())?;
    let stream = Stream::start(lab)?;
    let probe = Probe::start(lab)?;
    std::thread::sleep(Duration::from_millis(300));
    let from = now_ns();
    // All to gw1, which has them from itself; then all to the others, by way of it.
    for nodes in [&[2_u8, 3][..], &[1]] {
        for node in nodes {
            lab.evergate(Place::Gateway(*node), &["drain"])?;
            wait_share(lab, front, *node, 0)?;
        }
        std::thread::sleep(Duration::from_millis(300));
        let node = serving(lab)?;
        ensure(!nodes.contains(&node), || {
            format!("gw{node} drains and serves")
        })?;
        for node in nodes {
            lab.evergate(Place::Gateway(*node), &["drain", "--undo"])?;
            wait_state(lab, front, *node, "well")?;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    must_lose_nothing(lab, probe, from)?;
    must_be_whole(lab, stream)?;
    same_session(lab, &session)?;
    let sent = lab.status(front)?.counter("steer_sent");
    ensure(sent > 20, || format!("{sent} were sent on"))
}

/// Two fronts know nothing of each other, and send the client to the same node.
fn second(lab: &mut Lab) -> Result<()> {
    let (front, node, session) = up(lab, Front::Both, Sharing::default())?;
    let other = Place::Gateway(1);
    lab.wait("both have the same table", Duration::from_secs(10), |lab| {
        Ok((lab.shares(front)? == lab.shares(other)?).then_some(()))
    })?;
    let stream = Stream::start(lab)?;
    let probe = Probe::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let event = now_ns();
    lab.kill_and(front, |lab| lab.bring_to(1))?;
    std::thread::sleep(Duration::from_millis(1000));
    let until = now_ns();
    let outage = probe.finish()?.outage(event, until).millis();
    let served = serving(lab)?;
    ensure(served == node, || {
        format!("gw{served} serves, not gw{node}")
    })?;
    ensure(outage < 100.0, || {
        format!("{outage:.1} ms; dropped were {}", lab.drops())
    })?;
    must_be_whole(lab, stream)?;
    same_session(lab, &session)?;
    print!("{outage:.1} ms … ");
    Ok(())
}
