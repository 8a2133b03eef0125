//! Where a stream goes on after a restart of the application.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::Payload;

/// The place in a stream after the last item that was read, to be stored by the application.
///
/// [`Subscription::position`](crate::Subscription::position) returns it, and
/// [`starting_after`](crate::SubscriptionBuilder::starting_after) continues there, in another
/// process too. It serializes in every format; what it contains is an implementation detail. It has
/// the item itself, and the keys of [`dedupe_by`](crate::SubscriptionBuilder::dedupe_by), so store
/// it where you would store the items.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The item, as the server sent it.
    item: String,
    /// The row in the item that was read last.
    #[serde(default, skip_serializing_if = "is_first")]
    pub(super) row: usize,
    /// The keys in the window of `dedupe_by`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) keys: Vec<Value>,
}

impl Position {
    pub(super) fn new(item: &Payload, row: usize, keys: Vec<Value>) -> Self {
        Self { item: item.frame()[item.range()].to_owned(), row, keys }
    }

    pub(super) fn item(&self) -> Payload {
        Payload::new(self.item.clone(), 0..self.item.len())
    }
}

/// Leaves out the content.
impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Position")
            .field("bytes", &self.item.len())
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_first(row: &usize) -> bool {
    *row == 0
}
