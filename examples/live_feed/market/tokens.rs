//! Tokens that the market issues, and that expire.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A handle to the valid tokens, which can also issue new ones.
#[derive(Clone)]
pub(crate) struct Tokens(Arc<Shared>);

struct Shared {
    lifetime: Duration,
    valid: Mutex<Valid>,
    /// The number of connections that were dropped because their token expired.
    cut: AtomicUsize,
}

struct Valid {
    rng: fastrand::Rng,
    /// When each token expires.
    expiries: HashMap<String, Instant>,
}

impl Tokens {
    pub(crate) fn new(seed: u64, lifetime: Duration) -> Self {
        let valid = Valid { rng: fastrand::Rng::with_seed(seed), expiries: HashMap::new() };
        Self(Arc::new(Shared { lifetime, valid: Mutex::new(valid), cut: AtomicUsize::new(0) }))
    }

    /// Issues a token that is valid for [`lifetime`](Self::lifetime).
    pub(crate) fn mint(&self) -> String {
        let mut valid = self.valid();
        let Valid { rng, expiries } = &mut *valid;
        let now = now();
        expiries.retain(|_, expiry| *expiry > now);
        let token = format!("{:016x}", rng.u64(..));
        expiries.insert(token.clone(), now + self.0.lifetime);
        token
    }

    /// How long a token is valid.
    pub(crate) fn lifetime(&self) -> Duration {
        self.0.lifetime
    }

    /// Returns when a token expires. Returns `None` if it has expired or was never issued.
    pub(crate) fn expiry_of(&self, token: &str) -> Option<Instant> {
        self.valid().expiries.get(token).copied().filter(|expiry| *expiry > now())
    }

    /// Counts a connection that was dropped because its token expired.
    pub(crate) fn count_cut(&self) {
        self.0.cut.fetch_add(1, Relaxed);
    }

    /// The number of connections that were dropped because their token expired.
    pub(crate) fn cut(&self) -> usize {
        self.0.cut.load(Relaxed)
    }

    /// Ignores poisoning, because nothing under this lock can panic halfway.
    fn valid(&self) -> MutexGuard<'_, Valid> {
        self.0.valid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "the rule is for the library; this is a server")]
fn now() -> Instant {
    Instant::now()
}
