//! Shows text of others in errors: cut to a limit, and on one line.

use std::{error::Error, fmt};

use super::{Disconnect, GraphQlError};

/// Shows an error with its sources on one line.
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

/// Shows `: text`, cut to a limit and on one line. Shows nothing for an empty text.
pub(super) struct DisplayBody<'a>(pub(super) &'a str);

impl fmt::Display for DisplayBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.trim();
        if text.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", OneLine(text))
    }
}

/// Somebody else's text, cut to a bounded length and a single line.
pub(crate) struct OneLine<'a>(pub(crate) &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.trim().chars().take(MAX_DISPLAYED_CHARS) {
            fmt::Write::write_char(f, if is_unprintable(c) { ' ' } else { c })?;
        }
        Ok(())
    }
}

/// Shows ` (code 1006)`, or nothing without a code.
pub(super) struct DisplayCode(pub(super) Option<u16>);

impl fmt::Display for DisplayCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |code| write!(f, " (code {code})"))
    }
}

/// Shows `: first message (and n more)`, or nothing for an empty list.
pub(super) struct DisplayErrors<'a>(pub(super) &'a [GraphQlError]);

impl fmt::Display for DisplayErrors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [only] => DisplayBody(&only.words()).fmt(f),
            [first, rest @ ..] => {
                write!(f, "{} (and {} more)", DisplayBody(&first.words()), rest.len())
            }
        }
    }
}

/// Whether a character is replaced in quoted text, which people read in terminals and logs.
///
/// Such a character controls the terminal, breaks the line, or is invisible. Invisible ones may
/// change how the text around them is shown, for example its direction. They are those with the
/// Unicode property `Default_Ignorable_Code_Point`, and annotations.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// How many characters of a server's text an error shows.
const MAX_DISPLAYED_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use std::fmt::Display;

    use super::*;
    use crate::error::{CloseCode, ConnectError, PathSegment, ResponseHeaders, SubscriptionError};

    /// Each of them changes the direction of text, breaks the line, or is invisible.
    const INVISIBLE: [char; 22] = [
        '\u{ad}',
        '\u{61c}',
        '\u{200b}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202b}',
        '\u{202c}',
        '\u{202d}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2067}',
        '\u{2068}',
        '\u{2069}',
        '\u{feff}',
        '\u{fffb}',
        '\u{e0041}',
        '\u{e0100}',
    ];

    #[test]
    fn text_of_a_server_is_on_one_line_cut_and_without_control_and_invisible_characters() {
        let invisible = String::from_iter(INVISIBLE);
        let said = format!("\u{1b}[31mred\r\nand\u{7}{invisible}{}", "x".repeat(100_000));
        let error = GraphQlError { message: said.clone(), ..GraphQlError::default() };
        let shown: [&dyn Display; 5] = [
            &Disconnect::Closed { code: CloseCode::NORMAL, reason: said.clone() },
            &Disconnect::Refused { message: said.clone() },
            &ConnectError::Http {
                status: 500,
                retry_after: None,
                headers: ResponseHeaders::default(),
                body: said.clone(),
            },
            &SubscriptionError::Rejected(vec![error.clone()]),
            &SubscriptionError::NoData(vec![error.clone(), error]),
        ];
        for error in shown {
            let text = error.to_string();
            let blanks = " ".repeat(1 + INVISIBLE.len());
            assert!(text.contains(&format!("[31mred  and{blanks}x")) && text.len() < 400, "{text}");
            assert!(!text.chars().any(is_unprintable), "{text:?}");
        }
        let path = vec![PathSegment::Field(said.clone())];
        let text = GraphQlError { message: said, path, ..GraphQlError::default() }.to_string();
        assert!(!text.chars().any(is_unprintable), "{text:?}");
    }

    #[test]
    fn text_of_any_language_is_printable() {
        for text in [
            "caf\u{e9} e\u{301}",
            "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
            "\u{4f60}\u{597d}",
            "\u{1f600}",
            "a b\u{a0}c~",
        ] {
            assert!(!text.chars().any(is_unprintable), "{text}");
        }
        assert!(INVISIBLE.into_iter().all(is_unprintable));
    }

    #[test]
    fn an_invalid_close_frame_is_shown_with_its_code_if_it_has_one() {
        let shown = |code| Disconnect::InvalidCloseFrame { code }.to_string();
        assert_eq!(shown(Some(1006)), "the server sent an invalid close frame (code 1006)");
        assert_eq!(shown(None), "the server sent an invalid close frame");
    }
}
