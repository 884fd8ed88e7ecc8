//! The kernel's own tunnels, where it has them: WireGuard, and ESP by xfrm.

use super::{CLIENT, GATEWAY, LAN, PEER_CLIENT, Up, wireguard};
use crate::lab::Lab;
use crate::lab::topology::CLIENT_OUTSIDE;
use crate::{sh, toolchain};
use anyhow::{Context, Result, ensure};
use std::process::Command;

/// The other end of the client.
const OUTSIDE: &str = "192.0.2.1";

/// An error if it is not there, with the kernel's word.
pub(super) fn has_wireguard() -> Result<String> {
    toolchain::packages(&["wireguard-tools"])?;
    let words = ["link", "add", "rig0", "type", "wireguard"];
    try_out(&words.map(str::to_owned)).context("no WireGuard (CONFIG_WIREGUARD)")
}

/// The same for ESP.
pub(super) fn has_esp() -> Result<String> {
    let state = state(CLIENT_OUTSIDE, OUTSIDE, 0x1000);
    try_out(&state).context("no ESP (CONFIG_INET_ESP, CONFIG_CRYPTO_GCM)")
}

/// Runs a command of `ip` where nothing of it stays.
fn try_out(words: &[String]) -> Result<String> {
    let output = sh::output(Command::new("unshare").args(["-n", "ip"]).args(words))?;
    ensure!(output.status.success(), "{}", sh::said(&output));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(release.trim().to_owned())
}

pub(super) fn wireguard(lab: &Lab) -> Result<Up> {
    let [client, gateway] = wireguard::ends(lab)?;
    for end in [&client, &gateway] {
        let words = ["ip", "link", "add", &end.interface, "type", "wireguard"];
        lab.exec(end.place, &words)?;
    }
    wireguard::connect(lab, &client, &gateway)?;
    Ok(Up::default())
}

pub(super) fn esp(lab: &Lab) -> Result<Up> {
    let address = format!("{PEER_CLIENT}/32");
    lab.exec(CLIENT, &["ip", "addr", "add", &address, "dev", "lo"])?;
    lab.exec(
        CLIENT,
        &[
            "ip",
            "route",
            "add",
            LAN,
            "via",
            OUTSIDE,
            "src",
            PEER_CLIENT,
        ],
    )?;
    lab.exec(
        GATEWAY,
        &["ip", "route", "add", &address, "via", CLIENT_OUTSIDE],
    )?;
    let states = [
        state(CLIENT_OUTSIDE, OUTSIDE, 0x1000),
        state(OUTSIDE, CLIENT_OUTSIDE, 0x2000),
    ];
    let up = (CLIENT_OUTSIDE, OUTSIDE, &*address, LAN);
    let down = (OUTSIDE, CLIENT_OUTSIDE, LAN, &*address);
    for (place, [out, back]) in [(CLIENT, [up, down]), (GATEWAY, [down, up])] {
        for words in &states {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            lab.exec(place, &[&["ip"], &words[..]].concat())?;
        }
        for (direction, (from, to, source, destination)) in
            [("out", out), ("in", back), ("fwd", back)]
        {
            let selector = ["src", source, "dst", destination, "dir", direction];
            let template = [
                "tmpl", "src", from, "dst", to, "proto", "esp", "mode", "tunnel",
            ];
            let head = ["ip", "xfrm", "policy", "add"];
            lab.exec(place, &[&head[..], &selector, &template].concat())?;
        }
    }
    Ok(Up::default())
}

/// Words that add an SA of a random key; both ends get the same ones.
fn state(from: &str, to: &str, spi: u32) -> Vec<String> {
    let key = rand::random::<[u8; 36]>().map(|byte| format!("{byte:02x}"));
    let words = format!(
        "xfrm state add src {from} dst {to} proto esp spi {spi:#x} mode tunnel reqid 1 \
         aead rfc4106(gcm(aes)) 0x{} 128",
        key.concat()
    );
    words.split_whitespace().map(str::to_owned).collect()
}
