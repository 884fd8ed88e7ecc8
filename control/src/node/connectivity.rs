//! The socket of the connectivity protocol, of edges and authorities alike.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rand::Rng as _;
use tokio::net::UdpSocket;

use super::{clock, config};
use crate::api::model;
use crate::cluster::Run;
use crate::cluster::connectivity::{Connectivity as Core, Output};

/// Datagrams that are taken at once.
const BATCH: usize = 64;

/// The longest datagram.
const BUFFER: usize = 65_536;

/// What the kernel is to keep while the node is busy, in bytes.
const WAITING: usize = 4 << 20;

/// A node's part in the connectivity protocol.
pub(super) struct Connectivity {
    pub(super) core: Core,
    at: SocketAddr,
    socket: Arc<UdpSocket>,
    buffer: Box<[u8]>,
}

/// Waits until a socket has something, for ever if there is none.
pub(super) async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        // An error shows when it is read.
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    }
}

impl Connectivity {
    /// None: the configuration does not want it.
    pub(super) async fn bind(
        config: Option<&config::Connectivity>,
    ) -> Result<Option<Box<Connectivity>>> {
        let Some(config) = config else {
            return Ok(None);
        };
        let at = config.listen;
        let socket = UdpSocket::bind(at).await;
        let socket =
            socket.with_context(|| format!("UDP {at} (connectivity.listen) can not be had"))?;
        // It gets as much as it may have.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(WAITING);
        let run = Run(rand::rng().next_u64());
        Ok(Some(Box::new(Self {
            core: Core::new(run, config.patience),
            at,
            socket: Arc::new(socket),
            buffer: vec![0; BUFFER].into_boxed_slice(),
        })))
    }

    /// Where others find this node.
    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    /// To wait for what comes.
    pub(super) fn socket(&self) -> Arc<UdpSocket> {
        Arc::clone(&self.socket)
    }

    /// Takes what has come, as much as is taken at once.
    pub(super) fn receive(&mut self) {
        let (now, seconds) = (Instant::now(), clock::seconds());
        for _ in 0..BATCH {
            let Ok((length, _)) = self.socket.try_recv_from(&mut self.buffer) else {
                return;
            };
            let datagram = self.buffer.get(..length).unwrap_or_default();
            self.core.receive(datagram, now, seconds);
        }
    }

    /// The next thing to do that is not to send something: that is done on the way.
    pub(super) fn next(&mut self) -> Option<Output> {
        loop {
            match self.core.output()? {
                Output::Send { to, datagram } => {
                    // What finds no room is lost, as it could be on its way.
                    if let Err(error) = self.socket.try_send_to(&datagram, to) {
                        tracing::debug!("connectivity: to {to}: {error}");
                    }
                }
                other => return Some(other),
            }
        }
    }

    /// What `evergate status` shows of it.
    pub(super) fn view(&self, now: Instant) -> model::Connectivity {
        let parties = self.core.members().map(|member| model::Party {
            number: member.party.number.0,
            at: member.at,
            present: member.present,
            silent_ms: member.heard.map(|at| {
                let silent = now.saturating_duration_since(at).as_millis();
                u64::try_from(silent).unwrap_or(u64::MAX)
            }),
            pairs: member.presence.map_or(0, |presence| presence.pairs),
            owned: member.presence.map_or(0, |presence| presence.owned),
        });
        let tally = self.core.tally();
        model::Connectivity {
            at: self.at,
            parties: parties.collect(),
            asked: tally.asked,
            found: tally.found,
            lacking: tally.lacking,
            stations: tally.stations,
            stations_found: tally.stations_found,
            late: tally.late,
            unusable: tally.unusable,
            answered: tally.answered,
            ike_sent: tally.ike_sent,
            ike_received: tally.ike_received,
            strange: tally.strange,
            repeated: tally.repeated,
            forged: tally.forged,
            unreadable: tally.unreadable,
        }
    }
}
