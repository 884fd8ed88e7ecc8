//! Which faults come when: all of it follows from the seed, nothing from what happens in a run.
//!
//! Faults come in rounds. In a round one gateway is left alone; after it everything is whole again
//! for a while. Two rounds of three have one fault only, and so tell how long that one lasts.

use crate::lab::Place;
use crate::lab::topology::GATEWAYS;
use serde::Serialize;
use std::time::Duration;

/// What can be done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// SIGKILL, and a start.
    Kill,
    /// SIGTERM, and a start.
    Terminate,
    /// SIGSTOP and SIGCONT, of a gateway or of the client.
    Freeze,
    /// A cable is pulled out of the switch, or the node takes its interface down.
    LanPulled,
    LanDown,
    WanPulled,
    WanDown,
    /// The client's own cable.
    ClientLink,
    /// The client goes to another network, and comes back.
    Moves,
    /// Packets of one direction are dropped: all, or so many per cent.
    NothingTo,
    NothingFrom,
    LossTo,
    LossFrom,
    /// A smaller MTU of the node's outside interface, or of the path.
    Mtu,
    MtuPath,
    /// The client's policy is read again: another order, one gateway less and then again all, or
    /// something that is no policy.
    Reorder,
    Fewer,
    Broken,
    Drain,
    /// What the node keeps and logs has no room any more.
    DiskFull,
    /// The node can open nothing any more.
    NoDescriptors,
    /// CLOCK_REALTIME of the node leaps.
    Clock,
}

impl Kind {
    pub(crate) const ALL: [Self; 22] = [
        Self::Kill,
        Self::Terminate,
        Self::Freeze,
        Self::LanPulled,
        Self::LanDown,
        Self::WanPulled,
        Self::WanDown,
        Self::ClientLink,
        Self::Moves,
        Self::NothingTo,
        Self::NothingFrom,
        Self::LossTo,
        Self::LossFrom,
        Self::Mtu,
        Self::MtuPath,
        Self::Reorder,
        Self::Fewer,
        Self::Broken,
        Self::Drain,
        Self::DiskFull,
        Self::NoDescriptors,
        Self::Clock,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "killed and started",
            Self::Terminate => "ended and started",
            Self::Freeze => "frozen",
            Self::LanPulled => "LAN cable pulled",
            Self::LanDown => "LAN interface down",
            Self::WanPulled => "WAN cable pulled",
            Self::WanDown => "WAN interface down",
            Self::ClientLink => "own cable pulled",
            Self::Moves => "moves and comes back",
            Self::NothingTo => "nothing gets there",
            Self::NothingFrom => "nothing comes back",
            Self::LossTo => "loss on the way there",
            Self::LossFrom => "loss on the way back",
            Self::Mtu => "smaller MTU",
            Self::MtuPath => "smaller MTU of the path",
            Self::Reorder => "policy: other order",
            Self::Fewer => "policy: a gateway less",
            Self::Broken => "policy: broken",
            Self::Drain => "drained",
            Self::DiskFull => "disk full",
            Self::NoDescriptors => "no descriptors left",
            Self::Clock => "clock leaps",
        }
    }

    /// Faults of one group exclude each other at one place.
    fn group(self) -> u8 {
        match self {
            Self::Kill | Self::Terminate | Self::Freeze | Self::Drain => 0,
            Self::LanPulled | Self::LanDown => 1,
            Self::WanPulled | Self::WanDown | Self::ClientLink | Self::Moves => 2,
            Self::NothingTo | Self::NothingFrom | Self::LossTo | Self::LossFrom => 3,
            Self::Mtu => 2,
            Self::MtuPath => 4,
            // These need a process that listens.
            Self::Reorder | Self::Fewer | Self::Broken | Self::NoDescriptors => 0,
            Self::DiskFull => 5,
            Self::Clock => 6,
        }
    }

    /// Where it can happen.
    fn places(self) -> &'static [Place] {
        const GATEWAY: &[Place] = &[Place::Gateway(1), Place::Gateway(2), Place::Gateway(3)];
        const NODE: &[Place] = &[
            Place::Gateway(1),
            Place::Gateway(2),
            Place::Gateway(3),
            Place::Client,
        ];
        match self {
            Self::ClientLink | Self::Moves | Self::Reorder | Self::Fewer | Self::Broken => {
                &[Place::Client]
            }
            Self::MtuPath => &[Place::Wan],
            Self::Freeze | Self::Mtu | Self::DiskFull | Self::NoDescriptors | Self::Clock => NODE,
            _ => GATEWAY,
        }
    }

    /// How long it lasts, in milliseconds, from and below.
    fn lasts(self) -> (u64, u64) {
        match self {
            // The applications of a client wait for it, and so does the measure of the outage.
            Self::ClientLink => (50, 1500),
            Self::MtuPath => (300, 1500),
            Self::Reorder | Self::Broken => (0, 1),
            _ => (300, 3000),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    #[serde(serialize_with = "as_text")]
    pub(crate) place: Place,
    /// Since the round began.
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    /// Of what there is more and less: per cent, an MTU, a gateway's number, a seed.
    pub(crate) amount: u64,
}

fn as_text<S: serde::Serializer>(place: &Place, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(place)
}

/// Faults that come together, and the time after them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Round {
    pub(crate) number: usize,
    /// Since the run began.
    pub(crate) at: Duration,
    /// The gateway that nothing is done to.
    pub(crate) spared: u8,
    pub(crate) faults: Vec<Fault>,
    /// How long the round is, since it began.
    pub(crate) length: Duration,
}

/// Everything is whole for so long at the end of a round.
pub(crate) const CALM: Duration = Duration::from_millis(2500);

/// All rounds of a seed, one after the other, without end.
pub(crate) struct Plan {
    chance: Chance,
    next: usize,
    at: Duration,
    deck: Vec<Kind>,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            chance: Chance(seed),
            next: 0,
            at: Duration::ZERO,
            deck: Vec::new(),
        }
    }

    /// Every kind once, in an order by chance, then again.
    fn draw(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.deck = Kind::ALL.to_vec();
            for left in (1..self.deck.len()).rev() {
                let other = self.chance.below(left as u64 + 1) as usize;
                self.deck.swap(left, other);
            }
        }
        self.deck.pop().unwrap_or(Kind::Kill)
    }

    fn fault(&mut self, spared: u8, alone: bool) -> Fault {
        let kind = self.draw();
        let places: Vec<Place> = kind
            .places()
            .iter()
            .copied()
            .filter(|place| *place != Place::Gateway(spared))
            .collect();
        let place = places[self.chance.below(places.len() as u64) as usize];
        let from = match alone {
            true => Duration::ZERO,
            false => Duration::from_millis(self.chance.below(1500)),
        };
        let (least, most) = kind.lasts();
        let lasts = least + self.chance.below(most - least);
        // A frozen client can serve nobody: no longer than applications have patience.
        let lasts = match (kind, place) {
            (Kind::Freeze, Place::Client) => lasts / 4,
            _ => lasts,
        };
        let amount = match kind {
            Kind::LossTo | Kind::LossFrom => 5 + self.chance.below(60),
            Kind::Mtu | Kind::MtuPath => 1300 + self.chance.below(150),
            // One of the other two.
            Kind::Fewer => (u64::from(spared) + self.chance.below(2)) % 3 + 1,
            _ => self.chance.next(),
        };
        Fault {
            kind,
            place,
            from,
            until: from + Duration::from_millis(lasts),
            amount,
        }
    }
}

impl Iterator for Plan {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let spared = GATEWAYS[self.chance.below(3) as usize];
        let count = match self.chance.below(3) {
            0 => 2 + self.chance.below(4) as usize,
            _ => 1,
        };
        let (mut faults, mut aside) = (Vec::<Fault>::new(), Vec::new());
        while faults.len() < count {
            let fault = self.fault(spared, count == 1);
            let same = |f: &Fault| f.place == fault.place && f.kind.group() == fault.kind.group();
            if faults.iter().any(same) {
                aside.push(fault.kind);
            } else {
                faults.push(fault);
            }
        }
        self.deck.extend(aside);
        faults.sort_by_key(|fault| fault.from);
        let end = faults.iter().map(|f| f.until).max().unwrap_or_default();
        let round = Round {
            number: self.next,
            at: self.at,
            spared,
            faults,
            length: end + CALM,
        };
        self.next += 1;
        self.at += round.length;
        Some(round)
    }
}

/// Numbers by chance that stay the same whatever becomes of a library (SplitMix64).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_seed_says_all() {
        let rounds = |seed| Plan::new(seed).take(200).collect::<Vec<_>>();
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn one_gateway_is_left_alone_and_the_end_is_calm() {
        for seed in 0..50 {
            for round in Plan::new(seed).take(100) {
                for fault in &round.faults {
                    assert_ne!(fault.place, Place::Gateway(round.spared), "{round:?}");
                    assert!(fault.until + CALM <= round.length, "{round:?}");
                    assert!(fault.from <= fault.until);
                    if fault.kind == Kind::Fewer {
                        assert_ne!(fault.amount, u64::from(round.spared));
                        assert!((1..=3).contains(&fault.amount));
                    }
                }
                let at: HashSet<_> = round
                    .faults
                    .iter()
                    .map(|f| (f.place, f.kind.group()))
                    .collect();
                assert_eq!(at.len(), round.faults.len(), "{round:?}");
            }
        }
    }

    #[test]
    fn every_kind_comes_alone_at_every_place_and_together_with_others() {
        let (mut alone, mut together) = (HashSet::new(), HashSet::new());
        for round in Plan::new(1).take(2000) {
            let set = match round.faults.len() {
                1 => &mut alone,
                _ => &mut together,
            };
            set.extend(round.faults.iter().map(|f| (f.kind, f.place)));
        }
        let all: HashSet<_> = Kind::ALL
            .into_iter()
            .flat_map(|kind| kind.places().iter().map(move |place| (kind, *place)))
            .collect();
        assert_eq!(alone, all);
        assert_eq!(together, all);
    }

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        let mut chance = Chance(0);
        assert_eq!(chance.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(chance.next(), 0x6E78_9E6A_A1B9_65F4);
    }
}
