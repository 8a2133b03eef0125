//! From the connection to the reader: bounded queues with their policies, and who writes to them.
//!
//! Knows neither connections nor how an operation is sent.

pub(crate) mod buffers;
pub(crate) mod mailbox;
mod overflow;
#[cfg(feature = "client")]
pub(crate) mod sharing;
#[cfg(feature = "client")]
pub(crate) mod writer;

pub use self::overflow::Overflow;
