//! Items that replace one another: a slow reader sees the newest of each key, and how many it did
//! not.

use std::collections::BTreeMap;

use resub::{Overflow, SubscribeError, SubscriptionBuilder};

use super::*;

fn quote(symbol: &str, price: u64) -> Value {
    json!({"data": {"quote": {"symbol": symbol, "price": price}}})
}

fn symbol(data: &Value) -> String {
    data["quote"]["symbol"].as_str().unwrap_or_default().to_owned()
}

async fn quotes(server: &Server, capacity: usize) -> (Client, Subscription<Value>, Peer, String) {
    let client = client(server);
    let stream = client
        .subscription_to(request("a"))
        .latest_by(symbol)
        .capacity(items(capacity))
        .start()
        .unwrap();
    let mut peer = connected(server).await;
    let id = peer.expect_subscribe().await.id;
    (client, stream, peer, id)
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_sees_the_newest_quote_of_each_symbol_and_a_gap_that_counts_the_rest() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = quotes(&server, 10).await;
    for price in 0..100 {
        for symbol in ["BTC", "ETH", "XMR"] {
            peer.next(&id, quote(symbol, price)).await;
        }
    }
    peer.next(&id, quote("BTC", 100)).await;
    peer.sync().await;
    assert_eq!((client.stats().queued_items, client.stats().dropped), (3, 298));
    let replaced = gap(&mut stream).await;
    assert_eq!((replaced.dropped, replaced.replaced), (298, 298));
    assert!(replaced.is_lossless(), "{replaced:?}");
    for (symbol, price) in [("BTC", 100), ("ETH", 99), ("XMR", 99)] {
        assert_eq!(
            item(&mut stream).await,
            quote(symbol, price)["data"],
            "in the order in which the symbols came"
        );
    }
    assert_eq!(client.stats().queued_items, 0);
    // What was read is not replaced, but followed.
    peer.next(&id, quote("ETH", 101)).await;
    assert_eq!(item(&mut stream).await, quote("ETH", 101)["data"]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_keeps_up_sees_everything() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = quotes(&server, 1).await;
    for price in 0..50 {
        peer.next(&id, quote("BTC", price)).await;
        assert_eq!(item(&mut stream).await, quote("BTC", price)["data"]);
    }
    assert_eq!(client.stats().dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn every_quote_is_seen_or_counted_across_a_reconnect_and_beyond_the_capacity() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, mut id) = quotes(&server, 5).await;
    let (mut newest, mut sent, mut counted) = (BTreeMap::new(), 0, 0);
    for round in 0..4_u64 {
        for n in 0..40 {
            let symbol = format!("s{}", n % 8);
            peer.next(&id, quote(&symbol, round * 100 + n)).await;
            newest.insert(symbol, round * 100 + n);
            sent += 1;
        }
        peer.next(&id, json!({"errors": [{"message": "odd"}]})).await;
        sent += 1;
        peer.sync().await;
        peer.vanish();
        peer = connected(&server).await;
        id = peer.expect_subscribe().await.id;
    }
    peer.complete(&id).await;
    let (mut seen, mut reconnects) = (0, 0);
    while let Some(event) = event(&mut stream).await {
        match event.unwrap() {
            Event::Next(Response { data: Some(data), .. }) => {
                seen += 1;
                assert_eq!(
                    newest[&symbol(&data)],
                    data["quote"]["price"],
                    "the newest of its symbol"
                );
            }
            Event::Next(_) => seen += 1,
            Event::Gap(gap) => {
                counted += gap.dropped;
                reconnects += gap.reconnects;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((seen, seen + counted, reconnects), (5, sent, 4));
    assert_eq!((client.stats().dropped, client.stats().queued_items), (counted, 0));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_panics_ends_its_own_subscription_after_what_it_holds_and_nothing_else() {
    let server = Server::in_memory();
    let (client, mut sibling, mut peer, sibling_id) = live(&server).await;
    let by_price =
        |data: &Value| data["quote"]["price"].as_u64().expect("a test panics on purpose");
    let mut stream = client.subscription_to(request("b")).latest_by(by_price).start().unwrap();
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, quote("BTC", 1)).await;
    peer.next(&id, json!({"data": {"quote": null}})).await;
    assert_eq!(peer.expect_complete().await, id, "the server is told");
    assert_eq!(item(&mut stream).await, quote("BTC", 1)["data"]);
    let error = end(&mut stream).await;
    assert!(
        matches!(&error, SubscriptionError::Hook(_))
            && text(&error).contains("`latest_by` panicked"),
        "{error:?}"
    );
    peer.next(&sibling_id, data(1)).await;
    assert_eq!(item(&mut sibling).await, 1);
    let stats = client.stats();
    assert_eq!((stats.connections, stats.live_operations, stats.queued_items), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_set_after_a_key_is_the_one_that_counts() {
    let server = Server::in_memory();
    let client = client(&server);
    let options =
        client.subscription_to(request("a")).latest_by(symbol).overflow(Overflow::DropOldest);
    let mut stream = options.start().unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    for price in 0..3 {
        peer.next(&id, quote("BTC", price)).await;
    }
    peer.sync().await;
    for price in 0..3 {
        assert_eq!(item(&mut stream).await, quote("BTC", price)["data"]);
    }
}

#[tokio::test(start_paused = true)]
async fn options_that_do_not_go_together_are_refused_at_the_start() {
    type Options = SubscriptionBuilder<Request<Value>>;
    let server = Server::in_memory();
    let client = client(&server);
    let refused =
        |options: fn(Options) -> Options| match options(client.subscription_to(request("a")))
            .start()
        {
            Err(SubscribeError::Option(text)) => Some(text),
            Err(other) => panic!("{other:?}"),
            Ok(_) => None,
        };
    for (options, named) in [
        ((|options| options.overflow(Overflow::LatestBy)) as fn(Options) -> Options, "latest_by"),
        (|options| options.overflow(Overflow::Rewind), "resume_with"),
        (|options| options.reissue_stale(), "idle_longer_than"),
        (|options| options.idle_longer_than(Duration::ZERO), "idle"),
        (|options| options.first_item_within(Duration::ZERO).idle_longer_than(secs(1)), "idle"),
    ] {
        assert!(refused(options).is_some_and(|text| text.contains(named)), "{named}");
    }
    for options in [
        (|options| options.latest_by(symbol).overflow(Overflow::DropOldest))
            as fn(Options) -> Options,
        (|options| options.overflow(Overflow::Rewind).resume_with(|_, _| {})),
        (|options| options.reissue_stale().first_item_within(Duration::MAX)),
        (|options| options.latest_by(symbol).restart_if(|_| true).idle_longer_than(secs(1))),
    ] {
        assert_eq!(refused(options), None);
    }
    assert_eq!(server.dials(), 0, "nothing of it was sent");
}
