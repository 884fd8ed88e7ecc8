//! The API's own thread, and the seam between it and the node's core.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::model::{Done, SaView, SaWords, Spi, Status};
use super::routes;
use super::socket::{self, Owned, SocketError};
use crate::node::events::EventLog;

/// How long a command may take before the caller is told that the core does not answer.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long open requests may take to end when the server stops.
const STOP_GRACE: Duration = Duration::from_millis(200);

/// Where a command's answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// What the API asks of the node's core. A dropped `reply` is told as "the node is stopping".
#[derive(Debug)]
pub enum Command {
    SaList {
        reply: Reply<Vec<SaView>>,
    },
    /// An SA written by hand, split into words.
    SaAdd {
        words: SaWords,
        reply: Reply<Done>,
    },
    SaDelete {
        spi: Spi,
        reply: Reply<Done>,
    },
    /// Removes the SAs that were written by hand; sessions keep theirs.
    SaFlush {
        reply: Reply<Done>,
    },
    /// Reads the policy again; a broken one is refused and the old one stays.
    PolicyReload {
        reply: Reply<Done>,
    },
    /// A gateway lets go of its clients, or takes clients again.
    Drain {
        undo: bool,
        reply: Reply<Done>,
    },
    /// A station has come to the network in front of an edge.
    Associate {
        address: IpAddr,
        reply: Reply<Done>,
    },
    /// Ends the session with a peer, named by identity or by outside address.
    SessionDelete {
        peer: String,
        reply: Reply<Done>,
    },
    /// Begins or ends to write keys to where the node was started with.
    Keylog {
        on: bool,
        reply: Reply<Done>,
    },
}

/// Why the core refused a command; the text goes to the person who typed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// What was asked for makes no sense or breaks a rule (HTTP 422).
    #[error("{0}")]
    Invalid(String),
    /// What was named is not there (HTTP 404).
    #[error("{0}")]
    NotFound(String),
    /// It is there already, or named ambiguously (HTTP 409).
    #[error("{0}")]
    Conflict(String),
    /// The node tried and could not (HTTP 500).
    #[error("{0}")]
    Failed(String),
}

impl From<String> for CommandError {
    fn from(text: String) -> Self {
        Self::Invalid(text)
    }
}

impl From<&str> for CommandError {
    fn from(text: &str) -> Self {
        Self::Invalid(text.to_owned())
    }
}

/// Draws the present status. It is called on the API's thread for each request and must not wait
/// for anything: it reads a snapshot and atomics.
pub type StatusFn = Arc<dyn Fn() -> Status + Send + Sync>;

/// What the API shares with the node.
#[derive(Clone)]
pub struct Shared {
    pub status: StatusFn,
    pub events: EventLog,
    pub commands: mpsc::Sender<Command>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("commands", &self.commands)
            .finish_non_exhaustive()
    }
}

/// The running API. Dropping it stops it and removes the socket.
#[derive(Debug)]
pub struct ApiServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why the API did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("cannot start the API's thread: {0}")]
    Thread(io::Error),
}

impl ApiServer {
    /// Listens on `socket_path` and answers from a thread of its own. `group`: whom the socket is given to.
    ///
    /// # Errors
    /// If another evergate answers there, or the socket can not be made.
    pub fn start(
        socket_path: &Path,
        group: Option<u32>,
        shared: Shared,
    ) -> Result<Self, StartError> {
        Self::start_with(socket_path, group, shared, COMMAND_TIMEOUT)
    }

    pub(crate) fn start_with(
        socket_path: &Path,
        group: Option<u32>,
        shared: Shared,
        command_timeout: Duration,
    ) -> Result<Self, StartError> {
        let (listener, owned) = socket::listen(socket_path, group)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::UnixListener::from_std(listener).map_err(StartError::Thread)?
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("evergate-api".to_owned())
            .spawn(move || {
                crate::privilege::drop_capabilities();
                let app = routes::router(shared, command_timeout);
                runtime.block_on(serve(listener, app, owned, stopped));
                // Tasks of connections that outlived the grace end with their runtime.
            })
            .map_err(StartError::Thread)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Stops answering, lets open requests end for a moment, and removes the socket.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the API's thread panicked");
        }
    }
}

async fn serve(
    listener: tokio::net::UnixListener,
    app: axum::Router,
    owned: Owned,
    stopped: oneshot::Receiver<()>,
) {
    let (grace, in_grace) = oneshot::channel::<()>();
    let until_stopped = async move {
        // Resolves when the sender is dropped, which is how `ApiServer` stops.
        let _ = stopped.await;
        // Nobody new connects from here on, and a successor may take the path.
        drop(owned);
        drop(grace);
    };
    let serving = axum::serve(listener, app).with_graceful_shutdown(until_stopped);
    let out_of_grace = async move {
        let _ = in_grace.await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        result = serving => {
            if let Err(error) = result {
                tracing::error!(%error, "the API stopped answering");
            }
        }
        () = out_of_grace => {}
    }
}
