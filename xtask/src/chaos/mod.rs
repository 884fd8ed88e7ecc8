//! `cargo xtask chaos`: the real binaries under faults by chance, with traffic whose every byte is
//! checked, and every frame between client and gateways looked at.

mod deeds;
mod flow;
mod health;
mod home;
mod plan;
mod report;
pub(crate) mod shared;
mod watch;
mod wire;

pub(crate) use flow::flow;
pub(crate) use watch::watch;

use self::deeds::Hand;
use self::flow::Flow;
use self::health::{Health, Lateness, nodes};
use self::home::Home;
use self::plan::{Fault, Kind, Plan, Round};
use self::report::{Report, Tally};
use self::watch::Watch;
use crate::lab::topology::TARGETS;
use crate::lab::{Lab, Place, Setup, Status};
use crate::probe::{Stream, now_ns};
use crate::{PACKAGES, build, paths, toolchain};
use anyhow::{Result, bail, ensure};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Of the names of the network namespaces.
pub(crate) const PREFIX: &str = "egc-";
/// Keys are made anew all the while.
const REKEYING: &str = "\n[ike]\nrekey_child = \"3s\"\nrekey_ike = \"8s\"\n";
/// Where the checked TCP streams go; the datagrams go to the first target, too.
const STREAMS: [&str; 2] = [TARGETS[0], TARGETS[1]];
/// Where each round has a short connection of its own.
const SHORT: &str = TARGETS[2];
const SHORT_BYTES: u64 = 100_000;
/// D + 4 R of the policy, which always holds (docs/failover.md, "How long an outage lasts").
const SWITCH: Duration = Duration::from_millis(25);
/// `[heartbeat] dead_man` of the gateways: so long a frozen one still answers.
const DEAD_MAN: Duration = Duration::from_millis(50);
/// The kernel tells of a second link event up to so much later.
const LINK_EVENT: Duration = Duration::from_secs(1);
/// Two gateways that are asked in vain, and an exchange with the third.
const EXCHANGES: Duration = Duration::from_secs(8);
/// For a busy machine; what it is seen to be late by comes on top.
const MARGIN: Duration = Duration::from_millis(500);
/// Longer than any wait of a client (30 s): without service then it is lost.
const PATIENCE: Duration = Duration::from_secs(40);
/// It is looked so often meanwhile.
const STEP: Duration = Duration::from_millis(200);

/// A time as people write it: `90s`, `20m`, `2h`, or seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => (text, 1),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?}: expected a number and s, m or h, such as 20m"))?;
    match number.checked_mul(unit) {
        Some(seconds) if (20..=1_000_000).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?}: expected 20s to 277h")),
    }
}

/// The command. `shared`: with an authority, and edges that share its SAs.
pub(crate) fn run(time: Duration, seed: u64, shared: bool, prefix: &str) -> Result<()> {
    toolchain::packages(PACKAGES)?;
    toolchain::ensure()?;
    build::release()?;
    println!("chaos for {time:?}, seed {seed}");
    let mut lab = Lab::up(prefix, 1)?;
    let tell = &mut |line: String| println!("{line}");
    if shared {
        let report = shared::play(&mut lab, time, seed, tell)?;
        drop(lab);
        report.show();
        return keep(&report, &format!("shared-{seed}"), report.wrong.len());
    }
    let report = play(&mut lab, time, seed, tell)?;
    drop(lab);
    report.show();
    keep(&report, &format!("seed-{seed}"), report.wrong.len())
}

/// Writes all figures to a file.
fn keep(report: &impl serde::Serialize, name: &str, wrong: usize) -> Result<()> {
    let folder = paths::target().join("chaos");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_string_pretty(report)?)?;
    println!("{}", file.display());
    match wrong {
        0 => Ok(()),
        count => bail!("{count} promises were broken ({name})"),
    }
}

/// One run in a lab; `tell` is given a line for each round and each thing that is wrong.
pub(crate) fn play(
    lab: &mut Lab,
    time: Duration,
    seed: u64,
    tell: &mut dyn FnMut(String),
) -> Result<Report> {
    let mut run = Run::start(lab, tell)?;
    let start = Instant::now();
    // What a slow machine is late by is put on all that follows.
    let mut slip = Duration::ZERO;
    for round in Plan::new(seed) {
        if round.at + round.length + slip > time {
            break;
        }
        run.sleep_until(start + round.at + slip)?;
        run.round(&round)?;
        slip = start.elapsed().saturating_sub(round.at + round.length);
        if run.report.lost {
            break;
        }
    }
    run.finish(seed, start.elapsed())
}

struct Run<'a> {
    lab: &'a mut Lab,
    tell: &'a mut dyn FnMut(String),
    hand: Hand,
    health: Health,
    lateness: Lateness,
    watch: Watch,
    flow: Flow,
    streams: Vec<(&'static str, Stream)>,
    looked: Instant,
    report: Report,
    start_ns: u64,
    since: u64,
}

impl<'a> Run<'a> {
    fn start(lab: &'a mut Lab, tell: &'a mut dyn FnMut(String)) -> Result<Self> {
        let setup = Setup {
            general: crate::lab::GENERAL.to_owned() + "RandomOrder = no\n",
            extra: REKEYING.into(),
            ..Setup::default()
        };
        lab.configure(&setup)?;
        let mut homes = HashMap::new();
        for place in nodes() {
            homes.insert(place, Home::new(lab, place)?);
        }
        let mut hand = Hand::new(homes, setup);
        let watch = Watch::start(lab)?;
        if let Err(error) = lab.start_all() {
            for home in hand.homes.values_mut() {
                let said = home.collect(lab)?;
                eprint!("{said}");
            }
            return Err(error);
        }
        lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))?;
        lab.wait_client("a standby is keyed", Duration::from_secs(15), settled)?;
        let flow = Flow::start(lab)?;
        let mut streams = Vec::new();
        for address in STREAMS {
            streams.push((address, Stream::start_at(lab, address)?));
        }
        Ok(Self {
            lab,
            tell,
            hand,
            health: Health::default(),
            lateness: Lateness::start(),
            watch,
            flow,
            streams,
            looked: Instant::now(),
            report: Report::default(),
            start_ns: now_ns(),
            since: 0,
        })
    }

    fn wrong(&mut self, what: String) {
        let at = now_ns().saturating_sub(self.start_ns) as f64 / 1e9;
        let line = format!("{at:.1} s: {what}");
        (self.tell)(format!("  ✗ {line}"));
        self.report.wrong.push(line);
    }

    /// Looks after the nodes meanwhile.
    fn sleep_until(&mut self, end: Instant) -> Result<()> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            // Not right before a deed: it would come late.
            if self.looked.elapsed() > Duration::from_secs(1) && left > Duration::from_millis(300) {
                self.looked = Instant::now();
                for what in self.health.look(self.lab, &mut self.hand)? {
                    self.wrong(what);
                }
            } else {
                std::thread::sleep(left.min(Duration::from_millis(100)));
            }
        }
    }

    fn round(&mut self, round: &Round) -> Result<()> {
        let (start, start_ns) = (Instant::now(), now_ns());
        let before = self.lab.status(Place::Client).unwrap_or_default();
        let described = describe(round);
        (self.tell)(format!("{:5}  {described}", round.number));
        let mut deeds: Vec<(Duration, bool, &Fault)> = Vec::new();
        for fault in &round.faults {
            deeds.push((fault.from, true, fault));
            deeds.push((fault.until, false, fault));
        }
        deeds.sort_by_key(|(at, begins, _)| (*at, !*begins));
        for (at, begins, fault) in deeds {
            self.sleep_until(start + at)?;
            if let (false, Kind::Kill | Kind::Terminate, Place::Gateway(number)) =
                (begins, fault.kind, fault.place)
            {
                self.watch.begins_anew(number)?;
            }
            let done = match begins {
                true => self.hand.begin(self.lab, fault),
                false => self.hand.end(self.lab, fault),
            };
            if let Err(error) = done {
                let (what, place) = (fault.kind.name(), fault.place);
                let when = if begins { "begin" } else { "end" };
                self.wrong(format!(
                    "{described}: {when} of {what:?} at {place}: {error:#}"
                ));
            }
        }
        let last_ns = now_ns();
        self.sleep_until(start + round.length)?;
        self.judge(round, &described, &before, [start_ns, last_ns])
    }

    /// What became of the traffic.
    fn judge(
        &mut self,
        round: &Round,
        described: &str,
        before: &Status,
        [start_ns, last_ns]: [u64; 2],
    ) -> Result<()> {
        let mut calm = Duration::ZERO;
        let outage = loop {
            let outage = self.flow.outage(start_ns);
            // A short silence at this very moment says nothing yet.
            let over = outage.recovered && self.flow.answers(Duration::from_millis(300));
            if over || calm >= PATIENCE {
                break outage;
            }
            let step = Instant::now();
            self.sleep_until(step + STEP)?;
            // A virtual machine may be stopped for minutes: then the nodes were too.
            calm += step.elapsed().min(STEP * 5);
        };
        let took = Duration::from_nanos(outage.until_ns.saturating_sub(outage.from_ns));
        if !outage.recovered {
            let after = PATIENCE.as_secs();
            self.wrong(format!(
                "{described}: no answer {after} s after the last fault; dropped: {}",
                self.lab.drops()
            ));
            self.report.lost = true;
            return Ok(());
        }
        let lateness = self.lateness.since(start_ns);
        let bound = bound(round, before, last_ns.saturating_sub(start_ns))
            .map(|bound| bound + MARGIN + 4 * lateness);
        if let Some(bound) = bound.filter(|bound| took > *bound) {
            let events = self.lab.events(Place::Client, self.since)?;
            let told: Vec<String> = events
                .iter()
                .filter(|event| event.mono_ns + 1_000_000_000 > start_ns)
                .map(|event| {
                    let at = (event.mono_ns as f64 - start_ns as f64) / 1e6;
                    format!("\n      {at:+9.1} ms {}", event.text)
                })
                .collect();
            self.wrong(format!(
                "{described}: outage of {took:.1?} from {:+.1} ms on, expected at most {bound:.1?}{}",
                (outage.from_ns as f64 - start_ns as f64) / 1e6,
                told.concat()
            ));
        }
        self.report.tally(round, before, took, outage.lost);
        self.connections(described)?;
        self.wire(described);
        if let Some(last) = self.lab.events(Place::Client, self.since)?.last() {
            self.since = last.seq.saturating_sub(200);
        }
        Ok(())
    }

    /// The streams go on, and a new connection can be made.
    fn connections(&mut self, described: &str) -> Result<()> {
        for at in 0..self.streams.len() {
            if !self.streams[at].1.broken()? {
                continue;
            }
            let (address, stream) = self.streams.remove(at);
            let said = stream.finish();
            self.wrong(format!(
                "{described}: the TCP stream to {address} broke: {said:?}"
            ));
            let fresh = Stream::start_at(self.lab, address)?;
            self.streams.insert(at, (address, fresh));
        }
        match Stream::transfer(self.lab, SHORT, SHORT_BYTES) {
            Ok(report) => self.report.connection(report.checked),
            Err(error) => self.wrong(format!("{described}: a new connection: {error:#}")),
        }
        Ok(())
    }

    fn wire(&mut self, described: &str) {
        let told = self.watch.so_far();
        let new: Vec<String> = told
            .found
            .keys()
            .filter(|found| !self.report.on_the_wire.contains(*found))
            .cloned()
            .collect();
        for found in new {
            self.wrong(format!("{described}: on the wire: {found}"));
            self.report.on_the_wire.insert(found);
        }
        let totals = self.flow.totals();
        for (what, count, known) in [
            ("came back twice", totals.twice, &mut self.report.flow.twice),
            ("came back wrong", totals.wrong, &mut self.report.flow.wrong),
        ] {
            if count > *known {
                let line = format!("{described}: {} datagrams {what}", count - *known);
                *known = count;
                (self.tell)(format!("  ✗ {line}"));
                self.report.wrong.push(line);
            }
        }
    }

    fn finish(mut self, seed: u64, took: Duration) -> Result<Report> {
        for what in self.health.look(self.lab, &mut self.hand)? {
            self.wrong(what);
        }
        for (address, stream) in std::mem::take(&mut self.streams) {
            if self.report.lost {
                // It would wait for answers until TCP gives up.
                continue;
            }
            let stream = stream.finish()?;
            if let Some(error) = &stream.error {
                self.wrong(format!("at the end: the TCP stream to {address}: {error}"));
            }
            self.report.stream(&stream);
        }
        self.wire("at the end");
        let mut report = self.report;
        report.flow = self.flow.finish()?;
        let told = self.watch.finish()?;
        ensure!(told.seen.nonces > 0, "the watcher of the wire saw no ESP");
        report.seen = told.seen;
        report.usage = self.health.usage;
        report.asked = self.health.asked;
        (report.seed, report.seconds) = (seed, took.as_secs_f64());
        for place in nodes() {
            if self.lab.runs(place) {
                let status = self.lab.stop(place)?;
                if !status.success() {
                    report
                        .wrong
                        .push(format!("{place} was told to end: {status}"));
                }
            }
        }
        for (_, home) in self.hand.homes {
            home.leave();
        }
        Ok(report)
    }
}

/// There is a gateway in use and one in reserve.
fn settled(status: &Status) -> bool {
    status.active().is_some() && status.keyed().len() >= 2
}

/// What a round is, in a line.
fn describe(round: &Round) -> String {
    let fault = |fault: &Fault| {
        let lasts = (fault.until - fault.from).as_secs_f64();
        let at = fault.from.as_secs_f64();
        match fault.from.is_zero() {
            true => format!("{} {} {lasts:.1} s", fault.place, fault.kind.name()),
            false => format!(
                "{} {} {lasts:.1} s from {at:.1} s",
                fault.place,
                fault.kind.name()
            ),
        }
    };
    let all: Vec<String> = round.faults.iter().map(fault).collect();
    all.join(", ")
}

/// How long the traffic may stand still, apart from what the machine is late by. `real_ns`: from the
/// first deed to the last.
fn bound(round: &Round, before: &Status, real_ns: u64) -> Option<Duration> {
    let real = Duration::from_nanos(real_ns);
    let [fault] = round.faults.as_slice() else {
        // Losses by chance are no outage that anything is promised for.
        let by_chance = |f: &Fault| matches!(f.kind, Kind::LossTo | Kind::LossFrom);
        return (!round.faults.iter().any(by_chance)).then_some(real + LINK_EVENT + EXCHANGES);
    };
    let waits = match (fault.kind, fault.place) {
        (Kind::LossTo | Kind::LossFrom, _) => return None,
        (Kind::Moves, _) => EXCHANGES,
        // The gateway answers until the kernel has told it.
        (Kind::LanPulled | Kind::LanDown, _) => LINK_EVENT + SWITCH,
        (Kind::ClientLink, _) => real + LINK_EVENT + SWITCH,
        (Kind::Freeze, Place::Client) => real + SWITCH,
        (Kind::Freeze, _) => DEAD_MAN + SWITCH,
        _ => SWITCH,
    };
    match settled(before) {
        true => Some(waits),
        false => Some(waits + EXCHANGES),
    }
}

/// What a case of the end-to-end tests does.
pub(crate) fn minute(lab: &mut Lab) -> Result<()> {
    let mut lines = Vec::new();
    let report = play(lab, Duration::from_secs(60), 1, &mut |line| {
        lines.push(line)
    })?;
    let Tally { rounds, faults } = report.count();
    print!(
        "{faults} faults in {rounds} rounds, {} nonces on the wire … ",
        report.seen.nonces
    );
    ensure!(report.wrong.is_empty(), "seed 1:\n{}", lines.join("\n"));
    ensure!(rounds >= 5, "only {rounds} rounds in a minute");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("20m"), Ok(Duration::from_secs(1200)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("60"), Ok(Duration::from_secs(60)));
        for wrong in ["", "h", "2d", "3s", "-5m", "99999999999999h", "1é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
