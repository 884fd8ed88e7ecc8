//! A pair of SAs with all that an edge needs to use it: what an authority keeps and distributes.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::esp::{BadSecret, Cipher, Key, UdpEncap};
use crate::sadb::{Producer, SaSpec, SessionSpec};

/// Both directions of a child SA that an authority negotiated, as an edge has them: inbound is what the
/// client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The client's identity, as the authority's configuration spells it.
    pub client: String,
    /// The client's inner addresses: what is announced where it is active.
    pub inner: Vec<IpAddr>,
    /// The class of user that the client belongs to, for the filters of edges.
    pub class: Option<String>,
    /// The outside address that the edges share.
    pub local: IpAddr,
    /// Where the client's IKE came from when the pair was made.
    pub remote: IpAddr,
    /// ESP in UDP, if so.
    pub encap: Option<UdpEncap>,
    /// The client is behind a NAT: it is where its newest packet came from.
    pub roams: bool,
    /// The authority began the exchange.
    pub initiator: bool,
    /// See [`SessionSpec::lane`].
    pub lane: u16,
    /// See [`SessionSpec::own_port`].
    pub own_port: bool,
    pub inbound: Half,
    pub outbound: Half,
    pub remote_inner: Vec<IpNet>,
    pub local_inner: Vec<IpNet>,
    /// Key of keyed heartbeats.
    pub heartbeat_key: Option<Bytes>,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Width of the replay window in packets.
    pub replay_window: u32,
    /// Seconds since 1970 after which nobody uses it any more.
    pub expires: u64,
}

/// One direction of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Half {
    pub spi: u32,
    pub cipher: Cipher,
    /// Without the salt.
    pub key: Bytes,
    pub salt: Bytes,
}

/// Key material on its way: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(Vec<u8>);

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Bytes {
    /// The material itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], NotUsable> {
        let found = self.0.len();
        let wrong = NotUsable::Length { found, expected: N };
        self.0.as_slice().try_into().map_err(|_| wrong)
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bytes(..)")
    }
}

/// Why a pair can not be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUsable {
    #[error("key material of {found} bytes, expected {expected}")]
    Length { found: usize, expected: usize },
    #[error(transparent)]
    Key(#[from] BadSecret),
    #[error("a session with both directions was expected")]
    OneDirection,
}

impl Half {
    fn of(sa: &SaSpec) -> Self {
        Self {
            spi: sa.spi,
            cipher: sa.cipher,
            key: sa.key.expose().into(),
            salt: sa.salt.expose()[..].into(),
        }
    }

    fn spec(&self, esn: bool, replay_window: u32) -> Result<SaSpec, NotUsable> {
        let (key, salt) = (Key::new(self.key.expose())?, self.salt.array::<4>()?);
        let mut sa = SaSpec::new(self.spi, self.cipher, key, salt.into());
        (sa.esn, sa.replay_window) = (esn, replay_window);
        Ok(sa)
    }
}

impl Pair {
    /// What edges need of a session that an authority made, of a client with these inner addresses.
    ///
    /// # Errors
    /// [`NotUsable::OneDirection`].
    pub fn of(
        spec: &SessionSpec,
        client: String,
        inner: Vec<IpAddr>,
        class: Option<String>,
        expires: u64,
    ) -> Result<Self, NotUsable> {
        let (Some(inbound), Some(outbound)) = (&spec.inbound, &spec.outbound) else {
            return Err(NotUsable::OneDirection);
        };
        Ok(Self {
            client,
            inner,
            class,
            local: spec.outside_local,
            remote: spec.outside_remote,
            encap: spec.encap,
            roams: spec.roams,
            initiator: spec.initiator,
            lane: spec.lane,
            own_port: spec.own_port,
            inbound: Half::of(inbound),
            outbound: Half::of(outbound),
            remote_inner: spec.remote_inner.to_vec(),
            local_inner: spec.local_inner.to_vec(),
            heartbeat_key: spec.heartbeat_key.as_ref().map(|k| k.expose()[..].into()),
            esn: inbound.esn,
            replay_window: inbound.replay_window,
            expires,
        })
    }

    /// The inbound SPI, which names the pair.
    #[must_use]
    pub fn spi(&self) -> u32 {
        self.inbound.spi
    }

    /// The session of an edge, whose numbers are leased.
    ///
    /// # Errors
    /// Key material of a wrong length.
    pub fn session(&self) -> Result<SessionSpec, NotUsable> {
        let mut spec = SessionSpec::new(self.local, self.remote, Producer::Ike);
        spec.peer = self.client.clone().into();
        spec.encap = self.encap;
        spec.roams = self.roams;
        spec.initiator = self.initiator;
        spec.lane = self.lane;
        spec.own_port = self.own_port;
        spec.inbound = Some(self.inbound.spec(self.esn, self.replay_window)?);
        spec.outbound = Some(self.outbound.spec(self.esn, self.replay_window)?);
        spec.remote_inner = self.remote_inner.as_slice().into();
        spec.local_inner = self.local_inner.as_slice().into();
        spec.heartbeat_key = match &self.heartbeat_key {
            Some(key) => Some(key.array::<16>()?.into()),
            None => None,
        };
        spec.shared = true;
        Ok(spec)
    }
}
