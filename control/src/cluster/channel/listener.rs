//! The authority's side.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{DnsName, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::frames::Frames;
use super::line::{End, Ending, Line};
use super::queue::{NotQueued, Outgoing, queue};
use super::socket::Socket;
use super::{ALPN, ChannelError, Credentials, HANDSHAKE};
use crate::cluster::wire::{Down, Up, VERSION};
use crate::cluster::{EdgeId, Parting, Reached, Run};

/// Connections that have not shown yet who they are; one more ends the oldest.
const HANDSHAKES: usize = 64;
/// Messages that have come and were not asked for yet; then connections are not read any more.
const HEARD: usize = 64;
/// The same of refusals; more are not told of.
const REFUSED: usize = 16;
/// A pause after an error of `accept`, which tells of too few file descriptors for the most part.
const BREATH: Duration = Duration::from_millis(100);

/// An edge that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub edge: EdgeId,
    /// A DNS name among the subject alternative names of its certificate.
    pub name: String,
}

/// What has happened on the channel.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// An edge is there. What is sent to it from now on reaches it.
    Connected { edge: EdgeId, from: SocketAddr },
    /// It has said something.
    Message { edge: EdgeId, message: Up },
    /// Its connection has ended; all that came on it was told before.
    Ended {
        edge: EdgeId,
        parting: Parting,
        why: String,
    },
    /// The notary of an edge says that the process of this run has ended, and how far it came.
    Testimony {
        edge: EdgeId,
        run: Run,
        reached: Vec<Reached>,
    },
    /// Somebody was not let in. Not each one is told of.
    Refused { from: SocketAddr, why: String },
}

/// Takes connections of edges.
pub struct Listener {
    local: SocketAddr,
    arrivals: mpsc::Receiver<Met>,
    refusals: mpsc::Receiver<Heard>,
    told: mpsc::Sender<(u64, Told)>,
    heard: mpsc::Receiver<(u64, Told)>,
    seats: BTreeMap<EdgeId, Seat>,
    /// Edges whose next connection takes its place now.
    next: VecDeque<EdgeId>,
    /// Names connections, so that a late word of an old one is not taken for the new one's.
    serial: u64,
    lines: JoinSet<()>,
    /// Ends with the listener.
    _accepting: JoinSet<()>,
}

/// Of an edge.
#[derive(Default)]
struct Seat {
    current: Option<Current>,
    waiting: Option<Arrival>,
}

/// The connection of an edge.
struct Current {
    serial: u64,
    outgoing: Outgoing,
    end: End,
    /// It was told to.
    ending: bool,
}

/// A connection of an edge on which both have greeted.
struct Arrival {
    edge: EdgeId,
    from: SocketAddr,
    line: Line,
}

/// Who has connected.
enum Met {
    Edge(Box<Arrival>),
    /// An edge's notary, which has no more to say.
    Notary(EdgeId, Run, Vec<Reached>),
}

/// What a connection's task says.
enum Told {
    Message(EdgeId, Up),
    Ended(EdgeId, Parting, String),
}

impl Current {
    fn end(&mut self, how: Ending) {
        // Full: it ends already.
        let _ = self.end.try_send(how);
    }
}

impl Listener {
    /// Listens for these edges.
    ///
    /// # Errors
    /// The address can not be had; names that are none, or are given twice.
    pub async fn bind(
        address: SocketAddr,
        credentials: &Credentials,
        known: Vec<Known>,
    ) -> Result<Self, ChannelError> {
        let known = Arc::new(Names::new(known)?);
        let acceptor = TlsAcceptor::from(Arc::new(credentials.server()?));
        let failed = |why| ChannelError::Bind { address, why };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let (arrived, arrivals) = mpsc::channel(1);
        let (refused, refusals) = mpsc::channel(REFUSED);
        let (told, heard) = mpsc::channel(HEARD);
        let door = Door {
            acceptor,
            known,
            arrived,
            refused,
        };
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::new(door)));
        Ok(Self {
            local,
            arrivals,
            refusals,
            told,
            heard,
            seats: BTreeMap::new(),
            next: VecDeque::new(),
            serial: 0,
            lines: JoinSet::new(),
            _accepting: accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next thing that has happened. Cancel safe: nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Heard {
        loop {
            while let Some(edge) = self.next.pop_front() {
                let waiting = self.seats.get_mut(&edge).and_then(|s| s.waiting.take());
                if let Some(arrival) = waiting {
                    return self.seat(arrival);
                }
            }
            // All senders but the clones are here: none of these ends.
            let heard = tokio::select! {
                Some((serial, told)) = self.heard.recv() => self.hear(serial, told),
                Some(met) = self.arrivals.recv() => match met {
                    Met::Edge(arrival) => self.arrive(*arrival),
                    Met::Notary(edge, run, reached) => {
                        return Heard::Testimony { edge, run, reached };
                    }
                },
                Some(refused) = self.refusals.recv() => Some(refused),
                Some(_) = self.lines.join_next() => None,
            };
            if let Some(heard) = heard {
                return heard;
            }
        }
    }

    /// Sends a message to an edge. Never waits: to an edge without a connection nothing is sent, and the
    /// connection of one that does not take what it gets is ended, as lost.
    pub fn send(&mut self, edge: EdgeId, message: Down) {
        let current = self.seats.get_mut(&edge).and_then(|s| s.current.as_mut());
        let Some(current) = current.filter(|current| !current.ending) else {
            return;
        };
        match current.outgoing.push(&message) {
            Ok(()) | Err(NotQueued::Closed) => (),
            Err(error) => {
                current.ending = true;
                current.end(Ending::Now(error.to_string()));
            }
        }
    }

    /// Ends the connection of an edge, as lost. [`Heard::Ended`] tells when it has.
    pub fn disconnect(&mut self, edge: EdgeId) {
        if let Some(current) = self.seats.get_mut(&edge).and_then(|s| s.current.as_mut()) {
            current.ending = true;
            current.end(Ending::Now("this side has ended it".to_owned()));
        }
    }

    fn hear(&mut self, serial: u64, told: Told) -> Option<Heard> {
        match told {
            Told::Message(edge, message) => Some(Heard::Message { edge, message }),
            Told::Ended(edge, parting, why) => {
                let seat = self.seats.get_mut(&edge)?;
                seat.current.take_if(|current| current.serial == serial)?;
                self.next.push_back(edge);
                Some(Heard::Ended { edge, parting, why })
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) -> Option<Heard> {
        let seat = self.seats.entry(arrival.edge).or_default();
        let Some(current) = &mut seat.current else {
            return Some(self.seat(arrival));
        };
        current.end(Ending::Replaced);
        // Of several the last one is the edge's.
        seat.waiting = Some(arrival);
        None
    }

    /// A connection is the edge's from now on.
    fn seat(&mut self, arrival: Arrival) -> Heard {
        let Arrival { edge, from, line } = arrival;
        self.serial += 1;
        let (serial, told) = (self.serial, self.told.clone());
        let (outgoing, queued) = queue();
        let (end, ending) = mpsc::channel(1);
        let seat = self.seats.entry(edge).or_default();
        seat.current = Some(Current {
            serial,
            outgoing,
            end: end.clone(),
            ending: false,
        });
        self.lines.spawn(async move {
            let tell = |message| match message {
                Up::Greeting { .. } | Up::Testimony { .. } => None,
                message => Some((serial, Told::Message(edge, message))),
            };
            let (parting, why) = line.run(queued, end, ending, &told, tell).await;
            let _ = told.send((serial, Told::Ended(edge, parting, why))).await;
        });
        Heard::Connected { edge, from }
    }
}

/// The edges, by the names of their certificates.
struct Names(Vec<(ServerName<'static>, Known)>);

impl Names {
    fn new(known: Vec<Known>) -> Result<Self, ChannelError> {
        let mut names: Vec<(_, Known)> = Vec::new();
        for Known { edge, name } in known {
            let twice = |(_, other): &(_, Known)| {
                other.edge == edge || other.name.eq_ignore_ascii_case(&name)
            };
            if names.iter().any(twice) {
                return Err(ChannelError::Twice { edge, name });
            }
            let Ok(dns) = DnsName::try_from(name.clone()) else {
                return Err(ChannelError::Name { edge, name });
            };
            names.push((ServerName::DnsName(dns), Known { edge, name }));
        }
        Ok(Self(names))
    }

    /// Whose certificate this is, which was found to come from a CA.
    fn find(&self, certificate: &rustls_pki_types::CertificateDer<'_>) -> Result<EdgeId, String> {
        let certificate = webpki::EndEntityCert::try_from(certificate)
            .map_err(|error| format!("its certificate can not be read: {error}"))?;
        // A wildcard would name several edges.
        let has = |name: &str| {
            certificate
                .valid_dns_names()
                .any(|found| found.eq_ignore_ascii_case(name))
        };
        let mut found = self.0.iter().filter(|(dns, known)| {
            let valid = certificate.verify_is_valid_for_subject_name(dns);
            valid.is_ok() && has(&known.name)
        });
        let shown = || {
            let names: Vec<&str> = certificate.valid_dns_names().collect();
            match names.is_empty() {
                true => "no DNS name".to_owned(),
                false => names.join(", "),
            }
        };
        match (found.next(), found.next()) {
            (Some((_, known)), None) => Ok(known.edge),
            (Some(_), Some(_)) => Err(format!("its certificate names several edges: {}", shown())),
            (None, _) => Err(format!("its certificate names no edge: {}", shown())),
        }
    }
}

/// What a new connection is met with.
struct Door {
    acceptor: TlsAcceptor,
    known: Arc<Names>,
    arrived: mpsc::Sender<Met>,
    refused: mpsc::Sender<Heard>,
}

async fn accept(listener: TcpListener, door: Arc<Door>) {
    let mut tasks = JoinSet::new();
    let mut under_way: VecDeque<(SocketAddr, AbortHandle)> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let Ok((stream, from)) = accepted else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        if under_way.len() >= HANDSHAKES {
            under_way.retain(|(_, task)| !task.is_finished());
        }
        // Whoever connects and says nothing must not keep the others out until its time is over.
        if under_way.len() >= HANDSHAKES
            && let Some((from, task)) = under_way.pop_front()
        {
            task.abort();
            door.refuse(from, "too many others came before it had shown who it is");
        }
        let door = Arc::clone(&door);
        let task = tasks.spawn(async move {
            match timeout(HANDSHAKE, door.meet(stream, from)).await {
                Ok(Ok(met)) => {
                    let _ = door.arrived.send(met).await;
                }
                Ok(Err(why)) => door.refuse(from, &why),
                Err(_) => door.refuse(from, "it has not shown in time who it is"),
            }
        });
        under_way.push_back((from, task));
    }
}

impl Door {
    fn refuse(&self, from: SocketAddr, why: &str) {
        let why = why.to_owned();
        // Strangers must not be able to keep anybody waiting.
        let _ = self.refused.try_send(Heard::Refused { from, why });
    }

    /// TLS, the name, and the greetings. Nothing is decoded before the certificate is known.
    async fn meet(&self, stream: TcpStream, from: SocketAddr) -> Result<Met, String> {
        let (socket, watched) = Socket::new(stream).map_err(|error| error.to_string())?;
        let accepted = self.acceptor.accept(socket).await;
        let tls = accepted.map_err(|error| error.to_string())?;
        let (_, session) = tls.get_ref();
        if session.alpn_protocol() != Some(ALPN) {
            return Err("it does not want to speak with an authority".to_owned());
        }
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let edge = self
            .known
            .find(certificate.ok_or("it has no certificate")?)?;
        let mut line = Line {
            tls: tls.into(),
            watched,
            frames: Frames::new(),
            of_edge: false,
        };
        let first = line.first::<Up>().await;
        let (version, testimony) = match first.map_err(|error| format!("{edge}: {error}"))? {
            Up::Greeting { version } => (version, None),
            Up::Testimony {
                version,
                run,
                reached,
            } => (version, Some((run, reached))),
            _ => return Err(format!("{edge}: a message came before its greeting")),
        };
        // Also to one that speaks another version, so that it can tell its owner.
        let greeted = line.greet(&Down::Greeting { version: VERSION }).await;
        match testimony {
            _ if version != VERSION => Err(format!(
                "{edge} speaks version {version} of the protocol, this node {VERSION}"
            )),
            // Whether the notary hears that it was heard is its own affair.
            Some((run, reached)) => Ok(Met::Notary(edge, run, reached)),
            None => greeted.map(|()| Met::Edge(Box::new(Arrival { edge, from, line }))),
        }
    }
}
