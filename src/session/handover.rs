//! Moving to another connection without an outage: make before break.
//!
//! A second leg is opened while the first works. Once it is acknowledged it is the current one, and
//! every subscription is issued there as well. For each the old leg counts, and what comes on the
//! new one is held, until both have said the same item, or at once if the new one was told where to
//! go on. Then it is completed on the old leg, and goes on with what is held. Where that does not
//! come, some seconds have to do: it is completed on the old leg, and goes on once that has said
//! all, when a probe behind the `complete` is answered. So a reader gets what came on the old leg
//! and then what came on the new one, each in its order; nothing is missing, and what lies in the
//! overlap comes twice. Calls stay where they were sent. A leg on which nothing is left is closed.
//! As long as anything is to move, the way back is open: a new leg that fails leaves the old one as
//! it was.

use std::{
    collections::BTreeSet,
    ops::Range,
    time::{Duration, Instant},
};

use super::{
    End, Output, Session,
    leg::{Leg, Phase, Role},
    moving::Due,
    outbox::Queued,
    suspicion::reconnected,
    timers::Timer,
};
use crate::{
    error::{CloseCode, Disconnect},
    operation::OperationType,
    protocol::{Id, Kind, close::Stage},
    response::Gap,
};

/// What is on its way from the retiring leg to the current one. Which operations are moving, the
/// registry knows.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// Completed on the old leg, before the probe that is under way.
    probed: Vec<u64>,
    /// Completed on the old leg, and to be probed next.
    unprobed: Vec<u64>,
    /// When that probe was sent.
    probed_at: Option<Instant>,
    /// All has come on the old leg that will, or that is waited for: then something may be missing.
    drained: Vec<(u64, Option<Gap>)>,
    /// Queries and mutations that stay on the old leg until they are answered. May name some that
    /// are gone.
    staying: BTreeSet<u64>,
    /// Somebody waits for another connection.
    pub(super) is_wanted: bool,
}

impl<S: Clone> Session<S> {
    /// The successor is acknowledged: it is the current one, and what it replaces retires.
    pub(super) fn take_over(&mut self, now: Instant) {
        if std::mem::replace(&mut self.leg.role, Role::Current) != Role::Successor {
            return;
        }
        self.counts.handovers += 1;
        let Some(old) = &mut self.other else { return };
        old.role = Role::Retiring;
        old.span.end(self.operations.last_sent());
        for timer in [Timer::Healthy, Timer::Settled, Timer::Pace, Timer::Idle, Timer::Renewal] {
            old.timers.disarm(timer);
        }
        old.timers.arm(Timer::Overlap, now + LOOK_AGAIN);
        old.timers.arm(Timer::Grace, now + GRACE);
        // The current one says it.
        old.outbox.forget_subscribes();
        self.handover.staying = self.operations.begin_moving(now, old.span);
    }

    /// Keeps a message on the current leg for later if its operation has not moved yet. Whether it
    /// does.
    pub(super) fn hold_frame(
        &mut self,
        now: Instant,
        id: Id,
        kind: Kind,
        frame: &str,
        payload: Option<&Range<usize>>,
    ) -> bool {
        let (Id::Ours(wire_id), Kind::Next | Kind::Error | Kind::Complete, Role::Current) =
            (id, kind, self.leg.role)
        else {
            return false;
        };
        let Some(id) = self.operations.moving_as(wire_id) else { return false };
        let item = payload.filter(|_| kind == Kind::Next).map(|payload| &frame[payload.clone()]);
        let (is_said, held) = self.operations.hold(now, id, frame, item, kind != Kind::Next);
        if is_said {
            self.handover.drained.push((id, None));
        } else if held > MAX_HELD_BYTES {
            // What the old leg still has to say is not waited for without end.
            self.moved(now, id, Some(reconnected(now, None)));
        }
        true
    }

    /// An item came on the old leg, for an operation that may be moving.
    pub(super) fn came_on_old(&mut self, now: Instant, id: u64, item: &str) {
        if self.operations.moving_mut(id).is_some_and(|moving| moving.came_on_old(now, item)) {
            self.handover.drained.push((id, None));
        }
    }

    /// Ends an operation on the old leg, if that was not done.
    fn drain(&mut self, now: Instant, id: u64) {
        let Some(wire_id) = self.operations.begin_draining(id) else { return };
        if let Some(old) = self.retiring() {
            old.complete(wire_id, OperationType::Subscription);
        }
        self.handover.unprobed.push(id);
        // A probe may be under way already, and have been for long.
        self.handover.probed_at.get_or_insert(now);
        self.probe_old(now);
    }

    fn probe_old(&mut self, now: Instant) {
        if !self.handover.unprobed.is_empty() && self.retiring().is_some_and(Leg::probe) {
            let Handover { probed, unprobed, probed_at, .. } = &mut self.handover;
            probed.append(unprobed);
            *probed_at = Some(now);
        }
    }

    /// A ping was answered on the retiring leg.
    pub(super) fn ponged_old(&mut self, now: Instant) {
        if !self.leg.proofs.is_probing {
            let Handover { probed, drained, probed_at, .. } = &mut self.handover;
            drained.extend(probed.drain(..).map(|id| (id, None)));
            *probed_at = None;
            self.probe_old(now);
        }
    }

    /// The server ended an operation on the leg that is being handled. Whether it goes on all the
    /// same, on the new one. If it was not asked to end it, or did so with errors, perhaps it did
    /// before it began it on the new one.
    pub(super) fn is_drained(&mut self, id: u64, end: &End) -> bool {
        let Some(moving) = self.operations.moving_mut(id).filter(|moving| moving.is_on_its_way())
        else {
            return false;
        };
        // Or it has ended on both.
        let is_asked = std::mem::replace(&mut moving.is_completed, true) || moving.has_ended;
        let gap = (!is_asked || matches!(end, End::Rejected(_)))
            .then(|| Gap { reconnects: 1, ..Gap::default() });
        self.handover.drained.push((id, gap));
        true
    }

    /// The old leg has said all of this operation, unless `gap` says that something may be missing.
    fn moved(&mut self, now: Instant, id: u64, gap: Option<Gap>) {
        if let (Some(wire_id), Some(old)) = (self.operations.begin_draining(id), self.retiring()) {
            old.complete(wire_id, OperationType::Subscription);
        }
        let Some(moving) = self.operations.end_moving(id) else { return };
        let Some(operation) = self.operations.get(id) else { return };
        let (writer, is_watched) = (operation.writer.clone(), operation.watch.is_some());
        if is_watched {
            self.watch(now, id);
        }
        if let Some(gap) =
            gap.or_else(|| moving.is_repeated().then(|| Gap { overlaps: 1, ..Gap::default() }))
        {
            self.outputs.push_back(Output::Moved { writer: writer.clone(), gap });
        }
        let mut held = moving.held;
        // Its turn is after the items, for which there may be no room.
        let end = if moving.has_ended { held.pop() } else { None };
        for frame in held {
            if let Some((_, payload)) = self.read_frame(now, &frame) {
                self.outputs.push_back(Output::Deliver {
                    id,
                    writer: writer.clone(),
                    frame,
                    payload,
                });
            }
        }
        self.outputs.extend(end.map(|frame| Output::End { id, frame }));
    }

    /// The end that was held is to be acted on, after the items that were.
    pub(crate) fn end_held(&mut self, now: Instant, frame: &str) {
        self.read_frame(now, frame);
    }

    /// Both legs had their time: what is not completed on the old one is now.
    pub(super) fn end_overlap(&mut self, now: Instant) {
        self.end_draining(now);
        // What is not read may be there already.
        let due = if self.leg.liveness.is_paused() {
            Vec::new()
        } else {
            self.operations.due(now, self.leg.liveness.resumed_at())
        };
        for (id, due) in due {
            match due {
                Due::Nothing => {}
                Due::Drain => self.drain(now, id),
                Due::Doubt => self.handover.drained.push((id, Some(reconnected(now, None)))),
            }
        }
        if self.is_moving() {
            self.leg.timers.arm(Timer::Overlap, now + LOOK_AGAIN);
        }
    }

    /// A server that does not answer pings is not waited for without end.
    fn end_draining(&mut self, now: Instant) {
        let (is_paused, resumed_at) =
            (self.leg.liveness.is_paused(), self.leg.liveness.resumed_at());
        let Some(since) = self
            .handover
            .probed_at
            .map(|at| resumed_at.map_or(at, |resumed_at| resumed_at.max(at)))
        else {
            return;
        };
        if !is_paused && since + DRAIN_WITHIN <= now {
            let Handover { probed, unprobed, drained, probed_at, .. } = &mut self.handover;
            *probed_at = None;
            let gap = reconnected(now, None);
            drained.extend(
                probed.drain(..).chain(unprobed.drain(..)).map(|id| (id, Some(gap.clone()))),
            );
        }
    }

    /// Calls on the old leg had their time.
    pub(super) fn end_grace(&mut self, now: Instant) {
        // The answers may be there already.
        if self.leg.liveness.is_paused() {
            return self.leg.timers.arm(Timer::Grace, now + LOOK_AGAIN);
        }
        let staying = std::mem::take(&mut self.handover.staying);
        for id in staying {
            if self.stays(id) {
                self.complete(id, None);
            }
        }
        self.give_up_calls();
    }

    /// Whether a call waits on the retiring leg.
    fn stays(&mut self, id: u64) -> bool {
        let Some(span) = self.retiring().map(|old| old.span) else { return false };
        self.operations.get(id).is_some_and(|operation| operation.is_on(span))
    }

    /// The leg's calls will not be answered there: mutations are ambiguous, and queries are sent on
    /// the current leg.
    fn give_up_calls(&mut self) {
        let (span, cause) = (self.leg.span, self.leg.broken.clone());
        self.give_up_mutations(span, cause.as_ref());
        let queries = self.operations.forget_sent(span);
        if let Some(current) =
            self.legs().find(|leg| leg.role == Role::Current && matches!(leg.phase, Phase::Open(_)))
        {
            for id in queries {
                current.outbox.push(Queued::Subscribe(id));
            }
        }
    }

    /// What follows from an input for the leg that is not the current one.
    pub(super) fn tend_other(&mut self, now: Instant) {
        let gone = self.other.take_if(|other| other.phase == Phase::Idle);
        if let Some(old) = gone {
            self.forsake(now, *old);
            self.look_for_idleness(now);
            self.probe_awaited();
            if self.handover.is_wanted && self.is_open() {
                self.renew(now);
            }
        }
        let drained = std::mem::take(&mut self.handover.drained);
        if !drained.is_empty() {
            for (id, gap) in drained {
                self.moved(now, id, gap);
            }
            self.probe_awaited();
        }
        // A call there was the last reason for another attempt.
        if self.leg.phase == Phase::Waiting && !self.has_reason() {
            return self.rest();
        }
        if self.is_moving() {
            return;
        }
        while let Some(id) = self.handover.staying.first().copied() {
            if self.stays(id) {
                return;
            }
            self.handover.staying.pop_first();
        }
        if let Some(old) = self.retiring().filter(|old| matches!(old.phase, Phase::Open(_))) {
            old.say_goodbye();
            old.timers.arm(Timer::Shutdown, now + CLOSE_WITHIN);
        }
    }

    /// A leg is gone, and with it what it had still to say.
    pub(super) fn forsake(&mut self, now: Instant, old: Leg) {
        if old.role != Role::Retiring {
            return;
        }
        let cause = old.broken.clone();
        for id in self.operations.moving() {
            self.moved(
                now,
                id,
                Some(Gap { reconnects: 1, cause: cause.clone(), ..Gap::default() }),
            );
        }
        let current = std::mem::replace(&mut self.leg, old);
        self.other = Some(Box::new(current));
        self.give_up_calls();
        if let Some(current) = self.other.take() {
            self.leg = *current;
        }
        self.handover = Handover { is_wanted: self.handover.is_wanted, ..Handover::default() };
    }

    /// The current leg was lost while operations were moving to it. The one that they come from
    /// still works.
    pub(super) fn go_back(&mut self, now: Instant, cause: Disconnect) {
        self.counts.handovers -= 1;
        self.give_up_mutations(self.leg.span, Some(&cause));
        let gap = Gap { reconnects: 1, cause: Some(cause.clone()), ..Gap::default() };
        for id in self.operations.moving() {
            if self.operations.moving_mut(id).is_some_and(|moving| moving.is_completed) {
                // It was completed on the old leg, which may not have said all, and is issued there
                // anew.
                self.moved(now, id, Some(gap.clone()));
            }
        }
        self.operations.cancel_moving();
        self.operations.forget_sent(self.leg.span);
        let Some(old) = self.other.take() else { return };
        self.leg = *old;
        self.leg.role = Role::Current;
        self.leg.span.go_on();
        self.leg.timers.disarm(Timer::Overlap);
        self.leg.timers.disarm(Timer::Grace);
        self.handover = Handover { is_wanted: self.handover.is_wanted, ..Handover::default() };
        self.leg.timers.arm(Timer::Healthy, now + self.config.healthy_after);
        self.status_open();
        self.await_trial(now);
        self.issue_all(now, &gap);
        self.look_for_idleness(now);
        self.probe_awaited();
        self.space(now, cause, Stage::Open);
        self.hand_over(now);
    }

    /// Lets go of what is not the current leg.
    pub(super) fn drop_other(&mut self) -> Option<Leg> {
        let other = *self.other.take()?;
        let close = match other.phase {
            Phase::Opening(_) | Phase::Open(_) => Some((CloseCode::NORMAL, "")),
            Phase::Idle
            | Phase::Waiting
            | Phase::Authorizing
            | Phase::Dialing(_)
            | Phase::Closing(_)
            | Phase::Ended => None,
        };
        match (other.role, other.phase) {
            (Role::Successor, Phase::Authorizing | Phase::Dialing(_)) => self.retry.unused(),
            (Role::Successor, Phase::Opening(_)) => self.retry.closed(),
            (Role::Successor | Role::Retiring | Role::Current, _) => {}
        }
        self.outputs.push_back(Output::Hangup(other.id, close));
        Some(other)
    }

    /// Whether operations are live on the retiring leg that are to move.
    pub(super) fn is_moving(&self) -> bool {
        self.operations.is_any_moving()
    }

    fn retiring(&mut self) -> Option<&mut Leg> {
        self.legs().find(|leg| leg.role == Role::Retiring)
    }
}

/// How long calls may take on a connection that was replaced.
const GRACE: Duration = Duration::from_secs(30);

/// How long the answer to a probe may take on a connection that was replaced.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// How long the peer has to answer the close of a connection that was replaced.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// When something else is under way.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is held of all operations together, in bytes.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;
