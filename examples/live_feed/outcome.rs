//! How a run ends, and the exit code for it.

use std::{fmt, process::ExitCode};

use resub::SubscriptionError;

/// How an operation, or the whole run, ended. What is worse is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Outcome {
    /// Completed, or stopped as asked by `--count` or `--for`.
    #[default]
    Done,
    /// The operation was rejected, or brought nothing but errors.
    Failed,
    /// The connection was refused for good.
    Refused,
    GaveUp,
    /// By Ctrl-C.
    Interrupted,
}

impl Outcome {
    /// Of an operation that ended with `error`.
    pub(crate) fn of(error: &SubscriptionError) -> Self {
        match error {
            SubscriptionError::Lost(_) => Self::Refused,
            SubscriptionError::GaveUp { .. } => Self::GaveUp,
            // Only because this program shut the client down.
            SubscriptionError::ShutDown => Self::Done,
            // `Rejected`, and whatever else ends a stream one day.
            _ => Self::Failed,
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 3,
            Self::GaveUp => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        outcome.code().into()
    }
}

/// What is wrong with the command line or what it names, and kept the program from running. Names
/// the flag, and never the value of a header or an init payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misuse(pub(crate) String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Misuse> for ExitCode {
    fn from(_: Misuse) -> Self {
        2.into()
    }
}
