//! The keys of items, for `latest_by`.

use std::{collections::HashMap, hash::Hash, marker::PhantomData};

use serde::de::DeserializeOwned;

use crate::{delivery::mailbox::Limits, protocol::Payload, response::decode};

/// What an item replaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Replaces {
    /// Nothing: it has no key.
    NoKey,
    /// The item of the same key at this place, if there was one. It may have been read since.
    Key(Option<u64>),
}

/// Finds the place of the newest item of each key.
pub(crate) trait Keys: Send {
    /// Reads the key of an item.
    fn replaces(&mut self, item: &Payload) -> Replaces;

    /// Stores the place of the item whose key was read. Must not run the application's code,
    /// because the reader was not woken yet.
    fn kept_at(&mut self, place: u64);

    /// Forgets all places, so that no item in the queue is replaced.
    fn forget_places(&mut self);
}

/// The keys of a subscription with `latest_by`, and the place of the newest item of each.
pub(crate) struct ByKey<T, K, F> {
    key: F,
    /// For each key, an index into `places`.
    pub(super) known: HashMap<K, usize>,
    /// `None` while an item is not in the queue yet.
    pub(super) places: Vec<Option<u64>>,
    /// The index of the item whose key was read last.
    current: Option<usize>,
    newest: u64,
    /// The maximum distance between the oldest item in the queue and the newest.
    horizon: u64,
    data: PhantomData<fn(T)>,
}

impl<T, K, F> ByKey<T, K, F> {
    pub(crate) fn new(key: F, limits: Limits) -> Self {
        // At most three markers are between two items.
        let horizon = u64::try_from(limits.items.get()).unwrap_or(u64::MAX).saturating_mul(4);
        Self {
            key,
            known: HashMap::new(),
            places: Vec::new(),
            current: None,
            newest: 0,
            horizon,
            data: PhantomData,
        }
    }
}

impl<T, K: Hash + Eq, F> ByKey<T, K, F> {
    /// Forgets the keys of items that can no longer be in the queue. Does so only when there are as
    /// many of them as the queue can hold, so that the cost per item is constant.
    fn sweep(&mut self) {
        if self.places.len() as u64 / 2 <= self.horizon {
            return;
        }
        let (oldest, places) =
            (self.newest.saturating_sub(self.horizon), std::mem::take(&mut self.places));
        self.known.retain(|_, index| {
            let place = places[*index].filter(|place| *place >= oldest);
            *index = self.places.len();
            self.places.extend(place.map(Some));
            place.is_some()
        });
    }
}

impl<T, K, F> Keys for ByKey<T, K, F>
where
    T: DeserializeOwned,
    K: Hash + Eq + Send,
    F: FnMut(&T) -> Option<K> + Send,
{
    fn replaces(&mut self, item: &Payload) -> Replaces {
        self.current = None;
        self.sweep();
        let data = decode::<T>(item).ok().and_then(|response| response.data);
        let Some(key) = data.and_then(|data| (self.key)(&data)) else { return Replaces::NoKey };
        let index = *self.known.entry(key).or_insert(self.places.len());
        if index == self.places.len() {
            self.places.push(None);
        }
        self.current = Some(index);
        Replaces::Key(self.places[index])
    }

    fn kept_at(&mut self, place: u64) {
        if let Some(index) = self.current.take() {
            self.newest = self.newest.max(place);
            self.places[index] = Some(place);
        }
    }

    fn forget_places(&mut self) {
        self.places.fill(None);
    }
}
