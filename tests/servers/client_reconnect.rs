//! The client while its server comes and goes.

use std::time::Duration;

use futures::future::join_all;
use resub::{Client, ConnectError, DialError, Disconnect, Event, Status, SubscriptionError};
use serde_json::json;

use crate::pair::{
    Pair, end, event, gap, item, on_each_pair, subscribe, text, until_down, until_open,
};
use crate::raw::{until, within};

on_each_pair!(a_stream_goes_on_by_itself_after_one_gap_when_its_server_was_killed_and_restarted);
async fn a_stream_goes_on_by_itself_after_one_gap_when_its_server_was_killed_and_restarted(
    pair: Pair,
) {
    let server = pair.start();
    let client = pair.client(&server);
    let mut status = client.status();
    let mut numbers = subscribe(&client, "subscription { forever(everyMs: 5) }");
    for n in 0..5 {
        assert_eq!(item(&mut numbers).await, json!({ "forever": n }));
    }

    server.kill();
    until_down(&mut status).await;
    server.restart();
    until_open(&mut status).await;

    // What had arrived before the loss comes first, without a hole.
    let mut n = 5;
    let gap = loop {
        match event(&mut numbers).await {
            Event::Next(response) => assert_eq!(response.data, Some(json!({ "forever": n }))),
            Event::Gap(gap) => break gap,
            other => panic!("{other:?}"),
        }
        n += 1;
    };
    assert_eq!((gap.reconnects, gap.dropped), (1, 0));
    assert!(gap.down_for > Duration::ZERO && gap.cause.is_some(), "{gap:?}");
    for n in 0..20 {
        assert_eq!(item(&mut numbers).await, json!({ "forever": n }));
    }
    assert_eq!(server.connections().borrow().ever, 2);
    assert_eq!(client.stats().reconnects, 1);
}

on_each_pair!(every_loss_of_several_is_a_gap_of_its_own);
async fn every_loss_of_several_is_a_gap_of_its_own(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let mut numbers = subscribe(&client, "subscription { forever(everyMs: 60000) }");
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    for _ in 0..3 {
        server.drop_connections();
        let gap = gap(&mut numbers).await;
        assert_eq!((gap.reconnects, gap.dropped), (1, 0));
        assert!(matches!(gap.cause, Some(Disconnect::Reset(_))), "{:?}", gap.cause);
        assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    }
    assert_eq!(server.connections().borrow().ever, 4);
    assert_eq!(server.streams().borrow().ever, 4);
}

on_each_pair!(two_hundred_subscriptions_are_each_sent_again_exactly_once_after_a_restart);
async fn two_hundred_subscriptions_are_each_sent_again_exactly_once_after_a_restart(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let mut status = client.status();
    let document = "subscription { forever(everyMs: 60000) }";
    let mut subscriptions: Vec<_> = (0..200).map(|_| subscribe(&client, document)).collect();
    for subscription in &mut subscriptions {
        assert_eq!(item(subscription).await, json!({"forever": 0}));
    }
    assert_eq!(server.streams().borrow().now, 200);

    server.kill();
    until_down(&mut status).await;
    server.restart();

    for subscription in &mut subscriptions {
        let gap = gap(subscription).await;
        assert_eq!((gap.reconnects, gap.dropped), (1, 0));
        assert_eq!(item(subscription).await, json!({"forever": 0}));
    }
    until(server.streams(), |streams| streams.now == 200).await;
    assert_eq!(server.streams().borrow().ever, 400);
    assert_eq!(server.connections().borrow().ever, 2);
}

on_each_pair!(what_was_dropped_or_started_during_an_outage_is_left_out_or_included);
async fn what_was_dropped_or_started_during_an_outage_is_left_out_or_included(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let [mut kept, mut dropped] =
        [(); 2].map(|()| subscribe(&client, "subscription { forever(everyMs: 60000) }"));
    for subscription in [&mut kept, &mut dropped] {
        assert_eq!(item(subscription).await, json!({"forever": 0}));
    }

    server.kill();
    until_refused(&client).await;
    drop(dropped);
    let mut started = subscribe(&client, "subscription { ticks(n: 2, everyMs: 1) }");
    server.restart();

    gap(&mut kept).await;
    assert_eq!(item(&mut kept).await, json!({"forever": 0}));
    for n in 0..2 {
        assert_eq!(
            item(&mut started).await,
            json!({ "ticks": n }),
            "it was never sent before, so it has no gap"
        );
    }
    assert!(end(&mut started).await.is_none());
    assert_eq!(server.streams().borrow().ever, 4);
}

on_each_pair!(a_server_that_is_not_there_yet_is_waited_for_and_nothing_is_missing_then);
async fn a_server_that_is_not_there_yet_is_waited_for_and_nothing_is_missing_then(pair: Pair) {
    let server = pair.start();
    server.kill();
    let client = pair.client(&server);
    let mut ticks = subscribe(&client, "subscription { ticks(n: 3, everyMs: 1) }");
    until_refused(&client).await;
    server.restart();
    for n in 0..3 {
        assert_eq!(item(&mut ticks).await, json!({ "ticks": n }));
    }
    assert!(end(&mut ticks).await.is_none());
    assert_eq!(server.connections().borrow().ever, 1);
    assert_eq!(client.stats().reconnects, 0);
}

on_each_pair!(a_wrong_path_ends_every_stream_and_leaves_the_client_usable);
async fn a_wrong_path_ends_every_stream_and_leaves_the_client_usable(pair: Pair) {
    let server = pair.start();
    let client = pair.builder(&format!("ws://{}/nowhere", server.addr())).build().unwrap();
    for _ in 0..3 {
        let siblings = [(); 2].map(|()| subscribe(&client, "subscription { forever }"));
        join_all(siblings.map(async |mut subscription| {
            let error = end(&mut subscription).await.expect("an error");
            let SubscriptionError::Lost(Disconnect::Connect(ConnectError::Http { status, .. })) =
                &error
            else {
                panic!("{error:?}")
            };
            assert_eq!(*status, 404);
            assert!(text(&error).contains("HTTP 404"), "{}", text(&error));
        }))
        .await;
        within(client.status().wait_for(|status| matches!(status, Status::Idle))).await.unwrap();
    }
}

/// Waits until an attempt to connect was refused.
async fn until_refused(client: &Client) {
    let is_refused = |status: &Status| {
        let Status::Waiting { cause: Some(cause), .. } = status else { return false };
        matches!(cause, Disconnect::Connect(ConnectError::Dial(DialError::Connect(_))))
    };
    within(client.status().wait_for(is_refused)).await.unwrap();
}
