//! The pairs of SAs of a node, as its shell and its worker keep them: which one of several with the
//! same peer is sent on, and which only receive any more.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use evergate::dataplane::Sending;
use evergate::ike::{Child, Exporter, Outbound, SaId};
use evergate::sadb::{Change, Path, Producer, Sadb, SessionId};

use super::session::Session;
use super::watch::Watch;

/// How long a session that was replaced, or left, still receives.
pub(super) const AFTERLIFE: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct Table {
    all: BTreeMap<SessionId, Session>,
    /// The one in use of each IKE SA.
    by_sa: BTreeMap<SaId, SessionId>,
    /// By inbound SPI.
    by_spi: BTreeMap<u32, SessionId>,
    /// The one that is sent on, by what it is for: a gateway, or the inner address of a client.
    leads: BTreeMap<IpAddr, SessionId>,
    /// Sessions that end soon, and pairs of SAs that have been replaced.
    dying: Vec<(Instant, SessionId)>,
    retired: Vec<(Instant, SessionId)>,
}

impl Table {
    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.all.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.all.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.all.values_mut()
    }

    pub(super) fn by_spi(&self, spi: u32) -> Option<SessionId> {
        self.by_spi.get(&spi).copied()
    }

    pub(super) fn of_sa(&self, sa: SaId) -> Option<&Session> {
        self.all.get(self.by_sa.get(&sa)?)
    }

    /// The IKE SA of every session.
    pub(super) fn sas(&self) -> Vec<SaId> {
        self.by_sa.keys().copied().collect()
    }

    pub(super) fn leads(&self) -> impl Iterator<Item = (IpAddr, &Session)> {
        let all = self.leads.iter();
        all.filter_map(|(at, id)| Some((*at, self.all.get(id)?)))
    }

    pub(super) fn lead(&self, place: IpAddr) -> Option<SessionId> {
        self.leads.get(&place).copied()
    }

    pub(super) fn leading(&mut self, place: IpAddr) -> Option<&mut Session> {
        self.all.get_mut(self.leads.get(&place)?)
    }

    /// Another session that serves the same, and is not that IKE SA's.
    pub(super) fn others(&self, place: IpAddr, sa: SaId) -> Vec<SessionId> {
        let others = self.all.values();
        let others = others.filter(|other| other.place == place && other.sa != sa);
        others.filter(|o| !o.retired).map(|o| o.id).collect()
    }

    pub(super) fn insert(&mut self, session: Session) {
        let (id, sa, place) = (session.id, session.sa, session.place);
        if !session.retired
            && let Some(old) = self.by_sa.insert(sa, id)
            && let Some(old) = self.all.get_mut(&old)
        {
            old.retired = true;
        }
        match session.sending {
            Sending::AtOnce => self.leads.insert(place, id),
            _ => Some(*self.leads.entry(place).or_insert(id)),
        };
        self.by_spi.insert(session.spi_in(), id);
        self.all.insert(id, session);
    }

    /// Removes one pair. The youngest of the others takes over, one that may send first.
    pub(super) fn remove(&mut self, sadb: &mut Sadb, id: SessionId) -> Option<Session> {
        self.dying.retain(|(_, dying)| *dying != id);
        self.retired.retain(|(_, retired)| *retired != id);
        let session = self.all.remove(&id)?;
        let _ = sadb.remove(Producer::Ike, id);
        self.by_spi.remove(&session.spi_in());
        if self.by_sa.get(&session.sa) == Some(&id) {
            self.by_sa.remove(&session.sa);
        }
        if self.lead(session.place) == Some(id) {
            let others = self.all.values().filter(|o| o.place == session.place);
            match others.map(|other| (other.sending, other.id)).max() {
                Some((_, next)) => self.leads.insert(session.place, next),
                None => self.leads.remove(&session.place),
            };
        }
        Some(session)
    }

    pub(super) fn all_of(&self, sa: SaId) -> Vec<SessionId> {
        let of_sa = self.all.values().filter(|session| session.sa == sa);
        of_sa.map(|session| session.id).collect()
    }

    /// Something came on it.
    pub(super) fn heard(&mut self, id: SessionId) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        if session.sending != Sending::WhenHeard {
            return;
        }
        session.sending = Sending::AtOnce;
        let place = session.place;
        // Of several that do, the last one counts.
        if self.lead(place).is_none_or(|used| used < id) {
            self.leads.insert(place, id);
        }
    }

    /// All pairs of a session take another path.
    pub(super) fn relocate(&mut self, sadb: &mut Sadb, sa: SaId, path: &Path) {
        for id in self.all_of(sa) {
            let changes = sadb.relocate(Producer::Ike, id, path);
            self.moved(id, changes.unwrap_or_default());
        }
    }

    /// The peer of a pair is behind a NAT, and elsewhere than before.
    pub(super) fn follow(&mut self, sadb: &mut Sadb, id: SessionId, remote: SocketAddr) {
        let changes = sadb.move_peer(Producer::Ike, id, remote);
        self.moved(id, changes.unwrap_or_default());
    }

    fn moved(&mut self, id: SessionId, changes: Vec<Change>) {
        for change in changes {
            if let (Change::Move(spec), Some(session)) = (change, self.all.get_mut(&id)) {
                session.spec = spec;
            }
        }
    }

    /// A new pair for a session that is there: its name and the old one's, if it is to be used.
    pub(super) fn rekeyed(
        &mut self,
        sadb: &mut Sadb,
        watch: &mut Watch,
        (sa, child, exporter): (SaId, &Child, &Exporter),
        outbound: Outbound,
    ) -> Option<(SessionId, SessionId)> {
        let Some(current) = self.of_sa(sa) else {
            // A session that is not wanted any more: its end is on its way.
            sadb.release_spi(child.spi_in);
            return None;
        };
        let old = current.id;
        let mut new = current.successor(sadb, child, exporter, watch);
        new.redundant = outbound == Outbound::Never;
        new.retired = new.redundant;
        new.sending = match outbound {
            Outbound::AtOnce => Sending::AtOnce,
            Outbound::WhenHeard => Sending::WhenHeard,
            Outbound::Never => Sending::Told,
        };
        let (id, used) = (new.id, !new.retired);
        self.insert(new);
        if !used {
            return None;
        }
        for (_, dying) in &mut self.dying {
            if *dying == old {
                *dying = id;
            }
        }
        Some((old, id))
    }

    /// A pair is closed on both sides. What has to end with it.
    pub(super) fn child_closed(
        &mut self,
        (sa, established): (SaId, bool),
        spi_in: u32,
        now: Instant,
    ) -> Option<SessionId> {
        let id = self.by_spi(spi_in)?;
        let current = self.by_sa.get(&sa).copied();
        if !established && current == Some(id) {
            return Some(id);
        }
        let session = self.all.get(&id).filter(|session| session.sa == sa)?;
        // The peer receives on its successor, or it would not have let it go.
        if let Some(current) = current.filter(|current| *current != id && !session.redundant)
            && let Some(successor) = self.all.get_mut(&current)
        {
            successor.sending = Sending::AtOnce;
            self.leads.insert(successor.place, current);
        }
        self.retired.push((now + AFTERLIFE, id));
        None
    }

    pub(super) fn dies(&self, id: SessionId) -> bool {
        self.dying.iter().any(|(_, dying)| *dying == id)
    }

    pub(super) fn let_die(&mut self, id: SessionId, now: Instant) {
        if !self.dies(id) {
            self.dying.push((now + AFTERLIFE, id));
        }
    }

    /// It does not end, after all.
    pub(super) fn let_live(&mut self, id: SessionId) {
        self.dying.retain(|(_, dying)| *dying != id);
    }

    /// When the next one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        let all = self.dying.iter().chain(&self.retired);
        all.map(|(at, _)| *at).min()
    }

    /// Those whose time has come: sessions, and pairs.
    pub(super) fn due(&mut self, now: Instant) -> [Vec<SessionId>; 2] {
        [&mut self.dying, &mut self.retired].map(|all| {
            let mut due: Vec<_> = all.extract_if(.., |(at, _)| *at <= now).collect();
            due.sort();
            due.into_iter().map(|(_, id)| id).collect()
        })
    }
}
