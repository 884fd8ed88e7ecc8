//! `cargo xtask demo --shared`: one negotiation, three edges, and what goes wrong with them and their authority.

use super::text;
use crate::lab::sharing::{AUTHORITY, SHARED, Sharing};
use crate::lab::topology::TARGETS;
use crate::lab::{Lab, PREFIX, Place};
use crate::probe::{Probe, Stream, now_ns};
use crate::style::{bold, bytes, dim, gateway, green, red};
use crate::traffic::Iperf;
use crate::{PACKAGES, build, paths, rootless, toolchain};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How long after a deed its consequences are looked at.
const LOOK: Duration = Duration::from_secs(3);

/// For iperf3: as long as all that happens, and so much that nothing is lost for want of room.
const SECONDS: u64 = 40;
const RATE: &str = "100M";

/// A killed edge keeps its client waiting no longer than this, a killed authority no longer than that: what
/// makes the demo fail, in milliseconds.
const EDGE_KILLED: f64 = 500.0;
const AUTHORITY_KILLED: f64 = 1500.0;

/// What is done to whom, and what it may cost.
struct Deed {
    what: String,
    /// Milliseconds without an answer; 0: not even one packet may be lost.
    bar: f64,
}

/// Runs it all; an error when the connection broke, or something was negotiated anew.
pub(crate) fn run(keep: bool) -> Result<()> {
    if !rootless::is_root() {
        bail!("the demo of shared SAs needs root: its edges have XDP programs");
    }
    rootless::refuse_to_keep(keep)?;
    title();
    text::step("packages", || toolchain::packages(PACKAGES))?;
    text::step("eBPF tool chain", || toolchain::ensure().map(drop))?;
    text::step("build", build::release)?;
    let mut lab = text::step("lab", || Lab::up(PREFIX, 1))?;
    text::step("authority, edges", || lab.share(&Sharing::default()))?;
    text::step("client", || {
        lab.start(Place::Client)?;
        lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))
    })?;
    let failures = play(&mut lab)?;
    if keep {
        text::look_around(&lab)?;
        lab.keep();
    } else {
        text::step("tidy up", || {
            drop(lab);
            Ok(())
        })?;
    }
    println!();
    if failures.is_empty() {
        println!("  {}", green("One negotiation, and the connection held."));
        return Ok(());
    }
    for failure in &failures {
        println!("  {} {failure}", red("✗"));
    }
    bail!(
        "the demo failed; the nodes' logs are in {}",
        paths::target().join("lab").display()
    )
}

fn title() {
    println!();
    println!(
        "  {}",
        bold("evergate: one negotiation, three edges with one address")
    );
    println!();
    println!("  {}", dim("                          ┌─ gw1 ─┐"));
    println!(
        "  {}",
        dim("client ══ ESP ══ wan ═════┼─ gw2 ─┼───── lan ───── target, authority")
    );
    println!("  {}", dim("                          └─ gw3 ─┘"));
    println!(
        "  {}",
        dim(&format!("                          all {SHARED}"))
    );
    println!();
}

fn times(count: usize) -> String {
    format!("{count} time{}", if count == 1 { "" } else { "s" })
}

fn play(lab: &mut Lab) -> Result<Vec<String>> {
    let probe = Probe::start(lab)?;
    let stream = Stream::start(lab)?;
    let iperf = Iperf::start(lab, TARGETS[0], SECONDS, &["-b", RATE])?;
    let (start, mut failures) = (Instant::now(), Vec::new());
    println!();
    println!(
        "  {:>7}  {} iperf3 (one TCP stream of 100 Mbit/s), a checked stream and 1,000 probes a second, through {}",
        "0.00 s",
        green("▶"),
        gateway(1)
    );
    type Act = fn(&mut Lab) -> Result<()>;
    let deeds: [(String, f64, Act); 7] = [
        (
            format!("the router brings the client's packets to {}", gateway(2)),
            100.0,
            |lab| lab.bring_to(2),
        ),
        (
            format!(
                "{} is killed, and the router takes {}",
                gateway(2),
                gateway(3)
            ),
            EDGE_KILLED,
            |lab| lab.kill_and(Place::Gateway(2), |lab| lab.bring_to(3)),
        ),
        (format!("{} is started again", gateway(2)), 0.0, |lab| {
            lab.start_gateway(2)
        }),
        (
            format!("{} drains, and the router takes {}", gateway(3), gateway(1)),
            0.0,
            |lab| {
                lab.evergate(Place::Gateway(3), &["drain"])?;
                lab.bring_to(1)
            },
        ),
        (
            format!(
                "{} is killed, and the router takes {}",
                gateway(1),
                gateway(2)
            ),
            EDGE_KILLED,
            |lab| lab.kill_and(Place::Gateway(1), |lab| lab.bring_to(2)),
        ),
        (
            "the authority is stopped, and started again".to_owned(),
            0.0,
            |lab| {
                lab.stop(AUTHORITY)?;
                lab.start(AUTHORITY)
            },
        ),
        (
            "the authority is killed, and started again".to_owned(),
            AUTHORITY_KILLED,
            |lab| {
                lab.kill(AUTHORITY)?;
                lab.start(AUTHORITY)
            },
        ),
    ];
    for (what, bar, act) in deeds {
        let deed = Deed { what, bar };
        std::thread::sleep(Duration::from_secs(1));
        let at_ns = now_ns();
        println!(
            "  {:>5.2} s  {} {}",
            start.elapsed().as_secs_f64(),
            bold("◆"),
            deed.what
        );
        act(lab)?;
        std::thread::sleep(LOOK);
        let outage = probe.outage_until_now(at_ns);
        let lost = probe
            .so_far()
            .lost(at_ns, now_ns().saturating_sub(300_000_000));
        let held = match deed.bar {
            0.0 => outage.recovered && lost == 0,
            bar => outage.recovered && outage.millis() < bar,
        };
        let said = match lost {
            0 => "no packet lost".to_owned(),
            _ => format!(
                "{:.1} ms without an answer, {lost} packets lost",
                outage.millis()
            ),
        };
        let sign = if held { green("✓") } else { red("✗") };
        println!("  {:>7}  {sign} {said}", "");
        if !held {
            failures.push(format!(
                "{}: {said}; dropped were {}",
                deed.what,
                lab.drops()
            ));
        }
    }
    let report = stream.finish()?;
    if let Some(error) = report.error {
        failures.push(format!("the checked TCP stream: {error}"));
    }
    let transfer = iperf.finish(Duration::from_secs(15));
    let events = lab.events(Place::Client, 0)?;
    let count = |kind| events.iter().filter(|event| event.kind == kind).count();
    // The next authority gives fresh keys to pairs whose edges were alone.
    let (ups, rekeys) = (count("session_up"), count("session_rekeyed"));
    if ups != 1 {
        failures.push(format!("the client negotiated {ups} times, expected 1"));
    }
    println!();
    println!(
        "  negotiated     {}, fresh keys {}",
        times(ups),
        times(rekeys)
    );
    println!(
        "  checked stream {} MB, every byte compared",
        report.checked / 1_000_000
    );
    println!(
        "  iperf3         {} in {:.0} s, {} segments sent again",
        bytes(transfer.bytes),
        transfer.seconds,
        transfer.retransmits
    );
    failures.extend(transfer.error.map(|error| format!("iperf3: {error}")));
    Ok(failures)
}
