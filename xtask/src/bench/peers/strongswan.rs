//! strongSwan's charon with ESP in user space (`kernel-libipsec`): IKEv2 with a pre-shared key,
//! AES-256-GCM in UDP.

use super::{CLIENT, GATEWAY, LAN, PEER_CLIENT, Up, version};
use crate::interop::{self, Daemon};
use crate::lab::Lab;
use crate::lab::topology::CLIENT_OUTSIDE;
use crate::toolchain;
use anyhow::Result;
use std::path::Path;

pub(super) fn install() -> Result<String> {
    toolchain::packages(interop::PACKAGES)?;
    version(Path::new("swanctl"), "--version")
}

pub(super) fn up(lab: &Lab) -> Result<Up> {
    // What lies in its traffic selector must exist at each end.
    let address = format!("{PEER_CLIENT}/32");
    lab.exec(CLIENT, &["ip", "addr", "add", &address, "dev", "lo"])?;
    let ends = [
        (GATEWAY, "192.0.2.1", "%any", LAN, &*address, "none"),
        (CLIENT, CLIENT_OUTSIDE, "192.0.2.1", &*address, LAN, "start"),
    ];
    let mut daemons = Vec::new();
    for (place, local, remote, own, other, start) in ends {
        let names = match place {
            CLIENT => ["client.example", "gw1.example"],
            _ => ["gw1.example", "client.example"],
        };
        let conf = conf([local, remote], names, [own, other], start);
        daemons.push(Daemon::start(lab, place, &conf, false)?);
    }
    let mut processes = daemons.into_iter().map(Daemon::into_process);
    match (processes.next(), processes.next()) {
        (Some(gateway), Some(client)) => Ok(Up::pair(client, gateway)),
        _ => unreachable!("two were started"),
    }
}

fn conf(addresses: [&str; 2], names: [&str; 2], networks: [&str; 2], start: &str) -> String {
    let ([local, remote], [own, other], [here, there]) = (addresses, names, networks);
    format!(
        "connections {{
  rig {{
    version = 2
    local_addrs = {local}
    remote_addrs = {remote}
    proposals = aes256gcm16-prfsha256-x25519
    local {{
      auth = psk
      id = {own}
    }}
    remote {{
      auth = psk
      id = {other}
    }}
    children {{
      rig {{
        local_ts = {here}
        remote_ts = {there}
        esp_proposals = aes256gcm16-x25519
        start_action = {start}
      }}
    }}
  }}
}}
secrets {{
  ike-rig {{
    secret = \"known to everybody, inside of this lab\"
  }}
}}
"
    )
}
