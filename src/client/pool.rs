//! The connections of one client. Each has its own session, driver and load.
//!
//! Owns the choice of a connection for an operation, the creation of connections, and commands to
//! all of them, including those that one subscription has for itself. Must not decide anything
//! about one connection: its session does, and a session does not know the other connections.

mod dedicated;
mod placement;
mod status;
mod template;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

use self::{
    dedicated::{Dedicated, Listed},
    placement::Choice,
    template::{Purpose, UnstartedDriver},
};
pub(crate) use self::{
    placement::Placement,
    status::{SharedStatus, StatusSlot},
    template::Template,
};
use crate::{
    client::{Retries, driver::Command, telemetry::Counters},
    delivery::{
        buffers::Buffers,
        mailbox::{Batch, Closed},
        writer::Writer,
    },
    error::{NotConnected, SubscribeError},
    protocol::Payload,
    response::{ConnectionEnd, End},
    session::{Config, Stats, Status},
};

/// A handle to one connection. The reader of an operation holds the handle of its connection.
pub(crate) struct ConnectionHandle {
    commands: mpsc::UnboundedSender<Command>,
    counters: Arc<Counters>,
    buffers: Arc<Buffers>,
    retries: Arc<Retries>,
    /// Counts from 1. `None` for the only connection of a client without other ones.
    number: Option<u64>,
    /// `None` if operations are placed on the connection, and do not have it for themselves.
    listed: Option<Arc<Listed>>,
}

/// All connections of one client.
pub(crate) struct Pool {
    kind: PoolKind,
    dedicated: Arc<Dedicated>,
    /// What makes connections. `None` in a test that drives the session itself.
    template: Option<Arc<Template>>,
    shared_status: Weak<SharedStatus>,
    status: watch::Receiver<Status>,
}

enum PoolKind {
    /// Never grows, so an operation needs neither a lock nor a search.
    Single(Arc<ConnectionHandle>),
    Multi(Box<MultiPool>),
}

struct MultiPool {
    template: Arc<Template>,
    state: Mutex<State>,
}

struct State {
    /// Never shrinks. An idle connection is used again.
    connections: Vec<Arc<ConnectionHandle>>,
    lasting: Lasting,
}

/// The commands to the whole client that a connection made later must know.
#[derive(Clone, Copy, Default)]
struct Lasting {
    is_paused: bool,
    is_shut_down: bool,
}

/// The answer of the driver once the connection is open, or cannot be opened.
pub(crate) struct Connected {
    answer: oneshot::Receiver<Result<(), ConnectionEnd>>,
    counters: Arc<Counters>,
    /// The connection may end while the client lives. Then there is nothing left to wait for.
    may_end: bool,
}

impl Connected {
    pub(crate) async fn outcome(self) -> Result<(), NotConnected> {
        match self.answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ConnectionEnd::Lost(cause))) => Err(NotConnected::Lost(cause)),
            Ok(Err(ConnectionEnd::GaveUp { attempts, cause })) => {
                Err(NotConnected::GaveUp { attempts, cause })
            }
            Ok(Err(ConnectionEnd::ShutDown)) | Err(_)
                if self.may_end && !self.counters.is_runtime_gone() =>
            {
                Ok(())
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
        Self { commands, counters: Arc::default(), buffers, retries, number, listed: None }
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
        Connected { answer, counters: Arc::clone(&self.counters), may_end: false }
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

    /// Whether one subscription has this connection for itself.
    pub(crate) fn is_dedicated(&self) -> bool {
        self.listed.is_some()
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
    pub(crate) fn new(template: Template) -> Self {
        let (shared_status, status) = SharedStatus::new();
        let Config { backoff_base: base, backoff_cap: cap, seed, .. } = template.config;
        let retries = Arc::new(Retries { runtime: template.runtime.clone(), base, cap, seed });
        let (connection, unstarted, _) =
            template.make_connection(Purpose::Placed(0), &shared_status, retries);
        let (connection, template) = (Arc::new(connection), Arc::new(template));
        template.run(unstarted);
        #[cfg(feature = "network-watch")]
        template.watch_network(status.clone());
        let kind = if template.placement.is_single() {
            PoolKind::Single(connection)
        } else {
            let state = State { connections: vec![connection], lasting: Lasting::default() };
            let (template, state) = (Arc::clone(&template), Mutex::new(state));
            PoolKind::Multi(Box::new(MultiPool { template, state }))
        };
        Self {
            kind,
            dedicated: Arc::default(),
            template: Some(template),
            shared_status: Arc::downgrade(&shared_status),
            status,
        }
    }

    /// Creates a pool with a single connection whose commands the caller receives.
    #[cfg(any(test, feature = "_bench"))]
    pub(crate) fn without_driver(connection: ConnectionHandle) -> Self {
        let (shared_status, status) = SharedStatus::new();
        Self {
            kind: PoolKind::Single(Arc::new(connection)),
            dedicated: Arc::default(),
            template: None,
            shared_status: Arc::downgrade(&shared_status),
            status,
        }
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

    /// Makes a connection for one subscription alone, and counts the subscription there.
    pub(crate) fn dedicate(&self) -> Result<Arc<ConnectionHandle>, SubscribeError> {
        let first = self.first()?;
        let (Some(template), Some(shared_status)) = (&self.template, self.shared_status.upgrade())
        else {
            return Err(first.refusal());
        };
        let retries = Arc::clone(&first.retries);
        let (mut connection, mut unstarted, number) =
            template.make_connection(Purpose::Dedicated, &shared_status, retries);
        let listed = self.dedicated.add(number, &connection.commands, &connection.counters);
        let listed = listed.ok_or(SubscribeError::ShutDown)?;
        unstarted.listed = Some(Arc::clone(&listed));
        connection.listed = Some(listed);
        connection.counters.begun();
        template.run(unstarted);
        Ok(Arc::new(connection))
    }

    /// Replaces every connection.
    pub(crate) fn rotate(&self) -> Vec<Connected> {
        let mut answers = match &self.kind {
            PoolKind::Single(connection) => vec![connection.request(Command::Rotate)],
            PoolKind::Multi(pool) => pool
                .lock()
                .connections
                .iter()
                .map(|connection| connection.request(Command::Rotate))
                .collect(),
        };
        answers.extend(self.dedicated.rotate());
        answers
    }

    pub(crate) fn pause(&self) {
        self.command_all(|lasting| lasting.is_paused = true, || Command::Pause);
    }

    pub(crate) fn resume(&self) {
        self.command_all(|lasting| lasting.is_paused = false, || Command::Resume);
    }

    pub(crate) fn reconnect_now(&self) {
        self.command_all(|_| {}, || Command::ReconnectNow);
    }

    pub(crate) fn network_changed(&self) {
        self.command_all(|_| {}, || Command::NetworkChanged);
    }

    pub(crate) fn shut_down(&self, within: Duration) {
        self.command_all(|lasting| lasting.is_shut_down = true, || Command::Shutdown { within });
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
        let stats = stats.and(self.dedicated.stats());
        Stats {
            connections_open: self
                .shared_status
                .upgrade()
                .map_or(0, |shared_status| shared_status.open() as u64),
            ..stats
        }
    }

    /// Sends a command to every connection. `remember` stores it for connections made later.
    fn command_all(&self, remember: impl Fn(&mut Lasting), command: impl Fn() -> Command) {
        // Under the lock, so that all connections see the commands of two threads in the same
        // order. A send wakes only tasks of the runtime (I11).
        let dedicated = self.dedicated.begin_command(&remember);
        match &self.kind {
            PoolKind::Single(connection) => connection.command(command()),
            PoolKind::Multi(pool) => {
                let mut state = pool.lock();
                remember(&mut state.lasting);
                for connection in &state.connections {
                    connection.command(command());
                }
            }
        }
        dedicated.send_all(command);
    }

    fn first(&self) -> Result<Arc<ConnectionHandle>, SubscribeError> {
        match &self.kind {
            PoolKind::Single(connection) => Ok(Arc::clone(connection)),
            PoolKind::Multi(pool) => {
                pool.lock().connections.first().cloned().ok_or(SubscribeError::ShutDown)
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
        if state.lasting.is_shut_down {
            return Err(SubscribeError::ShutDown);
        }
        let near = near.and_then(|near| {
            state.connections.iter().position(|connection| Arc::ptr_eq(connection, near))
        });
        let near = near.filter(|&index| {
            self.template.placement.has_room(state.connections[index].counters.load())
        });
        let loads = state.connections.iter().map(|connection| connection.counters.load());
        let (connection, unstarted) = match near
            .map_or_else(|| self.template.placement.choose(loads), Choice::Existing)
        {
            Choice::Existing(index) => (Arc::clone(&state.connections[index]), None),
            Choice::New => self
                .add_connection(&mut state, shared_status)
                .map(|(connection, unstarted)| (connection, Some(unstarted)))?,
            Choice::Full => {
                let limit = self.template.placement.limit.map_or(usize::MAX, usize::from);
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
        let wanted = self.template.placement.connections().get();
        let (mut state, mut made) = (self.lock(), Vec::new());
        while state.connections.len() < wanted && !state.lasting.is_shut_down {
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
        let purpose = Purpose::Placed(state.connections.len());
        let (connection, unstarted, _) =
            self.template.make_connection(purpose, &shared_status, retries);
        let connection = Arc::new(connection);
        if state.lasting.is_paused {
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
