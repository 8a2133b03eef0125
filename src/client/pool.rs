//! The connections of one client: each a connection with a session, a driver and a load of its own.
//!
//! Owns where an operation goes, when another connection is made, and what is said to all of them.
//! Decides nothing about a connection: that is its session's affair, which knows of no other.

mod placement;
mod status;

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
    placement::Placement,
    status::{SharedStatus, StatusSlot},
};
use crate::{
    client::{
        Retries,
        driver::{Command, Connector, Driver},
        telemetry::{self, Counters},
    },
    delivery::{
        buffers::Buffers,
        mailbox::{Batch, Closed},
        writer::Writer,
    },
    error::{NotConnected, SubscribeError},
    protocol::Payload,
    response::End,
    session::{Config, Session, Stats, Status},
};

/// The way to one connection. Whoever reads an operation holds the one that carries it.
pub(crate) struct ConnectionHandle {
    commands: mpsc::UnboundedSender<Command>,
    counters: Arc<Counters>,
    buffers: Arc<Buffers>,
    retries: Arc<Retries>,
    /// From 1 on; `None` where there is but one.
    number: Option<u64>,
}

/// All connections of one client.
pub(crate) struct Pool {
    set: Set,
    shared_status: Weak<SharedStatus>,
    status: watch::Receiver<Status>,
}

enum Set {
    /// And never another, so that nobody has to look for it.
    One(Arc<ConnectionHandle>),
    Several(Box<Several>),
}

struct Several {
    placement: Placement,
    template: Template,
    state: Mutex<State>,
}

struct State {
    /// Never shorter: one that is idle is used again.
    connections: Vec<Arc<ConnectionHandle>>,
    is_paused: bool,
    is_shut_down: bool,
}

/// What connections are made of.
pub(crate) struct Template {
    /// The one that the client was built on: who subscribes need not have any.
    pub(crate) runtime: Handle,
    pub(crate) connector: Arc<Connector>,
    pub(crate) config: Config,
    /// The client's.
    pub(crate) span: Span,
    #[cfg(feature = "network-watch")]
    pub(crate) watch: Option<crate::client::network::NetworkWatch>,
}

/// A driver that is yet to run. Not under a lock: where the runtime is gone it ends at once and
/// wakes readers (I11), and its span is seen by whoever collects the application's.
struct Unstarted {
    driver: Driver,
    number: Option<u64>,
}

/// Whoever waits for a connection.
pub(crate) struct Connected {
    answer: oneshot::Receiver<Result<(), End>>,
    counters: Arc<Counters>,
}

impl Connected {
    pub(crate) async fn outcome(self) -> Result<(), NotConnected> {
        match self.answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(End::Lost(cause))) => Err(NotConnected::Lost(cause)),
            Ok(Err(End::GaveUp { attempts, cause })) => {
                Err(NotConnected::GaveUp { attempts, cause })
            }
            // The others are of operations; and the driver may be gone.
            Ok(Err(
                End::ShutDown
                | End::Completed
                | End::Answered(_)
                | End::Ambiguous(_)
                | End::TimedOut
                | End::Rejected(_)
                | End::Overflow
                | End::Hook(_),
            ))
            | Err(_) => Err(if self.counters.is_runtime_gone() {
                NotConnected::RuntimeGone
            } else {
                NotConnected::ShutDown
            }),
        }
    }
}

impl ConnectionHandle {
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
        Connected { answer, counters: Arc::clone(&self.counters) }
    }

    /// Hands over an operation that was placed here.
    pub(crate) fn begin(&self, command: Command, writer: &Writer) -> Result<(), SubscribeError> {
        if self.commands.send(command).is_err() {
            self.counters.ended();
            return Err(self.refusal());
        }
        // The driver may have gone between the two steps of a send, and does not see the command
        // then.
        if self.commands.is_closed() {
            writer.finish(End::ShutDown, || self.counters.ended());
        }
        Ok(())
    }

    /// Why nothing can be begun here, once the driver has gone.
    fn refusal(&self) -> SubscribeError {
        if self.counters.is_runtime_gone() {
            SubscribeError::RuntimeGone
        } else {
            SubscribeError::ShutDown
        }
    }

    /// The reader of an operation goes; whether it has read the end.
    pub(crate) fn leave(&self, writer: &Writer, batch: &mut Batch<Payload>, is_over: bool) {
        let Closed { unread, was_open } = writer.mailbox.close(batch);
        self.counters.dequeued(unread as u64);
        if !is_over {
            self.command(Command::Cancel(writer.id));
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

impl Pool {
    /// Starts the first one, which dials nothing yet.
    pub(crate) fn new(template: Template, placement: Placement) -> Self {
        let (shared_status, status) = SharedStatus::new();
        let Config { backoff_base: base, backoff_cap: cap, seed, .. } = template.config;
        let retries = Arc::new(Retries { runtime: template.runtime.clone(), base, cap, seed });
        let (connection, unstarted) = template.make(placement, 0, &shared_status, retries);
        template.run(unstarted);
        #[cfg(feature = "network-watch")]
        template.watch_network(status.clone());
        let set = if placement.is_single() {
            Set::One(connection)
        } else {
            let state =
                State { connections: vec![connection], is_paused: false, is_shut_down: false };
            Set::Several(Box::new(Several { placement, template, state: Mutex::new(state) }))
        };
        Self { set, shared_status: Arc::downgrade(&shared_status), status }
    }

    /// A single connection whose commands the test takes.
    #[cfg(test)]
    pub(crate) fn without_driver(connection: ConnectionHandle) -> Self {
        let (shared_status, status) = SharedStatus::new();
        let set = Set::One(Arc::new(connection));
        Self { set, shared_status: Arc::downgrade(&shared_status), status }
    }

    /// Where the next operation goes, which counts from here on: on the connection where another is
    /// that it belongs to, if that has room.
    pub(crate) fn place(
        &self,
        near: Option<&Arc<ConnectionHandle>>,
    ) -> Result<Arc<ConnectionHandle>, SubscribeError> {
        match &self.set {
            Set::One(connection) => {
                connection.counters.begun();
                Ok(Arc::clone(connection))
            }
            Set::Several(several) => several.place(near, &self.shared_status),
        }
    }

    /// Where an operation goes that is one with its equals: those are on the same connection, as
    /// long as that has room.
    pub(crate) fn place_shared(
        &self,
        request: &str,
    ) -> Result<Arc<ConnectionHandle>, SubscribeError> {
        match &self.set {
            Set::One(_) => self.place(None),
            Set::Several(several) => several.place(
                several.connection_for(request, &self.shared_status).as_ref(),
                &self.shared_status,
            ),
        }
    }

    /// Wants all connections that there are to be before any is full.
    pub(crate) fn connect(&self) -> Vec<Connected> {
        match &self.set {
            Set::One(connection) => vec![connection.ask(Command::Connect)],
            Set::Several(several) => several.connect(&self.shared_status),
        }
    }

    /// Wants another connection in place of each that there is.
    pub(crate) fn rotate(&self) -> Vec<Connected> {
        match &self.set {
            Set::One(connection) => vec![connection.ask(Command::Rotate)],
            Set::Several(several) => several
                .lock()
                .connections
                .iter()
                .map(|connection| connection.ask(Command::Rotate))
                .collect(),
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
            Set::One(connection) => connection.counters.snapshot(),
            Set::Several(several) => {
                let each = several.lock().connections.clone();
                each.iter()
                    .map(|connection| connection.counters.snapshot())
                    .fold(Stats::default(), Stats::and)
            }
        };
        Stats {
            connections_open: self
                .shared_status
                .upgrade()
                .map_or(0, |shared_status| shared_status.open() as u64),
            ..stats
        }
    }

    /// Says the same to each, and remembers it for those to come.
    fn tell(&self, remember: impl FnOnce(&mut State), command: impl Fn() -> Command) {
        match &self.set {
            Set::One(connection) => connection.command(command()),
            Set::Several(several) => {
                // Under the lock, or of two threads each could have the last word with some. What
                // it wakes is the runtime's own (I11).
                let mut state = several.lock();
                remember(&mut state);
                for connection in &state.connections {
                    connection.command(command());
                }
            }
        }
    }
}

impl Several {
    fn place(
        &self,
        near: Option<&Arc<ConnectionHandle>>,
        shared_status: &Weak<SharedStatus>,
    ) -> Result<Arc<ConnectionHandle>, SubscribeError> {
        let mut state = self.lock();
        if state.is_shut_down {
            return Err(SubscribeError::ShutDown);
        }
        let near = near.and_then(|near| {
            state.connections.iter().position(|connection| Arc::ptr_eq(connection, near))
        });
        let near =
            near.filter(|&index| self.placement.has_room(state.connections[index].counters.load()));
        let loads = state.connections.iter().map(|connection| connection.counters.load());
        let (connection, unstarted) = match near
            .map_or_else(|| self.placement.choose(loads), Choice::ConnectionHandle)
        {
            Choice::ConnectionHandle(index) => (Arc::clone(&state.connections[index]), None),
            Choice::New => self
                .grow(&mut state, shared_status)
                .map(|(connection, unstarted)| (connection, Some(unstarted)))?,
            Choice::Full => {
                let limit = self.placement.limit.map_or(usize::MAX, usize::from);
                return Err(SubscribeError::Full { connections: state.connections.len(), limit });
            }
        };
        connection.counters.begun();
        drop(state);
        if let Some(unstarted) = unstarted {
            self.template.run(unstarted);
        }
        Ok(connection)
    }

    fn connect(&self, shared_status: &Weak<SharedStatus>) -> Vec<Connected> {
        self.grow_all(shared_status)
            .iter()
            .map(|connection| connection.ask(Command::Connect))
            .collect()
    }

    /// The same for equal requests.
    fn connection_for(
        &self,
        request: &str,
        shared_status: &Weak<SharedStatus>,
    ) -> Option<Arc<ConnectionHandle>> {
        let connections = self.grow_all(shared_status);
        let mut hasher = DefaultHasher::new();
        request.hash(&mut hasher);
        let nth = hasher.finish() % connections.len() as u64;
        connections.into_iter().nth(usize::try_from(nth).unwrap_or_default())
    }

    /// All that there are to be before any is full. None of them dials before it has something to
    /// carry.
    fn grow_all(&self, shared_status: &Weak<SharedStatus>) -> Vec<Arc<ConnectionHandle>> {
        let wanted = self.placement.connections().get();
        let (mut state, mut made) = (self.lock(), Vec::new());
        while state.connections.len() < wanted && !state.is_shut_down {
            let Ok((_, unstarted)) = self.grow(&mut state, shared_status) else { break };
            made.push(unstarted);
        }
        let connections = state.connections[..wanted.min(state.connections.len())].to_vec();
        drop(state);
        for unstarted in made {
            self.template.run(unstarted);
        }
        connections
    }

    /// One more, whose driver is to run once the lock is released.
    fn grow(
        &self,
        state: &mut State,
        shared_status: &Weak<SharedStatus>,
    ) -> Result<(Arc<ConnectionHandle>, Unstarted), SubscribeError> {
        let first = state.connections.first().ok_or(SubscribeError::ShutDown)?;
        let retries = Arc::clone(&first.retries);
        // It lives as long as any driver.
        let shared_status = shared_status.upgrade().ok_or_else(|| first.refusal())?;
        let (connection, unstarted) =
            self.template.make(self.placement, state.connections.len(), &shared_status, retries);
        if state.is_paused {
            connection.command(Command::Pause);
        }
        state.connections.push(Arc::clone(&connection));
        Ok((connection, unstarted))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic half-way runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Template {
    fn make(
        &self,
        placement: Placement,
        index: usize,
        shared_status: &Arc<SharedStatus>,
        retries: Arc<Retries>,
    ) -> (Arc<ConnectionHandle>, Unstarted) {
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
        let connection = Arc::new(ConnectionHandle::new(commands, Arc::default(), retries, number));
        // Its timer belongs to the runtime.
        let _entered = self.runtime.enter();
        let driver = Driver::new(
            Session::new(config),
            Arc::clone(&self.connector),
            receiver,
            shared_status.add(),
            Arc::clone(&connection.counters),
            Arc::clone(&connection.buffers),
        );
        (connection, Unstarted { driver, number })
    }

    fn run(&self, Unstarted { driver, number }: Unstarted) {
        let span = number.map_or_else(
            || self.span.clone(),
            |number| telemetry::connection_span(&self.span, number),
        );
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
