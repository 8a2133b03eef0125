//! Reads JSON of any shape, up to a number of values.
//!
//! The size of the text is not enough of a bound: the eight bytes of `{"":0},` become hundreds of
//! bytes in memory. Owns the bound for errors and extensions. The data itself is bounded by the
//! application's own type.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::GraphQlError;

/// How many values may still be built. All errors and extensions of an item share one budget.
pub(crate) struct Budget(Cell<usize>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Cell::new(MAX_VALUES))
    }

    /// Creates the budget for data that has to be read as any value before its type can read it.
    pub(crate) fn for_data() -> Self {
        Self(Cell::new(MAX_DATA_VALUES))
    }

    /// Reads any value.
    pub(crate) fn value(&self) -> AnyValue<'_> {
        AnyValue(self)
    }

    /// Reads a list of errors, or what some servers send in place of one (rule 11).
    pub(crate) fn errors(&self) -> Errors<'_> {
        Errors(self)
    }

    /// Reads something that may be read a second time if it fails, within the same budget.
    pub(crate) fn retry<T, E>(
        &self,
        first: impl FnOnce() -> Result<T, E>,
        second: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.0.get();
        first().or_else(|_| {
            self.0.set(before);
            second()
        })
    }

    fn spend<E: Error>(&self) -> Result<(), E> {
        match self.0.get().checked_sub(1) {
            Some(rest) => {
                self.0.set(rest);
                Ok(())
            }
            None => Err(E::custom(format_args!(
                "errors and extensions have more than {MAX_VALUES} values"
            ))),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy)]
pub(crate) struct AnyValue<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for AnyValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.spend()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            // With its feature `arbitrary_precision`, serde_json passes a number as a map with
            // this key. Any crate in the build may enable the feature.
            if key == NUMBER {
                return access
                    .next_value::<String>()?
                    .parse::<Number>()
                    .map(Value::Number)
                    .map_err(A::Error::custom);
            }
            map.insert(key, access.next_value_seed(self)?);
        }
        Ok(Value::Object(map))
    }
}

pub(crate) struct Errors<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for Errors<'_> {
    type Value = Vec<GraphQlError>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Errors<'_> {
    type Value = Vec<GraphQlError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("errors")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(GraphQlError::list(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(GraphQlError::list(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(GraphQlError::list(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(GraphQlError::list(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(GraphQlError::list(value.into()))
    }

    /// Errors beyond the limit are skipped without building them.
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut errors = Vec::new();
        while errors.len() < MAX_ERRORS
            && let Some(error) = access.next_element_seed(self.0.value())?
        {
            errors.push(GraphQlError::from_value(error));
        }
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(errors)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Self::Value, A::Error> {
        self.0.value().visit_map(access).map(GraphQlError::list)
    }
}

/// How many errors of one item are kept.
pub(crate) const MAX_ERRORS: usize = 100;

/// How many values are built for all errors and extensions of one item. In the worst case each of
/// them is an object, and they take about 40 MB together.
pub(crate) const MAX_VALUES: usize = 65_536;

/// How many values are built for data that its own type cannot read from the text. They take up to
/// 160 MB.
const MAX_DATA_VALUES: usize = 4 * MAX_VALUES;

/// The key under which `serde_json` passes a number of arbitrary precision.
const NUMBER: &str = "$serde_json::private::Number";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(json: &str) -> serde_json::Result<Value> {
        Budget::new().value().deserialize(&mut serde_json::Deserializer::from_str(json))
    }

    fn errors(json: &str) -> serde_json::Result<Vec<GraphQlError>> {
        Budget::new().errors().deserialize(&mut serde_json::Deserializer::from_str(json))
    }

    #[test]
    fn values_are_read_up_to_the_limit_and_one_more_is_an_error() {
        let zeros = |n: usize| format!("[{}0]", "0,".repeat(n - 1));
        assert_eq!(read(&zeros(MAX_VALUES - 1)).unwrap().as_array().unwrap().len(), MAX_VALUES - 1);
        let error = read(&zeros(MAX_VALUES)).unwrap_err();
        assert!(
            error.to_string().starts_with("errors and extensions have more than 65536 values"),
            "{error}"
        );
        assert!(read(&format!("[{}0]", r#"{"":0},"#.repeat(MAX_VALUES))).is_err());
    }

    #[test]
    fn the_first_hundred_of_a_million_errors_are_kept_and_the_others_are_not_built() {
        let list = format!("[{}0]", r#"{"message":"m"},"#.repeat(1_000_000));
        assert_eq!(errors(&list).unwrap().len(), MAX_ERRORS);
        let one = format!(
            r#"[{{"message":"m","extensions":{}}}]"#,
            format_args!("[{}0]", "[],".repeat(MAX_VALUES))
        );
        assert!(errors(&one).is_err());
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_stack_overflow() {
        for open in ["[", r#"{"":"#, r#"[{"":"#] {
            let deep = open.repeat(1_000_000);
            assert!(read(&deep).unwrap_err().to_string().contains("recursion limit"));
            assert!(errors(&deep).unwrap_err().to_string().contains("recursion limit"));
        }
    }

    #[test]
    fn a_number_of_any_precision_is_a_number() {
        let text = "12345678901234567890123456789";
        let wrapped = json!({NUMBER: text}).to_string();
        assert!(read(&wrapped).unwrap().is_number());
        assert!(read(&json!({NUMBER: "no number"}).to_string()).is_err());
    }

    proptest! {
        #[test]
        fn values_are_read_as_serde_json_reads_them(value in any_json()) {
            let text = value.to_string();
            let expected: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read(&text).unwrap(), &expected);
            prop_assert_eq!(errors(&text).unwrap(), GraphQlError::list(expected));
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            "\\PC{0,5}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 5, |inner| {
            let key =
                prop_oneof![Just("errors".to_owned()), Just("message".to_owned()), "[a-z]{0,3}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::vec((key, inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }
}
