//! The wire format of both subprotocols.
pub(crate) mod close;
