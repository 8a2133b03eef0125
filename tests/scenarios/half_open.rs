//! A path that is gone without a word: how soon it is found, at whatever moment it went.

use fastrand::Rng;
use resub::{Disconnect, Subprotocol};
use tokio::time::sleep;

use super::*;

/// A healthy connection of some age, with items at random or without any.
struct Path {
    server: Server,
    client: Client,
    stream: Subscription<Value>,
    peer: Peer,
}

impl Path {
    async fn of(
        rng: &mut Rng,
        subprotocol: Subprotocol,
        interval: Duration,
        patience: Duration,
    ) -> Self {
        let server = Server::in_memory();
        let options = builder(&server)
            .subprotocol(subprotocol)
            .ping_interval(interval)
            .ping_timeout(patience);
        let client = options.build().unwrap();
        let stream = subscribe(&client, "a");
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        let mut path = Self { server, client, stream, peer };
        if rng.bool() {
            for n in 0..rng.u64(1..20) {
                path.live_for(Duration::from_millis(rng.u64(..5_000))).await;
                path.peer.next(&id, data(n)).await;
                assert_eq!(item(&mut path.stream).await, n);
            }
        }
        path.live_for(Duration::from_millis(rng.u64(..60_000))).await;
        path
    }

    /// Whatever the client asks is answered.
    async fn live_for(&mut self, time: Duration) {
        self.peer.serve_while(sleep(time)).await;
    }

    /// The peer is silent from now on. Returns how long the client takes to see it.
    async fn falls_silent(self, then: impl FnOnce(&Client)) -> Duration {
        let Self { server, client, mut stream, peer } = self;
        let (begun, _silence) = (Instant::now(), peer.go_silent());
        then(&client);
        until(&client, |status| !matches!(status, Status::Open { .. })).await;
        let found = begun.elapsed();
        connected(&server).await.expect_subscribe().await;
        let gap = gap(&mut stream).await;
        assert!(matches!(gap.cause, Some(Disconnect::Silent(_))), "{gap:?}");
        assert_eq!(gap.reconnects, 1);
        found
    }
}

/// With the moments at which the paths go.
const SEEDS: u64 = 40;

/// Timers are as precise as a millisecond.
const TICK: Duration = Duration::from_millis(2);

#[tokio::test(start_paused = true)]
async fn a_half_open_path_is_found_within_interval_and_timeout_on_both_subprotocols() {
    for (interval, patience) in [(10, 10), (3, 10), (10, 3), (1, 1), (45, 20)] {
        let (interval, patience) = (secs(interval), secs(patience));
        for (subprotocol, bound) in [
            (Subprotocol::GraphqlTransportWs, interval + patience),
            // Servers take pings badly there, so none is sent before twice the interval has passed
            // without anything.
            (Subprotocol::GraphqlWs, interval * 2 + patience),
        ] {
            for seed in 0..SEEDS {
                let path =
                    Path::of(&mut Rng::with_seed(seed), subprotocol, interval, patience).await;
                let found = path.falls_silent(|_| {}).await;
                assert!(
                    found <= bound + TICK,
                    "{subprotocol:?} {interval:?} {patience:?} seed {seed}: {found:?}"
                );
                assert!(
                    found + TICK >= patience.min(secs(1)),
                    "{subprotocol:?} seed {seed}: no haste: {found:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_open_path_is_found_within_two_seconds_of_a_change_of_the_network_at_any_moment() {
    for subprotocol in [Subprotocol::GraphqlTransportWs, Subprotocol::GraphqlWs] {
        for seed in 0..SEEDS {
            let path = Path::of(&mut Rng::with_seed(seed), subprotocol, secs(10), secs(10)).await;
            let found = path.falls_silent(Client::network_changed).await;
            assert!(found <= secs(2) + TICK, "{subprotocol:?} seed {seed}: {found:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_network_leaves_a_healthy_path_alone_at_any_moment() {
    for subprotocol in [Subprotocol::GraphqlTransportWs, Subprotocol::GraphqlWs] {
        for seed in 0..SEEDS {
            let mut rng = Rng::with_seed(seed);
            let mut path = Path::of(&mut rng, subprotocol, secs(10), secs(10)).await;
            for _ in 0..5 {
                path.client.network_changed();
                path.live_for(Duration::from_millis(rng.u64(..15_000))).await;
            }
            path.live_for(secs(60)).await;
            assert_eq!(path.client.stats().dials, 1, "{subprotocol:?} seed {seed}");
            let event = timeout(TICK, path.stream.next()).await;
            assert!(event.is_err(), "{subprotocol:?} seed {seed}: {event:?}");
        }
    }
}
