//! How a session behaves.

use std::time::Duration;

use crate::protocol::Subprotocol;

/// Every field is an option of the builder, which documents it.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) subprotocol: Option<Subprotocol>,
    pub(crate) strictness: Strictness,
    pub(crate) credentials_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) ack_timeout: Duration,
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) ping_timeout: Duration,
    pub(crate) backoff_base: Duration,
    pub(crate) backoff_cap: Duration,
    pub(crate) healthy_after: Duration,
    pub(crate) give_up_after: Option<u32>,
    pub(crate) seed: u64,
}

/// What to make of messages that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Strictness {
    /// Ignore and count them. The default: real servers send odd things.
    #[default]
    Lenient,
    /// Close the connection with 4004 and end every operation.
    Strict,
}
