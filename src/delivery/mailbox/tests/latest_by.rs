//! The newest item of each key, by example and against a model that is a list.

use std::collections::HashMap;

use super::*;

/// A mailbox with the places of its keys, as the writer keeps them.
struct Quotes {
    mailbox: Mailbox<u64, &'static str>,
    places: HashMap<u64, u64>,
}

impl Quotes {
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
fn the_newest_of_each_key_is_kept_in_the_order_in_which_the_keys_first_arrived() {
    let mut quotes = Quotes::new(8, 100);
    for (key, item) in [(1, 10), (2, 20), (3, 30)] {
        assert_eq!(quotes.push(key, item, 1), kept(0));
    }
    for (key, item) in [(2, 21), (1, 11), (2, 22)] {
        assert_eq!(quotes.push(key, item, 1), kept(1));
    }
    assert_eq!(quotes.read_all(), ["gap 0r 3d", "11", "22", "30"]);
    assert_eq!(quotes.push(1, 12, 1), kept(0), "what was read is not replaced");
    assert_eq!(quotes.read_all(), ["12"]);
}

#[test]
fn places_are_found_again_after_reads_and_gaps_and_what_was_dropped() {
    let mut quotes = Quotes::new(3, 100);
    for key in 1..=3 {
        quotes.push(key, key * 10, 1);
    }
    assert_eq!(read(&quotes.mailbox).unwrap(), "10");
    quotes.mailbox.push_gap(reconnect());
    assert_eq!(quotes.push(3, 31, 1), kept(1));
    assert_eq!(quotes.push(4, 40, 1), kept(0), "after the mark");
    assert_eq!(quotes.push(5, 50, 1), kept(1), "for want of room");
    assert_eq!(quotes.push(3, 32, 1), kept(1));
    assert_eq!(quotes.push(4, 41, 1), kept(1));
    assert_eq!(quotes.read_all(), ["gap 0r 4d", "32", "gap 1r 0d", "41", "50"]);
}

#[test]
fn a_key_whose_item_was_dropped_begins_anew() {
    let mut quotes = Quotes::new(2, 100);
    for key in [1, 2, 3] {
        quotes.push(key, key * 10, 1);
    }
    assert_eq!(quotes.push(1, 11, 1), kept(1));
    assert_eq!(quotes.read_all(), ["gap 0r 2d", "30", "11"]);
}

#[test]
fn what_replaces_is_bounded_in_bytes_and_never_dropped_for_its_own_size() {
    let mut quotes = Quotes::new(8, 10);
    for key in [1, 2, 3] {
        quotes.push(key, key * 10, 3);
    }
    assert_eq!(quotes.push(2, 21, 5), kept(2), "the oldest goes, and what was replaced");
    assert_eq!(
        quotes.push(2, 22, 8),
        kept(2),
        "the oldest is what is to be replaced: it is the newest then"
    );
    assert_eq!(quotes.mailbox.lock().bytes, 8);
    assert_eq!(quotes.read_all(), ["gap 0r 4d", "22"]);
    quotes.push(1, 10, 1);
    assert_eq!(quotes.push(1, 11, 50), kept(1), "one item always fits");
    assert_eq!(quotes.push(2, 20, 1), kept(1));
    assert_eq!(quotes.read_all(), ["gap 0r 2d", "20"]);
}

#[test]
fn nothing_is_replaced_where_nobody_reads() {
    let mut quotes = Quotes::new(8, 100);
    quotes.push(1, 10, 1);
    quotes.mailbox.finish("end", || {});
    assert_eq!(quotes.push(1, 11, 1), Pushed::Closed);
    assert_eq!(quotes.read_all(), ["10", "end"]);
    assert_eq!(quotes.mailbox.close(&mut Batch::new()).unread, 0);
    assert_eq!(quotes.push(1, 12, 1), Pushed::Closed);
}

/// What is held, as a list.
#[derive(Clone, PartialEq, Debug)]
enum Held {
    Item { key: Option<u64>, item: u64, bytes: usize },
    Gap { reconnects: u32, dropped: u64 },
    Stale,
}

#[derive(Debug)]
struct Model {
    held: Vec<Held>,
    items: usize,
    bytes: usize,
}

impl Model {
    fn sizes(&self) -> Vec<usize> {
        let size =
            |held: &Held| if let Held::Item { bytes, .. } = held { Some(*bytes) } else { None };
        self.held.iter().filter_map(size).collect()
    }

    fn index(&self, wanted: Option<u64>) -> Option<usize> {
        wanted?;
        self.held.iter().position(|held| matches!(held, Held::Item { key, .. } if *key == wanted))
    }

    /// Returns how many were dropped.
    fn push(&mut self, key: Option<u64>, item: u64, bytes: usize) -> usize {
        let mut dropped = 0;
        loop {
            let (old, sizes) = (self.index(key), self.sizes());
            let total = sizes.iter().sum::<usize>() + bytes;
            let fits = match old {
                Some(old) => {
                    let Held::Item { bytes: replaced, .. } = self.held[old] else { unreachable!() };
                    sizes.len() == 1 || total - replaced <= self.bytes
                }
                None => sizes.is_empty() || (sizes.len() < self.items && total <= self.bytes),
            };
            match old {
                Some(old) if fits => {
                    self.held[old] = Held::Item { key, item, bytes };
                    self.held.insert(0, Held::Gap { reconnects: 0, dropped: 1 });
                    self.merge(0);
                    return dropped + 1;
                }
                None if fits => {
                    self.held.push(Held::Item { key, item, bytes });
                    return dropped;
                }
                Some(_) | None => self.drop_oldest(),
            }
            dropped += 1;
        }
    }

    fn drop_oldest(&mut self) {
        let first = self.held.iter().position(|held| matches!(held, Held::Item { .. })).unwrap();
        self.held[first] = Held::Gap { reconnects: 0, dropped: 1 };
        let mut index = 0;
        self.held.retain(|held| {
            index += 1;
            index > first || *held != Held::Stale
        });
        self.merge(0);
    }

    /// Of marks next to each other one is left, from there on.
    fn merge(&mut self, from: usize) {
        while let [Held::Gap { reconnects, dropped }, Held::Gap { reconnects: r, dropped: d }, ..] =
            self.held[from..]
        {
            self.held[from] = Held::Gap { reconnects: reconnects + r, dropped: dropped + d };
            self.held.remove(from + 1);
        }
    }

    fn gap(&mut self) {
        self.held.push(Held::Gap { reconnects: 1, dropped: 0 });
        self.merge(self.held.len().saturating_sub(2));
    }

    fn stale(&mut self) {
        let marks = self.held.iter().rev().take_while(|held| !matches!(held, Held::Item { .. }));
        if !marks.into_iter().any(|mark| *mark == Held::Stale) {
            self.held.push(Held::Stale);
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
    fn whatever_arrives_and_is_read_the_newest_of_each_key_is_held_and_the_rest_is_counted(
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
        let mut quotes = Quotes::new(items, bytes);
        let mut model = Model { held: Vec::new(), items, bytes };
        let (mut pushed, mut seen, mut counted) = (0, 0, 0);
        for step in steps.into_iter().chain(std::iter::repeat_n(Step::Read, 50)) {
            match step {
                Step::Push(key, size) => {
                    pushed += 1;
                    let expected = kept(model.push(key, pushed, size));
                    let actual = match key {
                        Some(key) => quotes.push(key, pushed, size),
                        None => push(&quotes.mailbox, pushed, size),
                    };
                    prop_assert_eq!(actual, expected);
                }
                Step::Gap => {
                    model.gap();
                    quotes.mailbox.push_gap(reconnect());
                }
                Step::Stale => {
                    model.stale();
                    quotes.mailbox.push_stale(Duration::from_secs(1));
                }
                Step::Read => {
                    let next = (!model.held.is_empty()).then(|| model.held.remove(0));
                    let expected = next.map(|held| match held {
                        Held::Item { item, .. } => {
                            seen += 1;
                            item.to_string()
                        }
                        Held::Gap { reconnects, dropped } => {
                            counted += dropped;
                            format!("gap {reconnects}r {dropped}d")
                        }
                        Held::Stale => "stale 1s".to_owned(),
                    });
                    prop_assert_eq!(read(&quotes.mailbox), expected);
                }
            }
            let state = quotes.mailbox.lock();
            let sizes = model.sizes();
            prop_assert_eq!((state.items, state.bytes), (sizes.len(), sizes.iter().sum()));
            prop_assert!(state.items <= items && (state.bytes <= bytes || state.items == 1));
            prop_assert!(state.rest.len() <= 4 * items + 3);
        }
        prop_assert_eq!(seen + counted, pushed);
    }
}
