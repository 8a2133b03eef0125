//! What the server leaves out, by the numbers of its items or by its own words.

use resub::{Overflow, SubscribeError, SubscriptionBuilder};

use super::*;

fn numbered(client: &Client) -> SubscriptionBuilder<Request<Value>> {
    let request = Request::new("subscription Events($after: Int) { n }").variables(&json!({}));
    client.subscription_to(request)
}

fn number(data: &Value) -> u64 {
    data["n"].as_u64().unwrap()
}

/// With a position, so that the server can be asked.
fn resumed(client: &Client) -> SubscriptionBuilder<Request<Value>> {
    numbered(client).sequence_by(number).resume_with(|last: &Value, variables| {
        variables["after"] = last["n"].clone();
    })
}

async fn send(peer: &mut Peer, id: &str, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        peer.next(id, json!({"data": {"n": n}})).await;
    }
}

/// The request for what is missing.
async fn asked_again(peer: &mut Peer) -> Subscribe {
    loop {
        let message = peer.serve_pings().await.expect("the client asks");
        if message["type"] == "subscribe" {
            return Subscribe {
                id: message["id"].as_str().unwrap().to_owned(),
                variables: message["payload"]["variables"].clone(),
            };
        }
    }
}

struct Subscribe {
    id: String,
    variables: Value,
}

/// What the reader gets in a second: numbers, and what gaps say.
async fn read(stream: &mut Subscription<Value>) -> Vec<String> {
    let mut read = Vec::new();
    while let Ok(Some(event)) = timeout(secs(1), stream.next()).await {
        read.push(match event {
            Ok(Event::Next(Response { data: Some(data), .. })) => data["n"].to_string(),
            Ok(Event::Next(Response { data: None, .. })) => "no data".to_owned(),
            Ok(Event::Gap(gap)) if gap.is_lossless() => "lossless".to_owned(),
            Ok(Event::Gap(gap)) => format!("missing {} dropped {}", gap.missing, gap.dropped),
            other => format!("{other:?}"),
        });
    }
    read
}

#[tokio::test(start_paused = true)]
async fn a_jump_is_a_gap_with_the_number_of_items_that_are_missing() {
    let server = Server::in_memory();
    let mut stream = numbered(&client(&server)).sequence_by(number).start().unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    send(&mut peer, &id, [7, 8, 8, 7, 11, 12]).await;
    peer.next(&id, json!({"data": null})).await;
    send(&mut peer, &id, [14]).await;
    assert_eq!(
        read(&mut stream).await,
        ["7", "8", "missing 2 dropped 0", "11", "12", "no data", "missing 1 dropped 0", "14"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_reader_was_too_slow_for_is_not_missing_on_the_server() {
    for policy in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Latest] {
        let server = Server::in_memory();
        let mut stream = numbered(&client(&server))
            .sequence_by(number)
            .overflow(policy)
            .capacity(items(2))
            .start()
            .unwrap();
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        send(&mut peer, &id, [1]).await;
        assert_eq!(read(&mut stream).await, ["1"]);
        send(&mut peer, &id, [2, 3, 4, 6, 7]).await;
        settle().await;
        let seen = read(&mut stream).await;
        send(&mut peer, &id, [8, 9]).await;
        settle().await;
        let (mut missing, mut dropped, mut items) = (0, 0, 0);
        for line in seen.into_iter().chain(read(&mut stream).await) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["missing", m, "dropped", d] => {
                    missing += m.parse::<u64>().unwrap();
                    dropped += d.parse::<u64>().unwrap();
                }
                ["lossless"] => {}
                _ => items += 1,
            }
        }
        // Under `Latest` what is replaced is no loss, so its gap is not counted here.
        let replaced = if policy == Overflow::Latest { 8 - items - dropped - missing } else { 0 };
        assert_eq!(items + dropped + missing + replaced, 8, "{policy:?}");
        assert!(missing <= 1, "{policy:?}: only 5 is missing on the server");
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_is_asked_for_what_is_missing_and_nothing_is_lost() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut other = subscribe(&client, "a");
    let mut stream = resumed(&client).start().unwrap();
    let mut peer = connected(&server).await;
    let ids = peer.expect_subscribes(2).await;
    send(&mut peer, &ids[1].id, [1, 2, 6, 7]).await;
    assert_eq!(read(&mut stream).await, ["1", "2", "lossless"]);
    assert_eq!(peer.expect_complete().await, ids[1].id);
    let again = peer.expect_subscribe().await;
    assert_eq!(again.variables["after"], 2);
    // What the server sent before it was asked does no harm, nor does the item at the position.
    send(&mut peer, &ids[1].id, [8]).await;
    send(&mut peer, &again.id, 2..=9).await;
    assert_eq!(read(&mut stream).await, ["3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(client.stats().reconnects, 0);
    peer.next(&ids[0].id, data(1)).await;
    assert_eq!(item(&mut other).await, 1, "others have no gap");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_does_not_have_either_is_counted_after_one_request() {
    let server = Server::in_memory();
    let mut stream = resumed(&client(&server)).start().unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    send(&mut peer, &id, [1, 5]).await;
    assert_eq!(read(&mut stream).await, ["1", "lossless"]);
    peer.expect_complete().await;
    let again = peer.expect_subscribe().await.id;
    send(&mut peer, &again, [3, 5, 6]).await;
    assert_eq!(
        read(&mut stream).await,
        ["missing 1 dropped 0", "3", "missing 1 dropped 0", "5", "6"]
    );
    peer.expect_nothing_for(secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_before_the_server_has_answered_says_what_it_has_lost() {
    let server = Server::in_memory();
    let mut stream = resumed(&client(&server)).start().unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    send(&mut peer, &id, [1, 4, 5]).await;
    peer.complete(&id).await;
    settle().await;
    assert_eq!(read(&mut stream).await, ["1", "missing 2 dropped 2"]);
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_for_missing_items_survives_a_loss_a_pause_and_a_handover() {
    for what in 0..4 {
        let server = Server::in_memory();
        let client = client(&server);
        let mut stream = resumed(&client).start().unwrap();
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        send(&mut peer, &id, [1, 2, 6]).await;
        peer.sync().await;
        match what {
            0 => peer.vanish(),
            1 => {
                client.pause();
                settle().await;
            }
            2 => client.reconnect_now(),
            _ => {
                let (rotated, new) = futures::join!(client.rotate(), connected(&server));
                rotated.unwrap();
                let mut new = new;
                let moved = new.expect_subscribe().await;
                assert_eq!(moved.variables["after"], 6);
                settle().await;
                // The reader sees the jump now.
                assert_eq!(read(&mut stream).await, ["1", "2", "lossless"]);
                let again = asked_again(&mut new).await;
                assert_eq!(again.variables["after"], 2);
                send(&mut new, &again.id, 3..=8).await;
                assert_eq!(read(&mut stream).await, ["3", "4", "5", "6", "7", "8"]);
                continue;
            }
        }
        let (_, mut peer) = futures::join!(read(&mut stream), async {
            if what == 1 {
                timeout(secs(2), std::future::pending::<()>()).await.unwrap_err();
                client.resume();
            }
            connected(&server).await
        });
        let again = peer.expect_subscribe().await;
        send(&mut peer, &again.id, again.variables["after"].as_u64().unwrap() + 1..=8).await;
        let mut all = read(&mut stream).await;
        if let Ok(again) = timeout(secs(1), asked_again(&mut peer)).await {
            send(&mut peer, &again.id, again.variables["after"].as_u64().unwrap() + 1..=8).await;
            all.extend(read(&mut stream).await);
        }
        all.retain(|line| line != "lossless");
        let tail: Vec<_> = all.iter().map(String::as_str).collect();
        assert!(tail.ends_with(&["3", "4", "5", "6", "7", "8"]), "{what}: {tail:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_that_says_what_was_left_out_is_a_gap() {
    let lagged = |data: &Value| data["lagged"].as_u64();
    for numbers in [true, false] {
        let server = Server::in_memory();
        let options = numbered(&client(&server)).gap_if(lagged);
        let options = if numbers { options.sequence_by(number) } else { options };
        let mut stream = options.start().unwrap();
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        send(&mut peer, &id, [1]).await;
        peer.next(&id, json!({"data": {"lagged": 3}})).await;
        send(&mut peer, &id, [5]).await;
        peer.next(&id, json!({"data": {"lagged": 0}})).await;
        send(&mut peer, &id, [6]).await;
        // The numbers say the same, which is counted once.
        assert_eq!(read(&mut stream).await, ["1", "missing 3 dropped 0", "5", "6"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_that_says_what_was_left_out_has_no_position_and_no_key() {
    let server = Server::in_memory();
    let client = client(&server);
    let lagged = |data: &Value| data["lagged"].as_u64();
    let mut resumed = numbered(&client)
        .gap_if(lagged)
        .resume_with(|last: &Value, variables| variables["after"] = last["n"].clone())
        .start()
        .unwrap();
    let mut newest = client
        .subscription_to(request("newest"))
        .gap_if(lagged)
        .latest_by(|data: &Value| data["n"].as_u64())
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let ids = peer.expect_subscribes(2).await;
    send(&mut peer, &ids[0].id, [1]).await;
    send(&mut peer, &ids[1].id, [1]).await;
    for id in &ids {
        peer.next(&id.id, json!({"data": {"lagged": 3}})).await;
        peer.next(&id.id, json!({"data": {"lagged": 2}})).await;
    }
    peer.sync().await;
    assert_eq!(
        read(&mut newest).await,
        ["1", "missing 3 dropped 0", "missing 2 dropped 0"],
        "none replaces another"
    );
    peer.vanish();
    let mut peer = connected(&server).await;
    let again = peer.expect_subscribes(2).await;
    assert_eq!(again[0].variables["after"], 1, "the last item");
    assert_eq!(
        read(&mut resumed).await,
        ["1", "missing 3 dropped 0", "missing 2 dropped 0", "lossless"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_is_known_even_if_items_are_missing_in_front_of_it() {
    let server = Server::in_memory();
    let mut stream = numbered(&client(&server))
        .sequence_by(number)
        .dedupe_by(items(8), |data: &Value| data["key"].as_u64())
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    for (n, key) in [(1, 10), (3, 10), (5, 20), (6, 20), (7, 30)] {
        peer.next(&id, json!({"data": {"n": n, "key": key}})).await;
    }
    assert_eq!(
        read(&mut stream).await,
        ["1", "missing 1 dropped 0", "missing 1 dropped 0", "5", "7"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_the_positions_that_it_is_asked_for_is_soon_asked_no_more() {
    let server = Server::in_memory();
    let mut stream = resumed(&client(&server))
        .position_lost(|_, variables| {
            *variables = json!({});
            true
        })
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    peer.set_deadline(secs(3_600));
    let mut id = peer.expect_subscribe().await.id;
    let mut asked = 0;
    for n in 0..300 {
        send(&mut peer, &id, [2 * n]).await;
        let reads = async { while timeout(secs(1), stream.next()).await.is_ok() {} };
        peer.serve_while(reads).await;
        let Ok(Some(_complete)) = timeout(secs(1), peer.serve_pings()).await else { continue };
        asked += 1;
        let again = peer.expect_subscribe().await;
        assert!(again.variables["after"].is_u64());
        peer.error(&again.id, json!([{"message": "expired"}])).await;
        let anew = peer.expect_subscribe().await;
        assert_eq!(anew.variables, json!({}));
        id = anew.id;
    }
    assert_eq!(asked, 3);
}

#[tokio::test(start_paused = true)]
async fn a_number_that_overlaps_removes_what_a_handover_repeats() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = numbered(&client).sequence_by(number).start().unwrap();
    let mut old = connected(&server).await;
    let id = old.expect_subscribe().await.id;
    send(&mut old, &id, [1]).await;
    let (rotated, mut new) = futures::join!(client.rotate(), connected(&server));
    rotated.unwrap();
    let moved = new.expect_subscribe().await.id;
    send(&mut old, &id, [2, 3]).await;
    settle().await;
    send(&mut new, &moved, [2, 3, 4]).await;
    assert_eq!(read(&mut stream).await, ["1", "2", "3", "4"], "without a gap");
}

#[tokio::test]
async fn numbers_do_not_go_with_an_order_by_key() {
    let client = client(&Server::in_memory());
    let options = numbered(&client).sequence_by(number).latest_by(number);
    assert!(matches!(options.start(), Err(SubscribeError::Option(_))));
}
