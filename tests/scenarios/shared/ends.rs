//! How a shared operation ends: for all of its readers, and for nobody who comes later.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_servers_end_reaches_every_reader_and_whoever_comes_then_begins_the_operation_anew() {
    let server = Server::in_memory();
    let (client, mut readers, mut peer, mut id) = shared(&server, 3).await;
    for round in 0..3 {
        publish(&mut peer, &id, [round]).await;
        peer.complete(&id).await;
        for mut reader in readers {
            assert_eq!(item(&mut reader).await, round);
            assert!(event(&mut reader).await.is_none());
            assert!(event(&mut reader).await.is_none());
        }
        readers = (0..3).map(|_| options(&client).replay_last().start().unwrap()).collect();
        id = peer.expect_subscribe().await.id;
        peer.expect_nothing_for(secs(1)).await;
    }
    peer.error(&id, json!([{"message": "no more"}])).await;
    for reader in &mut readers {
        let SubscriptionError::Rejected(errors) = end(reader).await else { panic!() };
        assert_eq!(errors[0].message, "no more");
    }
    drop(readers);
    peer.expect_nothing_for(secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_not_read_keeps_nobody_from_beginning_anew() {
    let server = Server::in_memory();
    let (client, mut unread, mut peer, id) = shared(&server, 1).await;
    publish(&mut peer, &id, [1]).await;
    peer.complete(&id).await;
    peer.sync().await;
    let mut anew = share(&client, "a");
    let again = peer.expect_subscribe().await.id;
    publish(&mut peer, &again, [2]).await;
    assert_eq!(item(&mut unread[0]).await, 1);
    assert!(event(&mut unread[0]).await.is_none());
    assert_eq!(item(&mut anew).await, 2);
    drop(unread);
    publish(&mut peer, &again, [3]).await;
    assert_eq!(item(&mut anew).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_fatal_loss_a_client_that_gives_up_and_a_shutdown_end_every_reader() {
    let server = Server::in_memory();
    let client = builder(&server).refusal_grace(Duration::ZERO).build().unwrap();
    let mut readers = [(); 3].map(|()| share(&client, "a"));
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    peer.close(1002, "no").await;
    for reader in &mut readers {
        assert!(matches!(end(reader).await, SubscriptionError::Lost(_)));
    }

    let server = Server::in_memory();
    server.offline();
    let client = builder(&server).give_up_after(2).build().unwrap();
    let mut readers = [share(&client, "a"), share(&client, "a")];
    for reader in &mut readers {
        assert!(matches!(end(reader).await, SubscriptionError::GaveUp { attempts: 2, .. }));
    }

    let server = Server::in_memory();
    let (client, mut readers, mut peer, id) = shared(&server, 3).await;
    let shutdown = tokio::spawn(client.clone().shutdown(secs(1)));
    assert_eq!(peer.expect_complete().await, id);
    for reader in &mut readers {
        assert!(matches!(end(reader).await, SubscriptionError::ShutDown));
    }
    drop(peer);
    shutdown.await.unwrap();
    assert!(matches!(client.subscribe_shared_to(request("a")), Err(SubscribeError::ShutDown)));
}

#[test]
fn every_reader_ends_with_the_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let server = Server::in_memory();
    let (_client, readers, _peer, _) = runtime.block_on(shared(&server, 3));
    drop(runtime);
    for mut reader in readers {
        let end = futures::executor::block_on(reader.next());
        assert!(matches!(end, Some(Err(SubscriptionError::RuntimeGone))), "{end:?}");
    }
}

/// A server that gives each operation one item and completes it, and readers on other threads:
/// whoever joins gets that end, or is the first of the next one.
#[test]
fn a_reader_that_joins_while_the_operation_ends_gets_its_end_or_the_next_operation() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = Server::in_memory();
    let client = runtime.block_on(async { client(&server) });
    let serving = runtime.spawn(async move {
        let mut peer = connected(&server).await;
        while let Some(message) = peer.next_message().await {
            if message["type"] == "subscribe" {
                let id = message["id"].as_str().unwrap();
                peer.next(id, data(1)).await;
                peer.complete(id).await;
            }
        }
    });
    let threads = [(); 4].map(|()| {
        let client = client.clone();
        std::thread::spawn(move || {
            let mut seen = 0;
            for n in 0..400 {
                let mut reader = options(&client).replay_last().start().unwrap();
                if n % 5 == 0 {
                    // The last one may be this one, or not.
                    continue;
                }
                let read = async { tokio::time::timeout(secs(30), reader.next()).await };
                match client_runtime().block_on(read).expect("it hangs") {
                    Some(Ok(Event::Next(item))) => {
                        assert_eq!(item.data, Some(json!(1)));
                        seen += 1;
                        let end = client_runtime().block_on(reader.next());
                        assert!(end.is_none(), "{end:?}");
                    }
                    other => {
                        panic!("a reader that joins a live operation gets its last item: {other:?}")
                    }
                }
            }
            seen
        })
    });
    let seen = threads.map(|thread| thread.join().unwrap());
    assert_eq!(seen, [320; 4]);
    assert_eq!(runtime.block_on(async { client.stats().queued_items }), 0);
    drop(client);
    runtime.block_on(serving).unwrap();
}

/// A clock of this thread's own.
fn client_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}
