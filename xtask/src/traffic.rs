//! Real traffic through the lab: iperf3, and a meter at the target's interface.

use crate::lab::{Lab, Place, Process};
use crate::probe::now_ns;
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How an iperf3 transfer ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// Bytes that arrived.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) bits_per_second: f64,
    pub(crate) retransmits: u64,
    /// Why it did not end as it should.
    pub(crate) error: Option<String>,
}

/// A running iperf3 transfer from the client to an address of the target.
#[derive(Debug)]
pub(crate) struct Iperf {
    server: Process,
    client: Process,
    output: JoinHandle<String>,
}

impl Iperf {
    /// Starts a TCP transfer of one stream; `extra`: further options of iperf3's client.
    pub(crate) fn start(lab: &Lab, address: &str, seconds: u64, extra: &[&str]) -> Result<Self> {
        let log = lab.log("iperf3-server");
        let _ = std::fs::remove_file(&log);
        let words = ["iperf3", "-s", "-1", "--forceflush", "-B", address];
        let server = lab.spawn(Place::Target, "iperf3-server", &words)?;
        lab.wait(
            "iperf3 listens at the target",
            Duration::from_secs(5),
            |_| {
                let text = std::fs::read_to_string(&log)?;
                Ok(text.contains("Server listening").then_some(()))
            },
        )?;
        let seconds = seconds.to_string();
        let mut words = vec!["iperf3", "-c", address, "-t", &seconds, "-i", "0.1", "-J"];
        words.extend(["--connect-timeout", "5000"]);
        words.extend(extra);
        let mut client = lab.spawn_piped(Place::Client, &words)?;
        let mut stdout = client
            .stdout()
            .ok_or_else(|| anyhow!("iperf3 has no stdout"))?;
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            text
        });
        Ok(Self {
            server,
            client,
            output,
        })
    }

    /// The server's process id: its view of `/proc/net` is the target's.
    pub(crate) fn server_pid(&self) -> i32 {
        self.server.pid()
    }

    pub(crate) fn still_runs(&mut self) -> bool {
        matches!(self.client.ended(), Ok(None))
    }

    /// Waits for the end, at most `timeout`; a transfer that hangs is one that broke.
    pub(crate) fn finish(mut self, timeout: Duration) -> Transfer {
        if let Err(error) = self.client.wait(timeout) {
            return Transfer {
                error: Some(format!("{error:#}")),
                ..Transfer::default()
            };
        }
        let text = self.output.join().unwrap_or_default();
        understand(&text).unwrap_or_else(|error| Transfer {
            error: Some(format!("{error:#}")),
            ..Transfer::default()
        })
    }
}

/// Runs a whole transfer.
pub(crate) fn transfer(lab: &Lab, address: &str, seconds: u64, extra: &[&str]) -> Result<Transfer> {
    let iperf = Iperf::start(lab, address, seconds, extra)?;
    let transfer = iperf.finish(Duration::from_secs(seconds + 20));
    match &transfer.error {
        Some(error) => Err(anyhow!("iperf3 to {address}: {error}")),
        None => Ok(transfer),
    }
}

fn understand(json: &str) -> Result<Transfer> {
    let value: serde_json::Value =
        serde_json::from_str(json).context("iperf3 did not end with a report")?;
    let received = &value["end"]["sum_received"];
    Ok(Transfer {
        bytes: received["bytes"].as_u64().unwrap_or_default(),
        seconds: received["seconds"].as_f64().unwrap_or_default(),
        bits_per_second: received["bits_per_second"].as_f64().unwrap_or_default(),
        retransmits: value["end"]["sum_sent"]["retransmits"]
            .as_u64()
            .unwrap_or_default(),
        error: match value["error"].as_str() {
            Some(error) => Some(error.to_owned()),
            None if received["bytes"].as_u64().unwrap_or_default() == 0 => {
                Some("nothing arrived".into())
            }
            None => None,
        },
    })
}

/// Reads the received bytes of the target's interface every 10 ms.
#[derive(Debug)]
pub(crate) struct Meter {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    thread: Option<JoinHandle<()>>,
}

/// Bytes received up to a point of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at_ns: u64,
    pub(crate) bytes: u64,
}

impl Meter {
    /// `pid`: a process that lives in the target's namespace.
    pub(crate) fn start(pid: i32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(Mutex::new(Vec::new()));
        let (flag, shared) = (Arc::clone(&stop), Arc::clone(&samples));
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                if let Some(bytes) = received_bytes(pid) {
                    let sample = Sample {
                        at_ns: now_ns(),
                        bytes,
                    };
                    shared
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(sample);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self {
            stop,
            samples,
            thread: Some(thread),
        }
    }

    /// Everything so far.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn received_bytes(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let line = text.lines().find_map(|l| l.trim().strip_prefix("eth0:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The mean rate between two stamps in bit/s.
pub(crate) fn rate(samples: &[Sample], from_ns: u64, until_ns: u64) -> f64 {
    let inside: Vec<&Sample> = samples
        .iter()
        .filter(|s| (from_ns..=until_ns).contains(&s.at_ns))
        .collect();
    match (inside.first(), inside.last()) {
        (Some(a), Some(b)) if b.at_ns > a.at_ns => {
            b.bytes.saturating_sub(a.bytes) as f64 * 8e9 / (b.at_ns - a.at_ns) as f64
        }
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_broke_says_why() {
        let good = r#"{"end":{"sum_received":{"bytes":10,"seconds":2.0,"bits_per_second":40.0},
            "sum_sent":{"retransmits":3}}}"#;
        let transfer = understand(good).unwrap();
        assert_eq!(
            (transfer.bytes, transfer.retransmits, transfer.error),
            (10, 3, None)
        );
        let bad = r#"{"end":{},"error":"control socket has closed unexpectedly"}"#;
        assert!(
            understand(bad)
                .unwrap()
                .error
                .unwrap()
                .contains("control socket")
        );
        assert!(understand(r#"{"end":{}}"#).unwrap().error.is_some());
        assert!(understand("").is_err());
    }

    #[test]
    fn rate_between_stamps() {
        let sample = |ms: u64, bytes| Sample {
            at_ns: ms * 1_000_000,
            bytes,
        };
        let samples = [
            sample(0, 0),
            sample(10, 1000),
            sample(20, 2000),
            sample(30, 9000),
        ];
        assert!((rate(&samples, 0, 20_000_000) - 800_000.0).abs() < 1e-6);
        assert_eq!(rate(&samples, 40_000_000, 50_000_000), 0.0);
    }
}
