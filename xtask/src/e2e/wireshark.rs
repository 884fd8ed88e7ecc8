//! What an independent dissector makes of all that two nodes say, with the keys that they write.

use super::{Case, ensure, must_ping, wait_event};
use crate::lab::topology::TARGETS;
use crate::lab::{Event, KeyKind, Lab, Place, Setup};
use crate::tshark::{Capture, Message, Recording};
use anyhow::Result;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("wireshark_reads_all_of_a_session", plain_esp),
    ("wireshark_reads_all_of_a_session_in_udp", in_udp),
    ("keylog_only_as_long_as_the_operator_wants", switched),
];

const GATEWAY: Place = Place::Gateway(1);

/// Echo requests in each phase of a session.
const PINGS: u64 = 10;

fn setup(extra: &str) -> Setup {
    Setup {
        general: "Heartbeat = NONE\nStandby = 0\nRandomOrder = no\n".into(),
        cluster: vec![1],
        keylog: true,
        extra: extra.into(),
        ..Setup::default()
    }
}

/// A session from its first message to its last, with fresh keys of both kinds, recorded.
fn recorded(lab: &mut Lab, name: &str, setup: &Setup) -> Result<Recording> {
    lab.configure(setup)?;
    let capture = Capture::start(lab)?;
    lab.start(GATEWAY)?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    ping(lab)?;
    for (what, kind) in [("pair of SAs", "child"), ("IKE SA", "IKE SA")] {
        let fresh = |event: &Event| event.kind == "session_rekeyed" && event.text.contains(what);
        wait_event(lab, Place::Client, &format!("a fresh {kind}"), fresh)?;
        ping(lab)?;
    }
    lab.evergate(Place::Client, &["session", "delete", "gw1.example"])?;
    let over = |event: &Event| event.kind == "session_down";
    wait_event(lab, GATEWAY, "the session is over", over)?;
    capture.finish(lab, Place::Client, name)
}

fn ping(lab: &Lab) -> Result<()> {
    let count = PINGS.to_string();
    let words = ["-c", &count, "-i", "0.02", TARGETS[1]];
    must_ping(lab, Place::Client, &words)
}

/// Certificates, messages in parts, bare ESP, heartbeats while there is silence.
fn plain_esp(lab: &mut Lab) -> Result<()> {
    let extra = "\n[ike]\nrekey_child = \"2s\"\nrekey_ike = \"5s\"\nfragment_size = 576\n\
                 \n[esp]\nproposals = [\"aes256gcm16-noesn\"]\n";
    let recording = recorded(
        lab,
        "certificates",
        &Setup {
            certificates: Some(KeyKind::Ecdsa),
            general: "Heartbeat = INSTANT\nHeartbeatDeferTime = 100ms\n\
                      HeartbeatResponseTime = 500ms\nStandby = 0\nRandomOrder = no\n"
                .into(),
            ..setup(extra)
        },
    )?;
    recording.must_be_sound()?;
    let messages = recording.messages()?;
    exchanges(&messages, true)?;
    packets(&recording, "ip.proto == 50")
}

/// Keys, ESP and IKE on port 4500, other ciphers.
fn in_udp(lab: &mut Lab) -> Result<()> {
    let extra = "\n[ike]\nrekey_child = \"2s\"\nrekey_ike = \"5s\"\nencap = \"always\"\n\
                 proposals = [\"aes128gcm16-prfsha384-ecp384\"]\n\
                 \n[esp]\nproposals = [\"aes128gcm16-noesn-ecp256\"]\n";
    let recording = recorded(lab, "in-udp", &setup(extra))?;
    recording.must_be_sound()?;
    let messages = recording.messages()?;
    exchanges(&messages, false)?;
    packets(&recording, "udp.port == 4500")
}

/// All that such a session consists of has been said, and could be read.
fn exchanges(messages: &[Message], certificates: bool) -> Result<()> {
    let said = |exchange: &str, response: bool, payloads: &[&str]| {
        let fits = |message: &&Message| {
            message.exchange == exchange
                && message.response == response
                && payloads.iter().all(|wanted| message.has(wanted))
        };
        ensure(messages.iter().any(|m| fits(&m)), || {
            let side = if response { "response" } else { "request" };
            format!("no {exchange} {side} with {payloads:?} in {messages:#?}")
        })
    };
    for response in [false, true] {
        said("IKE_SA_INIT", response, &["SA", "KE", "NONCE", "N"])?;
        let id = if response { "IDr" } else { "IDi" };
        let mut auth = vec![id, "AUTH", "SA", "TSi", "TSr", "CP"];
        if certificates {
            auth.push("CERT");
        }
        said("IKE_AUTH", response, &auth)?;
        said(
            "CREATE_CHILD_SA",
            response,
            &["SA", "NONCE", "KE", "TSi", "TSr"],
        )?;
        said("CREATE_CHILD_SA", response, &["SA", "NONCE", "KE"])?;
    }
    said("CREATE_CHILD_SA", false, &["N", "SA", "TSi"])?;
    said("INFORMATIONAL", false, &["D"])?;
    let ike = |m: &&Message| m.exchange == "CREATE_CHILD_SA" && !m.has("TSi");
    ensure(messages.iter().filter(ike).count() >= 2, || {
        format!("the IKE SA was not replaced in {messages:#?}")
    })?;
    let unread: Vec<_> = messages.iter().filter(|m| !m.is_read()).collect();
    ensure(unread.is_empty(), || format!("not read: {unread:#?}"))?;
    let parts = messages.iter().any(|m| m.parts > 1);
    ensure(parts == certificates, || {
        format!("messages in parts: {parts}")
    })
}

/// Every ESP packet is authentic, holds what was sent, and goes as it should.
fn packets(recording: &Recording, carried: &str) -> Result<()> {
    let echoes = recording.echoes()?;
    let enough = 3 * PINGS;
    ensure(
        echoes.requests >= enough && echoes.answers >= enough && echoes.spis >= 4,
        || format!("{echoes:?} of {PINGS} echo requests in each of three phases"),
    )?;
    let stray = recording.read(&format!("esp && !({carried})"), &["frame.number"])?;
    ensure(stray.is_empty(), || format!("not {carried}: {stray:?}"))
}

/// Nothing without the flag; with it until the operator has it end, and again from then on, with
/// what is there already.
fn switched(lab: &mut Lab) -> Result<()> {
    lab.configure(&Setup {
        keylog: false,
        ..setup("")
    })?;
    lab.start(GATEWAY)?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let refused = lab.try_evergate(Place::Client, &["debug", "keylog", "on"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure(
        refused.status.code() == Some(1) && said.contains("not started with `--keylog DIR`"),
        || format!("{}: {said}", refused.status),
    )?;
    ensure(!lab.keys(Place::Client).exists(), || {
        "there are keys".into()
    })?;
    lab.stop(Place::Client)?;
    lab.stop(GATEWAY)?;

    lab.configure(&setup(""))?;
    lab.start(GATEWAY)?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let lines = |lab: &Lab| -> Result<usize> {
        let dir = lab.keys(Place::Client);
        let mut count = 0;
        for file in ["ikev2_decryption_table", "esp_sa"] {
            let file = dir.join(file);
            let mode = std::fs::metadata(&file)?.permissions().mode() & 0o777;
            ensure(mode == 0o600, || {
                format!("{}: mode {mode:o}", file.display())
            })?;
            count += std::fs::read_to_string(file)?.lines().count();
        }
        Ok(count)
    };
    let of_a_session = 3;
    let found = lines(lab)?;
    ensure(found == of_a_session, || format!("{found} lines"))?;
    let status = lab.evergate(Place::Client, &["status"])?;
    ensure(status.contains("KEYLOG: the keys of ALL sessions"), || {
        status
    })?;
    lab.evergate(Place::Client, &["debug", "keylog", "off"])?;
    lab.evergate(Place::Client, &["session", "delete", "gw1.example"])?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let found = lines(lab)?;
    ensure(found == of_a_session, || {
        format!("{found} lines although it is off")
    })?;
    lab.evergate(Place::Client, &["debug", "keylog", "on"])?;
    let found = lines(lab)?;
    ensure(found >= 2 * of_a_session, || format!("{found} lines"))?;
    let told = |event: &&Event| event.kind == "keylog";
    let events = lab.events(Place::Client, 0)?;
    let told = events.iter().filter(told).count();
    ensure(told == 3, || format!("{told} events about it"))?;
    for log in [Place::Client, GATEWAY] {
        let said = std::fs::read_to_string(lab.log(log))?;
        ensure(said.contains("keys of ALL sessions"), || {
            format!("{log} does not warn: {said}")
        })?;
    }
    Ok(())
}
