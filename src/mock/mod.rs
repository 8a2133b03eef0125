//! A scripted GraphQL-over-WebSocket server, for this crate's tests and for yours.
//!
//! A test is a script: step by step it tells the [`Server`] and its [`Peer`]s what to expect from
//! the client and what to send, right or wrong, and it can break the connection at any point. The
//! server does nothing by itself, except that it answers pings while the script waits for something
//! else. A [`Server::in_memory`] works under tokio's paused clock, so a test that waits for a
//! backoff takes no real time.
//!
//! ```
//! use resub::{Client, Event, Request, mock};
//! use serde_json::{Value, json};
//!
//! # /*
//! #[tokio::test(start_paused = true)]
//! # */
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() { a_subscription_continues_after_the_server_vanishes().await }
//! async fn a_subscription_continues_after_the_server_vanishes() {
//!     let server = mock::Server::in_memory();
//!     let client = Client::builder(server.url()).dialer(server.dialer()).build().unwrap();
//!     let request = Request::<Value>::new("subscription { price }");
//!     let mut prices = client.subscribe_to(request).unwrap();
//!
//!     let mut peer = server.accept().await.expect_init().await.ack().await;
//!     let first = peer.expect_subscribe().await;
//!     peer.next(&first.id, json!({"data": {"price": 1.0}})).await;
//!     assert!(matches!(prices.next().await, Some(Ok(Event::Next(_)))));
//!
//!     peer.vanish(); // no close frame, as when a load balancer dies
//!     let mut peer = server.accept().await.expect_init().await.ack().await;
//!     let again = peer.expect_subscribe().await;
//!     assert_eq!(again.query, first.query);
//!     assert!(matches!(prices.next().await, Some(Ok(Event::Gap(_)))));
//!
//!     drop(prices);
//!     assert_eq!(peer.expect_complete().await, again.id);
//! }
//! ```
//!
//! # The rules
//!
//! Every message from the client is checked when it is read. If the client breaks one of these
//! rules, the test panics with "protocol rule broken":
//!
//! - Exactly one subprotocol is offered.
//! - `connection_init` comes first, once, with an object as its payload.
//! - No operation starts before `connection_ack`. The id of an operation is a non-empty string that
//!   no connection of this [`Server`] has seen before, and its payload is well-formed.
//! - An operation is stopped on the connection that it was started on, and only once. On
//!   `graphql-transport-ws` the client does not stop an operation after it has read the server's
//!   end; [`Peer::sync`] makes sure that it has.
//! - Messages are text, of a known type, and in the vocabulary of the chosen subprotocol. On
//!   `graphql-ws` a `pong` is allowed as the answer to a `ping`.
//! - Only a close frame follows `connection_terminate`, and nothing follows a close frame.
//! - A close frame is empty, or has a code that may be sent and a reason of at most 123 bytes.
//!
//! The mock must not know the client: it imports the [`Dialer`](crate::Dialer) trait and nothing
//! else of it, so that both cannot make the same mistake.

mod check;
mod dialer;
mod inbox;
mod peer;
mod send;
mod server;
mod upgrade;
mod wire;

#[cfg(test)]
mod tests;

pub use check::Subprotocol;
pub use dialer::PipeDialer;
pub use peer::{Peer, Subscribe};
pub use server::{Server, Silence};
pub use upgrade::{Request, Upgrade};
