//! Options for the number of connections.

use std::num::NonZeroUsize;

use super::ClientBuilder;

impl ClientBuilder {
    /// Sets the number of connections that the client spreads its operations over. Default: one.
    ///
    /// Use several for very busy services, because each connection is a task that can run on its
    /// own core, and for gateways that limit the operations of a connection. A new operation goes
    /// to the connection with the fewest operations and stays there. The loss of a connection
    /// affects only its own operations. Each connection asks for its own credentials. The client
    /// opens it for its first operation or on [`connect`](crate::Client::connect), and closes it
    /// when it is [idle](Self::idle_timeout).
    ///
    /// All other options hold for each connection, such as [`give_up_after`](Self::give_up_after)
    /// and [`on_disconnect`](Self::on_disconnect): a fatal error on one connection ends only the
    /// operations on it. Only [`max_dials`](Self::max_dials) holds for all connections together.
    /// [`status`](crate::Client::status) and [`stats`](crate::Client::stats) combine them.
    ///
    /// Operations on different connections have no common order, and behind a load balancer they
    /// may reach different servers. Equal [shared](crate::SubscriptionBuilder::shared)
    /// subscriptions use the same connection as long as it has room. With
    /// [`Overflow::Block`](crate::Overflow::Block), a reader stalls only its own connection.
    pub fn connections(mut self, connections: NonZeroUsize) -> Self {
        self.placement.connections = Some(connections);
        self
    }

    /// Sets the maximum number of operations on a connection. Default: no limit.
    ///
    /// Use this for gateways with such a limit; 100 is common. Subscriptions, queries and mutations
    /// count until they end or are dropped. Each reader of a
    /// [shared](crate::SubscriptionBuilder::shared) subscription counts as one. While the client
    /// [replaces](crate::Client::rotate) a connection, the limit holds for the old and the new
    /// connection separately.
    ///
    /// With [`connections`](Self::connections), a new operation fails with
    /// [`SubscribeError::Full`](crate::SubscribeError::Full) when all connections are full. Without
    /// it, the client opens as many connections as it needs. A new operation goes to the first
    /// connection with room, so that the last connections become idle and close first.
    pub fn max_subscriptions_per_connection(mut self, operations: NonZeroUsize) -> Self {
        self.placement.limit = Some(operations);
        self
    }
}
