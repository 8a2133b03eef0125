//! Typed GraphQL subscriptions over WebSocket that survive reconnects, and say what was missed.
//!
//! A [`Client`] holds one connection to one server and everything subscribed on it. When the
//! connection is lost it dials again, with backoff, and sends every live operation again; each
//! [`Subscription`] goes on, with an [`Event::Gap`] at the place where something may be missing. A
//! stream that ends says why.
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
//! The connection is made when it is needed and closed when it is not; [`Client::connect`],
//! [`pause`](Client::pause) and others control it. One that works is replaced without an outage
//! ahead of the end of its credentials ([`Credentials::expires_at`]), when it is old
//! ([`ClientBuilder::max_connection_age`]), or by [`Client::rotate`]. Operations can be spread over
//! several, by [`ClientBuilder::connections`] and
//! [`ClientBuilder::max_subscriptions_per_connection`].
//!
//! Queries and mutations run over the same connection: `client.query::<Q>(variables).await`; see
//! [`Call`].
//!
//! State that a query returns and a subscription changes is followed without a hole between the
//! two, across reconnects, by [`Subscription::with_snapshot`].
//!
//! Equal subscriptions of many parts of an application can be one operation:
//! [`Client::subscribe_shared_to`], or `client.subscribe_shared::<Q>(variables)`.
//!
//! Operations known only at run time are a [`Request`]; other code generators implement
//! [`Operation`].
//!
//! # What is promised
//!
//! - **Loss is never silent.** Every item is read, counted in a [`Gap`], or the stream ends with an
//!   error. What the server published while there was no connection is not received; the gap marks
//!   the place.
//! - **A slow reader harms nobody else.** Every subscription has its own bounded queue and
//!   [`Overflow`] policy; only [`Overflow::Block`] stalls others, and says so.
//! - **No reconnect storm.** Delays have decorrelated jitter and grow until a connection was
//!   healthy for a while; a server's `Retry-After` is honoured.
//! - **Credentials are asked for before every dial**, with the reason, and are in no error, log or
//!   `Debug` output. At level `trace`, the `tungstenite` crate logs frames of its own accord, the
//!   init payload included: keep `tungstenite=info`.
//! - **A mutation is never sent twice.** If its result was lost, [`CallError::Ambiguous`] says so;
//!   a query is sent again. Subscribing to a mutation is an error.
//! - **A bad document is refused before it is sent.** Several servers close the whole connection
//!   over a syntax error, which every other operation on it would pay for. A document is therefore
//!   parsed first, once for each client: [`SubscribeError::Syntax`] says the line, the column and
//!   what is wrong. [`SubscriptionBuilder::unchecked`] and [`Call::unchecked`] send it as it is.
//!
//! # What is guaranteed
//!
//! With a server that honours the position it is given:
//!
//! | | reader keeps up | reader too slow | connection lost | connection replaced |
//! |---|---|---|---|---|
//! | as it is | each item once, in order | by policy, see below | what is published meanwhile is lost; a gap marks the place | at least once; a gap that counts [`overlaps`](Gap::overlaps) says where what came before may come again |
//! | [`dedupe_by`] | each item once, in order | by policy | as above | exactly once, in order |
//! | [`resume_with`] | each item once, in order | by policy; with [`Rewind`](Overflow::Rewind), at least once | at least once: the operation goes on after the last item received, and the gap says [`resumed`](Gap::resumed) | at least once, with that gap |
//! | [`resume_with`], [`dedupe_by`] | exactly once, in order | by policy; with [`Rewind`](Overflow::Rewind), exactly once, in order | exactly once, in order | exactly once, in order |
//!
//! [`Gap::is_lossless`] says whether a consumer has to fetch anew what it derived from the stream.
//! What each policy loses when a reader is too slow, and how it says so, is at [`Overflow`]. At a
//! reconnect subscriptions are sent again in their original order, in one batch, and what waits to
//! be read stays; so are queries without a result; a mutation that was sent never is.
//!
//! [`resume_with`]: SubscriptionBuilder::resume_with
//! [`dedupe_by`]: SubscriptionBuilder::dedupe_by
//!
//! # Features
//!
//! | feature | default | what |
//! |---|---|---|
//! | `client` | yes | the client; without it only the public data types remain |
//! | `graphql-client` | yes | operations generated by [`graphql_client`]'s derive |
//! | `ring` | yes | `wss://` with the `ring` provider |
//! | `aws-lc-rs` | | `wss://` with the `aws-lc-rs` provider |
//! | `platform-roots` | yes | trust what the operating system trusts |
//! | `webpki-roots` | | trust Mozilla's root certificates, compiled in |
//! | `proxy` | | HTTP and SOCKS5 proxies, by option and from the environment |
//! | `network-watch` | | asks at once whether a connection lives when this machine's network changes (Linux, macOS, iOS, Windows) |
//! | `mock` | | a scripted server for tests, yours included |
//!
//! [`graphql_client`]: https://docs.rs/graphql_client
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(feature = "client"),
    allow(dead_code, reason = "who uses the pure core is behind `client`")
)]
#![cfg_attr(
    not(feature = "client"),
    allow(rustdoc::broken_intra_doc_links, reason = "the client is not there")
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
        subscription::{Event, Subscription, SubscriptionBuilder},
    },
    error::BuildError,
    transport::dial::{BoxedIo, DialFuture, Dialer, Io},
};
pub use {
    delivery::Overflow,
    error::{
        CallError, CloseCode, ConnectError, CredentialsError, DecodeError, DialError, Disconnect,
        GraphQlError, Location, NotConnected, PathSegment, ResponseHeaders, SharedError,
        SnapshotError, SubscribeError, SubscriptionError, SyntaxError, UpgradeError, Violation,
    },
    operation::{Operation, Request, Resumable},
    protocol::Subprotocol,
    response::{Gap, Response},
    session::{CredentialsReason, Stats, Status, Strictness, Verdict},
};

/// The type of an endpoint, in [`Dialer::dial`].
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub use url::Url;

/// The README's examples compile.
#[cfg(all(doctest, feature = "graphql-client"))]
#[doc = include_str!("../README.md")]
struct Readme;
