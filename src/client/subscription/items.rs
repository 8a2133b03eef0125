//! What a subscription does with its items beyond decoding them, if it has options about that: lists
//! become rows, losses on the server's side become gaps, repetitions are left out, and the position
//! of what was read is kept.
//!
//! Runs in the reader's task. Must not know where items come from.

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
    error::{SharedError, SubscriptionError},
    protocol::Payload,
    response::{Gap, Response},
};

/// Returns the number of an item.
pub(crate) type NumberOf<T> = Box<dyn FnMut(&T) -> u64 + Send>;

/// The options about items, and what they need to know.
pub(crate) struct Items<T> {
    pub(super) rows: Rows<T>,
    pub(super) number: Option<NumberOf<T>>,
    numbers: Numbers,
    pub(super) window: Option<Box<dyn Window<T>>>,
    /// There are items that the window has never seen: the overflow policy has dropped them, or the
    /// reader has joined a shared operation after them.
    pub(super) has_missed: bool,
    /// Set if the operation can be resumed.
    place: Option<Place>,
    /// What follows, in order.
    next: VecDeque<Next<T>>,
    /// The item before the one that was read, whose buffer can be used again.
    unneeded: Option<Payload>,
}

/// What is read next.
enum Next<T> {
    /// A row of the current item, with its index.
    Row(usize, Response<T>),
    /// A row whose number was looked at, and whose gap was read.
    Numbered(usize, Response<T>),
    Other(Result<Event<T>, SubscriptionError>),
}

/// What was read last.
#[derive(Default)]
struct Place {
    /// The item of the last row that was read, unless that is a row of `current`.
    before: Last,
    /// The item whose rows are being read.
    current: Option<Payload>,
    /// The last row of the current item that was read.
    row: Option<usize>,
}

#[derive(Default)]
enum Last {
    #[default]
    Nothing,
    /// Read in an earlier life of the stream.
    Earlier(Box<Position>),
    Item(Payload, usize),
}

/// The next step of a reader.
pub(super) enum Step<T> {
    /// The reader gets this.
    Yield(Result<Event<T>, SubscriptionError>),
    /// The server is to send again what follows this row of an item.
    Ask(Payload, usize),
    /// Nothing is left to do before the next item.
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
            place: None,
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
            || self.place.is_some()
    }

    /// Keeps the position of what is read, because the operation can be resumed.
    pub(super) fn keep_position(&mut self) {
        self.place = Some(Place::default());
    }

    pub(super) fn has_next(&self) -> bool {
        !self.next.is_empty()
    }

    /// Takes an item that was received. Returns a buffer that is not needed any more.
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
        let Some(place) = &mut self.place else { return Some(item) };
        let old = place.current.replace(item)?;
        match place.row.take() {
            None => Some(old),
            Some(row) => {
                place.before = Last::Item(old, row);
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
                if self.numbers.is_skipped() {
                    continue;
                }
                let gap = match self.numbers.check(number(data), self.place.is_some()) {
                    Found::Next => None,
                    Found::Repeated => continue,
                    Found::Missing(missing) => Some(Gap { missing, ..Gap::default() }),
                    Found::Restarted(dropped) => Some(Gap { dropped, ..Gap::default() }),
                    Found::Ask => match self.place.as_ref().and_then(Place::last) {
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
        if let Some(place) = &mut self.place {
            place.row = Some(index);
            if let Last::Item(item, _) = std::mem::take(&mut place.before) {
                self.unneeded = Some(item);
            }
        }
        Step::Yield(Ok(Event::Next(row)))
    }

    /// Returns a buffer that is not needed any more.
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

    /// The stream ends with this error, or was completed. Returns what is read before.
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
        if let Some(place) = &mut self.place {
            place.before = Last::Earlier(Box::new(position));
        }
        Ok(())
    }

    /// The position of the last row that was read.
    pub(super) fn position(&self) -> Option<Position> {
        let keys = || self.window.as_ref().map(|window| window.keys()).unwrap_or_default();
        let place = self.place.as_ref()?;
        match (&place.current, place.row, &place.before) {
            (Some(item), Some(row), _) => Some(Position::new(item, row, keys())),
            (_, _, Last::Item(item, row)) => Some(Position::new(item, *row, keys())),
            (_, _, Last::Earlier(position)) => Some((**position).clone()),
            (_, _, Last::Nothing) => None,
        }
    }
}

impl Place {
    /// The last row that was read.
    fn last(&self) -> Option<(Payload, usize)> {
        match (&self.current, self.row, &self.before) {
            (Some(item), Some(row), _) => Some((item.clone(), row)),
            (_, _, Last::Item(item, row)) => Some((item.clone(), *row)),
            (_, _, Last::Earlier(position)) => Some((position.item(), position.row)),
            (_, _, Last::Nothing) => None,
        }
    }
}

fn shared(error: impl std::error::Error + Send + Sync + 'static) -> SharedError {
    Arc::new(error)
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

pub(super) struct Keys<K, F> {
    key: F,
    window: NonZeroUsize,
    known: HashSet<K>,
    order: VecDeque<K>,
}

impl<K, F> Keys<K, F> {
    pub(super) fn new(window: NonZeroUsize, key: F) -> Self {
        Self { key, window, known: HashSet::new(), order: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Clone, F> Keys<K, F> {
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

impl<T, K, F> Window<T> for Keys<K, F>
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
