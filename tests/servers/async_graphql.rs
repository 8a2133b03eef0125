//! The test server on async-graphql.
#![allow(clippy::unused_async, reason = "a resolver is async, whatever it does")]

use async_graphql::http::ALL_WEBSOCKET_PROTOCOLS;
use async_graphql::{Data, Object, Result, Schema, Subscription};
use async_graphql_axum::{GraphQLProtocol, GraphQLWebSocket};
use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::routing::any;
use futures::stream::{Stream, StreamExt};
use serde_json::Value;

use crate::fixture::{self, Desk, Options, REJECTION, TestServer, WithoutToken};

pub(crate) fn start(options: Options) -> TestServer {
    let desk = Desk::default();
    let schema =
        Schema::new(Query, Mutation { desk: desk.clone() }, Subscription { desk: desk.clone() });
    let admit = move |init: Value| async move { admit(&init, options.without_token) };
    let upgrade = async move |protocol: GraphQLProtocol, ws: WebSocketUpgrade| {
        ws.protocols(ALL_WEBSOCKET_PROTOCOLS).on_upgrade(move |socket| {
            GraphQLWebSocket::new(socket, schema, protocol).on_connection_init(admit).serve()
        })
    };
    TestServer::serve(options.port, Router::new().route("/graphql", any(upgrade)), desk)
}

fn admit(init: &Value, without_token: WithoutToken) -> Result<Data> {
    let token = init.get("token").and_then(Value::as_str);
    if without_token.admits(token) { Ok(Data::default()) } else { Err(REJECTION.into()) }
}

struct Query;

#[Object]
impl Query {
    async fn answer(&self) -> i32 {
        42
    }
}

struct Mutation {
    desk: Desk,
}

#[Object]
impl Mutation {
    async fn add(&self, a: i32, b: i32) -> i32 {
        self.desk.add(a, b)
    }
}

struct Subscription {
    desk: Desk,
}

#[Subscription]
impl Subscription {
    async fn ticks(
        &self,
        n: i32,
        #[graphql(default = 10)] every_ms: i32,
    ) -> impl Stream<Item = i32> + use<> {
        fixture::ticks(&self.desk.streams, n, every_ms)
    }

    async fn forever(
        &self,
        #[graphql(default = 10)] every_ms: i32,
    ) -> impl Stream<Item = i32> + use<> {
        fixture::counting(&self.desk.streams, every_ms)
    }

    async fn partial(&self, #[graphql(default = 3)] n: i32) -> impl Stream<Item = Reading> + use<> {
        fixture::ticks(&self.desk.streams, n, 1).map(|value| Reading { value })
    }

    async fn failing(&self) -> impl Stream<Item = Result<i32>> + use<> {
        fixture::failing(&self.desk.streams).map(|item| item.map_err(Into::into))
    }

    async fn feed(&self) -> impl Stream<Item = i32> + use<> {
        fixture::feed(&self.desk)
    }
}

struct Reading {
    value: i32,
}

#[Object]
impl Reading {
    async fn value(&self) -> i32 {
        self.value
    }

    async fn broken(&self) -> Result<Option<i32>> {
        Err("no reading".into())
    }
}
