//! Nodes that prove themselves by certificates.

use super::{Case, active, ensure, failover, must_ping, up, wait_event};
use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Event, KeyKind, Lab, Place, Setup};
use anyhow::Result;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("certificates_instead_of_keys", instead_of_keys),
    ("certificate_revoked_gets_no_new_session", revoked),
    ("certificate_expired_is_refused", expired),
    ("certificate_of_another_gateway_is_refused", impostor),
];

fn setup() -> Setup {
    Setup {
        certificates: Some(KeyKind::Ecdsa),
        ..Setup::default()
    }
}

fn instead_of_keys(lab: &mut Lab) -> Result<()> {
    up(lab, &setup())?;
    failover::survives(lab, failover::SOON, |lab, number| {
        lab.kill(Place::Gateway(number))
    })?;
    must_ping(lab, Place::Client, &[TARGETS[1]])
}

/// The client is told by no gateway, and each of them says why.
fn refused(lab: &Lab, why: &str) -> Result<()> {
    let first = Place::Gateway(GATEWAYS[0]);
    let told = |event: &Event| event.kind == "key_failed" && event.text.contains(why);
    wait_event(lab, first, &format!("gw1 says `{why}`"), told)?;
    let rejected = |event: &Event| event.kind == "key_rejected";
    wait_event(lab, Place::Client, "the client has no key", rejected)?;
    let status = lab.status(Place::Client)?;
    ensure(status.keyed().is_empty(), || {
        format!("keyed: {:?}", status.keyed())
    })
}

/// A session that is there goes on; a new one is refused once the gateways have read the CRL again.
fn revoked(lab: &mut Lab) -> Result<()> {
    up(lab, &setup())?;
    lab.revoke(Place::Client)?;
    for number in GATEWAYS {
        let gateway = Place::Gateway(number);
        lab.hang_up(gateway)?;
        let read = |event: &Event| event.kind == "certs_reloaded";
        wait_event(lab, gateway, "the CRL is read", read)?;
    }
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    lab.stop(Place::Client)?;
    lab.start(Place::Client)?;
    refused(lab, "has been revoked")
}

fn expired(lab: &mut Lab) -> Result<()> {
    lab.configure(&setup())?;
    lab.expire(Place::Client)?;
    lab.start_all()?;
    refused(lab, "has expired at 2021-01-01T00:00:00Z")
}

/// gw2 has a good certificate, of gw1: the client does not take it for gw2.
fn impostor(lab: &mut Lab) -> Result<()> {
    lab.configure(&Setup {
        cluster: vec![2, 3],
        ..setup()
    })?;
    for file in ["pem", "key"] {
        let dir = lab.dir();
        std::fs::copy(
            dir.join(format!("gw1.{file}")),
            dir.join(format!("gw2.{file}")),
        )?;
    }
    // It says of itself what its certificate says, or it would not even start.
    let file = lab.dir().join("gw2.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("\"gw2.example\"", "\"gw1.example\""))?;
    lab.start_all()?;
    let told = |event: &Event| {
        let wrong = "the peer is gw1.example, expected gw2.example";
        event.kind == "key_failed" && event.text.contains(wrong)
    };
    wait_event(lab, Place::Client, "the client knows gw2 better", told)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let number = active(lab)?;
    ensure(number == 3, || format!("gw{number} is active"))
}
