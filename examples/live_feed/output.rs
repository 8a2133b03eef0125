//! Prints every event to standard output, in order, and flushes each.

use std::{borrow::Cow, fmt::Write as _, io};

use resub::{GraphQlError, SubscriptionError};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    events::{Item, Seen},
    news::{Chain, GapText},
    show::one_line,
};

/// The format of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// For people.
    Lines,
    /// For programs: one JSON object per line.
    Json,
}

pub(crate) struct Output<W> {
    format: Format,
    writer: W,
}

/// An event as a line of JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Next {
        operation: &'a str,
        data: Option<Cow<'a, RawValue>>,
        errors: &'a [GraphQlError],
        #[serde(skip_serializing_if = "Option::is_none")]
        extensions: Option<&'a Map<String, Value>>,
    },
    Gap {
        operation: &'a str,
        reconnects: u32,
        dropped: u64,
        down_for_ms: u128,
        cause: Option<String>,
    },
    Error {
        operation: &'a str,
        error: String,
    },
    End {
        operation: &'a str,
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        errors: &'a [GraphQlError],
    },
}

impl<W: io::Write> Output<W> {
    pub(crate) fn new(format: Format, writer: W) -> Self {
        Self { format, writer }
    }

    pub(crate) fn event(&mut self, operation: &str, seen: &Seen) -> io::Result<()> {
        let text = match self.format {
            Format::Json => Some(serde_json::to_string(&line(operation, seen)?)?),
            Format::Lines => readable(operation, seen),
        };
        // One write for each line, so that lines of several processes in one file do not mix.
        if let Some(mut text) = text {
            text.push('\n');
            self.writer.write_all(text.as_bytes())?;
            self.writer.flush()?;
        }
        Ok(())
    }
}

fn line<'a>(operation: &'a str, seen: &'a Seen) -> io::Result<Line<'a>> {
    Ok(match seen {
        Seen::Next(Item { data, errors, extensions }) => Line::Next {
            operation,
            data: data.as_ref().map(|data| data.json()).transpose()?,
            errors,
            extensions: extensions.as_ref(),
        },
        Seen::Gap(gap) => Line::Gap {
            operation,
            reconnects: gap.reconnects,
            dropped: gap.dropped,
            down_for_ms: gap.down_for.as_millis(),
            cause: gap.cause.as_ref().map(|cause| Chain(cause).to_string()),
        },
        Seen::Unreadable(error) => Line::Error { operation, error: Chain(error).to_string() },
        Seen::End(error) => Line::End {
            operation,
            reason: reason(error.as_ref()),
            error: error.as_ref().map(|error| Chain(error).to_string()),
            errors: match error {
                Some(SubscriptionError::Rejected(errors)) => errors,
                _ => &[],
            },
        },
    })
}

/// Formats an event for people. Returns `None` for an end with an error, which goes to standard
/// error.
fn readable(operation: &str, seen: &Seen) -> Option<String> {
    Some(match seen {
        Seen::Next(Item { data, errors, .. }) => {
            let mut text = match data {
                Some(data) => data.line(operation),
                None => format!("{operation:<10}  no data"),
            };
            for error in errors {
                // Writing to a string does not fail.
                let _ = write!(text, "  error: {}", one_line(&error.to_string()));
            }
            text
        }
        Seen::Gap(gap) => format!("--- {operation}: {}", one_line(&GapText(gap).to_string())),
        Seen::Unreadable(error) => {
            format!("--- {operation}: {}", one_line(&Chain(error).to_string()))
        }
        Seen::End(None) => format!("--- {operation}: completed"),
        Seen::End(Some(_)) => return None,
    })
}

fn reason(error: Option<&SubscriptionError>) -> &'static str {
    match error {
        None => "completed",
        Some(SubscriptionError::Lost(_)) => "lost",
        Some(SubscriptionError::GaveUp { .. }) => "gave_up",
        Some(SubscriptionError::Overflow) => "overflow",
        Some(SubscriptionError::ShutDown) => "shut_down",
        // `Rejected`, and errors that a later version of the library may add.
        Some(_) => "rejected",
    }
}

#[cfg(test)]
mod tests {
    use resub::{Disconnect, Gap};
    use serde_json::json;

    use super::*;

    fn print(format: Format, seen: &Seen) -> String {
        let mut output = Output::new(format, Vec::new());
        output.event("Q", seen).unwrap();
        String::from_utf8(output.writer).unwrap()
    }

    fn item(data: Option<&str>, errors: Value) -> Seen {
        let data = data.map(|data| Box::new(RawValue::from_string(data.into()).unwrap()) as _);
        Seen::Next(Item { data, errors: serde_json::from_value(errors).unwrap(), extensions: None })
    }

    #[test]
    fn an_item_is_one_line_with_the_data_as_the_server_sent_it() {
        let seen = item(Some("{\n \"b\": 1.0, \"a\": 2\n}"), json!([]));
        assert_eq!(
            print(Format::Json, &seen),
            concat!(r#"{"type":"next","operation":"Q","data":{"b":1.0,"a":2},"errors":[]}"#, "\n")
        );
        assert_eq!(
            print(Format::Lines, &seen),
            concat!("Q           ", r#"{"b":1.0,"a":2}"#, "\n")
        );
    }

    #[test]
    fn errors_are_printed_with_or_without_data() {
        let seen = item(None, json!([{"message": "no\n", "path": ["a"]}]));
        assert_eq!(
            print(Format::Json, &seen),
            concat!(
                r#"{"type":"next","operation":"Q","data":null,"#,
                r#""errors":[{"message":"no\n","path":["a"]}]}"#,
                "\n"
            )
        );
        assert_eq!(print(Format::Lines, &seen), "Q           no data  error: no  (at a)\n");
    }

    #[test]
    fn a_gap_and_an_end_have_a_cause() {
        let mut gap = Gap::default();
        (gap.reconnects, gap.cause) = (1, Some(Disconnect::Reset(None)));
        assert_eq!(
            print(Format::Json, &Seen::Gap(gap)),
            concat!(
                r#"{"type":"gap","operation":"Q","reconnects":1,"dropped":0,"down_for_ms":0,"#,
                r#""cause":"the connection broke off"}"#,
                "\n"
            )
        );
        let lost = SubscriptionError::Lost(Disconnect::Reset(None));
        assert_eq!(
            print(Format::Json, &Seen::End(Some(lost))),
            concat!(
                r#"{"type":"end","operation":"Q","reason":"lost","#,
                r#""error":"the connection was lost for good: the connection broke off"}"#,
                "\n"
            )
        );
        assert_eq!(
            print(Format::Json, &Seen::End(None)),
            concat!(r#"{"type":"end","operation":"Q","reason":"completed"}"#, "\n")
        );
    }
}
