//! The options of a subscription that look at items: lists become rows, losses on the server's side
//! become gaps, repetitions are left out, and the position of the last row read is kept.
//!
//! Runs in the task that reads the stream. Must not know where items come from.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
    num::NonZeroUsize,
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Event,
    numbers::{Found, Numbers},
    position::Position,
    rows::{Rows, Split},
};
use crate::{
    error::{SharedError, SubscriptionError, shared},
    protocol::Payload,
    response::{Gap, Response},
};

/// Returns the number of an item.
pub(super) type NumberOf<T> = Box<dyn FnMut(&T) -> u64 + Send>;

/// The options about items, and what they need to know.
pub(crate) struct Items<T> {
    pub(super) rows: Rows<T>,
    pub(super) number: Option<NumberOf<T>>,
    numbers: Numbers,
    pub(super) window: Option<Box<dyn Window<T>>>,
    /// There are items that the window has never seen: the overflow policy dropped them, or they
    /// arrived before the reader joined a shared operation.
    pub(super) has_missed: bool,
    /// Set with `resume_with`.
    last_read: Option<LastRead>,
    /// What follows, in order.
    next: VecDeque<Next<T>>,
    /// An item that is no longer needed. Its buffer can be reused.
    unneeded: Option<Payload>,
}

/// What is read next.
enum Next<T> {
    /// A row of the current item, with its index.
    Row(usize, Response<T>),
    /// A row whose number was looked at, and whose gap was read.
    Numbered(usize, Response<T>),
    /// Not a row.
    Other(Result<Event<T>, SubscriptionError>),
}

/// The row that was read last. It is a row of `current`, or else what `earlier` says.
#[derive(Default)]
struct LastRead {
    /// The item that was received last. Its rows are being read.
    current: Option<Payload>,
    /// The index of the last row of `current` that was read. `None` if none was.
    current_row: Option<usize>,
    /// The last row that was read before those of `current`.
    earlier: Earlier,
}

#[derive(Default)]
enum Earlier {
    #[default]
    Nothing,
    /// It was read by the stream whose stored position this one continues after.
    Stored(Box<Position>),
    /// A row of this item, with its index.
    Row(Payload, usize),
}

/// What the reader does next.
pub(super) enum Step<T> {
    /// Yield this event.
    Yield(Result<Event<T>, SubscriptionError>),
    /// Ask the server for everything after this row of an item again.
    Ask(Payload, usize),
    /// Take the next item out of the queue: nothing else is left.
    Receive,
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self {
            rows: Rows::default(),
            number: None,
            numbers: Numbers::default(),
            window: None,
            has_missed: false,
            last_read: None,
            next: VecDeque::new(),
            unneeded: None,
        }
    }
}

impl<T> Items<T> {
    /// Items that are lists, as rows.
    pub(super) fn of_rows(split: Split<T>) -> Self {
        Self { rows: Rows { split: Some(split), notice: None }, ..Self::default() }
    }

    /// Whether there is anything to do.
    pub(super) fn is_wanted(&self) -> bool {
        self.rows.split.is_some()
            || self.rows.notice.is_some()
            || self.number.is_some()
            || self.window.is_some()
            || self.last_read.is_some()
    }

    /// Keeps the position of what is read, because the operation can be resumed.
    pub(super) fn keep_position(&mut self) {
        self.last_read = Some(LastRead::default());
    }

    pub(super) fn has_next(&self) -> bool {
        !self.next.is_empty()
    }

    /// Takes an item that was received. Returns an item whose buffer can be reused.
    pub(super) fn receive(&mut self, item: Payload) -> Option<Payload>
    where
        T: DeserializeOwned,
    {
        match self.rows.read(&item) {
            Ok(rows) => self.next.extend(rows.enumerate().map(|(n, row)| Next::Row(n, row))),
            Err(error) => {
                self.next.push_back(Next::Other(Err(SubscriptionError::Decode(error))));
                return Some(item);
            }
        }
        let Some(last_read) = &mut self.last_read else { return Some(item) };
        let old = last_read.current.replace(item)?;
        match last_read.current_row.take() {
            None => Some(old),
            Some(row) => {
                last_read.earlier = Earlier::Row(old, row);
                None
            }
        }
    }

    /// Returns the next step.
    pub(super) fn step(&mut self) -> Step<T> {
        while let Some(next) = self.next.pop_front() {
            let (index, row, is_numbered) = match next {
                Next::Other(event) => return Step::Yield(event),
                Next::Row(index, row) => (index, row, false),
                Next::Numbered(index, row) => (index, row, true),
            };
            let Some(data) = &row.data else { return Step::Yield(Ok(Event::Next(row))) };
            if let Some(missing) = self.rows.left_out(data) {
                let gap = Gap { missing, ..Gap::default() };
                self.numbers.gap(&gap);
                if gap.is_empty() {
                    continue;
                }
                return Step::Yield(Ok(Event::Gap(gap)));
            }
            if let Some(number) = self.number.as_mut().filter(|_| !is_numbered) {
                if self.numbers.skip() {
                    continue;
                }
                let gap = match self.numbers.check(number(data), self.last_read.is_some()) {
                    Found::Next => None,
                    Found::Repeated => continue,
                    Found::Missing(missing) => Some(Gap { missing, ..Gap::default() }),
                    Found::Restarted(dropped) => Some(Gap { dropped, ..Gap::default() }),
                    Found::Ask => match self.last_read.as_ref().and_then(LastRead::row) {
                        Some((item, row)) => return Step::Ask(item, row),
                        None => continue,
                    },
                };
                if let Some(gap) = gap {
                    self.next.push_front(Next::Numbered(index, row));
                    return Step::Yield(Ok(Event::Gap(gap)));
                }
            }
            if self.window.as_mut().is_some_and(|window| window.is_known(data)) {
                continue;
            }
            return self.read(index, row);
        }
        Step::Receive
    }

    /// The reader gets a row.
    fn read(&mut self, index: usize, row: Response<T>) -> Step<T> {
        if let Some(last_read) = &mut self.last_read {
            last_read.current_row = Some(index);
            if let Earlier::Row(item, _) = std::mem::take(&mut last_read.earlier) {
                self.unneeded = Some(item);
            }
        }
        Step::Yield(Ok(Event::Next(row)))
    }

    /// Returns an item whose buffer can be reused.
    pub(super) fn take_unneeded(&mut self) -> Option<Payload> {
        self.unneeded.take()
    }

    /// A gap is read. Returns it, unless it says nothing.
    pub(super) fn gap(&mut self, mut gap: Gap) -> Option<Gap> {
        self.numbers.gap(&gap);
        if self.window.is_some() {
            self.has_missed |= gap.dropped > 0;
            // An item that was never seen here may still come again, after newer ones.
            if !self.has_missed {
                gap.overlaps = 0;
            }
        }
        if self.number.is_some() {
            gap.overlaps = 0;
        }
        (!gap.is_empty()).then_some(gap)
    }

    /// The stream ends with this error, or was completed. Returns the gap that comes first, if
    /// there is one. Then the error follows it.
    pub(super) fn end(&mut self, error: Option<SubscriptionError>) -> Option<Gap> {
        let gap = self.numbers.end()?;
        self.next.extend(error.map(|error| Next::Other(Err(error))));
        Some(gap)
    }

    /// Drops the rows that were not read. Returns how many there were.
    pub(super) fn discard(&mut self) -> u64 {
        let before = self.next.len();
        self.next.retain(|next| matches!(next, Next::Other(_)));
        (before - self.next.len()) as u64
    }

    /// Goes on after a position.
    ///
    /// # Errors
    ///
    /// Fails if the position is not one of this stream.
    pub(super) fn start_after(&mut self, position: Position) -> Result<(), SharedError>
    where
        T: DeserializeOwned,
    {
        let Some(row) = self.rows.at(&position.item(), position.row).map_err(shared)? else {
            return Err(Arc::from(Box::from("the item has no such row")));
        };
        if let Some(window) = &mut self.window {
            window.restore(&position.keys).map_err(shared)?;
        }
        if let Some(number) = &mut self.number {
            self.numbers.start_after(number(&row));
        }
        if let Some(last_read) = &mut self.last_read {
            last_read.earlier = Earlier::Stored(Box::new(position));
        }
        Ok(())
    }

    /// The position of the last row that was read.
    pub(super) fn position(&self) -> Option<Position> {
        let keys = || self.window.as_ref().map(|window| window.keys()).unwrap_or_default();
        let last_read = self.last_read.as_ref()?;
        match (&last_read.current, last_read.current_row, &last_read.earlier) {
            (Some(item), Some(row), _) => Some(Position::new(item, row, keys())),
            (_, _, Earlier::Row(item, row)) => Some(Position::new(item, *row, keys())),
            (_, _, Earlier::Stored(position)) => Some((**position).clone()),
            (_, _, Earlier::Nothing) => None,
        }
    }
}

impl LastRead {
    /// The item of the row that was read last, and its index there.
    fn row(&self) -> Option<(Payload, usize)> {
        match (&self.current, self.current_row, &self.earlier) {
            (Some(item), Some(row), _) => Some((item.clone(), row)),
            (_, _, Earlier::Row(item, row)) => Some((item.clone(), *row)),
            (_, _, Earlier::Stored(position)) => Some((position.item(), position.row)),
            (_, _, Earlier::Nothing) => None,
        }
    }
}

/// The keys of the last items read, for `dedupe_by`.
pub(super) trait Window<T>: Send {
    /// Whether the key of an item is known. Remembers it if not.
    fn is_known(&mut self, data: &T) -> bool;

    /// The keys as JSON, from the oldest to the newest. A key that JSON cannot represent is left
    /// out.
    fn keys(&self) -> Vec<String>;

    /// Knows these keys.
    ///
    /// # Errors
    ///
    /// Fails if they are keys of another type.
    fn restore(&mut self, keys: &[String]) -> Result<(), serde_json::Error>;
}

pub(super) struct KeyWindow<K, F> {
    key: F,
    window: NonZeroUsize,
    known: HashSet<K>,
    order: VecDeque<K>,
}

impl<K, F> KeyWindow<K, F> {
    pub(super) fn new(window: NonZeroUsize, key: F) -> Self {
        Self { key, window, known: HashSet::new(), order: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Clone, F> KeyWindow<K, F> {
    fn insert(&mut self, key: K) -> bool {
        if !self.known.insert(key.clone()) {
            return false;
        }
        if self.order.len() == self.window.get()
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(key);
        true
    }
}

impl<T, K, F> Window<T> for KeyWindow<K, F>
where
    K: Hash + Eq + Clone + Serialize + DeserializeOwned + Send,
    F: FnMut(&T) -> K + Send,
{
    fn is_known(&mut self, data: &T) -> bool {
        let key = (self.key)(data);
        !self.insert(key)
    }

    fn keys(&self) -> Vec<String> {
        self.order.iter().filter_map(|key| serde_json::to_string(key).ok()).collect()
    }

    fn restore(&mut self, keys: &[String]) -> Result<(), serde_json::Error> {
        for key in keys {
            self.insert(serde_json::from_str(key)?);
        }
        Ok(())
    }
}
