//! The live operations: what is wanted, where each one is, and how one is sent.

mod backlog;
mod issue;
mod late;
mod lifecycle;
mod parts;
mod place;
mod registry;
mod watch;

use std::{sync::Arc, time::Instant};

pub(crate) use self::backlog::Backlog;
#[cfg(feature = "client")]
pub(crate) use self::backlog::HeldItem;
pub(crate) use self::watch::WatchOptions;
use self::{late::Late, watch::Watch};
pub(super) use self::{
    parts::Parts,
    place::{Moving, Outage, Place, Why},
    registry::{Registry, Side},
};
use super::connection::ConnectionId;
use crate::operation::OperationType;

/// What is asked of the server, and until when.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) kind: OperationType,
    /// The payload of `subscribe`, JSON.
    pub(crate) payload: Box<str>,
    /// When a query or mutation ends without a result.
    pub(crate) deadline: Option<Instant>,
    pub(crate) watch_options: Option<Box<WatchOptions>>,
    /// The application may say from where to go on, when a subscription is sent again.
    pub(crate) is_resumable: bool,
}

/// One live operation. `W` writes to its reader.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Operation<W> {
    /// The client's number for it: never reused, and rising in the order of creation.
    pub(super) id: u64,
    pub(super) kind: OperationType,
    pub(super) writer: W,
    /// The payload of its `subscribe`, serialized once.
    payload: Box<str>,
    /// Changed by [`Registry::set_place`] alone, which keeps the sum of held bytes.
    place: Place,
    /// Some connection has carried it. The next time that it is sent is a re-issue.
    pub(super) is_issued: bool,
    pub(super) is_resumable: bool,
    /// An item has arrived since it was sent on its connection: the server has begun it there.
    pub(super) has_begun: bool,
    /// It does not close connections, for certain (rule 22b).
    pub(super) is_cleared: bool,
    /// Since when it has had no connection, until the gap that says so.
    pub(super) outage: Option<Arc<Outage>>,
    /// Only for subscriptions with such options.
    pub(super) watch: Option<Box<Watch>>,
    /// What has come of a result that the server delivers in parts.
    pub(super) parts: Option<Box<Parts>>,
}

impl<W> Operation<W> {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it was rewound when it had this serial on this connection.
    fn was_rewound(&self, on: ConnectionId, serial: u64) -> bool {
        let late = self.watch.as_ref().and_then(|watch| watch.late.as_ref());
        late.is_some_and(|late| late.is_from(on, serial))
    }

    pub(super) fn is_subscription(&self) -> bool {
        match self.kind {
            OperationType::Subscription => true,
            OperationType::Query | OperationType::Mutation => false,
        }
    }
}
