//! Tests of the watcher with simulated changes, and with real ones where the test machine permits
//! them.
#![expect(
    clippy::disallowed_methods,
    reason = "these tests pause the clock, or wait for the operating system"
)]

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::{
    Client, ClientBuilder, Event, Request, Subscription,
    error::Disconnect,
    mock::{Peer, Server},
};

/// Simulates changes.
type Network = mpsc::UnboundedSender<io::Result<()>>;

fn builder(server: &Server) -> ClientBuilder {
    Client::builder(server.url()).dialer(server.dialer()).seed(1).watch_network(true)
}

/// Builds a client on a simulated network.
fn watched(mut builder: ClientBuilder) -> (Client, Network) {
    let (network, changes) = mpsc::unbounded_channel();
    let changes = Mutex::new(Some(changes));
    builder.watch.open = Arc::new(move || {
        let changes = changes.lock().unwrap().take().expect("there is one watcher");
        Ok(stream::unfold(changes, |mut changes| async {
            changes.recv().await.map(|change| (change, changes))
        })
        .boxed())
    });
    (builder.build().unwrap(), network)
}

fn subscribe(client: &Client) -> Subscription<Value> {
    client.subscribe_to(Request::new("subscription { a }")).unwrap()
}

async fn connected(server: &Server) -> Peer {
    server.accept().await.expect_init().await.ack().await
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn gap_cause(stream: &mut Subscription<Value>) -> Option<Disconnect> {
    match timeout(secs(60), stream.next()).await.unwrap() {
        Some(Ok(Event::Gap(gap))) => gap.cause,
        other => panic!("a gap was expected, not {other:?}"),
    }
}

/// Answers the pings that arrive within `time`, and returns when each arrived. They must be less
/// than a minute apart.
async fn pings(peer: &mut Peer, time: Duration) -> Vec<Duration> {
    let (begun, mut seen) = (Instant::now(), Vec::new());
    let _ = timeout(time, async {
        loop {
            peer.expect_ping().await;
            seen.push(begun.elapsed());
            peer.pong(None).await;
        }
    })
    .await;
    seen
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_causes_one_ping_and_a_working_connection_is_kept() {
    let server = Server::in_memory();
    let (client, network) = watched(builder(&server).ping_interval(None));
    let mut stream = subscribe(&client);
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    for _ in 0..10 {
        network.send(Ok(())).unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    let seen = pings(&mut peer, secs(59)).await;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0] <= DEBOUNCE, "{seen:?}");
    peer.next(&id, json!({"data": 1})).await;
    assert!(matches!(stream.next().await, Some(Ok(Event::Next(_)))), "there is no gap");
    assert_eq!(client.stats().dials, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_with_the_network_is_detected_within_three_seconds() {
    for subprotocol in [crate::Subprotocol::GraphqlTransportWs, crate::Subprotocol::GraphqlWs] {
        let server = Server::in_memory();
        let (client, network) = watched(builder(&server).subprotocol(subprotocol));
        let mut stream = subscribe(&client);
        let mut peer = server.accept().await.expect_init().await.ack().await;
        peer.expect_subscribe().await;
        let (begun, _silence) = (Instant::now(), peer.go_silent());
        network.send(Ok(())).unwrap();
        let mut status = client.status();
        status.wait_for(|status| !matches!(status, Status::Open { .. })).await.unwrap();
        assert!(
            begun.elapsed() <= DEBOUNCE + secs(2) + Duration::from_millis(10),
            "{:?}",
            begun.elapsed()
        );
        connected(&server).await.expect_subscribe().await;
        assert!(matches!(gap_cause(&mut stream).await, Some(Disconnect::Silent(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn while_changes_continue_they_are_reported_at_growing_intervals_until_they_stop() {
    let server = Server::in_memory();
    let (client, network) = watched(builder(&server).ping_interval(None));
    let _stream = subscribe(&client);
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    let flapping = async {
        for _ in 0..300 {
            network.send(Ok(())).unwrap();
            sleep(Duration::from_millis(400)).await;
        }
    };
    let (seen, ()) = tokio::join!(pings(&mut peer, secs(119)), flapping);
    let gaps: Vec<_> =
        seen.windows(2).map(|pair| pair[1].abs_diff(pair[0]).as_secs_f32().round()).collect();
    assert_eq!(gaps, [2.0, 4.0, 8.0, 16.0, 30.0, 30.0], "{seen:?}");

    // The last changes are reported, too.
    assert_eq!(pings(&mut peer, MAX_INTERVAL).await.len(), 1);
    sleep(MAX_INTERVAL).await;
    network.send(Ok(())).unwrap();
    let seen = pings(&mut peer, secs(60)).await;
    assert!(seen.len() == 1 && seen[0] <= DEBOUNCE + Duration::from_millis(10), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_sleep_ends_when_the_network_is_back() {
    let server = Server::in_memory();
    server.offline();
    let (client, network) = watched(builder(&server).backoff(secs(1_000), secs(1_000)));
    let _stream = subscribe(&client);
    client.status().wait_for(|status| matches!(status, Status::Waiting { .. })).await.unwrap();
    server.online();
    let begun = Instant::now();
    network.send(Ok(())).unwrap();
    connected(&server).await.expect_subscribe().await;
    assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_watcher_notifies_every_connection_including_those_made_later() {
    let server = Server::in_memory();
    let limited = builder(&server)
        .max_subscriptions_per_connection(1.try_into().unwrap())
        .ping_interval(None);
    // A second watcher would panic.
    let (client, network) = watched(limited);
    let mut streams = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..3 {
        streams.push(subscribe(&client));
        let mut peer = connected(&server).await;
        peer.expect_subscribe().await;
        peers.push(peer);
    }
    // The watcher also works when only streams are left.
    drop(client);
    network.send(Ok(())).unwrap();
    for peer in &mut peers {
        peer.expect_ping().await;
        peer.pong(None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_connection_neither_pings_nor_dials_after_a_change() {
    let server = Server::in_memory();
    let (client, network) = watched(builder(&server).ping_interval(None));
    network.send(Ok(())).unwrap();
    sleep(Duration::from_millis(10)).await;
    let stream = subscribe(&client);
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    // A connection that was dialed after the change needs no ping.
    peer.expect_nothing_for(secs(40)).await;
    drop(stream);
    peer.expect_complete().await;
    client.pause();
    peer.expect_close().await;
    client.status().wait_for(|status| matches!(status, Status::Paused)).await.unwrap();
    network.send(Ok(())).unwrap();
    sleep(secs(60)).await;
    assert_eq!(server.dials(), 1);
    for status in [Status::Idle, Status::Paused, Status::Ended] {
        assert!(!has_connection(&status), "{status:?}");
    }
}

/// Waits until at most `wanted` tasks are left.
async fn tasks_left(wanted: usize) {
    let metrics = tokio::runtime::Handle::current().metrics();
    for _ in 0..1_000 {
        if metrics.num_alive_tasks() <= wanted {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{} tasks are left", metrics.num_alive_tasks());
}

#[tokio::test(start_paused = true)]
async fn the_watcher_ends_with_the_last_handle_and_stream_and_with_a_shutdown() {
    let server = Server::in_memory();
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for shut_down in [false, true] {
        let (client, network) = watched(builder(&server));
        let stream = subscribe(&client);
        let peer = connected(&server).await;
        let kept = client.clone();
        if shut_down {
            client.shutdown(secs(1)).await;
            network.closed().await;
        } else {
            drop((client, kept));
            sleep(secs(5)).await;
            assert!(!network.is_closed(), "the stream is still there");
        }
        drop((stream, peer));
        network.closed().await;
        tasks_left(before).await;
    }
    // A client that was never used leaves no task behind either.
    let (client, network) = watched(builder(&server));
    drop(client);
    network.closed().await;
    tasks_left(before).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_works_when_its_watcher_cannot_start_or_fails() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for is_sandboxed in [true, false] {
        let server = Server::in_memory();
        let (client, network) = if is_sandboxed {
            let mut sandboxed = builder(&server);
            sandboxed.watch.open = Arc::new(|| Err(io::ErrorKind::PermissionDenied.into()));
            (sandboxed.build().unwrap(), None)
        } else {
            let (client, network) = watched(builder(&server));
            (client, Some(network))
        };
        let mut stream = subscribe(&client);
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        if let Some(network) = network {
            network.send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
        }
        // Only the driver's task is left.
        tasks_left(before + 1).await;
        peer.next(&id, json!({"data": 1})).await;
        assert!(matches!(stream.next().await, Some(Ok(Event::Next(_)))));
        drop((client, stream, peer));
        tasks_left(before).await;
    }
}

#[tokio::test]
async fn by_default_the_network_is_watched_if_the_endpoint_is_on_another_machine() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let server = Server::in_memory();
    let at = |endpoint| Client::builder(endpoint);
    for (builder, is_watched) in [
        (at("ws://192.0.2.1/"), true),
        (at("ws://example.com/"), true),
        (at("ws://localhost/"), false),
        (at("ws://[::1]/"), false),
        (at("ws://localhost/").watch_network(true), true),
        (at("ws://192.0.2.1/").watch_network(false), false),
        (at("ws://192.0.2.1/").dialer(server.dialer()), false),
        (at("ws://192.0.2.1/").dialer(server.dialer()).watch_network(true), true),
    ] {
        let (before, text) = (metrics.num_alive_tasks(), format!("{builder:?}"));
        let client = builder.build().unwrap();
        assert_eq!(metrics.num_alive_tasks(), before + 1 + usize::from(is_watched), "{text}");
        drop(client);
        tasks_left(before).await;
    }
}

/// Tests real messages of the system, in a network namespace, so that the network of the test
/// machine does not change.
#[cfg(target_os = "linux")]
#[test]
fn on_a_real_network_a_new_address_and_a_lost_one_each_cause_a_ping() {
    use std::process::Command;

    const NAME: &str =
        "client::network::tests::on_a_real_network_a_new_address_and_a_lost_one_each_cause_a_ping";
    const INSIDE: &str = "RESUB_TEST_IN_A_NETWORK_NAMESPACE";

    fn run(program: &str, arguments: &[&str]) -> bool {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    }
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(run("ip", &["link", "set", "lo", "up"]));
        return runtime
            .block_on(real_changes(|arguments| assert!(run("ip", arguments), "{arguments:?}")));
    }
    let namespace = ["--user", "--map-root-user", "--net"];
    if !run("unshare", &[&namespace[..], &["ip", "link", "show"]].concat()) {
        eprintln!("SKIPPED: this machine permits no network namespace");
        return;
    }
    let this = std::env::current_exe().unwrap();
    let mut inside = Command::new("unshare");
    inside.args(namespace).arg(this).args(["--exact", NAME, "--nocapture"]).env(INSIDE, "1");
    let output = inside.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[cfg(target_os = "linux")]
async fn real_changes(ip: impl Fn(&[&str])) {
    for (change, is_told) in [
        (&["address", "add", "127.0.0.77/8", "dev", "lo"][..], false),
        (&["address", "add", "192.0.2.77/32", "dev", "lo"], true),
        (&["route", "add", "default", "dev", "lo"], true),
        (&["address", "del", "192.0.2.77/32", "dev", "lo"], true),
    ] {
        let server = Server::in_memory();
        let client = builder(&server).ping_interval(None).build().unwrap();
        let _stream = subscribe(&client);
        let mut peer = connected(&server).await;
        peer.expect_subscribe().await;
        let begun = Instant::now();
        ip(change);
        if is_told {
            peer.expect_ping().await;
            assert!(begun.elapsed() >= DEBOUNCE / 2, "{change:?}: {:?}", begun.elapsed());
        } else {
            assert!(pings(&mut peer, secs(2)).await.is_empty(), "loopback addresses do not count");
        }
    }
}
