//! How far one operation has got with moving from one leg to another, and what is known by then.
//!
//! Owns the question when the old leg has said all that the new one does not: once both have said
//! the same two items. It must not be asked of the server, as one that is told to stop forgets what
//! it has not sent.

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
    /// Digests of the latest pairs of items that came on the old leg since.
    seen: VecDeque<u64>,
    last_seen: Option<u64>,
    /// Of the pairs of items that are held.
    said: BTreeSet<u64>,
    last_said: Option<u64>,
    /// The new leg was told where to go on, after the last item that came before: it says all that
    /// follows by itself.
    pub(super) is_resumed: bool,
    /// When something came that this is about: on the old leg, or first on the new one.
    since: Instant,
    /// When it began to move.
    begun: Instant,
}

/// What is to be done with an operation that both legs carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    Nothing,
    /// The old leg had its time.
    Drain,
    /// The new one says nothing, though it should.
    Doubt,
}

impl Moving {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            new: 0,
            is_completed: false,
            has_ended: false,
            held: Vec::new(),
            seen: VecDeque::new(),
            last_seen: None,
            said: BTreeSet::new(),
            last_said: None,
            is_resumed: false,
            since: now,
            begun: now,
        }
    }

    /// An item came on the old leg. Whether it has nothing to add now: the new one has said the
    /// same, and says all that follows.
    pub(super) fn came_on_old(&mut self, now: Instant, item: &str) -> bool {
        if self.held.is_empty() {
            self.since = now;
        }
        let Some(pair) = pair(&mut self.last_seen, item) else { return false };
        if self.seen.len() == MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(pair);
        self.said.contains(&pair)
    }

    /// A message came on the new leg, with an item or with none. Whether the old one has nothing to
    /// add now.
    pub(super) fn came_on_new(&mut self, now: Instant, frame: &str, item: Option<&str>) -> bool {
        if self.held.is_empty() {
            self.since = now;
        }
        self.held.push(frame.into());
        let pair = item.and_then(|item| pair(&mut self.last_said, item));
        self.said.extend(pair);
        self.is_resumed || pair.is_some_and(|pair| self.seen.contains(&pair))
    }

    /// Whether the new leg has said anything, or the old one is not to.
    pub(super) fn is_on_its_way(&self) -> bool {
        self.is_completed || !self.held.is_empty()
    }

    /// Whether the new leg may repeat what came on the old one.
    pub(super) fn is_repeated(&self) -> bool {
        self.is_resumed || self.last_seen.is_some() || !self.held.is_empty()
    }

    /// What is to be done now; asked every second. The sockets are read since `read_since`, if that
    /// says anything.
    pub(super) fn due(&mut self, now: Instant, read_since: Option<Instant>) -> Due {
        if self.new == 0 {
            // It may be sent right after this.
            (self.since, self.begun) = (now + Duration::from_secs(1), now);
        }
        let passed = |since: Instant| {
            now.saturating_duration_since(read_since.map_or(since, |read| read.max(since)))
        };
        match (self.is_completed, self.held.is_empty()) {
            (false, true) if passed(self.since) >= QUIET => Due::Drain,
            (false, false) if passed(self.since) >= BEHIND => Due::Drain,
            (false, true) if passed(self.begun) >= SILENT => Due::Doubt,
            (_, _) => Due::Nothing,
        }
    }
}

/// What stands for an item and the one before it, if they differ: an item alone may come again, a
/// pair hardly does.
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

/// How long both legs carry an operation for which nothing comes on either. A server may begin an
/// operation later than it has read it, and only an item shows that it has.
const QUIET: Duration = Duration::from_secs(2);

/// How long the old leg has to say what the new one has said. It may be behind, and forgets what it
/// has not sent when it is told to stop. Some servers begin with a state that comes once, or say
/// the same in other words; then this passes in vain.
const BEHIND: Duration = Duration::from_secs(10);

/// How long the new leg may say nothing while the old one does.
const SILENT: Duration = Duration::from_secs(30);

/// Items that the old leg may be ahead of the new one for that to be known.
const MAX_SEEN: usize = 256;
