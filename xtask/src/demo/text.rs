//! The timeline that is printed while the demo runs, and the table at its end.

use super::report::{Kind, Mark, Report};
use crate::lab::topology::{GATEWAYS, TARGETS, gateway_outside};
use crate::lab::{Lab, PREFIX, Place};
use crate::style::{bold, bytes, colour_gateways, dim, gateway, green, pad, rate, red};
use anyhow::Result;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// Lines about what the client noticed after a deed; the rest is in `evergate events`.
const SEEN_LINES: usize = 7;
/// And only within this time.
const SEEN_MS: f64 = 500.0;

pub(super) fn title() {
    println!();
    println!(
        "  {}",
        bold("evergate: one TCP connection, three gateways, and what goes wrong")
    );
    println!();
    println!("  {}", dim("                          ┌─ gw1 ─┐"));
    println!(
        "  {}",
        dim("client ══ ESP ══ wan ═════┼─ gw2 ─┼───── lan ───── target")
    );
    println!("  {}", dim("                          └─ gw3 ─┘"));
    println!();
}

/// Says what is shown instead, and why if it was not asked for.
pub(super) fn without_xdp(why: Option<&str>) {
    let why = why.map_or(String::new(), |why| format!("{why}: "));
    println!("  {} {why}the nodes go without.", bold("No XDP."));
    println!(
        "    ESP goes in UDP by sockets, the gateways' kernels forward, and a gateway's own process answers"
    );
    println!(
        "    heartbeats. Everything else is as with XDP; `cargo xtask demo` as root shows that."
    );
}

/// Does one step of the set-up and tells how long it took.
pub(super) fn step<T>(name: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let done = act();
    let sign = if done.is_ok() {
        green("✓")
    } else {
        red("✗")
    };
    println!(
        "  {sign} {name:<18} {:>6.1} s",
        started.elapsed().as_secs_f64()
    );
    done
}

pub(super) fn begin(active: Option<u8>) {
    let through = active.map_or("nobody".into(), gateway);
    println!();
    println!(
        "  {:>7}  {} iperf3 (one TCP stream), a checked stream and 1,000 probes a second, through {through}",
        "0.00 s",
        green("▶"),
    );
    flush();
}

pub(super) fn note(text: &str) {
    println!("  {:>7}  {} {text}", "", dim("·"));
    flush();
}

pub(super) fn deed(since_ns: u64, kind: Kind, number: u8, active: Option<u8>) {
    let sign = if kind.harms() {
        red("✖")
    } else {
        green("●")
    };
    let role = match active {
        Some(active) if active == number => dim(", the active gateway"),
        Some(active) => format!("{} {}", dim(", active is"), gateway(active)),
        None => dim(", no gateway is active"),
    };
    println!();
    println!(
        "  {:>7}  {sign} {} {}{role}",
        format!("{:.2} s", since_ns as f64 / 1e9),
        gateway(number),
        bold(kind.words()),
    );
    flush();
}

pub(super) fn consequences(mark: &Mark) {
    let near: Vec<&(f64, String)> = mark.seen.iter().filter(|(ms, _)| *ms <= SEEN_MS).collect();
    for (ms, what) in near.iter().take(SEEN_LINES) {
        println!(
            "  {:>7}    {} {}",
            "",
            dim(&format!("+{ms:>6.1} ms")),
            colour_gateways(what)
        );
    }
    if near.len() > SEEN_LINES {
        println!(
            "  {:>7}    {}",
            "",
            dim(&format!("   and {} more", near.len() - SEEN_LINES))
        );
    }
    let outage = if !mark.recovered {
        red(&format!(
            "no answer came back within {:.0} ms",
            mark.outage_ms
        ))
    } else if mark.kind.harms() || mark.lost > 0 {
        bold(&format!(
            "{:.1} ms without an answer, {} probes lost",
            mark.outage_ms, mark.lost
        ))
    } else {
        format!("no interruption (longest gap {:.1} ms)", mark.outage_ms)
    };
    println!(
        "  {:>7}    {outage}{}",
        "",
        dim(&format!(
            "   {} → {}",
            rate(mark.rate_before),
            rate(mark.rate_after)
        )),
    );
    flush();
}

pub(super) fn summary(report: &Report, picture: &Path) {
    println!();
    println!(
        "  {}",
        dim(&format!(
            "{:<26} {:<12} {:>10} {:>10} {:>6} {:>14} {:>14}",
            "what", "active", "noticed", "outage", "lost", "before", "after"
        ))
    );
    for mark in &report.marks {
        let what = format!("{} {}", gateway(mark.gateway), mark.kind.words());
        let active = match (mark.active_before, mark.active_after) {
            (Some(a), Some(b)) if a == b => gateway(a),
            (a, b) => format!(
                "{} → {}",
                a.map_or("none".into(), gateway),
                b.map_or("none".into(), gateway)
            ),
        };
        let noticed = mark
            .detected_ms
            .map_or("–".into(), |ms| format!("{ms:.1} ms"));
        let outage = if !mark.recovered {
            red("for good")
        } else if mark.kind.harms() || mark.lost > 0 {
            format!("{:.1} ms", mark.outage_ms)
        } else {
            "–".into()
        };
        println!(
            "  {} {} {noticed:>10} {} {:>6} {:>14} {:>14}",
            pad(&what, 26),
            pad(&active, 12),
            right(&outage, 10),
            mark.lost,
            rate(mark.rate_before),
            rate(mark.rate_after),
        );
    }
    println!();
    println!(
        "  probe    {} sent, {} lost; iperf3: {} in {:.1} s, mean {}, {} retransmits",
        report.probes_sent,
        report.probes_lost,
        bytes(report.transfer.bytes),
        report.transfer.seconds,
        rate(report.transfer.bits_per_second),
        report.transfer.retransmits,
    );
    println!(
        "  checked  {} went and came back byte for byte, longest stall {:.0} ms",
        bytes(report.stream.checked),
        report.stream.longest_stall_ms,
    );
    println!("  picture  {}", picture.display());
    println!();
}

fn right(text: &str, width: usize) -> String {
    let filled = pad(text, width);
    let blanks = filled.len() - filled.trim_end_matches(' ').len();
    format!("{}{}", " ".repeat(blanks), filled.trim_end_matches(' '))
}

pub(super) fn verdict(report: &Report, failures: &[String]) {
    println!();
    if failures.is_empty() {
        let harms = report.marks.iter().filter(|m| m.kind.harms()).count();
        let worst = report
            .marks
            .iter()
            .filter(|m| m.kind.harms())
            .map(|m| m.outage_ms);
        println!(
            "  {} {}",
            green("✓"),
            bold(&format!(
                "The TCP connection outlived {harms} failures of its gateway; the longest outage was {:.1} ms.",
                worst.fold(0.0, f64::max)
            ))
        );
    }
    for failure in failures {
        println!("  {} {}", red("✗"), bold(failure));
    }
    println!();
}

/// What `--keep` leaves, and how to look at it.
pub(super) fn look_around(lab: &Lab) -> Result<()> {
    let binary = lab.binary()?.display().to_string();
    let client = lab.socket(Place::Client).display().to_string();
    println!("  The lab is left up. To look around:");
    println!();
    let commands = [
        format!("{binary} status --socket {client}"),
        format!("{binary} events --socket {client}"),
        format!(
            "ip netns exec {} ping {}",
            lab.ns(Place::Client),
            TARGETS[0]
        ),
        format!("ip netns exec {} tcpdump -ni br0 esp", lab.ns(Place::Wan)),
        format!("ip netns pids {}", lab.ns(Place::Gateway(1))),
        format!("ip -n {} link set gw1 down", lab.ns(Place::Lan)),
    ];
    for command in commands {
        println!("    {command}");
    }
    for number in GATEWAYS
        .into_iter()
        .filter(|n| !lab.runs(Place::Gateway(*n)))
    {
        println!(
            "    ip netns exec {} {binary} run -c {}  {}",
            lab.ns(Place::Gateway(number)),
            lab.dir().join(format!("gw{number}.toml")).display(),
            dim(&format!(
                "# gw{number} ({}) is still dead",
                gateway_outside(number)
            )),
        );
    }
    println!();
    let prefix = if lab.ns(Place::Wan) == format!("{PREFIX}wan") {
        ""
    } else {
        " --prefix …"
    };
    println!("  `cargo xtask down{prefix}` removes it.");
    Ok(())
}

fn flush() {
    let _ = std::io::stdout().flush();
}
