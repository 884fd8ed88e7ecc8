//! How many bytes a pair of SAs has carried, on all edges together: `ike.rekey_bytes` is about that.

use serde::{Deserialize, Serialize};

use super::{EdgeId, Run};

/// Bytes that an edge does not tell of until there are more.
const STEP: u64 = 64 << 10;

/// Bytes of inner packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Volume {
    pub inbound: u64,
    pub outbound: u64,
}

impl Volume {
    /// Whether it is so much more than what was told last that it is to be told.
    #[must_use]
    pub fn is_news(&self, told: &Self) -> bool {
        let more = |now: u64, then: u64| now.saturating_sub(then) >= STEP;
        more(self.inbound, told.inbound) || more(self.outbound, told.outbound)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            inbound: self.inbound.saturating_add(other.inbound),
            outbound: self.outbound.saturating_add(other.outbound),
        }
    }
}

/// What edges have said of one pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volumes {
    /// The last word of each edge, which counts from where its process began to have the pair.
    of: Vec<(EdgeId, Run, Volume)>,
    /// What was carried before those began.
    earlier: Volume,
}

impl Volumes {
    /// An edge has carried so much since it has the pair.
    pub fn told(&mut self, edge: EdgeId, run: Run, volume: Volume) {
        let Some(last) = self.of.iter_mut().find(|(number, ..)| *number == edge) else {
            return self.of.push((edge, run, volume));
        };
        let (_, before, so_far) = *last;
        // A pair that was dropped and has come again is counted from nothing.
        let anew = volume.inbound < so_far.inbound || volume.outbound < so_far.outbound;
        if before != run || anew {
            self.earlier = self.earlier.plus(so_far);
        }
        *last = (edge, run, volume);
    }

    /// Bytes in the direction that has more of them.
    #[must_use]
    pub fn most(&self) -> u64 {
        let all = self.of.iter().map(|(.., volume)| *volume);
        let sum = all.fold(self.earlier, Volume::plus);
        sum.inbound.max(sum.outbound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn volume(inbound: u64, outbound: u64) -> Volume {
        Volume { inbound, outbound }
    }

    #[test]
    fn little_is_not_told() {
        let told = volume(1_000_000, 2_000_000);
        for (now, expected) in [
            (told, false),
            (volume(1_000_000 + STEP - 1, 2_000_000 + STEP - 1), false),
            (volume(1_000_000 + STEP, 2_000_000), true),
            (volume(1_000_000, 2_000_000 + STEP), true),
            (volume(0, 0), false),
        ] {
            assert_eq!(now.is_news(&told), expected, "{now:?}");
        }
    }

    #[test]
    fn all_edges_and_all_their_lives_count() {
        let mut volumes = Volumes::default();
        assert_eq!(volumes.most(), 0);
        for (edge, run, said, most) in [
            (1, 1, volume(100, 10), 100),
            (2, 7, volume(50, 200), 210),
            // The last word of an edge is the one that counts.
            (1, 1, volume(400, 20), 450),
            (1, 1, volume(400, 20), 450),
            // Its process died, and what it had carried stays.
            (1, 2, volume(500, 0), 950),
            // It had to drop the pair, and has got it again.
            (1, 2, volume(30, 0), 980),
            (2, 7, volume(u64::MAX, 200), u64::MAX),
        ] {
            volumes.told(EdgeId(edge), Run(run), said);
            assert_eq!(volumes.most(), most, "{edge} {run} {said:?}");
        }
    }
}
