//! A strongSwan daemon in a namespace of the lab.

use crate::lab::{Lab, Place, Process};
use crate::paths;
use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the connection and of its child.
pub(super) const CHILD: &str = "evergate";
/// The TUN device that it makes.
const TUN: &str = "ipsec0";
/// What it logs, in the lab's folder of logs.
pub(super) const LOG: &str = "charon";
/// Where the daemon listens for `swanctl`, in its namespace.
const VICI: &str = "tcp://127.0.0.1:4502";
/// Where distributions put the daemon.
const DAEMONS: &[&str] = &[
    "/usr/lib/ipsec/charon",
    "/usr/libexec/ipsec/charon",
    "/usr/lib/strongswan/charon",
];
/// Words of its log that say that something of ours was not as it should be.
const COMPLAINTS: &[&str] = &[
    "invalid",
    "malformed",
    "could not be parsed",
    "integrity check failed",
    "unsupported",
    "unable to",
    "retransmit",
    "ignoring",
];

/// What charon's userspace ESP says of a dummy packet, by which our client announces itself. RFC 4303
/// section 2.6 wants it dropped in silence; the kernel's ESP does so.
const ABOUT_DUMMIES: &[&str] = &[
    "unsupported IP version",
    "parsing ESP payload failed: unsupported payload",
];

/// What it says when it was not ready for our answer to its first request.
const TOO_FAST: &str = "retransmit 1 of request with message ID 0";

/// A running daemon.
pub(super) struct Charon(Daemon);

/// One with other settings, for those who only need it to be there.
pub(crate) struct Daemon {
    place: Place,
    process: Process,
}

/// The SPIs that it has, as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spis {
    pub(super) ike: String,
    pub(super) child: String,
}

impl Charon {
    /// Starts it in the namespace of `place` and gives it a `swanctl.conf`, and the certificates of
    /// `place` if it is to have any.
    pub(super) fn start(
        lab: &Lab,
        place: Place,
        swanctl_conf: &str,
        certificates: bool,
    ) -> Result<Charon> {
        Daemon::launch(lab, place, swanctl_conf, certificates, 1).map(Charon)
    }

    /// Gives it another `swanctl.conf`, and the certificates of its place as they are now.
    pub(super) fn load(&self, lab: &Lab, swanctl_conf: &str) -> Result<()> {
        self.0.load(lab, swanctl_conf, true)
    }

    /// Runs a command of `swanctl`; returns what it said.
    pub(super) fn swanctl(&self, lab: &Lab, words: &[&str]) -> Result<String> {
        self.0.swanctl(lab, words)
    }

    /// The SPIs of the one IKE SA and its one child SA, those aside that have been replaced.
    pub(super) fn spis(&self, lab: &Lab) -> Result<Spis> {
        let raw = self.swanctl(lab, &["--list-sas", "--raw"])?;
        // Each IKE SA and each child SA is told from its number on.
        let all = |state: &str, key: &str| -> Vec<String> {
            let listed = raw.split("uniqueid=");
            let listed = listed.filter(|sa| sa.contains(&format!(" state={state} ")));
            listed
                .filter_map(|sa| sa.split(key).nth(1)?.split([' ', '}']).next())
                .map(str::to_owned)
                .collect()
        };
        let ike = all("ESTABLISHED", " initiator-spi=");
        let child = all("INSTALLED", " spi-in=");
        match (<[String; 1]>::try_from(ike), <[String; 1]>::try_from(child)) {
            (Ok([ike]), Ok([child])) => Ok(Spis { ike, child }),
            _ => bail!("expected one IKE SA with one child SA, found {raw}"),
        }
    }

    /// The same, as soon as there is one of each: keys may be renewed at any time.
    pub(super) fn settled(&self, lab: &Lab) -> Result<Spis> {
        lab.wait(
            "charon has one IKE SA with one child SA",
            Duration::from_secs(5),
            |lab| self.spis(lab).map(Some),
        )
    }

    /// The peer must have found nothing wrong with what we said.
    pub(super) fn must_not_complain(&self, lab: &Lab) -> Result<()> {
        Self::complaint(lab, &[])
    }

    /// The same for a daemon that begins sessions under traffic, if it was seen that each request of it
    /// had an answer: charon files a new IKE SA after it has sent the first request of it, finds none
    /// for an answer that is faster than that, and sends the request again.
    pub(super) fn must_not_complain_of_losses(
        &self,
        lab: &Lab,
        answered: Result<()>,
    ) -> Result<()> {
        match answered {
            Ok(()) => Self::complaint(lab, &[TOO_FAST]),
            Err(error) => Self::complaint(lab, &[]).with_context(|| format!("{error:#}")),
        }
    }

    fn complaint(lab: &Lab, but: &[&str]) -> Result<()> {
        let log = log(lab);
        let complaint = log
            .lines()
            .filter(|line| {
                let mut known = ABOUT_DUMMIES.iter().chain(but);
                !known.any(|said| line.ends_with(said))
            })
            .find(|line| COMPLAINTS.iter().any(|word| line.contains(word)));
        match complaint {
            Some(line) => Err(anyhow!("charon complains: {line}")),
            None => Ok(()),
        }
    }
}

impl Daemon {
    /// Starts it without a log, and without limits for a host that makes many sessions.
    pub(crate) fn start(
        lab: &Lab,
        place: Place,
        swanctl_conf: &str,
        certificates: bool,
    ) -> Result<Daemon> {
        Daemon::launch(lab, place, swanctl_conf, certificates, -1)
    }

    fn launch(
        lab: &Lab,
        place: Place,
        swanctl_conf: &str,
        certificates: bool,
        level: i8,
    ) -> Result<Daemon> {
        let daemon = DAEMONS.iter().find(|path| Path::new(path).exists());
        let daemon = daemon.context("strongSwan's charon is not installed")?;
        let log = lab.log(LOG);
        let _ = std::fs::remove_file(&log);
        let settings = lab.dir().join("strongswan.conf");
        std::fs::write(&settings, strongswan_conf(&log, level))?;
        let settings = format!("STRONGSWAN_CONF={}", settings.display());
        let own = paths::own().to_string_lossy();
        let words = ["env", &settings, &own, "private-run", daemon];
        let process = lab.spawn(place, "charon-output", &words)?;
        let charon = Daemon { place, process };
        lab.wait("charon answers", Duration::from_secs(5), |lab| {
            charon.swanctl(lab, &["--stats"]).map(Some)
        })?;
        charon.load(lab, swanctl_conf, certificates)?;
        Ok(charon)
    }

    fn load(&self, lab: &Lab, swanctl_conf: &str, certificates: bool) -> Result<()> {
        let dir = credentials(lab, certificates.then_some(self.place))?;
        let conf = dir.join("swanctl.conf");
        std::fs::write(&conf, swanctl_conf)?;
        let conf = conf.to_string_lossy();
        let words = ["--load-all", "--clear", "--noprompt", "--file", &conf];
        self.swanctl(lab, &words).map(drop)
    }

    /// Runs a command of `swanctl`; returns what it said.
    fn swanctl(&self, lab: &Lab, words: &[&str]) -> Result<String> {
        // Where it looks for keys and certificates.
        let dir = format!("SWANCTL_DIR={}", lab.dir().join("swanctl").display());
        let words = [&["env", &dir, "swanctl"], words, &["--uri", VICI]].concat();
        lab.exec(self.place, &words)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The process alone, for those who want nothing more of it.
    pub(crate) fn into_process(self) -> Process {
        self.process
    }
}

/// What the daemon has logged so far.
pub(super) fn log(lab: &Lab) -> String {
    std::fs::read_to_string(lab.log(LOG)).unwrap_or_default()
}

/// Makes the folder in which `swanctl` looks for keys and certificates, with those of `place`.
fn credentials(lab: &Lab, place: Option<Place>) -> Result<PathBuf> {
    let dir = lab.dir().join("swanctl");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let files = place.map(|place| {
        [
            (format!("{place}.key"), "private"),
            (format!("{place}.pem"), "x509"),
            ("ca.pem".to_owned(), "x509ca"),
            ("ca.crl".to_owned(), "x509crl"),
        ]
    });
    for (file, folder) in files.into_iter().flatten() {
        if !lab.dir().join(&file).exists() {
            // A CRL is not needed.
            continue;
        }
        let folder = dir.join(folder);
        std::fs::create_dir(&folder)?;
        std::fs::copy(lab.dir().join(&file), folder.join(&file))?;
    }
    Ok(dir)
}

/// An explicit list of plugins, because the first that can do a thing does it: ESP in user space
/// before the kernel's, which this machine may lack.
fn strongswan_conf(log: &Path, level: i8) -> String {
    // -1 is what is only measured: it is silent, and takes whatever comes.
    let limits = match level {
        -1 => "  dos_protection = no\n  init_limit_half_open = 0\n",
        _ => "",
    };
    format!(
        "charon {{
  load_modular = no
  load = random nonce aesni openssl aes sha2 sha1 hmac kdf gcm chapoly curve25519 pem pkcs1 \
         pkcs8 x509 pubkey constraints revocation kernel-libipsec kernel-netlink socket-default \
         vici updown eap-identity eap-mschapv2 eap-tls
{limits}  install_virtual_ip_on = {TUN}
  make_before_break = yes
  plugins {{
    vici {{
      socket = {VICI}
    }}
  }}
  filelog {{
    log {{
      path = {}
      time_format = %T
      time_add_ms = yes
      flush_line = yes
      default = {level}
    }}
  }}
}}
",
        log.display()
    )
}

/// Runs a program under an empty `/run` of its own: charon keeps its process id there, and one that
/// runs elsewhere on the machine must not meet it.
pub(crate) fn private_run(words: &[String]) -> Result<()> {
    let [program, words @ ..] = words else {
        bail!("a program was expected");
    };
    // `ip netns exec` has made the mounts this process's own.
    let none: Option<&str> = None;
    mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), none)
        .context("no empty /run could be mounted")?;
    let error = std::process::Command::new(program).args(words).exec();
    Err(error).with_context(|| format!("can not start {program}"))
}
