//! What falls between a query and a subscription, in every order that there is, and in many that are rare.

use std::cell::Cell;

use super::*;

/// What the server does, in order; what is published may fall anywhere between.
const STEPS: [&str; 4] = ["reads the subscription", "answers the ping", "runs the query", "answers the query"];

#[tokio::test(start_paused = true)]
async fn an_event_is_in_the_snapshot_or_behind_it_whenever_it_is_published() {
    // Three events, each before one of the steps or after all of them, which are delivered at once or only at the end.
    for case in 0..2 * 5_usize.pow(3) {
        let is_late = case % 2 == 1;
        let mut events: Vec<_> = (0..3).map(|n| case / 2 / 5_usize.pow(n) % 5).collect();
        events.sort_unstable();
        let server = Server::in_memory();
        let client = client(&server);
        let mut stream = synced(&client, subscribe(&client, "a"));
        let mut peer = connected(&server).await;
        peer.auto_pong(false);
        let (mut version, mut id, mut query, mut answer) = (0, None, None, 0);
        let mut undelivered = Vec::new();
        let mut read = Vec::new();
        for step in 0..=STEPS.len() {
            for _ in events.iter().filter(|at| **at == step) {
                version += 1;
                if id.is_some() {
                    undelivered.push(version);
                }
            }
            if !is_late {
                for version in undelivered.drain(..) {
                    peer.next(id.as_deref().unwrap(), data(version)).await;
                }
            }
            match step {
                0 => id = Some(peer.expect_subscribe().await.id),
                1 => {
                    // An item that was faster has established it.
                    peer.expect_ping().await;
                    peer.pong(None).await;
                }
                2 => {
                    query = Some(queried(&mut stream, &mut peer).await);
                    answer = version;
                }
                3 => peer.next(query.as_deref().unwrap(), data(answer)).await,
                _ => {
                    for version in undelivered.drain(..) {
                        peer.next(id.as_deref().unwrap(), data(version)).await;
                    }
                }
            }
        }
        read.push(snapshot(&mut stream).await);
        assert_eq!(read[0], answer, "{events:?}");
        for expected in answer + 1..=version {
            assert_eq!(live_item(&mut stream).await, expected, "{events:?}, late: {is_late}");
        }
        poll(&mut stream, &mut peer).await;
    }
}

/// A server that is cut off at random, fails at random and takes its time; and a reader that applies what it gets.
#[tokio::test(start_paused = true)]
async fn whatever_happens_a_reader_that_applies_everything_ends_with_what_the_server_has() {
    let (snapshots, gaps) = (Cell::new(0), Cell::new(0));
    for seed in 0..100 {
        let server = Server::in_memory();
        let client = builder(&server).seed(seed).build().unwrap();
        let overflow =
            [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block][usize::try_from(seed % 3).unwrap()];
        let subscription = options(&client).overflow(overflow).capacity(items(8)).start().unwrap();
        let mut stream = synced(&client, subscription);
        let version = Cell::new(0);
        let (snapshots, gaps) = (&snapshots, &gaps);
        let read = async {
            let (mut state, mut is_sound) = (None, false);
            while let Some(synced) = next(&mut stream).await {
                match synced {
                    Ok(Synced::Snapshot(response)) => {
                        snapshots.set(snapshots.get() + 1);
                        state = response.data.unwrap().as_i64();
                        is_sound = true;
                    }
                    Ok(Synced::Live(Event::Next(response))) => {
                        assert!(is_sound, "seed {seed}: an item before its snapshot");
                        let item = response.data.unwrap().as_i64();
                        assert_eq!(item, state.map(|state| state + 1), "seed {seed}: each is the next");
                        state = item;
                    }
                    Ok(Synced::Live(Event::Gap(gap))) => {
                        gaps.set(gaps.get() + 1);
                        is_sound &= gap.is_lossless();
                    }
                    Err(error) if !error.is_terminal() => is_sound = false,
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            (state, is_sound)
        };
        let serve = async {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut steps = 0;
            loop {
                let mut peer = connected(&server).await;
                let (mut id, mut queries) = (None, Vec::new());
                loop {
                    steps += 1;
                    let is_calm = steps > 300;
                    let read = timeout(Duration::from_millis(random.u64(0..100)), peer.serve_pings()).await;
                    match read {
                        Ok(None) => break,
                        Ok(Some(message)) => {
                            let wire_id = message["id"].as_str().unwrap().to_owned();
                            let document = message["payload"]["query"].as_str().unwrap_or_default();
                            if document.starts_with("subscription") {
                                id = Some(wire_id);
                            } else if document.starts_with("query") {
                                queries.push((wire_id, version.get()));
                            } else {
                                queries.retain(|(open, _)| *open != wire_id);
                            }
                        }
                        Err(_) if !queries.is_empty() && (is_calm || random.u32(0..6) == 0) => {
                            let (query, answer) = queries.remove(0);
                            match random.u32(0..8) {
                                0 if !is_calm => peer.error(&query, json!([])).await,
                                1 if !is_calm => peer.next(&query, json!({"data": null})).await,
                                _ => peer.next(&query, data(answer)).await,
                            }
                        }
                        Err(_) if is_calm => {
                            if let (Some(id), true) = (&id, steps > 2_000) {
                                peer.complete(id).await;
                                let _ = peer.serve_pings().await;
                            }
                        }
                        Err(_) if random.u32(0..40) == 0 => {
                            peer.vanish();
                            break;
                        }
                        Err(_) => {
                            for _ in 0..random.u32(1..4) {
                                version.set(version.get() + 1);
                                if let Some(id) = &id {
                                    peer.next(id, data(version.get())).await;
                                }
                            }
                        }
                    }
                }
            }
        };
        tokio::select! {
            (state, is_sound) = read => assert_eq!((state, is_sound), (Some(version.get()), true), "seed {seed}"),
            () = serve => unreachable!("it serves for ever"),
        }
    }
    assert!(snapshots.get() > 300 && gaps.get() > 200, "{snapshots:?} {gaps:?}");
}
