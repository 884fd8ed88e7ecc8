//! How connections end: what the ledger makes of an edge's death rests on it.

use std::time::Instant;

use socket2::{SockFilter, SockRef};

use super::*;
use crate::cluster::Parting;

/// All that came, and then the end.
async fn ended(listener: &mut Listener, messages: u32) -> (Parting, String) {
    for spi in 0..messages {
        let message = Up::Query { spi };
        assert_eq!(heard(listener).await, Heard::Message { edge: ONE, message });
    }
    match heard(listener).await {
        Heard::Ended {
            edge: ONE,
            parting,
            why,
        } => (parting, why),
        other => panic!("{other:?}"),
    }
}

async fn speak(raw: &mut Raw, messages: u32) {
    // In one write: a reset takes with it what the kernel has not sent yet.
    let queries = (0..messages).map(|spi| wire::encode(&Up::Query { spi }).unwrap().to_vec());
    let bytes: Vec<u8> = queries.flatten().collect();
    raw.tls.write_all(&bytes).await.unwrap();
    raw.tls.flush().await.unwrap();
}

#[tokio::test]
async fn a_process_that_ends_is_closed() {
    let ca = Ca::new();
    let (mut listener, mut raw) = met(&ca).await;
    speak(&mut raw, 5000).await;
    // As the kernel does it for a process that was killed: an end without a word of TLS.
    drop(raw);
    let (parting, why) = ended(&mut listener, 5000).await;
    assert_eq!(parting, Parting::Closed, "{why}");
}

#[tokio::test]
async fn a_reset_is_closed() {
    let ca = Ca::new();
    let (mut listener, mut raw) = met(&ca).await;
    speak(&mut raw, 100).await;
    // As for a process that was killed and had not read everything.
    SockRef::from(raw.tls.get_ref().0)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(raw);
    let (parting, why) = ended(&mut listener, 100).await;
    assert_eq!(parting, Parting::Closed, "{why}");
    assert!(why.contains("reset"), "{why}");
}

#[tokio::test]
async fn a_reset_while_much_is_written_is_closed() {
    let ca = Ca::new();
    let (mut listener, mut raw) = met(&ca).await;
    speak(&mut raw, 100).await;
    for spi in 0..60_000 {
        listener.send(ONE, Down::Forget { spi });
    }
    // It reads a little, so that writing goes on; then it dies with the rest unread.
    assert_eq!(raw.receive().await, Down::Forget { spi: 0 });
    drop(raw);
    let (parting, why) = ended(&mut listener, 100).await;
    assert_eq!(parting, Parting::Closed, "{why}");
}

#[tokio::test]
async fn the_end_of_tls_alone_is_not_the_end() {
    let ca = Ca::new();
    let (mut listener, mut raw) = met(&ca).await;
    speak(&mut raw, 10).await;
    let (stream, session) = raw.tls.get_mut();
    session.send_close_notify();
    let mut bytes = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut bytes).unwrap();
    }
    stream.write_all(&bytes).await.unwrap();
    // Whoever says so and keeps the connection lives.
    let (parting, why) = ended(&mut listener, 10).await;
    assert_eq!(parting, Parting::Lost, "{why}");

    let mut raw = Raw::edge(&ca, "one.example", listener.local_addr()).await;
    assert!(matches!(
        heard(&mut listener).await,
        Heard::Connected { .. }
    ));
    speak(&mut raw, 10).await;
    raw.tls.shutdown().await.unwrap();
    let (parting, why) = ended(&mut listener, 10).await;
    assert_eq!(parting, Parting::Closed, "{why}");
}

#[tokio::test]
async fn what_is_not_tls_is_lost() {
    let ca = Ca::new();
    let (mut listener, mut raw) = met(&ca).await;
    speak(&mut raw, 10).await;
    let (stream, _) = raw.tls.get_mut();
    stream.write_all(&[7; 100]).await.unwrap();
    // Also if the end follows at once.
    drop(raw);
    let (parting, why) = ended(&mut listener, 10).await;
    assert_eq!(parting, Parting::Lost, "{why}");
}

#[tokio::test]
async fn what_is_not_a_message_is_lost() {
    let ca = Ca::new();
    let version = wire::VERSION;
    let greeting = wire::encode(&Up::Greeting { version }).unwrap();
    let cases: [(&[u8], &str); 4] = [
        (&[0, 0, 0, 1, 99], "can not be read"),
        (&[0, 0, 0, 3, 5, 1, 1], "1 bytes too many"),
        (&[255; 4], "the longest has"),
        (&greeting, "greeted twice"),
    ];
    for (bytes, expected) in cases {
        let (mut listener, mut raw) = met(&ca).await;
        speak(&mut raw, 10).await;
        raw.tls.write_all(bytes).await.unwrap();
        raw.tls.flush().await.unwrap();
        drop(raw);
        let (parting, why) = ended(&mut listener, 10).await;
        assert_eq!(parting, Parting::Lost, "{why}");
        assert!(why.contains(expected), "{why}");
    }
}

#[tokio::test]
async fn a_message_cut_short_by_death_is_closed() {
    let ca = Ca::new();
    let (mut listener, mut raw) = met(&ca).await;
    speak(&mut raw, 10).await;
    raw.tls.write_all(&[0, 0, 0, 200, 1, 2, 3]).await.unwrap();
    raw.tls.flush().await.unwrap();
    drop(raw);
    let (parting, why) = ended(&mut listener, 10).await;
    assert_eq!(parting, Parting::Closed, "{why}");
}

#[tokio::test]
async fn a_machine_that_is_gone_is_lost() {
    let ca = Ca::new();
    let (mut listener, mut raw) = met(&ca).await;
    speak(&mut raw, 10).await;
    // From now on nothing reaches the edge's socket, and so it acknowledges nothing.
    let nothing = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(raw.tls.get_ref().0)
        .attach_filter(&[nothing])
        .unwrap();
    let since = Instant::now();
    for spi in 0..10 {
        listener.send(ONE, Down::Forget { spi });
    }
    let (parting, why) = ended(&mut listener, 10).await;
    // The kernel says it once, to the task that writes, and to the other one that this is an ordinary end.
    assert_eq!(parting, Parting::Lost, "{why}");
    assert!(why.contains("timed out"), "{why}");
    let took = since.elapsed();
    assert!(
        took > Duration::from_secs(2),
        "a living edge is given up after {took:?}"
    );
    drop(raw);
}

#[tokio::test]
async fn a_machine_that_is_gone_is_noticed_in_silence() {
    let ca = Ca::new();
    let (mut listener, raw) = met(&ca).await;
    let nothing = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(raw.tls.get_ref().0)
        .attach_filter(&[nothing])
        .unwrap();
    let since = Instant::now();
    let (parting, why) = ended(&mut listener, 0).await;
    assert_eq!(parting, Parting::Lost, "{why}");
    let took = since.elapsed();
    assert!(
        took > Duration::from_secs(2) && took < Duration::from_secs(15),
        "{took:?}"
    );
    drop(raw);
}
