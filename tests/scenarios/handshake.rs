//! From the dial to the acknowledgement: credentials, subprotocols, refusals and deadlines.

use std::sync::{Arc, Mutex};

use resub::{
    BuildError, ConnectError, Credentials, CredentialsError, CredentialsReason, Disconnect,
    Subprotocol, mock::Upgrade,
};

use super::*;

/// A client whose provider returns the tokens `1`, `2`, .. and notes why it was asked.
fn asked(server: &Server) -> (Client, Arc<Mutex<Vec<CredentialsReason>>>) {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&reasons);
    let client = builder(server)
        .credentials(move |reason| {
            let mut reasons = noted.lock().unwrap();
            reasons.push(reason);
            let token = reasons.len().to_string();
            async move {
                let credentials = Credentials::none().init_payload(&json!({ "token": token }));
                credentials
                    .and_then(|c| c.header("Authorization", &token))
                    .map_err(CredentialsError::fatal)
            }
        })
        .build()
        .unwrap();
    (client, reasons)
}

#[tokio::test(start_paused = true)]
async fn credentials_are_asked_for_before_every_dial_with_the_reason() {
    let server = Server::in_memory();
    let (client, reasons) = asked(&server);
    let _stream = subscribe(&client, "a");
    for n in 1..=3 {
        let peer = server.accept().await.expect_init().await;
        assert_eq!(peer.init_payload(), &json!({"token": n.to_string()}));
        assert_eq!(peer.request().header("authorization"), Some(n.to_string().as_str()));
        let mut peer = peer.ack().await;
        peer.expect_subscribe().await;
        peer.vanish();
    }
    let reasons = reasons.lock().unwrap();
    assert!(matches!(reasons[0], CredentialsReason::Initial));
    assert!(reasons[1..].iter().all(|reason| matches!(reason, CredentialsReason::Reconnect)));
}

#[tokio::test(start_paused = true)]
async fn fixed_credentials_complete_those_of_the_provider() {
    let server = Server::in_memory();
    let client = builder(&server)
        .header("X-Tenant", "t")
        .header("Authorization", "fixed")
        .init_payload(&json!({"fixed": true}))
        .credentials(|_| async { Ok(Credentials::none().header("authorization", "provided")?) })
        .build()
        .unwrap();
    let _stream = subscribe(&client, "a");
    let peer = server.accept().await.expect_init().await;
    assert_eq!(
        (peer.request().header("x-tenant"), peer.request().header("authorization")),
        (Some("t"), Some("provided"))
    );
    assert_eq!(peer.init_payload(), &json!({"fixed": true}));
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_replaced_at_once_and_the_stream_goes_on() {
    let server = Server::in_memory();
    let (client, reasons) = asked(&server);
    let mut stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    let since = Instant::now();
    peer.send_close(4403, "token expired").await;
    let peer = server.accept().await.expect_init().await;
    assert_eq!(peer.init_payload(), &json!({"token": "2"}));
    assert!(since.elapsed() < Duration::from_millis(100));
    let mut peer = peer.ack().await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(1)).await;
    assert_eq!(gap(&mut stream).await.reconnects, 1);
    assert_eq!(item(&mut stream).await, 1);
    let reasons = reasons.lock().unwrap();
    let CredentialsReason::Rejected { cause, .. } = &reasons[1] else { panic!("{reasons:?}") };
    assert!(cause.to_string().contains("token expired"));
}

#[tokio::test(start_paused = true)]
async fn a_second_rejection_ends_every_stream_in_the_servers_words_and_a_later_subscribe_dials() {
    let server = Server::in_memory();
    let (client, reasons) = asked(&server);
    let (mut a, mut b) = (subscribe(&client, "a"), subscribe(&client, "b"));
    for _ in 0..2 {
        let mut peer = server.accept().await.expect_init().await;
        peer.send_close(4403, "who are you?").await;
    }
    for stream in [&mut a, &mut b] {
        assert!(text(&end(stream).await).contains("who are you?"));
    }
    let _c = subscribe(&client, "c");
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    assert!(matches!(reasons.lock().unwrap()[2], CredentialsReason::Rejected { .. }));
}

#[tokio::test(start_paused = true)]
async fn the_legacy_refusal_is_a_rejection_too() {
    let server = Server::in_memory();
    let client = builder(&server).subprotocol(Subprotocol::GraphqlWs).build().unwrap();
    let mut stream = subscribe(&client, "a");
    for _ in 0..2 {
        let mut peer = server.accept().await.expect_init().await;
        peer.connection_error(json!({"message": "no such user"})).await;
        peer.pump_until_end().await;
    }
    assert!(text(&end(&mut stream).await).contains("no such user"));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_hangs_or_panics_is_asked_again_and_one_that_gives_up_ends_all() {
    let server = Server::in_memory();
    let times = Arc::new(Mutex::new(0));
    let client = builder(&server)
        .credentials_timeout(secs(5))
        .credentials(move |_| {
            let time = {
                let mut times = times.lock().unwrap();
                *times += 1;
                *times
            };
            async move {
                match time {
                    1 => Err(CredentialsError::transient("the token endpoint is down")),
                    2 => std::future::pending().await,
                    3 => panic!("a bug of the application"),
                    4 => Ok(Credentials::none()),
                    _ => Err(CredentialsError::fatal("no more tokens")),
                }
            }
        })
        .build()
        .unwrap();
    let mut stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    assert_eq!(server.dials(), 1, "nobody dials without credentials");
    peer.vanish();
    assert!(text(&end(&mut stream).await).contains("no more tokens"));
}

#[tokio::test(start_paused = true)]
async fn the_legacy_subprotocol_is_tried_when_the_modern_one_is_refused_and_remembered() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = subscribe(&client, "a");
    let mut peer = server.accept().await.expect_init().await;
    assert_eq!(peer.request().subprotocols(), ["graphql-transport-ws"]);
    peer.send_close(4406, "Subprotocol not acceptable").await;
    for n in 1..=2 {
        let mut peer = connected(&server).await;
        assert_eq!(peer.request().subprotocols(), ["graphql-ws"]);
        let id = peer.expect_subscribe().await.id;
        peer.next(&id, data(n)).await;
        if n == 2 {
            gap(&mut stream).await;
        }
        assert_eq!(item(&mut stream).await, n);
        peer.vanish();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_no_subprotocol_or_another_or_400_is_tried_with_the_other_one() {
    for upgrade in
        [Some(Upgrade::new().without_subprotocol()), Some(Upgrade::new().subprotocol("mqtt")), None]
    {
        let server = Server::in_memory();
        let client = client(&server);
        let _stream = subscribe(&client, "a");
        match upgrade {
            Some(upgrade) => drop(server.accept_with(upgrade).await),
            None => drop(server.refuse(400, &[], "unknown subprotocol").await),
        }
        let mut peer = connected(&server).await;
        assert_eq!(peer.request().subprotocols(), ["graphql-ws"]);
        peer.expect_subscribe().await;
    }
}

#[tokio::test(start_paused = true)]
async fn when_neither_subprotocol_works_the_error_says_what_came_back() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = subscribe(&client, "a");
    server.refuse(400, &[], "not here").await;
    server.accept().await.expect_init().await.send_close(4406, "nor this").await;
    let error = text(&end(&mut stream).await);
    assert!(
        error.contains("graphql-transport-ws") && error.contains("HTTP 400: not here"),
        "{error}"
    );
    assert!(error.contains("graphql-ws") && error.contains("4406: nor this"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn http_refusals_are_retried_after_what_the_server_asks_for_or_fatal() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = subscribe(&client, "a");
    let since = Instant::now();
    server.refuse(503, &[("Retry-After", "40")], "come back later").await;
    server.dialed(2).await;
    assert!(since.elapsed() >= secs(40), "{:?}", since.elapsed());
    server.refuse(404, &[], "no such path").await;
    let error = end(&mut stream).await;
    let Some(Disconnect::Connect(ConnectError::Http { status: 404, body, .. })) =
        error.disconnect()
    else {
        panic!("{error:?}")
    };
    assert_eq!(body, "no such path");
}

#[tokio::test(start_paused = true)]
async fn an_absurd_retry_after_parks_nobody_and_an_answer_in_http_1_0_is_no_end() {
    let server = Server::in_memory();
    let client = client(&server);
    let _stream = subscribe(&client, "a");
    let since = Instant::now();
    server.refuse(503, &[("Retry-After", "18446744073709551615")], "").await;
    server.set_deadline(secs(2 * 60 * 60));
    drop(server.accept_raw("HTTP/1.0 503 Service Unavailable\r\n\r\n").await);
    assert!(
        since.elapsed() >= secs(60 * 60) && since.elapsed() < secs(61 * 60),
        "{:?}",
        since.elapsed()
    );
    connected(&server).await.expect_subscribe().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_no_websocket_server_is_named() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = subscribe(&client, "a");
    let _open = server.accept_raw("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    let error = text(&end(&mut stream).await);
    assert!(error.contains("did not upgrade to WebSocket"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_dial_an_upgrade_and_an_ack_that_never_come_each_have_a_deadline() {
    let server = Server::in_memory();
    let client = builder(&server).connect_timeout(secs(3)).ack_timeout(secs(4)).build().unwrap();
    let _stream = subscribe(&client, "a");
    let waits = async || {
        let status = until(&client, |status| matches!(status, Status::Waiting { .. })).await;
        let Status::Waiting { cause: Some(cause), .. } = status else { unreachable!() };
        client.reconnect_now();
        cause
    };
    server.hang_dials(1);
    let timeout = Disconnect::Connect(ConnectError::Timeout(secs(3)));
    assert_eq!(format!("{:?}", waits().await), format!("{timeout:?}"));

    let silence = server.accept_silent().await;
    assert_eq!(format!("{:?}", waits().await), format!("{timeout:?}"));
    drop(silence);

    let mut peer = server.accept().await.expect_init().await;
    assert!(matches!(waits().await, Disconnect::AckTimeout(timeout) if timeout == secs(4)));
    assert_eq!(peer.expect_close().await.0, 4504);
}

#[tokio::test(start_paused = true)]
async fn an_operations_message_before_the_ack_is_a_violation() {
    let server = Server::in_memory();
    let client = client(&server);
    let mut stream = subscribe(&client, "a");
    let mut peer = server.accept().await.expect_init().await;
    peer.send_json(json!({"type": "next", "id": "1.0", "payload": {}})).await;
    assert!(text(&end(&mut stream).await).contains("`next` message before the acknowledgement"));
    assert_eq!(peer.expect_close().await.0, 4004);
}

#[tokio::test(start_paused = true)]
async fn the_ack_payload_is_exposed() {
    let server = Server::in_memory();
    let client = client(&server);
    let _stream = subscribe(&client, "a");
    let _peer = server.accept().await.expect_init().await.ack_with(json!({"session": 7})).await;
    let open = until(&client, |status| matches!(status, Status::Open { .. })).await;
    let Status::Open { ack_payload, subprotocol, .. } = open else { unreachable!() };
    assert_eq!(
        (ack_payload.unwrap()["session"].clone(), subprotocol),
        (json!(7), Subprotocol::GraphqlTransportWs)
    );
}

#[tokio::test]
async fn wrong_options_are_named_when_the_client_is_built() {
    let build = |url: &str| Client::builder(url).build().unwrap_err();
    assert!(matches!(build("nonsense"), BuildError::Url(_)));
    assert!(matches!(build("ftp://host/"), BuildError::Scheme(scheme) if scheme == "ftp"));
    assert!(matches!(build("ws://user:secret@host/"), BuildError::UserInfo));
    assert!(matches!(build("ws://host/#here"), BuildError::Fragment));
    let with = || Client::builder("ws://host/");
    assert!(matches!(with().header("Bad Name", "x").build(), Err(BuildError::HeaderName)));
    assert!(matches!(with().header("X", "a\r\nb").build(), Err(BuildError::Header(_))));
    assert!(matches!(with().header("Sec-WebSocket-Key", "x").build(), Err(BuildError::Header(_))));
    assert!(matches!(with().init_payload(&"text").build(), Err(BuildError::InitPayload(None))));
    assert!(matches!(with().ack_timeout(Duration::ZERO).build(), Err(BuildError::Option(_))));
    assert!(matches!(with().backoff(Duration::ZERO, secs(1)).build(), Err(BuildError::Option(_))));
    assert!(matches!(with().give_up_after(0).build(), Err(BuildError::Option(_))));
    assert!(matches!(with().max_message_size(0).build(), Err(BuildError::Option(_))));
    assert!(matches!(with().healthy_after(Duration::MAX).build(), Err(BuildError::Option(_))));
    let client = with().build().unwrap();
    timeout(secs(60), client.shutdown(Duration::MAX)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_init_payload_above_the_limit_ends_what_asked_for_it() {
    let server = Server::in_memory();
    let large = json!({"token": "x".repeat(3_000)});
    let fixed = builder(&server).max_message_size(2_000).init_payload(&large).build();
    assert!(matches!(fixed, Err(BuildError::Option(_))));
    let client = builder(&server)
        .max_message_size(2_000)
        .credentials(move |_| {
            std::future::ready(Credentials::none().init_payload(&large).map_err(Into::into))
        })
        .build()
        .unwrap();
    let mut stream = subscribe(&client, "a");
    assert!(text(&end(&mut stream).await).contains("init payload is larger"));
    assert!(builder(&server).max_message_size(usize::MAX).build().is_ok());
}
