//! How a session behaves.

use std::{
    collections::VecDeque,
    fmt,
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use crate::{error::Disconnect, protocol::Subprotocol};

/// Every field is an option of the builder, which documents it.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) subprotocol: Option<Subprotocol>,
    pub(crate) strictness: Strictness,
    /// In bytes. It bounds the parts of one result together.
    pub(crate) max_message_size: usize,
    pub(crate) credentials_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) ack_timeout: Duration,
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) ping_timeout: Duration,
    pub(crate) backoff_base: Duration,
    pub(crate) backoff_cap: Duration,
    pub(crate) healthy_after: Duration,
    pub(crate) give_up_after: Option<u32>,
    pub(crate) refusal_grace: Duration,
    pub(crate) max_dials: Option<DialBudget>,
    /// The attempts that count for `max_dials`, if several sessions share it.
    pub(crate) dial_log: Option<DialLog>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_connection_age: Option<Duration>,
    /// Operations a second.
    pub(crate) reissue_rate: Option<NonZeroU32>,
    pub(crate) on_disconnect: Option<VerdictHook>,
    pub(crate) seed: u64,
    /// Below the first id: those of several connections must not meet.
    pub(crate) first_serial: u64,
    /// Whether any connection of the client was acknowledged, if its sessions are to share that.
    pub(crate) is_proven: Option<Arc<AtomicBool>>,
    /// The session serves one operation, and shuts down when that has ended.
    pub(crate) is_single_use: bool,
}

impl Config {
    /// The defaults, and where all randomness comes from.
    pub(crate) fn new(seed: u64) -> Self {
        let secs = Duration::from_secs;
        Self {
            subprotocol: None,
            strictness: Strictness::Lenient,
            max_message_size: 16 << 20,
            credentials_timeout: secs(30),
            connect_timeout: secs(10),
            ack_timeout: secs(10),
            ping_interval: Some(secs(10)),
            ping_timeout: secs(10),
            backoff_base: Duration::from_millis(500),
            backoff_cap: secs(30),
            healthy_after: secs(10),
            give_up_after: None,
            refusal_grace: secs(300),
            max_dials: None,
            dial_log: None,
            idle_timeout: Some(secs(30)),
            max_connection_age: None,
            reissue_rate: None,
            on_disconnect: None,
            seed,
            first_serial: 0,
            is_proven: None,
            is_single_use: false,
        }
    }
}

/// What to make of messages that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Strictness {
    /// Ignore and count them. The default: real servers send odd things.
    #[default]
    Lenient,
    /// Close the connection with 4004 and end every operation.
    Strict,
}

/// How often may be dialed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DialBudget {
    pub(crate) dials: NonZeroU32,
    pub(crate) per: Duration,
}

/// When the last attempts began, as many as a [`DialBudget`] counts.
pub(crate) type DialLog = Arc<Mutex<VecDeque<Instant>>>;

/// What is to follow a lost connection, or a failed attempt at one; see
/// [`on_disconnect`](crate::ClientBuilder::on_disconnect).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// What the client does of its own accord.
    Default,
    /// Try again, with backoff.
    Retry,
    /// Try again, no sooner than this.
    RetryAfter(Duration),
    /// The credentials are no good: ask for new ones and try again at once. The second time in a
    /// row the client waits as it does after a loss, and after
    /// [`refusal_grace`](crate::ClientBuilder::refusal_grace) this is fatal. For a server that has
    /// never acknowledged a connection the second time is fatal.
    NewCredentials,
    /// End every operation with this cause; the client stays usable.
    Fatal,
}

/// The application's own verdict.
#[derive(Clone)]
pub(crate) struct VerdictHook(Arc<Hook>);

type Hook = dyn Fn(&Disconnect, u32) -> Verdict + Send + Sync;

impl VerdictHook {
    pub(crate) fn new(hook: impl Fn(&Disconnect, u32) -> Verdict + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    /// A hook that panics has no say.
    pub(super) fn ask(&self, cause: &Disconnect, attempts: u32) -> Verdict {
        catch_unwind(AssertUnwindSafe(|| (self.0)(cause, attempts))).unwrap_or(Verdict::Default)
    }
}

impl fmt::Debug for VerdictHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerdictHook")
    }
}

/// No option is longer, so that no point in time overflows.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);
