//! Items that are lists, read row by row.

use resub::{Position, SubscribeError, SubscriptionBuilder, SubscriptionError};
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
struct Batch {
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    id: u64,
}

fn rows(client: &Client) -> SubscriptionBuilder<Request<Batch>, Row> {
    let request = Request::new("subscription Rows($after: Int) { rows { id } }");
    client.subscription_to(request.variables(&json!({}))).flatten(|batch: Batch| batch.rows)
}

fn resumed(client: &Client) -> SubscriptionBuilder<Request<Batch>, Row> {
    rows(client).resume_with(|last: &Row, variables| variables["after"] = last.id.into())
}

fn batch(ids: impl IntoIterator<Item = u64>) -> Value {
    let rows: Vec<_> = ids.into_iter().map(|id| json!({"id": id})).collect();
    json!({"data": {"rows": rows}})
}

/// What the reader gets in a second, at most `count` events.
async fn read(stream: &mut Subscription<Row>, count: usize) -> Vec<String> {
    let mut read = Vec::new();
    while read.len() < count
        && let Ok(Some(event)) = timeout(secs(1), stream.next()).await
    {
        read.push(match event {
            Ok(Event::Next(row)) => {
                let errors: Vec<_> = row.errors.iter().map(|e| e.message.as_str()).collect();
                let id = row.data.map_or("no data".to_owned(), |row| row.id.to_string());
                [vec![&*id], errors].concat().join(" ")
            }
            Ok(Event::Gap(gap)) if gap.is_lossless() => "lossless".to_owned(),
            Ok(Event::Gap(gap)) => format!("missing {} dropped {}", gap.missing, gap.dropped),
            Err(SubscriptionError::Decode(_)) => "does not decode".to_owned(),
            other => format!("{other:?}"),
        });
    }
    read
}

const ALL: usize = usize::MAX;

#[tokio::test(start_paused = true)]
async fn each_row_is_an_item_and_the_first_has_the_errors() {
    let server = Server::in_memory();
    let mut stream = rows(&client(&server)).start().unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    let errors = json!([{"message": "m"}]);
    peer.next(&id, batch([1, 2])).await;
    peer.next(&id, batch([])).await;
    peer.next(&id, json!({"data": {"rows": [{"id": 3}, {"id": 4}]}, "errors": errors})).await;
    peer.next(&id, json!({"data": {"rows": []}, "errors": errors})).await;
    peer.next(&id, json!({"data": null, "errors": errors})).await;
    peer.next(&id, json!({"data": {"rows": [{"id": "five"}]}})).await;
    peer.next(&id, batch([6])).await;
    assert_eq!(
        read(&mut stream, ALL).await,
        ["1", "2", "3 m", "4", "no data m", "no data m", "does not decode", "6"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_continues_in_the_middle_of_a_list() {
    let server = Server::in_memory();
    let mut stream = resumed(&client(&server)).start().unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, batch(1..=5)).await;
    peer.next(&id, batch([])).await;
    assert_eq!(read(&mut stream, 3).await, ["1", "2", "3"]);
    let stored = serde_json::to_string(&stream.position().unwrap()).unwrap();
    // A list that was received is read to its end, so the same client asks for what follows it.
    peer.vanish();
    let mut peer = connected(&server).await;
    assert_eq!(peer.expect_subscribe().await.variables["after"], 5);
    drop(stream);

    let position: Position = serde_json::from_str(&stored).unwrap();
    let server = Server::in_memory();
    let mut stream = resumed(&client(&server)).starting_after(position).start().unwrap();
    let mut peer = connected(&server).await;
    let again = peer.expect_subscribe().await;
    assert_eq!(again.variables["after"], 3);
    peer.next(&again.id, batch(4..=5)).await;
    assert_eq!(read(&mut stream, ALL).await, ["4", "5"]);
}

#[tokio::test(start_paused = true)]
async fn keys_and_numbers_are_those_of_rows() {
    for by_number in [true, false] {
        let server = Server::in_memory();
        let options = resumed(&client(&server));
        let options = if by_number {
            options.sequence_by(|row| row.id)
        } else {
            options.dedupe_by(items(8), |row| row.id)
        };
        let mut stream = options.start().unwrap();
        let mut peer = connected(&server).await;
        let id = peer.expect_subscribe().await.id;
        peer.next(&id, batch([1, 2])).await;
        peer.next(&id, batch([2, 3, 3, 4])).await;
        assert_eq!(read(&mut stream, ALL).await, ["1", "2", "3", "4"]);
        peer.next(&id, batch([5, 8, 9])).await;
        if by_number {
            assert_eq!(read(&mut stream, ALL).await, ["5", "lossless"]);
            peer.expect_complete().await;
            let again = peer.expect_subscribe().await;
            assert_eq!(again.variables["after"], 5, "the last row in order");
            peer.next(&again.id, batch(6..=9)).await;
            assert_eq!(read(&mut stream, ALL).await, ["6", "7", "8", "9"]);
        } else {
            assert_eq!(read(&mut stream, ALL).await, ["5", "8", "9"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_jump_in_a_list_is_counted_once_when_the_stream_ends() {
    let server = Server::in_memory();
    let mut stream = resumed(&client(&server)).sequence_by(|row: &Row| row.id).start().unwrap();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, batch([5, 8, 9])).await;
    peer.complete(&id).await;
    settle().await;
    assert_eq!(read(&mut stream, ALL).await, ["5", "missing 2 dropped 2"]);
}

#[tokio::test]
async fn flatten_comes_before_what_looks_at_items() {
    let client = client(&Server::in_memory());
    let request = || Request::<Batch>::new("subscription { rows { id } }");
    let late = client
        .subscription_to(request())
        .dedupe_by(items(8), |batch: &Batch| batch.rows.len())
        .flatten(|batch| batch.rows);
    assert!(matches!(late.start(), Err(SubscribeError::Option(_))));
    let by_key = rows(&client).latest_by(|row: &Row| row.id);
    assert!(matches!(by_key.start(), Err(SubscribeError::Option(_))));
}
