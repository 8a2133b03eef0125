//! The shared operations and their readers.
//!
//! Owns the maps from requests and readers to operations. Knows writers; must know neither sessions
//! nor sockets. Only the driver uses this, so changes happen between two frames, in the order of
//! its commands. A reader that joins never gets part of an item, and a reader that joins while an
//! operation ends either gets that end or starts the operation again.

use std::{collections::HashMap, sync::Arc};

use crate::delivery::writer::{Readers, Writer};

/// The live operations that are shared.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    by_request: HashMap<Arc<str>, Arc<Writer>>,
    by_reader: HashMap<u64, Arc<Writer>>,
}

/// What a new reader gets from before its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Replay {
    Nothing,
    /// The last item.
    Last,
}

impl Sharing {
    /// Adds a reader to the live operation with this request and returns the operation. Returns
    /// `None` if there is none.
    pub(crate) fn join(&mut self, request: &str, reader: &Arc<Writer>) -> Option<Arc<Writer>> {
        let operation = self.by_request.get(request)?;
        operation.readers()?.add(Arc::clone(reader));
        self.by_reader.insert(reader.id, Arc::clone(operation));
        Some(Arc::clone(operation))
    }

    /// Adds an operation with this id and request, and its first reader.
    pub(crate) fn begin(&mut self, id: u64, request: &str, reader: Arc<Writer>) -> Arc<Writer> {
        let (request, number) = (Arc::<str>::from(request), reader.id);
        let operation = Arc::new(Writer::shared(id, Readers::new(Arc::clone(&request), reader)));
        self.by_request.insert(request, Arc::clone(&operation));
        self.by_reader.insert(number, Arc::clone(&operation));
        operation
    }

    /// Removes a reader. Returns the id of its operation if that has no readers left. A reader that
    /// shares no operation has the id of its operation.
    pub(crate) fn leave(&mut self, reader: u64) -> Option<u64> {
        let Some(operation) = self.by_reader.remove(&reader) else { return Some(reader) };
        let (_gone, left) = match operation.readers() {
            Some(mut readers) => (readers.remove(reader), readers.count()),
            None => (None, 0),
        };
        if left > 0 {
            return None;
        }
        self.forget(&operation);
        Some(operation.id)
    }

    /// Removes an operation that has ended, so that a later reader starts it again.
    pub(crate) fn forget(&mut self, operation: &Writer) {
        let Some(readers) = operation.readers() else { return };
        // Another operation with the same request may have started after this one ended and before
        // the driver handled the end.
        if self.by_request.get(readers.request()).is_some_and(|known| known.id == operation.id) {
            self.by_request.remove(readers.request());
        }
        for reader in readers.numbers() {
            self.by_reader.remove(&reader);
        }
    }

    /// Returns the id of the operation of a reader. A reader that shares no operation has the same
    /// id as its operation.
    pub(crate) fn operation_of(&self, reader: u64) -> u64 {
        self.by_reader.get(&reader).map_or(reader, |operation| operation.id)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_request.is_empty() && self.by_reader.is_empty()
    }
}
