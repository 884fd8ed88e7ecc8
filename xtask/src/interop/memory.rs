//! A stock client whose authority is killed: the next run goes on with its IKE SA, and both sides can replace the
//! keys of the child SA; the client negotiates once.

use super::charon::{self, Charon};
use super::{NAME, redirect};
use crate::cases::Case;
use crate::lab::sharing::{AUTHORITY, SHARED, Sharing};
use crate::lab::topology::TARGETS;
use crate::lab::{Lab, Place};
use crate::probe::Stream;
use anyhow::{Result, bail};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        name: format!("{NAME}_edges_strongswan_outlives_its_authority"),
        run: Box::new(outlives),
    }]
}

fn outlives(lab: &mut Lab) -> Result<()> {
    lab.share(&Sharing {
        // charon's userspace ESP knows UDP only.
        authority_extra: "\n[ike]\nencap = \"always\"\n".into(),
        ..Sharing::default()
    })?;
    let psk = std::fs::read_to_string(lab.dir().join("gw1.psk"))?;
    let ends = format!("    mobike = no\n    remote_addrs = {SHARED}\n    vips = 0.0.0.0\n");
    let child = "        remote_ts = 10.0.0.0/24\n";
    let conf = redirect::conf(psk.trim(), &ends, "client", child);
    let charon = Charon::start(lab, Place::Client, &conf, false)?;
    charon.swanctl(lab, &["--initiate", "--child", charon::CHILD])?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let before = charon.spis(lab)?;
    let stream = Stream::start(lab)?;
    for _ in 0..2 {
        let old = charon.spis(lab)?;
        kill_and_come_back(lab, Duration::from_millis(1500))?;
        // Its edges were alone: the authority wants fresh keys.
        lab.wait("fresh keys", Duration::from_secs(15), |lab| {
            let now = charon.settled(lab)?;
            Ok((now.child != old.child).then_some(()))
        })?;
        // And then the client does.
        rekey(lab, &charon)?;
    }
    // The last message IDs were used by the run that is killed now, and so is the last answer.
    kill_and_come_back(lab, Duration::from_millis(300))?;
    rekey(lab, &charon)?;
    lab.kill(Place::Gateway(1))?;
    lab.bring_to(2)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(5))?;
    let report = stream.finish()?;
    if let Some(error) = report.error {
        bail!("the TCP stream: {error}; dropped were {}", lab.drops());
    }
    let log = charon::log(lab);
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    let (auths, syncs) = (count("generating IKE_AUTH request"), count("MID sync"));
    let now = charon.settled(lab)?;
    if auths != 1 || now.ike != before.ike {
        bail!("{auths} times IKE_AUTH; {before:?}, {now:?}");
    }
    if syncs < 1 {
        bail!("message IDs were brought into step {syncs} times");
    }
    print!("message IDs in step {syncs} times … ");
    Ok(())
}

/// Has charon replace the child SA.
fn rekey(lab: &Lab, charon: &Charon) -> Result<()> {
    let old = charon.settled(lab)?;
    charon.swanctl(lab, &["--rekey", "--child", charon::CHILD])?;
    lab.wait("the client's keys", Duration::from_secs(10), |lab| {
        let now = charon.settled(lab)?;
        Ok((now.child != old.child).then_some(()))
    })
}

fn kill_and_come_back(lab: &mut Lab, away: Duration) -> Result<()> {
    lab.kill(AUTHORITY)?;
    std::thread::sleep(away);
    lab.start(AUTHORITY)?;
    lab.wait("the edges are back", Duration::from_secs(10), |lab| {
        let events = lab.events(AUTHORITY, 0)?;
        let ups = events.iter().filter(|event| event.kind == "edge_up");
        Ok((ups.count() >= 3).then_some(()))
    })
}
