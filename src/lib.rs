//! resub
#![cfg_attr(docsrs, feature(doc_cfg))]
#![allow(missing_docs, dead_code, unused)]

#[cfg(feature = "client")]
mod dial;
mod error;
#[cfg(feature = "mock")]
pub mod mock;
mod protocol;
mod response;

#[cfg(feature = "client")]
pub use dial::{BoxedIo, DialFuture, Dialer, Io};
pub use error::*;
pub use response::*;
