//! Durations as people type them: `500ms`, `30s`, `2m`, `1h`.

use std::time::Duration;

/// Reads a whole number with its unit. Zero is refused: nothing here can wait for no time at all.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(EXPECTED.into()),
    };
    if number.is_empty() {
        return Err(EXPECTED.into());
    }
    match number.parse().ok().and_then(|n: u64| n.checked_mul(milliseconds)) {
        Some(0) => Err("must be longer than nothing".into()),
        Some(total) => Ok(Duration::from_millis(total)),
        None => Err("is too long".into()),
    }
}

const EXPECTED: &str = "expected a whole number with a unit, such as 500ms, 30s, 2m or 1h";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        for (text, milliseconds) in [("500ms", 500), ("1ms", 1), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "s", "30", "30 s", "-30s", "+30s", "1.5s", "30sec", "30S", "1m30s", "٣s"] {
            assert_eq!(parse(text), Err(EXPECTED.to_owned()), "{text}");
        }
        assert_eq!(parse("0s"), Err("must be longer than nothing".to_owned()));
        for text in ["99999999999999999999s", "9999999999999999h"] {
            assert_eq!(parse(text), Err("is too long".to_owned()), "{text}");
        }
    }
}
