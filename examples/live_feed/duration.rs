//! Durations on the command line: `500ms`, `30s`, `2m`, `1h`, or in seconds as in curl.

use std::time::Duration;

/// Parses a whole number with a unit. Refuses zero, because no option accepts it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let (number, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
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

/// Parses a number of seconds, which may have a fraction. Refuses zero.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    if !text.starts_with(|c: char| c.is_ascii_digit())
        || text.contains(|c: char| !c.is_ascii_digit() && c != '.')
    {
        return Err(EXPECTED_SECONDS.into());
    }
    let seconds: f64 = text.parse().map_err(|_| EXPECTED_SECONDS)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) => Err("must be longer than nothing".into()),
        Ok(duration) if duration <= A_YEAR => Ok(duration),
        Ok(_) | Err(_) => Err("is too long".into()),
    }
}

/// The longest duration that the library accepts.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const EXPECTED_SECONDS: &str = "expected a number of seconds, such as 3 or 2.5";

const EXPECTED: &str = "expected a whole number with a unit, such as 500ms, 30s, 2m or 1h";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        for (text, milliseconds) in
            [("500ms", 500), ("1ms", 1), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        for (text, milliseconds) in
            [("3", 3_000), ("2.5", 2_500), ("0.1", 100), ("31536000", 31_536_000_000)]
        {
            assert_eq!(parse_seconds(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "3s", ".5", "-1", "+1", "1e3", "inf", "NaN", "1.2.3", "1,5", " 1", "٣"] {
            assert_eq!(parse_seconds(text), Err(EXPECTED_SECONDS.to_owned()), "{text}");
        }
        for text in ["0", "0.0", "0.00000000001"] {
            assert_eq!(
                parse_seconds(text),
                Err("must be longer than nothing".to_owned()),
                "{text}"
            );
        }
        for text in ["31536001", "99999999999999999999999999"] {
            assert_eq!(parse_seconds(text), Err("is too long".to_owned()), "{text}");
        }
    }

    #[test]
    fn any_other_text_is_refused() {
        for text in ["", "s", "30", "30 s", "-30s", "+30s", "1.5s", "30sec", "30S", "1m30s", "٣s"]
        {
            assert_eq!(parse(text), Err(EXPECTED.to_owned()), "{text}");
        }
        assert_eq!(parse("0s"), Err("must be longer than nothing".to_owned()));
        for text in ["99999999999999999999s", "9999999999999999h"] {
            assert_eq!(parse(text), Err("is too long".to_owned()), "{text}");
        }
    }
}
