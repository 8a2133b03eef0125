//! Results that a server delivers in parts (`@defer`, `@stream`): a part is never taken for a
//! whole result.

use resub::{CallError, IncrementalError, Subprotocol};
use serde::Deserialize;

use super::*;

#[derive(Deserialize, Debug, PartialEq)]
struct Person {
    name: String,
    films: Vec<String>,
}

fn person() -> Request<Person> {
    Request::new("query Person { ...F @defer films @stream }")
}

/// The result of [`person`] in each of the formats that servers use.
fn formats() -> [Vec<Value>; 3] {
    [
        vec![
            json!({"data": {"films": ["A"]}, "hasNext": true}),
            json!({"data": {"name": "Luke"}, "path": [], "label": "F", "hasNext": true}),
            json!({"data": "B", "path": ["films", 1], "hasNext": false}),
        ],
        vec![
            json!({"data": {"films": ["A"]}, "hasNext": true}),
            json!({"incremental": [{"path": ["films", 1], "items": ["B"]}], "hasNext": true}),
            json!({"incremental": [{"path": [], "data": {"name": "Luke"}}], "hasNext": false}),
        ],
        vec![
            json!({
                "data": {"films": ["A"]},
                "pending": [{"id": "0", "path": []}, {"id": "1", "path": ["films"]}],
                "hasNext": true,
            }),
            json!({
                "incremental": [
                    {"id": "0", "data": {"name": "Luke"}},
                    {"id": "1", "items": ["B"]},
                ],
                "completed": [{"id": "0"}],
                "hasNext": true,
            }),
            json!({"completed": [{"id": "1"}], "hasNext": false}),
        ],
    ]
}

fn luke() -> Person {
    Person { name: "Luke".into(), films: vec!["A".into(), "B".into()] }
}

#[tokio::test(start_paused = true)]
async fn a_query_and_a_mutation_yield_the_merged_result_in_every_format() {
    let server = Server::in_memory();
    let (client, _stream, mut peer, _) = live(&server).await;
    for parts in formats() {
        let calls = async {
            let queried = client.query_with(person()).await.unwrap();
            let mutation = Request::<Person>::new("mutation M { ...F @defer films @stream }");
            (queried.data, client.mutate_with(mutation).await.unwrap().data)
        };
        let answers = async {
            for _ in 0..2 {
                let id = peer.expect_subscribe().await.id;
                for part in &parts {
                    peer.next(&id, part.clone()).await;
                }
                peer.complete(&id).await;
            }
        };
        let (results, ()) = futures::join!(calls, answers);
        assert_eq!(results, (Some(luke()), Some(luke())));
    }
    assert_eq!(client.stats().ignored, 0);
}

#[tokio::test(start_paused = true)]
async fn on_legacy_the_stop_is_sent_after_the_last_part() {
    let server = Server::in_memory();
    let client = builder(&server).subprotocol(Subprotocol::GraphqlWs).build().unwrap();
    let call = tokio::spawn(async move { (client.query_with(person()).await, client) });
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    let [_, parts, _] = formats();
    for part in &parts[..2] {
        peer.next(&id, part.clone()).await;
    }
    peer.expect_nothing_for(secs(5)).await;
    peer.next(&id, parts[2].clone()).await;
    assert_eq!(peer.expect_complete().await, id);
    assert_eq!(call.await.unwrap().0.unwrap().data, Some(luke()));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_make_a_whole_result_is_an_error_that_says_why() {
    let server = Server::in_memory();
    let (client, _stream, mut peer, _) = live(&server).await;
    let first = json!({"data": {"films": []}, "errors": [{"message": "e"}], "hasNext": true});
    let cases = [
        (None, "the result is incomplete: the server ended it before the last part: e"),
        (
            Some(
                json!({"incremental": [{"path": ["films", 1], "items": ["B"]}], "hasNext": false}),
            ),
            "a part belongs to a place that is not in the data: `films.1`",
        ),
        (
            Some(json!({"incremental": [{"id": "7", "data": {}}], "hasNext": false})),
            "a part has the id 7, which the server has not announced",
        ),
        (
            Some(json!({"incremental": 7, "hasNext": false})),
            "a part is malformed: invalid type: integer `7`, expected a list or an object at line \
             1 column 1",
        ),
    ];
    for (second, expected) in cases {
        let answers = async {
            let id = peer.expect_subscribe().await.id;
            peer.next(&id, first.clone()).await;
            if let Some(part) = second {
                peer.next(&id, part).await;
            }
            peer.complete(&id).await;
        };
        let (result, ()) = futures::join!(client.query_with(person()), answers);
        let error = result.unwrap_err();
        assert!(error.may_have_been_executed());
        let CallError::Incremental(why) = &error else { panic!("{error:?}") };
        assert_eq!(why.to_string(), expected);
        if let IncrementalError::Incomplete(errors) = why {
            assert_eq!(errors[0].message, "e");
        }
    }
    // The parts fit together, and are not of the type.
    let answers = async {
        let id = peer.expect_subscribe().await.id;
        peer.next(&id, json!({"data": {"name": "Luke", "films": []}, "hasNext": true})).await;
        peer.next(&id, json!({"data": 7, "path": ["films", 0], "hasNext": false})).await;
    };
    let (result, ()) = futures::join!(client.query_with(person()), answers);
    let Err(CallError::Decode(error)) = result else { panic!("{result:?}") };
    assert_eq!(error.path(), Some("films[0]"));
}

#[tokio::test(start_paused = true)]
async fn a_query_whose_parts_were_lost_on_the_way_is_asked_again_from_the_beginning() {
    let server = Server::in_memory();
    let client = client(&server);
    let one = client.clone();
    let queried = tokio::spawn(async move { one.query_with(person()).await });
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, json!({"data": {"films": ["X", "Y"]}, "hasNext": true})).await;
    peer.sync().await;
    peer.vanish();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    for part in &formats()[1] {
        peer.next(&id, part.clone()).await;
    }
    assert_eq!(queried.await.unwrap().unwrap().data, Some(luke()));
}

#[tokio::test(start_paused = true)]
async fn in_a_subscription_a_part_is_an_error_and_no_end_and_a_whole_item_may_say_has_next() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = live(&server).await;
    for part in formats().concat() {
        peer.next(&id, part).await;
        match event(&mut stream).await {
            Some(Err(error @ SubscriptionError::Decode(_))) => {
                assert!(!error.is_terminal());
                let SubscriptionError::Decode(error) = error else { unreachable!() };
                assert!(error.is_incremental());
                assert!(error.to_string().contains("which subscriptions do not support"));
            }
            other => panic!("{other:?}"),
        }
    }
    peer.next(&id, json!({"data": 1, "hasNext": false})).await;
    assert_eq!(item(&mut stream).await, 1);
}

#[tokio::test(start_paused = true)]
async fn half_a_surrogate_pair_outside_the_data_costs_neither_an_item_nor_the_reason_of_an_end() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = live(&server).await;
    let message = |kind: &str, payload: &str| {
        format!(r#"{{"type":"{kind}","id":"{id}","payload":{payload}}}"#)
    };
    let errors = r#"[{"message":"no \ud83d"}]"#;
    peer.send_text(&message("next", &format!(r#"{{"data":1,"errors":{errors}}}"#))).await;
    match event(&mut stream).await {
        Some(Ok(Event::Next(response))) => {
            assert_eq!(response.data, Some(json!(1)));
            assert_eq!(response.errors[0].message, "no \u{fffd}");
        }
        other => panic!("{other:?}"),
    }
    peer.send_text(&message("next", r#"{"data":"\ud83d"}"#)).await;
    assert!(matches!(event(&mut stream).await, Some(Err(SubscriptionError::Decode(_)))));
    peer.send_text(&message("error", errors)).await;
    let error = end(&mut stream).await;
    assert_eq!(error.to_string(), "the server rejected the operation: no \u{fffd}");
}
