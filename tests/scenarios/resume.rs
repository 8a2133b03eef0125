//! Going on after the last item received: by cursor after a loss, by rewinding for a slow reader,
//! without what an overlap repeats.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use resub::{Overflow, SubscribeError, SubscriptionBuilder};

use super::*;

fn numbered(client: &Client) -> SubscriptionBuilder<Request<Value>> {
    let request =
        Request::new("subscription Events($after: Int) { n }").variables(&json!({"after": null}));
    client.subscription_to(request)
}

fn after_last(last: &Value, variables: &mut Value) {
    variables["after"] = last["n"].clone();
}

/// An item with this number.
fn n(n: u64) -> Value {
    json!({"data": {"n": n}})
}

async fn number(stream: &mut Subscription<Value>) -> u64 {
    item(stream).await["n"].as_u64().unwrap()
}

/// Reads every number that waits.
async fn numbers(stream: &mut Subscription<Value>) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_millis(1), stream.next()).await {
        match event.unwrap() {
            Event::Next(response) => numbers.push(response.data.unwrap()["n"].as_u64().unwrap()),
            Event::Gap(_) => {}
            other => panic!("{other:?}"),
        }
    }
    numbers
}

#[tokio::test(start_paused = true)]
async fn the_position_is_that_of_the_last_item_received_read_or_not() {
    let server = Server::in_memory();
    let client = client(&server);
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let hook = move |last: &Value, variables: &mut Value| {
        counted.fetch_add(1, Relaxed);
        after_last(last, variables);
    };
    let mut stream = numbered(&client).resume_with(hook).start().unwrap();
    let mut peer = connected(&server).await;
    let first = peer.expect_subscribe().await;
    assert_eq!(first.variables, json!({"after": null}));
    for item in 1..=5 {
        peer.next(&first.id, n(item)).await;
    }
    peer.sync().await;
    assert_eq!(
        (number(&mut stream).await, runs.load(Relaxed)),
        (1, 0),
        "no hook while all is well"
    );
    peer.vanish();

    let mut peer = connected(&server).await;
    let second = peer.expect_subscribe().await;
    assert_eq!((second.variables, runs.load(Relaxed)), (json!({"after": 5}), 1));
    assert_eq!(second.query, first.query);
    for item in 2..=5 {
        assert_eq!(number(&mut stream).await, item);
    }
    let announced = gap(&mut stream).await;
    assert!(
        announced.resumed && announced.is_lossless() && announced.reconnects == 1,
        "{announced:?}"
    );
    // Nothing new arrived: the position is still there, and nobody is asked for it.
    peer.vanish();
    let mut peer = connected(&server).await;
    assert_eq!(peer.expect_subscribe().await.variables, json!({"after": 5}));
    assert!(gap(&mut stream).await.is_lossless());
    assert_eq!(runs.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_item_there_is_no_position_and_the_gap_says_so() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = numbered(&client).resume_with(after_last).start().unwrap();
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    peer.vanish();
    let mut peer = connected(&server).await;
    assert_eq!(peer.expect_subscribe().await.variables, json!({"after": null}));
    let announced = gap(&mut stream).await;
    assert!(!announced.resumed && !announced.is_lossless(), "{announced:?}");
}

#[tokio::test(start_paused = true)]
async fn what_has_no_data_or_does_not_decode_does_not_move_the_position() {
    let server = Server::in_memory();
    let client = client(&server);
    let request = Request::<[u64; 1]>::new("subscription { n }").variables(&json!({"after": 0}));
    let hook = |last: &[u64; 1], variables: &mut Value| variables["after"] = last[0].into();
    let stream = client.subscription_to(request).resume_with(hook).start().unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, json!({"data": [7]})).await;
    for odd in [
        json!({"data": null}),
        json!({"errors": [{"message": "the backend failed"}]}),
        json!({"errors": [{"message": "the backend failed"}], "data": null}),
        json!({}),
    ] {
        peer.next(&id, odd).await;
    }
    peer.sync().await;
    peer.vanish();
    let mut peer = connected(&server).await;
    let again = peer.expect_subscribe().await;
    assert_eq!(again.variables, json!({"after": 7}));
    // An object where a list was expected: the position before it is the last that is known.
    peer.next(&again.id, json!({"data": {"n": 9}})).await;
    peer.sync().await;
    peer.vanish();
    let mut peer = connected(&server).await;
    let again = peer.expect_subscribe().await;
    assert_eq!(again.variables, json!({"after": 7}));
    // Errors first, and data all the same.
    peer.send_text(&format!(
        r#"{{"id":"{}","type":"next","payload":{{"errors":[{{}}],"data":[8]}}}}"#,
        again.id
    ))
    .await;
    peer.sync().await;
    peer.vanish();
    assert_eq!(connected(&server).await.expect_subscribe().await.variables, json!({"after": 8}));
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_or_makes_no_request_ends_its_own_subscription_alone() {
    let server = Server::in_memory();
    let client = builder(&server).max_message_size(1024).build().unwrap();
    let mut panics = numbered(&client).resume_with(|_, _| panic!("a bug")).start().unwrap();
    let mut grows = numbered(&client)
        .resume_with(|_, variables| variables["after"] = "x".repeat(2_000).into())
        .start()
        .unwrap();
    let mut sibling = numbered(&client).resume_with(after_last).start().unwrap();
    let mut peer = connected(&server).await;
    for subscribe in peer.expect_subscribes(3).await {
        peer.next(&subscribe.id, n(3)).await;
    }
    peer.sync().await;
    peer.vanish();

    let mut peer = connected(&server).await;
    assert_eq!(peer.expect_subscribe().await.variables, json!({"after": 3}), "the sibling's");
    peer.expect_nothing_for(secs(5)).await;
    for (stream, why) in
        [(&mut panics, "`resume_with` panicked"), (&mut grows, "above the limit of 1024 bytes")]
    {
        assert_eq!(number(stream).await, 3);
        let error = end(stream).await;
        assert!(
            matches!(error, SubscriptionError::Hook(_)) && text(&error).contains(why),
            "{}",
            text(&error)
        );
    }
    assert_eq!(number(&mut sibling).await, 3);
    assert!(gap(&mut sibling).await.resumed);
    assert_eq!(client.stats().live_operations, 1);
}

#[tokio::test(start_paused = true)]
async fn what_an_overlap_repeats_is_left_out_within_the_window_and_nothing_without_data() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = numbered(&client)
        .dedupe_by(items(3), |data| data["n"].as_u64())
        .resume_with(after_last)
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    for item in [1, 2, 3, 3, 2, 4, 2, 1] {
        peer.next(&id, n(item)).await;
    }
    peer.sync().await;
    assert_eq!(numbers(&mut stream).await, [1, 2, 3, 4, 1], "1 was too long ago");
    for _ in 0..2 {
        peer.next(&id, json!({"errors": [{"message": "again and again"}]})).await;
    }
    peer.sync().await;
    for _ in 0..2 {
        assert!(matches!(
            event(&mut stream).await,
            Some(Ok(Event::Next(Response { data: None, .. })))
        ));
    }
    assert_eq!(client.stats().queued_items, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_rewinds_alone_and_goes_on_after_all_that_had_arrived() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = numbered(&client)
        .overflow(Overflow::Rewind)
        .capacity(items(3))
        .resume_with(after_last)
        .start()
        .unwrap();
    let mut sibling = subscribe(&client, "b");
    let mut peer = connected(&server).await;
    let [id, other] =
        <[_; 2]>::try_from(peer.expect_subscribes(2).await).unwrap().map(|subscribe| subscribe.id);
    for item in 1..=10 {
        peer.next(&id, n(item)).await;
    }
    assert_eq!(peer.expect_complete().await, id, "the server is to stop");
    peer.next(&id, n(11)).await;
    peer.next(&other, data("undisturbed")).await;
    assert_eq!(item(&mut sibling).await, "undisturbed");
    peer.sync().await;
    assert_eq!(client.stats().queued_items, 3);
    assert_eq!((number(&mut stream).await, number(&mut stream).await), (1, 2));
    peer.expect_nothing_for(secs(5)).await;
    for item in 3..=11 {
        assert_eq!(number(&mut stream).await, item, "what came after the third was held");
    }
    let (announced, again) = futures::join!(gap(&mut stream), peer.expect_subscribe());
    assert_eq!(
        (again.variables, announced.restarts, announced.reconnects),
        (json!({"after": 11}), 1, 0)
    );
    assert!(announced.is_lossless() && announced.dropped == 0);
    // What is later than that is thrown away, because it comes again.
    peer.next(&id, n(12)).await;
    peer.next(&again.id, n(12)).await;
    assert_eq!(number(&mut stream).await, 12);
    let stats = client.stats();
    assert_eq!((stats.discarded, stats.ignored, stats.dropped, stats.queued_items), (1, 0, 0, 0));
    assert_eq!(stats.items, 13, "with the sibling's");
}

#[tokio::test(start_paused = true)]
async fn a_rewound_subscription_survives_a_loss_and_waits_for_its_reader() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = numbered(&client)
        .overflow(Overflow::Rewind)
        .capacity(items(2))
        .resume_with(after_last)
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    for item in 1..=3 {
        peer.next(&id, n(item)).await;
    }
    peer.expect_complete().await;
    peer.vanish();
    let mut peer = connected(&server).await;
    peer.expect_nothing_for(secs(5)).await;
    for item in 1..=3 {
        assert_eq!(number(&mut stream).await, item);
    }
    let (announced, again) = futures::join!(gap(&mut stream), peer.expect_subscribe());
    assert_eq!(again.variables, json!({"after": 3}));
    assert!(announced.is_lossless());

    // And one whose reader goes while it waits is not mentioned again.
    for item in 4..=6 {
        peer.next(&again.id, n(item)).await;
    }
    assert_eq!(peer.expect_complete().await, again.id);
    drop(stream);
    peer.expect_nothing_for(secs(5)).await;
    assert_eq!((client.stats().live_operations, client.stats().queued_items), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn options_that_do_not_go_together_are_refused() {
    let client = client(&Server::in_memory());
    let rewind = numbered(&client).overflow(Overflow::Rewind).start();
    assert!(matches!(rewind, Err(SubscribeError::Option(_))), "{rewind:?}");
    assert!(numbered(&client).overflow(Overflow::Rewind).resume_with(after_last).start().is_ok());
    let by_default = builder(&Server::in_memory()).overflow(Overflow::Rewind).build().unwrap();
    assert!(matches!(by_default.subscribe_to(request("a")), Err(SubscribeError::Option(_))));
}

/// Of a legacy server as well; its words are others, the position is the same.
#[tokio::test(start_paused = true)]
async fn the_legacy_subprotocol_resumes_and_rewinds_as_well() {
    let server = Server::in_memory();
    let client = builder(&server).subprotocol(resub::Subprotocol::GraphqlWs).build().unwrap();
    let mut stream = numbered(&client)
        .overflow(Overflow::Rewind)
        .capacity(items(2))
        .resume_with(after_last)
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    for item in 1..=3 {
        peer.next(&id, n(item)).await;
    }
    assert_eq!(peer.expect_complete().await, id);
    for item in 1..=3 {
        assert_eq!(number(&mut stream).await, item);
    }
    let (_, again) = futures::join!(gap(&mut stream), peer.expect_subscribe());
    assert_eq!(again.variables, json!({"after": 3}));
    peer.vanish();
    let again = connected(&server).await.expect_subscribe().await;
    assert_eq!(again.variables, json!({"after": 3}));
}
