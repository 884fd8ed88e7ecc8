//! The API's own thread, and the seam between it and the node's core.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use super::model::{Done, SaView, SaWords, Spi, Status};
use super::routes;
use super::socket::{self, Owned, SocketError};
use crate::node::events::EventLog;

/// How long a command may take before the caller is told that the core does not answer.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long open requests may take to end when the server stops.
const STOP_GRACE: Duration = Duration::from_millis(200);

/// After a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

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
    let until_stopped = async move {
        // Resolves when the sender is dropped, which is how `ApiServer` stops.
        let _ = stopped.await;
        // Nobody new connects from here on, and a successor may take the path.
        drop(owned);
    };
    let mut until_stopped = std::pin::pin!(until_stopped);
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut until_stopped => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connections.watch(connection(stream, app.clone()));
                // A client that hangs up in the middle is no concern of ours.
                tokio::spawn(async move { drop(connection.await) });
            }
            // Without descriptors, as one way: there will be some again.
            Err(error) => {
                tracing::warn!(%error, "the API can not accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    // A connection that outlives the grace ends with the runtime.
    let _ = tokio::time::timeout(STOP_GRACE, connections.shutdown()).await;
}

/// One connection that is answered. HTTP/1 only: a library that others bring with them knows HTTP/2 too, which
/// nobody needs here.
pub(crate) fn connection<S>(
    stream: S,
    app: axum::Router,
) -> http1::Connection<TokioIo<S>, TowerToHyperService<axum::Router>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
}
