//! Items that do not decode, in a stream with a position (rule 28a).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use resub::{Overflow, SubscriptionBuilder};

use super::*;

#[derive(Debug, serde::Deserialize)]
struct Numbered {
    n: u64,
}

fn numbered(client: &Client) -> SubscriptionBuilder<Request<Numbered>> {
    let request =
        Request::new("subscription Events($after: Int) { n }").variables(&json!({"after": 0}));
    client.subscription_to(request).resume_with(|last: &Numbered, variables| {
        variables["after"] = last.n.into();
    })
}

/// Answers each request with the events after its position, up to the last one; `odd` says what is
/// sent in place of a number. Counts the requests.
async fn serve_log(
    server: Server,
    last: u64,
    odd: impl Fn(u64) -> Option<Value>,
    requests: Arc<AtomicUsize>,
) {
    loop {
        let mut peer = connected(&server).await;
        while let Some(message) = peer.serve_pings().await {
            let Some(after) = message["payload"]["variables"]["after"].as_u64() else { continue };
            requests.fetch_add(1, Relaxed);
            let id = message["id"].as_str().unwrap();
            for event in after + 1..=last {
                peer.next(id, odd(event).unwrap_or_else(|| json!({"data": {"n": event}}))).await;
            }
        }
    }
}

/// What a reader gets until the last event: how often each number came, and how many errors.
async fn read(stream: &mut Subscription<Numbered>, last: u64) -> (BTreeMap<u64, u32>, u32) {
    let (mut numbers, mut errors) = (BTreeMap::new(), 0);
    while !numbers.contains_key(&last) {
        match timeout(secs(600), stream.next()).await.expect("it goes on").unwrap() {
            Ok(Event::Next(response)) => match response.data {
                Some(Numbered { n }) => *numbers.entry(n).or_default() += 1,
                None => errors += 1,
            },
            // Before the first one there is no position.
            Ok(Event::Gap(gap)) => assert!(gap.is_lossless() || numbers.is_empty(), "{gap:?}"),
            Ok(other) => panic!("{other:?}"),
            Err(error) if !error.is_terminal() => errors += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    (numbers, errors)
}

/// An item that the application's type does not know, in several ways.
fn odd_item(event: u64) -> Value {
    match event % 4 {
        0 => json!({"data": {"n": "a new kind of number"}}),
        1 => json!({"data": {"n": null}}),
        2 => json!({"data": {"other": event}}),
        _ => json!({"data": {"n": -1}, "errors": [{"message": "odd"}]}),
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_behind_items_that_do_not_decode_moves_the_position_neither_back_nor_on() {
    for odd in 1..=40 {
        let server = Server::in_memory();
        let mut stream = numbered(&client(&server)).start().unwrap();
        let mut peer = connected(&server).await;
        let mut subscribe = peer.expect_subscribe().await;
        assert_eq!(subscribe.variables["after"], 0);
        for event in 1..=5 {
            peer.next(&subscribe.id, json!({"data": {"n": event}})).await;
        }
        for event in 6..6 + odd {
            peer.next(&subscribe.id, odd_item(event)).await;
        }
        peer.sync().await;
        for _ in 0..3 {
            peer.vanish();
            peer = connected(&server).await;
            subscribe = peer.expect_subscribe().await;
            assert_eq!(subscribe.variables["after"], 5);
        }
        // They come again.
        for event in 6..6 + odd {
            peer.next(&subscribe.id, odd_item(event)).await;
        }
        peer.next(&subscribe.id, json!({"data": {"n": 6 + odd}})).await;
        let (numbers, errors) = read(&mut stream, 6 + odd).await;
        assert_eq!((numbers.len(), u64::from(errors)), (6, 2 * odd), "{numbers:?}");
        assert!(numbers.values().all(|times| *times == 1), "{numbers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn under_rewind_an_item_that_does_not_decode_is_one_error_and_no_loop() {
    for capacity in [1, 2, 3, 8] {
        for run in [1, 2, 3, 10] {
            // Runs of such items at the beginning, in the middle and behind each other.
            let is_odd = move |event: u64| (1..=run).contains(&event) || event % 20 >= 20 - run;
            let last = 101;
            let server = Server::in_memory();
            let requests = Arc::new(AtomicUsize::new(0));
            let odd = move |event| is_odd(event).then(|| odd_item(event));
            let client = client(&server);
            tokio::spawn(serve_log(server, last, odd, Arc::clone(&requests)));
            let mut stream = numbered(&client)
                .capacity(items(capacity))
                .overflow(Overflow::Rewind)
                .start()
                .unwrap();
            let (numbers, errors) = read(&mut stream, last).await;
            let what = format!("capacity {capacity}, runs of {run}");
            let odd = (1..=last).filter(|event| is_odd(*event)).count();
            assert_eq!((numbers.len(), errors as usize), (101 - odd, odd), "{what}");
            assert!(numbers.values().all(|times| *times == 1), "{what}: {numbers:?}");
            let requests = requests.load(Relaxed);
            assert!(requests <= 2 * 101, "{what}: {requests} requests");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rewind_that_brings_nothing_new_is_tried_ever_more_rarely() {
    // A server that ignores the position.
    let server = Server::in_memory();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let client = client(&server);
    tokio::spawn(async move {
        let mut peer = connected(&server).await;
        while let Some(message) = peer.serve_pings().await {
            if message["type"] != "subscribe" {
                continue;
            }
            counted.fetch_add(1, Relaxed);
            for event in 1..=5 {
                let item = json!({"data": {"n": event}});
                peer.next(message["id"].as_str().unwrap(), item).await;
            }
        }
    });
    let mut stream =
        numbered(&client).capacity(items(2)).overflow(Overflow::Rewind).start().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < secs(60) {
        let _ = timeout(secs(60), stream.next()).await;
    }
    let requests = requests.load(Relaxed);
    assert!((64..=80).contains(&requests), "{requests} requests in a minute");
}
