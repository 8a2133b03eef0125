//! A result that came in parts.

use std::fmt;

use thiserror::Error;

use super::{
    GraphQlError, PathSegment,
    display::{DisplayErrors, OneLine},
};

/// Why the parts of an incrementally delivered result (`@defer`, `@stream`) are no result.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum IncrementalError {
    /// The server ended the operation, or stopped announcing parts, before the last part. These are
    /// the errors of the parts that came.
    #[error(
        "the result is incomplete: the server ended it before the last part{}", DisplayErrors(.0)
    )]
    Incomplete(Vec<GraphQlError>),
    /// All parts together are larger than
    /// [`max_message_size`](crate::ClientBuilder::max_message_size). The client told the server to
    /// stop.
    #[error("the parts of the result are larger than {limit} bytes together")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A part belongs to a place that is not in the data, such as an index beyond the end of a
    /// list.
    #[error("a part belongs to a place that is not in the data: {}", DisplayPath(.0))]
    UnknownPath(Vec<PathSegment>),
    /// A part has an id that the server has not announced.
    #[error("a part has the id {}, which the server has not announced", OneLine(.0))]
    UnknownId(String),
    /// A part is not in the format of incremental delivery.
    #[error("a part is malformed: {}", OneLine(.0))]
    Malformed(String),
    /// The parts have to be merged more than 64 levels deep, or merging them needs more than 64 MiB
    /// of memory.
    #[error("merging the parts goes too deep or needs too much memory")]
    TooComplex,
}

struct DisplayPath<'a>(&'a [PathSegment]);

impl fmt::Display for DisplayPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: Vec<String> = self.0.iter().map(PathSegment::to_string).collect();
        write!(f, "`{}`", OneLine(&path.join(".")))
    }
}
