//! How it ends: shutdown and drop.

use std::num::NonZeroUsize;

use resub::{Overflow, SubscribeError};

use super::*;

/// Shuts down within the deadline, on a paused clock.
async fn shut_down_in_time(client: Client, deadline: Duration) {
    let since = Instant::now();
    timeout(secs(3_600), client.shutdown(deadline)).await.expect("shutdown always returns");
    assert!(since.elapsed() <= deadline, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn shutdown_completes_closes_with_1000_and_ends_every_stream() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = live(&server).await;
    let clone = client.clone();
    let peer_side = async {
        assert_eq!(peer.expect_complete().await, id);
        assert_eq!(peer.expect_close().await, (1000, String::new()));
        peer.expect_end().await;
    };
    tokio::join!(client.shutdown(secs(5)), peer_side);
    assert!(matches!(end(&mut stream).await, SubscriptionError::ShutDown));
    assert!(matches!(clone.subscribe_to(request("b")), Err(SubscribeError::ShutDown)));
    assert!(matches!(*clone.status().borrow(), Status::Ended));
    clone.shutdown(secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_returns_whatever_the_connection_is_doing() {
    // Nothing was ever subscribed.
    let server = Server::in_memory();
    shut_down_in_time(client(&server), secs(2)).await;

    // The dial hangs.
    let server = Server::in_memory();
    server.hang_dials(1);
    let idle = client(&server);
    let _stream = subscribe(&idle, "a");
    server.dialed(1).await;
    shut_down_in_time(idle, secs(2)).await;

    // The server never acknowledges.
    let server = Server::in_memory();
    let unacked = client(&server);
    let _stream = subscribe(&unacked, "a");
    let _peer = server.accept().await.expect_init().await;
    shut_down_in_time(unacked, secs(2)).await;

    // The network is gone.
    let server = Server::in_memory();
    let (half_open, _stream, peer, _) = live(&server).await;
    let _silence = peer.go_silent();
    shut_down_in_time(half_open, secs(2)).await;

    // The client waits for its next attempt.
    let server = Server::in_memory();
    let (waiting, _stream, peer, _) = live(&server).await;
    peer.vanish();
    until(&waiting, |status| matches!(status, Status::Waiting { .. })).await;
    shut_down_in_time(waiting, secs(2)).await;

    // The provider hangs.
    let server = Server::in_memory();
    let asking = builder(&server).credentials(|_| std::future::pending()).build().unwrap();
    let _stream = subscribe(&asking, "a");
    shut_down_in_time(asking, secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_returns_when_a_mailbox_is_full_and_what_it_holds_can_still_be_read() {
    for overflow in [Overflow::Block, Overflow::DropOldest, Overflow::DropNewest, Overflow::Latest]
    {
        let server = Server::in_memory();
        let client = client(&server);
        let capacity = NonZeroUsize::MIN;
        let mut stream = client
            .subscription_to(request("a"))
            .overflow(overflow)
            .capacity(capacity)
            .start()
            .unwrap();
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        for n in 0..10 {
            peer.next(&id, data(n)).await;
        }
        settle().await;
        let peer_side = async {
            peer.expect_complete().await;
            peer.expect_close().await;
        };
        tokio::join!(shut_down_in_time(client, secs(2)), peer_side);
        let mut read = 0;
        while let Some(event) = stream.next().await {
            match event {
                Ok(_) => read += 1,
                Err(error) => assert!(matches!(error, SubscriptionError::ShutDown), "{error:?}"),
            }
        }
        assert!(read >= 1, "{overflow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_cancels_it_on_the_server_and_disturbs_no_other() {
    let server = Server::in_memory();
    let (client, a, mut peer, a_id) = live(&server).await;
    let mut b = subscribe(&client, "b");
    let b_id = peer.expect_subscribe().await.id;
    drop(a);
    assert_eq!(peer.expect_complete().await, a_id);
    peer.next(&a_id, data("late")).await;
    peer.next(&b_id, data(1)).await;
    assert_eq!(item(&mut b).await, 1);
    assert_eq!((client.stats().live_operations, client.stats().ignored), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_right_before_the_shutdown_is_completed_too() {
    let server = Server::in_memory();
    let (client, stream, mut peer, id) = live(&server).await;
    drop(stream);
    let peer_side = async {
        assert_eq!(peer.expect_complete().await, id);
        assert_eq!(peer.expect_close().await, (1000, String::new()));
    };
    tokio::join!(client.shutdown(secs(5)), peer_side);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_that_was_never_sent_says_nothing() {
    let server = Server::in_memory();
    let client = client(&server);
    let (kept, dropped) = (subscribe(&client, "a"), subscribe(&client, "b"));
    drop(dropped);
    let mut peer = connected(&server).await;
    assert!(peer.expect_subscribe().await.query.contains("{ a }"));
    peer.expect_nothing_for(secs(5)).await;
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn streams_outlive_the_client_and_dropping_all_ends_the_task_and_closes_the_socket() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = live(&server).await;
    let mut status = client.status();
    drop(client);
    peer.next(&id, data(1)).await;
    assert_eq!(item(&mut stream).await, 1);

    drop(stream);
    let peer_side = async {
        assert_eq!(peer.expect_complete().await, id);
        assert_eq!(peer.expect_close().await.0, 1000);
        peer.expect_end().await;
    };
    timeout(secs(5), peer_side).await.expect("the socket is closed");
    timeout(secs(5), async { while status.changed().await.is_ok() {} })
        .await
        .expect("the driver is gone");
    tokio::task::yield_now().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_client_does_not_wait_for_a_dead_peer() {
    let server = Server::in_memory();
    let (client, stream, peer, _) = live(&server).await;
    let _silence = peer.go_silent();
    let mut status = client.status();
    drop((client, stream));
    timeout(secs(5), async { while status.changed().await.is_ok() {} })
        .await
        .expect("the driver is gone");
}

#[tokio::test(start_paused = true)]
async fn handles_work_from_threads_without_a_runtime() {
    let server = Server::in_memory();
    let client = client(&server);
    let stream =
        std::thread::scope(|scope| scope.spawn(|| subscribe(&client, "a")).join().unwrap());
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    std::thread::spawn(move || drop(stream)).join().unwrap();
    assert_eq!(peer.expect_complete().await, id);
}

#[test]
fn a_subscribe_that_races_with_the_end_is_refused_or_ended_and_never_hangs() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for _ in 0..15 {
        let server = Server::in_memory();
        let client = runtime.block_on(async { client(&server) });
        let threads = [(); 4].map(|()| {
            let client = client.clone();
            std::thread::spawn(move || {
                (0..2_000).map_while(|_| client.subscribe_to(request("a")).ok()).collect::<Vec<_>>()
            })
        });
        runtime.block_on(client.shutdown(Duration::ZERO));
        for mut stream in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            let ended = runtime.block_on(async { timeout(secs(20), stream.next()).await });
            assert!(matches!(ended, Ok(Some(Err(SubscriptionError::ShutDown)))), "{ended:?}");
        }
    }
}
