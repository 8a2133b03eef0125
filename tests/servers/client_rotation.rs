//! The client that moves from connection to connection while everything goes on.

use std::future::ready;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::time::Duration;

use futures::future::join_all;
use resub::{Client, Credentials, CredentialsError, Event, Gap, Request, Subscription};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::fixture::TestServer;
use crate::market::{self, MarketServer};
use crate::pair::{Pair, event, impatient, item, on_each_pair, subscribe};
use crate::raw::{until, within};

const FEED: &str = "subscription { feed }";
const STREAMS: usize = 10;
const WINDOW: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

on_each_pair!(fifty_rotations_under_load_lose_nothing_repeat_nothing_and_run_no_mutation_twice);
async fn fifty_rotations_under_load_lose_nothing_repeat_nothing_and_run_no_mutation_twice(
    pair: Pair,
) {
    let server = Arc::new(pair.start());
    let client = pair.client(&server);
    let number = |data: &Value| data["feed"].as_i64();
    let start =
        |_| client.subscription_to(Request::new(FEED)).dedupe_by(WINDOW, number).start().unwrap();
    let load = Load::start(&server, &client, (0..STREAMS).map(start).collect()).await;
    rotate(&server, &client, 50).await;
    let (streams, answered) = load.stop().await;

    for (_, seen) in &streams {
        let wrong =
            seen.iter().zip(1..).find(|(seen, expected)| seen.as_ref().ok() != Some(expected));
        assert!(wrong.is_none(), "{wrong:?}");
    }
    let mut executed = server.added();
    executed.sort_unstable();
    assert_eq!(executed, (0..answered).collect::<Vec<_>>());
    let (connections, stats) = (*server.connections().borrow(), client.stats());
    assert_eq!((connections.ever, connections.now, connections.most), (51, 1, 2));
    assert_eq!((stats.dials, stats.handovers, stats.reconnects), (51, 50, 0));
    until(server.streams(), |running| running.now == STREAMS).await;
    assert_eq!(server.streams().borrow().ever, STREAMS * 51);
}

on_each_pair!(without_dedupe_what_comes_twice_follows_a_gap_that_says_so_and_nothing_is_lost);
async fn without_dedupe_what_comes_twice_follows_a_gap_that_says_so_and_nothing_is_lost(
    pair: Pair,
) {
    let server = Arc::new(pair.start());
    let client = pair.client(&server);
    let load =
        Load::start(&server, &client, (0..STREAMS).map(|_| subscribe(&client, FEED)).collect())
            .await;
    rotate(&server, &client, 20).await;
    let (streams, _) = load.stop().await;

    for (_, seen) in &streams {
        let (mut last, mut is_announced) = (0, false);
        for seen in seen {
            is_announced = match seen {
                Ok(n) => {
                    let n = *n;
                    assert!(n == last + 1 || n <= last && is_announced, "{n} after {last}");
                    last = n;
                    false
                }
                Err(gap) => {
                    assert!(
                        gap.overlaps > 0 && gap.is_lossless() && gap.cause.is_none(),
                        "{gap:?}"
                    );
                    true
                }
            };
        }
    }
    assert_eq!((server.connections().borrow().ever, client.stats().reconnects), (21, 0));
    until(server.streams(), |running| running.now == STREAMS).await;
}

/// The tokens' seconds are what this test waits by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_three_tokens_without_a_gap_and_the_server_never_has_to_cut() {
    let lifetime = Duration::from_secs(2);
    let options = market::Options {
        token_lifetime: Some(lifetime),
        trades_per_second: 200,
        ..Default::default()
    };
    let server = MarketServer::start(options).unwrap();
    let tokens = server.tokens().unwrap();
    let minting = tokens.clone();
    let provide = move |_| {
        let credentials = Credentials::none().init_payload(&json!({"token": minting.mint()}));
        ready(
            credentials
                .map(|credentials| credentials.expires_in(lifetime))
                .map_err(CredentialsError::fatal),
        )
    };
    let client = impatient(&server.url()).credentials(provide).build().unwrap();
    let sequence = |data: &Value| data["trades"]["sequence"].as_i64();
    let request = Request::<Value>::new("subscription { trades { sequence } }");
    let mut trades = client.subscription_to(request).dedupe_by(WINDOW, sequence).start().unwrap();
    let mut last = sequence(&item(&mut trades).await);
    let outlive = async {
        while client.stats().handovers < 4 {
            let next = sequence(&item(&mut trades).await);
            assert_eq!(next, last.map(|last| last + 1));
            last = next;
        }
    };
    within(outlive).await;
    until(server.connections(), |connections| connections.now == 1).await;
    assert_eq!((tokens.cut(), client.stats().reconnects), (0, 0));
}

async fn rotate(server: &TestServer, client: &Client, times: usize) {
    for _ in 0..times {
        within(client.rotate()).await.unwrap();
        // While one connection still closes, no other is made.
        until(server.connections(), |connections| connections.now == 1).await;
    }
}

/// Numbered items that are published, streams that are read, mutations that run.
struct Load {
    is_over: Arc<AtomicBool>,
    publisher: JoinHandle<()>,
    readers: Vec<JoinHandle<(Subscription<Value>, Seen)>>,
    callers: Vec<JoinHandle<()>>,
    called: Arc<AtomicI32>,
}

/// Items and gaps, in order.
type Seen = Vec<Result<i64, Gap>>;

impl Load {
    async fn start(
        server: &Arc<TestServer>,
        client: &Client,
        mut streams: Vec<Subscription<Value>>,
    ) -> Self {
        until(server.streams(), |running| running.now == streams.len()).await;
        // Only what a connection has begun can be followed to another one without a loss.
        server.publish(0);
        for stream in &mut streams {
            assert_eq!(item(stream).await, json!({"feed": 0}));
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let called = Arc::<AtomicI32>::default();
        Self {
            publisher: tokio::spawn(publish(Arc::clone(server), Arc::clone(&is_over))),
            readers: streams.into_iter().map(|stream| tokio::spawn(read(stream))).collect(),
            callers: (0..2)
                .map(|_| {
                    tokio::spawn(call(client.clone(), Arc::clone(&called), Arc::clone(&is_over)))
                })
                .collect(),
            called,
            is_over,
        }
    }

    /// Returns each stream with what it brought, and how many mutations were answered.
    async fn stop(self) -> (Vec<(Subscription<Value>, Seen)>, i32) {
        self.is_over.store(true, Relaxed);
        self.publisher.await.unwrap();
        for answered in within(join_all(self.callers)).await {
            answered.unwrap();
        }
        let streams =
            within(join_all(self.readers)).await.into_iter().map(Result::unwrap).collect();
        (streams, self.called.load(Relaxed))
    }
}

/// 1, 2, 3 .. and the end mark.
async fn publish(server: Arc<TestServer>, is_over: Arc<AtomicBool>) {
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    let mut n = 0;
    while !is_over.load(Relaxed) {
        pace.tick().await;
        n += 1;
        server.publish(n);
    }
    server.publish(END_MARK);
}

const END_MARK: i32 = -1;

/// Reads up to the end mark.
async fn read(mut stream: Subscription<Value>) -> (Subscription<Value>, Seen) {
    let mut seen = Vec::new();
    loop {
        match event(&mut stream).await {
            Event::Next(response) => match response.data.unwrap()["feed"].as_i64().unwrap() {
                n if n == i64::from(END_MARK) => return (stream, seen),
                n => seen.push(Ok(n)),
            },
            Event::Gap(gap) => seen.push(Err(gap)),
            other => panic!("{other:?}"),
        }
    }
}

/// One mutation after the other, each of which adds a number of its own.
async fn call(client: Client, called: Arc<AtomicI32>, is_over: Arc<AtomicBool>) {
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    while !is_over.load(Relaxed) {
        pace.tick().await;
        let n = called.fetch_add(1, Relaxed);
        let add = Request::<Value>::new("mutation($n: Int!) { add(a: $n, b: 1) }")
            .variables(&json!({ "n": n }));
        let answer = within(client.mutate_with(add)).await.unwrap();
        assert_eq!(answer.data, Some(json!({ "add": n + 1 })));
    }
}
