//! The tables `[esp]` and `[ike]`: algorithms, timers and sizes.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use zeroize::Zeroizing;

use crate::ike::{BadProposal, EspProposal, IkeProposal, TicketKey};

use super::check::{Checker, TOP};
use super::file::{self, List, Table, choices};
use super::{Esp, Ike, Psk, secret};

/// More proposals than this are nobody's wish.
const MOST_PROPOSALS: usize = 16;

/// More ticket keys than this are older than any ticket.
const MOST_TICKET_KEYS: usize = 16;

/// Reads a file of ticket keys: 64 hexadecimal digits a line, the current key first. Empty lines and
/// those that begin with `#` do not count. The error never quotes a key.
fn read_ticket_keys(path: &Path) -> Result<Vec<TicketKey>, String> {
    let shown = path.display();
    let bytes = secret::read_private(path, 4096)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{shown} is not text"))?;
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let expected = "expected 64 hexadecimal digits, as `evergate ticket-key` makes them";
        let wrong = || format!("{shown}:{number}: found something else, {expected}");
        let digits = Zeroizing::new(format!("0x{}", line.trim_start_matches("0x")));
        let read = Psk::from_text(&digits).map_err(|_| wrong())?;
        keys.push(TicketKey::new(read.as_bytes()).ok_or_else(wrong)?);
    }
    match keys.len() {
        1..=MOST_TICKET_KEYS => Ok(keys),
        found => Err(format!(
            "{shown}: found {found} keys, expected 1 to {MOST_TICKET_KEYS}"
        )),
    }
}

impl Checker<'_> {
    pub(super) fn esp(&mut self, table: Table<file::Esp>) -> Esp {
        let table = self.table(table);
        let at = table.replay_window.as_ref().map_or(TOP, Spanned::span);
        let window = self.number(table.replay_window, "esp.replay_window", 1024..=131_072);
        let window = window.and_then(|w| u32::try_from(w).ok()).unwrap_or(4096);
        if !window.is_power_of_two() {
            let (below, above) = (window.next_power_of_two() / 2, window.next_power_of_two());
            self.error(
                &at,
                format!(
                    "esp.replay_window: found {window}, expected a power of two \
                such as {below} or {above}"
                ),
            );
        }
        let workers = self.number(table.workers, "esp.workers", 1..=64);
        Esp {
            workers: workers.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            proposals: self
                .proposals(table.proposals, "esp.proposals")
                .unwrap_or_else(|| vec![EspProposal::default()]),
            backend: self.named_or(table.backend, "esp.backend"),
            replay_window: window,
        }
    }

    /// The proposals of a list; `None` if there is no list, or something is wrong with it.
    fn proposals<P>(&mut self, list: List, key: &str) -> Option<Vec<P>>
    where
        P: FromStr<Err = BadProposal>,
    {
        let list = list?;
        let at = list.span();
        let list = list.into_inner();
        if list.is_empty() || list.len() > MOST_PROPOSALS {
            let found = list.len();
            let expected = format!("expected 1 to {MOST_PROPOSALS}");
            self.error(&at, format!("{key}: found {found} proposals, {expected}"));
            return None;
        }
        let read = list.iter().map(|text| {
            let said = match text.get_ref().parse() {
                Ok(proposal) => return Some(proposal),
                // With a guess at what was meant.
                Err(BadProposal::Unknown { found, known }) => {
                    format!("found `{found}`, {}", choices(&found, &known))
                }
                Err(other) => other.to_string(),
            };
            let whole = text.get_ref();
            self.error(&text.span(), format!("{key}: `{whole}`: {said}"));
            None
        });
        // All of them are judged, before the first bad one spoils the list.
        let read: Vec<Option<P>> = read.collect();
        read.into_iter().collect()
    }

    /// The keys in a file, one a line.
    fn ticket_keys(&mut self, file: &Spanned<String>) -> Option<Vec<TicketKey>> {
        match read_ticket_keys(&self.beside(file.get_ref())) {
            Ok(keys) => Some(keys),
            Err(said) => {
                self.error(&file.span(), format!("ike.ticket_keys: {said}"));
                None
            }
        }
    }

    pub(super) fn ike(&mut self, table: Table<file::Ike>) -> Ike {
        let table = self.table(table);
        let range = Duration::from_millis(10)..=Duration::from_secs(60);
        let retransmit = self.time(table.retransmit, "ike.retransmit", range);
        let range = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
        let liveness = self.time(table.liveness, "ike.liveness", range);
        let tries = self.number(table.tries, "ike.tries", 1..=20);
        let range = Duration::from_secs(1)..=Duration::from_secs(3600);
        let keep_alive = self.time(table.keep_alive, "ike.keep_alive", range);
        let range = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);
        let rekey_child = self.time(table.rekey_child, "ike.rekey_child", range.clone());
        let rekey_ike = self.time(table.rekey_ike, "ike.rekey_ike", range);
        let jitter = self.number(table.rekey_jitter, "ike.rekey_jitter", 0..=50);
        let range = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);
        let reauth = self.time(table.reauth, "ike.reauth", range);
        let ticket_keys = table.ticket_keys.and_then(|file| self.ticket_keys(&file));
        let bytes = self.number(table.rekey_bytes, "ike.rekey_bytes", 1_000_000..=i64::MAX);
        // Half of what an SA without extended sequence numbers has: the other end may be late.
        let packets = self.number(table.rekey_packets, "ike.rekey_packets", 1000..=1 << 31);
        let count = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok());
        let guard = self.number(table.guard, "ike.guard", 0..=1_000_000);
        let threads = self.number(table.threads, "ike.threads", 1..=64);
        let fragment_size = self.number(table.fragment_size, "ike.fragment_size", 576..=65535);
        Ike {
            proposals: self
                .proposals(table.proposals, "ike.proposals")
                .unwrap_or_else(|| vec![IkeProposal::default()]),
            fragment_size: fragment_size
                .and_then(|size| u16::try_from(size).ok())
                .unwrap_or(1280),
            retransmit: retransmit.unwrap_or(Duration::from_millis(200)),
            tries: tries
                .and_then(|tries| u32::try_from(tries).ok())
                .unwrap_or(4),
            liveness: liveness.unwrap_or(Duration::from_secs(30)),
            guard: guard
                .and_then(|guard| u32::try_from(guard).ok())
                .unwrap_or(1_000),
            threads: threads.and_then(|threads| usize::try_from(threads).ok()),
            encap: self.named_or(table.encap, "ike.encap"),
            mobike: table.mobike.is_none_or(Spanned::into_inner),
            keep_alive: keep_alive.unwrap_or(Duration::from_secs(20)),
            rekey_child: rekey_child.unwrap_or(Duration::from_secs(3600)),
            rekey_ike: rekey_ike.unwrap_or(Duration::from_secs(4 * 3600)),
            rekey_jitter: jitter.and_then(|p| u8::try_from(p).ok()).unwrap_or(10),
            reauth,
            ticket_keys: ticket_keys.unwrap_or_default(),
            rekey_bytes: count(bytes).unwrap_or(1 << 38),
            rekey_packets: count(packets).unwrap_or(1 << 31),
        }
    }
}
