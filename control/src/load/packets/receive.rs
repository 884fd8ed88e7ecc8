//! The collector.

use std::io::BufRead as _;
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use evergate_common::sample::Note;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::patiently;
use super::tally::{Received, Tally};
use crate::dataplane::loader::{Collector, XdpMode, monotonic_ns, queues};
use crate::dataplane::xsk::{BindMode, Socket, Umem};

const RING: u32 = 4096;
const BATCH: usize = 64;
/// How long it waits for packets before it looks whether somebody asks.
const WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// Collects what comes on an interface, and tells what has come since the last time for each line on
/// standard input. Ends with it, or after `time`; then it tells once more.
///
/// # Errors
/// What the kernel refused, or `tell`.
pub fn receive(
    interface: &str,
    time: Option<Duration>,
    mut tell: impl FnMut(Option<&Received>) -> Result<()>,
) -> Result<()> {
    let queues = queues(interface)?;
    let mut collector = Collector::load()?;
    let (mut umem, mut sockets) = patiently(|| {
        let mut umem = Umem::new(queues * RING * 2).context("memory for frames")?;
        let mut sockets: Vec<Socket> = Vec::new();
        for queue in 0..queues {
            let first = sockets.first();
            let socket = Socket::open(&mut umem, first, interface, queue, RING, BindMode::Auto)?;
            sockets.push(socket);
        }
        Ok((umem, sockets))
    })?;
    for (queue, socket) in (0..).zip(&sockets) {
        collector.set_xsk(queue, socket.as_fd())?;
    }
    if let Some(warning) = collector.attach(interface, XdpMode::Auto)?.warning {
        tracing::warn!("{warning}");
    }
    tell(None)?;
    let asked = match time {
        Some(time) => after(time),
        None => lines(),
    };
    let mut tally = Tally::default();
    let mut frames = Vec::with_capacity(BATCH);
    loop {
        let mut came = 0;
        for socket in &mut sockets {
            came += socket.receive(&umem, &mut frames, BATCH);
            let now = monotonic_ns();
            for frame in frames.drain(..) {
                if let Some(note) = Note::of(umem.bytes(&frame)) {
                    tally.add(note, now);
                }
                umem.free(frame);
            }
            socket.refill(&mut umem);
            socket.wake_receive();
        }
        if came > 0 {
            continue;
        }
        match asked.try_recv() {
            Ok(()) => tell(Some(&tally.take()))?,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return tell(Some(&tally.take())),
        }
        let mut fds: Vec<PollFd<'_>> = sockets
            .iter()
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        match poll(&mut fds, Some(&WAIT)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for packets"),
        }
    }
}

/// A message for each line of standard input.
fn lines() -> Receiver<()> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || sender.send(()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// No message, and the end after so long.
fn after(time: Duration) -> Receiver<()> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        std::thread::sleep(time);
        drop(sender);
    });
    receiver
}
