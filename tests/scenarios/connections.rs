//! Several connections behind one client: where operations go, and that what happens to one
//! connection stays there.

mod control;
mod limit;

use std::{
    collections::{BTreeSet, HashSet},
    num::NonZeroU32,
};

use futures::{FutureExt, future::join_all};
use resub::{BuildError, Disconnect};

use super::*;

fn spread(server: &Server, connections: usize) -> Client {
    builder(server).connections(items(connections)).build().unwrap()
}

async fn connect_all(server: &Server, connections: usize) -> Vec<Peer> {
    join_all((0..connections).map(|_| connected(server))).await
}

fn number(document: &str) -> usize {
    let name = document.split_whitespace().nth(1).unwrap();
    name.trim_start_matches('s').parse().unwrap()
}

/// The numbers and ids of the operations that come next.
async fn carried(peer: &mut Peer, operations: usize) -> (Vec<usize>, Vec<String>) {
    let mut all = (Vec::new(), Vec::new());
    for _ in 0..operations {
        let subscribe = peer.expect_subscribe().await;
        all.0.push(number(&subscribe.query));
        all.1.push(subscribe.id);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn operations_are_spread_evenly_though_no_connection_had_a_turn_yet() {
    for (connections, operations) in [(2, 7), (3, 2), (5, 100), (8, 801)] {
        let server = Server::in_memory();
        let client = spread(&server, connections);
        // No driver runs before this task waits.
        let streams: Vec<_> =
            (0..operations).map(|n| subscribe(&client, &format!("s{n}"))).collect();
        let used = connections.min(operations);
        let mut peers = connect_all(&server, used).await;
        let mut seen = BTreeSet::new();
        for (lane, peer) in peers.iter_mut().enumerate() {
            let (numbers, _) =
                carried(peer, operations / used + usize::from(lane < operations % used)).await;
            seen.extend(numbers);
            peer.expect_nothing_for(Duration::from_millis(1)).await;
        }
        assert_eq!(seen.len(), operations);
        assert_eq!(
            (server.dials(), client.stats().live_operations),
            (used as u64, operations as u64)
        );
        drop(streams);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_dialed_with_its_first_operation_and_calls_count_while_they_are_in_flight()
{
    let server = Server::in_memory();
    let client = spread(&server, 3);
    server.expect_no_dial_for(secs(1)).await;
    let _first = subscribe(&client, "s0");
    let mut one = connected(&server).await;
    assert_eq!(carried(&mut one, 1).await.0, [0]);
    server.expect_no_dial_for(secs(1)).await;

    let mut query =
        tokio::spawn(client.query_with(Request::<Value>::new("query q1 { q }")).into_future());
    let mut two = connected(&server).await;
    let call = two.expect_subscribe().await;
    let _third = subscribe(&client, "s2");
    let mut three = connected(&server).await;
    assert_eq!(carried(&mut three, 1).await.0, [2]);
    // All three carry one: the first is next, until the call is over.
    let _fourth = subscribe(&client, "s3");
    assert_eq!(carried(&mut one, 1).await.0, [3]);
    two.next(&call.id, data("answer")).await;
    two.complete(&call.id).await;
    assert_eq!((&mut query).await.unwrap().unwrap().data, Some(json!("answer")));
    let _fifth = subscribe(&client, "s4");
    assert_eq!(carried(&mut two, 1).await.0, [4]);
    assert_eq!((server.dials(), client.stats().live_operations), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_thousand_operations_over_eight_connections_a_lost_one_disturbs_only_its_own()
{
    const OPERATIONS: usize = 100_000;
    const LANES: usize = 8;
    const LOST: usize = 3;
    const EACH: usize = OPERATIONS / LANES;
    let server = Server::in_memory();
    // So that nothing but what happens is on the wire.
    let client = builder(&server).connections(items(LANES)).ping_interval(None).build().unwrap();
    let mut streams: Vec<_> =
        (0..OPERATIONS).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let mut peers = connect_all(&server, LANES).await;
    let carried_by: Vec<_> = join_all(peers.iter_mut().map(|peer| carried(peer, EACH))).await;
    let all: HashSet<_> = carried_by.iter().flat_map(|(numbers, _)| numbers).collect();
    assert_eq!(all.len(), OPERATIONS, "each is on one connection");
    until(&client, |status| matches!(status, Status::Open { .. })).await;

    let lost_at = Instant::now();
    peers.remove(LOST).vanish();
    until(&client, |status| matches!(status, Status::Waiting { .. })).await;
    assert_eq!(client.stats().connections_open, LANES as u64 - 1);
    // Meanwhile the others deliver.
    let (lost_numbers, lost_ids) = &carried_by[LOST];
    let others: Vec<_> = carried_by.iter().filter(|(numbers, _)| numbers != lost_numbers).collect();
    for (peer, (numbers, ids)) in peers.iter_mut().zip(&others) {
        peer.next(ids.last().unwrap(), data("meanwhile")).await;
        assert_eq!(item(&mut streams[*numbers.last().unwrap()]).await, "meanwhile");
    }
    assert!(matches!(*client.status().borrow(), Status::Waiting { .. }));

    let mut again = connected(&server).await;
    let (numbers, ids) = carried(&mut again, EACH).await;
    let took = lost_at.elapsed();
    assert!(
        took <= Duration::from_millis(1_500),
        "one backoff is at most three times 500 ms, this took {took:?}"
    );
    assert_eq!(numbers, *lost_numbers, "in their order");
    let before: HashSet<_> = lost_ids.iter().collect();
    assert!(
        ids.iter().all(|id| !before.contains(id)),
        "with ids that its socket before did not see"
    );
    until(&client, |status| matches!(status, Status::Open { .. })).await;

    join_all(peers.iter_mut().map(|peer| peer.expect_nothing_for(secs(60)))).await;
    for &number in lost_numbers {
        let announced = streams[number].next().now_or_never();
        assert!(
            matches!(announced, Some(Some(Ok(Event::Gap(Gap { reconnects: 1, dropped: 0, .. }))))),
            "{announced:?}"
        );
    }
    for stream in &mut streams {
        let nothing = stream.next().now_or_never();
        assert!(nothing.is_none(), "{nothing:?}");
    }
    let stats = client.stats();
    assert_eq!(
        (stats.dials, stats.connections, stats.reconnects, stats.connections_open),
        (9, 9, 1, 8)
    );
    assert_eq!((stats.live_operations, stats.items), (OPERATIONS as u64, 7));
}

#[tokio::test(start_paused = true)]
async fn rule_23_what_is_fatal_for_one_connection_ends_its_operations_and_no_others() {
    let server = Server::in_memory();
    let client =
        builder(&server).connections(items(2)).refusal_grace(Duration::ZERO).build().unwrap();
    let mut streams: Vec<_> = (0..4).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let mut peers = connect_all(&server, 2).await;
    let (doomed, doomed_ids) = carried(&mut peers[0], 2).await;
    for (&number, id) in doomed.iter().zip(&doomed_ids) {
        // So that no document is suspected (rule 22).
        peers[0].next(id, data(0)).await;
        assert_eq!(item(&mut streams[number]).await, 0);
    }
    let (spared, ids) = carried(&mut peers[1], 2).await;
    let mut spare = peers.pop().unwrap();
    peers.pop().unwrap().close(4400, "never").await;
    for &number in &doomed {
        let error = end(&mut streams[number]).await;
        assert!(matches!(error, SubscriptionError::Lost(Disconnect::Closed { .. })), "{error:?}");
    }
    spare.next(&ids[0], data(1)).await;
    assert_eq!(item(&mut streams[spared[0]]).await, 1);
    assert!(matches!(*client.status().borrow(), Status::Open { .. }));
    assert_eq!(client.stats().live_operations, 2);

    // It carries nothing now, so what begins next goes there: dialed anew, and no sooner than after
    // the backoff.
    let ended = Instant::now();
    let _next = subscribe(&client, "s4");
    let mut again = connected(&server).await;
    assert!(ended.elapsed() >= Duration::from_millis(400), "{:?}", ended.elapsed());
    assert_eq!(carried(&mut again, 1).await.0, [4]);
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_lost_together_do_not_come_back_together() {
    let server = Server::in_memory();
    let client = spread(&server, 8);
    let _streams: Vec<_> = (0..8).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    for peer in connect_all(&server, 8).await {
        peer.vanish();
    }
    let mut dialed = BTreeSet::new();
    for n in 9..=16 {
        server.dialed(n).await;
        dialed.insert(Instant::now());
    }
    assert_eq!(dialed.len(), 8, "each after a delay of its own");
}

#[tokio::test(start_paused = true)]
async fn each_connection_asks_for_credentials_of_its_own() {
    let server = Server::in_memory();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let provider = std::sync::Arc::clone(&asked);
    let client = builder(&server)
        .connections(items(3))
        .credentials(move |_| {
            let token = provider.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move {
                resub::Credentials::none()
                    .init_payload(&json!({ "token": token }))
                    .map_err(resub::CredentialsError::fatal)
            }
        })
        .build()
        .unwrap();
    let _streams: Vec<_> = (0..6).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    let peers = connect_all(&server, 3).await;
    let tokens: BTreeSet<_> =
        peers.iter().map(|peer| peer.init_payload()["token"].as_u64().unwrap()).collect();
    assert_eq!(tokens, BTreeSet::from([0, 1, 2]));
}

#[tokio::test(start_paused = true)]
async fn status_and_stats_are_one_view_of_all_connections() {
    let server = Server::in_memory();
    let client = spread(&server, 2);
    server.refuse_dials(1);
    let mut streams: Vec<_> = (0..2).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    // One is refused and waits, and is what is shown when the other is open.
    let mut two = connected(&server).await;
    settle().await;
    assert!(matches!(*client.status().borrow(), Status::Waiting { .. }));
    assert_eq!(client.stats().connections_open, 1);
    let mut one = connected(&server).await;
    until(&client, |status| matches!(status, Status::Open { .. })).await;

    let (two_numbers, two_ids) = carried(&mut two, 1).await;
    let (one_numbers, one_ids) = carried(&mut one, 1).await;
    assert_eq!((&one_numbers[..], &two_numbers[..]), (&[0][..], &[1][..]));
    for n in 0..3 {
        one.next(&one_ids[0], data(n)).await;
        two.next(&two_ids[0], data(n)).await;
    }
    one.sync().await;
    two.sync().await;
    assert_eq!(item(&mut streams[0]).await, 0);
    let stats = client.stats();
    assert_eq!(
        (stats.dials, stats.connections, stats.reconnects, stats.connections_open),
        (3, 2, 0, 2)
    );
    assert_eq!((stats.items, stats.queued_items, stats.live_operations), (6, 5, 2));
    assert!(stats.bytes_in > 6 * 40, "{stats:?}");

    // Of several round trips the longest.
    for (peer, millis) in [(&mut two, 60), (&mut one, 30)] {
        let ping = peer.expect_ping().await;
        tokio::time::advance(Duration::from_millis(millis)).await;
        peer.pong(ping).await;
        peer.sync().await;
    }
    let time = client.stats().round_trip_time.unwrap();
    assert!(time >= Duration::from_millis(60) && time < Duration::from_millis(70), "{time:?}");

    // What one connection has nothing to do for says nothing about the other.
    drop(streams.pop());
    two.expect_complete().await;
    let closing = async { assert_eq!(two.expect_close().await.0, 1000) };
    one.serve_while(closing).await;
    settle().await;
    assert!(matches!(*client.status().borrow(), Status::Open { .. }));
    assert_eq!(client.stats().connections_open, 1);
    drop(streams);
    one.expect_complete().await;
    one.expect_close().await;
    until(&client, |status| matches!(status, Status::Idle)).await;
    assert_eq!(client.stats().connections_open, 0);
}

#[tokio::test(start_paused = true)]
async fn the_dial_budget_is_that_of_the_whole_client() {
    let server = Server::in_memory();
    let most = |dials| (NonZeroU32::new(dials).unwrap(), secs(60));
    let with = |dials| {
        let (dials, per) = most(dials);
        builder(&server).max_dials(dials, per)
    };
    for wrong in
        [with(2).connections(items(3)), with(100).max_subscriptions_per_connection(items(10))]
    {
        let error = wrong.build().unwrap_err();
        assert!(
            matches!(error, BuildError::Option(text) if text.contains("max_dials")),
            "{error:?}"
        );
    }

    let client = with(7).connections(items(3)).build().unwrap();
    let _streams: Vec<_> = (0..9).map(|n| subscribe(&client, &format!("s{n}"))).collect();
    server.offline();
    let begun = Instant::now();
    server.dialed(7).await;
    server.set_deadline(secs(600));
    server.dialed(8).await;
    assert!(begun.elapsed() >= secs(60), "{:?}", begun.elapsed());
    let (mut dialed, mut times) = (server.dials(), Vec::new());
    while begun.elapsed() < secs(600) {
        dialed += 1;
        server.dialed(dialed).await;
        times.push(Instant::now());
    }
    let worst = times.windows(8).filter(|eight| eight[7] - eight[0] < secs(60)).count();
    assert_eq!(worst, 0, "never more than 7 within a minute");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_queried_on_the_connection_of_its_subscription() {
    let server = Server::in_memory();
    let client = spread(&server, 3);
    let _busy = [subscribe(&client, "s0"), subscribe(&client, "s1")];
    let subscription = subscribe(&client, "s2");
    let mut peers = connect_all(&server, 3).await;
    for (n, peer) in peers.iter_mut().enumerate() {
        assert_eq!(carried(peer, 1).await.0, [n]);
    }
    // The others carry less.
    let _more = [subscribe(&client, "s3"), subscribe(&client, "s4"), subscribe(&client, "s5")];
    for peer in &mut peers {
        carried(peer, 1).await;
    }
    let elsewhere = client.clone();
    let mut synced = subscription.with_snapshot(
        move || elsewhere.query_with(Request::<Value>::new("query q { q }")),
        |_| (),
        |(), _| true,
    );
    let first = tokio::spawn(async move { synced.next().await });
    let query = peers[2].expect_subscribe().await;
    assert!(query.query.starts_with("query q"), "{query:?}");
    first.abort();
}
