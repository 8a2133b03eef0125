//! A snapshot, then what is newer: nothing is lost between the two, and nothing comes twice.

mod failures;
mod races;

use futures::stream::FusedStream;
use resub::{CallError, Overflow, SnapshotError, SnapshotStream, SubscriptionBuilder, Synced};

use super::*;

type Stream = SnapshotStream<Value, Value>;

/// What is queried and what is published is the number of the last change.
fn synced(client: &Client, stream: Subscription<Value>) -> Stream {
    let client = client.clone();
    stream.with_snapshot(
        move || client.query_with(Request::<Value>::new("query q { q }")).timeout(secs(20)),
        Value::as_i64,
        |version, item| item.as_i64() > *version,
    )
}

fn options(client: &Client) -> SubscriptionBuilder<Request<Value>> {
    client.subscription_to(request("a"))
}

/// A stream whose subscription the server has read, but which was not polled yet.
async fn begun(server: &Server) -> (Client, Stream, Peer, String) {
    let (client, stream, peer, id) = live(server).await;
    let stream = synced(&client, stream);
    (client, stream, peer, id)
}

/// The next of the stream, which a server is needed for that answers pings.
async fn next(stream: &mut Stream) -> Option<Result<Synced<Value, Value>, SnapshotError>> {
    woken(stream.next()).await
}

async fn snapshot(stream: &mut Stream) -> Value {
    match next(stream).await {
        Some(Ok(Synced::Snapshot(Response { data: Some(data), .. }))) => data,
        other => panic!("a snapshot was expected, not {other:?}"),
    }
}

async fn live_item(stream: &mut Stream) -> Value {
    match next(stream).await {
        Some(Ok(Synced::Live(Event::Next(Response { data: Some(data), .. })))) => data,
        other => panic!("an item was expected, not {other:?}"),
    }
}

async fn live_gap(stream: &mut Stream) -> Gap {
    match next(stream).await {
        Some(Ok(Synced::Live(Event::Gap(gap)))) => gap,
        other => panic!("a gap was expected, not {other:?}"),
    }
}

async fn failure(stream: &mut Stream) -> SnapshotError {
    match next(stream).await {
        Some(Err(error)) if !error.is_terminal() => error,
        other => panic!("an error that does not end it was expected, not {other:?}"),
    }
}

/// The end, with its cause.
async fn over(stream: &mut Stream) -> SubscriptionError {
    let error = match next(stream).await {
        Some(Err(SnapshotError::Subscription(error))) if error.is_terminal() => error,
        other => panic!("the end was expected, not {other:?}"),
    };
    assert!(stream.is_terminated());
    assert!(next(stream).await.is_none());
    error
}

/// Runs the client until it is idle, while the server answers pings.
async fn poll(stream: &mut Stream, peer: &mut Peer) {
    let nothing = timeout(Duration::from_millis(1), peer.serve_while(stream.next())).await;
    assert!(nothing.is_err(), "nothing was expected, not {nothing:?}");
}

/// As [`queried`], of a subscription that has begun: an item has shown so.
async fn queried_late(stream: &mut Stream, peer: &mut Peer, id: &str) -> String {
    peer.next(id, data(0)).await;
    queried(stream, peer).await
}

/// The query that runs once the subscription is established.
async fn queried(stream: &mut Stream, peer: &mut Peer) -> String {
    poll(stream, peer).await;
    let query = peer.expect_subscribe().await;
    assert!(query.query.starts_with("query"), "{query:?}");
    query.id
}

#[tokio::test(start_paused = true)]
async fn the_query_is_not_sent_before_the_server_has_read_the_subscription() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = begun(&server).await;
    peer.auto_pong(false);
    assert!(timeout(secs(1), stream.next()).await.is_err());
    peer.expect_ping().await;
    peer.expect_nothing_for(Duration::from_millis(1)).await;
    peer.next(&id, data(1)).await;
    assert!(timeout(secs(1), stream.next()).await.is_err());
    let query = peer.expect_subscribe().await;
    peer.next(&query.id, data(1)).await;
    assert_eq!(snapshot(&mut stream).await, 1);
}

/// The server had read the subscription, and begun it only after the query.
#[tokio::test(start_paused = true)]
async fn the_query_runs_once_more_at_the_first_item_if_none_came_before_it() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = begun(&server).await;
    let query = queried(&mut stream, &mut peer).await;
    peer.next(&query, data(1)).await;
    assert_eq!(snapshot(&mut stream).await, 1);
    poll(&mut stream, &mut peer).await;
    peer.next(&id, data(3)).await;
    let query = queried(&mut stream, &mut peer).await;
    peer.next(&query, data(3)).await;
    assert_eq!(snapshot(&mut stream).await, 3, "2 was nowhere");
    for version in 4..=6 {
        peer.next(&id, data(version)).await;
        assert_eq!(live_item(&mut stream).await, version);
    }
    drop(stream);
    assert_eq!(peer.expect_complete().await, id);
    assert_eq!(client.stats().queued_items, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_is_a_gap_and_a_new_snapshot_before_any_other_item() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = begun(&server).await;
    let query = queried_late(&mut stream, &mut peer, &id).await;
    peer.next(&query, data(1)).await;
    assert_eq!(snapshot(&mut stream).await, 1);
    peer.next(&id, data(2)).await;
    assert_eq!(live_item(&mut stream).await, 2);
    peer.vanish();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    assert_eq!(live_gap(&mut stream).await.reconnects, 1);
    peer.next(&id, data(8)).await;
    peer.next(&id, data(9)).await;
    let query = queried(&mut stream, &mut peer).await;
    peer.next(&query, data(8)).await;
    assert_eq!(snapshot(&mut stream).await, 8);
    assert_eq!(live_item(&mut stream).await, 9);
    assert_eq!(client.stats().queued_items, 0);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_was_bridged_needs_no_snapshot() {
    let server = Server::in_memory();
    let client = client(&server);
    let resumed =
        options(&client).resume_with(|last, variables| *variables = json!({ "after": last }));
    let mut stream = synced(&client, resumed.start().unwrap());
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    let query = queried_late(&mut stream, &mut peer, &id).await;
    peer.next(&query, data(1)).await;
    assert_eq!(snapshot(&mut stream).await, 1);
    peer.next(&id, data(2)).await;
    assert_eq!(live_item(&mut stream).await, 2);
    peer.vanish();
    let mut peer = connected(&server).await;
    let again = peer.expect_subscribe().await;
    assert_eq!(again.variables, json!({"after": 2}));
    assert!(live_gap(&mut stream).await.is_lossless());
    peer.next(&again.id, data(3)).await;
    assert_eq!(live_item(&mut stream).await, 3);
    poll(&mut stream, &mut peer).await;
    peer.expect_nothing_for(secs(25)).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_while_the_query_runs_costs_another_query() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = begun(&server).await;
    peer.next(&id, data(1)).await;
    queried(&mut stream, &mut peer).await;
    peer.vanish();
    let connecting = async {
        let mut peer = connected(&server).await;
        let both = peer.expect_subscribes(2).await;
        // It was sent again behind the subscription, so it is not older than what follows; but
        // nobody has proven that.
        peer.next(&both[1].id, data(5)).await;
        peer.next(&both[0].id, data(6)).await;
        (peer, both[0].id.clone())
    };
    let (first, (mut peer, id)) = futures::join!(snapshot(&mut stream), connecting);
    assert_eq!(first, 5);
    assert_eq!(live_gap(&mut stream).await.reconnects, 1);
    let query = queried(&mut stream, &mut peer).await;
    peer.next(&query, data(6)).await;
    peer.next(&id, data(7)).await;
    assert_eq!(snapshot(&mut stream).await, 6);
    assert_eq!(live_item(&mut stream).await, 7);
}

#[tokio::test(start_paused = true)]
async fn what_the_queue_does_not_hold_while_the_query_runs_leads_to_another_snapshot() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block] {
        let server = Server::in_memory();
        let client = client(&server);
        let subscription = options(&client).overflow(overflow).capacity(items(2)).start().unwrap();
        let mut stream = synced(&client, subscription);
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        let query = queried(&mut stream, &mut peer).await;
        for version in 1..=20 {
            peer.next(&id, data(version)).await;
        }
        peer.next(&query, data(0)).await;
        assert_eq!(peer.serve_while(snapshot(&mut stream)).await, 0, "{overflow:?}");
        let mut dropped = 0;
        let mut seen = 0;
        let mut again = loop {
            match timeout(Duration::from_millis(1), peer.serve_while(stream.next())).await {
                Ok(Some(Ok(Synced::Live(Event::Gap(gap))))) => dropped += gap.dropped,
                Ok(Some(Ok(Synced::Live(Event::Next(_))))) if dropped == 0 => seen += 1,
                Ok(other) => panic!("{overflow:?}: {other:?}"),
                Err(_) => break peer.expect_subscribe().await.id,
            }
        };
        loop {
            peer.next(&again, data(20)).await;
            assert_eq!(peer.serve_while(snapshot(&mut stream)).await, 20);
            peer.next(&id, data(21)).await;
            match next(&mut stream).await {
                Some(Ok(Synced::Live(Event::Next(item)))) => {
                    break assert_eq!(item.data, Some(json!(21)));
                }
                // A gap behind what was kept.
                Some(Ok(Synced::Live(Event::Gap(gap)))) => dropped += gap.dropped,
                other => panic!("{overflow:?}: {other:?}"),
            }
            again = queried(&mut stream, &mut peer).await;
        }
        assert_eq!(client.stats().dropped, dropped, "{overflow:?}: every loss is counted in a gap");
        assert!(dropped >= 17 && seen <= 2, "{overflow:?}: {dropped} {seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rewound_subscription_goes_on_behind_the_snapshot() {
    let server = Server::in_memory();
    let client = client(&server);
    let resumed =
        options(&client).resume_with(|last, variables| *variables = json!({ "after": last }));
    let rewound = resumed.overflow(Overflow::Rewind).capacity(items(3)).start().unwrap();
    let mut stream = synced(&client, rewound);
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    let query = queried_late(&mut stream, &mut peer, &id).await;
    for version in 1..=3 {
        peer.next(&id, data(version)).await;
    }
    assert_eq!(peer.expect_complete().await, id);
    peer.next(&query, data(1)).await;
    assert_eq!(snapshot(&mut stream).await, 1);
    assert_eq!(live_item(&mut stream).await, 2);
    assert_eq!(live_item(&mut stream).await, 3);
    assert!(live_gap(&mut stream).await.is_lossless());
    let again = peer.expect_subscribe().await;
    assert_eq!(again.variables, json!({"after": 3}));
    peer.next(&again.id, data(4)).await;
    assert_eq!(live_item(&mut stream).await, 4);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_cancels_the_subscription_and_the_query_in_every_state() {
    // Not established; then the query runs; then it failed; then live.
    for state in 0..4 {
        let server = Server::in_memory();
        let (client, mut stream, mut peer, id) = begun(&server).await;
        let mut open = vec![id];
        if state > 0 {
            let query = queried(&mut stream, &mut peer).await;
            match state {
                1 => open.push(query),
                2 => {
                    peer.error(&query, json!([])).await;
                    failure(&mut stream).await;
                }
                _ => {
                    peer.next(&query, data(0)).await;
                    snapshot(&mut stream).await;
                }
            }
        }
        drop(stream);
        let mut completed = Vec::new();
        for _ in 0..open.len() {
            completed.push(peer.expect_complete().await);
        }
        completed.sort();
        assert_eq!(completed, open, "state {state}");
        assert_eq!(client.stats().live_operations, 0);
        peer.expect_nothing_for(secs(25)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_position_is_passed_on() {
    let server = Server::in_memory();
    let client = client(&server);
    let subscription = client.subscribe_to(Request::<i64>::new("subscription { a }")).unwrap();
    let queries = client.clone();
    let mut stream = subscription.with_snapshot(
        move || queries.query_with(Request::<i64>::new("{ q }")),
        |version| *version,
        |version, item| item > version,
    );
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(0)).await;
    assert!(timeout(secs(1), peer.serve_while(stream.next())).await.is_err());
    let query = peer.expect_subscribe().await.id;
    peer.next(&query, json!({"data": 5, "errors": [{"message": "a field has failed"}]})).await;
    for payload in
        [data(5), json!({"data": null, "errors": [{"message": "why"}]}), data("odd"), data(6)]
    {
        peer.next(&id, payload).await;
    }
    let read = stream.next().await;
    assert!(
        matches!(&read, Some(Ok(Synced::Snapshot(Response { errors, .. }))) if errors.len() == 1),
        "{read:?}"
    );
    let read = stream.next().await;
    assert!(
        matches!(&read, Some(Ok(Synced::Live(Event::Next(Response { data: None, .. }))))),
        "{read:?}"
    );
    let read = stream.next().await;
    let Some(Err(error @ SnapshotError::Subscription(SubscriptionError::Decode(_)))) = read else {
        panic!("{read:?}")
    };
    assert!(!error.is_terminal());
    let read = stream.next().await;
    assert!(
        matches!(&read, Some(Ok(Synced::Live(Event::Next(Response { data: Some(6), .. }))))),
        "{read:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn values_that_newer_ones_replaced_lead_to_no_other_snapshot() {
    let server = Server::in_memory();
    let client = client(&server);
    let subscription = options(&client).overflow(Overflow::Latest).start().unwrap();
    let mut stream = synced(&client, subscription);
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(1)).await;
    let query = queried(&mut stream, &mut peer).await;
    for version in 2..=20 {
        peer.next(&id, data(version)).await;
    }
    peer.next(&query, data(3)).await;
    assert_eq!(peer.serve_while(snapshot(&mut stream)).await, 3);
    let gap = live_gap(&mut stream).await;
    assert_eq!((gap.dropped, gap.replaced, gap.is_lossless()), (19, 19, true));
    assert_eq!(live_item(&mut stream).await, 20);
    peer.expect_nothing_for(secs(5)).await;
}
