//! The client while nothing fails: what it subscribes to, what it cancels, what it keeps open.

use std::time::Duration;

use futures::future::join_all;
use resub::{Status, Subprotocol, SubscribeError, SubscriptionError};
use serde_json::json;

use crate::fixture::Options;
use crate::pair::{
    Pair, Server, end, impatient, item, on_each_pair, on_each_server, subscribe, until_open,
};
use crate::raw::{until, within};

on_each_pair!(items_come_in_order_and_the_stream_ends_when_the_server_completes_it);
async fn items_come_in_order_and_the_stream_ends_when_the_server_completes_it(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let mut ticks = subscribe(&client, "subscription { ticks(n: 100, everyMs: 1) }");
    for n in 0..100 {
        assert_eq!(item(&mut ticks).await, json!({ "ticks": n }));
    }
    assert!(end(&mut ticks).await.is_none());
}

#[cfg(feature = "graphql-client")]
#[derive(graphql_client::GraphQLQuery)]
#[graphql(
    schema_path = "tests/servers/schema.graphql",
    query_path = "tests/servers/ticks.graphql",
    response_derives = "Debug"
)]
struct Ticks;

#[cfg(feature = "graphql-client")]
on_each_pair!(a_generated_operation_has_typed_variables_and_typed_items);
#[cfg(feature = "graphql-client")]
async fn a_generated_operation_has_typed_variables_and_typed_items(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let mut numbers = client.subscribe::<Ticks>(ticks::Variables { n: 3 }).unwrap();
    for n in 0..3 {
        assert_eq!(item(&mut numbers).await.ticks, n);
    }
    assert!(end(&mut numbers).await.is_none());
}

on_each_server!(a_client_that_was_told_no_subprotocol_finds_the_modern_one_at_once);
async fn a_client_that_was_told_no_subprotocol_finds_the_modern_one_at_once(server: Server) {
    let server = server.start(Options::default());
    let client = impatient(&server.url()).build().unwrap();
    let mut ticks = subscribe(&client, "subscription { ticks(n: 3, everyMs: 1) }");
    for n in 0..3 {
        assert_eq!(item(&mut ticks).await, json!({ "ticks": n }));
    }
    let status = client.status().borrow().clone();
    assert!(
        matches!(status, Status::Open { subprotocol: Subprotocol::GraphqlTransportWs, .. }),
        "{status:?}"
    );
    assert_eq!(server.connections().borrow().ever, 1);
}

on_each_pair!(two_hundred_subscriptions_share_one_connection_and_each_gets_all_of_its_items);
async fn two_hundred_subscriptions_share_one_connection_and_each_gets_all_of_its_items(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    join_all((0..200).map(async |number| {
        let n = 5 + number % 7;
        let mut ticks =
            subscribe(&client, &format!("subscription {{ ticks(n: {n}, everyMs: 1) }}"));
        for expected in 0..n {
            assert_eq!(item(&mut ticks).await, json!({ "ticks": expected }));
        }
        assert!(end(&mut ticks).await.is_none());
    }))
    .await;
    assert_eq!(server.connections().borrow().ever, 1);
    assert_eq!(server.streams().borrow().ever, 200);
}

on_each_pair!(a_dropped_subscription_is_cancelled_on_the_server_and_its_sibling_goes_on);
async fn a_dropped_subscription_is_cancelled_on_the_server_and_its_sibling_goes_on(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let [mut kept, mut dropped] =
        [(); 2].map(|()| subscribe(&client, "subscription { forever(everyMs: 5) }"));
    assert_eq!(item(&mut kept).await, json!({"forever": 0}));
    assert_eq!(item(&mut dropped).await, json!({"forever": 0}));
    assert_eq!(server.streams().borrow().now, 2);

    drop(dropped);
    until(server.streams(), |streams| streams.now == 1).await;
    for n in 1..20 {
        assert_eq!(item(&mut kept).await, json!({ "forever": n }));
    }
    assert_eq!(server.streams().borrow().now, 1);
    assert_eq!(server.connections().borrow().ever, 1);
}

on_each_pair!(a_shutdown_ends_every_stream_and_closes_the_connection);
async fn a_shutdown_ends_every_stream_and_closes_the_connection(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let [mut a, mut b] =
        [(); 2].map(|()| subscribe(&client, "subscription { forever(everyMs: 60000) }"));
    for stream in [&mut a, &mut b] {
        assert_eq!(item(stream).await, json!({"forever": 0}));
    }

    // The deadline is longer than this test's patience: the server must have answered.
    within(client.clone().shutdown(Duration::from_secs(60))).await;
    for mut stream in [a, b] {
        let end = end(&mut stream).await;
        assert!(matches!(end, Some(SubscriptionError::ShutDown)), "{end:?}");
    }
    until(server.streams(), |streams| streams.now == 0).await;
    until(server.connections(), |connections| connections.now == 0).await;
    let refusal =
        client.subscribe_to(resub::Request::<()>::new("subscription { forever }")).unwrap_err();
    assert!(matches!(refusal, SubscribeError::ShutDown), "{refusal:?}");
}

on_each_pair!(the_connection_is_closed_when_nobody_holds_the_client_or_a_stream_any_more);
async fn the_connection_is_closed_when_nobody_holds_the_client_or_a_stream_any_more(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let mut stream = subscribe(&client, "subscription { forever(everyMs: 5) }");
    drop(client);
    for n in 0..5 {
        assert_eq!(
            item(&mut stream).await,
            json!({ "forever": n }),
            "a stream keeps its client alive"
        );
    }
    drop(stream);
    until(server.streams(), |streams| streams.now == 0).await;
    until(server.connections(), |connections| connections.now == 0).await;
}

/// juniper drops a client that has sent no protocol `ping` for 15 seconds; its seconds are what
/// this test waits by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_default_options_outlives_junipers_dead_man_switch_whether_items_come_or_not()
{
    let outlives = async |pair: Pair, every_ms: u32, items: usize| {
        let server = pair.start();
        let client =
            resub::Client::builder(server.url()).subprotocol(pair.subprotocol).build().unwrap();
        let mut clock =
            subscribe(&client, &format!("subscription {{ forever(everyMs: {every_ms}) }}"));
        for n in 0..items {
            assert_eq!(item(&mut clock).await, json!({ "forever": n }), "{pair:?}");
        }
        until_open(&mut client.status()).await;
        assert_eq!(server.connections().borrow().ever, 1, "{pair:?}");
        client.stats()
    };
    let (modern, legacy) = (Pair::modern(Server::Juniper), Pair::legacy(Server::Juniper));
    // 17 seconds each: one item a second, and nothing but the heartbeat.
    let (busy, quiet, _, _) = tokio::join!(
        outlives(modern, 1_000, 18),
        outlives(modern, 17_000, 2),
        outlives(legacy, 1_000, 18),
        outlives(legacy, 17_000, 2),
    );
    for stats in [busy, quiet] {
        assert!(stats.round_trip_time.is_some(), "no ping was answered: {stats:?}");
    }
}
