//! How much is built of a little text: depth, errors without end, and readers that are too slow.

use resub::{CallError, IncrementalError, Status, SubscriptionError};

use super::*;

/// Text of eight bytes that is a map of one entry.
const OBJECT: &str = r#"{"":0},"#;

#[test]
fn json_of_any_depth_is_an_error_wherever_it_is_and_no_stack_overflow() {
    const DEEP: usize = 100_000;
    within(4 * MIB + BASE, async {
        let mut server = Hostile::new();
        let (client, mut stream) = client(&server);
        let mut line = server.subscribed().await;
        for open in ["[", r#"{"":"#] {
            // In its usual place, in one that only the reference parser knows, and beside the data.
            for (begin, end) in [
                (r#"{"id":"1.0","type":"next","payload":{"data":"#, "}}"),
                (r#"{"payload":{"data":"#, r#"},"type":"next","id":"1.0"}"#),
                (r#"{"id":"1.0","type":"next","payload":{"data":0,"errors":["#, "]}}"),
                (r#"{"id":"1.0","type":"next","payload":{"data":0,"extensions":"#, "}}"),
            ] {
                let close = if open == "[" { "]" } else { "}" };
                let end = format!("{}{end}", close.repeat(DEEP));
                let text = format!("{begin}{}0{end}", open.repeat(DEEP));
                line.text(&text).await;
                let error = error(&mut stream).await;
                assert!(matches!(error, SubscriptionError::Decode(_)), "{begin}: {error:?}");
            }
        }
        // Where nobody looks it is passed over.
        for (begin, end) in [
            (r#"{"type":"ping","payload":"#, "}"),
            (r#"{"type":"connection_ack","payload":"#, "}"),
            (r#"{"type":"nonsense","payload":"#, "}"),
            (r#"{"id":"#, r#","type":"next","payload":{}}"#),
        ] {
            line.text(&format!("{begin}{}{}{end}", "[".repeat(DEEP), "]".repeat(DEEP))).await;
        }
        line.text(r#"{"id":"1.0","type":"next","payload":{"data":7}}"#).await;
        assert_eq!(item(&mut stream).await, 7);
        assert_eq!(client.stats().connections, 1);
        line.text(&format!(
            r#"{{"id":"1.0","type":"error","payload":[{}{}]}}"#,
            "[".repeat(DEEP),
            "]".repeat(DEEP)
        ))
        .await;
        let SubscriptionError::Rejected(errors) = error(&mut stream).await else { panic!() };
        assert!(errors[0].message.contains("recursion limit"), "{errors:?}");
    });
}

#[test]
fn of_errors_and_extensions_no_more_is_built_than_the_bound() {
    const MANY: usize = 256 * KIB;
    within(4 * OBJECT.len() * MANY + 42 * MIB + BASE, async {
        let mut server = Hostile::new();
        let (_client, mut stream) = client(&server);
        let mut line = server.subscribed().await;
        for (begin, end, is_kept) in [
            // Those after the first hundred are passed over.
            (r#"{"id":"1.0","type":"next","payload":{"data":7,"errors":["#, "0]}}", true),
            (r#"{"id":"1.0","type":"next","payload":{"data":7,"errors":[["#, "0]]}}", false),
            (
                r#"{"id":"1.0","type":"next","payload":{"data":7,"errors":[{"extensions":{"x":["#,
                "0]}}]}}",
                false,
            ),
            (
                r#"{"id":"1.0","type":"next","payload":{"data":7,"extensions":{"x":["#,
                "0]}}}",
                false,
            ),
        ] {
            line.repeated(begin, OBJECT, MANY, end).await;
            match stream.next().await {
                Some(Ok(Event::Next(response))) => assert!(is_kept && response.errors.len() == 100),
                Some(Err(SubscriptionError::Decode(error))) => {
                    assert!(!is_kept && error.to_string().contains("65536 values"), "{error}");
                }
                other => panic!("{other:?}"),
            }
        }
        line.repeated(r#"{"id":"1.0","type":"error","payload":{"errors":["#, OBJECT, MANY, "0]}}")
            .await;
        let SubscriptionError::Rejected(errors) = error(&mut stream).await else { panic!() };
        assert!(errors[0].message.contains("65536 values"), "{errors:?}");
    });
}

#[test]
fn the_parts_of_a_result_are_bounded_together_and_so_is_merging_them() {
    const LIMIT: usize = 4 * MIB;
    // What is kept, and what merging may take besides.
    for (bytes, is_flood) in [(2 * LIMIT + BASE, true), (3 * LIMIT + 64 * MIB + BASE, false)] {
        within(bytes, async {
            let mut server = Hostile::new();
            let builder = Client::builder("ws://hostile/").dialer(server.dialer()).seed(1);
            let client = builder.max_message_size(LIMIT).build().unwrap();
            let call = async { client.query_with(Request::<Value>::new("{ a }")).await };
            let parts = async {
                let mut line = server.subscribed().await;
                if is_flood {
                    for _ in 0..100_000 {
                        line.text(r#"{"id":"1.0","type":"next","payload":{"hasNext":true}}"#).await;
                    }
                } else {
                    let begin = r#"{"id":"1.0","type":"next","payload":{"data":{"a":["#;
                    for end in [r#"0]},"hasNext":true}}"#, r#"0]},"path":[],"hasNext":false}}"#] {
                        line.repeated(begin, OBJECT, 200_000, end).await;
                    }
                }
                line
            };
            let (result, _line) = futures::join!(call, parts);
            match result {
                Err(CallError::Incremental(IncrementalError::TooLarge { limit: LIMIT })) => {
                    assert!(is_flood);
                }
                Err(CallError::Incremental(IncrementalError::TooComplex)) => assert!(!is_flood),
                other => panic!("{other:?}"),
            }
        });
    }
}

#[test]
fn what_a_slow_reader_leaves_is_bounded_in_bytes_and_in_items() {
    // Large items: by default 16 MiB wait at most. The buffers that they came in may be twice as
    // large.
    within(2 * 16 * MIB + 4 * MIB + BASE, async {
        let mut server = Hostile::new();
        let (client, _stream) = client(&server);
        let mut line = server.subscribed().await;
        for _ in 0..600 {
            line.repeated(
                r#"{"id":"1.0","type":"next","payload":{"data":""#,
                "x",
                50_000,
                r#""}}"#,
            )
            .await;
        }
        let stats = read_all(&client, &mut line).await;
        assert!(stats.queued_items > 300 && stats.dropped > 200, "{stats:?}");
    });
    // Small ones: 1,024 at most.
    within(3 * MIB + BASE, async {
        let mut server = Hostile::new();
        let (client, _stream) = client(&server);
        let mut line = server.subscribed().await;
        for _ in 0..10_000 {
            line.text(r#"{"id":"1.0","type":"next","payload":{"data":7}}"#).await;
        }
        assert_eq!(read_all(&client, &mut line).await.queued_items, 1024);
    });
}

#[test]
fn small_items_that_wait_hold_no_large_buffers() {
    within(8 * MIB, async {
        let mut server = Hostile::new();
        let (client, _slow) = client(&server);
        let mut line = server.subscribed().await;
        let mut fast = subscribe(&client);
        line.read_frame().await;
        for _ in 0..100 {
            // What the large one came in is given back, and the next that is received may take it.
            line.repeated(
                r#"{"id":"2.1","type":"next","payload":{"data":""#,
                "x",
                500_000,
                r#""}}"#,
            )
            .await;
            item(&mut fast).await;
            line.text(r#"{"id":"1.0","type":"next","payload":{"data":7}}"#).await;
        }
        assert_eq!(read_all(&client, &mut line).await.queued_items, 100);
    });
}

/// Waits until the client has read what was sent, as a ping is answered in its order.
async fn read_all(client: &Client, line: &mut hostile::Line) -> resub::Stats {
    line.text(r#"{"type":"ping","payload":{"last":true}}"#).await;
    while !line.read_frame().await.contains("last") {}
    client.stats()
}

#[test]
fn of_what_is_said_about_the_connection_64_kib_are_read() {
    // Of eight megabytes a hundred times as much would be made.
    within(4 * 8 * MIB + BASE, async {
        let mut server = Hostile::new();
        let (client, mut stream) = client(&server);
        // The first refusal asks for other credentials, at once.
        let mut line = server.accept().await;
        line.upgrade().await;
        line.read_frame().await;
        line.repeated(r#"{"type":"connection_error","payload":{"message":["#, OBJECT, MIB, "0]}}")
            .await;
        let mut line = server.accept().await;
        line.upgrade().await;
        line.read_frame().await;
        line.repeated(r#"{"type":"connection_ack","payload":{"x":["#, OBJECT, MIB, "0]}}").await;
        line.read_frame().await;
        assert!(matches!(&*client.status().borrow(), Status::Open { ack_payload: None, .. }));
        line.repeated(r#"{"type":"ping","payload":["#, OBJECT, MIB, "0]}").await;
        assert!(line.read_frame().await.ends_with(r#"{"type":"pong"}"#));
        line.text(r#"{"id":"1.0","type":"next","payload":{"data":7}}"#).await;
        assert_eq!(item(&mut stream).await, 7);
    });
}
