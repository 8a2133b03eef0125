//! An item or a result that does not have the type of its operation's data.

use std::{error::Error, fmt, sync::Arc};

use super::{
    GraphQlError,
    display::{DisplayErrors, OneLine},
};

/// An item does not have the type of its operation's data.
///
/// It shows the path of what does not fit, and what was expected and found there, like
/// `trades[3].price: invalid type: string "1.5", expected f64`.
#[derive(Clone)]
pub struct DecodeError(Arc<Details>);

struct Details {
    message: String,
    path: Option<String>,
    errors: Vec<GraphQlError>,
    raw: String,
    is_incremental: bool,
}

impl DecodeError {
    /// `raw` is the JSON of the item, and `path` leads from its `data` to what does not fit.
    pub(crate) fn new(
        source: &serde_json::Error,
        path: Option<&str>,
        errors: Vec<GraphQlError>,
        raw: &str,
    ) -> Self {
        let mut message = source.to_string();
        if path.is_some() {
            // The path says where it is, and better.
            let place = format!(" at line {} column {}", source.line(), source.column());
            message.truncate(message.strip_suffix(&place).map_or(message.len(), str::len));
        }
        Self(Arc::new(Details {
            message: cut(&message, MAX_WORDS).to_owned(),
            path: path.map(|path| cut(path, MAX_WORDS).to_owned()),
            errors,
            raw: cut(raw, MAX_RAW).to_owned(),
            is_incremental: false,
        }))
    }

    /// The item is a part of a result.
    pub(crate) fn incremental(errors: Vec<GraphQlError>, raw: &str) -> Self {
        Self(Arc::new(Details {
            message: INCREMENTAL.to_owned(),
            path: None,
            errors,
            raw: cut(raw, MAX_RAW).to_owned(),
            is_incremental: true,
        }))
    }

    /// Returns where in the data the value is that does not fit, relative to `data`, like
    /// `trades[3].price`. Cut to 1 KiB.
    ///
    /// `None` if it is the data as a whole, or nothing in the data. The path ends at a value that
    /// serde reads as a whole before it knows its type, as it does with untagged enums.
    pub fn path(&self) -> Option<&str> {
        self.0.path.as_deref()
    }

    /// Returns the GraphQL errors of the item, which often explain why the data does not fit.
    pub fn errors(&self) -> &[GraphQlError] {
        &self.0.errors
    }

    /// Returns the JSON of the item as it was received: `{"data":...}`. Cut to 16 KiB, so it may
    /// not be whole. It is neither in the message nor in the `Debug` output, as it may be
    /// confidential.
    pub fn raw(&self) -> &str {
        &self.0.raw
    }

    /// Returns whether the item is only a part of a result, because the server delivers it
    /// incrementally (`@defer`, `@stream`). Subscriptions do not support that. Queries and
    /// mutations do.
    pub fn is_incremental(&self) -> bool {
        self.0.is_incremental
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { message, path, errors, is_incremental, .. } = &*self.0;
        if !is_incremental {
            f.write_str("the item is not of the expected type: ")?;
        }
        if let Some(path) = path {
            write!(f, "{}: ", OneLine(path))?;
        }
        write!(f, "{}{}", OneLine(message), DisplayErrors(errors))
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { message, path, errors, is_incremental, raw: _ } = &*self.0;
        f.debug_struct("DecodeError")
            .field("message", &format_args!("{}", OneLine(message)))
            .field("path", path)
            .field("errors", errors)
            .field("is_incremental", is_incremental)
            .finish_non_exhaustive()
    }
}

impl Error for DecodeError {}

/// Returns the beginning of a text, cut at a character.
fn cut(text: &str, max_bytes: usize) -> &str {
    let mut end = max_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What the decoder of items says of a part of a result.
pub(crate) const INCREMENTAL: &str = "the server delivers the result in parts (`@defer`, \
    `@stream`), which subscriptions do not support";

/// The size limit for the text of an item that an error keeps, in bytes.
const MAX_RAW: usize = 16 * 1024;

/// The size limit for a path and for serde's message, which quotes the item, in bytes.
const MAX_WORDS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn json_error(json: &str) -> serde_json::Error {
        serde_json::from_str::<u32>(json).unwrap_err()
    }

    #[test]
    fn what_an_error_keeps_and_shows_of_an_item_is_bounded() {
        let text = format!("\"{}\"", "\u{e9}".repeat(1_000_000));
        let error = DecodeError::new(&json_error(&text), Some(&text), vec![], &text);
        assert_eq!(error.raw().len(), MAX_RAW - 1, "cut at a character");
        assert!(error.path().unwrap().len() <= MAX_WORDS);
        assert!(error.to_string().len() < 2_000, "{error}");
        assert!(format!("{error:?}").len() < 4_000, "{error:?}");
    }

    #[test]
    fn an_error_shows_the_path_and_not_the_item() {
        let errors = vec![GraphQlError { message: "why".into(), ..GraphQlError::default() }];
        let error =
            DecodeError::new(&json_error("\"x\""), Some("a[3].b\n"), errors, "confidential");
        assert_eq!(
            error.to_string(),
            "the item is not of the expected type: a[3].b: invalid type: string \"x\", expected \
             u32: why"
        );
        assert!(!format!("{error:?}").contains("confidential"));
    }
}
