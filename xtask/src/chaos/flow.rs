//! Datagrams of all sizes from the client to the target and back, their content known.

use crate::lab::topology::TARGETS;
use crate::lab::{Lab, Place, Process};
use crate::probe::{Answer, MARK, Outage, Record, now_ns, send_paced, wait_ready};
use anyhow::{Result, anyhow};
use serde::Serialize;
use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const PORT: u16 = 7000;
/// A packet so often.
const INTERVAL_US: u64 = 2000;
/// The mark eight times, the number, the stamp of sending; then bytes that follow from the number.
const HEAD: usize = 8 * MARK.len() + 16;
/// The largest is smaller than any MTU that is set, less the tunnel's overhead.
const MOST: u64 = 1100;
/// So many answers are kept: two minutes.
const KEPT: usize = 60_000;
/// Answers later than so many packets after theirs are not told from those that come twice.
const WINDOW: u64 = 20_000;

/// Sends until stdin ends. Stdout: `start NS INTERVAL_NS`; for each answer `SEQ SENT_NS RECEIVED_NS
/// BYTES`, `twice SEQ` or `wrong SEQ`; at the end `sent COUNT`.
pub(crate) fn flow(to: SocketAddr, interval_us: u64) -> Result<()> {
    send_paced(to, interval_us, receive, datagram)
}

fn receive(socket: &UdpSocket, done: &AtomicBool) {
    let _ = socket.set_read_timeout(Some(Duration::from_millis(10)));
    let mut buffer = [0u8; 2048];
    let (mut lines, mut flushed) = (String::new(), now_ns());
    let (mut answered, mut newest) = (HashSet::new(), 0);
    while !done.load(Ordering::Relaxed) {
        if let Ok(length) = socket.recv(&mut buffer) {
            let now = now_ns();
            let _ = match read(&buffer[..length]) {
                Err(seq) => writeln!(lines, "wrong {seq}"),
                Ok((seq, _)) if !answered.insert(seq) => writeln!(lines, "twice {seq}"),
                Ok((seq, sent)) => {
                    newest = seq.max(newest);
                    writeln!(lines, "{seq} {sent} {now} {length}")
                }
            };
            if answered.len() as u64 > 2 * WINDOW {
                answered.retain(|seq| *seq + WINDOW > newest);
            }
        }
        if now_ns().saturating_sub(flushed) > 20_000_000 && !lines.is_empty() {
            flushed = now_ns();
            if std::io::stdout().write_all(lines.as_bytes()).is_err() {
                return;
            }
            lines.clear();
        }
    }
    let _ = std::io::stdout().write_all(lines.as_bytes());
}

fn datagram(seq: u64, sent: u64) -> Vec<u8> {
    let mut datagram = MARK.repeat(8);
    datagram.extend(seq.to_be_bytes());
    datagram.extend(sent.to_be_bytes());
    datagram.extend(filling(seq));
    datagram
}

/// The bytes after the head: how many, and which.
fn filling(seq: u64) -> impl Iterator<Item = u8> {
    let mut state = seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let count = (state >> 40) % (MOST - HEAD as u64);
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

/// Number and stamp of a datagram that is as it was sent; else the number, as far as it can be told.
fn read(datagram: &[u8]) -> std::result::Result<(u64, u64), u64> {
    let number = |at: usize| {
        let bytes = datagram.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    let seq = number(HEAD - 16).unwrap_or(u64::MAX);
    let sent = number(HEAD - 8).ok_or(seq)?;
    let (head, rest) = datagram.split_at_checked(HEAD).ok_or(seq)?;
    let right = head.starts_with(&MARK.repeat(8)) && rest.iter().copied().eq(filling(seq));
    right.then_some((seq, sent)).ok_or(seq)
}

/// What came back.
#[derive(Debug, Default)]
struct Told {
    start_ns: u64,
    interval_ns: u64,
    recent: VecDeque<Answer>,
    totals: Totals,
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) answers: u64,
    pub(crate) bytes: u64,
    pub(crate) twice: u64,
    pub(crate) wrong: u64,
}

/// A running flow.
pub(super) struct Flow {
    sender: Process,
    _echo: Process,
    told: Arc<Mutex<Told>>,
    reader: Option<JoinHandle<()>>,
}

impl Flow {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let to = format!("{}:{PORT}", TARGETS[0]);
        let mut echo = lab.urgent_helper(Place::Target, &["probe-echo", &to])?;
        wait_ready(&mut echo)?;
        let interval = INTERVAL_US.to_string();
        let words = ["flow", &to, "--interval-us", &interval];
        let mut sender = lab.urgent_helper(Place::Client, &words)?;
        let stdout = sender.stdout().ok_or_else(|| anyhow!("no stdout"))?;
        let told = Arc::new(Mutex::new(Told::default()));
        let shared = Arc::clone(&told);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                note(&mut lock(&shared), &line);
            }
        });
        let flow = Self {
            sender,
            _echo: echo,
            told,
            reader: Some(reader),
        };
        lab.wait("an answer to a datagram", Duration::from_secs(5), |_| {
            Ok((flow.totals().answers > 0).then_some(()))
        })?;
        Ok(flow)
    }

    pub(super) fn totals(&self) -> Totals {
        lock(&self.told).totals
    }

    /// The longest time without an answer since `from_ns`, as far as it can be told now.
    pub(super) fn outage(&self, from_ns: u64) -> Outage {
        let until_ns = now_ns();
        // Answers come here in portions.
        std::thread::sleep(Duration::from_millis(80));
        let told = lock(&self.told);
        let since = told
            .recent
            .iter()
            .filter(|a| a.received_ns + 1_000_000_000 > from_ns);
        let record = Record {
            start_ns: told.start_ns,
            interval_ns: told.interval_ns,
            answers: since.copied().collect(),
            sent: None,
        };
        record.outage(from_ns, until_ns)
    }

    /// Whether there was an answer within so long.
    pub(super) fn answers(&self, within: Duration) -> bool {
        let last = lock(&self.told).recent.back().map_or(0, |a| a.received_ns);
        Duration::from_nanos(now_ns().saturating_sub(last)) < within
    }

    pub(super) fn finish(mut self) -> Result<Totals> {
        drop(self.sender.stdin());
        self.sender.wait(Duration::from_secs(10))?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok(self.totals())
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(told: &mut Told, line: &str) {
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    match (first, numbers.as_slice()) {
        ("start", [start, interval]) => {
            told.start_ns = *start;
            told.interval_ns = *interval;
        }
        ("sent", [count]) => told.totals.sent = *count,
        ("twice", _) => told.totals.twice += 1,
        ("wrong", _) => told.totals.wrong += 1,
        (seq, [sent_ns, received_ns, bytes]) => {
            told.totals.answers += 1;
            told.totals.bytes += bytes;
            told.recent.push_back(Answer {
                seq: seq.parse().unwrap_or_default(),
                sent_ns: *sent_ns,
                received_ns: *received_ns,
            });
            if told.recent.len() > KEPT {
                told.recent.pop_front();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_and_one_wrong_byte_is_found() {
        for seq in [0, 1, 77, u64::MAX] {
            let made = datagram(seq, 5);
            assert!(made.len() < MOST as usize);
            assert_eq!(read(&made), Ok((seq, 5)));
            assert!(read(&made[..made.len() - 1]).is_err());
            for at in (0..HEAD - 8).chain(HEAD..made.len()) {
                let mut other = made.clone();
                other[at] ^= 1;
                assert!(read(&other).is_err(), "{seq}: {at}");
            }
        }
        assert_eq!(read(b"short"), Err(u64::MAX));
    }

    #[test]
    fn lines_are_counted() {
        let mut told = Told::default();
        for line in [
            "start 5 2",
            "0 6 7 100",
            "1 8 9 50",
            "twice 1",
            "wrong 7",
            "sent 9",
        ] {
            note(&mut told, line);
        }
        let totals = told.totals;
        assert_eq!((totals.answers, totals.bytes, totals.sent), (2, 150, 9));
        assert_eq!((totals.twice, totals.wrong, told.recent.len()), (1, 1, 2));
    }
}
