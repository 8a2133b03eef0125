//! The client against real servers over real sockets: async-graphql and juniper, on both
//! subprotocols.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

mod async_graphql;
mod client;
mod client_auth;
mod client_calls;
mod client_connections;
mod client_delivery;
mod client_errors;
mod client_reconnect;
mod client_rotation;
mod client_snapshot;
mod fixture;
mod juniper;
#[path = "../../examples/live_feed/market/mod.rs"]
mod market;
mod pair;
mod proxy;
mod raw;
#[cfg(all(feature = "ring", unix))]
mod real;
#[cfg(feature = "ring")]
mod secrets;
mod smoke;
mod smoke_market;
#[cfg(feature = "ring")]
mod tls;
