//! Operations that `graphql_client` generated.

use std::fmt;

use graphql_client::{GraphQLQuery, QueryBody};
use serde_json::value::{RawValue, to_raw_value};

use crate::operation::{Operation, Resumable, body};

#[doc = include_str!("derive.md")]
#[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
pub struct Typed<Q: GraphQLQuery>(QueryBody<Q::Variables>);

impl<Q: GraphQLQuery> Typed<Q> {
    /// The operation with these variables.
    pub fn new(variables: Q::Variables) -> Self {
        Self(Q::build_query(variables))
    }
}

impl<Q: GraphQLQuery> Operation for Typed<Q> {
    type Data = Q::ResponseData;

    fn payload(&self) -> Result<Box<RawValue>, serde_json::Error> {
        let QueryBody { variables, query, operation_name } = &self.0;
        body(query, Some(operation_name), Some(&to_raw_value(variables)?))
    }

    fn name(&self) -> Option<&str> {
        Some(self.0.operation_name)
    }
}

impl<Q: GraphQLQuery> Resumable for Typed<Q> {
    type Variables = Q::Variables;

    fn change(&mut self, change: impl FnOnce(&mut Q::Variables)) -> Result<(), serde_json::Error> {
        change(&mut self.0.variables);
        Ok(())
    }
}

impl<Q: GraphQLQuery> fmt::Debug for Typed<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Typed").field(&self.0.operation_name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(GraphQLQuery)]
    #[graphql(schema_path = "schema/market.graphql", query_path = "queries/symbols.graphql")]
    struct Symbols;

    #[test]
    fn an_operation_without_variables_sends_none() {
        let payload = Typed::<Symbols>::new(symbols::Variables).payload().unwrap();
        let payload: serde_json::Value = serde_json::from_str(payload.get()).unwrap();
        assert_eq!(payload["operationName"], "Symbols");
        assert_eq!(payload.get("variables"), None);
    }
}
