//! Hears what the kernel alone is told of: ICMP errors about our packets, and ESP that it has put together of
//! fragments. A thread of its own, because asking these sockets would cost the worker system calls in every
//! turn.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc::WeakSender;

use super::command::{WorkerEvent, WorkerReport};
use super::intake::Intake;
use super::net::errors::Errors;
use super::net::whole::{self, WholeEsp};
use super::udp::Inbox;

/// Messages that are read at once, and the pause after that: whoever floods us with them fills the socket's
/// buffer, no more.
const AT_ONCE: usize = 16;
const PAUSE: Duration = Duration::from_millis(10);

/// What is listened to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hears {
    pub(super) errors: bool,
    pub(super) fragments: bool,
}

/// The running thread.
pub(super) struct Listener {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Opens the sockets on the outside interface and begins to listen. What routers say goes to `reports`,
    /// ESP to the intake.
    pub(super) fn start(
        interface: &str,
        hears: Hears,
        reports: WeakSender<WorkerReport>,
        intake: Intake,
    ) -> io::Result<Self> {
        let (mut errors, mut fragments) = (Vec::new(), Vec::new());
        for v6 in [false, true] {
            if hears.errors {
                errors.extend(Errors::open(v6, interface)?);
            }
            if hears.fragments {
                fragments.extend(WholeEsp::open(v6, interface)?);
            }
        }
        let stop = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let ear = Ear {
            stop: stop.try_clone()?,
            errors,
            fragments,
            inbox: Inbox::new(),
            reports,
            intake,
        };
        let thread = std::thread::Builder::new()
            .name("listener".to_owned())
            .spawn(move || {
                crate::privilege::drop_capabilities();
                ear.run();
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Ear {
    stop: OwnedFd,
    errors: Vec<Errors>,
    fragments: Vec<WholeEsp>,
    inbox: Inbox,
    reports: WeakSender<WorkerReport>,
    intake: Intake,
}

impl Ear {
    fn run(mut self) {
        let mut quiet_until = Instant::now();
        loop {
            let pause = quiet_until.saturating_duration_since(Instant::now());
            let paused = !pause.is_zero();
            let mut fds: arrayvec::ArrayVec<PollFd<'_>, 8> = arrayvec::ArrayVec::new();
            fds.push(PollFd::new(&self.stop, PollFlags::IN));
            for socket in self.errors.iter().filter(|_| !paused) {
                let _ = fds.try_push(input(socket.as_fd()));
            }
            for socket in &self.fragments {
                let _ = fds.try_push(input(socket.as_fd()));
            }
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(pause.subsec_nanos()),
            };
            let _ = poll(&mut fds, paused.then_some(&timeout));
            let stopped = fds.first().is_some_and(|fd| !fd.revents().is_empty());
            drop(fds);
            if stopped {
                return;
            }
            self.hear_fragments();
            if !paused && self.hear_errors() {
                quiet_until = Instant::now() + PAUSE;
            }
        }
    }

    /// Hands over what the kernel has put together.
    fn hear_fragments(&mut self) {
        let Self {
            fragments,
            inbox,
            intake,
            ..
        } = self;
        for socket in fragments {
            let Ok(count) = inbox.receive(socket.as_fd()) else {
                continue;
            };
            let heard = (0..count).filter_map(|at| inbox.message(at));
            heard
                .filter_map(|m| whole::frame(m.from.ip(), m.class, m.data))
                .for_each(|frame| intake.hand(frame));
        }
    }

    /// Reports what routers say. Whether there was anything.
    fn hear_errors(&self) -> bool {
        let mut heard = false;
        for socket in &self.errors {
            for _ in 0..AT_ONCE {
                match socket.receive() {
                    Ok(said) => {
                        heard = true;
                        said.into_iter().for_each(|said| self.report(said));
                    }
                    Err(_) => break,
                }
            }
        }
        heard
    }

    fn report(&self, said: super::net::quote::TooLong) {
        // Only as long as there is more room than the worker's own reports need. What is not told is
        // said again by the router, about the next packet.
        let Some(reports) = self.reports.upgrade() else {
            return;
        };
        if reports.capacity() > reports.max_capacity() / 2 {
            let event = WorkerEvent::TooLong(said);
            let _ = reports.try_send(WorkerReport {
                at: Instant::now(),
                event,
            });
        }
    }
}

fn input(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}
