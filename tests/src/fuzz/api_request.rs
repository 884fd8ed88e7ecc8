//! Bytes on a connection to the API: requests of HTTP, their queries and their JSON.

use std::time::Duration;

use evergate::api::model::{Done, Status};
use evergate::api::{Command, CommandError, Shared};
use evergate::node::events::{EventKind, EventLog, NewEvent};
use evergate::sadb::SessionSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::sync::mpsc;

/// More than the largest answer.
const BUFFER: usize = 1 << 16;

const STATUS: &str = r#"{"name": "gw", "role": "gateway", "identity": "gw.example", "version": "0",
  "uptime_ms": 1, "interfaces": [], "clusters": [], "tunnels": [], "sessions": [], "counters": [],
  "drops": []}"#;

/// The node's core, which obeys as far as words can be judged.
async fn obey(mut commands: mpsc::Receiver<Command>) {
    let done = || Ok(Done::new("done"));
    while let Some(command) = commands.recv().await {
        // Whoever asked may be gone.
        let _ = match command {
            Command::SaList { reply } => reply.send(Ok(Vec::new())).is_ok(),
            Command::SaAdd { words, reply } => {
                let read = SessionSpec::from_words(words.iter().map(String::as_str));
                let read = read.map(|_| Done::new("added"));
                reply
                    .send(read.map_err(|e| CommandError::Invalid(e.to_string())))
                    .is_ok()
            }
            Command::SessionDelete { peer, reply } => {
                let text = format!("no session with {peer}");
                reply.send(Err(CommandError::NotFound(text))).is_ok()
            }
            // One that is never answered.
            Command::PolicyReload { reply } => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                reply.send(done()).is_ok()
            }
            Command::SaDelete { reply, .. }
            | Command::SaFlush { reply }
            | Command::Drain { reply, .. }
            | Command::Associate { reply, .. }
            | Command::Keylog { reply, .. } => reply.send(done()).is_ok(),
        };
    }
}

pub fn api_request(data: &[u8]) {
    // Time goes on by itself when everybody waits.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let answer = runtime.block_on(async {
        let (ours, theirs) = duplex(BUFFER);
        let (sender, receiver) = mpsc::channel(4);
        let events = EventLog::new();
        events.push(NewEvent::new(
            EventKind::NodeStarted,
            "the node has started",
        ));
        let status: Status = serde_json::from_str(STATUS).expect("a status");
        let shared = Shared {
            status: std::sync::Arc::new(move || status.clone()),
            events,
            commands: sender,
        };
        tokio::spawn(obey(receiver));
        let serving = evergate::fuzzing::serve_api(theirs, shared, Duration::from_secs(5));
        let server = tokio::spawn(serving);
        let (mut read, mut write) = tokio::io::split(ours);
        let ask = async {
            // It may hang up in the middle.
            let _ = write.write_all(data).await;
            let _ = write.shutdown().await;
        };
        let mut answer = Vec::new();
        let hear = async {
            let _ = read.read_to_end(&mut answer).await;
        };
        // The longest wait that can be asked for is 30 s; many may be asked for one after the other.
        let both = async { tokio::join!(ask, hear) };
        let patience = Duration::from_secs(40 * (1 + data.len() as u64 / 16));
        let ended = tokio::time::timeout(patience, both).await;
        assert!(ended.is_ok(), "it keeps the connection for ever");
        server.await.expect("the API does not panic");
        answer
    });
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1."),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
}
