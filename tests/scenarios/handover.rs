//! Another connection in place of one that works: what the reader, the server and an operator see
//! of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::SystemTime,
};

use resub::{Credentials, CredentialsReason, Disconnect, NotConnected, Overflow};

use super::*;

/// Serves a peer until the client closes it, with this answer to what it subscribes. Returns the
/// code.
async fn serve_until_close(mut peer: Peer) -> u16 {
    while peer.serve_pings().await.is_some() {}
    peer.expect_close().await.0
}

/// An item that only the new connection has brought. Nothing proves that the old one had nothing to
/// add.
async fn unproven_item(stream: &mut Subscription<Value>) -> Value {
    let mark = gap(stream).await;
    assert_eq!((mark.reconnects, mark.overlaps), (1, 1), "{mark:?}");
    assert!(mark.cause.is_none() && !mark.is_lossless(), "no connection was lost: {mark:?}");
    item(stream).await
}

#[tokio::test(start_paused = true)]
async fn a_rotation_ends_when_the_new_connection_carries_every_stream() {
    let server = Server::in_memory();
    let (client, mut stream, mut old, old_id) = live(&server).await;
    old.next(&old_id, data(1)).await;
    assert_eq!(item(&mut stream).await, 1);
    let (rotated, mut new) = futures::join!(client.rotate(), connected(&server));
    rotated.unwrap();
    let new_id = new.expect_subscribe().await.id;
    assert_ne!(new_id, old_id);
    new.next(&new_id, data(2)).await;
    assert_eq!(old.expect_complete().await, old_id);
    let (closed, next) = futures::join!(serve_until_close(old), unproven_item(&mut stream));
    assert_eq!((closed, next), (1000, json!(2)));
    let stats = client.stats();
    assert_eq!((stats.dials, stats.connections, stats.handovers, stats.reconnects), (2, 2, 1, 0));
    assert!(matches!(*client.status().borrow(), Status::Open { .. }));
}

#[tokio::test(start_paused = true)]
async fn what_comes_twice_is_announced_and_with_dedupe_by_neither_comes_nor_is_announced() {
    for dedupe in [false, true] {
        let server = Server::in_memory();
        let client = client(&server);
        let mut subscription = client.subscription_to(request("a"));
        if dedupe {
            subscription = subscription.dedupe_by(items(8), Value::as_u64);
        }
        let mut stream = subscription.start().unwrap();
        let mut old = connected(&server).await;
        let old_id = old.expect_subscribe().await.id;
        old.next(&old_id, data(1)).await;
        let (rotated, mut new) = futures::join!(client.rotate(), connected(&server));
        rotated.unwrap();
        let new_id = new.expect_subscribe().await.id;
        // What is ahead on the new connection waits for the old one.
        for (peer, id) in [(&mut new, &new_id), (&mut old, &old_id)] {
            peer.next(id, data(2)).await;
            peer.next(id, data(3)).await;
            settle().await;
        }
        assert_eq!(old.expect_complete().await, old_id);
        let reads = async {
            let mut read = Vec::new();
            for _ in 0..if dedupe { 4 } else { 6 } {
                read.push(match event(&mut stream).await.unwrap().unwrap() {
                    Event::Next(response) => response.data.unwrap(),
                    Event::Gap(gap) => {
                        assert!(gap.is_lossless() && gap.cause.is_none(), "{gap:?}");
                        json!(format!("{} overlap", gap.overlaps))
                    }
                    other => panic!("{other:?}"),
                });
            }
            read
        };
        let (_, (), read) = futures::join!(
            serve_until_close(old),
            async { new.next(&new_id, data(4)).await },
            reads
        );
        if dedupe {
            assert_eq!(read, [1, 2, 3, 4]);
        } else {
            assert_eq!(
                read,
                [json!(1), json!(2), json!(3), json!("1 overlap"), json!(2), json!(3)]
            );
            assert_eq!(item(&mut stream).await, 4);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_are_renewed_ahead_of_their_end_and_the_streams_go_on() {
    for in_wall_time in [false, true] {
        let server = Server::in_memory();
        server.set_deadline(secs(7_200));
        let asked = Arc::new(AtomicUsize::new(0));
        let reasons = Arc::clone(&asked);
        let client = builder(&server)
            .credentials(move |reason| {
                let nth = reasons.fetch_add(1, Relaxed);
                assert_eq!(matches!(reason, CredentialsReason::Initial), nth == 0, "{reason:?}");
                assert_eq!(matches!(reason, CredentialsReason::Expiring), nth > 0, "{reason:?}");
                async move {
                    let credentials = Credentials::none().init_payload(&json!({"token": nth}))?;
                    let lifetime = secs(3_600);
                    Ok(if in_wall_time {
                        credentials.expires_at(SystemTime::now() + lifetime)
                    } else {
                        credentials.expires_in(lifetime)
                    })
                }
            })
            .build()
            .unwrap();
        let mut stream = subscribe(&client, "a");
        let begun = Instant::now();
        let mut peer = connected(&server).await;
        let mut id = peer.expect_subscribe().await.id;
        for n in 1..4_u64 {
            let ((), mut new) =
                futures::join!(peer.serve_while(server.dialed(n + 1)), connected(&server));
            assert_eq!(new.init_payload()["token"], n);
            let new_id = new.expect_subscribe().await.id;
            new.next(&new_id, data(n)).await;
            assert_eq!(peer.expect_complete().await, id);
            let (_, next) = futures::join!(serve_until_close(peer), unproven_item(&mut stream));
            assert_eq!(next, n);
            (peer, id) = (new, new_id);
            let (least, most) = (secs(n * 3_600 * 69 / 100), secs(n * 3_600 * 91 / 100));
            assert!((least..most).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        }
        assert_eq!(asked.load(Relaxed), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_fails_leaves_the_connection_and_is_tried_again_until_it_works() {
    let server = Server::in_memory();
    let (client, mut stream, mut old, old_id) = live(&server).await;
    server.refuse_dials(2);
    let fail_then_work = async {
        // Refused by the server, in its words.
        server.accept().await.expect_init().await.close(4403, "Forbidden").await;
        server.accept().await.expect_init().await.close(4403, "Forbidden").await;
        let mut peer = connected(&server).await;
        peer.expect_subscribe().await;
        peer
    };
    let (rotated, new) = futures::join!(client.rotate(), old.serve_while(fail_then_work));
    rotated.unwrap();
    assert_eq!(client.stats().dials, 6);
    old.next(&old_id, data(1)).await;
    assert_eq!(item(&mut stream).await, 1, "neither an end nor a gap");
    drop(new);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_ends_with_what_ends_all() {
    let server = Server::in_memory();
    let (client, mut stream, old, _) = live(&server).await;
    server.hang_dials(1);
    let rotation = client.rotate();
    let fate = async {
        server.dialed(2).await;
        client.clone().shutdown(secs(1)).await;
    };
    let (rotated, (), ()) = futures::join!(rotation, fate, serve_until_close_or_end(old));
    assert!(matches!(rotated, Err(NotConnected::ShutDown)), "{rotated:?}");
    assert!(matches!(end(&mut stream).await, SubscriptionError::ShutDown));
    assert!(matches!(client.rotate().await, Err(NotConnected::ShutDown)));
}

async fn serve_until_close_or_end(mut peer: Peer) {
    peer.pump_until_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_replaced_when_it_is_old() {
    let server = Server::in_memory();
    server.set_deadline(secs(7_200));
    let client = builder(&server).max_connection_age(secs(600)).build().unwrap();
    let _stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    let begun = Instant::now();
    let ((), mut new) = futures::join!(peer.serve_while(server.dialed(2)), connected(&server));
    assert!((secs(539)..=secs(601)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    new.expect_subscribe().await;
    assert_eq!(new.serve_while(serve_until_close(peer)).await, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_mutation_in_flight_is_answered_by_the_connection_that_has_it_and_sent_on_no_other() {
    let server = Server::in_memory();
    let (client, _stream, mut old, _) = live(&server).await;
    let call =
        tokio::spawn(client.mutate_with(Request::<Value>::new("mutation { m }")).into_future());
    let mutation = old.expect_subscribe().await;
    let (rotated, mut new) = futures::join!(client.rotate(), connected(&server));
    rotated.unwrap();
    new.expect_subscribe().await;
    let quiet = async { new.expect_nothing_for(secs(9)).await };
    old.serve_while(quiet).await;
    old.next(&mutation.id, data(7)).await;
    old.complete(&mutation.id).await;
    assert_eq!(call.await.unwrap().unwrap().data, Some(json!(7)));
    assert_eq!(new.serve_while(serve_until_close(old)).await, 1000);
}

#[tokio::test(start_paused = true)]
async fn the_old_connection_that_dies_in_the_overlap_is_a_gap_with_the_cause() {
    let server = Server::in_memory();
    let (client, mut stream, mut old, old_id) = live(&server).await;
    old.next(&old_id, data(1)).await;
    assert_eq!(item(&mut stream).await, 1);
    let (rotated, mut new) = futures::join!(client.rotate(), connected(&server));
    rotated.unwrap();
    let new_id = new.expect_subscribe().await.id;
    old.vanish();
    let announced = gap(&mut stream).await;
    assert!(
        announced.reconnects == 1 && matches!(announced.cause, Some(Disconnect::Reset(_))),
        "{announced:?}"
    );
    new.next(&new_id, data(3)).await;
    assert_eq!(item(&mut stream).await, 3);
    assert_eq!(client.stats().dials, 2);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_of_several_connections_replaces_each() {
    let server = Server::in_memory();
    let client = builder(&server).connections(items(3)).build().unwrap();
    let streams = [(); 3].map(|()| subscribe(&client, "a"));
    let mut old = Vec::new();
    for _ in 0..3 {
        let mut peer = connected(&server).await;
        peer.expect_subscribe().await;
        old.push(peer);
    }
    let accept = async {
        let mut new = Vec::new();
        for _ in 0..3 {
            let mut peer = connected(&server).await;
            peer.expect_subscribe().await;
            new.push(peer);
        }
        new
    };
    let (rotated, _new) = futures::join!(client.rotate(), accept);
    rotated.unwrap();
    let stats = client.stats();
    assert_eq!((stats.handovers, stats.reconnects, stats.connections_open), (3, 0, 3));
    for code in futures::future::join_all(old.into_iter().map(serve_until_close)).await {
        assert_eq!(code, 1000);
    }
    drop(streams);
}

#[tokio::test(start_paused = true)]
async fn credentials_rejected_twice_end_all_in_the_servers_words_and_a_later_subscribe_dials() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut streams = [(); 3].map(|()| subscribe(&client, "a"));
    for _ in 0..2 {
        server.accept().await.expect_init().await.close(4403, "the token is over").await;
    }
    for stream in &mut streams {
        let error = end(stream).await;
        assert!(text(&error).contains("the token is over"), "{error:?}");
    }
    server.expect_no_dial_for(secs(60)).await;
    let mut again = subscribe(&client, "b");
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(1)).await;
    assert_eq!(item(&mut again).await, 1);
}

#[tokio::test(start_paused = true)]
async fn every_reader_of_a_shared_subscription_gets_what_was_held_once_and_in_order() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut streams = [(); 2].map(|()| client.subscribe_shared_to(request("a")).unwrap());
    let mut old = connected(&server).await;
    let old_id = old.expect_subscribe().await.id;
    let (rotated, mut new) = futures::join!(client.rotate(), connected(&server));
    rotated.unwrap();
    let new_id = new.expect_subscribe().await.id;
    new.next(&new_id, data(2)).await;
    new.next(&new_id, data(3)).await;
    settle().await;
    old.next(&old_id, data(1)).await;
    let reads = async {
        for stream in &mut streams {
            assert_eq!(item(stream).await, 1);
            assert_eq!(unproven_item(stream).await, 2);
            assert_eq!(item(stream).await, 3);
        }
    };
    new.serve_while(old.serve_while(reads)).await;
    assert_eq!(client.stats().queued_items, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_the_socket_does_not_stop_a_connection_from_being_made() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = client
        .subscription_to(request("a"))
        .capacity(items(1))
        .overflow(Overflow::Block)
        .start()
        .unwrap();
    let mut old = connected(&server).await;
    let old_id = old.expect_subscribe().await.id;
    old.next(&old_id, data(1)).await;
    settle().await;
    let (rotated, mut new) = futures::join!(client.rotate(), connected(&server));
    rotated.unwrap();
    let new_id = new.expect_subscribe().await.id;
    new.next(&new_id, data(2)).await;
    settle().await;
    assert_eq!(item(&mut stream).await, 1);
    let (_, next) = futures::join!(serve_until_close(old), unproven_item(&mut stream));
    assert_eq!(next, 2);
}
