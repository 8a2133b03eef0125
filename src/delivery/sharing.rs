//! Operations that are shared: which there are, and who reads which.
//!
//! Owns the list of them. Knows writers, and nothing of sessions and sockets. All of it is the
//! driver's, and changes in the order of its commands, between two frames: so nobody is added in
//! the middle of an item, and whoever comes while an operation ends either gets that end or begins
//! the operation anew.

use std::{collections::HashMap, sync::Arc};

use crate::delivery::writer::{Readers, Writer};

/// The live operations that are shared.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    by_request: HashMap<Arc<str>, Arc<Writer>>,
    by_reader: HashMap<u64, Arc<Writer>>,
}

/// What a reader gets of what was before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Replay {
    Nothing,
    /// The last item.
    Last,
}

impl Sharing {
    /// Adds a reader to the live operation with this request, which is returned; `None` if there is
    /// no such operation.
    pub(crate) fn join(&mut self, request: &str, reader: &Arc<Writer>) -> Option<Arc<Writer>> {
        let operation = self.by_request.get(request)?;
        operation.readers()?.add(Arc::clone(reader));
        self.by_reader.insert(reader.id, Arc::clone(operation));
        Some(Arc::clone(operation))
    }

    /// Lists an operation with this number and this request, and its first reader.
    pub(crate) fn begin(&mut self, id: u64, request: &str, reader: Arc<Writer>) -> Arc<Writer> {
        let (request, number) = (Arc::<str>::from(request), reader.id);
        let operation = Arc::new(Writer::shared(id, Readers::new(Arc::clone(&request), reader)));
        self.by_request.insert(request, Arc::clone(&operation));
        self.by_reader.insert(number, Arc::clone(&operation));
        operation
    }

    /// A reader goes. Returns the operation that nobody reads any more; the reader's own, if it
    /// shares none.
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

    /// The operation is over: whoever asks for it from now on begins it anew.
    pub(crate) fn forget(&mut self, operation: &Writer) {
        let Some(readers) = operation.readers() else { return };
        // There may be another by now, begun between the end of this one and the word of it.
        if self.by_request.get(readers.request()).is_some_and(|known| known.id == operation.id) {
            self.by_request.remove(readers.request());
        }
        for reader in readers.numbers() {
            self.by_reader.remove(&reader);
        }
    }

    /// The operation that a reader reads: its own, if it shares none.
    pub(crate) fn operation_of(&self, reader: u64) -> u64 {
        self.by_reader.get(&reader).map_or(reader, |operation| operation.id)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_request.is_empty() && self.by_reader.is_empty()
    }
}
