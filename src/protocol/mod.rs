//! The wire format of both subprotocols, and what a close means.
//!
//! Owns bytes to meaning and meaning to bytes. Pure: knows no socket, no clock and no operation's
//! state.

pub(crate) mod encode;
pub(crate) mod envelope;

pub use encode::Subprotocol;
pub(crate) use encode::{Outgoing, Transmit, WireId, close_reason};
pub(crate) use envelope::{Envelope, Id, Kind, Payload};
