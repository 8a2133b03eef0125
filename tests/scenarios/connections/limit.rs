//! How many operations a connection may carry, and that none carries more.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use resub::{CallError, Overflow, SubscribeError};

use super::*;

fn limited(server: &Server, connections: Option<usize>, limit: usize) -> Client {
    let limited = builder(server).max_subscriptions_per_connection(items(limit));
    match connections {
        Some(connections) => limited.connections(items(connections)).build().unwrap(),
        None => limited.build().unwrap(),
    }
}

fn is_full(client: &Client) -> bool {
    match client.subscribe_to(request("s99")) {
        Err(SubscribeError::Full { .. }) => true,
        Err(error) => panic!("{error:?}"),
        Ok(_) => false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_alone_makes_as_many_connections_as_it_takes_and_uses_those_again_that_emptied() {
    let server = Server::in_memory();
    let client = limited(&server, None, 2);
    let mut streams: Vec<_> = (0..5).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let mut peers = connect_all(&server, 3).await;
    for (peer, expected) in peers.iter_mut().zip([&[0, 1][..], &[2, 3], &[4]]) {
        assert_eq!(carried(peer, expected.len()).await.0, expected);
    }
    // The second empties, and closes.
    streams.drain(2..4);
    let [mut one, mut two, mut three] = <[Peer; 3]>::try_from(peers).unwrap();
    let emptied = async {
        two.expect_complete().await;
        two.expect_complete().await;
        assert_eq!(two.expect_close().await.0, 1000);
    };
    one.serve_while(three.serve_while(emptied)).await;
    // The last has room, but the second comes before it; a third for the second is one for the
    // third.
    streams.push(subscribe(&client, "s5"));
    let mut two = one.serve_while(three.serve_while(connected(&server))).await;
    assert_eq!(carried(&mut two, 1).await.0, [5]);
    streams.extend([subscribe(&client, "s6"), subscribe(&client, "s7")]);
    assert_eq!((carried(&mut two, 1).await.0, carried(&mut three, 1).await.0), (vec![6], vec![7]));
    assert_eq!(server.dials(), 4);
    streams.push(subscribe(&client, "s8"));
    let mut four = connected(&server).await;
    assert_eq!(carried(&mut four, 1).await.0, [8]);
    assert_eq!(client.stats().reconnects, 0, "an idle connection that was closed is not a loss");
}

#[tokio::test(start_paused = true)]
async fn when_all_are_full_subscribing_is_an_error_that_names_the_limit_and_a_drop_makes_room() {
    let server = Server::in_memory();
    let client = limited(&server, Some(2), 2);
    let mut streams: Vec<_> = (0..4).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let error = client.subscribe_to(request("s4")).unwrap_err();
    assert!(matches!(error, SubscribeError::Full { connections: 2, limit: 2, .. }), "{error:?}");
    assert_eq!(error.to_string(), "all connections are full: 2, each with 2 operations");
    let call = client.query_with(Request::<Value>::new("{ q }")).await;
    assert!(matches!(call, Err(CallError::NotSent(SubscribeError::Full { .. }))), "{call:?}");

    let mut peers = connect_all(&server, 2).await;
    assert_eq!(carried(&mut peers[0], 2).await.0, [0, 2]);
    let (numbers, ids) = carried(&mut peers[1], 2).await;
    assert_eq!(numbers, [1, 3]);
    drop(streams.remove(3));
    streams.push(subscribe(&client, "s5"));
    assert!(is_full(&client));
    assert_eq!(peers[1].expect_complete().await, ids[1], "first, as the server counts, too");
    assert_eq!(carried(&mut peers[1], 1).await.0, [5]);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_as_soon_as_the_reader_learns_of_the_end_and_once_however_it_ended() {
    let server = Server::in_memory();
    let client = limited(&server, Some(1), 1);
    let mut stream = subscribe(&client, "s0");
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.complete(&id).await;
    assert!(event(&mut stream).await.is_none());
    let mut rejected = subscribe(&client, "s1");
    drop(stream);
    assert!(is_full(&client), "what had ended does not end twice");
    let id = peer.expect_subscribe().await.id;
    peer.error(&id, json!([{"message": "no"}])).await;
    assert!(matches!(end(&mut rejected).await, SubscriptionError::Rejected(_)));

    let unread = subscribe(&client, "s2");
    let id = peer.expect_subscribe().await.id;
    peer.complete(&id).await;
    peer.sync().await;
    let fail = client
        .subscription_to(request("s3"))
        .overflow(Overflow::Fail)
        .capacity(items(1))
        .start()
        .unwrap();
    drop((rejected, unread));
    assert!(is_full(&client));
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(1)).await;
    peer.next(&id, data(2)).await;
    assert_eq!(peer.expect_complete().await, id);
    let never_sent = subscribe(&client, "s4");
    assert!(is_full(&client));
    drop(never_sent);
    drop(fail);

    let call = client.query_with(Request::<Value>::new("query q { q }")).timeout(secs(1));
    assert!(matches!(peer.serve_while(call).await, Err(CallError::Timeout(_))));
    let cancelled = client.query_with(Request::<Value>::new("query q { q }"));
    assert!(timeout(secs(1), cancelled).await.is_err());
    let _last = subscribe(&client, "s5");
    assert!(is_full(&client));
}

#[test]
fn subscribing_needs_no_runtime_where_it_makes_a_connection() {
    let server = Server::in_memory();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let client = runtime.block_on(async { limited(&server, None, 1) });
    let streams: Vec<_> = (0..3).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    runtime.block_on(async { connect_all(&server, 3).await });
    drop(runtime);
    let refused = client.subscribe_to(request("s3"));
    assert!(matches!(refused, Err(SubscribeError::RuntimeGone)), "{refused:?}");
    drop(streams);
}

/// Counts what a server counts, in the order on the wire: from `subscribe` to the client's
/// `complete`, or the server's own, which some get at once, while it is busy.
async fn count(mut peer: Peer, limit: usize, is_busy: Arc<AtomicBool>) {
    let (mut live, mut begun) = (HashSet::new(), 0);
    while let Some(message) = peer.serve_pings().await {
        let id = message["id"].as_str().unwrap().to_owned();
        match message["type"].as_str() {
            Some("subscribe") => assert!(live.insert(id.clone())),
            // It may have crossed the server's own.
            Some("complete") => drop(live.remove(&id)),
            other => panic!("{other:?}"),
        }
        begun += 1;
        assert!(live.len() <= limit, "{} operations on one connection", live.len());
        if begun % 3 == 0 && is_busy.load(Relaxed) && live.remove(&id) {
            peer.complete(&id).await;
        }
    }
}

/// Subscribes and drops in turns, so that all connections are full now and then. Returns how often
/// they were.
fn come_and_go(client: &Client) -> usize {
    let (mut held, mut refused) = (Vec::new(), 0);
    for n in 0..3_000 {
        match client.subscribe_to(request("s0")) {
            Ok(stream) => held.push(stream),
            Err(SubscribeError::Full { .. }) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
        if !held.is_empty() && (n % 3 == 0 || held.len() > 30) {
            drop(held.swap_remove(n % held.len()));
        }
    }
    refused
}

#[test]
fn no_connection_carries_more_than_it_may_whatever_threads_do() {
    const LIMIT: usize = 5;
    for connections in [Some(4), None] {
        let (server, is_busy) = (Arc::new(Server::in_memory()), Arc::new(AtomicBool::new(true)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async { limited(&server, connections, LIMIT) });
        let peers = Arc::new(Mutex::new(Vec::new()));
        let accepting = runtime.spawn({
            let (server, is_busy, peers) =
                (Arc::clone(&server), Arc::clone(&is_busy), Arc::clone(&peers));
            async move {
                loop {
                    let (peer, is_busy) = (connected(&server).await, Arc::clone(&is_busy));
                    peers.lock().unwrap().push(tokio::spawn(count(peer, LIMIT, is_busy)));
                }
            }
        });
        let threads = [(); 4].map(|()| {
            let client = client.clone();
            thread::spawn(move || come_and_go(&client))
        });
        let refused: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(refused > 0, connections.is_some(), "{refused} refused");
        is_busy.store(false, Relaxed);
        // All have ended, each once: there is room for exactly as many as there may be.
        if let Some(connections) = connections {
            let held: Vec<_> = (0..connections * LIMIT).map(|_| subscribe(&client, "s0")).collect();
            assert!(is_full(&client));
            drop(held);
        }
        runtime.block_on(async {
            until(&client, |status| matches!(status, Status::Open { .. } | Status::Idle)).await;
            accepting.abort();
            client.shutdown(secs(5)).await;
            let peers = std::mem::take(&mut *peers.lock().unwrap());
            assert!(!peers.is_empty());
            for peer in peers {
                peer.await.unwrap();
            }
        });
    }
}
