//! Labels of operations for the output.
//!
//! Knows only enough of GraphQL to find the name of an operation in a document. The library decides
//! whether a document is valid.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// An operation from the command line.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) text: String,
    /// The operation of the document to run.
    pub(crate) operation_name: Option<String>,
    /// A JSON object.
    pub(crate) variables: Option<Box<RawValue>>,
}

/// Returns a label for each operation: its name, else `anonymous`, or `operation-1` if there are
/// several. The second operation with the same name is `Name#2`.
pub(crate) fn labels(documents: &[Document]) -> Vec<String> {
    let mut seen = HashMap::new();
    let named = documents.iter().enumerate().map(|(n, document)| {
        let name = document.operation_name.as_deref().or_else(|| operation_name(&document.text));
        match name {
            Some(name) => name.to_owned(),
            None if documents.len() == 1 => "anonymous".to_owned(),
            None => format!("operation-{}", n + 1),
        }
    });
    named
        .map(|label| {
            let times =
                seen.entry(label.clone()).and_modify(|times| *times += 1).or_insert(1_usize);
            if *times == 1 { label } else { format!("{label}#{times}") }
        })
        .collect()
}

/// Returns the name of the first operation that has one.
fn operation_name(document: &str) -> Option<&str> {
    let mut tokens = Tokens(document);
    let mut depth = 0_usize;
    while let Some(token) = tokens.next() {
        match token {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            // Skip the name of the fragment, which may be `subscription`.
            "fragment" if depth == 0 => {
                tokens.next();
            }
            "subscription" | "query" | "mutation" if depth == 0 => {
                let name = Tokens(tokens.0).next().filter(|next| next.starts_with(is_name));
                if name.is_some() {
                    return name;
                }
            }
            _ => {}
        }
    }
    None
}

/// Yields names and punctuation. Skips comments and strings.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            self.0 = self
                .0
                .trim_start_matches(|c: char| c.is_whitespace() || c == ',' || c == '\u{feff}');
            let skipped = if self.0.starts_with('#') {
                self.0.find(['\n', '\r']).unwrap_or(self.0.len())
            } else if self.0.starts_with(r#"""""#) {
                string_length(self.0, r#"""""#)
            } else if self.0.starts_with('"') {
                string_length(self.0, "\"")
            } else {
                break;
            };
            self.0 = &self.0[skipped..];
        }
        let first = self.0.chars().next()?;
        let length = if is_name(first) {
            self.0.find(|c| !is_name(c)).unwrap_or(self.0.len())
        } else {
            first.len_utf8()
        };
        let (token, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(token)
    }
}

/// Returns the length of the string at the start of `text`, including both quotes. A backslash
/// escapes the next character.
fn string_length(text: &str, quote: &str) -> usize {
    let mut at = quote.len();
    while let Some(c) = text[at..].chars().next() {
        if text[at..].starts_with(quote) {
            return at + quote.len();
        }
        at += c.len_utf8();
        if c == '\\' {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    text.len()
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document { text: text.into(), operation_name: None, variables: None }
    }

    #[test]
    fn the_name_of_the_operation_is_found_in_any_document() {
        for (text, name) in [
            ("subscription Trades { a }", Some("Trades")),
            ("subscription Trades($s: String = \"query X\") { a }", Some("Trades")),
            ("query,Q{a}", Some("Q")),
            ("\u{feff}# subscription No\n  subscription\n\tYes { a }", Some("Yes")),
            ("fragment subscription on T { a } subscription S { ...subscription }", Some("S")),
            ("{ query X } subscription S { a }", Some("S")),
            ("subscription { query }", None),
            ("subscription ($s: Int) { subscription A }", None),
            ("subscription @live { a }", None),
            ("{ a(text: \"}\") subscription B }", None),
            ("{ a(text: \"\"\" \\\"\"\" } \"\"\") } query C { a }", Some("C")),
            ("subscription", None),
            ("\"unclosed \\", None),
            ("", None),
        ] {
            assert_eq!(operation_name(text), name, "{text}");
        }
    }

    #[test]
    fn every_operation_has_a_unique_label() {
        let texts =
            ["subscription A { a }", "{ a }", "subscription A { a }", "subscription B { a }"];
        assert_eq!(labels(&texts.map(document)), ["A", "operation-2", "A#2", "B"]);
        assert_eq!(labels(&[document("{ a }")]), ["anonymous"]);
        let chosen = Document {
            operation_name: Some("B".into()),
            ..document("query A { a } query B { a }")
        };
        assert_eq!(labels(&[chosen]), ["B"]);
    }
}
