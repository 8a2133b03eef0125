//! A server forgets an operation and says nothing: the stream does, and sends it again if that is
//! wanted.

use resub::{Overflow, Subprotocol};

use super::{
    held::{EVERYTHING, Peers, Then},
    *,
};

async fn stale(subscription: &mut Subscription<Value>) -> Duration {
    match event(subscription).await {
        Some(Ok(Event::Stale { idle_for })) => idle_for,
        other => panic!("silence was expected, not {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_for_which_nothing_comes_is_stale_once_for_each_silence() {
    for subprotocol in [Subprotocol::GraphqlTransportWs, Subprotocol::GraphqlWs] {
        let server = Server::in_memory();
        let client = builder(&server).subprotocol(subprotocol).build().unwrap();
        let options = client
            .subscription_to(request("a"))
            .first_item_within(secs(5))
            .idle_longer_than(secs(60));
        let mut stream = options.start().unwrap();
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        let begun = Instant::now();
        assert_eq!(
            (peer.serve_while(stale(&mut stream)).await, begun.elapsed()),
            (secs(5), secs(5))
        );
        for n in 0..3 {
            peer.serve_while(tokio::time::sleep(secs(600))).await;
            peer.next(&id, data(n)).await;
            assert_eq!(item(&mut stream).await, n, "said once");
            let quiet = Instant::now();
            let idle_for = peer.serve_while(stale(&mut stream)).await;
            assert_eq!((idle_for, quiet.elapsed()), (secs(60), secs(60)));
        }
        assert_eq!(client.stats().connections, 1, "it is left alone");
        drop(stream);
        assert_eq!(peer.expect_complete().await, id);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_operation_is_sent_again_alone_while_its_busy_sibling_keeps_its_items() {
    let server = Server::in_memory();
    let (client, mut sibling, mut peer, busy) = live(&server).await;
    let options = client.subscription_to(request("b")).idle_longer_than(secs(30)).reissue_stale();
    let mut quiet = options.start().unwrap();
    let mut forgotten = peer.expect_subscribe().await.id;
    for round in 0..3 {
        for n in 0..29 {
            peer.next(&busy, data(n)).await;
            assert_eq!(item(&mut sibling).await, n);
            peer.serve_while(tokio::time::sleep(secs(1))).await;
        }
        assert_eq!(peer.expect_complete().await, forgotten, "round {round}");
        let again = peer.expect_subscribe().await;
        assert!(again.id != forgotten && again.query.contains("subscription b"), "{again:?}");
        // What it remembers too late is not taken for an answer.
        peer.next(&forgotten, data("late")).await;
        peer.sync().await;
        forgotten = again.id;
        assert_eq!(stale(&mut quiet).await, secs(30));
        let gap = gap(&mut quiet).await;
        assert_eq!((gap.restarts, gap.reconnects), (1, 0));
        assert!(gap.errors.is_empty() && !gap.is_lossless());
    }
    peer.next(&forgotten, data("found")).await;
    assert_eq!(item(&mut quiet).await, "found");
    assert_eq!((client.stats().connections, client.stats().ignored), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn the_time_without_a_connection_is_a_gap_and_no_silence() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = client
        .subscription_to(request("a"))
        .idle_longer_than(secs(5))
        .reissue_stale()
        .start()
        .unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(1)).await;
    assert_eq!(item(&mut stream).await, 1);
    server.offline();
    peer.vanish();
    timeout(secs(600), event(&mut stream)).await.expect_err("nothing to say");
    server.online();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    assert_eq!(gap(&mut stream).await.reconnects, 1);
    peer.next(&id, data(2)).await;
    assert_eq!(item(&mut stream).await, 2);
    assert_eq!(peer.serve_while(stale(&mut stream)).await, secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_is_not_read_for_a_slow_reader_makes_its_sibling_wait_but_not_stale() {
    let server = Server::in_memory();
    let client = client(&server);
    let blocking =
        client.subscription_to(request("slow")).overflow(Overflow::Block).capacity(items(1));
    let mut slow = blocking.start().unwrap();
    let mut sibling =
        client.subscription_to(request("b")).idle_longer_than(secs(5)).start().unwrap();
    let mut peer = connected(&server).await;
    let ids = peer.expect_subscribes(2).await;
    peer.next(&ids[1].id, data(0)).await;
    for n in 0..3 {
        peer.next(&ids[0].id, data(n)).await;
    }
    peer.next(&ids[1].id, data(1)).await;
    assert_eq!(item(&mut sibling).await, 0);
    timeout(secs(600), event(&mut sibling)).await.expect_err("its item waits in the socket");
    for n in 0..3 {
        assert_eq!(item(&mut slow).await, n);
    }
    assert_eq!(item(&mut sibling).await, 1);
    assert_eq!(peer.serve_while(stale(&mut sibling)).await, secs(5));
}

#[tokio::test(start_paused = true)]
async fn silence_that_nobody_asked_about_is_not_mentioned() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = live(&server).await;
    let an_hour_of_nothing = timeout(secs(3_500), event(&mut stream));
    peer.serve_while(an_hour_of_nothing).await.expect_err("nothing to say");
    peer.next(&id, data(1)).await;
    assert_eq!(item(&mut stream).await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_data_alone_does_not_say_when_nothing_comes() {
    let server = Server::in_memory();
    let client = client(&server);
    let stream = client.subscription_to(request("a")).first_item_within(secs(1)).start().unwrap();
    let mut data_only = stream.data();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.serve_while(tokio::time::sleep(secs(60))).await;
    peer.next(&id, data(1)).await;
    let next = timeout(secs(60), futures::StreamExt::next(&mut data_only)).await.unwrap();
    assert_eq!(next.unwrap().unwrap(), 1);
}

/// Answers pings, and says nothing else.
async fn serve_nothing(peer: &mut Peer) {
    while peer.serve_pings().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn silence_is_found_whatever_becomes_of_a_handover_in_which_it_was_to_be_looked_for() {
    for then in EVERYTHING {
        for is_first in [true, false] {
            let server = Server::in_memory();
            server.set_deadline(secs(7_200));
            let client = client(&server);
            let options = client.subscription_to(request("a"));
            let mut stream = if is_first {
                options.first_item_within(secs(5)).start().unwrap()
            } else {
                options.idle_longer_than(secs(5)).start().unwrap()
            };
            let mut old = connected(&server).await;
            let old_id = old.expect_subscribe().await.id;
            if !is_first {
                old.next(&old_id, data(0)).await;
                assert_eq!(item(&mut stream).await, 0);
            }
            let (mut peers, new_id) = Peers::rotate(&client, &server, old, old_id.clone()).await;
            let held = [data(1), data(2)];
            // Of these two the reader hears later, so it does not look as if nothing came.
            for item in &held {
                peers.new.as_mut().unwrap().next(&new_id, item.clone()).await;
            }
            peers.let_time_pass(secs(8)).await;
            if then == Then::NewIsLost {
                // So that no other handover is under way when the silence is found.
                server.offline();
            }
            peers.let_happen(then, &client, &held).await;
            if then == Then::NewIsLost && !is_first {
                peers.old.as_mut().unwrap().next(&old_id, data(3)).await;
            }
            let reading = async {
                loop {
                    match event(&mut stream).await {
                        Some(Ok(Event::Stale { idle_for })) => return idle_for,
                        Some(Ok(Event::Next(_) | Event::Gap(_))) => {}
                        other => panic!("{then:?}: {other:?}"),
                    }
                }
            };
            // With `first_item_within` alone no silence counts once an item has arrived.
            let has_item = is_first
                && match then {
                    Then::OldIsLost | Then::TimeIsUp | Then::OldSaysTheSame => true,
                    Then::ReconnectNow
                    | Then::PauseAndResume
                    | Then::NewIsLost
                    | Then::BothAreLost
                    | Then::TimeIsUpAndNewIsLost => false,
                };
            let found = tokio::select! {
                idle_for = timeout(secs(3_000), reading) => idle_for.ok(),
                _ = peers.serve(&server, serve_nothing) => unreachable!(),
            };
            let case = format!("{then:?}, the first item: {is_first}: {found:?}");
            assert_eq!(found.is_none(), has_item, "{case}");
            assert!(found.is_none_or(|found| found >= secs(5)), "{case}");
        }
    }
}
