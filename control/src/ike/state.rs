//! What is known of one IKE SA, and how far it has come.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::crypto::Prf;
use super::event::{CloseReason, Event, Failure, Nat, SaId};
use super::identity::Identity;
use super::keys::IkeKeys;
use super::life::{Busy, ChildSa, Life};
use super::proposal::IkeSuite;
use super::settings::Beside;
use super::task::Cx;
use super::task::eap::Conversation;
use super::task::followup::Awaited;
use super::task::intermediate::Intermediate;
use super::task::resume::{Origin, Resumed};
use super::task::sync::Abilities;
use super::x509::Hashes;

/// How far an IKE SA has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// As initiator, before both sides are authenticated.
    Opening,
    /// As responder, before both sides are authenticated.
    HalfOpen,
    /// Authenticated, but without a child SA, and so of no use; waits for the peer's DELETE.
    Childless,
    Established,
    /// Made by rekeying another one, which still has the child SAs.
    Heir,
    /// Another one has its child SAs; waits for its deletion.
    Replaced,
    /// We want it gone.
    Closing,
    /// Gone for the owner; kept only to answer or to ask one last time.
    Ended,
}

/// What both tasks and the machinery below know of an IKE SA.
pub(crate) struct Core {
    pub(crate) id: SaId,
    /// We are the original initiator of this IKE SA, which is whoever rekeyed it last.
    pub(crate) initiator: bool,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) spi_i: u64,
    /// 0 until known.
    pub(crate) spi_r: u64,
    pub(crate) phase: Phase,
    /// SPI of ours of the IKE SA that this one has replaced.
    pub(crate) predecessor: Option<u64>,
    /// When the first message came, as responder.
    pub(crate) begun: Option<Instant>,
    pub(crate) established: Option<Instant>,
    /// We began the session.
    pub(crate) ours: bool,
    pub(crate) prf: Option<Prf>,
    pub(crate) keys: Option<IkeKeys>,
    /// They hold from the end of the exchange on that has made them.
    pub(crate) next_keys: Option<Box<IkeKeys>>,
    /// The longest IP packet to send; `None` if the peer does not take messages in parts.
    pub(crate) fragment_size: Option<u16>,
    /// Until authenticated.
    pub(crate) handshake: Option<Box<Handshake>>,
    pub(crate) suite: Option<IkeSuite>,
    /// Who has proven what, and when.
    pub(crate) origin: Option<Box<Origin>>,
    /// What the peer will show if it has forgotten this IKE SA (RFC 6290).
    pub(crate) token: Option<Box<[u8]>>,
    /// When the peer must have proven anew who it is, as responder.
    pub(crate) reauth_until: Option<Instant>,
    /// As responder, while a user authenticates by EAP.
    pub(crate) eap: Option<Box<Conversation>>,
    /// Claimed before the phase Established, proven from then on.
    pub(crate) peer: Option<Identity>,
    /// Inner addresses of the client.
    pub(crate) assigned: Vec<IpAddr>,
    pub(crate) children: Vec<ChildSa>,
    pub(crate) life: Life,
    pub(crate) busy: Busy,
    /// The peer replaces this IKE SA, and an additional key exchange is to follow.
    pub(crate) awaited: Option<Box<Awaited>>,
    /// Why a rekeying failed last.
    pub(crate) failure: Option<Failure>,
    /// An SPI that is allocated but belongs to no child SA yet.
    pub(crate) spi_in: Option<u32>,
    pub(crate) nat: Nat,
    pub(crate) vendor_ids: Vec<Vec<u8>>,
    /// What the peer can verify signatures with (RFC 7427).
    pub(crate) hashes: Hashes,
    /// Both sides move the IKE SA by MOBIKE (RFC 4555).
    pub(crate) mobike: bool,
    /// Other addresses of the peer, as it says.
    pub(crate) peer_addresses: Vec<IpAddr>,
    /// Our and the peer's address on the last request, which is not always where it is to be found.
    pub(crate) heard_at: Option<(SocketAddr, SocketAddr)>,
    /// Behind a NAT: the hash of where the peer sees us.
    pub(crate) seen_as: Option<Vec<u8>>,
    /// The peer has moved: whether it receives there is to be asked.
    pub(crate) wants_check: bool,
    /// We are elsewhere: the peer is to be told.
    pub(crate) wants_update: bool,
    /// We have said that we follow the peer's REDIRECT (RFC 5685).
    pub(crate) follows_redirects: bool,
    /// The peer has said that it follows ours.
    pub(crate) redirectable: bool,
    /// What both sides can bring into step again (RFC 6311).
    pub(crate) sync: Abilities,
    /// Who has sent the peer to us, as it says.
    pub(crate) redirected_from: Option<IpAddr>,
    /// What the owner will be told once a DELETE of ours is answered.
    pub(crate) closing: CloseReason,
    /// A task wants the IKE SA deleted as soon as the window allows.
    pub(crate) wants_delete: bool,
}

/// What AUTH is computed over.
pub(crate) struct Handshake {
    /// Ni, Nr.
    pub(crate) nonces: [Vec<u8>; 2],
    /// The IKE_SA_INIT message that we sent.
    pub(crate) ours: Vec<u8>,
    /// The one that we received.
    pub(crate) theirs: Vec<u8>,
    pub(crate) intermediate: Intermediate,
    /// It goes on with a former session.
    pub(crate) resumed: Option<Box<Resumed>>,
}

impl Handshake {
    /// Ni, or else Nr.
    pub(crate) fn nonce(&self, initiator: bool) -> &[u8] {
        let [ni, nr] = &self.nonces;
        if initiator { ni } else { nr }
    }
}

impl Core {
    pub(crate) fn new(id: SaId, initiator: bool, local: SocketAddr, remote: SocketAddr) -> Core {
        Core {
            id,
            initiator,
            local,
            remote,
            spi_i: 0,
            spi_r: 0,
            phase: if initiator {
                Phase::Opening
            } else {
                Phase::HalfOpen
            },
            predecessor: None,
            begun: None,
            established: None,
            ours: initiator,
            prf: None,
            keys: None,
            next_keys: None,
            fragment_size: None,
            handshake: None,
            suite: None,
            origin: None,
            token: None,
            reauth_until: None,
            eap: None,
            peer: None,
            assigned: Vec::new(),
            children: Vec::new(),
            life: Life::default(),
            busy: Busy::Free,
            awaited: None,
            failure: None,
            spi_in: None,
            nat: Nat::default(),
            vendor_ids: Vec::new(),
            hashes: Hashes::default(),
            mobike: false,
            peer_addresses: Vec::new(),
            heard_at: None,
            seen_as: None,
            wants_check: false,
            wants_update: false,
            follows_redirects: false,
            redirectable: false,
            sync: Abilities::default(),
            redirected_from: None,
            closing: CloseReason::Local,
            wants_delete: false,
        }
    }

    /// The SPI that is ours.
    pub(crate) fn spi_local(&self) -> u64 {
        if self.initiator {
            self.spi_i
        } else {
            self.spi_r
        }
    }

    /// Came about while `other`, which the peer began, was on its way. The peer then means others
    /// when it says in `other` that it holds none: this one it did not know yet.
    pub(crate) fn crosses(&self, other: &Core) -> bool {
        match (self.established, other.begun) {
            (Some(established), Some(begun)) => self.ours && established >= begun,
            _ => false,
        }
    }

    /// The owner has been told of this session, and not yet of its end.
    pub(crate) fn is_announced(&self) -> bool {
        matches!(self.phase, Phase::Established | Phase::Closing)
    }

    /// The session is over for the owner.
    pub(crate) fn end(&mut self, cx: &mut Cx<'_>, reason: CloseReason) {
        if self.is_announced()
            && let Some(peer) = self.peer.clone()
        {
            cx.events.extend(self.release());
            cx.events.push(Event::Closed {
                id: self.id,
                peer,
                reason,
            });
        }
        self.phase = Phase::Ended;
        self.children.clear();
    }

    /// Takes back the SPI of an exchange that will not end any more.
    pub(crate) fn release(&mut self) -> Option<Event> {
        let (id, spi_in) = (self.id, self.spi_in.take()?);
        Some(Event::ChildFailed {
            id,
            spi_in,
            error: Failure::Over,
        })
    }

    /// A session that we wished for does not come about.
    pub(crate) fn fail(&mut self, cx: &mut Cx<'_>, error: Failure) {
        if self.phase == Phase::Opening {
            let (id, remote, spi_in) = (self.id, self.remote, self.spi_in.take());
            cx.events.push(Event::Failed {
                id,
                remote,
                error,
                spi_in,
            });
        }
        self.phase = Phase::Ended;
    }

    /// Whether a child SA of this lane is in use.
    pub(crate) fn has_lane(&self, lane: u16) -> bool {
        self.children
            .iter()
            .any(|c| c.is_in_use() && c.lane == lane)
    }

    /// The child SA that one of this lane is beside, if it is beside one.
    pub(crate) fn beside(&self, lane: u16) -> Option<Beside> {
        let mut plain = self
            .children
            .iter()
            .filter(|c| c.is_in_use() && c.lane == 0);
        let spi = plain.next().filter(|_| lane > 0)?.spi_in;
        Some(Beside { spi, lane })
    }
}
