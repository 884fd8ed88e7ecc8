//! What a run of libFuzzer has said, read from its log.

use std::path::PathBuf;

/// A run, as its log tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) executions: u64,
    /// Places in the code that were reached, by the corpus too.
    pub(super) edges: u64,
    /// The inputs that broke something: a panic, too slow, too much memory.
    pub(super) broke: Vec<PathBuf>,
    /// The panic's words, or libFuzzer's.
    pub(super) why: Option<String>,
}

/// Reads a log.
pub(super) fn read(log: &str) -> Said {
    let mut said = Said::default();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        let line = line.trim_end();
        if let Some(count) = line.strip_prefix('#') {
            // `#65536 pulse  cov: 296 ft: 812 …`: it may be the last that is heard of a killed run.
            let executions = count.split_whitespace().next().and_then(|n| n.parse().ok());
            said.executions = said.executions.max(executions.unwrap_or(0));
            said.edges = said.edges.max(after(line, "cov: ").unwrap_or(0));
        } else if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            said.executions = said.executions.max(count.trim().parse().unwrap_or(0));
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            said.broke.push(path.into());
        } else if line.starts_with("thread ") && line.contains(" panicked at ") {
            let words = lines.peek().map_or("", |next| next.trim());
            said.why = Some(format!("{line} {words}"));
        } else if line.starts_with("SUMMARY: ") && said.why.is_none() {
            said.why = Some(line.to_owned());
        }
    }
    said
}

fn after(line: &str, word: &str) -> Option<u64> {
    let (_, rest) = line.split_once(word)?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: &str = "\
INFO: Running with entropic power schedule (0xFF, 100).
#2\tINITED cov: 96 ft: 97 corp: 1/1b exec/s: 0 rss: 46Mb
#65536\tpulse  cov: 131 ft: 402 corp: 40/2Kb lim: 652 exec/s: 32768 rss: 60Mb
#90001\tDONE   cov: 132 ft: 402 corp: 40/2Kb lim: 880 exec/s: 30000 rss: 61Mb
Done 90001 runs in 3 second(s)
stat::number_of_executed_units: 90001
stat::average_exec_per_sec:     30000
";

    #[test]
    fn a_run_to_its_end() {
        let said = read(QUIET);
        assert_eq!((said.executions, said.edges), (90_001, 132));
        assert!(said.broke.is_empty() && said.why.is_none());
    }

    #[test]
    fn a_panic_is_told_with_its_input() {
        let log = "\
#512\tNEW    cov: 40 ft: 41 corp: 3/9b lim: 4 exec/s: 0 rss: 45Mb
thread '<unnamed>' (71) panicked at tests/src/fuzz/heartbeat.rs:16:5:
assertion failed: authentic || answered.is_err()
==71== ERROR: libFuzzer: deadly signal
SUMMARY: libFuzzer: deadly signal
artifact_prefix='/t/'; Test unit written to /t/crash-0a1b
stat::number_of_executed_units: 700
";
        let said = read(log);
        assert_eq!((said.executions, said.edges), (700, 40));
        assert_eq!(said.broke, [PathBuf::from("/t/crash-0a1b")]);
        let why = said.why.unwrap();
        assert!(why.contains("heartbeat.rs:16") && why.ends_with("answered.is_err()"));
    }

    #[test]
    fn a_run_that_was_killed_counts_what_it_told_last() {
        let cut = QUIET.split("#90001").next().unwrap();
        assert_eq!(read(cut).executions, 65_536);
        let slow = "ALARM: working on the last Unit for 25 seconds\n\
                    SUMMARY: libFuzzer: timeout\nTest unit written to /t/timeout-9\n";
        let said = read(slow);
        assert_eq!(said.why.unwrap(), "SUMMARY: libFuzzer: timeout");
        assert_eq!(said.broke.len(), 1);
    }
}
