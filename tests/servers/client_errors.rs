//! The client and a server that answers with errors: in place of an operation, or within its items.

use resub::{Event, GraphQlError, PathSegment, Request, Response, Subscription, SubscriptionError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::pair::{Pair, Server, end, event, item, on_each_pair, subscribe};
use crate::raw::within;

on_each_pair!(an_unknown_field_ends_its_own_stream_with_the_servers_errors);
async fn an_unknown_field_ends_its_own_stream_with_the_servers_errors(pair: Pair) {
    let errors = refused_beside_a_sibling(pair, "subscription { nothing }").await;
    assert!(errors[0].message.contains("nothing"), "{errors:?}");
    assert_eq!(errors[0].locations[0].column, 16);
}

on_each_pair!(a_syntax_error_ends_its_own_stream_with_the_servers_errors);
async fn a_syntax_error_ends_its_own_stream_with_the_servers_errors(pair: Pair) {
    let errors = refused_beside_a_sibling(pair, "subscription {").await;
    assert!(!errors[0].message.is_empty(), "{errors:?}");
}

/// Subscribes to what the server does not execute, while something else is live; returns the
/// errors.
async fn refused_beside_a_sibling(pair: Pair, document: &str) -> Vec<GraphQlError> {
    let server = pair.start();
    let client = pair.client(&server);
    let mut sibling = subscribe(&client, "subscription { forever(everyMs: 5) }");
    assert_eq!(item(&mut sibling).await, json!({"forever": 0}));

    // Unchecked, or it would not be sent.
    let request = Request::<Value>::new(document);
    let mut refused = client.subscription_to(request).unchecked().start().unwrap();
    let errors = match pair.server {
        // It has no `error` message: an item without data, and a complete.
        Server::AsyncGraphql => {
            let response = response(&mut refused).await;
            assert_eq!(response.data, None);
            assert!(end(&mut refused).await.is_none());
            response.errors
        }
        Server::Juniper => match end(&mut refused).await {
            Some(SubscriptionError::Rejected(errors)) => errors,
            other => panic!("{other:?}"),
        },
    };

    for n in 1..20 {
        assert_eq!(item(&mut sibling).await, json!({ "forever": n }), "the sibling was disturbed");
    }
    assert_eq!(server.connections().borrow().ever, 1);
    errors
}

on_each_pair!(errors_beside_data_are_part_of_an_item_and_end_nothing);
async fn errors_beside_data_are_part_of_an_item_and_end_nothing(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let mut readings = subscribe(&client, "subscription { partial(n: 3) { value broken } }");
    for n in 0..3 {
        let item = response(&mut readings).await;
        let data = match pair.server {
            Server::AsyncGraphql => json!({"partial": {"value": n}}),
            Server::Juniper => json!({"partial": null}),
        };
        assert_eq!(item.data, Some(data));
        assert_no_reading(&item.errors);
    }
    assert!(end(&mut readings).await.is_none());
}

#[derive(Debug, Deserialize)]
struct Partial {
    partial: Reading,
}

#[derive(Debug, Deserialize)]
struct Reading {
    value: i32,
    broken: Option<i32>,
}

on_each_pair!(
    an_item_with_a_hole_that_its_type_forbids_is_an_error_with_the_servers_own_and_no_end
);
async fn an_item_with_a_hole_that_its_type_forbids_is_an_error_with_the_servers_own_and_no_end(
    pair: Pair,
) {
    let server = pair.start();
    let client = pair.client(&server);
    let request = Request::<Partial>::new("subscription { partial(n: 3) { value broken } }");
    let mut readings = client.subscribe_to(request).unwrap();
    for n in 0..3 {
        match pair.server {
            // A field left out is none.
            Server::AsyncGraphql => {
                let Event::Next(Response {
                    data: Some(Partial { partial: reading }), errors, ..
                }) = event(&mut readings).await
                else {
                    panic!("not an item with data")
                };
                assert_eq!((reading.value, reading.broken), (n, None));
                assert_no_reading(&errors);
            }
            Server::Juniper => {
                let error = within(readings.next()).await.unwrap().unwrap_err();
                assert!(!error.is_terminal());
                let SubscriptionError::Decode(error) = error else { panic!("{error:?}") };
                assert_no_reading(error.errors());
            }
        }
    }
    assert!(end(&mut readings).await.is_none());
}

on_each_pair!(a_source_that_fails_on_the_server_is_an_item_with_errors_and_then_the_end);
async fn a_source_that_fails_on_the_server_is_an_item_with_errors_and_then_the_end(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let mut numbers = subscribe(&client, "subscription { failing }");
    for n in 0..2 {
        assert_eq!(item(&mut numbers).await, json!({ "failing": n }));
    }
    let failure = response(&mut numbers).await;
    assert_eq!(failure.errors[0].message, "the source has failed");
    assert!(failure.data.is_none_or(|data| data == json!({"failing": null})));
    assert!(end(&mut numbers).await.is_none());
}

/// The next event, which is an item, with or without errors.
async fn response(subscription: &mut Subscription<Value>) -> Response<Value> {
    match event(subscription).await {
        Event::Next(response) => response,
        other => panic!("not an item: {other:?}"),
    }
}

fn assert_no_reading(errors: &[GraphQlError]) {
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].message, "no reading");
    assert_eq!(
        errors[0].path,
        ["partial", "broken"].map(|field| PathSegment::Field(field.to_owned()))
    );
}
