//! Decodes results, and finds out why one cannot be decoded.
//!
//! Nearly every item is decoded in one pass. Everything else here happens only after that pass has
//! failed: what is wrong outside of the data is forgiven, and what is wrong in it gets a path.

use std::borrow::Cow;

use serde::de::{DeserializeOwned, DeserializeSeed};
use serde_json::{Deserializer, Map, Number, Value, value::RawValue};

use super::{Response, incremental::Part};
use crate::{
    error::{
        DecodeError, GraphQlError, INCREMENTAL, bounded::Budget, map, replace_lone_surrogates,
    },
    protocol::Payload,
};

/// Decodes the payload of a result.
///
/// # Errors
///
/// Fails if the data is not of its type, or if the payload is only a part of a result.
pub(crate) fn decode<T: DeserializeOwned>(payload: &Payload) -> Result<Response<T>, DecodeError> {
    payload.decode().or_else(|error| decode_again(payload, &error))
}

/// Decodes what did not decode in the usual way.
#[cold]
#[inline(never)]
fn decode_again<T: DeserializeOwned>(
    payload: &Payload,
    error: &serde_json::Error,
) -> Result<Response<T>, DecodeError> {
    let without_path = |json| DecodeError::new(error, None, Vec::new(), json);
    let located = &payload.frame()[payload.range()];
    let json = payload.json().map_err(|_| without_path(located))?;
    let Part { data, errors, extensions, .. } = match Part::read(json) {
        Ok(part) if part.is_part() || error.to_string().starts_with(INCREMENTAL) => {
            let errors = read_details(part.errors, None, &Budget::new()).unwrap_or_default().0;
            return Err(DecodeError::incremental(errors, json));
        }
        Ok(part) => part,
        Err(_) => return Err(without_path(json)),
    };
    let details = read_details(errors, extensions, &Budget::new());
    let data = match data {
        Some(data) => decode_data(data.get()).map_err(|Mismatch { error, path }| {
            // The server's errors often explain why the data does not fit its type.
            let errors = details.as_ref().map_or(Vec::new(), |(errors, _)| errors.clone());
            DecodeError::new(&error, path.as_deref(), errors, json)
        })?,
        None => None,
    };
    let (errors, extensions) =
        details.map_err(|error| DecodeError::new(&error, None, Vec::new(), json))?;
    Ok(Response { data, errors, extensions })
}

/// Why data is not of its type.
pub(super) struct Mismatch {
    pub(super) error: serde_json::Error,
    /// Where in the data.
    pub(super) path: Option<String>,
}

/// Decodes data alone.
pub(super) fn decode_data<T: DeserializeOwned>(json: &str) -> Result<Option<T>, Mismatch> {
    let error = match serde_json::from_str(json) {
        Ok(data) => return Ok(data),
        Err(error) => error,
    };
    if has_arbitrary_precision()
        && let Ok(data) = decode_through_value(json)
    {
        return Ok(data);
    }
    let mut deserializer = Deserializer::from_str(json);
    match serde_path_to_error::deserialize::<_, Option<T>>(&mut deserializer) {
        // What follows the data is wrong, or the type does not decode in the same way twice.
        Ok(_) => Err(Mismatch { error, path: None }),
        Err(found) => {
            let path = display_path(found.path());
            Err(Mismatch { error: found.into_inner(), path })
        }
    }
}

/// Shows a path like `trades[3].price`, without what only `serde_json` knows.
fn display_path(path: &serde_path_to_error::Path) -> Option<String> {
    let path = path.to_string();
    let path = path.split("$serde_json::private").next().unwrap_or_default();
    let path = path.trim_end_matches(['.', '?']);
    (!path.is_empty()).then(|| path.to_owned())
}

/// Reads errors and extensions. Half a surrogate pair there is no reason to lose the data beside
/// it.
pub(super) fn read_details(
    errors: Option<&RawValue>,
    extensions: Option<&RawValue>,
    budget: &Budget,
) -> Result<Details, serde_json::Error> {
    let read = |repair: fn(&str) -> Cow<'_, str>| {
        let errors = errors.map(|raw| read_json(budget.errors(), &repair(raw.get()))).transpose();
        let extensions =
            extensions.map(|raw| read_json(budget.value(), &repair(raw.get()))).transpose();
        Ok((errors?.unwrap_or_default(), map(extensions?)))
    };
    budget.retry(|| read(|json| Cow::Borrowed(json)), || read(replace_lone_surrogates))
}

/// The errors and the extensions of a result.
pub(super) type Details = (Vec<GraphQlError>, Option<Map<String, Value>>);

fn read_json<'de, S: DeserializeSeed<'de>>(
    seed: S,
    json: &'de str,
) -> Result<S::Value, serde_json::Error> {
    seed.deserialize(&mut Deserializer::from_str(json))
}

/// Decodes data through a [`Value`], for types that serde reads as a whole before it knows what
/// they are: untagged and internally tagged enums, and flattened structs.
///
/// If any crate in the build enables `arbitrary_precision` of `serde_json`, these get every
/// fraction as a map. A `Value` passes it as a number, if the number is spelled as `serde_json`
/// would spell it.
fn decode_through_value<T: DeserializeOwned>(json: &str) -> serde_json::Result<Option<T>> {
    let mut value = read_json(Budget::for_data().value(), json)?;
    respell(&mut value);
    serde_json::from_value(value)
}

/// Spells fractions as `serde_json` does, unless that could change them.
fn respell(value: &mut Value) {
    match value {
        Value::Number(number) if !number.is_i64() && !number.is_u64() => {
            let text = number.to_string();
            let significand = text.split(['e', 'E']).next().unwrap_or_default();
            let digits = significand.bytes().filter(u8::is_ascii_digit).count();
            // As many decimal digits survive in an `f64`, whatever they are.
            if digits <= f64::DIGITS as usize
                && let Some(same) = number.as_f64().and_then(Number::from_f64)
            {
                *number = same;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(respell),
        Value::Object(object) => object.values_mut().for_each(respell),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether any crate in the build has enabled that feature of `serde_json`.
fn has_arbitrary_precision() -> bool {
    // Without it, this is the same number as 1.
    let text = "1.00000000000000000000000001";
    text.parse::<Number>().is_ok_and(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, Debug, PartialEq)]
    struct Trades {
        trades: Vec<Trade>,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    struct Trade {
        price: f64,
    }

    fn decoded<T: DeserializeOwned>(json: &str) -> Result<Response<T>, DecodeError> {
        let frame = format!(r#"{{"type":"next","id":"1.0","payload":{json}}}"#);
        let end = frame.len() - 1;
        decode(&Payload::new(frame, end - json.len()..end))
    }

    #[test]
    fn an_error_has_the_path_what_was_expected_and_found_and_the_raw_text() {
        let json = r#"{"data":{"trades":[{"price":1.5},{"price":"x"}]},"errors":["why"]}"#;
        let error = decoded::<Trades>(json).unwrap_err();
        assert_eq!(error.path(), Some("trades[1].price"));
        assert_eq!(
            error.to_string(),
            "the item is not of the expected type: trades[1].price: invalid type: string \"x\", \
             expected f64: why"
        );
        assert_eq!(error.raw(), json);
        assert_eq!(error.errors()[0].message, "why");
        assert!(!error.is_incremental());

        let error = decoded::<Trades>(r#"{"data":{"trades":[{}]}}"#).unwrap_err();
        assert_eq!(error.path(), Some("trades[0]"));
        assert!(error.to_string().ends_with("trades[0]: missing field `price`"), "{error}");
        assert_eq!(decoded::<Trades>(r#"{"data":7}"#).unwrap_err().path(), None);
    }

    #[test]
    fn what_is_no_json_is_an_error_without_a_path() {
        for json in ["", "[]", "7", r#"{"data":7"#, r#"{"data":7,"errors":[}"#] {
            let error = decoded::<u32>(json).unwrap_err();
            assert_eq!((error.path(), error.raw()), (None, json));
        }
    }

    #[test]
    fn half_a_surrogate_pair_beside_the_data_costs_nothing() {
        let response = decoded::<u32>(
            r#"{"errors":[{"message":"\ud83d","extensions":{"\ude00":1}}],"data":7,
                "extensions":{"note":"\ud83dx","kept":"\ud83d\ude00"}}"#,
        )
        .unwrap();
        assert_eq!(response.data, Some(7));
        assert_eq!(response.errors[0].message, "\u{fffd}");
        assert_eq!(response.errors[0].extensions.as_ref().unwrap()["\u{fffd}"], 1);
        let expected = json!({"note": "\u{fffd}x", "kept": "\u{1f600}"});
        assert_eq!(response.extensions, expected.as_object().cloned());
    }

    #[test]
    fn half_a_surrogate_pair_in_the_data_is_an_error_with_a_path() {
        let error =
            decoded::<Value>(r#"{"data":{"a":["\ud83d"]},"errors":[{"message":"beside \ud83d"}]}"#)
                .unwrap_err();
        assert!(error.to_string().contains("hex escape"), "{error}");
        assert_eq!(error.errors()[0].message, "beside \u{fffd}");
    }

    #[test]
    fn too_many_errors_and_extensions_are_an_error_all_the_same() {
        let many = format!("[{}0]", "0,".repeat(100_000));
        let error = decoded::<u32>(&format!(r#"{{"data":7,"extensions":{{"x":{many}}}}}"#));
        assert!(error.unwrap_err().to_string().contains("65536 values"));
    }

    #[test]
    fn a_type_that_keeps_raw_json_decodes_beside_odd_errors() {
        let response =
            decoded::<Box<RawValue>>(r#"{"data":{"a":1.50},"errors":["\ud83d"]}"#).unwrap();
        assert_eq!(response.data.unwrap().get(), r#"{"a":1.50}"#);
    }

    /// What `graphql_client` generates for a union.
    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(tag = "__typename")]
    enum Union {
        Price { value: f64 },
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(untagged)]
    enum Untagged {
        Price { value: f64 },
    }

    /// That is not obvious if a crate in the build enables `arbitrary_precision`.
    #[test]
    fn fractions_in_unions_decode() {
        for (number, value) in
            [("1.5", 1.5), ("1.50", 1.5), ("1e3", 1e3), ("2.5E-3", 0.0025), ("7", 7.0)]
        {
            let union = decoded(&format!(
                r#"{{"data":{{"__typename":"Price","value":{number}}},"errors":["m"]}}"#
            ));
            let union: Response<Union> = union.unwrap();
            assert_eq!(union.data, Some(Union::Price { value }), "{number}");
            assert_eq!(union.errors.len(), 1);
            let untagged = decoded(&format!(r#"{{"data":{{"value":{number}}}}}"#)).unwrap();
            assert_eq!(untagged.data, Some(Untagged::Price { value }), "{number}");
        }
    }

    #[test]
    fn numbers_are_respelled_only_if_that_does_not_change_them() {
        let mut value = json!({"a": [0.5, -3, 7, "x", null, true], "b": {"c": 1e300}});
        let before = value.clone();
        respell(&mut value);
        assert_eq!(value, before);
    }

    #[test]
    fn data_decodes_through_a_value_as_it_does_from_text() {
        let json = r#"{"trades":[{"price":1.50},{"price":1e3}]}"#;
        let direct: Option<Trades> = serde_json::from_str(json).unwrap();
        assert_eq!(decode_through_value::<Trades>(json).unwrap(), direct);
        assert!(decode_through_value::<Trades>("{}").is_err());
        assert_eq!(decode_through_value::<Trades>("null").unwrap(), None);
    }
}
