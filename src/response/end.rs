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
    /// A query or mutation has its result.
    Answered(Payload),
    /// A mutation was written, and its result will not come. The cause is set if the connection
    /// was lost.
    Ambiguous(Option<Disconnect>),
    /// A query or mutation had no result in time. A mutation that ends in this way was never
    /// written.
    TimedOut,
    /// The server sent `error`, with this JSON as its payload.
    Rejected(Option<Box<str>>),
    /// The connection was lost, and the cause is fatal.
    Lost(Disconnect),
    /// As many attempts to connect failed as the application allows.
    GaveUp { attempts: u32, cause: Disconnect },
    /// The queue was full, under [`Overflow::Fail`](crate::Overflow::Fail).
    Overflow,
    /// A hook of the application failed, and the operation cannot go on without it.
    Hook(SharedError),
    /// The application shut the client down.
    ShutDown,
}
