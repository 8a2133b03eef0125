//! The marker that a loss leaves in a stream.

use std::time::Duration;

use crate::error::{Disconnect, GraphQlError};

/// A place in the stream where items are missing, may be missing, or may come twice.
///
/// [`is_lossless`](Self::is_lossless) says whether a consumer has to rebuild what it derived from
/// the stream.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Gap {
    /// How often items may be missing because the connection changed: it was lost, or it was
    /// replaced and nothing proved that the old one had delivered everything. The client cannot
    /// know how many items that are.
    pub reconnects: u32,
    /// How often the operation was sent again on the same connection: by
    /// [`Overflow::Rewind`](crate::Overflow::Rewind),
    /// [`restart_if`](crate::SubscriptionBuilder::restart_if) or
    /// [`reissue_stale`](crate::SubscriptionBuilder::reissue_stale).
    pub restarts: u32,
    /// How often the operation moved from one connection to another here, so that items from before
    /// the gap may come again after it. Whether items may be missing, too, is what `reconnects`
    /// says. 0 with [`dedupe_by`](crate::SubscriptionBuilder::dedupe_by), which removes such items,
    /// unless the overflow policy has dropped some that it has never seen.
    pub overlaps: u32,
    /// Whether the operation continued after the last received item each time that it was sent
    /// again. [`resume_with`](crate::SubscriptionBuilder::resume_with) does that. A server that
    /// honours the position then leaves nothing out.
    pub resumed: bool,
    /// How many items arrived and were dropped by the [`Overflow`](crate::Overflow) policy. Items
    /// that were replaced are included.
    pub dropped: u64,
    /// How many of the dropped items were replaced by a newer one: under
    /// [`Overflow::Latest`](crate::Overflow::Latest) by the newest, under
    /// [`latest_by`](crate::SubscriptionBuilder::latest_by) by the newest of the same key.
    pub replaced: u64,
    /// How many items the server has left out, according to the numbers of the items
    /// ([`sequence_by`](crate::SubscriptionBuilder::sequence_by)) or to what the server says
    /// ([`gap_if`](crate::SubscriptionBuilder::gap_if)). Without these options it is 0, because the
    /// client cannot know.
    pub missing: u64,
    /// How long there was no connection, from the loss until the operation was queued again.
    pub down_for: Duration,
    /// Why the connection was lost the last time; `None` if it was not lost.
    pub cause: Option<Disconnect>,
    /// The errors with which the server ended the operation, the last time that
    /// [`restart_if`](crate::SubscriptionBuilder::restart_if) took them for transient.
    pub errors: Vec<GraphQlError>,
    /// The reader has asked for items again, and what it asked for follows.
    pub(crate) is_answer: bool,
}

impl Gap {
    /// Returns whether nothing is missing here, provided that the server honours the position that
    /// it was given. Items may still come twice; see [`overlaps`](Self::overlaps).
    ///
    /// That is the case if the operation was [`resumed`](Self::resumed) each time that it was sent
    /// again, if the server has left out nothing that is [`missing`](Self::missing), and if all
    /// items that were dropped were [`replaced`](Self::replaced) by newer ones. The latter is no
    /// loss only if items are values and not changes.
    pub fn is_lossless(&self) -> bool {
        self.missing == 0
            && self.dropped == self.replaced
            && (self.resumed || self.times_sent() == 0)
    }

    /// Whether there is nothing to report.
    pub(crate) fn is_empty(&self) -> bool {
        self.times_sent() == 0 && self.overlaps == 0 && self.dropped == 0 && self.missing == 0
    }

    /// How often the operation was sent again, on the same connection or on a new one.
    pub(crate) fn times_sent(&self) -> u32 {
        self.reconnects + self.restarts
    }

    /// Adds a gap that follows this one directly.
    pub(crate) fn merge(&mut self, later: Self) {
        self.resumed = match (self.times_sent(), later.times_sent()) {
            (_, 0) => self.resumed,
            (0, _) => later.resumed,
            (_, _) => self.resumed && later.resumed,
        };
        self.reconnects += later.reconnects;
        self.restarts += later.restarts;
        self.overlaps += later.overlaps;
        self.dropped += later.dropped;
        self.replaced += later.replaced;
        self.missing += later.missing;
        self.is_answer |= later.is_answer;
        self.down_for += later.down_for;
        self.cause = later.cause.or(self.cause.take());
        if !later.errors.is_empty() {
            self.errors = later.errors;
        }
    }
}
