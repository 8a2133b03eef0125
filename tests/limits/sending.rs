//! What waits for a server that does not read.

use resub::{Disconnect, Status, SubscribeError};

use super::{
    hostile::{FIN, PING},
    *,
};

#[test]
fn what_is_dropped_while_nothing_is_written_is_not_kept() {
    // Of each, its variables of 10 KB are what would add up: to 200 MB.
    within(2 * MIB + BASE, async {
        let mut server = Hostile::new();
        let (client, mut stream) = client(&server);
        let mut line = server.subscribed().await;
        let variables = "x".repeat(10_000);
        let request = || Request::<Value>::new("subscription { a }").variables(&variables);
        for _ in 0..200 {
            let streams: Vec<_> =
                (0..100).map(|_| client.subscribe_to(request()).unwrap()).collect();
            tokio::task::yield_now().await;
            drop(streams);
            tokio::task::yield_now().await;
        }
        line.text(r#"{"id":"1.0","type":"next","payload":{"data":7}}"#).await;
        assert_eq!(item(&mut stream).await, 7);
        assert_eq!(client.stats().live_operations, 1);
    });
}

#[test]
fn ten_thousand_operations_that_nobody_reads_take_what_they_are_and_little_more() {
    const DOCUMENT: usize = 1_000;
    within(10_000 * (DOCUMENT + KIB) + MIB + BASE, async {
        let mut server = Hostile::new();
        let (client, mut stream) = client(&server);
        let mut line = server.subscribed().await;
        let document = format!("subscription {{ a }} # {}", "x".repeat(DOCUMENT));
        let mut streams = Vec::new();
        for _ in 0..10_000 {
            streams.push(client.subscribe_to(Request::<Value>::new(&*document)).unwrap());
            tokio::task::yield_now().await;
        }
        line.text(r#"{"id":"1.0","type":"next","payload":{"data":7}}"#).await;
        assert_eq!(item(&mut stream).await, 7);
        // Not more than the buffers hold was written.
        assert!(client.stats().bytes_out < 400_000, "{:?}", client.stats());
    });
}

#[test]
fn a_server_that_neither_reads_nor_speaks_is_left_in_time() {
    within(2 * MIB + BASE, async {
        let mut server = Hostile::new();
        let (client, _stream) = client(&server);
        let _line = server.subscribed().await;
        let big = Request::<Value>::new(format!("subscription {{ a }} # {}", "x".repeat(300_000)));
        let _stream = client.subscribe_to(big).unwrap();
        let mut status = client.status();
        let begun = tokio::time::Instant::now();
        status.wait_for(|status| matches!(status, Status::Waiting { .. })).await.unwrap();
        assert!(begun.elapsed() <= Duration::from_secs(25), "{:?}", begun.elapsed());
        let Status::Waiting { cause: Some(cause), .. } = status.borrow().clone() else { panic!() };
        assert!(matches!(cause, Disconnect::Silent(_)), "{cause:?}");
        client.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn an_operation_that_is_larger_than_a_message_may_be_is_refused_before_it_is_sent() {
    within(8 * MIB, async {
        let mut server = Hostile::new();
        let (client, mut stream) = client_with(&server, |builder| builder.max_message_size(MIB));
        let mut line = server.subscribed().await;
        let error = client.subscribe_to(Request::<Value>::new("x".repeat(MIB))).unwrap_err();
        assert!(matches!(error, SubscribeError::TooLarge { limit: MIB, .. }), "{error:?}");
        line.text(r#"{"id":"1.0","type":"next","payload":{"data":7}}"#).await;
        assert_eq!(item(&mut stream).await, 7);
    });
}

#[test]
fn a_message_of_any_size_finds_room_behind_pongs_that_nobody_read() {
    within(6 * MIB, async {
        let mut server = Hostile::new();
        let (client, mut stream) = client_with(&server, |builder| builder.max_message_size(MIB));
        let mut line = server.subscribed().await;
        for _ in 0..5_000 {
            line.frame(FIN | PING, &[b'p'; 125]).await;
        }
        line.text(r#"{"id":"1.0","type":"next","payload":{"data":7}}"#).await;
        assert_eq!(item(&mut stream).await, 7);
        let big = Request::<Value>::new("subscription { a }").variables(&"x".repeat(MIB - 100));
        let _stream = client.subscribe_to(big).unwrap();
        let mut pongs = 0;
        loop {
            let frame = line.read_frame().await;
            if frame.contains("subscribe") {
                assert!(frame.len() > MIB - 100);
                break;
            }
            pongs += 1;
        }
        assert!(
            (1_000..2_000).contains(&pongs),
            "what the pipe and the buffer hold, and not {pongs}"
        );
        assert_eq!(client.stats().connections, 1);
    });
}
