//! The timeline as a picture: throughput, round-trip times, lost probes, who was active.

use super::report::{Kind, Mark, Report};
use crate::style::{bytes, rate};
use std::fmt::Write;

const WIDTH: f64 = 1480.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 36.0;
const LABELS: f64 = 112.0;
const THROUGHPUT: Panel = Panel {
    top: 206.0,
    bottom: 446.0,
};
/// The strip that names the active gateway.
const STRIP_TOP: f64 = 172.0;
const RTT: Panel = Panel {
    top: 486.0,
    bottom: 636.0,
};
const LOST: Panel = Panel {
    top: 666.0,
    bottom: 716.0,
};
const HEIGHT: f64 = 776.0;

const INK: &str = "#1f2937";
const SOFT: &str = "#6b7280";
const GRID: &str = "#e5e7eb";
const BAD: &str = "#dc2626";
const GOOD: &str = "#15803d";

/// Round-trip times are drawn on a logarithmic scale between these, in ms.
const RTT_LOW: f64 = 0.05;
const RTT_HIGH: f64 = 500.0;

struct Panel {
    top: f64,
    bottom: f64,
}

impl Panel {
    /// The height of a share between 0 (bottom) and 1 (top).
    fn y(&self, share: f64) -> f64 {
        self.bottom - share.clamp(0.0, 1.0) * (self.bottom - self.top)
    }
}

fn colour(gateway: u8) -> &'static str {
    match gateway {
        1 => "#2563eb",
        2 => "#d97706",
        _ => "#0d9488",
    }
}

/// The picture as SVG.
pub(super) fn draw(report: &Report) -> String {
    let mut canvas = Canvas {
        svg: String::new(),
        start_ns: report.start_ns,
        span_ns: report.end_ns.saturating_sub(report.start_ns).max(1) as f64,
    };
    canvas.frame(report);
    canvas.bands(report);
    canvas.throughput(report);
    canvas.round_trips(report);
    canvas.lost(report);
    canvas.time_axis();
    canvas.marks(report);
    canvas.svg.push_str("</svg>\n");
    canvas.svg
}

struct Canvas {
    svg: String,
    start_ns: u64,
    span_ns: f64,
}

/// Where a text hangs on its point.
enum Hang {
    Left,
    Middle,
    Right,
}

impl Canvas {
    fn x(&self, at_ns: u64) -> f64 {
        let share = at_ns.saturating_sub(self.start_ns) as f64 / self.span_ns;
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn text(&mut self, x: f64, y: f64, hang: Hang, style: &str, text: &str) {
        let anchor = match hang {
            Hang::Left => "start",
            Hang::Middle => "middle",
            Hang::Right => "end",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.svg,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" {style}>{text}</text>"#
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), style: &str) {
        let _ = writeln!(
            self.svg,
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" {style}/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    fn block(&mut self, x: f64, y: f64, width: f64, height: f64, style: &str) {
        let _ = writeln!(
            self.svg,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" {style}/>"#
        );
    }

    fn frame(&mut self, report: &Report) {
        let _ = writeln!(
            self.svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Inter, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif">"#
        );
        self.block(0.0, 0.0, WIDTH, HEIGHT, r##"fill="#ffffff""##);
        let title = format!(r#"font-size="22" font-weight="700" fill="{INK}""#);
        self.text(
            LEFT,
            44.0,
            Hang::Left,
            &title,
            "evergate: one TCP connection, three gateways",
        );
        let failures = report.failures();
        let harms = report.marks.iter().filter(|m| m.kind.harms());
        let worst = harms.clone().map(|m| m.outage_ms).fold(0.0, f64::max);
        let (fill, verdict) = match failures.first() {
            None => (
                GOOD,
                format!(
                    "outlived {} failures of its gateway, longest outage {worst:.1} ms",
                    harms.count()
                ),
            ),
            Some(failure) => (BAD, failure.clone()),
        };
        let style = format!(r#"font-size="15" font-weight="600" fill="{fill}""#);
        self.text(LEFT, 70.0, Hang::Left, &style, &verdict);
        let facts = format!(
            "{} over one stream, mean {} · {} probes sent, {} lost",
            bytes(report.transfer.bytes),
            rate(report.transfer.bits_per_second),
            report.probes_sent,
            report.probes_lost,
        );
        let style = format!(r#"font-size="13" fill="{SOFT}""#);
        self.text(RIGHT, 70.0, Hang::Right, &style, &facts);
    }

    /// The active gateway as a strip above and a tint behind all panels.
    fn bands(&mut self, report: &Report) {
        for band in &report.bands {
            let (x, width) = (
                self.x(band.from_ns),
                self.x(band.until_ns) - self.x(band.from_ns),
            );
            let fill = colour(band.gateway);
            let tint = format!(r#"fill="{fill}" opacity="0.07""#);
            self.block(
                x,
                THROUGHPUT.top,
                width,
                LOST.bottom - THROUGHPUT.top,
                &tint,
            );
            let strip = format!(r#"fill="{fill}" rx="3""#);
            self.block(x + 0.5, STRIP_TOP, (width - 1.0).max(1.0), 20.0, &strip);
            if width > 40.0 {
                self.text(
                    x + width / 2.0,
                    STRIP_TOP + 14.5,
                    Hang::Middle,
                    r##"font-size="12" font-weight="700" fill="#ffffff""##,
                    &format!("gw{}", band.gateway),
                );
            }
        }
        let style = format!(r#"font-size="12" fill="{SOFT}""#);
        self.text(LEFT - 10.0, STRIP_TOP + 14.5, Hang::Right, &style, "active");
    }

    fn heading(&mut self, panel: &Panel, text: &str) {
        let style = format!(
            r#"font-size="12" font-weight="600" fill="{INK}" paint-order="stroke" stroke="white" stroke-width="3" stroke-opacity="0.8""#
        );
        self.text(LEFT + 8.0, panel.top + 16.0, Hang::Left, &style, text);
    }

    fn scale(&mut self, y: f64, label: &str) {
        self.line(
            (LEFT, y),
            (RIGHT, y),
            &format!(r#"stroke="{GRID}" stroke-width="1""#),
        );
        let style = format!(r#"font-size="12" fill="{SOFT}""#);
        self.text(LEFT - 10.0, y + 4.0, Hang::Right, &style, label);
    }

    fn throughput(&mut self, report: &Report) {
        let highest = report
            .throughput
            .iter()
            .map(|p| p.bits_per_second)
            .fold(1e6, f64::max)
            * 1.05;
        let step = nice_step(highest / 4.0);
        let top = (highest / step).ceil() * step;
        let mut at = 0.0;
        while at <= top + step / 2.0 {
            let label = if at == 0.0 {
                "0".into()
            } else {
                rate(at).replace(".00", "")
            };
            self.scale(THROUGHPUT.y(at / top), label.trim_end_matches("bit/s"));
            at += step;
        }
        let points: Vec<(f64, f64)> = report
            .throughput
            .iter()
            .map(|p| (self.x(p.at_ns), THROUGHPUT.y(p.bits_per_second / top)))
            .collect();
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            let path = join(&points);
            let area = format!(
                "M{:.1},{bottom:.1} L{path} L{:.1},{bottom:.1} Z",
                first.0,
                last.0,
                bottom = THROUGHPUT.bottom
            );
            self.area(report, &area);
            let _ = writeln!(
                self.svg,
                r##"<path d="M{path}" fill="none" stroke="#334155" stroke-width="1.6" stroke-linejoin="round"/>"##
            );
        }
        self.heading(&THROUGHPUT, "throughput at the target, bit/s");
    }

    /// The area below the curve, in the colour of the gateway that carried it.
    fn area(&mut self, report: &Report, path: &str) {
        for (index, band) in report.bands.iter().enumerate() {
            let (x, until, fill) = (
                self.x(band.from_ns),
                self.x(band.until_ns),
                colour(band.gateway),
            );
            let _ = writeln!(self.svg, r#"<clipPath id="band{index}">"#);
            self.block(
                x,
                THROUGHPUT.top,
                until - x,
                THROUGHPUT.bottom - THROUGHPUT.top,
                "",
            );
            let _ = writeln!(
                self.svg,
                r#"</clipPath><path d="{path}" fill="{fill}" opacity="0.28" clip-path="url(#band{index})"/>"#
            );
        }
    }

    fn round_trips(&mut self, report: &Report) {
        let share = |ms: f64| (ms.max(RTT_LOW) / RTT_LOW).log10() / (RTT_HIGH / RTT_LOW).log10();
        for (ms, label) in [
            (0.1, "0.1 ms"),
            (1.0, "1 ms"),
            (10.0, "10 ms"),
            (100.0, "100 ms"),
        ] {
            self.scale(RTT.y(share(ms)), label);
        }
        let worst: Vec<(f64, f64)> = report
            .beats
            .iter()
            .filter_map(|b| Some((self.x(b.at_ns), RTT.y(share(b.worst_rtt_ms?)))))
            .collect();
        for (x, y) in &worst {
            let _ = writeln!(
                self.svg,
                r##"<circle cx="{x:.1}" cy="{y:.1}" r="1.3" fill="#a855f7" opacity="0.55"/>"##
            );
        }
        // The line breaks where no probe came back.
        for run in report.beats.split(|b| b.median_rtt_ms.is_none()) {
            let points: Vec<(f64, f64)> = run
                .iter()
                .filter_map(|b| Some((self.x(b.at_ns), RTT.y(share(b.median_rtt_ms?)))))
                .collect();
            if !points.is_empty() {
                let _ = writeln!(
                    self.svg,
                    r##"<path d="M{}" fill="none" stroke="#6d28d9" stroke-width="1.3"/>"##,
                    join(&points)
                );
            }
        }
        self.heading(
            &RTT,
            "round-trip time of the probe: median and worst of 20 ms",
        );
    }

    fn lost(&mut self, report: &Report) {
        let most = report
            .beats
            .iter()
            .map(|b| b.lost)
            .max()
            .unwrap_or_default()
            .max(10) as f64;
        self.scale(LOST.bottom, "0");
        self.scale(LOST.top, &format!("{most:.0}"));
        for beat in report.beats.iter().filter(|b| b.lost > 0) {
            let (x, y) = (self.x(beat.at_ns), LOST.y(beat.lost as f64 / most));
            self.block(
                x - 1.5,
                y,
                3.0,
                LOST.bottom - y,
                &format!(r#"fill="{BAD}""#),
            );
        }
        self.heading(&LOST, "probes lost in 20 ms");
    }

    fn time_axis(&mut self) {
        let seconds = self.span_ns / 1e9;
        let step = nice_step(seconds / 16.0).max(1.0);
        let mut at = 0.0;
        while at <= seconds {
            let x = self.x(self.start_ns + (at * 1e9) as u64);
            self.line(
                (x, LOST.bottom),
                (x, LOST.bottom + 5.0),
                &format!(r#"stroke="{SOFT}" stroke-width="1""#),
            );
            let style = format!(r#"font-size="12" fill="{SOFT}""#);
            self.text(
                x,
                LOST.bottom + 20.0,
                Hang::Middle,
                &style,
                &format!("{at:.0} s"),
            );
            at += step;
        }
    }

    fn marks(&mut self, report: &Report) {
        for (index, mark) in report.marks.iter().enumerate() {
            let x = self.x(mark.at_ns);
            let fill = if mark.kind.harms() { BAD } else { GOOD };
            let top = LABELS - 8.0;
            self.line(
                (x, top),
                (x, LOST.bottom),
                &format!(r#"stroke="{fill}" stroke-width="1.2" stroke-dasharray="4 3""#),
            );
            // A label goes to the right of its line, unless the picture ends there.
            let next = report
                .marks
                .get(index + 1)
                .map_or(RIGHT, |m| self.x(m.at_ns));
            let hang_left = next - x >= 100.0;
            let (at, hang) = if hang_left {
                (x + 6.0, Hang::Left)
            } else {
                (x - 6.0, Hang::Right)
            };
            let strong = format!(r#"font-size="13" font-weight="700" fill="{fill}""#);
            self.text(at, LABELS + 2.0, hang, &strong, &short(mark));
            let hang = if hang_left { Hang::Left } else { Hang::Right };
            let style = format!(r#"font-size="13" fill="{INK}""#);
            self.text(at, LABELS + 19.0, hang, &style, &outcome(mark));
            let hang = if hang_left { Hang::Left } else { Hang::Right };
            let style = format!(r#"font-size="12" fill="{SOFT}""#);
            self.text(at, LABELS + 35.0, hang, &style, &losses(mark));
        }
    }
}

fn short(mark: &Mark) -> String {
    let what = match mark.kind {
        Kind::Kill => "killed",
        Kind::Return => "is back",
        Kind::Freeze => "frozen",
        Kind::Thaw => "thawed",
        Kind::PullLan => "LAN pulled",
        Kind::RestoreLan => "LAN back",
    };
    format!("gw{} {what}", mark.gateway)
}

fn outcome(mark: &Mark) -> String {
    match (mark.recovered, mark.kind.harms() || mark.lost > 0) {
        (false, _) => "no recovery".into(),
        (true, true) => format!("outage {:.1} ms", mark.outage_ms),
        (true, false) => "no interruption".into(),
    }
}

fn losses(mark: &Mark) -> String {
    match mark.lost {
        0 => String::new(),
        1 => "1 probe lost".into(),
        n => format!("{n} probes lost"),
    }
}

fn join(points: &[(f64, f64)]) -> String {
    points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect::<Vec<_>>()
        .join(" L")
}

/// 1, 2 or 5 times a power of ten, not less than `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|f| f * power)
        .find(|s| *s >= least)
        .unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_numbers() {
        assert_eq!(nice_step(0.9), 1.0);
        assert_eq!(nice_step(1.1), 2.0);
        assert_eq!(nice_step(2.1e8), 5e8);
        assert_eq!(nice_step(6e8), 1e9);
    }
}
