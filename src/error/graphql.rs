//! GraphQL errors (GraphQL specification, section 7.1.2).
//!
//! Every field is read leniently, so that a malformed error object does not make an item fail (rule
//! 11).

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize, de::DeserializeSeed};
use serde_json::{Deserializer, Map, Value};

use super::{
    bounded::{Budget, MAX_ERRORS},
    display::{OneLine, is_unprintable},
    replace_lone_surrogates,
};

/// An error in a GraphQL response. A field that the server left out or got wrong is empty.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct GraphQlError {
    /// The description, which is meant for developers.
    pub message: String,
    /// The places in the document that the error refers to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<Location>,
    /// The path of the field in the response that the error refers to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<PathSegment>,
    /// Further information of the server, such as a `code`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

/// A place in a document. Lines and columns count from 1; 0 means that the server sent none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Location {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

/// A step on the path from the root of the response to a field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum PathSegment {
    /// The name or alias of a field.
    Field(String),
    /// An index in a list, from 0.
    Index(u64),
}

impl GraphQlError {
    /// Reads the payload of an `error` message.
    pub(crate) fn read(payload: Option<&str>) -> Vec<Self> {
        let Some(json) = payload else { return Vec::new() };
        let read =
            |json: &str| Budget::new().errors().deserialize(&mut Deserializer::from_str(json));
        let errors = read(json).or_else(|error| match replace_lone_surrogates(json) {
            Cow::Owned(json) => read(&json),
            Cow::Borrowed(_) => Err(error),
        });
        // The operation has ended in any case, so the error is why the payload cannot be read.
        errors.unwrap_or_else(|error| vec![Self { message: error.to_string(), ..Self::default() }])
    }

    /// Reads errors from a list, one object, or `{"errors": [...]}`, as servers differ (rule 11).
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

    /// The message, or what the `code` says that many servers have in the extensions. Empty if
    /// there is neither.
    pub(super) fn words(&self) -> Cow<'_, str> {
        let code = || self.extensions.as_ref()?.get("code")?.as_str();
        match code() {
            Some(code) if self.message.is_empty() && !code.trim().is_empty() => {
                Cow::Owned(format!("{UNNAMED} (code {})", OneLine(code)))
            }
            Some(_) | None => Cow::Borrowed(&self.message),
        }
    }

    pub(super) fn from_value(value: Value) -> Self {
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
            path: array(object.remove("path"))
                .into_iter()
                .filter_map(PathSegment::from_value)
                .collect(),
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
    /// Shows `message (at path.0.field)`, or `unnamed error (code CODE)` without a message, on one
    /// line and
    /// without invisible characters, because it may be shown in a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.words() {
            "" => f.write_str(UNNAMED)?,
            words => f.write_str(&words.replace(is_unprintable, " "))?,
        }
        for (n, segment) in self.path.iter().enumerate() {
            let segment = segment.to_string().replace(is_unprintable, " ");
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
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Budget::new().value().deserialize(deserializer).map(Self::from_value)
    }
}

/// What an error without a message is called.
const UNNAMED: &str = "unnamed error";

fn array(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        Some(
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_),
        )
        | None => Vec::new(),
    }
}

pub(crate) fn map(value: Option<Value>) -> Option<Map<String, Value>> {
    match value {
        Some(Value::Object(object)) => Some(object),
        Some(
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_),
        )
        | None => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::response::Response;

    fn errors(payload: Value) -> Vec<GraphQlError> {
        GraphQlError::list(payload)
    }

    #[test]
    fn a_malformed_error_does_not_make_the_item_fail() {
        let sloppy: Response<u32> = serde_json::from_value(json!({"data": 1, "errors": [
            {}, {"message": null}, {"message": 7}, "text", null,
            {
                "message": "m",
                "path": ["a", 3_000_000_000_u64, null, {}],
                "locations": [{"line": 1}, 4],
            },
            {"message": "n", "path": "a", "locations": {}, "extensions": []},
        ]}))
        .unwrap();
        assert_eq!(sloppy.data, Some(1));
        let messages: Vec<_> = sloppy.errors.iter().map(|e| e.message.as_str()).collect();
        assert_eq!(messages, ["", "", "7", "text", "null", "m", "n"]);
        assert_eq!(
            sloppy.errors[5].path,
            [PathSegment::Field("a".into()), PathSegment::Index(3_000_000_000)]
        );
        assert_eq!(
            sloppy.errors[5].locations,
            [Location { line: 1, column: 0 }, Location::default()]
        );
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
    fn an_error_without_a_message_shows_its_code() {
        let shown = |error| errors(error)[0].to_string();
        let coded = json!({"extensions": {"code": "UNAUTHENTICATED"}, "path": ["a"]});
        assert_eq!(shown(coded), "unnamed error (code UNAUTHENTICATED) (at a)");
        let odd = json!({"message": null, "extensions": {"code": "A\n\u{202e}B"}});
        assert_eq!(shown(odd), "unnamed error (code A  B)");
        for code in [json!(""), json!(" "), json!(null), json!(7)] {
            assert_eq!(shown(json!({"extensions": {"code": code}})), "unnamed error");
        }
        let named = json!({"message": "m", "extensions": {"code": "C"}});
        assert_eq!(shown(named), "m");
    }

    #[test]
    fn half_a_surrogate_pair_does_not_hide_why_an_operation_ended() {
        let read = GraphQlError::read(Some(r#"[{"message":"no \ud83d!"}]"#));
        assert_eq!(read[0].message, "no \u{fffd}!");
    }

    #[test]
    fn a_million_errors_are_cut_to_a_hundred() {
        let many = Value::Array(vec![json!({"message": "m"}); 1_000]);
        assert_eq!(errors(many).len(), MAX_ERRORS);
    }
}
