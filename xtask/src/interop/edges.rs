//! A stock client whose packets come to other and other edges, which are killed at random: it negotiates
//! once, and its connections never break.

use super::charon::{self, Charon};
use super::{NAME, redirect};
use crate::cases::Case;
use crate::lab::sharing::{SHARED, Sharing};
use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Lab, Place};
use crate::probe::{Probe, Stream, now_ns};
use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::time::{Duration, Instant};

/// It goes on for so long.
const MINUTE: Duration = Duration::from_secs(60);

/// What happens in it is the same each time.
const SEED: u64 = 6;

/// An answer to a probe is missing for no longer than this, in milliseconds, when an edge is killed.
const LONGEST: f64 = 1000.0;

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        name: format!("{NAME}_edges_strongswan_roams_and_edges_are_killed"),
        run: Box::new(roams),
    }]
}

fn roams(lab: &mut Lab) -> Result<()> {
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
    let probe = Probe::start(lab)?;
    let stream = Stream::start(lab)?;
    let mut rng = StdRng::seed_from_u64(SEED);
    let (start, mut at, mut longest, mut kills, mut moves) = (Instant::now(), 1, 0_f64, 0, 0);
    while start.elapsed() < MINUTE {
        std::thread::sleep(Duration::from_millis(rng.random_range(300..1500)));
        let others = GATEWAYS.into_iter().filter(|number| *number != at);
        let others: Vec<u8> = others.collect();
        let next = others[rng.random_range(0..others.len())];
        let event = now_ns();
        let killed = rng.random_range(0..3) == 0;
        match killed {
            true => lab.kill_and(Place::Gateway(at), |lab| lab.bring_to(next))?,
            false => lab.bring_to(next)?,
        }
        std::thread::sleep(Duration::from_millis(1200));
        let outage = probe.outage_until_now(event);
        if !outage.recovered {
            let how = if killed { "killed" } else { "left" };
            bail!(
                "nothing comes through gw{next} after gw{at} was {how}: {outage:?}; dropped were {}",
                lab.drops()
            );
        }
        match killed {
            true => {
                (kills, longest) = (kills + 1, longest.max(outage.millis()));
                lab.start_gateway(at)?;
            }
            false => moves += 1,
        }
        at = next;
    }
    let report = stream.finish()?;
    if let Some(error) = report.error {
        bail!("the TCP stream: {error}; dropped were {}", lab.drops());
    }
    let log = charon::log(lab);
    let negotiated = log
        .lines()
        .filter(|line| line.contains("generating IKE_AUTH request"))
        .count();
    let after = charon.spis(lab)?;
    if negotiated != 1 || before.ike != after.ike {
        bail!("{negotiated} times IKE_AUTH; {before:?}, {after:?}");
    }
    if kills == 0 || moves == 0 || longest > LONGEST {
        bail!("{kills} edges killed, {moves} moves, {longest:.0} ms at most");
    }
    print!(
        "{kills} edges killed, {moves} moves, {longest:.0} ms at most, {} MB checked … ",
        report.checked / 1_000_000
    );
    charon.must_not_complain(lab)
}
