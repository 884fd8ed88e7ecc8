//! Room `sadb`: the seam between those who make security associations and the data plane, which
//! carries them out. The set is declarative: it says which sessions should exist. Producers (IKE,
//! the command line) are equals; the data plane follows the [`Change`]s and knows no producer.

mod error;
mod named;
mod nets;
mod set;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

pub use error::{SadbError, TextError};
pub use named::Named;
pub use nets::Nets;
pub use set::{Change, Sadb};
pub use text::Secrets;

use crate::esp::{
    Aead, Backend, InboundSa, MixedFamilies, OutboundSa, Outer, OuterConfig, Window, WrongKeyLength,
};
pub use crate::esp::{Cipher, Key, Salt, Secret, UdpEncap};

/// The key of keyed heartbeats (SipHash-2-4).
pub type HeartbeatKey = Secret<16>;

/// SPIs below this one are reserved, RFC 4303 section 2.1.
pub const LOWEST_SPI: u32 = 256;
/// The highest SPI of an SA; the next one marks heartbeats.
pub const HIGHEST_SPI: u32 = u32::MAX - 1;

/// Low bits of a drawn SPI that are its place: as many as the data plane can have inbound SAs.
const PLACE_BITS: u32 = 20;
/// How many places there are, a power of two.
pub const PLACES: u32 = 1 << PLACE_BITS;

/// The place of an SPI: where its session lies in a worker's table, if the SPI was drawn by
/// [`Sadb::allocate_spi`] and the place was free.
#[must_use]
pub const fn spi_place(spi: u32) -> u32 {
    spi & (PLACES - 1)
}

/// The worker that has the session of an inbound SPI, of so many, from 0.
#[must_use]
#[inline]
pub const fn spi_worker(spi: u32, workers: usize) -> usize {
    match workers {
        0 | 1 => 0,
        workers => spi_place(spi) as usize % workers,
    }
}

/// Names a session on this node. Never used again within a run of the node.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Not yet named: [`Sadb::insert`] picks an id.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who put a session into the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Producer {
    /// The key exchange.
    Ike,
    /// The command line, or a test.
    #[default]
    Manual,
}

impl Producer {
    /// The name in API and CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ike => "ike",
            Self::Manual => "manual",
        }
    }
}

/// Direction of an SA, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The SA receives.
    In,
    /// The SA sends.
    Out,
}

impl Direction {
    /// The name in API and CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// One security association of a [`SessionSpec`]. Deserialises with its key, serialises without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaSpec {
    /// [`LOWEST_SPI`] to [`HIGHEST_SPI`]. Inbound: ours, unique on the node. Outbound: the peer's.
    pub spi: u32,
    /// The cipher, which fixes the length of the key.
    #[serde(default)]
    pub cipher: Cipher,
    /// The AES key.
    #[serde(skip_serializing)]
    pub key: Key,
    /// The first four bytes of each nonce.
    #[serde(skip_serializing)]
    pub salt: Salt,
    /// Extended sequence numbers.
    #[serde(default = "default_esn")]
    pub esn: bool,
    /// Inbound: width of the replay window in packets, a power of two from [`Window::MIN`] to
    /// [`Window::MAX`]. Outbound: not used.
    #[serde(default = "default_window")]
    pub replay_window: u32,
    /// The highest sequence number that was used (outbound) or seen (inbound) with this key
    /// before; 0 for a fresh key.
    #[serde(default)]
    pub sequence: u64,
}

/// A session: the pair of SAs between this node and a peer, or one of them written by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// The name of the session; [`SessionId::NONE`] lets the set pick one.
    #[serde(default)]
    pub id: SessionId,
    /// The peer's identity, or a note; up to 23 bytes take no memory of their own.
    #[serde(default)]
    pub peer: SmolStr,
    /// Our outer address.
    pub outside_local: IpAddr,
    /// The peer's outer address, of the same IP version.
    pub outside_remote: IpAddr,
    /// ESP in UDP, if so.
    #[serde(default)]
    pub encap: Option<UdpEncap>,
    /// The peer is behind a NAT and we are not: it is where its newest packet came from (RFC 7296
    /// section 2.23). For ESP in UDP only.
    #[serde(default)]
    pub roams: bool,
    /// The SA that receives.
    #[serde(default)]
    pub inbound: Option<SaSpec>,
    /// The SA that sends.
    #[serde(default)]
    pub outbound: Option<SaSpec>,
    /// Inner addresses behind the peer: it may send from these, we send to these.
    pub remote_inner: Nets,
    /// Inner addresses on our side: the peer may send to these, we send from these.
    pub local_inner: Nets,
    /// Key of keyed heartbeats in this session.
    #[serde(default, skip_serializing)]
    pub heartbeat_key: Option<HeartbeatKey>,
    /// On a client: the gateway that the session leads to, by its outside address.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Whether this node began the exchange.
    #[serde(default)]
    pub initiator: bool,
    /// 0, or one beside a session with the same peer, for the same traffic, that another worker has
    /// (RFC 9611).
    #[serde(default)]
    pub lane: u16,
    /// Of a lane in UDP: the client may send from, and receives at, another port than the session's own.
    #[serde(default)]
    pub own_port: bool,
    /// It belongs to several edges: its numbers are leased, and there are none at first.
    #[serde(default)]
    pub shared: bool,
    /// Who made the session.
    #[serde(default)]
    pub origin: Producer,
}

/// The outer addresses of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub local: IpAddr,
    pub remote: IpAddr,
    /// ESP in UDP, if so.
    pub encap: Option<UdpEncap>,
    /// See [`SessionSpec::roams`].
    pub roams: bool,
}

fn default_esn() -> bool {
    true
}

fn default_window() -> u32 {
    Window::DEFAULT
}

impl SaSpec {
    /// An SA with a fresh key: extended sequence numbers, the default window.
    #[must_use]
    pub fn new(spi: u32, cipher: Cipher, key: Key, salt: Salt) -> Self {
        let (esn, replay_window) = (default_esn(), default_window());
        Self {
            spi,
            cipher,
            key,
            salt,
            esn,
            replay_window,
            sequence: 0,
        }
    }

    /// Makes the sender that this SA describes. Make one sender of a spec, never two: they would
    /// use nonces twice.
    ///
    /// # Errors
    /// A key of the wrong length, which no spec in the set has.
    pub fn sender(&self, backend: Backend) -> Result<OutboundSa, WrongKeyLength> {
        let aead = Aead::new(backend, self.cipher, &self.key)?;
        Ok(OutboundSa::new(
            self.spi,
            aead,
            self.salt.clone(),
            self.esn,
            self.sequence,
        ))
    }

    /// Makes the receiver that this SA describes.
    ///
    /// # Errors
    /// A key of the wrong length or a bad window, which no spec in the set has.
    pub fn receiver(&self, backend: Backend) -> Result<InboundSa, SadbError> {
        let aead = Aead::new(backend, self.cipher, &self.key)?;
        let mut window = Window::new(self.replay_window)?;
        window.resume(self.sequence);
        Ok(InboundSa::new(
            self.spi,
            aead,
            self.salt.clone(),
            self.esn,
            window,
        ))
    }

    fn check(&self) -> Result<(), SadbError> {
        if !(LOWEST_SPI..=HIGHEST_SPI).contains(&self.spi) {
            return Err(SadbError::ReservedSpi { spi: self.spi });
        }
        let found = self.key.expose().len();
        if found != self.cipher.key_len() {
            return Err(WrongKeyLength {
                cipher: self.cipher,
                found,
            }
            .into());
        }
        if !self.esn && self.sequence > u32::MAX.into() {
            return Err(SadbError::SequenceTooHigh {
                sequence: self.sequence,
            });
        }
        Ok(())
    }
}

impl SessionSpec {
    /// A session of `origin` without SAs, selectors or id; the peer is named by its address.
    #[must_use]
    pub fn new(outside_local: IpAddr, outside_remote: IpAddr, origin: Producer) -> Self {
        Self {
            id: SessionId::NONE,
            peer: outside_remote.to_string().into(),
            outside_local,
            outside_remote,
            encap: None,
            roams: false,
            inbound: None,
            outbound: None,
            remote_inner: Nets::new(),
            local_inner: Nets::new(),
            heartbeat_key: None,
            gateway: None,
            initiator: false,
            lane: 0,
            own_port: false,
            shared: false,
            origin,
        }
    }

    /// Where the peer's ESP comes from, in UDP or with port 0.
    #[must_use]
    pub fn peer_at(&self) -> SocketAddr {
        let port = self.encap.map_or(0, |encap| encap.remote_port);
        SocketAddr::new(self.outside_remote, port)
    }

    /// The worker that seals and opens for this session, of so many, from 0. A client's gateways are
    /// watched by the first one, so it has the sessions with them.
    #[must_use]
    pub fn worker(&self, workers: usize) -> usize {
        match &self.inbound {
            Some(inbound) if self.gateway.is_none() || self.lane > 0 => {
                spi_worker(inbound.spi, workers)
            }
            _ => 0,
        }
    }

    /// The SAs of the session with their directions.
    pub fn sas(&self) -> impl Iterator<Item = (Direction, &SaSpec)> {
        let inbound = self.inbound.iter().map(|sa| (Direction::In, sa));
        inbound.chain(self.outbound.iter().map(|sa| (Direction::Out, sa)))
    }

    /// Inner sources and destinations that an SA of `direction` carries.
    #[must_use]
    pub fn selectors(&self, direction: Direction) -> (&[IpNet], &[IpNet]) {
        match direction {
            Direction::In => (&self.remote_inner, &self.local_inner),
            Direction::Out => (&self.local_inner, &self.remote_inner),
        }
    }

    /// Prepares the outer header of what the session sends, with the defaults of [`OuterConfig`].
    ///
    /// # Errors
    /// Outer addresses of two IP versions, which no spec in the set has.
    pub fn outer(&self) -> Result<Outer, MixedFamilies> {
        Outer::new(&OuterConfig::new(
            self.outside_local,
            self.outside_remote,
            self.encap,
        ))
    }

    /// Checks all that can be checked without knowing the other sessions.
    ///
    /// # Errors
    /// What is wrong with the session.
    pub fn check(&self) -> Result<(), SadbError> {
        let (local, remote) = (self.outside_local, self.outside_remote);
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(MixedFamilies { local, remote }.into());
        }
        for address in [local, remote] {
            if address.is_unspecified() || address.is_multicast() {
                return Err(SadbError::OuterAddress { address });
            }
        }
        if self
            .encap
            .is_some_and(|encap| encap.local_port == 0 || encap.remote_port == 0)
        {
            return Err(SadbError::PortZero);
        }
        for (nets, side) in [(&self.remote_inner, "remote"), (&self.local_inner, "local")] {
            if nets.is_empty() {
                return Err(SadbError::NoSelectors { side });
            }
            if let Some(net) = nets.iter().find(|net| **net != net.trunc()) {
                return Err(SadbError::HostBits { net: *net });
            }
        }
        if self.sas().next().is_none() {
            return Err(SadbError::NoDirection);
        }
        for (_, sa) in self.sas() {
            sa.check()?;
        }
        if let Some(sa) = &self.inbound {
            Window::new(sa.replay_window)?;
        }
        if let (Some(inbound), Some(outbound)) = (&self.inbound, &self.outbound)
            && inbound.key == outbound.key
            && inbound.salt == outbound.salt
        {
            return Err(SadbError::KeyReused { spi: outbound.spi });
        }
        Ok(())
    }
}
