//! Tests of shared operations: which reader gets which items, for any order of events.

use std::collections::VecDeque;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::delivery::sharing::Replay;
use crate::protocol::Transmit;

/// A driver on an acknowledged connection, with one operation that keeps the connection open.
struct Rig {
    driver: Driver,
    commands: mpsc::UnboundedSender<Command>,
    now: Instant,
    /// The last id given out.
    number: u64,
    /// Messages that were written, in order.
    written: VecDeque<Value>,
}

impl Rig {
    fn open() -> Self {
        let (driver, commands) = driver();
        let mut rig = Self { driver, commands, now: now(), number: 0, written: VecDeque::new() };
        let (kind, writer) = (OperationType::Subscription, writer(rig.number()));
        rig.send(Command::Subscribe {
            kind,
            payload: request("keeper"),
            timeout: None,
            watch_options: None,
            writer,
        });
        rig.connect();
        rig.written.clear();
        rig
    }

    fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn send(&mut self, command: Command) {
        assert!(self.commands.send(command).is_ok());
        while self.driver.take_commands(&mut Context::from_waker(Waker::noop()), self.now) {}
        self.write();
    }

    fn share(&mut self, name: &str, replay: Replay, overflow: Overflow, capacity: usize) -> Reader {
        let limits = Limits {
            items: NonZeroUsize::new(capacity).unwrap(),
            bytes: NonZeroUsize::MAX,
            overflow,
        };
        let reader = Arc::new(Writer::new(self.number(), limits, None));
        let operation = self.number();
        self.send(Command::Share {
            request: request(name),
            operation,
            replay,
            reader: Arc::clone(&reader),
        });
        Reader { writer: reader, batch: Batch::new() }
    }

    /// Does what dropping a subscription does.
    fn drop(&mut self, mut reader: Reader) {
        self.driver.counters.dequeued(reader.writer.mailbox.close(&mut reader.batch).unread as u64);
        self.send(Command::Cancel(reader.writer.id));
    }

    fn connect(&mut self) {
        self.driver.session.handle_credentials(
            self.now,
            ConnectionId::A,
            Ok(Granted { init_payload: "{}".into(), lifetime: None }),
        );
        self.driver.session.handle_open(self.now, ConnectionId::A);
        self.receive(&json!({"type": "connection_ack"}));
        self.write();
    }

    /// Loses the connection and reconnects.
    fn reconnect(&mut self) {
        // Not a reset: a second reset in a row without an item would quarantine the operations.
        self.driver.session.handle_lost(
            self.now,
            ConnectionId::A,
            Disconnect::Silent(Duration::ZERO),
        );
        self.driver.perform(self.now);
        self.now = self.driver.session.poll_timeout().unwrap();
        self.driver.session.handle_timeout(self.now);
        self.driver.perform(self.now);
        self.connect();
    }

    fn receive(&mut self, message: &Value) {
        self.driver.receive(self.now, ConnectionId::A, &message.to_string());
        self.driver.perform(self.now);
        self.driver.count();
    }

    fn next(&mut self, id: &str, n: u64) {
        self.receive(&json!({"type": "next", "id": id, "payload": n}));
    }

    fn write(&mut self) {
        while let Some(transmit) = self.driver.session.poll_transmit(ConnectionId::A) {
            if let Transmit::Text(text) = transmit {
                self.written.push_back(serde_json::from_str(&text).unwrap());
            }
        }
    }

    /// Returns the id with which the operation of this name was sent last.
    fn id(&mut self, name: &str) -> String {
        let sent = self.written.iter().rev().find(|message| message["payload"]["query"] == *name);
        sent.unwrap()["id"].as_str().unwrap().to_owned()
    }

    fn sent(&self, kind: &str) -> usize {
        self.written.iter().filter(|message| message["type"] == *kind).count()
    }
}

struct Reader {
    writer: Arc<Writer>,
    batch: Batch<Payload>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Item(u64),
    /// With the number of reconnects.
    Gap(u32),
    End,
}

impl Reader {
    fn read(&mut self) -> Option<Seen> {
        let Self { writer, batch } = self;
        match writer.mailbox.poll_read(batch, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Read::Item(item))) => Some(Seen::Item(item.decode().unwrap())),
            Poll::Ready(Some(Read::Gap(gap))) => Some(Seen::Gap(gap.reconnects)),
            Poll::Ready(Some(Read::End(_))) => Some(Seen::End),
            Poll::Ready(Some(Read::Stale(_)) | None) | Poll::Pending => None,
        }
    }

    fn all(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.read()).collect()
    }
}

/// The runtime that a driver's timer needs. It is only entered and never run, because tokio limits
/// how many commands a task may take in one poll.
fn clock() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn request(name: &str) -> Box<str> {
    json!({"query": name}).to_string().into()
}

#[tokio::test(start_paused = true)]
async fn all_readers_share_the_bytes_of_an_item() {
    let mut rig = Rig::open();
    let readers: Vec<_> =
        (0..50).map(|_| rig.share("a", Replay::Nothing, Overflow::DropOldest, 8)).collect();
    let id = rig.id("a");
    rig.next(&id, 7);
    let late = rig.share("a", Replay::Last, Overflow::DropOldest, 8);
    let places = readers.into_iter().chain([late]).map(|Reader { writer, mut batch }| {
        let read = writer.mailbox.poll_read(&mut batch, &mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(Read::Item(item))) = read else { panic!("{read:?}") };
        assert_eq!(item.decode::<u64>().unwrap(), 7);
        let place = item.frame().as_ptr().addr();
        assert!(
            item.clone().into_buffer().is_none(),
            "a reader does not take a buffer that others read"
        );
        place
    });
    let places: Vec<_> = places.collect();
    assert!(places.len() == 51 && places.iter().all(|place| *place == places[0]));
}

#[test]
fn ten_thousand_operations_leave_nothing_behind() {
    let runtime = clock();
    let _entered = runtime.enter();
    let mut rig = Rig::open();
    for n in 0..10_000 {
        let name = format!("operation {n}");
        let first = rig.share(&name, Replay::Nothing, Overflow::Fail, 1);
        let mut second = rig.share(&name, Replay::Last, Overflow::Fail, 1);
        let id = rig.id(&name);
        match n % 4 {
            // Its readers end it.
            0 => {}
            1 => rig.receive(&json!({"type": "complete", "id": id})),
            2 => rig.receive(&json!({"type": "error", "id": id, "payload": []})),
            // Its readers end by overflow.
            _ => (0..2).for_each(|item| rig.next(&id, item)),
        }
        assert_eq!(rig.driver.sharing.is_empty(), n % 4 > 0);
        rig.drop(first);
        assert_eq!(
            second.all(),
            [vec![], vec![Seen::End], vec![Seen::End], vec![Seen::Item(0), Seen::End]][n % 4]
        );
        rig.drop(second);
        assert!(rig.driver.sharing.is_empty());
        assert_eq!(rig.sent("subscribe"), 1);
        assert_eq!(rig.sent("complete"), usize::from([0, 3].contains(&(n % 4))));
        rig.written.clear();
    }
    assert_eq!(rig.driver.session.live_operations(), 1, "the keeper");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_reader_that_ended_by_overflow_does_not_end_the_others() {
    let mut rig = Rig::open();
    let mut first = rig.share("a", Replay::Nothing, Overflow::Fail, 1);
    let mut second = rig.share("a", Replay::Nothing, Overflow::DropOldest, 8);
    let id = rig.id("a");
    for n in 1..=2 {
        rig.next(&id, n);
    }
    assert_eq!(first.read(), Some(Seen::Item(1)));
    rig.send(Command::Probe(first.writer.id));
    rig.drop(first);
    rig.next(&id, 3);
    assert_eq!(second.all(), [1, 2, 3].map(Seen::Item));
    assert_eq!(rig.sent("complete"), 0);
    rig.drop(second);
    assert_eq!(rig.sent("complete"), 1);
}

/// The commands are taken in one batch, so the end of the first operation is not performed yet when
/// the other readers join.
#[tokio::test(start_paused = true)]
async fn a_reader_that_joins_during_a_shutdown_gets_the_end() {
    let mut rig = Rig::open();
    let mut first = rig.share("a", Replay::Nothing, Overflow::DropOldest, 8);
    let (known, new) = (writer(100), writer(101));
    assert!(rig.commands.send(Command::Shutdown { within: Duration::ZERO }).is_ok());
    for (name, reader) in [("a", &known), ("b", &new)] {
        let (operation, replay) = (reader.id + 100, Replay::Last);
        let share = Command::Share {
            request: request(name),
            operation,
            replay,
            reader: Arc::clone(reader),
        };
        assert!(rig.commands.send(share).is_ok());
    }
    let waiting = writer(102);
    while rig.driver.take_commands(&mut Context::from_waker(Waker::noop()), rig.now) {}
    assert_eq!(first.all(), [Seen::End]);
    let share = Command::Share {
        request: request("c"),
        operation: 300,
        replay: Replay::Last,
        reader: Arc::clone(&waiting),
    };
    assert!(rig.commands.send(share).is_ok());
    assert!(rig.driver.sharing.is_empty());
    drop(rig);
    for reader in [known, new, waiting] {
        let end = read(&reader, Waker::noop());
        assert!(
            matches!(end, Poll::Ready(Some(Read::End(End::Connection(ConnectionEnd::ShutDown))))),
            "{end:?}"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize, Replay),
    Leave(prop::sample::Index),
    Read(prop::sample::Index),
    Item(usize),
    Complete(usize),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let replay = prop::sample::select(vec![Replay::Nothing, Replay::Last]);
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0..NAMES.len(), replay).prop_map(|(name, replay)| Step::Join(name, replay)),
        3 => index().prop_map(Step::Leave),
        6 => index().prop_map(Step::Read),
        6 => (0..NAMES.len()).prop_map(Step::Item),
        1 => (0..NAMES.len()).prop_map(Step::Complete),
        1 => Just(Step::Reconnect),
    ]
}

/// The expected state of a shared operation.
#[derive(Default)]
struct Model {
    id: String,
    readers: Vec<u64>,
    last: Option<u64>,
    reconnects: u32,
}

/// A reader, the name of its operation, the events that it should see, and those that it has seen.
struct Modelled {
    reader: Reader,
    name: usize,
    expected: Vec<Seen>,
    seen: Vec<Seen>,
}

/// Adds an event and merges adjacent gaps. The mailbox merges them only if the reader has not taken
/// the first, so the test treats both cases alike.
fn add(to: &mut Vec<Seen>, seen: Seen) {
    match (to.last_mut(), seen) {
        (Some(Seen::Gap(known)), Seen::Gap(more)) => *known += more,
        (_, seen) => to.push(seen),
    }
}

proptest! {
    /// I1, I3, I4 and I5 for each reader: it sees every event since it joined, and before these the
    /// last item if it asked for that.
    #[test]
    fn every_reader_sees_all_events_since_it_joined_and_the_server_sees_each_operation_once(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let runtime = clock();
        let _entered = runtime.enter();
        let mut rig = Rig::open();
        let mut operations = [const { None::<Model> }; 2];
        let mut readers = Vec::<Modelled>::new();
        let (mut items, mut completes) = (0, 0);
        for step in steps {
            match step {
                Step::Join(name, replay) => {
                    let reader = rig.share(NAMES[name], replay, Overflow::DropOldest, 1_000);
                    let (expected, seen) = (Vec::new(), Vec::new());
                    let mut joined = Modelled { reader, name, expected, seen };
                    let operation = operations[name].get_or_insert_with(Model::default);
                    operation.id = rig.id(NAMES[name]);
                    operation.readers.push(joined.reader.writer.id);
                    if let (Replay::Last, Some(last)) = (replay, operation.last) {
                        add(&mut joined.expected, Seen::Item(last));
                        if operation.reconnects > 0 {
                            add(&mut joined.expected, Seen::Gap(operation.reconnects));
                        }
                    }
                    readers.push(joined);
                }
                Step::Leave(index) if !readers.is_empty() => {
                    let left = readers.swap_remove(index.index(readers.len()));
                    let Modelled { reader, name, .. } = left;
                    if let Some(operation) = &mut operations[name] {
                        operation.readers.retain(|id| *id != reader.writer.id);
                        if operation.readers.is_empty() {
                            completes += 1;
                            operations[name] = None;
                        }
                    }
                    rig.drop(reader);
                }
                Step::Read(index) if !readers.is_empty() => {
                    let index = index.index(readers.len());
                    let Modelled { reader, expected, seen, .. } = &mut readers[index];
                    if let Some(read) = reader.read() {
                        add(seen, read);
                    } else {
                        prop_assert_eq!(seen, expected);
                    }
                }
                Step::Leave(_) | Step::Read(_) => {}
                Step::Item(name) => {
                    let Some(operation) = &mut operations[name] else { continue };
                    items += 1;
                    rig.next(&operation.id, items);
                    (operation.last, operation.reconnects) = (Some(items), 0);
                    expect(&mut readers, operation, Seen::Item(items));
                }
                Step::Complete(name) => {
                    let Some(operation) = operations[name].take() else { continue };
                    rig.receive(&json!({"type": "complete", "id": operation.id}));
                    expect(&mut readers, &operation, Seen::End);
                }
                Step::Reconnect => {
                    rig.written.clear();
                    completes = 0;
                    rig.reconnect();
                    let live = operations.iter().flatten().count();
                    // Each operation once, and the keeper.
                    prop_assert_eq!(rig.sent("subscribe"), live + 1);
                    for (operation, name) in operations.iter_mut().zip(NAMES) {
                        let Some(operation) = operation else { continue };
                        operation.id = rig.id(name);
                        operation.reconnects += 1;
                        expect(&mut readers, operation, Seen::Gap(1));
                    }
                }
            }
            prop_assert_eq!(rig.sent("complete"), completes);
            let live = operations.iter().flatten().count();
            prop_assert_eq!(rig.driver.session.live_operations(), live + 1);
        }
        for Modelled { mut reader, expected, mut seen, .. } in readers {
            reader.all().into_iter().for_each(|read| add(&mut seen, read));
            prop_assert_eq!(seen, expected);
            rig.drop(reader);
        }
        prop_assert!(rig.driver.sharing.is_empty());
        prop_assert_eq!(rig.driver.session.live_operations(), 1);
    }
}

fn expect(readers: &mut [Modelled], operation: &Model, seen: Seen) {
    for reader in
        readers.iter_mut().filter(|reader| operation.readers.contains(&reader.reader.writer.id))
    {
        add(&mut reader.expected, seen);
    }
}

const NAMES: [&str; 2] = ["a", "b"];
