//! Watching one subscription: noticing that nothing arrives for it, or that it makes no progress,
//! and sending it again alone.
//!
//! A subscription is sent again on a connection that works because its reader has caught up
//! (`Overflow::Rewind`), because the server has ended it with a transient error (`restart_if`), or
//! because nothing arrives for it (`reissue_stale`).

use std::time::{Duration, Instant};

use super::{Late, Operation, Place, Why};
use crate::session::{Output, Session, reconnect::Backoff};

/// How a subscription is watched. Every field is an option of `SubscriptionBuilder`, which
/// documents it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct WatchOptions {
    /// The application is asked whether an end is transient.
    pub(crate) restart: bool,
    pub(crate) first_item_within: Option<Duration>,
    pub(crate) idle_longer_than: Option<Duration>,
    pub(crate) reissue_stale: bool,
}

/// What is known of a subscription that is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) options: WatchOptions,
    /// When it was queued the last time.
    issued_at: Option<Instant>,
    /// When the last item since then arrived.
    last_item: Option<Instant>,
    /// Its silence was reported. It is reported again only after another item.
    is_stale: bool,
    /// At the last check the socket had not taken it yet.
    is_unsent: bool,
    backoff: Option<Backoff>,
    /// How often it was sent again from the same position since it was rewound. `None` if it was
    /// not rewound since it got that position.
    repeats: Option<u32>,
    /// `None` if it was never rewound. Boxed, because few are.
    pub(super) late: Option<Box<Late>>,
}

impl WatchOptions {
    pub(super) fn is_wanted(&self) -> bool {
        self.restart || self.first_item_within.is_some() || self.idle_longer_than.is_some()
    }
}

impl Watch {
    pub(super) fn new(options: WatchOptions) -> Self {
        Self {
            options,
            issued_at: None,
            last_item: None,
            is_stale: false,
            is_unsent: false,
            backoff: None,
            repeats: None,
            late: None,
        }
    }

    /// The operation was queued. Returns when to check for silence.
    fn issued(&mut self, now: Instant, healthy_after: Duration) -> Option<Instant> {
        // Items prove that it ran for a while: the time between two requests may have been an
        // outage.
        if let (Some(issued), Some(last)) = (self.issued_at, self.last_item)
            && last.saturating_duration_since(issued) >= healthy_after
        {
            self.backoff = None;
        }
        self.issued_at = Some(now);
        self.last_item = None;
        self.is_stale = false;
        self.is_unsent = false;
        self.stale_at()
    }

    /// An item arrived. Returns when to check for silence, if that is earlier than the check that
    /// is planned. An item does not move the planned check, which would be a timer for each item: a
    /// check that comes too early plans the next one.
    pub(crate) fn received(&mut self, now: Instant) -> Option<Instant> {
        let planned_at = if self.is_stale { None } else { self.stale_at() };
        self.last_item = Some(now);
        self.is_stale = false;
        self.stale_at().filter(|&at| planned_at.is_none_or(|planned_at| at < planned_at))
    }

    /// When the operation counts as stale if nothing arrives.
    fn stale_at(&self) -> Option<Instant> {
        Some(self.last_sign()? + self.patience()?)
    }

    /// How long the silence may last.
    fn patience(&self) -> Option<Duration> {
        let WatchOptions { first_item_within, idle_longer_than, restart: _, reissue_stale: _ } =
            self.options;
        match self.last_item {
            Some(_) => idle_longer_than,
            None => first_item_within.or(idle_longer_than),
        }
    }

    fn last_sign(&self) -> Option<Instant> {
        self.last_item.or(self.issued_at)
    }
}

impl<W: Clone> Session<W> {
    /// The operation was queued: its silence counts from now on.
    pub(crate) fn restart_silence_check(&mut self, now: Instant, id: u64) {
        let healthy_after = self.config.healthy_after;
        let Some(operation) = self.operations.get_mut(id) else { return };
        let Some(watch) = &mut operation.watch else { return };
        match watch.issued(now, healthy_after) {
            Some(at) => self.operations.set_deadline(id, at),
            None => self.operations.clear_deadline(id),
        }
    }

    /// The operation was cut over to another connection, on which something has arrived or has
    /// not. If not, the wait for a first item begins again: it was sent there anew.
    pub(crate) fn watch_moved(&mut self, now: Instant, id: u64, has_arrived: bool) {
        let Some(operation) = self.operations.get_mut(id) else { return };
        let Some(watch) = &mut operation.watch else { return };
        if has_arrived {
            if let Some(at) = watch.received(now) {
                self.operations.set_deadline(id, at);
            }
        } else if watch.options.first_item_within.is_some() {
            self.restart_silence_check(now, id);
        }
    }

    /// Sends this payload from now on, which carries the position of the last item that was
    /// received. `None` if the payload carries it already. Answers `Output::Reissue` and
    /// `Output::Resume`.
    pub(crate) fn resume_from(&mut self, id: u64, payload: Option<Box<str>>) {
        self.resume_from_nowhere(id, payload);
        if let Some(moving) = self.operations.moving_mut(id) {
            moving.is_resumed = true;
        }
    }

    /// There is no position: the operation is sent as it was, or with this payload if the server
    /// no longer has the position that it had. The other answer to the same outputs.
    pub(crate) fn resume_from_nowhere(&mut self, id: u64, payload: Option<Box<str>>) {
        let has_progressed = payload.is_some_and(|payload| self.operations.revise(id, payload));
        if let Some(watch) = self.operations.get_mut(id).and_then(|it| it.watch.as_mut()) {
            watch.repeats = watch.repeats.filter(|_| !has_progressed).map(|times| times + 1);
        }
    }

    /// The reader has no room: the server is to stop until `catch_up`. An operation that the server
    /// does not have will be sent again, after the last item that was received.
    pub(crate) fn rewind(&mut self, id: u64) {
        // What was held is behind the item that does not fit. It may fit, and would leave a hole.
        let counts = &mut self.counts;
        self.outputs.retain(|output| match output {
            Output::Deliver { id: held, backlog, .. } if *held == id => {
                counts.items -= backlog.len() as u64;
                counts.discarded += backlog.len() as u64;
                false
            }
            _ => true,
        });
        // A query or mutation must not be sent twice.
        if self.operations.get(id).is_some_and(Operation::is_subscription)
            && (self.operations.wire_ids(id).next().is_some()
                || self.operations.waits(id, Why::Quarantine))
        {
            let from = self.operations.wire_ids(id).next();
            self.leave(id, None, Why::Reader);
            self.operations.clear_deadline(id);
            self.operations.change_late(id, |late| late.begin(from));
        }
    }

    /// The reader of a rewound operation has caught up. It gets what arrived meanwhile, and after
    /// that the operation is sent again. If several requests have brought no other
    /// position, the next one hardly will, so it waits for its backoff.
    pub(crate) fn catch_up(&mut self, now: Instant, id: u64) {
        if !self.operations.waits(id, Why::Reader) || self.deliver_late(id) {
            return;
        }
        let mut is_stuck = false;
        if let Some(watch) = self.operations.get_mut(id).and_then(|it| it.watch.as_mut()) {
            is_stuck = *watch.repeats.get_or_insert(0) >= MAX_REPEATS;
            if !is_stuck {
                watch.backoff = None;
            }
        }
        if is_stuck {
            self.back_off(now, id);
        } else {
            self.release(now, id);
        }
    }

    /// The reader has asked for items again that it is missing: the operation is sent again from
    /// the position that the writer was told. One that is not sent yet has that position anyway.
    pub(crate) fn ask_again(&mut self, now: Instant, id: u64) {
        let is_sent = match self.operations.place(id) {
            // One that is tried elsewhere is in quarantine, and will be sent again after that.
            Some(Place::Queued(on, _) | Place::On(on, _)) => *on == self.current,
            // The writer was asked for the position of one that is paced already.
            Some(Place::Moving(_) | Place::Waiting(Why::Pacing)) => true,
            Some(Place::Waiting(
                Why::Connection | Why::Reader | Why::Application | Why::Backoff | Why::Quarantine,
            ))
            | None => false,
        };
        if is_sent {
            self.rewind(id);
            self.leave(id, None, Why::Reader);
            self.operations.clear_deadline(id);
            self.release(now, id);
        }
    }

    /// The application takes the end of an operation for transient: it is sent again, with backoff.
    pub(crate) fn restart(&mut self, now: Instant, id: u64) {
        if !self.operations.waits(id, Why::Application) {
            return;
        }
        let Some(operation) = self.operations.get_mut(id) else { return };
        let Some(watch) = &mut operation.watch else { return };
        // It ran for a while, so it had not failed before.
        let ran_well = |at| now.saturating_duration_since(at) >= self.config.healthy_after;
        if watch.issued_at.is_some_and(ran_well) {
            watch.backoff = None;
        }
        self.back_off(now, id);
    }

    /// Sends an operation again after a delay of its own.
    fn back_off(&mut self, now: Instant, id: u64) {
        let (base, cap) = (self.config.backoff_base, self.config.backoff_cap);
        let Some(operation) = self.operations.get_mut(id) else { return };
        let Some(watch) = &mut operation.watch else { return };
        let backoff = watch.backoff.get_or_insert_with(|| Backoff::new(base, cap));
        let at = now + self.retry.next_delay_of(backoff);
        self.operations.set_place(id, Place::Waiting(Why::Backoff));
        self.operations.set_deadline(id, at);
    }

    /// The deadline of a subscription has passed.
    pub(crate) fn deadline_passed(&mut self, now: Instant, id: u64) {
        self.operations.clear_deadline(id);
        match self.operations.place(id) {
            Some(Place::Waiting(Why::Backoff)) => self.release(now, id),
            Some(Place::Queued(on, _) | Place::On(on, _)) if *on == self.current => {
                self.check_for_silence(now, id);
            }
            Some(Place::Moving(_)) => self.check_for_silence(now, id),
            // Nothing can arrive. Silence counts again from when it is sent.
            Some(Place::Waiting(_) | Place::Queued(..) | Place::On(..)) | None => {}
        }
    }

    /// Enough time has passed for an item to arrive.
    fn check_for_silence(&mut self, now: Instant, id: u64) {
        let Some(current) = self.current() else { return };
        let (is_paused, resumed_at) = (current.liveness.is_paused(), current.liveness.resumed_at());
        let Some(operation) = self.operations.get_mut(id) else { return };
        let (is_unsent, is_held) = match operation.place() {
            Place::Queued(..) => (true, false),
            Place::Moving(moving) => (false, !moving.backlog.is_empty()),
            Place::Waiting(_) | Place::On(..) => (false, false),
        };
        let Some(watch) = &mut operation.watch else { return };
        // The time in which the socket did not take it is not the server's fault.
        let was_unsent = std::mem::replace(&mut watch.is_unsent, is_unsent);
        if watch.last_item.is_none() && (is_unsent || was_unsent) {
            watch.issued_at = Some(now);
        }
        let (Some(sign), Some(patience)) = (watch.last_sign(), watch.patience()) else { return };
        // An item that is held has arrived, and so may have items in a socket that is not read.
        let since =
            if is_paused || is_held { now } else { resumed_at.map_or(sign, |at| at.max(sign)) };
        if since + patience > now {
            self.operations.set_deadline(id, since + patience);
        } else {
            self.stale(now, id, now.saturating_duration_since(sign));
        }
    }

    fn stale(&mut self, now: Instant, id: u64, idle_for: Duration) {
        let Some(operation) = self.operations.get_mut(id) else { return };
        let Some(watch) = &mut operation.watch else { return };
        watch.is_stale = true;
        let writer = operation.writer.clone();
        let is_reissued = watch.options.reissue_stale;
        self.outputs.push_back(Output::Stale { writer, idle_for });
        if is_reissued {
            self.leave(id, None, Why::Connection);
            self.issue(now, id);
            self.probe_awaited();
        }
    }

    /// An operation has waited for its reader or its backoff: it is sent now, or with the next
    /// connection.
    fn release(&mut self, now: Instant, id: u64) {
        self.operations.set_place(id, Place::Waiting(Why::Connection));
        self.issue(now, id);
        self.probe_awaited();
    }
}

/// How often a rewound operation is sent again at once from the same position. A server that
/// repeats items from before the position, not always the same number of them, brings a new one
/// soon.
const MAX_REPEATS: u32 = 64;
