//! The readers of a shared operation, and the last item for a reader that joins later.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    task::Waker,
};

use super::Writer;
use crate::{delivery::mailbox::Pushed, error::SharedError, protocol::Payload, response::Gap};

/// The readers of a shared operation.
pub(crate) struct Readers {
    request: Arc<str>,
    /// The writers of the readers by id. Readers and operations never have the same id.
    writers: BTreeMap<u64, Arc<Writer>>,
    /// The last item received.
    last: Option<Payload>,
    /// The gap since the last item.
    missed: Option<Gap>,
}

/// The result of pushing an item to one reader, and the waker of that reader. An error means that
/// one of its hooks panicked.
pub(crate) type PushResult = Result<(Pushed, Option<Waker>), SharedError>;

impl Readers {
    pub(crate) fn new(request: Arc<str>, first: Arc<Writer>) -> Self {
        Self { request, writers: BTreeMap::from([(first.id, first)]), last: None, missed: None }
    }

    pub(crate) fn add(&mut self, reader: Arc<Writer>) {
        self.writers.insert(reader.id, reader);
    }

    /// Removes a reader. The caller drops it after the lock is released, because dropping its hooks
    /// runs the application's code.
    #[must_use]
    pub(crate) fn remove(&mut self, reader: u64) -> Option<Arc<Writer>> {
        self.writers.remove(&reader)
    }

    /// Pushes an item to every reader. Returns the readers for which the result needs attention,
    /// which is any but `Kept` without a drop.
    pub(crate) fn push_to_all(
        &mut self,
        item: Payload,
        wakers: &mut VecDeque<Waker>,
    ) -> Vec<(Arc<Writer>, PushResult)> {
        let mut exceptions = Vec::new();
        for reader in self.writers.values() {
            match reader.push(item.clone(), item.frame()) {
                Ok((Pushed::Kept { dropped: 0 }, waker)) => wakers.extend(waker),
                other => exceptions.push((Arc::clone(reader), other)),
            }
        }
        self.last = Some(item);
        self.missed = None;
        exceptions
    }

    /// Records a gap. Returns the readers that it must be pushed to.
    pub(super) fn missed(&mut self, gap: &Gap) -> Vec<Arc<Writer>> {
        match &mut self.missed {
            None => self.missed = Some(gap.clone()),
            Some(missed) => missed.merge(gap.clone()),
        }
        self.all()
    }

    /// Removes and returns all readers.
    pub(super) fn take(&mut self) -> Vec<Arc<Writer>> {
        std::mem::take(&mut self.writers).into_values().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Writer>> {
        self.writers.values().cloned().collect()
    }

    /// Returns the last item and the gap since then, for a reader that joins.
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
