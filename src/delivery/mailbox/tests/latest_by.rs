//! Tests of `LatestBy`, by example and against a model that is a list.

use std::collections::HashMap;

use super::*;

/// A mailbox, and the place of each key as the writer stores it.
struct KeyedMailbox {
    mailbox: Mailbox<u64, &'static str>,
    places: HashMap<u64, u64>,
}

impl KeyedMailbox {
    fn new(items: usize, bytes: usize) -> Self {
        Self { mailbox: mailbox(items, bytes, Overflow::LatestBy), places: HashMap::new() }
    }

    fn push(&mut self, key: u64, item: u64, bytes: usize) -> Pushed {
        let (pushed, waker, place) =
            self.mailbox.push_instead(self.places.get(&key).copied(), item, bytes);
        waker.into_iter().for_each(Waker::wake);
        self.places.insert(key, place);
        pushed
    }

    fn read_all(&self) -> Vec<String> {
        read_all(&self.mailbox)
    }
}

fn kept(dropped: usize) -> Pushed {
    Pushed::Kept { dropped }
}

#[test]
fn the_newest_item_of_each_key_is_kept_in_the_order_in_which_the_keys_first_arrived() {
    let mut keyed = KeyedMailbox::new(8, 100);
    for (key, item) in [(1, 10), (2, 20), (3, 30)] {
        assert_eq!(keyed.push(key, item, 1), kept(0));
    }
    for (key, item) in [(2, 21), (1, 11), (2, 22)] {
        assert_eq!(keyed.push(key, item, 1), kept(1));
    }
    assert_eq!(keyed.read_all(), ["gap 0r 3d", "11", "22", "30"]);
    assert_eq!(keyed.push(1, 12, 1), kept(0), "an item that was read is not replaced");
    assert_eq!(keyed.read_all(), ["12"]);
}

#[test]
fn an_item_is_found_at_its_place_after_reads_gaps_and_drops() {
    let mut keyed = KeyedMailbox::new(3, 100);
    for key in 1..=3 {
        keyed.push(key, key * 10, 1);
    }
    assert_eq!(read(&keyed.mailbox).unwrap(), "10");
    keyed.mailbox.push_gap(reconnect());
    assert_eq!(keyed.push(3, 31, 1), kept(1));
    assert_eq!(keyed.push(4, 40, 1), kept(0), "it goes after the gap");
    assert_eq!(keyed.push(5, 50, 1), kept(1), "the queue was full");
    assert_eq!(keyed.push(3, 32, 1), kept(1));
    assert_eq!(keyed.push(4, 41, 1), kept(1));
    assert_eq!(keyed.read_all(), ["gap 0r 4d", "32", "gap 1r 0d", "41", "50"]);
}

#[test]
fn a_key_whose_item_was_dropped_goes_to_the_back() {
    let mut keyed = KeyedMailbox::new(2, 100);
    for key in [1, 2, 3] {
        keyed.push(key, key * 10, 1);
    }
    assert_eq!(keyed.push(1, 11, 1), kept(1));
    assert_eq!(keyed.read_all(), ["gap 0r 2d", "30", "11"]);
}

#[test]
fn a_replacement_counts_its_bytes_and_is_never_dropped_for_its_own_size() {
    let mut keyed = KeyedMailbox::new(8, 10);
    for key in [1, 2, 3] {
        keyed.push(key, key * 10, 3);
    }
    assert_eq!(keyed.push(2, 21, 5), kept(2), "the oldest item and the replaced one");
    assert_eq!(
        keyed.push(2, 22, 8),
        kept(2),
        "the item to be replaced was the oldest, so the new one goes to the back"
    );
    assert_eq!(keyed.mailbox.lock().bytes, 8);
    assert_eq!(keyed.read_all(), ["gap 0r 4d", "22"]);
    keyed.push(1, 10, 1);
    assert_eq!(keyed.push(1, 11, 50), kept(1), "one item always fits");
    assert_eq!(keyed.push(2, 20, 1), kept(1));
    assert_eq!(keyed.read_all(), ["gap 0r 2d", "20"]);
}

#[test]
fn nothing_is_replaced_after_the_end() {
    let mut keyed = KeyedMailbox::new(8, 100);
    keyed.push(1, 10, 1);
    keyed.mailbox.finish("end", || {});
    assert_eq!(keyed.push(1, 11, 1), Pushed::Closed);
    assert_eq!(keyed.read_all(), ["10", "end"]);
    assert_eq!(keyed.mailbox.close(&mut Batch::new()).unread, 0);
    assert_eq!(keyed.push(1, 12, 1), Pushed::Closed);
}

/// An entry of the model's queue.
#[derive(Clone, PartialEq, Debug)]
enum ModelEntry {
    Item { key: Option<u64>, item: u64, bytes: usize },
    Gap { reconnects: u32, dropped: u64 },
    Stale,
}

#[derive(Debug)]
struct Model {
    entries: Vec<ModelEntry>,
    items: usize,
    bytes: usize,
}

impl Model {
    fn sizes(&self) -> Vec<usize> {
        let size = |entry: &ModelEntry| {
            if let ModelEntry::Item { bytes, .. } = entry { Some(*bytes) } else { None }
        };
        self.entries.iter().filter_map(size).collect()
    }

    fn index(&self, wanted: Option<u64>) -> Option<usize> {
        wanted?;
        self.entries
            .iter()
            .position(|entry| matches!(entry, ModelEntry::Item { key, .. } if *key == wanted))
    }

    /// Returns the number of dropped items.
    fn push(&mut self, key: Option<u64>, item: u64, bytes: usize) -> usize {
        let mut dropped = 0;
        loop {
            let (old, sizes) = (self.index(key), self.sizes());
            let total = sizes.iter().sum::<usize>() + bytes;
            let fits = match old {
                Some(old) => {
                    let ModelEntry::Item { bytes: replaced, .. } = self.entries[old] else {
                        unreachable!()
                    };
                    sizes.len() == 1 || total - replaced <= self.bytes
                }
                None => self.has_room(bytes),
            };
            match old {
                Some(old) if fits => {
                    self.entries[old] = ModelEntry::Item { key, item, bytes };
                    self.entries.insert(0, ModelEntry::Gap { reconnects: 0, dropped: 1 });
                    self.merge(0);
                    return dropped + 1;
                }
                None if fits => {
                    self.entries.push(ModelEntry::Item { key, item, bytes });
                    return dropped;
                }
                Some(_) | None => self.drop_oldest(),
            }
            dropped += 1;
        }
    }

    fn drop_oldest(&mut self) {
        let first =
            self.entries.iter().position(|entry| matches!(entry, ModelEntry::Item { .. })).unwrap();
        self.entries[first] = ModelEntry::Gap { reconnects: 0, dropped: 1 };
        let mut index = 0;
        self.entries.retain(|entry| {
            index += 1;
            index > first || *entry != ModelEntry::Stale
        });
        self.merge(0);
    }

    /// Merges adjacent gaps, from this index on.
    fn merge(&mut self, from: usize) {
        while let [
            ModelEntry::Gap { reconnects, dropped },
            ModelEntry::Gap { reconnects: r, dropped: d },
            ..,
        ] = self.entries[from..]
        {
            self.entries[from] =
                ModelEntry::Gap { reconnects: reconnects + r, dropped: dropped + d };
            self.entries.remove(from + 1);
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        let sizes = self.sizes();
        let total = sizes.iter().sum::<usize>() + bytes;
        sizes.is_empty() || (sizes.len() < self.items && total <= self.bytes)
    }

    fn gap(&mut self, reconnects: u32, dropped: u64) {
        self.entries.push(ModelEntry::Gap { reconnects, dropped });
        self.merge(self.entries.len().saturating_sub(2));
    }

    fn stale(&mut self) {
        let markers =
            self.entries.iter().rev().take_while(|entry| !matches!(entry, ModelEntry::Item { .. }));
        if !markers.into_iter().any(|marker| *marker == ModelEntry::Stale) {
            self.entries.push(ModelEntry::Stale);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(Option<u64>, usize),
    Gap,
    Stale,
    Read,
}

proptest! {
    /// I4, I5 and I14 under `LatestBy`.
    #[test]
    fn the_newest_item_of_each_key_is_kept_and_all_others_are_read_or_counted(
        items in 1..7_usize,
        steps in prop::collection::vec(prop_oneof![
            6 => (0..8_u64, 1..5_usize).prop_map(|(key, bytes)| Step::Push(Some(key), bytes)),
            1 => (0..8_u64, 5..30_usize).prop_map(|(key, bytes)| Step::Push(Some(key), bytes)),
            1 => (1..5_usize).prop_map(|bytes| Step::Push(None, bytes)),
            1 => Just(Step::Gap),
            1 => Just(Step::Stale),
            3 => Just(Step::Read),
        ], 0..200),
    ) {
        let bytes = items * 3;
        let mut keyed = KeyedMailbox::new(items, bytes);
        let mut model = Model { entries: Vec::new(), items, bytes };
        let (mut pushed, mut seen, mut counted) = (0, 0, 0);
        for step in steps.into_iter().chain(std::iter::repeat_n(Step::Read, 50)) {
            match step {
                Step::Push(key, size) => {
                    pushed += 1;
                    let expected = match key {
                        None if !model.has_room(size) => {
                            model.gap(0, 1);
                            Pushed::Dropped
                        }
                        Some(_) | None => kept(model.push(key, pushed, size)),
                    };
                    let actual = match key {
                        Some(key) => keyed.push(key, pushed, size),
                        None => keyed.mailbox.push_or_drop(pushed, size).0,
                    };
                    prop_assert_eq!(actual, expected);
                }
                Step::Gap => {
                    model.gap(1, 0);
                    keyed.mailbox.push_gap(reconnect());
                }
                Step::Stale => {
                    model.stale();
                    keyed.mailbox.push_stale(Duration::from_secs(1));
                }
                Step::Read => {
                    let next = (!model.entries.is_empty()).then(|| model.entries.remove(0));
                    let expected = next.map(|entry| match entry {
                        ModelEntry::Item { item, .. } => {
                            seen += 1;
                            item.to_string()
                        }
                        ModelEntry::Gap { reconnects, dropped } => {
                            counted += dropped;
                            format!("gap {reconnects}r {dropped}d")
                        }
                        ModelEntry::Stale => "stale 1s".to_owned(),
                    });
                    prop_assert_eq!(read(&keyed.mailbox), expected);
                }
            }
            let state = keyed.mailbox.lock();
            let sizes = model.sizes();
            prop_assert_eq!((state.items, state.bytes), (sizes.len(), sizes.iter().sum()));
            prop_assert!(state.items <= items && (state.bytes <= bytes || state.items == 1));
            prop_assert!(state.rest.len() <= 4 * items + 3);
        }
        prop_assert_eq!(seen + counted, pushed);
    }
}
