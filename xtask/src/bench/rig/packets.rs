//! Test packets through a lab: `evergate bench send` where they come from, `evergate bench receive` in the
//! target.

use crate::lab::{Lab, Place, Process};
use crate::probe::wait_ready;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{ChildStdin, ChildStdout};
use std::time::Duration;

/// What may still be on its way when the sender has ended: longer than any queue here.
const DRAIN: Duration = Duration::from_millis(80);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shot<'a> {
    /// Bytes of the inner IP packet, or `imix`.
    pub(super) size: &'a str,
    pub(super) flows: u16,
    /// Packets a second; without: as fast as it can.
    pub(super) rate: Option<u64>,
    pub(super) time: Duration,
}

/// Where a shot comes from.
#[derive(Clone, Debug)]
pub(super) struct Muzzle {
    pub(super) place: Place,
    pub(super) interface: &'static str,
    /// The next hop's link address.
    pub(super) next_hop: &'static str,
    pub(super) from: String,
    pub(super) to: String,
    /// The cores of the generator, as `taskset` wants them.
    pub(super) cores: String,
    /// Generator and collector go before other work: neither may wait for what is measured.
    pub(super) urgent: bool,
    /// Sealed by an SA that the gateway has.
    pub(super) seal: Option<Seal>,
}

impl Muzzle {
    fn niceness(&self) -> &'static [&'static str] {
        match self.urgent {
            true => &["nice", "-n", "-20"],
            false => &[],
        }
    }
}

/// An SA written by hand.
#[derive(Clone, Debug)]
pub(super) struct Seal {
    pub(super) spi: String,
    /// Key and salt.
    pub(super) secret: String,
    pub(super) outer_from: String,
    pub(super) outer_to: String,
    /// The last sequence number.
    pub(super) used: u64,
}

/// What a shot has come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hit {
    /// A second.
    pub(super) sent: f64,
    pub(super) received: f64,
    /// Of all that was sent.
    pub(super) loss: f64,
    pub(super) reordered: u64,
    pub(super) duplicated: u64,
    pub(super) latency: Latency,
}

/// One way, microseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Latency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
}

#[derive(Deserialize)]
struct Sent {
    sent: u64,
    seconds: f64,
}

#[derive(Deserialize)]
struct Received {
    run: u32,
    received: u64,
    duplicated: u64,
    reordered: u64,
    latency: Latency,
}

/// Counts what reaches the target; ends when dropped.
pub(super) struct Range<'a> {
    lab: &'a Lab,
    muzzle: Muzzle,
    binary: String,
    _collector: Process,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    run: u32,
}

impl<'a> Range<'a> {
    pub(super) fn open(lab: &'a Lab, muzzle: Muzzle) -> Result<Self> {
        let binary = lab.binary()?.display().to_string();
        let words = [
            muzzle.niceness(),
            &["taskset", "-c", &muzzle.cores, &binary],
        ]
        .concat();
        let also = ["bench", "receive", "--interface", "eth0", "--json"];
        let mut collector = lab.spawn_piped(Place::Target, &[&words[..], &also].concat())?;
        let ask = collector.stdin().context("the collector has no stdin")?;
        let answers = wait_ready(&mut collector)?;
        Ok(Self {
            lab,
            muzzle,
            binary,
            _collector: collector,
            ask,
            answers,
            run: 0,
        })
    }

    pub(super) fn shoot(&mut self, shot: Shot<'_>) -> Result<Hit> {
        self.run += 1;
        let run = self.run.to_string();
        let (flows, seconds) = (
            shot.flows.to_string(),
            format!("{}", shot.time.as_secs_f64()),
        );
        let muzzle = &self.muzzle;
        let mut words = muzzle.niceness().to_vec();
        words.extend(["taskset", "-c", &muzzle.cores]);
        words.extend([&*self.binary, "bench", "send", "--json", "--run", &run]);
        words.extend(["--interface", muzzle.interface]);
        words.extend(["--next-hop", muzzle.next_hop]);
        words.extend(["--from", &muzzle.from, "--to", &muzzle.to]);
        words.extend(["--size", shot.size, "--flows", &flows]);
        words.extend(["--seconds", &seconds]);
        let rate = shot.rate.map(|rate| rate.to_string());
        words.extend(rate.iter().flat_map(|rate| ["--rate", rate]));
        let after = muzzle.seal.as_ref().map(|seal| seal.used.to_string());
        if let (Some(seal), Some(after)) = (&muzzle.seal, &after) {
            words.extend(["--spi", &seal.spi, "--after", after]);
            words.extend(["--outer-from", &seal.outer_from]);
            words.extend(["--outer-to", &seal.outer_to]);
        }
        let mut sender = self.lab.spawn_piped(muzzle.place, &words)?;
        if let Some(seal) = &muzzle.seal {
            let mut stdin = sender.stdin().context("the generator has no stdin")?;
            writeln!(stdin, "{}", seal.secret)?;
        }
        let mut text = String::new();
        let mut stdout = sender.stdout().context("the generator has no stdout")?;
        stdout.read_to_string(&mut text)?;
        let status = sender.wait(Duration::from_secs(5))?;
        ensure!(
            status.success(),
            "the generator ended: {status} (see log/helpers.log)"
        );
        let sent: Sent = serde_json::from_str(&text).context("the generator's report")?;
        ensure!(sent.sent > 0, "the generator has sent nothing");
        if let Some(seal) = &mut self.muzzle.seal {
            // What was made and not sent has used numbers too.
            seal.used += sent.sent + 1024;
        }
        std::thread::sleep(DRAIN);
        writeln!(self.ask, "report")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let received: Received = serde_json::from_str(&line).context("the collector's report")?;
        Ok(hit(&sent, &received, self.run))
    }
}

fn hit(sent: &Sent, received: &Received, run: u32) -> Hit {
    // Late packets of another run are none of this one.
    let arrived = match received.run == run {
        true => received.received,
        false => 0,
    };
    let (seconds, all) = (sent.seconds.max(1e-9), sent.sent as f64);
    Hit {
        sent: all / seconds,
        received: arrived as f64 / seconds,
        loss: (all - arrived as f64).max(0.0) / all.max(1.0),
        reordered: received.reordered,
        duplicated: received.duplicated,
        latency: received.latency,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_what_did_not_come_of_this_run() {
        let sent = Sent {
            sent: 1000,
            seconds: 0.5,
        };
        let mut received = Received {
            run: 3,
            received: 990,
            duplicated: 0,
            reordered: 0,
            latency: Latency::default(),
        };
        let found = hit(&sent, &received, 3);
        assert!((found.loss - 0.01).abs() < 1e-9);
        assert_eq!((found.sent, found.received), (2000.0, 1980.0));
        received.run = 2;
        assert_eq!(hit(&sent, &received, 3).loss, 1.0);
    }
}
