//! Operations whose document is known only at run time.

use std::{fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

use crate::operation::{Operation, Resumable, body};

/// An operation whose document is known only at run time, with data of any type.
///
/// ```
/// # use resub::Request;
/// # use serde_json::json;
/// let document = "subscription($symbol: String) { trades(symbol: $symbol) { price } }";
/// let request = Request::<serde_json::Value>::new(document)
///     .variables(&json!({ "symbol": "BTC" }));
/// ```
pub struct Request<T> {
    document: String,
    operation_name: Option<String>,
    variables: Option<Result<Box<RawValue>, serde_json::Error>>,
    data: PhantomData<fn() -> T>,
}

impl<T> Request<T> {
    /// An operation without variables.
    pub fn new(document: impl Into<String>) -> Self {
        Self { document: document.into(), operation_name: None, variables: None, data: PhantomData }
    }

    /// Sets the variables, an object. If they do not serialize, using it fails with that error.
    #[must_use]
    pub fn variables(mut self, variables: &(impl Serialize + ?Sized)) -> Self {
        self.variables = Some(to_raw_value(variables));
        self
    }

    /// Names the operation to run, of a document with several.
    #[must_use]
    pub fn operation_name(mut self, name: impl Into<String>) -> Self {
        self.operation_name = Some(name.into());
        self
    }
}

impl<T: DeserializeOwned> Operation for Request<T> {
    type Data = T;

    fn payload(&self) -> Result<Box<RawValue>, serde_json::Error> {
        let variables = match &self.variables {
            Some(Ok(variables)) => Some(&**variables),
            Some(Err(error)) => return Err(serde::ser::Error::custom(error)),
            None => None,
        };
        body(&self.document, self.name(), variables)
    }

    fn name(&self) -> Option<&str> {
        self.operation_name.as_deref()
    }
}

/// The variables are a JSON value; `null` before any were set.
impl<T: DeserializeOwned> Resumable for Request<T> {
    type Variables = serde_json::Value;

    fn change(
        &mut self,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> Result<(), serde_json::Error> {
        let mut variables = match self.variables.take() {
            Some(variables) => serde_json::from_str(variables?.get())?,
            None => serde_json::Value::Null,
        };
        change(&mut variables);
        self.variables = Some(to_raw_value(&variables));
        Ok(())
    }
}

/// Without its variables, which may hold what nobody else may see.
impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("document", &self.document)
            .field("operation_name", &self.operation_name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_has_only_the_fields_that_were_set() {
        let plain = Request::<()>::new("{a}").payload().unwrap();
        assert_eq!(plain.get(), r#"{"query":"{a}"}"#);
        let unset = Request::<()>::new("{a}").variables(&()).payload().unwrap();
        assert_eq!(unset.get(), plain.get(), "`variables: null` is never sent");
        let full = Request::<()>::new("{a}")
            .operation_name("A")
            .variables(&json!({"b": 1}))
            .payload()
            .unwrap();
        assert_eq!(full.get(), r#"{"query":"{a}","operationName":"A","variables":{"b":1}}"#);
        let unserializable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(Request::<()>::new("{a}").variables(&unserializable).payload().is_err());
    }
}
