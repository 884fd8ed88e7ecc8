//! Connections between edges and the authority: an ordered, reliable stream with kernels at both ends, and what
//! becomes of it when a process or a path ends. TLS and the task that reads are not here.

use std::collections::VecDeque;
use std::time::Duration;

/// A part of a stream.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    Data(Vec<u8>),
    /// The kernel of the other side has ended it.
    End,
}

/// One direction.
#[derive(Default)]
pub(super) struct Stream {
    flight: VecDeque<(Duration, Segment)>,
    /// In the kernel of who reads.
    arrived: VecDeque<Segment>,
    last: Duration,
}

impl Stream {
    /// Sends something that needs so long. It overtakes nothing.
    pub(super) fn send(&mut self, due: Duration, segment: Segment) -> Duration {
        self.last = self.last.max(due);
        self.flight.push_back((self.last, segment));
        self.last
    }

    /// What has had the time to arrive does, if there is a way.
    pub(super) fn arrive(&mut self, now: Duration) {
        while let Some((due, _)) = self.flight.front()
            && *due <= now
        {
            self.arrived
                .extend(self.flight.pop_front().map(|(_, segment)| segment));
        }
    }

    /// What is on its way arrives then at the soonest.
    pub(super) fn put_off(&mut self, until: Duration) {
        self.last = self.last.max(until);
        for (due, _) in &mut self.flight {
            *due = until.max(*due);
        }
    }

    pub(super) fn next(&mut self) -> Option<Segment> {
        self.arrived.pop_front()
    }

    /// How much is on its way.
    pub(super) fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// Only so much of what is on its way arrives.
    pub(super) fn cut_short(&mut self, left: usize) {
        self.flight.truncate(left);
    }

    /// Nothing more arrives.
    pub(super) fn dry_up(&mut self) {
        self.flight.clear();
    }

    /// Whoever would read it is gone.
    pub(super) fn forget(&mut self) {
        self.flight.clear();
        self.arrived.clear();
    }
}

/// How far the authority has got with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// It has not read the greeting.
    Coming,
    /// The edge's one before is read until then at most.
    Waiting(Duration),
    Taken,
    Gone,
}

/// A connection.
pub(super) struct Line {
    pub(super) edge: usize,
    pub(super) up: Stream,
    pub(super) down: Stream,
    pub(super) seat: Seat,
    /// The edge's process has it.
    pub(super) held: bool,
    /// A kernel has given it up; who reads learns that after all that had come.
    pub(super) lost: [bool; 2],
    /// The edge's machine is gone since then.
    pub(super) vanished: Option<Duration>,
}

impl Line {
    pub(super) fn new(edge: usize) -> Line {
        Line {
            edge,
            up: Stream::default(),
            down: Stream::default(),
            seat: Seat::Coming,
            held: true,
            lost: [false; 2],
            vanished: None,
        }
    }
}
