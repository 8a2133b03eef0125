//! Many readers of one operation: the server is asked once, and each gets what it would get alone.

mod ends;
mod readers;

use resub::{Operation, Overflow, Subprotocol, SubscribeError, SubscriptionBuilder};

use super::*;

fn share(client: &Client, name: &str) -> Subscription<Value> {
    client.subscribe_shared_to(request(name)).unwrap()
}

fn options(client: &Client) -> SubscriptionBuilder<Request<Value>> {
    client.subscription_to(request("a")).shared()
}

/// A client, so many readers of one operation, and the peer that has it.
async fn shared(
    server: &Server,
    readers: usize,
) -> (Client, Vec<Subscription<Value>>, Peer, String) {
    let client = client(server);
    let readers = (0..readers).map(|_| share(&client, "a")).collect();
    let mut peer = connected(server).await;
    let id = peer.expect_subscribe().await.id;
    (client, readers, peer, id)
}

/// Items with these numbers, and the client has them.
async fn publish(peer: &mut Peer, id: &str, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        peer.next(id, data(n)).await;
    }
    peer.sync().await;
}

#[tokio::test(start_paused = true)]
async fn equal_subscriptions_are_one_operation_and_every_reader_gets_every_item_in_order() {
    for subprotocol in [Subprotocol::GraphqlTransportWs, Subprotocol::GraphqlWs] {
        let server = Server::in_memory();
        let client = builder(&server).subprotocol(subprotocol).build().unwrap();
        let mut readers: Vec<_> = (0..10).map(|_| share(&client, "a")).collect();
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        readers.extend((0..10).map(|_| share(&client, "a")));
        settle().await;
        peer.expect_nothing_for(secs(1)).await;
        publish(&mut peer, &id, 0..100).await;
        let stats = client.stats();
        assert_eq!((stats.live_operations, stats.items, stats.queued_items), (1, 100, 2_000));
        for reader in &mut readers {
            for n in 0..100 {
                assert_eq!(item(reader).await, n);
            }
        }
        let stats = client.stats();
        assert_eq!((stats.queued_items, stats.dropped), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_differ_and_subscriptions_that_are_not_shared_have_operations_of_their_own() {
    struct Persisted(&'static str);
    impl Operation for Persisted {
        type Data = Value;
        fn payload(&self) -> Result<Box<serde_json::value::RawValue>, serde_json::Error> {
            serde_json::value::to_raw_value(
                &json!({"query": "subscription { a }", "extensions": {"hash": self.0}}),
            )
        }
    }
    let server = Server::in_memory();
    let client = client(&server);
    let with =
        |n: u64| client.subscribe_shared_to(request("a").variables(&json!({"n": n}))).unwrap();
    let named = |name: &str| {
        let both = Request::<Value>::new("subscription A { a } subscription B { b }");
        client.subscribe_shared_to(both.operation_name(name)).unwrap()
    };
    let persisted = |hash| client.subscribe_shared_to(Persisted(hash)).unwrap();
    let all =
        || [share(&client, "a"), share(&client, "b"), with(1), with(2), named("A"), named("B")];
    let first = (all(), [persisted("x"), persisted("y")], subscribe(&client, "a"));
    let again = (all(), [persisted("x"), persisted("y")], subscribe(&client, "a"));
    let mut peer = connected(&server).await;
    assert_eq!(peer.expect_subscribes(10).await.len(), 10);
    peer.expect_nothing_for(secs(1)).await;
    assert_eq!(client.stats().live_operations, 6 + 2 + 2);
    drop((first, again));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_dropped_disturbs_no_other_and_the_last_one_completes_the_operation() {
    let server = Server::in_memory();
    let (client, mut readers, mut peer, id) = shared(&server, 5).await;
    // The one that began it is the first to go.
    for n in 0..4 {
        drop(readers.remove(0));
        peer.next(&id, data(n)).await;
        for reader in &mut readers {
            assert_eq!(item(reader).await, n);
        }
    }
    peer.expect_nothing_for(secs(1)).await;
    drop(readers);
    assert_eq!(peer.expect_complete().await, id);
    assert_eq!((client.stats().live_operations, client.stats().queued_items), (0, 0));
    // What it had is nobody's business any more.
    let mut late = options(&client).replay_last().start().unwrap();
    let anew = peer.expect_subscribe().await.id;
    assert_ne!(anew, id);
    peer.next(&anew, data("new")).await;
    assert_eq!(item(&mut late).await, "new");
}

#[tokio::test(start_paused = true)]
async fn a_late_reader_begins_with_the_next_item_or_with_the_last_one_if_it_asked_for_that() {
    let server = Server::in_memory();
    let (client, _readers, mut peer, id) = shared(&server, 1).await;
    let mut nothing_yet = options(&client).replay_last().start().unwrap();
    publish(&mut peer, &id, 1..=3).await;
    let (mut late, mut replayed) =
        (share(&client, "a"), options(&client).replay_last().start().unwrap());
    settle().await;
    assert_eq!(client.stats().queued_items, 3 + 3 + 1);
    publish(&mut peer, &id, 4..=5).await;
    for (reader, first) in [(&mut nothing_yet, 1), (&mut late, 4), (&mut replayed, 3)] {
        for n in first..=5 {
            assert_eq!(item(reader).await, n);
        }
    }
    assert_eq!(client.stats().queued_items, 5, "of the one that reads nothing");
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_sends_the_operation_once_and_every_reader_sees_one_gap() {
    let server = Server::in_memory();
    let (client, mut readers, mut peer, id) = shared(&server, 3).await;
    publish(&mut peer, &id, [1]).await;
    server.offline();
    peer.vanish();
    until(&client, |status| matches!(status, Status::Waiting { .. })).await;
    // One that joins meanwhile misses what is published meanwhile, too.
    readers.push(share(&client, "a"));
    let mut replayed = options(&client).replay_last().start().unwrap();
    settle().await;
    server.online();
    let mut peer = connected(&server).await;
    let again = peer.expect_subscribe().await.id;
    peer.expect_nothing_for(secs(1)).await;
    let mut later = options(&client).replay_last().start().unwrap();
    let mut next = share(&client, "a");
    settle().await;
    publish(&mut peer, &again, [2]).await;
    for (n, reader) in readers.iter_mut().enumerate() {
        if n < 3 {
            assert_eq!(item(reader).await, 1);
        }
        assert_eq!(gap(reader).await.reconnects, 1);
        assert_eq!(item(reader).await, 2);
    }
    for replayed in [&mut replayed, &mut later] {
        assert_eq!(item(replayed).await, 1);
        let missed = gap(replayed).await;
        assert!(
            missed.reconnects == 1 && !missed.is_lossless(),
            "what was replayed is from before it: {missed:?}"
        );
        assert_eq!(item(replayed).await, 2);
    }
    assert_eq!(item(&mut next).await, 2, "one that comes after it has missed nothing");
    assert_eq!(client.stats().connections, 2);
}

#[tokio::test(start_paused = true)]
async fn it_works_offline_and_on_threads_without_a_runtime() {
    let server = Server::in_memory();
    server.offline();
    let client = client(&server);
    let threads = [(); 4].map(|()| {
        let client = client.clone();
        std::thread::spawn(move || {
            drop(share(&client, "dropped"));
            share(&client, "a")
        })
    });
    let mut readers = threads.map(|thread| thread.join().unwrap());
    server.online();
    let mut peer = connected(&server).await;
    let subscribed = peer.expect_subscribe().await;
    assert!(
        subscribed.query.contains("subscription a"),
        "what was dropped before is never mentioned: {subscribed:?}"
    );
    publish(&mut peer, &subscribed.id, [1]).await;
    for reader in &mut readers {
        assert_eq!(item(reader).await, 1);
    }
    std::thread::spawn(move || drop(readers)).join().unwrap();
    assert_eq!(peer.expect_complete().await, subscribed.id);
}

#[tokio::test(start_paused = true)]
async fn what_is_about_the_operation_itself_is_refused_and_so_is_a_replay_of_what_is_not_shared() {
    let server = Server::in_memory();
    let client = client(&server);
    let shared = || options(&client);
    let refused = [
        (shared().overflow(Overflow::Rewind), "Overflow::Rewind"),
        (shared().overflow(Overflow::Rewind).resume_with(|_, _| {}), "Overflow::Rewind"),
        (shared().resume_with(|_, _| {}), "resume_with"),
        (shared().restart_if(|_| true), "restart_if"),
        (shared().first_item_within(secs(1)), "silence"),
        (shared().idle_longer_than(secs(1)), "silence"),
        (shared().idle_longer_than(secs(1)).reissue_stale(), "silence"),
        (shared().overflow(Overflow::LatestBy), "latest_by"),
        (client.subscription_to(request("a")).replay_last(), "replay_last"),
    ];
    for (options, named) in refused {
        match options.start() {
            Err(SubscribeError::Option(text)) => assert!(text.contains(named), "{text}"),
            other => panic!("{named}: {other:?}"),
        }
    }
    let large = request("a").variables(&json!({"v": "x".repeat(20_000_000)}));
    assert!(matches!(client.subscribe_shared_to(large), Err(SubscribeError::TooLarge { .. })));
    let mutation = Request::<Value>::new("mutation { a }");
    assert!(matches!(client.subscribe_shared_to(mutation), Err(SubscribeError::Mutation)));
    server.expect_no_dial_for(secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn each_reader_can_wait_until_the_operation_is_established_and_take_a_snapshot() {
    let server = Server::in_memory();
    let (client, mut readers, mut peer, id) = shared(&server, 2).await;
    for reader in &mut readers {
        timeout(secs(1), peer.serve_while(reader.established()))
            .await
            .expect("established")
            .unwrap();
    }
    publish(&mut peer, &id, 1..=3).await;
    // Of all readers only this one queries.
    let querying = client.clone();
    let late = options(&client).replay_last().start().unwrap();
    let mut synced = late.with_snapshot(
        move || querying.query_with(Request::<Value>::new("query q { q }")),
        Value::as_i64,
        |version, item| item.as_i64() > *version,
    );
    let reads = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(Ok(event)) = synced.next().await {
            seen.push(match event {
                resub::Synced::Snapshot(snapshot) => format!("snapshot {}", snapshot.data.unwrap()),
                resub::Synced::Live(Event::Next(item)) => format!("item {}", item.data.unwrap()),
                other => panic!("{other:?}"),
            });
        }
        seen
    });
    let query = peer.expect_subscribe().await;
    assert!(query.query.starts_with("query"));
    peer.next(&query.id, data(3)).await;
    peer.complete(&query.id).await;
    publish(&mut peer, &id, 4..=5).await;
    peer.complete(&id).await;
    assert_eq!(
        reads.await.unwrap(),
        ["snapshot 3", "item 4", "item 5"],
        "what was replayed is in the snapshot"
    );
}

#[tokio::test(start_paused = true)]
async fn on_several_connections_equal_subscriptions_are_one_operation_and_others_use_all_of_them() {
    let server = Server::in_memory();
    let client = builder(&server).connections(items(4)).build().unwrap();
    let readers: Vec<_> =
        (0..40).flat_map(|n| [n; 3]).map(|n| share(&client, &format!("s{n}"))).collect();
    let mut peers = futures::future::join_all((0..4).map(|_| connected(&server))).await;
    let mut carried = Vec::new();
    for peer in &mut peers {
        let mut each = 0;
        while let Ok(message) = timeout(Duration::from_millis(1), peer.next_message()).await {
            carried.push(message.unwrap()["payload"]["query"].to_string());
            each += 1;
        }
        assert!(each > 0, "each carries some of them");
    }
    carried.sort();
    let sent = carried.len();
    carried.dedup();
    assert_eq!((sent, carried.len()), (40, 40), "the server is asked once for each");
    drop(readers);
}

#[tokio::test(start_paused = true)]
async fn every_reader_of_a_shared_operation_moves_with_it_and_hears_of_overlaps() {
    let server = Server::in_memory();
    let (client, mut readers, mut old, old_id) = shared(&server, 2).await;
    let dedupe = options(&client).shared().dedupe_by(items(8), Value::clone).start().unwrap();
    readers.push(dedupe);
    publish(&mut old, &old_id, [0]).await;
    let (rotated, mut new) = futures::join!(client.rotate(), connected(&server));
    rotated.unwrap();
    let new_id = new.expect_subscribe().await.id;
    publish(&mut old, &old_id, [1, 2, 3]).await;
    old.sync().await;
    publish(&mut new, &new_id, [2, 3, 4]).await;
    assert_eq!(old.expect_complete().await, old_id);
    let reads = async {
        for (nth, reader) in readers.iter_mut().enumerate() {
            for n in 0..=3 {
                assert_eq!(item(reader).await, n, "reader {nth}");
            }
            let mark = gap(reader).await;
            assert!(mark.overlaps == 1 && mark.is_lossless(), "{mark:?}");
            // The last reader leaves out what comes twice.
            if nth < 2 {
                assert_eq!((item(reader).await, item(reader).await), (json!(2), json!(3)));
            }
            assert_eq!(item(reader).await, 4);
        }
    };
    futures::join!(reads, async { old.pump_until_end().await });
}
