//! Whether the old connection of a handover has said everything that the new one does not.
//!
//! It has once both have said the same two items in a row: then the old one has said all that came
//! before them, and the new one says all that follows. One item is not enough, as a value may come
//! again. The server cannot be asked: it answers a ping ahead of the items that wait, and one that
//! is told to stop forgets them.

use std::{
    collections::{BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

/// What both connections have said since the operation is on both, as digests.
#[derive(Debug, Default)]
pub(super) struct Overlap {
    /// The latest pairs of neighbouring items on the old connection.
    old_pairs: VecDeque<u64>,
    last_old: Option<u64>,
    /// The pairs of the new connection.
    new_pairs: BTreeSet<u64>,
    last_new: Option<u64>,
}

impl Overlap {
    /// An item arrived on the old connection. Returns whether it has nothing to add any more.
    pub(super) fn item_on_old(&mut self, item: &str) -> bool {
        let Some(pair) = pair(&mut self.last_old, item) else { return false };
        if self.old_pairs.len() == MAX_OLD_PAIRS {
            self.old_pairs.pop_front();
        }
        self.old_pairs.push_back(pair);
        self.new_pairs.contains(&pair)
    }

    /// Whether anything arrived on the old connection.
    pub(super) fn old_delivered_any(&self) -> bool {
        self.last_old.is_some()
    }

    /// An item arrived on the new connection. Returns whether the old one has nothing to add any
    /// more.
    pub(super) fn item_on_new(&mut self, item: &str) -> bool {
        let Some(pair) = pair(&mut self.last_new, item) else { return false };
        self.new_pairs.insert(pair);
        self.old_pairs.contains(&pair)
    }
}

/// What stands for an item and the one before it. Two that are equal prove nothing: a value that
/// repeats looks the same at every place.
fn pair(last: &mut Option<u64>, item: &str) -> Option<u64> {
    let item = digest(&item);
    let last = last.replace(item).filter(|last| *last != item)?;
    Some(digest(&(last, item)))
}

fn digest(item: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    item.hash(&mut hasher);
    hasher.finish()
}

/// How many items the old connection may be ahead of the new one.
const MAX_OLD_PAIRS: usize = 256;
