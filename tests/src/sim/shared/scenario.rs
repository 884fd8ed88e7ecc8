//! What happens in a run with an authority and its edges.

use std::time::Duration;

use evergate::cluster::Terms;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::scenario::Rekeying;

/// Clocks of edges and of the authority are wrong by no more than this, in millionths: two of them by less than
/// the 50 ms in a second that the rules allow.
const DRIFT: i32 = 20_000;

/// Something goes wrong, or right again. Edges and clients go by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process is killed; its kernel ends the connection.
    Kill(usize),
    /// The machine is gone, and nobody says so.
    Vanish(usize),
    /// The process is told to end.
    Stop(usize),
    /// It is started again, if it does not run.
    Start(usize),
    Freeze(usize),
    Thaw(usize),
    /// Nothing gets from the edge to the authority or back.
    Cut(usize),
    Join(usize),
    /// Links of an edge; all are well again.
    PullWan(usize),
    PullLan(usize),
    Mend(usize),
    /// It takes no pair any more, and gives all back after this time.
    Drain(usize, Duration),
    Undrain(usize),
    AuthorityKilled,
    AuthorityStopped,
    AuthorityStarts,
    AuthorityFrozen,
    AuthorityThawed,
    /// The repository keeps nothing.
    Away,
    Back,
    /// The router brings a client's packets to an edge; all clients'.
    Route(usize, usize),
    Herd(usize),
    /// So many of a thousand packets of each client go to any edge.
    Scatter(u32),
    /// A client's own address is replaced; that of the NAT before it.
    Move(usize),
    Remap(usize),
    /// So many of a thousand packets between clients and edges are lost.
    Loss(u32),
}

/// A run, but for chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub seed: u64,
    pub clients: usize,
    pub edges: usize,
    pub terms: Terms,
    /// Pairs go to all edges; else to the one that the client was heard by.
    pub everywhere: bool,
    pub rekeying: Option<Rekeying>,
    pub nat: bool,
    /// From one packet of a client's application to the next.
    pub pace: Duration,
    /// Between clients and edges, and more by chance up to `jitter`.
    pub delay: Duration,
    pub jitter: Duration,
    /// From an edge to the authority, the same.
    pub channel: Duration,
    /// What the repository takes to write, at most.
    pub write: Duration,
    /// How much faster clocks go, in millionths: the authority's, the edges', the clients'.
    pub drift: Vec<i32>,
    /// Of a thousand packets: lost; come twice, at two edges or one; repeated later to any edge by somebody.
    pub loss: u32,
    pub doubled: u32,
    pub repeated: u32,
    pub troubles: Vec<(Duration, Trouble)>,
    /// The channel takes every end of a connection for that of a process: a lie, for tests.
    pub lies: bool,
    /// Edges have notaries.
    pub notaries: bool,
    /// How long it goes on after the last one, at most.
    pub settle: Duration,
}

impl Scenario {
    /// Any scenario; the same for the same seed.
    #[must_use]
    pub fn random(seed: u64) -> Scenario {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let ms = Duration::from_millis;
        let (clients, edges) = (rng.random_range(1..=3), rng.random_range(2..=4));
        let mut scenario = Scenario {
            seed,
            clients,
            edges,
            terms: terms(rng),
            everywhere: rng.random_range(0..3) != 0,
            rekeying: None,
            nat: rng.random_range(0..3) == 0,
            pace: ms(rng.random_range(2..=40)),
            delay: Duration::from_micros(rng.random_range(50..=500)),
            jitter: Duration::from_micros(rng.random_range(0..=1000)),
            channel: Duration::from_micros(rng.random_range(30..=500)),
            write: Duration::from_micros(rng.random_range(100..=10_000)),
            drift: Vec::new(),
            loss: match rng.random_range(0..6) {
                0 => rng.random_range(1..=20),
                _ => 0,
            },
            doubled: rng.random_range(0..=20),
            repeated: [0, 20, 100][rng.random_range(0..3)],
            troubles: Vec::new(),
            lies: false,
            notaries: false,
            settle: Duration::from_secs(120),
        };
        scenario.drift = (0..=edges + clients)
            .map(|_| rng.random_range(-DRIFT..=DRIFT))
            .collect();
        if rng.random() {
            scenario.rekeying = Some(Rekeying {
                child: ms(rng.random_range(1_000..=20_000)),
                ike: ms(rng.random_range(2_000..=40_000)),
                packets: rng.random_range(50..=2000),
            });
        }
        match rng.random_range(0..4) {
            0 => scenario.draw_one_by_one(rng),
            _ => scenario.draw(rng),
        }
        scenario.notaries = rng.random();
        scenario
    }

    /// One thing after the other, with time enough that the rules say how soon it is over.
    fn draw_one_by_one(&mut self, rng: &mut StdRng) {
        let ms = Duration::from_millis;
        (self.rekeying, self.terms, self.everywhere) = (None, Terms::default(), true);
        self.loss = 0;
        if rng.random() {
            (self.doubled, self.repeated) = (0, 0);
        }
        let (mut at, mut here) = (Duration::ZERO, 0);
        for _ in 0..rng.random_range(2..=10) {
            at += ms(rng.random_range(3500..=6000));
            let over = at + ms(rng.random_range(30..=1500));
            let next = (here + rng.random_range(1..self.edges)) % self.edges;
            let elsewhere = at + ms(rng.random_range(0..=60));
            let (trouble, undone, moves) = match rng.random_range(0..7) {
                0..=2 => (Trouble::Kill(here), Trouble::Start(here), true),
                3 => (Trouble::Herd(next), Trouble::Herd(next), true),
                4 => (Trouble::AuthorityFrozen, Trouble::AuthorityThawed, false),
                5 => (Trouble::Cut(here), Trouble::Join(here), false),
                _ => (Trouble::Away, Trouble::Back, false),
            };
            self.troubles.push((at, trouble));
            if moves {
                self.troubles.push((elsewhere, Trouble::Herd(next)));
                here = next;
            }
            self.troubles.push((over, undone));
        }
        self.troubles.sort_by_key(|(at, _)| *at);
    }

    fn draw(&mut self, rng: &mut StdRng) {
        let ms = Duration::from_millis;
        let mut at = Duration::from_secs(1);
        let count = match rng.random_range(0..3) {
            0 => rng.random_range(20..=80),
            _ => rng.random_range(1..=6),
        };
        for _ in 0..count {
            at += ms(rng.random_range(20..=2500));
            let e = rng.random_range(0..self.edges);
            let c = rng.random_range(0..self.clients);
            let over = at + ms(rng.random_range(30..=6000));
            // What brings a client's packets to edges sees for the most part that one is gone.
            let elsewhere = at + ms(rng.random_range(0..=60));
            let other = (e + rng.random_range(1..self.edges)) % self.edges;
            let mut both = |trouble, undone| {
                self.troubles.push((at, trouble));
                self.troubles.push((over, undone));
            };
            match rng.random_range(0..24) {
                0..=5 => both(Trouble::Kill(e), Trouble::Start(e)),
                6 => both(Trouble::Vanish(e), Trouble::Start(e)),
                7 => both(Trouble::Stop(e), Trouble::Start(e)),
                8 | 9 => both(Trouble::Freeze(e), Trouble::Thaw(e)),
                10 | 11 => both(Trouble::Cut(e), Trouble::Join(e)),
                12 => both(Trouble::PullWan(e), Trouble::Mend(e)),
                13 => both(Trouble::PullLan(e), Trouble::Mend(e)),
                14 => {
                    let patience = ms(rng.random_range(0..=3000));
                    both(Trouble::Drain(e, patience), Trouble::Undrain(e));
                }
                15 => both(Trouble::AuthorityKilled, Trouble::AuthorityStarts),
                16 => both(Trouble::AuthorityStopped, Trouble::AuthorityStarts),
                17 => both(Trouble::AuthorityFrozen, Trouble::AuthorityThawed),
                18 => both(Trouble::Away, Trouble::Back),
                19 => self.troubles.push((at, Trouble::Route(c, e))),
                20 => {
                    for turn in 0..rng.random_range(1..=20) {
                        let e = rng.random_range(0..self.edges);
                        let at = at + ms(turn * rng.random_range(1..=60));
                        self.troubles.push((at, Trouble::Herd(e)));
                    }
                }
                21 => {
                    let some = rng.random_range(1..=900);
                    both(Trouble::Scatter(some), Trouble::Scatter(0));
                }
                22 => {
                    let moved = match rng.random() {
                        true => Trouble::Move(c),
                        false => Trouble::Remap(c),
                    };
                    self.troubles.push((at, moved));
                }
                _ => both(
                    Trouble::Loss(rng.random_range(0..=300)),
                    Trouble::Loss(self.loss),
                ),
            }
            let last = self.troubles.last().map(|(_, trouble)| *trouble);
            let gone = matches!(
                last,
                Some(Trouble::Start(_) | Trouble::Thaw(_) | Trouble::Undrain(_) | Trouble::Mend(_))
            );
            if gone && rng.random_range(0..8) != 0 {
                for c in 0..self.clients {
                    self.troubles.push((elsewhere, Trouble::Route(c, other)));
                }
            }
        }
        self.troubles.sort_by_key(|(at, _)| *at);
    }

    /// When the last trouble is.
    #[must_use]
    pub fn last(&self) -> Duration {
        let last = self.troubles.last().map(|(at, _)| *at);
        last.unwrap_or_default()
    }
}

/// As nodes have them, or with few numbers, so that they run out.
fn terms(rng: &mut StdRng) -> Terms {
    let usual = Terms::default();
    match rng.random_range(0..3) {
        0 => {
            let block = rng.random_range(16..=256);
            let reserve = rng.random_range(64..=2048);
            Terms {
                block,
                chunk: block * rng.random_range(2..=16),
                most_margin: reserve.min(usual.most_margin) / 2,
                reserve,
                ..usual
            }
        }
        _ => usual,
    }
}
