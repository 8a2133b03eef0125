//! How errors show what others said: bounded, and on one line.

use std::{error::Error, fmt};

use super::{Disconnect, GraphQlError};

/// An error with its sources, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a Disconnect);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// `: text`, cut to a bounded length and a single line; nothing for an empty text.
pub(super) struct DisplayBody<'a>(pub(super) &'a str);

impl fmt::Display for DisplayBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.trim();
        if text.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", Quoted(text))
    }
}

/// Text of others, cut to a bounded length and a single line.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(MAX_DISPLAYED_CHARS) {
            // It ends up in terminals: no control characters.
            fmt::Write::write_char(f, if c.is_control() { ' ' } else { c })?;
        }
        Ok(())
    }
}

/// `: first message (and n more)`; nothing for an empty list.
pub(super) struct DisplayErrors<'a>(pub(super) &'a [GraphQlError]);

impl fmt::Display for DisplayErrors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [only] => DisplayBody(&only.message).fmt(f),
            [first, rest @ ..] => {
                write!(f, "{} (and {} more)", DisplayBody(&first.message), rest.len())
            }
        }
    }
}

/// How much of a server's text an error shows.
const MAX_DISPLAYED_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use std::fmt::Display;

    use super::*;
    use crate::error::{CloseCode, ConnectError, ResponseHeaders, SubscriptionError};

    #[test]
    fn what_a_server_says_is_on_one_line_cut_and_without_control_characters() {
        let said = format!("\u{1b}[31mred\r\nand\u{7}{}", "x".repeat(100_000));
        let error = GraphQlError { message: said.clone(), ..GraphQlError::default() };
        let shown: [&dyn Display; 5] = [
            &Disconnect::Closed { code: CloseCode::NORMAL, reason: said.clone() },
            &Disconnect::Refused { message: said.clone() },
            &ConnectError::Http {
                status: 500,
                retry_after: None,
                headers: ResponseHeaders::default(),
                body: said,
            },
            &SubscriptionError::Rejected(vec![error.clone()]),
            &SubscriptionError::NoData(vec![error.clone(), error]),
        ];
        for error in shown {
            let text = error.to_string();
            assert!(text.contains("[31mred  and x") && text.len() < 400, "{text}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
}
