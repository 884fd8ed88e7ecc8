//! The highest rate at which hardly anything is lost.

use anyhow::Result;
use serde::Serialize;

/// What may be lost: 0.1 %.
pub(super) const LOSS: f64 = 0.001;
/// A generator that is slower than it should be by more than this is at its own limit.
const BEHIND: f64 = 0.97;
/// Where it begins.
const FIRST: f64 = 16_000.0;
/// Below this it is of no interest.
const LEAST: f64 = 1_000.0;
/// No generator here is faster.
const MOST: f64 = 20_000_000.0;

/// How a trial went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    /// Packets a second that were sent.
    pub(super) sent: f64,
    /// The share that was lost.
    pub(super) loss: f64,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Found {
    /// Packets a second.
    pub(super) rate: f64,
    /// The generator could not send more: it may be higher.
    pub(super) by_generator: bool,
}

/// With packets a second that were sent.
enum Verdict {
    Passed(f64),
    Lost,
    /// Hardly anything was lost, but less was sent than should be.
    Behind(f64),
}

/// Doubles (or halves) the rate until it is between two of them, then goes on in `steps` steps, each of
/// which halves what is between on a logarithmic scale. A trial that fails is tried once more: a machine
/// that has other work may have had it just then.
pub(super) fn highest(steps: u32, mut trial: impl FnMut(f64) -> Result<Trial>) -> Result<Found> {
    let mut judge = |rate: f64| -> Result<Verdict> {
        let mut verdict = Verdict::Lost;
        for _ in 0..2 {
            let Trial { sent, loss } = trial(rate)?;
            verdict = match (loss <= LOSS, sent >= rate * BEHIND) {
                (true, true) => return Ok(Verdict::Passed(sent.min(rate))),
                (true, false) => Verdict::Behind(sent),
                (false, _) => Verdict::Lost,
            };
        }
        Ok(verdict)
    };
    let (mut low, mut high, mut by_generator) = (0.0, FIRST, false);
    // Up, until something is wrong.
    loop {
        match judge(high)? {
            Verdict::Passed(sent) => {
                low = sent;
                if high >= MOST {
                    break;
                }
                high *= 2.0;
            }
            Verdict::Behind(sent) => {
                (low, by_generator) = (sent.max(low), true);
                break;
            }
            Verdict::Lost => break,
        }
    }
    // Down, until something is right.
    while low == 0.0 && high > LEAST {
        match judge(high / 2.0)? {
            Verdict::Passed(sent) | Verdict::Behind(sent) => low = sent,
            Verdict::Lost => high /= 2.0,
        }
    }
    if low == 0.0 {
        return Ok(Found::default());
    }
    for _ in 0..steps {
        let middle = f64::sqrt(low * high);
        match judge(middle)? {
            Verdict::Passed(sent) => low = sent.max(low),
            Verdict::Lost => (high, by_generator) = (middle, false),
            Verdict::Behind(sent) => (low, high, by_generator) = (sent.max(low), middle, true),
        }
    }
    Ok(Found {
        rate: low,
        by_generator,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that carries so much, and a generator that sends at most so much.
    fn path(carries: f64, sends: f64) -> impl FnMut(f64) -> Result<Trial> {
        move |rate| {
            let sent = f64::min(rate, sends);
            let loss = (1.0 - carries / sent).max(0.0);
            Ok(Trial { sent, loss })
        }
    }

    #[test]
    fn it_is_found_from_above_and_from_below() {
        for carries in [2_500.0, 9_000.0, 17_000.0, 60_000.0, 333_000.0, 900_000.0] {
            let found = highest(6, path(carries, 5e6)).unwrap();
            assert!(!found.by_generator);
            let share = found.rate / carries;
            assert!((0.97..=1.001).contains(&share), "{carries}: {found:?}");
        }
    }

    #[test]
    fn the_generator_may_be_the_limit() {
        let found = highest(6, path(1e9, 700_000.0)).unwrap();
        assert!(found.by_generator);
        assert_eq!(found.rate, 700_000.0);
    }

    #[test]
    fn one_failure_by_chance_is_forgiven_and_nothing_is_nothing() {
        let mut trials = 0;
        let mut good = path(50_000.0, 5e6);
        let found = highest(5, |rate| {
            trials += 1;
            match trials {
                1 => Ok(Trial {
                    sent: rate,
                    loss: 0.5,
                }),
                _ => good(rate),
            }
        });
        assert!(found.unwrap().rate > 48_000.0);
        assert_eq!(highest(5, path(0.0, 5e6)).unwrap(), Found::default());
    }
}
