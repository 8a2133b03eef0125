//! The results that a server sends, in the GraphQL response format (GraphQL specification,
//! section 7).
//!
//! Owns decoding. Every field but `data` is read leniently, so that a malformed error object does
//! not make an item fail (rule 11).

mod decode;
mod end;
mod gap;
mod incremental;

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};

#[cfg(feature = "client")]
pub(crate) use self::end::StreamEnd;
pub(crate) use self::end::{CallEnd, ConnectionEnd, End};
pub use self::gap::Gap;
use self::incremental::{Mark, Marks};
pub(crate) use self::incremental::{has_next, may_be_part};
#[cfg(feature = "client")]
pub(crate) use self::{
    decode::decode,
    incremental::{decode_parts, errors_of},
};
use crate::error::{GraphQlError, INCREMENTAL, bounded::Budget, map};

/// One item of a subscription, or the result of a query or mutation.
///
/// It has any combination of data, errors and extensions.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Response<T> {
    /// The data. `None` if the server sent `null` or no data, which usually comes with errors.
    pub data: Option<T>,
    /// The errors. The first 100 are kept. Errors beside partial data are normal and do not end a
    /// stream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<GraphQlError>,
    /// The extensions, whose meaning is the server's own. An item fails to decode if its errors and
    /// extensions have more than 65,536 JSON values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Response<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ResponseVisitor(PhantomData))
    }
}

struct ResponseVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ResponseVisitor<T> {
    type Value = Response<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a GraphQL response")
    }

    /// Some servers send `"payload": null`, which is read like an empty object.
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Response { data: None, errors: Vec::new(), extensions: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map_access: A) -> Result<Self::Value, A::Error> {
        let mut response = Response { data: None, errors: Vec::new(), extensions: None };
        let budget = Budget::new();
        let mut marks = None;
        while let Some(key) = map_access.next_key::<Field>()? {
            match key {
                Field::Data => response.data = map_access.next_value()?,
                Field::Errors => response.errors = read_other(&mut map_access, budget.errors())?,
                Field::Extensions => {
                    response.extensions = map(Some(read_other(&mut map_access, budget.value())?));
                }
                Field::Mark(mark) => read_mark(&mut marks, mark, &mut map_access)?,
                Field::Other => {
                    map_access.next_value::<IgnoredAny>()?;
                }
            }
        }
        if let Some(marks) = marks
            && marks.is_part(response.data.is_none() && response.errors.is_empty())
        {
            return Err(A::Error::custom(INCREMENTAL));
        }
        Ok(response)
    }
}

/// Reads a field other than `data`. It is not inlined, because most items have none.
#[cold]
#[inline(never)]
fn read_other<'de, A, S>(access: &mut A, seed: S) -> Result<S::Value, A::Error>
where
    A: MapAccess<'de>,
    S: DeserializeSeed<'de>,
{
    access.next_value_seed(seed)
}

#[cold]
#[inline(never)]
fn read_mark<'de, A: MapAccess<'de>>(
    marks: &mut Option<Marks>,
    mark: Mark,
    access: &mut A,
) -> Result<(), A::Error> {
    marks.get_or_insert_default().read(mark, access)
}

enum Field {
    Data,
    Errors,
    Extensions,
    Mark(Mark),
    Other,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;

        impl Visitor<'_> for FieldVisitor {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E>(self, name: &str) -> Result<Field, E> {
                Ok(match name {
                    "data" => Field::Data,
                    "errors" => Field::Errors,
                    "extensions" => Field::Extensions,
                    other => Mark::named(other).map_or(Field::Other, Field::Mark),
                })
            }
        }

        deserializer.deserialize_identifier(FieldVisitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn data_errors_and_extensions_come_in_any_combination() {
        let full: Response<u32> = serde_json::from_str(
            r#"{"extensions":{"cost":3},"data":7,"errors":[{"message":"m"}],"more":true}"#,
        )
        .unwrap();
        assert_eq!(full.data, Some(7));
        assert_eq!(full.errors[0].message, "m");
        assert_eq!(full.extensions.unwrap()["cost"], 3);
        for nothing in
            ["{}", "null", r#"{"data":null}"#, r#"{"data":null,"errors":null,"extensions":null}"#]
        {
            let empty: Response<u32> = serde_json::from_str(nothing).unwrap();
            assert_eq!(
                empty,
                Response { data: None, errors: vec![], extensions: None },
                "{nothing}"
            );
        }
        assert!(serde_json::from_str::<Response<u32>>("[]").is_err());
        assert!(serde_json::from_str::<Response<u32>>(r#"{"data":"text"}"#).is_err());
    }

    #[test]
    fn a_part_of_a_result_is_no_result() {
        for part in [
            r#"{"data":7,"hasNext":true}"#,
            r#"{"hasNext":true,"data":7}"#,
            r#"{"data":7,"pending":[{"id":"0","path":[]}],"hasNext":true}"#,
            r#"{"data":7,"pending":[]}"#,
            r#"{"data":7,"path":["a"],"hasNext":false}"#,
            r#"{"incremental":[],"hasNext":false}"#,
            r#"{"completed":[{"id":"0"}],"hasNext":false}"#,
            r#"{"hasNext":false}"#,
        ] {
            let error = serde_json::from_str::<Response<u32>>(part).unwrap_err();
            assert!(error.to_string().contains("in parts"), "{part}: {error}");
        }
    }

    #[test]
    fn a_whole_result_may_say_that_nothing_follows() {
        for whole in [
            r#"{"data":7,"hasNext":false}"#,
            r#"{"data":7,"hasNext":null,"pending":null,"path":null}"#,
            r#"{"data":7,"path":["a"],"label":"b","items":[]}"#,
        ] {
            let response: Response<u32> = serde_json::from_str(whole).unwrap();
            assert_eq!(response.data, Some(7), "{whole}");
        }
        let failed: Response<u32> =
            serde_json::from_str(r#"{"data":null,"errors":[{}],"hasNext":false}"#).unwrap();
        assert_eq!((failed.data, failed.errors.len()), (None, 1));
    }

    #[test]
    fn raw_data_keeps_the_servers_bytes() {
        let raw: Response<Box<RawValue>> =
            serde_json::from_str(r#"{"data":{"b":1.0,"a":[ 2 ]}}"#).unwrap();
        assert_eq!(raw.data.unwrap().get(), r#"{"b":1.0,"a":[ 2 ]}"#);
    }
}
