//! What is said of an edge that is dead.

use super::*;
use crate::cluster::channel::Notary;
use crate::cluster::wire::VERSION;
use crate::cluster::{Reached, Run};
use crate::dataplane::logbook::MOST;

fn notary(ca: &Ca, name: &str, authorities: &[SocketAddr]) -> Notary {
    let authorities = authorities.iter().map(|at| (*at, AUTHORITY.to_owned()));
    Notary::new(authorities.collect(), &ca.credentials(name)).unwrap()
}

fn reached(count: u32) -> Vec<Reached> {
    let one = |spi| Reached {
        spi,
        term: u32::MAX,
        top: u64::MAX,
    };
    (0..count).map(one).collect()
}

#[tokio::test]
async fn a_notary_is_heard_beside_the_edge() {
    let ca = Ca::new();
    let (mut listener, mut uplink) = connected(&ca).await;
    let notary = notary(&ca, "one.example", &[listener.local_addr()]);
    // As much as it may have to say.
    let all = reached(MOST as u32);
    let (failed, told) = tokio::join!(notary.testify(Run(7), all.clone()), heard(&mut listener));
    let said = Heard::Testimony {
        edge: ONE,
        run: Run(7),
        reached: all,
    };
    assert!(told == said, "not what was said");
    assert_eq!(failed, []);
    // Its connection takes nobody's place.
    assert!(uplink.send(Up::Query { spi: 1 }));
    let message = heard(&mut listener).await;
    assert!(
        matches!(message, Heard::Message { edge: ONE, .. }),
        "{message:?}"
    );
}

#[tokio::test]
async fn an_authority_that_is_away_keeps_nobody_waiting() {
    let ca = Ca::new();
    let mut listener = listener(&ca).await;
    let nobody = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
    let away = nobody.local_addr().unwrap();
    drop(nobody);
    let notary = notary(&ca, "two.example", &[away, listener.local_addr()]);
    let (failed, told) = tokio::join!(notary.testify(Run(1), reached(1)), heard(&mut listener));
    assert!(
        matches!(told, Heard::Testimony { edge: TWO, .. }),
        "{told:?}"
    );
    let [(at, why)] = &failed[..] else {
        panic!("{failed:?}");
    };
    assert_eq!(*at, away);
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn who_is_no_edge_is_no_notary() {
    let ca = Ca::new();
    let mut listener = listener(&ca).await;
    let notary = notary(&ca, "three.example", &[listener.local_addr()]);
    let (failed, told) = tokio::join!(notary.testify(Run(1), reached(1)), heard(&mut listener));
    assert!(matches!(told, Heard::Refused { .. }), "{told:?}");
    assert_eq!(failed.len(), 1, "{failed:?}");
}

/// Only who is dead is spoken of: an edge that lives can not testify on its own connection.
#[tokio::test]
async fn an_edge_that_testifies_itself_is_lost() {
    let ca = Ca::new();
    let (mut listener, mut uplink) = connected(&ca).await;
    let run = Run(1);
    uplink.send(Up::Testimony {
        version: VERSION,
        run,
        reached: reached(1),
    });
    let ended = heard(&mut listener).await;
    let Heard::Ended { parting, .. } = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(parting, crate::cluster::Parting::Lost);
}
