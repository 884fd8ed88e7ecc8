//! An edge's side.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::frames::Frames;
use super::line::{End, Ending, Line};
use super::queue::{NotQueued, Outgoing, queue};
use super::socket::Socket;
use super::{ALPN, Credentials, HANDSHAKE};
use crate::cluster::wire::{Down, Up, VERSION};

/// Until then a machine must have taken a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// After all authorities have failed there is a pause: the first, and the longest.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// What [`Uplink::leave`] takes at most.
const LEAVE: Duration = Duration::from_millis(500);
/// News that was not asked for yet; then the connection is not read any more.
const NEWS: usize = 64;

/// What has happened to an edge's connection.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// There is one, with this authority.
    Connected { authority: SocketAddr },
    /// The authority has said something.
    Message(Box<Down>),
    /// The connection has ended; another one is tried for.
    Ended { why: String },
    /// This authority can not be had. Told once, until there is another reason.
    Failed { authority: SocketAddr, why: String },
}

/// A connection to one of the authorities, as long as one can be had.
pub struct Uplink {
    told: mpsc::Receiver<Told>,
    current: Option<Current>,
    leaving: Arc<AtomicBool>,
    /// Ends with the uplink.
    keeping: JoinSet<()>,
}

struct Current {
    outgoing: Outgoing,
    end: End,
    /// Something was not sent, and nothing may follow. What is queued stays until the connection has ended: a
    /// writer with nothing left to write would end it in good order, as if the edge were leaving.
    broken: bool,
}

/// What the task of the connection says.
enum Told {
    Connected(SocketAddr, Current),
    News(News),
}

impl Uplink {
    /// Tries the authorities in this order, again and again. Each has a name that its certificate must have.
    /// To be called within a runtime.
    #[must_use]
    pub fn start(authorities: Vec<(SocketAddr, String)>, credentials: &Credentials) -> Self {
        let (tell, told) = mpsc::channel(NEWS);
        let leaving = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            connector: credentials.client().map(|c| Arc::new(c).into()),
            authorities,
            failed: HashMap::new(),
            tell,
            leaving: Arc::clone(&leaving),
        };
        let mut keeping = JoinSet::new();
        keeping.spawn(keeper.keep());
        Self {
            told,
            current: None,
            leaving,
            keeping,
        }
    }

    /// The next thing that has happened; none after [`Uplink::leave`]. Cancel safe.
    pub async fn next(&mut self) -> News {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The same, for whoever waits for several.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<News> {
        match self.told.poll_recv(context) {
            Poll::Ready(Some(Told::Connected(authority, current))) => {
                self.current = Some(current);
                Poll::Ready(News::Connected { authority })
            }
            Poll::Ready(Some(Told::News(news))) => {
                if matches!(news, News::Ended { .. }) {
                    self.current = None;
                }
                Poll::Ready(news)
            }
            // It says nothing any more.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Sends a message, and never waits; false: there is no connection. One that does not take what is sent
    /// is ended.
    pub fn send(&mut self, message: Up) -> bool {
        let Some(current) = self.current.as_mut().filter(|c| !c.broken) else {
            return false;
        };
        match current.outgoing.push(&message) {
            Ok(()) => return true,
            Err(NotQueued::Closed) => (),
            Err(error) => {
                // Full: it ends already.
                let _ = current.end.try_send(Ending::Now(error.to_string()));
            }
        }
        current.broken = true;
        false
    }

    /// Sends what is queued, for half a second at most, then ends the connection, and makes no other one.
    pub async fn leave(&mut self) {
        self.leaving.store(true, Ordering::Relaxed);
        // The writer ends once it has written all.
        if self.current.take().is_some() {
            let _ = timeout(LEAVE, async { while self.told.recv().await.is_some() {} }).await;
        }
        self.keeping.shutdown().await;
    }
}

/// Keeps a connection.
struct Keeper {
    connector: Result<TlsConnector, super::ChannelError>,
    authorities: Vec<(SocketAddr, String)>,
    /// What was told of each authority that can not be had.
    failed: HashMap<SocketAddr, String>,
    tell: mpsc::Sender<Told>,
    leaving: Arc<AtomicBool>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut pause = SHORTEST;
        loop {
            let mut lived = Duration::ZERO;
            for (authority, name) in self.authorities.clone() {
                let line = match self.connect(authority, &name).await {
                    Ok(line) => line,
                    Err(why) => {
                        self.fail(authority, why).await;
                        continue;
                    }
                };
                self.failed.remove(&authority);
                lived = self.carry(authority, line).await;
                if self.leaving.load(Ordering::Relaxed) || self.tell.is_closed() {
                    return;
                }
                // Again in order, from the first.
                break;
            }
            // One that takes connections and ends them at once is no better than one that takes none.
            if lived > LONGEST {
                pause = SHORTEST;
            }
            sleep(pause).await;
            pause = LONGEST.min(pause * 2);
        }
    }

    async fn fail(&mut self, authority: SocketAddr, why: String) {
        if self.failed.get(&authority) != Some(&why) {
            self.failed.insert(authority, why.clone());
            let failed = News::Failed { authority, why };
            let _ = self.tell.send(Told::News(failed)).await;
        }
    }

    /// Carries messages until the connection ends; yields how long it was there.
    async fn carry(&self, authority: SocketAddr, line: Line) -> Duration {
        let (since, tell) = (Instant::now(), &self.tell);
        let (outgoing, queued) = queue();
        let (end, ending) = mpsc::channel(1);
        let current = Current {
            outgoing,
            end: end.clone(),
            broken: false,
        };
        if tell.send(Told::Connected(authority, current)).await.is_ok() {
            let message = |message| match message {
                Down::Greeting { .. } => None,
                message => Some(Told::News(News::Message(Box::new(message)))),
            };
            let (_, why) = line.run(queued, end, ending, tell, message).await;
            let _ = tell.send(Told::News(News::Ended { why })).await;
        }
        since.elapsed()
    }

    /// TCP, TLS, and the greetings.
    async fn connect(&self, authority: SocketAddr, name: &str) -> Result<Line, String> {
        let connector = match &self.connector {
            Ok(connector) => connector,
            Err(error) => return Err(error.to_string()),
        };
        connect(
            connector,
            authority,
            name,
            &Up::Greeting { version: VERSION },
        )
        .await
    }
}

/// TCP and TLS to an authority, the first message, and its greeting.
pub(super) async fn connect(
    connector: &TlsConnector,
    authority: SocketAddr,
    name: &str,
    first: &Up,
) -> Result<Line, String> {
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| format!("found {name:?}, expected the DNS name of its certificate"))?;
    let connected = timeout(CONNECT, TcpStream::connect(authority)).await;
    let connected = connected.map_err(|_| "it does not answer")?;
    let stream = connected.map_err(|error| error.to_string())?;
    let (socket, watched) = Socket::new(stream).map_err(|error| error.to_string())?;
    let shown = async {
        let connected = connector.connect(name, socket).await;
        let tls = connected.map_err(|error| error.to_string())?;
        if tls.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err("it does not want to speak with edges".to_owned());
        }
        let mut line = Line {
            tls: tls.into(),
            watched,
            frames: Frames::new(),
            of_edge: true,
        };
        line.greet(first).await?;
        match line.first::<Down>().await {
            Ok(Down::Greeting { version: VERSION }) => Ok(line),
            Ok(Down::Greeting { version }) => Err(format!(
                "it speaks version {version} of the protocol, this node {VERSION}"
            )),
            Ok(_) => Err("a message came before its greeting".to_owned()),
            Err(why) => Err(format!("it did not take this node for an edge: {why}")),
        }
    };
    match timeout(HANDSHAKE, shown).await {
        Ok(result) => result,
        Err(_) => Err("it has not shown in time who it is".to_owned()),
    }
}
