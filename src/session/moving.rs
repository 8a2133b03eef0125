//! How far one operation has got with moving from one leg to another, and what is known by then.
//!
//! Owns the question when the old leg has said all that the new one does not: once both have said the same. It must not be
//! asked of the server, as one that is told to stop forgets what it has not sent.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

/// Until it has moved, the old leg counts.
#[derive(Debug)]
pub(super) struct Moving {
    /// The serial that it was sent with on the new leg; 0 before that.
    pub(super) new: u64,
    /// It was completed on the old leg.
    pub(super) is_completed: bool,
    /// Its end on the new leg is among the messages that are held.
    pub(super) has_ended: bool,
    /// The messages that came on the new leg, in order.
    pub(super) held: Vec<Box<str>>,
    /// Digests of the latest items that came on the old leg since.
    seen: VecDeque<u64>,
    /// Of the item with which the new leg began.
    first: Option<u64>,
    /// Since when both legs are waited for: since it was sent, or since something came on the new one.
    since: Instant,
}

impl Moving {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            new: 0,
            is_completed: false,
            has_ended: false,
            held: Vec::new(),
            seen: VecDeque::new(),
            first: None,
            since: now,
        }
    }

    /// An item came on the old leg. Whether the new one began with it.
    pub(super) fn came_on_old(&mut self, item: &str) -> bool {
        let digest = digest(item);
        if self.seen.len() == MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(digest);
        self.first == Some(digest)
    }

    /// A message came on the new leg; with an item, or with none. Whether the old one has said that item, too.
    pub(super) fn came_on_new(&mut self, now: Instant, frame: &str, item: Option<&str>) -> bool {
        let is_first = self.held.is_empty();
        self.held.push(frame.into());
        if !is_first {
            return false;
        }
        self.since = now;
        self.first = item.map(digest);
        self.first.is_some_and(|first| self.seen.contains(&first))
    }

    /// Whether the new leg has said anything, or the old one is not to.
    pub(super) fn is_on_its_way(&self) -> bool {
        self.is_completed || !self.held.is_empty()
    }

    /// Whether the new leg may repeat what came on the old one.
    pub(super) fn is_repeated(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Whether both legs had `overlap`; to be asked at that pace at least.
    pub(super) fn is_overdue(&mut self, now: Instant, overlap: Duration) -> bool {
        if self.new == 0 {
            // It may be sent right after this.
            self.since = now + overlap / 2;
        }
        !self.is_completed && now.saturating_duration_since(self.since) >= overlap
    }
}

fn digest(item: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    item.hash(&mut hasher);
    hasher.finish()
}

/// Items that one leg may be ahead of the other for that to be known.
const MAX_SEEN: usize = 256;
