//! The mark that a loss leaves in a stream.

use std::time::Duration;

use crate::error::{Disconnect, GraphQlError};

/// A place in the stream at which something may be, or is, missing.
///
/// Whether the consumer has to fetch anew what it derived from the stream is what
/// [`is_lossless`](Self::is_lossless) says.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Gap {
    /// How often the operation was sent again here because the connection was new. What the server
    /// published in between was not received, and nobody knows how much that is.
    pub reconnects: u32,
    /// How often the operation was sent again here on a connection that was there already: by
    /// [`Overflow::Rewind`], [`restart_if`](crate::SubscriptionBuilder::restart_if) or
    /// [`reissue_stale`](crate::SubscriptionBuilder::reissue_stale).
    pub restarts: u32,
    /// How often the operation moved to another connection here while the one before still worked.
    /// What lies before this place may follow again, and nothing is missing. Always 0 with
    /// [`dedupe_by`](crate::SubscriptionBuilder::dedupe_by), which removes that.
    pub overlaps: u32,
    /// Whether the operation went on, each time that it was sent again here, after the last item
    /// received, by [`resume_with`](crate::SubscriptionBuilder::resume_with). A server that honours
    /// the position leaves nothing out then.
    pub resumed: bool,
    /// Items that arrived here and were dropped by the [`Overflow`] policy, those that were
    /// replaced included.
    pub dropped: u64,
    /// How many of those were replaced by a newer item that was kept: under [`Overflow::Latest`]
    /// the newest, under [`Overflow::LatestBy`] the newest of the same key.
    pub replaced: u64,
    /// How long the connection was down, in total.
    pub down_for: Duration,
    /// Why the connection was lost, the last time; `None` if it was not.
    pub cause: Option<Disconnect>,
    /// With what errors the server had ended the operation, the last time that
    /// [`restart_if`](crate::SubscriptionBuilder::restart_if) took them for transient.
    pub errors: Vec<GraphQlError>,
}

impl Gap {
    /// Whether nothing is missing here, if the server honours the position that it was given:
    /// nothing was dropped but what a newer item [`replaced`](Self::replaced), which is no loss
    /// where items are values and not changes; and each time that the operation was sent again it
    /// was [`resumed`](Self::resumed).
    pub fn is_lossless(&self) -> bool {
        self.dropped == self.replaced && (self.resumed || self.times_sent() == 0)
    }

    /// Whether nothing has happened here.
    pub(crate) fn says_nothing(&self) -> bool {
        self.times_sent() == 0 && self.overlaps == 0 && self.dropped == 0
    }

    /// How often the operation was sent again here, on whatever connection.
    pub(crate) fn times_sent(&self) -> u32 {
        self.reconnects + self.restarts
    }

    /// Extends this gap by one that follows it directly.
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
        self.down_for += later.down_for;
        self.cause = later.cause.or(self.cause.take());
        if !later.errors.is_empty() {
            self.errors = later.errors;
        }
    }
}
