//! Positions that the server no longer has, and positions that outlive the client.

use resub::{
    GraphQlError, Position, SubscribeError, SubscriptionBuilder, SubscriptionError, mock::Subscribe,
};

use super::*;

/// Events after a position in the variables.
fn events(client: &Client) -> SubscriptionBuilder<Request<Value>> {
    let request = Request::new("subscription Events($after: Int) { n }").variables(&json!({}));
    client.subscription_to(request).resume_with(|last: &Value, variables| {
        variables["after"] = last["n"].clone();
    })
}

fn is_expired(errors: &[GraphQlError]) -> bool {
    errors.iter().any(|error| error.message == "expired")
}

/// Starts from the beginning if the position is lost.
fn from_the_beginning(errors: &[GraphQlError], variables: &mut Value) -> bool {
    if is_expired(errors) {
        *variables = json!({});
    }
    is_expired(errors)
}

fn event_of(n: u64) -> Value {
    json!({"data": {"n": n}})
}

async fn read(stream: &mut Subscription<Value>, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        assert_eq!(item(stream).await["n"], number);
    }
}

/// The next request, on a new connection.
async fn lose(server: &Server, peer: Peer) -> (Peer, Subscribe) {
    peer.vanish();
    let mut peer = connected(server).await;
    let subscribe = peer.expect_subscribe().await;
    (peer, subscribe)
}

#[tokio::test(start_paused = true)]
async fn a_position_that_the_server_no_longer_has_is_given_up_behind_a_gap_that_says_so() {
    for by_item in [true, false] {
        let server = Server::in_memory();
        let mut stream =
            events(&client(&server)).position_lost(from_the_beginning).start().unwrap();
        let mut peer = connected(&server).await;
        let first = peer.expect_subscribe().await;
        assert_eq!(first.variables, json!({}));
        for n in 1..=5 {
            peer.next(&first.id, event_of(n)).await;
        }
        read(&mut stream, 1..=5).await;
        let (mut peer, second) = lose(&server, peer).await;
        assert_eq!(second.variables, json!({"after": 5}));
        let errors = json!([{"message": "expired"}]);
        if by_item {
            peer.next(&second.id, json!({"data": null, "errors": errors})).await;
            peer.complete(&second.id).await;
        } else {
            peer.error(&second.id, errors).await;
        }
        let third = peer.expect_subscribe().await;
        assert_eq!(third.variables, json!({}), "it starts from the beginning");
        peer.next(&third.id, event_of(9)).await;
        let resumed = gap(&mut stream).await;
        if by_item {
            // The reader sees the item, too.
            assert!(resumed.is_lossless(), "{resumed:?}");
            assert!(matches!(event(&mut stream).await, Some(Ok(Event::Next(_)))));
            let lost = gap(&mut stream).await;
            assert!(!lost.is_lossless() && is_expired(&lost.errors), "{lost:?}");
        } else {
            assert!(!resumed.is_lossless() && is_expired(&resumed.errors), "{resumed:?}");
        }
        read(&mut stream, 9..=9).await;
        // The next loss is resumed again.
        let (_peer, fourth) = lose(&server, peer).await;
        assert_eq!(fourth.variables, json!({"after": 9}));
        assert!(gap(&mut stream).await.is_lossless());
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_to_a_request_without_a_position_does_not_lose_one() {
    let server = Server::in_memory();
    let mut stream = events(&client(&server)).position_lost(from_the_beginning).start().unwrap();
    let mut peer = connected(&server).await;
    let first = peer.expect_subscribe().await;
    peer.next(&first.id, event_of(1)).await;
    read(&mut stream, 1..=1).await;
    let (mut peer, second) = lose(&server, peer).await;
    peer.error(&second.id, json!([{"message": "expired"}])).await;
    let third = peer.expect_subscribe().await;
    peer.error(&third.id, json!([{"message": "expired"}])).await;
    assert!(!gap(&mut stream).await.is_lossless());
    assert!(matches!(end(&mut stream).await, SubscriptionError::Rejected(_)));
    peer.expect_nothing_for(secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn other_errors_are_left_to_restart_if_or_end_the_stream() {
    for restarts in [true, false] {
        let server = Server::in_memory();
        let options = events(&client(&server)).position_lost(from_the_beginning);
        let options =
            if restarts { options.restart_if(|errors| !is_expired(errors)) } else { options };
        let mut stream = options.start().unwrap();
        let mut peer = connected(&server).await;
        let first = peer.expect_subscribe().await;
        peer.next(&first.id, event_of(1)).await;
        read(&mut stream, 1..=1).await;
        let (mut peer, second) = lose(&server, peer).await;
        peer.error(&second.id, json!([{"message": "overloaded"}])).await;
        if restarts {
            let third = peer.expect_subscribe().await;
            assert_eq!(third.variables, json!({"after": 1}), "the position is as good as before");
            assert!(gap(&mut stream).await.is_lossless());
        } else {
            assert!(gap(&mut stream).await.is_lossless());
            assert!(matches!(end(&mut stream).await, SubscriptionError::Rejected(_)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_for_lost_positions_that_panics_ends_only_its_stream() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut other = subscribe(&client, "a");
    let mut stream = events(&client).position_lost(|_, _| panic!("on purpose")).start().unwrap();
    let mut peer = connected(&server).await;
    let ids = peer.expect_subscribes(2).await;
    peer.next(&ids[1].id, event_of(1)).await;
    read(&mut stream, 1..=1).await;
    peer.vanish();
    let mut peer = connected(&server).await;
    let ids = peer.expect_subscribes(2).await;
    peer.error(&ids[1].id, json!([{"message": "expired"}])).await;
    assert!(gap(&mut stream).await.is_lossless());
    assert!(matches!(end(&mut stream).await, SubscriptionError::Hook(_)));
    peer.next(&ids[0].id, data(1)).await;
    assert_eq!(gap(&mut other).await.reconnects, 1);
    assert_eq!(item(&mut other).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_continues_after_a_stored_position_and_knows_what_it_had() {
    let server = Server::in_memory();
    let mut stream = events(&client(&server))
        .dedupe_by(items(8), |data: &Value| data["n"].as_u64())
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let first = peer.expect_subscribe().await;
    assert_eq!(stream.position(), None, "nothing was read");
    for n in 1..=5 {
        peer.next(&first.id, event_of(n)).await;
    }
    peer.next(&first.id, json!({"data": {"n": null}, "errors": [{"message": "m"}]})).await;
    read(&mut stream, 1..=3).await;
    let stored = serde_json::to_string(&stream.position().unwrap()).unwrap();
    read(&mut stream, 4..=5).await;
    drop((stream, peer));

    let position: Position = serde_json::from_str(&stored).unwrap();
    let server = Server::in_memory();
    let mut stream = events(&client(&server))
        .dedupe_by(items(8), |data: &Value| data["n"].as_u64())
        .starting_after(position.clone())
        .start()
        .unwrap();
    assert_eq!(stream.position(), Some(position), "nothing was read since");
    let mut peer = connected(&server).await;
    let second = peer.expect_subscribe().await;
    assert_eq!(second.variables, json!({"after": 3}));
    // A loss before the first item loses nothing.
    let (mut peer, third) = lose(&server, peer).await;
    assert_eq!(third.variables, json!({"after": 3}));
    // The server repeats what came before.
    for n in [2, 3, 4, 5] {
        peer.next(&third.id, event_of(n)).await;
    }
    assert!(gap(&mut stream).await.is_lossless());
    read(&mut stream, 4..=5).await;
    assert_ne!(serde_json::to_string(&stream.position().unwrap()).unwrap(), stored);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_larger_than_numbers_usually_are_is_stored_with_the_position() {
    let options = |server: &Server| {
        events(&client(server))
            .dedupe_by(items(8), |data: &Value| u128::MAX - u128::from(data["n"].as_u64().unwrap()))
    };
    let server = Server::in_memory();
    let mut stream = options(&server).start().unwrap();
    let mut peer = connected(&server).await;
    let first = peer.expect_subscribe().await;
    for n in [2, 1] {
        peer.next(&first.id, event_of(n)).await;
    }
    assert_eq!(
        [item(&mut stream).await["n"].clone(), item(&mut stream).await["n"].clone()],
        [2, 1]
    );
    let stored = serde_json::to_string(&stream.position().unwrap()).unwrap();

    let server = Server::in_memory();
    let position = serde_json::from_str(&stored).unwrap();
    let mut stream = options(&server).starting_after(position).start().unwrap();
    let mut peer = connected(&server).await;
    let second = peer.expect_subscribe().await;
    for n in 1..=3 {
        peer.next(&second.id, event_of(n)).await;
    }
    read(&mut stream, 3..=3).await;
}

#[tokio::test(start_paused = true)]
async fn a_position_at_the_start_may_be_lost_as_well() {
    let server = Server::in_memory();
    let position: Position =
        serde_json::from_value(json!({"item": r#"{"data": {"n": 7}}"#})).unwrap();
    let mut stream = events(&client(&server))
        .starting_after(position)
        .position_lost(from_the_beginning)
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let first = peer.expect_subscribe().await;
    assert_eq!(first.variables, json!({"after": 7}));
    peer.error(&first.id, json!([{"message": "expired"}])).await;
    let second = peer.expect_subscribe().await;
    assert_eq!(second.variables, json!({}));
    peer.next(&second.id, event_of(9)).await;
    let lost = gap(&mut stream).await;
    assert!(!lost.is_lossless() && lost.restarts == 1, "{lost:?}");
    read(&mut stream, 9..=9).await;
}

#[tokio::test(start_paused = true)]
async fn variables_that_have_a_position_make_a_loss_before_the_first_item_lossless() {
    for says_so in [true, false] {
        let server = Server::in_memory();
        let options = events(&client(&server));
        let options = if says_so { options.starting_at_variables() } else { options };
        let mut stream = options.start().unwrap();
        let mut peer = connected(&server).await;
        let first = peer.expect_subscribe().await;
        let (mut peer, second) = lose(&server, peer).await;
        assert_eq!(second.variables, first.variables);
        peer.next(&second.id, event_of(1)).await;
        assert_eq!(gap(&mut stream).await.is_lossless(), says_so);
        read(&mut stream, 1..=1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_resumed_stream_loses_nothing_when_the_old_connection_of_a_handover_dies() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream =
        events(&client).dedupe_by(items(8), |data: &Value| data["n"].as_u64()).start().unwrap();
    let mut old = connected(&server).await;
    let first = old.expect_subscribe().await;
    old.next(&first.id, event_of(1)).await;
    read(&mut stream, 1..=1).await;
    let (rotated, mut new) = futures::join!(client.rotate(), connected(&server));
    rotated.unwrap();
    let second = new.expect_subscribe().await;
    assert_eq!(second.variables, json!({"after": 1}));
    old.next(&first.id, event_of(2)).await;
    old.sync().await;
    old.vanish();
    for n in 2..=3 {
        new.next(&second.id, event_of(n)).await;
    }
    read(&mut stream, 2..=2).await;
    let moved = gap(&mut stream).await;
    assert!(moved.is_lossless() && moved.reconnects == 1, "{moved:?}");
    read(&mut stream, 3..=3).await;
}

#[tokio::test]
async fn a_position_of_another_stream_is_refused_and_so_are_options_without_resume_with() {
    #[derive(Debug, serde::Deserialize)]
    struct Numbered {
        n: u64,
    }
    let client = client(&Server::in_memory());
    let numbered = || client.subscription_to(Request::<Numbered>::new("subscription { n }"));
    let refused = |position: Value| {
        let position = serde_json::from_value(position).unwrap();
        let options = numbered()
            .resume_with(|last: &Numbered, variables| variables["after"] = last.n.into())
            .dedupe_by(items(8), |data: &Numbered| data.n)
            .starting_after(position);
        options.start().unwrap_err()
    };
    let item = r#"{"data": {"n": 7}}"#;
    for position in [
        json!({"item": r#"{"data": {"other": 7}}"#}),
        json!({"item": "{"}),
        json!({"item": r#"{"data": null}"#}),
        json!({"item": item, "keys": ["seven"]}),
        json!({"item": item, "row": 1}),
        json!({"item": r#"{"data": null}"#}),
    ] {
        let error = refused(position.clone());
        assert!(matches!(error, SubscribeError::Position(_)), "{position}: {error:?}");
    }
    let position: Position = serde_json::from_value(json!({"item": item})).unwrap();
    for options in [
        numbered().starting_after(position),
        numbered().starting_at_variables(),
        numbered().position_lost(|_, _| true),
    ] {
        assert!(matches!(options.start(), Err(SubscribeError::Option(_))));
    }
}
