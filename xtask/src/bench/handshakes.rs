//! Full handshakes per second: an evergate gateway on one core, clients on another, and in the same
//! run strongSwan's charon under the same clients.

mod certificates;

use super::{Effort, keep};
use crate::interop::{self, Daemon};
use crate::lab::topology::gateway_outside;
use crate::lab::{Lab, Place};
use crate::{sh, toolchain};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

/// Addresses of the client's host: so many handshakes are on their way at the same time.
const SOURCES: u8 = 64;
/// The first of them is 198.51.100.N.
const FIRST_SOURCE: u8 = 64;
/// The cores of the clients and of the gateway.
const CLIENTS: &str = "0";
const RESPONDER: &str = "1";
const GATEWAY: Place = Place::Gateway(1);
/// What clients get.
const POOL: &str = "10.64.0.0/12";

/// What both sides prove themselves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Proven {
    Psk,
    Ecdsa,
}

impl Proven {
    const ALL: [Proven; 2] = [Proven::Psk, Proven::Ecdsa];

    fn name(self) -> &'static str {
        match self {
            Proven::Psk => "PSK",
            Proven::Ecdsa => "ECDSA P-256 both ways",
        }
    }
}

/// Who responds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Responder {
    Evergate,
    Charon,
}

impl Responder {
    const ALL: [Responder; 2] = [Responder::Evergate, Responder::Charon];
}

/// What `evergate bench handshakes --json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    established: usize,
    failed: usize,
    failure: Option<String>,
    seconds: f64,
    per_second: f64,
    median_ms: f64,
    p99_ms: f64,
    worst_ms: f64,
    sent_each: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    responder: Responder,
    proven: Proven,
    #[serde(flatten)]
    report: Report,
    /// Handshakes for each second of processor time that the responder used.
    per_cpu_second: f64,
    /// Resident memory that each session added, kilobytes.
    kilobytes_each: f64,
}

pub(super) fn run(effort: Effort<'_>) -> Result<()> {
    toolchain::packages(interop::PACKAGES)?;
    // With more sessions charon takes minutes.
    let count = if effort.quick { 2_000 } else { 4_000 };
    println!(
        "  {count} handshakes of as many clients, x25519, AES-256-GCM, with a child SA and an inner \
         address;\n  {SOURCES} at a time; the responder on one core"
    );
    println!(
        "  {:<10} {:<22} {:>10} {:>14} {:>9} {:>9} {:>14}",
        "responder", "proven by", "a second", "a CPU second", "median", "99 %", "memory each"
    );
    let mut rows = Vec::new();
    for proven in Proven::ALL {
        for responder in Responder::ALL {
            let row = measure(effort.lab()?, responder, proven, count)?;
            let Report {
                per_second,
                median_ms,
                p99_ms,
                failed,
                ..
            } = row.report;
            println!(
                "  {:<10} {:<22} {per_second:>10.0} {:>14.0} {median_ms:>6.1} ms {p99_ms:>6.1} ms \
                 {:>11.1} kB{}",
                format!("{responder:?}").to_lowercase(),
                proven.name(),
                row.per_cpu_second,
                row.kilobytes_each,
                match &row.report.failure {
                    Some(why) => format!("   {failed} failed: {why}"),
                    None => String::new(),
                }
            );
            rows.push(row);
        }
    }
    keep("handshakes", &rows)
}

fn measure(mut lab: Lab, responder: Responder, proven: Proven, count: usize) -> Result<Row> {
    let sources: Vec<String> = (0..SOURCES)
        .map(|n| format!("198.51.100.{}", FIRST_SOURCE + n))
        .collect();
    let mut batch = String::new();
    for source in &sources {
        let _ = writeln!(batch, "addr add {source}/32 dev out0");
    }
    let ns = lab.ns(Place::Client);
    sh::feed(Command::new("ip").args(["-n", &ns, "-batch", "-"]), &batch)?;
    if proven == Proven::Ecdsa {
        certificates::write(lab.dir(), count)?;
    }
    let psk = std::fs::read_to_string(lab.dir().join("gw1.psk"))?;
    // Whoever is started here ends with this value.
    let mut daemon = None;
    let pid = match responder {
        Responder::Evergate => {
            let config = ours(&lab, proven, count)?;
            std::fs::write(lab.dir().join("gw1.toml"), config)?;
            lab.start_gateway(1)?;
            lab.pid(GATEWAY)?
        }
        Responder::Charon => {
            let conf = theirs(&lab, proven, psk.trim());
            let started = Daemon::start(&lab, GATEWAY, &conf, proven == Proven::Ecdsa)?;
            daemon.insert(started).pid()
        }
    };
    let all = pid.to_string();
    sh::read(Command::new("taskset").args(["-a", "-c", "-p", RESPONDER, &all]))?;
    let (cpu, memory) = (cpu_seconds(pid)?, resident_kilobytes(pid)?);
    let report = clients(&lab, proven, &sources, count)?;
    let (cpu, memory) = (cpu_seconds(pid)? - cpu, resident_kilobytes(pid)? - memory);
    let made = report.established as f64;
    if report.established == 0 {
        let log = lab.log_tail(GATEWAY);
        bail!("no handshake was successful: {:?}\n{log}", report.failure);
    }
    Ok(Row {
        responder,
        proven,
        per_cpu_second: made / cpu,
        kilobytes_each: memory / made,
        report,
    })
}

/// The clients of all addresses, on their own core.
fn clients(lab: &Lab, proven: Proven, sources: &[String], count: usize) -> Result<Report> {
    let binary = lab.binary()?;
    let (binary, file) = (binary.to_string_lossy(), |name: &str| {
        lab.dir().join(name).to_string_lossy().into_owned()
    });
    let (remote, count) = (gateway_outside(1).to_string(), count.to_string());
    let sources = sources.join(",");
    let mut words = vec!["taskset", "-c", CLIENTS, &binary, "bench", "handshakes"];
    words.extend(["--remote", &remote, "--remote-id", "gw1.example"]);
    words.extend(["--local", &sources, "--count", &count, "--leave", "--json"]);
    let (psk, own, ca) = (file("gw1.psk"), file("clients.pem"), file("ca.pem"));
    match proven {
        Proven::Psk => words.extend(["--psk-file", &psk]),
        Proven::Ecdsa => words.extend(["--credentials", &own, "--ca", &ca]),
    }
    let output = lab.try_exec(Place::Client, &words)?;
    // It fails if a handshake did, and says so in its report.
    serde_json::from_slice(&output.stdout).with_context(|| sh::said(&output))
}

/// The file of our gateway.
fn ours(lab: &Lab, proven: Proven, count: usize) -> Result<String> {
    let usual = std::fs::read_to_string(lab.dir().join("gw1.toml"))?;
    let (before, _) = usual
        .split_once("[pool]")
        .context("no [pool] in gw1.toml")?;
    let local = match proven {
        Proven::Psk => "",
        Proven::Ecdsa => "[local]\ncert = \"gw1.pem\"\nkey = \"gw1.key\"\nca = [\"ca.pem\"]\n",
    };
    let mut text = format!("{before}[pool]\nnetworks = [\"{POOL}\"]\n\n{local}");
    let proof = match proven {
        Proven::Psk => "psk_file = \"gw1.psk\"",
        Proven::Ecdsa => "auth = \"cert\"",
    };
    for number in 1..=count {
        let _ = write!(
            text,
            "\n[[peer]]\nidentity = \"client-{number}.example\"\n{proof}\n"
        );
    }
    Ok(text)
}

/// `swanctl.conf` of charon as gateway.
fn theirs(lab: &Lab, proven: Proven, psk: &str) -> String {
    let file = |name: &str| lab.dir().join(name).display().to_string();
    let (auth, gateway, client, secrets) = match proven {
        Proven::Psk => (
            "psk",
            String::new(),
            String::new(),
            format!("secrets {{\n  ike-1 {{\n    secret = \"{psk}\"\n  }}\n}}\n"),
        ),
        Proven::Ecdsa => (
            "pubkey",
            format!("      certs = {}\n", file("gw1.pem")),
            format!("      cacerts = {}\n", file("ca.pem")),
            String::new(),
        ),
    };
    format!(
        "connections {{
  clients {{
    version = 2
    proposals = aes256gcm16-prfsha256-x25519
    local_addrs = {}
    remote_addrs = %any
    pools = clients
    unique = never
    rekey_time = 0
    local {{
      auth = {auth}
      id = gw1.example
{gateway}    }}
    remote {{
      auth = {auth}
      id = %any
{client}    }}
    children {{
      clients {{
        esp_proposals = aes256gcm16
        rekey_time = 0
        local_ts = 10.0.0.0/24
      }}
    }}
  }}
}}
{secrets}pools {{
  clients {{
    addrs = {POOL}
  }}
}}
",
        gateway_outside(1)
    )
}

/// Processor time that a process has used, with all its threads.
fn cpu_seconds(pid: i32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may have spaces.
    let (_, fields) = stat.rsplit_once(')').context("a strange /proc/PID/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
    // USER_HZ is 100 on every architecture that we run on.
    Ok(ticks / 100.0)
}

fn resident_kilobytes(pid: i32) -> Result<f64> {
    // What was just freed or is still in flight comes to rest.
    std::thread::sleep(Duration::from_millis(300));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kilobytes.context("no VmRSS in /proc/PID/status")
}
