//! A server that numbers its events, connections that are cut at random, readers that are slow at
//! random: what is read, how often, and what the stream says of the rest.

use fastrand::Rng;
use resub::Overflow;

use super::*;

/// A feed of numbered events, which honours `after`, and may repeat a few events before it.
#[derive(Clone, Copy)]
struct Feed {
    events: u64,
    /// How many are published in a millisecond; all of them were published long ago if there is no
    /// pace.
    pace: Option<u64>,
    cuts: u64,
}

/// What the server repeats at most.
pub(super) const OVERLAP: u64 = 5;

impl Feed {
    fn published(&self, since: Instant) -> u64 {
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap();
        self.pace.map_or(self.events, |pace| (millis * pace).min(self.events))
    }

    /// Serves one connection after the other. Returns when the client closes one.
    async fn serve(self, server: &Server, seed: u64) -> u64 {
        let (begun, mut random) = (Instant::now(), Rng::with_seed(seed));
        let mut cuts = 0;
        loop {
            let mut peer = connected(server).await;
            let mut cut_after =
                (cuts < self.cuts).then(|| random.u64(0..2 * self.events / (self.cuts + 1)));
            let mut live = Vec::<(String, u64)>::new();
            'connection: loop {
                match timeout(Duration::from_millis(1), peer.serve_pings()).await {
                    Ok(Some(message)) if message["type"] == "subscribe" => {
                        let next = match message["payload"]["variables"]["after"].as_u64() {
                            Some(after) => after.saturating_sub(random.u64(0..=OVERLAP)) + 1,
                            None => self.published(begun) + 1,
                        };
                        live.push((message["id"].as_str().unwrap().to_owned(), next));
                    }
                    Ok(Some(message)) => {
                        assert_eq!(message["type"], "complete");
                        live.retain(|(id, _)| *id != message["id"]);
                    }
                    Ok(None) => return cuts,
                    Err(_) => {
                        let published = self.published(begun);
                        for (id, next) in &mut live {
                            for _ in 0..self.pace.map_or(500, |_| 64) {
                                if cut_after == Some(0) {
                                    cuts += 1;
                                    peer.vanish();
                                    break 'connection;
                                }
                                if *next > published {
                                    break;
                                }
                                peer.next(id, json!({"data": {"n": *next}})).await;
                                *next += 1;
                                cut_after = cut_after.map(|events| events - 1);
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn request() -> Request<Value> {
    Request::new("subscription Events($after: Int) { n }").variables(&json!({"after": 0}))
}

/// Never backwards, whatever the server repeats: it may repeat before what it repeated.
pub(super) fn go_on(last: &Value, variables: &mut Value) {
    variables["after"] = number(last).max(variables["after"].as_u64().unwrap()).into();
}

pub(super) fn number(data: &Value) -> u64 {
    data["n"].as_u64().unwrap()
}

/// Slow at random: mostly not at all, now and then for a while.
async fn dawdle(random: &mut Rng) {
    if random.u32(0..200) == 0 {
        tokio::time::sleep(Duration::from_millis(random.u64(0..30))).await;
    }
}

/// Reads until the last event was read; what was read, with the gaps in between.
pub(super) async fn read(
    stream: &mut Subscription<Value>,
    last: u64,
    seed: u64,
) -> Vec<Result<u64, Gap>> {
    let (mut history, mut random) = (Vec::new(), Rng::with_seed(!seed));
    while history.last().and_then(|event: &Result<u64, Gap>| event.as_ref().ok()) != Some(&last) {
        match stream.next().await.unwrap().unwrap() {
            Event::Next(response) => history.push(Ok(number(&response.data.unwrap()))),
            Event::Gap(gap) => history.push(Err(gap)),
            other => panic!("{other:?}"),
        }
        dawdle(&mut random).await;
    }
    history
}

fn numbers(history: &[Result<u64, Gap>]) -> Vec<u64> {
    history.iter().filter_map(|event| event.as_ref().ok().copied()).collect()
}

/// Runs a feed against a reader. Returns what was read, and how often the connection was cut.
async fn run(
    server: &Server,
    client: Client,
    feed: Feed,
    seed: u64,
    mut stream: Subscription<Value>,
) -> (Vec<Result<u64, Gap>>, u64) {
    let reading = async {
        let history = read(&mut stream, feed.events, seed).await;
        drop(stream);
        client.shutdown(secs(5)).await;
        history
    };
    futures::join!(reading, feed.serve(server, seed))
}

/// Everything, once, in order; and the gaps say that nothing is missing.
pub(super) fn assert_exactly_once(history: &[Result<u64, Gap>], events: u64, seed: u64) {
    let numbers = numbers(history);
    let wrong = numbers.iter().zip(1..).find(|(history, expected)| *history != expected);
    assert!(
        wrong.is_none() && numbers.len() as u64 == events,
        "seed {seed}: {wrong:?} of {}",
        numbers.len()
    );
    let mut some = false;
    for event in history {
        match event {
            Ok(_) => some = true,
            // Before the first item there is no position to go on from.
            Err(gap) => assert!(gap.is_lossless() || !some, "seed {seed}: {gap:?}"),
        }
    }
}

/// No event was left out, though some may have come again.
fn assert_at_least_once(history: &[Result<u64, Gap>], events: u64, seed: u64) {
    let mut most = 0;
    for number in numbers(history) {
        assert!(number <= most + 1, "seed {seed}: {number} after {most}");
        most = most.max(number);
    }
    assert_eq!(most, events, "seed {seed}");
}

/// Whatever was not read lies in a gap at its place, and a gap that only drops says how many.
fn assert_announced(history: &[Result<u64, Gap>], seed: u64) {
    let (mut last, mut reconnects, mut dropped) = (0, 0, 0);
    for event in history {
        match event {
            Err(gap) => {
                assert!(gap.dropped > 0 || gap.reconnects > 0, "seed {seed}: {gap:?}");
                reconnects += gap.reconnects;
                dropped += gap.dropped;
            }
            Ok(number) => {
                let missing =
                    number.checked_sub(last + 1).unwrap_or_else(|| panic!("seed {seed}: {number}"));
                let announced =
                    if reconnects == 0 { missing == dropped } else { missing >= dropped };
                assert!(
                    announced,
                    "seed {seed}: {missing} missing before {number}, {dropped} dropped, \
                     {reconnects} reconnects"
                );
                (last, reconnects, dropped) = (*number, 0, 0);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn with_resume_dedupe_and_rewind_every_event_is_read_once_and_in_order() {
    let (mut cuts, mut rewinds) = (0, 0);
    for seed in 0..24 {
        let server = Server::in_memory();
        let client = builder(&server).seed(seed).build().unwrap();
        let feed = Feed { events: 1_000, pace: (seed % 2 == 0).then_some(3), cuts: 12 };
        let stream = client
            .subscription_to(request())
            .overflow(Overflow::Rewind)
            .capacity(items(1 + usize::try_from(seed).unwrap() * 3))
            .resume_with(go_on)
            .dedupe_by(items(usize::try_from(OVERLAP).unwrap()), number)
            .start()
            .unwrap();
        let (history, cut) = run(&server, client, feed, seed, stream).await;
        assert_exactly_once(&history, feed.events, seed);
        cuts += cut;
        rewinds += history
            .iter()
            .filter_map(|event| event.as_ref().err())
            .map(|gap| gap.restarts)
            .sum::<u32>();
    }
    assert!(cuts > 200 && rewinds > 80, "{cuts} cuts and {rewinds} rewinds prove nothing");
}

#[tokio::test(start_paused = true)]
async fn with_resume_and_rewind_every_event_is_read_at_least_once() {
    let mut repeated = 0;
    for seed in 0..20 {
        let server = Server::in_memory();
        let client = builder(&server).seed(seed).build().unwrap();
        let feed = Feed { events: 1_000, pace: (seed % 2 == 0).then_some(3), cuts: 12 };
        let stream = client
            .subscription_to(request())
            .overflow(Overflow::Rewind)
            .capacity(items(20))
            .resume_with(go_on)
            .start()
            .unwrap();
        let (history, _) = run(&server, client, feed, seed, stream).await;
        assert_at_least_once(&history, feed.events, seed);
        repeated += numbers(&history).len() as u64 - feed.events;
    }
    assert!(repeated > 0, "a server that repeats nothing proves nothing");
}

#[expect(clippy::result_large_err, reason = "a gap is no error here")]
#[tokio::test(start_paused = true)]
async fn without_resume_every_event_that_was_not_read_lies_in_an_announced_gap() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Latest, Overflow::Block]
    {
        let mut lost = 0;
        for seed in 0..8 {
            let server = Server::in_memory();
            let backoff = (Duration::from_millis(100), Duration::from_millis(900));
            let client = builder(&server).seed(seed).backoff(backoff.0, backoff.1).build().unwrap();
            let feed = Feed { events: 8_000, pace: Some(3), cuts: 6 };
            let live = Request::<Value>::new("subscription Events { n }");
            let stream = client
                .subscription_to(live)
                .overflow(overflow)
                .capacity(items(20))
                .start()
                .unwrap();
            let reading = async {
                let (mut stream, mut history, mut random) =
                    (stream, Vec::new(), Rng::with_seed(seed));
                // The end may be what was lost.
                while let Ok(event) = timeout(secs(3), stream.next()).await {
                    match event.unwrap().unwrap() {
                        Event::Next(response) => history.push(Ok(number(&response.data.unwrap()))),
                        Event::Gap(gap) => history.push(Err(gap)),
                        other => panic!("{other:?}"),
                    }
                    dawdle(&mut random).await;
                }
                drop(stream);
                client.shutdown(secs(5)).await;
                history
            };
            let (history, _) = futures::join!(reading, feed.serve(&server, seed));
            let first = numbers(&history)[0];
            // What came before the first that was read is nobody's loss.
            let own = history.into_iter().skip_while(Result::is_err);
            let own: Vec<_> = own.map(|event| event.map(|number| number - first + 1)).collect();
            assert_announced(&own, seed);
            lost += feed.events - first + 1 - numbers(&own).len() as u64;
        }
        assert!(lost > 0, "{overflow:?}: a feed of which nothing is lost proves nothing");
    }
}

/// On real sockets and in real time: 200 cuts at random moments during 200,000 events.
#[tokio::test]
async fn of_200_000_events_over_200_cuts_each_is_read_once() {
    let server = Server::tcp().await;
    let client = Client::builder(server.url())
        .seed(1)
        .backoff(Duration::from_millis(1), Duration::from_millis(2))
        .build()
        .unwrap();
    let feed = Feed { events: 200_000, pace: None, cuts: 200 };
    let stream = client
        .subscription_to(request())
        .overflow(Overflow::Rewind)
        .resume_with(go_on)
        .dedupe_by(items(usize::try_from(OVERLAP).unwrap()), number)
        .start()
        .unwrap();
    let (history, cuts) = run(&server, client, feed, 1, stream).await;
    assert_exactly_once(&history, feed.events, 1);
    assert_eq!(cuts, feed.cuts);
}
