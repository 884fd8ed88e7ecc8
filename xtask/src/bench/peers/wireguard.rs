//! WireGuard in user space: gotatun and boringtun from crates.io, wireguard-go from the distribution.

use super::{CLIENT, GATEWAY, LAN, Leftover, PEER_CLIENT, PEER_GATEWAY, SOON, System, Up, version};
use crate::lab::{Lab, Place, Process};
use crate::{build, paths, sh, toolchain};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates and what they install.
const GOTATUN: Crate = ("gotatun-cli", "0.10.2", "gotatun");
const BORINGTUN: Crate = ("boringtun-cli", "0.7.1", "boringtun-cli");
/// Where the gateway listens.
const PORT: &str = "51820";
/// What a packet of 1500 bytes leaves for an inner one.
const MTU: &str = "1420";
/// Where `wg` looks for the sockets of daemons.
const SOCKETS: &str = "/var/run/wireguard";

type Crate = (&'static str, &'static str, &'static str);

/// One end, as `wg` knows it.
pub(super) struct End {
    pub(super) place: Place,
    pub(super) interface: String,
    key: PathBuf,
    public: String,
}

pub(super) fn install(system: System) -> Result<String> {
    toolchain::packages(&["wireguard-tools"])?;
    match system {
        System::WireguardGo => toolchain::packages(&["wireguard-go"])?,
        System::Gotatun => from_registry(GOTATUN)?,
        _ => from_registry(BORINGTUN)?,
    }
    version(&daemon(system), "--version")
}

/// `cargo install` to `target/peers/`.
fn from_registry((name, version, program): Crate) -> Result<()> {
    let root = paths::target().join("peers");
    if root.join("bin").join(program).is_file() {
        return Ok(());
    }
    println!("  building {name} {version} (some minutes)");
    let words = ["install", name, "--quiet", "--locked", "--version", version];
    let mut cargo = build::cargo();
    cargo.args(words).arg("--root").arg(&root);
    cargo.arg("--target-dir").arg(root.join("build"));
    sh::read(&mut cargo).map(drop)
}

fn daemon(system: System) -> PathBuf {
    let own = |program| paths::target().join("peers/bin").join(program);
    match system {
        System::Gotatun => own(GOTATUN.2),
        System::Boringtun => own(BORINGTUN.2),
        _ => "wireguard-go".into(),
    }
}

pub(super) fn up(system: System, lab: &Lab) -> Result<Up> {
    let [client, gateway] = ends(lab)?;
    let daemon = daemon(system);
    let (c, g) = (
        start(lab, &daemon, &client)?,
        start(lab, &daemon, &gateway)?,
    );
    connect(lab, &client, &gateway)?;
    let mut up = Up::pair(c, g);
    up._leftovers = [client, gateway].map(|end| Leftover(socket(&end))).into();
    Ok(up)
}

fn socket(end: &End) -> PathBuf {
    Path::new(SOCKETS).join(format!("{}.sock", end.interface))
}

/// Starts the daemon of an end, and waits until `wg` reaches it.
fn start(lab: &Lab, daemon: &Path, end: &End) -> Result<Process> {
    let daemon = daemon.display().to_string();
    let mut words = vec![&*daemon, "-f"];
    if !daemon.ends_with("wireguard-go") {
        words.push("--disable-drop-privileges");
    }
    words.push(&end.interface);
    let name = format!("wireguard-{}", end.place);
    let process = lab.spawn(end.place, &name, &words)?;
    let wait = format!(
        "{daemon} answers at {} ({})",
        end.place,
        lab.log(name).display()
    );
    lab.wait(&wait, SOON, |lab| {
        lab.exec(end.place, &["wg", "show", &end.interface])
            .map(Some)
    })?;
    Ok(process)
}

/// Client and gateway with keys, and names that nothing else on this machine has: the sockets of all
/// namespaces are in one folder.
pub(super) fn ends(lab: &Lab) -> Result<[End; 2]> {
    let end = |place: Place, letter: char| -> Result<End> {
        let key = lab.dir().join(format!("{place}.wgkey"));
        let private = sh::read(Command::new("wg").arg("genkey"))?;
        std::fs::write(&key, private)?;
        let words = [
            "sh",
            "-c",
            "umask 077; chmod 600 \"$0\"; wg pubkey < \"$0\"",
        ];
        let mut pubkey = Command::new(words[0]);
        let public = sh::read(pubkey.args(&words[1..]).arg(&key))?;
        Ok(End {
            place,
            interface: format!("wg{letter}{}", std::process::id()),
            key,
            public: public.trim().to_owned(),
        })
    };
    Ok([end(CLIENT, 'c')?, end(GATEWAY, 'g')?])
}

/// Tells both ends of each other; their interfaces are there.
pub(super) fn connect(lab: &Lab, client: &End, gateway: &End) -> Result<()> {
    let set = |end: &End, words: &[&str]| {
        let key = end.key.display().to_string();
        let head = ["wg", "set", &end.interface, "private-key", &key];
        lab.exec(end.place, &[&head, words].concat())
            .with_context(|| format!("{} of the {}", end.interface, end.place))
    };
    let (peer, endpoint) = (format!("{PEER_CLIENT}/32"), format!("192.0.2.1:{PORT}"));
    let words = ["listen-port", PORT, "peer", &client.public];
    set(gateway, &[&words[..], &["allowed-ips", &peer]].concat())?;
    let behind = format!("{LAN},{PEER_GATEWAY}/32");
    let words = ["peer", &gateway.public, "endpoint", &endpoint];
    set(client, &[&words[..], &["allowed-ips", &behind]].concat())?;
    for (end, address, route) in [
        (client, PEER_CLIENT, LAN),
        (gateway, PEER_GATEWAY, PEER_CLIENT),
    ] {
        let device = &*end.interface;
        for words in [
            &["addr", "add", address, "dev", device][..],
            &["link", "set", device, "mtu", MTU, "up"],
            &["route", "add", route, "dev", device],
        ] {
            lab.exec(end.place, &[&["ip"], words].concat())?;
        }
    }
    Ok(())
}
