//! Operations: subscriptions, queries and mutations, each a document with variables.
//!
//! Owns the trait for operations, its untyped implementation, and the one for the types that
//! `graphql_client` generates.

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

use crate::error::SubscribeError;

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
    /// sends them again after a reconnect, so the request must not be a mutation. The client checks
    /// this if there is a document; for a persisted operation, the caller must make sure of it.
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

/// An operation whose document is known only at run time. Its data can be of any type.
///
/// ```
/// # use resub::Request;
/// # use serde_json::json;
/// let document = "subscription($symbol: String) { trades(symbol: $symbol) { price } }";
/// let request = Request::<serde_json::Value>::new(document)
///     .variables(&json!({ "symbol": "BTC" }));
/// ```
pub struct Request<T> {
    document: String,
    operation_name: Option<String>,
    variables: Option<Result<Box<RawValue>, serde_json::Error>>,
    data: PhantomData<fn() -> T>,
}

impl<T> Request<T> {
    /// Creates an operation without variables.
    pub fn new(document: impl Into<String>) -> Self {
        Self { document: document.into(), operation_name: None, variables: None, data: PhantomData }
    }

    /// Sets the variables, which must be an object. Default: none. If they do not serialize, the
    /// call that uses the request fails with that error.
    #[must_use]
    pub fn variables(mut self, variables: &(impl Serialize + ?Sized)) -> Self {
        self.variables = Some(to_raw_value(variables));
        self
    }

    /// Sets which operation of the document to run. Default: none, for a document with a single
    /// operation.
    #[must_use]
    pub fn operation_name(mut self, name: impl Into<String>) -> Self {
        self.operation_name = Some(name.into());
        self
    }
}

impl<T: DeserializeOwned> Operation for Request<T> {
    type Data = T;

    fn payload(&self) -> Result<Box<RawValue>, serde_json::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            query: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            operation_name: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            variables: Option<&'a RawValue>,
        }
        let variables = match &self.variables {
            Some(Ok(variables)) => Some(&**variables),
            Some(Err(error)) => return Err(serde::ser::Error::custom(error)),
            None => None,
        };
        to_raw_value(&Body { query: &self.document, operation_name: self.name(), variables })
    }

    fn name(&self) -> Option<&str> {
        self.operation_name.as_deref()
    }
}

/// The variables are a JSON value, which is `null` if none were set.
impl<T: DeserializeOwned> Resumable for Request<T> {
    type Variables = serde_json::Value;

    fn change(
        &mut self,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> Result<(), serde_json::Error> {
        let mut variables = match self.variables.take() {
            Some(variables) => serde_json::from_str(variables?.get())?,
            None => serde_json::Value::Null,
        };
        change(&mut variables);
        self.variables = Some(to_raw_value(&variables));
        Ok(())
    }
}

/// Leaves out the variables, which may be secret.
impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("document", &self.document)
            .field("operation_name", &self.operation_name)
            .finish_non_exhaustive()
    }
}

/// An operation generated by the derive macro of `graphql_client`, with its variables.
#[cfg(feature = "graphql-client")]
#[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
pub struct Typed<Q: graphql_client::GraphQLQuery>(graphql_client::QueryBody<Q::Variables>);

#[cfg(feature = "graphql-client")]
impl<Q: graphql_client::GraphQLQuery> Typed<Q> {
    /// Creates the operation with these variables.
    pub fn new(variables: Q::Variables) -> Self {
        Self(Q::build_query(variables))
    }
}

#[cfg(feature = "graphql-client")]
impl<Q: graphql_client::GraphQLQuery> Operation for Typed<Q> {
    type Data = Q::ResponseData;

    fn payload(&self) -> Result<Box<RawValue>, serde_json::Error> {
        to_raw_value(&self.0)
    }

    fn name(&self) -> Option<&str> {
        Some(self.0.operation_name)
    }
}

#[cfg(feature = "graphql-client")]
impl<Q: graphql_client::GraphQLQuery> Resumable for Typed<Q> {
    type Variables = Q::Variables;

    fn change(&mut self, change: impl FnOnce(&mut Q::Variables)) -> Result<(), serde_json::Error> {
        change(&mut self.0.variables);
        Ok(())
    }
}

#[cfg(feature = "graphql-client")]
impl<Q: graphql_client::GraphQLQuery> fmt::Debug for Typed<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Typed").field(&self.0.operation_name).finish()
    }
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

/// The parts of a request that decide whether it may be sent again.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    query: Option<String>,
    operation_name: Option<String>,
}

/// Checks that a document matches the way in which it is started, where a mismatch does harm: a
/// mutation that would be sent again, and a subscription of which only the first result would be
/// read. A persisted operation has no document, so it cannot be checked.
pub(crate) fn check(payload: &RawValue, kind: OperationType) -> Result<(), SubscribeError> {
    if !payload.get().starts_with('{') {
        return Err(SubscribeError::Serialize(serde::ser::Error::custom("a request is an object")));
    }
    let Body { query, operation_name } =
        serde_json::from_str(payload.get()).map_err(SubscribeError::Serialize)?;
    // Some servers treat an empty name as no name.
    let name = operation_name.filter(|name| !name.is_empty());
    let runs =
        |keyword| query.as_ref().is_some_and(|document| runs(keyword, document, name.as_deref()));
    match kind {
        OperationType::Query | OperationType::Subscription if runs("mutation") => {
            Err(SubscribeError::Mutation)
        }
        OperationType::Query | OperationType::Mutation if runs("subscription") => {
            Err(SubscribeError::Subscription)
        }
        OperationType::Query | OperationType::Mutation | OperationType::Subscription => Ok(()),
    }
}

/// Whether the named operation is of the type of this keyword. Without a name, whether any is.
fn runs(keyword: &str, document: &str, operation_name: Option<&str>) -> bool {
    let mut lexer = Lexer { rest: document };
    let mut depth = 0_usize;
    // At the top level of a document, only the first word of a definition is a keyword.
    let mut begins = true;
    while let Some(token) = lexer.next() {
        match token {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                begins = depth == 0 && token == "}";
                continue;
            }
            _ if token == keyword && depth == 0 && begins => {
                match (operation_name, lexer.clone().next()) {
                    (None, _) => return true,
                    (Some(wanted), Some(name)) if wanted == name => return true,
                    (Some(_), _) => {}
                }
            }
            _ => {}
        }
        begins = false;
    }
    false
}

/// Yields the names and punctuation of a GraphQL document. Skips ignored tokens, comments and
/// strings.
#[derive(Clone)]
struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Lexer<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            self.rest = self
                .rest
                .trim_start_matches(|c: char| c.is_whitespace() || c == ',' || c == '\u{feff}');
            if self.rest.starts_with('#') {
                self.skip_to(self.rest.find(['\n', '\r']));
            } else if self.rest.starts_with(r#"""""#) {
                let mut text = &self.rest[3..];
                while let Some(end) = text.find(r#"""""#) {
                    let escaped = text[..end].ends_with('\\');
                    text = &text[end + 3..];
                    if !escaped {
                        break;
                    }
                }
                self.rest = text;
            } else if self.rest.starts_with('"') {
                let mut escaped = false;
                self.skip_to(self.rest.char_indices().skip(1).find_map(|(at, c)| {
                    let ends = !escaped && matches!(c, '"' | '\n');
                    escaped = c == '\\' && !escaped;
                    ends.then_some(at + 1)
                }));
            } else {
                break;
            }
        }
        let first = self.rest.chars().next()?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = match self.rest.find(|c| !is_name(c)) {
            Some(0) => first.len_utf8(),
            Some(end) => end,
            None => self.rest.len(),
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(token)
    }
}

impl Lexer<'_> {
    fn skip_to(&mut self, at: Option<usize>) {
        self.rest = at.map_or("", |at| &self.rest[at..]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn mutates(document: &str, name: Option<&str>) -> bool {
        let payload = to_raw_value(&json!({"query": document, "operationName": name})).unwrap();
        matches!(check(&payload, OperationType::Subscription), Err(SubscribeError::Mutation))
    }

    #[test]
    fn a_mutation_is_known_by_its_keyword_and_nothing_else_is() {
        for mutation in [
            "mutation { a }",
            "mutation M($a: Int = 1) { a }",
            "\u{feff} # mutation\n , mutation M { a }",
            "fragment F on T { a } mutation M { ...F }",
            "query Q { a } mutation M { a }",
        ] {
            assert!(mutates(mutation, None), "{mutation}");
            assert!(mutates(mutation, Some("M")) || !mutation.contains('M'), "{mutation}");
        }
        for other in [
            "",
            "{ mutation }",
            "subscription mutation { mutation { mutation } }",
            "subscription S($mutation: String = \"} mutation { a }\") { a(mutation: $mutation) }",
            "subscription S { a(b: \"\"\"} mutation M { \\\"\"\" mutation \"\"\") }",
            "subscription S { a(b: \"\\\" } mutation M {\") }",
            "# mutation M { a }\nsubscription { a }",
            "fragment mutation on T { a }",
        ] {
            assert!(!mutates(other, None), "{other}");
        }
        let both = "mutation M { a } subscription S { a }";
        assert!(mutates(both, Some("M")) && !mutates(both, Some("S")));
        assert!(mutates("mutation M { a }", Some("")), "an empty name is none");
    }

    #[test]
    fn a_request_is_an_object_with_a_document_and_a_name_or_a_persisted_one() {
        let checked = |json: &str| {
            check(&RawValue::from_string(json.to_owned()).unwrap(), OperationType::Subscription)
        };
        assert!(checked(r#"{"extensions":{"persistedQuery":{}}}"#).is_ok());
        for odd in
            ["5", "[]", "\"x\"", "null", r#"{"query":7}"#, r#"{"query":"{a}","operationName":7}"#]
        {
            assert!(matches!(checked(odd), Err(SubscribeError::Serialize(_))), "{odd}");
        }
        let twice = r#"{"query":"{a}","query":"mutation { a }"}"#;
        assert!(matches!(checked(twice), Err(SubscribeError::Serialize(_))));
    }

    #[test]
    fn a_request_has_only_the_fields_that_were_set() {
        let plain = Request::<()>::new("{a}").payload().unwrap();
        assert_eq!(plain.get(), r#"{"query":"{a}"}"#);
        let full = Request::<()>::new("{a}")
            .operation_name("A")
            .variables(&json!({"b": 1}))
            .payload()
            .unwrap();
        assert_eq!(full.get(), r#"{"query":"{a}","operationName":"A","variables":{"b":1}}"#);
        let unserializable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(Request::<()>::new("{a}").variables(&unserializable).payload().is_err());
    }

    proptest! {
        #[test]
        fn any_document_is_scanned_without_a_panic(document: String, name: Option<String>) {
            let _ = mutates(&document, name.as_deref());
        }
    }

    #[test]
    fn a_call_is_refused_where_it_would_be_wrong() {
        let checked = |document: &str, kind| {
            let payload = Request::<serde_json::Value>::new(document).payload().unwrap();
            check(&payload, kind).map_err(|error| error.to_string())
        };
        let (query, mutation) = (OperationType::Query, OperationType::Mutation);
        for (document, kind, allowed) in [
            ("{ a }", query, true),
            ("query A { a }", query, true),
            ("mutation { a }", query, false),
            ("subscription { a }", query, false),
            ("mutation { a }", mutation, true),
            ("{ a }", mutation, true),
            ("subscription { a }", mutation, false),
        ] {
            assert_eq!(checked(document, kind).is_ok(), allowed, "{document} as a {kind:?}");
        }
    }
}
