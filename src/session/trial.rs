//! A trial of operations, one of which closes the connection: whose turn it is, and who is accused.

use std::collections::{BTreeSet, VecDeque};

#[derive(Debug)]
pub(super) struct Trial {
    /// Who is held back, in the order of being tried. May name operations that are gone.
    pub(super) held: VecDeque<u64>,
    /// Of what was sent last, those that are not cleared yet; nobody before the first group.
    pub(super) group: Option<BTreeSet<u64>>,
    /// Those of the group that was lost last: among them is the bad one, so that no group mixes
    /// them with others.
    pub(super) prime: BTreeSet<u64>,
    /// How many come next.
    pub(super) size: usize,
    /// Who was alone when the connection was lost, and is tried alone from then on.
    pub(super) accused: VecDeque<Accused>,
    /// Losses since something survived: as many operations were alone, and nothing showed that
    /// others are taken.
    pub(super) without_control: usize,
}

#[derive(Debug)]
pub(super) struct Accused {
    pub(super) id: u64,
    /// How often the connection was lost right after it, while others lived on it.
    pub(super) losses: u32,
}

impl Trial {
    pub(super) fn new() -> Box<Self> {
        let (held, prime, accused) = Default::default();
        Box::new(Self { held, group: None, prime, size: 1, accused, without_control: 0 })
    }

    pub(super) fn losses_of(&self, id: u64) -> Option<u32> {
        self.accused.iter().find(|accused| accused.id == id).map(|accused| accused.losses)
    }

    /// Returns how often the connection was lost right after this operation.
    pub(super) fn accuse(&mut self, id: u64, more: u32) -> u32 {
        let losses = self.losses_of(id).unwrap_or(0) + more;
        self.pardon(id);
        if self.accused.len() == MAX_ACCUSED {
            self.accused.pop_front();
        }
        self.accused.push_back(Accused { id, losses });
        losses
    }

    pub(super) fn pardon(&mut self, id: u64) {
        self.accused.retain(|accused| accused.id != id);
    }

    /// What was sent last has not closed the connection.
    pub(super) fn survived(&mut self, group: &BTreeSet<u64>) {
        for &id in group {
            self.pardon(id);
        }
        self.without_control = 0;
        self.size = self.size.saturating_mul(2);
    }
}

/// Operations that are tried alone at a time.
const MAX_ACCUSED: usize = 8;
