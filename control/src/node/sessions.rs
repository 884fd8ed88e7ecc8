//! Sessions that exist: what IKE negotiated, given to the SA database and to the data plane.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dataplane::GroupId;
use crate::esp;
use crate::ike::{Child, Contender, EspCipher, Exporter, Identity, Rank, SaId};
use crate::sadb::{Producer, SaSpec, SessionId, SessionSpec, UdpEncap};

use super::hooks::prefixes;
use super::life::Worry;

/// Label under which the heartbeat key is derived from SK_d; both ends derive the same.
const HEARTBEAT_LABEL: &[u8] = b"evergate heartbeat v1";

/// Says in IKE_SA_INIT that a node knows keyed heartbeats.
pub(super) const VENDOR_ID: &[u8] = b"evergate keyed heartbeat v1";

/// A session, or rather one pair of its SAs, and its IKE SA.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) sa: SaId,
    pub(super) peer: Identity,
    pub(super) spec: Arc<SessionSpec>,
    pub(super) group: GroupId,
    pub(super) rank: Rank,
    pub(super) since: Instant,
    /// Another pair of SAs has taken, or takes, its place: it goes once that is closed.
    pub(super) retired: bool,
    /// Nothing was ever sent on it: both ends made one at once, and this one is too many.
    pub(super) redundant: bool,
    /// When the peer last proved to live by IKE; ESP is judged by the worker's view.
    pub(super) alive: Instant,
    /// When it was last asked.
    pub(super) asked: Instant,
    /// It was made by a ticket.
    pub(super) resumed: bool,
    /// When we begin it anew, to authenticate.
    pub(super) reauth_at: Option<Instant>,
    /// When pairs for other workers are asked for next; none: never.
    pub(super) lanes_at: Option<Instant>,
    pub(super) worry: Worry,
}

impl Live {
    /// One that begins now, and has no rank yet: nobody has begun another one at the same time.
    pub(super) fn new(
        sa: SaId,
        peer: Identity,
        spec: Arc<SessionSpec>,
        group: GroupId,
        now: Instant,
    ) -> Self {
        Self {
            sa,
            peer,
            spec,
            group,
            rank: Rank::unknown(),
            since: now,
            retired: false,
            redundant: false,
            alive: now,
            asked: now,
            resumed: false,
            reauth_at: None,
            lanes_at: None,
            worry: Worry::default(),
        }
    }

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
    /// Those in use.
    by_sa: HashMap<SaId, SessionId>,
    /// Those in use beside them, for other workers, by their lanes.
    by_lane: HashMap<(SaId, u16), SessionId>,
    /// All of them.
    pairs: BTreeSet<(SaId, SessionId)>,
    by_group: BTreeSet<(GroupId, SessionId)>,
}

impl Table {
    pub(super) fn insert(&mut self, live: Live) {
        let id = live.spec.id;
        let before = match (live.retired, live.spec.lane) {
            (true, _) => None,
            (false, 0) => self.by_sa.insert(live.sa, id),
            (false, lane) => self.by_lane.insert((live.sa, lane), id),
        };
        if let Some(old) = before.and_then(|old| self.live.get_mut(&old)) {
            old.retired = true;
        }
        self.pairs.insert((live.sa, id));
        self.by_group.insert((live.group, id));
        self.live.insert(id, live);
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Live> {
        let live = self.live.remove(&id)?;
        self.pairs.remove(&(live.sa, id));
        self.by_group.remove(&(live.group, id));
        if self.by_sa.get(&live.sa) == Some(&id) {
            self.by_sa.remove(&live.sa);
        }
        let lane = (live.sa, live.spec.lane);
        if self.by_lane.get(&lane) == Some(&id) {
            self.by_lane.remove(&lane);
        }
        Some(live)
    }

    /// All pairs of SAs of an IKE SA, with those that have been replaced.
    pub(super) fn all_of(&self, sa: SaId) -> Vec<SessionId> {
        let of_sa = self
            .pairs
            .range((sa, SessionId(0))..=(sa, SessionId(u64::MAX)));
        of_sa.map(|(_, id)| *id).collect()
    }

    /// All pairs of SAs with the clients or gateways of a group.
    pub(super) fn of_group(&self, group: GroupId) -> impl Iterator<Item = &Live> {
        let ids = self
            .by_group
            .range((group, SessionId(0))..=(group, SessionId(u64::MAX)));
        ids.filter_map(|(_, id)| self.live.get(id))
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
        // A peer that is heard on one of its pairs lives.
        let mut lanes: HashMap<SaId, Instant> = HashMap::new();
        for id in self.by_lane.values() {
            if let (Some(live), Some(at)) = (self.live.get(id), heard.get(id)) {
                let last = lanes.entry(live.sa).or_insert(*at);
                *last = (*last).max(*at);
            }
        }
        let own = |live: &Live| !live.retired && live.spec.lane == 0;
        for (id, live) in self.live.iter_mut().filter(|(_, live)| own(live)) {
            let heard = heard.get(id).copied().max(lanes.get(&live.sa).copied());
            let last = heard.max(Some(live.alive.max(live.asked)));
            if last.is_some_and(|at| now.saturating_duration_since(at) >= patience) {
                live.asked = now;
                silent.push(live.sa);
            }
        }
        silent
    }

    /// Every session by its pair of SAs in use.
    pub(super) fn current(&self) -> Vec<SessionId> {
        self.by_sa.values().copied().collect()
    }

    /// How many sessions there are.
    pub(super) fn sessions(&self) -> usize {
        self.by_sa.len()
    }

    pub(super) fn of_sa(&self, sa: SaId) -> Option<SessionId> {
        self.by_sa.get(&sa).copied()
    }

    /// The pair in use of a lane; that of lane 0 is the session's own.
    pub(super) fn of_lane(&self, sa: SaId, lane: u16) -> Option<SessionId> {
        match lane {
            0 => self.of_sa(sa),
            lane => self.by_lane.get(&(sa, lane)).copied(),
        }
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
    let mut spec = SessionSpec::new(outline.local, outline.remote, Producer::Ike);
    spec.peer = outline.peer.into();
    spec.gateway = outline.gateway;
    spec.initiator = outline.initiator;
    spec.encap = outline.encap;
    spec.roams = outline.roams && outline.encap.is_some();
    let keyed = outline.keyed_heartbeat;
    key(&mut spec, child, exporter, outline.replay_window, keyed)?;
    Ok(spec)
}

/// Makes the session of a child SA that takes the place of another.
pub(super) fn successor(
    old: &SessionSpec,
    child: &Child,
    exporter: &Exporter,
    replay_window: u32,
) -> Result<SessionSpec, esp::BadSecret> {
    let mut spec = old.clone();
    spec.id = SessionId::NONE;
    let keyed = old.heartbeat_key.is_some();
    key(&mut spec, child, exporter, replay_window, keyed)?;
    Ok(spec)
}

/// Gives a session what a child SA brings.
fn key(
    spec: &mut SessionSpec,
    child: &Child,
    exporter: &Exporter,
    replay_window: u32,
    keyed_heartbeat: bool,
) -> Result<(), esp::BadSecret> {
    let cipher = match child.cipher {
        EspCipher::Aes128Gcm => esp::Cipher::Aes128Gcm,
        EspCipher::Aes256Gcm => esp::Cipher::Aes256Gcm,
        EspCipher::ChaCha20Poly1305 => esp::Cipher::ChaCha20Poly1305,
    };
    let sa = |spi, key: &[u8], salt: [u8; 4]| {
        let mut sa = SaSpec::new(spi, cipher, esp::Key::new(key)?, salt.into());
        sa.esn = child.esn;
        sa.replay_window = replay_window;
        Ok(sa)
    };
    spec.lane = child.lane;
    // What takes the place of one that has a port goes on with it.
    spec.own_port |= child.own_port;
    spec.inbound = Some(sa(child.spi_in, &child.key_in, child.salt_in)?);
    spec.outbound = Some(sa(child.spi_out, &child.key_out, child.salt_out)?);
    spec.remote_inner = prefixes(&child.remote_ts).into();
    spec.local_inner = prefixes(&child.local_ts).into();
    spec.heartbeat_key = keyed_heartbeat.then(|| {
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::keys::IkeKeys;
    use crate::ike::proposal::IkeSuite;
    use crate::ike::{Group, IkeCipher, Prf, Secret, TrafficSelector};
    use crate::policy::ClusterId;

    fn live(sa: u64, id: u64, start: Instant) -> Live {
        let outside = "192.0.2.1".parse().unwrap();
        let mut spec = SessionSpec::new(outside, outside, Producer::Ike);
        spec.id = SessionId(id);
        let (peer, group) = (Identity::from(outside), GroupId::Cluster(ClusterId(1)));
        Live {
            rank: Rank::new(&[vec![1], vec![2]]),
            ..Live::new(SaId(sa), peer, Arc::new(spec), group, start)
        }
    }

    #[test]
    fn a_pair_of_sas_retires_when_another_takes_its_place() {
        let start = Instant::now();
        let mut table = Table::default();
        table.insert(live(1, 1, start));
        table.insert(live(2, 2, start));
        table.insert(live(1, 3, start));
        // One that both ends made too many takes nobody's place.
        table.insert(Live {
            retired: true,
            redundant: true,
            ..live(1, 4, start)
        });
        assert_eq!(table.of_sa(SaId(1)), Some(SessionId(3)));
        let retired = |table: &Table, id| table.live[&SessionId(id)].retired;
        assert_eq!(
            [1, 2, 3, 4].map(|id| retired(&table, id)),
            [true, false, false, true]
        );
        let mut all = table.all_of(SaId(1));
        all.sort();
        assert_eq!(all, [1, 3, 4].map(SessionId));
        // What has no traffic any more says nothing about the peer's life.
        let later = start + Duration::from_secs(60);
        let mut asked = table.silent(&HashMap::new(), Duration::from_secs(30), later);
        asked.sort();
        assert_eq!(asked, [SaId(1), SaId(2)]);
        table.remove(SessionId(1));
        assert_eq!(table.of_sa(SaId(1)), Some(SessionId(3)));
        table.remove(SessionId(3));
        assert_eq!(table.of_sa(SaId(1)), None);
    }

    #[test]
    fn both_ends_derive_the_same_heartbeat_key_anew_for_each_pair() {
        let suite = IkeSuite {
            cipher: IkeCipher::Aes256Gcm16,
            prf: Prf::HmacSha256,
            group: Group::X25519,
            additional: None,
        };
        let nonces: [&[u8]; 2] = [&[1; 32], &[2; 32]];
        let keys = |seed: u8, began| IkeKeys::derive(suite, &[seed; 32], nonces, [3, 4], began);
        let child = |spi_in, spi_out| Child {
            spi_in,
            spi_out,
            lane: 0,
            own_port: false,
            cipher: EspCipher::Aes256Gcm,
            key_in: Secret::new(&[spi_in as u8; 32]),
            salt_in: [0; 4],
            key_out: Secret::new(&[spi_out as u8; 32]),
            salt_out: [0; 4],
            esn: true,
            local_ts: vec![TrafficSelector::any_v4()],
            remote_ts: vec![TrafficSelector::any_v4()],
        };
        let old = |keyed: bool| {
            let mut old = SessionSpec::clone(&live(1, 1, Instant::now()).spec);
            old.gateway = Some(old.outside_remote);
            old.heartbeat_key = keyed.then(|| [9; 16].into());
            old
        };
        let key = |spi_in, spi_out, seed, began| {
            let exporter = keys(seed, began).exporter();
            let spec = successor(&old(true), &child(spi_in, spi_out), &exporter, 1024).unwrap();
            assert_eq!(
                (spec.id, spec.gateway),
                (SessionId::NONE, old(true).gateway)
            );
            *spec.heartbeat_key.unwrap().expose()
        };
        let first = key(0x1001, 0x2002, 7, true);
        assert_eq!(first, key(0x2002, 0x1001, 7, false));
        assert_ne!(first, [9; 16], "not the old one");
        assert_ne!(first, key(0x1003, 0x2002, 7, true), "another pair");
        assert_ne!(first, key(0x1001, 0x2002, 8, true), "another IKE SA");
        let exporter = keys(7, true).exporter();
        let without = successor(&old(false), &child(0x1001, 0x2002), &exporter, 1024).unwrap();
        assert_eq!(without.heartbeat_key, None);
    }

    #[test]
    fn only_the_silent_are_asked_and_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut table = Table::default();
        for id in 1..=3 {
            table.insert(Live {
                alive: at(if id == 2 { 8 } else { 0 }),
                ..live(id, id, start)
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
