//! What follows a loss: one table, given the cause, the stage and whether the endpoint is proven.
//!
//! An endpoint is *proven* once it has acknowledged a connection in the life of the client. An
//! unproven endpoint that refuses is probably misconfigured: the client fails fast. A proven one is
//! probably being deployed: the client persists. `PROTOCOL.md` has the table in words.
//!
//! Must not know how a verdict is carried out.

use std::time::Duration;

use crate::error::{CloseCode, ConnectError, DialError, Disconnect, Violation};

/// What to do after a connection was lost or could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Try again, with backoff.
    Retry,
    /// Try again, no sooner than this.
    RetryAfter(Duration),
    /// Try again, with backoff, so many times in a row.
    RetryTimes(u32),
    /// Ask for other credentials, with the reason.
    AskAgain(AskAgain),
    /// Offer the other subprotocol at once. If that was refused as well: `Persist` on a proven
    /// endpoint, `Fatal` on an unproven one.
    OtherSubprotocol,
    /// A refusal by an endpoint that has worked: try again, with backoff, for `refusal_grace`.
    Persist,
    /// The doing of one operation: `Fatal` if there is only one, else `Retry` (rule 22).
    OneOperation,
    /// Trying again would end the same way.
    Fatal,
}

/// How often credentials are asked for again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AskAgain {
    /// How many times in a row; `None` is for as long as `refusal_grace`.
    pub(crate) times: Option<u32>,
    /// The server said that it is about credentials; otherwise it only looks like it.
    pub(crate) is_certain: bool,
}

/// How far a connection had got when it was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Before `connection_ack`.
    Opening,
    /// After it.
    Open,
}

/// What is known of the endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
    /// It has not acknowledged a connection yet, or `refusal_grace` is zero.
    Unproven,
    /// It has.
    Proven,
}

/// What is known of the subprotocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    /// The application has fixed it.
    Fixed,
    /// It is negotiated, and the server has acknowledged it before.
    Proven,
    /// It is negotiated, and not known yet.
    Open,
}

/// How strongly a loss after the acknowledgement points at an operation (rule 22c).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Evidence {
    /// A code about what the server received, or one of its own, such as 4500 or 4400 for a syntax
    /// error; or an item that is too large.
    Strong,
    /// A handler that crashes looks like this, but so do a network that flaps and a server that
    /// fails.
    Weak,
}

/// The floor for servers that say "later": 1013 (RFC 6455 registry), and 4429 of gateways that
/// count connections.
pub(crate) const LONG_FLOOR: Duration = Duration::from_secs(5);

impl Verdict {
    /// Credentials were rejected.
    pub(crate) fn rejected(endpoint: Endpoint) -> Self {
        let times = match endpoint {
            Endpoint::Unproven => Some(1),
            Endpoint::Proven => None,
        };
        Self::AskAgain(AskAgain { times, is_certain: true })
    }

    /// A close before the acknowledgement with which some servers reject credentials, and which
    /// looks the same when they restart.
    fn probably_rejected(endpoint: Endpoint) -> Self {
        let times = match endpoint {
            Endpoint::Unproven => Some(2),
            Endpoint::Proven => None,
        };
        Self::AskAgain(AskAgain { times, is_certain: false })
    }

    /// The server refused for a reason that would persist if it were a matter of configuration.
    fn refused(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Unproven => Self::Fatal,
            Endpoint::Proven => Self::Persist,
        }
    }
}

impl AskAgain {
    /// Whether the first time in a row is without a delay. All others have the backoff.
    pub(crate) fn is_first_at_once(self) -> bool {
        self.is_certain || self.times.is_none()
    }
}

/// The default verdict for a cause.
pub(crate) fn verdict(
    cause: &Disconnect,
    stage: Stage,
    endpoint: Endpoint,
    offer: Offer,
) -> Verdict {
    match cause {
        Disconnect::Closed { code, .. } => close_verdict(*code, stage, endpoint, offer),
        Disconnect::Refused { .. } => Verdict::rejected(endpoint),
        Disconnect::ProbablyRejected { .. } => Verdict::probably_rejected(endpoint),
        Disconnect::Credentials(error) if error.is_fatal() => Verdict::Fatal,
        Disconnect::Credentials(_)
        | Disconnect::InvalidCloseFrame { .. }
        | Disconnect::Requested
        | Disconnect::Reset(_)
        | Disconnect::WebSocket(_)
        | Disconnect::Silent(_)
        | Disconnect::AckTimeout(_) => Verdict::Retry,
        Disconnect::Violation(Violation::BeforeAck(_)) | Disconnect::NoSubprotocol { .. } => {
            Verdict::refused(endpoint)
        }
        Disconnect::MessageTooBig { .. } => too_big(stage, endpoint),
        // The application has asked for strictness.
        Disconnect::Violation(Violation::Unreadable) => Verdict::Fatal,
        Disconnect::Connect(error) => connect_verdict(error, endpoint, offer),
    }
}

fn close_verdict(code: CloseCode, stage: Stage, endpoint: Endpoint, offer: Offer) -> Verdict {
    match (code.0, stage, offer) {
        (4406, Stage::Opening, Offer::Open | Offer::Proven)
        | (1002, Stage::Opening, Offer::Open) => Verdict::OtherSubprotocol,
        (1000 | 1002 | 1011, Stage::Opening, _) => Verdict::probably_rejected(endpoint),
        (1008 | 3000 | 4401 | 4403, _, _) => Verdict::rejected(endpoint),
        (1013 | 4429, _, _) => Verdict::RetryAfter(LONG_FLOOR),
        (4409, _, _) => match endpoint {
            Endpoint::Unproven => Verdict::RetryTimes(1),
            Endpoint::Proven => Verdict::Retry,
        },
        (1009, _, _) => too_big(stage, endpoint),
        (1002 | 1003 | 1007 | 1010 | 4400 | 4004 | 4005 | 4406, _, _) => Verdict::refused(endpoint),
        _ => Verdict::Retry,
    }
}

fn too_big(stage: Stage, endpoint: Endpoint) -> Verdict {
    match stage {
        Stage::Opening => Verdict::refused(endpoint),
        Stage::Open => Verdict::OneOperation,
    }
}

fn connect_verdict(error: &ConnectError, endpoint: Endpoint, offer: Offer) -> Verdict {
    let refused = Verdict::refused(endpoint);
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
            | DialError::ProxyAuthRequired => refused,
            // A dialer of the application's own says so.
            DialError::Permanent(_) => Verdict::Fatal,
        },
        // RFC 6455 section 4.2.2: a server that knows no offered subprotocol answers without one,
        // or not at all.
        ConnectError::Subprotocol { .. } | ConnectError::Http { status: 400, .. } => match offer {
            Offer::Open | Offer::Proven => Verdict::OtherSubprotocol,
            Offer::Fixed => refused,
        },
        ConnectError::Redirected { .. } | ConnectError::Upgrade(_) => refused,
        ConnectError::Http { status, retry_after, .. } => match status {
            401 | 403 => Verdict::rejected(endpoint),
            408 | 425 | 429 | 500..=599 => retry_after.map_or(Verdict::Retry, Verdict::RetryAfter),
            _ => refused,
        },
    }
}

/// What a loss after the acknowledgement says about the operations on the connection. `None` if it
/// names another reason.
pub(crate) fn evidence(cause: &Disconnect) -> Option<Evidence> {
    match cause {
        Disconnect::Closed { code, .. } => match code.0 {
            // A restart, an overload, credentials, or the handshake.
            1001 | 1008 | 1012 | 1013 | 3000 | 3008 | 4401 | 4403 | 4406 | 4408 | 4409 | 4429
            | 4504 => None,
            1002 | 1003 | 1007 | 1009 | 1010 | 4000..=4999 => Some(Evidence::Strong),
            _ => Some(Evidence::Weak),
        },
        Disconnect::MessageTooBig { .. } => Some(Evidence::Strong),
        // Some servers put a syntax error into a close frame that is longer than a close frame may
        // be.
        Disconnect::InvalidCloseFrame { .. } | Disconnect::Reset(_) | Disconnect::WebSocket(_) => {
            Some(Evidence::Weak)
        }
        Disconnect::Refused { .. }
        | Disconnect::ProbablyRejected { .. }
        | Disconnect::Requested
        | Disconnect::Silent(_)
        | Disconnect::AckTimeout(_)
        | Disconnect::Violation(_)
        | Disconnect::Connect(_)
        | Disconnect::NoSubprotocol { .. }
        | Disconnect::Credentials(_) => None,
    }
}
