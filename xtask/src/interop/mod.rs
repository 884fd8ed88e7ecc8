//! Interoperability: evergate against strongSwan's charon with its userspace ESP (plugin
//! `kernel-libipsec`), in the namespaces of the lab.
//!
//! A case is a row of a [`matrix`]. In each a session comes about, 10 MB go to the target and back
//! and every byte is compared, keys are renewed three times with traffic after each, and one side
//! deletes the session.

mod charon;
mod conf;
mod cover;
mod edges;
mod libreswan;
mod life;
mod matrix;
mod memory;
mod mobike;
mod patterns;
mod pluto;
mod redirect;
mod wireshark;

use crate::cases::{self, Case};
use crate::lab::topology::{
    CLIENT_INNER, CLIENT_INNER_V6, CLIENT_OUTSIDE, TARGET_V6, TARGETS, gateway_inside,
};
use crate::lab::{Event, KeyKind, Lab, Mapping, Place, Setup, USER, User};
use crate::probe::Stream;
use anyhow::{Result, bail};
use charon::Charon;
use matrix::{Inner, Proof, Rekey, Row, Side};
use std::time::Duration;

pub(crate) use charon::{Daemon, private_run};

/// The names of all cases begin so.
pub(crate) const NAME: &str = "interop";

/// strongSwan, as Debian and Ubuntu package it.
pub(crate) const PACKAGES: &[&str] = &[
    "libcharon-extauth-plugins",
    "libcharon-extra-plugins",
    "libstrongswan-extra-plugins",
    "libstrongswan-standard-plugins",
    "strongswan-charon",
    "strongswan-swanctl",
];

/// What every case carries there and back.
const BYTES: u64 = 10_000_000;

/// Where evergate's node is gateway, and where charon is.
const GATEWAY: Place = Place::Gateway(1);

/// Runs the rows whose name contains `filter`, of all or of the usual ones; returns how many passed
/// and failed.
pub(crate) fn run(filter: &str, all: bool, prefix: &str) -> Result<(usize, usize)> {
    let rows = match all {
        true => cover::all(),
        false => cover::usual(),
    };
    let cases: Vec<Case> = rows
        .into_iter()
        .map(|row| Case {
            name: row.name(),
            run: Box::new(move |lab| session(lab, row)),
        })
        .chain(life::cases())
        .chain(wireshark::cases())
        .chain(libreswan::cases())
        .chain(redirect::cases())
        .chain(mobike::cases())
        .chain(patterns::cases())
        .chain(edges::cases())
        .chain(memory::cases())
        .filter(|case| case.name.contains(filter))
        .collect();
    match cases.is_empty() {
        true => Ok((0, 0)),
        false => cases::run("cases with strongSwan", prefix, &cases),
    }
}

/// One row from the first message to the last. An error tells what both sides said.
fn session(lab: &mut Lab, row: Row) -> Result<()> {
    let ours = match row.begins {
        Side::Us => Place::Client,
        Side::Them => GATEWAY,
    };
    live(lab, row, ours).map_err(|error| {
        let log = charon::log(lab);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(25)..].join("\n      ");
        error.context(format!(
            "charon said\n      {tail}\n    evergate ({ours}) said\n      {}\n    and",
            lab.log_tail(ours).replace("\n  ", "\n      ")
        ))
    })
}

fn live(lab: &mut Lab, row: Row, ours: Place) -> Result<()> {
    let setup = setup(row);
    lab.configure(&setup)?;
    if row.nat {
        lab.nat(Mapping {
            host: 254,
            first_port: 20_000,
        })?;
    }
    let certified = row.proof != Proof::Psk;
    let charon = match row.begins {
        Side::Us => {
            for_stock_gateway(lab, &setup)?;
            let charon = Charon::start(lab, GATEWAY, &conf::as_responder(lab, row)?, certified)?;
            lab.start(Place::Client)?;
            charon
        }
        Side::Them => {
            lab.start(GATEWAY)?;
            let charon = Charon::start(
                lab,
                Place::Client,
                &conf::as_initiator(lab, row)?,
                certified,
            )?;
            charon.swanctl(lab, &["--initiate", "--child", charon::CHILD])?;
            charon
        }
    };
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let target = match row.inner {
        Inner::V4 => TARGETS[1],
        Inner::V6 => TARGET_V6,
    };
    Stream::transfer(lab, target, BYTES)?;
    agreed(lab, row, ours, &charon)?;
    rekey(lab, row, ours, &charon, target)?;
    delete(lab, row, ours, &charon)?;
    charon.must_not_complain(lab)
}

/// Our side's files.
fn setup(row: Row) -> Setup {
    let esp = format!("\n[esp]\nproposals = [\"{}\"]\n", row.cipher.ours());
    Setup {
        general: "Heartbeat = NONE\nStandby = 0\nRandomOrder = no\n".into(),
        cluster: vec![1],
        ipv6: row.inner == Inner::V6,
        client_outside: (!row.nat).then_some(CLIENT_OUTSIDE),
        certificates: (row.proof != Proof::Psk).then_some(match row.proof {
            Proof::Rsa => KeyKind::Rsa,
            _ => KeyKind::Ecdsa,
        }),
        user: match row.proof {
            Proof::EapMschapv2 => Some(User::Password),
            Proof::EapTls => Some(User::Certificate),
            Proof::Psk | Proof::Ecdsa | Proof::Rsa => None,
        },
        extra: esp + row.rekey.lifetimes(),
        ..Setup::default()
    }
}

/// What a stock gateway needs here: it does not answer ARP for its clients, so the target gets a
/// route; and charon's userspace ESP wants an address of its own in the range of the tunnel, so the
/// range is wider than usual.
fn for_stock_gateway(lab: &Lab, setup: &Setup) -> Result<()> {
    let mut policy = setup.policy();
    for (usual, wider) in [
        ("– 10.0.0.3", "– 10.0.0.127"),
        ("- 2001:db8:3::3", "- 2001:db8:3::7f"),
    ] {
        policy = policy.replace(usual, wider);
    }
    lab.write_policy(&policy)?;
    for own in ["10.0.0.101/32", "2001:db8:3::65/128"] {
        lab.exec(GATEWAY, &["ip", "addr", "add", own, "dev", "lo"])?;
    }
    let gw1 = gateway_inside(1).to_string();
    for (inner, via) in [
        (format!("{CLIENT_INNER}/32"), gw1.as_str()),
        (format!("{CLIENT_INNER_V6}/128"), "2001:db8:3::f1"),
    ] {
        let route = ["ip", "route", "add", &inner, "via", via];
        lab.exec(Place::Target, &route)?;
    }
    Ok(())
}

/// Both sides agree on the cipher and the authentication of the row, and that ESP goes in UDP.
fn agreed(lab: &Lab, row: Row, ours: Place, charon: &Charon) -> Result<()> {
    let list = charon.swanctl(lab, &["--list-sas"])?;
    let (wanted, in_udp) = (row.cipher.listed(), list.contains("TUNNEL-in-UDP"));
    if !list.contains(wanted) || !in_udp {
        bail!("expected {wanted} in UDP, found {list}");
    }
    let proof = format!(
        "authentication of '{ours}.example' with {}",
        row.proof.logged()
    );
    if !charon::log(lab).contains(&proof) {
        bail!("charon never said `{proof}`");
    }
    Ok(())
}

/// Three times, with traffic after each.
fn rekey(lab: &Lab, row: Row, ours: Place, charon: &Charon, target: &str) -> Result<()> {
    for round in 1..=3 {
        let before = charon.settled(lab)?;
        match row.rekey {
            Rekey::Child(Side::Them) => {
                charon.swanctl(lab, &["--rekey", "--child", charon::CHILD])?;
            }
            Rekey::Ike(Side::Them) => {
                charon.swanctl(lab, &["--rekey", "--ike", charon::CHILD])?;
            }
            // By itself, when the lifetime is over.
            Rekey::Child(Side::Us) | Rekey::Ike(Side::Us) => {}
        }
        let ike = matches!(row.rekey, Rekey::Ike(_));
        lab.wait(
            &format!("rekey {round} is done"),
            Duration::from_secs(15),
            |lab| {
                let now = charon.spis(lab)?;
                let done = match ike {
                    true => now.ike != before.ike && now.child == before.child,
                    false => now.child != before.child && now.ike == before.ike,
                };
                Ok(done.then_some(()))
            },
        )?;
        Stream::transfer(lab, target, BYTES / 10)?;
    }
    let ended = lab
        .events(ours, 0)?
        .into_iter()
        .find(|e| e.kind == "session_down");
    match ended {
        Some(Event { text, .. }) => bail!("a session ended during the rekeys: {text}"),
        None => Ok(()),
    }
}

/// One side deletes the session, and the other one knows.
fn delete(lab: &Lab, row: Row, ours: Place, charon: &Charon) -> Result<()> {
    let peer = match row.begins {
        Side::Us => "gw1.example",
        Side::Them if row.proof == Proof::EapMschapv2 => USER,
        Side::Them => "client.example",
    };
    let ike = charon.settled(lab)?.ike;
    match row.deletes {
        Side::Us => {
            lab.evergate(ours, &["session", "delete", peer])?;
        }
        Side::Them => {
            charon.swanctl(lab, &["--terminate", "--ike", charon::CHILD])?;
        }
    }
    lab.wait(
        "the session is gone at charon",
        Duration::from_secs(5),
        |lab| {
            let list = charon.swanctl(lab, &["--list-sas", "--raw"])?;
            Ok((!list.contains(&ike)).then_some(()))
        },
    )?;
    let why = match row.deletes {
        Side::Us => "deleted by the operator",
        Side::Them => "deleted by the peer",
    };
    told(lab, ours, "session_down", &[why])
}

/// Waits until a node tells of something, in these words among others.
fn told(lab: &Lab, place: Place, kind: &str, words: &[&str]) -> Result<()> {
    lab.wait(
        &format!("{place} tells of {kind}: {words:?}"),
        Duration::from_secs(10),
        |lab| {
            let events = lab.events(place, 0)?;
            let fits = |e: &Event| e.kind == kind && words.iter().all(|w| e.text.contains(w));
            Ok(events.iter().any(fits).then_some(()))
        },
    )
}
