//! Answers to the upgrade that never end.

use resub::{ConnectError, Disconnect, SubscriptionError};

use super::*;

async fn refused(stream: &mut Subscription<Value>) -> ConnectError {
    match error(stream).await {
        SubscriptionError::Lost(Disconnect::Connect(error))
        | SubscriptionError::GaveUp { cause: Disconnect::Connect(error), .. } => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn headers_without_end_and_headers_without_number_are_errors() {
    for (part, says) in [("x", "more than 65536 bytes"), ("x: y\r\n", "more than 65536 bytes")] {
        within(BASE, async {
            let mut server = Hostile::new();
            let (_client, mut stream) = client(&server);
            let mut line = server.accept().await;
            line.request().await;
            line.bytes(b"HTTP/1.1 101 OK\r\nx: ").await;
            let part = part.repeat(1_000);
            while line.bytes(part.as_bytes()).await {}
            let error = refused(&mut stream).await;
            assert!(error.to_string().contains(says), "{error}");
        });
    }
    within(BASE, async {
        let mut server = Hostile::new();
        let (_client, mut stream) = client(&server);
        let mut line = server.accept().await;
        line.request().await;
        line.bytes(format!("HTTP/1.1 101 OK\r\n{}\r\n", "x: y\r\n".repeat(5_000)).as_bytes()).await;
        let error = refused(&mut stream).await;
        assert!(error.to_string().contains("headers"), "{error}");
    });
}

#[test]
fn the_body_of_a_refusal_is_not_read_to_its_end_if_it_has_none() {
    within(BASE, async {
        let mut server = Hostile::new();
        let (_client, mut stream) = client(&server);
        let mut line = server.accept().await;
        line.request().await;
        line.bytes(b"HTTP/1.1 404 No\r\n\r\n").await;
        while line.bytes(&[b'x'; 10_000]).await {}
        let ConnectError::Http { status: 404, body, .. } = refused(&mut stream).await else {
            panic!()
        };
        assert_eq!(body.len(), 1024);
    });
}

#[test]
fn a_head_that_trickles_is_given_up_in_time() {
    within(BASE, async {
        let mut server = Hostile::new();
        let (_client, mut stream) = client_with(&server, |builder| builder.give_up_after(1));
        let mut line = server.accept().await;
        line.request().await;
        line.bytes(b"HTTP/1.1 101 OK\r\nx: ").await;
        let begun = tokio::time::Instant::now();
        let mut often = tokio::time::interval(Duration::from_millis(100));
        while line.bytes(b"x").await {
            often.tick().await;
        }
        assert!(begun.elapsed() <= Duration::from_secs(11), "{:?}", begun.elapsed());
        let error = refused(&mut stream).await;
        assert!(matches!(error, ConnectError::Timeout(_)), "{error:?}");
    });
}
