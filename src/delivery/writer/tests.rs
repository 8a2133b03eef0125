//! Tests of the hooks, and of the order in which readers learn of an end.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll, Wake},
};

use serde_json::{Value, json, value::to_raw_value};

use super::*;
use crate::delivery::{
    Overflow,
    mailbox::{Batch, Read},
};
use crate::response::{CallEnd, ConnectionEnd, StreamEnd};

fn limits(items: usize, overflow: Overflow) -> Limits {
    Limits { items: NonZeroUsize::new(items).unwrap(), bytes: NonZeroUsize::MAX, overflow }
}

fn writer(overflow: Overflow, hooks: Hooks) -> Writer {
    Writer::new(1, limits(2, overflow), Some(hooks))
}

fn push(writer: &Writer, payload: &str) -> Result<Pushed, SharedError> {
    let frame = format!(r#"{{"type":"next","id":"1.0","payload":{payload}}}"#);
    let json = frame.len() - 1 - payload.len()..frame.len() - 1;
    writer.push(Payload::new(frame.clone(), json), &frame).map(|(pushed, _)| pushed)
}

fn read(writer: &Writer, waker: &Waker) -> Option<Result<Value, u64>> {
    match writer.mailbox.poll_read(&mut Batch::new(), &mut Context::from_waker(waker)) {
        Poll::Ready(Some(Read::Item(payload))) => {
            Some(Ok(payload.decode::<Value>().unwrap()["data"].clone()))
        }
        Poll::Ready(Some(Read::Gap(gap))) => Some(Err(gap.dropped)),
        Poll::Ready(Some(Read::Stale(_) | Read::End(_)) | None) | Poll::Pending => None,
    }
}

type Numbers = HashMap<String, u64>;

/// Hooks that resume after the number in the data and restart after any error.
fn resuming() -> Hooks {
    let resume = After(|data: &Numbers| to_raw_value(&data["n"]));
    let restart: RestartHook = Box::new(|errors| !errors.is_empty());
    Hooks::new(Some(Box::new(resume)), None, Some(restart), None, false).unwrap()
}

/// Resumes items of numbers with this hook.
struct After<F>(F);

impl<F> Resume for After<F>
where
    F: FnMut(&Numbers) -> Result<Box<RawValue>, serde_json::Error> + Send,
{
    fn decodes(&self, item: &Payload) -> bool {
        decode::<Numbers>(item).is_ok_and(|item| item.data.is_some())
    }

    fn request_after(
        &mut self,
        item: &Payload,
        _row: Option<usize>,
    ) -> Result<Box<RawValue>, SharedError> {
        let data = decode::<Numbers>(item).unwrap().data.unwrap();
        (self.0)(&data).map_err(|error| Arc::new(error) as SharedError)
    }

    fn without_position(
        &mut self,
        errors: &[GraphQlError],
    ) -> Option<Result<Box<RawValue>, SharedError>> {
        let is_lost = errors.iter().any(|error| error.message == "lost");
        is_lost.then(|| Ok(to_raw_value(&0).unwrap()))
    }
}

fn resume(writer: &Writer) -> (Option<u64>, bool, Vec<String>) {
    let mut gap = Gap::default();
    let request = match writer.position().unwrap() {
        Continue::After(request) | Continue::Anew(request) => Some(request),
        Continue::Unchanged | Continue::Anywhere => None,
    };
    writer.reissued(&mut gap);
    let errors = gap.errors.into_iter().map(|error| error.message).collect();
    (request.map(|request| request.get().parse().unwrap()), gap.resumed, errors)
}

fn error(message: &str) -> String {
    json!({"errors": [{"message": message}]}).to_string()
}

#[test]
fn an_operation_resumes_after_the_last_item_with_data_and_its_gap_is_marked_resumed() {
    let writer = writer(Overflow::DropOldest, resuming());
    assert_eq!(resume(&writer), (None, false, vec![]), "nothing has arrived");
    for item in [r#"{"data":{"n":1}}"#, r#"{"errors":[],"data":{"n":2}}"#, r#"{ "data": {"n":3} }"#]
    {
        push(&writer, item).unwrap();
    }
    for without_data in [&error("e"), r#"{"data":null}"#, "{}", "null", "7", "garbage"] {
        push(&writer, without_data).unwrap();
    }
    assert_eq!(resume(&writer), (Some(3), true, vec![]));
    assert_eq!(resume(&writer), (None, true, vec![]), "the request has that position already");
    push(&writer, r#"{"data":{"n":4}}"#).unwrap();
    assert_eq!(resume(&writer), (Some(4), true, vec![]));
}

#[test]
fn an_item_that_does_not_decode_leaves_the_position_unchanged() {
    let writer = writer(Overflow::DropOldest, resuming());
    push(&writer, r#"{"data":{"n":"one"}}"#).unwrap();
    assert_eq!(resume(&writer), (None, false, vec![]));
    push(&writer, r#"{"data":{"n":1}}"#).unwrap();
    assert_eq!(resume(&writer), (Some(1), true, vec![]));
    push(&writer, r#"{"data":{"n":"two"}}"#).unwrap();
    assert_eq!(resume(&writer), (None, true, vec![]));
}

#[test]
fn rule_28a_the_position_is_that_of_the_last_item_that_decodes_however_many_follow() {
    for odd in [r#"{"data":{"n":"many"}}"#, r#"{"data":{"n":1e999}}"#, r#"{"data":{"n":"\ud83d"}}"#]
    {
        for count in [1, 31, 32, 33, 100] {
            let writer = Writer::new(1, limits(1_000, Overflow::DropOldest), Some(resuming()));
            for n in 1..=5 {
                push(&writer, &json!({"data": {"n": n}}).to_string()).unwrap();
            }
            for _ in 0..count {
                push(&writer, odd).unwrap();
            }
            assert_eq!(resume(&writer).0, Some(5), "{count} times {odd}");
            assert_eq!(resume(&writer), (None, true, vec![]), "it stays where it is");
            push(&writer, r#"{"data":{"n":6}}"#).unwrap();
            assert_eq!(resume(&writer).0, Some(6));
        }
    }
}

#[test]
fn under_rewind_an_item_without_a_position_that_comes_again_is_delivered_once() {
    let odd = r#"{"data":{"n":"odd"}}"#;
    let writer = Writer::new(1, limits(1_000, Overflow::Rewind), Some(resuming()));
    for item in [r#"{"data":{"n":5}}"#, odd, odd] {
        push(&writer, item).unwrap();
    }
    for _ in 0..2 {
        resume(&writer);
        // Those two come again, and then another one.
        assert_eq!(push(&writer, odd).unwrap(), Pushed::Repeated);
        assert_eq!(push(&writer, odd).unwrap(), Pushed::Repeated);
    }
    assert_eq!(push(&writer, odd).unwrap(), Pushed::Kept { dropped: 0 });
    push(&writer, r#"{"data":{"n":6}}"#).unwrap();
    resume(&writer);
    assert_eq!(push(&writer, odd).unwrap(), Pushed::Kept { dropped: 0 }, "a new one behind 6");
}

#[test]
fn an_error_without_data_that_comes_again_is_left_out_only_where_nothing_else_came() {
    let writer = Writer::new(1, limits(1_000, Overflow::Rewind), Some(resuming()));
    push(&writer, r#"{"data":{"n":5}}"#).unwrap();
    push(&writer, &error("e")).unwrap();
    resume(&writer);
    assert_eq!(push(&writer, &error("e")).unwrap(), Pushed::Kept { dropped: 0 });
    resume(&writer);
    assert_eq!(push(&writer, &error("e")).unwrap(), Pushed::Repeated);
}

#[test]
fn only_an_item_that_was_accepted_or_counted_moves_the_position() {
    for (overflow, pushed, position) in [
        (Overflow::Rewind, Pushed::Rewind, 2),
        (Overflow::Fail, Pushed::Overflowed, 2),
        (Overflow::DropNewest, Pushed::Dropped, 3),
    ] {
        let writer = writer(overflow, resuming());
        for n in 1..=2 {
            assert_eq!(
                push(&writer, &json!({"data": {"n": n}}).to_string()).unwrap(),
                Pushed::Kept { dropped: 0 }
            );
        }
        assert_eq!(push(&writer, r#"{"data":{"n":3}}"#).unwrap(), pushed);
        assert_eq!(resume(&writer).0, Some(position), "{overflow:?}");
    }
}

#[test]
fn restart_if_gets_the_errors_of_the_end_or_of_the_last_item_without_data() {
    let writer = writer(Overflow::DropOldest, resuming());
    let rejected = |payload: &str| End::Rejected(Some(payload.into()));
    assert!(!writer.is_transient(&End::Completed).unwrap());
    assert!(writer.is_transient(&rejected(r#"[{"message":"r"}]"#)).unwrap());
    assert_eq!(resume(&writer).2, ["r"], "the gap has the errors of the end");
    assert_eq!(resume(&writer).2, [""; 0], "only the first gap has them");

    push(&writer, &error("a")).unwrap();
    push(&writer, &error("b")).unwrap();
    assert!(writer.is_transient(&End::Completed).unwrap());
    assert_eq!(resume(&writer).2, ["b"]);
    assert!(
        !writer.is_transient(&End::Completed).unwrap(),
        "errors from before the restart do not count"
    );

    for followed_by in
        [r#"{"data":{"n":1}}"#, r#"{"data":{"n":1},"errors":[{"message":"partial"}]}"#, "null"]
    {
        push(&writer, &error("c")).unwrap();
        push(&writer, followed_by).unwrap();
        assert!(!writer.is_transient(&End::Completed).unwrap(), "{followed_by}");
    }
    push(&writer, &error("d")).unwrap();
    resume(&writer);
    assert!(!writer.is_transient(&End::Completed).unwrap(), "nor errors from before a reconnect");
    push(&writer, &error("e")).unwrap();
    assert!(
        !writer.is_transient(&rejected("[]")).unwrap(),
        "an error message of the server counts, even without errors"
    );
}

#[test]
fn restart_if_is_asked_only_about_ends_that_the_server_sent() {
    let always = || Hooks::new(None, None, Some(Box::new(|_| true)), None, false).unwrap();
    let transient = |hooks, end| {
        Writer::new(1, limits(2, Overflow::DropOldest), hooks).is_transient(&end).unwrap()
    };
    for end in [End::Completed, End::Rejected(None)] {
        assert!(transient(Some(always()), end.clone()));
        assert!(!transient(None, end.clone()));
        assert!(!transient(Some(Hooks { restart: None, ..always() }), end));
    }
    for end in [
        End::Stream(StreamEnd::Overflow),
        End::Connection(ConnectionEnd::ShutDown),
        End::Call(CallEnd::TimedOut),
        End::Call(CallEnd::Ambiguous(None)),
    ] {
        assert!(!transient(Some(always()), end));
    }
    assert!(Hooks::new(None, None, None, None, false).is_none());
}

#[test]
fn a_panic_in_a_hook_is_an_error_that_names_the_hook() {
    let resume = Box::new(After(|_: &Numbers| panic!("on purpose")));
    let keys = ByKey::new(
        |_: &Value| -> Option<u64> { panic!("on purpose") },
        limits(2, Overflow::LatestBy),
    );
    let hooks = |resume, keys, restart| {
        writer(Overflow::LatestBy, Hooks::new(resume, keys, restart, None, false).unwrap())
    };
    let text = |error: SharedError| error.to_string();

    let resuming = hooks(Some(resume), None, None);
    push(&resuming, r#"{"data":{}}"#).unwrap();
    assert_eq!(text(resuming.position().unwrap_err()), "`resume_with` panicked");
    let keyed = hooks(None, Some(Box::new(keys)), None);
    assert_eq!(text(push(&keyed, r#"{"data":{}}"#).unwrap_err()), "`latest_by` panicked");
    assert_eq!(read(&keyed, Waker::noop()), None, "the item was not kept");
    let restarting = hooks(None, None, Some(Box::new(|_| panic!("on purpose"))));
    assert_eq!(
        text(restarting.is_transient(&End::Completed).unwrap_err()),
        "`restart_if` panicked"
    );
}

#[test]
fn a_place_is_freed_once_and_before_the_reader_is_woken() {
    /// Records how many places are taken when the reader is woken.
    struct RecordTaken(Arc<AtomicUsize>, AtomicUsize);
    impl Wake for RecordTaken {
        fn wake(self: Arc<Self>) {
            self.1.store(self.0.load(Relaxed), Relaxed);
        }
    }
    let (taken, writer) =
        (Arc::new(AtomicUsize::new(2)), Writer::new(1, limits(2, Overflow::DropOldest), None));
    let record = Arc::new(RecordTaken(Arc::clone(&taken), AtomicUsize::new(2)));
    let free = || {
        taken.fetch_sub(1, Relaxed);
    };
    assert_eq!(read(&writer, &Waker::from(record.clone())), None);
    writer.finish(End::Completed, free);
    assert_eq!(record.1.load(Relaxed), 1);
    writer.finish(End::Connection(ConnectionEnd::ShutDown), free);
    assert!(!writer.mailbox.close(&mut Batch::new()).was_open);
    assert_eq!(taken.load(Relaxed), 1);
}

#[test]
fn a_request_that_does_not_serialize_is_an_error() {
    let resume = Box::new(After(|_: &Numbers| Err(serde::ser::Error::custom("on purpose"))));
    let writer =
        writer(Overflow::DropOldest, Hooks::new(Some(resume), None, None, None, false).unwrap());
    push(&writer, r#"{"data":{}}"#).unwrap();
    assert_eq!(writer.position().unwrap_err().to_string(), "on purpose");
}

/// Data is `[key, value]`.
fn keyed(items: usize) -> Writer {
    let limits = limits(items, Overflow::LatestBy);
    let keys = Box::new(ByKey::new(|data: &(u64, u64)| Some(data.0), limits));
    Writer::new(1, limits, Hooks::new(None, Some(keys), None, None, false))
}

#[test]
fn the_newest_item_of_each_key_and_every_item_without_a_key_is_kept() {
    let writer = keyed(8);
    let dropped = ["[1,1]", "[2,1]", "7", "null", "[1,2]", "7"].map(|data| {
        let pushed = push(&writer, &format!(r#"{{"data":{data}}}"#)).unwrap();
        if let Pushed::Kept { dropped } = pushed { dropped } else { panic!("{pushed:?}") }
    });
    assert_eq!(dropped, [0, 0, 0, 0, 1, 0]);
    let seen: Vec<_> = std::iter::from_fn(|| read(&writer, Waker::noop())).collect();
    let items = [json!([1, 2]), json!([2, 1]), json!(7), json!(null), json!(7)].map(Ok);
    assert_eq!(seen, [vec![Err(1)], items.to_vec()].concat());
}

#[test]
fn an_item_without_a_key_takes_the_place_of_no_other() {
    let writer = keyed(2);
    let pushed = ["[1,1]", "[2,1]", "7", "[1,2]"]
        .map(|data| push(&writer, &format!(r#"{{"data":{data}}}"#)).unwrap());
    assert_eq!(pushed[2..], [Pushed::Dropped, Pushed::Kept { dropped: 1 }]);
    let seen: Vec<_> = std::iter::from_fn(|| read(&writer, Waker::noop())).collect();
    assert_eq!(seen, [Err(1), Ok(json!([1, 2])), Ok(json!([2, 1])), Err(1)]);
}

#[test]
fn what_arrives_before_the_answer_to_a_request_for_missing_items_moves_no_position() {
    let resume = After(|data: &Numbers| to_raw_value(&data["n"]));
    let recent = Some(Recent::new(NonZeroUsize::MAX));
    let hooks = Hooks::new(Some(Box::new(resume)), None, None, recent, false);
    let writer = Writer::new(1, limits(1_000, Overflow::DropOldest), hooks);
    let item = |n: u64| json!({"data": {"n": n}}).to_string();
    for n in [1, 5] {
        push(&writer, &item(n)).unwrap();
    }
    let first = item(1);
    writer.ask_after(&Payload::new(first.clone(), 0..first.len()), 0).unwrap();
    push(&writer, &item(6)).unwrap();
    assert_eq!(resume_with_gap(&writer), (Some(1), true));
    assert_eq!(resume_with_gap(&writer), (None, false), "the request has that position");
    writer.push_gap(Gap { restarts: 1, ..Gap::default() });
    for n in [2, 5, 6] {
        let pushed = push(&writer, &item(n)).unwrap();
        assert_eq!(pushed, Pushed::Kept { dropped: 0 }, "{n} was skipped, and comes again");
    }
    assert_eq!(resume_with_gap(&writer), (Some(6), false));
}

/// The next request, and whether the gap marks the answer to the reader's own.
fn resume_with_gap(writer: &Writer) -> (Option<u64>, bool) {
    let request = match writer.position().unwrap() {
        Continue::After(request) => Some(request.get().parse().unwrap()),
        Continue::Anew(_) | Continue::Unchanged | Continue::Anywhere => None,
    };
    let mut gap = Gap::default();
    writer.reissued(&mut gap);
    (request, gap.is_answer)
}

#[test]
fn a_position_that_is_lost_is_not_used_again() {
    let writer = writer(Overflow::DropOldest, resuming());
    push(&writer, r#"{"data":{"n":1}}"#).unwrap();
    assert_eq!(resume(&writer), (Some(1), true, vec![]));
    push(&writer, r#"{"data":{"n":2}}"#).unwrap();
    let lost = || End::Rejected(Some(json!([{"message": "lost"}]).to_string().into()));
    assert!(writer.is_transient(&lost()).unwrap());
    assert_eq!(resume(&writer), (Some(0), false, vec!["lost".into()]), "the request without it");
    assert_eq!(resume(&writer), (None, false, vec![]), "not after 2, either");
    push(&writer, r#"{"data":{"n":9}}"#).unwrap();
    assert_eq!(resume(&writer), (Some(9), true, vec![]));
}

#[test]
fn an_item_with_a_key_wakes_a_waiting_reader() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let (writer, count) = (keyed(2), Arc::new(Count(0.into())));
    assert_eq!(read(&writer, &Waker::from(count.clone())), None);
    let frame = r#"{"data":[1,1]}"#;
    let (_, waker) = writer.push(Payload::new(frame.to_owned(), 0..frame.len()), frame).unwrap();
    waker.unwrap().wake();
    assert_eq!(count.0.load(Relaxed), 1);
}

#[test]
fn only_keys_of_items_that_left_the_queue_are_forgotten() {
    let limits = limits(4, Overflow::LatestBy);
    let mut keys = ByKey::new(|data: &(u64, u64)| Some(data.0), limits);
    let mailbox = Mailbox::<Payload, End>::new(limits);
    let item = |key: u64| {
        let frame = json!({"data": [key, key]}).to_string();
        let json = 0..frame.len();
        Payload::new(frame, json)
    };
    for key in 0..2_000 {
        // Push each key twice: the second item replaces the first. As many markers as possible are
        // between two keys.
        for dropped in [usize::from(key >= 4), 1] {
            let Replaces::Key(place) = keys.replaces(&item(key)) else { panic!("it has one") };
            let (pushed, _, place) = mailbox.push_instead(place, item(key), 1);
            keys.kept_at(place);
            assert_eq!(pushed, Pushed::Kept { dropped }, "key {key}");
        }
        mailbox.push_gap(Gap::default());
        mailbox.push_stale(std::time::Duration::ZERO);
        mailbox.push_gap(Gap::default());
        if key >= 3 {
            // The key of the oldest item in the queue is still known.
            let Replaces::Key(Some(oldest)) = keys.replaces(&item(key - 3)) else {
                panic!("it is known")
            };
            let (pushed, _, place) = mailbox.push_instead(Some(oldest), item(key - 3), 1);
            keys.kept_at(place);
            assert_eq!((pushed, place), (Pushed::Kept { dropped: 1 }, oldest), "key {key}");
        }
        assert!(
            keys.known.len() == keys.places.len() && keys.places.len() <= 40,
            "{} keys",
            keys.places.len()
        );
    }
}
