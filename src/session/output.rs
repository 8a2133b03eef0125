//! What a session wants done.

use std::{ops::Range, time::Duration};

use super::ConnectionId;
use crate::{
    error::{CloseCode, Disconnect},
    protocol::Subprotocol,
    response::{End, Gap},
    session::{CredentialsReason, Status},
};

/// Something to do, in order.
#[derive(Debug)]
pub(crate) enum Output<S> {
    /// Ask the provider; answer with `handle_credentials`.
    Authorize(ConnectionId, CredentialsReason),
    /// Make a socket; answer with `handle_open` or `handle_lost`.
    Dial(ConnectionId, Subprotocol),
    /// Drop the socket, or the attempt at one, after sending this close frame as far as that works
    /// at once.
    Hangup(ConnectionId, Option<(CloseCode, &'static str)>),
    /// The operation is about to be sent again; `revise` says from where. Without a gap it goes on
    /// on the old leg for now.
    Reissue { writer: S, gap: Option<Gap> },
    /// What follows came on another leg.
    Moved { writer: S, gap: Gap },
    /// An item that was held: where its payload is in its frame, and whose it is.
    Deliver { id: u64, writer: S, frame: Box<str>, payload: Range<usize> },
    /// The server has read the operation on the current connection, as was asked.
    Established { writer: S },
    /// Nothing arrived for the operation for so long.
    Stale { writer: S, idle_for: Duration },
    /// The server has ended the operation, with these errors. Answer with `restart`, or with
    /// `cancel` and tell the reader.
    Judge { writer: S, end: End },
    /// The operation is over (I1).
    Finish { writer: S, end: End },
    /// The message that ends an operation, after all of its items that were held. Answer with
    /// `end_held`.
    End { id: u64, frame: Box<str> },
    /// For who waits for a connection: there is one, or there will be none.
    Connected(Result<(), End>),
    /// For who waits for another connection in place of the one there was.
    Rotated(Result<(), End>),
    /// The connection could not be replaced for now, and goes on.
    Postponed(Disconnect),
    /// What an operator sees.
    Status(Status),
    /// Nothing will follow.
    Ended,
}

/// What a credentials provider gave.
#[derive(Clone)]
pub(crate) struct Granted {
    /// A JSON object.
    pub(crate) init_payload: Box<str>,
    /// For how long from now on it is good, if that is known.
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
    pub(crate) handovers: u64,
    pub(crate) items: u64,
    pub(crate) ignored: u64,
    pub(crate) round_trip_time: Option<Duration>,
}
