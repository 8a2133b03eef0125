//! The outcome of a run, and its exit code.

use std::{fmt, process::ExitCode};

use resub::SubscriptionError;

/// The outcome of an operation or of the whole run. A worse outcome is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Outcome {
    /// Completed, or stopped as asked by `--count` or `--for`.
    #[default]
    Done,
    /// The operation was rejected, or returned only errors.
    Failed,
    /// The connection was refused for good.
    Refused,
    GaveUp,
    /// Stopped by Ctrl-C.
    Interrupted,
}

impl Outcome {
    /// Returns the outcome of an operation that ended with `error`.
    pub(crate) fn of(error: &SubscriptionError) -> Self {
        match error {
            SubscriptionError::Lost(_) => Self::Refused,
            SubscriptionError::GaveUp { .. } => Self::GaveUp,
            // Only this program shuts the client down.
            SubscriptionError::ShutDown => Self::Done,
            // `Rejected`, and errors that a later version of the library may add.
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

/// An error in the command line, or in a file that it names. The message contains the flag, and
/// never the value of a header or an init payload.
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
