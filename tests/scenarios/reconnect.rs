//! A connection goes, the streams stay.

use resub::{CloseCode, Disconnect, mock::Upgrade};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_subscription_continues_after_a_gap_when_the_server_vanishes() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = client.subscribe_to(request("a").variables(&json!({"n": 1}))).unwrap();
    let mut peer = connected(&server).await;
    let first = peer.expect_subscribe().await;
    peer.next(&first.id, data(1)).await;
    assert_eq!(item(&mut stream).await, 1);

    peer.vanish();
    let mut peer = connected(&server).await;
    let again = peer.expect_subscribe().await;
    assert_eq!((&again.query, &again.variables), (&first.query, &first.variables));
    assert_ne!(again.id, first.id);
    peer.next(&again.id, data(2)).await;
    let gap = gap(&mut stream).await;
    assert_eq!((gap.reconnects, gap.dropped), (1, 0));
    assert!(
        gap.down_for >= Duration::from_millis(500)
            && matches!(gap.cause, Some(Disconnect::Reset(_))),
        "{gap:?}"
    );
    assert_eq!(item(&mut stream).await, 2);

    drop(stream);
    assert_eq!(peer.expect_complete().await, again.id);
}

#[tokio::test(start_paused = true)]
async fn items_that_wait_are_read_before_the_gap_and_the_gap_before_what_follows() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = live(&server).await;
    for n in 1..=3 {
        peer.next(&id, data(n)).await;
    }
    peer.sync().await;
    peer.vanish();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(4)).await;
    peer.complete(&id).await;
    for n in 1..=3 {
        assert_eq!(item(&mut stream).await, n);
    }
    assert_eq!(gap(&mut stream).await.reconnects, 1);
    assert_eq!(item(&mut stream).await, 4);
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn reconnects_that_nobody_read_are_one_gap() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, _) = live(&server).await;
    for _ in 0..3 {
        peer.vanish();
        peer = connected(&server).await;
        peer.expect_subscribe().await;
    }
    assert_eq!(gap(&mut stream).await.reconnects, 3);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_subscriptions_are_issued_again_exactly_once_and_in_order() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut streams: Vec<_> = (0..1_000).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let mut peer = connected(&server).await;
    let first = peer.expect_subscribes(1_000).await;
    peer.vanish();
    server.offline();
    server.dialed(4).await;
    server.online();

    let mut peer = connected(&server).await;
    let again = peer.expect_subscribes(1_000).await;
    let queries = |subscribes: &[resub::mock::Subscribe]| {
        subscribes.iter().map(|s| s.query.clone()).collect::<Vec<_>>()
    };
    assert_eq!(queries(&again), queries(&first));
    peer.expect_nothing_for(secs(3)).await;
    for (stream, subscribe) in streams.iter_mut().zip(&again) {
        peer.next(&subscribe.id, data(subscribe.query.clone())).await;
        assert_eq!(gap(stream).await.reconnects, 1);
        assert_eq!(item(stream).await, subscribe.query);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_with_1000_and_live_operations_is_retried_with_growing_delays() {
    let server = Server::in_memory();
    let client = client(&server);
    let _stream = subscribe(&client, "a");
    let started = Instant::now();
    for _ in 0..20 {
        let mut peer = connected(&server).await;
        peer.expect_subscribe().await;
        peer.send_close(1000, "bye").await;
    }
    // The hot loop of other clients is thousands of connections a second.
    assert!(started.elapsed() > secs(60), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_noticed_within_interval_and_timeout() {
    let server = Server::in_memory();
    let (client, mut stream, peer, _) = live(&server).await;
    let since = Instant::now();
    let silence = peer.go_silent();
    until(&client, |status| {
        matches!(status, Status::Waiting { cause: Some(Disconnect::Silent(_)), .. })
    })
    .await;
    assert!(since.elapsed() <= secs(20), "{:?}", since.elapsed());
    drop(silence);
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    assert!(matches!(gap(&mut stream).await.cause, Some(Disconnect::Silent(_))));
}

#[tokio::test(start_paused = true)]
async fn a_large_item_on_a_slow_link_is_no_silence() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = live(&server).await;
    let text = json!({"type": "next", "id": id, "payload": data("x".repeat(60_000))}).to_string();
    let mut frame = vec![0x81, 126];
    frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend(text.into_bytes());
    // A minute and more for one item, and no pong meanwhile.
    for part in frame.chunks(frame.len() / 15) {
        timeout(secs(5), std::future::pending::<()>()).await.unwrap_err();
        peer.send_raw_frame_bytes(part).await;
    }
    assert_eq!(item(&mut stream).await.as_str().map(str::len), Some(60_000));
    assert_eq!(client.stats().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_connection_that_fails_is_retried_and_is_no_gap() {
    let server = Server::in_memory();
    server.refuse_dials(5);
    let (_client, mut stream, mut peer, id) = live(&server).await;
    assert_eq!(server.dials(), 6);
    peer.next(&id, data(1)).await;
    assert_eq!(item(&mut stream).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_subscribed_or_dropped_during_an_outage_is_taken_into_account() {
    let server = Server::in_memory();
    let (client, mut kept, peer, _) = live(&server).await;
    let dropped = subscribe(&client, "b");
    server.offline();
    peer.vanish();
    server.dialed(3).await;
    drop(dropped);
    let mut new = subscribe(&client, "c");
    server.online();
    let mut peer = connected(&server).await;
    let subscribes = peer.expect_subscribes(2).await;
    assert!(subscribes[0].query.contains("{ a }") && subscribes[1].query.contains("{ c }"));
    peer.next(&subscribes[0].id, data(1)).await;
    peer.next(&subscribes[1].id, data(2)).await;
    gap(&mut kept).await;
    assert_eq!((item(&mut kept).await, item(&mut new).await), (1.into(), 2.into()));
}

#[tokio::test(start_paused = true)]
async fn nobody_dials_for_nothing() {
    let server = Server::in_memory();
    let client = client(&server);
    server.expect_no_dial_for(secs(60)).await;
    server.offline();
    let stream = subscribe(&client, "a");
    server.dialed(2).await;
    drop(stream);
    until(&client, |status| matches!(status, Status::Idle)).await;
    server.expect_no_dial_for(secs(600)).await;
}

#[tokio::test(start_paused = true)]
async fn subscribing_and_dropping_in_a_loop_is_no_dial_storm() {
    let server = Server::in_memory();
    let client = client(&server);
    server.offline();
    let started = Instant::now();
    let mut dials = 0;
    while started.elapsed() < secs(10) {
        let _stream = subscribe(&client, "a");
        dials += 1;
        let _ = timeout(Duration::from_millis(1), server.dialed(u64::MAX)).await;
    }
    assert!(
        dials > 5_000 && server.dials() < 15,
        "{dials} subscriptions, {} dials",
        server.dials()
    );
}

#[tokio::test(start_paused = true)]
async fn reconnect_now_ends_the_wait() {
    let server = Server::in_memory();
    let (client, _stream, peer, _) = live(&server).await;
    peer.vanish();
    until(&client, |status| matches!(status, Status::Waiting { .. })).await;
    let since = Instant::now();
    client.reconnect_now();
    server.dialed(2).await;
    assert!(since.elapsed() < Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn giving_up_ends_every_stream_and_the_client_stays_usable() {
    let server = Server::in_memory();
    let client = builder(&server).give_up_after(3).build().unwrap();
    server.refuse_dials(3);
    let (mut a, mut b) = (subscribe(&client, "a"), subscribe(&client, "b"));
    for stream in [&mut a, &mut b] {
        let error = end(stream).await;
        assert!(matches!(error, SubscriptionError::GaveUp { attempts: 3, .. }), "{error:?}");
        assert!(text(&error).contains("refused"), "{}", text(&error));
    }
    let mut c = subscribe(&client, "c");
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(1)).await;
    assert_eq!(item(&mut c).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_fatal_close_ends_every_stream_with_the_servers_words_and_the_client_stays_usable() {
    let server = Server::in_memory();
    let client = builder(&server).refusal_grace(Duration::ZERO).build().unwrap();
    let mut stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    peer.send_close(4400, "Invalid message").await;
    assert_eq!(peer.expect_close().await.0, 4400, "a close is answered");
    let error = end(&mut stream).await;
    let Some(Disconnect::Closed { code: CloseCode::BAD_REQUEST, reason }) = error.disconnect()
    else {
        panic!("{error:?}")
    };
    assert_eq!(reason, "Invalid message");
    let _again = subscribe(&client, "b");
    connected(&server).await.expect_subscribe().await;
}

#[tokio::test(start_paused = true)]
async fn the_legacy_subprotocol_survives_as_well() {
    let server = Server::in_memory();
    let client = builder(&server).subprotocol(resub::Subprotocol::GraphqlWs).build().unwrap();
    let mut stream = subscribe(&client, "a");
    for n in 1..=3 {
        let mut peer = server.accept_with(Upgrade::new()).await.expect_init().await.ack().await;
        peer.keep_alive().await;
        let id = peer.expect_subscribe().await.id;
        peer.next(&id, data(n)).await;
        if n > 1 {
            assert_eq!(gap(&mut stream).await.reconnects, 1);
        }
        assert_eq!(item(&mut stream).await, n);
        if n == 3 {
            peer.complete(&id).await;
            assert!(stream.next().await.is_none());
        } else {
            peer.vanish();
        }
    }
}
