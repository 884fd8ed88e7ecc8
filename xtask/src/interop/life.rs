//! Reauthentication with charon: whoever has begun a session begins it anew, before the old one goes.

use super::charon::{self, Charon};
use super::conf::with_psk;
use super::{GATEWAY, NAME, for_stock_gateway};
use crate::cases::Case;
use crate::lab::topology::{CLIENT_OUTSIDE, TARGETS, gateway_outside};
use crate::lab::{Lab, Place, Setup};
use crate::probe::Stream;
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// All cases of this kind.
pub(super) fn cases() -> Vec<Case> {
    type Run = fn(&mut Lab) -> Result<()>;
    let all: [(&str, Run); 3] = [
        ("strongswan_begins_strongswan_reauthenticates", theirs),
        ("evergate_begins_evergate_reauthenticates", ours),
        ("evergate_begins_strongswan_says_when", told),
    ];
    let cases = all.map(|(name, run)| Case {
        name: format!("{NAME}_{name}"),
        run: Box::new(run),
    });
    cases.into()
}

fn setup(ike: &str) -> Setup {
    Setup {
        general: "Heartbeat = NONE\nStandby = 0\nRandomOrder = no\n".into(),
        cluster: vec![1],
        extra: format!("\n[ike]\n{ike}\n"),
        ..Setup::default()
    }
}

fn psk(lab: &Lab) -> Result<String> {
    let text = std::fs::read_to_string(lab.dir().join("gw1.psk"))?;
    Ok(text.trim().to_owned())
}

/// The stream's bytes arrive while at least `most` sessions come about, one after the other.
fn renewed(lab: &Lab, ours: Place, at_least: usize) -> Result<()> {
    let stream = Stream::start(lab)?;
    let count = |lab: &Lab| -> Result<usize> {
        let events = lab.events(ours, 0)?;
        Ok(events.iter().filter(|e| e.kind == "session_up").count())
    };
    let before = count(lab)?;
    lab.wait("sessions are begun anew", Duration::from_secs(40), |lab| {
        Ok((count(lab)? >= before + at_least).then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(1));
    let report = stream.finish()?;
    if let Some(error) = report.error {
        bail!("the TCP stream: {error}");
    }
    Ok(())
}

fn theirs(lab: &mut Lab) -> Result<()> {
    lab.configure(&setup(""))?;
    lab.start(GATEWAY)?;
    let connection = format!(
        "    local_addrs = {CLIENT_OUTSIDE}\n    remote_addrs = {}\n    vips = 0.0.0.0\n    \
         reauth_time = 5s\n    over_time = 5s\n",
        gateway_outside(1)
    );
    let conf = with_psk(
        &psk(lab)?,
        ["client", "gw1"],
        &connection,
        "        remote_ts = 10.0.0.0/24\n",
    );
    let charon = Charon::start(lab, Place::Client, &conf, false)?;
    charon.swanctl(lab, &["--initiate", "--child", charon::CHILD])?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    renewed(lab, GATEWAY, 2)?;
    // What a node tells of itself is up to a moment old.
    let answered = lab.wait("IKE is answered", Duration::from_secs(3), |lab| {
        Ok((unanswered(lab)? == 0).then_some(()))
    });
    charon.must_not_complain_of_losses(lab, answered)
}

/// How many datagrams more than ESP packets the client's host has sent than it got: requests of IKE
/// without an answer. Only when the packets have come to rest.
fn unanswered(lab: &Lab) -> Result<u64> {
    let gateway = lab.status(GATEWAY)?;
    let snmp = lab.exec(Place::Client, &["cat", "/proc/net/snmp"])?;
    let mut udp = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (Some(names), Some(values)) = (udp.next(), udp.next()) else {
        bail!("/proc/net/snmp has no lines of UDP: {snmp}");
    };
    let count = |name: &str| -> Result<u64> {
        let column = names.split(' ').position(|n| n == name);
        let value = column.and_then(|at| values.split(' ').nth(at));
        Ok(value
            .with_context(|| format!("no {name} in {names}"))?
            .parse()?)
    };
    let requests = count("OutDatagrams")?.saturating_sub(gateway.counter("esp_opened"));
    let answers = count("InDatagrams")?.saturating_sub(gateway.counter("esp_sealed"));
    Ok(requests.saturating_sub(answers))
}

fn as_gateway(lab: &mut Lab, ike: &str, more: &str) -> Result<Charon> {
    let setup = setup(ike);
    lab.configure(&setup)?;
    for_stock_gateway(lab, &setup)?;
    let connection = format!(
        "    local_addrs = {}\n    remote_addrs = %any\n    pools = v4\n    unique = no\n{more}",
        gateway_outside(1)
    );
    let conf = with_psk(
        &psk(lab)?,
        ["gw1", "client"],
        &connection,
        "        local_ts = 10.0.0.0/24\n",
    );
    let charon = Charon::start(lab, GATEWAY, &conf, false)?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    Ok(charon)
}

fn ours(lab: &mut Lab) -> Result<()> {
    let charon = as_gateway(lab, "reauth = \"6s\"", "")?;
    renewed(lab, Place::Client, 2)?;
    charon.must_not_complain(lab)
}

/// By AUTH_LIFETIME (RFC 4478).
fn told(lab: &mut Lab) -> Result<()> {
    let charon = as_gateway(lab, "", "    reauth_time = 8s\n    over_time = 8s\n")?;
    renewed(lab, Place::Client, 2)?;
    charon.must_not_complain(lab)
}
