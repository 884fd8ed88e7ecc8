//! A worker: one thread that serves all queues of the node's interfaces, run to completion.
//!
//! Each turn takes a batch from every port, hands it to the [`Core`], sends what comes out, and
//! judges deadlines once the receive rings are empty. Everything that is a system call is here or
//! in the ports; what is done with a packet is in the core.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evergate_common::reason::Counter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::command::{Command, WorkerEvent, WorkerReport};
use super::core::{Core, Way};
use super::handover::{Door, FIRST, Note, Sleeper};
use super::intake::{Taken, is_esp};
use super::loader::monotonic_ns;
use super::net::segment::LONGEST;
use super::ports::{Inside, Outside, Ports};
use super::pulse::DeadMan;
use super::tun::Unread;
use super::udp::Judged;
use super::view::Views;
use super::xsk::{Frame, HEADROOM, Umem};

/// Entries of each ring, a power of two.
pub(super) const RING: u32 = 2048;

/// Frames taken from a port at once.
pub(super) const BATCH: usize = 64;

/// Turns without work before the worker sleeps.
const SPINS: u32 = 4;

/// How often the view is renewed.
const VIEW_PERIOD: Duration = Duration::from_millis(100);
/// A view of very many sessions takes its time: one is made no sooner than so many times of that after
/// the one before, however much there is to see.
const VIEW_SHARE: u32 = 50;

/// A worker that comes back so late was stopped, or its machine was.
const OVERSLEPT: Duration = Duration::from_millis(20);

/// Longest sleep, so that nothing of the above is late.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// What a worker is made of.
pub(super) struct Worker {
    pub(super) core: Core,
    pub(super) umem: Umem,
    pub(super) ports: Ports,
    pub(super) commands: Receiver<Command>,
    pub(super) sleeper: Arc<Sleeper>,
    pub(super) dead_man: DeadMan,
    pub(super) views: Views,
    pub(super) reports: tokio::sync::mpsc::Sender<WorkerReport>,
    /// ESP that came by other sockets; the first worker takes it.
    pub(super) taken: Option<Taken>,
    /// Frames from outside since the rings were empty last.
    pub(super) undrained: usize,
    /// How long it looks for packets before it sleeps.
    pub(super) busy_poll: Duration,
}

impl Worker {
    /// Starts the worker's thread.
    pub(super) fn start(self, name: &str) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                crate::privilege::drop_capabilities();
                self.run();
            })
    }

    fn run(mut self) {
        let mut batch: Vec<Frame> = Vec::with_capacity(BATCH * 4);
        let mut spare: Vec<Frame> = Vec::with_capacity(BATCH * 4);
        let mut mail = Mail::default();
        let mut idle_turns = 0;
        let mut renew_at = Instant::now();
        let mut view_at = renew_at;
        let mut view_earliest = renew_at;
        let mut expected = renew_at;
        let mut worked_at = renew_at;
        loop {
            let now = Instant::now();
            if now > expected + OVERSLEPT {
                self.core.overslept(now);
            }
            expected = now;
            if now >= renew_at {
                renew_at = now + self.dead_man.period / 5;
                self.dead_man.own.beat(now);
                self.renew(now);
            }
            match self.carry_out_commands(now) {
                Ok(()) => {}
                Err(Stopped) => break,
            }
            // Before their letters are taken: what they had taken in until then is among them.
            let others = self.ports.desk.through(now);
            let (mail_came, mail_read) = match self.take_mail(&mut mail, now) {
                Ok(came) => came,
                Err(Stopped) => break,
            };
            // What had waited for a command goes before what comes now.
            self.let_out();
            let (work, drained) = match self.turn(&mut batch, &mut spare, now) {
                Ok((work, drained)) => (work | mail_came, drained),
                Err(error) => {
                    let event = WorkerEvent::Failed(error.to_string());
                    let _ = self.reports.try_send(WorkerReport { at: now, event });
                    break;
                }
            };
            // By the time before the rings were read: what had arrived by then has been seen.
            let known = (drained && mail_read).then_some(others);
            self.core.after_batch(&mut self.umem, now, known);
            self.hurry(others, now);
            let sent = self.flush();
            // Only now do the others know of it.
            if drained && mail_read && !self.core.has_to_tell() {
                self.sleeper.is_through(now);
            }
            if now >= view_at || self.core.view_wanted() && now >= view_earliest {
                let start = Instant::now();
                self.show(now);
                view_earliest = now + start.elapsed() * VIEW_SHARE;
                view_at = now + VIEW_PERIOD;
            } else if self.core.view_wanted() {
                view_at = view_at.min(view_earliest);
            }
            if work || sent {
                idle_turns = 0;
                worked_at = now;
                continue;
            }
            if now < worked_at + self.busy_poll {
                self.ports.look();
                continue;
            }
            idle_turns += 1;
            if idle_turns > SPINS {
                idle_turns = 0;
                expected = self.sleep(renew_at.min(view_at));
            }
        }
        self.retire();
    }

    /// Takes a batch from each port. Says whether there was any work, and whether the receive
    /// rings of the outside are empty.
    fn turn(
        &mut self,
        batch: &mut Vec<Frame>,
        spare: &mut Vec<Frame>,
        now: Instant,
    ) -> io::Result<(bool, bool)> {
        let mut work = false;
        let mut drained = true;
        for queue in 0..self.ports.outside.queues() {
            let Self {
                core, umem, ports, ..
            } = self;
            let count = |reason| core.count(reason);
            drained &= ports.outside.receive(queue, umem, batch, count);
            self.undrained += batch.len();
            work |= !batch.is_empty();
            self.core.by_own_port = self.ports.outside.is_own_port(queue);
            for mut frame in batch.drain(..) {
                let judged = self.ports.outside.judge(&mut self.umem, &mut frame);
                let way = self.take_judged(judged, &mut frame, now);
                self.ports
                    .deliver(&mut self.core, &mut self.umem, frame, way);
            }
        }
        self.core.by_own_port = false;
        work |= self.take_whole(now);
        match &mut self.ports.inside {
            Inside::Nic(sockets) => {
                for socket in sockets {
                    let received = socket.receive(&self.umem, batch, BATCH);
                    socket.refill(&mut self.umem);
                    work |= received > 0;
                }
                for mut frame in batch.drain(..) {
                    let way = self.core.take_inside(&mut frame, &mut self.umem, now);
                    self.ports
                        .deliver(&mut self.core, &mut self.umem, frame, way);
                }
            }
            Inside::Tun(tun) | Inside::Routed(tun, _) => {
                // A full transmit ring is answered by not reading: the kernel then holds the
                // applications back, and nothing is lost.
                let room = self.ports.outside.room();
                if let Some(most) = room.filter(|_| self.ports.desk.has_room(self.core.worker)) {
                    match tun.receive(&mut self.umem, batch, spare, most) {
                        Ok(received) => work |= received > 0,
                        Err(Unread::Packet) => {
                            work = true;
                            self.core.count(Counter::InsideUnread);
                        }
                        Err(Unread::Device(error)) => return Err(error),
                    }
                    for mut frame in batch.drain(..) {
                        let way = self.core.take_tun(&mut frame, &mut self.umem, now);
                        self.ports
                            .deliver(&mut self.core, &mut self.umem, frame, way);
                    }
                }
            }
        }
        work |= self.hear_neighbours(now);
        // Under a load that never lets a ring run empty, the same is true after a ring's worth.
        if drained || self.undrained >= RING as usize * self.ports.outside.queues() {
            self.undrained = 0;
            drained = true;
        }
        Ok((work, drained))
    }

    /// Takes ESP that the kernel has put together of fragments.
    fn take_whole(&mut self, now: Instant) -> bool {
        let Some(taken) = &self.taken else {
            return false;
        };
        let mut work = false;
        for bytes in std::iter::from_fn(|| taken.next()).take(BATCH) {
            work = true;
            let Some(mut frame) = self.umem.take() else {
                self.core.count(Counter::NoFrame);
                continue;
            };
            let at = HEADROOM..HEADROOM + bytes.len();
            if let Some(room) = self.umem.chunk_mut(&frame).get_mut(at.clone()) {
                room.copy_from_slice(&bytes);
                frame.set_range(at);
            }
            self.core.count(Counter::EspReassembled);
            // A heartbeat has passed none of what the XDP program asks of one, and its answer proves
            // nothing about sizes.
            let esp = is_esp(self.umem.packet(&frame));
            let way = match esp {
                true => self.core.take_outside(&mut frame, &mut self.umem, now),
                false => Way::Drop(Counter::EspFragment),
            };
            self.ports
                .deliver(&mut self.core, &mut self.umem, frame, way);
        }
        let (long, full) = taken.lost();
        for (reason, times) in [
            (Counter::ReassembledLong, long),
            (Counter::ReassembledFull, full),
        ] {
            (0..times).for_each(|_| self.core.count(reason));
        }
        work
    }

    /// Takes what other workers have handed over. Says whether that was anything, and whether it was all.
    fn take_mail(&mut self, mail: &mut Mail, now: Instant) -> Result<(bool, bool), Stopped> {
        let desk = &mut self.ports.desk;
        let (any, all) = desk.receive(&mut self.umem, &mut mail.frames, &mut mail.notes);
        if any {
            // It may be about what a command made that was sent before it.
            self.carry_out_commands(now)?;
        }
        for note in mail.notes.drain(..) {
            self.core.hear(note, &mut self.umem, now);
        }
        for (from, mut frame, door) in mail.frames.drain(..) {
            (self.core.from_first, self.core.from_other) = (from == FIRST, from != FIRST);
            let (core, umem) = (&mut self.core, &mut self.umem);
            let way = match door {
                Door::Outside => core.take_outside(&mut frame, umem, now),
                Door::Lan => core.take_inside(&mut frame, umem, now),
                Door::Inner => core.take_tun(&mut frame, umem, now),
            };
            (self.core.from_first, self.core.from_other) = (false, false);
            self.ports
                .deliver(&mut self.core, &mut self.umem, frame, way);
        }
        Ok((any, all))
    }

    /// A deadline has passed, but the other workers have not yet looked whether something came in time.
    fn hurry(&self, through: Instant, now: Instant) {
        if through < now
            && let Some((deadline, _)) = self.core.next_deadline()
            && deadline <= now
            && through < deadline
        {
            self.ports.desk.hurry(deadline);
        }
    }

    /// What becomes of a frame from outside that was judged.
    fn take_judged(&mut self, judged: Judged, frame: &mut Frame, now: Instant) -> Way {
        match judged {
            Judged::Take(counter) => {
                if let Some(counter) = counter {
                    self.core.count(counter);
                }
                self.core.take_outside(frame, &mut self.umem, now)
            }
            Judged::Answer(counter) => {
                self.core.count(counter);
                Way::SlowOutside
            }
            Judged::Done(counter) => {
                self.core.count(counter);
                Way::Done
            }
            Judged::Drop(reason) => Way::Drop(reason),
        }
    }

    /// Takes questions and answers about neighbours, where the kernel forwards.
    fn hear_neighbours(&mut self, now: Instant) -> bool {
        // The others' sockets hear nothing.
        let Inside::Routed(_, segment) = &self.ports.inside else {
            return false;
        };
        if !self.core.is_first() {
            return false;
        }
        let mut heard = false;
        for _ in 0..BATCH {
            let Some(mut frame) = self.umem.take() else {
                break;
            };
            let room = self
                .umem
                .chunk_mut(&frame)
                .get_mut(HEADROOM..HEADROOM + LONGEST);
            let Ok(length) = segment.receive(room.unwrap_or_default()) else {
                self.umem.free(frame);
                break;
            };
            frame.set_range(HEADROOM..HEADROOM + length);
            // What it says itself comes out of the core later.
            let _ = self.core.take_inside(&mut frame, &mut self.umem, now);
            self.umem.free(frame);
            heard = true;
        }
        heard
    }

    /// Sends what the core made by itself, and wakes the kernel. Says whether frames still wait.
    fn flush(&mut self) -> bool {
        for _ in 0..self.core.notes_left() {
            // A full ring to one keeps back nothing for the others.
            if let Some((to, note)) = self.core.next_note()
                && !self.ports.desk.tell(to, note)
            {
                self.core.keep_note(to, note);
            }
        }
        self.let_out();
        let waiting = self.ports.kick(&mut self.core, &mut self.umem);
        self.ports.desk.post(&mut self.umem);
        waiting || self.core.notes_left() > 0
    }

    /// Sends what the core made by itself.
    fn let_out(&mut self) {
        while let Some((frame, way)) = self.core.next_outgoing() {
            self.ports
                .deliver(&mut self.core, &mut self.umem, frame, way);
        }
    }

    fn carry_out_commands(&mut self, now: Instant) -> Result<(), Stopped> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Err(Stopped),
                Ok(Command::Link { up }) => {
                    // A dead link on either side is a dead gateway: it must not answer.
                    self.ports.outside.set_silent(!up);
                    if self.core.is_first() {
                        self.core.on_link(up, now);
                    }
                }
                Ok(Command::Steer(change)) => self.ports.outside.steer(change),
                Ok(Command::Health(health)) => {
                    self.core.health = health;
                    if let Outside::Udp { gate, .. } = &mut self.ports.outside {
                        gate.set_health(health);
                    }
                }
                Ok(Command::Rebind(socket, own)) => {
                    let own_port = self.ports.outside.rebind(&mut self.umem, socket, own);
                    self.core.set_own_port(own_port, now);
                }
                Ok(command) => self.core.carry_out(command, &mut self.umem, now),
                Err(TryRecvError::Empty) => return Ok(()),
            }
        }
    }

    fn renew(&mut self, now: Instant) {
        if !self.dead_man.core.alive(now) {
            return;
        }
        // From the last sign of the one that is silent longest.
        let others = self
            .dead_man
            .others
            .iter()
            .map(|other| other.silent_for(now));
        let silent = others.max().unwrap_or_default();
        let period = u64::try_from(self.dead_man.period.as_nanos()).unwrap_or(u64::MAX);
        let silent = u64::try_from(silent.as_nanos()).unwrap_or(u64::MAX);
        let until = monotonic_ns().saturating_add(period).saturating_sub(silent);
        self.ports.outside.set_alive_until(until);
    }

    /// Sleeps until a port, a command or a deadline wants attention. Returns when it would have
    /// ended by itself.
    fn sleep(&mut self, until: Instant) -> Instant {
        let now = Instant::now();
        let deadline = self
            .core
            .next_deadline()
            .map_or(until, |(at, _)| at.min(until));
        let duration = deadline.saturating_duration_since(now).min(LONGEST_SLEEP);
        let timeout = Timespec {
            tv_sec: duration.as_secs() as i64,
            tv_nsec: i64::from(duration.subsec_nanos()),
        };
        let mut fds: arrayvec::ArrayVec<PollFd<'_>, 160> = arrayvec::ArrayVec::new();
        fds.push(PollFd::new(&*self.sleeper, PollFlags::IN));
        match &self.ports.outside {
            Outside::Nic { sockets, .. } => {
                for socket in sockets {
                    let _ = fds.try_push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
                }
            }
            Outside::Udp { port, .. } => {
                for fd in port.fds() {
                    let _ = fds.try_push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                }
            }
        }
        match &self.ports.inside {
            Inside::Nic(sockets) => {
                for socket in sockets {
                    let _ = fds.try_push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
                }
            }
            Inside::Tun(tun) | Inside::Routed(tun, _) => {
                // SAFETY: the device owns the descriptor and outlives this borrow of `self`.
                let fd = unsafe { BorrowedFd::borrow_raw(tun.raw_fd()) };
                let _ = fds.try_push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        if let Inside::Routed(_, segment) = &self.ports.inside {
            let _ = fds.try_push(PollFd::from_borrowed_fd(segment.as_fd(), PollFlags::IN));
        }
        self.sleeper.lies_down();
        if !self.ports.desk.has_mail() {
            let _ = poll(&mut fds, Some(&timeout));
        }
        self.sleeper.gets_up();
        now + duration
    }

    /// Says to the world that this worker forwards nothing any more, and sends what it still has.
    fn retire(&mut self) {
        self.ports.outside.set_silent(true);
        self.core.clear_parking(&mut self.umem);
        for _ in 0..100 {
            if !self.flush() {
                break;
            }
        }
        self.show(Instant::now());
    }

    /// Shows the present state to readers.
    fn show(&mut self, now: Instant) {
        for (counter, packets) in self.ports.lost() {
            self.core.set_count(counter, packets);
        }
        let view = self.core.view(&self.umem, now);
        self.views.show(self.core.worker, view);
    }
}

/// What other workers have handed over, on its way in.
#[derive(Default)]
struct Mail {
    frames: Vec<(usize, Frame, Door)>,
    notes: Vec<Note>,
}

/// The worker was told to stop, or its owner is gone.
struct Stopped;
