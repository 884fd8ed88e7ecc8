//! Recordings of what is on the wire, and what an independent dissector makes of them: tshark, with
//! the keys that a node has written (`evergate run --keylog`).

use crate::lab::{Lab, Place, Process};
use crate::paths;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Debian's package; `dumpcap` comes along.
pub(crate) const PACKAGES: &[&str] = &["tshark"];

/// Expert information from "warning" on (`PI_WARN` of Wireshark).
const WARNING: u32 = 0x60_0000;

/// A recording under way, on the router: a node's own packets pass no tap, since they go over
/// AF_XDP.
pub(crate) struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Everything between the client and the router.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let file = lab.logs().join("capture.pcapng");
        let _ = std::fs::remove_file(&file);
        let name = file.to_string_lossy();
        let log = lab.log("dumpcap");
        // Its buffer must not hold back what it has when it ends.
        let words = ["dumpcap", "-q", "-i", "client", "-w", &name];
        let process = lab.spawn(Place::Wan, "dumpcap", &words)?;
        lab.wait("dumpcap records", Duration::from_secs(10), |_| {
            let said = std::fs::read_to_string(&log)?;
            Ok(said.contains("File: ").then_some(()))
        })?;
        Ok(Self { process, file })
    }

    /// Ends it. `keys`: whose keys it is read with; `name`: of the folder that it is kept in.
    pub(crate) fn finish(mut self, lab: &Lab, keys: Place, name: &str) -> Result<Recording> {
        // What the last packets need to get through the kernel's buffer.
        std::thread::sleep(Duration::from_millis(500));
        self.process.signal(Signal::SIGINT)?;
        let status = self.process.wait(Duration::from_secs(10))?;
        ensure!(status.success(), "dumpcap: {status}");
        // Kept for whoever wants to look, and for the corpus of the fuzz targets.
        let kept = recordings().join(name);
        let _ = std::fs::remove_dir_all(&kept);
        std::fs::create_dir_all(&kept)?;
        let file = kept.join("capture.pcapng");
        std::fs::copy(&self.file, &file)?;
        std::fs::copy(lab.dir().join("policy.conf"), kept.join("policy.conf"))?;
        for table in std::fs::read_dir(lab.keys(keys))? {
            let table = table?;
            std::fs::copy(table.path(), kept.join(table.file_name()))?;
        }
        Ok(Recording {
            file,
            keys: lab.keys(keys),
        })
    }
}

/// Where recordings are kept with their keys: those of the lab, which open nothing else.
pub(crate) fn recordings() -> PathBuf {
    paths::target().join("recordings")
}

/// A recording, and the keys to read it with.
pub(crate) struct Recording {
    file: PathBuf,
    keys: PathBuf,
}

impl Recording {
    /// What tshark says of each packet that `filter` lets through: the values of each field, which
    /// may be several.
    pub(crate) fn read(&self, filter: &str, fields: &[&str]) -> Result<Vec<Vec<Vec<String>>>> {
        let mut command = Command::new("tshark");
        // A folder of preferences with nothing in it but the keys.
        command
            .env("WIRESHARK_CONFIG_DIR", &self.keys)
            .arg("-r")
            .arg(&self.file)
            .args(["-n", "-o", "esp.enable_encryption_decode:TRUE"])
            .args(["-o", "esp.enable_authentication_check:TRUE"])
            // It would take all heartbeats for one SA, and what an ICMP error quotes for a packet.
            .args(["-o", "esp.do_esp_sequence_analysis:FALSE"])
            .args(["-Y", filter, "-T", "fields", "-E", "aggregator=|"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let output = command.output().context("can not start tshark")?;
        let said = String::from_utf8_lossy(&output.stderr);
        // A table that it does not understand is left out, and the status is success all the same.
        let odd = said.lines().find(|line| !line.contains("Running as user"));
        if let Some(odd) = odd.filter(|line| !line.trim().is_empty()) {
            bail!("tshark says: {odd}");
        }
        ensure!(output.status.success(), "tshark: {}", output.status);
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().map(cells).collect())
    }

    /// The IKE messages, those in parts once: when their last part is there.
    pub(crate) fn messages(&self) -> Result<Vec<Message>> {
        let fields = [
            "frame.number",
            "isakmp.exchangetype",
            "isakmp.flag_r",
            "isakmp.frag.number",
            "isakmp.frag.total",
            "isakmp.typepayload",
            "isakmp.enc.decrypted",
        ];
        let rows = self.read("isakmp.exchangetype", &fields)?;
        rows.iter()
            .filter_map(|row| Message::of(row).transpose())
            .collect()
    }

    /// What is inside the ESP packets, all of which must be authentic. Heartbeats aside: they are
    /// ESP by their header alone.
    pub(crate) fn echoes(&self) -> Result<Echoes> {
        let fields = [
            "frame.number",
            "esp.spi",
            "esp.icv_good",
            "esp.decrypted_data",
            "icmp.type",
        ];
        let rows = self.read("esp && esp.spi != 0xffffffff", &fields)?;
        let mut spis = HashSet::new();
        let (mut requests, mut answers) = (0, 0);
        for row in &rows {
            let [_, spi, good, inside, icmp] = &row[..] else {
                bail!("tshark answers {row:?}");
            };
            ensure!(*good == ["1"], "an ESP packet could not be opened: {row:?}");
            spis.extend(spi.iter().cloned());
            // The last byte inside is the next header: IPv4 (4), or none (59), which tshark has no
            // name for.
            let next = inside
                .first()
                .map_or("", |inside| &inside[inside.len().max(2) - 2..]);
            match (next, icmp.first().map(String::as_str)) {
                ("04", Some("8")) => requests += 1,
                ("04", Some("0")) => answers += 1,
                ("3b", None) => {}
                _ => bail!("neither an echo nor a dummy packet: {row:?}"),
            }
        }
        Ok(Echoes {
            requests,
            answers,
            spis: spis.len(),
        })
    }

    /// Nothing in it is malformed, and nothing is worth a warning.
    pub(crate) fn must_be_sound(&self) -> Result<()> {
        let filter = format!("_ws.malformed || _ws.expert.severity >= {WARNING}");
        let fields = ["frame.number", "_ws.col.Info", "_ws.expert.message"];
        let odd = self.read(&filter, &fields)?;
        ensure!(odd.is_empty(), "tshark finds fault with {odd:?}");
        Ok(())
    }
}

/// The values of each field of one line.
fn cells(line: &str) -> Vec<Vec<String>> {
    line.split('\t')
        .map(|cell| match cell {
            "" => Vec::new(),
            values => values.split('|').map(str::to_owned).collect(),
        })
        .collect()
}

/// How many of what was in ESP packets.
#[derive(Debug)]
pub(crate) struct Echoes {
    pub(crate) requests: u64,
    pub(crate) answers: u64,
    /// Of how many SAs.
    pub(crate) spis: usize,
}

/// An IKE message as tshark has read it.
#[derive(Debug)]
pub(crate) struct Message {
    /// Number of its last packet.
    _frame: u64,
    pub(crate) exchange: String,
    pub(crate) response: bool,
    /// How many it was cut into.
    pub(crate) parts: u32,
    pub(crate) payloads: Vec<&'static str>,
    decrypted: bool,
}

/// Payload types and names of RFC 7296 section 3.2 and RFC 7383, and Proposal and Transform
/// Substructures, which tshark counts among them.
const PAYLOADS: &[(&str, &str)] = &[
    ("33", "SA"),
    ("34", "KE"),
    ("35", "IDi"),
    ("36", "IDr"),
    ("37", "CERT"),
    ("38", "CERTREQ"),
    ("39", "AUTH"),
    ("40", "NONCE"),
    ("41", "N"),
    ("42", "D"),
    ("43", "V"),
    ("44", "TSi"),
    ("45", "TSr"),
    ("46", "SK"),
    ("47", "CP"),
    ("48", "EAP"),
    ("53", "SKF"),
];

const EXCHANGES: &[(&str, &str)] = &[
    ("34", "IKE_SA_INIT"),
    ("35", "IKE_AUTH"),
    ("36", "CREATE_CHILD_SA"),
    ("37", "INFORMATIONAL"),
    ("43", "IKE_INTERMEDIATE"),
];

impl Message {
    /// From a row; `None` of a part that others follow.
    fn of(row: &[Vec<String>]) -> Result<Option<Self>> {
        let [
            frame,
            exchange,
            response,
            number,
            total,
            payloads,
            decrypted,
        ] = row
        else {
            bail!("tshark answers {row:?}");
        };
        let first = |cell: &[String]| cell.first().cloned().unwrap_or_default();
        if number != total {
            return Ok(None);
        }
        let name = |list: &[(&'static str, &'static str)], number: &str| {
            let found = list.iter().find(|(at, _)| *at == number);
            found.map(|(_, name)| *name)
        };
        let exchange = first(exchange);
        Ok(Some(Self {
            _frame: first(frame).parse()?,
            exchange: name(EXCHANGES, &exchange).unwrap_or(&exchange).to_owned(),
            response: first(response) == "1",
            parts: first(total).parse().unwrap_or(1),
            decrypted: !decrypted.is_empty(),
            payloads: payloads.iter().filter_map(|p| name(PAYLOADS, p)).collect(),
        }))
    }

    /// It was in the clear, or could be decrypted.
    pub(crate) fn is_read(&self) -> bool {
        self.exchange == "IKE_SA_INIT" || self.decrypted
    }

    pub(crate) fn has(&self, payload: &str) -> bool {
        self.payloads.contains(&payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &str) -> Vec<Vec<String>> {
        cells(line)
    }

    #[test]
    fn rows_become_messages() {
        let whole = row("9\t35\t0\t\t\t46|35|39|33|2|3|44\t1");
        let message = Message::of(&whole).unwrap().unwrap();
        assert_eq!(message.exchange, "IKE_AUTH");
        assert!(!message.response && message.is_read() && message.parts == 1);
        assert_eq!(message.payloads, ["SK", "IDi", "AUTH", "SA", "TSi"]);
        let unread = Message::of(&row("9\t37\t1\t\t\t46\t")).unwrap().unwrap();
        assert!(unread.response && !unread.is_read());
        let part = row("9\t35\t0\t1\t3\t53\t1");
        assert!(Message::of(&part).unwrap().is_none());
        let last = row("11\t35\t0\t3\t3\t53|35\t1");
        assert_eq!(Message::of(&last).unwrap().unwrap().parts, 3);
        assert!(Message::of(&row("9\t35")).is_err());
    }
}
