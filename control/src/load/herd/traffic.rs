//! The echo requests of all clients, and their answers: ESP by raw sockets, sealed and opened here.

use std::collections::VecDeque;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};

use anyhow::{Context as _, Result};
use evergate_common::sample::Note;
use evergate_common::wire::{ETHERNET_LEN, IPPROTO_ESP, IPV4_LEN};
use rand::Rng as _;
use rustix::time::{ClockId, Timespec};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::tally::Tally;
use super::{FIRST_SPI, Report, Said, Word};
use crate::dataplane::loader::monotonic_ns;
use crate::esp::{InboundSa, Marks, NEXT_IPV4, OutboundSa, Outer};

/// Bytes of each echo request.
const SIZE: usize = 96;
/// Where it lies in its buffer: behind room for the outer headers.
const AT: usize = 64;
const BUFFER: usize = 2048;
/// Answers that may wait in the kernel, in bytes.
const BACKLOG: usize = 32 << 20;
/// How long at least is slept between two looks at what is due and what has come.
const LEAST_SLEEP_NS: u64 = 300_000;
/// Packets that are sent in a row before what has come is read.
const IN_A_ROW: usize = 32;
/// So long after it was sent a request counts as lost.
const LATE_NS: u64 = 400_000_000;
/// A packet is repeated so long after it was sent.
const AGAIN_NS: u64 = 15_000_000;

/// One client's.
pub(super) struct Flow {
    inbound: InboundSa,
    outbound: OutboundSa,
    outer: Outer,
    inner: Ipv4Addr,
    sent: u64,
    tally: Tally,
}

impl Flow {
    pub(super) fn new(
        inbound: InboundSa,
        outbound: OutboundSa,
        outer: Outer,
        inner: Ipv4Addr,
    ) -> Self {
        Self {
            inbound,
            outbound,
            outer,
            inner,
            sent: 0,
            tally: Tally::default(),
        }
    }
}

/// All clients' traffic.
pub(super) struct Traffic {
    flows: Vec<Flow>,
    to: Ipv4Addr,
    /// Time between two requests of one client.
    interval_ns: u64,
    repeat: Option<NonZeroU32>,
    run: u32,
    sender: Socket,
    receiver: Socket,
    start_ns: u64,
    /// Requests of all, in turn.
    made: u64,
    again: VecDeque<(u64, Vec<u8>)>,
    repeated: u64,
    refused: u64,
    unsent: u64,
}

impl Traffic {
    pub(super) fn new(
        flows: Vec<Flow>,
        to: Ipv4Addr,
        rate: NonZeroU32,
        repeat: Option<NonZeroU32>,
    ) -> Result<Self> {
        let raw = |protocol: u8| {
            let socket = Socket::new(
                Domain::IPV4,
                Type::RAW,
                Some(Protocol::from(i32::from(protocol))),
            );
            socket.context("raw sockets need root")
        };
        let (sender, receiver) = (raw(255)?, raw(IPPROTO_ESP)?);
        receiver.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&receiver, BACKLOG)?;
        Ok(Self {
            flows,
            to,
            interval_ns: 1_000_000_000 / u64::from(rate.get()),
            repeat,
            run: rand::rng().next_u32(),
            sender,
            receiver,
            start_ns: monotonic_ns(),
            made: 0,
            again: VecDeque::new(),
            repeated: 0,
            refused: 0,
            unsent: 0,
        })
    }

    /// Sends and receives until there are no more words.
    pub(super) fn run(
        mut self,
        words: &Receiver<Word>,
        ike: &AtomicU64,
        mut say: impl FnMut(&Said) -> Result<()>,
    ) -> Result<()> {
        // Sleeps end when they should, not up to 50 µs later. The call can not fail with this argument.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        self.start_ns = monotonic_ns();
        let mut buffer = [0; BUFFER];
        loop {
            let more = self.send_due(&mut buffer)?;
            self.receive(&mut buffer);
            match words.try_recv() {
                Ok(Word::Arm) => self.flows.iter_mut().for_each(|flow| flow.tally.arm()),
                Ok(Word::Report { since_ns }) => {
                    let report = self.report(since_ns, ike.load(Ordering::Relaxed));
                    say(&Said::Report(report))?;
                }
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) if more => {}
                Err(TryRecvError::Empty) => {
                    sleep_until(self.due_ns(self.made).max(monotonic_ns() + LEAST_SLEEP_NS));
                }
            }
        }
    }

    /// When a request is due: those of all clients come at even distances.
    fn due_ns(&self, number: u64) -> u64 {
        let since = u128::from(number) * u128::from(self.interval_ns) / self.flows.len() as u128;
        self.start_ns + u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Sends some of what is due. Says whether more is.
    fn send_due(&mut self, buffer: &mut [u8; BUFFER]) -> Result<bool> {
        for _ in 0..IN_A_ROW {
            let now = monotonic_ns();
            if self.again.front().is_some_and(|(due, _)| *due <= now)
                && let Some((_, packet)) = self.again.pop_front()
            {
                self.repeated += u64::from(put(&self.sender, &packet).is_some());
            }
            if self.due_ns(self.made) > now {
                return Ok(false);
            }
            let at = (self.made % self.flows.len() as u64) as usize;
            self.made += 1;
            let Some(flow) = self.flows.get_mut(at) else {
                return Ok(false);
            };
            let note = Note {
                run: self.run,
                tunnel: at as u16,
                flow: 0,
                number: flow.sent,
                sent_ns: now,
            };
            let inner = AT..AT + SIZE;
            let packet = buffer.get_mut(inner.clone()).context("a small buffer")?;
            note.write(packet, flow.inner.octets(), self.to.octets())
                .context("a small packet")?;
            let marks = Marks::of(packet);
            let esp = flow.outbound.seal(buffer, inner, NEXT_IPV4)?;
            let whole = flow.outer.write(buffer, esp, marks)?;
            flow.sent += 1;
            let packet = buffer.get(whole).context("a small buffer")?;
            self.unsent += u64::from(put(&self.sender, packet).is_none());
            if let Some(every) = self.repeat
                && self.made.is_multiple_of(u64::from(every.get()))
            {
                self.again.push_back((now + AGAIN_NS, packet.to_vec()));
            }
        }
        Ok(true)
    }

    /// Takes what has come.
    fn receive(&mut self, buffer: &mut [u8; BUFFER]) {
        while let Ok(length) = (&self.receiver).read(buffer) {
            let answered = self.take(buffer, length);
            self.refused += u64::from(answered.is_none());
        }
    }

    fn take(&mut self, buffer: &mut [u8], length: usize) -> Option<()> {
        let header = usize::from(buffer.first()? & 0x0F) * 4;
        let spi = buffer.get(header..header + 4)?.try_into().ok()?;
        let at = u32::from_be_bytes(spi).checked_sub(FIRST_SPI)?;
        let flow = self.flows.get_mut(usize::try_from(at).ok()?)?;
        let opened = flow.inbound.open(buffer, header..length).ok()?;
        // A dummy says that its sender is there, and nothing else.
        if opened.is_dummy() {
            return Some(());
        }
        let inner = opened.inner.start.checked_sub(ETHERNET_LEN)?..opened.inner.end;
        let note = Note::of(buffer.get(inner)?)?;
        if note.run != self.run || u32::from(note.tunnel) != at {
            return None;
        }
        flow.tally.answer(note.number, note.sent_ns, monotonic_ns());
        Some(())
    }

    fn report(&self, since_ns: u64, ike: u64) -> Report {
        let now = monotonic_ns();
        let clients = self.flows.len() as u64;
        let mut report = Report {
            repeated: self.repeated,
            refused: self.refused,
            unsent: self.unsent,
            ike,
            ..Report::default()
        };
        let old = now.saturating_sub(LATE_NS).saturating_sub(self.start_ns);
        let turns = u128::from(old) * u128::from(clients) / u128::from(self.interval_ns);
        let turns = u64::try_from(turns).unwrap_or(u64::MAX);
        for (at, flow) in (0..).zip(&self.flows) {
            // As many as were due by then.
            let settled = turns.saturating_sub(at).div_ceil(clients).min(flow.sent);
            report.sent += settled;
            report.lost += flow.tally.lost(settled);
            report.twice += flow.tally.twice;
            let ms = |ns: u64| ns as f64 / 1e6;
            report
                .outages_ms
                .push(flow.tally.outage_ns(since_ns).map(ms));
            report.gaps_ms.push(ms(flow.tally.gap_ns(since_ns, now)));
        }
        report
    }
}

/// Sends a packet with its IP header; none if the kernel did not take it.
fn put(socket: &Socket, packet: &[u8]) -> Option<()> {
    let to: [u8; 4] = packet.get(16..IPV4_LEN)?.try_into().ok()?;
    let to = SocketAddr::from((to, 0));
    socket.send_to(packet, &SockAddr::from(to)).ok().map(drop)
}

fn sleep_until(at_ns: u64) {
    let at = Timespec {
        tv_sec: i64::try_from(at_ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (at_ns % 1_000_000_000) as _,
    };
    // Woken early, it is asked again what is due.
    let _ = rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &at);
}
