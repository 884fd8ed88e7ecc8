//! Storms: what hostile senders can send to a gateway, at a rate that only a few machines of theirs
//! make, while a client of it has a TCP stream through it.
//!
//! What a storm costs the client is told by a yardstick: the same storm, on the same wire, to the same
//! gateway, dropped by an XDP program that does nothing else.

mod dropper;
mod frames;
mod send;

pub(crate) use send::{Words, interface as out_of, send};

use self::dropper::Dropper;
use self::frames::{HOSTILE_AT, HOSTILE_INNER, HOSTILE_MAY, HOSTILE_SPI, KEY, SALT, SENDER};
use crate::bench::median;
use crate::lab::topology::{CLIENT_OUTSIDE, TARGETS, gateway_outside};
use crate::lab::{GENERAL, Lab, Place, Process, Setup, Status};
use crate::probe::{now_ns, wait_ready};
use crate::traffic::{Iperf, Meter, Sample, rate};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;
use std::io::{BufRead as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub(crate) enum Kind {
    /// First messages of IKE, from random addresses.
    FirstMessages,
    /// Heartbeats from random addresses, plain and keyed.
    Strangers,
    /// Keyed heartbeats from the client's address with its SPI, and a wrong MAC.
    SpoofedRequests,
    /// The same as answers.
    SpoofedAnswers,
    /// ESP with SPIs that nobody has, from random addresses.
    UnknownSpi,
    /// Eight bytes of a datagram or of ESP, from random addresses.
    Fragments,
    /// ESP with the client's address and SPI, and a wrong integrity check.
    Forged,
    /// ESP of a peer that has a session, with nonsense inside.
    HostilePeer,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::FirstMessages,
        Self::Strangers,
        Self::SpoofedRequests,
        Self::SpoofedAnswers,
        Self::UnknownSpi,
        Self::Fragments,
        Self::Forged,
        Self::HostilePeer,
    ];

    /// As people say it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::FirstMessages => "first messages of IKE",
            Self::Strangers => "heartbeats of strangers",
            Self::SpoofedRequests => "spoofed heartbeats",
            Self::SpoofedAnswers => "spoofed answers to heartbeats",
            Self::UnknownSpi => "ESP with unknown SPIs",
            Self::Fragments => "tiny fragments",
            Self::Forged => "forged ESP of the client",
            Self::HostilePeer => "nonsense in ESP of a peer",
        }
    }

    /// The counters that its frames must raise at the gateway.
    pub(crate) fn counters(self) -> &'static [&'static str] {
        match self {
            Self::FirstMessages => &["ike_asked"],
            Self::Strangers => &["heartbeat_form", "heartbeat_unknown_spi"],
            Self::SpoofedRequests => &["heartbeat_mac"],
            Self::SpoofedAnswers => &["heartbeat_answer"],
            Self::UnknownSpi => &["unknown_spi"],
            Self::Fragments => &["esp_fragment", "passed"],
            Self::Forged => &["bad_icv"],
            Self::HostilePeer => &[
                "bad_padding",
                "bad_next_header",
                "inner_malformed",
                "inner_source",
                "inner_destination",
            ],
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Frames a second.
    pub(crate) rate: u64,
    /// Pairs of slices with and without the storm's frames reaching the gateway's program.
    pub(crate) pairs: usize,
    /// How long each is.
    pub(crate) slice: Duration,
}

/// What became of a client in a storm.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) kind: Kind,
    /// Bit/s of the client's stream with no storm at all.
    pub(crate) quiet: f64,
    /// While the yardstick drops the storm.
    pub(crate) dropped: Vec<f64>,
    /// While the gateway gets it.
    pub(crate) live: Vec<f64>,
    /// Frames a second that were sent, meanwhile.
    pub(crate) sent_dropped: Vec<f64>,
    pub(crate) sent_live: Vec<f64>,
    /// How many frames of those that were sent to it the gateway has counted as what they are.
    pub(crate) counted: f64,
}

/// A lab in which a client has a stream through gw1.
pub(crate) struct Stage<'a> {
    lab: &'a mut Lab,
    iperf: Iperf,
    meter: Meter,
    secret: String,
    storms: u32,
    since: u64,
}

/// The gateway that is attacked.
const NUMBER: u8 = 1;
const GATEWAY: Place = Place::Gateway(NUMBER);
/// Its MAC address outside.
const MAC: &str = "02:00:00:02:00:01";
/// After a change, before what comes counts.
const SETTLE: Duration = Duration::from_millis(300);
/// What must be counted at least of what is sent: the rest waited for a full ring of the worker, or is
/// nonsense that happens to be in order.
const COUNTED: f64 = 0.3;
/// So many numbers of the hostile peer's SA are for one storm.
const NUMBERS: u32 = 100_000_000;

impl<'a> Stage<'a> {
    /// Starts the nodes and the stream. The policy has gw1 first, and a standby.
    pub(crate) fn set(lab: &'a mut Lab) -> Result<Self> {
        lab.configure(&Setup {
            general: format!("{GENERAL}RandomOrder = no\n"),
            ..Setup::default()
        })?;
        lab.start_all()?;
        lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))?;
        lab.wait_client(
            "gw1 is active, a standby keyed",
            Duration::from_secs(15),
            |s| s.active() == Some(NUMBER) && s.keyed().len() >= 2,
        )?;
        // What the gateway answers goes back to where the storm comes from, and no further.
        let mac = SENDER.map(|byte| format!("{byte:02x}")).join(":");
        lab.exec(
            Place::Wan,
            &[
                "bridge", "fdb", "replace", &mac, "dev", "gw1", "master", "static",
            ],
        )?;
        let secret: String = rand::random::<[u8; KEY + SALT]>()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let (spi, key) = (format!("{HOSTILE_SPI:#x}"), format!("0x{secret}"));
        let (inner, outer) = (HOSTILE_INNER.to_string(), HOSTILE_AT.to_string());
        let own = gateway_outside(NUMBER).to_string();
        let sa = [
            "sa",
            "add",
            "in",
            "spi",
            &spi,
            "key",
            &key,
            "esn",
            "off",
            "sel",
            &inner,
            HOSTILE_MAY,
            "local",
            &own,
            "remote",
            &outer,
        ];
        lab.evergate(GATEWAY, &sa)?;
        let since = lab.events(Place::Client, 0)?.last().map_or(0, |e| e.seq);
        let iperf = Iperf::start(lab, TARGETS[0], 3600, &[])?;
        let meter = Meter::start(iperf.server_pid());
        std::thread::sleep(Duration::from_secs(1));
        Ok(Self {
            lab,
            iperf,
            meter,
            secret,
            storms: 0,
            since,
        })
    }

    /// One storm.
    pub(crate) fn weather(&mut self, kind: Kind, effort: Effort) -> Result<Outcome> {
        let dropper = Dropper::new(self.lab, GATEWAY)?;
        let (from, until) = slice(effort.slice);
        let quiet = rate(&self.meter.samples(), from, until);
        dropper.set(true)?;
        let number = self.storms * NUMBERS;
        self.storms += 1;
        let storm = Sender::start(self.lab, kind, effort.rate, &self.secret, number)?;
        let mut outcome = Outcome {
            kind,
            quiet,
            dropped: Vec::new(),
            live: Vec::new(),
            sent_dropped: Vec::new(),
            sent_live: Vec::new(),
            counted: 0.0,
        };
        let (mut counted, mut reached) = (0, 0.0);
        for pair in 0..effort.pairs {
            // In turn, and each first as often as the other.
            let first = pair % 2 == 0;
            for dropping in [first, !first] {
                dropper.set(dropping)?;
                std::thread::sleep(SETTLE);
                let before = self.lab.status(GATEWAY)?;
                let (from, until) = slice(effort.slice);
                let after = self.lab.status(GATEWAY)?;
                let goodput = rate(&self.meter.samples(), from, until);
                let sent = rate(&storm.sent(), from, until) / 8.0;
                if dropping {
                    outcome.dropped.push(goodput);
                    outcome.sent_dropped.push(sent);
                } else {
                    outcome.live.push(goodput);
                    outcome.sent_live.push(sent);
                    let all =
                        |s: &Status| kind.counters().iter().map(|c| s.counter(c)).sum::<u64>();
                    counted += all(&after) - all(&before);
                    reached += sent * effort.slice.as_secs_f64();
                }
            }
        }
        storm.finish()?;
        outcome.counted = counted as f64 / f64::max(reached, 1.0);
        Ok(outcome)
    }

    /// Freezes the gateway in a storm for its workers, of so many frames or more. Yields how many it says that it missed.
    pub(crate) fn overrun(&mut self, frames: u64) -> Result<u64> {
        const RATE: u64 = 20_000;
        let missed = |lab: &Lab| -> Result<u64> {
            let status = lab.status(GATEWAY)?;
            Ok(status.counter("rx_ring_full") + status.counter("rx_no_frame"))
        };
        let before = missed(self.lab)?;
        let storm = Sender::start(self.lab, Kind::Forged, RATE, &self.secret, 0)?;
        self.lab.freeze(GATEWAY)?;
        let begin = storm.frames();
        let patience = Instant::now() + Duration::from_secs(30);
        while storm.frames() < begin + frames && Instant::now() < patience {
            std::thread::sleep(SETTLE);
        }
        self.lab.thaw(GATEWAY)?;
        storm.finish()?;
        std::thread::sleep(SETTLE);
        Ok(missed(self.lab)? - before)
    }

    /// Whether all is as it was before the storms: the stream runs, through gw1, and never went
    /// elsewhere.
    pub(crate) fn check(&mut self) -> Result<()> {
        ensure!(self.iperf.still_runs(), "the client's stream has ended");
        let active = self.lab.status(Place::Client)?.active();
        ensure!(active == Some(NUMBER), "the client uses {active:?}");
        let moved = self.lab.events(Place::Client, self.since)?;
        if let Some(event) = moved.iter().find(|event| event.kind == "active") {
            bail!("the client left its gateway: {}", event.text);
        }
        Ok(())
    }
}

impl Outcome {
    /// The client's goodput in the storm, as a share of what it has while the yardstick drops it: the
    /// median of the pairs, since a machine that has other work spoils one or the other.
    pub(crate) fn share(&self) -> f64 {
        let pairs = self.live.iter().zip(&self.dropped);
        median(
            &pairs
                .map(|(live, dropped)| live / dropped.max(1.0))
                .collect::<Vec<_>>(),
        )
    }

    /// An error if the frames did not reach what they were meant for.
    pub(crate) fn check(&self) -> Result<()> {
        let (kind, counted) = (self.kind.text(), self.counted);
        ensure!(
            counted > COUNTED,
            "{kind}: the gateway has counted only {counted:.2} of what was sent"
        );
        ensure!(
            self.live
                .iter()
                .chain(&self.dropped)
                .all(|bits| *bits > 0.0),
            "{kind}: the stream stood still: {self:?}"
        );
        Ok(())
    }
}

/// Lets so much time pass; yields its beginning and its end.
fn slice(time: Duration) -> (u64, u64) {
    let from = now_ns();
    std::thread::sleep(time);
    (from, now_ns())
}

/// A running sender.
struct Sender {
    process: Process,
    sent: Arc<Mutex<Vec<Sample>>>,
    reader: JoinHandle<()>,
    /// Its stdin: it ends with it.
    _alive: std::process::ChildStdin,
}

impl Sender {
    fn start(lab: &Lab, kind: Kind, rate: u64, secret: &str, number: u32) -> Result<Self> {
        let status = lab.status(GATEWAY)?;
        let session = status
            .sessions
            .iter()
            .find(|s| s.outside.starts_with(CLIENT_OUTSIDE));
        let session = session.context("gw1 has no session with the client")?;
        let spi = |text: &str| -> Result<String> {
            Ok(u32::from_str_radix(text.trim_start_matches("0x"), 16)?.to_string())
        };
        let value = kind.to_possible_value().context("no name")?;
        let gateway = gateway_outside(NUMBER).to_string();
        let (spi_in, spi_out) = (spi(&session.spi_in)?, spi(&session.spi_out)?);
        let (rate, number) = (rate.to_string(), number.to_string());
        let words = [
            "storm",
            value.get_name(),
            "--on",
            "gw1",
            "--mac",
            MAC,
            "--gateway",
            &gateway,
            "--client",
            CLIENT_OUTSIDE,
            "--spi-in",
            &spi_in,
            "--spi-out",
            &spi_out,
            "--rate",
            &rate,
            "--after",
            &number,
        ];
        let mut process = lab.helper(Place::Wan, &words)?;
        let mut alive = process.stdin().context("the sender has no stdin")?;
        writeln!(alive, "{secret}")?;
        let output = wait_ready(&mut process)?;
        let sent = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&sent);
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let mut words = line.split(' ').map_while(|word| word.parse().ok());
                if let (Some(at_ns), Some(bytes)) = (words.next(), words.next()) {
                    let mut sent = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    sent.push(Sample { at_ns, bytes });
                }
            }
        });
        Ok(Self {
            process,
            sent,
            reader,
            _alive: alive,
        })
    }

    /// How many frames were sent by now.
    fn frames(&self) -> u64 {
        self.sent().last().map_or(0, |sample| sample.bytes)
    }

    /// How many frames were sent by when.
    fn sent(&self) -> Vec<Sample> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.clone()
    }

    fn finish(self) -> Result<()> {
        let Self {
            mut process,
            reader,
            _alive,
            ..
        } = self;
        drop(_alive);
        let status = process.wait(Duration::from_secs(5))?;
        ensure!(
            status.success(),
            "the sender ended: {status} (log/helpers.log)"
        );
        let _ = reader.join();
        Ok(())
    }
}
