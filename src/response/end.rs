//! How an operation ended.

use crate::{
    error::{Disconnect, SharedError},
    protocol::Payload,
};

/// How an operation ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Completed,
    /// Of a query or mutation: its result.
    Answered(Payload),
    /// Of a mutation: it was written, and its result will not come; the cause is there if that was
    /// a lost connection.
    Ambiguous(Option<Disconnect>),
    /// Of a query or mutation: its time was up; a mutation was never written.
    TimedOut,
    /// The payload of the server's `error`, JSON.
    Rejected(Option<Box<str>>),
    Lost(Disconnect),
    GaveUp {
        attempts: u32,
        cause: Disconnect,
    },
    Overflow,
    /// The application's own code failed, without which the operation cannot go on.
    Hook(SharedError),
    ShutDown,
}
