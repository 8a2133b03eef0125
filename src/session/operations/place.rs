//! Where an operation is.
//!
//! One value says it all. A loss, an end, a drop, a rewind, staleness, a handover and quarantine
//! are transitions of it, and nothing else about an operation depends on where it is.

use std::time::Instant;

use super::backlog::Backlog;
use crate::{
    error::Disconnect,
    session::{connection::ConnectionId, overlap::Overlap},
};

/// Where an operation is.
///
/// ```text
///                    issue                 taken by the socket           handover
///  Waiting(Why) ──────────> Queued(conn) ───────────────────> On(conn) ────────────> Moving
///    ^                        │                                 │  ^                    │
///    │ lost, rewound, parked, │                                 │  └─ old one is done ──┤
///    └────────────────────────┴─────────────────────────────────┴──── both are lost ────┘
/// ```
#[derive(Debug)]
pub(crate) enum Place {
    /// On no connection, for this reason.
    Waiting(Why),
    /// In the send queue of a connection, not taken by the socket. It may have entered that queue
    /// before; only this turn counts.
    Queued(ConnectionId, u32),
    /// Sent on a connection, with this serial.
    On(ConnectionId, u64),
    /// Carried by both connections of a handover.
    Moving(Box<Moving>),
}

/// What an operation waits for before it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// The current connection to open.
    Connection,
    /// Its turn under `reissue_rate`; it is among the paced ones of the current connection.
    Pacing,
    /// Its reader: to catch up (`Overflow::Rewind`), or to take what was held before its end.
    Reader,
    /// The application to say whether its end was transient (`restart_if`).
    Application,
    /// Its own backoff after a transient end. A new connection ends it, too.
    Backoff,
    /// Its turn to be tried: it may be the operation that closes connections.
    Quarantine,
}

/// How far a handover has got with one operation. Until it is done the old connection counts, and
/// what arrives on the new one is held.
#[derive(Debug)]
pub(crate) struct Moving {
    /// The connection that is being replaced.
    pub(crate) from: ConnectionId,
    /// The serial on that connection.
    pub(crate) old_serial: u64,
    /// The server had begun the operation there before the new connection was asked.
    pub(crate) had_begun: bool,
    /// Its turn in the send queue of the new connection.
    pub(crate) turn: u32,
    /// The serial on the new connection; `None` until it is written there.
    pub(crate) new_serial: Option<u64>,
    /// The new connection was told the position after which to go on: it delivers everything that
    /// follows, whatever the old one still had to say.
    pub(crate) is_resumed: bool,
    /// What both connections have said, to find out whether the old one has nothing to add.
    pub(crate) overlap: Overlap,
    /// When it was first seen to be carried by both connections, which is checked once a second.
    /// `None` before that.
    pub(crate) since: Option<Instant>,
    /// What arrived on the new connection.
    pub(crate) backlog: Backlog,
}

impl Moving {
    pub(crate) fn new(from: ConnectionId, old_serial: u64, had_begun: bool) -> Self {
        Self {
            from,
            old_serial,
            had_begun,
            turn: 0,
            new_serial: None,
            is_resumed: false,
            overlap: Overlap::default(),
            since: None,
            backlog: Backlog::default(),
        }
    }
}

/// Since when an operation has had no connection, and why it lost the one it had.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) since: Instant,
    /// `None` if nothing was lost: the operation was sent again for want of a proof.
    pub(crate) cause: Option<Disconnect>,
}
