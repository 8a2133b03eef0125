//! The client and a server that admits only those who have the token. Servers say no in four ways,
//! see `smoke.rs`.

use std::future::ready;
use std::sync::{Arc, Mutex};

use resub::{
    ClientBuilder, CloseCode, Credentials, CredentialsError, CredentialsReason, Disconnect,
    Subprotocol, SubscriptionError,
};
use serde_json::json;

use crate::fixture::{Options, REJECTION, TestServer, WithoutToken};
use crate::pair::{
    Pair, Server, end, gap, impatient, item, on_each_pair, on_each_server, subscribe, text,
};

const TICKS: &str = "subscription { ticks(n: 2, everyMs: 1) }";

on_each_pair!(a_good_token_in_the_init_payload_opens_a_closed_server);
async fn a_good_token_in_the_init_payload_opens_a_closed_server(pair: Pair) {
    let server = closed(pair.server);
    let client =
        pair.builder(&server.url()).init_payload(&json!({"token": "good"})).build().unwrap();
    let mut ticks = subscribe(&client, TICKS);
    for n in 0..2 {
        assert_eq!(item(&mut ticks).await, json!({ "ticks": n }));
    }
    assert!(end(&mut ticks).await.is_none());
    assert_eq!(server.connections().borrow().ever, 1);
}

on_each_pair!(
    a_token_that_stays_bad_ends_the_stream_with_the_servers_words_and_leaves_the_client_usable
);
async fn a_token_that_stays_bad_ends_the_stream_with_the_servers_words_and_leaves_the_client_usable(
    pair: Pair,
) {
    let server = closed(pair.server);
    let vault = Vault::holding(&["bad"]);
    let client = vault.guard(pair.builder(&server.url())).build().unwrap();
    let error = end(&mut subscribe(&client, TICKS)).await.expect("an error");
    assert!(text(&error).contains(REJECTION), "{}", text(&error));
    let SubscriptionError::Lost(cause) = error else { panic!("{error:?}") };
    // A close that only some servers mean so is believed at the third time, a clear one at the
    // second.
    let rejected = match &cause {
        Disconnect::ProbablyRejected { times: 3, cause } => {
            assert_rejection(pair, cause);
            2
        }
        cause => {
            assert_rejection(pair, cause);
            1
        }
    };
    let is_unclear = matches!(
        (pair.server, pair.subprotocol),
        (Server::AsyncGraphql, Subprotocol::GraphqlTransportWs)
    );
    assert_eq!(rejected, if is_unclear { 2 } else { 1 });
    assert_eq!(vault.rejections(), rejected);
    assert_eq!(server.connections().borrow().ever, 1 + rejected);

    vault.put(&["good"]);
    assert_eq!(item(&mut subscribe(&client, TICKS)).await, json!({"ticks": 0}));
}

on_each_pair!(a_provider_that_finds_a_good_token_when_told_of_the_rejection_saves_the_stream);
async fn a_provider_that_finds_a_good_token_when_told_of_the_rejection_saves_the_stream(
    pair: Pair,
) {
    let server = closed(pair.server);
    let vault = Vault::holding(&["stale", "good"]);
    let client = vault.guard(pair.builder(&server.url())).build().unwrap();
    let mut ticks = subscribe(&client, TICKS);
    for n in 0..2 {
        assert_eq!(item(&mut ticks).await, json!({ "ticks": n }));
    }
    assert!(end(&mut ticks).await.is_none());
    let reasons = vault.reasons();
    let [CredentialsReason::Initial, CredentialsReason::Rejected { cause, .. }] = &reasons[..]
    else {
        panic!("{reasons:?}")
    };
    assert_rejection(pair, cause);
}

on_each_pair!(a_token_that_expired_during_an_outage_costs_no_more_than_the_gap);
async fn a_token_that_expired_during_an_outage_costs_no_more_than_the_gap(pair: Pair) {
    let server = closed(pair.server);
    assert_an_expiry_costs_no_more_than_the_gap(&server, pair.builder(&server.url())).await;
}

on_each_server!(
    a_client_that_found_its_subprotocol_does_not_take_an_expired_token_for_a_refused_one
);
async fn a_client_that_found_its_subprotocol_does_not_take_an_expired_token_for_a_refused_one(
    server: Server,
) {
    let server = closed(server);
    assert_an_expiry_costs_no_more_than_the_gap(&server, impatient(&server.url())).await;
}

async fn assert_an_expiry_costs_no_more_than_the_gap(server: &TestServer, builder: ClientBuilder) {
    let vault = Vault::holding(&["good"]);
    let client = vault.guard(builder).build().unwrap();
    let mut numbers = subscribe(&client, "subscription { forever(everyMs: 60000) }");
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    vault.put(&["stale", "good"]);
    server.drop_connections();
    let gap = gap(&mut numbers).await;
    assert_eq!((gap.reconnects, gap.dropped), (1, 0));
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    let reasons = vault.reasons();
    assert!(
        matches!(
            reasons[..],
            [
                CredentialsReason::Initial,
                CredentialsReason::Reconnect,
                CredentialsReason::Rejected { .. }
            ]
        ),
        "{reasons:?}"
    );
}

on_each_server!(a_client_that_was_told_no_subprotocol_still_gets_the_servers_words);
async fn a_client_that_was_told_no_subprotocol_still_gets_the_servers_words(server: Server) {
    let server = closed(server);
    let vault = Vault::holding(&["bad"]);
    let client = vault.guard(impatient(&server.url())).build().unwrap();
    let error = end(&mut subscribe(&client, TICKS)).await.expect("an error");
    assert!(matches!(error, SubscriptionError::Lost(_)), "{error:?}");
    assert!(text(&error).contains(REJECTION), "{}", text(&error));
    assert_ne!(vault.rejections(), 0, "the provider was never told");
    // Both subprotocols, each with what the provider had first and what it had then.
    assert!(server.connections().borrow().ever <= 4);

    vault.put(&["good"]);
    assert_eq!(item(&mut subscribe(&client, TICKS)).await, json!({"ticks": 0}));
}

on_each_server!(a_client_that_was_told_no_subprotocol_recovers_with_a_good_token);
async fn a_client_that_was_told_no_subprotocol_recovers_with_a_good_token(server: Server) {
    let server = closed(server);
    let vault = Vault::holding(&["stale", "good"]);
    let client = vault.guard(impatient(&server.url())).build().unwrap();
    let mut ticks = subscribe(&client, TICKS);
    for n in 0..2 {
        assert_eq!(item(&mut ticks).await, json!({ "ticks": n }));
    }
    assert!(end(&mut ticks).await.is_none());
}

/// What the client must make of each server's way of saying no.
fn assert_rejection(pair: Pair, cause: &Disconnect) {
    let (code, said) = match cause {
        Disconnect::Closed { code, reason } => (Some(*code), reason),
        Disconnect::Refused { message } => (None, message),
        other => panic!("{other:?}"),
    };
    let expected = match (pair.server, pair.subprotocol) {
        (Server::AsyncGraphql, Subprotocol::GraphqlTransportWs) => Some(CloseCode::PROTOCOL_ERROR),
        (Server::Juniper, Subprotocol::GraphqlTransportWs) => Some(CloseCode::FORBIDDEN),
        (Server::AsyncGraphql | Server::Juniper, Subprotocol::GraphqlWs) => None,
    };
    assert_eq!((code, said.as_str()), (expected, REJECTION));
}

/// Admits nobody without the token.
fn closed(server: Server) -> TestServer {
    server.start(Options { without_token: WithoutToken::Reject, ..Options::default() })
}

/// Provides tokens as an application would: keeps to one until it is rejected, then takes the next
/// if there is one. Remembers why it was asked.
#[derive(Clone, Default)]
struct Vault(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    tokens: Vec<&'static str>,
    reasons: Vec<CredentialsReason>,
}

impl Vault {
    fn holding(tokens: &[&'static str]) -> Self {
        let vault = Self::default();
        vault.put(tokens);
        vault
    }

    fn put(&self, tokens: &[&'static str]) {
        self.0.lock().unwrap().tokens = tokens.to_vec();
    }

    fn guard(&self, builder: ClientBuilder) -> ClientBuilder {
        let content = Arc::clone(&self.0);
        builder.credentials(move |reason| {
            let Content { tokens, reasons } = &mut *content.lock().unwrap();
            if matches!(reason, CredentialsReason::Rejected { .. }) && tokens.len() > 1 {
                tokens.remove(0);
            }
            reasons.push(reason);
            let credentials = Credentials::none().init_payload(&json!({"token": tokens[0]}));
            ready(credentials.map_err(CredentialsError::fatal))
        })
    }

    fn reasons(&self) -> Vec<CredentialsReason> {
        self.0.lock().unwrap().reasons.clone()
    }

    fn rejections(&self) -> usize {
        self.reasons()
            .iter()
            .filter(|reason| matches!(reason, CredentialsReason::Rejected { .. }))
            .count()
    }
}
