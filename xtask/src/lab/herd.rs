//! Many clients of edges that share an address: one process that has all their sessions and traffic, and the
//! echo service that they speak to.

use super::sharing::{SHARED, Sharing};
use super::topology::TARGETS;
use super::{Lab, Place, Process};
use crate::probe::{now_ns, wait_ready};
use crate::sh;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::process::{ChildStdin, ChildStdout, Command};
use std::time::Duration;

/// The outside address of the first client (RFC 2544).
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 0);
const NETWORK: &str = "198.18.0.0/16";
/// Their inner addresses.
const INNER: &str = "10.64.0.0/16";
/// Where the echo service is: the port of test packets.
const PORT: u16 = 9;
/// Neighbours that the target's kernel, which shares its table with all namespaces, must have room for.
const NEIGHBOURS: [(&str, u32); 2] = [("gc_thresh2", 8192), ("gc_thresh3", 16_384)];

/// The settings of edges and an authority that know so many clients.
pub(crate) fn sharing(clients: u16, sharing: Sharing) -> Sharing {
    let mut peers = String::new();
    for number in 1..=clients {
        let _ = write!(
            peers,
            "[[peer]]\nidentity = \"client-{number}.example\"\npsk_file = \"gw1-held.psk\"\n\n"
        );
    }
    Sharing {
        pool: INNER,
        authority_extra: peers + &sharing.authority_extra,
        ..sharing
    }
}

/// What `evergate bench clients` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Up { seconds: f64 },
    Report(Fared),
}

/// How the clients fared.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Fared {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) repeated: u64,
    pub(crate) refused: u64,
    pub(crate) unsent: u64,
    pub(crate) ike: u64,
    pub(crate) outages_ms: Vec<Option<f64>>,
    pub(crate) gaps_ms: Vec<f64>,
}

/// What the echo service has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echoed {
    pub(crate) requests: u64,
    /// Requests that came twice: an edge has accepted a packet a second time.
    pub(crate) twice: u64,
}

/// Clients that run.
#[derive(Debug)]
pub(crate) struct Herd {
    words: ChildStdin,
    said: BufReader<ChildStdout>,
    /// Seconds in which all sessions were made.
    pub(crate) made_s: f64,
    _process: Process,
    echo: Process,
    echoed: BufReader<ChildStdout>,
    _room: Room,
}

impl Herd {
    /// Starts clients of edges that run with [`sharing`]. `rate`: requests of each in a second; one of `repeat`
    /// packets is sent a second time.
    pub(crate) fn start(lab: &Lab, clients: u16, rate: u32, repeat: u32) -> Result<Self> {
        let room = Room::make()?;
        let mut batch = String::new();
        for number in 0..u32::from(clients) {
            let address = Ipv4Addr::from(FIRST.to_bits() + number);
            let _ = writeln!(batch, "addr add {address}/32 dev out0");
        }
        let ns = lab.ns(Place::Client);
        sh::feed(Command::new("ip").args(["-n", &ns, "-batch", "-"]), &batch)?;
        let back = ["ip", "route", "replace", NETWORK, "via", "198.51.100.2"];
        lab.exec(Place::Wan, &back)?;
        let on_link = ["ip", "route", "replace", INNER, "dev", "eth0"];
        lab.exec(Place::Target, &on_link)?;
        let to = TARGETS[1];
        let mut echo = lab.urgent_helper(Place::Target, &["herd-echo", &format!("{to}:{PORT}")])?;
        let echoed = wait_ready(&mut echo)?;
        let binary = lab.binary()?;
        let psk = lab.dir().join("gw1.psk");
        let (binary, psk) = (binary.to_string_lossy(), psk.to_string_lossy());
        let (first, clients) = (FIRST.to_string(), clients.to_string());
        let (rate, repeat) = (rate.to_string(), repeat.to_string());
        // What measures time must not wait for a processor.
        let mut words = vec!["nice", "-n", "-20", &binary, "bench", "clients"];
        words.extend(["--remote", SHARED, "--remote-id", "gw1.example"]);
        words.extend(["--local", &first, "--count", &clients, "--psk-file", &psk]);
        words.extend(["--to", to, "--rate", &rate, "--repeat", &repeat]);
        let mut process = lab.spawn_piped(Place::Client, &words)?;
        let (words, said) = (process.stdin(), process.stdout());
        let mut herd = Self {
            words: words.context("the clients have no stdin")?,
            said: BufReader::new(said.context("the clients have no stdout")?),
            made_s: 0.0,
            _process: process,
            echo,
            echoed,
            _room: room,
        };
        match herd.hear()? {
            Said::Up { seconds } => herd.made_s = seconds,
            said => bail!("the clients said {said:?} first"),
        }
        Ok(herd)
    }

    fn hear(&mut self) -> Result<Said> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| {
            let some: String = line.chars().take(80).collect();
            format!("the clients said {some:?} (see log/helpers.log)")
        })
    }

    /// What comes from now on is remembered, for [`Herd::report`].
    pub(crate) fn arm(&mut self) -> Result<()> {
        self.words.write_all(b"arm\n")?;
        // Until it is read.
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }

    /// How the clients have fared since an event.
    pub(crate) fn report(&mut self, since_ns: u64) -> Result<Fared> {
        writeln!(self.words, "report {since_ns}")?;
        match self.hear()? {
            Said::Report(fared) => Ok(fared),
            said @ Said::Up { .. } => bail!("the clients said {said:?}"),
        }
    }

    /// The same for whatever was lost until now: when there has been time for late answers.
    pub(crate) fn settled(&mut self) -> Result<Fared> {
        std::thread::sleep(Duration::from_millis(500));
        self.report(now_ns())
    }

    /// Ends them; yields what the echo service has seen.
    pub(crate) fn finish(mut self) -> Result<Echoed> {
        drop(self.words);
        drop(self.echo.stdin());
        let mut text = String::new();
        self.echoed.read_to_string(&mut text)?;
        let mut numbers = text.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(requests)), Some(Ok(twice))) => Ok(Echoed { requests, twice }),
            _ => bail!("the echo service said {text:?}"),
        }
    }
}

/// Room for neighbours, as long as this value is there. The kernel has one table for all namespaces.
#[derive(Debug)]
struct Room(Vec<(String, String)>);

impl Room {
    fn make() -> Result<Self> {
        let mut room = Self(Vec::new());
        // The higher bound first: the kernel does not mind, but who reads them meanwhile may.
        for (name, least) in NEIGHBOURS.into_iter().rev() {
            let path = format!("/proc/sys/net/ipv4/neigh/default/{name}");
            let before = std::fs::read_to_string(&path)?;
            if before.trim().parse::<u32>()? < least {
                std::fs::write(&path, least.to_string())
                    .with_context(|| format!("can not write {path}"))?;
                room.0.push((path, before));
            }
        }
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for (path, before) in self.0.iter().rev() {
            let _ = std::fs::write(path, before.trim());
        }
    }
}

/// `ip` in the router's namespace, ready for a line: what it does then takes no time of a process's start.
#[derive(Debug)]
pub(crate) struct Router {
    process: Process,
    lines: ChildStdin,
}

impl Router {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let mut process = lab.spawn_piped(Place::Wan, &["ip", "-batch", "-"])?;
        let lines = process.stdin().context("ip has no stdin")?;
        let mut router = Self { process, lines };
        // It is there once it has done something.
        router.lines.write_all(b"link show dev br0\n")?;
        std::thread::sleep(Duration::from_millis(50));
        Ok(router)
    }

    /// From now on the router brings what is for the shared address to this edge.
    pub(crate) fn bring_to(&mut self, number: u8) -> Result<()> {
        self.tell(&format!("route replace {SHARED}/32 via 192.0.2.{number}"))
    }

    /// Has `ip` do this.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.lines, "{line}")?;
        if let Some(status) = self.process.ended()? {
            bail!("ip in the router has ended ({status}): see log/helpers.log");
        }
        Ok(())
    }
}
