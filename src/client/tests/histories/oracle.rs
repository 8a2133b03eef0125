//! What a stream promises, checked against what its reader saw.
//!
//! Owns the promises: see "What is guaranteed" in the crate's documentation. Knows only what was
//! published and what was read; nothing of connections.

use std::{collections::BTreeSet, time::Duration};

use super::setting::{KEYS, Kind, key_of};
use crate::{delivery::Overflow, error::SubscriptionError, response::Gap};

/// A promise that was broken.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    /// The promise.
    pub(super) claim: &'static str,
    pub(super) detail: String,
}

pub(super) type Checked = Result<(), Violation>;

/// Fails with a broken promise.
pub(super) fn broken(claim: &'static str, detail: impl Into<String>) -> Checked {
    Err(Violation { claim, detail: detail.into() })
}

/// What one reader has seen so far.
#[expect(clippy::struct_excessive_bools, reason = "they are facts about a stream, not its states")]
pub(super) struct Seen {
    kind: Kind,
    /// By key under [`Overflow::LatestBy`], which orders nothing but the items of one key. All
    /// other streams use the first only.
    tracks: [Track; KEYS],
    /// An item was read that has data, so that the stream has a position.
    has_position: bool,
    /// The last request had one.
    is_asked_for_position: bool,
    /// The number of the last item published before the server first began the operation, and the
    /// age of that connection.
    begun: Option<(u64, u64)>,
    /// The same for a newer connection that had begun it before.
    begun_before: Option<u64>,
    pub(super) items: u64,
    highest: u64,
    has_had_calm_gap: bool,
    /// With `dedupe_by`: every item that was read.
    known: BTreeSet<u64>,
    /// How often the reader was told that nothing comes.
    pub(super) stale: u32,
    /// Where the final phase begins: every item after this one is to be read.
    owed_after: Option<u64>,
    /// Of the items that are owed, those that were read.
    read_of_owed: BTreeSet<u64>,
    /// How many were dropped since then.
    dropped_of_owed: u64,
    /// How many were dropped in all.
    dropped: u64,
    /// How many were missing between items of one key.
    missing_of_keys: u64,
    /// Whether the stream has ended, as it may.
    pub(super) is_over: bool,
}

/// What was read in the order of their numbers.
#[derive(Clone, Copy, Default)]
struct Track {
    last: Option<i64>,
    /// The newest item read: up to here nothing is missing that was not said to be.
    newest: i64,
    marks: Marks,
}

/// All gaps since the last item.
#[derive(Clone, Copy, Default, Debug)]
struct Marks {
    /// Something may be missing, and nobody knows how much.
    is_lossy: bool,
    /// The operation was sent again or moved.
    was_sent: bool,
    /// What came before may come again.
    may_repeat: bool,
    dropped: u64,
    replaced: u64,
    /// What the server has left out.
    missing: u64,
}

impl Seen {
    /// Whether there may be items that `dedupe_by` has never seen: a policy has dropped them, or
    /// they came before the reader joined.
    fn has_missed(&self) -> bool {
        self.dropped > 0 || self.kind.is_shared
    }

    pub(super) fn new(kind: Kind) -> Self {
        let mut seen = Self {
            kind,
            tracks: Default::default(),
            has_position: false,
            is_asked_for_position: false,
            begun: None,
            begun_before: None,
            items: 0,
            highest: 0,
            has_had_calm_gap: false,
            known: BTreeSet::new(),
            stale: 0,
            owed_after: None,
            read_of_owed: BTreeSet::new(),
            dropped_of_owed: 0,
            dropped: 0,
            missing_of_keys: 0,
            is_over: false,
        };
        if kind.is_from_start {
            seen.begin(0, 0);
        }
        seen
    }

    /// The server has begun the operation after this item, on the connection of this age. From here
    /// on the stream owes what is published. A reader that joins others is owed nothing before its
    /// first item.
    pub(super) fn begin(&mut self, head: u64, connection: u64) {
        let is_first = self.begun.is_none_or(|(_, known)| connection < known);
        if self.items > 0 || self.kind.is_shared || !is_first {
            return;
        }
        // The newer connection may have carried it alone, and be lost by now with what it
        // delivered.
        self.begun_before = self.begun.map(|(head, _)| head);
        self.begun = Some((head, connection));
        for (key, track) in self.tracks.iter_mut().enumerate() {
            track.last = Some(last_of(head, key, self.kind));
            track.newest = last_of(head, key, self.kind);
        }
    }

    /// The server has read a request, with a position or without.
    pub(super) fn asked(&mut self, has_position: bool) {
        self.is_asked_for_position = has_position;
    }

    /// From here on every item is to be read.
    pub(super) fn owe(&mut self, head: u64) {
        self.owed_after = Some(head);
    }

    pub(super) fn gap(&mut self, gap: &Gap) -> Checked {
        let Kind { overflow, dedupes, resumes, restarts, reissues, counts, is_calm, .. } =
            self.kind;
        if is_calm && gap.times_sent() > 0 && self.has_had_calm_gap {
            let claim = "a busy stream of a prompt server loses nothing when it moves";
            return broken(claim, format!("{gap:?}"));
        }
        // The first handover may come before the first item. Then nobody knows whether the server
        // has begun the operation on the old connection.
        self.has_had_calm_gap |= is_calm && gap.times_sent() > 0;
        if gap.is_empty() {
            return broken("a gap says something", format!("{gap:?}"));
        }
        self.dropped += gap.dropped;
        if dedupes && gap.overlaps > 0 && !self.has_missed() {
            return broken("`dedupe_by` leaves no overlap to announce", format!("{gap:?}"));
        }
        if gap.times_sent() > 0 && resumes && self.has_position && !gap.resumed {
            let claim = if self.is_asked_for_position {
                "a stream with a position loses nothing"
            } else {
                "a position is used as soon as there is one"
            };
            return broken(claim, format!("{gap:?}"));
        }
        if counts && gap.overlaps > 0 || !counts && gap.missing > 0 {
            return broken(
                "numbers leave no overlap, and nothing else says what is missing",
                format!("{gap:?}"),
            );
        }
        let asks = counts && resumes;
        if gap.restarts > 0 && !(restarts || reissues || asks || overflow == Overflow::Rewind) {
            return broken("nothing is restarted that did not ask for it", format!("{gap:?}"));
        }
        let (may_drop, may_replace) = match overflow {
            Overflow::DropOldest | Overflow::DropNewest => (true, false),
            Overflow::Latest | Overflow::LatestBy => (true, true),
            Overflow::Fail | Overflow::Block | Overflow::Rewind => (false, false),
        };
        // What was asked for again is not read, and the stream has ended before it came.
        let may_drop = may_drop || asks && gap.missing > 0;
        if gap.dropped > 0 && !may_drop || gap.replaced > 0 && !may_replace {
            return broken("a policy drops only what it says", format!("{gap:?}"));
        }
        self.dropped_of_owed += if self.owed_after.is_some() { gap.dropped } else { 0 };
        for Track { marks, .. } in &mut self.tracks {
            marks.is_lossy |= gap.times_sent() > 0 && !gap.resumed;
            marks.was_sent |= gap.times_sent() > 0 || gap.overlaps > 0 || gap.resumed;
            marks.may_repeat |= gap.overlaps > 0 || gap.times_sent() > 0 && resumes;
            marks.dropped += gap.dropped;
            marks.replaced += gap.replaced;
            marks.missing += gap.missing;
        }
        Ok(())
    }

    /// An item was read; whether it has data that decodes.
    pub(super) fn item(&mut self, number: u64, is_whole: bool) -> Checked {
        let (key, step) = track_of(number, self.kind);
        let Track { last, newest, marks } = std::mem::take(&mut self.tracks[key]);
        let place = signed(number);
        let is_first = last.is_none();
        self.tracks[key].last = Some(place);
        self.tracks[key].newest = if is_first { place } else { place.max(newest) };
        self.items += 1;
        self.has_position |= is_whole;
        if self.owed_after.is_some_and(|after| number > after) {
            self.read_of_owed.insert(number);
        }
        self.highest = self.highest.max(number);
        if self.kind.dedupes && !self.known.insert(number) {
            return broken("with `dedupe_by` nothing comes twice", number.to_string());
        }
        // It joined others, and this is its first item.
        let Some(last) = last else { return Ok(()) };
        let said = || format!("{number} after {last}, with {marks:?}");
        if self.kind.counts && self.items > 1 {
            return match u64::try_from(place - last) {
                Err(_) | Ok(0) => broken("with numbers nothing comes twice or late", said()),
                Ok(step) if step - 1 > marks.dropped + marks.missing => {
                    broken("with numbers every loss is counted", said())
                }
                Ok(step) if step - 1 < marks.missing => {
                    broken("with numbers every loss is counted once", said())
                }
                Ok(_) => Ok(()),
            };
        }
        if self.items == 1 && self.begun_before.is_some_and(|head| head < number) && place <= last {
            return Ok(());
        }
        if place <= last {
            return match (self.kind.dedupes, marks) {
                // What the new connection has before all that the old one had: it is new.
                (true, Marks { is_lossy: true, .. }) => {
                    self.tracks[key] = Track { last: Some(last), newest, marks };
                    Ok(())
                }
                // A policy has dropped it, so that `dedupe_by` has never seen it.
                (true, Marks { may_repeat: true, .. }) if self.has_missed() => {
                    self.tracks[key] = Track { last: Some(last), newest, marks };
                    Ok(())
                }
                (true, _) => broken("with `dedupe_by` nothing comes after what is newer", said()),
                (false, Marks { may_repeat: true, .. }) => Ok(()),
                (false, _) => broken("a repetition is announced", said()),
            };
        }
        let skipped = u64::try_from((place - last) / step - 1).unwrap();
        // What lies between was read before, if the operation has repeated it.
        let missing = u64::try_from(((place - newest.max(last)) / step - 1).max(0)).unwrap();
        if missing > 0 && !marks.is_lossy {
            match self.kind.overflow {
                // What was replaced is counted before the first item that waits, whatever its key.
                Overflow::LatestBy if self.missing_of_keys + missing <= self.dropped => {
                    self.missing_of_keys += missing;
                }
                _ if marks.dropped >= missing => {}
                _ => return broken("a loss is marked at its place", said()),
            }
        }
        let is_exact = !marks.was_sent && !self.kind.dedupes && !self.kind.counts && step == 1;
        if is_exact && !(missing..=skipped).contains(&marks.dropped) {
            return broken("what is dropped is counted once", said());
        }
        Ok(())
    }

    pub(super) fn stale(&mut self, idle_for: Duration) -> Checked {
        self.stale += 1;
        match self.kind.idle_longer_than {
            Some(limit) if limit <= idle_for => Ok(()),
            limit => {
                broken("a stream is stale only after its time", format!("{idle_for:?} {limit:?}"))
            }
        }
    }

    /// The stream is over; whether its reader was slow.
    pub(super) fn end(&mut self, end: Option<&SubscriptionError>, was_slow: bool) -> Checked {
        self.is_over = true;
        match end {
            // Many items may come at once.
            Some(SubscriptionError::Overflow)
                if self.kind.overflow == Overflow::Fail && (was_slow || !self.kind.is_roomy()) =>
            {
                Ok(())
            }
            end => broken("no stream ends while the server is honest", format!("{end:?}")),
        }
    }

    /// After the final phase: everything since then was published up to this number, and read.
    pub(super) fn check_owed(&self, head: u64) -> Checked {
        let Some(after) = self.owed_after.filter(|_| !self.is_over) else { return Ok(()) };
        let read = self.read_of_owed.len() as u64;
        // What was held in a handover may be more than there is room for.
        if read + self.dropped_of_owed < head - after {
            return broken(
                "once the faults are over every item is read",
                format!("{read} of {after} to {head}, the last is {}", self.highest),
            );
        }
        Ok(())
    }
}

/// The track of an item, and how far apart the items of that track are.
fn track_of(number: u64, kind: Kind) -> (usize, i64) {
    match kind.overflow {
        Overflow::LatestBy => (key_of(number), signed(KEYS)),
        Overflow::DropOldest
        | Overflow::DropNewest
        | Overflow::Latest
        | Overflow::Fail
        | Overflow::Block
        | Overflow::Rewind => (0, 1),
    }
}

/// Where a track stands after `head`.
fn last_of(head: u64, key: usize, kind: Kind) -> i64 {
    let head = signed(head);
    match kind.overflow {
        Overflow::LatestBy => head - (head - signed(key)).rem_euclid(signed(KEYS)),
        Overflow::DropOldest
        | Overflow::DropNewest
        | Overflow::Latest
        | Overflow::Fail
        | Overflow::Block
        | Overflow::Rewind => head,
    }
}

/// Numbers here are small.
fn signed(number: impl TryInto<i64, Error: std::fmt::Debug>) -> i64 {
    number.try_into().unwrap()
}
