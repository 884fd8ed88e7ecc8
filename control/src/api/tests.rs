//! Server and client over a real socket, with a node that is played by the test.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::client::{Client, ClientError};
use super::model::{Done, SaWords, Spi};
use super::sample;
use super::server::{ApiServer, Command, CommandError, Shared};
use crate::node::events::{EventKind, EventLog, NewEvent};

struct Node {
    client: Client,
    events: EventLog,
    commands: mpsc::Receiver<Command>,
    server: ApiServer,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

fn node_with(command_timeout: Duration) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("node.sock");
    let events = EventLog::new();
    let (sender, commands) = mpsc::channel(4);
    let status = Arc::new(sample::client);
    let shared = Shared {
        status,
        events: events.clone(),
        commands: sender,
    };
    let server = ApiServer::start_with(&socket, None, shared, command_timeout).unwrap();
    Node {
        client: Client::new(&socket),
        events,
        commands,
        server,
        socket,
        _dir: dir,
    }
}

fn node() -> Node {
    node_with(Duration::from_secs(5))
}

/// Obeys commands as a core would.
async fn obey(mut commands: mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::SaList { reply } => reply.send(Ok(sample::sas())).unwrap(),
            Command::SaAdd { words, reply } => {
                let answer = match words.first().map(String::as_str) {
                    Some("spi") => Ok(Done::new(format!("{} words taken", words.len()))),
                    _ => Err("found `x`, expected `spi`".into()),
                };
                reply.send(answer).unwrap();
            }
            Command::SaDelete { spi, reply } => {
                let error = CommandError::NotFound(format!("there is no SA {spi}"));
                reply.send(Err(error)).unwrap();
            }
            Command::SaFlush { reply } => reply.send(Ok(Done::new("2 SAs deleted"))).unwrap(),
            Command::PolicyReload { reply } => {
                let notes = vec!["policy.conf:3:1: Tunnel2 is hidden by Tunnel1".to_owned()];
                reply
                    .send(Ok(Done {
                        text: "policy read".into(),
                        notes,
                    }))
                    .unwrap();
            }
            Command::Drain { undo, reply } => {
                let said = if undo { "taken again" } else { "draining" };
                reply.send(Ok(Done::new(said))).unwrap();
            }
            Command::Associate { address, reply } => {
                reply
                    .send(Ok(Done::new(format!("asked for {address}"))))
                    .unwrap();
            }
            Command::SessionDelete { peer, reply } => {
                let error = CommandError::Conflict(format!("two sessions with {peer}"));
                reply.send(Err(error)).unwrap();
            }
            Command::Keylog { on, reply } => {
                reply.send(Ok(Done::new(format!("keylog {on}")))).unwrap();
            }
        }
    }
}

fn refusal(error: ClientError) -> (StatusCode, String) {
    match error {
        ClientError::Refused { status, text } => (status, text),
        other => panic!("not a refusal: {other}"),
    }
}

#[tokio::test]
async fn status_travels_unchanged() {
    let node = node();
    assert_eq!(node.client.status().await.unwrap(), sample::client());
    let metrics = node.client.metrics().await.unwrap();
    assert!(
        metrics.contains("\nevergate_drops_total{name=\"replayed\"} 3\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn each_command_reaches_the_core_and_its_answer_the_caller() {
    let node = node();
    tokio::spawn(obey(node.commands));
    let client = &node.client;
    assert_eq!(client.sa_list().await.unwrap(), sample::sas());
    let words = |first: &str| SaWords(vec![first.to_owned(), "0x100".to_owned()]);
    assert_eq!(
        client.sa_add(words("spi")).await.unwrap().text,
        "2 words taken"
    );
    let refused = refusal(client.sa_add(words("x")).await.unwrap_err());
    assert_eq!(
        refused,
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            "found `x`, expected `spi`".to_owned()
        )
    );
    let refused = refusal(client.sa_add(SaWords::default()).await.unwrap_err());
    assert_eq!(refused.0, StatusCode::UNPROCESSABLE_ENTITY);
    let refused = refusal(client.sa_delete(Spi(0x100)).await.unwrap_err());
    assert_eq!(
        refused,
        (
            StatusCode::NOT_FOUND,
            "there is no SA 0x00000100".to_owned()
        )
    );
    assert_eq!(client.sa_flush().await.unwrap().text, "2 SAs deleted");
    let done = client.policy_reload().await.unwrap();
    assert_eq!(
        done.notes,
        ["policy.conf:3:1: Tunnel2 is hidden by Tunnel1"]
    );
    assert_eq!(client.keylog(true).await.unwrap().text, "keylog true");
    assert_eq!(client.keylog(false).await.unwrap().text, "keylog false");
    let refused = refusal(client.session_delete("a b&c@d.example").await.unwrap_err());
    assert_eq!(
        refused,
        (
            StatusCode::CONFLICT,
            "two sessions with a b&c@d.example".to_owned()
        )
    );
}

#[tokio::test]
async fn a_blocked_core_keeps_no_status_waiting() {
    // Nobody ever receives: the queue of 4 fills and further commands wait for room.
    let node = node_with(Duration::from_millis(700));
    let stuck: Vec<_> = (0..8)
        .map(|_| {
            let client = node.client.clone();
            tokio::spawn(async move { client.policy_reload().await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..20 {
        let asked = Instant::now();
        node.client.status().await.unwrap();
        node.client.events(0, Duration::ZERO).await.unwrap();
        let took = asked.elapsed();
        assert!(took < Duration::from_millis(100), "{took:?}");
    }
    for task in stuck {
        let (status, text) = refusal(task.await.unwrap().unwrap_err());
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
        assert!(
            text.starts_with("the node's core did not answer within 700 ms"),
            "{text}"
        );
    }
    drop(node.commands);
}

#[tokio::test]
async fn a_core_that_is_gone_is_told_at_once() {
    let mut node = node();
    let client = node.client.clone();
    let pending = tokio::spawn(async move { client.sa_flush().await });
    drop(node.commands.recv().await);
    let stopping = (
        StatusCode::SERVICE_UNAVAILABLE,
        "the node is stopping".to_owned(),
    );
    assert_eq!(
        refusal(pending.await.unwrap().unwrap_err()),
        stopping,
        "it dropped the question"
    );
    drop(node.commands);
    assert_eq!(refusal(node.client.sa_flush().await.unwrap_err()), stopping);
}

#[tokio::test]
async fn events_are_pushed_to_those_who_wait() {
    let node = node();
    node.events
        .push(NewEvent::new(EventKind::NodeStarted, "ready"));
    let now = node
        .client
        .events(0, Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(now.len(), 1, "what is there is not waited for");
    let client = node.client.clone();
    let waiting = tokio::spawn(async move { client.events(1, Duration::from_secs(10)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let pushed = Instant::now();
    node.events
        .push(NewEvent::new(EventKind::Active, "gw-b is active").cluster(1));
    let events = waiting.await.unwrap().unwrap();
    assert!(pushed.elapsed() < Duration::from_secs(1));
    assert_eq!(
        (events[0].seq, events[0].text.as_str()),
        (2, "gw-b is active")
    );
}

#[tokio::test]
async fn many_at_once() {
    let node = node();
    tokio::spawn(obey(node.commands));
    let tasks: Vec<_> = (0..64)
        .map(|i| {
            let client = node.client.clone();
            tokio::spawn(async move {
                if i % 2 == 0 {
                    client.status().await.map(|s| s.name)
                } else {
                    client.sa_flush().await.map(|d| d.text)
                }
            })
        })
        .collect();
    for (i, task) in tasks.into_iter().enumerate() {
        let expected = if i % 2 == 0 {
            "client-1"
        } else {
            "2 SAs deleted"
        };
        assert_eq!(task.await.unwrap().unwrap(), expected);
    }
}

#[tokio::test]
async fn stopping_removes_the_socket_and_a_second_start_is_refused() {
    let node = node();
    let shared = Shared {
        status: Arc::new(sample::client),
        events: EventLog::new(),
        commands: mpsc::channel(1).0,
    };
    let error = ApiServer::start(&node.socket, None, shared.clone())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!(
            "another evergate already answers on {}",
            node.socket.display()
        )
    );
    // A caller that waits for an event must not hold up the stop.
    let client = node.client.clone();
    let waiting = tokio::spawn(async move { client.events(0, Duration::from_secs(25)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = Instant::now();
    node.server.stop();
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    assert!(!node.socket.exists());
    assert!(waiting.await.unwrap().is_err());
    assert!(matches!(
        node.client.status().await.unwrap_err(),
        ClientError::NotRunning(_)
    ));
    let again = ApiServer::start(&node.socket, None, shared).unwrap();
    node.client.status().await.unwrap();
    again.stop();
}

/// Says something to the socket that the client never would; returns status line and body.
async fn raw(node: &Node, request: &str) -> (String, String) {
    let mut stream = tokio::net::UnixStream::connect(&node.socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let first = head.lines().next().unwrap_or_default();
    (
        first.trim_start_matches("HTTP/1.1 ").to_owned(),
        body.to_owned(),
    )
}

/// Of what else is linked with the node some brings HTTP/2 with it; the API has no use for it.
#[tokio::test]
async fn http_2_is_not_spoken() {
    let node = node();
    let mut stream = tokio::net::UnixStream::connect(&node.socket).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || text.starts_with("HTTP/1.1 4"),
        "{text}"
    );
    node.client.status().await.unwrap();
}

#[tokio::test]
async fn every_mistake_gets_json_and_its_code() {
    let node = node();
    let call = |line: &str, body: &str| {
        format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let big = "x".repeat(70_000);
    let secret = r#"{"words": "key 0xfeedface"}"#;
    for (line, body, code, says) in [
        ("GET /v1/nothing", "", "404 ", "no such path: /v1/nothing"),
        ("PUT /v1/sa", "", "405 ", "/v1/sa does not take PUT"),
        ("GET /v1/events?since=x", "", "400 ", "since"),
        ("GET /v1/events?sinec=1", "", "400 ", "sinec"),
        ("POST /v1/sa", secret, "400 ", "the body is not"),
        ("POST /v1/sa", &big, "413 ", "length limit exceeded"),
        ("DELETE /v1/sa", "", "422 ", "name one SA"),
        ("DELETE /v1/sa?spi=0x1&all=true", "", "422 ", "name one SA"),
        ("DELETE /v1/sa?spi=zz", "", "400 ", "expected an SPI"),
        ("DELETE /v1/session", "", "400 ", "peer"),
        ("POST /v1/association?address=x", "", "400 ", "address"),
    ] {
        let (status, body) = raw(&node, &call(line, body)).await;
        assert!(status.starts_with(code), "{line}: {status} {body}");
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        let error = json["error"].as_str().unwrap_or_default();
        assert!(error.contains(says), "{line}: {error}");
        assert!(!error.contains("feedface"), "{error}");
    }
}
