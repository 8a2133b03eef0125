//! Queries that fail, and subscriptions that end.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_query_that_fails_is_an_error_and_is_tried_again_with_growing_delays() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = begun(&server).await;
    peer.next(&id, data(1)).await;
    let query = queried(&mut stream, &mut peer).await;
    peer.error(&query, json!([{"message": "busy"}])).await;
    let error = failure(&mut stream).await;
    assert_eq!(
        text(&error),
        "the snapshot could not be queried: the server rejected the operation: busy"
    );

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
    let query = queried_late(&mut stream, &mut peer, &id).await;
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
            query = Some(queried_late(&mut stream, &mut peer, &id).await);
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

#[tokio::test(start_paused = true)]
async fn a_blocking_subscription_stalls_nobody_while_its_query_is_to_be_tried_again() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut sibling = subscribe(&client, "b");
    let blocking = options(&client).overflow(Overflow::Block).capacity(items(2)).start().unwrap();
    let mut stream = synced(&client, blocking);
    let mut peer = connected(&server).await;
    let ids = peer.expect_subscribes(2).await;
    let query = queried_late(&mut stream, &mut peer, &ids[1].id).await;
    peer.error(&query, json!([])).await;
    failure(&mut stream).await;
    for version in 1..=9 {
        peer.next(&ids[1].id, data(version)).await;
    }
    peer.next(&ids[0].id, data("undisturbed")).await;
    let begun = Instant::now();
    tokio::select! {
        synced = stream.next() => panic!("{synced:?}"),
        item = item(&mut sibling) => assert_eq!(item, "undisturbed"),
    }
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}
