//! The readers of one shared operation, and what one who comes late gets.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    task::Waker,
};

use super::Writer;
use crate::{delivery::mailbox::Pushed, error::SharedError, protocol::Payload, response::Gap};

/// Who reads one shared operation.
pub(crate) struct Readers {
    request: Arc<str>,
    /// By their own numbers, which are never those of an operation.
    writers: BTreeMap<u64, Arc<Writer>>,
    /// The last item received.
    last: Option<Payload>,
    /// What is missing since then.
    missed: Option<Gap>,
}

/// What became of an item for one reader, and the waker of that one; an error if its own code
/// panicked.
pub(crate) type Given = Result<(Pushed, Option<Waker>), SharedError>;

impl Readers {
    pub(crate) fn new(request: Arc<str>, first: Arc<Writer>) -> Self {
        Self { request, writers: BTreeMap::from([(first.id, first)]), last: None, missed: None }
    }

    pub(crate) fn add(&mut self, reader: Arc<Writer>) {
        self.writers.insert(reader.id, reader);
    }

    /// Returns the one with this number, to be dropped once this is unlocked, as its hooks are the
    /// application's.
    #[must_use]
    pub(crate) fn remove(&mut self, reader: u64) -> Option<Arc<Writer>> {
        self.writers.remove(&reader)
    }

    /// Gives everyone an item. Returns for whom it is not simply kept.
    pub(crate) fn give(
        &mut self,
        item: Payload,
        wakers: &mut VecDeque<Waker>,
    ) -> Vec<(Arc<Writer>, Given)> {
        let mut odd = Vec::new();
        for reader in self.writers.values() {
            match reader.push(item.clone(), item.frame()) {
                Ok((Pushed::Kept { dropped: 0 }, waker)) => wakers.extend(waker),
                other => odd.push((Arc::clone(reader), other)),
            }
        }
        self.last = Some(item);
        self.missed = None;
        odd
    }

    /// Something is missing here. Returns who is to know.
    pub(super) fn missed(&mut self, gap: &Gap) -> Vec<Arc<Writer>> {
        match &mut self.missed {
            None => self.missed = Some(gap.clone()),
            Some(missed) => missed.merge(gap.clone()),
        }
        self.all()
    }

    /// Everyone, for the last time.
    pub(super) fn take(&mut self) -> Vec<Arc<Writer>> {
        std::mem::take(&mut self.writers).into_values().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Writer>> {
        self.writers.values().cloned().collect()
    }

    /// The last item, for one who has just come, and what is missing since then.
    pub(crate) fn last(&self) -> Option<(Payload, Option<Gap>)> {
        Some((self.last.clone()?, self.missed.clone()))
    }

    pub(crate) fn request(&self) -> &str {
        &self.request
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.writers.keys().copied()
    }

    pub(crate) fn count(&self) -> usize {
        self.writers.len()
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("writers", &self.writers).finish_non_exhaustive()
    }
}
