//! What a session wants done.

use std::{ops::Range, time::Duration};

use super::{Backlog, ConnectionId, CredentialsReason, Status};
use crate::{
    error::{CloseCode, Disconnect},
    protocol::Subprotocol,
    response::{ConnectionEnd, End, Gap},
};

/// Something to do, in order.
#[derive(Debug)]
pub(crate) enum Output<W> {
    /// Ask the provider; answer with `handle_credentials`.
    Authorize(ConnectionId, CredentialsReason),
    /// Make a socket; answer with `handle_open` or `handle_lost`.
    Dial(ConnectionId, Subprotocol),
    /// Drop the socket, or the attempt at one, after sending this close frame if that works at
    /// once.
    Hangup(ConnectionId, Option<(CloseCode, &'static str)>),
    /// The operation is about to be sent again, which this gap announces. If the application has a
    /// position to go on from, answer with `resume_from`.
    Reissue { writer: W, gap: Gap },
    /// The operation is about to be sent on the new connection of a handover, and goes on on the
    /// old one. If the application has a position to go on from, answer with `resume_from`.
    Resume { writer: W },
    /// What follows arrived on another connection.
    Gap { writer: W, gap: Gap },
    /// Items that were held. Deliver them until the writer does not go on, and answer with
    /// `delivered` and what is left.
    Deliver { id: u64, writer: W, backlog: Backlog },
    /// The server has read the operation, as was asked.
    Established { writer: W },
    /// Nothing has arrived for the operation for so long.
    Stale { writer: W, idle_for: Duration },
    /// The server has ended the operation. If the application takes that for transient answer with
    /// `restart`, else with `cancel`, and tell the reader.
    AskIfTransient { writer: W, end: End },
    /// The operation is over (I1).
    Finish { writer: W, end: End },
    /// For everyone who waits for a connection: there is one, or there will be none.
    Connected(Result<(), ConnectionEnd>),
    /// For everyone who waits for another connection in place of the current one.
    Rotated(Result<(), ConnectionEnd>),
    /// The connection could not be replaced for now, and goes on.
    Postponed(Disconnect),
    /// A server that has worked refuses connections from now on; how long that is tolerated.
    Refused(Disconnect, Duration),
    /// Something arrived that is about no operation, and the server's words if there are any.
    Unattributed(Option<String>),
    /// What an operator sees.
    Status(Status),
    /// Nothing follows.
    Ended,
}

/// What a credentials provider gave.
#[derive(Clone)]
pub(crate) struct Granted {
    /// A JSON object.
    pub(crate) init_payload: Box<str>,
    /// For how long from now on they are valid, if that is known.
    pub(crate) lifetime: Option<Duration>,
}

/// An item: where its payload is in the frame that was just handled, and whose it is.
#[derive(Debug)]
pub(crate) struct Item<'a, S> {
    pub(crate) writer: &'a S,
    pub(crate) payload: Range<usize>,
}

/// What the session counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) dials: u64,
    pub(crate) connections: u64,
    pub(crate) reconnects: u64,
    pub(crate) handovers: u64,
    pub(crate) items: u64,
    pub(crate) ignored: u64,
    pub(crate) discarded: u64,
    pub(crate) round_trip_time: Option<Duration>,
}
