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
    /// Stop reading the socket until there is room. Loses nothing, and the server slows down, as
    /// TCP takes no more from it. But this **stalls every other subscription and call on this
    /// connection**, so use it on a connection of its own:
    /// [`dedicated`](crate::SubscriptionBuilder::dedicated).
    ///
    /// While the connection is stalled, the client takes silence for no sign of a loss, and answers
    /// none of the server's pings. A server that needs the answers may close the connection. The
    /// operation is then sent again behind a gap, and with
    /// [`resume_with`](crate::SubscriptionBuilder::resume_with) nothing is lost.
    Block,
    /// Complete the operation on the server. Once the reader has caught up, start the operation
    /// again after the last item that was kept. If the server honours the position, this loses
    /// nothing, and it never stalls others.
    ///
    /// A server sends items until it has read that the operation is completed. The client holds
    /// them besides the queue, up to 8 MiB for each connection, and delivers them before it starts
    /// the operation again. It throws away what exceeds that, and what arrives after the operation
    /// was started again; the server sends those items once more.
    /// [`Stats::discarded`](crate::Stats::discarded) counts them.
    ///
    /// Use this for a reader that is too slow at times and shares its connection. For one that is
    /// always too slow, [`Block`](Self::Block) on a
    /// [dedicated](crate::SubscriptionBuilder::dedicated) connection needs neither a position nor
    /// further requests.
    ///
    /// Needs [`resume_with`](crate::SubscriptionBuilder::resume_with), and a capacity well above
    /// the number of items that the server may repeat. Does not work with
    /// [shared](crate::SubscriptionBuilder::shared) subscriptions.
    Rewind,
}
