//! Holding what still arrives for a subscription that was rewound (`Overflow::Rewind`).
//!
//! The server sends items until it has read `complete`. They follow the item for which the reader
//! had no room, so they are held and delivered once the reader has caught up. If they were thrown
//! away, the server would have to send them again.

use std::{ops::Range, time::Instant};

use super::{Backlog, Why};
use crate::{
    protocol::WireId,
    session::{Output, Session, connection::ConnectionId},
};

/// What arrived for an operation after it was rewound.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// Where it was when it was rewound: the connection and the serial there.
    from: Option<(ConnectionId, u64)>,
    stage: Stage,
    /// The items are being delivered.
    is_delivering: bool,
    backlog: Backlog,
}

/// Whether items that arrive late may be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// No: one is missing, or the operation was sent again.
    #[default]
    Over,
    /// Not before the item is held for which the reader had no room.
    Rewound,
    /// Yes: every item since that one is held.
    Holding,
}

impl Late {
    /// What it holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.backlog.bytes()
    }

    pub(super) fn begin(&mut self, from: Option<(ConnectionId, WireId)>) {
        self.from = from.map(|(on, wire_id)| (on, wire_id.serial));
        self.stage = if from.is_some() { Stage::Rewound } else { Stage::Over };
    }

    /// What the reader had no room for is held from the first item on.
    fn go_on(&mut self) {
        if self.stage == Stage::Rewound {
            self.stage = Stage::Holding;
        }
    }

    pub(super) fn is_from(&self, on: ConnectionId, serial: u64) -> bool {
        self.from == Some((on, serial))
    }
}

impl<W: Clone> Session<W> {
    /// The reader had no room for an item, and the operation was rewound. Returns whether the item
    /// is held. If not, the server will send it again.
    pub(crate) fn refused(&mut self, id: u64, frame: &str, payload: Range<usize>) -> bool {
        let is_held = self.may_hold_late(id, frame)
            && self
                .operations
                .change_late(id, |late| {
                    late.backlog.push(frame, payload);
                    late.go_on();
                })
                .is_some();
        if is_held {
            self.counts.items -= 1;
        } else {
            self.counts.discarded += 1;
        }
        is_held
    }

    /// An item arrived under an id that is no longer in use. Returns whether it belongs to an
    /// operation that was rewound. It is then held if no item before it is missing.
    pub(crate) fn hold_late(
        &mut self,
        on: ConnectionId,
        wire_id: WireId,
        frame: &str,
        payload: Range<usize>,
    ) -> bool {
        let operation = self.operations.at(wire_id.slot);
        let operation = operation.filter(|operation| operation.was_rewound(on, wire_id.serial));
        let Some(id) = operation.map(|operation| operation.id) else { return false };
        let may_hold = self.may_hold_late(id, frame);
        let is_held = self.operations.change_late(id, |late| {
            let is_held = may_hold && late.stage == Stage::Holding;
            if is_held {
                late.backlog.push(frame, payload);
            } else {
                late.stage = Stage::Over;
            }
            is_held
        });
        self.counts.discarded += u64::from(is_held != Some(true));
        true
    }

    fn may_hold_late(&self, id: u64, frame: &str) -> bool {
        self.operations.waits(id, Why::Reader)
            && self.operations.held_bytes() + frame.len() <= MAX_LATE_BYTES
    }

    /// The reader has caught up: delivers what is held. If nothing is, the operation is about to be
    /// sent again. Returns whether anything is.
    pub(super) fn deliver_late(&mut self, id: u64) -> bool {
        let backlog = self.operations.change_late(id, |late| {
            late.is_delivering = !late.backlog.is_empty();
            if late.backlog.is_empty() {
                late.stage = Stage::Over;
            }
            std::mem::take(&mut late.backlog)
        });
        let Some(backlog) = backlog.filter(|backlog| !backlog.is_empty()) else { return false };
        let Some(operation) = self.operations.get(id) else { return false };
        self.counts.items += backlog.len() as u64;
        let writer = operation.writer.clone();
        self.outputs.push_back(Output::Deliver { id, writer, backlog });
        true
    }

    /// Holds what the writer did not take, from the first item on. Returns whether it is held.
    pub(super) fn hold_rest(&mut self, id: u64, backlog: Backlog) -> bool {
        backlog.is_whole()
            && self.operations.waits(id, Why::Reader)
            && self
                .operations
                .change_late(id, |late| {
                    late.is_delivering = false;
                    late.go_on();
                    late.backlog = backlog;
                })
                .is_some()
    }

    /// The writer has taken everything. If that was held for its reader, the operation is sent
    /// again.
    pub(super) fn delivered_late(&mut self, now: Instant, id: u64) {
        let was_late =
            self.operations.change_late(id, |late| std::mem::take(&mut late.is_delivering));
        if was_late == Some(true) {
            self.catch_up(now, id);
        }
    }
}

/// How many bytes of late items may be held, counted together with what a handover holds. This
/// leaves room for the handover.
const MAX_LATE_BYTES: usize = 8 * 1024 * 1024;
