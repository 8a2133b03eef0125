//! What can be subscribed to, queried or run as a mutation: anything that has a document and
//! variables.
//!
//! Owns the one trait for it, an untyped implementation (`request.rs`), the one for
//! `graphql_client`'s generated types (`typed.rs`), and the check of documents before they are sent
//! (`document.rs`).

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

#[cfg(feature = "client")]
pub(crate) mod document;
mod request;
#[cfg(feature = "graphql-client")]
mod typed;

pub use self::request::Request;
#[cfg(feature = "graphql-client")]
pub use self::typed::Typed;

/// An operation: a document with its variables, and the type of its data.
///
/// Implemented here for [`Request`] (any document) and `Typed` (`graphql_client`). Another code
/// generator needs these few lines:
///
/// ```
/// # use resub::Operation;
/// # use serde_json::value::{RawValue, to_raw_value};
/// struct Ticks { every_ms: u32 }
///
/// impl Operation for Ticks {
///     type Data = serde_json::Value;
///
///     fn payload(&self) -> Result<Box<RawValue>, serde_json::Error> {
///         to_raw_value(&serde_json::json!({
///             "query": "subscription Ticks($every: Int) { ticks(everyMs: $every) }",
///             "operationName": "Ticks",
///             "variables": { "every": self.every_ms },
///         }))
///     }
/// }
/// ```
pub trait Operation {
    /// The type of `data` in every result.
    type Data: DeserializeOwned;

    /// The request: an object with `query` and, as needed, `operationName`, `variables` and
    /// `extensions` (GraphQL over HTTP, section "Request parameters"). Called once for each use;
    /// the bytes of a subscription or query are kept and sent again after a reconnect, so it must
    /// not be a mutation. The document in `query` is parsed, and refused if it is not GraphQL, does
    /// not have the operation to run, or runs a mutation; a persisted operation, without `query`,
    /// is taken at its word.
    ///
    /// # Errors
    ///
    /// If the variables do not serialize. What it was to be used for fails with it.
    fn payload(&self) -> Result<Box<RawValue>, serde_json::Error>;

    /// The operation's name, for logs. Default: none.
    fn name(&self) -> Option<&str> {
        None
    }
}

/// An operation whose variables can be changed before it is sent again, for
/// [`resume_with`](crate::SubscriptionBuilder::resume_with).
///
/// ```
/// # use resub::{Operation, Resumable};
/// # use serde_json::value::{RawValue, to_raw_value};
/// # struct Trades { after: Option<u64> }
/// # impl Operation for Trades {
/// #     type Data = serde_json::Value;
/// #     fn payload(&self) -> Result<Box<RawValue>, serde_json::Error> { to_raw_value(&()) }
/// # }
/// impl Resumable for Trades {
///     type Variables = Self;
///
///     fn change(&mut self, change: impl FnOnce(&mut Self)) -> Result<(), serde_json::Error> {
///         change(self);
///         Ok(())
///     }
/// }
/// ```
pub trait Resumable: Operation {
    /// What says from where the server is to send.
    type Variables;

    /// Changes the variables; the next [`payload`](Operation::payload) has the new ones.
    ///
    /// # Errors
    ///
    /// If the variables cannot be had, or not be serialized again.
    fn change(
        &mut self,
        change: impl FnOnce(&mut Self::Variables),
    ) -> Result<(), serde_json::Error>;
}

/// What an operation does, in the words of the GraphQL specification (section "Operations").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OperationType {
    /// One result; may be sent again.
    Query,
    /// One result; must never be sent twice.
    Mutation,
    /// Any number of results; is sent again on every connection.
    Subscription,
}
