//! Sealing and opening of ESP packets, by library: nanoseconds a packet, side by side.
//!
//! Every round runs every case, so that a busy machine slows all alike; the tables show the median of the
//! rounds, and of each round's ratio to `ring`. Packets lie in frames as a worker's do, 32 of
//! them: a burst. They belong to one SA, or each to an SA of its own. The same packets are sealed and opened by
//! the library alone, and as a whole: with header, padding, sequence number, replay window and all checks.
//!
//! `cargo bench -p evergate --bench aead --features aws-lc,ipsec-mb` has all libraries.

use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use evergate::esp::{
    Aead, Backend, Cipher, InboundSa, Key, NEXT_IPV4, OutboundSa, Salt, TAG_LEN, Window,
};

const BURST: usize = 32;
const HEADROOM: usize = 64;
const SIZES: [usize; 4] = [64, 256, 1024, 1400];
const ROUNDS: usize = 15;

type Frame = [u8; 2048];

/// What is timed: one burst, and how to make it ready.
trait Case {
    fn ready(&mut self) {}
    fn run(&mut self);
}

fn aead(backend: Backend, number: usize) -> Aead {
    let cipher = Cipher::Aes256Gcm;
    let mut key = vec![7; cipher.key_len()];
    key[..8].copy_from_slice(&number.to_be_bytes());
    let key = Key::new(&key).expect("an allowed length");
    Aead::new(backend, cipher, &key).expect("the right length")
}

fn frames(size: usize) -> Vec<Frame> {
    let mut frame = [0; 2048];
    let packet = &mut frame[HEADROOM..HEADROOM + size];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(size as u16).to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..20].copy_from_slice(&[10, 99, 0, 7, 10, 0, 0, 1]);
    vec![frame; BURST]
}

/// The library alone, over as many bytes as in an ESP packet.
struct Alone {
    keys: Vec<Aead>,
    frames: Vec<Frame>,
    data: Range<usize>,
    counter: u64,
    opens: bool,
}

impl Alone {
    fn nonce(&self, at: usize) -> [u8; 12] {
        let mut nonce = [1; 12];
        nonce[4..].copy_from_slice(&(self.counter + at as u64).to_be_bytes());
        nonce
    }

    fn seal(&mut self) {
        self.counter += BURST as u64;
        for at in 0..BURST {
            let nonce = self.nonce(at);
            let keys = self.keys.len();
            let key = &mut self.keys[at % keys];
            let (data, tag) = self.frames[at].split_at_mut(self.data.end);
            let sealed = key.seal_in_place(&nonce, &[9; 12], &mut data[self.data.start..]);
            tag[..TAG_LEN].copy_from_slice(&sealed.expect("short"));
        }
    }
}

impl Case for Alone {
    fn ready(&mut self) {
        if self.opens {
            self.seal();
        }
    }

    fn run(&mut self) {
        if !self.opens {
            return self.seal();
        }
        for at in 0..BURST {
            let nonce = self.nonce(at);
            let keys = self.keys.len();
            let key = &mut self.keys[at % keys];
            let sealed = &mut self.frames[at][self.data.start..self.data.end + TAG_LEN];
            black_box(key.open_in_place(&nonce, &[9; 12], sealed)).expect("authentic");
        }
    }
}

/// The whole work of an SA.
struct Whole {
    senders: Vec<OutboundSa>,
    receivers: Vec<InboundSa>,
    plain: Vec<Frame>,
    frames: Vec<Frame>,
    inner: Range<usize>,
    esp: Range<usize>,
    opens: bool,
}

impl Whole {
    fn seal(&mut self) {
        for at in 0..BURST {
            let sas = self.senders.len();
            let sealed =
                self.senders[at % sas].seal(&mut self.frames[at], self.inner.clone(), NEXT_IPV4);
            self.esp = sealed.expect("room");
        }
    }
}

impl Case for Whole {
    fn ready(&mut self) {
        self.frames.clone_from(&self.plain);
        if self.opens {
            self.seal();
        }
    }

    fn run(&mut self) {
        if !self.opens {
            return self.seal();
        }
        for at in 0..BURST {
            let sas = self.receivers.len();
            let opened = self.receivers[at % sas].open(&mut self.frames[at], self.esp.clone());
            black_box(opened).expect("authentic");
        }
    }
}

fn case(backend: Backend, size: usize, sas: usize, opens: bool, whole: bool) -> Box<dyn Case> {
    let keys = || (0..sas).map(|number| aead(backend, number));
    let frames = frames(size);
    if !whole {
        let data = HEADROOM..HEADROOM + (size + 2).next_multiple_of(4);
        return Box::new(Alone {
            keys: keys().collect(),
            frames,
            data,
            counter: 0,
            opens,
        });
    }
    let salt = || Salt::from([1; 4]);
    let window = || Window::new(Window::DEFAULT).expect("an allowed size");
    Box::new(Whole {
        senders: keys()
            .map(|key| OutboundSa::new(0x1000, key, salt(), true, 0))
            .collect(),
        receivers: keys()
            .map(|key| InboundSa::new(0x1000, key, salt(), true, window()))
            .collect(),
        plain: frames.clone(),
        frames,
        inner: HEADROOM..HEADROOM + size,
        esp: 0..0,
        opens,
    })
}

/// Nanoseconds a packet, of many bursts.
fn measured(case: &mut dyn Case, bursts: usize) -> f64 {
    let mut spent = Duration::ZERO;
    for _ in 0..bursts {
        case.ready();
        let start = Instant::now();
        case.run();
        spent += start.elapsed();
    }
    spent.as_nanos() as f64 / (bursts * BURST) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let (rounds, bursts) = if quick { (1, 2) } else { (ROUNDS, 400) };
    for whole in [false, true] {
        let what = if whole {
            "the whole work of an SA"
        } else {
            "the AEAD alone"
        };
        println!("\nAES-256-GCM, {what}: ns a packet, median of {rounds} rounds (ratio to ring)");
        print!("{:<26}", "");
        for backend in Backend::ALL {
            print!("{:>18}", format!("{backend:?}"));
        }
        println!();
        for opens in [false, true] {
            for size in SIZES {
                for sas in [1, BURST] {
                    row(whole, opens, size, sas, rounds, bursts);
                }
            }
        }
    }
}

fn row(whole: bool, opens: bool, size: usize, sas: usize, rounds: usize, bursts: usize) {
    let mut cases: Vec<_> = Backend::ALL
        .iter()
        .map(|&backend| (case(backend, size, sas, opens, whole), Vec::new()))
        .collect();
    for _ in 0..rounds {
        for (case, times) in &mut cases {
            times.push(measured(case.as_mut(), bursts));
        }
    }
    let verb = if opens { "open" } else { "seal" };
    let of = if sas == 1 { "one SA" } else { "32 SAs" };
    print!("{:<26}", format!("{verb} {size} bytes, {of}"));
    let ring = cases[0].1.clone();
    for (_, times) in cases {
        let ratio = median(
            times
                .iter()
                .zip(&ring)
                .map(|(ns, ring)| ns / ring)
                .collect(),
        );
        print!("{:>18}", format!("{:.0} ({ratio:.2})", median(times)));
    }
    println!();
}
