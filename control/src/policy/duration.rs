//! Timers as written in a policy: `5`, `0.05`, `50ms`, `1.5s`, `2000us`.

use std::time::Duration;

/// The shortest timer that a policy may set.
pub const SHORTEST_TIMER: Duration = Duration::from_millis(1);
/// The longest timer that a policy may set.
pub const LONGEST_TIMER: Duration = Duration::from_secs(3600);

/// Why a text is not a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotATimer {
    /// Not a number with an optional unit; the text says what to do, if that is known.
    Malformed(Option<&'static str>),
    /// A number, but outside [`SHORTEST_TIMER`] to [`LONGEST_TIMER`].
    OutOfRange,
}

/// Reads a timer: a decimal number, then `us`, `ms`, `s`, `min` or nothing for seconds.
///
/// Decimal arithmetic throughout, so that what is written is exactly what is kept.
pub(super) fn read(text: &str) -> Result<Duration, NotATimer> {
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let nanos_per_unit: u128 = match unit.trim_start().to_lowercase().as_str() {
        // U+00B5 is lowercase already; U+03BC is what some keyboards give.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "min" => 60_000_000_000,
        other if other.starts_with(',') => {
            return Err(NotATimer::Malformed(Some(
                "fractions are written with a point: `0.5`",
            )));
        }
        _ => {
            let known = "units are `us`, `ms`, `s` and `min`; none means seconds";
            return Err(NotATimer::Malformed((!number.is_empty()).then_some(known)));
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(NotATimer::Malformed(None));
    }
    let mut nanos = digits(whole)?
        .checked_mul(nanos_per_unit)
        .ok_or(NotATimer::OutOfRange)?;
    let mut place = nanos_per_unit;
    for digit in fraction.trim_end_matches('0').chars() {
        if !place.is_multiple_of(10) {
            let hint = "a timer can not be finer than a nanosecond";
            return Err(NotATimer::Malformed(Some(hint)));
        }
        place /= 10;
        nanos += u128::from(digit.to_digit(10).unwrap_or(0)) * place;
    }
    let in_range = (SHORTEST_TIMER.as_nanos()..=LONGEST_TIMER.as_nanos()).contains(&nanos);
    let nanos = u64::try_from(nanos)
        .ok()
        .filter(|_| in_range)
        .ok_or(NotATimer::OutOfRange)?;
    Ok(Duration::from_nanos(nanos))
}

fn digits(text: &str) -> Result<u128, NotATimer> {
    if text.is_empty() {
        return Ok(0);
    }
    // Only digits get here, so the one way to fail is to be too large.
    text.parse().map_err(|_| NotATimer::OutOfRange)
}

/// Writes a timer in the largest unit that keeps it a whole number; [`read`] takes it back.
pub(super) fn spell(timer: Duration) -> String {
    let nanos = timer.as_nanos();
    if nanos.is_multiple_of(1_000_000_000) {
        format!("{}s", nanos / 1_000_000_000)
    } else if nanos.is_multiple_of(1_000_000) {
        format!("{}ms", nanos / 1_000_000)
    } else if nanos.is_multiple_of(1_000) {
        format!("{}us", nanos / 1_000)
    } else {
        format!("{}.{:09}s", nanos / 1_000_000_000, nanos % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_spelling() {
        let micros = |n| Ok(Duration::from_micros(n));
        for (text, want) in [
            ("5", micros(5_000_000)),
            ("0.05", micros(50_000)),
            (".5", micros(500_000)),
            ("5.", micros(5_000_000)),
            ("50ms", micros(50_000)),
            ("50 MS", micros(50_000)),
            ("1.5s", micros(1_500_000)),
            ("2000us", micros(2_000)),
            ("2000\u{b5}s", micros(2_000)),
            ("1.0625min", micros(63_750_000)),
            ("0.001000001", Ok(Duration::from_nanos(1_000_001))),
            ("1.50000000000000000", micros(1_500_000)),
            ("1ms", Ok(SHORTEST_TIMER)),
            ("3600", Ok(LONGEST_TIMER)),
            ("60min", Ok(LONGEST_TIMER)),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_timer() {
        for text in [
            "",
            ".",
            "1.2.3",
            "five",
            "5 h",
            "-5",
            "1e3",
            "0,5",
            "0.0000000011",
            "5 5",
        ] {
            assert!(matches!(read(text), Err(NotATimer::Malformed(_))), "{text}");
        }
        let huge = "9".repeat(60);
        for text in [
            "0",
            "200us",
            "0.999ms",
            "3600.000000001",
            "61min",
            &huge,
            "0.000000001",
        ] {
            assert_eq!(read(text), Err(NotATimer::OutOfRange), "{text}");
        }
    }

    #[test]
    fn spells_so_that_it_reads_back() {
        for nanos in [
            1_000_000,
            1_000_001,
            1_500_000,
            50_000_000,
            1_000_000_000,
            3_600_000_000_000,
        ] {
            let timer = Duration::from_nanos(nanos);
            assert_eq!(read(&spell(timer)), Ok(timer));
        }
        assert_eq!(spell(Duration::from_millis(50)), "50ms");
        assert_eq!(spell(Duration::from_micros(1500)), "1500us");
        assert_eq!(spell(Duration::from_secs(90)), "90s");
    }
}
