//! What an engine tells its owner.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::crypto::{SALT, Secret};
use super::engine::export::IkeSaKeys;
use super::identity::Identity;
use super::keys::Exporter;
use super::nat::KEEP_ALIVE;
use super::payload::notify::{Notify, kind};
use super::payload::redirect::GatewayIdentity;
use super::payload::{Malformed, TooLong};
use super::proposal::EspCipher;
use super::rank::Rank;
use super::ticket::Ticket;
use super::ts::TrafficSelector;
use super::x509::Refused;

use zeroize::Zeroize;

/// Names one IKE SA of an engine; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaId(pub u64);

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ike-{}", self.0)
    }
}

/// A datagram to send. On port 4500 the owner puts the [`NON_ESP_MARKER`](super::NON_ESP_MARKER)
/// before it, unless it is a keep-alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub data: Vec<u8>,
}

impl Transmit {
    /// Only keeps the mapping of a NAT alive (RFC 3948 section 2.3); no IKE message is that short.
    #[must_use]
    pub fn is_keep_alive(&self) -> bool {
        self.data == KEEP_ALIVE
    }
}

/// Something that happened. Every [`Event::Established`] is followed by one [`Event::Closed`] with
/// the same id, unless the owner forgets it; every call to initiate by one `Established` or one
/// `Failed`.
#[derive(Debug)]
pub enum Event {
    /// Both sides have proven who they are, and a child SA is agreed. Install it before sending
    /// what is queued.
    Established {
        id: SaId,
        /// We started it.
        initiator: bool,
        local: SocketAddr,
        remote: SocketAddr,
        peer: Identity,
        /// Inner addresses: as initiator those we got, as responder those we gave.
        assigned: Vec<IpAddr>,
        child: Child,
        /// Vendor IDs that the peer sent.
        vendor_ids: Vec<Vec<u8>>,
        exporter: Exporter,
        nat: Nat,
        /// Both ends compute the same. For [`survivor`](super::survivor).
        rank: Rank,
        /// By a ticket: nobody has proven anew who it is.
        resumed: bool,
    },
    /// As initiator: the responder has issued a ticket, by which the session can be resumed with it
    /// or with whoever can open it, once. It takes the place of older ones of this session; after
    /// [`Event::Closed`] by either side's DELETE it must be forgotten (RFC 5723 section 6.2).
    Ticket { id: SaId, ticket: Ticket },
    /// As initiator: the responder wants to see proof anew after this time (RFC 4478).
    ReauthIn { id: SaId, after: Duration },
    /// The peer answered a liveness check.
    Alive { id: SaId },
    /// The IKE SA goes between other addresses, or through other NATs, by MOBIKE: we have told the
    /// peer that we moved, or it has, and has proven that it receives there. The child SAs go along.
    Relocated {
        id: SaId,
        local: SocketAddr,
        remote: SocketAddr,
        nat: Nat,
    },
    /// The peer has lost count of the packets that we have sent on the child SAs of this session: their
    /// outbound sequence numbers must go on so much higher, before anything that is queued is sent (RFC
    /// 6311 section 5.2).
    Ahead { id: SaId, by: u64 },
    /// The peer has said that it goes on with higher sequence numbers, as
    /// [`Engine::ask_ahead`](super::Engine::ask_ahead) has asked for.
    PeerAhead { id: SaId },
    /// The peer wants us to leave for another gateway. The owner makes a session there if it wants to,
    /// and then closes this one (RFC 5685 section 5).
    Redirected { id: SaId, to: GatewayIdentity },
    /// An authentic message of a peer behind a NAT came from elsewhere than before: everything for
    /// it goes there from now on.
    Moved { id: SaId, remote: SocketAddr },
    /// A session that we wished for did not come about.
    Failed {
        id: SaId,
        remote: SocketAddr,
        error: Failure,
        /// The inbound SPI that was allocated for it, now free again.
        spi_in: Option<u32>,
    },
    /// A session that a peer wished for did not come about. Purely for information; told of
    /// strangers ten times at once, and then once a second.
    Refused {
        id: SaId,
        remote: SocketAddr,
        /// Who it said it is, if it got so far. Proven only if `error` speaks of addresses,
        /// proposals or selectors.
        peer: Option<Identity>,
        /// Inner addresses that had been assigned, now free again.
        assigned: Vec<IpAddr>,
        error: Failure,
        /// So many refusals before this one were not told.
        untold: u64,
    },
    /// A further child SA is agreed. Install it before sending what is queued.
    ChildAdded {
        id: SaId,
        child: Child,
        outbound: Outbound,
        /// Of the IKE SA that it was made under.
        exporter: Exporter,
    },
    /// A child SA is to take the place of another. Install it for receiving before sending what is
    /// queued, and keep the old one until [`Event::ChildClosed`], and a while longer for packets in
    /// flight. If both ends did this at once, two come for one old: one of them is closed at once.
    ChildRekeyed {
        id: SaId,
        /// The old one.
        old_spi_in: u32,
        child: Child,
        outbound: Outbound,
        /// Of the IKE SA that it was made under.
        exporter: Exporter,
    },
    /// A further child SA, or one that should replace another, did not come about. A rekeying is
    /// tried again.
    ChildFailed {
        id: SaId,
        /// The inbound SPI that was allocated for it, now free again.
        spi_in: u32,
        error: Failure,
    },
    /// A child SA is deleted: neither SPI is used any more. If it was the last one, the IKE SA
    /// closes too.
    ChildClosed { id: SaId, spi_in: u32, spi_out: u32 },
    /// The IKE SA was replaced by one with fresh keys. It goes on under the same id, with all its
    /// child SAs. Purely for information.
    Rekeyed { id: SaId },
    /// The keys of an IKE SA, told once for each, also of those that come to nothing: only if
    /// [`Settings::export_keys`](super::Settings::export_keys) says so.
    Keys { id: SaId, keys: Box<IkeSaKeys> },
    /// An established session is over, with its child SAs.
    Closed {
        id: SaId,
        peer: Identity,
        reason: CloseReason,
    },
}

/// When to send on a child SA other than the first one (RFC 7296 section 2.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// At once: the peer receives on it already.
    AtOnce,
    /// Once something came on it, or the old one, if there is one, is closed: before that the peer may
    /// not receive on it yet.
    WhenHeard,
    /// Never: it is redundant, and about to be closed.
    Never,
}

/// A pair of ESP SAs in tunnel mode.
#[derive(Clone)]
pub struct Child {
    /// The SPI that we receive on.
    pub spi_in: u32,
    /// The SPI that we send on.
    pub spi_out: u32,
    /// 0: for whatever the traffic selectors name. Else one beside it for the same traffic, of a resource
    /// such as a processor core (RFC 9611); each of an IKE SA has another number.
    pub lane: u16,
    /// Of a lane: whoever asked for it may send its ESP in UDP from another port than that of IKE.
    pub own_port: bool,
    pub cipher: EspCipher,
    /// Without the salt.
    pub key_in: Secret,
    pub salt_in: [u8; SALT],
    /// Without the salt.
    pub key_out: Secret,
    pub salt_out: [u8; SALT],
    /// Extended sequence numbers.
    pub esn: bool,
    pub local_ts: Vec<TrafficSelector>,
    pub remote_ts: Vec<TrafficSelector>,
}

impl Drop for Child {
    // The keys wipe themselves.
    fn drop(&mut self) {
        self.salt_in.zeroize();
        self.salt_out.zeroize();
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("spi_in", &format_args!("{:#010x}", self.spi_in))
            .field("spi_out", &format_args!("{:#010x}", self.spi_out))
            .field("cipher", &self.cipher)
            .field("esn", &self.esn)
            .field("local_ts", &self.local_ts)
            .field("remote_ts", &self.remote_ts)
            .finish_non_exhaustive()
    }
}

/// What the NAT detection hashes say (RFC 7296 section 2.23).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nat {
    /// The peer sent hashes at all; the rest is false without.
    pub detected: bool,
    /// Something changes our address on the way.
    pub local: bool,
    /// Something changes the peer's address on the way.
    pub remote: bool,
    /// We have made the peer believe that there is a NAT ([`Encapsulation::Always`]).
    ///
    /// [`Encapsulation::Always`]: super::Encapsulation::Always
    pub forced: bool,
}

impl Nat {
    /// ESP goes in UDP, and IKE over port 4500.
    #[must_use]
    pub fn encapsulates(self) -> bool {
        self.local || self.remote || self.forced
    }

    /// The peer is behind a NAT and we are not: it is where its newest authentic packet came from.
    #[must_use]
    pub fn follows(self) -> bool {
        self.remote && !self.local
    }
}

/// Why a session did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no answer")]
    Timeout,
    #[error("cancelled")]
    Cancelled,
    #[error("no proposal chosen")]
    NoProposalChosen,
    /// The peer does not accept our proof; as responder: we do not accept the peer's.
    #[error("authentication failed")]
    AuthenticationFailed,
    /// As responder: the owner knows no peer of the name that it gives.
    #[error("no peer has this name")]
    UnknownPeer,
    /// We do not accept the peer's proof of who it is.
    #[error("the peer could not prove its identity")]
    PeerNotAuthenticated,
    /// We do not believe the peer's certificate, or the signature made with it.
    #[error(transparent)]
    Certificate(#[from] Refused),
    /// A user that does not exist, a wrong password, or another EAP method.
    #[error("EAP has failed: no such user, or a wrong password")]
    Eap,
    /// The password was not even looked at.
    #[error(
        "too many wrong passwords for this name or from this place: the next one counts in {} s",
        .0.as_secs_f64().ceil()
    )]
    TooManyGuesses(Duration),
    /// The conversation of EAP-TLS went wrong, other than by the user's certificate.
    #[error("EAP-TLS has failed: {0}")]
    Tls(String),
    /// The user's certificate is believed, but is nobody's whom we know.
    #[error("EAP-TLS has failed: the certificate is of {}, who is no user here", .0.join(", "))]
    NoUser(Vec<String>),
    #[error("we can not prove who we are: {0}")]
    NoProof(&'static str),
    /// The peer is someone else than was asked for.
    #[error("the peer is {found}, expected {expected}")]
    WrongIdentity { found: Identity, expected: Identity },
    /// The peer does not want us, but says who may.
    #[error("redirected to {0}")]
    Redirected(GatewayIdentity),
    #[error("traffic selectors unacceptable")]
    TsUnacceptable,
    #[error("the peer does not accept our address")]
    UnacceptableAddresses,
    #[error("the peer sees a NAT where none is allowed")]
    UnexpectedNat,
    /// The peer has as many child SAs as it wants.
    #[error("no additional child SAs, says the peer")]
    NoAdditionalSas,
    /// The peer has as many child SAs for the same traffic as it wants (RFC 9611).
    #[error("no further child SA for the same traffic, says the peer")]
    TsMaxQueue,
    /// Something else is under way at the peer; another time it may work.
    #[error("not now, says the peer")]
    TemporaryFailure,
    #[error("the peer does not know the child SA")]
    ChildNotFound,
    /// The IKE SA ended before the exchange did.
    #[error("the session has ended")]
    Over,
    #[error("no inner address to be had")]
    InternalAddressFailure,
    #[error("the peer accepts only clients that ask for an inner address")]
    AddressRequired,
    #[error("invalid syntax, says the peer")]
    InvalidSyntax,
    #[error("the peer does not understand critical payload {0}")]
    UnsupportedCriticalPayload(u8),
    #[error("the peer answers with notification {0}")]
    Notified(u16),
    /// The peer's message does not follow the protocol.
    #[error("wrong answer: {0}")]
    WrongAnswer(&'static str),
    #[error("malformed message: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

impl Failure {
    pub(super) fn notified(notify: &Notify) -> Failure {
        match notify.kind {
            kind::NO_PROPOSAL_CHOSEN => Failure::NoProposalChosen,
            kind::AUTHENTICATION_FAILED => Failure::AuthenticationFailed,
            kind::TS_UNACCEPTABLE => Failure::TsUnacceptable,
            kind::NO_ADDITIONAL_SAS => Failure::NoAdditionalSas,
            kind::TS_MAX_QUEUE => Failure::TsMaxQueue,
            kind::UNACCEPTABLE_ADDRESSES => Failure::UnacceptableAddresses,
            kind::UNEXPECTED_NAT_DETECTED => Failure::UnexpectedNat,
            kind::TEMPORARY_FAILURE => Failure::TemporaryFailure,
            kind::CHILD_SA_NOT_FOUND => Failure::ChildNotFound,
            kind::INTERNAL_ADDRESS_FAILURE => Failure::InternalAddressFailure,
            kind::FAILED_CP_REQUIRED => Failure::AddressRequired,
            kind::INVALID_SYNTAX => Failure::InvalidSyntax,
            kind::UNSUPPORTED_CRITICAL_PAYLOAD => {
                Failure::UnsupportedCriticalPayload(notify.data.first().copied().unwrap_or(0))
            }
            other => Failure::Notified(other),
        }
    }
}

/// Why an established session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    #[error("closed by us")]
    Local,
    #[error("deleted by the peer")]
    PeerDeleted,
    #[error("the peer does not answer")]
    Timeout,
    /// It has proven so (RFC 6290).
    #[error("the peer has lost its state")]
    Crashed,
    /// The lifetime of an SA is over, and it could not be replaced.
    #[error("the lifetime of {what} is over{}", because(.error.as_ref()))]
    Expired {
        what: &'static str,
        /// Why the last try to replace it failed, if there was one.
        error: Option<Failure>,
    },
    /// The peer made a new session and says that it knows no other.
    #[error("replaced by a new session of the peer")]
    Replaced,
    /// The peer broke the protocol, or says that we did.
    #[error("protocol error: {0}")]
    Error(Failure),
}

fn because(error: Option<&Failure>) -> String {
    error.map_or_else(String::new, |e| {
        format!(", and it could not be replaced: {e}")
    })
}
