//! nebula: certificates, AES-256-GCM; the gateway routes what lies behind it.

use super::{CLIENT, GATEWAY, LAN, PEER_CLIENT, PEER_GATEWAY, Up, version};
use crate::lab::Lab;
use crate::{sh, toolchain};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

const PORT: u16 = 4242;

pub(super) fn install() -> Result<String> {
    toolchain::packages(&["nebula"])?;
    version(Path::new("nebula"), "-version")
}

pub(super) fn up(lab: &Lab) -> Result<Up> {
    let dir = lab.dir().join("nebula");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir)?;
    let cert = |words: &[&str]| {
        let mut command = Command::new("nebula-cert");
        sh::read(command.current_dir(&dir).args(words)).map(drop)
    };
    let (client, gateway) = (format!("{PEER_CLIENT}/24"), format!("{PEER_GATEWAY}/24"));
    cert(&["ca", "-name", "ca"])?;
    let words = ["sign", "-name", "gateway", "-ip", &gateway];
    cert(&[&words[..], &["-subnets", LAN]].concat())?;
    cert(&["sign", "-name", "client", "-ip", &client])?;
    let route = format!("\n  unsafe_routes: [{{route: {LAN}, via: {PEER_GATEWAY}}}]");
    let hosts = format!("\"{PEER_GATEWAY}\"");
    let start = |place, name: &str, lighthouse: bool, hosts: &str, routes: &str| {
        let file = dir.join(format!("{name}.yml"));
        std::fs::write(&file, config(&dir, name, lighthouse, hosts, routes))?;
        let words = ["nebula", "-config", &file.display().to_string()];
        lab.spawn(place, &format!("nebula-{name}"), &words)
    };
    let g = start(GATEWAY, "gateway", true, "", "")?;
    let c = start(CLIENT, "client", false, &hosts, &route)?;
    Ok(Up::pair(c, g))
}

fn config(dir: &Path, name: &str, lighthouse: bool, hosts: &str, routes: &str) -> String {
    let dir = dir.display();
    let any = "[{port: any, proto: any, host: any}]";
    format!(
        "\
pki:
  ca: {dir}/ca.crt
  cert: {dir}/{name}.crt
  key: {dir}/{name}.key
static_host_map:
  \"{PEER_GATEWAY}\": [\"192.0.2.1:{PORT}\"]
lighthouse:
  am_lighthouse: {lighthouse}
  hosts: [{hosts}]
listen:
  host: 0.0.0.0
  port: {PORT}
cipher: aes
tun:
  dev: nebula0
  mtu: 1400{routes}
firewall:
  outbound: {any}
  inbound: {any}
"
    )
}
