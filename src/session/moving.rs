//! How far one operation has got with moving from one leg to another, and what is known by then.
//!
//! Owns the question when the old leg has said all that the new one does not: once both have said the same. It must not be
//! asked of the server, as one that is told to stop forgets what it has not sent.

use std::{
    collections::{BTreeSet, VecDeque},
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
    /// Of the items that are held.
    said: BTreeSet<u64>,
    /// The new leg was told where to go on, after the last item that came before: it says all that follows by itself.
    pub(super) is_resumed: bool,
    /// Since when both legs are waited for: since it was sent, or since something came on the new one.
    since: Instant,
}

impl Moving {
    pub(super) fn new(now: Instant) -> Self {
        let (new, is_completed, has_ended, is_resumed) = (0, false, false, false);
        let (held, seen, said) = Default::default();
        Self { new, is_completed, has_ended, held, seen, said, is_resumed, since: now }
    }

    /// An item came on the old leg. Whether the new one has said it, too, and with it all that follows.
    pub(super) fn came_on_old(&mut self, item: &str) -> bool {
        let digest = digest(item);
        if self.seen.len() == MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(digest);
        self.said.contains(&digest)
    }

    /// A message came on the new leg, with an item or with none. Whether the old one has nothing to add.
    pub(super) fn came_on_new(&mut self, now: Instant, frame: &str, item: Option<&str>) -> bool {
        if self.held.is_empty() {
            self.since = now;
        }
        self.held.push(frame.into());
        let Some(digest) = item.map(digest) else { return false };
        self.said.insert(digest);
        self.is_resumed || self.seen.contains(&digest)
    }

    /// Whether the new leg has said anything, or the old one is not to.
    pub(super) fn is_on_its_way(&self) -> bool {
        self.is_completed || !self.held.is_empty()
    }

    /// Whether the new leg may repeat what came on the old one.
    pub(super) fn is_repeated(&self) -> bool {
        self.is_resumed || !self.seen.is_empty()
    }

    /// Whether both legs had their time. To be asked every second.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        if self.new == 0 {
            // It may be sent right after this.
            self.since = now + Duration::from_secs(1);
        }
        let patience = if self.held.is_empty() { QUIET } else { BEHIND };
        !self.is_completed && now.saturating_duration_since(self.since) >= patience
    }
}

fn digest(item: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    item.hash(&mut hasher);
    hasher.finish()
}

/// How long both legs carry an operation for which nothing comes on the new one. A server may begin an operation later than it has
/// read it, and only an item shows that it has.
const QUIET: Duration = Duration::from_secs(2);

/// How long the old leg has to say what the new one has said. It may be behind, and forgets what it has not sent when it is told to
/// stop. Some servers begin with a state that comes once, or say the same in other words; then this passes in vain.
const BEHIND: Duration = Duration::from_secs(10);

/// Items that the old leg may be ahead of the new one for that to be known.
const MAX_SEEN: usize = 256;
