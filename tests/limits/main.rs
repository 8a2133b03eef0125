//! What a hostile server costs: at the peak, in bytes of this process, and how it ends. Each bound
//! is a row of SECURITY.md.
//!
//! The allocator counts for the whole process, so one scenario runs at a time. The server's own
//! part is a pipe of 64 KiB in each direction and what it is about to write; both are in what is
//! counted.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "the clock that these tests read is paused")]

mod amount;
mod hostile;
mod keeping;
mod receiving;
mod security;
mod sending;
mod upgrading;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use peak_alloc::PeakAlloc;
use resub::{Client, ClientBuilder, Event, Request, Subscription, SubscriptionError};
use serde_json::Value;
use tokio::time::timeout;

use self::hostile::Hostile;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs a scenario alone, on a paused clock, and asserts how many bytes it may take at its peak.
fn within(bytes: usize, scenario: impl Future<Output = ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    // The clock moves only while nobody has anything to do, so this is no measure of speed: it ends
    // what hangs.
    runtime
        .block_on(async { timeout(Duration::from_secs(86_400), scenario).await })
        .expect("it hangs");
    let peak = MEMORY.peak_usage().saturating_sub(before);
    println!("{} KiB of {} KiB", peak / KIB, bytes / KIB);
    assert!(peak <= bytes, "{peak} bytes instead of {bytes}");
}

/// A client of this server that does not give up, with one subscription.
fn client(server: &Hostile) -> (Client, Subscription<Value>) {
    client_with(server, |builder| builder)
}

fn client_with(
    server: &Hostile,
    further: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> (Client, Subscription<Value>) {
    let builder = Client::builder("ws://hostile/").dialer(server.dialer()).seed(1);
    let client = further(builder).build().unwrap();
    let subscription = subscribe(&client);
    (client, subscription)
}

fn subscribe(client: &Client) -> Subscription<Value> {
    client.subscribe_to(Request::new("subscription { a }")).unwrap()
}

/// The data of the next event, which is an item.
async fn item(subscription: &mut Subscription<Value>) -> Value {
    match subscription.next().await {
        Some(Ok(Event::Next(response))) => response.data.unwrap_or_default(),
        other => panic!("an item was expected, not {other:?}"),
    }
}

/// The next event, which is an error.
async fn error(subscription: &mut Subscription<Value>) -> SubscriptionError {
    match subscription.next().await {
        Some(Err(error)) => error,
        other => panic!("an error was expected, not {other:?}"),
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A client, its socket and the pipes: what every scenario takes.
const BASE: usize = MIB;
