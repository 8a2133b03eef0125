//! Documents are checked before anything is sent, as servers close the connection over a syntax
//! error (rule 22).

use resub::{CallError, SubscribeError, SyntaxError};

use super::*;

/// With the error in line 2, column 5.
const BROKEN: &str = "subscription S {\n  a(}";

/// Valid, and newer than what the client knows.
const NEW: &str = r#"
"What it does." subscription S { ...F(n: 1) }
fragment F($n: Int) on T { a(b: $n) }
"#;

fn document(document: &str) -> Request<Value> {
    Request::new(document)
}

fn syntax_error(error: SubscribeError) -> SyntaxError {
    match error {
        SubscribeError::Syntax(error) => error,
        other => panic!("a syntax error was expected, not {other:?}"),
    }
}

fn not_sent(error: CallError) -> SubscribeError {
    assert!(!error.may_have_been_executed());
    match error {
        CallError::NotSent(error) => error,
        other => panic!("nothing was to be sent: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_syntax_error_is_found_before_anything_is_dialed_and_says_where_it_is() {
    let server = Server::in_memory();
    let client = client(&server);
    let errors = [
        client.subscribe_to(document(BROKEN)).unwrap_err(),
        client.subscribe_shared_to(document(BROKEN)).unwrap_err(),
        not_sent(client.query_with(document(BROKEN)).await.unwrap_err()),
        not_sent(client.mutate_with(document(BROKEN)).await.unwrap_err()),
    ];
    for error in errors {
        assert_eq!(error.to_string(), "syntax error at 2:5: expected an Argument");
        let error = syntax_error(error);
        assert_eq!((error.line, error.column), (2, 5));
    }
    server.expect_no_dial_for(secs(60)).await;
    assert_eq!(client.stats().live_operations, 0);
}

#[tokio::test(start_paused = true)]
async fn the_siblings_of_a_document_with_a_syntax_error_see_nothing_of_it() {
    let server = Server::in_memory();
    let (client, mut sibling, mut peer, id) = live(&server).await;
    for _ in 0..3 {
        syntax_error(client.subscribe_to(document(BROKEN)).unwrap_err());
        syntax_error(not_sent(client.query_with(document(BROKEN)).await.unwrap_err()));
        syntax_error(not_sent(client.mutate_with(document(BROKEN)).await.unwrap_err()));
    }
    let _good = subscribe(&client, "b");
    assert_eq!(peer.expect_subscribe().await.query, "subscription b { b }", "nothing before it");
    peer.next(&id, data(1)).await;
    assert_eq!(item(&mut sibling).await, 1, "without a gap");
    assert_eq!(client.stats().live_operations, 2);
}

#[tokio::test(start_paused = true)]
async fn an_unchecked_document_is_sent_as_it_is() {
    let server = Server::in_memory();
    let (client, _stream, mut peer, _) = live(&server).await;
    syntax_error(client.subscribe_to(document(NEW)).unwrap_err());
    for shared in [false, true] {
        let subscription = client.subscription_to(document(NEW)).unchecked();
        let subscription = if shared { subscription.shared() } else { subscription };
        let mut stream = subscription.start().unwrap();
        let subscribe = peer.expect_subscribe().await;
        assert_eq!(subscribe.query, NEW);
        peer.next(&subscribe.id, data(1)).await;
        assert_eq!(item(&mut stream).await, 1);
        drop(stream);
        assert_eq!(peer.expect_complete().await, subscribe.id);
    }
    for text in [NEW, BROKEN] {
        let calls = [
            client.query_with(document(text)).unchecked(),
            client.mutate_with(document(text)).unchecked(),
        ];
        for call in calls {
            let result = tokio::spawn(call);
            let subscribe = peer.expect_subscribe().await;
            assert_eq!(subscribe.query, text);
            peer.next(&subscribe.id, data(2)).await;
            assert_eq!(result.await.unwrap().unwrap().data, Some(json!(2)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_unchecked_operation_does_is_taken_at_the_callers_word() {
    let server = Server::in_memory();
    let client = client(&server);
    let mutation = || document("mutation M { m }");
    assert!(matches!(client.subscribe_to(mutation()), Err(SubscribeError::Mutation)));
    let _stream = client.subscription_to(mutation()).unchecked().start().unwrap();
    let mut peer = connected(&server).await;
    assert_eq!(peer.expect_subscribe().await.query, "mutation M { m }");
    peer.vanish();
    assert_eq!(connected(&server).await.expect_subscribe().await.query, "mutation M { m }");
}

#[tokio::test(start_paused = true)]
async fn a_document_without_the_operation_to_run_is_refused() {
    let server = Server::in_memory();
    let client = client(&server);
    let several = || document("query Q { q } mutation M { m } subscription S { s }");
    let refused = |request| client.subscribe_to(request).unwrap_err();
    let error = refused(document("fragment F on T { a }"));
    assert_eq!(error.to_string(), "the document has no operation");
    let error = refused(several());
    assert_eq!(
        error.to_string(),
        "the document has 3 operations, and none is named as the one to run"
    );
    let error = refused(several().operation_name("s\nx"));
    assert_eq!(error.to_string(), "the document has no operation named `s x`");
    let error = refused(several().operation_name("M"));
    assert!(matches!(error, SubscribeError::Mutation), "{error:?}");
    server.expect_no_dial_for(secs(60)).await;

    let _stream = client.subscribe_to(several().operation_name("S")).unwrap();
    let subscribe = connected(&server).await.expect_subscribe().await;
    assert_eq!(subscribe.payload["operationName"], "S");
}
