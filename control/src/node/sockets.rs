//! The UDP sockets of IKE: ports 500 and 4500 of the outside address (RFC 7296 section 2,
//! RFC 3948 section 2.2).

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

use crate::ike::{IKE_PORT, NAT_T_PORT, NON_ESP_MARKER, Transmit};

/// Larger than any UDP datagram.
const BUFFER: usize = 65_536;

/// Both sockets.
pub(crate) struct Sockets {
    ike: UdpSocket,
    nat_t: UdpSocket,
    buffers: (Box<[u8]>, Box<[u8]>),
}

/// One IKE message as it came.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) data: Vec<u8>,
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
    pub(crate) async fn bind(address: IpAddr) -> Result<Self> {
        let bind = async |port| {
            UdpSocket::bind((address, port)).await.with_context(|| {
                format!(
                    "UDP port {port} of {address}, which IKE needs, can not be had \
                     (is another IKE daemon running? is the process allowed to bind it?)"
                )
            })
        };
        let buffer = || vec![0; BUFFER].into_boxed_slice();
        Ok(Self {
            ike: bind(IKE_PORT).await?,
            nat_t: bind(NAT_T_PORT).await?,
            buffers: (buffer(), buffer()),
        })
    }

    /// The next IKE message; on port 4500 what has no marker is none. Errors are those of earlier sends (ICMP): nothing to act on, because
    /// an unprotected message never ends anything.
    pub(crate) async fn receive(&mut self) -> Option<Datagram> {
        let (local, received, buffer, marked) = tokio::select! {
            received = self.ike.recv_from(&mut self.buffers.0) => {
                (self.ike.local_addr(), received, &self.buffers.0, false)
            }
            received = self.nat_t.recv_from(&mut self.buffers.1) => {
                (self.nat_t.local_addr(), received, &self.buffers.1, true)
            }
        };
        let (length, remote) = received.ok()?;
        read(local, remote, buffer.get(..length), marked)
    }

    /// What has arrived besides, without waiting for any, until there are `most` in all.
    pub(crate) fn receive_more(&mut self, datagrams: &mut Vec<Datagram>, most: usize) {
        let Self {
            ike,
            nat_t,
            buffers,
        } = self;
        for (socket, buffer, marked) in
            [(ike, &mut buffers.0, false), (nat_t, &mut buffers.1, true)]
        {
            while datagrams.len() < most
                && let Ok((length, remote)) = socket.try_recv_from(buffer)
            {
                let local = socket.local_addr();
                datagrams.extend(read(local, remote, buffer.get(..length), marked));
            }
        }
    }

    /// Sends a message. What can not be sent is like what is lost: it is retransmitted.
    pub(crate) async fn send(&self, transmit: &Transmit) -> io::Result<()> {
        if transmit.local.port() != NAT_T_PORT {
            self.ike.send_to(&transmit.data, transmit.remote).await?;
        } else if transmit.is_keep_alive() {
            self.nat_t.send_to(&transmit.data, transmit.remote).await?;
        } else {
            let marked = [&NON_ESP_MARKER[..], &transmit.data].concat();
            self.nat_t.send_to(&marked, transmit.remote).await?;
        }
        Ok(())
    }
}

/// On port 4500 what has no marker is no IKE message.
fn read(
    local: io::Result<SocketAddr>,
    remote: SocketAddr,
    data: Option<&[u8]>,
    marked: bool,
) -> Option<Datagram> {
    let data = match marked {
        true => data?.strip_prefix(&NON_ESP_MARKER)?,
        false => data?,
    };
    Some(Datagram {
        local: local.ok()?,
        remote,
        data: data.to_vec(),
    })
}
