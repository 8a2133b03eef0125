//! The client against the scripted server, on in-memory pipes and a paused clock: what happens when
//! things go wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "the clock that these tests read is paused")]
#![allow(clippy::format_push_string, reason = "a test may be simple")]

mod calls;
mod close_frames;
mod combined;
mod conflate;
mod connections;
mod control;
mod counts;
mod dedicated;
mod delivery;
mod documents;
mod established;
mod exactly_once;
mod half_open;
mod handover;
mod handshake;
mod held;
mod hostile_io;
mod lifecycle;
mod observe;
mod odd_items;
mod outage;
mod overflow;
mod overlaps;
mod parts;
mod poison;
mod positions;
mod reconnect;
mod refusals;
mod restart;
mod resume;
mod rotate_and_cut;
mod rows;
mod runtime;
mod sequence;
mod shared;
mod snapshot;
mod stale;
mod upgrade;

use std::{num::NonZeroUsize, time::Duration};

use resub::{
    Client, ClientBuilder, Event, Gap, Request, Response, Status, Subscription, SubscriptionError,
    mock::{Peer, Server},
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

/// A client of this server, with a fixed seed.
fn builder(server: &Server) -> ClientBuilder {
    Client::builder(server.url()).dialer(server.dialer()).seed(1)
}

fn client(server: &Server) -> Client {
    builder(server).build().unwrap()
}

/// Any subscription; the scripted server does not mind which.
fn request(name: &str) -> Request<Value> {
    Request::new(format!("subscription {name} {{ {name} }}"))
}

fn subscribe(client: &Client, name: &str) -> Subscription<Value> {
    client.subscribe_to(request(name)).unwrap()
}

/// The next connection, acknowledged.
async fn connected(server: &Server) -> Peer {
    server.accept().await.expect_init().await.ack().await
}

/// A client with one live subscription, and its peer.
async fn live(server: &Server) -> (Client, Subscription<Value>, Peer, String) {
    let client = client(server);
    let subscription = subscribe(&client, "a");
    let mut peer = connected(server).await;
    let id = peer.expect_subscribe().await.id;
    (client, subscription, peer, id)
}

fn data(n: impl Into<Value>) -> Value {
    json!({"data": n.into()})
}

/// The next event, within an hour of the paused clock: a reader that nobody wakes is a failure, not
/// a hang.
async fn event(
    subscription: &mut Subscription<Value>,
) -> Option<Result<Event<Value>, SubscriptionError>> {
    woken(subscription.next()).await
}

/// What is ready only because the timeout looked at it was woken by nobody.
async fn woken<T>(future: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let output = timeout(secs(3_600), future).await.expect("the stream is stuck");
    assert!(begun.elapsed() < secs(3_600), "the stream is stuck, as nobody wakes it");
    output
}

async fn item(subscription: &mut Subscription<Value>) -> Value {
    match event(subscription).await {
        Some(Ok(Event::Next(Response { data: Some(data), .. }))) => data,
        other => panic!("an item was expected, not {other:?}"),
    }
}

async fn gap(subscription: &mut Subscription<Value>) -> Gap {
    match event(subscription).await {
        Some(Ok(Event::Gap(gap))) => gap,
        other => panic!("a gap was expected, not {other:?}"),
    }
}

/// The error that ends the stream.
async fn end(subscription: &mut Subscription<Value>) -> SubscriptionError {
    let error = match event(subscription).await {
        Some(Err(error)) if error.is_terminal() => error,
        other => panic!("a terminal error was expected, not {other:?}"),
    };
    assert!(event(subscription).await.is_none(), "nothing follows a terminal error");
    error
}

/// Waits for a status, on the paused clock.
async fn until(client: &Client, wanted: impl FnMut(&Status) -> bool) -> Status {
    let mut status = client.status();
    let seen = timeout(secs(3_600), status.wait_for(wanted)).await.expect("the status never came");
    seen.expect("the client is there").clone()
}

/// Lets every other task run until it waits.
async fn settle() {
    timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
}

/// An error with its sources.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn items(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
