//! What the parts without I/O cost: the check of a document, and one event in the envelope, the
//! session, a mailbox and the decoder.
//!
//! Each group has a baseline: the least that a hand-written client does for the same. Ratios to it
//! travel; figures are one machine's. What must hold: a payload is located in the same time at
//! every size; a step of the session takes nearly the same time with 10,000 operations as with one;
//! neither allocates, nor does an item on its way through a mailbox to a reader that keeps up.

use std::time::Duration;

use divan::{AllocProfiler, Divan};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    // Long enough for allocator and caches to settle; arguments overrule it.
    Divan::default().min_time(Duration::from_millis(300)).config_with_args().main();
}

/// What is received.
mod feed {
    use serde::Deserialize;

    /// Bytes of a frame, about.
    pub(super) const SIZES: [usize; 3] = [150, 2_048, 65_536];

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "decoded for what it costs")]
    pub(super) struct Data {
        trades: Vec<Trade>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "decoded for what it costs")]
    pub(super) struct Trade {
        pub(super) at: u64,
        pub(super) symbol: String,
        price: f64,
        pub(super) size: u32,
        side: String,
    }

    /// In the order of fields that the prefix scan knows.
    pub(super) fn frame(id: &str, bytes: usize) -> String {
        format!(r#"{{"id":"{id}","type":"next","payload":{}}}"#, payload(bytes))
    }

    /// The payload of a frame of so many bytes: as many trades as fit, at least one.
    pub(super) fn payload(bytes: usize) -> String {
        let trade = concat!(
            r#"{"at":1000000000000000,"symbol":"BTC-USD","#,
            r#""price":64123.25,"size":250,"side":"SELL"}"#
        );
        let trades = vec![trade; (bytes / (trade.len() + 1)).max(1)].join(",");
        format!(r#"{{"data":{{"trades":[{trades}]}}}}"#)
    }
}

/// Finding the payload in a frame.
#[divan::bench_group(sample_size = 100)]
mod envelope {
    use std::ops::Range;

    use divan::{Bencher, black_box, counter::BytesCount};
    use resub::bench::{parse, parse_fully};

    use super::feed::{SIZES, frame, payload};

    fn read(bencher: Bencher<'_, '_>, frame: &str, reader: fn(&str) -> Option<Range<usize>>) {
        assert!(reader(frame).is_some());
        bencher.counter(BytesCount::of_str(frame)).bench(|| reader(black_box(frame)));
    }

    /// The reference parser, as a hand-written client would use it.
    #[divan::bench(args = SIZES)]
    fn baseline(bencher: Bencher<'_, '_>, bytes: usize) {
        read(bencher, &frame("1.0", bytes), parse_fully);
    }

    #[divan::bench(args = SIZES)]
    fn located(bencher: Bencher<'_, '_>, bytes: usize) {
        read(bencher, &frame("1.0", bytes), parse);
    }

    /// The id follows the payload, which only the reference parser can tell.
    #[divan::bench(args = SIZES)]
    fn declined(bencher: Bencher<'_, '_>, bytes: usize) {
        read(
            bencher,
            &format!(r#"{{"type":"next","payload":{},"id":"1.0"}}"#, payload(bytes)),
            parse,
        );
    }
}

/// What an operation costs before it is handed over, by the bytes of its document. The baseline
/// serializes the request, which every client does; what must hold: a document that was checked
/// before costs no more than that again.
#[divan::bench_group(sample_size = 100)]
mod document {
    use divan::{Bencher, black_box, counter::BytesCount};
    use resub::bench::Documents;
    use serde::Serialize;
    use serde_json::value::{RawValue, to_raw_value};

    use super::feed::SIZES;

    fn document(bytes: usize) -> String {
        let selection = "symbol price size side at ";
        let selections = selection.repeat((bytes / selection.len()).max(1));
        format!(
            "subscription Trades($symbol: String) {{ trades(symbol: $symbol) {{ {selections}}} }}"
        )
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Request<'a> {
        query: &'a str,
        variables: Variables<'a>,
        operation_name: &'a str,
    }

    #[derive(Serialize)]
    struct Variables<'a> {
        symbol: &'a str,
    }

    fn request(document: &str) -> Box<RawValue> {
        let variables = Variables { symbol: "BTC-USD" };
        let request = Request { query: document, variables, operation_name: "Trades" };
        to_raw_value(&request).unwrap_or_default()
    }

    #[divan::bench(args = SIZES)]
    fn baseline(bencher: Bencher<'_, '_>, bytes: usize) {
        let document = document(bytes);
        bencher.counter(BytesCount::of_str(&document)).bench(|| request(black_box(&document)));
    }

    #[divan::bench(args = SIZES)]
    fn check_again(bencher: Bencher<'_, '_>, bytes: usize) {
        let (document, documents) = (document(bytes), Documents::default());
        let request = request(&document);
        assert!(documents.check(&request).is_some());
        bencher
            .counter(BytesCount::of_str(&document))
            .bench(|| documents.check(black_box(&request)));
    }

    #[divan::bench(args = SIZES, sample_size = 2)]
    fn check_new(bencher: Bencher<'_, '_>, bytes: usize) {
        let document = document(bytes);
        let request = request(&document);
        bencher
            .counter(BytesCount::of_str(&document))
            .bench(|| Documents::default().check(black_box(&request)));
    }
}

/// From a frame to its operation, by the number of live ones; and all of them sent again.
#[divan::bench_group(sample_size = 1_000)]
mod session {
    use std::collections::HashMap;

    use divan::{Bencher, black_box, counter::ItemsCount};
    use resub::bench::Session;

    use super::feed::frame;

    const OPERATIONS: [usize; 3] = [1, 100, 10_000];

    fn id(n: usize) -> String {
        format!("{}.{n}", n + 1)
    }

    fn request(n: usize) -> String {
        let query = "subscription Trades($symbol: String) { \
                     trades(symbol: $symbol) { at symbol price size side } }";
        format!(
            r#"{{"query":"{query}","operationName":"Trades","variables":{{"symbol":"SYM{n:06}"}}}}"#
        )
    }

    fn open(operations: usize) -> Session {
        let requests: Vec<_> = (0..operations).map(request).collect();
        Session::open(requests.iter().map(String::as_str))
    }

    /// What a hand-written client keeps: the message of each operation, by its id.
    fn messages(operations: usize) -> HashMap<String, String> {
        let message =
            |n| format!(r#"{{"id":"{}","type":"subscribe","payload":{}}}"#, id(n), request(n));
        (0..operations).map(|n| (id(n), message(n))).collect()
    }

    /// A frame for each operation, in turn.
    fn step(bencher: Bencher<'_, '_>, operations: usize, mut step: impl FnMut(&str) -> bool) {
        let frames: Vec<_> = (0..operations).map(|n| frame(&id(n), 150)).collect();
        assert!(frames.iter().all(|frame| step(frame)), "every frame finds its operation");
        let mut frames = frames.iter().cycle();
        bencher
            .counter(ItemsCount::new(1_usize))
            .bench_local(|| frames.next().map(|frame| step(black_box(frame))));
    }

    /// The prefix is cut off, and the id looked up in a hash map.
    #[divan::bench(args = OPERATIONS)]
    fn step_baseline(bencher: Bencher<'_, '_>, operations: usize) {
        let messages = messages(operations);
        step(bencher, operations, |frame| {
            let after = frame.strip_prefix(r#"{"id":""#).and_then(|rest| rest.split_once('"'));
            after.is_some_and(|(id, rest)| {
                rest.starts_with(r#","type":"next","payload":"#)
                    && black_box(messages.get(id)).is_some()
            })
        });
    }

    #[divan::bench(args = OPERATIONS)]
    fn step_session(bencher: Bencher<'_, '_>, operations: usize) {
        let mut session = open(operations);
        step(bencher, operations, |frame| session.handle_frame(frame).is_some());
    }

    /// The messages were kept, and are copied.
    #[divan::bench(args = [10_000], sample_size = 1)]
    fn reissue_baseline(bencher: Bencher<'_, '_>, operations: usize) {
        let messages = messages(operations);
        let reissue = || messages.values().for_each(|message| drop(black_box(message.clone())));
        bencher.counter(ItemsCount::new(operations)).bench(reissue);
    }

    #[divan::bench(args = [10_000], sample_size = 1)]
    fn reissue_session(bencher: Bencher<'_, '_>, operations: usize) {
        let mut session = open(operations);
        assert_eq!(session.reissue(), operations);
        bencher.counter(ItemsCount::new(operations)).bench_local(|| session.reissue());
    }
}

/// From the received text to its reader, without decoding: the copy, the queue, and the buffer that
/// is used again.
#[divan::bench_group(sample_size = 100)]
mod mailbox {
    use std::{
        collections::VecDeque,
        sync::{Mutex, PoisonError},
    };

    use divan::{Bencher, black_box, counter::ItemsCount};
    use resub::bench::Mailbox;

    use super::feed::{SIZES, frame};

    trait Queue: Sized {
        fn empty() -> Self;
        fn push(&mut self, frame: &str);
        fn push_when_full(&mut self, frame: &str);
        fn read(&mut self);
    }

    impl Queue for Mailbox {
        fn empty() -> Self {
            Self::empty()
        }

        fn push(&mut self, frame: &str) {
            assert!(self.push(frame), "nothing is dropped");
        }

        fn push_when_full(&mut self, frame: &str) {
            assert!(!self.push(frame), "something is dropped");
        }

        fn read(&mut self) {
            assert!(self.read(), "an item waits");
        }
    }

    /// The simplest queue between two tasks. A hand-written client allocates what it keeps.
    struct Baseline(Mutex<VecDeque<String>>);

    impl Queue for Baseline {
        fn empty() -> Self {
            Self(Mutex::default())
        }

        fn push(&mut self, frame: &str) {
            let text = frame.to_owned();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(text);
        }

        fn push_when_full(&mut self, frame: &str) {
            let text = frame.to_owned();
            let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = queue.pop_front();
            queue.push_back(text);
            drop(queue);
            drop(oldest);
        }

        fn read(&mut self) {
            drop(black_box(self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()));
        }
    }

    #[divan::bench(types = [Baseline, Mailbox], args = SIZES)]
    fn one_and_one<Q: Queue>(bencher: Bencher<'_, '_>, bytes: usize) {
        let (mut queue, frame) = (Q::empty(), frame("1.0", bytes));
        bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
            queue.push(black_box(&frame));
            queue.read();
        });
    }

    /// The reader takes a batch under one lock.
    #[divan::bench(types = [Baseline, Mailbox], args = SIZES)]
    fn many_then_many<Q: Queue>(bencher: Bencher<'_, '_>, bytes: usize) {
        let (mut queue, frame) = (Q::empty(), frame("1.0", bytes));
        bencher.counter(ItemsCount::new(32_usize)).bench_local(|| {
            (0..32).for_each(|_| queue.push(black_box(&frame)));
            (0..32).for_each(|_| queue.read());
        });
    }

    /// `DropOldest`, with as much waiting as a subscription holds by default.
    #[divan::bench(types = [Baseline, Mailbox], args = SIZES)]
    fn push_when_full<Q: Queue>(bencher: Bencher<'_, '_>, bytes: usize) {
        let (mut queue, frame) = (Q::empty(), frame("1.0", bytes));
        (0..((16 << 20) / frame.len()).min(1024)).for_each(|_| queue.push(&frame));
        bencher
            .counter(ItemsCount::new(1_usize))
            .bench_local(|| queue.push_when_full(black_box(&frame)));
    }
}

/// From the payload to the typed value, which is dropped.
#[divan::bench_group(sample_size = 20)]
mod decode {
    use divan::{Bencher, black_box, black_box_drop, counter::BytesCount};
    use resub::bench::Payload;
    use serde::Deserialize;
    use serde_json::Value;

    use super::feed::{Data, SIZES, frame, payload};

    /// As a hand-written client reads it.
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "decoded for what it costs")]
    struct Response<T> {
        data: Option<T>,
    }

    fn bare<T: for<'a> Deserialize<'a>>(bencher: Bencher<'_, '_>, bytes: usize) {
        let payload = payload(bytes);
        assert!(serde_json::from_str::<T>(&payload).is_ok());
        let counter = BytesCount::of_str(&payload);
        bencher
            .counter(counter)
            .bench(|| black_box_drop(serde_json::from_str::<T>(black_box(&payload))));
    }

    #[divan::bench(args = SIZES)]
    fn baseline(bencher: Bencher<'_, '_>, bytes: usize) {
        bare::<Response<Data>>(bencher, bytes);
    }

    #[divan::bench(args = SIZES)]
    fn value(bencher: Bencher<'_, '_>, bytes: usize) {
        bare::<Value>(bencher, bytes);
    }

    #[divan::bench(args = SIZES)]
    fn payload_decode(bencher: Bencher<'_, '_>, bytes: usize) {
        let counter = BytesCount::of_str(&payload(bytes));
        let payload = Payload::new(&frame("1.0", bytes));
        let decode = |payload: &Option<Payload>| payload.as_ref().and_then(Payload::decode::<Data>);
        assert!(decode(&payload).is_some_and(|response| response.data.is_some()));
        bencher.counter(counter).bench(|| black_box_drop(decode(black_box(&payload))));
    }
}

/// What each option about items costs: an item from the driver to its reader, decoded. The baseline
/// is a subscription without options.
#[divan::bench_group(sample_size = 100)]
mod options {
    use std::num::NonZeroUsize;

    use divan::{Bencher, black_box, counter::ItemsCount};
    use resub::{Request, SubscriptionBuilder, bench::Stream};
    use serde::Deserialize;
    use tokio::runtime::Builder;

    use super::feed::Trade;

    #[derive(Deserialize)]
    struct Data {
        trades: Trade,
    }

    #[derive(Deserialize)]
    struct Batch {
        trades: Vec<Trade>,
    }

    const WINDOW: NonZeroUsize = NonZeroUsize::new(256).unwrap();

    type Options<D> = SubscriptionBuilder<Request<D>>;

    fn pass<D, O, T>(
        bencher: Bencher<'_, '_>,
        is_list: bool,
        options: impl FnOnce(Options<D>) -> SubscriptionBuilder<O, T>,
    ) where
        D: serde::de::DeserializeOwned,
        O: resub::Operation,
        T: serde::de::DeserializeOwned,
    {
        let runtime = Builder::new_current_thread().build();
        let Ok(runtime) = runtime else { panic!("a runtime can be made") };
        let stream = Stream::start(runtime.handle().clone(), options);
        let Some(mut stream) = stream else { panic!("the options do not conflict") };
        let mut at = 1_000_000_000_000_000_u64;
        let next = move || {
            at += 1;
            let trade = format!(
                r#"{{"at":{at},"symbol":"BTC-USD","price":64123.25,"size":250,"side":"SELL"}}"#
            );
            let trades = if is_list { format!("[{trade}]") } else { trade };
            format!(r#"{{"id":"1.0","type":"next","payload":{{"data":{{"trades":{trades}}}}}}}"#)
        };
        bencher
            .counter(ItemsCount::new(1_usize))
            .with_inputs(next)
            .bench_local_refs(|frame| assert!(stream.pass(black_box(frame)), "it is read"));
    }

    #[divan::bench]
    fn baseline(bencher: Bencher<'_, '_>) {
        pass(bencher, false, |options: Options<Data>| options);
    }

    #[divan::bench]
    fn dedupe_by(bencher: Bencher<'_, '_>) {
        pass(bencher, false, |options: Options<Data>| {
            options.dedupe_by(WINDOW, |data| data.trades.at)
        });
    }

    #[divan::bench]
    fn sequence_by(bencher: Bencher<'_, '_>) {
        pass(bencher, false, |options: Options<Data>| options.sequence_by(|data| data.trades.at));
    }

    #[divan::bench]
    fn gap_if(bencher: Bencher<'_, '_>) {
        pass(bencher, false, |options: Options<Data>| {
            options.gap_if(|data| (data.trades.size == 0).then_some(1))
        });
    }

    #[divan::bench]
    fn resume_with(bencher: Bencher<'_, '_>) {
        pass(bencher, false, |options: Options<Data>| {
            options.resume_with(|last, variables| variables["after"] = last.trades.at.into())
        });
    }

    #[divan::bench]
    fn resume_with_sequence_by(bencher: Bencher<'_, '_>) {
        pass(bencher, false, |options: Options<Data>| {
            options
                .resume_with(|last, variables| variables["after"] = last.trades.at.into())
                .sequence_by(|data| data.trades.at)
        });
    }

    #[divan::bench]
    fn latest_by(bencher: Bencher<'_, '_>) {
        pass(bencher, false, |options: Options<Data>| {
            options.latest_by(|data| data.trades.symbol.clone())
        });
    }

    #[divan::bench]
    fn flatten(bencher: Bencher<'_, '_>) {
        pass(bencher, true, |options: Options<Batch>| options.flatten(|batch| batch.trades));
    }
}
