//! Peers and users by pattern: strongSwan gets a session with a certificate of a name that fits, and
//! none with another one of the same CA.

use super::charon::{self, Charon};
use super::matrix::{Proof, Row, Side};
use super::{BYTES, GATEWAY, NAME, conf, told};
use crate::cases::Case;
use crate::lab::topology::TARGETS;
use crate::lab::{KeyKind, Lab, Place, Setup};
use crate::probe::Stream;
use anyhow::{Context as _, Result, bail, ensure};
use std::time::Duration;

/// Who the gateway takes, beside the client that it knows by name.
const MANY: &str = "
[[peer]]
identity = \"*.branch.example.org\"
auth = \"cert\"
ca = [\"ca.pem\"]

[[eap_user]]
name = \"*@example.org\"
auth = \"cert\"
ca = [\"ca.pem\"]
";

/// One kind of pattern.
#[derive(Clone, Copy)]
struct Kind {
    proof: Proof,
    /// Names that fit.
    fit: [&'static str; 2],
    /// Names that do not, and what the gateway tells of each.
    others: [(&'static str, &'static str); 2],
    /// What charon logs when it is not taken.
    refused: &'static str,
}

const PEERS: Kind = Kind {
    proof: Proof::Ecdsa,
    fit: ["one.branch.example.org", "Two.Branch.example.org"],
    others: [
        ("a.one.branch.example.org", "no peer has this name"),
        ("branch.example.org", "no peer has this name"),
    ],
    refused: "received AUTHENTICATION_FAILED notify error",
};

const USERS: Kind = Kind {
    proof: Proof::EapTls,
    fit: ["anna@example.org", "bert@example.org"],
    others: [
        (
            "anna@one.example.org",
            "EAP-TLS has failed: the certificate is of anna@one.example.org, who is no user here",
        ),
        // A peer is no user.
        (
            "one.branch.example.org",
            "EAP-TLS has failed: the certificate is of one.branch.example.org, who is no user here",
        ),
    ],
    refused: "received EAP_FAILURE, EAP authentication failed",
};

pub(super) fn cases() -> Vec<Case> {
    let cases = [("peers", PEERS), ("users", USERS)].map(|(who, kind)| Case {
        name: format!("{NAME}_{who}_by_pattern"),
        run: Box::new(move |lab| who_fits(lab, kind)),
    });
    cases.into()
}

fn who_fits(lab: &mut Lab, kind: Kind) -> Result<()> {
    lab.configure(&Setup {
        certificates: Some(KeyKind::Ecdsa),
        extra: MANY.into(),
        ..Setup::default()
    })?;
    lab.start(GATEWAY)?;
    let mut client = Client { kind, charon: None };
    for name in kind.fit {
        let charon = client.named(lab, name)?;
        charon.swanctl(lab, &["--initiate", "--child", charon::CHILD])?;
        // What it shows of itself is a few milliseconds old.
        let soon = Duration::from_secs(2);
        lab.wait(&format!("{name} fits"), soon, |lab| {
            Ok(taken(lab, name).ok())
        })?;
        charon.swanctl(lab, &["--terminate", "--ike", charon::CHILD])?;
        told(lab, GATEWAY, "session_down", &[name, "deleted by the peer"])?;
        charon.must_not_complain(lab)?;
    }
    for (before, (name, why)) in kind.others.into_iter().enumerate() {
        let charon = client.named(lab, name)?;
        let begun = charon.swanctl(lab, &["--initiate", "--child", charon::CHILD]);
        ensure!(begun.is_err(), "{name} gets a session");
        told(lab, GATEWAY, "key_failed", &[name, why])?;
        let said = charon::log(lab);
        let refused = said.matches(kind.refused).count();
        ensure!(refused == before + 1, "charon says of it: {said}");
        let sessions = lab.status(GATEWAY)?.sessions;
        ensure!(sessions.is_empty(), "{name} has {sessions:?}");
    }
    Ok(())
}

/// strongSwan, with one certificate after the other.
struct Client {
    kind: Kind,
    charon: Option<Charon>,
}

impl Client {
    /// With a certificate of this name.
    fn named(&mut self, lab: &Lab, name: &str) -> Result<&Charon> {
        lab.rename(Place::Client, name)?;
        let row = Row::of(Side::Them, self.kind.proof);
        let conf = conf::as_initiator_named(lab, row, name)?;
        match &mut self.charon {
            Some(charon) => charon.load(lab, &conf)?,
            none => *none = Some(Charon::start(lab, Place::Client, &conf, true)?),
        }
        self.charon.as_ref().context("charon was started")
    }
}

/// It has a session of its own name, and an inner address with which it reaches a target.
fn taken(lab: &Lab, name: &str) -> Result<()> {
    let sessions = lab.status(GATEWAY)?.sessions;
    match &sessions[..] {
        [session] if session.peer == name => {}
        _ => bail!("found {sessions:?}"),
    }
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    Stream::transfer(lab, TARGETS[1], BYTES / 10).map(drop)
}
