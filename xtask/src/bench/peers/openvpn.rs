//! OpenVPN in user space: UDP, AES-256-GCM, certificates that both sides know by their fingerprints.

use super::{CLIENT, GATEWAY, Up, version};
use crate::lab::Lab;
use crate::{sh, toolchain};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// Of both ends. The kernel's data channel is another program's work.
const COMMON: &[&str] = &[
    "--dev",
    "ovpn0",
    "--dev-type",
    "tun",
    "--proto",
    "udp",
    "--data-ciphers",
    "AES-256-GCM",
    "--disable-dco",
];

pub(super) fn install() -> Result<String> {
    toolchain::packages(&["openvpn", "openssl"])?;
    version(Path::new("openvpn"), "--version")
}

pub(super) fn up(lab: &Lab) -> Result<Up> {
    let client = certificate(lab, "ovpn-client")?;
    let gateway = certificate(lab, "ovpn-gateway")?;
    let gateway_words = [
        &["--local", "192.0.2.1", "--topology", "subnet"][..],
        &["--server", "10.91.9.0", "255.255.255.0"],
        &["--push", "route 10.0.0.0 255.255.255.0"],
        &["--dh", "none", "--keepalive", "10", "60"],
        &["--peer-fingerprint", &client],
    ]
    .concat();
    let client_words = [
        &["--client", "--nobind", "--remote", "192.0.2.1", "1194"][..],
        &["--peer-fingerprint", &gateway],
    ]
    .concat();
    let start = |place, name: &str, words: &[&str]| {
        let file = |ending| {
            lab.dir()
                .join(format!("{name}.{ending}"))
                .display()
                .to_string()
        };
        let (cert, key) = (file("crt"), file("key"));
        let own = ["--cert", &cert, "--key", &key];
        lab.spawn(place, name, &[&["openvpn"], COMMON, words, &own].concat())
    };
    let g = start(GATEWAY, "ovpn-gateway", &gateway_words)?;
    let c = start(CLIENT, "ovpn-client", &client_words)?;
    Ok(Up::pair(c, g))
}

/// Makes a key and a certificate that it signs itself; returns its fingerprint.
fn certificate(lab: &Lab, name: &str) -> Result<String> {
    let file = |ending| lab.dir().join(format!("{name}.{ending}"));
    sh::read(
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", &format!("/CN={name}")])
            .arg("-keyout")
            .arg(file("key"))
            .arg("-out")
            .arg(file("crt")),
    )?;
    let words = ["x509", "-noout", "-fingerprint", "-sha256", "-in"];
    let said = sh::read(Command::new("openssl").args(words).arg(file("crt")))?;
    let fingerprint = said.trim().split_once('=').map(|(_, hex)| hex.to_owned());
    fingerprint.with_context(|| format!("openssl said {said:?}"))
}
