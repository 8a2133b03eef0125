//! The path from the driver to the reader: bounded queues with their policies, and their writers.
//!
//! Must know neither connections nor how an operation is sent.

pub(crate) mod buffers;
pub(crate) mod mailbox;
mod overflow;
#[cfg(feature = "client")]
pub(crate) mod position;
#[cfg(feature = "client")]
pub(crate) mod recent;
#[cfg(feature = "client")]
pub(crate) mod sharing;
#[cfg(feature = "client")]
pub(crate) mod writer;

pub use self::overflow::Overflow;
