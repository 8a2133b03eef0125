//! What counts as a reconnect: a connection that follows a lost one, in the statistics and in the
//! gaps alike. What this side does, and what fails beside a connection that works, is none.

use super::{
    held::{Peers, Then},
    *,
};

/// Reads what is there, which is nothing but gaps, and adds up their reconnects.
async fn reconnects(stream: &mut Subscription<Value>) -> u32 {
    let mut reconnects = 0;
    while let Ok(event) = timeout(Duration::from_millis(5), stream.next()).await {
        match event {
            Some(Ok(Event::Gap(gap))) => reconnects += gap.reconnects,
            other => panic!("{other:?}"),
        }
    }
    reconnects
}

#[tokio::test(start_paused = true)]
async fn handovers_that_fail_are_neither_handovers_nor_reconnects() {
    let server = Server::in_memory();
    let (client, mut stream, mut old, id) = live(&server).await;
    for is_acknowledged in [true, true, false, true] {
        let accept = async {
            let mut peer = server.accept().await.expect_init().await;
            if is_acknowledged {
                peer = peer.ack().await;
                peer.expect_subscribe().await;
            }
            peer.vanish();
            settle().await;
        };
        // One that failed is followed by another one, as that was wanted.
        let _ = timeout(Duration::from_millis(1), client.rotate()).await;
        old.serve_while(accept).await;
        let stats = client.stats();
        assert_eq!((stats.reconnects, stats.handovers), (0, 0), "{stats:?}");
    }
    old.next(&id, data(1)).await;
    assert_eq!(item(&mut stream).await, 1, "no gap");
    let mut new = old.serve_while(connected(&server)).await;
    new.expect_subscribe().await;
    settle().await;
    let stats = client.stats();
    assert_eq!((stats.reconnects, stats.handovers), (0, 1), "{stats:?}");
    old.vanish();
    settle().await;
    assert_eq!(client.stats().reconnects, 0, "the stream has a connection all the time");
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_place_of_one_that_this_side_closed_is_no_reconnect() {
    let server = Server::in_memory();
    let idle_timeout = Some(secs(5));
    let client = builder(&server).idle_timeout(idle_timeout).build().unwrap();
    for connections in 1..=3 {
        let stream = subscribe(&client, "a");
        let mut peer = connected(&server).await;
        peer.expect_subscribe().await;
        drop(stream);
        peer.expect_complete().await;
        assert_eq!(peer.expect_close().await.0, 1000, "nobody uses it");
        let stats = client.stats();
        assert_eq!((stats.connections, stats.reconnects), (connections, 0), "{stats:?}");
    }
    let mut stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    for then in [Then::PauseAndResume, Then::ReconnectNow] {
        if then == Then::PauseAndResume {
            client.pause();
            settle().await;
            client.resume();
        } else {
            client.reconnect_now();
        }
        peer = connected(&server).await;
        peer.expect_subscribe().await;
        settle().await;
        assert_eq!(client.stats().reconnects, 0, "{then:?}");
        // The stream is interrupted all the same, and says so.
        assert_eq!(reconnects(&mut stream).await, 1, "{then:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_one_reconnect_however_many_attempts_follow_and_so_is_one_in_a_handover() {
    let server = Server::in_memory();
    server.set_deadline(secs(600));
    let (client, mut stream, mut peer, _) = live(&server).await;
    for attempts in [0, 1, 4] {
        let before = client.stats().reconnects;
        server.refuse_dials(attempts);
        peer.vanish();
        peer = connected(&server).await;
        peer.expect_subscribe().await;
        settle().await;
        assert_eq!(client.stats().reconnects, before + 1, "{attempts} attempts failed");
        assert_eq!(reconnects(&mut stream).await, 1, "{attempts} attempts failed");
    }
    // Both connections of a handover, one after the other.
    let before = client.stats().reconnects;
    let (mut peers, _) = Peers::rotate(&client, &server, peer, String::new()).await;
    peers.let_happen(Then::BothAreLost, &client, &[]).await;
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    settle().await;
    assert_eq!(client.stats().reconnects, before + 1);
    assert_eq!(reconnects(&mut stream).await, 1);
}
