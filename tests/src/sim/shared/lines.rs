//! Who is connected to whom, what is said, and how it ends.

use std::time::Duration;

use evergate::cluster::wire::{self, Down, Up, VERSION};
use evergate::cluster::{Parting, Reached, Run};
use rand::RngExt as _;

use super::line::{Line, Seat, Segment};
use super::{What, World};

/// Pauses of an edge between two tries: the first, and the longest.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// Until then a machine must have taken a connection, and a process shown who it is.
const TAKEN: Duration = Duration::from_secs(1);
const SHOWN: Duration = Duration::from_secs(3);
/// A kernel gives a connection up when nothing has come for so long; some are later.
const SILENT: Duration = Duration::from_secs(5);
/// What is left of an edge's connection is read for so long when there is another one.
const LEFT: Duration = Duration::from_millis(20);
/// How long an authority that ends waits for its repository, and for edges to read its last word.
const FAREWELL: Duration = Duration::from_millis(800);
const PARTING: Duration = Duration::from_millis(20);
/// Messages that a process that is killed has not given to its kernel yet.
const UNSENT: usize = 3;

impl World {
    fn channel(&mut self) -> Duration {
        let most = self.scenario.channel;
        most / 2 + self.rng.random_range(Duration::ZERO..=most / 2)
    }

    /// TCP, TLS and the greetings.
    fn greetings(&mut self) -> Duration {
        8 * self.channel()
    }

    /// An edge's try for a connection would be through now.
    pub(super) fn connect(&mut self, edge: usize, run: u64) {
        let node = &self.edges[edge];
        if node.run != run || !node.runs() || self.dials[edge].current.is_some() {
            return;
        }
        let serves = self.authority.is_some() && !self.authority_parts;
        let late = match (self.dials[edge].cut.is_some(), serves) {
            (true, _) => Some(TAKEN),
            (false, false) => Some(Duration::ZERO),
            (false, true) if self.authority_frozen => Some(SHOWN),
            (false, true) => None,
        };
        if let Some(late) = late {
            return self.dial_later(edge, late);
        }
        self.serial += 1;
        let serial = self.serial;
        self.lines.insert(serial, Line::new(edge));
        let dial = &mut self.dials[edge];
        (dial.current, dial.since) = (Some(serial), self.now);
        self.send_up(edge, &Up::Greeting { version: VERSION });
        self.with_edge(edge, |edge, step| edge.connected(step));
    }

    fn dial_later(&mut self, edge: usize, late: Duration) {
        let greetings = self.greetings();
        let dial = &mut self.dials[edge];
        let pause = dial.pause.max(SHORTEST);
        dial.pause = LONGEST.min(pause * 2);
        let run = self.edges[edge].run;
        self.later(late + pause + greetings, What::Connect(edge, run));
    }

    /// A new process of an edge tries at once.
    pub(super) fn dial_anew(&mut self, edge: usize) {
        self.dials[edge].pause = SHORTEST;
        let (greetings, run) = (self.greetings(), self.edges[edge].run);
        self.later(greetings, What::Connect(edge, run));
    }

    pub(super) fn send_up(&mut self, edge: usize, message: &Up) {
        let due = self.now + self.channel();
        let Some(serial) = self.dials[edge].current else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&serial)
            && line.seat != Seat::Gone
            && let Ok(bytes) = wire::encode(message)
        {
            let due = line.up.send(due, Segment::Data(bytes.to_vec()));
            self.later(due - self.now, What::Line(serial));
        }
    }

    pub(super) fn send_down(&mut self, edge: usize, message: &Down) {
        let due = self.now + self.channel();
        let Some(serial) = self.seats[edge] else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&serial)
            && let Ok(bytes) = wire::encode(message)
        {
            let due = line.down.send(due, Segment::Data(bytes.to_vec()));
            self.later(due - self.now, What::Line(serial));
        }
    }

    /// Something may have come by a connection.
    pub(super) fn look_at(&mut self, serial: u64) {
        let now = self.now;
        let Some(line) = self.lines.get_mut(&serial) else {
            return;
        };
        let edge = line.edge;
        if self.dials[edge].cut.is_none() {
            line.up.arrive(now);
            if line.held {
                line.down.arrive(now);
            }
        }
        if self.authority.is_some() && !self.authority_frozen && !self.authority_parts {
            self.read_up(serial);
        }
        if self.edges[edge].runs() && self.dials[edge].current == Some(serial) {
            self.read_down(serial);
        }
        let over = |line: &Line| line.seat == Seat::Gone && !line.held;
        if self.lines.get(&serial).is_some_and(over) {
            self.lines.remove(&serial);
        }
    }

    fn read_up(&mut self, serial: u64) {
        let now = self.now;
        let mut messages = Vec::new();
        let mut end = None;
        while let Some(line) = self.lines.get_mut(&serial) {
            let edge = line.edge;
            match line.seat {
                Seat::Gone => return line.up.forget(),
                Seat::Coming => match line.up.next() {
                    Some(Segment::Data(_)) => {
                        line.seat = Seat::Waiting(now + LEFT);
                        self.later(LEFT, What::Line(serial));
                    }
                    Some(Segment::End) => return line.seat = Seat::Gone,
                    None if line.lost[0] => return line.seat = Seat::Gone,
                    None => return,
                },
                Seat::Waiting(until) => {
                    if let Some(old) = self.seats[edge] {
                        if now < until {
                            return;
                        }
                        self.authority_ends(old, Parting::Lost);
                    }
                    if let Some(line) = self.lines.get_mut(&serial) {
                        line.seat = Seat::Taken;
                    }
                    self.seats[edge] = Some(serial);
                    self.with_authority(|authority, step| authority.connected(edge, step));
                }
                Seat::Taken => match line.up.next() {
                    Some(Segment::Data(bytes)) => {
                        let content = bytes.get(wire::PREFIX..).unwrap_or_default();
                        match wire::decode(content) {
                            Ok(message) => messages.push(message),
                            Err(error) => self.watch.holds(false, &error.to_string()),
                        }
                    }
                    Some(Segment::End) => {
                        end = Some(Parting::Closed);
                        break;
                    }
                    None => {
                        end = line.lost[0].then_some(Parting::Lost);
                        break;
                    }
                },
            }
        }
        let Some(edge) = self.lines.get(&serial).map(|line| line.edge) else {
            return;
        };
        if !messages.is_empty() {
            self.with_authority(|authority, step| authority.hear(edge, messages, step));
        }
        if let Some(parting) = end {
            self.authority_ends(serial, parting);
        }
    }

    /// The authority has read the end of a connection.
    fn authority_ends(&mut self, serial: u64, parting: Parting) {
        let Some(line) = self.lines.get_mut(&serial) else {
            return;
        };
        let edge = line.edge;
        let parting = match self.scenario.lies {
            true => Parting::Closed,
            false => parting,
        };
        line.seat = Seat::Gone;
        line.up.forget();
        if self.seats[edge] == Some(serial) {
            self.seats[edge] = None;
            self.with_authority(|authority, step| authority.ended(edge, parting, step));
        }
        let next = self.lines.iter().find(|(_, line)| {
            line.edge == edge && matches!(line.seat, Seat::Waiting(_) | Seat::Coming)
        });
        if let Some(next) = next.map(|(serial, _)| *serial) {
            self.later(Duration::ZERO, What::Line(next));
        }
    }

    fn read_down(&mut self, serial: u64) {
        let Some(line) = self.lines.get_mut(&serial) else {
            return;
        };
        let (edge, mut messages) = (line.edge, Vec::new());
        let mut over = false;
        while let Some(segment) = line.down.next() {
            match segment {
                Segment::Data(bytes) => {
                    let content = bytes.get(wire::PREFIX..).unwrap_or_default();
                    match wire::decode(content) {
                        Ok(message) => messages.push(message),
                        Err(error) => self.watch.holds(false, &error.to_string()),
                    }
                }
                Segment::End => over = true,
            }
        }
        over |= line.lost[1];
        if over {
            line.held = false;
        }
        if !messages.is_empty() {
            self.with_edge(edge, |edge, step| edge.news(messages, step));
        }
        if over {
            let dial = &mut self.dials[edge];
            dial.current = None;
            // One that takes connections and ends them at once is no better than one that takes none.
            if self.now > dial.since + LONGEST {
                dial.pause = SHORTEST;
            }
            self.with_edge(edge, |edge, step| edge.disconnected(step));
            self.dial_later(edge, Duration::ZERO);
        }
    }

    /// One end of a connection has heard nothing since then.
    pub(super) fn silence(&mut self, serial: u64, since: Duration) {
        let Some(line) = self.lines.get_mut(&serial) else {
            return;
        };
        let cut = self.dials[line.edge].cut == Some(since);
        if !cut && line.vanished != Some(since) {
            return;
        }
        line.up.dry_up();
        line.lost[0] = true;
        if cut {
            line.down.dry_up();
            line.lost[1] = true;
        }
        self.look_at(serial);
    }

    /// Nothing gets through between an edge and the authority.
    pub(super) fn cut(&mut self, edge: usize) {
        if self.dials[edge].cut.is_some() {
            return;
        }
        let now = self.now;
        self.dials[edge].cut = Some(now);
        let lines = self.lines.iter().filter(|(_, line)| line.edge == edge);
        for serial in lines.map(|(serial, _)| *serial).collect::<Vec<_>>() {
            let late = self.rng.random_range(Duration::ZERO..=LONGEST);
            self.later(SILENT + late, What::Silence(serial, now));
        }
    }

    /// It does again: what was on its way is sent once more, some time.
    pub(super) fn join(&mut self, edge: usize) {
        let Some(since) = self.dials[edge].cut.take() else {
            return;
        };
        let longest = (self.now - since).min(Duration::from_millis(1500));
        let late = self.rng.random_range(Duration::ZERO..=longest);
        let now = self.now;
        self.dials[edge].stalled = now + late;
        let mut again = Vec::new();
        for (serial, line) in self.lines.iter_mut().filter(|(_, line)| line.edge == edge) {
            line.up.put_off(now + late);
            line.down.put_off(now + late);
            again.push(*serial);
        }
        for serial in again {
            self.later(late, What::Line(serial));
        }
    }

    /// A process has ended, and its kernel says so behind what it has sent.
    pub(super) fn edge_ended(&mut self, edge: usize, in_order: bool) {
        let Some(serial) = self.dials[edge].current.take() else {
            return;
        };
        let due = self.now + self.channel();
        let unsent = match in_order {
            true => 0,
            false => self.rng.random_range(0..=UNSENT),
        };
        if let Some(line) = self.lines.get_mut(&serial) {
            line.held = false;
            line.down.forget();
            let left = line.up.in_flight().saturating_sub(unsent);
            line.up.cut_short(left);
            let due = line.up.send(due, Segment::End);
            self.later(due - self.now, What::Line(serial));
        }
    }

    /// An edge was killed, and its notary connects to the authority, unless it dies too. It may be late.
    pub(super) fn notary_wakes(&mut self, edge: usize, run: Run, reached: Vec<Reached>) {
        if self.rng.random_range(0..8) == 0 {
            return;
        }
        let late = match self.rng.random_range(0..4) {
            0 => self
                .rng
                .random_range(Duration::ZERO..=2 * self.scenario.terms.testimony),
            _ => Duration::ZERO,
        };
        let greetings = self.greetings();
        self.later(late + greetings, What::Testimony(edge, run, reached));
    }

    /// It tries once: an authority that can not be reached does not hear it.
    pub(super) fn testimony(&mut self, edge: usize, run: Run, reached: Vec<Reached>) {
        if self.dials[edge].cut.is_some() || self.authority.is_none() || self.authority_parts {
            return;
        }
        if self.authority_frozen {
            // It lies in its kernel.
            return self.later(SHOWN / 4, What::Testimony(edge, run, reached));
        }
        trace!("{:?} testimony of edge {edge}: {reached:x?}", self.now);
        self.with_authority(|authority, step| authority.testified(edge, run, &reached, step));
    }

    /// A machine is gone.
    pub(super) fn edge_vanished(&mut self, edge: usize) {
        let Some(serial) = self.dials[edge].current.take() else {
            return;
        };
        let now = self.now;
        let Some(line) = self.lines.get_mut(&serial) else {
            return;
        };
        line.held = false;
        line.vanished = Some(now);
        line.down.forget();
        let left = self.rng.random_range(0..=line.up.in_flight());
        line.up.cut_short(left);
        let late = self.rng.random_range(Duration::ZERO..=LONGEST);
        self.later(SILENT + late, What::Silence(serial, now));
    }

    /// It is there again, and knows of no connection: it says so to whoever sends on one.
    pub(super) fn edge_is_back(&mut self, edge: usize) {
        let due = self.now + self.channel();
        let old = self.lines.iter_mut();
        let old = old.filter(|(_, line)| line.edge == edge && line.vanished.is_some());
        let mut said = Vec::new();
        for (serial, line) in old {
            line.vanished = None;
            if line.seat != Seat::Gone && self.rng.random() {
                said.push((*serial, line.up.send(due, Segment::End)));
            }
        }
        for (serial, due) in said {
            self.later(due - self.now, What::Line(serial));
        }
    }

    /// The authority's process is gone.
    pub(super) fn authority_dies(&mut self) {
        let Some(authority) = self.authority.take() else {
            return;
        };
        authority.writer.end(&mut self.disk, &mut self.rng);
        (self.authority_frozen, self.authority_parts) = (false, false);
        self.seats.fill(None);
        let due = self.now + self.channel();
        let mut told = Vec::new();
        for (serial, line) in &mut self.lines {
            line.seat = Seat::Gone;
            line.up.forget();
            if line.held {
                let unsent = self.rng.random_range(0..=UNSENT);
                let left = line.down.in_flight().saturating_sub(unsent);
                line.down.cut_short(left);
                told.push((*serial, line.down.send(due, Segment::End)));
            }
        }
        self.lines.retain(|_, line| line.held);
        for (serial, due) in told {
            self.later(due - self.now, What::Line(serial));
        }
    }

    /// It is told to end: edges hear so first, and the repository gets what it was to keep.
    pub(super) fn authority_stops(&mut self) {
        if self.authority.is_none() || self.authority_frozen || self.authority_parts {
            return;
        }
        self.with_authority(|authority, _| authority.farewell());
        self.authority_parts = true;
        self.parts_until = self.now + FAREWELL;
        self.later(PARTING, What::Farewell(self.authority_run));
        self.plan(super::Place::Authority);
    }

    pub(super) fn farewell_over(&mut self, run: u64) {
        if !self.authority_parts || self.authority_run != run {
            return;
        }
        let done = self.authority.as_ref().is_some_and(|a| a.writer.is_done());
        if done || self.disk.full || self.now >= self.parts_until {
            return self.authority_dies();
        }
        self.later(PARTING, What::Farewell(run));
    }
}
