//! What a server answers: the GraphQL response format (GraphQL specification, section 7).
//!
//! Owns the decoded item. Lenient in every field but `data`: a sloppy error object never costs an item.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// One item of a subscription: any combination of data, errors and extensions.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct Response<T> {
    /// The data; `None` when the server sent `null` or nothing, which it does together with errors.
    pub data: Option<T>,
    /// The errors; partial data with errors is normal and does not end a stream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<GraphQlError>,
    /// What the server adds on its own account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

/// An error in a GraphQL response. Whatever a server leaves out or gets wrong is empty here.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct GraphQlError {
    /// The description for the developer.
    pub message: String,
    /// Where in the document.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<Location>,
    /// Where in the response.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<PathSegment>,
    /// What the server adds, such as a `code`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

/// A place in a document, counted from 1; 0 where the server did not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Location {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

/// A step from the response's root to the field that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum PathSegment {
    /// A field's name or alias.
    Field(String),
    /// A list index, from 0.
    Index(u64),
}
