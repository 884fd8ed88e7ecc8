//! The table of slots: rendezvous hashing, so that all fronts come to the same, and only what led to a node
//! that goes moves when it goes.

use evergate_common::front::{NO_NODE, SLOTS};

use super::Standing;

/// Which node each slot of clients leads to.
pub struct Slots {
    leads_to: Vec<u8>,
    wanted: Vec<u8>,
    nodes: Vec<(u8, Standing)>,
    /// Where the search for slots that are elsewhere than wanted goes on.
    next: usize,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            leads_to: vec![NO_NODE; SLOTS as usize],
            wanted: vec![NO_NODE; SLOTS as usize],
            nodes: Vec::new(),
            next: 0,
        }
    }
}

impl Slots {
    /// Takes in who has which standing now, and yields the slots that lead elsewhere from now on. What leads
    /// to somebody who should not have it moves at once. What leads to one node and would rather lead to
    /// another (that has come back) moves a few slots at each call, `pace` at most: their clients are claimed
    /// one after the other.
    pub fn change(&mut self, nodes: &[(u8, Standing)], pace: usize) -> Vec<(u32, u8)> {
        let mut changed = Vec::new();
        if self.nodes != nodes {
            self.nodes = nodes.to_vec();
            self.aim();
            let keeps = keeps(nodes);
            let all = (0..).zip(self.leads_to.iter_mut().zip(&self.wanted));
            for (slot, (leads_to, wanted)) in all {
                if leads_to != wanted && !keeps.contains(leads_to) {
                    *leads_to = *wanted;
                    changed.push((slot, *wanted));
                }
            }
        }
        let mut left = pace;
        for _ in 0..self.leads_to.len() {
            if left == 0 {
                break;
            }
            let at = self.next;
            self.next = (at + 1) % self.leads_to.len();
            let (leads_to, wanted) = (&mut self.leads_to[at], self.wanted[at]);
            if *leads_to != wanted {
                *leads_to = wanted;
                changed.push((at as u32, wanted));
                left -= 1;
            }
        }
        changed
    }

    /// Whether slots are still to move.
    pub fn is_moving(&self) -> bool {
        self.leads_to != self.wanted
    }

    /// How many slots lead to a node.
    pub fn share(&self, number: u8) -> usize {
        self.leads_to.iter().filter(|at| **at == number).count()
    }

    /// Where each slot should lead.
    fn aim(&mut self) {
        let best = self.nodes.iter().map(|(_, standing)| *standing).max();
        let best = best.unwrap_or(Standing::Dead);
        let takes: Vec<u8> = match best {
            Standing::Dead => Vec::new(),
            best => of(&self.nodes, |standing| standing == best),
        };
        for (slot, wanted) in (0..).zip(&mut self.wanted) {
            let first = takes
                .iter()
                .max_by_key(|number| (weight(slot, **number), **number));
            *wanted = first.copied().unwrap_or(NO_NODE);
        }
    }
}

/// Those who may keep what they have until it is their successor's turn.
fn keeps(nodes: &[(u8, Standing)]) -> Vec<u8> {
    of(nodes, |standing| standing >= Standing::Proving)
}

fn of(nodes: &[(u8, Standing)], which: impl Fn(Standing) -> bool) -> Vec<u8> {
    let nodes = nodes.iter().filter(|(_, standing)| which(*standing));
    nodes.map(|(number, _)| *number).collect()
}

/// The node with the highest weight has the slot. SplitMix64, of which all fronts of all versions must think
/// the same.
fn weight(slot: u64, number: u8) -> u64 {
    let mut x = (slot << 8 | u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}
