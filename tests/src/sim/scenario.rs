//! What happens in a run.

use std::time::Duration;

use evergate::ike::Lifetime;
use evergate::liveness::Timing;
use evergate::policy::HeartbeatMode;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Clocks are wrong by no more than this, in millionths: ten times what a cheap crystal is.
pub(super) const DRIFT: i32 = 1000;

/// When keys are replaced. Both ends have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rekeying {
    /// After this time, less or more by chance.
    pub child: Duration,
    pub ike: Duration,
    /// And ESP keys after so many packets in one direction.
    pub packets: u64,
}

/// Of child SAs and IKE SAs.
pub(super) fn lifetimes(rekeying: Option<Rekeying>) -> (Option<Lifetime>, Option<Lifetime>) {
    let child = rekeying.map(|rekeying| Lifetime::new(rekeying.child));
    (child, rekeying.map(|rekeying| Lifetime::new(rekeying.ike)))
}

/// Something goes wrong with a gateway, or right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is gone, with all that it knew.
    Crash(usize),
    /// It comes back after a crash.
    Restart(usize),
    Freeze(usize),
    Thaw(usize),
    PullWan(usize),
    PullLan(usize),
    /// Nothing reaches it.
    Deafen(usize),
    /// Nothing comes from it.
    Mute(usize),
    /// Its links are well.
    Mend(usize),
    /// It lets go of its clients.
    Drain(usize),
    /// It takes clients again.
    Undrain(usize),
    /// So many of a thousand packets are lost from now on.
    Loss(u32),
    /// The clients read a policy without it, or with it again. The last one stays.
    Unlist(usize),
    List(usize),
    /// A client's own address is replaced.
    Move(usize),
    /// The NAT before a client is: nobody tells it.
    Remap(usize),
}

/// A run, but for chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub seed: u64,
    pub clients: usize,
    pub gateways: usize,
    pub standby: usize,
    pub timing: Timing,
    pub rekeying: Option<Rekeying>,
    /// Sessions are resumed by tickets that any gateway opens.
    pub tickets: bool,
    /// Clients are each behind a NAT.
    pub nat: bool,
    /// From one packet of a client's application to the next.
    pub pace: Duration,
    pub delay: Duration,
    /// More delay, by chance, up to this.
    pub jitter: Duration,
    /// How much faster the clocks of nodes go, clients first: millionths.
    pub drift: Vec<i32>,
    /// Of a thousand packets.
    pub loss: u32,
    pub doubled: u32,
    pub faults: Vec<(Duration, Fault)>,
    /// How long it goes on after the last fault, at most: longer than any promise takes.
    pub settle: Duration,
}

impl Scenario {
    /// Any scenario; the same for the same seed.
    pub fn random(seed: u64) -> Scenario {
        let mut rng = StdRng::seed_from_u64(seed);
        let ms = Duration::from_millis;
        let gateways = rng.random_range(2..=4);
        let mut scenario = Scenario {
            seed,
            clients: rng.random_range(1..=3),
            gateways,
            standby: rng.random_range(0..=1),
            timing: Timing {
                mode: match rng.random() {
                    true => HeartbeatMode::Instant,
                    false => HeartbeatMode::Deferred,
                },
                response_time: ms(rng.random_range(5..=50)),
                defer_time: ms(rng.random_range(5..=50)),
            },
            rekeying: None,
            tickets: rng.random(),
            nat: rng.random_range(0..3) == 0,
            pace: ms(rng.random_range(10..=100)),
            delay: Duration::from_micros(rng.random_range(50..=500)),
            jitter: Duration::from_micros(rng.random_range(0..=1000)),
            loss: match rng.random_range(0..4) {
                0 => rng.random_range(1..=20),
                _ => 0,
            },
            doubled: rng.random_range(0..=20),
            drift: Vec::new(),
            faults: Vec::new(),
            settle: Duration::from_secs(120),
        };
        let nodes = scenario.clients + gateways;
        scenario.drift = (0..nodes)
            .map(|_| rng.random_range(-DRIFT..=DRIFT))
            .collect();
        if rng.random() {
            scenario.rekeying = Some(Rekeying {
                child: ms(rng.random_range(1_000..=20_000)),
                ike: ms(rng.random_range(2_000..=40_000)),
                packets: rng.random_range(20..=1000),
            });
        }
        let mut at = Duration::from_secs(1);
        // A short story is soon told; in a long one things come together that have nothing to do with
        // each other.
        let faults = match rng.random_range(0..3) {
            0 => rng.random_range(20..=100),
            _ => rng.random_range(1..=6),
        };
        for _ in 0..faults {
            at += ms(rng.random_range(50..=3000));
            let g = rng.random_range(0..gateways);
            let c = rng.random_range(0..scenario.clients);
            let moves = |rng: &mut StdRng| match rng.random() {
                true => Fault::Move(c),
                false => Fault::Remap(c),
            };
            let (fault, undone) = match rng.random_range(0..12) {
                0 | 1 => (Fault::Crash(g), Fault::Restart(g)),
                2 => (Fault::Freeze(g), Fault::Thaw(g)),
                3 => (Fault::PullWan(g), Fault::Mend(g)),
                4 => (Fault::PullLan(g), Fault::Mend(g)),
                5 => (Fault::Deafen(g), Fault::Mend(g)),
                6 => (Fault::Mute(g), Fault::Mend(g)),
                7 => (Fault::Drain(g), Fault::Undrain(g)),
                8 => (Fault::Unlist(g), Fault::List(g)),
                9 | 10 => (moves(&mut rng), moves(&mut rng)),
                _ => (Fault::Loss(rng.random_range(0..=300)), Fault::Loss(0)),
            };
            scenario.faults.push((at, fault));
            let wait = ms(rng.random_range(100..=10_000));
            scenario.faults.push((at + wait, undone));
        }
        scenario.faults.sort_by_key(|(at, _)| *at);
        scenario
    }

    /// The longest wait of a client's key management.
    pub fn retry_cap(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// When the last fault is.
    pub fn last(&self) -> Duration {
        let last = self.faults.last().map(|(at, _)| *at);
        last.unwrap_or_default()
    }

    /// When the run is over, whatever is still waited for.
    pub fn end(&self) -> Duration {
        self.last() + self.settle
    }
}
