//! What the reader of one subscription gets, and what it may get.

use super::*;

/// A reader, and the feed that it reads: each item is a number, one more than the one before.
#[derive(Default)]
pub(super) struct Reader {
    /// The last item that was published.
    pub(super) published: u64,
    /// The last item that was received.
    pub(super) last: Option<u64>,
    /// The serial of the request with which the server began, and what was published by then.
    begun: Option<(u64, u64)>,
    /// A request carries the position of the last item that was received.
    resumes: bool,
    /// A request has carried one.
    is_resumed: bool,
    /// How many items are taken before there is room for small ones only, as with
    /// `Overflow::Rewind`. `None` if there is room for all.
    pub(super) room: Option<u32>,
    marks: Marks,
    pub(super) gaps: u32,
    pub(super) overlaps: u32,
    pub(super) repeated: u64,
}

/// All gaps since the last item.
#[derive(Default, Debug)]
struct Marks {
    may_miss: bool,
    may_repeat: bool,
}

impl Reader {
    pub(super) fn new(resumes: bool) -> Self {
        Self { resumes, ..Self::default() }
    }

    /// The server begins a request. The one that was sent first is where the stream begins.
    pub(super) fn begin(&mut self, serial: u64, after: u64) {
        if self.last.is_none() && self.begun.is_none_or(|(known, _)| serial < known) {
            self.begun = Some((serial, after));
        }
    }

    /// Where the next request goes on, if it is told.
    pub(super) fn position(&mut self) -> Option<u64> {
        let position = self.last.filter(|_| self.resumes);
        self.is_resumed |= position.is_some();
        position
    }

    pub(super) fn mark(&mut self, gap: &Gap) -> Tried {
        let times_sent = gap.reconnects + gap.restarts;
        prop_assert!(times_sent + gap.overlaps > 0, "a gap says something: {gap:?}");
        let has_position = self.resumes && self.last.is_some();
        prop_assert!(
            times_sent == 0 || !has_position || self.is_resumed,
            "a position is used: {gap:?}"
        );
        self.marks.may_miss |= times_sent > 0 && !self.is_resumed;
        self.marks.may_repeat |= gap.overlaps > 0;
        self.gaps += u32::from(times_sent > 0);
        self.overlaps += u32::from(gap.overlaps > 0);
        Ok(())
    }

    /// Returns whether there was room.
    pub(super) fn receive(&mut self, n: u64) -> Result<bool, TestCaseError> {
        let is_small = n % 2 == 1;
        match &mut self.room {
            Some(0) if is_small => {}
            Some(0) => return Ok(false),
            Some(room) => *room -= 1,
            None => {}
        }
        let marks = std::mem::take(&mut self.marks);
        let last = self.last.or(self.begun.map(|(_, published)| published));
        let last = last.expect("nothing comes before it is begun");
        let is_announced = match n.cmp(&(last + 1)) {
            Ordering::Less => marks.may_repeat,
            Ordering::Equal => true,
            Ordering::Greater => marks.may_miss,
        };
        prop_assert!(is_announced, "{n} after {last}, with {marks:?}");
        self.repeated += u64::from(n <= last);
        self.last = Some(n);
        Ok(true)
    }

    /// Whether something may be missing behind the last item.
    pub(super) fn may_miss(&self) -> bool {
        self.marks.may_miss
    }
}
