//! Rotations while connections are cut at random, at either end of a handover, and readers are slow
//! at random: every event is still read once.

use std::cell::Cell;

use fastrand::Rng;
use futures::stream::{FuturesUnordered, StreamExt};
use resub::Overflow;

use super::{
    exactly_once::{OVERLAP, assert_exactly_once, go_on, number, read, request},
    *,
};

/// Of one client, which reads the same events several times.
const STREAMS: usize = 3;

/// More than what a connection is ahead of another, and what it repeats.
const WINDOW: usize = 512;

/// A feed of numbered events that honours `after`, over as many connections as there are, each
/// behind by a time of its own.
struct Feed {
    events: u64,
    begun: Instant,
    cuts: Cell<u64>,
}

impl Feed {
    /// Serves whoever comes. Never returns.
    async fn serve(&self, server: &Server, mut random: Rng) {
        let mut peers = FuturesUnordered::new();
        loop {
            tokio::select! {
                peer = server.accept() => peers.push(self.serve_peer(peer, random.fork())),
                Some(()) = peers.next() => {}
            }
        }
    }

    /// Two of three are cut some time later, which may be before it is acknowledged.
    async fn serve_peer(&self, peer: Peer, mut random: Rng) {
        let cut_after = (random.u8(0..3) > 0).then(|| Duration::from_millis(random.u64(0..150)));
        let behind = Duration::from_millis(random.u64(0..30));
        let serve = async {
            let mut peer = peer.expect_init().await.ack().await;
            let mut live = Vec::<(String, u64)>::new();
            loop {
                match timeout(Duration::from_millis(1), peer.serve_pings()).await {
                    Ok(Some(message)) if message["type"] == "subscribe" => {
                        let after = message["payload"]["variables"]["after"].as_u64().unwrap();
                        let next = after.saturating_sub(random.u64(0..=OVERLAP)) + 1;
                        live.push((message["id"].as_str().unwrap().to_owned(), next));
                    }
                    Ok(Some(message)) => {
                        assert_eq!(message["type"], "complete");
                        live.retain(|(id, _)| *id != message["id"]);
                    }
                    Ok(None) => return,
                    Err(_) => {
                        let published = self.published(behind);
                        for (id, next) in &mut live {
                            for n in *next..=published.min(*next + 63) {
                                peer.next(id, json!({"data": {"n": n}})).await;
                                *next = n + 1;
                            }
                        }
                    }
                }
            }
        };
        match cut_after {
            None => serve.await,
            // Who is dropped is gone without a word.
            Some(after) => {
                self.cuts.set(self.cuts.get() + u64::from(timeout(after, serve).await.is_err()));
            }
        }
    }

    /// Three in a millisecond.
    fn published(&self, behind: Duration) -> u64 {
        let millis = self.begun.elapsed().saturating_sub(behind).as_millis();
        (u64::try_from(millis).unwrap() * 3).min(self.events)
    }
}

/// What happened besides reading.
#[derive(Default)]
struct Trouble {
    cuts: u64,
    handovers: u64,
    restarts: u32,
}

/// Reads a feed to its end, several times over, while the client rotates. Every history is checked.
async fn run(server: &Server, client: &Client, events: u64, seed: u64, trouble: &mut Trouble) {
    let feed = Feed { events, begun: Instant::now(), cuts: Cell::new(0) };
    let mut random = Rng::with_seed(seed);
    let streams = (0..STREAMS).map(|_| {
        let capacity = items(random.usize(40..150));
        let subscription =
            client.subscription_to(request()).overflow(Overflow::Rewind).capacity(capacity);
        subscription.resume_with(go_on).dedupe_by(items(WINDOW), number).start().unwrap()
    });
    let mut streams: Vec<_> = streams.collect();
    let mut seeds = random.fork();
    let readers = streams.iter_mut().map(|stream| read(stream, events, seeds.u64(..)));
    let rotations = async {
        loop {
            tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await;
            client.rotate().await.unwrap();
        }
    };
    let histories = tokio::select! {
        histories = timeout(secs(300), futures::future::join_all(readers)) => {
            histories.unwrap_or_else(|_| panic!("seed {seed}: stuck, {:?}", client.stats()))
        }
        () = feed.serve(server, Rng::with_seed(!seed)) => unreachable!("it never ends"),
        () = rotations => unreachable!("nor do they"),
    };
    for history in histories {
        assert_exactly_once(&history, events, seed);
        trouble.restarts += history
            .iter()
            .filter_map(|event| event.as_ref().err())
            .map(|gap| gap.restarts)
            .sum::<u32>();
    }
    trouble.cuts += feed.cuts.get();
    trouble.handovers += client.stats().handovers;
}

#[tokio::test(start_paused = true)]
async fn every_event_is_read_once_and_in_order_while_the_client_rotates_and_connections_are_cut() {
    let mut trouble = Trouble::default();
    for seed in 0..24 {
        let server = Server::in_memory();
        let backoff = (Duration::from_millis(10), Duration::from_millis(50));
        let client = builder(&server).seed(seed).backoff(backoff.0, backoff.1).build().unwrap();
        run(&server, &client, 3_000, seed, &mut trouble).await;
    }
    let Trouble { cuts, handovers, restarts } = trouble;
    assert!(
        cuts > 60 && handovers > 200 && restarts > 100,
        "{cuts}, {handovers}, {restarts}: that proves nothing"
    );
}

/// On real sockets and in real time.
#[tokio::test]
async fn over_tcp_every_event_is_read_once_while_the_client_rotates_and_connections_are_cut() {
    let mut trouble = Trouble::default();
    for seed in 0..4 {
        let server = Server::tcp().await;
        let backoff = (Duration::from_millis(1), Duration::from_millis(5));
        let client =
            Client::builder(server.url()).seed(seed).backoff(backoff.0, backoff.1).build().unwrap();
        run(&server, &client, 3_000, seed, &mut trouble).await;
    }
    let Trouble { cuts, handovers, .. } = trouble;
    assert!(cuts > 2 && handovers > 8, "{cuts}, {handovers}: that proves nothing");
}
