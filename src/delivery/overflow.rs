//! The policies for a full queue.

/// What happens when an item arrives and the queue of the subscription is full.
///
/// A loss is never silent: a [`Gap`](crate::Gap) at its place in the stream counts it, or the
/// stream ends with an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Drop the oldest unread item. A slow reader sees a gap and continues with recent items.
    #[default]
    DropOldest,
    /// Drop the item that just arrived. A slow reader gets the oldest items first, then a gap.
    DropNewest,
    /// Keep only the newest item, regardless of the capacity. Use this for values, where a newer
    /// item replaces an older one.
    Latest,
    /// Keep only the newest item of each key, in the order in which the keys first arrived. Use
    /// this for quotes, positions and similar values. If the queue is full, the oldest item is
    /// dropped. [`latest_by`](crate::SubscriptionBuilder::latest_by) sets this and the key.
    LatestBy,
    /// End the subscription with
    /// [`SubscriptionError::Overflow`](crate::SubscriptionError::Overflow). The reader still gets
    /// the items in the queue first.
    Fail,
    /// Stop reading the socket until there is room. Loses nothing, but **stalls every other
    /// subscription and call on this connection**. It also delays the answers to the server's
    /// pings, so the server may close the connection.
    Block,
    /// Complete the operation on the server. Once the reader has caught up, start the operation
    /// again after the last item that was kept. If the server honours the position, this loses
    /// nothing, and it never stalls others.
    ///
    /// Needs [`resume_with`](crate::SubscriptionBuilder::resume_with), and a capacity well above
    /// the number of items that the server may repeat. Does not work with
    /// [shared](crate::SubscriptionBuilder::shared) subscriptions.
    Rewind,
}
