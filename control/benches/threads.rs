//! Handshakes per second of the `ike` room as responder, by how many threads they are spread over. A
//! bench of its own: to count memory, as the other one does, would have the threads wait for each other.

mod handshakes;

use handshakes::{Proven, measure};

fn main() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("  threads                         handshakes       each");
    for (name, proven, count) in [
        ("PSK, x25519", Proven::Psk, 4096),
        ("ECDSA P-256 both ways, x25519", Proven::Ecdsa, 2048),
    ] {
        let mut alone = None;
        for threads in (0..).map(|doublings| 1 << doublings) {
            if threads > cores {
                break;
            }
            let seconds = measure(proven, threads, count, || 0).0.as_secs_f64();
            let times = *alone.get_or_insert(seconds) / seconds;
            println!(
                "  {threads}, {name:<30} {:>5.0} /s {:>7.1} µs {times:>6.2} times one",
                1.0 / seconds,
                seconds * 1e6
            );
        }
    }
}
