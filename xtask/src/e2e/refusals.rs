//! What is refused: starts that can not work, and packets that nobody should send.

use super::{Case, active, ensure, in_order, must_ping, up, wait_event};
use crate::lab::topology::{CLIENT_OUTSIDE, GATEWAYS, TARGETS, gateway_outside};
use crate::lab::{Lab, Place, Setup};
use crate::probe::Knocking;
use anyhow::{Context, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("missing_interface_is_one_sentence", missing_interface),
    ("foreign_xdp_program_is_one_sentence", foreign_program),
    ("forged_packets_are_dropped_and_counted", forged_packets),
    ("spoofed_heartbeats_do_not_bounce", spoofed_heartbeats),
    ("flood_of_first_messages_keeps_nobody_out", first_messages),
];

fn missing_interface(lab: &mut Lab) -> Result<()> {
    let file = lab.dir().join("gw1.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("\"lan0\"", "\"nosuch0\""))?;
    refused(lab, "nosuch0")
}

fn foreign_program(lab: &mut Lab) -> Result<()> {
    let object = lab.dir().join("pass.o").display().to_string();
    let gateway = Place::Gateway(1);
    let words = [
        "ip", "link", "set", "wan0", "xdp", "obj", &object, "sec", "xdp",
    ];
    lab.exec(gateway, &words)?;
    let program = |lab: &Lab| -> Result<Option<String>> {
        let link = lab.exec(gateway, &["ip", "link", "show", "wan0"])?;
        Ok(link
            .lines()
            .find(|l| l.contains("prog/xdp"))
            .map(str::to_owned))
    };
    let before = program(lab)?.context("the foreign program is not attached")?;
    refused(lab, "wan0")?;
    let after = program(lab)?;
    ensure(after.as_deref() == Some(&before), || {
        format!("it was {before}, it is {after:?}")
    })
}

/// gw1 does not start, and its last line names the thing.
fn refused(lab: &mut Lab, thing: &str) -> Result<()> {
    let (status, said) = lab.start_refused(Place::Gateway(1))?;
    ensure(!status.success(), || {
        format!("it ended with {status}: {said}")
    })?;
    ensure(!said.contains("panicked"), || said.clone())?;
    let last = said
        .lines()
        .rfind(|l| !l.trim().is_empty())
        .unwrap_or_default();
    ensure(last.contains(thing), || {
        format!("the last line does not name {thing}: {said}")
    })
}

/// Unknown SPI, too short, an SPI of a session with a wrong ICV: each its own counter.
fn forged_packets(lab: &mut Lab) -> Result<()> {
    up(lab, &Setup::default())?;
    let number = active(lab)?;
    let gateway = Place::Gateway(number);
    let status = lab.status(gateway)?;
    let session = status
        .sessions
        .first()
        .context("the gateway has no session")?;
    let spi = session.spi_in.trim_start_matches("0x").to_owned();
    let forged = format!("{spi}00ffff00{}", "00".repeat(64));
    for (name, payload) in [
        (
            "unknown_spi",
            format!("0badc0de00000001{}", "00".repeat(64)),
        ),
        ("esp_short", "0000".to_owned()),
        ("bad_icv", forged),
    ] {
        let before = lab.status(gateway)?.counter(name);
        inject(lab, CLIENT_OUTSIDE, number, &payload, 5)?;
        lab.wait(
            &format!("the counter {name} rises by 5"),
            Duration::from_secs(2),
            |lab| Ok((lab.status(gateway)?.counter(name) >= before + 5).then_some(())),
        )?;
    }
    must_ping(lab, Place::Client, &[TARGETS[0]])
}

fn inject(lab: &Lab, from: &str, to: u8, payload: &str, count: u32) -> Result<()> {
    let own = crate::paths::own().display().to_string();
    let (to, count) = (gateway_outside(to).to_string(), count.to_string());
    let words = [
        &own,
        "inject",
        from,
        &to,
        "--protocol",
        "50",
        "--payload",
        payload,
    ];
    lab.exec(Place::Wan, &[&words[..], &["--count", &count]].concat())
        .map(drop)
}

/// Two gateways that are sent each other's heartbeats: the wire carries no more than was injected.
fn spoofed_heartbeats(lab: &mut Lab) -> Result<()> {
    const COUNT: u32 = 50;
    for accept in ["plain", "both", "keyed"] {
        let setup = Setup {
            accept: accept.into(),
            ..Setup::default()
        };
        lab.configure(&setup)?;
        for number in GATEWAYS {
            let file = lab.dir().join(format!("gw{number}.toml"));
            let text = std::fs::read_to_string(&file)?;
            if accept != "keyed" {
                // The worst set-up that an operator can write.
                let strangers = text.replace("accept =", "strangers = true\naccept =");
                std::fs::write(&file, strangers)?;
            }
            lab.start_gateway(number)?;
        }
        // The answer bit clear, and set.
        for sequence in ["00000007", "80000007"] {
            let payload = format!("ffffffff{sequence}{}", "ab".repeat(28));
            let before = carried(lab)?;
            for (from, to) in [(1, 2), (2, 1)] {
                let from = gateway_outside(from).to_string();
                inject(lab, &from, to, &payload, COUNT)?;
            }
            std::thread::sleep(Duration::from_millis(700));
            let from_gateways = carried(lab)?.saturating_sub(before);
            // One answer to each at most, and a handful of ARP; a loop is as many as the machine
            // can.
            ensure(from_gateways <= u64::from(2 * COUNT + 8), || {
                format!(
                    "accept = {accept:?}, sequence 0x{sequence}: the gateways sent \
                     {from_gateways} packets for {} spoofed ones",
                    2 * COUNT
                )
            })?;
        }
        for number in GATEWAYS {
            lab.kill(Place::Gateway(number))?;
        }
    }
    Ok(())
}

/// First messages of IKE from 130,000 addresses: the guard goes up, a client gets its session with
/// that gateway all the same, and the guard comes down when it is over.
fn first_messages(lab: &mut Lab) -> Result<()> {
    const RATE: u64 = 5_000;
    lab.configure(&in_order(0))?;
    let gateway = Place::Gateway(1);
    let file = lab.dir().join("gw1.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("{text}\n[ike]\nguard = 500\n"))?;
    for number in GATEWAYS {
        lab.start_gateway(number)?;
    }
    let flood = Knocking::start(lab, gateway_outside(1), RATE)?;
    wait_event(lab, gateway, "the flood is told", |e| {
        e.text.contains("the guard is up")
    })?;
    // What was half open before is still being judged: the client comes into the thick of it.
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    ensure(active(lab)? == 1, || {
        "gw1 did not authenticate the client in the flood".into()
    })?;
    let asked = |lab: &Lab| Ok::<_, anyhow::Error>(lab.status(gateway)?.counter("ike_asked"));
    let before = asked(lab)?;
    std::thread::sleep(Duration::from_secs(2));
    let answered = asked(lab)?.saturating_sub(before);
    ensure(answered > RATE, || {
        format!(
            "the guard asked {answered} of about {} first messages in 2 s",
            2 * RATE
        )
    })?;
    let sent = flood.finish()?;
    ensure(sent > RATE, || format!("{sent} first messages were sent"))?;
    let passed = lab.status(gateway)?.counter("ike_cookie");
    ensure((1..20).contains(&passed), || {
        format!("{passed} messages with a right cookie passed, expected the client's alone")
    })?;
    wait_event(lab, gateway, "the end of the flood is told", |e| {
        e.text.contains("the guard is down")
    })?;
    must_ping(lab, Place::Client, &[TARGETS[0]])
}

/// Packets that gw1 and gw2 have put on the wire outside.
fn carried(lab: &Lab) -> Result<u64> {
    let mut sum = 0;
    for port in ["gw1", "gw2"] {
        let path = format!("/sys/class/net/{port}/statistics/rx_packets");
        let text = lab.exec(Place::Wan, &["cat", &path])?;
        sum += text
            .trim()
            .parse::<u64>()
            .context("rx_packets is no number")?;
    }
    Ok(sum)
}
