//! Bytes: dialing a server, the upgrade to WebSocket, and frames.
//!
//! Knows nothing of GraphQL except the name of the subprotocol that it offers.

mod close;
pub(crate) mod dial;
#[cfg(feature = "network-watch")]
pub(crate) mod network;
pub(crate) mod socket;
pub(crate) mod upgrade;
