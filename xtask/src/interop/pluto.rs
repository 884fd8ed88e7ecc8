//! A libreswan daemon in a namespace of the lab. Debian's package can not be installed beside
//! strongSwan's, so it is unpacked below the target folder. Where the kernel has no ESP, `no_esp.c`
//! plays its part: pluto gives up a child SA whose installation fails.

use crate::lab::{Lab, Place, Process};
use crate::{paths, sh, toolchain};
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Name of the connection.
pub(super) const CONNECTION: &str = "evergate";
/// What it logs, in the lab's folder of logs.
pub(super) const LOG: &str = "pluto";

/// What the unpacked package needs.
const PACKAGES: &[&str] = &[
    "libcurl3-nss",
    "libevent-pthreads-2.1-7",
    "libldns3",
    "libnss3-tools",
    "libunbound8",
];

const NO_ESP: &str = include_str!("no_esp.c");

/// Words of its log that say that something of ours was not as it should be.
const COMPLAINTS: &[&str] = &[
    "malformed",
    "invalid",
    "unexpected",
    "retransmission",
    "INVALID_SYNTAX",
    "dropping",
    "EXPECTATION FAILED",
    "failed",
    "rejected",
];

/// Pluto's part of the file system, in the mount namespace that `ip netns exec` has made: `$1` the
/// unpacked package, `$2` the folder of this daemon.
const RUN: &str = r#"
mount -t tmpfs none /run
mount -t tmpfs none /usr/libexec
mkdir /usr/libexec/ipsec
mount --bind "$1/usr/libexec/ipsec" /usr/libexec/ipsec
exec env NO_ESP_KEYS="$2/keys" LD_PRELOAD="$2/no_esp.so" /usr/libexec/ipsec/pluto --nofork --stderrlog \
  --config "$2/ipsec.conf" --ipsecdir "$2" --nssdir "$2/nss" --rundir "$2" --secretsfile "$2/ipsec.secrets" \
  --no-dnssec
"#;

/// Its database of keys and certificates: `$1` the lab's folder, `$2` this node's name or nothing.
const NSS: &str = r#"
certutil -N -d sql:nss --empty-password
if [ -n "$2" ]; then
  certutil -A -d sql:nss -n ca -t CT,, -i "$1/ca.pem"
  openssl pkcs12 -export -in "$1/$2.pem" -inkey "$1/$2.key" -name own -passout pass: -out own.p12
  pk12util -i own.p12 -d sql:nss -W ""
fi
"#;

/// A running daemon.
pub(super) struct Pluto {
    place: Place,
    dir: PathBuf,
    unpacked: PathBuf,
    _process: Process,
}

impl Pluto {
    /// Starts it in the namespace of `place`, with one connection and, if there is none, with the
    /// certificate of `place`.
    pub(super) fn start(
        lab: &Lab,
        place: Place,
        connection: &str,
        psk: Option<&str>,
    ) -> Result<Pluto> {
        let unpacked = unpack()?;
        let dir = lab.dir().join("pluto");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("nss"))?;
        let secrets = psk.map_or_else(String::new, |psk| format!(": PSK \"{psk}\"\n"));
        std::fs::write(dir.join("ipsec.secrets"), secrets)?;
        std::fs::write(dir.join("ipsec.conf"), connection)?;
        let name = match psk {
            Some(_) => String::new(),
            None => place.to_string(),
        };
        let mut nss = Command::new("sh");
        nss.args(["-euc", NSS, "nss"]).arg(lab.dir()).arg(&name);
        sh::read(nss.current_dir(&dir)).context("pluto's database (libnss3-tools)")?;
        compile(&dir)?;
        let _ = std::fs::remove_file(lab.log(LOG));
        let (root, own) = (unpacked.to_string_lossy(), dir.to_string_lossy());
        let words = ["sh", "-euc", RUN, "pluto", &root, &own];
        let process = lab.spawn(place, LOG, &words)?;
        let pluto = Pluto {
            place,
            dir: dir.clone(),
            unpacked: unpacked.clone(),
            _process: process,
        };
        lab.wait("pluto answers", Duration::from_secs(10), |lab| {
            pluto.whack(lab, &["--listen"]).map(Some)
        })?;
        let (config, socket) = (dir.join("ipsec.conf"), pluto.socket());
        let (config, socket) = (config.to_string_lossy(), socket.to_string_lossy());
        let program = pluto.program("addconn");
        let words = [
            &*program,
            "--config",
            &config,
            "--ctlsocket",
            &socket,
            CONNECTION,
        ];
        lab.exec(place, &words)?;
        Ok(pluto)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("pluto.ctl")
    }

    fn program(&self, name: &str) -> String {
        let path = self.unpacked.join("usr/libexec/ipsec").join(name);
        path.to_string_lossy().into_owned()
    }

    /// Runs a command of `whack`; returns what it said. Its status is not that of a success where
    /// it only tells of progress.
    pub(super) fn whack(&self, lab: &Lab, words: &[&str]) -> Result<String> {
        let (program, socket) = (self.program("whack"), self.socket());
        let socket = socket.to_string_lossy();
        let words = [&["timeout", "10", &program, "--ctlsocket", &socket], words].concat();
        let output = lab.try_exec(self.place, &words)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(!error.contains("not running"), "pluto: {error}");
        Ok(said)
    }

    /// What it has been given to install: key with salt, by SPI; both as in Wireshark's `esp_sa`.
    pub(super) fn keys(&self) -> Result<HashMap<String, String>> {
        let text = std::fs::read_to_string(self.dir.join("keys")).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split(' ');
            let (spi, _cipher, key) = (words.next()?, words.next()?, words.next()?);
            Some((spi.to_owned(), key.to_owned()))
        };
        text.lines()
            .map(|text| line(text).with_context(|| format!("no SA: {text}")))
            .collect()
    }

    /// How many IKE SAs and child SAs it has.
    pub(super) fn states(&self, lab: &Lab) -> Result<(usize, usize)> {
        let list = self.whack(lab, &["--showstates"])?;
        let count = |state: &str| list.matches(state).count();
        Ok((
            count("(established IKE SA)"),
            count("(established Child SA)"),
        ))
    }

    /// The peer must have found nothing wrong with what we said.
    pub(super) fn must_not_complain(lab: &Lab) -> Result<()> {
        let log = std::fs::read_to_string(lab.log(LOG))?;
        // Everything before is about itself.
        let log = log
            .split("listening for IKE messages")
            .last()
            .unwrap_or_default();
        let complaint = log
            .lines()
            .find(|line| COMPLAINTS.iter().any(|word| line.contains(word)));
        match complaint {
            Some(line) => Err(anyhow::anyhow!("pluto complains: {line}")),
            None => Ok(()),
        }
    }
}

/// The package, unpacked once.
fn unpack() -> Result<PathBuf> {
    let dir = paths::target().join("libreswan");
    let root = dir.join("root");
    toolchain::packages(PACKAGES)?;
    if !root.join("usr/libexec/ipsec/pluto").exists() {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let script = "apt-get -qq download libreswan || { apt-get -qq update; apt-get -qq download libreswan; }\n\
                      dpkg -x libreswan_*.deb root.new\nmv root.new root\n";
        let mut command = Command::new("sh");
        command.args(["-euc", script]).current_dir(&dir);
        sh::read(&mut command).context("Debian's package libreswan could not be unpacked")?;
    }
    Ok(root)
}

fn compile(dir: &Path) -> Result<()> {
    let source = dir.join("no_esp.c");
    std::fs::write(&source, NO_ESP)?;
    let mut command = Command::new("cc");
    command
        .args([
            "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o",
        ])
        .arg(dir.join("no_esp.so"))
        .arg(&source);
    sh::read(&mut command)
        .map(drop)
        .context("a C compiler is needed")
}
