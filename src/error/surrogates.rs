//! Half a surrogate pair in JSON text.
//!
//! JavaScript cuts strings between UTF-16 code units, so servers send escapes like `"\ud83d"`
//! without their other half. Such text is valid JSON (RFC 8259, section 8.2), but no Rust string
//! can hold it, so `serde_json` refuses it.

use std::borrow::Cow;

/// Replaces every escape that is half a surrogate pair by U+FFFD. Borrows the text if there is
/// none.
pub(crate) fn replace_lone_surrogates(json: &str) -> Cow<'_, str> {
    let mut replaced = String::new();
    let (mut kept, mut at) = (0, 0);
    // In JSON a backslash is only in a string, where it begins an escape.
    while let Some(offset) = json[at..].find('\\') {
        let escape = at + offset;
        let length = match unit(json, escape) {
            Some(HIGH_FIRST..=HIGH_LAST) => match unit(json, escape + UNIT_LEN) {
                Some(LOW_FIRST..=LOW_LAST) => 2 * UNIT_LEN,
                Some(_) | None => 0,
            },
            Some(LOW_FIRST..=LOW_LAST) => 0,
            Some(_) => UNIT_LEN,
            // What is escaped may be a backslash. It may also be a character of several bytes, in
            // text that is not JSON.
            None => 1 + json[escape + 1..].chars().next().map_or(0, char::len_utf8),
        };
        at = escape + if length == 0 { UNIT_LEN } else { length };
        if length == 0 {
            replaced.push_str(&json[kept..escape]);
            replaced.push('\u{fffd}');
            kept = at;
        }
    }
    if kept == 0 {
        return Cow::Borrowed(json);
    }
    replaced.push_str(&json[kept..]);
    Cow::Owned(replaced)
}

/// Reads a `\uXXXX` at a place in the text: a UTF-16 code unit.
fn unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + UNIT_LEN)?.strip_prefix("\\u")?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// The length of `\uXXXX` in bytes.
const UNIT_LEN: usize = 6;

const HIGH_FIRST: u16 = 0xd800;
const HIGH_LAST: u16 = 0xdbff;
const LOW_FIRST: u16 = 0xdc00;
const LOW_LAST: u16 = 0xdfff;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_a_pair_is_replaced_and_everything_else_is_kept() {
        for (json, expected) in [
            (r#""\ud83d""#, "\"\u{fffd}\""),
            (r#""a\uDE00b""#, "\"a\u{fffd}b\""),
            (r#""\ud83d\ud83d\ude00""#, "\"\u{fffd}\\ud83d\\ude00\""),
            (r#""\ude00\ud83d""#, "\"\u{fffd}\u{fffd}\""),
            (r#"{"\ud83d":"\ud83dx"}"#, "{\"\u{fffd}\":\"\u{fffd}x\"}"),
        ] {
            assert_eq!(replace_lone_surrogates(json), expected, "{json}");
            assert!(serde_json::from_str::<serde_json::Value>(expected).is_ok(), "{expected}");
        }
        for kept in [
            r#""\ud83d\ude00""#,
            r#""\\ud83d""#,
            r#""\\\\ud83d\n\"""#,
            r#""\u0041\u00e9 \/""#,
            "",
            "\\",
            "\\u",
            "\\ud83",
            "\\ud83\u{e9}",
            "\\\u{1f600}",
        ] {
            assert!(matches!(replace_lone_surrogates(kept), Cow::Borrowed(_)), "{kept}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_json_becomes_readable(
            units in proptest::collection::vec(any::<u16>(), 0..20), noise in ".*",
        ) {
            replace_lone_surrogates(&noise);
            let escapes: Vec<_> = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let json = format!("\"{}\"", escapes.concat());
            let text: String = serde_json::from_str(&replace_lone_surrogates(&json)).unwrap();
            prop_assert_eq!(text, String::from_utf16_lossy(&units));
        }
    }
}
