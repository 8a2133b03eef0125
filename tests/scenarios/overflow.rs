//! A slow reader: bounds, the overflow policies, and who waits for whom.

use resub::Overflow;

use super::*;

/// A client with one live subscription under this policy, holding up to `capacity` items.
async fn bounded(
    server: &Server,
    overflow: Overflow,
    capacity: usize,
) -> (Client, Subscription<Value>, Peer, String) {
    let client = client(server);
    let stream = client
        .subscription_to(request("a"))
        .overflow(overflow)
        .capacity(items(capacity))
        .start()
        .unwrap();
    let mut peer = connected(server).await;
    let id = peer.expect_subscribe().await.id;
    (client, stream, peer, id)
}

#[tokio::test(start_paused = true)]
async fn drop_oldest_counts_what_was_dropped_before_what_is_kept() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = bounded(&server, Overflow::DropOldest, 3).await;
    for n in 0..10 {
        peer.next(&id, data(n)).await;
    }
    peer.sync().await;
    let dropped = gap(&mut stream).await;
    assert_eq!((dropped.dropped, dropped.replaced, dropped.is_lossless()), (7, 0, false));
    for n in 7..10 {
        assert_eq!(item(&mut stream).await, n);
    }
}

#[tokio::test(start_paused = true)]
async fn drop_newest_counts_what_was_dropped_after_what_is_kept() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = bounded(&server, Overflow::DropNewest, 3).await;
    for n in 0..10 {
        peer.next(&id, data(n)).await;
    }
    peer.sync().await;
    for n in 0..3 {
        assert_eq!(item(&mut stream).await, n);
    }
    assert_eq!(gap(&mut stream).await.dropped, 7);
}

#[tokio::test(start_paused = true)]
async fn latest_keeps_only_the_newest() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = bounded(&server, Overflow::Latest, 100).await;
    for n in 0..10 {
        peer.next(&id, data(n)).await;
    }
    peer.sync().await;
    let replaced = gap(&mut stream).await;
    assert_eq!((replaced.dropped, replaced.replaced), (9, 9));
    assert_eq!(item(&mut stream).await, 9);
}

#[tokio::test(start_paused = true)]
async fn fail_ends_the_stream_after_what_it_holds_and_cancels_on_the_server() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = bounded(&server, Overflow::Fail, 3).await;
    for n in 0..10 {
        peer.next(&id, data(n)).await;
    }
    assert_eq!(peer.expect_complete().await, id);
    for n in 0..3 {
        assert_eq!(item(&mut stream).await, n);
    }
    assert!(matches!(end(&mut stream).await, SubscriptionError::Overflow));
    drop(stream);
    peer.sync().await;
    assert_eq!((client.stats().live_operations, client.stats().queued_items), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn block_loses_nothing_stalls_its_siblings_and_outlives_the_liveness_deadline() {
    let server = Server::in_memory();
    let (client, mut slow, mut peer, slow_id) = bounded(&server, Overflow::Block, 3).await;
    let mut sibling = subscribe(&client, "b");
    let sibling_id = peer.expect_subscribe().await.id;
    for n in 0..10 {
        peer.next(&slow_id, data(n)).await;
    }
    peer.next(&sibling_id, data("late")).await;
    assert!(
        timeout(secs(5), peer.serve_while(sibling.next())).await.is_err(),
        "documented: it stalls its siblings"
    );
    // Pings go unanswered, as nothing is read; that is no reason to give the connection up.
    assert!(timeout(secs(600), peer.serve_while(sibling.next())).await.is_err());
    for n in 0..10 {
        assert_eq!(peer.serve_while(item(&mut slow)).await, n);
    }
    assert_eq!(peer.serve_while(item(&mut sibling)).await, "late");
    assert_eq!((client.stats().dropped, client.stats().connections), (0, 1));
    // Reading again, the deadline counts again.
    let _silence = peer.go_silent();
    until(&client, |status| matches!(status, Status::Waiting { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn block_lets_go_when_the_reader_does() {
    let server = Server::in_memory();
    let (client, slow, mut peer, slow_id) = bounded(&server, Overflow::Block, 1).await;
    let mut sibling = subscribe(&client, "b");
    let sibling_id = peer.expect_subscribe().await.id;
    for n in 0..10 {
        peer.next(&slow_id, data(n)).await;
    }
    peer.next(&sibling_id, data(1)).await;
    drop(slow);
    assert_eq!(item(&mut sibling).await, 1);
    assert_eq!(peer.expect_complete().await, slow_id);
}

#[tokio::test(start_paused = true)]
async fn a_blocked_client_that_loses_its_connection_loses_nothing_that_had_arrived() {
    let server = Server::in_memory();
    let (client, mut slow, mut peer, mut id) = bounded(&server, Overflow::Block, 2).await;
    for round in 0..5 {
        for n in 0..10 {
            peer.next(&id, data(round * 10 + n)).await;
        }
        settle().await;
        assert_eq!(client.stats().queued_items, 2, "the rest waits in the socket");
        peer.vanish();
        for n in 0..10 {
            assert_eq!(item(&mut slow).await, round * 10 + n);
        }
        peer = connected(&server).await;
        id = peer.expect_subscribe().await.id;
        assert_eq!(gap(&mut slow).await.reconnects, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_too() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream =
        client.subscription_to(request("a")).capacity_bytes(items(10_000)).start().unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    let big = "x".repeat(3_000);
    for n in 0..10 {
        peer.next(&id, data(format!("{n}{big}"))).await;
    }
    peer.sync().await;
    assert_eq!(gap(&mut stream).await.dropped, 7);
    assert!(item(&mut stream).await.as_str().unwrap().starts_with('7'));
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_whatever_surrounds_the_payload() {
    let server = Server::in_memory();
    let client = client(&server);
    let _unread =
        client.subscription_to(request("a")).capacity_bytes(items(10_000)).start().unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    let padding = " ".repeat(50_000);
    for n in 0..10 {
        peer.send_text(&format!(
            r#"{{"type":"next","id":"{id}",{padding}"payload":{{"data":{n}}}}}"#
        ))
        .await;
        peer.send_text(&format!(
            r#"{{"payload":{{"data":{n}}},"x":"{padding}","type":"next","id":"{id}"}}"#
        ))
        .await;
    }
    peer.sync().await;
    assert_eq!(client.stats().queued_items, 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_makes_room_wakes_the_driver_and_a_gap_wakes_the_reader() {
    let server = Server::in_memory();
    let client = builder(&server).ping_interval(None).build().unwrap();
    let mut slow = client
        .subscription_to(request("a"))
        .overflow(Overflow::Block)
        .capacity(items(1))
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    for n in 0..5 {
        peer.next(&id, data(n)).await;
    }
    // Every timer is over: nothing else will wake anybody.
    timeout(secs(20), std::future::pending::<()>()).await.unwrap_err();
    for n in 0..5 {
        assert_eq!(timeout(secs(1), item(&mut slow)).await.expect("woken"), n);
    }
    let reader = tokio::spawn(async move { gap(&mut slow).await });
    settle().await;
    peer.vanish();
    connected(&server).await.expect_subscribe().await;
    timeout(secs(1), reader).await.expect("woken").unwrap();
}

#[tokio::test(start_paused = true)]
async fn block_reads_on_as_soon_as_there_is_room_however_the_reader_took_its_items() {
    let server = Server::in_memory();
    let (client, mut slow, mut peer, slow_id) = bounded(&server, Overflow::Block, 16).await;
    let mut sibling = subscribe(&client, "b");
    let sibling_id = peer.expect_subscribe().await.id;
    for n in 0..16 {
        peer.next(&slow_id, data(n)).await;
    }
    for n in 0..16 {
        peer.next(&sibling_id, data(n)).await;
        peer.next(&slow_id, data(16 + n)).await;
    }
    // Each item that is read makes room for the sibling's next one, which comes before the item
    // that fills the queue again.
    for n in 0..16 {
        assert_eq!(peer.serve_while(item(&mut slow)).await, n);
        assert_eq!(peer.serve_while(item(&mut sibling)).await, n);
    }
}

#[tokio::test(start_paused = true)]
async fn fail_ends_no_stream_that_holds_less_than_it_may() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = bounded(&server, Overflow::Fail, 8).await;
    for n in 0..2 {
        peer.next(&id, data(n)).await;
    }
    peer.sync().await;
    for n in 0..2 {
        assert_eq!(item(&mut stream).await, n);
    }
    for n in 2..10 {
        peer.next(&id, data(n)).await;
    }
    peer.sync().await;
    for n in 2..10 {
        assert_eq!(item(&mut stream).await, n);
    }
    peer.complete(&id).await;
    assert!(event(&mut stream).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn block_reads_on_with_every_item_that_is_read() {
    let server = Server::in_memory();
    let (client, mut slow, mut peer, slow_id) = bounded(&server, Overflow::Block, 7).await;
    let mut sibling = subscribe(&client, "b");
    let sibling_id = peer.expect_subscribe().await.id;
    for n in 0..40 {
        peer.next(&slow_id, data(n)).await;
        if n >= 6 {
            peer.next(&sibling_id, data(n - 6)).await;
        }
    }
    // Each place in the queue lets the sibling's next item through, and then an item that takes the
    // place.
    for n in 0..30 {
        assert_eq!(peer.serve_while(item(&mut slow)).await, n);
        assert_eq!(peer.serve_while(item(&mut sibling)).await, n);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_queued_any_more_once_a_reader_went_in_the_middle_of_what_it_took_at_once() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Fail, Overflow::Block] {
        let server = Server::in_memory();
        let (client, mut stream, mut peer, id) = bounded(&server, overflow, 100).await;
        for n in 0..90 {
            peer.next(&id, data(n)).await;
        }
        peer.sync().await;
        for n in 0..7 {
            assert_eq!(item(&mut stream).await, n);
        }
        for n in 90..120 {
            peer.next(&id, data(n)).await;
        }
        settle().await;
        drop(stream);
        settle().await;
        assert_eq!(client.stats().queued_items, 0, "{overflow:?}");
    }
}
