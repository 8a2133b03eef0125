//! The connections of one client. Each has its own session, driver and load.
//!
//! Owns the choice of a connection for an operation, the creation of connections, and commands to
//! all of them. Must not decide anything about one connection: its session does, and a session does
//! not know the other connections.

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
    response::{ConnectionEnd, End},
    session::{Config, Session, Stats, Status},
};

/// A handle to one connection. The reader of an operation holds the handle of its connection.
pub(crate) struct ConnectionHandle {
    commands: mpsc::UnboundedSender<Command>,
    counters: Arc<Counters>,
    buffers: Arc<Buffers>,
    retries: Arc<Retries>,
    /// Counts from 1. `None` if the client has a single connection.
    number: Option<u64>,
}

/// All connections of one client.
pub(crate) struct Pool {
    kind: PoolKind,
    shared_status: Weak<SharedStatus>,
    status: watch::Receiver<Status>,
}

enum PoolKind {
    /// Never grows, so an operation needs neither a lock nor a search.
    Single(Arc<ConnectionHandle>),
    Multi(Box<MultiPool>),
}

struct MultiPool {
    placement: Placement,
    template: Template,
    state: Mutex<State>,
}

struct State {
    /// Never shrinks. An idle connection is used again.
    connections: Vec<Arc<ConnectionHandle>>,
    is_paused: bool,
    is_shut_down: bool,
}

/// Everything that a new connection needs.
pub(crate) struct Template {
    /// The runtime that the client was built on, because subscribing needs no runtime.
    pub(crate) runtime: Handle,
    pub(crate) connector: Arc<Connector>,
    pub(crate) config: Config,
    /// The span of the client.
    pub(crate) span: Span,
    #[cfg(feature = "network-watch")]
    pub(crate) watch: Option<crate::client::network::NetworkWatch>,
}

/// A driver that was not spawned yet. It must not be spawned under a lock: if the runtime is gone,
/// the driver ends at once and wakes readers (I11), and entering its span runs the application's
/// subscriber.
struct UnstartedDriver {
    driver: Driver,
    number: Option<u64>,
}

/// The answer of the driver once the connection is open, or cannot be opened.
pub(crate) struct Connected {
    answer: oneshot::Receiver<Result<(), ConnectionEnd>>,
    counters: Arc<Counters>,
}

impl Connected {
    pub(crate) async fn outcome(self) -> Result<(), NotConnected> {
        match self.answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ConnectionEnd::Lost(cause))) => Err(NotConnected::Lost(cause)),
            Ok(Err(ConnectionEnd::GaveUp { attempts, cause })) => {
                Err(NotConnected::GaveUp { attempts, cause })
            }
            // `Err` means that the driver has ended.
            Ok(Err(ConnectionEnd::ShutDown)) | Err(_) => Err(if self.counters.is_runtime_gone() {
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

    /// Sends a command to the driver. If the driver has ended, there is nothing left to do.
    pub(crate) fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Sends a command that the driver answers.
    fn request(
        &self,
        command: fn(oneshot::Sender<Result<(), ConnectionEnd>>) -> Command,
    ) -> Connected {
        let (waiter, answer) = oneshot::channel();
        self.command(command(waiter));
        Connected { answer, counters: Arc::clone(&self.counters) }
    }

    /// Sends an operation that was placed on this connection to the driver.
    pub(crate) fn begin(&self, command: Command, writer: &Writer) -> Result<(), SubscribeError> {
        if self.commands.send(command).is_err() {
            self.counters.ended();
            return Err(self.refusal());
        }
        // The driver may have ended between the two steps of a send. Then it never sees the
        // command.
        if self.commands.is_closed() {
            writer.finish(End::Connection(ConnectionEnd::ShutDown), || self.counters.ended());
        }
        Ok(())
    }

    /// Returns why no operation can start here once the driver has ended.
    fn refusal(&self) -> SubscribeError {
        if self.counters.is_runtime_gone() {
            SubscribeError::RuntimeGone
        } else {
            SubscribeError::ShutDown
        }
    }

    /// Removes the reader of an operation. `is_over` says whether it has read the end.
    pub(crate) fn leave(&self, writer: &Writer, batch: &mut Batch<Payload>, is_over: bool) {
        let Closed { unread, was_open } = writer.mailbox.close(batch);
        self.counters.dequeued(unread as u64);
        if !is_over {
            self.command(Command::Cancel(writer.id));
        }
        // This comes last, so that an operation that takes the freed place is also sent later.
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
    /// Starts the driver of the first connection, which does not dial yet.
    pub(crate) fn new(template: Template, placement: Placement) -> Self {
        let (shared_status, status) = SharedStatus::new();
        let Config { backoff_base: base, backoff_cap: cap, seed, .. } = template.config;
        let retries = Arc::new(Retries { runtime: template.runtime.clone(), base, cap, seed });
        let (connection, unstarted) =
            template.make_connection(placement, 0, &shared_status, retries);
        template.run(unstarted);
        #[cfg(feature = "network-watch")]
        template.watch_network(status.clone());
        let kind = if placement.is_single() {
            PoolKind::Single(connection)
        } else {
            let state =
                State { connections: vec![connection], is_paused: false, is_shut_down: false };
            PoolKind::Multi(Box::new(MultiPool { placement, template, state: Mutex::new(state) }))
        };
        Self { kind, shared_status: Arc::downgrade(&shared_status), status }
    }

    /// Creates a pool with a single connection whose commands the test receives.
    #[cfg(test)]
    pub(crate) fn without_driver(connection: ConnectionHandle) -> Self {
        let (shared_status, status) = SharedStatus::new();
        let kind = PoolKind::Single(Arc::new(connection));
        Self { kind, shared_status: Arc::downgrade(&shared_status), status }
    }

    /// Chooses the connection for a new operation and counts the operation there. Prefers `near` if
    /// that connection has room.
    pub(crate) fn place(
        &self,
        near: Option<&Arc<ConnectionHandle>>,
    ) -> Result<Arc<ConnectionHandle>, SubscribeError> {
        match &self.kind {
            PoolKind::Single(connection) => {
                connection.counters.begun();
                Ok(Arc::clone(connection))
            }
            PoolKind::Multi(pool) => pool.place(near, &self.shared_status),
        }
    }

    /// Chooses the connection for a shared operation. Equal requests get the same connection as
    /// long as it has room.
    pub(crate) fn place_shared(
        &self,
        request: &str,
    ) -> Result<Arc<ConnectionHandle>, SubscribeError> {
        match &self.kind {
            PoolKind::Single(_) => self.place(None),
            PoolKind::Multi(pool) => pool.place(
                pool.connection_for(request, &self.shared_status).as_ref(),
                &self.shared_status,
            ),
        }
    }

    /// Opens all connections that operations are spread over.
    pub(crate) fn connect(&self) -> Vec<Connected> {
        match &self.kind {
            PoolKind::Single(connection) => vec![connection.request(Command::Connect)],
            PoolKind::Multi(pool) => pool.connect(&self.shared_status),
        }
    }

    /// Replaces every connection.
    pub(crate) fn rotate(&self) -> Vec<Connected> {
        match &self.kind {
            PoolKind::Single(connection) => vec![connection.request(Command::Rotate)],
            PoolKind::Multi(pool) => pool
                .lock()
                .connections
                .iter()
                .map(|connection| connection.request(Command::Rotate))
                .collect(),
        }
    }

    pub(crate) fn pause(&self) {
        self.command_all(|state| state.is_paused = true, || Command::Pause);
    }

    pub(crate) fn resume(&self) {
        self.command_all(|state| state.is_paused = false, || Command::Resume);
    }

    pub(crate) fn reconnect_now(&self) {
        self.command_all(|_| {}, || Command::ReconnectNow);
    }

    pub(crate) fn network_changed(&self) {
        self.command_all(|_| {}, || Command::NetworkChanged);
    }

    pub(crate) fn shut_down(&self, within: Duration) {
        self.command_all(|state| state.is_shut_down = true, || Command::Shutdown { within });
    }

    pub(crate) fn status(&self) -> &watch::Receiver<Status> {
        &self.status
    }

    pub(crate) fn stats(&self) -> Stats {
        let stats = match &self.kind {
            PoolKind::Single(connection) => connection.counters.snapshot(),
            PoolKind::Multi(pool) => {
                let each = pool.lock().connections.clone();
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

    /// Sends a command to every connection. `remember` stores it for connections made later.
    fn command_all(&self, remember: impl FnOnce(&mut State), command: impl Fn() -> Command) {
        match &self.kind {
            PoolKind::Single(connection) => connection.command(command()),
            PoolKind::Multi(pool) => {
                // Under the lock, so that all connections see the commands of two threads in the
                // same order. A send wakes only tasks of the runtime (I11).
                let mut state = pool.lock();
                remember(&mut state);
                for connection in &state.connections {
                    connection.command(command());
                }
            }
        }
    }
}

impl MultiPool {
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
            .map_or_else(|| self.placement.choose(loads), Choice::Existing)
        {
            Choice::Existing(index) => (Arc::clone(&state.connections[index]), None),
            Choice::New => self
                .add_connection(&mut state, shared_status)
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
        self.make_all_connections(shared_status)
            .iter()
            .map(|connection| connection.request(Command::Connect))
            .collect()
    }

    /// Returns the same connection for equal requests.
    fn connection_for(
        &self,
        request: &str,
        shared_status: &Weak<SharedStatus>,
    ) -> Option<Arc<ConnectionHandle>> {
        let connections = self.make_all_connections(shared_status);
        let mut hasher = DefaultHasher::new();
        request.hash(&mut hasher);
        let nth = hasher.finish() % connections.len() as u64;
        connections.into_iter().nth(usize::try_from(nth).unwrap_or_default())
    }

    /// Makes all connections that operations are spread over. A new connection does not dial before
    /// it has an operation.
    fn make_all_connections(
        &self,
        shared_status: &Weak<SharedStatus>,
    ) -> Vec<Arc<ConnectionHandle>> {
        let wanted = self.placement.connections().get();
        let (mut state, mut made) = (self.lock(), Vec::new());
        while state.connections.len() < wanted && !state.is_shut_down {
            let Ok((_, unstarted)) = self.add_connection(&mut state, shared_status) else { break };
            made.push(unstarted);
        }
        let connections = state.connections[..wanted.min(state.connections.len())].to_vec();
        drop(state);
        for unstarted in made {
            self.template.run(unstarted);
        }
        connections
    }

    /// Adds a connection. The caller runs its driver after it has released the lock.
    fn add_connection(
        &self,
        state: &mut State,
        shared_status: &Weak<SharedStatus>,
    ) -> Result<(Arc<ConnectionHandle>, UnstartedDriver), SubscribeError> {
        let first = state.connections.first().ok_or(SubscribeError::ShutDown)?;
        let retries = Arc::clone(&first.retries);
        // The shared status lives as long as any driver.
        let shared_status = shared_status.upgrade().ok_or_else(|| first.refusal())?;
        let (connection, unstarted) = self.template.make_connection(
            self.placement,
            state.connections.len(),
            &shared_status,
            retries,
        );
        if state.is_paused {
            connection.command(Command::Pause);
        }
        state.connections.push(Arc::clone(&connection));
        Ok((connection, unstarted))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Poisoning is ignored, because nothing under this lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Template {
    fn make_connection(
        &self,
        placement: Placement,
        index: usize,
        shared_status: &Arc<SharedStatus>,
        retries: Arc<Retries>,
    ) -> (Arc<ConnectionHandle>, UnstartedDriver) {
        let number = (!placement.is_single()).then_some(index as u64 + 1);
        let mut config = self.config.clone();
        config.max_dials = config.max_dials.map(|budget| placement.share(budget, index));
        // Each connection needs its own seed, or all would dial at the same moments.
        config.seed ^= (index as u64).wrapping_mul(SEED_STEP);
        config.first_serial = index as u64 * SERIALS;
        let (commands, receiver) = mpsc::unbounded_channel();
        #[cfg(feature = "network-watch")]
        if let Some(watch) = &self.watch {
            watch.add_driver(commands.downgrade());
        }
        let connection = Arc::new(ConnectionHandle::new(commands, Arc::default(), retries, number));
        // The driver creates a timer, which needs the runtime.
        let _entered = self.runtime.enter();
        let driver = Driver::new(
            Session::new(config),
            Arc::clone(&self.connector),
            receiver,
            shared_status.add(),
            Arc::clone(&connection.counters),
            Arc::clone(&connection.buffers),
        );
        (connection, UnstartedDriver { driver, number })
    }

    fn run(&self, UnstartedDriver { driver, number }: UnstartedDriver) {
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

/// An odd number, so that all of 2^64 connections have different seeds.
const SEED_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The number of ids that each connection may use, which is more than it ever needs.
const SERIALS: u64 = 1 << 40;
