//! Queries and mutations next to a subscription, on the same connection.

use resub::{CallError, Request};
use serde_json::{Value, json};

use crate::pair::{Pair, item, on_each_pair, subscribe};
use crate::raw::within;

on_each_pair!(queries_and_mutations_are_answered_next_to_a_live_subscription);
async fn queries_and_mutations_are_answered_next_to_a_live_subscription(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let mut ticks = subscribe(&client, "subscription { forever(everyMs: 1) }");
    assert_eq!(item(&mut ticks).await, json!({ "forever": 0 }));
    for n in 0..20 {
        let sum = Request::<Value>::new("mutation($n: Int!) { add(a: $n, b: 1) }")
            .variables(&json!({ "n": n }));
        assert_eq!(
            within(client.mutate_with(sum)).await.unwrap().data,
            Some(json!({ "add": n + 1 }))
        );
        let answer = within(client.query_with(Request::<Value>::new("{ answer }"))).await.unwrap();
        assert_eq!(answer.data, Some(json!({ "answer": 42 })));
    }
    item(&mut ticks).await;
    assert_eq!(server.connections().borrow().ever, 1);
    let error = within(client.query_with(Request::<Value>::new("{ nothing }"))).await;
    match error {
        Err(CallError::Rejected(errors)) => {
            assert!(errors[0].message.contains("nothing"), "{errors:?}");
        }
        Ok(response) => {
            assert!(response.data.is_none() && response.errors[0].message.contains("nothing"));
        }
        Err(other) => panic!("{other:?}"),
    }
    item(&mut ticks).await;
}
