//! Close codes: RFC 6455's, GraphQL's, and what each one says about trying again.
//!
//! Owns the mapping from a cause to a [`Verdict`]. Must not know how a verdict is carried out.

use std::time::Duration;

use crate::error::{CloseCode, ConnectError, DialError, Disconnect};

/// What to do after a connection was lost or could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Try again, with backoff.
    Retry,
    /// Try again, no sooner than this.
    RetryAfter(Duration),
    /// The credentials were rejected: ask for new ones and try again at once; twice in a row is
    /// fatal.
    Rejected,
    /// Looks like a rejection or a restart: ask for new credentials, back off; the fifth in a row
    /// is fatal.
    Suspect,
    /// The server said that an operation id was in use: once is retried, twice is fatal.
    DuplicateId,
    /// The server does not speak the subprotocol that was offered: try the other one, where there
    /// is one.
    OtherSubprotocol,
    /// Trying again would end the same way.
    Fatal,
}

/// How far a connection had got when it was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Before `connection_ack`.
    Opening,
    /// After it.
    Open,
}

/// How strongly a loss after the acknowledgement points at what was sent last (rule 22).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Evidence {
    /// A code about what the server received, or one of its own, such as 4500 or 4400 for a syntax
    /// error.
    Strong,
    /// A handler that crashes looks like this, and so do a network that flaps and a server that
    /// fails.
    Weak,
}

/// The floor for servers that say "later": RFC 6455's 1013 and 4429 on gateways that count
/// connections.
pub(crate) const LONG_FLOOR: Duration = Duration::from_secs(5);

/// The default verdict for a cause. `negotiable` says whether the subprotocol is still a matter of
/// trial.
pub(crate) fn verdict(cause: &Disconnect, stage: Stage, negotiable: bool) -> Verdict {
    match cause {
        Disconnect::Closed { code, .. } => close_verdict(*code, stage, negotiable),
        Disconnect::Refused { .. } => Verdict::Rejected,
        Disconnect::Requested
        | Disconnect::Reset(_)
        | Disconnect::WebSocket(_)
        | Disconnect::InvalidCloseFrame { .. }
        | Disconnect::Silent(_)
        | Disconnect::AckTimeout(_) => Verdict::Retry,
        Disconnect::Violation(_)
        | Disconnect::MessageTooBig { .. }
        | Disconnect::NoSubprotocol { .. } => Verdict::Fatal,
        Disconnect::Credentials(error) => {
            if error.is_fatal() {
                Verdict::Fatal
            } else {
                Verdict::Retry
            }
        }
        Disconnect::Connect(error) => connect_verdict(error, negotiable),
    }
}

fn close_verdict(code: CloseCode, stage: Stage, negotiable: bool) -> Verdict {
    match (code.0, stage) {
        (1002 | 4406, Stage::Opening) if negotiable => Verdict::OtherSubprotocol,
        (1000 | 1002 | 1011, Stage::Opening) => Verdict::Suspect,
        (1008 | 3000 | 4401 | 4403, _) => Verdict::Rejected,
        (1013 | 4429, _) => Verdict::RetryAfter(LONG_FLOOR),
        (4409, _) => Verdict::DuplicateId,
        (1002 | 1003 | 1007 | 1009 | 1010 | 4400 | 4004 | 4005 | 4406, _) => Verdict::Fatal,
        _ => Verdict::Retry,
    }
}

fn connect_verdict(error: &ConnectError, negotiable: bool) -> Verdict {
    match error {
        ConnectError::Timeout(_) => Verdict::Retry,
        ConnectError::Dial(dial) => match dial {
            DialError::Resolve { .. }
            | DialError::Connect(_)
            | DialError::Tls(_)
            | DialError::ProxyUnreachable { .. }
            | DialError::ProxyFailed { .. }
            | DialError::Other(_) => Verdict::Retry,
            DialError::UnknownIssuer(_)
            | DialError::Expired(_)
            | DialError::NotYetValid(_)
            | DialError::WrongName(_)
            | DialError::PinMismatch { .. }
            | DialError::Certificate(_)
            | DialError::ClientCertificateRequired(_)
            | DialError::ClientCertificateRefused(_)
            | DialError::ProxyRefused { .. }
            | DialError::ProxyAuthRequired
            | DialError::Permanent(_) => Verdict::Fatal,
        },
        // RFC 6455 section 4.2.2: a server that knows no offered subprotocol answers without one,
        // or not at all.
        ConnectError::Subprotocol { .. } | ConnectError::Http { status: 400, .. } if negotiable => {
            Verdict::OtherSubprotocol
        }
        ConnectError::Subprotocol { .. }
        | ConnectError::Redirected { .. }
        | ConnectError::Upgrade(_) => Verdict::Fatal,
        ConnectError::Http { status, retry_after, .. } => match status {
            401 | 403 => Verdict::Rejected,
            408 | 425 | 429 | 500..=599 => retry_after.map_or(Verdict::Retry, Verdict::RetryAfter),
            _ => Verdict::Fatal,
        },
    }
}

/// What a loss after the acknowledgement says about the operations that were sent last; `verdict`
/// is the cause's own.
pub(crate) fn evidence(cause: &Disconnect, verdict: Verdict) -> Option<Evidence> {
    match verdict {
        Verdict::Retry | Verdict::Fatal => {}
        // These name another reason.
        Verdict::RetryAfter(_)
        | Verdict::Rejected
        | Verdict::Suspect
        | Verdict::DuplicateId
        | Verdict::OtherSubprotocol => return None,
    }
    match cause {
        Disconnect::Closed { code, .. } => match code.0 {
            // A restart, or words about the handshake.
            1001 | 1012 | 4406 | 4408 | 4504 => None,
            1002 | 1003 | 1007 | 1009 | 1010 | 4000..=4999 => Some(Evidence::Strong),
            _ => Some(Evidence::Weak),
        },
        // Some servers put a syntax error into a close frame that is longer than a close frame may
        // be.
        Disconnect::Reset(_) | Disconnect::WebSocket(_) | Disconnect::InvalidCloseFrame { .. } => {
            Some(Evidence::Weak)
        }
        Disconnect::Refused { .. }
        | Disconnect::Requested
        | Disconnect::Silent(_)
        | Disconnect::AckTimeout(_)
        | Disconnect::Violation(_)
        | Disconnect::MessageTooBig { .. }
        | Disconnect::Connect(_)
        | Disconnect::NoSubprotocol { .. }
        | Disconnect::Credentials(_) => None,
    }
}

/// Cuts a close reason to what a close frame holds: 123 bytes of UTF-8 (RFC 6455 section 5.5), at a
/// character boundary.
pub(crate) fn close_reason(reason: &str) -> &str {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use super::*;

    #[test]
    fn what_certificates_and_proxies_refuse_is_fatal_and_what_may_pass_is_retried() {
        let io = || Arc::new(io::Error::from(io::ErrorKind::InvalidData));
        let fatal = [
            DialError::UnknownIssuer(io()),
            DialError::Expired(io()),
            DialError::NotYetValid(io()),
            DialError::WrongName(io()),
            DialError::PinMismatch { found: String::new() },
            DialError::Certificate(io()),
            DialError::ClientCertificateRequired(io()),
            DialError::ClientCertificateRefused(io()),
            DialError::ProxyRefused { reason: String::new() },
            DialError::ProxyAuthRequired,
        ];
        let retried = [
            DialError::Tls(io()),
            DialError::ProxyUnreachable {
                proxy: String::new(),
                source: Arc::new(DialError::Connect(io())),
            },
            DialError::ProxyFailed { reason: String::new() },
        ];
        let verdict = |dial: &DialError| {
            verdict(&Disconnect::Connect(ConnectError::Dial(dial.clone())), Stage::Opening, false)
        };
        for error in fatal {
            assert_eq!(verdict(&error), Verdict::Fatal, "{error:?}");
        }
        for error in retried {
            assert_eq!(verdict(&error), Verdict::Retry, "{error:?}");
        }
    }
}
