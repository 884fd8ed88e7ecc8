//! MOBIKE (RFC 4555) with strongSwan: it moves, and we do.

use super::charon::{self, Charon};
use super::{BYTES, GATEWAY, NAME, for_stock_gateway, redirect};
use crate::cases::Case;
use crate::lab::topology::{
    CLIENT_ELSEWHERE, CLIENT_INNER, CLIENT_OUTSIDE, TARGETS, gateway_outside,
};
use crate::lab::{Lab, Place};
use crate::probe::{Probe, Stream, now_ns};
use anyhow::{Result, bail};
use std::time::Duration;

/// What moves the client.
type Move = fn(&Lab) -> Result<()>;

pub(super) fn cases() -> Vec<Case> {
    let all: [(&str, redirect::Run); 2] = [("strongswan", their_client), ("evergate", our_client)];
    let cases = all.into_iter().map(|(who, run)| Case {
        name: format!("{NAME}_mobike_moves_{who}"),
        run: Box::new(run),
    });
    cases.collect()
}

/// Away and back under a stream, whose content is checked.
fn moves(lab: &Lab, knows: impl Fn(&Lab, &str) -> Result<bool>) -> Result<()> {
    let probe = Probe::start(lab)?;
    let stream = Stream::start(lab)?;
    std::thread::sleep(Duration::from_millis(300));
    let ways: [(&str, Move); 2] = [
        (CLIENT_ELSEWHERE, Lab::client_moves_away),
        (CLIENT_OUTSIDE, Lab::client_moves_back),
    ];
    for (to, act) in ways {
        let at_ns = now_ns();
        act(lab)?;
        lab.wait("the gateway knows it", Duration::from_secs(10), |lab| {
            Ok(knows(lab, to)?.then_some(()))
        })?;
        std::thread::sleep(Duration::from_secs(2));
        let outage = probe.outage_until_now(at_ns);
        print!("{:.0} ms to {to} … ", outage.millis());
        if !outage.recovered {
            bail!("nothing comes through at {to}: {outage:?}");
        }
    }
    let report = stream.finish()?;
    match report.error {
        None => Stream::transfer(lab, TARGETS[1], BYTES).map(drop),
        Some(error) => bail!("the TCP stream: {error}"),
    }
}

/// Its userspace ESP can not move a child SA, so charon rekeys it after each move.
fn same_session(before: &charon::Spis, after: &charon::Spis) -> Result<()> {
    if before.ike == after.ike {
        return Ok(());
    }
    bail!("the session was made anew: {before:?}, {after:?}")
}

fn their_client(lab: &mut Lab) -> Result<()> {
    let psk = redirect::configure(lab, &redirect::setup(&[1]))?;
    lab.start(GATEWAY)?;
    let ends = format!(
        "    mobike = yes\n    remote_addrs = {}\n    vips = 0.0.0.0\n",
        gateway_outside(1)
    );
    let child = "        remote_ts = 10.0.0.0/24\n";
    let conf = redirect::conf(&psk, &ends, "client", child);
    let charon = Charon::start(lab, Place::Client, &conf, false)?;
    charon.swanctl(lab, &["--initiate", "--child", charon::CHILD])?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let before = charon.spis(lab)?;
    moves(lab, |lab, to| {
        let sessions = lab.status(GATEWAY)?.sessions;
        Ok(sessions.iter().any(|s| s.outside == to))
    })?;
    same_session(&before, &charon.spis(lab)?)?;
    Ok(())
}

fn our_client(lab: &mut Lab) -> Result<()> {
    let setup = redirect::setup(&[1]);
    let psk = redirect::configure(lab, &setup)?;
    for_stock_gateway(lab, &setup)?;
    let ends = format!(
        "    mobike = yes\n    local_addrs = {}\n    remote_addrs = %any\n    pools = v4\n",
        gateway_outside(1)
    );
    let child = "        local_ts = 10.0.0.0/24\n";
    let conf = format!(
        "{}pools {{\n  v4 {{\n    addrs = {CLIENT_INNER}/32\n  }}\n}}\n",
        redirect::conf(&psk, &ends, "gw1", child)
    );
    let charon = Charon::start(lab, GATEWAY, &conf, false)?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let before = charon.spis(lab)?;
    moves(lab, |lab, to| {
        let list = charon.swanctl(lab, &["--list-sas", "--raw"])?;
        Ok(list.contains(&format!("remote-host={to}")))
    })?;
    same_session(&before, &charon.spis(lab)?)?;
    charon.must_not_complain(lab)
}
