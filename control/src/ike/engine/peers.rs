//! What concerns all IKE SAs with a peer: whether there is one, which ones a new one replaces, and what
//! a peer hears whose IKE SA is forgotten.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::crash;
use super::super::event::{CloseReason, Event, SaId, Transmit};
use super::super::identity::Identity;
use super::super::payload::header::{Header, VERSION};
use super::super::payload::notify::Notify;
use super::super::payload::{Payload, kind as payload_kind, sk};
use super::super::sa::Sa;
use super::super::settings::Initiate;
use super::super::state::{Core, Phase};
use super::Engine;

impl Engine {
    /// Whether a session stands with the peer that is wished for.
    pub(super) fn has_session(&self, wish: &Initiate) -> bool {
        let is_established = |core: &Core| core.phase == Phase::Established;
        match &wish.remote_id {
            Some(wanted) => self.of_peer(wanted).any(|sa| is_established(&sa.core)),
            None => {
                let mut all = self.sas.values().map(|entry| &entry.sa.core);
                all.any(|core| is_established(core) && core.remote.ip() == wish.remote.ip())
            }
        }
    }

    /// The IKE SAs with a proven peer, the oldest first.
    fn of_peer(&self, peer: &Identity) -> impl Iterator<Item = &Sa> {
        let key = peer.key();
        let range = (key.clone(), SaId(0))..=(key, SaId(u64::MAX));
        let found = self.by_peer.range(range);
        let found = found.filter_map(|(_, id)| Some(&self.sas.get(id)?.sa));
        found.filter(|sa| sa.core.peer.as_ref().is_some_and(|p| p.matches(peer)))
    }

    /// INITIAL_CONTACT: all other sessions with that peer are remains (section 2.4), but for those
    /// that came about meanwhile.
    pub(super) fn replace(&mut self, peer: &Identity, except: SaId) {
        let live = |sa: &Sa| sa.core.is_announced() || sa.core.phase == Phase::Childless;
        let new = self.sas.get(&except).map(|entry| &entry.sa.core);
        let others = self
            .of_peer(peer)
            .filter(|sa| sa.core.id != except && live(sa))
            .filter(|sa| !new.is_some_and(|new| sa.core.crosses(new)));
        let others: Vec<SaId> = others.map(|sa| sa.core.id).collect();
        for id in others {
            let Some(mut sa) = self.remove(id).map(|entry| entry.sa) else {
                continue;
            };
            self.events.extend(sa.core.release());
            if let (true, Some(peer)) = (sa.core.is_announced(), sa.core.peer) {
                self.events.push_back(Event::Closed {
                    id,
                    peer,
                    reason: CloseReason::Replaced,
                });
            }
        }
    }

    /// Answers a request in the clear, without keeping anything.
    pub(super) fn answer_plain(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        request: &Header,
        payloads: Vec<Payload>,
    ) {
        let header = Header {
            version: VERSION,
            initiator: !request.initiator,
            response: true,
            ..*request
        };
        if let Ok(data) = sk::write_plain(header, &payloads) {
            self.stats.sent += 1;
            self.transmits.push_back(Transmit {
                local,
                remote,
                data,
            });
        }
    }

    /// Tells the sender of a message in the clear that it can not be read; not too often (section
    /// 2.21.4).
    pub(super) fn complain(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        complaint: Notify,
    ) {
        if !self.complaints.pass(now) {
            self.stats.complaints_withheld += 1;
            return;
        }
        self.answer_plain(local, remote, header, vec![Payload::Notify(complaint)]);
    }

    /// Whoever speaks to us in an IKE SA that we do not know hears the token of it (RFC 6290). One of
    /// an IKE SA that lives would end it: neither of the SPIs may be in use here, whichever side the
    /// message says that it comes from.
    pub(super) fn show_token(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
    ) {
        let spis = [header.spi_i, header.spi_r];
        let Some(secret) = &self.settings.crash_secret else {
            return;
        };
        let protected = matches!(
            header.next,
            payload_kind::ENCRYPTED | payload_kind::ENCRYPTED_FRAGMENT
        );
        let known = spis.iter().any(|spi| self.by_spi.contains_key(spi));
        if header.response || !protected || known || spis.contains(&0) {
            return;
        }
        if !self.tokens.pass(now) {
            self.stats.tokens_withheld += 1;
            return;
        }
        self.stats.tokens_sent += 1;
        let payloads = crash::answer(secret, spis);
        self.answer_plain(local, remote, header, payloads);
    }
}
