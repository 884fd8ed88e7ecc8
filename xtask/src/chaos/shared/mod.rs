//! `cargo xtask chaos --shared`: an authority, three edges with one address and a client, under deeds by chance.

mod plan;

use self::plan::{Act, Deed, Plan, Round};
use super::flow::{Flow, Totals};
use super::health::Lateness;
use super::home::Home;
use super::watch::Watch;
use super::wire::Seen;
use super::{MARGIN, PATIENCE, SHORT, SHORT_BYTES, STEP, STREAMS};
use crate::lab::sharing::{AUTHORITY, Sharing};
use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Lab, Place};
use crate::probe::{Stream, now_ns};
use crate::style;
use anyhow::{Result, ensure};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Fresh keys come in the middle of all that.
const REKEYING: &str = "\n[ike]\nrekey_child = \"10s\"\n";
/// Of the repository's disk, as `mount` wants it.
const DISK: &str = "16m";
/// A client whose IKE SA is lost with its authority finds out, and begins a session anew.
const ANEW: Duration = Duration::from_secs(20);
/// What a deed costs where nothing has to be negotiated: another edge asks for the pair, gets it, and says so
/// on the LAN.
const HANDED: Duration = Duration::from_millis(200);
/// An owner that is silent is asked for 40 ms, and what it may have accepted costs fresh keys.
const SILENT: Duration = Duration::from_millis(1000);
/// An edge goes on alone after a second.
const ALONE: Duration = Duration::from_millis(1200);
/// Edges connect again.
const CONNECT: Duration = Duration::from_millis(1500);

/// What is known of one deed.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) together: usize,
    /// Of those alone, with a session that the authority knows.
    pub(crate) outages_ms: Vec<f64>,
    pub(crate) lost: u64,
    /// Of those alone, with one that an earlier authority negotiated.
    pub(crate) orphaned_ms: Vec<f64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
    pub(crate) rows: BTreeMap<Deed, Row>,
    pub(crate) together_ms: Vec<f64>,
    pub(crate) flow: Totals,
    pub(crate) stream_bytes: u64,
    pub(crate) connections: u64,
    pub(crate) seen: Seen,
    /// Sessions that the client made, with the first one.
    pub(crate) sessions: usize,
    #[serde(skip)]
    on_the_wire: BTreeSet<String>,
    pub(crate) wrong: Vec<String>,
}

impl Report {
    /// Prints it.
    pub(crate) fn show(&self) {
        println!(
            "\n{:<26} {:>8} {:>6}   {:>8} {:>8} {:>6}   orphaned, max ms",
            "deed", "together", "alone", "p50 ms", "max ms", "lost"
        );
        for (deed, row) in &self.rows {
            println!(
                "{:<26} {:>8} {:>6}   {:>8} {:>8} {:>6}   {:>8}",
                deed.name(),
                row.together,
                row.outages_ms.len() + row.orphaned_ms.len(),
                at(&row.outages_ms, 50),
                at(&row.outages_ms, 100),
                row.lost,
                at(&row.orphaned_ms, 100),
            );
        }
        println!(
            "{:<42}   {:>8} {:>8}",
            "several together",
            at(&self.together_ms, 50),
            at(&self.together_ms, 100)
        );
        let (flow, seen) = (&self.flow, &self.seen);
        println!(
            "\n{} rounds, {:.0} s, seed {}; {} sessions were made",
            self.rounds, self.seconds, self.seed, self.sessions
        );
        println!(
            "datagrams    {} sent, {} lost, {} came back wrong, {} twice",
            flow.sent,
            flow.sent.saturating_sub(flow.answers),
            flow.wrong,
            flow.twice,
        );
        println!(
            "TCP          {} and {} short connections, byte for byte",
            style::bytes(self.stream_bytes),
            self.connections,
        );
        println!(
            "on the wire  {} frames: {} ESP packets with {} nonces of {} keys; {} frames not seen",
            seen.frames, seen.esp, seen.nonces, seen.keys, seen.unseen
        );
        for wrong in &self.wrong {
            println!("{} {wrong}", style::red("✗"));
        }
        if self.wrong.is_empty() {
            println!("{}", style::green("✓ every promise was kept"));
        }
    }
}

/// A percentile, in milliseconds.
fn at(ms: &[f64], percent: usize) -> String {
    let mut sorted = ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted
        .get(index)
        .map_or("–".to_owned(), |ms| format!("{ms:.1}"))
}

struct Run<'a> {
    lab: &'a mut Lab,
    tell: &'a mut dyn FnMut(String),
    disk: Home,
    lateness: Lateness,
    watch: Watch,
    flow: Flow,
    streams: Vec<(&'static str, Stream)>,
    /// The edge that packets for the shared address come to.
    route: u8,
    /// The edge that something is done to.
    victim: Option<u8>,
    /// The session's authority is gone: its client is going to begin another one.
    orphaned: bool,
    sessions: usize,
    report: Report,
    start_ns: u64,
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
    let mut slip = Duration::ZERO;
    for round in Plan::new(seed) {
        if round.at + round.length + slip > time {
            break;
        }
        run.round(&round)?;
        slip = start.elapsed().saturating_sub(round.at + round.length);
    }
    run.finish(seed, start.elapsed())
}

impl<'a> Run<'a> {
    fn start(lab: &'a mut Lab, tell: &'a mut dyn FnMut(String)) -> Result<Self> {
        let disk = Home::of_size(lab, AUTHORITY, DISK)?;
        let watch = Watch::start(lab)?;
        lab.share(&Sharing {
            repository: "file = \"state/repository\"".into(),
            extra: REKEYING.into(),
            authority_extra: REKEYING.into(),
            ..Sharing::default()
        })?;
        lab.start(Place::Client)?;
        lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))?;
        let flow = Flow::start(lab)?;
        let mut streams = Vec::new();
        for address in STREAMS {
            streams.push((address, Stream::start_at(lab, address)?));
        }
        let mut run = Self {
            lab,
            tell,
            disk,
            lateness: Lateness::start(),
            watch,
            flow,
            streams,
            route: 1,
            victim: None,
            orphaned: false,
            sessions: 0,
            report: Report::default(),
            start_ns: now_ns(),
        };
        run.sessions = run.count_sessions()?;
        std::thread::sleep(Duration::from_secs(2));
        Ok(run)
    }

    fn wrong(&mut self, what: String) {
        let at = now_ns().saturating_sub(self.start_ns) as f64 / 1e9;
        let line = format!("{at:.1} s: {what}");
        (self.tell)(format!("  ✗ {line}"));
        self.report.wrong.push(line);
    }

    /// Sessions that the client has made since it was started.
    fn count_sessions(&self) -> Result<usize> {
        let events = self.lab.events(Place::Client, 0)?;
        let ups = events.iter().filter(|event| event.kind == "session_up");
        Ok(ups.count())
    }

    fn round(&mut self, round: &Round) -> Result<()> {
        let (start, start_ns) = (Instant::now(), now_ns());
        let described = describe(round);
        (self.tell)(format!("{:5}  {described}", round.number));
        let orphaned = self.orphaned;
        let mut deeds = Vec::new();
        for act in &round.acts {
            deeds.push((act.from, true, act));
            deeds.push((act.until, false, act));
        }
        deeds.sort_by_key(|(at, begins, _)| (*at, !*begins));
        for (at, begins, act) in deeds {
            let left = (start + at).saturating_duration_since(Instant::now());
            std::thread::sleep(left);
            let done = match begins {
                true => self.begin(act),
                false => self.end(act),
            };
            if let Err(error) = done {
                let (name, when) = (act.deed.name(), if begins { "begin" } else { "end" });
                self.wrong(format!("{described}: {when} of {name:?}: {error:#}"));
            }
        }
        let last_ns = now_ns();
        std::thread::sleep((start + round.length).saturating_duration_since(Instant::now()));
        self.judge(round, &described, orphaned, [start_ns, last_ns])
    }

    /// Packets come to another edge from now on, in turn.
    fn next_route(&mut self) -> Result<u8> {
        let before = self.route;
        let turn = |number: u8| number % 3 + 1;
        let mut next = turn(before);
        if Some(next) == self.victim {
            next = turn(next);
        }
        self.lab.bring_to(next)?;
        self.route = next;
        Ok(before)
    }

    fn begin(&mut self, act: &Act) -> Result<()> {
        let here = self.route;
        let edge = Place::Gateway(here);
        match act.deed {
            Deed::EdgeKilled => {
                self.victim = Some(here);
                let next = here % 3 + 1;
                self.lab.kill_and(edge, |lab| lab.bring_to(next))?;
                self.route = next;
            }
            Deed::EdgeEnded => {
                self.victim = Some(self.next_route()?);
                let status = self.lab.stop(edge)?;
                ensure!(status.success(), "{edge} was told to end: {status}");
            }
            Deed::EdgeFrozen => {
                self.lab.freeze(edge)?;
                self.victim = Some(self.next_route()?);
            }
            Deed::EdgeDrained => {
                self.lab.evergate(edge, &["drain"])?;
                self.victim = Some(self.next_route()?);
            }
            Deed::EdgeWithoutLan => {
                self.lab.pull_lan(here)?;
                self.victim = Some(self.next_route()?);
            }
            Deed::EdgeWithoutWan => {
                self.lab.pull_wan(here)?;
                self.victim = Some(self.next_route()?);
            }
            Deed::Moves => {
                self.next_route()?;
            }
            Deed::AuthorityKilled => {
                self.orphaned = true;
                self.lab.kill(AUTHORITY)?;
            }
            Deed::AuthorityEnded => {
                self.orphaned = true;
                let status = self.lab.stop(AUTHORITY)?;
                ensure!(status.success(), "the authority was told to end: {status}");
            }
            Deed::AuthorityFrozen => self.lab.freeze(AUTHORITY)?,
            Deed::DiskFull => self.disk.fill()?,
        }
        Ok(())
    }

    fn end(&mut self, act: &Act) -> Result<()> {
        let victim = self.victim.filter(|_| act.deed != Deed::Moves);
        let edge = victim.map(Place::Gateway);
        match (act.deed, edge, victim) {
            (Deed::EdgeKilled | Deed::EdgeEnded, Some(edge), _) => self.lab.start(edge)?,
            (Deed::EdgeFrozen, Some(edge), _) => self.lab.thaw(edge)?,
            (Deed::EdgeDrained, Some(edge), _) => {
                self.lab.evergate(edge, &["drain", "--undo"]).map(drop)?;
            }
            (Deed::EdgeWithoutLan, _, Some(number)) => self.lab.restore_lan(number)?,
            (Deed::EdgeWithoutWan, _, Some(number)) => self.lab.restore_wan(number)?,
            (Deed::Moves, ..) => {
                self.next_route()?;
            }
            (Deed::AuthorityKilled | Deed::AuthorityEnded, ..) => self.lab.start(AUTHORITY)?,
            (Deed::AuthorityFrozen, ..) => self.lab.thaw(AUTHORITY)?,
            (Deed::DiskFull, ..) => self.disk.empty()?,
            _ => {}
        }
        if act.deed.object() == plan::Object::Edge {
            self.victim = None;
        }
        Ok(())
    }

    /// What became of the traffic, and of the session.
    fn judge(
        &mut self,
        round: &Round,
        described: &str,
        orphaned: bool,
        [start_ns, last_ns]: [u64; 2],
    ) -> Result<()> {
        let mut calm = Duration::ZERO;
        let outage = loop {
            let outage = self.flow.outage(start_ns);
            let over = outage.recovered && self.flow.answers(Duration::from_millis(300));
            if over || calm >= PATIENCE {
                break outage;
            }
            std::thread::sleep(STEP);
            calm += STEP;
        };
        if !outage.recovered {
            self.wrong(format!(
                "{described}: no answer {} s after the last deed; dropped: {}",
                PATIENCE.as_secs(),
                self.lab.drops()
            ));
            return Ok(());
        }
        let took = Duration::from_nanos(outage.until_ns.saturating_sub(outage.from_ns));
        // Its authority may have gone in this round, or before.
        let ends = round.acts.iter().any(|act| act.deed.ends_authority());
        let anew = orphaned || ends && round.acts.len() > 1;
        let lateness = self.lateness.since(start_ns);
        let real = Duration::from_nanos(last_ns.saturating_sub(start_ns));
        let mut most = bound(round, real) + MARGIN + 4 * lateness;
        if anew {
            most += ANEW;
        }
        if took > most {
            self.wrong(format!(
                "{described}: outage of {took:.1?} from {:+.1} ms on, expected at most {most:.1?}",
                (outage.from_ns as f64 - start_ns as f64) / 1e6,
            ));
        }
        let sessions = self.count_sessions()?;
        if sessions > self.sessions {
            if !self.orphaned {
                let more = sessions - self.sessions;
                self.wrong(format!("{described}: {more} sessions were made anew"));
            }
            // With an authority that lives, unless that has gone in this very round.
            self.orphaned = ends;
            self.sessions = sessions;
        }
        let ms = took.as_secs_f64() * 1e3;
        self.report.rounds += 1;
        match round.acts.as_slice() {
            [act] => {
                let row = self.report.rows.entry(act.deed).or_default();
                if anew {
                    row.orphaned_ms.push(ms);
                } else {
                    row.outages_ms.push(ms);
                    row.lost += outage.lost;
                }
            }
            several => {
                self.report.together_ms.push(ms);
                for act in several {
                    self.report.rows.entry(act.deed).or_default().together += 1;
                }
            }
        }
        self.nodes(described)?;
        self.connections(described)?;
        self.wire(described);
        Ok(())
    }

    /// Whether all nodes live, and answer.
    fn nodes(&mut self, described: &str) -> Result<()> {
        let said = self.disk.collect(self.lab)?;
        for line in said.lines().filter(|line| line.contains("panicked")) {
            self.wrong(format!("{described}: the authority: {line}"));
        }
        for place in self.lab.unexpected_ends() {
            let status = self.lab.bury(place)?;
            let tail = self.lab.log_tail(place);
            self.wrong(format!("{described}: {place} has ended ({status}): {tail}"));
            self.lab.start(place)?;
        }
        let edges = GATEWAYS.map(Place::Gateway);
        for place in edges.into_iter().chain([AUTHORITY, Place::Client]) {
            if let Err(error) = self.lab.status(place) {
                self.wrong(format!("{described}: status of {place}: {error:#}"));
            }
        }
        Ok(())
    }

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
            Ok(_) => self.report.connections += 1,
            Err(error) => self.wrong(format!("{described}: a new connection: {error:#}")),
        }
        Ok(())
    }

    fn wire(&mut self, described: &str) {
        for found in self.watch.so_far().found.into_keys() {
            if self.report.on_the_wire.insert(found.clone()) {
                self.wrong(format!("{described}: on the wire: {found}"));
            }
        }
        let totals = self.flow.totals();
        let (twice, wrong) = (totals.twice, totals.wrong);
        if twice > self.report.flow.twice || wrong > self.report.flow.wrong {
            self.wrong(format!(
                "{described}: {twice} datagrams came back twice and {wrong} wrong"
            ));
        }
        self.report.flow = totals;
    }

    fn finish(mut self, seed: u64, took: Duration) -> Result<Report> {
        for (address, stream) in std::mem::take(&mut self.streams) {
            let stream = stream.finish()?;
            if let Some(error) = &stream.error {
                self.wrong(format!("at the end: the TCP stream to {address}: {error}"));
            }
            self.report.stream_bytes += stream.checked;
        }
        self.wire("at the end");
        self.report.sessions = self.count_sessions()?;
        let edges = GATEWAYS.map(Place::Gateway);
        for place in [Place::Client].into_iter().chain(edges).chain([AUTHORITY]) {
            let status = self.lab.stop(place)?;
            if !status.success() {
                self.wrong(format!("{place} was told to end: {status}"));
            }
        }
        let mut report = self.report;
        report.flow = self.flow.finish()?;
        let told = self.watch.finish()?;
        ensure!(told.seen.nonces > 0, "the watcher of the wire saw no ESP");
        report.seen = told.seen;
        (report.seed, report.seconds) = (seed, took.as_secs_f64());
        self.disk.leave();
        Ok(report)
    }
}

/// What a round is, in a line.
fn describe(round: &Round) -> String {
    let act = |act: &Act| {
        let lasts = (act.until - act.from).as_secs_f64();
        let at = act.from.as_secs_f64();
        format!("{} {lasts:.1} s from {at:.1} s", act.deed.name())
    };
    let all: Vec<String> = round.acts.iter().map(act).collect();
    all.join(", ")
}

/// How long the traffic may stand still (docs/shared.md), apart from what the machine is late by.
/// `real`: from the first deed to the last.
fn bound(round: &Round, real: Duration) -> Duration {
    let [act] = round.acts.as_slice() else {
        return real + ALONE + CONNECT + SILENT;
    };
    match act.deed {
        Deed::EdgeKilled
        | Deed::EdgeEnded
        | Deed::EdgeDrained
        | Deed::EdgeWithoutWan
        | Deed::Moves
        | Deed::AuthorityEnded
        | Deed::DiskFull => HANDED,
        Deed::EdgeFrozen | Deed::EdgeWithoutLan => SILENT,
        Deed::AuthorityKilled | Deed::AuthorityFrozen => ALONE,
    }
}

/// What a case of the end-to-end tests does.
pub(crate) fn minute(lab: &mut Lab) -> Result<()> {
    let mut lines = Vec::new();
    let time = Duration::from_secs(60);
    let report = play(lab, time, 1, &mut |line| lines.push(line))?;
    print!(
        "{} rounds, {} sessions, {} nonces on the wire … ",
        report.rounds, report.sessions, report.seen.nonces
    );
    ensure!(report.wrong.is_empty(), "seed 1:\n{}", lines.join("\n"));
    ensure!(report.rounds >= 5, "only {} rounds", report.rounds);
    Ok(())
}
