//! The client with programs that others wrote, as they are deployed: Debian's tinyproxy, microsocks
//! and nginx; and curl, for what variables mean.
//!
//! Ignored by `cargo test`, which is not to need them; `just real` runs those whose program is
//! installed, and says loudly which is not. The in-process proxies and fronts beside this module
//! make the same claims about each answer a program could give; here is what these give.

mod curl;
mod daemon;
mod nginx;
mod proxies;

use resub::{Client, Event, Gap, Subscription};
use serde_json::{Value, json};

use crate::{
    fixture::{Options, TestServer},
    pair::{Server, end, event, item, subscribe},
};

fn start() -> TestServer {
    Server::AsyncGraphql.start(Options::default())
}

async fn assert_ticks(client: &Client) {
    let mut ticks = subscribe(client, "subscription { ticks(n: 3, everyMs: 1) }");
    for n in 0..3 {
        assert_eq!(item(&mut ticks).await, json!({ "ticks": n }));
    }
    assert!(end(&mut ticks).await.is_none());
}

/// The gap that follows some items, or none.
async fn after_items(numbers: &mut Subscription<Value>) -> Gap {
    loop {
        match event(numbers).await {
            Event::Next(_) => {}
            Event::Gap(gap) => return gap,
            other => panic!("{other:?}"),
        }
    }
}
