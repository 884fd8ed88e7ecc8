//! Between IKE SAs and their snapshots.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::time::{Duration, Instant};

use rand::CryptoRng;

use super::super::crypto::{AeadKey, Secret};
use super::super::event::SaId;
use super::super::keys::IkeKeys;
use super::super::life::{Busy, ChildSa, Life, Stage};
use super::super::settings::Settings;
use super::super::snapshot::{BadSnapshot, ChildOf, MOST_ANSWER, Selector, Snapshot, Times};
use super::super::state::{Core, Phase};
use super::super::task::informational::DeleteChild;
use super::super::task::mobike::ReturnRoutability;
use super::super::ts::TrafficSelector;
use super::Sa;

/// So many requests of ours, and of the peer's, may be missing in what is written down.
const LAG: [u32; 2] = [8, 32];

/// What was due meanwhile is done within this time, not all at once.
const SPREAD: Duration = Duration::from_secs(5);

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Moment {
    pub(in super::super) now: Instant,
    /// Milliseconds since 1970.
    pub(in super::super) millis: u64,
}

impl Moment {
    fn write(self, at: Instant) -> u64 {
        let until = at.saturating_duration_since(self.now).as_millis();
        self.millis
            .saturating_add(u64::try_from(until).unwrap_or(u64::MAX))
    }

    fn read(self, at: u64) -> Option<Instant> {
        let until = at.saturating_sub(self.millis);
        self.now.checked_add(Duration::from_millis(until))
    }
}

/// What the owner was told of an IKE SA that it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Told {
    state: u64,
    /// Of our next request, and of the peer's.
    ids: [u32; 2],
}

impl Told {
    /// Whether what is now is to be written down, and whether before anything is sent.
    pub(in super::super) fn is_old(self, now: Told) -> Option<bool> {
        if self.state != now.state {
            return Some(true);
        }
        let mut ids = self.ids.iter().zip(now.ids).zip(LAG);
        ids.any(|((before, now), lag)| now.saturating_sub(*before) >= lag)
            .then_some(false)
    }
}

/// The first initialisation vector of a run of the owner. A run has 2^40 of them for each key: none
/// comes twice, in whatever state an IKE SA was restored, as no two runs have the same number.
pub(in super::super) fn first_iv(run: u32) -> u64 {
    u64::from(run) << 40
}

impl Sa {
    /// Seals with the vectors of this run from now on.
    pub(in super::super) fn begin_run(&mut self, run: u32) {
        self.iv = self.iv.max(first_iv(run));
    }

    /// Whether it is one to be kept: one with a session, or that still answers a peer that has just
    /// replaced it.
    fn is_kept(&self) -> bool {
        let core = &self.core;
        let phase = matches!(core.phase, Phase::Established | Phase::Replaced);
        phase && !self.dead && core.keys.is_some() && core.peer.is_some() && core.suite.is_some()
    }

    /// What has to be written down of it, in short.
    pub(in super::super) fn told(&self) -> Option<Told> {
        if !self.is_kept() {
            return None;
        }
        let core = &self.core;
        let nat = core.nat;
        let mut hasher = DefaultHasher::new();
        let state = (
            (core.phase == Phase::Replaced, core.local, core.remote),
            [nat.detected, nat.local, nat.remote, nat.forced],
            (core.life.times(), core.reauth_until, core.life.rekeying),
            (&core.token, &core.peer_addresses, core.mobike),
            (self.orphan(), self.is_rekeying(), self.is_unchecked()),
            (core.sync, core.redirectable, core.follows_redirects),
        );
        state.hash(&mut hasher);
        for child in &core.children {
            let stage = mem::discriminant(&child.stage);
            let orphan = child.orphan;
            (
                child.spi_in,
                child.spi_out,
                stage,
                child.life.times(),
                orphan,
            )
                .hash(&mut hasher);
        }
        Some(Told {
            state: hasher.finish(),
            ids: [self.first_open(), self.expected],
        })
    }

    /// The first message ID of ours that the peer is not known to have answered.
    fn first_open(&self) -> u32 {
        self.pending.as_ref().map_or(self.next, |p| p.id)
    }

    fn orphan(&self) -> Option<(u32, Option<u32>)> {
        let made = self.core.spi_in?;
        let old = match self.core.busy {
            Busy::RekeyChild { spi_in, .. } => Some(spi_in),
            _ => None,
        };
        // Else it is a child SA already.
        self.core.child(made).is_none().then_some((made, old))
    }

    fn is_rekeying(&self) -> bool {
        matches!(self.core.busy, Busy::RekeyIke { .. })
    }

    fn is_unchecked(&self) -> bool {
        let name = std::any::type_name::<ReturnRoutability>();
        let asked = self.pending.as_ref().map(|p| p.task.name());
        let waits = self.queue.iter().map(|task| task.name());
        self.core.wants_check || asked.into_iter().chain(waits).any(|task| task == name)
    }

    /// All that it takes to go on with it; `None` of one that is not to be kept.
    pub(in super::super) fn snapshot(&self, run: u32, at: Moment) -> Option<Snapshot> {
        let core = &self.core;
        if !self.is_kept() {
            return None;
        }
        let keys = core.keys.as_ref()?;
        let nat = core.nat;
        let times = |life: &Life| {
            let (rekey_at, ends_at) = life.times();
            // What is under way begins anew.
            let rekey_at = if life.rekeying {
                Some(at.now)
            } else {
                rekey_at
            };
            Times {
                rekey_at: rekey_at.map(|time| at.write(time)),
                ends_at: ends_at.map(|time| at.write(time)),
            }
        };
        let children = core.children.iter().map(|child| ChildOf {
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            lane: child.lane,
            esn: child.esn,
            local_ts: child.local_ts.iter().map(Into::into).collect(),
            remote_ts: child.remote_ts.iter().map(Into::into).collect(),
            stage: child.stage.into(),
            life: times(&child.life),
            orphan: child.orphan,
        });
        let answer = self.answer.iter().map(Vec::len).sum::<usize>() <= MOST_ANSWER;
        Some(Snapshot {
            run,
            initiator: core.initiator,
            ours: core.ours,
            replaced: core.phase == Phase::Replaced,
            local: core.local,
            remote: core.remote,
            spis: [core.spi_i, core.spi_r],
            predecessor: core.predecessor,
            suite: core.suite?.into(),
            sk_d: keys.sk_d().clone(),
            seal: keys.seal.material(),
            open: keys.open.material(),
            fragment_size: core.fragment_size,
            origin: core.origin.as_deref().map(Into::into),
            token: core.token.as_ref().map(|token| token.to_vec()),
            peer: core.peer.as_ref()?.into(),
            assigned: core.assigned.clone(),
            children: children.collect(),
            life: times(&core.life),
            reauth_until: core.reauth_until.map(|time| at.write(time)),
            expires: self.expires.map(|(time, _)| at.write(time)),
            nat: [nat.detected, nat.local, nat.remote, nat.forced],
            mobike: core.mobike,
            peer_addresses: core.peer_addresses.clone(),
            unchecked: self.is_unchecked(),
            follows_redirects: core.follows_redirects,
            redirectable: core.redirectable,
            sync: [core.sync.ids, core.sync.counters],
            next: self.first_open(),
            expected: self.expected,
            answer: self.answer.iter().filter(|_| answer).cloned().collect(),
            last_sync: self.last_sync,
            synced: self.synced,
            orphan: self.orphan(),
            rekeying: self.is_rekeying(),
        })
    }

    /// Goes on with a snapshot.
    ///
    /// # Errors
    /// It has something that no IKE SA has.
    pub(in super::super) fn from_snapshot(
        id: SaId,
        snapshot: &Snapshot,
        run: u32,
        at: Moment,
        settings: &Settings,
        rng: &mut dyn CryptoRng,
    ) -> Result<Sa, BadSnapshot> {
        let wrong = BadSnapshot::Wrong;
        let [spi_i, spi_r] = snapshot.spis;
        let ids = [snapshot.next, snapshot.expected];
        if spi_i == 0 || spi_r == 0 || ids.iter().any(|id| *id > u32::MAX / 2) {
            return Err(wrong("SPI or message ID"));
        }
        let suite = snapshot.suite.read()?;
        if snapshot.sk_d.len() != suite.prf.length() {
            return Err(wrong("key"));
        }
        let key = |material: &Secret| AeadKey::new(suite.cipher, material).ok_or(wrong("key"));
        let (seal, open) = (key(&snapshot.seal)?, key(&snapshot.open)?);
        let mut spread = |time: Option<u64>| {
            let late = time.is_some_and(|time| time <= at.millis);
            let chance = f64::from(rng.next_u32()) / f64::from(u32::MAX);
            let wait = if late {
                SPREAD.mul_f64(chance)
            } else {
                Duration::ZERO
            };
            time.and_then(|time| at.read(time)).map(|time| time + wait)
        };
        let mut core = Core::new(id, snapshot.initiator, snapshot.local, snapshot.remote);
        (core.spi_i, core.spi_r) = (spi_i, spi_r);
        core.phase = match snapshot.replaced {
            true => Phase::Replaced,
            false => Phase::Established,
        };
        for child in &snapshot.children {
            // What is replaced or deleted already is not replaced once more: nothing would ever do so.
            let rekey_at = spread(child.life.rekey_at).filter(|_| child.is_in_use());
            let ends_at = child.life.ends_at.and_then(|time| at.read(time));
            core.children.push(ChildSa {
                spi_in: child.spi_in,
                spi_out: child.spi_out,
                lane: child.lane,
                esn: child.esn,
                local_ts: selectors(&child.local_ts)?,
                remote_ts: selectors(&child.remote_ts)?,
                stage: child.stage.into(),
                life: Life::of(rekey_at, ends_at),
                orphan: child.orphan,
            });
        }
        let ends_at = snapshot.life.ends_at.and_then(|time| at.read(time));
        core.life = Life::of(spread(snapshot.life.rekey_at), ends_at);
        core.reauth_until = snapshot.reauth_until.and_then(|time| at.read(time));
        core.predecessor = snapshot.predecessor;
        core.established = Some(at.now);
        core.ours = snapshot.ours;
        core.prf = Some(suite.prf);
        core.suite = Some(suite);
        core.keys = Some(IkeKeys::restored(suite.prf, &snapshot.sk_d, seal, open));
        core.fragment_size = snapshot.fragment_size;
        let origin = snapshot.origin.as_ref().map(|o| o.read()).transpose()?;
        core.origin = origin.map(Box::new);
        core.token = snapshot.token.clone().map(Into::into);
        core.peer = Some(snapshot.peer()?);
        core.assigned.clone_from(&snapshot.assigned);
        core.nat = snapshot.nat();
        core.mobike = snapshot.mobike;
        core.peer_addresses.clone_from(&snapshot.peer_addresses);
        core.wants_check = snapshot.unchecked;
        core.follows_redirects = snapshot.follows_redirects;
        core.redirectable = snapshot.redirectable;
        core.sync = snapshot.sync();
        let behind = core.nat.local;
        let expires = snapshot.expires.and_then(|time| at.read(time));
        let mut sa = Sa {
            next: snapshot.next,
            expected: snapshot.expected,
            answer: snapshot.answer.clone(),
            last_sync: snapshot.last_sync,
            synced: snapshot.synced,
            expires: expires.map(|time| (time, "restored")),
            keep_alive: behind.then(|| at.now + settings.keep_alive),
            ..Sa::initiator(core)
        };
        sa.begin_run(run);
        sa.restored(snapshot.run, run);
        if !snapshot.replaced {
            sa.tidy_up(snapshot.orphan, at.now);
        }
        if snapshot.rekeying {
            sa.core.life.rekey_now(at.now);
        }
        Ok(sa)
    }

    /// Ends what was left unfinished. Whether the peer has made the child SA that was asked for, nobody
    /// can tell, nor has its keys; a further one takes the place of both.
    fn tidy_up(&mut self, orphan: Option<(u32, Option<u32>)>, now: Instant) {
        let mut gone = Vec::new();
        if let Some((made, old)) = orphan {
            let old = old.and_then(|old| self.core.child_mut(old));
            match old.filter(|old| old.is_in_use()) {
                Some(old) => {
                    old.orphan = Some(made);
                    old.life.rekey_now(now);
                }
                None => gone.push(made),
            }
        }
        let deleting = self.core.children.iter();
        let deleting = deleting.filter(|child| child.stage == Stage::Deleting);
        gone.extend(deleting.map(|child| child.spi_in));
        for spi_in in gone {
            self.queue.push_back(Box::new(DeleteChild { spi_in }));
        }
    }
}

fn selectors(list: &[Selector]) -> Result<Box<[TrafficSelector]>, BadSnapshot> {
    list.iter().map(Selector::read).collect()
}
