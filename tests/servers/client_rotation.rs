//! The client that moves from connection to connection while everything goes on.

use std::future::ready;
use std::num::NonZeroUsize;
use std::time::Duration;

use resub::{Credentials, CredentialsError, Request};
use serde_json::{Value, json};

use crate::market::{self, MarketServer};
use crate::pair::{impatient, item};
use crate::raw::{until, within};

const WINDOW: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

/// The tokens' seconds are what this test waits by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_three_tokens_without_a_gap_and_the_server_never_has_to_cut() {
    let lifetime = Duration::from_secs(2);
    let options = market::Options { token_lifetime: Some(lifetime), trades_per_second: 200, ..Default::default() };
    let server = MarketServer::start(options).unwrap();
    let tokens = server.tokens().unwrap();
    let minting = tokens.clone();
    let provide = move |_| {
        let credentials = Credentials::none().init_payload(&json!({"token": minting.mint()}));
        ready(credentials.map(|credentials| credentials.expires_in(lifetime)).map_err(CredentialsError::fatal))
    };
    let client = impatient(&server.url()).credentials(provide).build().unwrap();
    let sequence = |data: &Value| data["trades"]["sequence"].as_i64();
    let request = Request::<Value>::new("subscription { trades { sequence } }");
    let mut trades = client.subscription_to(request).dedupe_by(WINDOW, sequence).start().unwrap();
    let mut last = sequence(&item(&mut trades).await);
    let outlive = async {
        while client.stats().handovers < 4 {
            let next = sequence(&item(&mut trades).await);
            assert_eq!(next, last.map(|last| last + 1));
            last = next;
        }
    };
    within(outlive).await;
    until(server.connections(), |connections| connections.now == 1).await;
    assert_eq!((tokens.cut(), client.stats().reconnects), (0, 0));
}
