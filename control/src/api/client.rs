//! A small client of the API, for the commands.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::model::{Done, ErrorBody, Event, SaAdd, SaView, SaWords, Spi, Status};
use super::server::COMMAND_TIMEOUT;

/// What reading needs; a node that is alive answers within a millisecond.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer larger than this is not from an evergate.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no evergate is running at {} (start one with `evergate run -c FILE`)", .0.display()
    )]
    NotRunning(PathBuf),
    #[error(
        "not permitted to speak to {}: run as root, or as a member of the socket's group",
        .0.display()
    )]
    Permission(PathBuf),
    #[error(
        "the evergate at {} did not answer within {} s: it is frozen or stopping",
        .socket.display(), .after.as_secs()
    )]
    Frozen { socket: PathBuf, after: Duration },
    #[error("cannot speak to {}: {text}", .socket.display())]
    Transport { socket: PathBuf, text: String },
    /// The node answered, and refused.
    #[error("{text}")]
    Refused { status: StatusCode, text: String },
}

impl ClientError {
    /// Whether the node was reached: it answered, and refused.
    #[must_use]
    pub fn reached(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

type Result<T> = std::result::Result<T, ClientError>;

/// Speaks to the node at one socket; each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The node at a glance.
    ///
    /// # Errors
    /// As each method here: the node is not there, is frozen, or refuses.
    pub async fn status(&self) -> Result<Status> {
        self.read("/v1/status", READ_TIMEOUT).await
    }

    /// The events after number `since`; where there are none yet, waits up to `wait` (at most
    /// 30 s) for one.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn events(&self, since: u64, wait: Duration) -> Result<Vec<Event>> {
        let path = format!("/v1/events?since={since}&wait_ms={}", wait.as_millis());
        self.read(&path, READ_TIMEOUT + wait).await
    }

    /// The node's metrics in Prometheus' text format.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn metrics(&self) -> Result<String> {
        let body = self
            .request(Method::GET, "/metrics", Vec::new(), READ_TIMEOUT)
            .await?;
        String::from_utf8(body.to_vec()).map_err(|_| self.transport("the answer is not text"))
    }

    /// The SAs that exist.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn sa_list(&self) -> Result<Vec<SaView>> {
        self.read("/v1/sa", COMMAND_TIMEOUT + READ_TIMEOUT).await
    }

    /// Adds an SA, given as words.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn sa_add(&self, words: SaWords) -> Result<Done> {
        let body = serde_json::to_vec(&SaAdd { words }).map_err(|e| self.transport(e))?;
        self.command(Method::POST, "/v1/sa", body).await
    }

    /// Deletes the SA with this SPI.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn sa_delete(&self, spi: Spi) -> Result<Done> {
        self.command(Method::DELETE, &format!("/v1/sa?spi={spi}"), Vec::new())
            .await
    }

    /// Deletes all SAs that were written by hand.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn sa_flush(&self) -> Result<Done> {
        self.command(Method::DELETE, "/v1/sa?all=true", Vec::new())
            .await
    }

    /// Has the node read its policy again.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn policy_reload(&self) -> Result<Done> {
        self.command(Method::POST, "/v1/policy/reload", Vec::new())
            .await
    }

    /// Ends the session with a peer, named by identity or outside address.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn session_delete(&self, peer: &str) -> Result<Done> {
        let path = format!("/v1/session?peer={}", percent(peer));
        self.command(Method::DELETE, &path, Vec::new()).await
    }

    /// Has the node begin or end to write keys.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn keylog(&self, on: bool) -> Result<Done> {
        let path = format!("/v1/debug/keylog?on={on}");
        self.command(Method::POST, &path, Vec::new()).await
    }

    /// Has a gateway let go of its clients, or take clients again.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn drain(&self, undo: bool) -> Result<Done> {
        let method = if undo { Method::DELETE } else { Method::POST };
        self.command(method, "/v1/drain", Vec::new()).await
    }

    /// Tells an edge that a station has come to the network in front of it.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn associate(&self, address: IpAddr) -> Result<Done> {
        let path = format!("/v1/association?address={address}");
        self.command(Method::POST, &path, Vec::new()).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, patience: Duration) -> Result<T> {
        let body = self
            .request(Method::GET, path, Vec::new(), patience)
            .await?;
        self.parse(&body)
    }

    async fn command<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T> {
        let body = self
            .request(method, path, body, COMMAND_TIMEOUT + READ_TIMEOUT)
            .await?;
        self.parse(&body)
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T> {
        serde_json::from_slice(body).map_err(|e| {
            self.transport(format!(
                "the answer is not the expected JSON ({e}); other version?"
            ))
        })
    }

    fn transport(&self, error: impl std::fmt::Display) -> ClientError {
        ClientError::Transport {
            socket: self.socket.clone(),
            text: error.to_string(),
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Bytes> {
        let exchange = self.exchange(method, path, body);
        tokio::time::timeout(patience, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(ClientError::Frozen {
                    socket: self.socket.clone(),
                    after: patience,
                })
            })
    }

    async fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning(self.socket.clone())
                }
                io::ErrorKind::PermissionDenied => ClientError::Permission(self.socket.clone()),
                // A Unix socket whose queue is full refuses at once where TCP would wait.
                io::ErrorKind::WouldBlock => {
                    self.transport("too many others wait for its answer: it is frozen")
                }
                _ => self.transport(e),
            })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.transport(e))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "evergate")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| self.transport(e))?;
        let ask = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| self.transport(e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await;
            Ok((status, body.map_err(|e| self.transport(e))?.to_bytes()))
        };
        // The connection does the I/O while the request waits; it ends with the request.
        let mut ask = std::pin::pin!(ask);
        let (status, body) = tokio::select! {
            biased;
            answer = &mut ask => answer?,
            _ = connection => ask.await?,
        };
        if status.is_success() {
            return Ok(body);
        }
        let text = match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(ErrorBody { error }) => error,
            Err(_) => format!("the node answered {status}"),
        };
        Err(ClientError::Refused { status, text })
    }
}

/// Percent-encodes what is not unreserved (RFC 3986 section 2.3).
fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_the_query() {
        assert_eq!(
            percent("a&b=c@d.example ü"),
            "a%26b%3Dc%40d.example%20%C3%BC"
        );
    }

    #[tokio::test]
    async fn nobody_there_is_told_with_the_way_to_change_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone.sock");
        let expected = format!(
            "no evergate is running at {} (start one with `evergate run -c FILE`)",
            path.display()
        );
        let client = Client::new(&path);
        assert_eq!(client.status().await.unwrap_err().to_string(), expected);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(
            client.status().await.unwrap_err().to_string(),
            expected,
            "a stale file"
        );
    }

    #[tokio::test]
    async fn a_frozen_node_is_told_from_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frozen.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = Client::new(&path);
        let patience = Duration::from_millis(50);
        let error = client
            .request(Method::GET, "/v1/status", Vec::new(), patience)
            .await;
        assert!(matches!(error.unwrap_err(), ClientError::Frozen { .. }));
    }
}
