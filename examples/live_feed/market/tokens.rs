//! Tokens that the market mints, and that end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A handle to the tokens that are good. Whoever has it can mint one.
#[derive(Clone)]
pub(crate) struct Tokens(Arc<Shared>);

struct Shared {
    lifetime: Duration,
    good: Mutex<Good>,
    /// Connections that outlived their token.
    cut: AtomicUsize,
}

struct Good {
    rng: fastrand::Rng,
    /// When each ends.
    ends: HashMap<String, Instant>,
}

impl Tokens {
    pub(crate) fn new(seed: u64, lifetime: Duration) -> Self {
        let good = Good { rng: fastrand::Rng::with_seed(seed), ends: HashMap::new() };
        Self(Arc::new(Shared { lifetime, good: Mutex::new(good), cut: AtomicUsize::new(0) }))
    }

    /// A token that opens the market for a [`lifetime`](Self::lifetime) from now on.
    pub(crate) fn mint(&self) -> String {
        let mut good = self.good();
        let Good { rng, ends } = &mut *good;
        let now = now();
        ends.retain(|_, end| *end > now);
        let token = format!("{:016x}", rng.u64(..));
        ends.insert(token.clone(), now + self.0.lifetime);
        token
    }

    /// For how long a token is good.
    pub(crate) fn lifetime(&self) -> Duration {
        self.0.lifetime
    }

    /// When a token ends. `None` if it has, or was never minted.
    pub(crate) fn end_of(&self, token: &str) -> Option<Instant> {
        self.good().ends.get(token).copied().filter(|end| *end > now())
    }

    /// A connection was cut because its token had ended.
    pub(crate) fn count_cut(&self) {
        self.0.cut.fetch_add(1, Relaxed);
    }

    /// How many connections were cut because their token had ended.
    pub(crate) fn cut(&self) -> usize {
        self.0.cut.load(Relaxed)
    }

    /// Every change of this is whole, so a poisoned lock is as good as new.
    fn good(&self) -> MutexGuard<'_, Good> {
        self.0.good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "the library's rule; this is a server")]
fn now() -> Instant {
    Instant::now()
}
