//! What happens to an item for which a subscription has no room.

/// What happens to an item for which a subscription has no room.
///
/// A loss is never silent: it is counted in a [`Gap`](crate::Gap) at its place in the stream, or
/// ends it with an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Drop the oldest undelivered item: the reader falls behind, sees a gap, and goes on with what
    /// is recent.
    #[default]
    DropOldest,
    /// Drop the item that just arrived: the reader gets what is oldest first, then a gap.
    DropNewest,
    /// Keep only the newest item, whatever the capacity: for values that replace one another.
    Latest,
    /// Keep the newest item of each key, in the order in which the keys first arrived: for quotes,
    /// positions and the like. Set by [`latest_by`](crate::SubscriptionBuilder::latest_by), which
    /// has the key. Beyond the capacity, the oldest is dropped.
    LatestBy,
    /// End the subscription with
    /// [`SubscriptionError::Overflow`](crate::SubscriptionError::Overflow), after the items that it
    /// holds.
    Fail,
    /// Stop reading the socket until there is room. Loses nothing, but **stalls every other
    /// subscription and call on this connection** and the answers to the server's pings meanwhile,
    /// so that the server may close the connection.
    Block,
    /// Complete the operation on the server, and start it again after the last item that was kept
    /// once the reader has caught up. Loses nothing, stalls nobody and holds no more than the
    /// capacity, as far as the server honours the position. Needs
    /// [`resume_with`](crate::SubscriptionBuilder::resume_with), and a capacity well above what the
    /// server may repeat; not for [shared](crate::SubscriptionBuilder::shared) subscriptions.
    Rewind,
}
