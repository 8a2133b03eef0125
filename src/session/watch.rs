//! Looking after one operation alone: sending it again on the connection that it is on, and
//! noticing that it went quiet.
//!
//! A subscription is sent again because its reader has caught up, because the server had ended it
//! in passing, or because nothing comes for it any more.

use std::time::{Duration, Instant};

use super::{
    Output, Role, Session,
    backoff::Backoff,
    outbox::Queued,
    registry::{Operation, Wait},
    timers::Timer,
};
use crate::{operation::OperationType, response::Gap};

/// What a subscription wants looked after. Every field is an option of `SubscriptionBuilder`, which
/// documents it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct WatchOptions {
    /// The application is asked whether an end is one.
    pub(crate) restart: bool,
    pub(crate) first_item_within: Option<Duration>,
    pub(crate) idle_longer_than: Option<Duration>,
    pub(crate) reissue_stale: bool,
}

/// How far looking after an operation has got.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) watch_options: WatchOptions,
    /// When it was sent the last time.
    issued_at: Option<Instant>,
    /// When the last item since then arrived.
    last_item: Option<Instant>,
    /// It was said that nothing comes; not to be said again before something does.
    is_stale: bool,
    /// When it was looked at the last time, the socket had not taken it yet.
    is_unsent: bool,
    backoff: Option<Backoff>,
}

impl WatchOptions {
    pub(super) fn is_wanted(&self) -> bool {
        self.restart || self.first_item_within.is_some() || self.idle_longer_than.is_some()
    }
}

impl Watch {
    pub(super) fn new(watch_options: WatchOptions) -> Self {
        Self {
            watch_options,
            issued_at: None,
            last_item: None,
            is_stale: false,
            is_unsent: false,
            backoff: None,
        }
    }

    /// The operation is queued to be sent. Returns when to look whether something came.
    fn issued(&mut self, now: Instant, healthy_after: Duration) -> Option<Instant> {
        // What came is the proof: the time between two requests may have been an outage.
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

    /// An item arrived. Returns when to look again, if nobody does by then. With every item this
    /// would be a timer for each: who looks too early looks again.
    pub(super) fn received(&mut self, now: Instant) -> Option<Instant> {
        let watched_at = if self.is_stale { None } else { self.stale_at() };
        self.last_item = Some(now);
        self.is_stale = false;
        self.stale_at().filter(|&at| watched_at.is_none_or(|watched_at| at < watched_at))
    }

    /// When the operation counts as stale, if nothing comes.
    fn stale_at(&self) -> Option<Instant> {
        Some(self.last_sign()? + self.patience()?)
    }

    /// For how long nothing may come from here on.
    fn patience(&self) -> Option<Duration> {
        let WatchOptions { first_item_within, idle_longer_than, restart: _, reissue_stale: _ } =
            self.watch_options;
        match self.last_item {
            Some(_) => idle_longer_than,
            None => first_item_within.or(idle_longer_than),
        }
    }

    fn last_sign(&self) -> Option<Instant> {
        self.last_item.or(self.issued_at)
    }
}

impl<S: Clone> Session<S> {
    /// Queues an operation to be sent on the current connection.
    pub(super) fn issue(&mut self, now: Instant, id: u64) {
        self.leg.outbox.push(Queued::Subscribe(id));
        self.leg.timers.arm_by(Timer::Healthy, now + self.config.healthy_after);
        self.watch(now, id);
    }

    /// The operation is queued to be sent: what it waited for is over, and what comes is looked at
    /// if that is wanted.
    pub(super) fn watch(&mut self, now: Instant, id: u64) {
        let healthy_after = self.config.healthy_after;
        let Some(operation) = self.operations.get_mut(id) else { return };
        operation.wait = Wait::Nothing;
        operation.outage = None;
        let Some(watch) = &mut operation.watch else { return };
        match watch.issued(now, healthy_after) {
            Some(at) => self.operations.set_deadline(id, at),
            None => self.operations.clear_deadline(id),
        }
    }

    /// The operation is to be sent with this payload from now on. It is asked for when
    /// `Output::Reissue` is performed.
    pub(crate) fn revise(&mut self, id: u64, payload: Box<str>) {
        if let Some(operation) = self.operations.get_mut(id) {
            operation.revise(payload);
        }
        if let Some(moving) = self.operations.moving_mut(id) {
            moving.is_resumed = true;
        }
    }

    /// Its reader holds all that it may: the server is to stop, until `catch_up`.
    pub(crate) fn rewind(&mut self, id: u64) {
        // One that is not sent has nothing to stop and is on its way already; a call must not be
        // sent twice.
        let is_subscription = self
            .operations
            .get(id)
            .is_some_and(|operation| operation.kind == OperationType::Subscription);
        if is_subscription && self.complete(id, None) {
            self.park(id, Wait::Reader);
            // What comes after what it had no room for.
            let queued = self.outputs.len();
            self.outputs.retain(
                |output| !matches!(output, Output::Deliver { id: held, .. } if *held == id),
            );
            self.counts.items -= (queued - self.outputs.len()) as u64;
            self.outputs
                .retain(|output| !matches!(output, Output::End { id: held, .. } if *held == id));
        }
    }

    /// From here on the operation waits: what still comes for it is late.
    pub(super) fn park(&mut self, id: u64, wait: Wait) {
        // It was queued to be sent on another leg as well.
        if self.operations.moving_mut(id).is_some_and(|moving| moving.new == 0) {
            for leg in self.legs().filter(|leg| leg.role == Role::Current) {
                leg.outbox.forget_subscribe(id);
            }
        }
        self.operations.park(id, wait);
    }

    /// The reader of a rewound operation has caught up.
    pub(crate) fn catch_up(&mut self, now: Instant, id: u64) {
        if self.operations.get(id).is_some_and(|operation| operation.wait == Wait::Reader) {
            self.release(now, id);
        }
    }

    /// The server's end of an operation was none: it is sent again, with backoff.
    pub(crate) fn restart(&mut self, now: Instant, id: u64) {
        let (base, cap) = (self.config.backoff_base, self.config.backoff_cap);
        let Some(operation) =
            self.operations.get_mut(id).filter(|operation| operation.wait == Wait::Verdict)
        else {
            return;
        };
        let Some(watch) = &mut operation.watch else { return };
        operation.wait = Wait::Backoff;
        let backoff = watch.backoff.get_or_insert_with(|| Backoff::new(base, cap));
        // One that ran for a while had not failed before.
        if watch
            .issued_at
            .is_some_and(|at| now.saturating_duration_since(at) >= self.config.healthy_after)
        {
            backoff.reset();
        }
        let at = now + self.retry.jitter(backoff);
        self.operations.set_deadline(id, at);
    }

    /// The deadline of a subscription has come.
    pub(super) fn tend(&mut self, now: Instant, id: u64) {
        self.operations.clear_deadline(id);
        let Some(operation) = self.operations.get(id) else { return };
        match operation.wait {
            Wait::Backoff => self.release(now, id),
            Wait::Nothing => self.look_for_signs(now, id),
            // Not to be hurried.
            Wait::Reader | Wait::Verdict | Wait::Trial => {}
        }
    }

    /// Time enough has passed for an item to arrive.
    fn look_for_signs(&mut self, now: Instant, id: u64) {
        // Without a connection nothing can come, and a gap will say so; with the next one it is
        // looked at again.
        if !self.is_open() {
            return;
        }
        // It may have come, and is held; once it has moved it is looked at again.
        if self.operations.moving_mut(id).is_some_and(|moving| moving.is_on_its_way()) {
            return;
        }
        // One that is sent again would not be written when its trial is to be over, over and over.
        if let Some(at) = self.suspicion.tried_until(now, id) {
            return self.operations.set_deadline(id, at);
        }
        let spans = self.legs().map(|leg| leg.span).collect::<Vec<_>>();
        let is_unsent =
            self.operations.get(id).is_some_and(|it| !spans.iter().any(|span| it.is_on(*span)));
        let (is_paused, resumed_at) =
            (self.leg.liveness.is_paused(), self.leg.liveness.resumed_at());
        let Some(Operation { watch: Some(watch), .. }) = self.operations.get_mut(id) else {
            return;
        };
        // Nobody says when the socket takes it. It had since it was last looked at to do so, which
        // is not the server's fault.
        let was_unsent = std::mem::replace(&mut watch.is_unsent, is_unsent);
        if watch.last_item.is_none() && (is_unsent || was_unsent) {
            watch.issued_at = Some(now);
        }
        let (Some(sign), Some(patience)) = (watch.last_sign(), watch.patience()) else { return };
        // What has arrived may still be in a socket that is not read.
        let since = if is_paused { now } else { resumed_at.map_or(sign, |at| at.max(sign)) };
        if since + patience > now {
            self.operations.set_deadline(id, since + patience);
        } else {
            self.stale(now, id, now.saturating_duration_since(sign));
        }
    }

    fn stale(&mut self, now: Instant, id: u64, idle_for: Duration) {
        let Some(Operation { writer, watch: Some(watch), .. }) = self.operations.get_mut(id) else {
            return;
        };
        watch.is_stale = true;
        self.outputs.push_back(Output::Stale { writer: writer.clone(), idle_for });
        if watch.watch_options.reissue_stale && self.complete(id, None) {
            self.park(id, Wait::Nothing);
            self.release(now, id);
        }
    }

    /// An operation that waited is sent again, now or with the next connection.
    fn release(&mut self, now: Instant, id: u64) {
        let is_open = self.is_open();
        let Some(operation) = self.operations.get_mut(id) else { return };
        operation.wait = Wait::Nothing;
        if is_open {
            self.reissue(now, id, Gap { restarts: 1, ..Gap::default() });
            self.probe_awaited();
        }
    }

    /// Sends an operation on the current connection, with this gap where a subscription was sent
    /// before.
    pub(super) fn reissue(&mut self, now: Instant, id: u64, gap: Gap) {
        let Some(operation) = self.operations.get(id) else { return };
        if operation.was_issued && operation.kind == OperationType::Subscription {
            self.outputs
                .push_back(Output::Reissue { writer: operation.writer.clone(), gap: Some(gap) });
        }
        self.issue(now, id);
    }
}
