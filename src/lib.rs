//! Typed GraphQL subscriptions over WebSocket that survive reconnects and report what was missed.
//!
//! A [`Client`] holds a connection to a server and the operations on it. When the connection is
//! lost, the client reconnects, with backoff, and sends every live operation again. Each
//! [`Subscription`] continues, with an [`Event::Gap`] at the place where items may be missing. A
//! stream that ends reports why.
//!
//! ```no_run
//! use graphql_client::GraphQLQuery;
//! use resub::{Client, Event};
//!
//! #[derive(GraphQLQuery)]
//! #[graphql(
//!     schema_path = "schema/market.graphql",
//!     query_path = "queries/trades.graphql",
//!     response_derives = "Debug"
//! )]
//! struct Trades;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("wss://example.com/graphql")
//!     .header("Authorization", "Bearer ..")
//!     .build()?;
//! let variables = trades::Variables { symbol: Some("BTC".into()), after: None };
//! let mut trades = client.subscribe::<Trades>(variables)?;
//!
//! while let Some(event) = trades.next().await {
//!     match event? {
//!         Event::Next(response) => println!("{:?}", response.data),
//!         Event::Gap(gap) => println!("missed something: {gap:?}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The client connects when the first operation starts and disconnects when it has been idle for a
//! while. [`Client::connect`], [`pause`](Client::pause) and other methods control this. The client
//! replaces a working connection without an outage before its credentials expire
//! ([`Credentials::expires_at`]), when it reaches [`ClientBuilder::max_connection_age`], and on
//! [`Client::rotate`]. [`ClientBuilder::connections`] and
//! [`ClientBuilder::max_subscriptions_per_connection`] spread operations over several connections.
//!
//! Queries and mutations run over the same connection: `client.query::<Q>(variables).await`; see
//! [`Call`].
//!
//! [`Subscription::with_snapshot`] combines a query that returns a state with a subscription to its
//! changes. No change is lost between the two, also across reconnects.
//!
//! Several parts of an application can share one operation on the server, by
//! [`Client::subscribe_shared_to`] or `client.subscribe_shared::<Q>(variables)`.
//!
//! Use [`Request`] for operations that are known only at run time. Other code generators implement
//! [`Operation`].
//!
//! # Guarantees
//!
//! - **Loss is never silent.** Every item is read or counted in a [`Gap`], or the stream ends with
//!   an error. Items that the server publishes while there is no connection are not received; a gap
//!   marks the place.
//! - **A slow reader does not affect other readers.** Every subscription has its own bounded queue
//!   and [`Overflow`] policy. Only [`Overflow::Block`] stalls others, as its documentation says.
//! - **No reconnect storm.** Delays have decorrelated jitter and grow until a connection has been
//!   healthy for a while. The client honours a server's `Retry-After`.
//! - **The client asks for credentials before every dial**, with the reason. They appear in no
//!   error, log or `Debug` output of this crate. The `tungstenite` crate logs whole frames at level
//!   `trace`, including the init payload, so set `tungstenite=info`.
//! - **A mutation is never sent twice.** If its result was lost, the call fails with
//!   [`CallError::Ambiguous`]. A query is sent again. Subscribing to a mutation is an error.
//! - **A bad document is refused before it is sent.** Several servers close the whole connection
//!   over a syntax error, which every other operation on it would pay for. A document is therefore
//!   parsed first, once for each client: [`SubscribeError::Syntax`] says the line, the column and
//!   what is wrong. [`SubscriptionBuilder::unchecked`] and [`Call::unchecked`] send it as it is.
//!
//! # Delivery
//!
//! With a server that honours the position it is given:
//!
//! | | reader keeps up | reader too slow | connection lost | connection replaced |
//! |---|---|---|---|---|
//! | by default | each item once, in order | by policy, see below | items published meanwhile are lost; a gap marks the place | at least once; a gap counts the [`overlaps`](Gap::overlaps), and says if something may be missing |
//! | [`dedupe_by`] | each item once, in order | by policy | as above | exactly once, in order, unless a gap says otherwise |
//! | [`resume_with`] | each item once, in order | by policy; with [`Rewind`](Overflow::Rewind), at least once | at least once: the operation continues after the last item received, and the gap is marked [`resumed`](Gap::resumed) | at least once, with that gap |
//! | [`resume_with`], [`dedupe_by`] | exactly once, in order | by policy; with [`Rewind`](Overflow::Rewind), exactly once, in order | exactly once, in order | exactly once, in order |
//!
//! If [`Gap::is_lossless`] returns `false`, a consumer has to fetch again whatever it derived from
//! the stream. [`Overflow`] describes what each policy loses when a reader is too slow, and how it
//! reports the loss. After a reconnect, the client sends subscriptions and unanswered queries again
//! in their original order, in one batch. It never sends a mutation again. Items that wait to be
//! read stay in the queue.
//!
//! An item is decoded in the task that reads it. One that does not decode is an error in its place,
//! and the stream goes on: [`DecodeError`] has the path to what does not fit, the server's errors
//! and the raw text. If any crate in the build enables `arbitrary_precision` of `serde_json`, serde
//! cannot read fractions in unions (untagged and internally tagged enums) from text. Such an item
//! is decoded a second time, through a [`serde_json::Value`], which takes several times as long and
//! is limited to 262,144 values. A fraction of more than 15 digits that is not spelled as
//! `serde_json` spells it fails to decode there.
//!
//! [`resume_with`]: SubscriptionBuilder::resume_with
//! [`dedupe_by`]: SubscriptionBuilder::dedupe_by
//!
//! # Features
//!
//! | feature | default | description |
//! |---|---|---|
//! | `client` | yes | the client; without it, only the public data types remain |
//! | `graphql-client` | yes | operations generated by the derive macro of [`graphql_client`] |
//! | `ring` | yes | `wss://` with the `ring` cryptography provider |
//! | `aws-lc-rs` | | `wss://` with the `aws-lc-rs` cryptography provider |
//! | `platform-roots` | yes | trusts the certificate authorities of the operating system |
//! | `webpki-roots` | | trusts Mozilla's root certificates, which are compiled in |
//! | `proxy` | | HTTP and SOCKS5 proxies, set by option or by the environment |
//! | `network-watch` | | pings the server at once when this machine's network changes (Linux, macOS, iOS, Windows) |
//! | `mock` | | a scripted server for tests |
//!
//! [`graphql_client`]: https://docs.rs/graphql_client
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(feature = "client"),
    allow(dead_code, reason = "only the feature `client` uses the pure core")
)]
#![cfg_attr(
    not(feature = "client"),
    allow(rustdoc::broken_intra_doc_links, reason = "the docs link to the client")
)]

#[cfg(feature = "_bench")]
#[doc(hidden)]
pub mod bench;
#[cfg(feature = "client")]
mod client;
mod delivery;
mod error;
#[cfg(feature = "mock")]
#[cfg_attr(docsrs, doc(cfg(feature = "mock")))]
pub mod mock;
mod operation;
mod protocol;
mod response;
mod session;
#[cfg(feature = "client")]
mod transport;

#[cfg(feature = "graphql-client")]
pub use operation::Typed;
#[cfg(feature = "proxy")]
pub use transport::dial::Proxy;
#[cfg(feature = "_tls")]
pub use transport::dial::{Certificates, Pin, PrivateKey, Tls};
#[cfg(feature = "client")]
pub use {
    client::{
        Client,
        builder::ClientBuilder,
        call::Call,
        credentials::Credentials,
        snapshot::{SnapshotStream, Synced},
        subscription::{Event, Position, Subscription, SubscriptionBuilder},
    },
    error::BuildError,
    transport::dial::{BoxedIo, DialFuture, Dialer, Io},
};
pub use {
    delivery::Overflow,
    error::{
        CallError, CloseCode, ConnectError, CredentialsError, DecodeError, DialError, Disconnect,
        GraphQlError, IncrementalError, Location, NotConnected, PathSegment, ResponseHeaders,
        SharedError, SnapshotError, SubscribeError, SubscriptionError, SyntaxError, UpgradeError,
        Violation,
    },
    operation::{Operation, Request, Resumable},
    protocol::Subprotocol,
    response::{Gap, Response},
    session::{CredentialsReason, Stats, Status, Strictness, Verdict},
};

/// The type of the endpoint that [`Dialer::dial`] takes.
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub use url::Url;

/// Compiles the README's examples as doc tests.
#[cfg(all(doctest, feature = "graphql-client"))]
#[doc = include_str!("../README.md")]
struct Readme;
