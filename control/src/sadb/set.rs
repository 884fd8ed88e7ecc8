//! The set itself.

mod index;
mod spis;

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use super::{
    Direction, Named, Path, Producer, SaSpec, SadbError, SessionId, SessionSpec, UdpEncap,
};
use index::Index;
use spis::Places;

/// How many keys of hand-written SAs are remembered, so that none is used twice in a run.
const SPENT_KEYS: usize = 1 << 16;

/// What the data plane has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Install the session; the inbound SA before the outbound one, so that the peer's answers
    /// find it.
    Add(Arc<SessionSpec>),
    /// The peer of this session is elsewhere now; nothing else about it has changed.
    Move(Arc<SessionSpec>),
    /// Remove the session of this id and wipe its keys.
    Remove(SessionId),
}

/// The declarative set of sessions that should exist. Every change comes back as a list for the
/// data plane; an error changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Sadb {
    sessions: BTreeSet<Named>,
    /// By SPI.
    inbound: Index,
    /// By where the peer is (several may be behind one NAT), and its SPI.
    outbound: Index,
    pending: HashSet<u32>,
    /// Inbound SPIs that were drawn here, promised or in use; each has a place of its own.
    drawn: HashSet<u32>,
    /// Places of inbound SPIs, of each worker; at least of one.
    places: Vec<Places>,
    /// The worker whose place was drawn last.
    turn: usize,
    /// The first worker has all sessions.
    first_only: bool,
    /// Fingerprints of the keys of all sessions.
    keys: HashSet<u64>,
    /// Fingerprints of the keys of hand-written sessions that were removed.
    spent: HashSet<u64>,
    hasher: RandomState,
    last_id: u64,
    /// In the highest bits of every SPI that is drawn; 0: there is none.
    number: u8,
    /// Where the high bits of drawn SPIs begin, of all that there are as a part of 2^32; `None`: anywhere.
    first: Option<u32>,
}

/// The golden ratio as a part of 2^32: its multiples are as far from each other, however many there are, as multiples
/// can be.
const GOLDEN: u32 = 0x9E37_79B1;

impl Sadb {
    /// An empty set of a node with so many workers, which take turns to have a session, or
    /// `first_only`, the first one always.
    #[must_use]
    pub fn for_workers(workers: usize, first_only: bool) -> Self {
        Self {
            places: vec![Places::default(); workers.max(1)],
            first_only,
            ..Self::default()
        }
    }

    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for a node that has this number among the gateways of its address, 0 for none: drawn SPIs
    /// carry it, so that each of them knows whose an SPI is.
    #[must_use]
    pub fn with_number(self, number: u8) -> Self {
        Self { number, ..self }
    }

    /// The same for the `run`th run of a node that counts them, and whose SAs outlive it: the SPIs that it draws are not
    /// those of SAs that ended shortly before it began.
    #[must_use]
    pub fn with_run(self, run: u32) -> Self {
        let first = Some(run.wrapping_mul(GOLDEN));
        Self { first, ..self }
    }

    /// Adds a session, naming it if it has no id. An inbound SPI of IKE may be one that
    /// [`Sadb::allocate_spi`] promised, and is no longer pending then.
    ///
    /// # Errors
    /// A session that is wrong in itself, or in conflict with another one.
    pub fn insert(&mut self, spec: SessionSpec) -> Result<Vec<Change>, SadbError> {
        let spec = self.admit(spec, &HashSet::new())?;
        Ok(vec![Change::Add(spec)])
    }

    /// Removes the session `id` that `producer` made.
    ///
    /// # Errors
    /// No such session.
    pub fn remove(&mut self, producer: Producer, id: SessionId) -> Result<Vec<Change>, SadbError> {
        match self.get(id) {
            Some(spec) if spec.origin == producer => {
                self.take(id);
                Ok(vec![Change::Remove(id)])
            }
            _ => Err(SadbError::NoSuchSession { id, producer }),
        }
    }

    /// The peer of a session with ESP in UDP is at `remote` now. No change if it was before.
    ///
    /// # Errors
    /// No such session, or one without UDP, or what [`Sadb::insert`] would find wrong there.
    pub fn move_peer(
        &mut self,
        producer: Producer,
        id: SessionId,
        remote: SocketAddr,
    ) -> Result<Vec<Change>, SadbError> {
        let found = self.get(id).filter(|spec| spec.origin == producer);
        let Some((old, Some(encap))) = found.map(|spec| (Arc::clone(spec), spec.encap)) else {
            return Err(SadbError::NoSuchSession { id, producer });
        };
        if old.peer_at() == remote {
            return Ok(Vec::new());
        }
        let mut spec = SessionSpec::clone(&old);
        spec.outside_remote = remote.ip();
        spec.encap = Some(UdpEncap {
            remote_port: remote.port(),
            ..encap
        });
        self.exchange(&old, spec)
    }

    /// Has a session of `producer` go between other outer addresses, with or without UDP. Nothing
    /// changes if it does so already.
    ///
    /// # Errors
    /// No such session, or what [`Sadb::insert`] would find wrong there.
    pub fn relocate(
        &mut self,
        producer: Producer,
        id: SessionId,
        path: &Path,
    ) -> Result<Vec<Change>, SadbError> {
        let found = self.get(id);
        let Some(old) = found.filter(|spec| spec.origin == producer).cloned() else {
            return Err(SadbError::NoSuchSession { id, producer });
        };
        let mut spec = SessionSpec::clone(&old);
        (spec.outside_local, spec.outside_remote) = (path.local, path.remote);
        spec.encap = path.encap;
        spec.roams = path.roams && path.encap.is_some();
        let of = |s: &SessionSpec| (s.outside_local, s.outside_remote, s.encap, s.roams);
        if of(&old) == of(&spec) {
            return Ok(Vec::new());
        }
        self.exchange(&old, spec)
    }

    /// Puts a session in the place of itself, with another path.
    fn exchange(&mut self, old: &SessionSpec, spec: SessionSpec) -> Result<Vec<Change>, SadbError> {
        spec.check()?;
        let (id, at) = (spec.id, spec.peer_at());
        if let Some(SaSpec { spi, .. }) = spec.outbound {
            let owner = self.by_outbound_spi(at, spi).map(|owner| owner.id);
            if let Some(owner) = owner.filter(|owner| *owner != id) {
                let remote = at.ip();
                return Err(SadbError::PeerSpiInUse { spi, remote, owner });
            }
            self.outbound
                .remove(self.outbound_hash(old.peer_at(), spi), id);
        }
        let spec = Arc::new(spec);
        self.sessions.replace(Named(Arc::clone(&spec)));
        self.enter_outbound(&spec);
        Ok(vec![Change::Move(spec)])
    }

    /// Removes the session of `producer` one of whose SAs has `spi`; an inbound one is meant first.
    ///
    /// # Errors
    /// No such SA.
    pub fn remove_spi(&mut self, producer: Producer, spi: u32) -> Result<Vec<Change>, SadbError> {
        let has = |direction| {
            let mut own = self.iter().filter(|spec| spec.origin == producer);
            own.find(|spec| {
                spec.sas()
                    .any(|(dir, sa)| (dir, sa.spi) == (direction, spi))
            })
        };
        let found = has(Direction::In)
            .or_else(|| has(Direction::Out))
            .map(|spec| spec.id);
        self.remove(
            producer,
            found.ok_or(SadbError::NoSuchSpi { spi, producer })?,
        )
    }

    /// Makes `specs` all that `producer` has: sessions that are equal (by id, and in all else) stay
    /// untouched, others go or come. Sessions come before others go, so that traffic always has a
    /// session; only those that a newcomer displaces go first. Among those that come, the ones that
    /// only receive are first.
    ///
    /// # Errors
    /// As for [`Sadb::insert`]; then nothing at all has changed.
    pub fn replace_all(
        &mut self,
        producer: Producer,
        specs: Vec<SessionSpec>,
    ) -> Result<Vec<Change>, SadbError> {
        let mut next = self.clone();
        let (kept, new): (Vec<_>, Vec<_>) = specs
            .into_iter()
            .partition(|spec| self.get(spec.id).is_some_and(|old| **old == *spec));
        let kept: HashSet<SessionId> = kept.into_iter().map(|spec| spec.id).collect();
        let leaving: Vec<Arc<SessionSpec>> = self
            .iter()
            .filter(|spec| spec.origin == producer && !kept.contains(&spec.id))
            .cloned()
            .collect();
        let mut used = HashSet::new();
        for spec in &leaving {
            used.extend(spec.sas().map(|(_, sa)| self.fingerprint(sa)));
            next.take(spec.id);
        }
        let mut coming = Vec::new();
        for spec in new {
            if spec.origin != producer {
                let found = spec.origin;
                return Err(SadbError::OtherProducer {
                    expected: producer,
                    found,
                });
            }
            coming.push(next.admit(spec, &used)?);
        }
        *self = next;

        coming.sort_by_key(|spec| spec.outbound.is_some());
        let (first, last): (Vec<_>, Vec<_>) = leaving
            .iter()
            .partition(|old| coming.iter().any(|new| displaces(new, old)));
        let remove = |specs: Vec<&Arc<SessionSpec>>| -> Vec<Change> {
            specs
                .into_iter()
                .map(|spec| Change::Remove(spec.id))
                .collect()
        };
        let mut changes = remove(first);
        changes.extend(coming.into_iter().map(Change::Add));
        changes.extend(remove(last));
        Ok(changes)
    }

    /// Removes all that `producer` has.
    pub fn flush(&mut self, producer: Producer) -> Vec<Change> {
        let own = self.iter().filter(|spec| spec.origin == producer);
        let ids: Vec<_> = own.map(|spec| spec.id).collect();
        ids.into_iter()
            .map(|id| {
                self.take(id);
                Change::Remove(id)
            })
            .collect()
    }

    /// A session that does not exist yet has this name.
    pub fn next_id(&mut self) -> SessionId {
        self.last_id += 1;
        SessionId(self.last_id)
    }

    /// The session of this name.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Arc<SessionSpec>> {
        self.sessions.get(&id).map(|Named(spec)| spec)
    }

    /// The session that receives on this SPI.
    #[must_use]
    pub fn by_inbound_spi(&self, spi: u32) -> Option<&Arc<SessionSpec>> {
        let ids = self.inbound.of(self.inbound_hash(spi));
        let mut specs = ids.filter_map(|id| self.get(id));
        specs.find(|spec| spec.inbound.as_ref().is_some_and(|sa| sa.spi == spi))
    }

    /// The session that sends on this SPI to a peer at `remote`, as [`SessionSpec::peer_at`] tells it.
    #[must_use]
    pub fn by_outbound_spi(&self, remote: SocketAddr, spi: u32) -> Option<&Arc<SessionSpec>> {
        let ids = self.outbound.of(self.outbound_hash(remote, spi));
        let mut specs = ids.filter_map(|id| self.get(id));
        specs.find(|spec| {
            let sends = spec.outbound.as_ref().is_some_and(|sa| sa.spi == spi);
            sends && spec.peer_at() == remote
        })
    }

    /// All sessions in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<SessionSpec>> {
        self.sessions.iter().map(|Named(spec)| spec)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Checks the session against all others and `used` keys, and takes it in.
    fn admit(
        &mut self,
        mut spec: SessionSpec,
        used: &HashSet<u64>,
    ) -> Result<Arc<SessionSpec>, SadbError> {
        spec.check()?;
        if self.sessions.contains(&spec.id) {
            return Err(SadbError::SessionExists { id: spec.id });
        }
        let (remote, at) = (spec.outside_remote, spec.peer_at());
        if let Some(SaSpec { spi, .. }) = spec.inbound {
            if let Some(owner) = self.by_inbound_spi(spi).map(|owner| owner.id) {
                return Err(SadbError::SpiInUse { spi, owner });
            }
            if spec.origin != Producer::Ike && self.pending.contains(&spi) {
                return Err(SadbError::SpiPending { spi });
            }
        }
        if let Some(SaSpec { spi, .. }) = spec.outbound
            && let Some(owner) = self.by_outbound_spi(at, spi).map(|owner| owner.id)
        {
            return Err(SadbError::PeerSpiInUse { spi, remote, owner });
        }
        let mut fingerprints = Vec::new();
        for (_, sa) in spec.sas() {
            let key = self.fingerprint(sa);
            if self.keys.contains(&key) || self.spent.contains(&key) || used.contains(&key) {
                return Err(SadbError::KeyReused { spi: sa.spi });
            }
            fingerprints.push(key);
        }
        if spec.origin == Producer::Manual && self.spent.len() >= SPENT_KEYS {
            return Err(SadbError::TooManyKeys { limit: SPENT_KEYS });
        }

        if spec.id == SessionId::NONE {
            spec.id = self.next_id();
        }
        self.last_id = self.last_id.max(spec.id.0);
        self.keys.extend(fingerprints);
        if let Some(sa) = &spec.inbound {
            self.pending.remove(&sa.spi);
        }
        let spec = Arc::new(spec);
        self.sessions.insert(Named(Arc::clone(&spec)));
        self.enter_inbound(&spec);
        self.enter_outbound(&spec);
        Ok(spec)
    }

    fn take(&mut self, id: SessionId) {
        let Some(Named(spec)) = self.sessions.take(&id) else {
            return;
        };
        for (direction, sa) in spec.sas() {
            match direction {
                Direction::In => {
                    self.inbound.remove(self.inbound_hash(sa.spi), id);
                    self.give_back(sa.spi);
                }
                Direction::Out => {
                    let hash = self.outbound_hash(spec.peer_at(), sa.spi);
                    self.outbound.remove(hash, id);
                }
            }
            let key = self.fingerprint(sa);
            self.keys.remove(&key);
            // People paste the same command again; IKE makes a fresh key for each session.
            if spec.origin == Producer::Manual {
                self.spent.insert(key);
            }
        }
    }

    fn inbound_hash(&self, spi: u32) -> u64 {
        self.hasher.hash_one(spi)
    }

    fn outbound_hash(&self, at: SocketAddr, spi: u32) -> u64 {
        self.hasher.hash_one((at, spi))
    }

    /// From now on a session that is in the set is found by its inbound SPI, if it has one.
    fn enter_inbound(&mut self, spec: &SessionSpec) {
        let of =
            |set: &Self, spec: &SessionSpec| Some(set.inbound_hash(spec.inbound.as_ref()?.spi));
        if let Some(hash) = of(self, spec) {
            let mut index = std::mem::take(&mut self.inbound);
            index.insert(hash, spec.id, |id| of(self, self.get(id)?));
            self.inbound = index;
        }
    }

    /// The same by the SPI that it sends on, and where to.
    fn enter_outbound(&mut self, spec: &SessionSpec) {
        let of = |set: &Self, spec: &SessionSpec| {
            Some(set.outbound_hash(spec.peer_at(), spec.outbound.as_ref()?.spi))
        };
        if let Some(hash) = of(self, spec) {
            let mut index = std::mem::take(&mut self.outbound);
            index.insert(hash, spec.id, |id| of(self, self.get(id)?));
            self.outbound = index;
        }
    }

    /// A keyed hash of key and salt: tells that a key comes again without keeping it.
    fn fingerprint(&self, sa: &SaSpec) -> u64 {
        self.hasher.hash_one((sa.key.expose(), sa.salt.expose()))
    }
}

/// Whether `new` needs a name or an SPI that `old` has.
fn displaces(new: &SessionSpec, old: &SessionSpec) -> bool {
    let spi = |sa: &Option<SaSpec>| sa.as_ref().map(|sa| sa.spi);
    let same = |new: Option<u32>, old: Option<u32>| new.is_some() && new == old;
    new.id == old.id
        || same(spi(&new.inbound), spi(&old.inbound))
        || (new.peer_at() == old.peer_at() && same(spi(&new.outbound), spi(&old.outbound)))
}
