//! The connection by the application's wish: made, paused, replaced, probed, and closed when nobody
//! uses it.

use std::num::NonZeroU32;

use resub::{CallError, Disconnect, NotConnected, Verdict};

use super::*;

#[tokio::test(start_paused = true)]
async fn connect_waits_for_the_acknowledgement_and_says_why_there_is_none() {
    let server = Server::in_memory();
    let client = client(&server);
    server.refuse_dials(2);
    let (connected, peer) = futures::join!(client.connect(), connected(&server));
    assert!(connected.is_ok() && matches!(*client.status().borrow(), Status::Open { .. }));
    assert!(client.connect().await.is_ok(), "at once");
    drop(peer);

    let server = Server::in_memory();
    let rejected = builder(&server).build().unwrap();
    let refuse = async {
        for _ in 0..2 {
            server.accept().await.expect_init().await.close(4403, "Forbidden").await;
        }
    };
    let (error, ()) = futures::join!(rejected.connect(), refuse);
    let error = error.unwrap_err();
    assert!(matches!(error, NotConnected::Lost(Disconnect::Closed { .. })), "{error:?}");
    assert!(text(&error).contains("Forbidden"));
    server.expect_no_dial_for(secs(600)).await;
    let hasty = builder(&server).give_up_after(2).build().unwrap();
    server.refuse_dials(2);
    assert!(matches!(hasty.connect().await, Err(NotConnected::GaveUp { attempts: 2, .. })));
    rejected.clone().shutdown(secs(1)).await;
    assert!(matches!(rejected.connect().await, Err(NotConnected::ShutDown)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_uses_is_closed_with_1000_and_made_again_when_it_is_needed() {
    let server = Server::in_memory();
    let (client, stream, mut peer, id) = live(&server).await;
    drop(stream);
    assert_eq!(peer.expect_complete().await, id);
    let closed = Instant::now();
    assert_eq!(peer.expect_close().await.0, 1000);
    assert_eq!(closed.elapsed().as_secs(), 30);
    until(&client, |status| matches!(status, Status::Idle)).await;
    server.expect_no_dial_for(secs(600)).await;
    let mut again = subscribe(&client, "b");
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(1)).await;
    assert_eq!(item(&mut again).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_keeps_the_streams_and_a_resume_goes_on_with_a_gap() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = live(&server).await;
    peer.next(&id, data(1)).await;
    peer.sync().await;
    client.pause();
    assert_eq!(peer.expect_close().await.0, 1000);
    until(&client, |status| matches!(status, Status::Paused)).await;
    let mut second = subscribe(&client, "b");
    let waiting = client.query_with(Request::<Value>::new("{ q }")).timeout(secs(5));
    assert!(matches!(waiting.await, Err(CallError::Timeout(_))));
    server.expect_no_dial_for(secs(600)).await;
    client.resume();
    let mut peer = connected(&server).await;
    let [first_id, second_id] =
        <[_; 2]>::try_from(peer.expect_subscribes(2).await).unwrap().map(|subscribe| subscribe.id);
    peer.next(&first_id, data(2)).await;
    peer.next(&second_id, data(3)).await;
    assert_eq!(item(&mut stream).await, 1);
    let announced = gap(&mut stream).await;
    assert!(
        matches!(announced.cause, Some(Disconnect::Requested)) && announced.down_for >= secs(600),
        "{announced:?}"
    );
    assert_eq!((item(&mut stream).await, item(&mut second).await), (json!(2), json!(3)));
}

#[tokio::test(start_paused = true)]
async fn reconnect_now_replaces_the_connection_and_the_budget_bounds_even_that() {
    let server = Server::in_memory();
    let client = builder(&server).max_dials(NonZeroU32::new(2).unwrap(), secs(60)).build().unwrap();
    let mut stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    let begun = Instant::now();
    client.reconnect_now();
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    assert_eq!(gap(&mut stream).await.reconnects, 1);
    assert!(begun.elapsed() < secs(1));
    for _ in 0..10 {
        client.reconnect_now();
        settle().await;
    }
    peer.expect_nothing_for(secs(5)).await;
    assert_eq!(client.stats().dials, 2, "better the connection that there is than none");
    // A loss waits for the budget, too.
    peer.vanish();
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    assert!(begun.elapsed() >= secs(59), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_found_at_once_when_the_network_changes() {
    let server = Server::in_memory();
    let (client, mut stream, peer, _) = live(&server).await;
    let silent = peer.go_silent();
    let begun = Instant::now();
    client.network_changed();
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    let announced = gap(&mut stream).await;
    assert!(matches!(announced.cause, Some(Disconnect::Silent(_))), "{announced:?}");
    assert!(begun.elapsed() < secs(5), "{:?}", begun.elapsed());
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn one_hook_overrides_any_verdict() {
    let server = Server::in_memory();
    let client = builder(&server)
        .on_disconnect(|cause, _| match cause {
            Disconnect::Closed { code, .. } if code.0 == 4403 => Verdict::Retry,
            Disconnect::Closed { code, .. } if code.0 == 4999 => Verdict::Fatal,
            _ => Verdict::Default,
        })
        .build()
        .unwrap();
    let mut stream = subscribe(&client, "a");
    for _ in 0..3 {
        let mut peer = connected(&server).await;
        peer.expect_subscribe().await;
        peer.close(4403, "not now").await;
    }
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    peer.close(4999, "never").await;
    assert_eq!(gap(&mut stream).await.reconnects, 3);
    assert!(matches!(end(&mut stream).await, SubscriptionError::Lost(Disconnect::Closed { .. })));
}
