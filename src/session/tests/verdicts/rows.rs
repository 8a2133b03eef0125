//! The table itself: what is seen, at which stage, and what follows from it for an endpoint that
//! never acknowledged and for one that did.

use std::{collections::BTreeSet, io, ops::RangeInclusive, sync::Arc};

use super::*;
use crate::error::{CredentialsError, DialError, UpgradeError, Violation};

/// What follows when the same is seen again and again.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Then {
    /// Backoff, then another attempt.
    Retry,
    /// The same, and no sooner than after so many seconds.
    RetryNoSooner(u64),
    /// One more attempt, with backoff; the second time in a row is fatal.
    RetryOnce,
    /// The provider is asked at once for something better; the second time in a row is fatal.
    AskOnce,
    /// The provider is asked for something better after a backoff; the third time in a row is
    /// fatal.
    AskTwice,
    /// The provider is asked at once, and then each time after a backoff, until the grace is over.
    AskForGrace,
    /// Backoff, then another attempt, until the grace is over.
    RetryForGrace,
    Fatal,
}

/// One row of the table.
pub(super) struct Row {
    pub(super) causes: Vec<Disconnect>,
    pub(super) stages: &'static [Stage],
    pub(super) unproven: Then,
    pub(super) proven: Then,
}

/// Every row, with each close code and each HTTP status in one of them.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = named_rows();
    let opening = others(&rows, Stage::Opening, 0..=5_000, closed);
    let open = others(&rows, Stage::Open, 0..=5_000, closed);
    let server_errors = others(&rows, Stage::Opening, 500..=599, http);
    let other_statuses = others(&rows, Stage::Opening, 100..=499, http);
    rows.extend([
        row(OPENING, opening, Then::Retry, Then::Retry),
        row(OPEN, open, Then::Retry, Then::Retry),
        row(OPENING, server_errors, Then::Retry, Then::Retry),
        row(OPENING, other_statuses, Then::Fatal, Then::RetryForGrace),
    ]);
    rows
}

fn row(stages: &'static [Stage], causes: Vec<Disconnect>, unproven: Then, proven: Then) -> Row {
    Row { causes, stages, unproven, proven }
}

/// The rows without the codes and the statuses that have no meaning of their own.
pub(super) fn named_rows() -> Vec<Row> {
    let (retry, fatal) = (Then::Retry, Then::Fatal);
    let (ask_for_grace, retry_for_grace) = (Then::AskForGrace, Then::RetryForGrace);
    vec![
        // A restart, or a crash.
        row(OPEN, codes(&[1000]), retry, retry),
        row(BOTH, codes(&[1001, 1005, 1006, 1012, 1014, 4500]), retry, retry),
        row(OPEN, codes(&[1011]), retry, retry),
        row(BOTH, vec![Disconnect::Reset(None), Disconnect::Reset(Some(error()))], retry, retry),
        // Codes that may not be sent, and frames that are none.
        row(BOTH, codes(&[0, 999, 1004, 1015, 1016, 2999, 5000, u16::MAX]), retry, retry),
        row(
            BOTH,
            [None, Some(1005), Some(7)].map(|code| Disconnect::InvalidCloseFrame { code }).into(),
            retry,
            retry,
        ),
        row(BOTH, vec![Disconnect::WebSocket("control frame too big".into())], retry, retry),
        row(BOTH, codes(&[1013, 4429]), Then::RetryNoSooner(5), Then::RetryNoSooner(5)),
        row(BOTH, codes(&[3008, 4408, 4504]), retry, retry),
        row(OPENING, vec![Disconnect::AckTimeout(secs(10))], retry, retry),
        row(OPEN, vec![Disconnect::Silent(secs(10))], retry, retry),
        row(BOTH, codes(&[3001, 3999, 4000, 4410, 4999]), retry, retry),
        // Credentials.
        row(BOTH, codes(&[1008, 3000, 4401, 4403]), Then::AskOnce, ask_for_grace),
        row(OPENING, vec![http(401), http(403)], Then::AskOnce, ask_for_grace),
        row(
            OPENING,
            vec![Disconnect::Refused { message: "no".into() }],
            Then::AskOnce,
            ask_for_grace,
        ),
        row(OPENING, codes(&[1000, 1002, 1011]), Then::AskTwice, ask_for_grace),
        // The provider's own failure, and its last word.
        row(OPENING, vec![credentials(CredentialsError::transient("later"))], retry, retry),
        row(OPENING, vec![credentials(CredentialsError::fatal("never"))], fatal, fatal),
        // What another attempt does not change, unless the endpoint is being deployed.
        row(OPEN, codes(&[1002]), fatal, retry_for_grace),
        row(BOTH, codes(&[1003, 1007, 1010, 4400, 4004, 4005, 4406]), fatal, retry_for_grace),
        // The application has asked for strictness.
        row(BOTH, vec![Disconnect::Violation(Violation::Unreadable)], fatal, fatal),
        row(
            OPENING,
            vec![Disconnect::Violation(Violation::BeforeAck("next"))],
            fatal,
            retry_for_grace,
        ),
        row(OPENING, codes(&[1009]), fatal, retry_for_grace),
        row(OPENING, vec![Disconnect::MessageTooBig { limit: 1 }], fatal, retry_for_grace),
        // The only operation is to blame, and not the endpoint (rule 22).
        row(OPEN, codes(&[1009]), fatal, fatal),
        row(OPEN, vec![Disconnect::MessageTooBig { limit: 1 }], fatal, fatal),
        row(BOTH, codes(&[4409]), Then::RetryOnce, retry),
        // The upgrade.
        row(OPENING, [408, 425, 429, 500, 502, 503, 504, 599].map(http).into(), retry, retry),
        row(
            OPENING,
            [429, 503].map(http_later).into(),
            Then::RetryNoSooner(120),
            Then::RetryNoSooner(120),
        ),
        row(
            OPENING,
            [200, 204, 301, 302, 307, 308, 400, 404, 405, 410, 421, 426, 460, 464, 499]
                .map(http)
                .into(),
            fatal,
            retry_for_grace,
        ),
        row(
            OPENING,
            [
                ConnectError::Redirected { status: 302, to: String::new() },
                ConnectError::Subprotocol { offered: "" },
                ConnectError::Upgrade(UpgradeError::NotHttp),
            ]
            .map(Disconnect::Connect)
            .into(),
            fatal,
            retry_for_grace,
        ),
        // The way there.
        row(
            OPENING,
            [
                DialError::Resolve { host: "h".into(), source: error() },
                DialError::Connect(error()),
                DialError::Tls(error()),
                DialError::Other(error()),
                DialError::ProxyFailed { reason: String::new() },
            ]
            .map(dial)
            .into(),
            retry,
            retry,
        ),
        row(OPENING, vec![Disconnect::Connect(ConnectError::Timeout(secs(10)))], retry, retry),
        row(OPENING, certificates_and_proxies(), fatal, retry_for_grace),
        // The application's own dialer says so.
        row(OPENING, vec![dial(DialError::Permanent(error()))], fatal, fatal),
    ]
}

/// Those of the causes with these numbers that no row has at this stage.
fn others(
    rows: &[Row],
    stage: Stage,
    numbers: RangeInclusive<u16>,
    cause: impl Fn(u16) -> Disconnect,
) -> Vec<Disconnect> {
    let named: BTreeSet<String> = rows
        .iter()
        .filter(|row| row.stages.contains(&stage))
        .flat_map(|row| row.causes.iter().map(Disconnect::to_string))
        .collect();
    numbers.map(cause).filter(|cause| !named.contains(&cause.to_string())).collect()
}

const OPENING: &[Stage] = &[Stage::Opening];
const OPEN: &[Stage] = &[Stage::Open];
const BOTH: &[Stage] = &[Stage::Opening, Stage::Open];

fn codes(codes: &[u16]) -> Vec<Disconnect> {
    codes.iter().map(|code| closed(*code)).collect()
}

fn http(status: u16) -> Disconnect {
    Disconnect::Connect(refused(status))
}

fn http_later(status: u16) -> Disconnect {
    Disconnect::Connect(ConnectError::Http {
        status,
        retry_after: Some(secs(120)),
        headers: ResponseHeaders::default(),
        body: String::new(),
    })
}

fn certificates_and_proxies() -> Vec<Disconnect> {
    let errors = [
        DialError::UnknownIssuer(error()),
        DialError::Expired(error()),
        DialError::NotYetValid(error()),
        DialError::WrongName(error()),
        DialError::PinMismatch { found: String::new() },
        DialError::Certificate(error()),
        DialError::ClientCertificateRequired(error()),
        DialError::ClientCertificateRefused(error()),
        DialError::ProxyRefused { reason: String::new() },
        DialError::ProxyAuthRequired,
    ];
    errors.map(dial).into()
}

fn dial(error: DialError) -> Disconnect {
    Disconnect::Connect(ConnectError::Dial(error))
}

fn credentials(error: CredentialsError) -> Disconnect {
    Disconnect::Credentials(error)
}

fn error() -> Arc<io::Error> {
    Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused))
}
