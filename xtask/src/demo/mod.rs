//! `cargo xtask demo`: one TCP connection, three gateways, and what goes wrong with them.

mod picture;
mod report;
pub(crate) mod shared;
mod text;

use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Lab, PREFIX, Place};
use crate::probe::{Probe, Stream, now_ns};
use crate::traffic::{Iperf, Meter};
use crate::{PACKAGES, build, paths, rootless, toolchain};
use anyhow::{Context, Result, bail};
use report::{Kind, Mark, Report, judge};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long after a deed its consequences are looked at.
const LOOK: Duration = Duration::from_millis(1500);
/// Deeds of a run; the time is divided among them.
const DEEDS: u32 = 7;

/// Runs it all; an error when the connection broke.
pub(crate) fn run(keep: bool, seconds: u64, without_xdp: bool) -> Result<()> {
    if seconds < 21 {
        bail!(
            "--seconds {seconds}: expected 21 or more, three seconds for each thing that happens"
        );
    }
    rootless::refuse_to_keep(keep)?;
    if !rootless::inside() {
        text::title();
        text::step("packages", || toolchain::packages(PACKAGES))?;
        text::step("eBPF tool chain", || toolchain::ensure().map(drop))?;
        text::step("build", build::release)?;
    }
    let why = rootless::no_programs();
    if without_xdp || why.is_some() {
        if !rootless::inside() {
            text::without_xdp(why.as_deref());
        }
        rootless::go_without_xdp();
    }
    if !rootless::is_root() {
        let seconds = seconds.to_string();
        return rootless::enter(&["demo", "--seconds", &seconds]);
    }
    let mut lab = text::step("lab", || Lab::up(PREFIX, 1))?;
    text::step("three gateways", || {
        GATEWAYS
            .into_iter()
            .try_for_each(|number| lab.start_gateway(number))
    })?;
    text::step("client", || {
        lab.start(Place::Client)?;
        lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))?;
        wait_standby(&lab, Duration::from_secs(10)).map(drop)
    })?;
    let report = Show::new(&mut lab, seconds)?.play(seconds)?;
    let folder = paths::target().join("demo");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(
        folder.join("timeline.json"),
        serde_json::to_string(&report)?,
    )?;
    let picture = folder.join("timeline.svg");
    std::fs::write(&picture, picture::draw(&report))?;
    text::summary(&report, &picture);
    if keep {
        text::look_around(&lab)?;
        lab.keep();
    } else {
        text::step("tidy up", || {
            drop(lab);
            Ok(())
        })?;
    }
    let failures = report.failures();
    text::verdict(&report, &failures);
    if !failures.is_empty() {
        bail!(
            "the demo failed; the nodes' logs are in {}",
            paths::target().join("lab").display()
        );
    }
    Ok(())
}

/// Draws the picture of a former run again, from its `timeline.json`.
pub(crate) fn redraw(json: &Path, svg: &Path) -> Result<()> {
    let text = std::fs::read_to_string(json)
        .with_context(|| format!("can not read {}", json.display()))?;
    let report: Report = serde_json::from_str(&text)?;
    Ok(std::fs::write(svg, picture::draw(&report))?)
}

/// Waits until a second gateway is keyed.
fn wait_standby(lab: &Lab, timeout: Duration) -> Result<crate::lab::Status> {
    lab.wait_client(
        "the client has an active and a standby gateway",
        timeout,
        |status| status.active().is_some() && status.keyed().len() >= 2,
    )
}

/// A running demo.
struct Show<'a> {
    lab: &'a mut Lab,
    iperf: Iperf,
    meter: Meter,
    probe: Probe,
    stream: Stream,
    start_ns: u64,
    started: Instant,
    slot: Duration,
    first_active: Option<u8>,
    first_seq: u64,
    marks: Vec<Mark>,
}

impl<'a> Show<'a> {
    fn new(lab: &'a mut Lab, seconds: u64) -> Result<Self> {
        let first_seq = lab.events(Place::Client, 0)?.last().map_or(0, |e| e.seq);
        let first_active = lab.status(Place::Client)?.active();
        let probe = Probe::start(lab)?;
        let stream = Stream::start(lab)?;
        // A second more than the deeds are spread over: waiting for a standby may delay them.
        let iperf = Iperf::start(lab, TARGETS[0], seconds + 1, &[])?;
        let meter = Meter::start(iperf.server_pid());
        let (start_ns, started) = (now_ns(), Instant::now());
        text::begin(first_active);
        Ok(Self {
            lab,
            iperf,
            meter,
            probe,
            stream,
            start_ns,
            started,
            slot: Duration::from_secs(seconds) / (DEEDS + 1),
            first_active,
            first_seq,
            marks: Vec::new(),
        })
    }

    fn play(mut self, seconds: u64) -> Result<Report> {
        let first = self.deed(Kind::Kill, None, |lab, gw| lab.kill(Place::Gateway(gw)))?;
        self.deed(Kind::Kill, None, |lab, gw| lab.kill(Place::Gateway(gw)))?;
        self.deed(Kind::Return, Some(first), Lab::start_gateway)?;
        self.standby_comes();
        let frozen = self.deed(Kind::Freeze, None, |lab, gw| lab.freeze(Place::Gateway(gw)))?;
        self.deed(Kind::Thaw, Some(frozen), |lab, gw| {
            lab.thaw(Place::Gateway(gw))
        })?;
        self.standby_comes();
        let pulled = self.deed(Kind::PullLan, None, |lab, gw| lab.pull_lan(gw))?;
        self.deed(Kind::RestoreLan, Some(pulled), |lab, gw| {
            lab.restore_lan(gw)
        })?;
        self.end(seconds)
    }

    /// The gateway in use; while there is none, for a slot at most, it waits.
    fn active(&self) -> Result<u8> {
        let status = self
            .lab
            .wait_client("a gateway is active", self.slot, |s| s.active().is_some())?;
        status.active().context("no gateway is active")
    }

    /// The next deed is about failover with a standby: give the client its time to key one.
    fn standby_comes(&self) {
        if wait_standby(self.lab, self.slot).is_err() {
            text::note("no second gateway became keyed in time");
        }
    }

    /// Does it when its turn has come, to a certain gateway or to the active one; returns which.
    fn deed(
        &mut self,
        kind: Kind,
        gateway: Option<u8>,
        act: impl FnOnce(&mut Lab, u8) -> Result<()>,
    ) -> Result<u8> {
        let turn = self.slot * (u32::try_from(self.marks.len()).unwrap_or(DEEDS) + 1);
        std::thread::sleep(turn.saturating_sub(self.started.elapsed()));
        if !self.iperf.still_runs() {
            bail!(
                "iperf3 ended before everything had happened: choose more --seconds, or see {}",
                self.lab.logs().display()
            );
        }
        let active_before = match gateway {
            Some(_) => self.lab.status(Place::Client)?.active(),
            None => Some(self.active()?),
        };
        let gateway = gateway.or(active_before).context("no gateway is active")?;
        let at_ns = now_ns();
        text::deed(
            at_ns.saturating_sub(self.start_ns),
            kind,
            gateway,
            active_before,
        );
        act(self.lab, gateway)?;
        let mut mark = Mark {
            at_ns,
            kind,
            gateway,
            active_before,
            active_after: None,
            detected_ms: None,
            outage_ms: 0.0,
            recovered: false,
            lost: 0,
            rate_before: 0.0,
            rate_after: 0.0,
            seen: Vec::new(),
        };
        let looked = at_ns + u64::try_from(LOOK.as_nanos())?;
        std::thread::sleep(Duration::from_nanos(looked.saturating_sub(now_ns())));
        // The probe's answers come in portions.
        std::thread::sleep(Duration::from_millis(80));
        let events = self.lab.events(Place::Client, self.first_seq)?;
        judge(
            &mut mark,
            &events,
            &self.probe.so_far(),
            &self.meter.samples(),
            looked,
        );
        text::consequences(&mark);
        self.marks.push(mark);
        Ok(gateway)
    }

    fn end(self, seconds: u64) -> Result<Report> {
        let whole = Duration::from_secs(seconds + 1);
        let rest = whole.saturating_sub(self.started.elapsed());
        let transfer = self.iperf.finish(rest + Duration::from_secs(20));
        let end_ns = now_ns().min(self.start_ns + (seconds + 1) * 1_000_000_000);
        let samples = self.meter.samples();
        let events = self.lab.events(Place::Client, self.first_seq)?;
        let stream = self.stream.finish()?;
        let record = self.probe.finish()?;
        let sent = record.sent.unwrap_or_default();
        Ok(Report {
            start_ns: self.start_ns,
            end_ns,
            marks: self.marks,
            bands: report::bands(self.first_active, &events, self.start_ns, end_ns),
            throughput: report::throughput(&samples, self.start_ns, end_ns),
            beats: report::beats(&record, self.start_ns, end_ns),
            probes_sent: sent,
            probes_lost: sent.saturating_sub(record.answers.len() as u64),
            transfer,
            stream,
        })
    }
}
