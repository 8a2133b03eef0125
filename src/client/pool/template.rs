//! Makes connections: each gets its own session and driver, and numbers that no other one has.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::{runtime::Handle, sync::mpsc};
use tracing::{Instrument, Span};

use super::{ConnectionHandle, Placement, SharedStatus, dedicated::Listed};
use crate::{
    client::{
        Retries,
        driver::{Connector, Driver},
        telemetry,
    },
    session::{Config, Session},
};

/// Everything that a new connection needs.
pub(crate) struct Template {
    /// The runtime that the client was built on, because subscribing needs no runtime.
    pub(crate) runtime: Handle,
    pub(crate) connector: Arc<Connector>,
    pub(crate) config: Config,
    pub(crate) placement: Placement,
    /// The span of the client.
    pub(crate) span: Span,
    /// The number of connections made so far.
    pub(crate) made: AtomicU64,
    #[cfg(feature = "network-watch")]
    pub(crate) watch: Option<crate::client::network::NetworkWatch>,
}

/// What a connection is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Operations are placed on it. It is the one with this index among such connections.
    Placed(usize),
    /// One subscription has it for itself.
    Dedicated,
}

/// A driver that was not spawned yet. It must not be spawned under a lock: if the runtime is gone,
/// the driver ends at once and wakes readers (I11), and entering its span runs the application's
/// subscriber.
pub(super) struct UnstartedDriver {
    driver: Driver,
    number: Option<u64>,
    pub(super) listed: Option<Arc<Listed>>,
}

impl Template {
    /// Makes a connection. Also returns its number, which no other connection of the client has.
    pub(super) fn make_connection(
        &self,
        purpose: Purpose,
        shared_status: &Arc<SharedStatus>,
        retries: Arc<Retries>,
    ) -> (ConnectionHandle, UnstartedDriver, u64) {
        let made = self.made.fetch_add(1, Relaxed);
        let mut config = self.config.clone();
        // Dedicated connections share the budget of the first connection, because nobody knows how
        // many there will be.
        let (index, is_dedicated) = match purpose {
            Purpose::Placed(index) => (index, false),
            Purpose::Dedicated => (0, true),
        };
        config.is_single_use = is_dedicated;
        config.max_dials = config.max_dials.map(|budget| self.placement.share(budget, index));
        config.dial_log = config.dial_log.filter(|_| index == 0);
        // Each connection needs its own seed, or all would dial at the same moments.
        config.seed ^= made.wrapping_mul(SEED_STEP);
        // After 2^24 connections a range is used again. Its first ids are long out of use.
        config.first_serial = made.wrapping_mul(SERIALS);
        let number = (is_dedicated || !self.placement.is_single()).then_some(made + 1);
        let (commands, receiver) = mpsc::unbounded_channel();
        #[cfg(feature = "network-watch")]
        if let Some(watch) = &self.watch {
            watch.add_driver(commands.downgrade());
        }
        let connection = ConnectionHandle::new(commands, Arc::default(), retries, number);
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
        (connection, UnstartedDriver { driver, number, listed: None }, made + 1)
    }

    pub(super) fn run(&self, UnstartedDriver { driver, number, listed }: UnstartedDriver) {
        let span = number.map_or_else(
            || self.span.clone(),
            |number| telemetry::connection_span(&self.span, number),
        );
        let Some(listed) = listed else {
            self.runtime.spawn(driver.instrument(span));
            return;
        };
        let driver = async move {
            driver.await;
            drop(listed);
        };
        self.runtime.spawn(driver.instrument(span));
    }

    #[cfg(feature = "network-watch")]
    pub(super) fn watch_network(
        &self,
        status: tokio::sync::watch::Receiver<crate::session::Status>,
    ) {
        if let Some(watch) = &self.watch {
            self.runtime.spawn(watch.clone().run(status).instrument(self.span.clone()));
        }
    }
}

/// An odd number, so that all of 2^64 connections have different seeds.
const SEED_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The number of ids that each connection may use, which is more than it ever needs.
const SERIALS: u64 = 1 << 40;
