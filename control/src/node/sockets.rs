//! The UDP sockets of IKE: ports 500 and 4500 of the outside address (RFC 7296 section 2,
//! RFC 3948 section 2.2).

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::dataplane::udp::{self, IkeMessage};
use crate::ike::{IKE_PORT, NAT_T_PORT, NON_ESP_MARKER, Transmit};

/// Larger than any UDP datagram.
const BUFFER: usize = 65_536;

/// Messages from the data plane's socket that may wait.
const WAITING: usize = 1024;

/// Who has port 4500.
enum NatT {
    /// The node's core: an XDP program takes the ESP out before.
    Own(UdpSocket),
    /// The data plane, which hands over what is IKE's; this is to send by.
    Shared {
        socket: std::net::UdpSocket,
        messages: mpsc::Receiver<IkeMessage>,
    },
}

/// What the data plane gets of port 4500.
pub(crate) struct Share {
    /// One for each worker.
    pub(crate) sockets: Vec<std::net::UdpSocket>,
    pub(crate) messages: mpsc::Sender<IkeMessage>,
}

/// Both sockets.
pub(crate) struct Sockets {
    ike: UdpSocket,
    nat_t: NatT,
    buffers: (Box<[u8]>, Box<[u8]>),
}

/// One IKE message as it came.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) data: Vec<u8>,
    /// ESP, which came in fragments: else the XDP program had taken it. Not for the engine.
    pub(crate) esp: bool,
}

impl Datagram {
    /// As an engine takes it.
    pub(crate) fn shown(&self) -> crate::ike::Datagram<'_> {
        crate::ike::Datagram {
            local: self.local,
            remote: self.remote,
            data: &self.data,
        }
    }
}

impl Sockets {
    /// Both ports, for the node's core alone.
    pub(crate) async fn bind(address: IpAddr) -> Result<Self> {
        let nat_t = UdpSocket::bind((address, NAT_T_PORT)).await;
        let nat_t = nat_t.with_context(|| refused(NAT_T_PORT, address))?;
        Self::with(address, NatT::Own(nat_t)).await
    }

    /// Both ports; ESP in UDP that comes by port 4500 is for whoever has the share, with so many workers.
    pub(crate) async fn bind_shared(address: IpAddr, workers: usize) -> Result<(Self, Share)> {
        let (own, sockets) = bind_nat_t(address, workers)?;
        let (sender, messages) = mpsc::channel(WAITING);
        let nat_t = NatT::Shared {
            socket: own,
            messages,
        };
        let share = Share {
            sockets,
            messages: sender,
        };
        Ok((Self::with(address, nat_t).await?, share))
    }

    /// The same for another address of ours. The share, if there is one, is for the workers: its messages
    /// come as before.
    pub(crate) async fn rebind(
        &mut self,
        address: IpAddr,
        workers: usize,
    ) -> Result<Option<Vec<std::net::UdpSocket>>> {
        match &mut self.nat_t {
            NatT::Own(_) => {
                *self = Self::bind(address).await?;
                Ok(None)
            }
            NatT::Shared { socket, .. } => {
                let ike = UdpSocket::bind((address, IKE_PORT)).await;
                let ike = ike.with_context(|| refused(IKE_PORT, address))?;
                let (own, share) = bind_nat_t(address, workers)?;
                (self.ike, *socket) = (ike, own);
                Ok(Some(share))
            }
        }
    }

    /// What is sent may be cut on its way, and what ICMP says about it is not believed.
    pub(crate) fn let_be_cut(&self) -> Result<()> {
        let nat_t = match &self.nat_t {
            NatT::Own(socket) => udp::let_be_cut(socket),
            NatT::Shared { socket, .. } => udp::let_be_cut(socket),
        };
        let both = nat_t.and_then(|()| udp::let_be_cut(&self.ike));
        both.context("sockets of IKE: what they send may not be cut")
    }

    async fn with(address: IpAddr, nat_t: NatT) -> Result<Self> {
        let ike = UdpSocket::bind((address, IKE_PORT)).await;
        let buffer = || vec![0; BUFFER].into_boxed_slice();
        Ok(Self {
            ike: ike.with_context(|| refused(IKE_PORT, address))?,
            nat_t,
            buffers: (buffer(), buffer()),
        })
    }

    /// The next IKE message, or ESP without a marker on port 4500. Errors are those of earlier sends (ICMP): nothing to act on, because
    /// an unprotected message never ends anything.
    pub(crate) async fn receive(&mut self) -> Option<Datagram> {
        let Self {
            ike,
            nat_t,
            buffers,
        } = self;
        match nat_t {
            NatT::Own(nat_t) => {
                let (local, received, buffer, marked) = tokio::select! {
                    received = ike.recv_from(&mut buffers.0) => {
                        (ike.local_addr(), received, &buffers.0, false)
                    }
                    received = nat_t.recv_from(&mut buffers.1) => {
                        (nat_t.local_addr(), received, &buffers.1, true)
                    }
                };
                let (length, remote) = received.ok()?;
                read(local, remote, buffer.get(..length), marked)
            }
            NatT::Shared { socket, messages } => tokio::select! {
                received = ike.recv_from(&mut buffers.0) => {
                    let (length, remote) = received.ok()?;
                    read(ike.local_addr(), remote, buffers.0.get(..length), false)
                }
                Some(message) = messages.recv() => handed(socket, message),
            },
        }
    }

    /// What has arrived besides, without waiting for any, until there are `most` in all.
    pub(crate) fn receive_more(&mut self, datagrams: &mut Vec<Datagram>, most: usize) {
        let Self {
            ike,
            nat_t,
            buffers,
        } = self;
        let mut take = |socket: &UdpSocket, buffer: &mut [u8], marked| {
            while datagrams.len() < most
                && let Ok((length, remote)) = socket.try_recv_from(buffer)
            {
                let local = socket.local_addr();
                datagrams.extend(read(local, remote, buffer.get(..length), marked));
            }
        };
        take(ike, &mut buffers.0, false);
        match nat_t {
            NatT::Own(nat_t) => take(nat_t, &mut buffers.1, true),
            NatT::Shared { socket, messages } => {
                while datagrams.len() < most
                    && let Ok(message) = messages.try_recv()
                {
                    datagrams.extend(handed(socket, message));
                }
            }
        }
    }

    /// Sends a message. What can not be sent is like what is lost: it is retransmitted.
    pub(crate) async fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let (data, to) = (&transmit.data, transmit.remote);
        if transmit.local.port() != NAT_T_PORT {
            self.ike.send_to(data, to).await?;
        } else if transmit.is_keep_alive() {
            self.send_nat_t(data, to).await?;
        } else {
            let marked = [&NON_ESP_MARKER[..], data].concat();
            self.send_nat_t(&marked, to).await?;
        }
        Ok(())
    }

    async fn send_nat_t(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        match &self.nat_t {
            NatT::Own(socket) => socket.send_to(data, to).await,
            // It never blocks; what its buffer has no room for is lost like any other.
            NatT::Shared { socket, .. } => socket.send_to(data, to),
        }
    }
}

/// Port 4500 by a socket for each worker, and another handle of the first one to send by.
fn bind_nat_t(
    address: IpAddr,
    workers: usize,
) -> Result<(std::net::UdpSocket, Vec<std::net::UdpSocket>)> {
    let bound = udp::bind(address, workers).and_then(|sockets| {
        let own = sockets.first().map(std::net::UdpSocket::try_clone);
        let own = own.unwrap_or(Err(io::ErrorKind::NotFound.into()));
        Ok((own?, sockets))
    });
    bound.with_context(|| refused(NAT_T_PORT, address))
}

/// What is said when a port can not be had.
fn refused(port: u16, address: IpAddr) -> String {
    format!(
        "UDP port {port} of {address}, which IKE needs, can not be had \
         (is another IKE daemon running? is the process allowed to bind it?)"
    )
}

/// A message that the data plane handed over: its marker is off already.
fn handed(socket: &std::net::UdpSocket, message: IkeMessage) -> Option<Datagram> {
    Some(Datagram {
        local: socket.local_addr().ok()?,
        remote: message.from,
        data: message.data,
        esp: false,
    })
}

/// The least that ESP has: headers, IV, an empty packet's trailer, ICV (RFC 4303, RFC 4106).
const LEAST_ESP: usize = 36;

/// On port 4500 what has no marker is no IKE message.
fn read(
    local: io::Result<SocketAddr>,
    remote: SocketAddr,
    data: Option<&[u8]>,
    marked: bool,
) -> Option<Datagram> {
    let data = data?;
    let message = match marked {
        true => data.strip_prefix(&NON_ESP_MARKER),
        false => Some(data),
    };
    let esp = message.is_none();
    if esp && data.len() < LEAST_ESP {
        return None;
    }
    let data = message.unwrap_or(data);
    Some(Datagram {
        local: local.ok()?,
        remote,
        data: data.to_vec(),
        esp,
    })
}
