//! REDIRECT (RFC 5685) with strongSwan: as the client that is sent to another gateway, and as the
//! gateway that sends our client to one.

use super::charon::{self, Charon};
use super::{GATEWAY, NAME, for_stock_gateway};
use crate::cases::Case;
use crate::lab::topology::{CLIENT_INNER, CLIENT_OUTSIDE, TARGETS, gateway_outside};
use crate::lab::{Lab, Place, Setup};
use crate::probe::Stream;
use anyhow::{Result, bail};
use std::time::Duration;

/// Where clients are sent.
const ELSEWHERE: Place = Place::Gateway(2);

/// What each case carries there and back.
const BYTES: u64 = 2_000_000;

/// What a case does in its lab.
pub(super) type Run = fn(&mut Lab) -> Result<()>;

pub(super) fn cases() -> Vec<Case> {
    let all: [(&str, Run); 3] = [
        ("strongswan_in_the_first_exchange", first_exchange),
        ("strongswan_during_the_session", during_the_session),
        ("evergate_during_the_session", our_client),
    ];
    let cases = all.into_iter().map(|(name, run)| Case {
        name: format!("{NAME}_redirect_of_{name}"),
        run: Box::new(run),
    });
    cases.collect()
}

pub(super) fn setup(cluster: &[u8]) -> Setup {
    Setup {
        general: "Heartbeat = NONE\nStandby = 0\nRandomOrder = no\n".into(),
        cluster: cluster.to_vec(),
        client_outside: None,
        // charon, whose ESP knows UDP only, does as if it were behind a NAT; but not any more after a
        // redirect in its first exchange.
        extra: format!(
            "\n[drain]\ngateways = [\"{}\"]\n[ike]\nencap = \"always\"\n",
            gateway_outside(2)
        ),
        ..Setup::default()
    }
}

/// Both gateways hold one key: a client that is sent elsewhere has no other.
pub(super) fn configure(lab: &mut Lab, setup: &Setup) -> Result<String> {
    lab.configure(setup)?;
    let key = std::fs::read_to_string(lab.dir().join("gw1.psk"))?;
    for name in ["gw2.psk", "gw2-held.psk"] {
        std::fs::write(lab.dir().join(name), &key)?;
    }
    Ok(key.trim().to_owned())
}

/// `swanctl.conf`: `ends` has what is special to a client or a gateway.
pub(super) fn conf(psk: &str, ends: &str, local: &str, child: &str) -> String {
    format!(
        "connections {{
  {name} {{
    version = 2
    proposals = aes256gcm16-prfsha256-x25519
{ends}    local {{
      auth = psk
      id = {local}.example
    }}
    remote {{
      auth = psk
      id = %any
    }}
    children {{
      {name} {{
        esp_proposals = aes256gcm16
{child}      }}
    }}
  }}
}}
secrets {{
  ike-1 {{
    secret = \"{psk}\"
  }}
}}
",
        name = charon::CHILD,
    )
}

/// strongSwan as a client of the first gateway, with ours on both.
fn their_client(lab: &mut Lab, drained: bool) -> Result<Charon> {
    let psk = configure(lab, &setup(&[1, 2]))?;
    lab.start(GATEWAY)?;
    lab.start(ELSEWHERE)?;
    if drained {
        lab.evergate(GATEWAY, &["drain"])?;
    }
    let ends = format!(
        "    local_addrs = {CLIENT_OUTSIDE}\n    remote_addrs = {}\n    vips = 0.0.0.0\n",
        gateway_outside(1)
    );
    let child = "        remote_ts = 10.0.0.0/24\n";
    let charon = Charon::start(
        lab,
        Place::Client,
        &conf(&psk, &ends, "client", child),
        false,
    )?;
    charon.swanctl(lab, &["--initiate", "--child", charon::CHILD])?;
    Ok(charon)
}

/// The client's one session is with the second gateway, and carries.
fn arrived(lab: &Lab) -> Result<()> {
    lab.wait("the client is elsewhere", Duration::from_secs(15), |lab| {
        let here = lab.status(GATEWAY)?.sessions;
        let there = lab.status(ELSEWHERE)?.sessions;
        if here.is_empty() && there.len() == 1 {
            return Ok(Some(()));
        }
        bail!("gw1 has {here:?}, gw2 has {there:?}");
    })?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    Stream::transfer(lab, TARGETS[1], BYTES).map(drop)
}

fn first_exchange(lab: &mut Lab) -> Result<()> {
    let _charon = their_client(lab, true)?;
    arrived(lab)
}

fn during_the_session(lab: &mut Lab) -> Result<()> {
    let _charon = their_client(lab, false)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    lab.evergate(GATEWAY, &["drain", "--wait"])?;
    arrived(lab)
}

/// strongSwan on the first gateway sends our client to ours on the second.
fn our_client(lab: &mut Lab) -> Result<()> {
    let setup = setup(&[1, 2]);
    let psk = configure(lab, &setup)?;
    for_stock_gateway(lab, &setup)?;
    let ends = format!(
        "    local_addrs = {}\n    remote_addrs = %any\n    pools = v4\n",
        gateway_outside(1)
    );
    let child = "        local_ts = 10.0.0.0/24\n";
    let conf = format!(
        "{}pools {{\n  v4 {{\n    addrs = {CLIENT_INNER}/32\n  }}\n}}\n",
        conf(&psk, &ends, "gw1", child)
    );
    let charon = Charon::start(lab, GATEWAY, &conf, false)?;
    lab.start(ELSEWHERE)?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    // The target had a route to the stock gateway; ours answers its questions.
    let inner = format!("{CLIENT_INNER}/32");
    let to = gateway_outside(2).to_string();
    let words = ["--redirect", "--ike", charon::CHILD, "--gateway", &to];
    charon.swanctl(lab, &words)?;
    lab.wait_client("our client follows", Duration::from_secs(10), |status| {
        status.active() == Some(2)
    })?;
    lab.exec(Place::Target, &["ip", "route", "del", &inner])?;
    lab.wait(
        "the old session is deleted",
        Duration::from_secs(10),
        |lab| {
            let list = charon.swanctl(lab, &["--list-sas", "--raw"])?;
            Ok((!list.contains("ESTABLISHED")).then_some(()))
        },
    )?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    Stream::transfer(lab, TARGETS[1], BYTES)?;
    charon.must_not_complain(lab)
}
