//! Sending what is live on a connection that has just opened: in order, each once, and no faster
//! than is wanted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Output, Phase, Session, Span, outbox::Queued, registry::Wait, suspicion::reconnected,
    timers::Timer,
};
use crate::{operation::OperationType, protocol::Subprotocol, response::Gap};

impl<S: Clone> Session<S> {
    /// The server has acknowledged: operations are sent here from now on.
    pub(super) fn enter_open(&mut self, now: Instant, subprotocol: Subprotocol, ack: Option<&str>) {
        self.leg.phase = Phase::Open(subprotocol);
        self.leg.ack_payload =
            ack.and_then(|payload| serde_json::from_str(payload).ok()).map(Arc::new);
        self.leg.span = Span::after(self.operations.last_sent());
        self.negotiation.acked(subprotocol);
        self.retry.acked();
        self.counts.connections += 1;
        self.leg.timers.clear();
        // Said again at every turn.
        self.leg.broken = None;
        self.leg.timers.arm(Timer::Healthy, now + self.config.healthy_after);
        self.leg.liveness.open(now, subprotocol, &mut self.leg.timers);
        self.plan_renewal(now);
        self.take_over(now);
        if self.other.is_none() {
            // The connection's own backoff was for these, too.
            self.operations.end_wait(Wait::Backoff);
        }
        self.status_open();
        self.await_trial(now);
        let gap = reconnected(now, self.outage.take());
        self.issue_all(now, &gap);
        self.answer_connect(Ok(()));
        self.answer_rotate(Ok(()));
        self.look_for_idleness(now);
        self.probe_awaited();
    }

    /// Issues what is live and not sent, in its original order, as one batch (rule 26), with its
    /// gap announced first (rule 28).
    pub(super) fn issue_all(&mut self, now: Instant, gap: &Gap) {
        let mut watched = Vec::new();
        for operation in self.operations.iter() {
            match operation.wait {
                Wait::Nothing => {}
                Wait::Reader | Wait::Verdict | Wait::Backoff | Wait::Trial => continue,
            }
            let is_subscription = operation.kind == OperationType::Subscription;
            let has_leg = operation.is_on(self.leg.span) || operation.is_on(self.other_span());
            if has_leg && !(is_subscription && self.operations.is_moving(operation.id)) {
                continue;
            }
            if operation.was_issued && is_subscription {
                let held = operation.outage.as_deref().cloned();
                let gap = held.map_or_else(|| gap.clone(), |outage| reconnected(now, Some(outage)));
                // What the old leg carries has no gap, but perhaps a place at which things are
                // repeated.
                let gap = (!has_leg).then_some(gap);
                self.outputs.push_back(Output::Reissue { writer: operation.writer.clone(), gap });
            }
            match self.config.reissue_rate {
                Some(_) if operation.was_issued => self.leg.outbox.push_paced(operation.id),
                Some(_) | None => self.leg.outbox.push(Queued::Subscribe(operation.id)),
            }
            // What the old leg carries is looked after there until it has moved.
            let is_watched = !has_leg && (operation.watch.is_some() || operation.outage.is_some());
            watched.extend(is_watched.then_some(operation.id));
        }
        for id in watched {
            self.watch(now, id);
        }
        self.pace(now);
    }

    /// Lets as many operations be sent again as one period allows.
    pub(super) fn pace(&mut self, now: Instant) {
        // Few enough at a time to be no burst.
        let Some(rate) = self.config.reissue_rate else { return };
        let each = (rate.get() / 10).max(1);
        if self.leg.outbox.allow(each) {
            self.leg.timers.arm(Timer::Pace, now + Duration::from_secs(1) * each / rate.get());
        }
        self.probe_awaited();
    }
}
