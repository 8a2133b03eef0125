//! The runtime: what it has to have, and what is left when it is gone.

use futures::{FutureExt, executor::block_on};
use resub::{BuildError, CallError, NotConnected, SnapshotError, SubscribeError};
use tokio::runtime::{Builder, Runtime};

use super::*;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn query(name: &str) -> Request<Value> {
    Request::new(format!("query {name} {{ {name} }}"))
}

fn mutation(name: &str) -> Request<Value> {
    Request::new(format!("mutation {name} {{ {name} }}"))
}

#[test]
fn a_client_needs_a_runtime_with_timers_and_io_and_says_so() {
    let server = Server::in_memory();
    let own_dialer = || builder(&server);
    let dials_itself = || Client::builder("ws://127.0.0.1:1/");
    assert!(matches!(own_dialer().build(), Err(BuildError::NoRuntime)));
    assert!(matches!(dials_itself().build(), Err(BuildError::NoRuntime)));
    for flavor in [Builder::new_current_thread as fn() -> Builder, Builder::new_multi_thread] {
        let build = |enable: fn(&mut Builder) -> &mut Builder, builder: ClientBuilder| {
            let runtime = enable(&mut flavor()).build().unwrap();
            runtime.block_on(async { builder.build().map(drop) })
        };
        for builder in [own_dialer(), dials_itself()] {
            let error = build(|runtime| runtime, builder).unwrap_err();
            assert!(matches!(error, BuildError::NoTimers), "{error:?}");
        }
        for builder in [own_dialer(), dials_itself()] {
            let error = build(Builder::enable_io, builder).unwrap_err();
            assert!(matches!(error, BuildError::NoTimers), "{error:?}");
            let expected =
                "the tokio runtime has no timers: build it with `enable_time` or `enable_all`";
            assert_eq!(error.to_string(), expected);
        }
        // What is below a dialer of the application's own need not be tokio's.
        build(Builder::enable_time, own_dialer()).unwrap();
        let error = build(Builder::enable_time, dials_itself()).unwrap_err();
        assert!(matches!(error, BuildError::NoIo), "{error:?}");
        let expected = "the tokio runtime has no I/O: build it with `enable_io` or `enable_all`";
        assert_eq!(error.to_string(), expected);
        build(Builder::enable_all, own_dialer()).unwrap();
        build(Builder::enable_all, dials_itself()).unwrap();
    }
}

#[test]
fn a_runtime_that_ends_leaves_no_reader_hanging_and_each_says_so() {
    for connections in [1, 3] {
        let (server, runtime) = (Server::in_memory(), runtime());
        let (client, streams) = runtime.block_on(async {
            let client = builder(&server).connections(items(connections)).build().unwrap();
            let sent = subscribe(&client, "a");
            let _peer = connected(&server).await.expect_subscribe().await;
            (client.clone(), [sent, subscribe(&client, "b"), subscribe(&client, "c")])
        });
        drop(runtime);
        for mut stream in streams {
            let error = block_on(stream.established()).unwrap_err();
            assert!(matches!(error, SubscriptionError::RuntimeGone), "{error:?}");
            let error = block_on(stream.next()).unwrap().unwrap_err();
            assert!(matches!(error, SubscriptionError::RuntimeGone), "{error:?}");
            assert!(error.is_terminal() && error.disconnect().is_none());
            assert_eq!(error.to_string(), "the runtime that the client was built on is gone");
            assert!(block_on(stream.next()).is_none());
            let error = block_on(stream.established()).unwrap_err();
            assert!(matches!(error, SubscriptionError::RuntimeGone), "{error:?}");
        }
        drop(client);
    }
}

#[test]
fn calls_and_waits_that_a_runtime_leaves_behind_say_so() {
    let (server, runtime) = (Server::in_memory(), runtime());
    let client = runtime.block_on(async { client(&server) });
    let mut sent = Box::pin(client.mutate_with(mutation("a")));
    let mut query = Box::pin(client.query_with(query("b")));
    let peer = runtime.block_on(async {
        assert!((&mut sent).now_or_never().is_none() && (&mut query).now_or_never().is_none());
        let mut peer = connected(&server).await;
        peer.expect_subscribes(2).await;
        peer
    });
    let mut rotating = Box::pin(client.rotate());
    let mut unsent = Box::pin(client.mutate_with(mutation("c")));
    assert!((&mut rotating).now_or_never().is_none() && (&mut unsent).now_or_never().is_none());
    let other = runtime.block_on(async { super::client(&server) });
    let mut connecting = Box::pin(other.connect());
    assert!((&mut connecting).now_or_never().is_none());
    drop(runtime);
    let error = block_on(sent).unwrap_err();
    assert!(matches!(error, CallError::Ambiguous(None)), "{error:?}");
    let error = block_on(query).unwrap_err();
    assert!(matches!(error, CallError::RuntimeGone), "{error:?}");
    let error = block_on(unsent).unwrap_err();
    assert!(matches!(error, CallError::RuntimeGone), "{error:?}");
    assert!(!error.may_have_been_executed());
    let error = block_on(rotating).unwrap_err();
    assert!(matches!(error, NotConnected::RuntimeGone), "{error:?}");
    let error = block_on(connecting).unwrap_err();
    assert!(matches!(error, NotConnected::RuntimeGone), "{error:?}");
    drop(peer);
}

#[test]
fn what_is_begun_after_the_runtime_has_gone_is_refused_with_that_reason() {
    for connections in [1, 3] {
        let (server, runtime) = (Server::in_memory(), runtime());
        let (client, stream) = runtime.block_on(async {
            let client = builder(&server).connections(items(connections)).build().unwrap();
            let stream = subscribe(&client, "a");
            connected(&server).await.expect_subscribe().await;
            (client, stream)
        });
        drop(runtime);
        for _ in 0..4 {
            let error = client.subscribe_to(request("b")).unwrap_err();
            assert!(matches!(error, SubscribeError::RuntimeGone), "{error:?}");
            assert_eq!(error.to_string(), "the runtime that the client was built on is gone");
            let error = client.subscribe_shared_to(request("b")).unwrap_err();
            assert!(matches!(error, SubscribeError::RuntimeGone), "{error:?}");
            let error = block_on(client.query_with(query("c"))).unwrap_err();
            assert!(matches!(error, CallError::NotSent(SubscribeError::RuntimeGone)), "{error:?}");
            for error in [block_on(client.connect()), block_on(client.rotate())] {
                assert!(matches!(error, Err(NotConnected::RuntimeGone)), "{error:?}");
            }
            client.pause();
            client.resume();
            client.reconnect_now();
            client.network_changed();
        }
        assert!(matches!(*client.status().borrow(), Status::Ended));
        block_on(client.shutdown(secs(1)));
        drop(stream);
    }
}

#[test]
fn a_snapshot_that_waits_for_its_next_try_ends_with_the_runtime() {
    let (server, runtime) = (Server::in_memory(), runtime());
    let mut stream = runtime.block_on(async {
        let (client, stream, mut peer, id) = live(&server).await;
        let client = client.clone();
        let mut stream = stream.with_snapshot(
            move || client.query_with(query("q")),
            |_: &Value| (),
            |(), _: &Value| true,
        );
        peer.next(&id, data(1)).await;
        let failing = async {
            let id = peer.expect_subscribe().await.id;
            peer.error(&id, json!([{"message": "no"}])).await;
        };
        let (failed, ()) = tokio::join!(stream.next(), failing);
        assert!(matches!(failed, Some(Err(SnapshotError::Query(_)))), "{failed:?}");
        // It begins to wait.
        assert!(stream.next().now_or_never().is_none());
        stream
    });
    drop(runtime);
    let end = block_on(stream.next());
    assert!(
        matches!(end, Some(Err(SnapshotError::Subscription(SubscriptionError::RuntimeGone)))),
        "{end:?}"
    );
    assert!(block_on(stream.next()).is_none());
}

#[test]
fn operations_that_end_with_the_runtime_are_not_live() {
    for connections in [1, 3] {
        let (server, runtime) = (Server::in_memory(), runtime());
        let (client, streams) = runtime.block_on(async {
            let client = builder(&server).connections(items(connections)).build().unwrap();
            let streams: Vec<_> = (0..6).map(|n| subscribe(&client, &format!("s{n}"))).collect();
            for _ in 0..connections {
                connected(&server).await.expect_subscribes(6 / connections).await;
            }
            assert_eq!(client.stats().live_operations, 6);
            (client, streams)
        });
        drop(runtime);
        let stats = client.stats();
        assert_eq!((stats.live_operations, stats.connections_open), (0, 0));
        assert_eq!(stats.connections, connections as u64);
        drop(streams);
        assert_eq!(client.stats().live_operations, 0);
    }
}

#[test]
fn a_client_that_was_shut_down_before_its_runtime_went_says_that() {
    let (server, runtime) = (Server::in_memory(), runtime());
    let (client, mut stream) = runtime.block_on(async {
        let (client, stream, mut peer, _) = live(&server).await;
        let shutting = client.clone().shutdown(secs(5));
        tokio::join!(shutting, peer.pump_until_end());
        (client, stream)
    });
    drop(runtime);
    let error = block_on(stream.next()).unwrap().unwrap_err();
    assert!(matches!(error, SubscriptionError::ShutDown), "{error:?}");
    let error = client.subscribe_to(request("b")).unwrap_err();
    assert!(matches!(error, SubscribeError::ShutDown), "{error:?}");
}
