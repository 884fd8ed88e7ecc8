//! Workers without XDP programs: each further pair of SAs goes in UDP by a port of its own, if that is a way.

use super::workers::{REKEYS, loses_nothing};
use super::{Case, active, ensure, in_order, must_ping, up};
use crate::lab::topology::{TARGET_V6, TARGETS};
use crate::lab::{Lab, Mapping, Place, Setup};
use crate::probe::Stream;
use crate::traffic::transfer;
use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("ports_of_the_workers_own", of_their_own),
    ("ports_of_the_workers_own_behind_a_nat", behind_a_nat),
    ("ports_of_the_workers_own_and_fresh_keys", fresh_keys),
    ("ports_of_the_workers_own_with_xdp_gateways", xdp_gateways),
    ("ports_that_are_blocked_in_mid_flow", blocked),
    ("ports_that_were_never_open", never_open),
];

/// Bytes that chance does not make of heartbeats.
const MUCH: u64 = 1_000_000;

fn setup() -> Setup {
    Setup {
        without_xdp: true,
        ipv6: true,
        extra: "\n[esp]\nworkers = 2\n".into(),
        ..in_order(1)
    }
}

/// Has the router count, and drop if so, what goes between port 4500 and others.
fn watch(lab: &Lab, drop: bool) -> Result<()> {
    let verdict = if drop { "drop" } else { "accept" };
    lab.wan_rules(&format!(
        "table ip own
delete table ip own
table ip own {{
  counter out {{ }}
  counter back {{ }}
  chain through {{
    type filter hook forward priority 10
    udp dport 4500 udp sport != 4500 counter name out {verdict}
    udp sport 4500 udp dport != 4500 counter name back {verdict}
  }}
}}
"
    ))
}

/// Bytes to the gateways from other ports than 4500, and back to those.
fn seen(lab: &Lab) -> Result<[u64; 2]> {
    let count = |name: &str| -> Result<u64> {
        let words = ["nft", "list", "counter", "ip", "own", name];
        let text = lab.exec(Place::Wan, &words)?;
        let bytes = text.split("bytes").nth(1).map(str::trim_start);
        let bytes = bytes.and_then(|rest| rest.split_whitespace().next());
        let bytes = bytes.and_then(|bytes| bytes.parse().ok());
        bytes.with_context(|| format!("no counter in {text:?}"))
    };
    Ok([count("out")?, count("back")?])
}

fn answered(lab: &Lab) -> Result<()> {
    let soon = Duration::from_secs(10);
    lab.wait("the own port is answered", soon, |lab| {
        Ok((seen(lab)?[1] > 0).then_some(()))
    })?;
    std::thread::sleep(Duration::from_millis(700));
    Ok(())
}

/// What goes by both ports, either way.
fn share(lab: &Lab) -> Result<()> {
    answered(lab)?;
    let before = seen(lab)?;
    transfer(lab, TARGETS[0], 2, &["-P8"])?;
    transfer(lab, TARGETS[0], 2, &["-P8", "-R"])?;
    let after = seen(lab)?;
    let more = [0, 1].map(|at| after[at] - before[at]);
    print!("{more:?} bytes by the own port … ");
    ensure(more.iter().all(|bytes| *bytes > MUCH), || {
        format!("by the own port went {more:?} bytes, out and back")
    })?;
    must_ping(lab, Place::Client, &[TARGETS[2]])
}

fn of_their_own(lab: &mut Lab) -> Result<()> {
    watch(lab, false)?;
    up(lab, &setup())?;
    share(lab)?;
    must_ping(lab, Place::Client, &[TARGET_V6])?;
    // The next gateway is asked too.
    let number = active(lab)?;
    lab.kill(Place::Gateway(number))?;
    let soon = Duration::from_secs(5);
    lab.wait_client("another one is active", soon, |s| {
        s.active().is_some_and(|now| now != number)
    })?;
    share(lab)
}

fn behind_a_nat(lab: &mut Lab) -> Result<()> {
    let mapping = |host, first_port| Mapping { host, first_port };
    lab.nat(mapping(254, 20_000))?;
    watch(lab, false)?;
    let setup = Setup {
        client_outside: None,
        ..setup()
    };
    up(lab, &setup)?;
    share(lab)?;
    // The NAT makes other ports of all of them, and gets another address.
    let streams = TARGETS.map(|target| Stream::start_at(lab, target));
    for mapping in [mapping(254, 30_000), mapping(253, 40_000)] {
        std::thread::sleep(Duration::from_secs(1));
        lab.nat(mapping)?;
        watch(lab, false)?;
    }
    std::thread::sleep(Duration::from_secs(1));
    for stream in streams {
        let report = stream?.finish()?;
        print!("a stall of {:.0} ms … ", report.longest_stall_ms);
        ensure(report.error.is_none(), || format!("{report:?}"))?;
        ensure(report.longest_stall_ms < 3000.0, || format!("{report:?}"))?;
    }
    // The streams may all have been the first worker's, and a way that rests is asked about seldom.
    transfer(lab, TARGETS[0], 1, &["-P8"])?;
    share(lab)
}

fn fresh_keys(lab: &mut Lab) -> Result<()> {
    watch(lab, false)?;
    let setup = Setup {
        extra: REKEYS.into(),
        ..setup()
    };
    up(lab, &setup)?;
    answered(lab)?;
    loses_nothing(lab)?;
    share(lab)
}

fn xdp_gateways(lab: &mut Lab) -> Result<()> {
    lab.rebuild(2)?;
    watch(lab, false)?;
    lab.configure(&Setup {
        without_xdp: false,
        ..setup()
    })?;
    let file = lab.dir().join("client.toml");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("[inside]", "xdp = \"off\"\n[inside]"))?;
    lab.start_all()?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))?;
    share(lab)
}

/// Connections go on, by the same gateway.
fn blocked(lab: &mut Lab) -> Result<()> {
    watch(lab, false)?;
    up(lab, &setup())?;
    share(lab)?;
    let (number, sessions) = (active(lab)?, spis(lab)?);
    let streams = [TARGETS[0], TARGETS[1], TARGETS[2], TARGET_V6];
    let streams = streams.map(|target| Stream::start_at(lab, target));
    std::thread::sleep(Duration::from_secs(1));
    watch(lab, true)?;
    std::thread::sleep(Duration::from_secs(5));
    // By now all go by port 4500, and nothing is lost.
    let before = seen(lab)?;
    transfer(lab, TARGETS[0], 2, &["-P8"])?;
    transfer(lab, TARGETS[0], 2, &["-P8", "-R"])?;
    let after = seen(lab)?;
    let lost = [0, 1].map(|at| after[at] - before[at]);
    ensure(lost.iter().all(|bytes| *bytes < 10_000), || {
        format!("{lost:?} bytes went by the port that is blocked")
    })?;
    for stream in streams {
        let report = stream?.finish()?;
        print!("a stall of {:.0} ms … ", report.longest_stall_ms);
        ensure(report.error.is_none(), || format!("{report:?}"))?;
        ensure(report.longest_stall_ms < 6000.0, || format!("{report:?}"))?;
    }
    ensure((active(lab)?, spis(lab)?) == (number, sessions), || {
        "the client is elsewhere, or has other sessions".into()
    })
}

fn spis(lab: &Lab) -> Result<Vec<String>> {
    let sessions = lab.status(Place::Client)?.sessions;
    Ok(sessions.into_iter().map(|s| s.spi_in).collect())
}

/// A firewall that lets port 4500 through and nothing else: nobody waits for anything.
fn never_open(lab: &mut Lab) -> Result<()> {
    watch(lab, true)?;
    up(lab, &setup())?;
    let what = "all pairs of SAs";
    lab.wait_client(what, Duration::from_secs(10), |s| s.sessions.len() == 4)?;
    let stream = Stream::start(lab)?;
    transfer(lab, TARGETS[0], 2, &["-P8"])?;
    transfer(lab, TARGETS[0], 2, &["-P8", "-R"])?;
    let report = stream.finish()?;
    ensure(
        report.error.is_none() && report.longest_stall_ms < 1000.0,
        || format!("{report:?}"),
    )?;
    // It was tried: the dropped heartbeats, and no more than those.
    let [out, back] = seen(lab)?;
    ensure(0 < out && out < 10_000 && back == 0, || {
        format!("{out} bytes out, {back} back")
    })
}
