//! What the new connection of a handover has said is held while the old one counts. Whatever ends
//! the handover then, nothing of it is forgotten, and nothing is skipped.

use futures::join;
use resub::{Disconnect, Overflow};

use super::*;

/// What happens while something is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    ReconnectNow,
    PauseAndResume,
    OldIsLost,
    NewIsLost,
    /// The new one first.
    BothAreLost,
    /// Both carried the operation for long enough.
    TimeIsUp,
    /// As above, and then the new connection is lost before the reader has read.
    TimeIsUpAndNewIsLost,
    /// The old connection proves that it has nothing to add.
    OldSaysTheSame,
}

pub(super) const EVERYTHING: [Then; 8] = [
    Then::ReconnectNow,
    Then::PauseAndResume,
    Then::OldIsLost,
    Then::NewIsLost,
    Then::BothAreLost,
    Then::TimeIsUp,
    Then::TimeIsUpAndNewIsLost,
    Then::OldSaysTheSame,
];

/// The two connections of a handover; `None` after a loss.
pub(super) struct Peers {
    pub(super) old: Option<Peer>,
    pub(super) new: Option<Peer>,
    old_id: String,
}

impl Peers {
    /// Rotates. Returns the id on the new connection as well.
    pub(super) async fn rotate(
        client: &Client,
        server: &Server,
        old: Peer,
        old_id: String,
    ) -> (Self, String) {
        let (rotated, mut new) = join!(client.rotate(), connected(server));
        rotated.unwrap();
        let new_id = new.expect_subscribe().await.id;
        (Self { old: Some(old), new: Some(new), old_id }, new_id)
    }

    /// Lets it happen. `items` is what the old connection says to prove that it is not behind.
    pub(super) async fn let_happen(&mut self, then: Then, client: &Client, items: &[Value]) {
        match then {
            Then::ReconnectNow => client.reconnect_now(),
            Then::PauseAndResume => {
                client.pause();
                settle().await;
                client.resume();
            }
            Then::OldIsLost => self.old.take().unwrap().vanish(),
            Then::NewIsLost => self.new.take().unwrap().vanish(),
            Then::BothAreLost => {
                self.new.take().unwrap().vanish();
                settle().await;
                self.old.take().unwrap().vanish();
            }
            Then::TimeIsUp => self.let_time_pass(secs(12)).await,
            Then::TimeIsUpAndNewIsLost => {
                self.let_time_pass(secs(12)).await;
                self.new.take().unwrap().vanish();
            }
            Then::OldSaysTheSame => {
                for item in items {
                    self.old.as_mut().unwrap().next(&self.old_id, item.clone()).await;
                }
            }
        }
        settle().await;
    }

    pub(super) async fn let_time_pass(&mut self, time: Duration) {
        let (old, new) = (self.old.as_mut().unwrap(), self.new.as_mut().unwrap());
        old.serve_while(new.serve_while(tokio::time::sleep(time))).await;
    }

    /// Serves these connections and whoever comes, each until the client leaves it. Never returns.
    pub(super) async fn serve(mut self, server: &Server, serve: impl AsyncFn(&mut Peer)) -> ! {
        let those_here = async {
            let (old, new) = (self.old.as_mut(), self.new.as_mut());
            let one = async |peer: Option<&mut Peer>| {
                if let Some(peer) = peer {
                    serve(peer).await;
                }
            };
            join!(one(old), one(new));
        };
        let those_to_come = async {
            loop {
                serve(&mut connected(server).await).await;
            }
        };
        join!(those_here, those_to_come).1
    }
}

/// Everything that is read until the stream ends, or until nothing came for a minute.
async fn read(stream: &mut Subscription<Value>) -> (Vec<Value>, Vec<Gap>, Option<Ended>) {
    let (mut read, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match timeout(secs(60), stream.next()).await {
            Err(_) => return (read, gaps, None),
            Ok(None) => return (read, gaps, Some(Ended::Completed)),
            Ok(Some(Ok(Event::Next(response)))) => read.push(response.data.unwrap()),
            Ok(Some(Ok(Event::Gap(gap)))) => gaps.push(gap),
            Ok(Some(Err(SubscriptionError::Rejected(_)))) => {
                return (read, gaps, Some(Ended::Rejected));
            }
            Ok(other) => panic!("{other:?}"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Completed,
    Rejected,
}

async fn end_on(peer: &mut Peer, id: &str, ended: Ended) {
    match ended {
        Ended::Completed => peer.complete(id).await,
        Ended::Rejected => peer.error(id, json!([{"message": "denied"}])).await,
    }
}

/// Asserts that nobody asks for the operation again.
async fn expect_nobody_to_ask_again(peer: &mut Peer) {
    while let Some(message) = peer.serve_pings().await {
        assert_ne!(message["type"], "subscribe", "it was ended, and is sent again");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_held_is_read_behind_its_items_and_the_operation_is_not_sent_again() {
    for then in EVERYTHING {
        // Then the old connection goes on, see the next test.
        if matches!(then, Then::NewIsLost | Then::BothAreLost) {
            continue;
        }
        for ended in [Ended::Completed, Ended::Rejected] {
            for held in [vec![], vec![data(1)], vec![data(1), data(2)]] {
                // There is nothing that the old connection could repeat.
                if then == Then::OldSaysTheSame && held.len() < 2 {
                    continue;
                }
                let server = Server::in_memory();
                server.set_deadline(secs(600));
                let (client, mut stream, old, old_id) = live(&server).await;
                let (mut peers, new_id) = Peers::rotate(&client, &server, old, old_id).await;
                for item in &held {
                    peers.new.as_mut().unwrap().next(&new_id, item.clone()).await;
                }
                end_on(peers.new.as_mut().unwrap(), &new_id, ended).await;
                settle().await;
                peers.let_happen(then, &client, &held).await;
                let (items, gaps, end) = tokio::select! {
                    read = read(&mut stream) => read,
                    _ = peers.serve(&server, expect_nobody_to_ask_again) => unreachable!(),
                };
                let said: Vec<_> = held.iter().map(|item| item["data"].clone()).collect();
                // Without `dedupe_by` the old connection's own come first.
                let old = if then == Then::OldSaysTheSame { &said[..] } else { &[] };
                let expected = [old, &said].concat();
                assert_eq!((items, end), (expected, Some(ended)), "{then:?}");
                assert!(gaps.len() == 1 && gaps[0].overlaps == 1, "{then:?}: {gaps:?}");
                let stats = client.stats();
                assert_eq!((stats.live_operations, stats.queued_items), (0, 0), "{then:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_lost_with_the_new_connection_is_said_again_by_the_next_one() {
    for ended in [Ended::Completed, Ended::Rejected] {
        let server = Server::in_memory();
        let (client, mut stream, old, old_id) = live(&server).await;
        let (mut peers, new_id) = Peers::rotate(&client, &server, old, old_id.clone()).await;
        peers.new.as_mut().unwrap().next(&new_id, data(2)).await;
        end_on(peers.new.as_mut().unwrap(), &new_id, ended).await;
        settle().await;
        peers.let_happen(Then::NewIsLost, &client, &[]).await;
        // The old connection has ended nothing.
        let mut old = peers.old.unwrap();
        old.next(&old_id, data(1)).await;
        assert_eq!(item(&mut stream).await, 1, "{ended:?}");
        // Another one is made in place of the lost one, as that was wanted.
        let mut new = old.serve_while(connected(&server)).await;
        let new_id = new.expect_subscribe().await.id;
        end_on(&mut new, &new_id, ended).await;
        let reading = read(&mut stream);
        let (items, gaps, end) = old.serve_while(new.serve_while(reading)).await;
        assert_eq!((items, end), (vec![], Some(ended)));
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!(client.stats().reconnects, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_end_is_lost_with_both_connections_is_sent_again() {
    for ended in [Ended::Completed, Ended::Rejected] {
        let server = Server::in_memory();
        let (client, mut stream, old, old_id) = live(&server).await;
        let (mut peers, new_id) = Peers::rotate(&client, &server, old, old_id).await;
        end_on(peers.new.as_mut().unwrap(), &new_id, ended).await;
        settle().await;
        peers.let_happen(Then::BothAreLost, &client, &[]).await;
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        assert!(matches!(gap(&mut stream).await.cause, Some(Disconnect::Reset(_))));
        end_on(&mut peer, &id, ended).await;
        assert_eq!(read(&mut stream).await.2, Some(ended));
    }
}

/// A numbered item of about so many bytes.
fn numbered(n: u64, bytes: usize) -> Value {
    json!({"data": {"n": n, "padding": "x".repeat(bytes)}})
}

/// A mailbox of 1,000 bytes takes the first one, not the second one behind it, but the third.
fn items_with_a_large_one() -> [Value; 4] {
    [numbered(1, 300), numbered(2, 900), numbered(3, 10), numbered(4, 10)]
}

/// Serves a feed of these items, which honours `after` and ends.
async fn serve_feed(peer: &mut Peer) {
    while let Some(message) = peer.serve_pings().await {
        if message["type"] == "subscribe" {
            let after = message["payload"]["variables"]["after"].as_u64().unwrap();
            for item in &items_with_a_large_one()[usize::try_from(after).unwrap()..] {
                peer.next(message["id"].as_str().unwrap(), item.clone()).await;
            }
            peer.complete(message["id"].as_str().unwrap()).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_when_held_items_are_delivered_leaves_no_hole() {
    for then in EVERYTHING {
        // With an item before the handover the new connection is told a position.
        for (before, held, is_ended) in
            [(0, 4, false), (0, 4, true), (0, 3, false), (0, 2, false), (0, 2, true), (1, 3, true)]
        {
            let case = format!("{then:?}, {before} before, {held} held, ended: {is_ended}");
            let server = Server::in_memory();
            server.set_deadline(secs(600));
            let client = client(&server);
            let mut stream = rewinding(&client);
            let mut old = connected(&server).await;
            let old_id = old.expect_subscribe().await.id;
            let all = items_with_a_large_one();
            for item in &all[..before] {
                old.next(&old_id, item.clone()).await;
            }
            settle().await;
            let held = &all[before..before + held];
            let (mut peers, new_id) = Peers::rotate(&client, &server, old, old_id.clone()).await;
            let new = peers.new.as_mut().unwrap();
            for item in held {
                new.next(&new_id, item.clone()).await;
            }
            if is_ended {
                new.complete(&new_id).await;
            }
            settle().await;
            peers.let_happen(then, &client, held).await;
            if then == Then::NewIsLost {
                for item in &all[before..] {
                    peers.old.as_mut().unwrap().next(&old_id, item.clone()).await;
                }
                peers.old.as_mut().unwrap().complete(&old_id).await;
                settle().await;
            }
            let (items, gaps, end) = tokio::select! {
                read = read(&mut stream) => read,
                _ = peers.serve(&server, serve_feed) => unreachable!(),
            };
            let numbers: Vec<_> = items.iter().map(|item| item["n"].as_u64().unwrap()).collect();
            assert_eq!((&numbers[..], end), (&[1, 2, 3, 4][..], Some(Ended::Completed)), "{case}");
            assert!(gaps.iter().all(|gap| gap.dropped == 0), "{case}: {gaps:?}");
        }
    }
}

/// A subscription to the feed, which goes back where its mailbox is full.
fn rewinding(client: &Client) -> Subscription<Value> {
    let request = Request::<Value>::new("subscription Events($after: Int) { n }")
        .variables(&json!({"after": 0}));
    client
        .subscription_to(request)
        .resume_with(|last: &Value, variables| variables["after"] = last["n"].clone())
        .overflow(Overflow::Rewind)
        .capacity_bytes(items(1_000))
        .start()
        .unwrap()
}
