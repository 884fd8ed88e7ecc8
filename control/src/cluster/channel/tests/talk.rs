//! Messages both ways, connections that follow each other, and leaving.

use std::time::Instant;

use super::super::queue::{MOST_BYTES, MOST_MESSAGES};
use super::*;
use crate::cluster::Parting;
use crate::cluster::wire::Relayed;

/// Bytes of a long message.
const LONG: usize = 1 << 20;

fn relayed(number: u16, length: usize) -> Relayed {
    Relayed {
        local: "192.0.2.1:500".parse().unwrap(),
        remote: SocketAddr::from(([198, 51, 100, 1], number)),
        data: vec![7; length],
    }
}

/// A long message, which is a text: bytes are written one by one, which takes long where nothing is optimised.
fn long(length: usize) -> Up {
    let why = "x".repeat(length - 10);
    Up::NotInstalled { spi: 7, why }
}

#[tokio::test]
async fn messages_go_both_ways_in_order() {
    let ca = Ca::new();
    let (mut listener, mut uplink) = connected(&ca).await;
    // Each batch has more than the sockets' buffers take.
    let lengths = |number: u16| match number % 100 {
        0 => LONG / 4,
        n => usize::from(n) * 10,
    };
    const COUNT: u16 = 1000;
    for number in 0..COUNT {
        assert!(uplink.send(Up::Ike(relayed(number, lengths(number)))));
        listener.send(ONE, Down::Ike(relayed(number, lengths(number))));
    }
    let (mut up, mut down) = (0, 0);
    while (up, down) != (COUNT, COUNT) {
        tokio::select! {
            heard = heard(&mut listener) => {
                let message = Up::Ike(relayed(up, lengths(up)));
                assert_eq!(heard, Heard::Message { edge: ONE, message });
                up += 1;
            }
            news = soon(uplink.next()) => {
                let message = Down::Ike(relayed(down, lengths(down)));
                assert_eq!(news, News::Message(Box::new(message)));
                down += 1;
            }
        }
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_company() {
    let ca = Ca::new();
    let (mut listener, mut uplink) = connected(&ca).await;
    let mut times = Vec::new();
    for spi in 0..200 {
        let since = Instant::now();
        // Two in a row are what Nagle's algorithm would keep back.
        for _ in 0..2 {
            assert!(uplink.send(Up::Query { spi }));
            heard(&mut listener).await;
            listener.send(ONE, Down::Unknown { spi });
        }
        for _ in 0..2 {
            let unknown = News::Message(Box::new(Down::Unknown { spi }));
            assert_eq!(soon(uplink.next()).await, unknown);
        }
        times.push(since.elapsed());
    }
    times.sort();
    // A delayed acknowledgement takes 40 ms.
    assert!(times[100] < Duration::from_millis(10), "{:?}", times[100]);
}

#[tokio::test]
async fn a_second_connection_takes_the_place_of_the_first() {
    let ca = Ca::new();
    let (mut listener, mut first) = met(&ca).await;
    for spi in 0..100 {
        first.send(&Up::Query { spi }).await;
    }
    let to = listener.local_addr();
    let mut second = Raw::edge(&ca, "one.example", to).await;
    second.send(&Up::Query { spi: 1000 }).await;
    // What came on the first, its end, the second, and what came on that.
    for spi in 0..100 {
        let message = Up::Query { spi };
        assert_eq!(
            heard(&mut listener).await,
            Heard::Message { edge: ONE, message }
        );
    }
    let why = "another connection took its place".to_owned();
    let parting = Parting::Lost;
    let ended = Heard::Ended {
        edge: ONE,
        parting,
        why,
    };
    assert_eq!(heard(&mut listener).await, ended);
    // Nothing is sent to an edge between its connections.
    listener.send(ONE, Down::Forget { spi: 1 });
    let connected = heard(&mut listener).await;
    assert!(
        matches!(connected, Heard::Connected { edge: ONE, .. }),
        "{connected:?}"
    );
    let message = Up::Query { spi: 1000 };
    assert_eq!(
        heard(&mut listener).await,
        Heard::Message { edge: ONE, message }
    );
    listener.send(ONE, Down::Forget { spi: 2 });
    assert_eq!(second.receive().await, Down::Forget { spi: 2 });
    assert!(first.tls.read_u8().await.is_err(), "the first is over");
}

#[tokio::test]
async fn the_end_of_a_first_connection_is_seen_although_the_second_is_there() {
    let ca = Ca::new();
    let (mut listener, mut first) = met(&ca).await;
    first.send(&Up::Query { spi: 7 }).await;
    // The process was killed and started again before the listener looked.
    drop(first);
    let _second = Raw::edge(&ca, "one.example", listener.local_addr()).await;
    let message = Up::Query { spi: 7 };
    assert_eq!(
        heard(&mut listener).await,
        Heard::Message { edge: ONE, message }
    );
    let ended = heard(&mut listener).await;
    let parting = Parting::Closed;
    assert!(
        matches!(ended, Heard::Ended { parting: found, .. } if found == parting),
        "{ended:?}"
    );
    assert!(matches!(
        heard(&mut listener).await,
        Heard::Connected { .. }
    ));
}

#[tokio::test]
async fn an_uplink_comes_again() {
    let ca = Ca::new();
    let (mut listener, mut uplink) = connected(&ca).await;
    let address = listener.local_addr();
    // On purpose, by the authority.
    listener.disconnect(ONE);
    let ended = heard(&mut listener).await;
    let why = "this side has ended it".to_owned();
    let parting = Parting::Lost;
    assert_eq!(
        ended,
        Heard::Ended {
            edge: ONE,
            parting,
            why
        }
    );
    assert!(matches!(soon(uplink.next()).await, News::Ended { .. }));
    assert!(!uplink.send(Up::Query { spi: 1 }), "there is no connection");
    assert!(matches!(
        heard(&mut listener).await,
        Heard::Connected { .. }
    ));
    let authority = address;
    assert_eq!(soon(uplink.next()).await, News::Connected { authority });

    // The authority's process ends, and another one begins.
    drop(listener);
    assert!(matches!(soon(uplink.next()).await, News::Ended { .. }));
    let failed = soon(uplink.next()).await;
    assert!(matches!(failed, News::Failed { .. }), "{failed:?}");
    let credentials = ca.credentials(AUTHORITY);
    let mut listener = Listener::bind(address, &credentials, known())
        .await
        .unwrap();
    assert!(matches!(
        heard(&mut listener).await,
        Heard::Connected { edge: ONE, .. }
    ));
    assert_eq!(soon(uplink.next()).await, News::Connected { authority });
    assert!(uplink.send(Up::Query { spi: 2 }));
    let message = Up::Query { spi: 2 };
    assert_eq!(
        heard(&mut listener).await,
        Heard::Message { edge: ONE, message }
    );
}

#[tokio::test]
async fn who_leaves_says_all_before() {
    let ca = Ca::new();
    let (mut listener, mut uplink) = connected(&ca).await;
    const COUNT: u32 = 5000;
    for spi in 0..COUNT {
        assert!(uplink.send(Up::Query { spi }));
        // On the way back, and never asked for.
        listener.send(ONE, Down::Unknown { spi });
    }
    let listening = async {
        for spi in 0..COUNT {
            let message = Up::Query { spi };
            assert_eq!(
                heard(&mut listener).await,
                Heard::Message { edge: ONE, message }
            );
        }
        heard(&mut listener).await
    };
    let (ended, ()) = tokio::join!(listening, soon(uplink.leave()));
    let parting = Parting::Closed;
    assert!(
        matches!(ended, Heard::Ended { parting: found, .. } if found == parting),
        "{ended:?}"
    );
    assert!(!uplink.send(Up::Query { spi: 1 }));
    let again = timeout(Duration::from_millis(300), listener.next()).await;
    assert!(again.is_err(), "it came again: {again:?}");
}

#[tokio::test]
async fn leaving_takes_half_a_second_at_most() {
    let ca = Ca::new();
    let (listener, mut uplink) = connected(&ca).await;
    // Nobody takes it.
    for _ in 0..60 {
        assert!(uplink.send(long(LONG)));
    }
    let since = Instant::now();
    uplink.leave().await;
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    drop(listener);
}

#[tokio::test]
async fn an_edge_that_takes_nothing_is_lost() {
    let ca = Ca::new();
    let (mut listener, _first) = met(&ca).await;
    for spi in 0..=u32::try_from(MOST_MESSAGES).unwrap() {
        listener.send(ONE, Down::Forget { spi });
    }
    let ended = heard(&mut listener).await;
    let Heard::Ended { edge, parting, why } = ended else {
        panic!("{ended:?}");
    };
    assert_eq!((edge, parting), (ONE, Parting::Lost));
    let expected = "it does not take what is sent to it: 65536 messages";
    assert!(why.starts_with(expected), "{why}");
}

#[tokio::test]
async fn an_authority_that_takes_nothing_is_left() {
    let ca = Ca::new();
    let (_listener, mut uplink) = connected(&ca).await;
    let mut sent = 0;
    while uplink.send(long(LONG)) {
        sent += 1;
        assert!(sent < 200, "no bound");
    }
    assert_eq!(sent, MOST_BYTES / LONG);
    let ended = soon(uplink.next()).await;
    let expected = "it does not take what is sent to it: 64 messages";
    assert!(
        matches!(&ended, News::Ended { why } if why.starts_with(expected)),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_dead_authority_is_passed_over() {
    let ca = Ca::new();
    let mut listener = listener(&ca).await;
    let closed = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let dead = closed.local_addr().unwrap();
    drop(closed);
    let authority = listener.local_addr();
    let authorities = [dead, authority].map(|address| (address, AUTHORITY.to_owned()));
    let mut uplink = Uplink::start(authorities.into(), &ca.credentials("two.example"));
    let failed = soon(uplink.next()).await;
    assert!(
        matches!(&failed, News::Failed { authority, .. } if *authority == dead),
        "{failed:?}"
    );
    assert_eq!(soon(uplink.next()).await, News::Connected { authority });
    assert!(matches!(
        heard(&mut listener).await,
        Heard::Connected { edge: TWO, .. }
    ));
}

// It lives: its kernel's word would be taken for the end of its process.
#[tokio::test]
async fn an_edge_that_ends_its_connection_by_itself_does_not_look_dead() {
    let ca = Ca::new();
    let (mut listener, mut uplink) = connected(&ca).await;
    let mut sent = 0;
    // Nobody writes in between.
    while uplink.send(Up::Query { spi: sent }) {
        sent += 1;
        assert!(sent as usize <= MOST_MESSAGES + 1, "no bound");
    }
    let ended = Instant::now();
    loop {
        match heard(&mut listener).await {
            Heard::Message { .. } => (),
            Heard::Ended { parting, .. } => {
                // After that time nobody takes an edge for one that was never alone.
                let late = ended.elapsed() > Duration::from_secs(1);
                assert!(parting == Parting::Lost || late, "{:?}", ended.elapsed());
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}
