//! From the socket to the reader: order, wake-ups and the typed end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::StreamExt;
use resub::{Operation, SubscribeError};

use super::*;

#[tokio::test(start_paused = true)]
async fn items_arrive_in_order_and_the_stream_ends_when_the_server_completes() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = live(&server).await;
    for n in 0..100 {
        peer.next(&id, data(n)).await;
    }
    peer.complete(&id).await;
    for n in 0..100 {
        assert_eq!(item(&mut stream).await, n);
    }
    assert!(stream.next().await.is_none());
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rejection_ends_the_stream_with_the_servers_errors_however_they_are_spelled() {
    for payload in [
        json!([{
            "message": "no such field",
            "locations": [{"line": 1, "column": 2}],
            "path": ["a", 0],
            "extensions": {"code": "X"},
        }]),
        json!({"message": "no such field"}),
        json!({"errors": [{"message": "no such field"}]}),
    ] {
        let server = Server::in_memory();
        let (_client, mut stream, mut peer, id) = live(&server).await;
        peer.error(&id, payload).await;
        let error = end(&mut stream).await;
        assert_eq!(error.to_string(), "the server rejected the operation: no such field");
    }
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = live(&server).await;
    peer.error(&id, json!([])).await;
    assert!(
        matches!(end(&mut stream).await, SubscriptionError::Rejected(errors) if errors.is_empty())
    );
}

#[tokio::test(start_paused = true)]
async fn errors_next_to_data_and_items_that_do_not_decode_do_not_end_the_stream() {
    #[derive(Debug)]
    struct Number;
    impl Operation for Number {
        type Data = u32;
        fn payload(&self) -> Result<Box<serde_json::value::RawValue>, serde_json::Error> {
            serde_json::value::to_raw_value(&json!({"query": "subscription { n }"}))
        }
    }
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = client.subscribe_to(Number).unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(
        &id,
        json!({"data": 1, "errors": [{"message": "partial"}], "extensions": {"cost": 2}}),
    )
    .await;
    peer.next(&id, json!({"data": "one", "errors": [{"message": "why"}]})).await;
    peer.next(&id, json!({"errors": [{"message": "only errors"}]})).await;
    peer.next(&id, json!({"data": 2})).await;

    let Some(Ok(Event::Next(response))) = stream.next().await else { panic!() };
    assert_eq!((response.data, response.errors[0].message.as_str()), (Some(1), "partial"));
    assert_eq!(response.extensions.unwrap()["cost"], 2);
    let Some(Err(error @ SubscriptionError::Decode(_))) = stream.next().await else { panic!() };
    assert!(!error.is_terminal());
    assert!(
        text(&error).contains("why") && text(&error).contains("invalid type"),
        "{}",
        text(&error)
    );

    let mut data = stream.data();
    let Some(Err(SubscriptionError::NoData(errors))) = data.next().await else { panic!() };
    assert_eq!(errors.len(), 1);
    assert!(matches!(data.next().await, Some(Ok(2))));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_polled_delays_no_sibling_and_no_pong() {
    let server = Server::in_memory();
    let (client, unread, mut peer, unread_id) = live(&server).await;
    let mut read = subscribe(&client, "b");
    let read_id = peer.expect_subscribe().await.id;
    for n in 0..5_000 {
        peer.next(&unread_id, data(n)).await;
        if n % 100 == 0 {
            peer.next(&read_id, data(n)).await;
            let got = timeout(secs(1), peer.serve_while(item(&mut read))).await;
            assert_eq!(got.expect("the sibling is not delayed"), n);
            peer.ping(Some(json!({"n": n}))).await;
            assert_eq!(
                timeout(secs(1), peer.expect_pong()).await.expect("nor the pong"),
                Some(json!({"n": n}))
            );
        }
    }
    peer.sync().await;
    let stats = client.stats();
    assert_eq!((stats.dropped, stats.queued_items), (5_000 - 1_024, 1_024));
    drop(unread);
    assert_eq!(client.stats().queued_items, 0);
}

#[tokio::test(start_paused = true)]
async fn odd_messages_cost_nothing_but_a_count() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = live(&server).await;
    peer.send_text("garbage").await;
    peer.send_json(json!({"type": "novelty", "id": id})).await;
    peer.next("someone else's", data(1)).await;
    peer.send_json(json!({"type": "error", "payload": {"message": "of no operation"}})).await;
    peer.send_binary(&[0xff, 0xfe]).await;
    let binary =
        json!({"id": id, "payload": {"data": 2}, "type": "next", "extra": null}).to_string();
    peer.send_binary(binary.as_bytes()).await;
    assert_eq!(item(&mut stream).await, 2);
    assert_eq!(client.stats().ignored, 5);
}

#[tokio::test(start_paused = true)]
async fn a_message_above_the_limit_closes_with_1009_and_ends_everything() {
    let server = Server::in_memory();
    let client = builder(&server).max_message_size(2_000).build().unwrap();
    let mut stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data("x".repeat(3_000))).await;
    let error = end(&mut stream).await;
    assert!(text(&error).contains("above the limit of 2000 bytes"), "{}", text(&error));
    assert_eq!(peer.expect_close().await.0, 1009);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_refused_at_once() {
    let server = Server::in_memory();
    let client = builder(&server).max_message_size(2_000).build().unwrap();
    let refused = |request: Request<Value>| client.subscribe_to(request).unwrap_err();
    assert!(matches!(refused(Request::new("mutation M { buy }")), SubscribeError::Mutation));
    let large = refused(request("a").variables(&json!({"v": "x".repeat(3_000)})));
    assert!(matches!(large, SubscribeError::TooLarge { limit: 2_000, .. }));
    let bad = std::collections::BTreeMap::from([((1, 2), 3)]);
    assert!(matches!(refused(request("a").variables(&bad)), SubscribeError::Serialize(_)));
    server.expect_no_dial_for(secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn more_frames_than_one_turn_takes_are_all_taken_without_another_wake() {
    let server = Server::in_memory();
    let client = builder(&server).capacity(items(10_000)).build().unwrap();
    let _unread = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    let text = json!({"type": "next", "id": id, "payload": 1}).to_string();
    peer.send_raw_frame_bytes(&frame(&text).repeat(1_300)).await;
    settle().await;
    assert_eq!(client.stats().items, 1_300);
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_woken_once_for_all_that_arrives_together() {
    #[derive(Default)]
    struct Calls(AtomicUsize);
    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = live(&server).await;
    let calls = Arc::new(Calls::default());
    let waker = Waker::from(Arc::clone(&calls));
    let cx = &mut Context::from_waker(&waker);
    assert!(stream.poll_next_unpin(cx).is_pending());
    let frame = frame(&json!({"type": "next", "id": id, "payload": data(1)}).to_string());
    peer.send_raw_frame_bytes(&frame.repeat(50)).await;
    peer.sync().await;
    assert_eq!((client.stats().queued_items, calls.0.load(Relaxed)), (50, 1));
    for _ in 0..50 {
        assert!(matches!(stream.poll_next_unpin(cx), Poll::Ready(Some(Ok(Event::Next(_))))));
    }
    assert!(stream.poll_next_unpin(cx).is_pending());
    assert_eq!((client.stats().queued_items, calls.0.load(Relaxed)), (0, 1));
    drop(stream);
    assert_eq!(peer.expect_complete().await, id);
}

#[tokio::test(start_paused = true)]
async fn an_operation_far_larger_than_what_is_written_at_once_is_sent_whole() {
    let server = Server::in_memory();
    let client = client(&server);
    let variables = json!({"v": "x".repeat(3_000_000)});
    let _stream = client.subscribe_to(request("a").variables(&variables)).unwrap();
    let mut peer = connected(&server).await;
    assert_eq!(peer.expect_subscribe().await.variables, variables);
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_does_not_read_is_not_written_and_what_was_dropped_then_is_never_mentioned() {
    let server = Server::in_memory();
    let client = builder(&server).ping_interval(None).build().unwrap();
    let variables = json!({"v": "x".repeat(1_000)});
    let streams: Vec<_> = (0..3_000)
        .map(|_| client.subscribe_to(request("a").variables(&variables)).unwrap())
        .collect();
    let mut peer = connected(&server).await;
    settle().await;
    drop(streams);
    settle().await;
    let (mut subscribes, mut completes) = (0, 0);
    while let Ok(Some(message)) = timeout(secs(1), peer.next_message()).await {
        match message["type"].as_str() {
            Some("subscribe") => subscribes += 1,
            Some("complete") => completes += 1,
            _ => panic!("{message}"),
        }
    }
    assert_eq!(subscribes, completes);
    assert!(subscribes < 1_000, "{subscribes} kB were written to a peer that reads nothing");
}

/// A text frame of a server.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, u8::try_from(text.len()).unwrap()];
    frame.extend_from_slice(text.as_bytes());
    frame
}
