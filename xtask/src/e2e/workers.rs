//! Several workers in every node: whoever gets a packet hands it to the one that has its SA.

use super::failover::{SOON, survives};
use super::{Case, ensure, in_order, must_ping, up};
use crate::lab::topology::{GATEWAYS, TARGET_V6, TARGETS, gateway_outside};
use crate::lab::{Lab, Place, Setup, Status};
use crate::probe::Stream;
use crate::traffic::transfer;
use anyhow::Result;
use std::fs;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("workers_share_the_traffic", share_the_traffic),
    ("workers_have_sas_of_their_own", sas_of_their_own),
    ("workers_by_sockets", by_sockets),
    ("workers_more_here_than_there", more_here_than_there),
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
    // Short enough for a path whose MTU is still looked for.
    let udp = &["-u", "-b40M", "-P4", "-l1100"];
    for words in [&["-P8"][..], &["-P8", "-R"], udp] {
        transfer(lab, TARGETS[0], 2, words)?;
    }
    let report = stream.finish()?;
    ensure(report.error.is_none(), || format!("{report:?}"))?;
    let mut all = 0;
    for place in [Place::Client, Place::Gateway(1)] {
        let handed = handed_over(lab, place)?;
        let lost = lab.status(place)?.counter("hand_over_full");
        ensure(lost * 100 <= handed, || {
            format!("{place}: {handed} packets handed over, {lost} lost on the way")
        })?;
        all += handed;
    }
    // Which queue a flow comes by is the kernel's choice; that all of them come by the right one is not.
    ensure(all > 0, || {
        "every flow was in its queue, nothing was handed over".into()
    })?;
    Ok(())
}

/// How many pairs of SAs a client has with this gateway.
fn pairs(status: &Status, gateway: u8) -> usize {
    let outside = gateway_outside(gateway).to_string();
    let sessions = status.sessions.iter();
    sessions
        .filter(|session| session.outside == outside)
        .count()
}

fn wait_pairs(lab: &Lab, gateway: u8, count: usize) -> Result<Status> {
    let what = format!("{count} pairs of SAs with gw{gateway}");
    lab.wait_client(&what, Duration::from_secs(10), |s| {
        pairs(s, gateway) == count
    })
}

/// Each worker seals with keys of its own, also after a failover, and with the standby before it.
fn sas_of_their_own(lab: &mut Lab) -> Result<()> {
    two(lab, &setup())?;
    each_its_own(lab)
}

/// The same without XDP programs, where the kernel gives each worker's socket what is for its SAs.
fn by_sockets(lab: &mut Lab) -> Result<()> {
    let setup = Setup {
        without_xdp: true,
        ..setup()
    };
    up(lab, &setup)?;
    transfer(lab, TARGETS[0], 2, &["-P8"])?;
    transfer(lab, TARGETS[0], 2, &["-P8", "-R"])?;
    must_ping(lab, Place::Client, &[TARGET_V6])?;
    each_its_own(lab)
}

fn each_its_own(lab: &mut Lab) -> Result<()> {
    wait_pairs(lab, 1, 2)?;
    wait_pairs(lab, 2, 2)?;
    let before = packets(lab)?;
    let handed = handed_over(lab, Place::Gateway(1))?;
    // Without packets of the other direction a flow stays in the queue that chance has put it in.
    let words = format!(
        "for port in {{5001..5064}}; do for n in {{1..10}}; do echo $n > /dev/udp/{}/$port; done; done",
        TARGETS[0]
    );
    lab.exec(Place::Client, &["bash", "-c", &words])?;
    std::thread::sleep(Duration::from_millis(500));
    let [sent, received] = {
        let after = packets(lab)?;
        let more = |at: usize| {
            after[at]
                .iter()
                .zip(&before[at])
                .map(|(now, then)| now - then)
        };
        [0, 1].map(|at| more(at).collect::<Vec<u64>>())
    };
    for counts in [&sent, &received] {
        let used = counts.iter().filter(|packets| **packets > 100).count();
        ensure(used == 2, || {
            format!("{used} pairs of SAs carry traffic: sent {sent:?}, received {received:?}")
        })?;
    }
    // A card brings all by one queue; the kernel, which reads SPIs, brings each worker its own.
    let handed = handed_over(lab, Place::Gateway(1))? - handed;
    let by_socket = lab
        .status(Place::Gateway(1))?
        .interfaces
        .iter()
        .any(|i| i.kind == "udp");
    ensure(!by_socket || handed < 100, || {
        format!("of {received:?} packets {handed} came by the wrong socket")
    })?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))?;
    // The new standby too.
    wait_pairs(lab, 3, 2)?;
    must_ping(lab, Place::Client, &[TARGETS[1]])
}

/// What each pair of SAs of the client has sent, and of the first gateway has received.
fn packets(lab: &Lab) -> Result<[Vec<u64>; 2]> {
    let of = |place| Ok::<_, anyhow::Error>(lab.status(place)?.sessions);
    let (sent, received) = (of(Place::Client)?, of(Place::Gateway(1))?);
    Ok([
        sent.iter().map(|session| session.packets_out).collect(),
        received.iter().map(|session| session.packets_in).collect(),
    ])
}

/// A peer with fewer workers grants no more pairs than it has workers.
fn more_here_than_there(lab: &mut Lab) -> Result<()> {
    lab.rebuild(2)?;
    lab.configure(&setup())?;
    for number in GATEWAYS {
        let file = lab.dir().join(format!("gw{number}.toml"));
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.replace("workers = 2", "workers = 1"))?;
    }
    lab.start_all()?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    transfer(lab, TARGETS[0], 2, &["-P8"])?;
    std::thread::sleep(Duration::from_secs(1));
    let status = wait_pairs(lab, 1, 1)?;
    ensure(status.counter("handed_over") > 0, || {
        "the second worker has handed nothing to the first".into()
    })
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
        extra: REKEYS.into(),
        ..setup()
    };
    two(lab, &setup)?;
    loses_nothing(lab)
}

/// Two workers, and fresh keys all the time.
pub(super) const REKEYS: &str =
    "\n[esp]\nworkers = 2\n\n[ike]\nrekey_child = \"1s\"\nrekey_jitter = 10\n";

/// Six seconds under load with these.
pub(super) fn loses_nothing(lab: &Lab) -> Result<()> {
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
    std::thread::sleep(Duration::from_millis(500));
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
    let said = fs::read_to_string(lab.log(Place::Client))?;
    ensure(said.contains("receive queues for 1 of 2 workers"), || {
        format!("nothing about queues in: {said}")
    })?;
    must_ping(lab, Place::Client, &[TARGETS[2]])
}
