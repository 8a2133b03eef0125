//! What an operator sees, and what nobody may see.

use std::{cell::RefCell, io, net::IpAddr, sync::Once};

use resub::{BuildError, Credentials, CredentialsError, Operation, Proxy};
use serde_json::value::{RawValue, to_raw_value};

use super::*;

#[tokio::test(start_paused = true)]
async fn the_status_follows_the_connection() {
    let server = Server::in_memory();
    let client = client(&server);
    assert!(matches!(*client.status().borrow(), Status::Idle));
    server.hang_dials(1);
    let stream = subscribe(&client, "a");
    until(&client, |status| matches!(status, Status::Connecting { attempt: 1, .. })).await;
    let is_long = |delay: &Duration| *delay >= Duration::from_millis(500);
    until(&client, |it| matches!(it, Status::Waiting { delay, .. } if is_long(delay))).await;
    until(&client, |status| matches!(status, Status::Connecting { attempt: 2, .. })).await;
    let peer = connected(&server).await;
    until(&client, |status| matches!(status, Status::Open { .. })).await;
    drop(stream);
    peer.vanish();
    until(&client, |status| matches!(status, Status::Idle)).await;
    let status = client.status();
    client.shutdown(secs(1)).await;
    assert!(matches!(*status.borrow(), Status::Ended));
}

#[tokio::test(start_paused = true)]
async fn stats_count_what_happened() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = live(&server).await;
    for n in 0..5 {
        peer.next(&id, data(n)).await;
    }
    peer.sync().await;
    assert_eq!(item(&mut stream).await, 0);
    let stats = client.stats();
    assert_eq!(
        (stats.dials, stats.connections, stats.reconnects, stats.live_operations),
        (1, 1, 0, 1)
    );
    assert_eq!((stats.items, stats.queued_items, stats.dropped, stats.ignored), (5, 4, 0, 0));
    assert!(stats.bytes_in > 5 * 50 && stats.bytes_out > 50, "{stats:?}");
    assert_eq!(stats.round_trip_time, None);

    let ping = peer.expect_ping().await;
    tokio::time::advance(Duration::from_millis(30)).await;
    peer.pong(ping).await;
    peer.sync().await;
    let time = client.stats().round_trip_time.unwrap();
    assert!(time >= Duration::from_millis(30) && time < Duration::from_millis(40), "{time:?}");

    // What arrived together with the end of the connection is counted, too.
    let before = stats.bytes_in;
    peer.next(&id, data("x".repeat(10_000))).await;
    peer.vanish();
    connected(&server).await.expect_subscribe().await;
    let stats = client.stats();
    assert!(stats.bytes_in > before + 10_000, "{stats:?}");
    assert_eq!((stats.dials, stats.connections, stats.reconnects), (2, 2, 1));
}

thread_local! {
    /// What was logged on this thread, which runs one test at a time.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From here on this thread's log is in [`LOG`].
fn watch_log() {
    static WATCHED: Once = Once::new();
    // Of everybody, those included who log through the `log` crate; but `tungstenite` shows frames
    // at this level. The default of the process, as that of a thread does not reach events that
    // another test was the first to pass.
    WATCHED.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("trace,tungstenite::protocol=info,tokio_tungstenite=info")
            .with_ansi(false)
            .with_writer(|| Log);
        subscriber.init();
    });
    LOG.take();
}

#[tokio::test(start_paused = true)]
async fn credentials_that_leave_this_machine_without_tls_are_warned_of_once_for_each_client() {
    const AFAR: &str = "ws://example.com/?token=SECRET";
    watch_log();
    // What was logged when this client was built, and when it dialed.
    let logged = async |builder: ClientBuilder| {
        let client = builder.give_up_after(2).build().unwrap();
        tokio::task::yield_now().await;
        drop(client);
        let logged = String::from_utf8(LOG.take()).unwrap();
        assert!(!logged.contains("SECRET"), "{logged}");
        logged.lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect::<Vec<_>>()
    };
    let header = |endpoint: &str| Client::builder(endpoint).header("Authorization", "SECRET");
    let payload = Client::builder(AFAR).init_payload(&json!({"token": "SECRET"}));
    let provider = Client::builder(AFAR).credentials(|_| async { Ok(Credentials::none()) });
    let localhost: IpAddr = [127, 0, 0, 1].into();
    let elsewhere: IpAddr = [192, 0, 2, 1].into();
    // A proxy is there to lead elsewhere.
    let proxied = header("ws://localhost/").proxy("socks5h://localhost".parse::<Proxy>().unwrap());
    for builder in
        [header(AFAR), payload, provider, header("ws://localhost/").addresses([elsewhere]), proxied]
    {
        let warnings = logged(builder).await;
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.contains(" resub: credentials go to the server without TLS"), "{warning}");
        assert!(warning.contains("server.address="), "{warning}");
    }

    let server = Server::in_memory();
    for builder in [
        Client::builder(AFAR),
        Client::builder(AFAR).header("Host", "market.internal"),
        header("ws://localhost/"),
        header("ws://127.0.0.1:4000/"),
        header("ws://[::1]/"),
        header(AFAR).addresses([localhost]),
        // What is below a dialer is its own affair.
        header(AFAR).dialer(server.dialer()),
    ] {
        assert_eq!(logged(builder).await, [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn tls_that_is_required_is_required_of_every_endpoint() {
    let server = Server::in_memory();
    for endpoint in
        ["ws://example.com/", "http://example.com/", "ws://localhost/", "ws://127.0.0.1/"]
    {
        for builder in
            [Client::builder(endpoint), Client::builder(endpoint).dialer(server.dialer())]
        {
            let error = builder.require_tls().build().unwrap_err();
            assert!(matches!(error, BuildError::TlsRequired), "{error:?}");
            assert_eq!(error.to_string(), "the endpoint is not wss://, and TLS is required");
        }
    }
    for endpoint in ["wss://example.com/", "https://localhost/"] {
        Client::builder(endpoint).dialer(server.dialer()).require_tls().build().unwrap();
    }
}

/// An operation whose own `Debug` output shows everything.
#[derive(Debug)]
struct Unguarded(#[expect(dead_code, reason = "only shown")] &'static str);

impl Operation for Unguarded {
    type Data = Value;

    fn payload(&self) -> Result<Box<RawValue>, serde_json::Error> {
        to_raw_value(&json!({"query": "subscription { a }"}))
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_attributed_is_warned_of_and_counted_and_a_byte_order_mark_is_skipped() {
    let server = Server::in_memory();
    watch_log();
    let (client, mut stream, mut peer, id) = live(&server).await;
    LOG.take();
    for (n, text) in [
        "[]".to_owned(),
        r#"{"type":"error","payload":{"message":"half \ud83d"}}"#.to_owned(),
        r#"{"type":"error","payload":[]}"#.to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        peer.send_text(&text).await;
        peer.sync().await;
        let logged = String::from_utf8(LOG.take()).unwrap();
        let warnings: Vec<_> = logged.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{text}: {logged}");
        assert_eq!(warnings[0].contains("half \u{fffd}"), n == 1, "{logged}");
        assert_eq!(client.stats().ignored, n as u64 + 1);
    }
    let next = format!(r#"{{"type":"next","id":"{id}","payload":{{"data":7}}}}"#);
    peer.send_text(&format!("\u{feff}{next}")).await;
    assert_eq!(item(&mut stream).await, 7);
    assert_eq!(client.stats().ignored, 3);
}

#[tokio::test(start_paused = true)]
async fn no_secret_and_no_payload_is_in_any_log_error_or_debug_output() {
    watch_log();

    let server = Server::in_memory();
    let mut seen = String::new();
    let builder = Client::builder("ws://mock/v1/SECRET-path/ws?token=SECRET-query")
        .dialer(server.dialer())
        .refusal_grace(Duration::ZERO)
        .credentials(|reason| async move {
            let _ = reason;
            let credentials =
                Credentials::none().init_payload(&json!({"token": "SECRET-init"})).unwrap();
            let credentials = credentials
                .header("Authorization", "SECRET-header")
                .map_err(CredentialsError::fatal)?;
            credentials.header("Cookie", "session=SECRET-cookie").map_err(CredentialsError::fatal)
        });
    seen += &format!("{builder:?}");
    let client = builder.build().unwrap();
    seen += &format!("{client:?}");
    let operation = request("a").variables(&json!({"v": "SECRET-variable"}));
    seen += &format!("{operation:?}");
    let options = client.subscription_to(operation);
    seen += &format!("{options:?}");
    let mut stream = options.start().unwrap();
    seen += &format!("{stream:?}");
    seen += &format!("{:?}", client.subscription_to(Unguarded("SECRET-variable")));
    let mut peer = connected(&server).await;
    assert!(
        peer.request().path().contains("SECRET-path")
            && peer.request().path().contains("SECRET-query")
            && peer.init_payload()["token"] == "SECRET-init"
    );
    assert_eq!(peer.request().header("cookie"), Some("session=SECRET-cookie"));
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data("SECRET-item")).await;
    seen += &format!("{:?}", client.status().borrow());
    assert_eq!(item(&mut stream).await, "SECRET-item");
    peer.next(&id, json!(["SECRET-garbage"])).await;
    let error = stream.next().await.unwrap().unwrap_err();
    seen += &format!("{error:?} {}", text(&error));
    peer.vanish();
    for _ in 0..2 {
        server.accept().await.expect_init().await.send_close(4403, "Forbidden").await;
    }
    seen += &format!("{:?}", stream.next().await);
    // A refusal that shows the request, and a redirection to another place with that path.
    let refusing = Client::builder("ws://mock/v1/SECRET-path/ws").dialer(server.dialer());
    let refusing = refusing.build().unwrap();
    for (status, location) in [(404, "/"), (308, "/v2/SECRET-path/ws")] {
        let mut stream = subscribe(&refusing, "b");
        let page = "no /v1/SECRET-path/ws here";
        server.refuse(status, &[("Location", location), ("X-Path", "SECRET-path")], page).await;
        let error = end(&mut stream).await;
        seen += &format!("{error:?} {}", text(&error));
    }
    let static_credentials = Client::builder("ws://h/SECRET?SECRET")
        .header("A", "SECRET")
        .init_payload(&json!({"a": "SECRET"}));
    seen += &format!("{static_credentials:?}");
    client.shutdown(secs(1)).await;
    drop(stream);

    let logged = String::from_utf8(LOG.take()).unwrap();
    for expected in [
        "connecting",
        "open",
        "waiting",
        "lost",
        "subscribed",
        "received",
        "ended",
        "server.address",
    ] {
        assert!(logged.contains(expected), "{expected} in {logged}");
    }
    for text in [&logged, &seen] {
        assert!(!text.contains("SECRET"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_is_a_warning_where_something_may_be_lost_and_none_where_all_was_resumed() {
    for (resumes, warnings) in [(false, 1), (true, 0)] {
        watch_log();
        let server = Server::in_memory();
        let client = client(&server);
        let options = client.subscription_to(request("a").variables(&json!({})));
        let options = if resumes { options.resume_with(|_, _| {}) } else { options };
        let mut stream = options.start().unwrap();
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        peer.next(&id, data(1)).await;
        assert_eq!(item(&mut stream).await, 1);
        peer.vanish();
        connected(&server).await.expect_subscribe().await;
        assert_eq!(gap(&mut stream).await.resumed, resumes);
        let logged = String::from_utf8(LOG.take()).unwrap();
        assert_eq!(
            logged.lines().filter(|line| line.contains(" WARN ")).count(),
            warnings,
            "{logged}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn events_say_which_connection_they_are_about_where_there_are_several() {
    for (connections, said) in [(1, 0), (2, 2)] {
        watch_log();
        let server = Server::in_memory();
        let client = builder(&server).connections(items(connections)).build().unwrap();
        let _streams = [subscribe(&client, "a"), subscribe(&client, "b")];
        let _peers = futures::future::join_all((0..connections).map(|_| connected(&server))).await;
        until(&client, |status| matches!(status, Status::Open { .. })).await;
        let logged = String::from_utf8(LOG.take()).unwrap();
        let about = |event: &str| {
            let lines =
                logged.lines().filter(|line| line.contains(event) && line.contains("connection="));
            lines
                .map(|line| line.split("connection=").nth(1).unwrap().chars().next().unwrap())
                .collect::<Vec<_>>()
        };
        for event in [" open", "subscribed"] {
            let mut numbers = about(event);
            numbers.sort_unstable();
            assert_eq!(numbers, ['1', '2'][..said], "{logged}");
        }
        assert!(logged.contains("graphql_client{"), "{logged}");
    }
}
