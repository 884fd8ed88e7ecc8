//! What an independent dissector makes of a whole session with strongSwan, with the keys that
//! evergate writes.

use super::charon::{CHILD, Charon};
use super::matrix::{Proof, Row, Side};
use super::{GATEWAY, conf, told};
use crate::cases::Case;
use crate::lab::topology::TARGETS;
use crate::lab::{KeyKind, Lab, Place, Setup, User};
use crate::tshark::{Capture, Message};
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

/// Echo requests in each phase of a session.
const PINGS: u64 = 5;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for proof in [Proof::Psk, Proof::Rsa, Proof::EapTls] {
        for begins in Side::ALL.into_iter().filter(|side| proof.begun_by(*side)) {
            let (how, who) = (proof.name(), begins.name());
            cases.push(Case {
                name: format!("{}_wireshark_{how}_{who}_begins", super::NAME),
                run: Box::new(move |lab| whole_session(lab, Row::of(begins, proof))),
            });
        }
    }
    cases
}

fn whole_session(lab: &mut Lab, row: Row) -> Result<()> {
    let certified = row.proof != Proof::Psk;
    let setup = Setup {
        general: "Heartbeat = NONE\nStandby = 0\nRandomOrder = no\n".into(),
        cluster: vec![1],
        // So long that IKE_AUTH goes in parts.
        certificates: certified.then_some(KeyKind::LongRsa),
        user: row.proof.is_eap().then_some(User::Certificate),
        keylog: true,
        extra: "\n[esp]\nproposals = [\"aes256gcm16-noesn\"]\n".into(),
        ..Setup::default()
    };
    lab.configure(&setup)?;
    let capture = Capture::start(lab)?;
    let (ours, charon) = match row.begins {
        Side::Us => {
            super::for_stock_gateway(lab, &setup)?;
            let conf = conf::as_responder(lab, row)?;
            let charon = Charon::start(lab, GATEWAY, &conf, certified)?;
            lab.start(Place::Client)?;
            (Place::Client, charon)
        }
        Side::Them => {
            lab.start(GATEWAY)?;
            let conf = conf::as_initiator(lab, row)?;
            let charon = Charon::start(lab, Place::Client, &conf, certified)?;
            charon.swanctl(lab, &["--initiate", "--child", CHILD])?;
            (GATEWAY, charon)
        }
    };
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    ping(lab)?;
    charon.swanctl(lab, &["--rekey", "--child", CHILD])?;
    told(lab, ours, "session_rekeyed", &["pair of SAs"])?;
    ping(lab)?;
    charon.swanctl(lab, &["--rekey", "--ike", CHILD])?;
    told(lab, ours, "session_rekeyed", &["IKE SA"])?;
    ping(lab)?;
    charon.swanctl(lab, &["--terminate", "--ike", CHILD])?;
    told(lab, ours, "session_down", &["deleted by the peer"])?;
    let recording = capture.finish(
        lab,
        ours,
        &format!("strongswan-{}-{ours}", row.proof.name()),
    )?;
    recording.must_be_sound()?;
    let messages = recording.messages()?;
    exchanges(&messages, row.proof)?;
    certificates(&messages, row.proof)?;
    let esp = recording.echoes()?;
    ensure(
        esp.requests >= 3 * PINGS && esp.answers >= 3 * PINGS && esp.spis >= 4,
        || format!("{esp:?} of {PINGS} echo requests in each of three phases"),
    )
}

fn ensure(condition: bool, what: impl FnOnce() -> String) -> Result<()> {
    ensure!(condition, what());
    Ok(())
}

fn ping(lab: &Lab) -> Result<()> {
    let count = PINGS.to_string();
    let words = ["ping", "-n", "-c", &count, "-i", "0.05", "-W2", TARGETS[1]];
    lab.exec(Place::Client, &words).map(drop)
}

/// All that such a session consists of was said by both, and could be read.
fn exchanges(messages: &[Message], proof: Proof) -> Result<()> {
    let said = |exchange: &str, response: bool, payloads: &[&str]| {
        let fits = |m: &&Message| {
            m.exchange == exchange
                && m.response == response
                && payloads.iter().all(|wanted| m.has(wanted))
        };
        let found = messages.iter().find(fits).map(drop);
        found.with_context(|| {
            format!("no {exchange} (response: {response}) with {payloads:?} in {messages:#?}")
        })
    };
    for response in [false, true] {
        said("IKE_SA_INIT", response, &["SA", "KE", "NONCE", "N"])?;
        let child = ["SA", "NONCE", "KE", "TSi", "TSr"];
        said("CREATE_CHILD_SA", response, &child)?;
        said("INFORMATIONAL", response, &[])?;
        match proof.is_eap() {
            false => said("IKE_AUTH", response, &["AUTH", "SA", "TSi", "TSr", "CP"])?,
            true => said("IKE_AUTH", response, &["EAP"])?,
        }
    }
    if proof.is_eap() {
        said("IKE_AUTH", false, &["IDi", "SA", "TSi", "TSr", "CP"])?;
        said("IKE_AUTH", true, &["IDr", "CERT", "AUTH", "EAP"])?;
        said("IKE_AUTH", false, &["AUTH"])?;
        said("IKE_AUTH", true, &["AUTH", "SA", "TSi", "TSr", "CP"])?;
    }
    let unread: Vec<_> = messages.iter().filter(|m| !m.is_read()).collect();
    ensure(unread.is_empty(), || format!("not read: {unread:#?}"))?;
    let ike = messages
        .iter()
        .filter(|m| m.exchange == "CREATE_CHILD_SA" && !m.has("TSi"))
        .count();
    ensure(ike == 2, || format!("{ike} messages replace the IKE SA"))?;
    let deleted = messages.iter().filter(|m| m.has("D")).count();
    // The child SA and the IKE SA that were replaced, and the last IKE SA.
    ensure(deleted >= 3, || format!("{deleted} messages delete"))
}

/// Whoever has a certificate shows it in an IKE_AUTH message that came in parts; that of a user is in
/// EAP.
fn certificates(messages: &[Message], proof: Proof) -> Result<()> {
    let by_client = proof == Proof::Rsa;
    let by_gateway = proof != Proof::Psk;
    for (response, wanted) in [(false, by_client), (true, by_gateway)] {
        let shown = messages.iter().any(|m| {
            let in_parts = m.parts > 1 && m.has("CERT") && m.has("AUTH");
            m.exchange == "IKE_AUTH" && m.response == response && in_parts
        });
        ensure(shown == wanted, || {
            format!("certificates in parts: {shown} in {messages:#?}")
        })?;
    }
    Ok(())
}
