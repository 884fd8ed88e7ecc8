//! EAP-TLS as the side that checks: TLS 1.2 (RFC 5216) and TLS 1.3 (RFC 9190), by `rustls` over
//! memory. The user shows a certificate, and so do we, the same as in IKE.
//!
//! ```text
//!                                  <-- Request/TLS (start)
//! Response/TLS, ClientHello -->
//!                                  <-- Request/TLS, ServerHello … (more)
//! Response/TLS -->
//!                                  <-- Request/TLS, … ServerHelloDone | Finished
//! Response/TLS, Certificate … Finished -->
//!                                  <-- Request/TLS, Finished | one protected zero (RFC 9190)
//! Response/TLS -->
//! ```

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, ServerConnection};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ProtocolVersion, ServerConfig};
use rustls_pki_types::CertificateDer;

use super::super::crypto::Secret;
use super::super::event::Failure;
use super::super::settings::X509;
use super::super::x509::Subject;
use super::tls_crypto::{Signing, StoppedClock, Verifier};

pub(super) const TYPE: u8 = 13;

/// The length of the whole message is there.
const LENGTH: u8 = 0x80;
const MORE: u8 = 0x40;
const START: u8 = 0x20;

/// So many bytes of TLS go in one packet: it fits into what IKE sends unfragmented by default.
const FRAGMENT: usize = 1024;
/// A user may send so many bytes in all: certificates as in IKE, and the rest of a handshake.
const MOST_BYTES: usize = 32 * 1024;
/// … and so many packets.
const MOST_PACKETS: u32 = 64;

/// Bytes of key material, the first half of which is the MSK.
const KEYS: usize = 128;
const MSK: usize = 64;

/// One conversation.
pub(super) struct Conversation {
    tls: Box<ServerConnection>,
    verifier: Arc<Verifier>,
    packets: u32,
    /// Bytes taken in all, and of the message that is under way.
    taken: usize,
    message: usize,
    /// How long that message said it would be.
    announced: Option<usize>,
    /// What is still to be sent of ours; empty once the last of it has gone.
    outgoing: Vec<u8>,
    end: Option<End>,
}

/// What follows when the peer has heard our last message.
enum End {
    Proven(Secret),
    Failed(Failure),
}

/// What comes of a packet.
pub(super) enum Step {
    /// The data of a further request.
    Request(Vec<u8>),
    /// The certificate is believed and its owner has the key of it; both have this key.
    Proven(Secret),
    Failed(Failure),
}

impl Conversation {
    /// A new conversation at `time` (seconds since 1970), and the data of its first request; `None`
    /// without a certificate of ours or without a CA.
    pub(super) fn new(x509: &X509, time: u64) -> Option<(Conversation, Vec<u8>)> {
        let own = x509.own.as_ref()?;
        if x509.trust.is_empty() {
            return None;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(Verifier::new(Arc::clone(&x509.trust), time, algorithms));
        let chain = own
            .chain()
            .iter()
            .map(|der| CertificateDer::from(der.clone()));
        let key = CertifiedKey::new(chain.collect(), Arc::new(Signing(Arc::clone(own))));
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(StoppedClock(time)))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .ok()?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        // A session is resumed by IKE or not at all.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let tls = ServerConnection::new(Arc::new(config)).ok()?;
        let conversation = Conversation {
            tls: Box::new(tls),
            verifier,
            packets: 0,
            taken: 0,
            message: 0,
            announced: None,
            outgoing: Vec::new(),
            end: None,
        };
        Some((conversation, vec![START]))
    }

    /// Whose certificate it is, as soon as it is believed.
    pub(super) fn subject(&self) -> Option<Arc<Subject>> {
        self.verifier.subject()
    }

    /// Takes the data of a response.
    pub(super) fn handle(&mut self, data: &[u8]) -> Step {
        self.packets += 1;
        if self.packets > MOST_PACKETS {
            return failed("too many packets");
        }
        let Some((flags, data)) = data.split_first() else {
            return failed("no flags");
        };
        if self.outgoing.is_empty() && self.end.is_none() {
            return self.take(*flags, data);
        }
        // What has been sent is acknowledged by an empty packet. Before the end the peer may have
        // something to say about it, an alert: that ends it too.
        if !data.is_empty() || flags & MORE != 0 {
            return match self.end.take() {
                Some(End::Failed(failure)) => Step::Failed(failure),
                _ => failed("data where an acknowledgement was expected"),
            };
        }
        if !self.outgoing.is_empty() {
            return Step::Request(self.next_part(false));
        }
        match self.end.take() {
            Some(End::Proven(msk)) => Step::Proven(msk),
            Some(End::Failed(failure)) => Step::Failed(failure),
            None => failed("an acknowledgement of nothing"),
        }
    }

    /// A part of the peer's message.
    fn take(&mut self, flags: u8, data: &[u8]) -> Step {
        let data = match flags & LENGTH {
            0 => data,
            _ => {
                let Some((length, data)) = data.split_first_chunk::<4>() else {
                    return failed("no length where the flags say so");
                };
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if self.announced.is_some_and(|known| known != length) {
                    return failed("another length in a later part");
                }
                self.announced = Some(length);
                data
            }
        };
        self.message += data.len();
        self.taken += data.len();
        let too_long = self.announced.is_some_and(|length| self.message > length);
        let announced = self.announced.unwrap_or_default();
        if self.taken.max(announced) > MOST_BYTES || too_long {
            return failed("a message that is too long");
        }
        let mut failure = None;
        let mut rest = data;
        while !rest.is_empty() && failure.is_none() {
            failure = self.feed(&mut rest).err();
        }
        if let Some(failure) = failure {
            // Our alert tells the peer what was wrong.
            return self.say(Some(End::Failed(failure)));
        }
        if flags & MORE != 0 {
            return match data.is_empty() {
                true => failed("an empty part"),
                false => Step::Request(vec![0]),
            };
        }
        if self.announced.take().is_some_and(|l| l != self.message) {
            return failed("a message that is shorter than it says");
        }
        self.message = 0;
        if self.tls.is_handshaking() {
            return self.say(None);
        }
        match self.keys() {
            Some(msk) => self.say(Some(End::Proven(msk))),
            None => failed("no key"),
        }
    }

    /// Has TLS read some bytes.
    fn feed(&mut self, bytes: &mut &[u8]) -> Result<(), Failure> {
        let read = self.tls.read_tls(bytes);
        let done = self.tls.process_new_packets();
        match (done, read) {
            (Ok(_), Ok(1..)) => Ok(()),
            (Ok(_), _) => Err(Failure::WrongAnswer("EAP-TLS: more than TLS can hold")),
            (Err(error), _) => Err(match self.verifier.refused() {
                Some(refused) => Failure::Certificate(refused),
                None => Failure::Tls(error.to_string()),
            }),
        }
    }

    /// The first part of what TLS has to say, and then `end`.
    fn say(&mut self, end: Option<End>) -> Step {
        if let (Some(End::Proven(_)), Some(ProtocolVersion::TLSv1_3)) =
            (&end, self.tls.protocol_version())
        {
            // RFC 9190 section 2.5: the peer knows by it that nothing more follows.
            if self.tls.writer().write_all(&[0]).is_err() {
                return failed("TLS does not write");
            }
        }
        self.outgoing.clear();
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.outgoing).is_err() {
                return failed("TLS does not write");
            }
        }
        match (self.outgoing.is_empty(), end) {
            (false, end) => {
                self.end = end;
                Step::Request(self.next_part(true))
            }
            (true, Some(End::Failed(failure))) => Step::Failed(failure),
            // The peer has said half of something, or what needs no answer.
            (true, _) => failed("a message that is not complete"),
        }
    }

    /// The next part of what is to be sent.
    fn next_part(&mut self, first: bool) -> Vec<u8> {
        let whole = self.outgoing.len();
        let rest = self.outgoing.split_off(whole.min(FRAGMENT));
        let part = std::mem::replace(&mut self.outgoing, rest);
        let more = if self.outgoing.is_empty() { 0 } else { MORE };
        match (first && more != 0, u32::try_from(whole)) {
            (true, Ok(whole)) => [&[LENGTH | more][..], &whole.to_be_bytes(), &part].concat(),
            _ => [&[more], &part[..]].concat(),
        }
    }

    /// The MSK (RFC 5216 section 2.3, RFC 9190 section 2.3).
    fn keys(&self) -> Option<Secret> {
        let (label, context): (&[u8], Option<&[u8]>) = match self.tls.protocol_version()? {
            ProtocolVersion::TLSv1_3 => (b"EXPORTER_EAP_TLS_Key_Material", Some(&[TYPE])),
            _ => (b"client EAP encryption", None),
        };
        // All of it, since with TLS 1.3 the length goes into each byte.
        let keys = zeroize::Zeroizing::new([0; KEYS]);
        let keys = self.tls.export_keying_material(keys, label, context).ok()?;
        Some(Secret::new(keys.get(..MSK)?))
    }
}

fn failed(what: &'static str) -> Step {
    Step::Failed(Failure::Tls(what.to_owned()))
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conversation({} packets)", self.packets)
    }
}
