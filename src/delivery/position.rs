//! Where a subscription with `resume_with` goes on when it is sent again: after the last received
//! item that decodes (rule 28a).
//!
//! To decode every item twice would be expensive, so several items are kept and looked at together,
//! the newest one first. Mostly that one decodes, and the others need not be looked at.

use std::{
    collections::VecDeque,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde_json::value::RawValue;

use super::recent::digest;
use crate::{
    error::{GraphQlError, SharedError},
    protocol::Payload,
};

/// The application's `resume_with` and `position_lost`, for items of its type. Every method runs
/// the application's code.
pub(crate) trait Resume: Send {
    /// Whether an item decodes and has a row, which is what has a position. An item that is not a
    /// list is one row.
    fn decodes(&self, item: &Payload) -> bool;

    /// Returns the request that continues after this row of an item, or after the last one.
    fn request_after(
        &mut self,
        item: &Payload,
        row: Option<usize>,
    ) -> Result<Box<RawValue>, SharedError>;

    /// Returns the request to send instead if these errors mean that the server no longer has the
    /// position.
    fn without_position(
        &mut self,
        errors: &[GraphQlError],
    ) -> Option<Result<Box<RawValue>, SharedError>>;
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
    without_position: VecDeque<WithoutPosition>,
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
struct WithoutPosition {
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
        let at = self.repeated.iter().position(|repeated| *repeated == digest);
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
            self.find_last_decoded(resume);
        }
    }

    /// Takes the last item that decodes, if any was received since the last call.
    ///
    /// The server repeats what came after it. Under [`Overflow::Rewind`](crate::Overflow::Rewind)
    /// that may be all that fits into the queue, again and again, so it is left out. An item
    /// without data may be a passing error, which is not repeated, so it is left out only if
    /// nothing else came.
    pub(crate) fn take(&mut self, resume: &dyn Resume, rewinds: bool) -> Option<Payload> {
        self.find_last_decoded(resume);
        let is_stuck = self.decoded.is_none();
        let repeated =
            self.without_position.iter().filter(|item| rewinds && (item.has_data || is_stuck));
        self.repeated = repeated.map(|item| item.digest).collect();
        self.decoded.take()
    }

    /// Finds the last item that decodes.
    fn find_last_decoded(&mut self, resume: &dyn Resume) {
        let mut later = Vec::new();
        while let Some(Received { end, json, has_data }) = self.items.pop() {
            let start = self.items.last().map_or(0, |before| before.end);
            let item = Payload::new(self.frames[start..end].to_owned(), json);
            // A panic there belongs to the reader, which decodes the item as well.
            let decodes = || has_data && resume.decodes(&item);
            if catch_unwind(AssertUnwindSafe(decodes)).unwrap_or(false) {
                self.items.clear();
                self.decoded = Some(item);
                self.without_position.clear();
                self.repeated.clear();
                break;
            }
            later.push(WithoutPosition { digest: digest(&item.frame()[item.range()]), has_data });
        }
        self.without_position.extend(later.into_iter().rev());
        self.without_position
            .drain(..self.without_position.len().saturating_sub(MAX_WITHOUT_POSITION));
        self.frames.clear();
        self.frames.shrink_to(MAX_BYTES);
    }
}

/// How many items are looked at together.
const MAX_ITEMS: usize = 32;

/// The size of the frames in bytes that are looked at together. A larger item is kept until the
/// next one that decodes.
const MAX_BYTES: usize = 32 * 1024;

/// How many items in a row without a position are known again.
const MAX_WITHOUT_POSITION: usize = 1024;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::value::to_raw_value;

    use super::*;

    /// Decodes what contains no `x`, and counts how often it was asked.
    struct Counting(Cell<usize>);

    impl Resume for Counting {
        fn decodes(&self, item: &Payload) -> bool {
            self.0.set(self.0.get() + 1);
            assert!(!item.frame().contains('!'), "on purpose");
            !item.frame().contains('x')
        }

        fn request_after(
            &mut self,
            item: &Payload,
            _row: Option<usize>,
        ) -> Result<Box<RawValue>, SharedError> {
            Ok(to_raw_value(item.frame()).unwrap())
        }

        fn without_position(
            &mut self,
            _errors: &[GraphQlError],
        ) -> Option<Result<Box<RawValue>, SharedError>> {
            None
        }
    }

    fn receive(progress: &mut Progress, resume: &Counting, item: &str) {
        progress.received(resume, item, 0..item.len(), true);
    }

    fn take(progress: &mut Progress, resume: &Counting) -> Option<String> {
        progress.take(resume, true).map(|item| item.frame().to_owned())
    }

    #[test]
    fn one_in_32_small_items_is_decoded_and_large_ones_are_not_kept() {
        let (mut progress, resume) = (Progress::default(), Counting(Cell::new(0)));
        for n in 0..3_200 {
            receive(&mut progress, &resume, &n.to_string());
        }
        assert_eq!(resume.0.get(), 100);
        assert_eq!(take(&mut progress, &resume).as_deref(), Some("3199"));
        receive(&mut progress, &resume, &"l".repeat(1_000_000));
        receive(&mut progress, &resume, "small");
        assert!(progress.frames.capacity() <= MAX_BYTES, "{}", progress.frames.capacity());
        assert_eq!(progress.decoded.as_ref().map(Payload::frame), Some("small"));
    }

    #[test]
    fn of_items_without_a_position_a_bounded_number_is_known() {
        let (mut progress, resume) = (Progress::default(), Counting(Cell::new(0)));
        receive(&mut progress, &resume, "1");
        for n in 0..100_000 {
            receive(&mut progress, &resume, &format!("x{n}"));
        }
        assert_eq!(take(&mut progress, &resume).as_deref(), Some("1"));
        assert_eq!(progress.without_position.len(), MAX_WITHOUT_POSITION);
        assert!(progress.is_repeated("x99999") && !progress.is_repeated("x99999"));
        assert!(!progress.is_repeated("x1"), "too long ago");
    }

    #[test]
    fn an_item_whose_decoding_panics_has_no_position() {
        let (mut progress, resume) = (Progress::default(), Counting(Cell::new(0)));
        for item in ["1", "!", "!!"] {
            receive(&mut progress, &resume, item);
        }
        assert_eq!(take(&mut progress, &resume).as_deref(), Some("1"));
    }
}
