//! Tests of the upgrade with a server that writes the bytes of its answer.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};

use super::*;
use crate::transport::{
    dial::{DialFuture, Dialer},
    socket::{Inbound, Socket},
};

/// Reads the request. Returns the server's end, and the request.
async fn read_request(mut server: DuplexStream) -> (DuplexStream, String) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        server.read_buf(&mut request).await.unwrap();
    }
    (server, String::from_utf8(request).unwrap())
}

/// Returns the answer that accepts this request.
fn accepting(request: &str) -> String {
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Protocol: graphql-transport-ws\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
}

async fn upgraded(io: impl dial::Io) -> Result<Vec<u8>, ConnectError> {
    let endpoint = Url::parse("ws://example.com/graphql").unwrap();
    upgrade(
        &mut (Box::new(io) as BoxedIo),
        &endpoint,
        Subprotocol::GraphqlTransportWs,
        &HeaderMap::new(),
    )
    .await
}

/// Returns the error of an answer that is followed by silence, and how long it took.
async fn answered(answer: Vec<u8>) -> (ConnectError, Duration) {
    let (client, server) = duplex(1 << 20);
    let server = async {
        let (mut server, _) = read_request(server).await;
        server.write_all(&answer).await.unwrap();
        std::future::pending::<()>().await;
    };
    let begun = now();
    tokio::select! {
        result = upgraded(client) => (result.unwrap_err(), now() - begun),
        () = server => unreachable!("it is silent for ever"),
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock is paused")]
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[test]
fn a_request_has_the_required_headers_and_then_those_of_the_application() {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer x"));
    headers.append("x-api-key", HeaderValue::from_static("1"));
    headers.append("x-api-key", HeaderValue::from_bytes(b"\xfc").unwrap());
    let written = |url: &str, headers: &HeaderMap| {
        String::from_utf8_lossy(&request(
            &Url::parse(url).unwrap(),
            Subprotocol::GraphqlWs,
            headers,
            "KEY",
        ))
        .into_owned()
    };
    assert_eq!(
        written("wss://Example.com:443/a b?token=\u{fc}&x=\"", &headers),
        "GET /a%20b?token=%C3%BC&x=%22 HTTP/1.1\r\nHost: example.com\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: KEY\r\nSec-WebSocket-Protocol: graphql-ws\r\n\
         Authorization: Bearer x\r\nX-Api-Key: 1\r\nX-Api-Key: \u{fffd}\r\n\r\n"
    );
    let first =
        |url: &str| written(url, &HeaderMap::new()).lines().take(2).collect::<Vec<_>>().join(", ");
    assert_eq!(first("ws://h"), "GET / HTTP/1.1, Host: h");
    assert_eq!(first("ws://[::1]:80/?"), "GET /? HTTP/1.1, Host: [::1]");
    assert_eq!(first("wss://[::1]:80/"), "GET / HTTP/1.1, Host: [::1]:80");

    headers.append("host", HeaderValue::from_static("fixed"));
    headers.append("host", HeaderValue::from_static("other:1"));
    let overridden = written("ws://example.com", &headers);
    let hosts: Vec<_> =
        overridden.lines().filter(|line| line.to_ascii_lowercase().starts_with("host")).collect();
    assert_eq!(hosts, ["Host: other:1"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_trickle_and_follow_interim_answers() {
    let (client, server) = duplex(1);
    let server = tokio::spawn(async move {
        let (mut server, request) = read_request(server).await;
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        for byte in format!("{hints}{}", accepting(&request)).bytes() {
            server.write_all(&[byte]).await.unwrap();
        }
        server
    });
    assert_eq!(upgraded(client).await.unwrap(), b"");
    drop(server.await.unwrap());
}

/// Returns this stream for the first dial.
struct Given(std::sync::Mutex<Option<DuplexStream>>);

impl Dialer for Given {
    fn dial<'a>(&'a self, _: &'a Url) -> DialFuture<'a> {
        let io = self.0.lock().unwrap().take().unwrap();
        Box::pin(std::future::ready(Ok(Box::new(io) as BoxedIo)))
    }
}

#[tokio::test(start_paused = true)]
async fn frames_may_arrive_in_part_with_the_answer() {
    // Two messages.
    let frames = b"\x81\x02{}\x81\x03abc";
    for here in 0..=frames.len() {
        let (client, server) = duplex(1 << 10);
        let server = tokio::spawn(async move {
            let (mut server, request) = read_request(server).await;
            server
                .write_all(&[accepting(&request).as_bytes(), &frames[..here]].concat())
                .await
                .unwrap();
            tokio::task::yield_now().await;
            server.write_all(&frames[here..]).await.unwrap();
            server
        });
        let (dialer, endpoint) = (Given(Some(client).into()), Url::parse("ws://h").unwrap());
        let opened = Socket::open(
            &dialer,
            &endpoint,
            Subprotocol::GraphqlTransportWs,
            HeaderMap::new(),
            1 << 20,
        )
        .await;
        let mut socket = opened.unwrap();
        // Bytes that arrived with the answer are a sign of life, too.
        assert_eq!(socket.has_moved(), here > 0);
        for expected in ["{}", "abc"] {
            let Inbound::Message(text) = poll_fn(|cx| socket.poll_read(cx)).await else {
                panic!("not a message")
            };
            assert_eq!(text, expected);
        }
        drop(server.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_refusal_is_awaited_for_half_a_second_at_most() {
    let half = Duration::from_millis(500);
    for (answer, said, time) in [
        ("HTTP/1.1 401 Unauthorized\r\n\r\nwho are", "who are", half),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\nwho are", "who are", half),
        (
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\nwho are you?",
            "who are you?",
            Duration::ZERO,
        ),
        ("HTTP/1.0 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "", Duration::ZERO),
        (
            "HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwho\r\n0\r\n\r\n",
            "who",
            Duration::ZERO,
        ),
    ] {
        let (error, took) = answered(answer.into()).await;
        let ConnectError::Http { status: 401, body, .. } = error else { panic!("{error:?}") };
        // The timer rounds up to a millisecond.
        assert_eq!(
            (body.as_str(), took.as_millis() / 10),
            (said, time.as_millis() / 10),
            "{answer}"
        );
    }
    let endless =
        format!("HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n{}", "x".repeat(900_000));
    let (error, took) = answered(endless.into()).await;
    let ConnectError::Http { status: 200, body, .. } = error else { panic!("{error:?}") };
    assert_eq!((body, took), ("x".repeat(1024), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_arrives_after_its_head_is_in_the_error() {
    let (client, server) = duplex(1 << 10);
    let server = async {
        let (mut server, _) = read_request(server).await;
        server.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
        timeout(Duration::from_millis(100), std::future::pending::<()>()).await.unwrap_err();
        server.write_all(b"not for you").await.unwrap();
    };
    let (result, ()) = tokio::join!(upgraded(client), server);
    let Err(ConnectError::Http { status: 403, body, .. }) = result else { panic!("{result:?}") };
    assert_eq!(body, "not for you");
}

#[tokio::test(start_paused = true)]
async fn endless_headers_are_an_error_and_not_a_timeout() {
    let (error, took) =
        answered(format!("HTTP/1.1 101 OK\r\nX: {}", "x".repeat(80_000)).into()).await;
    assert_eq!(
        error.to_string(),
        "the server did not upgrade to WebSocket: the answer's headers have more than 65536 bytes"
    );
    assert_eq!(took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_within_its_answer_is_a_failed_dial() {
    for answer in ["", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"] {
        let (client, server) = duplex(1 << 10);
        let server = async {
            let (mut server, _) = read_request(server).await;
            server.write_all(answer.as_bytes()).await.unwrap();
        };
        let (result, ()) = tokio::join!(upgraded(client), server);
        let Err(ConnectError::Dial(dial @ crate::DialError::Connect(_))) = &result else {
            panic!("{result:?}")
        };
        assert!(
            std::error::Error::source(dial).unwrap().to_string().contains("end of file"),
            "{dial:?}"
        );
    }
}

/// A writer that always fails.
struct Deaf;

impl AsyncWrite for Deaf {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A reader that never has any bytes, and no end.
struct Mute;

impl AsyncRead for Mute {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_precedes_the_end_of_the_request_is_read() {
    let early = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\ntoo much" as &[u8];
    let error = upgraded(tokio::io::join(early, Deaf)).await.unwrap_err();
    assert_eq!(error.to_string(), "the server answered the upgrade with HTTP 431: too much");
    let error = upgraded(tokio::io::join(Mute, Deaf)).await.unwrap_err();
    let ConnectError::Dial(crate::DialError::Connect(source)) = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), io::ErrorKind::BrokenPipe);
}
