//! What a server answers: the GraphQL response format (GraphQL specification, section 7).
//!
//! Owns the decoded item. Lenient in every field but `data`: a sloppy error object never costs an item.

mod bounded;

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use self::bounded::{Budget, MAX_ERRORS};
use crate::{error::DecodeError, protocol::Payload};

/// One item of a subscription, or the result of a query or mutation: any combination of data, errors and extensions.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Response<T> {
    /// The data; `None` when the server sent `null` or nothing, which it does together with errors.
    pub data: Option<T>,
    /// The errors, at most 100 of them; partial data with errors is normal and does not end a stream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<GraphQlError>,
    /// What the server adds on its own account. An item whose errors and extensions have more than 65,536 values does not decode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

/// An error in a GraphQL response. Whatever a server leaves out or gets wrong is empty here.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
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

/// Reads the payload of a result.
pub(crate) fn decode<T: DeserializeOwned>(payload: &Payload) -> Result<Response<T>, DecodeError> {
    payload.decode().map_err(|error| {
        // The errors often say why the data has a hole.
        let errors = payload.decode::<Response<IgnoredAny>>().map(|response| response.errors);
        DecodeError::new(error, errors.unwrap_or_default())
    })
}

impl GraphQlError {
    /// Reads the payload of an `error` message, JSON.
    pub(crate) fn read(payload: Option<&str>) -> Vec<Self> {
        let Some(json) = payload else { return Vec::new() };
        let errors = Budget::new().errors().deserialize(&mut serde_json::Deserializer::from_str(json));
        // It is an end whatever it says, so what cannot be read is said instead.
        errors.unwrap_or_else(|error| vec![Self { message: error.to_string(), ..Self::default() }])
    }

    /// Reads what an `error` message carries: a list, one object, or `{"errors": [...]}`; servers differ.
    pub(crate) fn list(payload: Value) -> Vec<Self> {
        match payload {
            Value::Null => Vec::new(),
            Value::Array(list) => list.into_iter().take(MAX_ERRORS).map(Self::from_value).collect(),
            Value::Object(mut object) => match object.remove("errors") {
                Some(Value::Array(list)) => Self::list(Value::Array(list)),
                Some(other) => {
                    object.insert("errors".into(), other);
                    vec![Self::from_value(Value::Object(object))]
                }
                None => vec![Self::from_value(Value::Object(object))],
            },
            other => vec![Self::from_value(other)],
        }
    }

    fn from_value(value: Value) -> Self {
        let mut object = match value {
            Value::Object(object) => object,
            Value::String(message) => return Self { message, ..Self::default() },
            other => return Self { message: other.to_string(), ..Self::default() },
        };
        Self {
            message: match object.remove("message") {
                Some(Value::String(message)) => message,
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            },
            locations: array(object.remove("locations")).iter().map(Location::from_value).collect(),
            path: array(object.remove("path")).into_iter().filter_map(PathSegment::from_value).collect(),
            extensions: map(object.remove("extensions")),
        }
    }
}

impl Location {
    fn from_value(value: &Value) -> Self {
        let number = |key| value.get(key).and_then(Value::as_u64).unwrap_or_default();
        Self { line: number("line"), column: number("column") }
    }
}

impl PathSegment {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::String(field) => Some(Self::Field(field)),
            Value::Number(index) => index.as_u64().map(Self::Index),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl fmt::Display for GraphQlError {
    /// `message (at path.0.field)`, without control characters: a server's words end up in terminals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = if self.message.is_empty() { "unnamed error" } else { &self.message };
        f.write_str(&message.replace(char::is_control, " "))?;
        for (n, segment) in self.path.iter().enumerate() {
            let segment = segment.to_string().replace(char::is_control, " ");
            write!(f, "{}{segment}", if n == 0 { " (at " } else { "." })?;
        }
        f.write_str(if self.path.is_empty() { "" } else { ")" })
    }
}

impl std::error::Error for GraphQlError {}

impl fmt::Display for PathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => name.fmt(f),
            Self::Index(index) => index.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for GraphQlError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Budget::new().value().deserialize(deserializer).map(Self::from_value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Response<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ResponseVisitor(PhantomData))
    }
}

struct ResponseVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ResponseVisitor<T> {
    type Value = Response<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a GraphQL response")
    }

    /// `"payload": null` is seen in the wild and says nothing.
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Response { data: None, errors: Vec::new(), extensions: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map_access: A) -> Result<Self::Value, A::Error> {
        let mut response = Response { data: None, errors: Vec::new(), extensions: None };
        let budget = Budget::new();
        while let Some(key) = map_access.next_key::<Field>()? {
            match key {
                Field::Data => response.data = map_access.next_value()?,
                Field::Errors => response.errors = beside(&mut map_access, budget.errors())?,
                Field::Extensions => response.extensions = map(Some(beside(&mut map_access, budget.value())?)),
                Field::Other => {
                    map_access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(response)
    }
}

/// Reads what is not data. Out of the way of what is, which most items have alone.
#[cold]
#[inline(never)]
fn beside<'de, A, S>(access: &mut A, seed: S) -> Result<S::Value, A::Error>
where
    A: MapAccess<'de>,
    S: DeserializeSeed<'de>,
{
    access.next_value_seed(seed)
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Data,
    Errors,
    Extensions,
    #[serde(other)]
    Other,
}

fn array(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) | None => {
            Vec::new()
        }
    }
}

fn map(value: Option<Value>) -> Option<Map<String, Value>> {
    match value {
        Some(Value::Object(object)) => Some(object),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::RawValue};

    use super::*;

    fn errors(payload: Value) -> Vec<GraphQlError> {
        GraphQlError::list(payload)
    }

    #[test]
    fn data_errors_and_extensions_come_in_any_combination() {
        let full: Response<u32> =
            serde_json::from_str(r#"{"extensions":{"cost":3},"data":7,"errors":[{"message":"m"}],"hasNext":true}"#)
                .unwrap();
        assert_eq!(full.data, Some(7));
        assert_eq!(full.errors[0].message, "m");
        assert_eq!(full.extensions.unwrap()["cost"], 3);
        for nothing in ["{}", "null", r#"{"data":null}"#, r#"{"data":null,"errors":null,"extensions":null}"#] {
            let empty: Response<u32> = serde_json::from_str(nothing).unwrap();
            assert_eq!(empty, Response { data: None, errors: vec![], extensions: None }, "{nothing}");
        }
        assert!(serde_json::from_str::<Response<u32>>("[]").is_err());
        assert!(serde_json::from_str::<Response<u32>>(r#"{"data":"text"}"#).is_err());
    }

    #[test]
    fn raw_data_keeps_the_servers_bytes() {
        let raw: Response<Box<RawValue>> = serde_json::from_str(r#"{"data":{"b":1.0,"a":[ 2 ]}}"#).unwrap();
        assert_eq!(raw.data.unwrap().get(), r#"{"b":1.0,"a":[ 2 ]}"#);
    }

    #[test]
    fn a_sloppy_error_costs_nothing_but_itself() {
        let sloppy: Response<u32> = serde_json::from_value(json!({"data": 1, "errors": [
            {}, {"message": null}, {"message": 7}, "text", null,
            {"message": "m", "path": ["a", 3_000_000_000_u64, null, {}], "locations": [{"line": 1}, 4]},
            {"message": "n", "path": "a", "locations": {}, "extensions": []},
        ]}))
        .unwrap();
        assert_eq!(sloppy.data, Some(1));
        let messages: Vec<_> = sloppy.errors.iter().map(|e| e.message.as_str()).collect();
        assert_eq!(messages, ["", "", "7", "text", "null", "m", "n"]);
        assert_eq!(sloppy.errors[5].path, [PathSegment::Field("a".into()), PathSegment::Index(3_000_000_000)]);
        assert_eq!(sloppy.errors[5].locations, [Location { line: 1, column: 0 }, Location::default()]);
        assert_eq!(sloppy.errors[5].to_string(), "m (at a.3000000000)");
        assert_eq!(errors(json!("bell\u{7} and \u{1b}[31m"))[0].to_string(), "bell  and  [31m");
    }

    #[test]
    fn rule_11_an_error_payload_is_a_list_an_object_or_a_wrapped_list() {
        assert_eq!(errors(json!([{"message": "a"}, {"message": "b"}])).len(), 2);
        assert_eq!(errors(json!({"message": "a"}))[0].message, "a");
        assert_eq!(errors(json!({"errors": [{"message": "a"}]}))[0].message, "a");
        assert_eq!(errors(json!({"message": "a", "errors": 1}))[0].message, "a");
        assert_eq!(errors(json!("a"))[0].message, "a");
        assert_eq!(errors(json!([])), []);
        assert_eq!(errors(json!(null)), []);
    }

    #[test]
    fn a_million_errors_are_cut_to_a_hundred() {
        let many = Value::Array(vec![json!({"message": "m"}); 1_000]);
        assert_eq!(errors(many).len(), MAX_ERRORS);
    }
}
