//! Paths that carry less than their first link.

use super::{Case, active, ensure, in_order, must_ping, ping, up, wait_event};
use crate::lab::topology::{CLIENT_INNER, TARGETS};
use crate::lab::{Lab, Offloads, Place, Setup, Status};
use crate::probe::Stream;
use crate::traffic::transfer;
use anyhow::{Context, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("mtu_icmp_is_followed", icmp_is_followed),
    ("mtu_icmp_is_followed_v6", icmp_is_followed_v6),
    ("mtu_icmp_is_confirmed", icmp_is_confirmed),
    ("mtu_black_hole_is_found", black_hole_is_found),
    ("mtu_probes_without_xdp", probes_without_xdp),
    ("mtu_fragments_of_esp_are_put_together", fragments_of_esp),
    ("mtu_fragments_of_udp_are_put_together", fragments_of_udp),
];

/// What the path carries in these cases.
const NARROW: u32 = 1400;

/// Lets the router send nothing longer in either direction, and say so by ICMP.
fn narrow(lab: &Lab) -> Result<()> {
    narrow_to(lab, NARROW)
}

fn narrow_to(lab: &Lab, mtu: u32) -> Result<()> {
    let script = format!(
        "set -e
ip route replace 192.0.2.0/24 dev br0 proto kernel scope link src 192.0.2.254 mtu lock {mtu}
ip route replace 198.51.100.0/24 dev client proto kernel scope link src 198.51.100.1 mtu lock {mtu}
ip -6 route replace 2001:db8:2::/64 dev br0 proto kernel metric 256 mtu lock {mtu}
ip -6 route replace 2001:db8:1::/64 dev client proto kernel metric 256 mtu lock {mtu}
"
    );
    lab.exec(Place::Wan, &["sh", "-c", &script]).map(drop)
}

/// Lets the router drop everything longer, and say nothing.
fn swallow(lab: &Lab) -> Result<()> {
    lab.wan_rules(&format!(
        "flush ruleset
table inet filter {{
  chain through {{
    type filter hook forward priority filter
    meta length > {NARROW} counter drop
  }}
}}
"
    ))
}

/// What a node knows of the path to its peer, of the session in use.
fn path(status: &Status) -> Option<(u32, &str)> {
    let session = status.sessions.iter().find(|session| session.active)?;
    Some((session.path_mtu, session.path_state.as_str()))
}

fn wait_path(lab: &Lab, place: Place, wanted: (u32, &str), timeout: Duration) -> Result<()> {
    let (size, state) = wanted;
    let mut last = None;
    lab.wait(
        &format!("{place}: a path of {size} bytes, {state}"),
        timeout,
        |lab| {
            let status = lab.status(place)?;
            last = path(&status).map(|(size, state)| (size, state.to_owned()));
            Ok((path(&status) == Some(wanted)).then_some(()))
        },
    )
    .with_context(|| format!("{place} knew {last:?} in the end"))
}

/// Waits until the client's search has ended with this size.
fn wait_searched(lab: &Lab, size: u32, seconds: u64) -> Result<()> {
    let timeout = Duration::from_secs(seconds);
    wait_path(lab, Place::Client, (size, "complete"), timeout)
}

/// The longest inner packet, and one byte more, which must not be fragmented.
fn carries(lab: &Lab, from: Place, to: &[&str], inner: u32) -> Result<()> {
    let size = (inner - 28).to_string();
    let words = [&["-M", "do", "-s", &size], to].concat();
    must_ping(lab, from, &words)?;
    let size = (inner - 27).to_string();
    let words = [&["-M", "do", "-s", &size], to].concat();
    let (answered, said) = ping(lab, from, &words)?;
    ensure(!answered, || {
        format!("one byte too many from {from}: {said}")
    })
}

fn icmp_is_followed(lab: &mut Lab) -> Result<()> {
    // 20 bytes of header, 32 of ESP, a multiple of 4, and 2.
    follows(lab, false, (NARROW - 52) / 4 * 4 - 2)
}

fn icmp_is_followed_v6(lab: &mut Lab) -> Result<()> {
    follows(lab, true, (NARROW - 72) / 4 * 4 - 2)
}

fn follows(lab: &mut Lab, outside_v6: bool, inner: u32) -> Result<()> {
    let setup = Setup {
        outside_v6,
        client_outside: None,
        path_mtu: Some("follow"),
        ..in_order(0)
    };
    up(lab, &setup)?;
    let gateway = Place::Gateway(active(lab)?);
    wait_path(
        lab,
        Place::Client,
        (1500, "followed"),
        Duration::from_secs(5),
    )?;
    let (there, back) = (&[TARGETS[0]][..], &["-I", TARGETS[0], CLIENT_INNER][..]);
    let full = ["-M", "do", "-s", "1390"];
    must_ping(lab, Place::Client, &[&full[..], there].concat())?;
    must_ping(lab, Place::Target, &[&full[..], back].concat())?;
    narrow(lab)?;
    // The way there, then the way back: the gateway has sent nothing long since.
    for (place, node, way) in [
        (Place::Client, Place::Client, there),
        (Place::Target, gateway, back),
    ] {
        let (answered, said) = ping(lab, place, &[&full[..], way].concat())?;
        ensure(!answered, || format!("from {place}: {said}"))?;
        wait_path(lab, node, (NARROW, "followed"), Duration::from_secs(5))?;
        wait_event(lab, node, "the path is narrower", |event| {
            event.kind == "path_mtu"
        })?;
        let heard = lab.status(node)?.counter("icmp_heard");
        ensure(heard > 0, || format!("{node} heard no ICMP"))?;
    }
    for (place, way) in [(Place::Client, there), (Place::Target, back)] {
        carries(lab, place, way, inner)?;
    }
    Ok(())
}

/// With probes what ICMP said is confirmed, and the gateway is told.
fn icmp_is_confirmed(lab: &mut Lab) -> Result<()> {
    up(lab, &in_order(0))?;
    let gateway = Place::Gateway(active(lab)?);
    wait_searched(lab, 1500, 5)?;
    narrow(lab)?;
    let full = ["-M", "do", "-s", "1390", TARGETS[0]];
    let (answered, said) = ping(lab, Place::Client, &full)?;
    ensure(!answered, || said)?;
    wait_searched(lab, NARROW, 10)?;
    wait_path(lab, gateway, (NARROW, "followed"), Duration::from_secs(5))?;
    let status = lab.status(Place::Client)?;
    let (sent, answered) = (
        status.counter("mtu_probe_sent"),
        status.counter("mtu_probe_answered"),
    );
    ensure(sent > answered && answered >= 2, || {
        format!("{sent} probes sent, {answered} answered")
    })
}

/// Gateways that are slow to answer are no matter of these cases: on a busy machine one without XDP would be
/// left, and the search begin anew.
fn patient() -> Setup {
    Setup {
        general: "Heartbeat = INSTANT\nHeartbeatDeferTime = 20ms\nHeartbeatResponseTime = 300ms\n\
                  Standby = 0\nRandomOrder = no\n"
            .into(),
        ..Setup::default()
    }
}

fn black_hole_is_found(lab: &mut Lab) -> Result<()> {
    black_hole(lab, &patient())
}

fn probes_without_xdp(lab: &mut Lab) -> Result<()> {
    // The router must see packets as they are on a wire.
    lab.set_offloads(Offloads::None)?;
    let ends = [1, 2, 3].map(|number| (Place::Gateway(number), "wan0"));
    for (place, interface) in ends.into_iter().chain([(Place::Client, "out0")]) {
        lab.exec(
            place,
            &["ethtool", "-K", interface, "tx-udp-segmentation", "off"],
        )?;
    }
    let setup = Setup {
        without_xdp: true,
        ..patient()
    };
    black_hole(lab, &setup)
}

/// Long packets vanish in mid-flow, in both directions: a connection goes on.
fn black_hole(lab: &mut Lab, setup: &Setup) -> Result<()> {
    up(lab, setup)?;
    let gateway = Place::Gateway(active(lab)?);
    wait_searched(lab, 1500, 5)?;
    let stream = Stream::start(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    swallow(lab)?;
    wait_searched(lab, NARROW, 40)?;
    wait_path(lab, gateway, (NARROW, "followed"), Duration::from_secs(5))?;
    std::thread::sleep(Duration::from_secs(4));
    let before = lab.status(Place::Client)?.counter("esp_opened");
    std::thread::sleep(Duration::from_secs(1));
    let after = lab.status(Place::Client)?.counter("esp_opened");
    let report = stream.finish()?;
    ensure(report.error.is_none(), || format!("{report:?}"))?;
    // It sends 0.8 MB a second, some hundred packets.
    ensure(after > before + 100, || {
        format!(
            "{} packets in a second after the path was found: {report:?}",
            after - before
        )
    })?;
    ensure(lab.status(Place::Client)?.active() == Some(1), || {
        "long packets that are lost are no dead gateway".into()
    })
}

fn fragments_of_esp(lab: &mut Lab) -> Result<()> {
    fragments(lab, "ip protocol esp", "")
}

fn fragments_of_udp(lab: &mut Lab) -> Result<()> {
    fragments(lab, "udp dport 4500", "\n[ike]\nencap = \"always\"\n")
}

/// A router takes the don't-fragment bit off and cuts what is too long, in both directions.
fn fragments(lab: &mut Lab, what: &str, extra: &str) -> Result<()> {
    let setup = Setup {
        path_mtu: Some("follow"),
        extra: extra.into(),
        ..in_order(0)
    };
    up(lab, &setup)?;
    let gateway = Place::Gateway(active(lab)?);
    lab.wan_rules(&format!(
        "flush ruleset
table ip mangle {{
  chain through {{
    type filter hook prerouting priority -300
    {what} ip frag-off set 0
  }}
}}
"
    ))?;
    narrow_to(lab, 1300)?;
    for place in [Place::Client, Place::Target] {
        let way = match place {
            Place::Client => &[TARGETS[0]][..],
            _ => &["-I", TARGETS[0], CLIENT_INNER][..],
        };
        let words = [&["-M", "do", "-s", "1390"][..], way].concat();
        must_ping(lab, place, &words)?;
    }
    transfer(lab, TARGETS[0], 2, &[])?;
    transfer(lab, TARGETS[0], 2, &["-R"])?;
    for place in [Place::Client, gateway] {
        let status = lab.status(place)?;
        let (whole, icmp) = (
            status.counter("esp_reassembled"),
            status.counter("icmp_heard"),
        );
        ensure(whole > 100 && icmp == 0, || {
            format!("{place}: {whole} packets put together, {icmp} ICMP errors")
        })?;
        ensure(status.counter("esp_fragment") == 0, || {
            format!("{place} dropped fragments")
        })?;
    }
    Ok(())
}
