//! The figures as a picture: a panel of bars for each measure.

use super::report::{Line, Report};
use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

const WIDTH: u32 = 1280;
const HEAD: u32 = 34;
/// Of a bar, with the gap below it.
const BAR: i32 = 24;
const LABELS: i32 = 150;
/// Room for the figure behind the longest bar.
const FIGURES: i32 = 80;
const INK: RGBColor = RGBColor(31, 41, 55);
const OWN: RGBColor = RGBColor(37, 99, 235);
const PLAIN: RGBColor = RGBColor(156, 163, 175);
const PEER: RGBColor = RGBColor(217, 119, 6);

type Of = fn(&Line) -> f64;

/// Title, what it is about, and digits behind the point.
const PANELS: [(&str, Of, usize); 6] = [
    ("64 B, thousand packets a second", |l| l.small / 1e3, 0),
    ("1400 B, thousand packets a second", |l| l.large / 1e3, 0),
    ("TCP, client to target, Gbit/s", |l| l.up / 1e9, 2),
    ("TCP, target to client, Gbit/s", |l| l.down / 1e9, 2),
    ("CPU seconds per GB, whole machine", |l| l.cpu_machine, 2),
    ("one way at a tenth of the load, 99 %, µs", |l| l.p99_us, 0),
];

/// The picture as SVG.
pub(super) fn draw(report: &Report) -> Result<String> {
    let mut svg = String::new();
    let bars = i32::try_from(report.table.len())?;
    let panel = HEAD + u32::try_from(bars * BAR)? + 16;
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, panel * 3)).into_drawing_area();
        area.fill(&WHITE).context("the picture")?;
        for (area, (title, of, digits)) in area.split_evenly((3, 2)).iter().zip(PANELS) {
            draw_panel(area, &report.table, title, of, digits)?;
        }
        area.present().context("the picture")?;
    }
    Ok(svg)
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    lines: &[Line],
    title: &str,
    of: Of,
    digits: usize,
) -> Result<()> {
    let text = |size: i32| ("sans-serif", size).into_font().color(&INK);
    area.draw_text(title, &text(15), (LABELS, 8))?;
    let most = lines.iter().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(i32::try_from(area.dim_in_pixel().0)? - LABELS - FIGURES);
    let tops = (0..).map(|n| HEAD as i32 + n * BAR);
    for (line, top) in lines.iter().zip(tops) {
        let value = of(line);
        area.draw_text(line.system.name(), &text(13), (8, top + 3))?;
        let end = LABELS + (value / most * room) as i32;
        let colour = match line.system {
            system if system.is_own() => OWN,
            system if system.is_plain() => PLAIN,
            _ => PEER,
        };
        let corners = [(LABELS, top), (end, top + BAR - 6)];
        area.draw(&Rectangle::new(corners, colour.filled()))?;
        let figure = match value == 0.0 {
            true => "–".to_owned(),
            false => format!("{value:.digits$}"),
        };
        area.draw_text(&figure, &text(12), (end + 6, top + 3))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::QUICK;
    use super::super::measure::Traffic;
    use super::super::report::Row;
    use super::*;
    use crate::bench::peers::System;

    #[test]
    fn every_system_is_in_the_picture() {
        let rows = [System::Plain, System::Evergate, System::Gotatun].map(Row::new);
        let svg = draw(&Report::new(rows.into(), Traffic::default(), QUICK)).unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("gotatun").count(), PANELS.len());
    }
}
