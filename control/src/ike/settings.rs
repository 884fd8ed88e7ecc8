//! What the owner of an engine tells it: settings, a wish for a session, and answers to its
//! questions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::crypto::{Group, Psk, Secret};
use super::eap::EapUser;
use super::identity::Identity;
use super::life::Lifetime;
use super::payload::redirect::GatewayIdentity;
use super::proposal::{EspProposal, IkeProposal};
use super::ticket::Tickets;
use super::ts::TrafficSelector;
use super::x509::{AuthorityId, Own, Subject, Trust};

/// What holds for all sessions of a node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who we are.
    pub local_id: Identity,
    /// For the IKE SA, in order of preference, which decides when we respond. As initiator, the
    /// first group of the first one makes the KE payload.
    pub ike_proposals: Vec<IkeProposal>,
    /// For child SAs, in order of preference.
    pub esp_proposals: Vec<EspProposal>,
    /// Key exchange methods for child SAs that are made or rekeyed later on, in order of preference
    /// and beside none at all: with one, the keys of a child SA are safe even from whoever learns
    /// those of its IKE SA. Of a peer that asks for one the IKE SA's methods are taken as well.
    pub child_groups: Vec<Group>,
    /// Of child SAs; without, they live as long as their IKE SA.
    pub child_lifetime: Option<Lifetime>,
    /// Of IKE SAs.
    pub ike_lifetime: Option<Lifetime>,
    /// So many child SAs at most has an IKE SA, those aside that have been replaced.
    pub children_limit: usize,
    /// As many child SAs as this a peer may have for the same traffic, one for each resource (RFC 9611).
    pub lanes: u16,
    /// ESP in UDP of those that we ask for may come from ports of their own.
    pub own_ports: bool,
    pub retransmit: Retransmit,
    /// So many sessions may be half open as responder; one more, and the oldest goes.
    pub half_open_limit: usize,
    /// So many of them from one IPv4 address or IPv6 /64; its further first messages are dropped
    /// and counted. From half of it on, that address must return a cookie, so that whoever forges
    /// it can not use it up.
    pub half_open_per_source: usize,
    /// A session half open for so long is dropped.
    pub half_open_timeout: Duration,
    /// From so many half-open sessions on, an initiator must first return a cookie (RFC 7296
    /// section 2.6), which costs us no state. 0 asks always.
    pub cookie_threshold: usize,
    /// So many sessions that are over, or have no child, are kept for [`half_open_timeout`], to
    /// answer a repeated request again; one more, and the oldest goes.
    ///
    /// [`half_open_timeout`]: Settings::half_open_timeout
    pub last_answers_limit: usize,
    /// The longest IP packet that a protected message goes in, in bytes with all headers, 576 or
    /// more; a longer message goes in parts (RFC 7383). `None`: parts are neither sent nor taken.
    pub fragment_size: Option<u16>,
    /// The owner is told the keys of every IKE SA ([`Event::Keys`](super::Event::Keys)), to read a
    /// recording. Off unless whoever operates the node asks for it: with them, nothing is secret.
    pub export_keys: bool,
    /// Vendor ID payloads that we send.
    pub vendor_ids: Vec<Vec<u8>>,
    /// When ESP goes in UDP.
    pub encapsulation: Encapsulation,
    /// Behind a NAT: after so long without a word to the peer a keep-alive goes to it (RFC 3948
    /// section 4).
    pub keep_alive: Duration,
    /// Sessions go on from other addresses (MOBIKE, RFC 4555). Together with NAT detection, all IKE but
    /// the first exchange then goes over port 4500.
    pub mobike: bool,
    /// Other addresses that we can be reached at, at most 16; for MOBIKE.
    pub additional_addresses: Vec<IpAddr>,
    /// As responder: we follow a peer that sends us elsewhere (RFC 5685 section 8); as initiator each
    /// wish says so.
    pub follows_redirects: bool,
    pub x509: X509,
    /// Users may authenticate by EAP-MSCHAPv2; we do so by our certificate then.
    pub eap: bool,
    /// Users may authenticate by EAP-TLS, with certificates of the CAs of `x509`.
    pub eap_tls: bool,
    /// As responder: what makes and opens tickets (RFC 5723); `None`: no session is resumed.
    pub tickets: Option<Arc<Tickets>>,
    /// No ticket is good for longer, nor for longer than an IKE SA may last; a second or more.
    pub ticket_lifetime: Duration,
    /// As initiator: ask for tickets.
    pub request_tickets: bool,
    /// As responder: an initiator must prove anew who it is after this time, and is told so (RFC
    /// 4478); if it does not, the session ends.
    pub reauth: Option<Duration>,
    /// What the highest bits of our SPIs are, so that others can tell whose an IKE SA is.
    pub spi_prefix: SpiPrefix,
    /// Numbers of messages and packets can be brought into step again by those who have lost count (RFC
    /// 6311).
    pub sync: bool,
    /// Makes the tokens by which a peer believes that we have forgotten an IKE SA (RFC 6290). The
    /// same after a restart, and known to nobody else; `None`: there are none.
    pub crash_secret: Option<Secret>,
}

/// The highest bits of SPIs; at first there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpiPrefix {
    bits: u32,
    value: u64,
}

impl SpiPrefix {
    /// The highest `bits`, at most 32, are `value`.
    #[must_use]
    pub fn new(bits: u32, value: u64) -> SpiPrefix {
        SpiPrefix {
            bits: bits.min(32),
            value,
        }
    }

    /// An SPI with these bits, and all others as they are. Never 0, which is none.
    pub(crate) fn on(self, spi: u64) -> u64 {
        match self.bits {
            0 => spi.max(1),
            bits => (spi & (u64::MAX >> bits) | self.value << (64 - bits)).max(1),
        }
    }
}

/// Certificates: ours, and what makes us believe those of others.
#[derive(Debug, Clone, Default)]
pub struct X509 {
    /// What we show where we prove ourselves by certificate.
    pub own: Option<Arc<Own>>,
    pub trust: Arc<Trust>,
}

impl X509 {
    /// Nothing is configured.
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.trust.is_empty()
    }
}

/// How two sides prove who they are: each its own way.
#[derive(Debug, Clone)]
pub struct Methods {
    pub local: Proof,
    pub remote: Proof,
}

/// How one side proves who it is.
#[derive(Debug, Clone)]
pub enum Proof {
    /// By a key that both share.
    Psk(Psk),
    /// By a signature: ours with the certificate of the settings, the peer's with one that names
    /// its identity and leads to a CA of the settings.
    Certificate,
    /// The same, of the peer, but the CA must be one of these.
    CertificateOf(Vec<AuthorityId>),
}

impl Proof {
    pub(super) fn is_certificate(&self) -> bool {
        !matches!(self, Proof::Psk(_))
    }
}

impl From<Psk> for Methods {
    /// Both sides by the same key.
    fn from(psk: Psk) -> Methods {
        Methods {
            local: Proof::Psk(psk.clone()),
            remote: Proof::Psk(psk),
        }
    }
}

/// When ESP goes in UDP (RFC 7296 section 2.23).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encapsulation {
    /// When there is a NAT on the way.
    #[default]
    Auto,
    /// Always, for paths that let only UDP through: the peer is told what looks like a NAT. One that
    /// does not look for NATs gets plain ESP.
    Always,
}

impl Settings {
    /// Usual settings for a node of that name.
    pub fn new(local_id: Identity) -> Settings {
        Settings {
            local_id,
            ike_proposals: vec![IkeProposal::default()],
            esp_proposals: vec![EspProposal::default()],
            child_groups: vec![Group::X25519],
            child_lifetime: Some(Lifetime::new(Duration::from_secs(3600))),
            ike_lifetime: Some(Lifetime::new(Duration::from_secs(4 * 3600))),
            children_limit: 8,
            lanes: 1,
            own_ports: false,
            retransmit: Retransmit::default(),
            half_open_limit: 1024,
            half_open_per_source: 8,
            half_open_timeout: Duration::from_secs(10),
            cookie_threshold: 256,
            last_answers_limit: 256,
            // What every path carries that carries IPv6, and in practice every other.
            fragment_size: Some(1280),
            export_keys: false,
            vendor_ids: Vec::new(),
            mobike: false,
            additional_addresses: Vec::new(),
            follows_redirects: false,
            x509: X509::default(),
            eap: false,
            eap_tls: false,
            tickets: None,
            ticket_lifetime: Duration::from_secs(24 * 3600),
            request_tickets: false,
            reauth: None,
            crash_secret: None,
            sync: true,
            spi_prefix: SpiPrefix::default(),
            encapsulation: Encapsulation::default(),
            keep_alive: Duration::from_secs(20),
        }
    }
}

/// When an unanswered request is sent again, and when it is given up (RFC 7296 section 2.4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retransmit {
    /// From the first sending to the second.
    pub first: Duration,
    /// Each wait is the one before times this; 1 or more.
    pub factor: f64,
    /// No wait is longer.
    pub cap: Duration,
    /// So often a request is sent in all. The last wait over, it is given up.
    pub tries: u32,
}

impl Default for Retransmit {
    /// 0.5, 1, 2, 4, 8 and 10 seconds.
    fn default() -> Retransmit {
        Retransmit {
            first: Duration::from_millis(500),
            factor: 2.0,
            cap: Duration::from_secs(10),
            tries: 6,
        }
    }
}

impl Retransmit {
    /// How long to wait after sending number `sent`, which counts from 1.
    pub fn wait(&self, sent: u32) -> Duration {
        let exponent = i32::try_from(sent.saturating_sub(1)).unwrap_or(i32::MAX);
        let wait = self.first.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        Duration::try_from_secs_f64(wait)
            .unwrap_or(self.cap)
            .min(self.cap)
    }

    /// From the first sending to giving up.
    pub fn total(&self) -> Duration {
        let most = Duration::from_secs(3600);
        (1..=self.tries)
            .try_fold(Duration::ZERO, |sum, sent| {
                let sum = sum.saturating_add(self.wait(sent));
                (sum < most).then_some(sum)
            })
            .unwrap_or(most)
    }
}

/// A session that is wished for.
#[derive(Debug, Clone)]
pub struct Initiate {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Who the peer must be; anyone with the key, or a certificate that is believed, if `None`.
    pub remote_id: Option<Identity>,
    pub auth: Methods,
    /// Inner addresses to ask for.
    pub request_addresses: Option<AddressRequest>,
    /// Our side of the traffic; everything if empty. Merged before they are offered; at most 255 may
    /// be left of either side.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side of the traffic; everything if empty.
    pub remote_ts: Vec<TrafficSelector>,
    /// Tell the peer that we hold no other session with it, so that it drops what is left of older
    /// ones.
    pub initial_contact: bool,
    /// The peer may send us to another gateway (RFC 5685): [`Failure::Redirected`] or
    /// [`Event::Redirected`] say where to, and the owner decides.
    ///
    /// [`Failure::Redirected`]: super::Failure::Redirected
    /// [`Event::Redirected`]: super::Event::Redirected
    pub follows_redirects: bool,
    /// Who has sent us to this peer.
    pub redirected_from: Option<IpAddr>,
}

/// A peer that wants a session with us.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub remote: IpAddr,
    /// Who it is, once that is proven.
    pub peer: Option<&'a Identity>,
    /// Who has sent it here, as it says.
    pub redirected_from: Option<IpAddr>,
}

/// What becomes of a peer that wants a session with us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    Take,
    /// It is sent elsewhere. One that does not know how to follow is refused by TEMPORARY_FAILURE if
    /// it has only begun, and taken if not.
    Redirect(GatewayIdentity),
    /// It is refused by TEMPORARY_FAILURE if it has only begun, and taken if not.
    Refuse,
}

/// Which inner addresses to ask for: `None` for no address of that family, `Some(None)` for any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressRequest {
    pub v4: Option<Option<Ipv4Addr>>,
    pub v6: Option<Option<Ipv6Addr>>,
}

/// What the engine asks of its owner while it works. None of it may wait.
pub trait Hooks {
    /// Whether a peer may begin a session with us. Asked when its first message comes, where nobody
    /// knows yet who it is and nothing is kept of it, and again once it is authenticated.
    fn admit(&mut self, _arrival: Arrival<'_>) -> Admission {
        Admission::Take
    }

    /// Whether a peer may go on from that address (MOBIKE).
    fn may_move(&mut self, _peer: &Identity, _remote: IpAddr) -> bool {
        true
    }

    /// How a peer that wants a session with us has to prove itself, and how we do; `None` refuses
    /// it.
    fn auth(&mut self, local: &Identity, remote: &Identity) -> Option<Methods>;

    /// The user of that name, who wants to authenticate by EAP; `None` if there is none.
    fn eap_user(&mut self, _name: &str) -> Option<EapUser> {
        None
    }

    /// Who the owner of a certificate is, that is believed, who wants to authenticate by EAP-TLS;
    /// `None` if it is nobody.
    fn eap_certificate(&mut self, subject: &Subject) -> Option<Identity> {
        let _ = subject;
        None
    }

    /// Whether that user, who came by EAP before, may still have a session.
    fn may_resume(&mut self, user: &Identity) -> bool {
        let _ = user;
        false
    }

    /// The time of day in seconds since 1970, for the validity of certificates and tickets.
    fn unix_time(&mut self) -> u64;

    /// An unused SPI to receive ESP on: 256 to FFFFFFFE.
    fn allocate_spi(&mut self, beside: Option<Beside>) -> u32;

    /// Inner addresses for an authenticated peer: at most one of each family that it wants.
    /// `requested` holds those it named. An empty list grants none without refusing the session.
    ///
    /// The peer may still have an older session, with the address that it should get again: if it
    /// says that it has not (INITIAL_CONTACT), [`Event::Closed`](super::Event::Closed) of the old
    /// one comes before [`Event::Established`](super::Event::Established) of the new one, but after
    /// this question.
    ///
    /// # Errors
    /// There is none to give: the peer is told INTERNAL_ADDRESS_FAILURE.
    fn assign(
        &mut self,
        _peer: &Identity,
        _requested: &[IpAddr],
        _wants_v4: bool,
        _wants_v6: bool,
    ) -> Result<Vec<IpAddr>, AssignRefused> {
        Err(AssignRefused)
    }

    /// The traffic that an authenticated peer may have, out of what it proposes: (our side, its
    /// side). See [`narrow`](super::narrow).
    ///
    /// # Errors
    /// Nothing of it: the peer is told TS_UNACCEPTABLE. Empty lists, or more than was proposed,
    /// mean the same.
    fn selectors(
        &mut self,
        _peer: &Identity,
        _assigned: &[IpAddr],
        _proposed_local: &[TrafficSelector],
        _proposed_remote: &[TrafficSelector],
    ) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>), TsRefused> {
        Err(TsRefused)
    }
}

/// What an SPI is for: a child SA in the place of one that is there, or beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// The inbound SPI of that one.
    pub spi: u32,
    /// 0: the same resource's; else that of the resource so many further on.
    pub lane: u16,
}

/// No inner address for this peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no inner address to assign")]
pub struct AssignRefused;

/// No traffic for this peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no traffic selector acceptable")]
pub struct TsRefused;

/// For what asks the owner nothing: closing and liveness.
pub(super) struct NoHooks;

impl Hooks for NoHooks {
    fn auth(&mut self, _: &Identity, _: &Identity) -> Option<Methods> {
        None
    }

    fn unix_time(&mut self) -> u64 {
        0
    }

    fn allocate_spi(&mut self, _: Option<Beside>) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let r = Retransmit {
            first: Duration::from_millis(200),
            factor: 2.0,
            cap: Duration::from_secs(1),
            tries: 5,
        };
        let waits: Vec<u128> = (1..=5).map(|n| r.wait(n).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1000, 1000]);
        assert_eq!(r.total(), Duration::from_millis(3400));
        let endless = Retransmit {
            factor: f64::INFINITY,
            tries: u32::MAX,
            ..r
        };
        assert_eq!(endless.wait(u32::MAX), r.cap);
        assert_eq!(endless.total(), Duration::from_secs(3600));
    }
}
