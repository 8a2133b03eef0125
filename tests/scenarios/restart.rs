//! A server ends operations in passing: those that say so are sent again alone, and nothing else is
//! disturbed.

use resub::{GraphQlError, SubscriptionBuilder, mock::Subscribe};

use super::{
    held::{Peers, Then},
    *,
};

fn errors(message: &str) -> Value {
    json!([{"message": message, "extensions": {"code": message}}])
}

/// The options of a subscription that takes these errors for transient.
fn restarting(
    client: &Client,
    name: &str,
    transient: &'static str,
) -> SubscriptionBuilder<Request<Value>> {
    client
        .subscription_to(request(name))
        .restart_if(move |errors| errors.iter().any(|error| error.message == transient))
}

/// As [`live`], restarting what ends with the error `busy`.
async fn restartable(server: &Server) -> (Client, Subscription<Value>, Peer, String) {
    let client = client(server);
    let stream = restarting(&client, "a", "busy").start().unwrap();
    let mut peer = connected(server).await;
    let id = peer.expect_subscribe().await.id;
    (client, stream, peer, id)
}

fn messages(errors: &[GraphQlError]) -> Vec<&str> {
    errors.iter().map(|error| &*error.message).collect()
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_completes_after_an_error_is_sent_again_with_the_errors_in_the_gap() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, first) = restartable(&server).await;
    peer.next(&first, data(1)).await;
    peer.next(&first, json!({"data": null, "errors": errors("busy")})).await;
    peer.complete(&first).await;
    assert_eq!(item(&mut stream).await, 1);
    let Some(Ok(Event::Next(item_with_errors))) = event(&mut stream).await else {
        panic!("the errors are an item")
    };
    assert_eq!((item_with_errors.data, messages(&item_with_errors.errors)), (None, vec!["busy"]));

    let ended = Instant::now();
    let again = peer.expect_subscribe().await;
    assert!(again.id != first && again.query.contains("subscription a"), "{again:?}");
    assert!((500..=1_500).contains(&ended.elapsed().as_millis()), "{:?}", ended.elapsed());
    peer.next(&again.id, data(2)).await;
    let gap = gap(&mut stream).await;
    assert_eq!(
        (gap.restarts, gap.reconnects, gap.dropped, messages(&gap.errors)),
        (1, 0, 0, vec!["busy"])
    );
    assert!(!gap.is_lossless() && gap.cause.is_none(), "{gap:?}");
    assert_eq!(item(&mut stream).await, 2);
    peer.complete(&again.id).await;
    assert!(event(&mut stream).await.is_none(), "nothing went wrong this time");
    assert_eq!(client.stats().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_message_is_transient_if_the_application_says_so_and_else_the_end() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, mut id) = restartable(&server).await;
    for _ in 0..3 {
        peer.error(&id, errors("busy")).await;
        id = peer.expect_subscribe().await.id;
        assert_eq!(messages(&gap(&mut stream).await.errors), ["busy"]);
    }
    peer.error(&id, errors("denied")).await;
    let SubscriptionError::Rejected(errors) = end(&mut stream).await else {
        panic!("a rejection was expected")
    };
    assert_eq!(messages(&errors), ["denied"]);
    peer.expect_nothing_for(secs(25)).await;
    assert_eq!((client.stats().connections, client.stats().live_operations), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_plain_end_can_be_taken_for_transient_and_is_none_by_default() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = client
        .subscription_to(request("a"))
        .restart_if(<[GraphQlError]>::is_empty)
        .start()
        .unwrap();
    let mut plain = subscribe(&client, "b");
    let mut peer = connected(&server).await;
    let ids = peer.expect_subscribes(2).await;
    for Subscribe { id, .. } in &ids {
        peer.complete(id).await;
    }
    assert!(event(&mut plain).await.is_none());
    let again = peer.expect_subscribe().await.id;
    let gap = gap(&mut stream).await;
    assert_eq!((gap.restarts, gap.errors), (1, vec![]));
    peer.next(&again, data(1)).await;
    assert_eq!(item(&mut stream).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_denied_disturbs_none_of_its_siblings() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut siblings: Vec<_> = (0..10).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let mut peer = connected(&server).await;
    let ids = peer.expect_subscribes(10).await;
    let mut denied = restarting(&client, "denied", "busy").start().unwrap();
    let mut busy = restarting(&client, "busy", "busy").start().unwrap();
    let (denied_id, mut busy_id) =
        (peer.expect_subscribe().await.id, peer.expect_subscribe().await.id);
    peer.error(&denied_id, errors("denied")).await;
    assert!(matches!(end(&mut denied).await, SubscriptionError::Rejected(_)));
    for round in 0..20 {
        peer.error(&busy_id, errors("busy")).await;
        for (sibling, Subscribe { id, .. }) in siblings.iter_mut().zip(&ids) {
            peer.next(id, data(round)).await;
            assert_eq!(item(sibling).await, round, "no gap, no wait");
        }
        busy_id = peer.expect_subscribe().await.id;
    }
    assert_eq!(gap(&mut busy).await.restarts, 20);
    let stats = client.stats();
    assert_eq!((stats.connections, stats.live_operations, stats.ignored), (1, 11, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_keeps_ending_an_operation_sees_growing_delays() {
    let server = Server::in_memory();
    server.set_deadline(secs(3_600));
    let (_client, mut stream, mut peer, mut id) = restartable(&server).await;
    let begun = Instant::now();
    for _ in 0..30 {
        peer.error(&id, errors("busy")).await;
        id = peer.expect_subscribe().await.id;
    }
    assert!(begun.elapsed() > secs(120), "30 restarts within {:?}", begun.elapsed());
    assert_eq!(gap(&mut stream).await.restarts, 30);
    peer.serve_while(tokio::time::sleep(secs(10))).await;
    let ended = Instant::now();
    peer.error(&id, errors("busy")).await;
    peer.expect_subscribe().await;
    assert!(
        ended.elapsed() <= Duration::from_millis(1_500),
        "it had run for a while: {:?}",
        ended.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_judge_that_panics_ends_its_own_subscription_and_nothing_else() {
    let server = Server::in_memory();
    let (client, mut sibling, mut peer, id) = live(&server).await;
    let mut stream = client
        .subscription_to(request("b"))
        .restart_if(|_| panic!("a test panics on purpose"))
        .start()
        .unwrap();
    let judged = peer.expect_subscribe().await.id;
    peer.complete(&judged).await;
    let error = end(&mut stream).await;
    assert!(
        matches!(&error, SubscriptionError::Hook(_))
            && text(&error).contains("`restart_if` panicked"),
        "{error:?}"
    );
    peer.next(&id, data(1)).await;
    assert_eq!(item(&mut sibling).await, 1);
    peer.expect_nothing_for(secs(60)).await;
    assert_eq!((client.stats().connections, client.stats().live_operations), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_during_the_backoff_is_never_mentioned_again() {
    let server = Server::in_memory();
    let (client, stream, mut peer, id) = restartable(&server).await;
    peer.error(&id, errors("busy")).await;
    peer.sync().await;
    drop(stream);
    peer.expect_nothing_for(secs(25)).await;
    assert_eq!(client.stats().live_operations, 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_during_the_backoff_is_one_gap_with_both_causes() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = restartable(&server).await;
    peer.error(&id, errors("busy")).await;
    peer.sync().await;
    peer.vanish();
    let mut peer = connected(&server).await;
    let again = peer.expect_subscribe().await.id;
    peer.next(&again, data(1)).await;
    let gap = gap(&mut stream).await;
    assert_eq!((gap.reconnects, gap.restarts, messages(&gap.errors)), (1, 0, vec!["busy"]));
    assert!(gap.cause.is_some());
    assert_eq!(item(&mut stream).await, 1);
    peer.expect_nothing_for(secs(25)).await;
    assert_eq!(client.stats().live_operations, 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_an_operation_in_its_backoff() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = restartable(&server).await;
    peer.error(&id, errors("busy")).await;
    peer.sync().await;
    let goodbye = tokio::spawn(client.shutdown(secs(1)));
    assert_eq!(peer.expect_close().await.0, 1000);
    goodbye.await.unwrap();
    assert!(matches!(end(&mut stream).await, SubscriptionError::ShutDown));
}

#[tokio::test(start_paused = true)]
async fn the_errors_of_the_last_item_are_those_of_the_end_also_during_a_handover() {
    for (then, is_held) in [
        (None, false),
        (Some(Then::NewIsLost), false),
        (Some(Then::OldIsLost), true),
        (Some(Then::TimeIsUp), true),
        (Some(Then::ReconnectNow), true),
        (Some(Then::PauseAndResume), true),
    ] {
        let server = Server::in_memory();
        let (client, mut stream, mut old, old_id) = restartable(&server).await;
        let busy = json!({"data": null, "errors": errors("busy")});
        if !is_held {
            old.next(&old_id, busy.clone()).await;
            settle().await;
        }
        let (mut peers, new_id) = Peers::rotate(&client, &server, old, old_id.clone()).await;
        if is_held {
            let new = peers.new.as_mut().unwrap();
            new.next(&new_id, busy).await;
            new.complete(&new_id).await;
            settle().await;
        }
        if let Some(then) = then {
            peers.let_happen(then, &client, &[]).await;
        }
        if !is_held {
            peers.old.as_mut().unwrap().complete(&old_id).await;
        }
        let told = async {
            loop {
                match event(&mut stream).await {
                    Some(Ok(Event::Gap(gap))) if gap.restarts > 0 || !gap.errors.is_empty() => {
                        return gap;
                    }
                    Some(Ok(Event::Next(_) | Event::Gap(_))) => {}
                    other => panic!("{then:?}: it was to be sent again, but {other:?}"),
                }
            }
        };
        let told = tokio::select! {
            told = told => told,
            _ = peers.serve(&server, async |peer| while peer.serve_pings().await.is_some() {}) => {
                unreachable!()
            }
        };
        assert_eq!(messages(&told.errors), ["busy"], "{then:?}");
        assert_eq!(client.stats().live_operations, 1, "{then:?}");
    }
}
