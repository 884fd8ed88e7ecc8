//! An IKE SA as its owner keeps it beyond the end of the process: all that it takes to go on with it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::crypto::{Group, IkeCipher, Prf, Secret};
use super::event::{Nat, SaId};
use super::identity::Identity;
use super::life::Stage;
use super::payload::Malformed;
use super::proposal::IkeSuite;
use super::task::resume::Origin;
use super::task::sync::Abilities;
use super::ticket::Way;
use super::ts::TrafficSelector;

/// The one form of snapshots there is. Whoever changes what is in them must count it up.
const VERSION: u8 = 1;

/// A longer snapshot is not written, nor read.
const MOST: usize = 64 << 10;

/// A longer last answer is not kept: a peer that has not had it negotiates anew.
pub(super) const MOST_ANSWER: usize = 16 << 10;

/// The state of an IKE SA. It has its keys: whoever writes it down must encrypt it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of the owner that took it.
    pub(super) run: u32,
    pub(super) initiator: bool,
    pub(super) ours: bool,
    /// Another one has its child SAs.
    pub(super) replaced: bool,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) spis: [u64; 2],
    pub(super) predecessor: Option<u64>,
    pub(super) suite: Suite,
    #[serde(with = "secret")]
    pub(super) sk_d: Secret,
    #[serde(with = "secret")]
    pub(super) seal: Secret,
    #[serde(with = "secret")]
    pub(super) open: Secret,
    pub(super) fragment_size: Option<u16>,
    pub(super) origin: Option<OriginOf>,
    pub(super) token: Option<Vec<u8>>,
    pub(super) peer: Name,
    pub(super) assigned: Vec<IpAddr>,
    pub(super) children: Vec<ChildOf>,
    pub(super) life: Times,
    /// In milliseconds since 1970, as all times.
    pub(super) reauth_until: Option<u64>,
    pub(super) expires: Option<u64>,
    /// Detected, local, remote, forced.
    pub(super) nat: [bool; 4],
    pub(super) mobike: bool,
    pub(super) peer_addresses: Vec<IpAddr>,
    /// The peer has moved, and has not shown yet that it receives there.
    pub(super) unchecked: bool,
    pub(super) follows_redirects: bool,
    pub(super) redirectable: bool,
    /// Message IDs, counters.
    pub(super) sync: [bool; 2],
    /// The first message ID of ours that the peer is not known to have answered.
    pub(super) next: u32,
    pub(super) expected: u32,
    pub(super) answer: Vec<Vec<u8>>,
    pub(super) last_sync: Option<u32>,
    pub(super) synced: Option<u32>,
    /// The inbound SPI of a child SA that an exchange of ours was making, and of the one that it should
    /// replace.
    pub(super) orphan: Option<(u32, Option<u32>)>,
    /// An exchange of ours was replacing the IKE SA.
    pub(super) rekeying: bool,
}

/// A child SA of a snapshot. Its keys are the owner's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildOf {
    /// The SPI that we receive on.
    pub spi_in: u32,
    /// The SPI that we send on.
    pub spi_out: u32,
    /// See [`Child::lane`](super::Child::lane).
    pub lane: u16,
    pub(super) esn: bool,
    pub(super) local_ts: Vec<Selector>,
    pub(super) remote_ts: Vec<Selector>,
    pub(super) stage: StageOf,
    pub(super) life: Times,
    pub(super) orphan: Option<u32>,
}

impl ChildOf {
    /// Neither side is replacing or deleting it.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.stage == StageOf::InUse
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StageOf {
    InUse,
    Replaced,
    Deleting,
}

impl From<Stage> for StageOf {
    fn from(stage: Stage) -> StageOf {
        match stage {
            Stage::InUse => StageOf::InUse,
            Stage::Replaced => StageOf::Replaced,
            Stage::Deleting => StageOf::Deleting,
        }
    }
}

impl From<StageOf> for Stage {
    fn from(stage: StageOf) -> Stage {
        match stage {
            StageOf::InUse => Stage::InUse,
            StageOf::Replaced => Stage::Replaced,
            StageOf::Deleting => Stage::Deleting,
        }
    }
}

/// When an SA is to be replaced, and when it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Times {
    pub(super) rekey_at: Option<u64>,
    pub(super) ends_at: Option<u64>,
}

/// Protocol, first and last port, first and last address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Selector(u8, u16, u16, IpAddr, IpAddr);

impl From<&TrafficSelector> for Selector {
    fn from(ts: &TrafficSelector) -> Selector {
        let (first, last) = (*ts.ports.start(), *ts.ports.end());
        Selector(ts.protocol, first, last, ts.start, ts.end)
    }
}

impl Selector {
    pub(super) fn read(&self) -> Result<TrafficSelector, BadSnapshot> {
        let Selector(protocol, first, last, start, end) = *self;
        let ts = TrafficSelector {
            protocol,
            ports: first..=last,
            start,
            end,
        };
        let wrong = BadSnapshot::Wrong("traffic selector");
        ts.is_valid().then_some(ts).ok_or(wrong)
    }
}

/// An identity as it is on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name(u8, Vec<u8>);

impl From<&Identity> for Name {
    fn from(identity: &Identity) -> Name {
        let (kind, data) = identity.to_wire();
        Name(kind, data.into_owned())
    }
}

impl Name {
    pub(super) fn read(&self) -> Result<Identity, BadSnapshot> {
        Ok(Identity::from_wire(self.0, &self.1)?)
    }
}

/// Algorithms, by numbers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Suite {
    cipher: u8,
    prf: u8,
    group: u16,
    additional: Option<u16>,
}

impl From<IkeSuite> for Suite {
    fn from(suite: IkeSuite) -> Suite {
        Suite {
            cipher: match suite.cipher {
                IkeCipher::Aes128Gcm16 => 1,
                IkeCipher::Aes256Gcm16 => 2,
                IkeCipher::ChaCha20Poly1305 => 3,
            },
            prf: match suite.prf {
                Prf::HmacSha256 => 1,
                Prf::HmacSha384 => 2,
                Prf::HmacSha512 => 3,
            },
            group: suite.group.number(),
            additional: suite.additional.map(Group::number),
        }
    }
}

impl Suite {
    pub(super) fn read(self) -> Result<IkeSuite, BadSnapshot> {
        let wrong = BadSnapshot::Wrong("algorithm");
        let group = |number| Group::from_number(number).ok_or(wrong.clone());
        Ok(IkeSuite {
            cipher: match self.cipher {
                1 => IkeCipher::Aes128Gcm16,
                2 => IkeCipher::Aes256Gcm16,
                3 => IkeCipher::ChaCha20Poly1305,
                _ => return Err(wrong),
            },
            prf: match self.prf {
                1 => Prf::HmacSha256,
                2 => Prf::HmacSha384,
                3 => Prf::HmacSha512,
                _ => return Err(wrong),
            },
            group: group(self.group)?,
            additional: self.additional.map(group).transpose()?,
        })
    }
}

/// Who the two sides are for each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OriginOf {
    idi: Name,
    idr: Name,
    way: Option<WayOf>,
    authenticated: u64,
    has_ticket: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum WayOf {
    Psk([u8; 16]),
    Certificate([u8; 32], u64),
    Eap,
}

impl From<&Origin> for OriginOf {
    fn from(origin: &Origin) -> OriginOf {
        OriginOf {
            idi: (&origin.idi).into(),
            idr: (&origin.idr).into(),
            way: origin.way.as_ref().map(|way| match way {
                Way::Psk(check) => WayOf::Psk(*check),
                Way::Certificate(trust, until) => WayOf::Certificate(*trust, *until),
                Way::Eap => WayOf::Eap,
            }),
            authenticated: origin.authenticated,
            has_ticket: origin.has_ticket,
        }
    }
}

impl OriginOf {
    pub(super) fn read(&self) -> Result<Origin, BadSnapshot> {
        Ok(Origin {
            idi: self.idi.read()?,
            idr: self.idr.read()?,
            way: self.way.as_ref().map(|way| match way {
                WayOf::Psk(check) => Way::Psk(*check),
                WayOf::Certificate(trust, until) => Way::Certificate(*trust, *until),
                WayOf::Eap => Way::Eap,
            }),
            authenticated: self.authenticated,
            has_ticket: self.has_ticket,
        })
    }
}

/// Key material as bytes, without a copy that is not wiped.
mod secret {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    use super::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(secret)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("key material")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Secret, E> {
                Ok(Secret::new(bytes))
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

/// Why a snapshot can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshot {
    #[error("a snapshot of {0} bytes, of at most {MOST}")]
    TooLong(usize),
    #[error("a snapshot of version {found}, expected {VERSION}")]
    Version { found: u8 },
    #[error("the snapshot is damaged")]
    Damaged,
    #[error("the snapshot has a wrong {0}")]
    Wrong(&'static str),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Initialisation vectors would repeat.
    #[error("the snapshot is of run {of}, and this is run {now}")]
    NotLater { of: u32, now: u32 },
    #[error("an IKE SA with its SPI is there")]
    InUse,
}

impl Snapshot {
    /// To be written down, encrypted.
    ///
    /// # Errors
    /// [`BadSnapshot::TooLong`].
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, BadSnapshot> {
        let size = postcard::experimental::serialized_size(self)
            .expect("the content is of our own types, which have a form");
        if size >= MOST {
            return Err(BadSnapshot::TooLong(size));
        }
        // There is room: no copy of it is left behind by a vector that grows.
        let mut bytes = Vec::with_capacity(1 + size);
        bytes.push(VERSION);
        let bytes = postcard::to_extend(self, bytes)
            .expect("the content is of our own types, which have a form");
        Ok(Zeroizing::new(bytes))
    }

    /// What [`Snapshot::to_bytes`] has made.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Snapshot, BadSnapshot> {
        if bytes.len() > MOST {
            return Err(BadSnapshot::TooLong(bytes.len()));
        }
        let (version, text) = bytes.split_first().ok_or(BadSnapshot::Damaged)?;
        if *version != VERSION {
            return Err(BadSnapshot::Version { found: *version });
        }
        match postcard::take_from_bytes(text) {
            Ok((snapshot, [])) => Ok(snapshot),
            _ => Err(BadSnapshot::Damaged),
        }
    }

    /// The SPI of the IKE SA that is ours, which names it.
    #[must_use]
    pub fn spi(&self) -> u64 {
        let [spi_i, spi_r] = self.spis;
        if self.initiator { spi_i } else { spi_r }
    }

    /// Who the peer is.
    ///
    /// # Errors
    /// A name that is none.
    pub fn peer(&self) -> Result<Identity, BadSnapshot> {
        self.peer.read()
    }

    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    #[must_use]
    pub fn children(&self) -> &[ChildOf] {
        &self.children
    }

    /// Another IKE SA has its child SAs: it is kept for the peer's last words alone.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.replaced
    }

    /// When nobody goes on with it any more, in seconds since 1970; `None`: never.
    #[must_use]
    pub fn ends_at(&self) -> Option<u64> {
        let ends = [self.life.ends_at, self.expires, self.reauth_until];
        let first = ends.into_iter().flatten().min()?;
        // Rounded up.
        Some(first / 1000 + 1)
    }

    pub(super) fn nat(&self) -> Nat {
        let [detected, local, remote, forced] = self.nat;
        Nat {
            detected,
            local,
            remote,
            forced,
        }
    }

    pub(super) fn sync(&self) -> Abilities {
        let [ids, counters] = self.sync;
        Abilities { ids, counters }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (spi, remote, next) = (self.spi(), self.remote, self.next);
        write!(
            f,
            "Snapshot({spi:016x}, {remote}, {next}, {})",
            self.expected
        )
    }
}

/// An IKE SA whose snapshot is another one than before.
#[derive(Debug)]
pub struct Changed {
    /// Its SPI that is ours.
    pub spi: u64,
    pub id: Option<SaId>,
    /// `None`: it is not to be kept any more.
    pub snapshot: Option<Snapshot>,
    /// More than message IDs have changed. What is queued for its peer should not be sent before this is
    /// durable: else the peer knows of SAs of which whoever goes on with the snapshot does not. Nothing
    /// more than the session hangs on it.
    pub urgent: bool,
}
