//! What the outside knows of operations that are sent again alone.

use std::collections::VecDeque;

use super::*;
use crate::session::operations::Why;

#[derive(Default)]
pub(super) struct Watch {
    /// Of those that were ever asked to be looked after.
    cares: BTreeMap<u64, WatchOptions>,
    /// Live, and to be sent when something has come.
    waits: BTreeMap<u64, Why>,
    /// Whose end is to be judged, in order.
    judged: VecDeque<u64>,
    /// Of the current request.
    last_item: BTreeMap<u64, Instant>,
    /// Said to be stale, without an item since.
    stale: BTreeSet<u64>,
    paused: bool,
}

pub(super) fn watch_options() -> impl Strategy<Value = WatchOptions> {
    let patience = || prop::option::of((1..40_u64).prop_map(secs));
    (any::<bool>(), patience(), patience(), any::<bool>()).prop_map(
        |(restart, first_item_within, idle_longer_than, reissue_stale)| WatchOptions {
            restart,
            first_item_within,
            idle_longer_than,
            reissue_stale,
        },
    )
}

impl History {
    pub(super) fn subscribe_with(&mut self, watch_options: WatchOptions) {
        self.rig.watch_options = watch_options;
        let id = self.rig.subscribe();
        self.rig.watch_options = WatchOptions::default();
        self.model.live.insert(id);
        self.model.watch.cares.insert(id, watch_options);
    }

    /// Of any that was ever made. Only what is on a connection or in quarantine waits for its
    /// reader from then on (rule 26): everything else keeps its place, and a batch its order.
    pub(super) fn rewind(&mut self, id: u64) {
        let is_in_quarantine = self.rig.session.operations.waits(id, Why::Quarantine);
        self.rig.session.rewind(id);
        let model = &mut self.model;
        if model.live.contains(&id) && !model.is_call(id) {
            let gave_up = model.wires.iter_mut().map(|wire| wire.give_up(id));
            if gave_up.fold(is_in_quarantine, |any, it| any | it) {
                model.watch.waits.insert(id, Why::Reader);
            }
        }
    }

    /// Of any that was ever made.
    pub(super) fn catch_up(&mut self, id: u64) {
        self.rig.session.catch_up(self.rig.now, id);
        self.model.watch.released(id, Why::Reader);
    }

    /// The application's word on the end that waits for it the longest.
    pub(super) fn answer_judge(&mut self, restart: bool) {
        let Some(id) = self.model.watch.judged.pop_front() else { return };
        if !restart {
            self.rig.cancel(id);
            self.model.gone(id);
            return;
        }
        self.rig.session.restart(self.rig.now, id);
        if self.model.watch.released(id, Why::Application) {
            self.model.watch.waits.insert(id, Why::Backoff);
        }
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.model.watch.paused = paused;
        if paused { self.rig.session.stall() } else { self.rig.session.unstall(self.rig.now) }
    }
}

impl Model {
    pub(super) fn judge(&mut self, id: u64, end: &End) -> Checked {
        prop_assert!(matches!(end, End::Completed | End::Rejected(_)), "only what the server said");
        prop_assert!(
            self.live.contains(&id)
                && self.watch.cares.get(&id).is_some_and(|watch_options| watch_options.restart)
        );
        prop_assert!(!self.sent().any(|sent| sent == id), "the server has ended it");
        prop_assert_eq!(
            self.watch.waits.insert(id, Why::Application),
            None,
            "I3: what waits is not ended"
        );
        self.watch.judged.push_back(id);
        Ok(())
    }

    pub(super) fn stale(&mut self, now: Instant, id: u64) -> Checked {
        prop_assert!(self.live.contains(&id) && self.wires[0].acked && !self.watch.paused);
        prop_assert!(self.wires[0].carries(id), "nothing can come for it yet");
        let WatchOptions { first_item_within, idle_longer_than, .. } = self.watch.cares[&id];
        match self.watch.last_item.get(&id) {
            Some(last) => prop_assert!(now >= *last + idle_longer_than.unwrap()),
            None => prop_assert!(first_item_within.or(idle_longer_than).is_some()),
        }
        prop_assert!(self.watch.stale.insert(id), "once for each silence");
        Ok(())
    }

    /// Rule 28, for each time that it is sent again.
    pub(super) fn announce(&mut self, now: Instant, id: u64, gap: &Gap) -> Checked {
        prop_assert!(self.wires[0].acked && self.live.contains(&id));
        prop_assert!(self.issued_ever.contains(&id), "a gap only where something was before");
        prop_assert!(!self.is_call(id), "nor in a call");
        prop_assert!(self.reissue_announced.insert(id), "one gap for each time that it is sent");
        prop_assert_eq!(gap.reconnects + gap.restarts, 1);
        prop_assert_eq!(gap.cause.is_some(), gap.reconnects == 1);
        let down_since = self.down_since.remove(&id);
        prop_assert_eq!(gap.reconnects == 1, down_since.is_some(), "{:?}", gap);
        prop_assert_eq!(gap.down_for, down_since.map_or(Duration::ZERO, |since| now - since));
        let waited = self.watch.waits.remove(&id);
        prop_assert!(matches!(waited, None | Some(Why::Backoff)), "before it may: {:?}", waited);
        // It has done no harm on the second connection.
        self.wires[1].give_up(id);
        if self.wires[0].give_up(id) {
            let is_wanted = self.watch.cares.get(&id).is_some_and(|cares| cares.reissue_stale);
            prop_assert!(
                gap.restarts == 1 && is_wanted && self.watch.stale.contains(&id),
                "it runs"
            );
        }
        Ok(())
    }
}

impl Watch {
    /// An operation is written.
    pub(super) fn issued(&mut self, id: u64) -> Checked {
        prop_assert!(!self.waits.contains_key(&id), "I2: what waits is not sent");
        self.last_item.remove(&id);
        self.stale.remove(&id);
        Ok(())
    }

    pub(super) fn received(&mut self, now: Instant, id: u64) {
        self.last_item.insert(id, now);
        self.stale.remove(&id);
    }

    pub(super) fn finished(&mut self, id: u64) {
        self.waits.remove(&id);
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = u64> + Clone {
        self.waits.keys().copied()
    }

    /// What is to be on the socket.
    pub(super) fn waits_for_nothing(&self, id: u64) -> bool {
        !self.waits.contains_key(&id)
    }

    /// Waits for a connection, or for no longer than until there is one.
    pub(super) fn is_sent_with_a_connection(&self, id: u64) -> bool {
        matches!(self.waits.get(&id), None | Some(Why::Backoff))
    }

    fn released(&mut self, id: u64, waits: Why) -> bool {
        let is_so = self.waits.get(&id) == Some(&waits);
        if is_so {
            self.waits.remove(&id);
        }
        is_so
    }
}
