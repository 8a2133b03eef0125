//! What the application wants of the connections, all of them.

use resub::NotConnected;

use super::*;

#[tokio::test(start_paused = true)]
async fn connect_makes_all_connections_and_says_if_one_is_not_to_be_had() {
    let server = Server::in_memory();
    let client = spread(&server, 3);
    let (connected, peers) = futures::join!(client.connect(), connect_all(&server, 3));
    assert!(connected.is_ok());
    assert_eq!((peers.len(), client.stats().connections_open, server.dials()), (3, 3, 3));
    assert!(client.connect().await.is_ok(), "at once");

    let hasty = builder(&server).connections(items(2)).give_up_after(1).build().unwrap();
    server.refuse_dials(1);
    let (result, _peer) = futures::join!(hasty.connect(), super::connected(&server));
    assert!(matches!(result, Err(NotConnected::GaveUp { attempts: 1, .. })), "{result:?}");
    hasty.clone().shutdown(secs(1)).await;
    assert!(matches!(hasty.connect().await, Err(NotConnected::ShutDown)));
}

#[tokio::test(start_paused = true)]
async fn a_pause_reaches_every_connection_and_those_that_are_made_later() {
    let server = Server::in_memory();
    let client = spread(&server, 3);
    let mut streams: Vec<_> = (0..2).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let mut peers = connect_all(&server, 2).await;
    for peer in &mut peers {
        carried(peer, 1).await;
    }
    client.pause();
    for peer in &mut peers {
        assert_eq!(peer.expect_close().await.0, 1000);
    }
    until(&client, |status| matches!(status, Status::Paused)).await;
    streams.push(subscribe(&client, "s2"));
    server.expect_no_dial_for(secs(600)).await;
    assert!(matches!(*client.status().borrow(), Status::Paused));
    client.resume();
    let mut peers = connect_all(&server, 3).await;
    for peer in &mut peers {
        carried(peer, 1).await;
    }
    for stream in &mut streams[..2] {
        assert!(matches!(gap(stream).await.cause, Some(Disconnect::Requested)));
    }
    until(&client, |status| matches!(status, Status::Open { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn reconnect_now_is_one_dial_for_each_connection() {
    let server = Server::in_memory();
    let client = spread(&server, 4);
    let mut streams: Vec<_> = (0..3).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let mut peers = connect_all(&server, 3).await;
    for peer in &mut peers {
        carried(peer, 1).await;
    }
    client.reconnect_now();
    let mut again = connect_all(&server, 3).await;
    for peer in &mut again {
        carried(peer, 1).await;
    }
    for stream in &mut streams {
        assert_eq!(gap(stream).await.reconnects, 1);
    }
    server.expect_no_dial_for(secs(5)).await;
    assert_eq!(server.dials(), 6, "the one without operations had nothing to replace");
}

#[tokio::test(start_paused = true)]
async fn half_open_connections_are_found_at_once_when_the_network_changes() {
    let server = Server::in_memory();
    let client = spread(&server, 2);
    let mut streams: Vec<_> = (0..2).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let silent: Vec<_> = connect_all(&server, 2).await.into_iter().map(Peer::go_silent).collect();
    let begun = Instant::now();
    settle().await;
    client.network_changed();
    let mut again = connect_all(&server, 2).await;
    for peer in &mut again {
        carried(peer, 1).await;
    }
    for stream in &mut streams {
        assert!(matches!(gap(stream).await.cause, Some(Disconnect::Silent(_))));
    }
    assert!(begun.elapsed() < secs(5), "{:?}", begun.elapsed());
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_all_connections_within_one_deadline() {
    let server = Server::in_memory();
    let client = spread(&server, 4);
    let mut streams: Vec<_> = (0..3).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let mut peers = connect_all(&server, 3).await;
    for peer in &mut peers {
        carried(peer, 1).await;
    }
    // One answers, one does not, one is away.
    let [mut polite, silent, gone] = <[Peer; 3]>::try_from(peers).unwrap();
    let _silence = silent.go_silent();
    server.offline();
    gone.vanish();
    until(&client, |status| matches!(status, Status::Waiting { .. })).await;
    let (clone, begun) = (client.clone(), Instant::now());
    let peer_side = async {
        polite.expect_complete().await;
        assert_eq!(polite.expect_close().await.0, 1000);
        polite.expect_end().await;
    };
    tokio::join!(client.shutdown(secs(2)), peer_side);
    assert!(begun.elapsed() >= secs(2) && begun.elapsed() < secs(3), "{:?}", begun.elapsed());
    for stream in &mut streams {
        while let Some(event) = event(stream).await {
            assert!(
                matches!(event, Ok(Event::Gap(_)) | Err(SubscriptionError::ShutDown)),
                "{event:?}"
            );
        }
    }
    assert!(matches!(*clone.status().borrow(), Status::Ended));
    assert!(matches!(clone.subscribe_to(request("s9")), Err(resub::SubscribeError::ShutDown)));
    assert_eq!((clone.stats().connections_open, clone.stats().live_operations), (0, 0));
    clone.shutdown(secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_client_is_dropped_each_connection_closes_with_its_last_stream() {
    let server = Server::in_memory();
    let client = spread(&server, 3);
    let mut streams: Vec<_> = (0..2).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let mut peers = connect_all(&server, 2).await;
    for peer in &mut peers {
        carried(peer, 1).await;
    }
    let mut status = client.status();
    drop(client);
    for peer in &mut peers {
        peer.expect_nothing_for(secs(1)).await;
    }
    while let Some(stream) = streams.pop() {
        drop(stream);
        let mut peer = peers.pop().unwrap();
        peer.expect_complete().await;
        assert_eq!(peer.expect_close().await.0, 1000);
        for peer in &mut peers {
            peer.expect_nothing_for(secs(1)).await;
        }
    }
    assert!(matches!(
        *status.wait_for(|status| matches!(status, Status::Ended)).await.unwrap(),
        Status::Ended
    ));
    assert!(status.changed().await.is_err(), "nothing will follow");
}
