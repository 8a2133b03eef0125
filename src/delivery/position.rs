//! Where a subscription with `resume_with` goes on when it is sent again: after the last received
//! item that decodes (rule 28a).
//!
//! To decode every item twice would be expensive, so several items are kept and looked at together,
//! the newest one first. Mostly that one decodes, and the others need not be looked at.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
};

use serde_json::value::RawValue;

use crate::protocol::Payload;

/// The application's `resume_with`, for items of its type.
pub(crate) trait Resume: Send {
    /// Whether an item decodes and has data.
    fn decodes(&self, item: &Payload) -> bool;

    /// Returns the request that goes on after an item. Runs the application's code.
    fn request_after(&mut self, item: &Payload) -> Result<Box<RawValue>, serde_json::Error>;
}

/// What was received, as far as it matters for the position.
#[derive(Default)]
pub(crate) struct Progress {
    /// The frames of the last items received, one after the other.
    frames: String,
    items: Vec<Received>,
    /// The last item known to decode, unless the request goes on after it already.
    decoded: Option<Payload>,
    /// The items after that one, as far as they were looked at.
    odd: VecDeque<Odd>,
    /// The digests of those that the server sends again, because the request goes on before them.
    repeated: Vec<u64>,
}

/// An item that was not looked at.
struct Received {
    /// Where its frame ends in the text of all frames.
    end: usize,
    /// Where the payload is in its frame.
    json: Range<usize>,
    has_data: bool,
}

/// An item that does not decode, or has no data.
struct Odd {
    digest: u64,
    has_data: bool,
}

impl Progress {
    /// Whether the reader has had this item already: it has no position, so the request could not
    /// go on after it. Another one that is equal is a new item.
    pub(crate) fn is_repeated(&mut self, payload: &str) -> bool {
        if self.repeated.is_empty() {
            return false;
        }
        let digest = digest(payload);
        let at = self.repeated.iter().position(|odd| *odd == digest);
        at.map(|at| self.repeated.remove(at)).is_some()
    }

    pub(crate) fn received(
        &mut self,
        resume: &dyn Resume,
        frame: &str,
        json: Range<usize>,
        has_data: bool,
    ) {
        self.frames.push_str(frame);
        self.items.push(Received { end: self.frames.len(), json, has_data });
        let decoded = self.decoded.as_ref().map_or(0, |item| item.frame().len());
        let is_alone = self.items.len() == 1 && decoded == 0;
        if self.items.len() == MAX_ITEMS || !is_alone && decoded + self.frames.len() > MAX_BYTES {
            self.look(resume);
        }
    }

    /// Takes the last item that decodes, if any was received since the last call.
    ///
    /// The server repeats what came after it. Under [`Overflow::Rewind`](crate::Overflow::Rewind)
    /// that may be all that fits into the queue, again and again, so it is left out. An item
    /// without data may be a passing error, which is not repeated, so it is left out only if
    /// nothing else came.
    pub(crate) fn take(&mut self, resume: &dyn Resume, rewinds: bool) -> Option<Payload> {
        self.look(resume);
        let is_stuck = self.decoded.is_none();
        let repeated = self.odd.iter().filter(|odd| rewinds && (odd.has_data || is_stuck));
        self.repeated = repeated.map(|odd| odd.digest).collect();
        self.decoded.take()
    }

    /// Finds the last item that decodes.
    fn look(&mut self, resume: &dyn Resume) {
        let mut odd = Vec::new();
        while let Some(Received { end, json, has_data }) = self.items.pop() {
            let start = self.items.last().map_or(0, |before| before.end);
            let item = Payload::new(self.frames[start..end].to_owned(), json);
            if has_data && resume.decodes(&item) {
                self.items.clear();
                self.decoded = Some(item);
                self.odd.clear();
                self.repeated.clear();
                break;
            }
            odd.push(Odd { digest: digest(&item.frame()[item.range()]), has_data });
        }
        self.odd.extend(odd.into_iter().rev());
        self.odd.drain(..self.odd.len().saturating_sub(MAX_ODD));
        self.frames.clear();
        self.frames.shrink_to(MAX_BYTES);
    }
}

fn digest(payload: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

/// How many items are looked at together.
const MAX_ITEMS: usize = 32;

/// The size of the frames in bytes that are looked at together. A larger item is kept until the
/// next one that decodes.
const MAX_BYTES: usize = 32 * 1024;

/// How many items in a row that do not decode are known again.
const MAX_ODD: usize = 1024;
