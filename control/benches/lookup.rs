//! The session of an inbound SPI, among 1, 1,000 and 1,000,000: nanoseconds for each look-up, in random
//! order, the session's first data read. With SPIs as IKE draws them, which say where the session lies, and
//! with others, which have to be looked up.

use std::hint::black_box;
use std::time::Instant;

use evergate::dataplane::trial::Table;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

const LOOK_UPS: usize = 1_000_000;
const ROUNDS: usize = 7;

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let most = if quick { 1000 } else { 1_000_000 };
    println!("{:<12} {:>10} {:>10}", "sessions", "drawn, ns", "other, ns");
    for count in [1, 1000, 1_000_000]
        .into_iter()
        .filter(|count| *count <= most)
    {
        let [drawn, other] = [true, false].map(|drawn| measured(count, drawn));
        println!("{count:<12} {drawn:>10.1} {other:>10.1}");
    }
}

/// The median of the rounds.
fn measured(count: u32, drawn: bool) -> f64 {
    let (table, spis) = Table::new(count, drawn);
    let mut rng = StdRng::seed_from_u64(2);
    let order: Vec<u32> = (0..LOOK_UPS)
        .filter_map(|_| spis.choose(&mut rng).copied())
        .collect();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for spi in &order {
                black_box(table.find(black_box(*spi))).expect("it is there");
            }
            start.elapsed().as_nanos() as f64 / order.len() as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}
