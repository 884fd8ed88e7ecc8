//! Sessions that exist: what IKE negotiated, given to the SA database and to the data plane.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dataplane::GroupId;
use crate::esp;
use crate::ike::{Child, Contender, EspCipher, Exporter, Identity, Rank, SaId};
use crate::sadb::{Producer, SaSpec, SessionId, SessionSpec, UdpEncap};

use super::hooks::prefixes;

/// Label under which the heartbeat key is derived from SK_d; both ends derive the same.
const HEARTBEAT_LABEL: &[u8] = b"evergate heartbeat v1";

/// Says in IKE_SA_INIT that a node knows keyed heartbeats.
pub(super) const VENDOR_ID: &[u8] = b"evergate keyed heartbeat v1";

/// A session and its IKE SA.
pub(super) struct Live {
    pub(super) sa: SaId,
    pub(super) peer: Identity,
    pub(super) spec: Arc<SessionSpec>,
    pub(super) group: GroupId,
    pub(super) rank: Rank,
    pub(super) since: Instant,
    /// When the peer last proved to live by IKE; ESP is judged by the worker's view.
    pub(super) alive: Instant,
    /// When it was last asked.
    pub(super) asked: Instant,
}

impl Live {
    pub(super) fn contender(&self) -> Contender<'_> {
        Contender {
            id: self.sa,
            at: self.since,
            initiator: self.spec.initiator,
            rank: &self.rank,
        }
    }
}

/// All sessions that IKE made.
#[derive(Default)]
pub(super) struct Table {
    pub(super) live: HashMap<SessionId, Live>,
    by_sa: HashMap<SaId, SessionId>,
}

impl Table {
    pub(super) fn insert(&mut self, live: Live) {
        self.by_sa.insert(live.sa, live.spec.id);
        self.live.insert(live.spec.id, live);
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Live> {
        let live = self.live.remove(&id)?;
        self.by_sa.remove(&live.sa);
        Some(live)
    }

    /// Sessions whose peer was silent for `patience`, each told once in that time. `heard`: when
    /// the workers last heard of each.
    pub(super) fn silent(
        &mut self,
        heard: &HashMap<SessionId, Instant>,
        patience: Duration,
        now: Instant,
    ) -> Vec<SaId> {
        let mut silent = Vec::new();
        for (id, live) in &mut self.live {
            let last = heard.get(id).copied().max(Some(live.alive.max(live.asked)));
            if last.is_some_and(|at| now.saturating_duration_since(at) >= patience) {
                live.asked = now;
                silent.push(live.sa);
            }
        }
        silent
    }

    /// All sessions of an IKE SA.
    pub(super) fn all_of(&self, sa: SaId) -> Vec<SessionId> {
        let of_sa = self.live.values().filter(|live| live.sa == sa);
        of_sa.map(|live| live.spec.id).collect()
    }

    pub(super) fn of_sa(&self, sa: SaId) -> Option<SessionId> {
        self.by_sa.get(&sa).copied()
    }
}

/// What is known of a child SA beside its keys.
pub(super) struct Outline {
    pub(super) peer: String,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) gateway: Option<IpAddr>,
    pub(super) replay_window: u32,
    /// ESP in UDP.
    pub(super) encap: Option<UdpEncap>,
    /// The peer is behind a NAT, and we are not.
    pub(super) roams: bool,
    pub(super) initiator: bool,
    pub(super) keyed_heartbeat: bool,
}

/// Makes the session of a child SA.
pub(super) fn spec(
    outline: Outline,
    child: &Child,
    exporter: &Exporter,
) -> Result<SessionSpec, esp::BadSecret> {
    let cipher = match child.cipher {
        EspCipher::Aes128Gcm => esp::Cipher::Aes128Gcm,
        EspCipher::Aes256Gcm => esp::Cipher::Aes256Gcm,
        EspCipher::ChaCha20Poly1305 => esp::Cipher::ChaCha20Poly1305,
    };
    let remote_inner = prefixes(&child.remote_ts);
    let local_inner = prefixes(&child.local_ts);
    let sa = |spi, key: &[u8], salt: [u8; 4]| {
        let mut sa = SaSpec::new(spi, cipher, esp::Key::new(key)?, salt.into());
        sa.esn = child.esn;
        sa.replay_window = outline.replay_window;
        Ok(sa)
    };
    let inbound = sa(child.spi_in, &child.key_in, child.salt_in)?;
    let outbound = sa(child.spi_out, &child.key_out, child.salt_out)?;
    let heartbeat_key = outline.keyed_heartbeat.then(|| {
        let mut key = [0; 16];
        // Both ends name the SPIs in the same order, whichever side they are on.
        let (low, high) = (
            child.spi_in.min(child.spi_out),
            child.spi_in.max(child.spi_out),
        );
        let mut context = [0; 8];
        context[..4].copy_from_slice(&low.to_be_bytes());
        context[4..].copy_from_slice(&high.to_be_bytes());
        exporter.derive(HEARTBEAT_LABEL, &context, &mut key);
        key.into()
    });
    let mut spec = SessionSpec::new(outline.local, outline.remote, Producer::Ike);
    spec.peer = outline.peer;
    spec.inbound = Some(inbound);
    spec.outbound = Some(outbound);
    spec.remote_inner = remote_inner;
    spec.local_inner = local_inner;
    spec.gateway = outline.gateway;
    spec.heartbeat_key = heartbeat_key;
    spec.initiator = outline.initiator;
    spec.encap = outline.encap;
    spec.roams = outline.roams && outline.encap.is_some();
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ClusterId;

    #[test]
    fn only_the_silent_are_asked_and_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut table = Table::default();
        for id in 1..=3 {
            let outside = "192.0.2.1".parse().unwrap();
            let mut spec = SessionSpec::new(outside, outside, Producer::Ike);
            spec.id = SessionId(id);
            table.insert(Live {
                sa: SaId(id),
                peer: Identity::from(outside),
                spec: Arc::new(spec),
                group: GroupId::Cluster(ClusterId(1)),
                rank: Rank::new(&[vec![1], vec![2]]),
                since: start,
                alive: at(if id == 2 { 8 } else { 0 }),
                asked: start,
            });
        }
        // One was never heard of, two answered IKE, three sent packets.
        let heard = HashMap::from([(SessionId(3), at(7))]);
        let patience = Duration::from_secs(10);
        let mut silent = |seconds| table.silent(&heard, patience, at(seconds));
        assert_eq!(silent(9), []);
        assert_eq!(silent(10), [SaId(1)]);
        assert_eq!(silent(11), [], "asked a second ago");
        assert_eq!(silent(17), [SaId(3)]);
        assert_eq!(silent(18), [SaId(2)]);
        assert_eq!(silent(20), [SaId(1)]);
    }
}
