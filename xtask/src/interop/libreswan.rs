//! Negotiation and fresh keys with libreswan, in both roles. The kernel of the build machines has no
//! ESP, which libreswan needs: what is compared instead of traffic is the keys that both would use.

use super::GATEWAY;
use super::matrix::Side;
use super::pluto::{self, CONNECTION, Pluto};
use crate::cases::Case;
use crate::lab::topology::{CLIENT_INNER, CLIENT_OUTSIDE, TARGETS, gateway_outside};
use crate::lab::{Event, KeyKind, Lab, Place, Setup};
use crate::tshark::Capture;
use anyhow::{Result, ensure};
use std::collections::HashMap;
use std::time::Duration;

/// One case.
#[derive(Clone, Copy)]
struct Row {
    begins: Side,
    certificates: bool,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (certificates, auth) in [(false, "psk"), (true, "ecdsa")] {
        for (begins, who) in [(Side::Us, "evergate"), (Side::Them, "libreswan")] {
            let row = Row {
                begins,
                certificates,
            };
            cases.push(Case {
                name: format!("{}_libreswan_{auth}_{who}_begins", super::NAME),
                run: Box::new(move |lab| session(lab, row)),
            });
        }
    }
    cases
}

fn session(lab: &mut Lab, row: Row) -> Result<()> {
    let ours = match row.begins {
        Side::Us => Place::Client,
        Side::Them => GATEWAY,
    };
    live(lab, row, ours).map_err(|error| {
        let log = std::fs::read_to_string(lab.log(pluto::LOG)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(25)..].join("\n      ");
        error.context(format!(
            "pluto said\n      {tail}\n    evergate ({ours}) said\n      {}\n    and",
            lab.log_tail(ours).replace("\n  ", "\n      ")
        ))
    })
}

fn live(lab: &mut Lab, row: Row, ours: Place) -> Result<()> {
    let setup = Setup {
        general: "Heartbeat = NONE\nStandby = 0\nRandomOrder = no\n".into(),
        cluster: vec![1],
        certificates: row.certificates.then_some(KeyKind::Ecdsa),
        keylog: true,
        extra: "\n[ike]\nrekey_child = \"6s\"\nrekey_ike = \"11s\"\nrekey_jitter = 0\nliveness = \"2s\"\n\
                \n[esp]\nproposals = [\"aes256gcm16-noesn-x25519\"]\n"
            .into(),
        ..Setup::default()
    };
    lab.configure(&setup)?;
    // Its selectors are prefixes.
    lab.write_policy(
        &setup
            .policy()
            .replace("10.0.0.1 – 10.0.0.3", "10.0.0.0 – 10.0.0.127"),
    )?;
    let psk = std::fs::read_to_string(lab.dir().join("gw1.psk"))?;
    let psk = (!row.certificates).then_some(psk.trim());
    let capture = Capture::start(lab)?;
    let conf = connection(row);
    let pluto = match row.begins {
        Side::Us => {
            let pluto = Pluto::start(lab, GATEWAY, &conf, psk)?;
            lab.start(Place::Client)?;
            // Nobody answers: what is sent is wanted by traffic alone.
            lab.try_exec(Place::Client, &["ping", "-n", "-c1", "-W1", TARGETS[0]])?;
            pluto
        }
        Side::Them => {
            lab.start(GATEWAY)?;
            let pluto = Pluto::start(lab, Place::Client, &conf, psk)?;
            pluto.whack(lab, &["--name", CONNECTION, "--initiate"])?;
            pluto
        }
    };
    told(lab, ours, "session_up", "", 1)?;
    same_keys(lab, ours, &pluto, 2)?;
    // Each kind of fresh keys, begun by libreswan, and then by us, when the time has come.
    pluto.whack(lab, &["--name", CONNECTION, "--rekey-ipsec"])?;
    told(lab, ours, "session_rekeyed", "pair of SAs", 1)?;
    pluto.whack(lab, &["--name", CONNECTION, "--rekey-ike"])?;
    told(lab, ours, "session_rekeyed", "IKE SA", 1)?;
    same_keys(lab, ours, &pluto, 4)?;
    told(lab, ours, "session_rekeyed", "pair of SAs", 2)?;
    told(lab, ours, "session_rekeyed", "IKE SA", 2)?;
    told(lab, ours, "session_rekeyed", "pair of SAs", 3)?;
    same_keys(lab, ours, &pluto, 8)?;
    // What is replaced is deleted; the session stands all the time.
    lab.wait("one of each is left", Duration::from_secs(10), |lab| {
        Ok((pluto.states(lab)? == (1, 1)).then_some(()))
    })?;
    let ended = lab
        .events(ours, 0)?
        .into_iter()
        .find(|e| e.kind == "session_down");
    ensure!(ended.is_none(), "a session ended: {ended:?}");
    let why = match row.begins {
        Side::Us => {
            pluto.whack(lab, &["--name", CONNECTION, "--terminate"])?;
            "deleted by the peer"
        }
        Side::Them => {
            lab.evergate(ours, &["session", "delete", "client.example"])?;
            "deleted by the operator"
        }
    };
    told(lab, ours, "session_down", why, 1)?;
    // Whoever has lost the session begins another one, sooner than one could look.
    let told_there = match row.begins {
        Side::Us => "and sending notification",
        Side::Them => "which received a Delete/Notify",
    };
    lab.wait("libreswan knows too", Duration::from_secs(5), |lab| {
        let log = std::fs::read_to_string(lab.log(pluto::LOG))?;
        Ok(log.contains(told_there).then_some(()))
    })?;
    Pluto::must_not_complain(lab)?;
    let auth = if row.certificates { "ecdsa" } else { "psk" };
    let recording = capture.finish(lab, ours, &format!("libreswan-{auth}-{ours}"))?;
    recording.must_be_sound()?;
    let messages = recording.messages()?;
    let unread: Vec<_> = messages.iter().filter(|m| !m.is_read()).collect();
    ensure!(unread.is_empty(), "tshark could not read {unread:#?}");
    // An empty INFORMATIONAL request asks whether the other one lives.
    let asked = messages
        .iter()
        .any(|m| m.exchange == "INFORMATIONAL" && !m.response && !m.has("D"));
    ensure!(asked, "nobody was asked whether it lives: {messages:#?}");
    Ok(())
}

/// Every SA of ours has at libreswan the same key, and there are at least so many.
fn same_keys(lab: &Lab, ours: Place, pluto: &Pluto, least: usize) -> Result<()> {
    lab.wait(
        &format!("the same {least} keys at both ends"),
        Duration::from_secs(5),
        |lab| {
            let own = std::fs::read_to_string(lab.keys(ours).join("esp_sa"))?;
            let own: HashMap<String, String> = own
                .lines()
                .filter_map(|line| {
                    let mut cells = line.split(',').map(|cell| cell.trim_matches('"'));
                    Some((cells.nth(3)?.to_owned(), cells.nth(1)?.to_owned()))
                })
                .collect();
            let theirs = pluto.keys()?;
            ensure!(
                own == theirs && own.len() >= least,
                "SAs here: {:?}, there: {:?}",
                own.keys(),
                theirs.keys()
            );
            Ok(Some(()))
        },
    )
}

fn told(lab: &Lab, place: Place, kind: &str, words: &str, times: usize) -> Result<()> {
    lab.wait(
        &format!("{place} tells of {kind} ({words}), {times} times"),
        Duration::from_secs(20),
        |lab| {
            let events = lab.events(place, 0)?;
            let fits = |e: &&Event| e.kind == kind && e.text.contains(words);
            Ok((events.iter().filter(fits).count() >= times).then_some(()))
        },
    )
}

/// `ipsec.conf`: evergate's client or gateway is the right side.
fn connection(row: Row) -> String {
    let (auth, certificate) = match row.certificates {
        true => ("ecdsa", "\n    leftcert=own\n    rightca=%same"),
        false => ("secret", ""),
    };
    let gateway = gateway_outside(1);
    let ends = match row.begins {
        Side::Us => format!(
            "left={gateway}
    leftid=@gw1.example
    leftsubnet=10.0.0.0/25
    leftmodecfgserver=yes
    right={CLIENT_OUTSIDE}
    rightid=@client.example
    rightaddresspool={CLIENT_INNER}-{CLIENT_INNER}
    rightmodecfgclient=yes"
        ),
        Side::Them => format!(
            "left={CLIENT_OUTSIDE}
    leftid=@client.example
    leftmodecfgclient=yes
    leftsubnet=0.0.0.0/0
    right={gateway}
    rightid=@gw1.example
    rightsubnet=10.0.0.0/24
    rightmodecfgserver=yes
    narrowing=yes"
        ),
    };
    format!(
        "config setup
    plutodebug=none
conn {CONNECTION}
    ikev2=insist
    authby={auth}{certificate}
    {ends}
    ike=aes_gcm256-sha2_256-dh31
    esp=aes_gcm256;dh31
    esn=no
    leftupdown=/bin/true
    rightupdown=/bin/true
    dpddelay=3
    dpdaction=clear
    auto=ignore
"
    )
}
