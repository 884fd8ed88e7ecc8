//! WireGuard in user space: gotatun and boringtun from crates.io, wireguard-go from the distribution.

use super::{
    CLIENT, GATEWAY, LAN, Leftover, PEER_CLIENT, PEER_GATEWAY, SOON, Sealed, System, Up, version,
};
use crate::lab::{Lab, Place, Process};
use crate::{build, paths, sh, toolchain};
use anyhow::Result;
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
    listen(lab, gateway, client)?;
    let (endpoint, behind) = (endpoint(), format!("{LAN},{PEER_GATEWAY}/32"));
    let words = ["peer", &gateway.public, "endpoint", &endpoint];
    set(
        lab,
        client,
        &[&words[..], &["allowed-ips", &behind]].concat(),
    )?;
    address(lab, client, PEER_CLIENT, LAN)
}

fn endpoint() -> String {
    format!("192.0.2.1:{PORT}")
}

/// The gateway's end.
fn listen(lab: &Lab, gateway: &End, client: &End) -> Result<()> {
    let peer = format!("{PEER_CLIENT}/32");
    let words = ["listen-port", PORT, "peer", &client.public];
    set(
        lab,
        gateway,
        &[&words[..], &["allowed-ips", &peer]].concat(),
    )?;
    address(lab, gateway, PEER_GATEWAY, PEER_CLIENT)
}

fn set(lab: &Lab, end: &End, words: &[&str]) -> Result<()> {
    let key = end.key.display().to_string();
    let head = ["wg", "set", &end.interface, "private-key", &key];
    lab.exec(end.place, &[&head, words].concat()).map(drop)
}

fn address(lab: &Lab, end: &End, own: &str, route: &str) -> Result<()> {
    let device = &*end.interface;
    for words in [
        &["addr", "add", own, "dev", device][..],
        &["link", "set", device, "mtu", MTU, "up"],
        &["route", "add", route, "dev", device],
    ] {
        lab.exec(end.place, &[&["ip"], words].concat())?;
    }
    Ok(())
}

/// The gateway alone; the generator is its peer.
pub(super) fn gateway(system: System, lab: &Lab) -> Result<Up> {
    let [client, gateway] = ends(lab)?;
    let daemon = start(lab, &daemon(system), &gateway)?;
    listen(lab, &gateway, &client)?;
    // Each asks for the other's link address.
    lab.ping_until(CLIENT, "192.0.2.1", SOON)?;
    lab.ping_until(GATEWAY, Up::default().to, SOON)?;
    Ok(Up {
        gateway: vec![daemon.pid()],
        sealed: Sealed::Wireguard {
            gateway: endpoint(),
            private: std::fs::read_to_string(&client.key)?.trim().to_owned(),
            public: gateway.public.clone(),
        },
        _processes: vec![daemon],
        _leftovers: vec![Leftover(socket(&gateway))],
        ..Up::default()
    })
}
