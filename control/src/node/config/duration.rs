//! Durations as a person writes them: `50ms`, `1.5s`, `2 min`.

use std::time::Duration;

/// What the reader expects, for messages.
pub(super) const EXPECTED: &str = "a duration with a unit, such as \"50ms\" or \"1.5s\"";

/// Nanoseconds of each unit.
const UNITS: [(&str, u64); 10] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("sec", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Reads a decimal number with a unit. `None`: it is not one, or too large, or finer than 1 ns.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let unit = unit.trim_start();
    let nanos_per_unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 15 || fraction.contains('.') {
        return None;
    }
    let whole: u128 = whole.parse::<u64>().ok()?.into();
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = fraction.parse::<u64>().ok()?.into();
    let scaled = (whole * scale + fraction).checked_mul(nanos_per_unit.into())?;
    if !scaled.is_multiple_of(scale) {
        return None;
    }
    u64::try_from(scaled / scale).ok().map(Duration::from_nanos)
}

/// The shortest way to write a duration, in the units that [`parse`] reads.
pub(super) fn show(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, size) in [
        ("h", 3_600_000_000_000),
        ("min", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
    ] {
        if nanos >= size && nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    format!("{nanos}ns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        for (text, nanos) in [
            ("50ms", 50_000_000),
            ("1.5s", 1_500_000_000),
            ("0.25 ms", 250_000),
            ("200us", 200_000),
            ("200µs", 200_000),
            ("2 min", 120_000_000_000),
            (" 1h ", 3_600_000_000_000),
            ("0s", 0),
            ("1.000000001s", 1_000_000_001),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration() {
        for text in [
            "",
            "50",
            "ms",
            ".5s",
            "5.s",
            "1.2.3s",
            "-5ms",
            "50 parsecs",
            "1e3ms",
            "50ms5",
            "99999999999999999999s",
            "999999999999h",
            "0.5ns",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn shown_as_it_can_be_read() {
        for text in ["50ms", "10s", "24h", "1500us", "1ns", "90min"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
        assert_eq!(show(Duration::from_millis(1500)), "1500ms");
    }
}
