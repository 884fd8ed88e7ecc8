//! The nodes of the lab: writing their configuration, starting them, and what can happen to them.

use super::topology::{
    CLIENT_INNER, CLIENT_INNER_V6, CLIENT_OUTSIDE, CLIENT_OUTSIDE_V6, GATEWAYS, POOL, TUN,
};
use super::{Lab, NODE_USER, Place, Process, Setup, USER, User};
use crate::rootless;
use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use std::fmt::Write;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

impl Lab {
    /// Writes the configuration of every node to the lab's folder.
    pub(crate) fn configure(&mut self, setup: &Setup) -> Result<()> {
        let dir = self.dir().to_path_buf();
        self.keylog = setup.keylog;
        for place in Place::ALL {
            let _ = std::fs::remove_dir_all(self.keys(place));
        }
        if let Some(kind) = setup.certificates {
            self.make_certificates(kind)?;
        }
        if setup.user == Some(User::Password) {
            self.write_secret("user.password", &random_hex()?)?;
        }
        for number in GATEWAYS {
            let psk = random_hex()?;
            self.write_secret(&format!("gw{number}.psk"), &psk)?;
            let held = if setup.wrong_psk.contains(&number) {
                random_hex()?
            } else {
                psk
            };
            self.write_secret(&format!("gw{number}-held.psk"), &held)?;
            let text = self.gateway_toml(number, setup);
            std::fs::write(dir.join(format!("gw{number}.toml")), text)?;
        }
        std::fs::write(dir.join("policy.conf"), setup.policy())?;
        std::fs::write(dir.join("client.toml"), self.client_toml(setup))?;
        Ok(())
    }

    /// Where a node writes its keys, for a lab whose [`Setup`] wants that.
    pub(crate) fn keys(&self, place: Place) -> PathBuf {
        self.dir().join(format!("{place}.keys"))
    }

    /// Replaces the client's policy file; the node takes it up at `evergate policy reload`.
    pub(crate) fn write_policy(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.dir().join("policy.conf"), text)?)
    }

    /// Whom the daemons become. A user namespace has nobody but root.
    pub(super) fn user_line(&self) -> String {
        match rootless::inside() {
            true => String::new(),
            false => format!("user = \"{NODE_USER}\""),
        }
    }

    fn gateway_toml(&self, number: u8, setup: &Setup) -> String {
        let mut inner = format!("\"{CLIENT_INNER}\"");
        if setup.ipv6 {
            let _ = write!(inner, ", \"{CLIENT_INNER_V6}\"");
        }
        let inner = match setup.from_pool {
            true => String::new(),
            false => format!("inner = [{inner}]\n"),
        };
        let (local, proof) = match setup.certificates.is_some() {
            true => (
                Self::local_toml(Place::Gateway(number)),
                "auth = \"cert\"".to_owned(),
            ),
            false => (String::new(), format!("psk_file = \"gw{number}-held.psk\"")),
        };
        let outside = setup
            .client_outside
            .map(|at| format!("outside = \"{at}\"\n"))
            .unwrap_or_default();
        let peer = match setup.user {
            Some(User::Certificate) => {
                format!("[[eap_user]]\nname = \"client.example\"\nauth = \"cert\"\n{inner}")
            }
            Some(User::Password) => format!(
                "[[eap_user]]\nname = \"{USER}\"\npassword_file = \"user.password\"\n{inner}"
            ),
            None => {
                format!("[[peer]]\nidentity = \"client.example\"\n{proof}\n{outside}{inner}")
            }
        };
        format!(
            "\
name = \"gw{number}\"
role = \"gateway\"
identity = \"gw{number}.example\"
socket = \"{}\"
state = \"state\"

{local}
[outside]
interface = \"wan0\"
address = \"{}\"
{outside}
[inside]
interface = \"lan0\"
{xdp}
[privileges]
{user}

[heartbeat]
accept = \"{}\"
dead_man = \"50ms\"

[pool]
networks = [\"{POOL}\"]

{peer}
{}",
            self.socket(Place::Gateway(number)).display(),
            setup.gateway(number),
            setup.accept,
            setup.extra,
            outside = setup.outside(),
            xdp = setup.xdp(),
            user = self.user_line(),
        )
    }

    fn client_toml(&self, setup: &Setup) -> String {
        let local = match setup.certificates.is_some() {
            true => Self::local_toml(Place::Client),
            false => String::new(),
        };
        let mut text = format!(
            "\
name = \"client\"
role = \"client\"
identity = \"client.example\"
socket = \"{}\"
policy = \"policy.conf\"
state = \"state\"

{local}
[outside]
interface = \"out0\"
address = \"{}\"
{outside}
[inside]
interface = \"{TUN}\"

[privileges]
{user}
",
            self.socket(Place::Client).display(),
            match setup.outside_v6 {
                true => CLIENT_OUTSIDE_V6,
                false => CLIENT_OUTSIDE,
            },
            outside = setup.outside(),
            user = self.user_line(),
        );
        for number in GATEWAYS {
            let proof = match setup.certificates.is_some() {
                true => "auth = \"cert\"".to_owned(),
                false => format!("psk_file = \"gw{number}.psk\""),
            };
            let _ = write!(
                text,
                "\n[[peer]]\nidentity = \"gw{number}.example\"\n{proof}\noutside = \"{}\"\n",
                setup.gateway(number)
            );
        }
        text + &setup.extra
    }

    pub(super) fn write_secret(&self, name: &str, text: &str) -> Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.dir().join(name);
        let _ = std::fs::remove_file(&path);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(writeln!(file, "{text}")?)
    }

    /// Starts a node's daemon and waits until it answers.
    pub(crate) fn start(&mut self, place: Place) -> Result<()> {
        let process = self.launch(place)?;
        self.nodes.insert(place, process);
        let deadline = std::time::Instant::now() + Duration::from_secs(15);
        loop {
            if self.status(place).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.node(place)?.ended()? {
                self.nodes.remove(&place);
                bail!("{place} ended at once ({status}): {}", self.log_tail(place));
            }
            if std::time::Instant::now() > deadline {
                bail!(
                    "{place} does not answer on its socket: {}",
                    self.log_tail(place)
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts a daemon that is expected to refuse, and returns how it ended and what it said.
    pub(crate) fn start_refused(&mut self, place: Place) -> Result<(ExitStatus, String)> {
        let log = self.log(place);
        let _ = std::fs::remove_file(&log);
        let status = self
            .launch(place)?
            .wait(Duration::from_secs(10))
            .context("a daemon that should have refused to start")?;
        Ok((status, std::fs::read_to_string(&log)?))
    }

    /// Gives the nodes' user what its daemons read again, and the folder of their sockets. What else is in it
    /// is their peers', or their own already.
    pub(crate) fn hand_over(&self) -> Result<()> {
        let give = |path: &Path| lchown(path, Some(self.user), Some(self.user));
        for entry in std::fs::read_dir(self.dir())? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                give(&entry.path())?;
            }
        }
        give(self.dir()).context("can not give the lab's folder to the nodes' user")
    }

    fn launch(&self, place: Place) -> Result<Process> {
        self.hand_over()?;
        let binary = self.binary()?;
        let config = self.dir().join(format!("{place}.toml"));
        let (binary, config) = (binary.to_string_lossy(), config.to_string_lossy());
        let keys = self.keys(place);
        let keys = keys.to_string_lossy();
        let run_by = self.run_by.get(&place).into_iter().flatten();
        let mut words: Vec<&str> = run_by.map(String::as_str).collect();
        words.extend([&*binary, "run", "-c", &config]);
        if self.keylog {
            words.extend(["--keylog", &keys]);
        }
        Process::start(&self.ns(place), &words, &self.log(place))
    }

    pub(crate) fn start_gateway(&mut self, number: u8) -> Result<()> {
        self.start(Place::Gateway(number))
    }

    /// Every gateway, then the client.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        for number in GATEWAYS {
            self.start_gateway(number)?;
        }
        self.start(Place::Client)
    }

    /// SIGKILL: the daemon has no chance to say good-bye.
    pub(crate) fn kill(&mut self, place: Place) -> Result<()> {
        self.kill_and(place, |_| Ok(()))
    }

    /// The same, and something else while its process falls apart.
    pub(crate) fn kill_and(
        &mut self,
        place: Place,
        meanwhile: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let mut process = self
            .nodes
            .remove(&place)
            .ok_or_else(|| anyhow!("{place} is not up"))?;
        process.signal(Signal::SIGKILL)?;
        meanwhile(self)?;
        process.wait(Duration::from_secs(20)).map(drop)
    }

    /// SIGTERM: the daemon tidies up; returns how it ended.
    pub(crate) fn stop(&mut self, place: Place) -> Result<ExitStatus> {
        let mut process = self
            .nodes
            .remove(&place)
            .ok_or_else(|| anyhow!("{place} is not up"))?;
        process.signal(Signal::SIGTERM)?;
        process.wait(Duration::from_secs(10))
    }

    /// SIGHUP: the node reads again what may change while it runs.
    pub(crate) fn hang_up(&mut self, place: Place) -> Result<()> {
        self.hand_over()?;
        self.node(place)?.signal(Signal::SIGHUP)
    }

    /// SIGSTOP: the process is there, and does nothing.
    pub(crate) fn freeze(&mut self, place: Place) -> Result<()> {
        self.node(place)?.signal(Signal::SIGSTOP)
    }

    pub(crate) fn thaw(&mut self, place: Place) -> Result<()> {
        self.node(place)?.signal(Signal::SIGCONT)
    }

    /// Pulls the cable between a gateway and the LAN switch.
    pub(crate) fn pull_lan(&self, number: u8) -> Result<()> {
        self.link(Place::Lan, number, "down")
    }

    pub(crate) fn restore_lan(&self, number: u8) -> Result<()> {
        self.link(Place::Lan, number, "up")
    }

    /// Pulls the cable between a gateway and the untrusted network.
    pub(crate) fn pull_wan(&self, number: u8) -> Result<()> {
        self.link(Place::Wan, number, "down")
    }

    pub(crate) fn restore_wan(&self, number: u8) -> Result<()> {
        self.link(Place::Wan, number, "up")
    }

    fn link(&self, switch: Place, number: u8, state: &str) -> Result<()> {
        self.exec(
            switch,
            &["ip", "link", "set", &format!("gw{number}"), state],
        )
        .map(drop)
    }

    /// Whether the daemon of a place was started and has not been stopped by us.
    pub(crate) fn runs(&self, place: Place) -> bool {
        self.nodes.contains_key(&place)
    }

    /// Nodes whose daemon has ended although nobody stopped it.
    pub(crate) fn unexpected_ends(&mut self) -> Vec<Place> {
        let ended = |process: &mut Process| matches!(process.ended(), Ok(Some(_)));
        self.nodes
            .iter_mut()
            .filter_map(|(place, p)| ended(p).then_some(*place))
            .collect()
    }

    /// How a daemon that [`Self::unexpected_ends`] names has ended; it may be started again then.
    pub(crate) fn bury(&mut self, place: Place) -> Result<ExitStatus> {
        let ended = self.node(place)?.ended()?;
        self.nodes.remove(&place);
        ended.with_context(|| format!("{place} had not ended"))
    }

    /// The process id of a node's daemon.
    pub(crate) fn pid(&mut self, place: Place) -> Result<i32> {
        Ok(self.node(place)?.pid())
    }

    fn node(&mut self, place: Place) -> Result<&mut Process> {
        self.nodes
            .get_mut(&place)
            .ok_or_else(|| anyhow!("{place} is not up"))
    }

    /// The end of a node's log, for error messages.
    pub(crate) fn log_tail(&self, place: Place) -> String {
        let text = std::fs::read_to_string(self.log(place)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(6)..].join("\n  ");
        if tail.is_empty() {
            format!("it said nothing ({})", self.log(place).display())
        } else {
            tail
        }
    }

    /// The binary under test.
    pub(crate) fn binary(&self) -> Result<PathBuf> {
        let path = crate::paths::target().join("release/evergate");
        if !path.exists() {
            bail!(
                "{} is missing: build it with `cargo build --release -p evergate`",
                path.display()
            );
        }
        Ok(path)
    }
}

fn random_hex() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 24];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
