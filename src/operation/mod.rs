//! Operations: subscriptions, queries and mutations, each a document with variables.
//!
//! Owns the one trait for it, an untyped implementation (`request.rs`), the one for
//! `graphql_client`'s generated types (`typed.rs`), and the check of documents before they are sent
//! (`document.rs`).

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

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
/// This crate implements it for [`Request`] (any document) and `Typed` (`graphql_client`). Other
/// code generators need an implementation like this one:
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

    /// Returns the request: an object with `query` and, as needed, `operationName`, `variables` and
    /// `extensions` (GraphQL over HTTP, section "Request parameters").
    ///
    /// The client calls this once for each use. It keeps the bytes of a subscription or query and
    /// sends them again after a reconnect, so the request must not be a mutation. The client parses
    /// the document in `query`, and refuses it if it has a syntax error, has no operation to run,
    /// or runs a mutation. For a persisted operation, the caller must make sure of it.
    ///
    /// # Errors
    ///
    /// Fails if the variables do not serialize. The call that uses the operation fails with this
    /// error.
    fn payload(&self) -> Result<Box<RawValue>, serde_json::Error>;

    /// Returns the name of the operation, for logs. Default: `None`.
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
    /// The type of the variables, which contain the position to resume from.
    type Variables;

    /// Changes the variables. The next [`payload`](Operation::payload) contains the new ones.
    ///
    /// # Errors
    ///
    /// Fails if the variables cannot be parsed, or do not serialize after the change. The
    /// subscription ends with this error.
    fn change(
        &mut self,
        change: impl FnOnce(&mut Self::Variables),
    ) -> Result<(), serde_json::Error>;
}

/// The type of an operation (GraphQL specification, section "Operations").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OperationType {
    /// Has one result. It may be sent again.
    Query,
    /// Has one result. It must never be sent twice.
    Mutation,
    /// Has any number of results. It is sent again on every new connection.
    Subscription,
}

/// Returns a request as it is sent. What is not set is left out: some servers refuse
/// `variables: null`.
fn body(
    query: &str,
    operation_name: Option<&str>,
    variables: Option<&RawValue>,
) -> Result<Box<RawValue>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        query: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        operation_name: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        variables: Option<&'a RawValue>,
    }
    let variables = variables.filter(|variables| variables.get() != "null");
    to_raw_value(&Body { query, operation_name, variables })
}
