//! Looking after one operation alone: sending it again on the connection that it is on, and noticing that it went quiet.
//!
//! A subscription is sent again because its reader has caught up, because the server had ended it in passing, or because
//! nothing comes for it any more.

use std::time::{Duration, Instant};

use super::{
    Output, Session,
    backoff::Backoff,
    outbox::Queued,
    registry::{Operation, Wait},
};
use crate::mailbox::Gap;

/// What a subscription wants looked after. Every field is an option of `SubscriptionBuilder`, which documents it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Care {
    /// The application is asked whether an end is one.
    pub(crate) restart: bool,
    pub(crate) first_item_within: Option<Duration>,
    pub(crate) idle_longer_than: Option<Duration>,
    pub(crate) reissue_stale: bool,
}

/// How far looking after an operation has got.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) care: Care,
    /// When it was sent the last time.
    issued_at: Option<Instant>,
    /// When the last item since then arrived.
    last_item: Option<Instant>,
    /// It was said that nothing comes; not to be said again before something does.
    is_stale: bool,
    backoff: Option<Backoff>,
}

impl Care {
    pub(super) fn is_wanted(&self) -> bool {
        self.restart || self.first_item_within.is_some() || self.idle_longer_than.is_some()
    }
}

impl Upkeep {
    pub(super) fn new(care: Care) -> Self {
        Self { care, issued_at: None, last_item: None, is_stale: false, backoff: None }
    }

    /// The operation is sent. Returns when to look whether something came.
    fn issued(&mut self, now: Instant) -> Option<Instant> {
        self.issued_at = Some(now);
        self.last_item = None;
        self.is_stale = false;
        self.stale_at()
    }

    /// An item arrived. Returns when to look again, if nobody does so far.
    pub(super) fn received(&mut self, now: Instant) -> Option<Instant> {
        let was_watched = !self.is_stale && self.stale_at().is_some();
        self.last_item = Some(now);
        self.is_stale = false;
        if was_watched { None } else { self.stale_at() }
    }

    /// When the operation counts as stale, and since when nothing came.
    fn stale_at(&self) -> Option<Instant> {
        let Care { first_item_within, idle_longer_than, .. } = self.care;
        match (self.last_item, self.issued_at?) {
            (Some(last), _) => idle_longer_than.map(|patience| last + patience),
            (None, issued) => first_item_within.or(idle_longer_than).map(|patience| issued + patience),
        }
    }

    /// How long nothing came.
    fn idle_for(&self, now: Instant) -> Duration {
        self.last_item.or(self.issued_at).map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

impl<S: Clone> Session<S> {
    /// Queues an operation to be sent on the current connection.
    pub(super) fn issue(&mut self, now: Instant, id: u64) {
        self.outbox.push(Queued::Subscribe(id));
        let upkeep = self.operations.get_mut(id).and_then(|operation| operation.upkeep.as_mut());
        if let Some(at) = upkeep.and_then(|upkeep| upkeep.issued(now)) {
            self.operations.set_deadline(id, at);
        }
    }

    /// The operation is to be sent with this payload from now on. It is asked for when `Output::Reissue` is performed.
    pub(crate) fn revise(&mut self, id: u64, payload: Box<str>) {
        if let Some(operation) = self.operations.get_mut(id) {
            operation.revise(payload);
        }
    }

    /// Its reader holds all that it may: the server is to stop, until `catch_up`.
    pub(crate) fn rewind(&mut self, id: u64) {
        if let Some(wire_id) = self.operations.park(id, Wait::Reader) {
            self.outbox.push(Queued::Complete(wire_id));
        }
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
        let Some(operation) = self.operations.get_mut(id).filter(|operation| operation.wait == Wait::Verdict) else {
            return;
        };
        operation.wait = Wait::Backoff;
        let Some(upkeep) = &mut operation.upkeep else { return };
        let backoff = upkeep.backoff.get_or_insert_with(|| Backoff::new(base, cap));
        // One that ran for a while had not failed before.
        if upkeep.issued_at.is_some_and(|at| now.saturating_duration_since(at) >= self.config.healthy_after) {
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
            Wait::Reader | Wait::Verdict => {}
            Wait::Nothing => {
                // Until it is on a socket nothing can come, and a gap will say so.
                let is_sent = self.operations.wire_id(operation).is_some();
                match operation.upkeep.as_ref().and_then(|upkeep| upkeep.stale_at()) {
                    Some(at) if at > now => self.operations.set_deadline(id, at),
                    // What has arrived is not looked at, or the request not taken yet.
                    Some(_) if self.is_open() && (!is_sent || self.liveness.is_paused()) => {
                        self.operations.set_deadline(id, now + self.config.ping_timeout);
                    }
                    Some(_) if is_sent => self.stale(now, id),
                    Some(_) | None => {}
                }
            }
        }
    }

    fn stale(&mut self, now: Instant, id: u64) {
        let Some(Operation { sink, upkeep: Some(upkeep), .. }) = self.operations.get_mut(id) else { return };
        upkeep.is_stale = true;
        self.outputs.push_back(Output::Stale { sink: sink.clone(), idle_for: upkeep.idle_for(now) });
        if upkeep.care.reissue_stale
            && let Some(wire_id) = self.operations.park(id, Wait::Nothing)
        {
            self.outbox.push(Queued::Complete(wire_id));
            self.release(now, id);
        }
    }

    /// An operation that waited is sent again, now or with the next connection.
    fn release(&mut self, now: Instant, id: u64) {
        let is_open = self.is_open();
        let Some(operation) = self.operations.get_mut(id) else { return };
        operation.wait = Wait::Nothing;
        if is_open {
            let gap = Gap { restarts: 1, ..Gap::default() };
            self.outputs.push_back(Output::Reissue { sink: operation.sink.clone(), gap });
            self.issue(now, id);
            self.probe_awaited();
        }
    }
}
