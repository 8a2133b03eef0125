//! What falls between a query and a subscription, in every order that there is, and in many that
//! are rare.

use std::cell::Cell;

use super::*;

/// What the server does, in order. It begins the subscription at any of these, and what is
/// published may fall anywhere.
const STEPS: [&str; 5] = [
    "reads the subscription",
    "answers the ping",
    "runs the query",
    "answers the query",
    "has nothing to do",
];

#[tokio::test(start_paused = true)]
async fn an_event_is_in_the_snapshot_or_behind_it_whenever_it_comes_and_the_subscription_begins() {
    let places = STEPS.len();
    // Two events, which are delivered at once or only at the end.
    for case in 0..2 * places.pow(3) {
        let (is_late, begins) = (case % 2 == 1, case / 2 % places);
        let events = [1, 2].map(|n| case / 2 / places.pow(n) % places);
        let server = Server::in_memory();
        let client = client(&server);
        let mut stream = synced(&client, subscribe(&client, "a"));
        let mut peer = connected(&server).await;
        peer.auto_pong(false);
        let (mut version, mut id, mut query, mut answer) = (0, String::new(), String::new(), 0);
        let mut undelivered = Vec::new();
        for step in 0..places {
            match step {
                0 => id = peer.expect_subscribe().await.id,
                1 => {
                    let ping = peer.expect_ping().await;
                    peer.pong(ping).await;
                }
                2 => {
                    query = queried(&mut stream, &mut peer).await;
                    answer = version;
                }
                3 => peer.next(&query, data(answer)).await,
                _ => peer.auto_pong(true),
            }
            for _ in events.iter().filter(|at| **at == step) {
                version += 1;
                if step >= begins {
                    undelivered.push(version);
                }
            }
            if !is_late {
                for version in undelivered.drain(..) {
                    peer.next(&id, data(version)).await;
                }
            }
        }
        // At the latest with the next item everything is known.
        version += 1;
        undelivered.push(version);
        for version in undelivered {
            peer.next(&id, data(version)).await;
        }
        let (mut state, mut queries) = (None, 1);
        loop {
            match timeout(Duration::from_millis(1), peer.serve_while(stream.next())).await {
                Ok(Some(Ok(Synced::Snapshot(response)))) => state = response.data.unwrap().as_i64(),
                Ok(Some(Ok(Synced::Live(Event::Next(response))))) => {
                    let item = response.data.unwrap().as_i64();
                    assert_eq!(
                        item,
                        state.map(|state| state + 1),
                        "{begins}, {events:?}, {is_late}"
                    );
                    state = item;
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => {
                    let Ok(Some(again)) =
                        timeout(Duration::from_millis(1), peer.serve_pings()).await
                    else {
                        break;
                    };
                    peer.next(again["id"].as_str().unwrap(), data(version)).await;
                    queries += 1;
                }
            }
        }
        assert_eq!(state, Some(version), "{begins}, {events:?}, {is_late}");
        assert!(queries <= 2, "{begins}, {events:?}, {is_late}");
    }
}

/// A server that is cut off at random, fails at random and takes its time; and a reader that
/// applies what it gets.
#[expect(clippy::too_many_lines, reason = "a server and a reader that share their state")]
#[tokio::test(start_paused = true)]
async fn whatever_happens_a_reader_that_applies_everything_ends_with_what_the_server_has() {
    let (snapshots, gaps) = (Cell::new(0), Cell::new(0));
    for seed in 0..100 {
        let server = Server::in_memory();
        let client = builder(&server).seed(seed).build().unwrap();
        let overflow = [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block]
            [usize::try_from(seed % 3).unwrap()];
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
                        assert_eq!(
                            item,
                            state.map(|state| state + 1),
                            "seed {seed}: each is the next"
                        );
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
            let (mut steps, mut is_over) = (0, false);
            loop {
                let mut peer = connected(&server).await;
                let (mut id, mut read_id, mut queries) = (None::<String>, None, Vec::new());
                loop {
                    steps += 1;
                    let is_calm = steps > 300;
                    let read =
                        timeout(Duration::from_millis(random.u64(0..100)), peer.serve_pings())
                            .await;
                    match read {
                        Ok(None) => break,
                        Ok(Some(message)) => {
                            let wire_id = message["id"].as_str().unwrap().to_owned();
                            let document = message["payload"]["query"].as_str().unwrap_or_default();
                            if document.starts_with("subscription") {
                                read_id = Some(wire_id);
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
                        Err(_)
                            if id.is_none()
                                && read_id.is_some()
                                && (is_calm || random.u32(0..3) == 0) =>
                        {
                            id = read_id.take();
                        }
                        // With the last event everything is known, whatever was missed before.
                        Err(_) if is_calm => match &id {
                            Some(id) if !is_over => {
                                is_over = true;
                                version.set(version.get() + 1);
                                peer.next(id, data(version.get())).await;
                                peer.complete(id).await;
                            }
                            Some(_) | None => {}
                        },
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
            read = read => assert_eq!(read, (Some(version.get()), true), "seed {seed}"),
            () = serve => unreachable!("it serves for ever"),
        }
    }
    assert!(snapshots.get() > 300 && gaps.get() > 200, "{snapshots:?} {gaps:?}");
}
