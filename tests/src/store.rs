//! A repository's life, for those who write one, kill its writer, and measure it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use evergate::cluster::repository::{Outcome, Repository, Stored, Write};
use evergate::cluster::{EdgeId, Half, Kept, Pair};
use evergate::esp::Cipher;

/// Seconds since 1970, beyond the life of this code.
pub const LATE: u64 = 1 << 40;

/// The key of all repositories here.
pub const KEY: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";

/// So many pairs are written by [`write`].
pub const PAIRS: u64 = 300;

/// A pair as a client and an authority make it, with an SPI and keys that follow from a number.
#[must_use]
pub fn pair(number: u64) -> Pair {
    let spi = 0x0100_0000 + number as u32;
    let half = |spi: u32| Half {
        spi,
        cipher: Cipher::Aes256Gcm,
        key: [number.to_be_bytes(); 4].as_flattened().into(),
        salt: spi.to_be_bytes()[..].into(),
    };
    let inner = [
        10,
        128 + (number >> 16) as u8,
        (number >> 8) as u8,
        number as u8,
    ];
    Pair {
        client: format!("client{number}.example"),
        inner: vec![inner.into()],
        class: Some("staff".to_owned()),
        local: [192, 0, 2, 1].into(),
        remote: [198, 51, 100, number as u8].into(),
        encap: None,
        roams: false,
        initiator: false,
        lane: 0,
        own_port: false,
        inbound: half(spi),
        outbound: half(!spi),
        remote_inner: vec![std::net::IpAddr::from(inner).into()],
        local_inner: vec!["10.0.0.0/9".parse().expect("a network")],
        heartbeat_key: Some([number.to_be_bytes(); 2].as_flattened().into()),
        esn: true,
        replay_window: 1024,
        expires: LATE,
    }
}

/// Numbers of a pair that no other write has.
#[must_use]
pub fn kept(number: u64) -> Kept {
    Kept {
        term: number as u32,
        owner: Some(EdgeId(number as u16)),
        reserved: number,
        hard: number << 8,
        rekey: false,
    }
}

/// The write of this number, the same each time: of ten seven tell numbers, two a pair, one erases.
#[must_use]
pub fn write(number: u64) -> Write {
    // Which pair follows from the number, and looks as if it did not.
    let which = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let pair = pair(which % PAIRS);
    let spi = pair.spi();
    let kept = kept(number);
    match number % 10 {
        0 | 1 => Write::Pair {
            pair: Box::new(pair),
            kept,
        },
        2 => Write::Erase { spi },
        _ => Write::Kept { spi, kept },
    }
}

/// What a repository is, in the fewest words.
pub type Model = BTreeMap<u32, Stored>;

/// What a write makes of it.
pub fn apply(model: &mut Model, write: Write) {
    match write {
        Write::Pair { pair, kept } => {
            model.insert(pair.spi(), Stored { pair: *pair, kept });
        }
        Write::Kept { spi, kept } => {
            if let Some(stored) = model.get_mut(&spi) {
                stored.kept = kept;
            }
        }
        Write::Erase { spi } => {
            model.remove(&spi);
        }
        // IKE SAs are another table.
        Write::Ike(_) | Write::EraseIke { .. } => {}
    }
}

/// The first number from `least` on after which the model is what is stored, with `model` as it is after `at`.
pub fn reach(model: &mut Model, mut at: u64, least: u64, stored: &[Stored]) -> Option<u64> {
    let most = least + 100_000;
    while at < least || !model.values().eq(stored) {
        at += 1;
        apply(model, write(at));
        if at > most {
            return None;
        }
    }
    Some(at)
}

/// Writes numbers without end, from the first one on, so many on their way at a time. Every outcome is told.
pub async fn keep_writing(
    repository: &mut Repository,
    first: u64,
    width: usize,
    mut told: impl FnMut(&Outcome),
) -> String {
    let mut number = first;
    loop {
        while repository.waiting() < width {
            repository.write(number, write(number));
            number += 1;
        }
        let outcome = repository.next().await;
        told(&outcome);
        if let Outcome::Deposed { why } = outcome {
            return why;
        }
    }
}

/// How long writes took.
#[derive(Clone, Debug, Default)]
pub struct Times {
    sorted: Vec<Duration>,
    pub total: Duration,
}

impl Times {
    /// The time that this share (of a thousand) did not exceed.
    #[must_use]
    pub fn share(&self, thousandth: usize) -> Duration {
        let at = self.sorted.len().saturating_sub(1) * thousandth / 1000;
        self.sorted.get(at).copied().unwrap_or_default()
    }

    /// How many there were in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.total.as_secs_f64()
    }
}

/// Has all of these done, so many on their way at a time.
///
/// # Panics
/// The repository goes away.
pub async fn time(
    repository: &mut Repository,
    writes: impl IntoIterator<Item = Write>,
    width: usize,
) -> Times {
    let (mut writes, mut begun) = (writes.into_iter(), VecDeque::new());
    let (start, mut times) = (Instant::now(), Times::default());
    loop {
        while begun.len() < width
            && let Some(write) = writes.next()
        {
            repository.write(0, write);
            begun.push_back(Instant::now());
        }
        let Some(at) = begun.pop_front() else {
            break;
        };
        let outcome = repository.next().await;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        times.sorted.push(at.elapsed());
    }
    times.total = start.elapsed();
    times.sorted.sort_unstable();
    times
}
