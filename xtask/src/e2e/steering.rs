//! Gateways that share one outside address, and a router that brings packets to the wrong one.

use super::{Case, ensure, general, must_be_whole, must_ping, ping};
use crate::lab::topology::TARGETS;
use crate::lab::{Lab, Place, Setup, Status};
use crate::probe::Stream;
use anyhow::{Context, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("steering_on_the_segment", on_the_segment),
    ("steering_in_ip", in_ip),
    ("steering_with_two_workers", two_workers),
    (
        "steering_of_a_dead_gateway_s_packets_ends_in_a_session_elsewhere",
        dead_owner,
    ),
];

/// The address that the gateways share.
const SHARED: &str = "192.0.2.100";
const SHARING: [u8; 2] = [1, 2];

/// How packets get from one gateway to the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Segment,
    Ip,
}

/// gw1 and gw2 behind one address, as one gateway for the client, whose packets the router brings to gw1.
fn shared(lab: &mut Lab, way: Way, workers: u32) -> Result<()> {
    if workers > 1 {
        lab.rebuild(workers)?;
    }
    let setup = Setup {
        cluster: vec![1],
        general: general(0, false),
        extra: format!("\n[ike]\nrekey_child = \"3s\"\n\n[esp]\nworkers = {workers}\n"),
        ..Setup::default()
    };
    lab.configure(&setup)?;
    lab.write_policy(&setup.policy().replace("192.0.2.1", SHARED))?;
    let dir = lab.dir().to_path_buf();
    let file = |name: &str, change: &dyn Fn(String) -> String| -> Result<()> {
        let path = dir.join(name);
        let text = std::fs::read_to_string(&path)?;
        Ok(std::fs::write(&path, change(text))?)
    };
    file("client.toml", &|text| {
        // Room for a second IP header on the way between the gateways.
        text.replacen(
            "outside = \"192.0.2.1\"",
            &format!("outside = \"{SHARED}\""),
            1,
        )
        .replace("interface = \"eg0\"", "interface = \"eg0\"\nmtu = 1400")
    })?;
    for number in SHARING {
        let own = format!("192.0.2.{number}");
        file(&format!("gw{number}.toml"), &|text| {
            let other = 3 - number;
            let text = text
                .replace(
                    &format!("address = \"{own}\""),
                    &format!("address = \"{SHARED}\""),
                )
                .replace(
                    &format!("identity = \"gw{number}.example\""),
                    "identity = \"gw1.example\"",
                )
                .replace(&format!("gw{number}-held.psk"), "gw1-held.psk");
            format!(
                "{text}\n[steering]\nnumber = {number}\naddress = \"{own}\"\n\n[[steering.gateway]]\n\
                 number = {other}\naddress = \"192.0.2.{other}\"\n"
            )
        })?;
        let place = Place::Gateway(number);
        let address = format!("{SHARED}/32");
        lab.exec(place, &["ip", "addr", "add", &address, "dev", "lo"])?;
        // Nobody learns the shared address by ARP.
        let quiet = "echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce\n\
                     echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore";
        lab.exec(place, &["sh", "-c", quiet])?;
        if way == Way::Ip {
            // As if the other one were elsewhere.
            let other = format!("192.0.2.{}/32", 3 - number);
            lab.exec(place, &["ip", "route", "add", &other, "via", "192.0.2.254"])?;
        }
    }
    bring_to(lab, 1)?;
    for number in SHARING {
        lab.start_gateway(number)?;
    }
    for number in SHARING {
        let text = match way {
            Way::Segment => "on the segment",
            Way::Ip => "in IP of at most 1500 bytes",
        };
        let place = Place::Gateway(number);
        super::wait_event(lab, place, "it knows the way to the other one", |event| {
            event.kind == "steering" && event.text.contains(text)
        })?;
    }
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))
}

/// From now on the router brings what is for the shared address to this gateway.
fn bring_to(lab: &Lab, number: u8) -> Result<()> {
    let (shared, via) = (format!("{SHARED}/32"), format!("192.0.2.{number}"));
    let words = ["ip", "route", "replace", &shared, "via", &via];
    lab.exec(Place::Wan, &words).map(drop)
}

/// The gateway's number in the SPI that the client sends on.
fn owner(status: &Status) -> Result<u8> {
    let session = status
        .sessions
        .first()
        .context("the client has no session")?;
    let digits = session.spi_out.trim_start_matches("0x");
    let spi = u32::from_str_radix(digits, 16).with_context(|| session.spi_out.clone())?;
    Ok((spi >> 26) as u8)
}

/// Packets, heartbeats and IKE of one session, all brought to the wrong gateway from its middle on.
fn brought_elsewhere(lab: &mut Lab, way: Way, workers: u32) -> Result<()> {
    shared(lab, way, workers)?;
    let (right, wrong) = (Place::Gateway(1), Place::Gateway(2));
    let before = lab.status(Place::Client)?;
    ensure(owner(&before)? == 1, || format!("not gw1's: {before:?}"))?;

    let stream = Stream::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    bring_to(lab, 2)?;
    // Long enough for new keys, which the client or the gateway asks for.
    lab.wait(
        "the session has new keys, negotiated by way of the wrong gateway",
        Duration::from_secs(10),
        |lab| {
            let status = lab.status(Place::Client)?;
            let rekeyed = status.sessions.first().map(|s| &s.spi_out)
                != before.sessions.first().map(|s| &s.spi_out);
            Ok(rekeyed.then_some(()))
        },
    )?;
    std::thread::sleep(Duration::from_millis(500));
    must_be_whole(lab, stream)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;

    // Silence is asked about, and the owner answers.
    lab.exec(
        Place::Target,
        &["ip", "addr", "del", "10.0.0.3/24", "dev", "eth0"],
    )?;
    let (answered, said) = ping(lab, Place::Client, &["-c20", "-i0.05", TARGETS[2]])?;
    ensure(!answered, || format!("who answers? {said}"))?;
    let count = |place, name: &str| -> Result<u64> { Ok(lab.status(place)?.counter(name)) };
    let (sent, other) = match way {
        Way::Segment => ("steer_sent", "steer_wrapped"),
        Way::Ip => ("steer_wrapped", "steer_sent"),
    };
    let told = lab.wait("heartbeats were answered", Duration::from_secs(2), |lab| {
        let told = lab.status(right)?.counter("heartbeat_steered");
        Ok((told > 0).then_some(told))
    })?;
    let heard = count(Place::Client, "heartbeat_heard")?;
    ensure(heard > 0, || "the client heard no answer".into())?;
    let steered = count(wrong, sent)?;
    ensure(steered > 100 && count(wrong, other)? == 0, || {
        format!("{steered} packets {sent}")
    })?;
    let arrived = count(right, "steer_unwrapped")?;
    let arrives = match way {
        Way::Segment => arrived == 0,
        Way::Ip => arrived > 100,
    };
    ensure(arrives, || format!("{arrived} were taken out of IP"))?;
    for place in [right, wrong] {
        for name in ["steer_astray", "steer_silent", "steer_too_big", "steer_ttl"] {
            let dropped = count(place, name)?;
            // In IP there is less room than the route says: that is what probes of the path are for.
            let probes = match (way, name) {
                (Way::Ip, "steer_too_big") => 16,
                _ => 0,
            };
            ensure(dropped <= probes, || format!("{place}: {dropped} {name}"))?;
        }
    }
    // It is one session all the time, and gw1's.
    let after = lab.status(Place::Client)?;
    ensure(
        owner(&after)? == 1 && lab.status(wrong)?.sessions.is_empty(),
        || format!("{after:?}"),
    )?;
    let dead = lab.events(Place::Client, 0)?;
    ensure(
        dead.iter().all(|event| event.kind != "gateway_dead"),
        || "the client took the gateway for dead".into(),
    )?;
    print!("{steered} packets steered, {told} heartbeats answered … ");
    Ok(())
}

fn on_the_segment(lab: &mut Lab) -> Result<()> {
    brought_elsewhere(lab, Way::Segment, 1)
}

fn in_ip(lab: &mut Lab) -> Result<()> {
    brought_elsewhere(lab, Way::Ip, 1)
}

/// A heartbeat is answered by the worker that has its session, whichever gets it.
fn two_workers(lab: &mut Lab) -> Result<()> {
    brought_elsewhere(lab, Way::Segment, 2)
}

/// What belongs to a dead gateway is dropped; the client notices, and its next session is the other one's.
fn dead_owner(lab: &mut Lab) -> Result<()> {
    shared(lab, Way::Segment, 1)?;
    bring_to(lab, 2)?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    lab.kill(Place::Gateway(1))?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(20))?;
    let status = lab.status(Place::Client)?;
    ensure(owner(&status)? == 2, || format!("not gw2's: {status:?}"))
}
