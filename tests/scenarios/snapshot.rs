//! A snapshot, then what is newer: nothing is lost between the two, and nothing comes twice.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use futures::stream::FusedStream;
use resub::{CallError, Overflow, SnapshotError, SnapshotStream, SubscriptionBuilder, Synced};

use super::*;

type Stream = SnapshotStream<Value, Value>;

/// What is queried and what is published is the number of the last change.
fn synced(client: &Client, stream: Subscription<Value>) -> Stream {
    let client = client.clone();
    stream.with_snapshot(
        move || client.query_with(Request::<Value>::new("query q { q }")).timeout(secs(20)),
        |snapshot| snapshot.as_i64(),
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
    timeout(secs(3_600), stream.next()).await.expect("the stream is stuck")
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

/// The query that runs once the subscription is established.
async fn queried(stream: &mut Stream, peer: &mut Peer) -> String {
    poll(stream, peer).await;
    let query = peer.expect_subscribe().await;
    assert!(query.query.starts_with("query"), "{query:?}");
    query.id
}

/// What the server does, in order; what is published may fall anywhere between.
const STEPS: [&str; 4] = ["reads the subscription", "answers the ping", "runs the query", "answers the query"];

#[tokio::test(start_paused = true)]
async fn an_event_is_in_the_snapshot_or_behind_it_whenever_it_is_published() {
    // Three events, each before one of the steps or after all of them, which are delivered at once or only at the end.
    for case in 0..2 * 5_usize.pow(3) {
        let is_late = case % 2 == 1;
        let mut events: Vec<_> = (0..3).map(|n| case / 2 / 5_usize.pow(n) % 5).collect();
        events.sort_unstable();
        let server = Server::in_memory();
        let client = client(&server);
        let mut stream = synced(&client, subscribe(&client, "a"));
        let mut peer = connected(&server).await;
        peer.auto_pong(false);
        let (mut version, mut id, mut query, mut answer) = (0, None, None, 0);
        let mut undelivered = Vec::new();
        let mut read = Vec::new();
        for step in 0..=STEPS.len() {
            for _ in events.iter().filter(|at| **at == step) {
                version += 1;
                if id.is_some() {
                    undelivered.push(version);
                }
            }
            if !is_late {
                for version in undelivered.drain(..) {
                    peer.next(id.as_deref().unwrap(), data(version)).await;
                }
            }
            match step {
                0 => id = Some(peer.expect_subscribe().await.id),
                1 => {
                    // An item that was faster has established it.
                    peer.expect_ping().await;
                    peer.pong(None).await;
                }
                2 => {
                    query = Some(queried(&mut stream, &mut peer).await);
                    answer = version;
                }
                3 => peer.next(query.as_deref().unwrap(), data(answer)).await,
                _ => {
                    for version in undelivered.drain(..) {
                        peer.next(id.as_deref().unwrap(), data(version)).await;
                    }
                }
            }
        }
        read.push(snapshot(&mut stream).await);
        assert_eq!(read[0], answer, "{events:?}");
        for expected in answer + 1..=version {
            assert_eq!(live_item(&mut stream).await, expected, "{events:?}, late: {is_late}");
        }
        poll(&mut stream, &mut peer).await;
    }
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

#[tokio::test(start_paused = true)]
async fn a_reconnect_is_a_gap_and_a_new_snapshot_before_any_other_item() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = begun(&server).await;
    let query = queried(&mut stream, &mut peer).await;
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
    let resumed = options(&client).resume_with(|last, variables| *variables = json!({ "after": last }));
    let mut stream = synced(&client, resumed.start().unwrap());
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    let query = queried(&mut stream, &mut peer).await;
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
    peer.expect_nothing_for(secs(60)).await;
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
        // It was sent again behind the subscription, so it is not older than what follows; but nobody has proven that.
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
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Latest, Overflow::Block] {
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
                Some(Ok(Synced::Live(Event::Next(item)))) => break assert_eq!(item.data, Some(json!(21))),
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
    let resumed = options(&client).resume_with(|last, variables| *variables = json!({ "after": last }));
    let rewound = resumed.overflow(Overflow::Rewind).capacity(items(2)).start().unwrap();
    let mut stream = synced(&client, rewound);
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    let query = queried(&mut stream, &mut peer).await;
    for version in 1..=3 {
        peer.next(&id, data(version)).await;
    }
    assert_eq!(peer.expect_complete().await, id);
    peer.next(&query, data(1)).await;
    assert_eq!(snapshot(&mut stream).await, 1);
    assert_eq!(live_item(&mut stream).await, 2);
    assert!(live_gap(&mut stream).await.is_lossless());
    let again = peer.expect_subscribe().await;
    assert_eq!(again.variables, json!({"after": 2}));
    peer.next(&again.id, data(3)).await;
    assert_eq!(live_item(&mut stream).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_fails_is_an_error_and_is_tried_again_with_growing_delays() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = begun(&server).await;
    peer.next(&id, data(1)).await;
    let query = queried(&mut stream, &mut peer).await;
    peer.error(&query, json!([{"message": "busy"}])).await;
    let error = failure(&mut stream).await;
    assert_eq!(text(&error), "the snapshot could not be queried: the server rejected the operation: busy");

    let begun = Instant::now();
    let query = async {
        let query = peer.expect_subscribe().await.id;
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_millis(500), "{waited:?}");
        peer.next(&query, json!({"data": null, "errors": [{"message": "no book"}]})).await;
    };
    let (error, ()) = futures::join!(failure(&mut stream), query);
    assert_eq!(text(&error), "the snapshot has no data: no book");

    let error = peer.serve_while(failure(&mut stream)).await;
    assert!(matches!(error, SnapshotError::Query(CallError::Timeout(_))), "{error:?}");
    let unanswered = peer.expect_subscribe().await.id;
    assert_eq!(peer.expect_complete().await, unanswered);

    // What has arrived all the while is not lost.
    let query = async {
        let query = peer.expect_subscribe().await.id;
        peer.next(&query, data(0)).await;
    };
    let (first, ()) = futures::join!(snapshot(&mut stream), query);
    assert_eq!(first, 0);
    assert_eq!(live_item(&mut stream).await, 1);
    assert_eq!(client.stats().connections, 1);
}

/// Rejects the query. Returns after how long it is sent again.
async fn rejected(stream: &mut Stream, peer: &mut Peer, query: &str) -> (Duration, String) {
    peer.error(query, json!([])).await;
    failure(stream).await;
    let begun = Instant::now();
    tokio::select! {
        synced = stream.next() => panic!("{synced:?}"),
        subscribe = peer.expect_subscribe() => (begun.elapsed(), subscribe.id),
    }
}

#[tokio::test(start_paused = true)]
async fn delays_grow_and_start_over_after_a_snapshot() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, _) = begun(&server).await;
    let mut query = queried(&mut stream, &mut peer).await;
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        let (delay, next) = rejected(&mut stream, &mut peer, &query).await;
        assert!(delay >= Duration::from_millis(500) && delay < secs(31), "{delay:?}");
        (query, longest) = (next, longest.max(delay));
    }
    assert!(longest > secs(5), "{longest:?}");
    peer.next(&query, data(1)).await;
    assert_eq!(snapshot(&mut stream).await, 1);
    peer.vanish();
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    live_gap(&mut stream).await;
    let query = queried(&mut stream, &mut peer).await;
    let (delay, _) = rejected(&mut stream, &mut peer, &query).await;
    assert!(delay < Duration::from_millis(1_510), "{delay:?}");
}

#[tokio::test(start_paused = true)]
async fn streams_whose_queries_fail_at_once_do_not_try_again_at_once() {
    let server = Server::in_memory();
    let (client, mut first, mut peer, _) = begun(&server).await;
    let mut second = synced(&client, subscribe(&client, "a"));
    peer.expect_subscribe().await;
    let queries = [queried(&mut first, &mut peer).await, queried(&mut second, &mut peer).await];
    for query in queries {
        peer.error(&query, json!([])).await;
    }
    let again = |stream: Stream| async move {
        let mut stream = stream;
        failure(&mut stream).await;
        stream.next().await;
    };
    let _both = [first, second].map(again).map(tokio::spawn);
    peer.expect_subscribe().await;
    peer.expect_nothing_for(Duration::from_millis(1)).await;
    peer.expect_subscribe().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_ends_with_an_error_ends_the_stream_in_every_state() {
    // Not established yet.
    let servers = [(); 4].map(|()| Server::in_memory());
    let (_client, mut stream, mut peer, id) = begun(&servers[0]).await;
    peer.auto_pong(false);
    peer.error(&id, json!([{"message": "no"}])).await;
    assert!(matches!(over(&mut stream).await, SubscriptionError::Rejected(_)));

    // The query runs; its result would not be worth much.
    let (_client, mut stream, mut peer, id) = begun(&servers[1]).await;
    let query = queried(&mut stream, &mut peer).await;
    peer.next(&id, data(1)).await;
    peer.error(&id, json!([{"message": "no"}])).await;
    assert!(matches!(over(&mut stream).await, SubscriptionError::Rejected(_)));
    drop(stream);
    assert_eq!(peer.expect_complete().await, query);

    // The query is to be tried again.
    let (client, mut stream, mut peer, _) = begun(&servers[2]).await;
    let query = queried(&mut stream, &mut peer).await;
    peer.error(&query, json!([])).await;
    failure(&mut stream).await;
    let shutdown = tokio::spawn(client.shutdown(secs(1)));
    assert!(matches!(over(&mut stream).await, SubscriptionError::ShutDown));
    drop(peer);
    shutdown.await.unwrap();

    // Live.
    let (_client, mut stream, mut peer, id) = begun(&servers[3]).await;
    let query = queried(&mut stream, &mut peer).await;
    peer.next(&query, data(0)).await;
    snapshot(&mut stream).await;
    peer.next(&id, data(1)).await;
    peer.error(&id, json!([{"message": "no"}])).await;
    assert_eq!(live_item(&mut stream).await, 1);
    assert!(matches!(over(&mut stream).await, SubscriptionError::Rejected(_)));
}

#[tokio::test(start_paused = true)]
async fn a_completed_subscription_still_gets_its_snapshot_and_what_it_holds() {
    for is_early in [true, false] {
        let server = Server::in_memory();
        let (_client, mut stream, mut peer, id) = begun(&server).await;
        let mut query = None;
        if !is_early {
            query = Some(queried(&mut stream, &mut peer).await);
        }
        for version in 1..=2 {
            peer.next(&id, data(version)).await;
        }
        peer.complete(&id).await;
        let query = match query {
            Some(query) => query,
            None => queried(&mut stream, &mut peer).await,
        };
        peer.next(&query, data(1)).await;
        assert_eq!(snapshot(&mut stream).await, 1);
        assert_eq!(live_item(&mut stream).await, 2);
        assert!(next(&mut stream).await.is_none() && stream.is_terminated());
    }
}

#[tokio::test(start_paused = true)]
async fn a_completed_subscription_whose_snapshot_fails_ends_with_what_it_held_in_a_gap() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = begun(&server).await;
    let query = queried(&mut stream, &mut peer).await;
    peer.error(&query, json!([])).await;
    failure(&mut stream).await;
    for version in 1..=2 {
        peer.next(&id, data(version)).await;
    }
    peer.complete(&id).await;
    let begun = Instant::now();
    for expected in [2, 0] {
        let query = queried(&mut stream, &mut peer).await;
        assert!(begun.elapsed() < Duration::from_millis(500), "there is nothing to wait for");
        peer.error(&query, json!([])).await;
        failure(&mut stream).await;
        if expected > 0 {
            assert_eq!(live_gap(&mut stream).await.dropped, expected);
        }
    }
    assert!(next(&mut stream).await.is_none() && stream.is_terminated());
    assert_eq!((client.stats().dropped, client.stats().queued_items), (2, 0));
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
        peer.expect_nothing_for(secs(60)).await;
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
    assert!(timeout(secs(1), peer.serve_while(stream.next())).await.is_err());
    let query = peer.expect_subscribe().await.id;
    peer.next(&query, json!({"data": 5, "errors": [{"message": "a field has failed"}]})).await;
    for payload in [data(5), json!({"data": null, "errors": [{"message": "why"}]}), data("odd"), data(6)] {
        peer.next(&id, payload).await;
    }
    let read = stream.next().await;
    assert!(matches!(&read, Some(Ok(Synced::Snapshot(Response { errors, .. }))) if errors.len() == 1), "{read:?}");
    let read = stream.next().await;
    assert!(matches!(&read, Some(Ok(Synced::Live(Event::Next(Response { data: None, .. }))))), "{read:?}");
    let read = stream.next().await;
    let Some(Err(error @ SnapshotError::Subscription(SubscriptionError::Decode(_)))) = read else { panic!("{read:?}") };
    assert!(!error.is_terminal());
    let read = stream.next().await;
    assert!(matches!(&read, Some(Ok(Synced::Live(Event::Next(Response { data: Some(6), .. }))))), "{read:?}");
}

/// As a subscription can be read on any executor.
#[tokio::test(start_paused = true)]
async fn a_query_can_be_tried_again_where_there_is_no_runtime() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, _) = begun(&server).await;
    let query = queried(&mut stream, &mut peer).await;
    peer.error(&query, json!([])).await;
    settle().await;
    let read = std::thread::spawn(move || {
        futures::executor::block_on(async move {
            let failed = stream.next().await;
            let pending = futures::FutureExt::now_or_never(stream.next()).is_none();
            (matches!(failed, Some(Err(SnapshotError::Query(_)))), pending)
        })
    });
    assert_eq!(read.join().expect("it does not panic"), (true, true));
}

/// A server that is cut off at random, fails at random and takes its time; and a reader that applies what it gets.
#[tokio::test(start_paused = true)]
async fn whatever_happens_a_reader_that_applies_everything_ends_with_what_the_server_has() {
    let (snapshots, gaps) = (Arc::new(AtomicU32::new(0)), Cell::new(0));
    for seed in 0..100 {
        let server = Server::in_memory();
        let client = builder(&server).seed(seed).build().unwrap();
        let overflow =
            [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block][usize::try_from(seed % 3).unwrap()];
        let subscription = options(&client).overflow(overflow).capacity(items(8)).start().unwrap();
        let mut stream = synced(&client, subscription);
        let version = Cell::new(0);
        let snapshots = Arc::clone(&snapshots);
        let read = async {
            let (mut state, mut is_sound) = (None, false);
            while let Some(synced) = next(&mut stream).await {
                match synced {
                    Ok(Synced::Snapshot(response)) => {
                        snapshots.fetch_add(1, Relaxed);
                        state = response.data.unwrap().as_i64();
                        is_sound = true;
                    }
                    Ok(Synced::Live(Event::Next(response))) => {
                        assert!(is_sound, "seed {seed}: an item before its snapshot");
                        let item = response.data.unwrap().as_i64();
                        assert_eq!(item, state.map(|state| state + 1), "seed {seed}: each is the next");
                        state = item;
                    }
                    Ok(Synced::Live(Event::Gap(gap))) => {
                        gaps.set(gaps.get() + 1);
                        is_sound &= gap.is_lossless();
                    }
                    Err(error) if !error.is_terminal() => is_sound = false,
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            (state, is_sound)
        };
        let serve = async {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut steps = 0;
            loop {
                let mut peer = connected(&server).await;
                let (mut id, mut queries) = (None, Vec::new());
                loop {
                    steps += 1;
                    let is_calm = steps > 300;
                    let read = timeout(Duration::from_millis(random.u64(0..100)), peer.serve_pings()).await;
                    match read {
                        Ok(None) => break,
                        Ok(Some(message)) => {
                            let wire_id = message["id"].as_str().unwrap().to_owned();
                            let document = message["payload"]["query"].as_str().unwrap_or_default();
                            if document.starts_with("subscription") {
                                id = Some(wire_id);
                            } else if document.starts_with("query") {
                                queries.push((wire_id, version.get()));
                            } else {
                                queries.retain(|(open, _)| *open != wire_id);
                            }
                        }
                        Err(_) if !queries.is_empty() && (is_calm || random.u32(0..6) == 0) => {
                            let (query, answer) = queries.remove(0);
                            match random.u32(0..8) {
                                0 if !is_calm => peer.error(&query, json!([])).await,
                                1 if !is_calm => peer.next(&query, json!({"data": null})).await,
                                _ => peer.next(&query, data(answer)).await,
                            }
                        }
                        Err(_) if is_calm => {
                            if let (Some(id), true) = (&id, steps > 2_000) {
                                peer.complete(id).await;
                                let _ = peer.serve_pings().await;
                            }
                        }
                        Err(_) if random.u32(0..40) == 0 => {
                            peer.vanish();
                            break;
                        }
                        Err(_) => {
                            for _ in 0..random.u32(1..4) {
                                version.set(version.get() + 1);
                                if let Some(id) = &id {
                                    peer.next(id, data(version.get())).await;
                                }
                            }
                        }
                    }
                }
            }
        };
        tokio::select! {
            (state, is_sound) = read => assert_eq!((state, is_sound), (Some(version.get()), true), "seed {seed}"),
            () = serve => unreachable!("it serves for ever"),
        }
    }
    assert!(snapshots.load(Relaxed) > 300 && gaps.get() > 200, "{snapshots:?} {gaps:?}");
}
