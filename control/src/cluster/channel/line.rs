//! One connection that both sides have agreed on: a task reads, another one writes.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsStream;
use zeroize::{Zeroize as _, Zeroizing};

use super::frames::Frames;
use super::queue::Queued;
use super::socket::{Socket, Watched};
use crate::cluster::Parting;
use crate::cluster::wire;

pub(super) type Tls = TlsStream<BufReader<Socket>>;

/// Messages are put together up to so many bytes, and written at once.
const BATCH: usize = 64 * 1024;

/// How long a connection whose place another one takes may still bring what was sent on it: its end may come
/// just after the next one's beginning.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// How long an edge keeps the socket of a connection that it has ended by itself. Its kernel's word would be
/// taken for the end of its process, as long as it may not yet have been alone: see `Ledger::gone`.
const KEPT: Duration = Duration::from_millis(1200);

/// How long the kernel's end of a connection is waited for where it must be near.
const NEAR: Duration = Duration::from_secs(1);

/// A connection on which both have greeted.
pub(super) struct Line {
    pub(super) tls: Tls,
    pub(super) watched: Arc<Watched>,
    /// What has come behind the greeting.
    pub(super) frames: Frames,
    /// An edge's end: it must not look as if its process had died.
    pub(super) of_edge: bool,
}

/// What a connection is told.
pub(super) enum Ending {
    /// Another connection takes its place.
    Replaced,
    /// It is to end now, for this reason.
    Now(String),
    /// Writing failed.
    Unwritten(String),
}

/// Tells a connection to end; the first word counts.
pub(super) type End = mpsc::Sender<Ending>;

impl Line {
    /// The first message of the other side.
    pub(super) async fn first<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        loop {
            if let Some(message) = self.frames.next().map_err(|error| error.to_string())? {
                return Ok(message);
            }
            match read(&mut self.tls, &mut self.frames).await {
                Ok(true) => (),
                Ok(false) => return Err("it has ended the connection without a word".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Sends the first message.
    pub(super) async fn greet<T: Serialize>(&mut self, greeting: &T) -> Result<(), String> {
        let bytes = wire::encode(greeting).map_err(|error| error.to_string())?;
        let written = match self.tls.write_all(&bytes).await {
            Ok(()) => self.tls.flush().await,
            failed => failed,
        };
        written.map_err(|error| error.to_string())
    }

    /// Carries messages until the connection has ended, and yields how. All that came before the end has been
    /// told then, and the socket is closed, an edge's after a while if it has ended it by itself. Dropped, it ends the connection. `tell`: none of what may not come.
    pub(super) async fn run<In: DeserializeOwned, E>(
        mut self,
        queued: Queued,
        end: End,
        mut ending: mpsc::Receiver<Ending>,
        told: &mpsc::Sender<E>,
        tell: impl Fn(In) -> Option<E>,
    ) -> (Parting, String) {
        let (mut from, to) = tokio::io::split(self.tls);
        // Ends with this future.
        let mut writer = JoinSet::new();
        writer.spawn(async move {
            if let Err(error) = write(to, queued).await {
                // Full: it ends already.
                let _ = end.try_send(Ending::Unwritten(error.to_string()));
            }
        });
        let mut last: Option<(Instant, String)> = None;
        let mut failed: Option<io::Error> = None;
        let parting = 'all: loop {
            loop {
                match self.frames.next::<In>() {
                    Ok(None) => break,
                    Ok(Some(message)) => {
                        let Some(message) = tell(message) else {
                            break 'all (Parting::Lost, "it has greeted twice".to_owned());
                        };
                        if told.send(message).await.is_err() {
                            break 'all (Parting::Lost, "nobody listens".to_owned());
                        }
                    }
                    Err(error) => break 'all (Parting::Lost, error.to_string()),
                }
            }
            if let Some(error) = failed.take() {
                // What came before that which TLS can not read is still there. There is nothing to wait for.
                match unconstrained(read(&mut from, &mut self.frames)).now_or_never() {
                    Some(Ok(true)) => {
                        failed = Some(error);
                        continue;
                    }
                    _ => break judged(&self.watched, &error),
                }
            }
            let over = async {
                match &last {
                    Some((until, _)) => sleep_until(*until).await,
                    None => pending().await,
                }
            };
            let result = tokio::select! {
                result = read(&mut from, &mut self.frames) => result,
                () = over => {
                    let why = last.map(|(_, why)| why).unwrap_or_default();
                    break self.watched.parting().unwrap_or((Parting::Lost, why));
                }
                Some(word) = ending.recv(), if last.is_none() => {
                    let (time, why) = match word {
                        Ending::Now(why) => break (Parting::Lost, why),
                        Ending::Unwritten(why) => (NEAR, why),
                        Ending::Replaced => {
                            (LAST_WORDS, "another connection took its place".to_owned())
                        }
                    };
                    last = Some((Instant::now() + time, why));
                    continue;
                }
            };
            match result {
                Ok(true) => (),
                // TLS has ended in good order, which anybody can do who lives: the kernel's word counts.
                Ok(false) => {
                    writer.shutdown().await;
                    let _ = timeout(NEAR, self.watched.ended()).await;
                    let said = "the other side has ended TLS, and not the connection".to_owned();
                    break self.watched.parting().unwrap_or((Parting::Lost, said));
                }
                Err(error) => failed = Some(error),
            }
        };
        writer.shutdown().await;
        if self.of_edge && self.watched.parting().is_none() {
            tokio::spawn(async move {
                tokio::time::sleep(KEPT).await;
                drop(from);
            });
        }
        parting
    }
}

/// How a connection ended that could not be read any more.
fn judged(watched: &Watched, error: &io::Error) -> (Parting, String) {
    let lost = (Parting::Lost, error.to_string());
    match error.kind() {
        // Not TLS, or a fatal alert: whatever the kernel said later.
        io::ErrorKind::InvalidData => lost,
        _ => watched.parting().unwrap_or(lost),
    }
}

/// Reads some bytes; false: there are no more.
async fn read(from: &mut (impl AsyncRead + Unpin), frames: &mut Frames) -> io::Result<bool> {
    let count = from.read(frames.room()).await?;
    frames.filled(count);
    Ok(count > 0)
}

/// Writes what is queued, several messages at once, until nobody sends any more; then ends what is written in
/// good order.
async fn write(mut to: WriteHalf<Tls>, mut queued: Queued) -> io::Result<()> {
    let mut batch = Zeroizing::new(Vec::with_capacity(BATCH));
    while let Some(first) = queued.next().await {
        let mut next = Some(first);
        while let Some(message) = next {
            if batch.len() + message.len() > BATCH {
                to.write_all(&batch).await?;
                batch.as_mut_slice().zeroize();
                batch.clear();
            }
            match message.len() > BATCH {
                true => to.write_all(&message).await?,
                // It never grows, which would leave keys behind.
                false => batch.extend_from_slice(&message),
            }
            next = queued.ready();
        }
        to.write_all(&batch).await?;
        to.flush().await?;
        batch.as_mut_slice().zeroize();
        batch.clear();
    }
    to.shutdown().await
}
