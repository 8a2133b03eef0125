//! Operations that are shared: who reads which, and what one who comes late gets.
//!
//! Owns the list of them. Knows sinks, and nothing of sessions and sockets. All of it is the driver's, and changes in the order of
//! its commands, between two frames: so nobody is added in the middle of an item, and whoever comes while an operation ends either
//! gets that end or begins the operation anew.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::Arc,
    task::Waker,
};

use crate::{
    error::SharedError,
    mailbox::{Gap, Pushed},
    protocol::Payload,
    sink::Sink,
};

/// The live operations that are shared.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    by_request: HashMap<Arc<str>, Arc<Sink>>,
    by_reader: HashMap<u64, Arc<Sink>>,
}

/// What a reader gets of what was before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Replay {
    Nothing,
    /// The last item.
    Last,
}

/// Who reads one shared operation.
pub(crate) struct Readers {
    request: Arc<str>,
    /// By their own numbers, which are never those of an operation.
    sinks: BTreeMap<u64, Arc<Sink>>,
    /// The last item received.
    last: Option<Payload>,
    /// What is missing since then.
    missed: Option<Gap>,
}

/// What became of an item for one reader, and the waker of that one; an error if its own code panicked.
pub(crate) type Given = Result<(Pushed, Option<Waker>), SharedError>;

impl Sharing {
    /// Adds a reader to the live operation with this request, which is returned; `None` if there is no such operation.
    pub(crate) fn join(&mut self, request: &str, reader: &Arc<Sink>) -> Option<Arc<Sink>> {
        let operation = self.by_request.get(request)?;
        operation.readers()?.sinks.insert(reader.id, Arc::clone(reader));
        self.by_reader.insert(reader.id, Arc::clone(operation));
        Some(Arc::clone(operation))
    }

    /// Lists an operation with this number and this request, and its first reader.
    pub(crate) fn begin(&mut self, id: u64, request: &str, reader: Arc<Sink>) -> Arc<Sink> {
        let (request, number) = (Arc::<str>::from(request), reader.id);
        let sinks = BTreeMap::from([(number, reader)]);
        let readers = Readers { request: Arc::clone(&request), sinks, last: None, missed: None };
        let operation = Arc::new(Sink::shared(id, readers));
        self.by_request.insert(request, Arc::clone(&operation));
        self.by_reader.insert(number, Arc::clone(&operation));
        operation
    }

    /// A reader goes. Returns the operation that nobody reads any more; the reader's own, if it shares none.
    pub(crate) fn leave(&mut self, reader: u64) -> Option<u64> {
        let Some(operation) = self.by_reader.remove(&reader) else { return Some(reader) };
        // Its hooks are the application's, and are dropped after the lock.
        let (_gone, is_last) = match operation.readers() {
            Some(mut readers) => (readers.sinks.remove(&reader), readers.sinks.is_empty()),
            None => (None, true),
        };
        if !is_last {
            return None;
        }
        self.forget(&operation);
        Some(operation.id)
    }

    /// The operation is over: whoever asks for it from now on begins it anew.
    pub(crate) fn forget(&mut self, operation: &Sink) {
        let Some(readers) = operation.readers() else { return };
        // There may be another by now, begun between the end of this one and the word of it.
        if self.by_request.get(&readers.request).is_some_and(|known| known.id == operation.id) {
            self.by_request.remove(&readers.request);
        }
        for reader in readers.sinks.keys() {
            self.by_reader.remove(reader);
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

impl Readers {
    /// Gives everyone an item. Returns for whom it is not simply kept.
    pub(crate) fn give(&mut self, item: Payload, wakers: &mut VecDeque<Waker>) -> Vec<(Arc<Sink>, Given)> {
        let mut odd = Vec::new();
        for reader in self.sinks.values() {
            match reader.push(item.clone(), item.frame()) {
                Ok((Pushed::Kept { dropped: 0 }, waker)) => wakers.extend(waker),
                other => odd.push((Arc::clone(reader), other)),
            }
        }
        self.last = Some(item);
        self.missed = None;
        odd
    }

    /// The last item, for one who has just come, and what is missing since then.
    pub(crate) fn last(&self) -> Option<(Payload, Option<Gap>)> {
        Some((self.last.clone()?, self.missed.clone()))
    }

    /// Something is missing here. Returns who is to know.
    pub(crate) fn missed(&mut self, gap: &Gap) -> Vec<Arc<Sink>> {
        match &mut self.missed {
            None => self.missed = Some(gap.clone()),
            Some(missed) => missed.merge(gap.clone()),
        }
        self.all()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Sink>> {
        self.sinks.values().cloned().collect()
    }

    /// Everyone, for the last time.
    pub(crate) fn take(&mut self) -> Vec<Arc<Sink>> {
        std::mem::take(&mut self.sinks).into_values().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.sinks.len()
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("sinks", &self.sinks).finish_non_exhaustive()
    }
}
