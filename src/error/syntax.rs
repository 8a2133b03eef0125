//! What is wrong with a document.

use std::{error::Error, fmt};

use super::display::DisplayBody;

/// Why a document is not GraphQL: the first error in it. From
/// [`SubscribeError::Syntax`](crate::SubscribeError::Syntax).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SyntaxError {
    /// The line of the error, counted from 1.
    pub line: u64,
    /// The column of the error, in characters, counted from 1.
    pub column: u64,
    /// What is wrong there. Of the document it quotes one character at most.
    pub message: String,
    /// How many more errors there are in other places. One mistake may cause several.
    pub more: usize,
}

impl SyntaxError {
    /// An error at the character that begins at this byte; at the end, if there is none.
    pub(crate) fn new(document: &str, at: usize, message: String, more: usize) -> Self {
        let (mut line, mut column) = (1, 1);
        let mut before =
            document.char_indices().take_while(|&(index, _)| index < at).map(|(_, c)| c).peekable();
        while let Some(c) = before.next() {
            match c {
                // One line terminator, with the `\n` that follows.
                '\r' if before.peek() == Some(&'\n') => {}
                '\r' | '\n' => (line, column) = (line + 1, 1),
                _ => column += 1,
            }
        }
        Self { line, column, message, more }
    }
}

/// On one line.
impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, message, more } = self;
        write!(f, "syntax error at {line}:{column}{}", DisplayBody(message))?;
        match more {
            0 => Ok(()),
            _ => write!(f, " (and {more} more)"),
        }
    }
}

impl Error for SyntaxError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters_and_by_any_line_terminator() {
        for (document, at, line, column) in [
            ("", 0, 1, 1),
            ("ab", 1, 1, 2),
            ("ab", 2, 1, 3),
            ("ab", 99, 1, 3),
            ("a\nb", 2, 2, 1),
            ("a\r\nb", 3, 2, 1),
            ("a\rb", 2, 2, 1),
            ("a\n\r\n\rb", 5, 4, 1),
            ("é😀x", 6, 1, 3),
        ] {
            let SyntaxError { line: l, column: c, .. } =
                SyntaxError::new(document, at, String::new(), 0);
            assert_eq!((l, c), (line, column), "{document:?} at {at}");
        }
    }

    #[test]
    fn it_is_shown_on_one_line() {
        let mut error = SyntaxError::new("{\n a(", 5, "expected\nan argument".into(), 0);
        assert_eq!(error.to_string(), "syntax error at 2:4: expected an argument");
        error.more = 2;
        assert_eq!(error.to_string(), "syntax error at 2:4: expected an argument (and 2 more)");
    }
}
