//! What an operator can see of a client: its status, as it changes, and its counts.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use crate::{error::Disconnect, protocol::Subprotocol};

/// What the connection is doing; see [`Client::status`](crate::Client::status).
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
    },
    /// Acknowledged: operations are live.
    #[non_exhaustive]
    Open {
        /// What is spoken.
        subprotocol: Subprotocol,
        /// What the server sent with `connection_ack`; `None` if that is nothing, or more than 64 KiB.
        ack_payload: Option<Arc<Value>>,
    },
    /// Not connected; the next attempt is due after `delay`.
    #[non_exhaustive]
    Waiting {
        /// From now until the next attempt.
        delay: Duration,
        /// Why the last connection was lost, or could not be made; `None` if only
        /// [`max_dials`](crate::ClientBuilder::max_dials) delays it.
        cause: Option<Disconnect>,
    },
    /// Not connected, as the application wants: [`Client::pause`](crate::Client::pause).
    Paused,
    /// Shut down.
    Ended,
}

/// Counts since the client was built; see [`Client::stats`](crate::Client::stats).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Attempts to connect.
    pub dials: u64,
    /// Acknowledged connections.
    pub connections: u64,
    /// Acknowledged connections after the first.
    pub reconnects: u64,
    /// Items that arrived for live operations.
    pub items: u64,
    /// Items that an overflow policy dropped.
    pub dropped: u64,
    /// Items that wait for a reader; may be behind by what has just arrived.
    pub queued_items: u64,
    /// Messages that were ignored: unknown ids and types, and what could not be read.
    pub ignored: u64,
    /// Bytes of messages received.
    pub bytes_in: u64,
    /// Bytes of messages sent.
    pub bytes_out: u64,
    /// Operations that have not ended.
    pub live_operations: u64,
    /// From the last answered ping to its pong.
    pub round_trip_time: Option<Duration>,
}
