//! How many connections there are.

use std::num::NonZeroUsize;

use super::ClientBuilder;

impl ClientBuilder {
    /// Sets how many connections operations are spread over. Default: one.
    ///
    /// For very busy services, as each connection is a task that runs on a core of its own, and for
    /// gateways that limit what one may carry. Each operation goes to the connection that carries
    /// the least, so as long as none ends no two differ by more than one. It stays there: a
    /// connection that is lost affects its own operations alone. Each is dialed when the first
    /// operation is placed on it, or by [`connect`](crate::Client::connect), with credentials of
    /// its own, and closed when it is [idle](Self::idle_timeout).
    ///
    /// Everything else that is set here holds for each, [`give_up_after`](Self::give_up_after) and
    /// [`on_disconnect`](Self::on_disconnect) for instance: what is final for one ends its own
    /// operations. Only [`max_dials`](Self::max_dials) holds for all together.
    /// [`status`](crate::Client::status) and [`stats`](crate::Client::stats) show them as one.
    ///
    /// Between two operations on different connections there is no order, nor need they reach the
    /// same server behind a load balancer. Equal [shared](crate::SubscriptionBuilder::shared)
    /// subscriptions are on the same one, whatever the others carry, as long as it has room. Under
    /// [`Overflow::Block`](crate::Overflow::Block) a reader stalls those on its own connection.
    pub fn connections(mut self, connections: NonZeroUsize) -> Self {
        self.placement.connections = Some(connections);
        self
    }

    /// Sets how many operations a connection may carry at once. Default: any number.
    ///
    /// For gateways with such a limit; 100 is common. Queries and mutations count from their
    /// beginning to their end, as subscriptions do; so does each reader of a
    /// [shared](crate::SubscriptionBuilder::shared) subscription. While a connection is
    /// [replaced](crate::Client::rotate) both carry the same, and no more each. A place is free
    /// again when its operation has ended, or was dropped.
    ///
    /// With [`connections`](Self::connections), operations are spread over these, and one for which
    /// none has room is refused with [`SubscribeError::Full`](crate::SubscribeError::Full).
    /// Without, there are as many connections as it takes: each operation goes to the first that
    /// has room, and to another one only when all are full, so the last ones empty and close first.
    pub fn max_subscriptions_per_connection(mut self, operations: NonZeroUsize) -> Self {
        self.placement.limit = Some(operations);
        self
    }
}
