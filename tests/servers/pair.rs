//! The client beside each server on each subprotocol, and how its streams are read. Holds no claim
//! of its own.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use resub::{
    Client, ClientBuilder, Event, Gap, Request, Status, Subprotocol, Subscription,
    SubscriptionError,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use crate::fixture::{Options, TestServer};
use crate::raw::within;
use crate::{async_graphql, juniper};

/// Makes a test of the claim, an `async fn(Pair)`, for each server with each subprotocol.
macro_rules! on_each_pair {
    ($claim:ident) => {
        mod $claim {
            use crate::pair::{Pair, Server};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn async_graphql_on_graphql_transport_ws() {
                super::$claim(Pair::modern(Server::AsyncGraphql)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn async_graphql_on_graphql_ws() {
                super::$claim(Pair::legacy(Server::AsyncGraphql)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn juniper_on_graphql_transport_ws() {
                super::$claim(Pair::modern(Server::Juniper)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn juniper_on_graphql_ws() {
                super::$claim(Pair::legacy(Server::Juniper)).await;
            }
        }
    };
}

/// Makes a test of the claim, an `async fn(Server)`, for each server; the client is told no
/// subprotocol.
macro_rules! on_each_server {
    ($claim:ident) => {
        mod $claim {
            use crate::pair::Server;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn async_graphql() {
                super::$claim(Server::AsyncGraphql).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn juniper() {
                super::$claim(Server::Juniper).await;
            }
        }
    };
}

pub(crate) use {on_each_pair, on_each_server};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    AsyncGraphql,
    Juniper,
}

/// A server, and what is spoken with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) server: Server,
    pub(crate) subprotocol: Subprotocol,
}

impl Server {
    pub(crate) fn start(self, options: Options) -> TestServer {
        match self {
            Self::AsyncGraphql => async_graphql::start(options),
            Self::Juniper => juniper::start(options),
        }
    }
}

impl Pair {
    pub(crate) fn modern(server: Server) -> Self {
        Self { server, subprotocol: Subprotocol::GraphqlTransportWs }
    }

    pub(crate) fn legacy(server: Server) -> Self {
        Self { server, subprotocol: Subprotocol::GraphqlWs }
    }

    pub(crate) fn start(self) -> TestServer {
        self.server.start(Options::default())
    }

    pub(crate) fn builder(self, url: &str) -> ClientBuilder {
        impatient(url).subprotocol(self.subprotocol)
    }

    pub(crate) fn client(self, server: &TestServer) -> Client {
        self.builder(&server.url()).build().unwrap()
    }
}

/// A client that does not wait long between attempts.
pub(crate) fn impatient(url: &str) -> ClientBuilder {
    Client::builder(url).backoff(Duration::from_millis(10), Duration::from_millis(50))
}

/// Subscribes to a document, whatever its data.
pub(crate) fn subscribe(client: &Client, document: &str) -> Subscription<Value> {
    client.subscribe_to(Request::new(document)).unwrap()
}

/// The next event, which is not an error.
pub(crate) async fn event<T: DeserializeOwned + Debug>(
    subscription: &mut Subscription<T>,
) -> Event<T> {
    within(subscription.next()).await.expect("not the end").expect("not an error")
}

/// The data of the next event, which is an item without errors.
pub(crate) async fn item<T: DeserializeOwned + Debug>(subscription: &mut Subscription<T>) -> T {
    match event(subscription).await {
        Event::Next(response) => {
            assert_eq!(response.errors, []);
            response.data.expect("data")
        }
        other => panic!("not an item: {other:?}"),
    }
}

/// The next event, which is a gap.
pub(crate) async fn gap<T: DeserializeOwned + Debug>(subscription: &mut Subscription<T>) -> Gap {
    match event(subscription).await {
        Event::Gap(gap) => gap,
        other => panic!("not a gap: {other:?}"),
    }
}

/// The end, which is next, and after which nothing follows.
pub(crate) async fn end<T: DeserializeOwned + Debug>(
    subscription: &mut Subscription<T>,
) -> Option<SubscriptionError> {
    let end = match within(subscription.next()).await {
        None => None,
        Some(Err(error)) => Some(error),
        Some(Ok(event)) => panic!("not the end: {event:?}"),
    };
    assert!(end.as_ref().is_none_or(SubscriptionError::is_terminal), "{end:?}");
    assert!(within(subscription.next()).await.is_none(), "something followed the end");
    end
}

/// An error as a log would show it: with all that is behind it.
pub(crate) fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Waits until the client is connected.
pub(crate) async fn until_open(status: &mut watch::Receiver<Status>) {
    within(status.wait_for(|status| matches!(status, Status::Open { .. }))).await.unwrap();
}

/// Waits until the client knows that it is not.
pub(crate) async fn until_down(status: &mut watch::Receiver<Status>) {
    let is_down =
        |status: &Status| matches!(status, Status::Waiting { .. } | Status::Connecting { .. });
    within(status.wait_for(is_down)).await.unwrap();
}
