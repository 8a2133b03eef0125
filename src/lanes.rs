//! The connections of one client: each a lane with a session, a driver and a load of its own.
//!
//! Owns where an operation goes, when another connection is made, and what is said to all of them. Decides nothing about a
//! connection: that is its session's affair, which knows of no other.

mod board;
mod placement;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};
use tracing::{Instrument, Span};

use self::placement::Choice;
pub(crate) use self::{
    board::{Board, StatusSlot},
    placement::Placement,
};
use crate::{
    buffers::Buffers,
    client::Retries,
    driver::{Command, Connector, Driver},
    error::SubscribeError,
    mailbox::{Batch, Closed},
    protocol::Payload,
    session::{Config, End, Session},
    sink::Sink,
    status::{Stats, Status},
    telemetry::{self, Counters},
};

/// The way to one connection. Whoever reads an operation holds the one that carries it.
pub(crate) struct Lane {
    commands: mpsc::UnboundedSender<Command>,
    counters: Arc<Counters>,
    buffers: Arc<Buffers>,
    retries: Arc<Retries>,
    /// From 1 on; `None` where there is but one.
    number: Option<u64>,
}

/// All connections of one client.
pub(crate) struct Lanes {
    set: Set,
    board: Weak<Board>,
    status: watch::Receiver<Status>,
}

enum Set {
    /// And never another, so that nobody has to look for it.
    One(Arc<Lane>),
    Several(Box<Several>),
}

struct Several {
    placement: Placement,
    kit: Kit,
    state: Mutex<State>,
}

struct State {
    /// Never shorter: one that is idle is used again.
    lanes: Vec<Arc<Lane>>,
    is_paused: bool,
    is_shut_down: bool,
}

/// What connections are made of.
pub(crate) struct Kit {
    /// The one that the client was built on: who subscribes need not have any.
    pub(crate) runtime: Handle,
    pub(crate) connector: Arc<Connector>,
    pub(crate) config: Config,
    /// The client's.
    pub(crate) span: Span,
    #[cfg(feature = "network-watch")]
    pub(crate) watch: Option<crate::network::Watch>,
}

/// A driver that is yet to run. Not under a lock: where the runtime is gone it ends at once and wakes readers (I11), and its span
/// is seen by whoever collects the application's.
struct Fresh {
    driver: Driver,
    number: Option<u64>,
}

/// Whoever waits for a connection.
pub(crate) type Connected = oneshot::Receiver<Result<(), End>>;

impl Lane {
    pub(crate) fn new(
        commands: mpsc::UnboundedSender<Command>,
        buffers: Arc<Buffers>,
        retries: Arc<Retries>,
        number: Option<u64>,
    ) -> Self {
        Self { commands, counters: Arc::default(), buffers, retries, number }
    }

    /// Tells the driver. It may be gone, and so is all that could be done then.
    pub(crate) fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// As [`command`](Self::command), of one that is answered.
    fn ask(&self, command: fn(oneshot::Sender<Result<(), End>>) -> Command) -> Connected {
        let (waiter, answer) = oneshot::channel();
        self.command(command(waiter));
        answer
    }

    /// Hands over an operation that was placed here.
    pub(crate) fn begin(&self, command: Command, sink: &Sink) -> Result<(), SubscribeError> {
        if self.commands.send(command).is_err() {
            self.counters.ended();
            return Err(SubscribeError::ShutDown);
        }
        // The driver may have gone between the two steps of a send, and does not see the command then.
        if self.commands.is_closed() {
            sink.finish(End::ShutDown, &self.counters);
        }
        Ok(())
    }

    /// The reader of an operation goes; whether it has read the end.
    pub(crate) fn leave(&self, sink: &Sink, batch: &mut Batch<Payload>, is_over: bool) {
        let Closed { unread, was_open } = sink.mailbox.close(batch);
        self.counters.dequeued(unread as u64);
        if !is_over {
            self.command(Command::Cancel(sink.id));
        }
        // Last, so that who takes its place comes after it on the wire, too.
        if was_open {
            self.counters.ended();
        }
    }

    pub(crate) fn number(&self) -> Option<u64> {
        self.number
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    pub(crate) fn retries(&self) -> &Retries {
        &self.retries
    }
}

impl Lanes {
    /// Starts the first one, which dials nothing yet.
    pub(crate) fn new(kit: Kit, placement: Placement) -> Self {
        let (board, status) = Board::new();
        let Config { backoff_base: base, backoff_cap: cap, seed, .. } = kit.config;
        let retries = Arc::new(Retries { runtime: kit.runtime.clone(), base, cap, seed });
        let (lane, fresh) = kit.make(placement, 0, &board, retries);
        kit.run(fresh);
        #[cfg(feature = "network-watch")]
        kit.watch_network(status.clone());
        let set = if placement.is_single() {
            Set::One(lane)
        } else {
            let state = State { lanes: vec![lane], is_paused: false, is_shut_down: false };
            Set::Several(Box::new(Several { placement, kit, state: Mutex::new(state) }))
        };
        Self { set, board: Arc::downgrade(&board), status }
    }

    /// Where the next operation goes, which counts from here on: on the lane where another is that it belongs to, if that has room.
    pub(crate) fn place(&self, near: Option<&Arc<Lane>>) -> Result<Arc<Lane>, SubscribeError> {
        match &self.set {
            Set::One(lane) => {
                lane.counters.begun();
                Ok(Arc::clone(lane))
            }
            Set::Several(several) => several.place(near, &self.board),
        }
    }

    /// Where an operation goes that is one with its equals: those are on the same lane, as long as that has room.
    pub(crate) fn place_shared(&self, request: &str) -> Result<Arc<Lane>, SubscribeError> {
        match &self.set {
            Set::One(_) => self.place(None),
            Set::Several(several) => several.place(several.lane_of(request, &self.board).as_ref(), &self.board),
        }
    }

    /// Wants all connections that there are to be before any is full.
    pub(crate) fn connect(&self) -> Vec<Connected> {
        match &self.set {
            Set::One(lane) => vec![lane.ask(Command::Connect)],
            Set::Several(several) => several.connect(&self.board),
        }
    }

    /// Wants another connection in place of each that there is.
    pub(crate) fn rotate(&self) -> Vec<Connected> {
        match &self.set {
            Set::One(lane) => vec![lane.ask(Command::Rotate)],
            Set::Several(several) => several.lock().lanes.iter().map(|lane| lane.ask(Command::Rotate)).collect(),
        }
    }

    pub(crate) fn pause(&self) {
        self.tell(|state| state.is_paused = true, || Command::Pause);
    }

    pub(crate) fn resume(&self) {
        self.tell(|state| state.is_paused = false, || Command::Resume);
    }

    pub(crate) fn reconnect_now(&self) {
        self.tell(|_| {}, || Command::ReconnectNow);
    }

    pub(crate) fn network_changed(&self) {
        self.tell(|_| {}, || Command::NetworkChanged);
    }

    pub(crate) fn shut_down(&self, within: Duration) {
        self.tell(|state| state.is_shut_down = true, || Command::Shutdown { within });
    }

    pub(crate) fn status(&self) -> &watch::Receiver<Status> {
        &self.status
    }

    pub(crate) fn stats(&self) -> Stats {
        let stats = match &self.set {
            Set::One(lane) => lane.counters.snapshot(),
            Set::Several(several) => {
                let each = several.lock().lanes.clone();
                each.iter().map(|lane| lane.counters.snapshot()).fold(Stats::default(), Stats::and)
            }
        };
        Stats { connections_open: self.board.upgrade().map_or(0, |board| board.open() as u64), ..stats }
    }

    /// Says the same to each, and remembers it for those to come.
    fn tell(&self, remember: impl FnOnce(&mut State), command: impl Fn() -> Command) {
        match &self.set {
            Set::One(lane) => lane.command(command()),
            Set::Several(several) => {
                // Under the lock, or of two threads each could have the last word with some. What it wakes is the runtime's own
                // (I11).
                let mut state = several.lock();
                remember(&mut state);
                for lane in &state.lanes {
                    lane.command(command());
                }
            }
        }
    }
}

impl Several {
    fn place(&self, near: Option<&Arc<Lane>>, board: &Weak<Board>) -> Result<Arc<Lane>, SubscribeError> {
        let mut state = self.lock();
        if state.is_shut_down {
            return Err(SubscribeError::ShutDown);
        }
        let near = near.and_then(|near| state.lanes.iter().position(|lane| Arc::ptr_eq(lane, near)));
        let near = near.filter(|&index| self.placement.has_room(state.lanes[index].counters.load()));
        let loads = state.lanes.iter().map(|lane| lane.counters.load());
        let (lane, fresh) = match near.map_or_else(|| self.placement.choose(loads), Choice::Lane) {
            Choice::Lane(index) => (Arc::clone(&state.lanes[index]), None),
            Choice::New => self.grow(&mut state, board).map(|(lane, fresh)| (lane, Some(fresh)))?,
            Choice::Full => {
                let limit = self.placement.limit.map_or(usize::MAX, usize::from);
                return Err(SubscribeError::Full { connections: state.lanes.len(), limit });
            }
        };
        lane.counters.begun();
        drop(state);
        if let Some(fresh) = fresh {
            self.kit.run(fresh);
        }
        Ok(lane)
    }

    fn connect(&self, board: &Weak<Board>) -> Vec<Connected> {
        self.grow_all(board).iter().map(|lane| lane.ask(Command::Connect)).collect()
    }

    /// The same for equal requests.
    fn lane_of(&self, request: &str, board: &Weak<Board>) -> Option<Arc<Lane>> {
        let lanes = self.grow_all(board);
        let mut hasher = DefaultHasher::new();
        request.hash(&mut hasher);
        let nth = hasher.finish() % lanes.len() as u64;
        lanes.into_iter().nth(usize::try_from(nth).unwrap_or_default())
    }

    /// All that there are to be before any is full. None of them dials before it has something to carry.
    fn grow_all(&self, board: &Weak<Board>) -> Vec<Arc<Lane>> {
        let wanted = self.placement.connections().get();
        let (mut state, mut made) = (self.lock(), Vec::new());
        while state.lanes.len() < wanted && !state.is_shut_down {
            let Ok((_, fresh)) = self.grow(&mut state, board) else { break };
            made.push(fresh);
        }
        let lanes = state.lanes[..wanted.min(state.lanes.len())].to_vec();
        drop(state);
        for fresh in made {
            self.kit.run(fresh);
        }
        lanes
    }

    /// One more, whose driver is to run once the lock is released.
    fn grow(&self, state: &mut State, board: &Weak<Board>) -> Result<(Arc<Lane>, Fresh), SubscribeError> {
        // It lives as long as any driver.
        let board = board.upgrade().ok_or(SubscribeError::ShutDown)?;
        let retries = state.lanes.first().map(|lane| Arc::clone(&lane.retries)).ok_or(SubscribeError::ShutDown)?;
        let (lane, fresh) = self.kit.make(self.placement, state.lanes.len(), &board, retries);
        if state.is_paused {
            lane.command(Command::Pause);
        }
        state.lanes.push(Arc::clone(&lane));
        Ok((lane, fresh))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic half-way runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kit {
    fn make(
        &self,
        placement: Placement,
        index: usize,
        board: &Arc<Board>,
        retries: Arc<Retries>,
    ) -> (Arc<Lane>, Fresh) {
        let number = (!placement.is_single()).then_some(index as u64 + 1);
        let mut config = self.config.clone();
        config.max_dials = config.max_dials.map(|budget| placement.share(budget, index));
        // The delays of two must not be in step.
        config.seed ^= (index as u64).wrapping_mul(SEED_STEP);
        config.first_serial = index as u64 * SERIALS;
        let (commands, receiver) = mpsc::unbounded_channel();
        #[cfg(feature = "network-watch")]
        if let Some(watch) = &self.watch {
            watch.tell_also(commands.downgrade());
        }
        let lane = Arc::new(Lane::new(commands, Arc::default(), retries, number));
        // Its timer belongs to the runtime.
        let _entered = self.runtime.enter();
        let driver = Driver::new(
            Session::new(config),
            Arc::clone(&self.connector),
            receiver,
            board.add(),
            Arc::clone(&lane.counters),
            Arc::clone(&lane.buffers),
        );
        (lane, Fresh { driver, number })
    }

    fn run(&self, Fresh { driver, number }: Fresh) {
        let span = number.map_or_else(|| self.span.clone(), |number| telemetry::connection_span(&self.span, number));
        self.runtime.spawn(driver.instrument(span));
    }

    #[cfg(feature = "network-watch")]
    fn watch_network(&self, status: watch::Receiver<Status>) {
        if let Some(watch) = &self.watch {
            self.runtime.spawn(watch.clone().run(status).instrument(self.span.clone()));
        }
    }
}

/// Odd, so that no two of 2^64 connections have the same seed.
const SEED_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Ids of one connection: more than it ever uses.
const SERIALS: u64 = 1 << 40;
