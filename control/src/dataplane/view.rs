//! What a worker shows of itself: a snapshot that readers take without waiting.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use arrayvec::ArrayVec;
use evergate_common::reason::Counter;

use super::command::GroupId;
use super::pmtu::Phase;
use crate::liveness::GatewayView;
use crate::sadb::SessionId;

/// Packets and bytes of inner traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of inner packets.
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// One session.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its name.
    pub id: SessionId,
    /// Whether its group's traffic uses it now.
    pub active: bool,
    /// Received and opened.
    pub inbound: Traffic,
    /// Sealed and sent.
    pub outbound: Traffic,
    /// The longest IP packet toward its peer, and what is known of it.
    pub path: (u32, Phase),
    /// When the last authenticated packet came.
    pub last_heard: Option<Instant>,
}

/// Slots of sessions that are shown to readers together.
pub(super) const PIECE: usize = 256;

/// All pieces take as much memory, so that one fits where another one was.
type Piece = ArrayVec<SessionView, PIECE>;

/// Sessions in pieces: those in which nothing has changed are the same in one view and the next.
#[derive(Clone, Debug, Default)]
pub struct SessionViews(Vec<Arc<Piece>>);

impl SessionViews {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &SessionView> {
        self.0.iter().flat_map(|piece| piece.iter())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes up the pieces that have changed.
    pub(super) fn renew(&mut self, pieces: impl Iterator<Item = Option<Arc<Piece>>>) {
        for (at, piece) in pieces.enumerate() {
            match (self.0.get_mut(at), piece) {
                (_, None) => {}
                (Some(old), Some(new)) => *old = new,
                (None, Some(new)) => self.0.push(new),
            }
        }
    }
}

/// One group whose gateways are watched.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// Its name.
    pub id: GroupId,
    /// The gateway in use, on a client.
    pub active: Option<IpAddr>,
    /// Its gateways, on a client, in the order in which they are tried.
    pub gateways: Vec<GatewayView>,
    /// Whether packets are refused because no gateway could be reached.
    pub rejected: bool,
}

/// A worker at one moment.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// When it was taken.
    pub at: Instant,
    /// What the worker counted, by [`Counter::index`].
    pub counters: [u64; Counter::COUNT],
    /// Its sessions.
    pub sessions: SessionViews,
    /// Its groups.
    pub groups: Vec<GroupView>,
    /// Frames that are free.
    pub frames_free: usize,
    /// Frames in all.
    pub frames: usize,
}

/// What all workers show of themselves; each renews its own part.
#[derive(Clone, Debug)]
pub struct Views(Arc<[ArcSwap<WorkerView>]>);

impl Views {
    /// Of so many workers, none of which has shown anything.
    pub(super) fn empty(workers: usize, at: Instant) -> Self {
        let views = (0..workers).map(|_| ArcSwap::from_pointee(WorkerView::empty(at)));
        Self(views.collect())
    }

    /// A worker shows itself.
    pub(super) fn show(&self, worker: usize, view: WorkerView) {
        if let Some(own) = self.0.get(worker) {
            own.store(Arc::new(view));
        }
    }

    /// All of them as if they were one.
    #[must_use]
    pub fn load(&self) -> Arc<WorkerView> {
        let mut views = self.0.iter().map(ArcSwap::load_full);
        let Some(first) = views.next() else {
            return Arc::new(WorkerView::empty(Instant::now()));
        };
        if self.0.len() == 1 {
            return first;
        }
        let mut all = WorkerView::clone(&first);
        for other in views {
            for (sum, more) in all.counters.iter_mut().zip(other.counters) {
                *sum += more;
            }
            all.sessions.0.extend(other.sessions.0.iter().cloned());
            all.frames_free += other.frames_free;
            all.frames += other.frames;
        }
        Arc::new(all)
    }
}

impl WorkerView {
    /// Before a worker has shown anything.
    pub(super) fn empty(at: Instant) -> Self {
        Self {
            at,
            counters: [0; Counter::COUNT],
            sessions: SessionViews::default(),
            groups: Vec::new(),
            frames_free: 0,
            frames: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_has_not_changed_is_shown_again_as_it_is() {
        let piece = |ids: &[u64]| -> Option<Arc<Piece>> {
            let views = ids.iter().map(|id| SessionView {
                id: SessionId(*id),
                active: false,
                inbound: Traffic::default(),
                outbound: Traffic::default(),
                path: (1500, Phase::Followed),
                last_heard: None,
            });
            Some(Arc::new(views.collect()))
        };
        let ids = |views: &SessionViews| views.iter().map(|view| view.id.0).collect::<Vec<_>>();
        let mut views = SessionViews::default();
        assert!(views.is_empty());
        views.renew([piece(&[1, 2]), piece(&[3])].into_iter());
        let before = views.clone();
        views.renew([None, piece(&[]), piece(&[4, 5])].into_iter());
        assert_eq!((ids(&views), views.len()), (vec![1, 2, 4, 5], 4));
        assert_eq!(ids(&before), [1, 2, 3], "readers keep what they have");
        assert!(Arc::ptr_eq(&views.0[0], &before.0[0]));
    }
}
