//! Messages and frames that are too large, too many, too small, or not what they claim to be.

use resub::{Disconnect, SubscriptionError};

use super::{
    hostile::{CLOSE, CONTINUATION, FIN, PING, TEXT},
    *,
};

const ITEM: &str = r#"{"id":"1.0","type":"next","payload":{"data":7}}"#;

async fn lost(subscription: &mut Subscription<Value>) -> Disconnect {
    match error(subscription).await {
        SubscriptionError::Lost(cause) => cause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_frame_that_claims_to_be_huge_ends_in_an_error_and_takes_no_memory() {
    for claim in [16 * 1024 * 1024 + 1, 1 << 40, (1 << 63) - 1] {
        within(BASE, async {
            let mut server = Hostile::new();
            let (_client, mut stream) = client(&server);
            let mut line = server.subscribed().await;
            let claim: u64 = claim;
            line.bytes(&[&[FIN | TEXT, 127][..], &claim.to_be_bytes()].concat()).await;
            let cause = lost(&mut stream).await;
            assert!(matches!(cause, Disconnect::MessageTooBig { limit: 16_777_216 }), "{cause:?}");
        });
    }
}

#[test]
fn a_message_of_many_frames_ends_at_the_limit() {
    within(4 * MIB + BASE, async {
        let mut server = Hostile::new();
        let (_client, mut stream) = client_with(&server, |builder| builder.max_message_size(MIB));
        let mut line = server.subscribed().await;
        line.frame(TEXT, b"{").await;
        while line.frame(CONTINUATION, &[b'x'; 10_000]).await {}
        let cause = lost(&mut stream).await;
        assert!(matches!(cause, Disconnect::MessageTooBig { limit: MIB }), "{cause:?}");
    });
}

#[test]
fn a_message_as_large_as_it_may_be_is_an_item() {
    within(4 * MIB + BASE, async {
        let mut server = Hostile::new();
        let (_client, mut stream) = client_with(&server, |builder| builder.max_message_size(MIB));
        let mut line = server.subscribed().await;
        let (begin, end) = (r#"{"id":"1.0","type":"next","payload":{"data":""#, r#""}}"#);
        let len = MIB - begin.len() - end.len();
        line.repeated(begin, "x", len, end).await;
        assert_eq!(item(&mut stream).await.as_str().unwrap().len(), len);
    });
}

#[test]
fn two_hundred_thousand_empty_frames_of_one_message_take_no_memory() {
    within(BASE, async {
        let mut server = Hostile::new();
        let (_client, mut stream) = client(&server);
        let mut line = server.subscribed().await;
        line.frame(TEXT, ITEM.as_bytes()).await;
        let empty = [CONTINUATION, 0].repeat(10_000);
        for _ in 0..20 {
            line.bytes(&empty).await;
        }
        line.frame(FIN | CONTINUATION, b"").await;
        assert_eq!(item(&mut stream).await, 7);
    });
}

#[test]
fn a_server_that_trickles_byte_by_byte_is_served_all_the_same() {
    within(BASE, async {
        let mut server = Hostile::new();
        let (_client, mut stream) = client(&server);
        let mut line = server.subscribed().await;
        let padding = format!(
            "{{\"id\":\"1.0\",\"type\":\"next\",\"payload\":{{\"x\":\"{}\",\"data\":8}}}}",
            "x".repeat(20_000)
        );
        let head =
            [&[FIN | TEXT, 126][..], &u16::try_from(padding.len()).unwrap().to_be_bytes()].concat();
        for byte in head.iter().chain(padding.as_bytes()) {
            line.bytes(&[*byte]).await;
            // Everything that has arrived is looked at before the next one comes.
            tokio::task::yield_now().await;
        }
        assert_eq!(item(&mut stream).await, 8);
    });
}

#[test]
fn a_million_messages_for_unknown_ids_are_counted_and_not_kept() {
    within(BASE, async {
        let mut server = Hostile::new();
        let (client, mut stream) = client(&server);
        let mut line = server.subscribed().await;
        let mut chunk = Vec::with_capacity(4096);
        for n in 0..1_000_000_u32 {
            // Ids of others, ids that could be ours, and ends of what was never begun.
            let text = match n % 4 {
                0 => format!(r#"{{"id":"{n}.{n}","type":"next","payload":{{}}}}"#),
                1 => format!(r#"{{"id":"x{n}","type":"next","payload":{{}}}}"#),
                2 => format!(r#"{{"id":"{n}.0","type":"complete"}}"#),
                _ => format!(r#"{{"id":"{n}.1","type":"error","payload":[]}}"#),
            };
            chunk.extend([FIN | TEXT, u8::try_from(text.len()).unwrap()]);
            chunk.extend(text.into_bytes());
            if chunk.len() > 4000 {
                line.bytes(&chunk).await;
                chunk.clear();
            }
        }
        line.bytes(&chunk).await;
        line.text(ITEM).await;
        assert_eq!(item(&mut stream).await, 7);
        assert_eq!(client.stats().ignored, 1_000_000);
        assert_eq!(client.stats().connections, 1);
    });
}

#[test]
fn of_pongs_that_nobody_reads_one_is_kept() {
    // The write buffer is full before the first one waits, so a payload is in it many times.
    within(BASE + 512 * KIB, async {
        let mut server = Hostile::new();
        let (client, mut stream) = client(&server);
        let mut line = server.subscribed().await;
        let ping = format!(r#"{{"type":"ping","payload":{{"x":"{}"}}}}"#, "x".repeat(60_000));
        for _ in 0..1_000 {
            line.text(&ping).await;
            line.frame(FIN | PING, &[b'x'; 125]).await;
        }
        line.text(ITEM).await;
        assert_eq!(item(&mut stream).await, 7);
        assert!(client.stats().bytes_out < 1_000_000, "{:?}", client.stats());
    });
}

#[test]
fn half_a_million_pings_that_are_answered_are_no_burden() {
    within(BASE, async {
        let mut server = Hostile::new();
        let (_client, mut stream) = client(&server);
        let mut line = server.subscribed().await;
        let text = br#"{"type":"ping"}"#;
        let one = [&[FIN | TEXT, 15][..], text, &[FIN | PING, 0]].concat();
        let many = one.repeat(100);
        for _ in 0..2_500 {
            line.bytes(&many).await;
            line.read_frame().await;
        }
        line.text(ITEM).await;
        assert_eq!(item(&mut stream).await, 7);
    });
}

#[test]
fn a_close_reason_is_told_up_to_123_bytes_and_a_longer_one_is_an_invalid_close_frame() {
    for len in [123, 124, 60_000] {
        within(BASE, async {
            let mut server = Hostile::new();
            let (_client, mut stream) = client(&server);
            let mut line = server.subscribed().await;
            let reason = "r".repeat(len);
            line.frame(FIN | CLOSE, &[&4000_u16.to_be_bytes()[..], reason.as_bytes()].concat())
                .await;
            let _line = server.subscribed().await;
            let Some(Ok(Event::Gap(gap))) = stream.next().await else {
                panic!("a gap was expected")
            };
            match gap.cause {
                Some(Disconnect::Closed { reason: told, .. }) => {
                    assert!(len == 123 && told == reason, "{told}");
                }
                Some(Disconnect::InvalidCloseFrame { code: Some(4000) }) => assert!(len > 123),
                other => panic!("{other:?}"),
            }
        });
    }
}
