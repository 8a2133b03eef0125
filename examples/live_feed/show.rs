//! Prints data for people and for programs.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// The data of one item.
pub(crate) trait Show: Send {
    /// Returns the data as JSON on one line.
    fn json(&self) -> serde_json::Result<Cow<'_, RawValue>>;

    /// Returns the data as one line for people. Leaves out the name of the operation if the line
    /// makes it clear.
    fn line(&self, operation: &str) -> String;
}

/// Keeps the server's order of keys and its spelling of numbers.
impl Show for Box<RawValue> {
    fn json(&self) -> serde_json::Result<Cow<'_, RawValue>> {
        if self.get().contains(['\n', '\r']) {
            return RawValue::from_string(without_whitespace(self.get())).map(Cow::Owned);
        }
        Ok(Cow::Borrowed(self))
    }

    fn line(&self, operation: &str) -> String {
        format!("{operation:<10}  {}", one_line(&without_whitespace(self.get())))
    }
}

/// Removes the whitespace between the tokens of JSON.
fn without_whitespace(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        if quoted || !matches!(c, ' ' | '\t' | '\n' | '\r') {
            compact.push(c);
        }
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
    }
    compact
}

/// Replaces control characters, because text from a server must not control the terminal.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        text.replace(char::is_control, " ").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn data_keeps_its_keys_and_numbers_and_fits_on_a_line() {
        let same = r#"{"z":1.0, "a":1e400,"z":12345678901234567890123}"#;
        assert_eq!(raw(same).json().unwrap().get(), same);
        let pretty = "{\n  \"b\": [1.50,\r\n\t2],\n  \"a\": \"x \\\" \\\\\" , \"c\":\" \\n\" }";
        assert_eq!(raw(pretty).json().unwrap().get(), r#"{"b":[1.50,2],"a":"x \" \\","c":" \n"}"#);
    }

    #[test]
    fn a_line_for_people_has_no_control_characters() {
        assert_eq!(raw("\"\u{9b}31m\"").line("Q"), "Q           \" 31m\"");
        assert_eq!(one_line("a\nb\u{1b}[0m"), "a b [0m");
    }
}
