//! What a new connection repeats of what a policy has dropped: `dedupe_by` has never seen it, so it
//! may come behind what is newer, and then a gap says so.

use resub::Overflow;

use super::{
    held::{Peers, Then},
    *,
};

/// Reads for a moment. Returns `None` for a gap that counts an overlap or a reconnect.
async fn read(stream: &mut Subscription<Value>, read: &mut Vec<Option<u64>>) {
    while let Ok(event) = timeout(Duration::from_millis(5), stream.next()).await {
        match event {
            Some(Ok(Event::Next(response))) => read.push(response.data.unwrap().as_u64()),
            Some(Ok(Event::Gap(gap))) => {
                if gap.overlaps > 0 || gap.reconnects > 0 {
                    read.push(None);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// No item comes twice, and none behind a newer one unless a gap is between them.
fn assert_marked(read: &[Option<u64>], case: &str) {
    let (mut newest, mut known) = (0, std::collections::BTreeSet::new());
    for event in read {
        match event {
            None => newest = 0,
            Some(number) => {
                assert!(known.insert(number), "{case}: {number} comes twice: {read:?}");
                assert!(*number > newest, "{case}: {number} comes unannounced: {read:?}");
                newest = *number;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_and_comes_again_behind_newer_items_is_announced() {
    let in_other_words = |n| json!({"data": n, "extensions": {"again": true}});
    for came_again in [
        dropped_and_repeated(data, &[2, 3, 5, 6]).await,
        dropped_and_repeated(in_other_words, &[2, 3]).await,
    ] {
        assert!(came_again > 3, "{came_again}: that proves nothing");
    }
}

/// Drops items on the old connection of a handover, and lets the new one repeat them. Returns how
/// often one that was dropped came again.
async fn dropped_and_repeated(repeated: fn(u64) -> Value, numbers: &[u64]) -> usize {
    let mut came_again = 0;
    for policy in
        [Some(Overflow::DropOldest), Some(Overflow::DropNewest), Some(Overflow::Latest), None]
    {
        for then in [
            Then::OldSaysTheSame,
            Then::OldIsLost,
            Then::TimeIsUp,
            Then::ReconnectNow,
            Then::PauseAndResume,
        ] {
            for reads_between in [true, false] {
                let case = format!("{policy:?}, {then:?}, {reads_between}");
                let server = Server::in_memory();
                let client = client(&server);
                let options = client.subscription_to(request("a")).capacity(items(2));
                let options = match policy {
                    Some(policy) => options.overflow(policy),
                    // Each has a key of its own, so the capacity counts.
                    None => options.latest_by(|item: &Value| item.as_u64()),
                };
                let mut stream = options.dedupe_by(items(64), Value::as_u64).start().unwrap();
                let mut old = connected(&server).await;
                let old_id = old.expect_subscribe().await.id;
                old.next(&old_id, data(1)).await;
                assert_eq!(item(&mut stream).await, 1);
                let (mut peers, new_id) =
                    Peers::rotate(&client, &server, old, old_id.clone()).await;
                for number in 2..=4 {
                    peers.old.as_mut().unwrap().next(&old_id, data(number)).await;
                }
                settle().await;
                let mut all = Vec::new();
                if reads_between {
                    read(&mut stream, &mut all).await;
                }
                // Two items that the old one has said prove that nothing is missing.
                for number in numbers {
                    peers.new.as_mut().unwrap().next(&new_id, repeated(*number)).await;
                    if reads_between {
                        read(&mut stream, &mut all).await;
                    }
                }
                let has_moved = client.stats().handovers == 1 && all.contains(&Some(6));
                if !has_moved && then != Then::OldSaysTheSame {
                    peers.let_happen(then, &client, &[]).await;
                }
                read(&mut stream, &mut all).await;
                assert_marked(&all, &case);
                let first_mark = all.iter().position(Option::is_none).unwrap_or(all.len());
                came_again += usize::from(all[first_mark..].contains(&Some(2)));
            }
        }
    }
    came_again
}

#[tokio::test(start_paused = true)]
async fn what_a_new_connection_repeats_takes_no_room_and_is_not_counted_as_dropped() {
    for policy in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Fail] {
        let server = Server::in_memory();
        let client = client(&server);
        let mut stream = client
            .subscription_to(request("a"))
            .capacity(items(4))
            .overflow(policy)
            .dedupe_by(items(64), Value::as_u64)
            .start()
            .unwrap();
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        for number in 1..=3 {
            peer.next(&id, data(number)).await;
        }
        peer.sync().await;
        for _ in 0..5 {
            peer.vanish();
            peer = connected(&server).await;
            let id = peer.expect_subscribe().await.id;
            for number in 1..=3 {
                peer.next(&id, data(number)).await;
            }
            peer.sync().await;
        }
        for number in 1..=3 {
            assert_eq!(item(&mut stream).await, number, "{policy:?}");
        }
        let gap = gap(&mut stream).await;
        assert_eq!((gap.reconnects, gap.dropped), (5, 0), "{policy:?}");
        assert_eq!(client.stats().dropped, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_whose_key_has_left_the_window_is_yielded_even_if_it_was_there_before_a_gap() {
    let server = Server::in_memory();
    let mut stream = client(&server)
        .subscription_to(request("a"))
        .dedupe_by(items(1), |status: &Value| status.as_str().map(str::to_owned))
        .start()
        .unwrap();
    for connection in 0..3 {
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        if connection > 0 {
            assert_eq!(gap(&mut stream).await.reconnects, 1);
        }
        for status in ["on", "off"] {
            peer.next(&id, data(status)).await;
        }
        peer.sync().await;
        peer.vanish();
        assert_eq!(item(&mut stream).await, "on");
        assert_eq!(item(&mut stream).await, "off", "it is the newest state");
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_item_is_read_even_if_an_older_one_that_was_repeated_in_other_words_replaced_it()
{
    let server = Server::in_memory();
    let mut stream = client(&server)
        .subscription_to(request("a"))
        .overflow(Overflow::Latest)
        .dedupe_by(items(8), |n: &Value| n.as_u64())
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    for n in 1..=3 {
        peer.next(&id, data(n)).await;
    }
    peer.sync().await;
    peer.vanish();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, json!({"data": 2, "extensions": {"node": "b"}})).await;
    peer.next(&id, data(3)).await;
    peer.sync().await;
    let replaced = gap(&mut stream).await;
    assert_eq!((replaced.reconnects, replaced.dropped - replaced.replaced), (1, 0));
    assert_eq!(item(&mut stream).await, 3);
}
