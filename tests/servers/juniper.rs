//! The test server on juniper, with its default keep-alive: on `graphql-transport-ws` it drops a
//! client that has sent no protocol `ping` for 15 seconds.
#![allow(clippy::unused_async, reason = "a resolver is async, whatever it does")]

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::routing::any;
use futures::stream::{Stream, StreamExt};
use juniper::{
    FieldResult, RootNode, ScalarValue, Variables, graphql_object, graphql_subscription,
};
use juniper_axum::subscriptions::serve_ws;
use juniper_graphql_ws::ConnectionConfig;

use crate::fixture::{self, Desk, Options, REJECTION, TestServer};

pub(crate) fn start(options: Options) -> TestServer {
    let desk = Desk::default();
    let schema: Arc<Schema> = Arc::new(RootNode::new(Query, Mutation, Subscription));
    let context = desk.clone();
    let admit = move |init: Variables| async move {
        let token = init.get("token").and_then(|token| token.as_scalar()?.try_as_str());
        if options.without_token.admits(token) {
            Ok(ConnectionConfig::new(context))
        } else {
            Err(Rejected)
        }
    };
    let upgrade = async move |ws: WebSocketUpgrade| {
        ws.protocols(["graphql-transport-ws", "graphql-ws"])
            .on_upgrade(move |socket| serve_ws(socket, schema, admit))
    };
    TestServer::serve(options.port, Router::new().route("/graphql", any(upgrade)), desk)
}

type Schema = RootNode<Query, Mutation, Subscription>;

#[derive(Debug, thiserror::Error)]
#[error("{REJECTION}")]
struct Rejected;

impl juniper::Context for Desk {}

struct Query;

#[graphql_object(context = Desk)]
impl Query {
    fn answer() -> i32 {
        42
    }
}

struct Mutation;

#[graphql_object(context = Desk)]
impl Mutation {
    fn add(context: &Desk, a: i32, b: i32) -> i32 {
        context.add(a, b)
    }
}

type Items<T> = Pin<Box<dyn Stream<Item = FieldResult<T>> + Send>>;

struct Subscription;

#[graphql_subscription(context = Desk)]
impl Subscription {
    async fn ticks(context: &Desk, n: i32, #[graphql(default = 10)] every_ms: i32) -> Items<i32> {
        fixture::ticks(&context.streams, n, every_ms).map(Ok).boxed()
    }

    async fn forever(context: &Desk, #[graphql(default = 10)] every_ms: i32) -> Items<i32> {
        fixture::counting(&context.streams, every_ms).map(Ok).boxed()
    }

    async fn partial(context: &Desk, #[graphql(default = 3)] n: i32) -> Items<Reading> {
        fixture::ticks(&context.streams, n, 1).map(|value| Ok(Reading { value })).boxed()
    }

    async fn failing(context: &Desk) -> Items<i32> {
        fixture::failing(&context.streams).map(|item| item.map_err(Into::into)).boxed()
    }

    async fn feed(context: &Desk) -> Items<i32> {
        fixture::feed(context).map(Ok).boxed()
    }
}

struct Reading {
    value: i32,
}

#[graphql_object(context = Desk)]
impl Reading {
    fn value(&self) -> i32 {
        self.value
    }

    fn broken() -> FieldResult<Option<i32>> {
        Err("no reading".into())
    }
}
