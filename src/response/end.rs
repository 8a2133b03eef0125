//! How an operation ended.

use crate::{
    error::{Disconnect, SharedError},
    protocol::Payload,
};

/// How an operation ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// The server sent `complete`.
    Completed,
    /// The server sent `error`, with this JSON as its payload.
    Rejected(Option<Box<str>>),
    /// The client gave up, or was shut down.
    Connection(ConnectionEnd),
    /// Only queries and mutations end in this way.
    Call(CallEnd),
    /// Only subscriptions end in this way.
    Stream(StreamEnd),
}

/// Why there will be no connection. All operations end with it.
#[derive(Clone, Debug)]
pub(crate) enum ConnectionEnd {
    /// The connection was lost, and the cause is fatal.
    Lost(Disconnect),
    /// As many attempts to connect failed as the application allows.
    GaveUp { attempts: u32, cause: Disconnect },
    /// The application shut the client down.
    ShutDown,
}

#[derive(Clone, Debug)]
pub(crate) enum CallEnd {
    /// The result.
    Answered(Payload),
    /// The result, in parts.
    AnsweredInParts(Vec<Payload>),
    /// The server ended the operation after these parts, though more were to follow.
    Incomplete(Vec<Payload>),
    /// The parts of the result were larger than this together, in bytes.
    PartsTooLarge(usize),
    /// A mutation was written, and its result will not come. The cause is set if the connection
    /// was lost.
    Ambiguous(Option<Disconnect>),
    /// There was no result in time. A mutation that ends in this way was never written.
    TimedOut,
}

#[derive(Clone, Debug)]
pub(crate) enum StreamEnd {
    /// The queue was full, under [`Overflow::Fail`](crate::Overflow::Fail).
    Overflow,
    /// A hook of the application failed, and the subscription cannot go on without it.
    Hook(SharedError),
}

impl ConnectionEnd {
    pub(crate) fn cause(&self) -> Option<&Disconnect> {
        match self {
            Self::Lost(cause) | Self::GaveUp { cause, .. } => Some(cause),
            Self::ShutDown => None,
        }
    }
}
