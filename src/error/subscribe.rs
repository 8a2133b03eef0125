//! What keeps an operation from being begun.

use thiserror::Error;

use super::{SyntaxError, display::Quoted};

/// Why an operation was not accepted. Nothing was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The client was shut down, or its runtime is gone. Build a new one.
    #[error("the client was shut down")]
    ShutDown,
    /// The variables do not serialize to JSON, or the request is not an object with a document.
    #[error("the operation does not serialize")]
    Serialize(#[source] serde_json::Error),
    /// The operation's JSON is larger than a message may be.
    #[error("the operation is {size} bytes long, above the limit of {limit} bytes")]
    TooLarge {
        /// Bytes of the serialized operation.
        size: usize,
        /// The limit, see [`max_message_size`](crate::ClientBuilder::max_message_size).
        limit: usize,
    },
    /// Every connection carries as many operations as it may. Try again when one has ended, or
    /// allow more.
    #[error("all connections are full: {connections}, each with {limit} operations")]
    Full {
        /// How many there may be, see [`connections`](crate::ClientBuilder::connections).
        connections: usize,
        /// How many operations each may carry, see
        /// [`max_subscriptions_per_connection`](crate::ClientBuilder::max_subscriptions_per_connection).
        limit: usize,
    },
    /// Options that do not go together; the text names them.
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
    #[error("the document has no operation named `{}`", Quoted(.0))]
    UnknownOperation(String),
    /// The document has several operations. Name the one to run, see
    /// [`Request::operation_name`](crate::Request::operation_name).
    #[error("the document has {0} operations, and none is named as the one to run")]
    UnnamedOperation(usize),
    /// The document's operation is a mutation. Queries and subscriptions are sent again after a
    /// reconnect; a mutation must not be.
    #[error("the operation is a mutation, which a reconnect would execute again")]
    Mutation,
    /// The document's operation is a subscription, of which a call would see the first result only.
    #[error("the operation is a subscription, which has more than one result")]
    Subscription,
}
