//! The connections of one client. Each has its own session, driver and load.
//!
//! Owns the choice of a connection for an operation, the creation of connections, and commands to
//! all of them, including those that one subscription has for itself. Must not decide anything
//! about one connection: its session does, and a session does not know the other connections.

mod connection;
mod dedicated;
mod placement;
mod status;
mod template;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::watch;

pub(crate) use self::{
    connection::{Connected, ConnectionHandle},
    placement::Placement,
    status::{SharedStatus, StatusSlot},
    template::Template,
};
use self::{
    dedicated::Dedicated,
    placement::Choice,
    template::{Purpose, UnstartedDriver},
};
use crate::{
    client::{Retries, driver::Command},
    error::SubscribeError,
    session::{Config, Stats, Status},
};

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
