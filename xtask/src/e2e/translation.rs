//! Messages of IKE that get to the authority by address translation: by the edges' inside interfaces, and by one
//! of their own.

use super::sharing::{one_session, spis, up};
use super::{Case, ensure, must_be_whole, must_ping, wait_event};
use crate::lab::sharing::{AUTHORITY, Negotiation, Sharing};
use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Lab, Place};
use crate::probe::Stream;
use anyhow::Result;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("sharing_by_address_translation", translated),
    (
        "sharing_by_address_translation_on_an_interface_of_its_own",
        apart,
    ),
    (
        "sharing_by_address_translation_refuses_what_cannot_work",
        refuses,
    ),
];

fn translated(lab: &mut Lab) -> Result<()> {
    negotiates(lab, Negotiation::Translation)
}

fn apart(lab: &mut Lab) -> Result<()> {
    negotiates(lab, Negotiation::TranslationApart)
}

/// A client connects while its packets come now to this edge and now to that, moves between edges, gets fresh keys
/// by each, and no message of it goes by the channel.
fn negotiates(lab: &mut Lab, negotiation: Negotiation) -> Result<()> {
    let ike = "\n[ike]\nrekey_child = \"2s\"\n";
    let sharing = Sharing {
        negotiation,
        extra: ike.into(),
        authority_extra: ike.into(),
        ..Sharing::default()
    };
    lab.share(&sharing)?;
    lab.start(Place::Client)?;
    let ping = format!("ping -n -i 0.2 -w 3 {} >/dev/null 2>&1 &", TARGETS[0]);
    lab.exec(Place::Client, &["sh", "-c", &ping])?;
    for round in 0..30_u8 {
        lab.bring_to(round % 3 + 1)?;
    }
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let stream = Stream::start(lab)?;
    for number in GATEWAYS {
        lab.bring_to(number)?;
        let seen = |lab: &Lab| -> Result<[u64; 2]> {
            let status = lab.status(Place::Gateway(number))?;
            Ok(["ike_translated", "ike_returned"].map(|name| status.counter(name)))
        };
        let (before, keys) = (seen(lab)?, spis(lab)?);
        lab.wait(
            &format!("fresh keys by gw{number}"),
            Duration::from_secs(10),
            |lab| {
                let now = seen(lab)?;
                let both = now.iter().zip(&before).all(|(now, before)| now > before);
                Ok((both && spis(lab)? != keys).then_some(()))
            },
        )?;
    }
    // In the middle of exchanges too.
    for round in 0..20_u8 {
        std::thread::sleep(Duration::from_millis(150));
        lab.bring_to(round % 3 + 1)?;
    }
    must_be_whole(lab, stream)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    one_session(lab)?;
    // The authority knows by which way they came.
    let edges = lab.status(AUTHORITY)?.edges;
    let right = edges.iter().filter(|e| e.relayed == 0 && e.translated > 0);
    ensure(right.count() == GATEWAYS.len(), || format!("{edges:?}"))?;
    let translated: u64 = edges.iter().map(|edge| edge.translated).sum();
    // Without an authority nothing goes on.
    lab.kill(AUTHORITY)?;
    lab.wait(
        "messages for an authority that is gone are dropped",
        Duration::from_secs(15),
        |lab| {
            let mut dropped = 0;
            for number in GATEWAYS {
                let status = lab.status(Place::Gateway(number))?;
                dropped += status.counter("ike_no_authority");
            }
            Ok((dropped > 0).then_some(()))
        },
    )?;
    print!("{translated} messages translated … ");
    Ok(())
}

/// What can not work is told: a kernel that would drop answers, and addresses that two ends do not agree about.
fn refuses(lab: &mut Lab) -> Result<()> {
    let sharing = Sharing {
        negotiation: Negotiation::Translation,
        ..Sharing::default()
    };
    up(lab, &sharing)?;
    lab.stop(Place::Gateway(1))?;
    let forged = "echo 0 > /proc/sys/net/ipv4/conf/lan0/accept_local";
    lab.exec(Place::Gateway(1), &["sh", "-c", forged])?;
    let (status, said) = lab.start_refused(Place::Gateway(1))?;
    let expected = "expected net.ipv4.conf.lan0.accept_local = 1, found 0";
    ensure(!status.success() && said.contains(expected), || said)?;
    lab.stop(Place::Gateway(2))?;
    let file = lab.dir().join("gw2.toml");
    let (right, wrong) = ("\"10.0.0.22\"", "\"10.0.0.99\"");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace(right, wrong))?;
    lab.start_gateway(2)?;
    let told = |text: &str| text.contains("10.0.0.99") && text.contains("expected 10.0.0.22");
    wait_event(lab, AUTHORITY, "gw2 is told to be wrong", |event| {
        event.kind == "edge_refused" && told(&event.text)
    })?;
    Ok(())
}
