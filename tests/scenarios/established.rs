//! Waiting until the server has read a subscription.

use futures::future::join_all;
use resub::{Overflow, Subprotocol};

use super::*;

fn on(server: &Server, subprotocol: Subprotocol) -> Client {
    builder(server).subprotocol(subprotocol).ping_interval(None).build().unwrap()
}

/// A task may wait for it.
fn is_send<T: Send>(future: T) -> T {
    future
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_established_by_the_answer_to_a_ping_behind_it() {
    let server = Server::in_memory();
    let client = on(&server, Subprotocol::GraphqlTransportWs);
    let mut stream = subscribe(&client, "a");
    let waits = tokio::spawn(is_send(async move { (stream.established().await, stream) }));
    let mut peer = connected(&server).await;
    peer.auto_pong(false);
    let id = peer.expect_subscribe().await.id;
    let ping = peer.expect_ping().await;
    settle().await;
    assert!(!waits.is_finished());
    peer.pong(ping).await;
    let (established, mut stream) = waits.await.unwrap();
    established.unwrap();
    // Known by now, and asked of nobody.
    timeout(secs(5), stream.established()).await.unwrap().unwrap();
    peer.expect_nothing_for(secs(60)).await;
    peer.next(&id, data(1)).await;
    assert_eq!(item(&mut stream).await, 1);
}

#[tokio::test(start_paused = true)]
async fn on_legacy_the_ping_is_a_websocket_frame() {
    let server = Server::in_memory();
    let client = on(&server, Subprotocol::GraphqlWs);
    let mut stream = subscribe(&client, "a");
    let waits = tokio::spawn(async move { stream.established().await });
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    settle().await;
    assert!(!waits.is_finished(), "nothing was read behind the subscription");
    peer.expect_ws_ping().await;
    waits.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_item_is_as_good_as_a_pong_and_stays_to_be_read() {
    for subprotocol in [Subprotocol::GraphqlTransportWs, Subprotocol::GraphqlWs] {
        let server = Server::in_memory();
        let client = on(&server, subprotocol);
        let mut stream = subscribe(&client, "a");
        let waits = tokio::spawn(async move { (stream.established().await, stream) });
        let mut peer = connected(&server).await;
        peer.auto_pong(false);
        let id = peer.expect_subscribe().await.id;
        peer.next(&id, data(1)).await;
        let (established, mut stream) = waits.await.unwrap();
        established.unwrap();
        assert_eq!(item(&mut stream).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_subscription_is_not_established_and_its_stream_says_so_too() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = live(&server).await;
    peer.next(&id, data(1)).await;
    peer.error(&id, json!([{"message": "no such field"}])).await;
    peer.sync().await;
    for _ in 0..2 {
        let error = stream.established().await.unwrap_err();
        let SubscriptionError::Rejected(errors) = &error else { panic!("{error:?}") };
        assert_eq!(errors[0].message, "no such field");
    }
    assert_eq!(item(&mut stream).await, 1);
    assert!(matches!(end(&mut stream).await, SubscriptionError::Rejected(_)));
    assert!(
        matches!(stream.established().await, Err(SubscriptionError::Rejected(_))),
        "after its end was read, too"
    );
}

#[tokio::test(start_paused = true)]
async fn a_completed_subscription_was_established() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = live(&server).await;
    let waits = tokio::spawn(async move { (stream.established().await, stream) });
    settle().await;
    peer.auto_pong(false);
    peer.complete(&id).await;
    let (established, mut stream) = waits.await.unwrap();
    established.unwrap();
    assert!(event(&mut stream).await.is_none());
    stream.established().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_shut_down_or_gives_up_establishes_nothing() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, _) = live(&server).await;
    let waits = tokio::spawn(async move { stream.established().await });
    settle().await;
    peer.auto_pong(false);
    drop(peer);
    server.offline();
    settle().await;
    client.shutdown(secs(1)).await;
    assert!(matches!(waits.await.unwrap(), Err(SubscriptionError::ShutDown)));

    let client = builder(&server).give_up_after(2).build().unwrap();
    let mut stream = subscribe(&client, "a");
    assert!(matches!(
        stream.established().await,
        Err(SubscriptionError::GaveUp { attempts: 2, .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_a_connection_and_across_a_loss_for_the_next_one() {
    let server = Server::in_memory();
    server.offline();
    let client = client(&server);
    let mut stream = subscribe(&client, "a");
    let waits = tokio::spawn(async move { (stream.established().await, stream) });
    tokio::time::sleep(secs(60)).await;
    assert!(!waits.is_finished());
    server.online();
    let mut peer = connected(&server).await;
    peer.auto_pong(false);
    peer.expect_subscribe().await;
    peer.expect_ping().await;
    peer.vanish();
    let mut peer = connected(&server).await;
    peer.auto_pong(false);
    peer.expect_subscribe().await;
    let ping = peer.expect_ping().await;
    settle().await;
    assert!(!waits.is_finished());
    peer.pong(ping).await;
    let (established, mut stream) = waits.await.unwrap();
    established.unwrap();
    assert_eq!(gap(&mut stream).await.reconnects, 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_that_wait_at_once_are_answered_by_one_ping() {
    let server = Server::in_memory();
    let client = on(&server, Subprotocol::GraphqlTransportWs);
    let mut streams: Vec<_> = (0..10_000).map(|_| subscribe(&client, "a")).collect();
    let mut peer = connected(&server).await;
    peer.auto_pong(false);
    let waits = tokio::spawn(async move {
        let established = join_all(streams.iter_mut().map(Subscription::established)).await;
        (established, streams)
    });
    peer.expect_subscribes(10_000).await;
    let ping = peer.expect_ping().await;
    peer.pong(ping).await;
    let (established, _streams) = waits.await.unwrap();
    assert!(established.iter().all(Result::is_ok));
    peer.expect_nothing_for(secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn giving_up_waiting_loses_nothing() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = live(&server).await;
    peer.auto_pong(false);
    assert!(timeout(secs(1), stream.established()).await.is_err());
    peer.next(&id, data(1)).await;
    peer.sync().await;
    assert_eq!(item(&mut stream).await, 1);
    let ping = peer.expect_ping().await;
    peer.pong(ping).await;
    timeout(secs(1), stream.established()).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_does_not_wait_for_itself() {
    for overflow in [Overflow::Block, Overflow::Rewind] {
        let server = Server::in_memory();
        let client = client(&server);
        let options = client
            .subscription_to(request("a").variables(&json!({})))
            .overflow(overflow)
            .capacity(items(2));
        let mut stream = options.resume_with(|_, _| {}).start().unwrap();
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        for n in 0..3 {
            peer.next(&id, data(n)).await;
        }
        settle().await;
        peer.auto_pong(false);
        timeout(secs(5), stream.established())
            .await
            .expect("full, so something has arrived")
            .unwrap();
    }
}

/// The request for proof is behind many others, and the item for which there is no room arrives
/// before it is heard.
#[tokio::test(start_paused = true)]
async fn who_begins_to_wait_while_its_mailbox_is_full_does_not_wait_for_itself_either() {
    let server = Server::in_memory();
    let client = client(&server);
    let options = client.subscription_to(request("a").variables(&json!({})));
    let mut stream = options
        .overflow(Overflow::Rewind)
        .capacity(items(2))
        .resume_with(|_, _| {})
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(0)).await;
    peer.next(&id, data(1)).await;
    peer.sync().await;
    peer.auto_pong(false);
    let waits = tokio::spawn(async move {
        for _ in 0..300 {
            client.resume();
        }
        stream.established().await
    });
    peer.next(&id, data(2)).await;
    // Around the task, as a timeout within it would wake it.
    let established = timeout(secs(5), waits).await.expect("full, so something has arrived");
    established.unwrap().unwrap();
}

/// Both subprotocols allow a server to send pongs of its own accord.
#[tokio::test(start_paused = true)]
async fn a_pong_that_answers_nothing_establishes_nothing_and_the_answer_does() {
    for subprotocol in [Subprotocol::GraphqlTransportWs, Subprotocol::GraphqlWs] {
        // Before the operation is there, or between it and the answer.
        for is_early in [true, false] {
            for payload in [None, Some(json!({"server": "time"})), Some(json!({"n": 99}))] {
                let server = Server::in_memory();
                let client = on(&server, subprotocol);
                let (connection, mut peer) = futures::join!(client.connect(), connected(&server));
                connection.unwrap();
                peer.auto_pong(false);
                if is_early {
                    beat(&mut peer, subprotocol, payload.as_ref()).await;
                    settle().await;
                }
                let mut stream = subscribe(&client, "a");
                let waits = tokio::spawn(async move { stream.established().await });
                settle().await;
                if !is_early {
                    beat(&mut peer, subprotocol, payload.as_ref()).await;
                }
                // The server reads nothing meanwhile: neither the operation nor the ping behind it.
                tokio::time::sleep(secs(5)).await;
                assert!(!waits.is_finished(), "{subprotocol:?}, {is_early}, {payload:?}");
                peer.expect_subscribe().await;
                peer.auto_pong(true);
                let established = timeout(secs(1), peer.serve_while(waits)).await;
                let case = format!("{subprotocol:?}, {is_early}, {payload:?}: {established:?}");
                assert!(matches!(established, Ok(Ok(Ok(())))), "{case}");
            }
        }
    }
}

/// A pong that nobody asked for, of the kind that answers pings on this subprotocol.
async fn beat(peer: &mut Peer, subprotocol: Subprotocol, payload: Option<&Value>) {
    match subprotocol {
        Subprotocol::GraphqlWs => {
            let body = payload.map(Value::to_string).unwrap_or_default();
            let head = [0x8a, u8::try_from(body.len()).unwrap()];
            peer.send_raw_frame_bytes(&[&head[..], body.as_bytes()].concat()).await;
        }
        Subprotocol::GraphqlTransportWs => peer.pong(payload.cloned()).await,
    }
}
