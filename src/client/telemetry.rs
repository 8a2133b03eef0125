//! Logging and counters: the names of all spans, events and fields, and the counters behind
//! `Stats`.
//!
//! Levels: info is an operator's timeline; warn means that data was or will be lost, or that
//! credentials are sent without TLS; debug is about one operation; trace is about one frame. No
//! level logs a payload or a credential. Of the URL, only scheme, host and port are logged, because
//! a path may hold a token.

use std::{
    sync::atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use tracing::{Span, debug, field::display, info, info_span, trace, warn};
use url::Url;

use crate::{
    error::{Chain, Disconnect, OneLine},
    response::{CallEnd, ConnectionEnd, End, Gap, StreamEnd},
    session::{Counts, Stats, Status},
    transport::socket::Traffic,
};

/// The span of a client.
pub(crate) fn client_span(endpoint: &Url) -> Span {
    info_span!(
        target: "resub",
        "graphql_client",
        url.scheme = endpoint.scheme(),
        server.address = endpoint.host_str(),
        server.port = endpoint.port_or_known_default(),
    )
}

/// The span of one of several connections, inside the span of the client.
pub(crate) fn connection_span(client: &Span, connection: u64) -> Span {
    info_span!(target: "resub", parent: client, "connection", connection)
}

/// Logged once for each client, because the remedy is to change its configuration.
pub(crate) fn unprotected_credentials() {
    warn!(target: "resub", "credentials go to the server without TLS: use wss");
}

pub(crate) fn status(status: &Status) {
    match status {
        Status::Idle => debug!(target: "resub", "idle"),
        Status::Connecting { attempt, cause, refused_since: _ } => {
            let cause = cause.as_ref().map(|cause| display(Chain(cause)));
            info!(target: "resub", attempt, cause, "connecting");
        }
        Status::Open { subprotocol, .. } => {
            info!(target: "resub", subprotocol = subprotocol.name(), "open");
        }
        Status::Waiting { delay, cause, refused_since: _ } => {
            let cause = cause.as_ref().map(|cause| display(Chain(cause)));
            info!(target: "resub", ?delay, cause, "waiting");
        }
        Status::Paused => info!(target: "resub", "paused"),
        Status::Ended => info!(target: "resub", "ended"),
    }
}

/// Logged once each time that a proven endpoint begins to refuse connections.
pub(crate) fn refused(cause: &Disconnect, grace: Duration) {
    let cause = display(Chain(cause));
    warn!(
        target: "resub",
        cause,
        refusal_grace = ?grace,
        "refused by a server that has worked: operations end if it does nothing else for so long"
    );
}

/// A message arrived that belongs to no operation.
pub(crate) fn unattributed(message: Option<&str>) {
    let message = message.map(|message| display(OneLine(message)));
    warn!(target: "resub", message, "a message that names no operation was ignored");
}

pub(crate) fn postponed(cause: &Disconnect) {
    warn!(target: "resub", cause = %Chain(cause), "could not move to another connection yet");
}

pub(crate) fn slept() {
    info!(target: "resub", "the machine was asleep");
}

#[cfg(feature = "network-watch")]
pub(crate) fn network_changed() {
    info!(target: "resub", "the network of this machine changed");
}

/// This is not a warning, because pings still detect a dead connection.
#[cfg(feature = "network-watch")]
pub(crate) fn unwatched(error: &std::io::Error) {
    debug!(target: "resub", %error, "the network of this machine is not watched");
}

/// `connection` is `None` if the client has a single connection. Later events have it in their
/// span.
pub(crate) fn subscribed(operation: u64, name: Option<&str>, connection: Option<u64>) {
    debug!(target: "resub", operation, connection, graphql.operation.name = name, "subscribed");
}

pub(crate) fn joined(reader: u64, operation: u64) {
    debug!(target: "resub", operation, reader, "joined");
}

pub(crate) fn cancelled(operation: u64) {
    debug!(target: "resub", operation, "cancelled");
}

/// Collects the losses of many operations, so that a reconnect logs one line and not one for each
/// operation.
#[derive(Default)]
pub(crate) struct Losses {
    gaps: usize,
    /// The first of these gaps. The others have the same cause.
    gap: Option<Gap>,
    lost: usize,
    ambiguous: usize,
}

impl Losses {
    pub(crate) fn reissued(&mut self, operation: u64, gap: &Gap) {
        let Gap { reconnects, restarts, down_for, .. } = *gap;
        debug!(target: "resub", operation, reconnects, restarts, ?down_for, "gap");
        // A restart concerns one operation only, and a resumed operation loses nothing.
        if reconnects > 0 && !gap.resumed {
            self.gaps += 1;
            self.gap.get_or_insert_with(|| gap.clone());
        }
    }

    pub(crate) fn finished(&mut self, operation: u64, end: &End) {
        match end {
            End::Completed => debug!(target: "resub", operation, "completed"),
            End::Call(CallEnd::Answered(_) | CallEnd::AnsweredInParts(_)) => {
                debug!(target: "resub", operation, "answered");
            }
            End::Call(CallEnd::Incomplete(_)) => {
                debug!(target: "resub", operation, "answered incompletely");
            }
            End::Call(CallEnd::PartsTooLarge(_)) => {
                debug!(target: "resub", operation, "answered with more than the limit");
            }
            End::Call(CallEnd::TimedOut) => debug!(target: "resub", operation, "timed out"),
            End::Call(CallEnd::Ambiguous(_)) => {
                debug!(target: "resub", operation, "ambiguous");
                self.ambiguous += 1;
            }
            End::Rejected(_) => debug!(target: "resub", operation, "rejected"),
            End::Connection(ConnectionEnd::ShutDown) => {
                debug!(target: "resub", operation, "shut down");
            }
            // The error is not logged because it may quote a payload.
            End::Stream(StreamEnd::Hook(_)) => {
                warn!(target: "resub", operation, "ended by its hook");
            }
            End::Stream(StreamEnd::Overflow) => {
                warn!(target: "resub", operation, "ended by overflow");
            }
            End::Connection(ConnectionEnd::Lost(cause) | ConnectionEnd::GaveUp { cause, .. }) => {
                if self.lost == 0 {
                    warn!(target: "resub", cause = %Chain(cause), "lost for good");
                }
                debug!(target: "resub", operation, "lost");
                self.lost += 1;
            }
        }
    }

    pub(crate) fn report(&self) {
        if let Some(Gap { down_for, cause, .. }) = &self.gap {
            let cause = cause.as_ref().map(|cause| display(Chain(cause)));
            let operations = self.gaps;
            warn!(target: "resub", operations, ?down_for, cause, "reconnected with a gap");
        }
        if self.ambiguous > 0 {
            let operations = self.ambiguous;
            warn!(target: "resub", operations, "mutations may or may not have been executed");
        }
        if self.lost > 0 {
            warn!(target: "resub", operations = self.lost, "ended operations");
        }
    }
}

pub(crate) fn overflowed(operation: u64, dropped: u64) {
    // At debug, because a slow reader causes one for each item. The gap in the stream has the
    // count.
    debug!(target: "resub", operation, dropped, "overflow");
}

pub(crate) fn rewound(operation: u64) {
    debug!(target: "resub", operation, "rewound");
}

pub(crate) fn asked_again(operation: u64) {
    debug!(target: "resub", operation, "asked again for missing items");
}

pub(crate) fn stale(operation: u64, idle_for: Duration) {
    debug!(target: "resub", operation, ?idle_for, "stale");
}

pub(crate) fn received(bytes: usize) {
    trace!(target: "resub", bytes, "received");
}

/// The counters of one connection. Its driver and its readers write them; anyone may read them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Operations that were started and have not ended, whether the driver has seen them or not.
    load: AtomicUsize,
    dials: AtomicU64,
    connections: AtomicU64,
    reconnects: AtomicU64,
    handovers: AtomicU64,
    items: AtomicU64,
    ignored: AtomicU64,
    discarded: AtomicU64,
    dropped: AtomicU64,
    /// Items that were put into the mailboxes of shared subscriptions.
    shared_out: AtomicU64,
    /// Items that were removed from a mailbox.
    dequeued: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    live_operations: AtomicU64,
    /// 0 before the first pong.
    round_trip_nanos: AtomicU64,
    /// Whether the driver was dropped before its end, because its runtime was shut down.
    is_runtime_gone: AtomicBool,
}

impl Counters {
    pub(crate) fn load(&self) -> usize {
        self.load.load(Acquire)
    }

    pub(crate) fn begun(&self) {
        self.load.fetch_add(1, Relaxed);
    }

    /// Called once for each operation that was started. `Release` pairs with the `Acquire` of
    /// `load`: a thread that sees the free place also sees everything that happened before.
    pub(crate) fn ended(&self) {
        self.load.fetch_sub(1, Release);
    }

    pub(crate) fn runtime_gone(&self) {
        self.is_runtime_gone.store(true, Release);
    }

    /// Whether the runtime is gone. Meaningful only after the driver has ended.
    pub(crate) fn is_runtime_gone(&self) -> bool {
        self.is_runtime_gone.load(Acquire)
    }

    pub(crate) fn record(&self, counts: &Counts, live_operations: usize) {
        self.dials.store(counts.dials, Relaxed);
        self.connections.store(counts.connections, Relaxed);
        self.reconnects.store(counts.reconnects, Relaxed);
        self.handovers.store(counts.handovers, Relaxed);
        self.items.store(counts.items, Relaxed);
        self.ignored.store(counts.ignored, Relaxed);
        self.discarded.store(counts.discarded, Relaxed);
        self.live_operations.store(live_operations as u64, Relaxed);
        if let Some(time) = counts.round_trip_time {
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            self.round_trip_nanos.store(nanos.max(1), Relaxed);
        }
    }

    pub(crate) fn moved(&self, traffic: Traffic) {
        self.bytes_in.fetch_add(traffic.bytes_in, Relaxed);
        self.bytes_out.fetch_add(traffic.bytes_out, Relaxed);
    }

    pub(crate) fn dropped(&self, items: u64) {
        self.dropped.fetch_add(items, Relaxed);
    }

    pub(crate) fn shared_out(&self, items: u64) {
        self.shared_out.fetch_add(items, Relaxed);
    }

    /// Counts items that were read, dropped, or discarded with their reader.
    pub(crate) fn dequeued(&self, items: u64) {
        self.dequeued.fetch_add(items, Relaxed);
    }

    /// Returns everything except `connections_open`, which the pool knows.
    pub(crate) fn snapshot(&self) -> Stats {
        let nanos = self.round_trip_nanos.load(Relaxed);
        let items = self.items.load(Relaxed);
        Stats {
            dials: self.dials.load(Relaxed),
            connections: self.connections.load(Relaxed),
            connections_open: 0,
            reconnects: self.reconnects.load(Relaxed),
            handovers: self.handovers.load(Relaxed),
            items,
            dropped: self.dropped.load(Relaxed),
            discarded: self.discarded.load(Relaxed),
            // Saturating, because a reader counts immediately and the driver only once per poll.
            queued_items: (items + self.shared_out.load(Relaxed))
                .saturating_sub(self.dequeued.load(Relaxed)),
            ignored: self.ignored.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            live_operations: self.live_operations.load(Relaxed),
            round_trip_time: (nanos > 0).then(|| Duration::from_nanos(nanos)),
        }
    }
}
