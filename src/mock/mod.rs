//! A scripted GraphQL-over-WebSocket server, for this crate's tests and for yours.
//!
//! A test tells the [`Server`] and its [`Peer`]s step by step what to expect from the client and
//! what to send, right or wrong, and breaks the connection wherever it likes. Nothing happens that
//! the script does not say, except that pings are answered while it waits. On a
//! [`Server::in_memory`] it works under tokio's paused clock, so a test that waits out a backoff
//! takes no time.
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
//! Every message from the client is checked against the subprotocol's rules as it is read, and the
//! test panics with "protocol rule broken" when the client breaks one:
//!
//! - Exactly one subprotocol is offered.
//! - `connection_init` comes first, once, with an object as its payload.
//! - No operation starts before `connection_ack`. Its id is a string that is not empty, and that no
//!   connection of this [`Server`] saw before; its payload is well-formed.
//! - Only an operation of this connection is stopped, and only once. On `graphql-transport-ws` one
//!   that the server ended is not stopped at all, as far as it is certain that the client knew: see
//!   [`Peer::sync`].
//! - Messages are text, of a known type, of the chosen subprotocol's vocabulary. On `graphql-ws` a
//!   `pong` is allowed as the answer to a `ping`.
//! - Nothing but a close frame follows `connection_terminate`, and nothing follows a close frame.
//! - A close frame is empty, or has a code that may be sent and a reason of at most 123 bytes.
//!
//! Must not know the client: it imports the seam at which one dials and nothing else, so that it
//! cannot repeat the client's mistakes.

mod check;
mod dialer;
mod inbox;
mod peer;
mod server;
mod speak;
mod upgrade;
mod wire;

#[cfg(test)]
mod tests;

pub use check::Subprotocol;
pub use dialer::PipeDialer;
pub use peer::{Peer, Subscribe};
pub use server::{Server, Silence};
pub use upgrade::{Request, Upgrade};
