//! The wire format of both subprotocols, and what each close code means.
//!
//! Owns encoding and decoding of messages. Pure: it knows no socket, no clock and no state of an
//! operation. The numbered rules that comments and tests cite are in PROTOCOL.md.

pub(crate) mod encode;
pub(crate) mod envelope;

pub use encode::Subprotocol;
pub(crate) use encode::{Outgoing, Transmit, WireId, close_reason};
pub(crate) use envelope::{Envelope, Id, Kind, Payload};
