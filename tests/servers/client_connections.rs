//! The client with several connections to one server.

use std::num::NonZeroUsize;

use futures::future::join_all;
use resub::SubscribeError;
use serde_json::json;

use crate::pair::{Pair, gap, item, on_each_pair, subscribe};
use crate::raw::{until, within};

const FOREVER: &str = "subscription { forever(everyMs: 60000) }";

fn number(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

on_each_pair!(streams_over_several_connections_all_go_on_when_every_connection_is_reset);
async fn streams_over_several_connections_all_go_on_when_every_connection_is_reset(pair: Pair) {
    let server = pair.start();
    let client = pair.builder(&server.url()).connections(number(4)).build().unwrap();
    within(client.connect()).await.unwrap();
    assert_eq!((server.connections().borrow().now, client.stats().connections_open), (4, 4));
    let mut streams: Vec<_> = (0..40).map(|_| subscribe(&client, FOREVER)).collect();
    for stream in &mut streams {
        assert_eq!(item(stream).await, json!({"forever": 0}));
    }
    assert_eq!((server.connections().borrow().ever, server.streams().borrow().now), (4, 40));

    server.drop_connections();
    let gaps = join_all(streams.iter_mut().map(gap)).await;
    assert!(gaps.iter().all(|gap| (gap.reconnects, gap.dropped) == (1, 0)));
    for stream in &mut streams {
        assert_eq!(item(stream).await, json!({"forever": 0}));
    }
    assert_eq!(server.connections().borrow().ever, 8);
    until(server.streams(), |count| count.now == 40).await;
    assert_eq!(client.stats().reconnects, 4);
}

on_each_pair!(a_limit_makes_the_connections_that_it_takes_and_a_drop_makes_room);
async fn a_limit_makes_the_connections_that_it_takes_and_a_drop_makes_room(pair: Pair) {
    let server = pair.start();
    let limited = |connections: Option<usize>| {
        let builder = pair.builder(&server.url()).max_subscriptions_per_connection(number(10));
        match connections {
            Some(connections) => builder.connections(number(connections)).build().unwrap(),
            None => builder.build().unwrap(),
        }
    };
    let client = limited(None);
    let mut streams: Vec<_> = (0..25).map(|_| subscribe(&client, FOREVER)).collect();
    for stream in &mut streams {
        assert_eq!(item(stream).await, json!({"forever": 0}));
    }
    assert_eq!(server.connections().borrow().ever, 3);
    within(client.shutdown(std::time::Duration::from_secs(5))).await;
    until(server.streams(), |count| count.now == 0).await;

    let client = limited(Some(2));
    let mut streams: Vec<_> = (0..20).map(|_| subscribe(&client, FOREVER)).collect();
    let full = client.subscribe_to(resub::Request::<serde_json::Value>::new(FOREVER));
    assert!(
        matches!(full, Err(SubscribeError::Full { connections: 2, limit: 10, .. })),
        "{full:?}"
    );
    for stream in &mut streams {
        assert_eq!(item(stream).await, json!({"forever": 0}));
    }
    drop(streams.pop());
    let mut next = subscribe(&client, FOREVER);
    assert_eq!(item(&mut next).await, json!({"forever": 0}));
    until(server.streams(), |count| count.now == 20).await;
    assert_eq!(server.connections().borrow().ever, 5);
}
