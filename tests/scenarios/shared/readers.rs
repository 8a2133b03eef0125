//! What each reader of a shared operation has for itself: a queue, a policy, keys, and its own end.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
};

use futures::StreamExt;

use super::*;

/// Readers with so many items each, under these policies, of one operation.
async fn bounded(
    server: &Server,
    readers: &[(Overflow, usize)],
) -> (Client, Vec<Subscription<Value>>, Peer, String) {
    let client = client(server);
    let start = |&(overflow, capacity)| {
        options(&client).overflow(overflow).capacity(items(capacity)).start().unwrap()
    };
    let readers = readers.iter().map(start).collect();
    let mut peer = connected(server).await;
    let id = peer.expect_subscribe().await.id;
    (client, readers, peer, id)
}

#[tokio::test(start_paused = true)]
async fn each_reader_has_a_capacity_a_policy_keys_and_a_memory_of_repetitions_of_its_own() {
    let server = Server::in_memory();
    let policies = [
        (Overflow::DropOldest, 2),
        (Overflow::DropNewest, 2),
        (Overflow::Latest, 2),
        (Overflow::DropOldest, 100),
    ];
    let (client, mut readers, mut peer, id) = bounded(&server, &policies).await;
    let mut by_parity =
        options(&client).latest_by(|n: &Value| n.as_u64().unwrap_or_default() % 2).start().unwrap();
    let mut halves = options(&client)
        .dedupe_by(items(10), |n| n.as_u64().unwrap_or_default() / 2)
        .start()
        .unwrap();
    settle().await;
    publish(&mut peer, &id, 0..10).await;
    assert_eq!(
        (client.stats().dropped, client.stats().queued_items),
        (8 + 8 + 9 + 8, 2 + 2 + 1 + 10 + 2 + 10)
    );

    let [oldest, newest, latest, all] = &mut readers[..] else { panic!() };
    assert_eq!(
        (gap(oldest).await.dropped, item(oldest).await, item(oldest).await),
        (8, json!(8), json!(9))
    );
    assert_eq!(
        (item(newest).await, item(newest).await, gap(newest).await.dropped),
        (json!(0), json!(1), 8)
    );
    assert_eq!((gap(latest).await.replaced, item(latest).await), (9, json!(9)));
    assert_eq!((gap(&mut by_parity).await.replaced, item(&mut by_parity).await), (8, json!(8)));
    assert_eq!(item(&mut by_parity).await, 9);
    for n in 0..10 {
        assert_eq!(item(all).await, n);
        if n % 2 == 0 {
            assert_eq!(item(&mut halves).await, n);
        }
    }
    publish(&mut peer, &id, [10]).await;
    for reader in readers.iter_mut().chain([&mut by_parity, &mut halves]) {
        assert_eq!(item(reader).await, 10);
    }
    assert_eq!(client.stats().queued_items, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_up_nobody_and_holds_no_more_than_it_may() {
    let server = Server::in_memory();
    let (client, mut readers, mut peer, id) =
        bounded(&server, &[(Overflow::DropOldest, 16), (Overflow::DropOldest, 16)]).await;
    let mut quick = readers.remove(0);
    for n in 0..5_000 {
        peer.next(&id, data(n)).await;
        assert_eq!(
            timeout(secs(1), peer.serve_while(item(&mut quick))).await.expect("not delayed"),
            n
        );
    }
    assert_eq!((client.stats().queued_items, client.stats().dropped), (16, 5_000 - 16));
    assert_eq!(gap(&mut readers[0]).await.dropped, 5_000 - 16);
    drop(readers);
    settle().await;
    assert_eq!(client.stats().queued_items, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_overflows_under_fail_ends_alone_and_the_last_one_completes_the_operation() {
    let server = Server::in_memory();
    let policies = [
        (Overflow::Fail, 2),
        (Overflow::Fail, 2),
        (Overflow::DropOldest, 100),
        (Overflow::Fail, 4),
    ];
    let (client, mut readers, mut peer, id) = bounded(&server, &policies).await;
    publish(&mut peer, &id, 0..3).await;
    // The one that began it goes without having seen its end.
    drop(readers.remove(0));
    let mut second = readers.remove(0);
    assert_eq!((item(&mut second).await, item(&mut second).await), (json!(0), json!(1)));
    assert!(matches!(end(&mut second).await, SubscriptionError::Overflow));
    drop(second);
    publish(&mut peer, &id, 3..4).await;
    for reader in &mut readers {
        for n in 0..4 {
            assert_eq!(item(reader).await, n);
        }
    }
    drop(readers.remove(0));
    peer.expect_nothing_for(secs(1)).await;
    for n in 4..20 {
        peer.next(&id, data(n)).await;
    }
    assert_eq!(peer.expect_complete().await, id, "its last reader overflows");
    for n in 4..8 {
        assert_eq!(item(&mut readers[0]).await, n);
    }
    assert!(matches!(end(&mut readers[0]).await, SubscriptionError::Overflow));
    assert_eq!((client.stats().live_operations, client.stats().queued_items), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_key_panics_ends_alone() {
    let server = Server::in_memory();
    let (client, mut readers, mut peer, id) = shared(&server, 1).await;
    let mut bad =
        options(&client).latest_by(|_: &Value| -> u64 { panic!("on purpose") }).start().unwrap();
    settle().await;
    publish(&mut peer, &id, [1]).await;
    // What is replayed has a key as well.
    let late =
        options(&client).replay_last().latest_by(|_: &Value| -> u64 { panic!("on purpose") });
    let mut late = late.start().unwrap();
    for reader in [&mut bad, &mut late] {
        assert!(matches!(end(reader).await, SubscriptionError::Hook(_)));
    }
    drop((bad, late));
    publish(&mut peer, &id, [2]).await;
    assert_eq!((item(&mut readers[0]).await, item(&mut readers[0]).await), (json!(1), json!(2)));
    assert_eq!(client.stats().queued_items, 0);
}

#[tokio::test(start_paused = true)]
async fn what_comes_again_after_a_gap_replaces_nothing_from_before_it() {
    let server = Server::in_memory();
    let (client, readers, mut peer, id) = shared(&server, 1).await;
    let mut by_parity =
        options(&client).latest_by(|n: &Value| n.as_u64().unwrap_or_default() % 2).start().unwrap();
    settle().await;
    publish(&mut peer, &id, [3]).await;
    peer.vanish();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    publish(&mut peer, &id, [1]).await;
    assert_eq!(item(&mut by_parity).await, 3);
    assert_eq!(gap(&mut by_parity).await.reconnects, 1);
    assert_eq!(item(&mut by_parity).await, 1);
    drop(readers);
}

#[tokio::test(start_paused = true)]
async fn the_socket_waits_for_every_reader_that_blocks_until_that_reads_or_goes() {
    let server = Server::in_memory();
    let policies = [(Overflow::Block, 2), (Overflow::Block, 2), (Overflow::DropOldest, 1_000)];
    let (client, mut readers, mut peer, id) = bounded(&server, &policies).await;
    for n in 0..20 {
        peer.next(&id, data(n)).await;
    }
    settle().await;
    assert_eq!(client.stats().items, 2);
    // The one makes room and makes room, and the other does not: nothing is read.
    let mut second = readers.remove(1);
    for n in 0..2 {
        assert_eq!(item(&mut second).await, n);
        settle().await;
    }
    assert_eq!((client.stats().items, client.stats().queued_items), (2, 2 + 2));
    // Nor is it the other way round.
    assert_eq!(item(&mut readers[0]).await, 0);
    settle().await;
    assert_eq!(client.stats().items, 3);
    assert_eq!(item(&mut second).await, 2);
    settle().await;
    assert_eq!(client.stats().items, 3);
    drop(readers.remove(0));
    settle().await;
    assert_eq!(client.stats().items, 5, "until the one that is left is full");
    drop(second);
    peer.sync().await;
    assert_eq!(client.stats().items, 20);
    for n in 0..20 {
        assert_eq!(item(&mut readers[0]).await, n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_reader_that_begins_with_a_replay_blocks_as_one_that_was_there_does() {
    let server = Server::in_memory();
    let (client, mut readers, mut peer, id) = shared(&server, 1).await;
    publish(&mut peer, &id, [1]).await;
    let full = options(&client).overflow(Overflow::Block).capacity(items(1)).replay_last();
    let mut full = full.start().unwrap();
    settle().await;
    peer.next(&id, data(2)).await;
    settle().await;
    assert_eq!(client.stats().items, 1);
    for n in 1..=2 {
        assert_eq!(item(&mut full).await, n);
    }
    for n in 1..=2 {
        assert_eq!(item(&mut readers[0]).await, n);
    }
}

/// Drops a reader, starts another and drops that: whatever the driver is at, it may call this.
struct Meddler {
    client: Client,
    victim: Mutex<Option<Subscription<Value>>>,
}

impl Meddler {
    fn meddle(&self) {
        drop(self.victim.lock().unwrap().take());
        drop(share(&self.client, "a"));
    }
}

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        self.meddle();
    }
}

#[tokio::test(start_paused = true)]
async fn the_applications_code_may_drop_and_start_readers_wherever_it_is_called() {
    let server = Server::in_memory();
    let (client, mut readers, mut peer, id) = shared(&server, 5).await;
    let mut meddle =
        || Arc::new(Meddler { client: client.clone(), victim: Mutex::new(readers.pop()) });
    let (by_key, by_item, by_gap, by_end) = (meddle(), meddle(), meddle(), meddle());
    let key = move |_: &Value| by_key.meddle();
    let mut keyed = options(&client).latest_by(key).start().unwrap();
    for (n, meddler) in [by_item, by_gap, by_end].into_iter().enumerate() {
        let mut reader = share(&client, "a");
        let waker = Waker::from(meddler);
        assert!(reader.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
        settle().await;
        match n {
            0 => publish(&mut peer, &id, [1]).await,
            1 => {
                peer.vanish();
                peer = connected(&server).await;
            }
            _ => {
                let again = peer.expect_subscribe().await.id;
                peer.complete(&again).await;
                // What was started by the last of them is an operation of its own, and was dropped.
                peer.sync().await;
            }
        }
    }
    for reader in [&mut readers[0], &mut keyed] {
        assert_eq!(item(reader).await, 1);
        assert_eq!(gap(reader).await.reconnects, 1);
        assert!(event(reader).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_that_wait_are_each_woken_for_what_arrives() {
    let server = Server::in_memory();
    let (_client, readers, mut peer, id) = shared(&server, 1_000).await;
    let reading: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            tokio::spawn(async move {
                for n in 0..20 {
                    assert_eq!(item(&mut reader).await, n);
                }
                assert!(event(&mut reader).await.is_none());
            })
        })
        .collect();
    settle().await;
    publish(&mut peer, &id, 0..20).await;
    peer.complete(&id).await;
    for reader in reading {
        reader.await.unwrap();
    }
}
