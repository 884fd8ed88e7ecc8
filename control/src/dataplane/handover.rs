//! Workers hand over to each other: packets for SAs that another one has, and what only the first
//! worker decides. Between any two there is a ring each way; nothing is locked, and nothing waits.
//!
//! A handed frame takes its chunk with it; the receiver gives back another one, so that none of them
//! runs dry.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::{EventfdFlags, eventfd};

use super::command::GroupId;
use super::doze::Doze;
use super::xsk::{Frame, Umem};
use crate::sadb::SessionId;

/// Letters that may wait between two workers.
const LETTERS: usize = 2048;

/// Letters that are kept free for ESP, heartbeats and notes: payload from inside must not crowd them out.
const RESERVE: usize = 512;

/// Letters of one worker that another one takes in a turn.
const AT_ONCE: usize = 64;

/// A worker that is behind by so much is not waited for any longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// The first worker: it watches gateways, speaks to the LAN, asks for sessions, and keeps packets that
/// wait for one.
pub(super) const FIRST: usize = 0;

/// Where a handed frame goes on at the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// As an Ethernet frame from outside.
    Outside,
    /// As an Ethernet frame from the LAN.
    Lan,
    /// As an inner packet on its way into a tunnel, its TTL lowered where that has to be.
    Inner,
}

/// What a worker lets others know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// From the first: traffic of this group goes by this gateway, or by none.
    Use(GroupId, Option<IpAddr>),
    /// The peer is heard on this session, which takes the place of another: it is sent on.
    SendOn(SessionId),
    /// To the first: something authentic came from this gateway.
    Heard(IpAddr),
    /// To the first: payload of this group was sent.
    Sent(GroupId),
    /// To the first: the client of this group sends here.
    ClientSends(GroupId),
    /// To the first: it has gone, as far as this worker knows.
    ClientLeft(GroupId),
    /// From the first: it has.
    Left(GroupId),
    /// Packets of this group, to this gateway if there are several, may be so long.
    PathSize(GroupId, Option<IpAddr>, u32),
    /// The same, as a router says of one of a lane.
    TooLong(GroupId, Option<IpAddr>, u32),
    /// To the first: packets as long as this go to and come from this gateway.
    Long(IpAddr, usize),
    /// From the first: the inner addresses of this group, or of all, are no longer announced.
    Unannounced(Option<GroupId>),
}

#[derive(Debug)]
enum Letter {
    Frame(Frame, Door),
    Note(Note),
}

/// How one worker is found by the others.
#[derive(Debug)]
pub(super) struct Sleeper {
    /// An event descriptor that it polls.
    wake: OwnedFd,
    doze: Doze,
    start: Instant,
    /// Up to when, in nanoseconds from `start`, everything that had arrived is taken in.
    through: AtomicU64,
}

impl Sleeper {
    pub(super) fn new(now: Instant) -> io::Result<Self> {
        Ok(Self {
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            doze: Doze::new(),
            start: now,
            through: AtomicU64::new(0),
        })
    }

    /// Wakes it, whether it sleeps or not.
    pub(super) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Wakes it if it sleeps. What it is woken for was written before.
    fn wake_if_asleep(&self) {
        if self.doze.must_be_woken() {
            self.wake();
        }
    }

    /// It is about to sleep, and has to look once more whether something came.
    pub(super) fn lies_down(&self) {
        self.doze.lies_down();
    }

    /// It is up again.
    pub(super) fn gets_up(&self) {
        self.doze.gets_up();
        // An empty wake-up counter is what the next sleep needs.
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    /// Everything that had arrived at `at` is taken in.
    pub(super) fn is_through(&self, at: Instant) {
        let since = at.saturating_duration_since(self.start).as_nanos();
        self.through
            .store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Up to when everything that had arrived is taken in.
    fn through(&self) -> Instant {
        self.start + Duration::from_nanos(self.through.load(Ordering::Acquire))
    }
}

impl AsFd for Sleeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The way to one other worker and back.
#[derive(Debug)]
struct Neighbour {
    number: usize,
    sleeper: Arc<Sleeper>,
    letters_out: Producer<Letter>,
    letters_in: Consumer<Letter>,
    /// Free chunks, in the place of those that came with frames.
    chunks_out: Producer<Frame>,
    chunks_in: Consumer<Frame>,
    /// Chunks that it is owed.
    owed: usize,
    /// Something was written since it was woken last.
    written: bool,
}

/// What a worker hands over by, and is handed to.
#[derive(Debug, Default)]
pub(super) struct Desk {
    neighbours: Vec<Neighbour>,
}

impl Desk {
    /// The desks of all workers, connected with each other.
    pub(super) fn connect(sleepers: &[Arc<Sleeper>]) -> Vec<Self> {
        let mut desks: Vec<Self> = sleepers.iter().map(|_| Self::default()).collect();
        for one in 0..sleepers.len() {
            for other in one + 1..sleepers.len() {
                let (there, here) = (RingBuffer::new(LETTERS), RingBuffer::new(LETTERS));
                let (chunks_there, chunks_here) =
                    (RingBuffer::new(LETTERS), RingBuffer::new(LETTERS));
                let neighbour = |number, out, back, chunks_out, chunks_in| Neighbour {
                    number,
                    sleeper: Arc::clone(&sleepers[number]),
                    letters_out: out,
                    letters_in: back,
                    chunks_out,
                    chunks_in,
                    owed: 0,
                    written: false,
                };
                let to = neighbour(other, there.0, here.1, chunks_there.0, chunks_here.1);
                let from = neighbour(one, here.0, there.1, chunks_here.0, chunks_there.1);
                desks[one].neighbours.push(to);
                desks[other].neighbours.push(from);
            }
        }
        desks
    }

    /// Hands a frame to another worker, or gives it back if too much waits there already.
    pub(super) fn hand_over(&mut self, to: usize, frame: Frame, door: Door) -> Result<(), Frame> {
        let Some(neighbour) = self.neighbours.iter_mut().find(|n| n.number == to) else {
            return Err(frame);
        };
        if door != Door::Outside && neighbour.letters_out.slots() < RESERVE {
            return Err(frame);
        }
        match neighbour.letters_out.push(Letter::Frame(frame, door)) {
            Ok(()) => {
                neighbour.written = true;
                Ok(())
            }
            Err(rtrb::PushError::Full(Letter::Frame(frame, _))) => Err(frame),
            // What comes back is what was given.
            Err(rtrb::PushError::Full(Letter::Note(_))) => Ok(()),
        }
    }

    /// Tells another worker. Says whether there was room.
    pub(super) fn tell(&mut self, to: usize, note: Note) -> bool {
        let Some(neighbour) = self.neighbours.iter_mut().find(|n| n.number == to) else {
            return true;
        };
        let told = neighbour.letters_out.push(Letter::Note(note)).is_ok();
        neighbour.written = true;
        told
    }

    /// Wakes those that something was written to, and gives back chunks.
    pub(super) fn post(&mut self, umem: &mut Umem) {
        for neighbour in &mut self.neighbours {
            while neighbour.owed > 0 {
                let Some(frame) = umem.take() else { break };
                if let Err(rtrb::PushError::Full(frame)) = neighbour.chunks_out.push(frame) {
                    umem.free(frame);
                    break;
                }
                neighbour.owed -= 1;
            }
            if std::mem::take(&mut neighbour.written) {
                neighbour.sleeper.wake_if_asleep();
            }
        }
    }

    /// Whether a worker may take more from inside, which it perhaps has to hand to the first.
    pub(super) fn has_room(&self, worker: usize) -> bool {
        let first = self.neighbours.iter().find(|n| n.number == FIRST);
        worker == FIRST || first.is_none_or(|first| first.letters_out.slots() > LETTERS / 2)
    }

    /// Takes what others have handed over. Says whether there was anything, and whether it was all.
    pub(super) fn receive(
        &mut self,
        umem: &mut Umem,
        frames: &mut Vec<(usize, Frame, Door)>,
        notes: &mut Vec<Note>,
    ) -> (bool, bool) {
        let (mut any, mut all) = (false, true);
        for neighbour in &mut self.neighbours {
            while let Ok(chunk) = neighbour.chunks_in.pop() {
                umem.free(chunk);
            }
            for _ in 0..AT_ONCE {
                match neighbour.letters_in.pop() {
                    Ok(Letter::Frame(frame, door)) => {
                        neighbour.owed += 1;
                        frames.push((neighbour.number, frame, door));
                    }
                    Ok(Letter::Note(note)) => notes.push(note),
                    Err(rtrb::PopError::Empty) => break,
                }
                any = true;
            }
            all &= neighbour.letters_in.is_empty();
        }
        (any, all)
    }

    /// Whether something waits to be taken.
    pub(super) fn has_mail(&self) -> bool {
        self.neighbours.iter().any(|n| !n.letters_in.is_empty())
    }

    /// The time at which all other workers had taken in what had arrived, but at most `now`.
    pub(super) fn through(&self, now: Instant) -> Instant {
        let through = self.neighbours.iter().map(|n| n.sleeper.through());
        // One that hangs must not keep the others from judging for ever.
        let latest = now.checked_sub(PATIENCE).unwrap_or(now);
        through.fold(now, Instant::min).max(latest)
    }

    /// Has those look into their rings that have not since `at`.
    pub(super) fn hurry(&self, at: Instant) {
        for neighbour in &self.neighbours {
            if neighbour.sleeper.through() < at {
                neighbour.sleeper.wake_if_asleep();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desks(count: usize) -> (Vec<Arc<Sleeper>>, Vec<Desk>) {
        let now = Instant::now();
        let sleepers: Vec<_> = (0..count)
            .map(|_| Arc::new(Sleeper::new(now).unwrap()))
            .collect();
        let desks = Desk::connect(&sleepers);
        (sleepers, desks)
    }

    fn woken(sleeper: &Sleeper) -> bool {
        let mut count = [0u8; 8];
        rustix::io::read(&sleeper.wake, &mut count).is_ok()
    }

    #[test]
    fn what_is_handed_over_arrives_in_order_and_its_chunk_is_made_up_for() {
        let (_, mut desks) = desks(3);
        let mut umems = Umem::new(30).unwrap().split(3);
        for length in 0..4 {
            let mut frame = umems[0].take().unwrap();
            frame.set_range(0..length);
            desks[0].hand_over(2, frame, Door::Inner).unwrap();
        }
        assert!(desks[0].tell(2, Note::SendOn(SessionId(7))));
        let (mut frames, mut notes) = (Vec::new(), Vec::new());
        assert!(!desks[1].receive(&mut umems[1], &mut frames, &mut notes).0);
        let (any, all) = desks[2].receive(&mut umems[2], &mut frames, &mut notes);
        assert!(any && all);
        assert_eq!(notes, [Note::SendOn(SessionId(7))]);
        let lengths: Vec<_> = frames.iter().map(|(from, f, _)| (*from, f.len())).collect();
        assert_eq!(lengths, [(0, 0), (0, 1), (0, 2), (0, 3)]);
        // They stay with the second, as in a transmit ring; the first gets others for them.
        assert_eq!([0, 2].map(|at: usize| umems[at].free_chunks()), [6, 10]);
        desks[2].post(&mut umems[2]);
        desks[0].receive(&mut umems[0], &mut Vec::new(), &mut notes);
        assert_eq!([0, 2].map(|at: usize| umems[at].free_chunks()), [10, 6]);
        for (_, frame, _) in frames {
            umems[2].free(frame);
        }
    }

    #[test]
    fn a_full_ring_gives_back_and_nobody_is_told_twice_of_a_note() {
        let (_, mut desks) = desks(2);
        for _ in 0..LETTERS {
            assert!(desks[0].tell(1, Note::Unannounced(None)));
        }
        assert!(!desks[0].tell(1, Note::Unannounced(None)));
        let mut umem = Umem::new(1).unwrap();
        let frame = umem.take().unwrap();
        let back = desks[0].hand_over(1, frame, Door::Outside).unwrap_err();
        umem.free(back);
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_for_news() {
        let (sleepers, mut desks) = desks(2);
        let mut umem = Umem::new(1).unwrap();
        desks[0].tell(1, Note::Unannounced(None));
        desks[0].post(&mut umem);
        assert!(!woken(&sleepers[1]), "it is awake");
        sleepers[1].lies_down();
        assert!(desks[1].has_mail(), "it looks once more");
        desks[0].post(&mut umem);
        assert!(!woken(&sleepers[1]), "no news");
        desks[0].tell(1, Note::Unannounced(None));
        desks[0].post(&mut umem);
        assert!(woken(&sleepers[1]));
    }

    #[test]
    fn the_slowest_says_up_to_when_all_is_taken_in() {
        let (sleepers, desks) = desks(3);
        let start = sleepers[0].start;
        let at = |ms| start + Duration::from_millis(ms);
        sleepers[1].is_through(at(5));
        sleepers[2].is_through(at(3));
        assert_eq!(desks[0].through(at(9)), at(3));
        assert_eq!(desks[0].through(at(2)), at(2));
        sleepers[2].lies_down();
        desks[0].hurry(at(4));
        assert_eq!(
            [1, 2].map(|k: usize| woken(&sleepers[k])),
            [false, true],
            "the one that lags"
        );
        assert_eq!(Desk::default().through(at(9)), at(9), "nobody else");
    }
}
