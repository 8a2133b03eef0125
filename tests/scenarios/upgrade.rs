//! What a server may answer to the WebSocket upgrade, and what becomes of the streams.

use resub::{
    BuildError, ConnectError, Credentials, CredentialsReason, Disconnect, UpgradeError,
    mock::Upgrade,
};

use super::*;

/// The server's answer that ends the stream, after this many dials.
async fn refused(server: &Server, stream: &mut Subscription<Value>, dials: u64) -> ConnectError {
    let error = end(stream).await;
    assert_eq!(server.dials(), dials, "{error:?}");
    let Some(Disconnect::Connect(error)) = error.disconnect() else { panic!("{error:?}") };
    error.clone()
}

#[tokio::test(start_paused = true)]
async fn what_will_not_pass_ends_the_stream_with_the_status_and_the_servers_words() {
    for (answer, status, said) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\nno such path", 404, "no such path"),
        ("HTTP/1.0 404 Not Found\r\n\r\nno such path", 404, "no such path"),
        (
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 8\r\n\r\n\
             no hands",
            426,
            "no hands",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<title>Welcome</title>",
            200,
            "<title>Welcome</title>",
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n\
             HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
            410,
            "",
        ),
    ] {
        let server = Server::in_memory();
        let client = client(&server);
        let mut stream = subscribe(&client, "a");
        let _open = server.accept_raw(answer).await;
        let error = refused(&server, &mut stream, 1).await;
        let ConnectError::Http { status: told, body, headers, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!((*told, body.as_str()), (status, said));
        assert_eq!(headers.get("upgrade"), (status == 426).then_some("websocket"));
        assert!(
            error
                .to_string()
                .starts_with(&format!("the server answered the upgrade with HTTP {status}")),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirection_is_not_followed_and_names_its_target() {
    for status in [301, 302, 303, 307, 308] {
        let server = Server::in_memory();
        let client = client(&server);
        let mut stream = subscribe(&client, "a");
        let location = "https://user:SECRET@other.example/graphql?token=SECRET";
        server.refuse(status, &[("Location", location), ("Set-Cookie", "SECRET")], "SECRET").await;
        let error = refused(&server, &mut stream, 1).await;
        let ConnectError::Redirected { to, .. } = &error else { panic!("{error:?}") };
        assert_eq!(to, "https://other.example/graphql");
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_may_pass_is_retried_in_http_1_0_as_well_and_after_what_was_asked_for() {
    let server = Server::in_memory();
    let client = client(&server);
    let _stream = subscribe(&client, "a");
    let until = "Retry-After: Tue, 10 Nov 2026 10:00:50 GMT\r\nDate: Tue, 10 Nov 2026 10:00:00 GMT";
    for (answer, at_least) in [
        ("HTTP/1.0 503 Service Unavailable\r\nRetry-After: 40\r\n\r\n", 40),
        (&format!("HTTP/1.1 429 Too Many Requests\r\n{until}\r\nContent-Length: 0\r\n\r\n"), 50),
        ("HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0),
    ] {
        drop(server.accept_raw(answer).await);
        let since = Instant::now();
        server.dialed(server.dials() + 1).await;
        assert!(
            since.elapsed() >= secs(at_least) && since.elapsed() < secs(at_least + 35),
            "{:?}",
            since.elapsed()
        );
    }
    connected(&server).await.expect_subscribe().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_replaced_at_once_even_if_the_refusal_never_ends() {
    for status in [401, 403] {
        let server = Server::in_memory();
        let client = builder(&server)
            .credentials(|reason| async move {
                let told = match reason {
                    CredentialsReason::Rejected { cause, .. } => cause.to_string(),
                    _ => "first".to_owned(),
                };
                Ok(Credentials::none().header("X-Told", &told)?)
            })
            .build()
            .unwrap();
        let _stream = subscribe(&client, "a");
        let since = Instant::now();
        let refusal = format!(
            "HTTP/1.1 {status} No\r\nSet-Cookie: a=b\r\nContent-Length: 1000\r\n\r\ntoken expired"
        );
        let _open = server.accept_raw(refusal).await;
        let peer = server.accept().await;
        let told = format!("the server answered the upgrade with HTTP {status}: token expired");
        assert_eq!(peer.request().header("x-told"), Some(told.as_str()));
        assert!(since.elapsed() < secs(1), "{:?}", since.elapsed());
        peer.expect_init().await.ack().await.expect_subscribe().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_shows_the_request_puts_no_secret_into_the_error() {
    let server = Server::in_memory();
    let client = Client::builder("ws://mock/v1/SECRET-path/ws?access_token=SECRET-query")
        .dialer(server.dialer())
        .header("Authorization", "Bearer SECRET-header")
        .header("Cookie", "session=SECRET-cookie; theme=dark")
        .build()
        .unwrap();
    let mut stream = subscribe(&client, "a");
    let page = "<pre>Cannot GET /v1/SECRET-path/ws?access_token=SECRET-query\n\
                authorization: Bearer SECRET-header\n\
                cookie: theme=dark; session=SECRET-cookie</pre>";
    let request = server.refuse(404, &[("X-Echo", "SECRET-header")], page).await;
    assert_eq!(request.header("authorization"), Some("Bearer SECRET-header"));
    let error = end(&mut stream).await;
    let shown = format!("{} {error:?}", text(&error));
    assert!(shown.contains("Cannot GET /***?***") && !shown.contains("SECRET"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_redirection_shows_the_path_of_its_target_and_none_that_is_the_endpoints() {
    for (location, expected) in [
        ("/v1/SECRET-path/ws/", "ws://mock/***/"),
        ("/v2/SECRET-path/ws", "ws://mock/v2/***/ws"),
        ("https://other.example/v1/SECRET-path/ws", "https://other.example/***"),
        ("/login", "ws://mock/login"),
    ] {
        let server = Server::in_memory();
        let client = Client::builder("ws://mock/v1/SECRET-path/ws").dialer(server.dialer());
        let mut stream = subscribe(&client.build().unwrap(), "a");
        server.refuse(308, &[("Location", location)], "").await;
        let error = refused(&server, &mut stream, 1).await;
        let ConnectError::Redirected { to, .. } = &error else { panic!("{error:?}") };
        assert_eq!(to, expected);
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_may_come_with_other_words_about_the_connection_and_with_no_extension() {
    let server = Server::in_memory();
    let lenient = client(&server);
    let _stream = subscribe(&lenient, "a");
    let upgrade = Upgrade::new().header("Connection", "keep-alive");
    server.accept_with(upgrade).await.expect_init().await.ack().await.expect_subscribe().await;

    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = subscribe(&client, "a");
    let _peer = server
        .accept_with(Upgrade::new().header("Sec-WebSocket-Extensions", "permessage-deflate"))
        .await;
    let error = refused(&server, &mut stream, 1).await;
    assert!(matches!(error, ConnectError::Upgrade(UpgradeError::Extension)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the server did not upgrade to WebSocket: \
         the server uses an extension, and none was offered"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_another_request_is_none() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = subscribe(&client, "a");
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Protocol: graphql-transport-ws\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let _open = server.accept_raw(answer).await;
    let error = refused(&server, &mut stream, 1).await;
    assert!(matches!(error, ConnectError::Upgrade(UpgradeError::WrongAccept)), "{error:?}");
    assert!(error.to_string().contains("Sec-WebSocket-Accept"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn headers_without_end_end_the_stream() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = subscribe(&client, "a");
    let since = Instant::now();
    let _open = server.accept_raw(format!("HTTP/1.1 101 OK\r\nX: {}", "x".repeat(70_000))).await;
    let error = refused(&server, &mut stream, 1).await;
    assert!(
        matches!(error, ConnectError::Upgrade(UpgradeError::TooLarge { limit: 65_536 })),
        "{error:?}"
    );
    assert!(error.to_string().contains("more than 65536 bytes"), "{error}");
    assert_eq!(since.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_gets_on_is_given_up_in_time_and_tried_again() {
    let server = Server::in_memory();
    let client = builder(&server).connect_timeout(secs(3)).build().unwrap();
    let _stream = subscribe(&client, "a");
    let _open = server
        .accept_raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade:")
        .await;
    let status = until(&client, |status| matches!(status, Status::Waiting { .. })).await;
    let Status::Waiting { cause: Some(Disconnect::Connect(ConnectError::Timeout(after))), .. } =
        status
    else {
        panic!("{status:?}")
    };
    assert_eq!(after, secs(3));
    connected(&server).await.expect_subscribe().await;
}

#[tokio::test(start_paused = true)]
async fn the_host_may_be_another_and_what_makes_the_upgrade_may_not() {
    let server = Server::in_memory();
    let with = |name: &str| builder(&server).header(name, "market.internal").build();
    for name in [
        "Connection",
        "upgrade",
        "Sec-WebSocket-Version",
        "sec-websocket-extensions",
        "Transfer-Encoding",
    ] {
        assert!(matches!(with(name), Err(BuildError::Header(named)) if named == name), "{name}");
    }
    let client = with("host").unwrap();
    let _stream = subscribe(&client, "a");
    let peer = server.accept().await;
    let hosts: Vec<_> = peer.request().headers().filter(|(name, _)| *name == "host").collect();
    assert_eq!(hosts, [("host", "market.internal")]);
}
