//! Where a stream goes on after a restart of the application.

use std::fmt;

use serde::{Deserialize, Serialize};

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
    /// The row in the item that was read last. Never skipped, because a format that does not name
    /// its fields would then confuse them.
    #[serde(default)]
    pub(super) row: usize,
    /// The keys in the window of `dedupe_by`, each as JSON, because not every format can represent
    /// a value whose type it does not know.
    #[serde(default)]
    pub(super) keys: Vec<String>,
}

impl Position {
    pub(super) fn new(item: &Payload, row: usize, keys: Vec<String>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_has_all_fields_as_some_formats_do_not_name_them() {
        let item = Payload::new(r#"{"data":1}"#.to_owned(), 0..10);
        for (row, keys) in [(0, vec![]), (0, vec!["7".to_owned()]), (3, vec![])] {
            let stored = serde_json::to_value(Position::new(&item, row, keys.clone())).unwrap();
            let fields = serde_json::json!({"item": r#"{"data":1}"#, "row": row, "keys": keys});
            assert_eq!(stored, fields);
        }
    }
}
