//! Numbers as a person reads them.

/// `1,204,881`
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1.7 GB`, in powers of 1000
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    for (size, unit) in UNITS {
        if value >= size {
            return format!("{} {unit}", tenths(value, size));
        }
    }
    format!("{value} B")
}

/// A time in the one or two units that matter: `412 µs`, `12.4 s`, `1 d 2 h`.
pub(super) fn time(micros: u64) -> String {
    const SECOND: u64 = 1_000_000;
    const MINUTE: u64 = 60 * SECOND;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..SECOND => format!("{} ms", tenths(micros, 1_000)),
        SECOND..MINUTE => format!("{} s", tenths(micros, SECOND)),
        MINUTE..HOUR => format!("{} min {} s", micros / MINUTE, micros % MINUTE / SECOND),
        HOUR..DAY => format!("{} h {} min", micros / HOUR, micros % HOUR / MINUTE),
        DAY.. => format!("{} d {} h", micros / DAY, micros % DAY / HOUR),
    }
}

/// A quotient with one decimal, cut off; none from 100 on.
fn tenths(value: u64, size: u64) -> String {
    let (whole, tenth) = (value / size, value % size / (size / 10));
    if whole >= 100 || tenth == 0 {
        whole.to_string()
    } else {
        format!("{whole}.{tenth}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_person_reads_them() {
        for (value, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_204_881, "1,204,881"),
        ] {
            assert_eq!(count(value), expected);
        }
        for (value, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_500, "1.5 kB"),
            (31_772_104, "31.7 MB"),
            (1_688_901_234, "1.6 GB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(bytes(value), expected);
        }
        for (value, expected) in [
            (0, "0 µs"),
            (412, "412 µs"),
            (1_000, "1 ms"),
            (12_499, "12.4 ms"),
            (999_999, "999 ms"),
            (12_400_000, "12.4 s"),
            (754_321_000, "12 min 34 s"),
            (7_500_000_000, "2 h 5 min"),
            (93_784_005_000, "1 d 2 h"),
        ] {
            assert_eq!(time(value), expected);
        }
    }
}
