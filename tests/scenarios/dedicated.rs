//! A connection that one subscription has for itself: what a slow reader does to it concerns nobody
//! else, what concerns the whole client concerns it too, and nothing of it is left afterwards.

use std::{future::Future, num::NonZeroU32};

use resub::{Overflow, SubscribeError, SubscriptionBuilder, Synced};
use tokio::runtime::Handle;

use super::*;

fn dedicated(client: &Client, name: &str) -> SubscriptionBuilder<Request<Value>> {
    client.subscription_to(request(name)).dedicated()
}

/// A slow reader of this capacity on a connection of its own, beside a client that has another one.
async fn slow(
    server: &Server,
    client: &Client,
    capacity: usize,
) -> (Subscription<Value>, Peer, String) {
    let slow = dedicated(client, "slow").overflow(Overflow::Block);
    let slow = slow.capacity(items(capacity)).start().unwrap();
    let mut peer = connected(server).await;
    let id = peer.expect_subscribe().await.id;
    (slow, peer, id)
}

/// The server of both connections answers pings meanwhile.
async fn served<F: Future>(peers: [&mut Peer; 2], future: F) -> F::Output {
    let [one, two] = peers;
    one.serve_while(two.serve_while(future)).await
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_under_block_loses_nothing_and_stalls_nobody_else() {
    for connections in [1, 2] {
        let server = Server::in_memory();
        let client = builder(&server).connections(items(connections)).build().unwrap();
        let mut sibling = subscribe(&client, "b");
        let mut peer = connected(&server).await;
        let sibling_id = peer.expect_subscribe().await.id;
        let (mut slow, mut own, slow_id) = slow(&server, &client, 3).await;
        for n in 0..10 {
            own.next(&slow_id, data(n)).await;
        }
        for n in 0..100 {
            peer.next(&sibling_id, data(n)).await;
            assert_eq!(timeout(secs(1), item(&mut sibling)).await.unwrap(), n, "not stalled");
        }
        if connections == 1 {
            let call = client.query_with(Request::<Value>::new("query q { q }"));
            let answer = async {
                let call = peer.expect_subscribe().await;
                peer.next(&call.id, data("answer")).await;
            };
            let (result, ()) = futures::join!(call.into_future(), answer);
            assert_eq!(result.unwrap().data, Some(json!("answer")), "nor is a call");
        }
        served([&mut peer, &mut own], timeout(secs(600), std::future::pending::<()>()))
            .await
            .unwrap_err();
        for n in 0..10 {
            assert_eq!(served([&mut peer, &mut own], item(&mut slow)).await, n);
        }
        let stats = client.stats();
        assert_eq!((stats.dropped, stats.ignored, stats.connections), (0, 0, 2));
        assert_eq!((stats.connections_open, stats.live_operations), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_else_is_placed_on_it_and_connect_does_not_open_it() {
    let server = Server::in_memory();
    let client = builder(&server).build().unwrap();
    let _own = dedicated(&client, "own").start().unwrap();
    let mut own = connected(&server).await;
    let own_id = own.expect_subscribe().await.id;
    let (result, mut peer) = futures::join!(client.connect(), connected(&server));
    result.unwrap();
    let _other = subscribe(&client, "a");
    let other_id = peer.expect_subscribe().await.id;
    assert_ne!(own_id, other_id, "ids are unique within the client");
    let _second = dedicated(&client, "second").start().unwrap();
    let mut second = connected(&server).await;
    let second_id = second.expect_subscribe().await.id;
    assert!(![own_id, other_id].contains(&second_id));
    own.expect_nothing_for(secs(5)).await;
    assert_eq!((server.dials(), client.stats().connections_open), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn its_connection_is_closed_with_1000_at_once_when_it_is_dropped_or_ends() {
    for is_blocked in [false, true] {
        let server = Server::in_memory();
        let client = client(&server);
        let (slow, mut own, id) = slow(&server, &client, 1).await;
        for n in 0..if is_blocked { 10 } else { 0 } {
            own.next(&id, data(n)).await;
        }
        settle().await;
        let begun = Instant::now();
        drop(slow);
        assert_eq!(own.expect_complete().await, id);
        assert_eq!(own.expect_close().await.0, 1000);
        assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
        until(&client, |status| matches!(status, Status::Idle)).await;
        server.expect_no_dial_for(secs(60)).await;
    }

    // The server ends it, while its reader still has items to read.
    let server = Server::in_memory();
    let client = client(&server);
    let (mut slow, mut own, id) = slow(&server, &client, 10).await;
    for n in 0..3 {
        own.next(&id, data(n)).await;
    }
    own.complete(&id).await;
    assert_eq!(own.expect_close().await.0, 1000);
    until(&client, |status| matches!(status, Status::Idle)).await;
    assert_eq!(client.stats().queued_items, 3);
    for n in 0..3 {
        assert_eq!(item(&mut slow).await, n);
    }
    assert!(event(&mut slow).await.is_none());
    drop(slow);
    let stats = client.stats();
    assert_eq!((stats.items, stats.queued_items, stats.connections_open), (3, 0, 0));

    // It is fatal.
    let client = builder(&server).give_up_after(1).build().unwrap();
    server.refuse_dials(1);
    let mut own = dedicated(&client, "own").start().unwrap();
    assert!(matches!(end(&mut own).await, SubscriptionError::GaveUp { .. }));
    until(&client, |status| matches!(status, Status::Idle)).await;
}

#[tokio::test(start_paused = true)]
async fn it_survives_a_lost_connection_like_any_other_and_the_rest_of_the_client_does_not_notice() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut sibling = subscribe(&client, "b");
    let mut peer = connected(&server).await;
    let sibling_id = peer.expect_subscribe().await.id;
    let (mut slow, own, _) = slow(&server, &client, 3).await;
    own.vanish();
    // The worst status is shown.
    until(&client, |status| matches!(status, Status::Waiting { .. })).await;
    assert_eq!(client.stats().connections_open, 1);
    peer.next(&sibling_id, data(1)).await;
    assert_eq!(item(&mut sibling).await, 1);
    let mut own = connected(&server).await;
    let id = own.expect_subscribe().await.id;
    own.next(&id, data(2)).await;
    assert_eq!(gap(&mut slow).await.reconnects, 1);
    assert_eq!(item(&mut slow).await, 2);
    until(&client, |status| matches!(status, Status::Open { .. })).await;
    let stats = client.stats();
    assert_eq!((stats.reconnects, stats.connections, stats.dials), (1, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_reaches_it_even_if_it_is_stalled_and_none_starts_after_it() {
    let server = Server::in_memory();
    let client = client(&server);
    let (mut slow, mut own, id) = slow(&server, &client, 1).await;
    for n in 0..10 {
        own.next(&id, data(n)).await;
    }
    settle().await;
    let shutdown = tokio::spawn(client.clone().shutdown(secs(5)));
    assert_eq!(own.expect_complete().await, id);
    assert_eq!(own.expect_close().await.0, 1000);
    shutdown.await.unwrap();
    assert!(matches!(*client.status().borrow(), Status::Ended));
    assert_eq!(item(&mut slow).await, 0);
    assert!(matches!(end(&mut slow).await, SubscriptionError::ShutDown));
    let error = dedicated(&client, "late").start().unwrap_err();
    assert!(matches!(error, SubscribeError::ShutDown), "{error:?}");
    server.expect_no_dial_for(secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_dropped_leaves_it_to_its_reader() {
    let server = Server::in_memory();
    let client = client(&server);
    let (mut slow, mut own, id) = slow(&server, &client, 3).await;
    drop(client);
    settle().await;
    own.next(&id, data(1)).await;
    assert_eq!(item(&mut slow).await, 1);
    drop(slow);
    assert_eq!(own.expect_complete().await, id);
    assert_eq!(own.expect_close().await.0, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_pause_reaches_it_also_if_it_is_made_later_and_a_resume_does_too() {
    let server = Server::in_memory();
    let client = client(&server);
    let (mut first, mut own, _) = slow(&server, &client, 3).await;
    client.pause();
    assert_eq!(own.expect_close().await.0, 1000);
    until(&client, |status| matches!(status, Status::Paused)).await;
    let _second = dedicated(&client, "second").start().unwrap();
    server.expect_no_dial_for(secs(600)).await;
    client.resume();
    for _ in 0..2 {
        connected(&server).await.expect_subscribe().await;
    }
    assert_eq!(gap(&mut first).await.reconnects, 1);
}

#[tokio::test(start_paused = true)]
async fn reconnect_now_and_a_rotation_reach_it() {
    let server = Server::in_memory();
    let client = client(&server);
    let (mut slow, mut own, _) = slow(&server, &client, 3).await;
    client.reconnect_now();
    assert_eq!(own.expect_close().await.0, 1000);
    let mut own = connected(&server).await;
    let id = own.expect_subscribe().await.id;
    assert_eq!(gap(&mut slow).await.reconnects, 1);

    let rotation = tokio::spawn({
        let client = client.clone();
        async move { client.rotate().await }
    });
    let mut new = connected(&server).await;
    let new_id = new.expect_subscribe().await.id;
    rotation.await.unwrap().unwrap();
    for n in 0..2 {
        own.next(&id, data(n)).await;
        new.next(&new_id, data(n)).await;
        assert_eq!(item(&mut slow).await, n);
    }
    own.expect_complete().await;
    assert_eq!(own.expect_close().await.0, 1000);

    // A subscription that is dropped meanwhile is no failure of the rotation.
    let rotation = tokio::spawn({
        let client = client.clone();
        async move { client.rotate().await }
    });
    settle().await;
    drop(slow);
    rotation.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shared_one_is_refused() {
    let server = Server::in_memory();
    let client = client(&server);
    let error = dedicated(&client, "own").shared().start().unwrap_err();
    assert!(
        matches!(error, SubscribeError::Option(text) if text.contains("dedicated")),
        "{error:?}"
    );
    server.expect_no_dial_for(secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_queried_beside_it_so_that_block_loses_nothing() {
    let server = Server::in_memory();
    let client = client(&server);
    let (slow, mut own, id) = slow(&server, &client, 2).await;
    for n in 1..=6 {
        own.next(&id, data(n)).await;
    }
    settle().await;
    let elsewhere = client.clone();
    let mut synced = slow.with_snapshot(
        move || elsewhere.query_with(Request::<Value>::new("query q { q }")),
        Value::as_i64,
        |version, item| item.as_i64() > *version,
    );
    let reading = tokio::spawn(async move {
        let (mut snapshots, mut items) = (Vec::new(), Vec::new());
        while items.last() != Some(&6) {
            match synced.next().await.unwrap().unwrap() {
                Synced::Snapshot(snapshot) => snapshots.push(snapshot.data.unwrap()),
                Synced::Live(Event::Next(item)) => items.push(item.data.unwrap().as_i64().unwrap()),
                other => panic!("{other:?}"),
            }
        }
        (snapshots, items)
    });
    let mut peer = connected(&server).await;
    let query = peer.expect_subscribe().await;
    assert!(query.query.starts_with("query q"), "{query:?}");
    // The queue is full meanwhile.
    own.serve_while(timeout(secs(5), std::future::pending::<()>())).await.unwrap_err();
    peer.next(&query.id, data(2)).await;
    let (snapshots, items) = own.serve_while(timeout(secs(60), reading)).await.unwrap().unwrap();
    assert_eq!((snapshots, items), (vec![json!(2)], vec![3, 4, 5, 6]));
    assert_eq!(client.stats().dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn the_dial_budget_of_the_client_holds_for_dedicated_connections_too() {
    for connections in [1, 2] {
        let server = Server::in_memory();
        let client = builder(&server)
            .connections(items(connections))
            .max_dials(NonZeroU32::new(5).unwrap(), secs(60))
            .build()
            .unwrap();
        server.offline();
        server.set_deadline(secs(6_000));
        let _streams: Vec<_> =
            (0..8).map(|n| dedicated(&client, &format!("s{n}")).start().unwrap()).collect();
        let _others = [subscribe(&client, "a"), subscribe(&client, "b")];
        let (begun, mut dialed, mut times) = (Instant::now(), 0, Vec::new());
        while begun.elapsed() < secs(600) {
            dialed += 1;
            server.dialed(dialed).await;
            times.push(Instant::now());
        }
        let worst = times.windows(6).filter(|six| six[5] - six[0] < secs(60)).count();
        assert_eq!(worst, 0, "never more than 5 within a minute");
        assert!(times.len() > 20, "and not many fewer: {}", times.len());
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_connection_has_proven_holds_for_a_dedicated_one() {
    let server = Server::in_memory();
    let client = client(&server);
    let _sibling = subscribe(&client, "b");
    let _peer = connected(&server).await;
    let mut own = dedicated(&client, "own").start().unwrap();
    // To a server that has never acknowledged a connection this would be fatal.
    server.accept().await.expect_init().await.close(4400, "not yet").await;
    connected(&server).await.expect_subscribe().await;
    assert!(timeout(secs(1), own.next()).await.is_err(), "it lives");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_in_a_row_leave_nothing_behind_but_their_counts() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut sibling = subscribe(&client, "b");
    let mut peer = connected(&server).await;
    let sibling_id = peer.expect_subscribe().await.id;
    settle().await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    for n in 0..1_000 {
        let mut own = dedicated(&client, "own").start().unwrap();
        let mut its = connected(&server).await;
        let id = its.expect_subscribe().await.id;
        its.next(&id, data(n)).await;
        assert_eq!(item(&mut own).await, n);
        if n % 2 == 0 {
            drop(own);
            its.expect_complete().await;
        } else {
            its.complete(&id).await;
            assert!(event(&mut own).await.is_none());
        }
        assert_eq!(its.expect_close().await.0, 1000);
    }
    settle().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
    let stats = client.stats();
    assert_eq!((stats.connections, stats.dials, stats.items), (1_001, 1_001, 1_000));
    assert_eq!((stats.connections_open, stats.live_operations, stats.queued_items), (1, 1, 0));
    peer.next(&sibling_id, data("still")).await;
    assert_eq!(item(&mut sibling).await, "still");
    assert!(matches!(*client.status().borrow(), Status::Open { .. }));
}
