//! Test packets through a lab: `evergate bench send` where they come from, `evergate bench receive` in the
//! target.

use crate::bench::peers::Sealed;
use crate::lab::{Lab, Place, Process};
use crate::paths;
use crate::probe::wait_ready;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fmt::Display;
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
    /// In each tunnel.
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
    /// Of the first tunnel; the others' follow.
    pub(super) from: String,
    pub(super) to: String,
    pub(super) tunnels: u16,
    /// The cores of the generator, as `taskset` wants them.
    pub(super) cores: String,
    /// Generator and collector go before other work: neither may wait for what is measured.
    pub(super) urgent: bool,
    pub(super) sealed: Sealed,
    /// The last sequence number of any SA.
    pub(super) used: u64,
}

impl Muzzle {
    fn niceness(&self) -> &'static [&'static str] {
        match self.urgent {
            true => &["nice", "-n", "-20"],
            false => &[],
        }
    }
}

/// What a shot has come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hit {
    /// A second.
    pub(super) sent: f64,
    pub(super) received: f64,
    /// All that were sent; tunnels and flows of those that came.
    pub(super) packets: u64,
    pub(super) tunnels: u64,
    pub(super) flows: u64,
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
    tunnels: u64,
    flows: u64,
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
        let words = self.words(shot);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let muzzle = &self.muzzle;
        let head = [muzzle.niceness(), &["taskset", "-c", &muzzle.cores]].concat();
        let mut sender = self
            .lab
            .spawn_piped(muzzle.place, &[head, words].concat())?;
        let secret = match &muzzle.sealed {
            Sealed::ByClient => String::new(),
            Sealed::Esp { secrets, .. } => secrets.join("\n") + "\n",
            Sealed::Wireguard {
                private, public, ..
            } => format!("{private}\n{public}\n"),
        };
        let mut stdin = sender.stdin().context("the generator has no stdin")?;
        stdin.write_all(secret.as_bytes())?;
        drop(stdin);
        let mut text = String::new();
        let mut stdout = sender.stdout().context("the generator has no stdout")?;
        stdout.read_to_string(&mut text)?;
        let status = sender.wait(Duration::from_secs(5))?;
        ensure!(
            status.success(),
            "the generator ended: {status}: {}",
            self.last_words()
        );
        let sent: Sent = serde_json::from_str(&text).context("the generator's report")?;
        ensure!(sent.sent > 0, "the generator has sent nothing");
        // What was made and not sent has used numbers too.
        self.muzzle.used += sent.sent + 1024;
        std::thread::sleep(DRAIN);
        writeln!(self.ask, "report")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let received: Received = serde_json::from_str(&line).context("the collector's report")?;
        Ok(hit(&sent, &received, self.run))
    }

    /// What a helper that failed said at last: the log goes with the lab.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.lab.log("helpers")).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }

    /// The command of the generator.
    fn words(&self, shot: Shot<'_>) -> Vec<String> {
        let muzzle = &self.muzzle;
        let mut words = match &muzzle.sealed {
            Sealed::Wireguard { gateway, .. } => {
                let own = paths::own().display().to_string();
                vec![own, "wireguard-send".into(), gateway.clone()]
            }
            _ => {
                let binary = self.binary.clone();
                let mut words = vec![binary, "bench".into(), "send".into(), "--json".into()];
                words.extend(["--interface".into(), muzzle.interface.into()]);
                words.extend(["--next-hop".into(), muzzle.next_hop.into()]);
                words
            }
        };
        let mut say =
            |name: &str, value: &dyn Display| words.extend([name.into(), value.to_string()]);
        say("--run", &self.run);
        say("--from", &muzzle.from);
        say("--to", &muzzle.to);
        say("--size", &shot.size);
        say("--flows", &shot.flows);
        say("--seconds", &shot.time.as_secs_f64());
        if let Some(rate) = shot.rate {
            say("--rate", &rate);
        }
        if let Sealed::Esp { spi, from, to, .. } = &muzzle.sealed {
            say("--tunnels", &muzzle.tunnels);
            say("--spi", spi);
            say("--after", &muzzle.used);
            say("--outer-from", from);
            say("--outer-to", to);
        }
        words
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
        packets: sent.sent,
        tunnels: received.tunnels,
        flows: received.flows,
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
            tunnels: 1,
            flows: 1,
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
