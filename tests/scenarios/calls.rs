//! Queries and mutations: one result, at most one execution.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    task::{Context, Waker},
};

use futures::{FutureExt, future::join_all};
use resub::{CallError, SubscribeError};

use super::*;

fn query(name: &str) -> Request<Value> {
    Request::new(format!("query {name} {{ {name} }}"))
}

fn mutation(name: &str) -> Request<Value> {
    Request::new(format!("mutation {name} {{ {name} }}"))
}

#[tokio::test(start_paused = true)]
async fn a_query_and_a_mutation_get_their_results_next_to_a_subscription() {
    let server = Server::in_memory();
    let (client, mut stream, mut peer, id) = live(&server).await;
    let calls = tokio::spawn(async move {
        (
            client.query_with(query("q")).await.unwrap(),
            client.mutate_with(mutation("m")).await.unwrap(),
            client,
        )
    });
    for n in 1..=2 {
        let call = peer.expect_subscribe().await.id;
        peer.next(&call, data(n)).await;
        peer.complete(&call).await;
    }
    let (answer, changed, client) = calls.await.unwrap();
    assert_eq!((answer.data, changed.data), (Some(json!(1)), Some(json!(2))));
    peer.next(&id, data(3)).await;
    assert_eq!(item(&mut stream).await, 3);
    let stats = client.stats();
    assert_eq!((stats.ignored, stats.items, stats.live_operations), (0, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_query_outlives_a_lost_connection_and_a_mutation_does_not() {
    let server = Server::in_memory();
    let client = client(&server);
    let (one, other) = (client.clone(), client.clone());
    let queried = tokio::spawn(async move { one.query_with(query("q")).await });
    let mutated = tokio::spawn(async move { other.mutate_with(mutation("m")).await });
    let mut peer = connected(&server).await;
    peer.expect_subscribes(2).await;
    peer.vanish();
    let error = mutated.await.unwrap().unwrap_err();
    assert!(matches!(&error, CallError::Ambiguous(Some(_))), "{error:?}");
    assert_eq!(error.to_string(), "the mutation may or may not have been executed");
    let mut peer = connected(&server).await;
    let again = peer.expect_subscribe().await;
    assert!(again.payload["query"].as_str().unwrap().starts_with("query q"));
    peer.next(&again.id, data(1)).await;
    assert_eq!(queried.await.unwrap().unwrap().data, Some(json!(1)));
    peer.expect_nothing_for(secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_connection_up_to_its_timeout() {
    let server = Server::in_memory();
    server.offline();
    let client = client(&server);
    let begun = Instant::now();
    let error = client.mutate_with(mutation("m")).timeout(secs(5)).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout(after) if after == secs(5)), "{error:?}");
    assert_eq!(begun.elapsed(), secs(5));
    let error = client.query_with(query("q")).await.unwrap_err();
    assert_eq!(error.to_string(), "no result within 30s");
    let call = tokio::spawn(async move { client.mutate_with(mutation("m")).await });
    tokio::time::sleep(secs(10)).await;
    server.online();
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(1)).await;
    assert_eq!(call.await.unwrap().unwrap().data, Some(json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_mutation_without_an_answer_in_time_is_ambiguous_and_completed_on_the_server() {
    let server = Server::in_memory();
    let (client, _stream, mut peer, _) = live(&server).await;
    let call =
        tokio::spawn(
            async move { (client.mutate_with(mutation("m")).timeout(secs(3)).await, client) },
        );
    let id = peer.expect_subscribe().await.id;
    let (error, _client) = call.await.unwrap();
    assert!(matches!(error, Err(CallError::Ambiguous(None))), "{error:?}");
    assert_eq!(peer.expect_complete().await, id);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_cancelled_and_one_that_is_not_awaited_is_never_sent() {
    let server = Server::in_memory();
    let (client, _stream, mut peer, _) = live(&server).await;
    drop(client.query_with(query("never")));
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.query_with(query("q")).await }
    });
    let id = peer.expect_subscribe().await.id;
    call.abort();
    assert_eq!(peer.expect_complete().await, id);
    peer.expect_nothing_for(secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_with_what_the_server_said() {
    let server = Server::in_memory();
    let (client, _stream, mut peer, _) = live(&server).await;
    let calls = async {
        let rejected = client.query_with(query("a")).await.unwrap_err();
        let empty = client.query_with(query("b")).await.unwrap_err();
        let odd = client.query_with(Request::<u32>::new("{ c }")).await.unwrap_err();
        let partial = client.query_with(query("d")).await.unwrap();
        (rejected, empty, odd, partial)
    };
    let server = async {
        let id = peer.expect_subscribe().await.id;
        peer.error(&id, json!([{"message": "no such field"}])).await;
        let id = peer.expect_subscribe().await.id;
        peer.complete(&id).await;
        let id = peer.expect_subscribe().await.id;
        peer.next(&id, json!({"data": "text", "errors": [{"message": "why"}]})).await;
        let id = peer.expect_subscribe().await.id;
        peer.next(&id, json!({"data": {"d": null}, "errors": [{"message": "why"}]})).await;
    };
    let ((rejected, empty, odd, partial), ()) = futures::join!(calls, server);
    assert_eq!(rejected.to_string(), "the server rejected the operation: no such field");
    assert_eq!(empty.to_string(), "the server sent no result");
    assert!(
        matches!(&odd, CallError::Decode(error) if error.errors()[0].message == "why"),
        "{odd:?}"
    );
    assert_eq!((partial.data, partial.errors.len()), (Some(json!({"d": null})), 1));
}

#[tokio::test(start_paused = true)]
async fn what_would_be_executed_twice_or_only_once_is_refused() {
    let client = client(&Server::in_memory());
    let refusal = |error| match error {
        CallError::NotSent(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    let error = client.query_with(mutation("m")).await.unwrap_err();
    assert!(matches!(refusal(error), SubscribeError::Mutation));
    let error = client.mutate_with(request("s")).await.unwrap_err();
    assert!(matches!(refusal(error), SubscribeError::Subscription));
    client.clone().shutdown(secs(1)).await;
    let error = client.query_with(query("q")).await.unwrap_err();
    assert!(matches!(refusal(error), SubscribeError::ShutDown));
}

/// Executions are counted where they happen. Connections are cut at random; some answers are lost
/// with them.
#[tokio::test(start_paused = true)]
async fn whatever_happens_a_mutation_is_executed_at_most_once_and_its_result_tells_how_often() {
    for seed in 0..60 {
        let server = Server::in_memory();
        let client = builder(&server).seed(seed).build().unwrap();
        let executions = Rc::new(RefCell::new(BTreeMap::<String, u32>::new()));
        let counted = Rc::clone(&executions);
        let serve = async {
            let mut random = fastrand::Rng::with_seed(seed);
            loop {
                let mut peer = connected(&server).await;
                for _ in 0..random.u32(0..8) {
                    let Some(message) = peer.next_message().await else { break };
                    if message["type"] != "subscribe" {
                        continue;
                    }
                    let document = message["payload"]["query"].as_str().unwrap().to_owned();
                    *counted.borrow_mut().entry(document).or_default() += 1;
                    if random.u32(0..4) > 0 {
                        peer.next(message["id"].as_str().unwrap(), data(1)).await;
                    }
                }
                if random.bool() {
                    peer.sync().await;
                }
                peer.vanish();
            }
        };
        let call = |n: u64| {
            let client = &client;
            async move {
                tokio::time::sleep(Duration::from_millis(n * 400)).await;
                (n, client.mutate_with(mutation(&format!("m{n}"))).timeout(secs(8)).await)
            }
        };
        let results = tokio::select! {
            results = join_all((0..30).map(call)) => results,
            () = serve => unreachable!("it serves for ever"),
        };
        let mut answered = 0;
        for (n, result) in results {
            let document = format!("mutation m{n} {{ m{n} }}");
            let times = executions.borrow().get(&document).copied().unwrap_or(0);
            if let Err(error) = &result {
                assert!(
                    error.may_have_been_executed() || times == 0,
                    "seed {seed}: {document}: {error:?}"
                );
            }
            match result {
                Ok(_) => {
                    answered += 1;
                    assert_eq!(times, 1, "seed {seed}: {document}");
                }
                Err(CallError::Ambiguous(_)) => {
                    assert!(times <= 1, "seed {seed}: {document} {times} times");
                }
                Err(CallError::Timeout(_)) => assert_eq!(times, 0, "seed {seed}: {document}"),
                Err(other) => panic!("seed {seed}: {other:?}"),
            }
        }
        assert!(answered > 0, "seed {seed}");
    }
}

/// As a subscription can be read on any executor. And what panics must not have been sent.
#[tokio::test(start_paused = true)]
async fn a_call_can_be_awaited_where_there_is_no_runtime() {
    let server = Server::in_memory();
    let (client, _stream, mut peer, _) = live(&server).await;
    let polled = std::thread::spawn(move || {
        let mut call = client.query_with(query("q"));
        let pending = call.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending();
        (pending, call)
    });
    let (pending, _call) = polled.join().expect("it does not panic");
    assert!(pending);
    peer.expect_subscribe().await;
}

#[cfg(feature = "graphql-client")]
#[tokio::test(start_paused = true)]
async fn a_generated_query_or_mutation_is_awaited_in_a_task_of_its_own() {
    use std::marker::PhantomData;

    use graphql_client::{GraphQLQuery, QueryBody};

    struct Count;

    impl GraphQLQuery for Count {
        // Of one thread: it is serialized before anything is awaited.
        type Variables = PhantomData<Rc<u32>>;
        type ResponseData = u32;

        fn build_query(variables: Self::Variables) -> QueryBody<Self::Variables> {
            QueryBody { variables, query: "mutation Count { count }", operation_name: "Count" }
        }
    }

    let server = Server::in_memory();
    let (client, _stream, mut peer, _) = live(&server).await;
    let refused = client.query::<Count>(PhantomData).await.unwrap_err();
    assert!(matches!(refused, CallError::NotSent(SubscribeError::Mutation)));
    let call =
        tokio::spawn(async move { client.mutate::<Count>(PhantomData).timeout(secs(5)).await });
    let subscribe = peer.expect_subscribe().await;
    assert_eq!(subscribe.payload["operationName"], "Count");
    peer.next(&subscribe.id, data(2)).await;
    assert_eq!(call.await.unwrap().unwrap().data, Some(2));
}
