//! Several workers in every node: whoever gets a packet hands it to the one that has its SA.

use super::failover::{SOON, survives};
use super::{Case, ensure, in_order, must_ping, up};
use crate::lab::topology::{GATEWAYS, TARGET_V6, TARGETS};
use crate::lab::{Lab, Place, Setup, Status};
use crate::probe::Stream;
use crate::traffic::transfer;
use anyhow::Result;

pub(super) const CASES: &[Case] = &[
    ("workers_share_the_traffic", share_the_traffic),
    ("workers_fail_over_after_kill", after_kill),
    ("workers_fail_over_after_lan_cable_pulled", after_lan_pulled),
    ("workers_fail_over_from_frozen_daemon", from_frozen),
    ("workers_rekey_without_a_lost_packet", rekey),
    ("workers_no_more_than_queues", no_more_than_queues),
];

/// Two in each node, and as many queues.
fn two(lab: &mut Lab, setup: &Setup) -> Result<Status> {
    lab.rebuild(2)?;
    up(lab, setup)
}

fn setup() -> Setup {
    Setup {
        extra: "\n[esp]\nworkers = 2\n".into(),
        ipv6: true,
        ..in_order(1)
    }
}

fn handed_over(lab: &Lab, place: Place) -> Result<u64> {
    Ok(lab.status(place)?.counter("handed_over"))
}

fn share_the_traffic(lab: &mut Lab) -> Result<()> {
    two(lab, &setup())?;
    let stream = Stream::start(lab)?;
    for target in TARGETS {
        must_ping(lab, Place::Client, &[target])?;
    }
    must_ping(lab, Place::Client, &[TARGET_V6])?;
    for words in [&["-P8"][..], &["-P8", "-R"], &["-u", "-b40M", "-P4"]] {
        transfer(lab, TARGETS[0], 2, words)?;
    }
    let report = stream.finish()?;
    ensure(report.error.is_none(), || format!("{report:?}"))?;
    // One session: in each node one of the two has its SAs.
    for place in [Place::Client, Place::Gateway(1)] {
        let handed = handed_over(lab, place)?;
        ensure(handed > 0, || {
            format!("{place}: every flow was in one queue, nothing was handed over")
        })?;
        let status = lab.status(place)?;
        let lost = status.counter("hand_over_full");
        ensure(lost * 100 < handed, || {
            format!("{place}: {handed} packets handed over, {lost} lost on the way")
        })?;
    }
    Ok(())
}

fn after_kill(lab: &mut Lab) -> Result<()> {
    two(lab, &setup())?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))
}

fn after_lan_pulled(lab: &mut Lab) -> Result<()> {
    two(lab, &setup())?;
    survives(lab, SOON, |lab, number| lab.pull_lan(number))?;
    for number in GATEWAYS {
        lab.restore_lan(number)?;
    }
    must_ping(lab, Place::Client, &[TARGETS[1]])
}

fn from_frozen(lab: &mut Lab) -> Result<()> {
    two(lab, &setup())?;
    survives(lab, SOON, |lab, number| lab.freeze(Place::Gateway(number)))
}

/// The successor of a session may be another worker's.
fn rekey(lab: &mut Lab) -> Result<()> {
    let setup = Setup {
        extra: "\n[esp]\nworkers = 2\n\n[ike]\nrekey_child = \"1s\"\nrekey_jitter = 10\n".into(),
        ..setup()
    };
    two(lab, &setup)?;
    let stream = Stream::start(lab)?;
    transfer(lab, TARGETS[0], 6, &["-u", "-b20M", "-P4"])?;
    let report = stream.finish()?;
    ensure(report.error.is_none(), || format!("{report:?}"))?;
    let events = lab.events(Place::Client, 0)?;
    let fresh = events
        .iter()
        .filter(|e| e.kind == "session_rekeyed")
        .count();
    ensure(fresh >= 4, || format!("fresh keys {fresh} times in 6 s"))?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    for place in [Place::Client, Place::Gateway(1)] {
        let status = lab.status(place)?;
        for reason in [
            "unknown_spi",
            "no_session",
            "bad_icv",
            "replayed",
            "too_old",
        ] {
            let count = status.counter(reason);
            ensure(count == 0, || format!("{place}: {count} {reason}"))?;
        }
    }
    Ok(())
}

/// More workers than queues: one has none, so it is not started.
fn no_more_than_queues(lab: &mut Lab) -> Result<()> {
    up(lab, &setup())?;
    let said = std::fs::read_to_string(lab.log(Place::Client))?;
    ensure(said.contains("receive queues for 1 of 2 workers"), || {
        format!("nothing about queues in: {said}")
    })?;
    must_ping(lab, Place::Client, &[TARGETS[2]])
}
