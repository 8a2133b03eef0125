//! What keeps an operation from being begun.

use thiserror::Error;

use super::{SharedError, SyntaxError, display::OneLine};

/// Why an operation was not accepted. Nothing was sent for it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The client was shut down. Build a new client.
    #[error("the client was shut down")]
    ShutDown,
    /// The tokio runtime that the client was built on has ended, and the client's tasks with it.
    /// Build a new client on a runtime that lives as long as the client is used.
    #[error("the runtime that the client was built on is gone")]
    RuntimeGone,
    /// The variables do not serialize to JSON, or the request is not an object with a document.
    #[error("the operation does not serialize")]
    Serialize(#[source] serde_json::Error),
    /// The position of [`starting_after`](crate::SubscriptionBuilder::starting_after) is not one of
    /// this operation: its item has another type. Start without it.
    #[error("the position is not one of this operation")]
    Position(#[source] SharedError),
    /// The operation, as JSON, is larger than a message may be.
    #[error("the operation is {size} bytes long, above the limit of {limit} bytes")]
    TooLarge {
        /// The size of the serialized operation in bytes.
        size: usize,
        /// The limit in bytes; see [`max_message_size`](crate::ClientBuilder::max_message_size).
        limit: usize,
    },
    /// Every connection carries as many operations as it may. Try again when one has ended, or
    /// raise a limit.
    #[error("all connections are full: {connections}, each with {limit} operations")]
    Full {
        /// The number of connections; see [`connections`](crate::ClientBuilder::connections).
        connections: usize,
        /// How many operations each may carry; see [`max_subscriptions_per_connection`].
        ///
        /// [`max_subscriptions_per_connection`]: crate::ClientBuilder::max_subscriptions_per_connection
        limit: usize,
    },
    /// These options do not go together; the text names them.
    #[error("{0}")]
    Option(&'static str),
    /// The document is not GraphQL. Correct it; or, if its syntax is newer than what the client
    /// knows, send it [`unchecked`](crate::SubscriptionBuilder::unchecked).
    #[error(transparent)]
    Syntax(SyntaxError),
    /// The document has no operation, only fragments for instance.
    #[error("the document has no operation")]
    NoOperation,
    /// `operationName` is the name of no operation in the document. This is the name.
    #[error("the document has no operation named `{}`", OneLine(.0))]
    UnknownOperation(String),
    /// The document has several operations. Name the one to run, see
    /// [`Request::operation_name`](crate::Request::operation_name).
    #[error("the document has {0} operations, and none is named as the one to run")]
    UnnamedOperation(usize),
    /// The operation is a mutation. A reconnect sends subscriptions and queries again, which would
    /// execute a mutation twice.
    #[error("the operation is a mutation, which a reconnect would execute again")]
    Mutation,
    /// The operation is a subscription. A call would return only the first of its results.
    #[error("the operation is a subscription, which has more than one result")]
    Subscription,
}
