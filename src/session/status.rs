//! What an operator can see of a client: its status, as it changes, and its counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{error::Disconnect, protocol::Subprotocol};

/// What the connection is doing, or the worst of several; see
/// [`Client::status`](crate::Client::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// Not connected, and no reason to be: nothing is subscribed.
    Idle,
    /// Getting credentials, dialing, or waiting for the acknowledgement.
    #[non_exhaustive]
    Connecting {
        /// 1 for the first attempt since the last healthy connection.
        attempt: u32,
        /// Why the last connection was lost, or could not be made; `None` at first.
        cause: Option<Disconnect>,
        /// Since when a server that has worked does nothing but refuse, as `cause` says; see
        /// [`refusal_grace`](crate::ClientBuilder::refusal_grace).
        refused_since: Option<Instant>,
    },
    /// Acknowledged: operations are live.
    #[non_exhaustive]
    Open {
        /// The subprotocol in use.
        subprotocol: Subprotocol,
        /// What the server sent with `connection_ack`; `None` if that is nothing, or more than 64
        /// KiB.
        ack_payload: Option<Arc<Value>>,
    },
    /// Not connected; the next attempt is due after `delay`.
    #[non_exhaustive]
    Waiting {
        /// From the moment of this status until the next attempt.
        delay: Duration,
        /// Why the last connection was lost, or could not be made; `None` if only
        /// [`max_dials`](crate::ClientBuilder::max_dials) delays it.
        cause: Option<Disconnect>,
        /// Since when a server that has worked does nothing but refuse, as `cause` says; see
        /// [`refusal_grace`](crate::ClientBuilder::refusal_grace).
        refused_since: Option<Instant>,
    },
    /// Not connected, as the application wants: [`Client::pause`](crate::Client::pause).
    Paused,
    /// Shut down.
    Ended,
}

/// Counts since the client was built; see [`Client::stats`](crate::Client::stats).
///
/// `handovers` and `items` go down again where a handover is undone: the new connection failed, and
/// the old one continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Attempts to connect.
    pub dials: u64,
    /// Acknowledged connections.
    pub connections: u64,
    /// Connections that are acknowledged now: as many as
    /// [`connections`](crate::ClientBuilder::connections) at most, and one for each
    /// [dedicated](crate::SubscriptionBuilder::dedicated) subscription.
    pub connections_open: u64,
    /// Acknowledged connections that followed a lost one. Closing an idle connection,
    /// [`pause`](crate::Client::pause), [`reconnect_now`](crate::Client::reconnect_now) and
    /// handovers are no losses.
    pub reconnects: u64,
    /// Acknowledged connections that replaced one which still worked; see
    /// [`Client::rotate`](crate::Client::rotate).
    pub handovers: u64,
    /// Items that arrived for live operations. An item for several readers of a
    /// [shared](crate::SubscriptionBuilder::shared) operation counts once.
    pub items: u64,
    /// Items that an overflow policy dropped, for each reader that did not get it.
    pub dropped: u64,
    /// Items that were received and thrown away because their subscription was being rewound; see
    /// [`Overflow::Rewind`](crate::Overflow::Rewind). The server sends them again, so none is lost.
    /// If this grows as fast as `items`, use a larger
    /// [`capacity`](crate::SubscriptionBuilder::capacity), or
    /// [`Overflow::Block`](crate::Overflow::Block) on a
    /// [dedicated](crate::SubscriptionBuilder::dedicated) connection.
    pub discarded: u64,
    /// Items that wait in the queues of readers. May be behind by what has just arrived.
    pub queued_items: u64,
    /// Messages that were ignored: unknown ids and types, and what could not be read.
    pub ignored: u64,
    /// Bytes of messages received.
    pub bytes_in: u64,
    /// Bytes of messages sent.
    pub bytes_out: u64,
    /// Operations that have not ended.
    pub live_operations: u64,
    /// From the last answered ping to its pong; of several connections, the longest of these.
    pub round_trip_time: Option<Duration>,
}

impl Stats {
    /// Those of two connections together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            dials: self.dials + other.dials,
            connections: self.connections + other.connections,
            connections_open: self.connections_open + other.connections_open,
            reconnects: self.reconnects + other.reconnects,
            handovers: self.handovers + other.handovers,
            items: self.items + other.items,
            dropped: self.dropped + other.dropped,
            discarded: self.discarded + other.discarded,
            queued_items: self.queued_items + other.queued_items,
            ignored: self.ignored + other.ignored,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            live_operations: self.live_operations + other.live_operations,
            round_trip_time: self.round_trip_time.max(other.round_trip_time),
        }
    }
}
