//! What an independent dissector makes of a whole session with strongSwan, with the keys that
//! evergate writes.

use super::GATEWAY;
use super::charon::{CHILD, Charon};
use super::conf::with_psk;
use super::matrix::Side;
use crate::cases::Case;
use crate::lab::topology::{CLIENT_OUTSIDE, TARGETS, gateway_outside};
use crate::lab::{Event, Lab, Place, Setup};
use crate::tshark::{Capture, Message};
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

/// Echo requests in each phase of a session.
const PINGS: u64 = 5;

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, begins| Case {
        name: format!("{}_wireshark_{name}", super::NAME),
        run: Box::new(move |lab| whole_session(lab, begins)),
    };
    vec![
        case("evergate_begins", Side::Us),
        case("strongswan_begins", Side::Them),
    ]
}

fn whole_session(lab: &mut Lab, begins: Side) -> Result<()> {
    let setup = Setup {
        general: "Heartbeat = NONE\nStandby = 0\nRandomOrder = no\n".into(),
        cluster: vec![1],
        keylog: true,
        extra: "\n[esp]\nproposals = [\"aes256gcm16-noesn\"]\n".into(),
        ..Setup::default()
    };
    lab.configure(&setup)?;
    let psk = std::fs::read_to_string(lab.dir().join("gw1.psk"))?;
    let capture = Capture::start(lab)?;
    let (ours, charon) = match begins {
        Side::Us => {
            super::for_stock_gateway(lab, &setup)?;
            let charon = Charon::start(lab, GATEWAY, &swanctl_conf(begins, psk.trim()), false)?;
            lab.start(Place::Client)?;
            (Place::Client, charon)
        }
        Side::Them => {
            lab.start(GATEWAY)?;
            let charon =
                Charon::start(lab, Place::Client, &swanctl_conf(begins, psk.trim()), false)?;
            charon.swanctl(lab, &["--initiate", "--child", CHILD])?;
            (GATEWAY, charon)
        }
    };
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    ping(lab)?;
    charon.swanctl(lab, &["--rekey", "--child", CHILD])?;
    told(lab, ours, "session_rekeyed", "pair of SAs")?;
    ping(lab)?;
    charon.swanctl(lab, &["--rekey", "--ike", CHILD])?;
    told(lab, ours, "session_rekeyed", "IKE SA")?;
    ping(lab)?;
    charon.swanctl(lab, &["--terminate", "--ike", CHILD])?;
    told(lab, ours, "session_down", "deleted by the peer")?;
    let recording = capture.finish(lab, ours, &format!("strongswan-{ours}"))?;
    recording.must_be_sound()?;
    exchanges(&recording.messages()?)?;
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

fn told(lab: &Lab, place: Place, kind: &str, words: &str) -> Result<()> {
    lab.wait(
        &format!("{place} tells of {kind}: {words}"),
        Duration::from_secs(10),
        |lab| {
            let events = lab.events(place, 0)?;
            let fits = |e: &Event| e.kind == kind && e.text.contains(words);
            Ok(events.iter().any(fits).then_some(()))
        },
    )
}

/// All that such a session consists of was said by both, and could be read.
fn exchanges(messages: &[Message]) -> Result<()> {
    for response in [false, true] {
        for (exchange, payloads) in [
            ("IKE_SA_INIT", &["SA", "KE", "NONCE", "N"][..]),
            ("IKE_AUTH", &["AUTH", "SA", "TSi", "TSr", "CP"]),
            ("CREATE_CHILD_SA", &["SA", "NONCE", "KE", "TSi", "TSr"]),
            ("INFORMATIONAL", &[]),
        ] {
            let fits = |m: &&Message| {
                m.exchange == exchange
                    && m.response == response
                    && payloads.iter().all(|wanted| m.has(wanted))
            };
            let found = messages.iter().find(fits);
            found.with_context(|| format!("no {exchange} with {payloads:?} in {messages:#?}"))?;
        }
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

fn swanctl_conf(begins: Side, psk: &str) -> String {
    let gateway = gateway_outside(1);
    match begins {
        Side::Us => with_psk(
            psk,
            ["gw1", "client"],
            &format!("    local_addrs = {gateway}\n    pools = v4\n"),
            "        local_ts = 10.0.0.0/24\n",
        ),
        Side::Them => with_psk(
            psk,
            ["client", "gw1"],
            &format!(
                "    local_addrs = {CLIENT_OUTSIDE}\n    remote_addrs = {gateway}\n    vips = \
                 0.0.0.0\n"
            ),
            "        remote_ts = 10.0.0.0/24\n",
        ),
    }
}
