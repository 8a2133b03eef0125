//! What an endpoint says while it is down.

use std::{io, sync::Arc};

use fastrand::Rng;

use super::*;
use crate::error::{DialError, UpgradeError};

/// How one attempt fails.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// There is no socket.
    Dial(Disconnect),
    /// Nothing comes instead of a socket.
    NoAnswer,
    /// `connection_init` is answered with this.
    BeforeAcknowledgement(Disconnect),
    /// `connection_init` is answered with `connection_error`.
    ConnectionError,
    /// `connection_init` is not answered.
    NoAcknowledgement,
    /// The connection is lost so long after the acknowledgement.
    AfterAcknowledgement(Duration, Disconnect),
    /// Nothing comes after the acknowledgement.
    Silence,
}

impl Refusal {
    pub(super) fn random(rng: &mut Rng) -> Self {
        match rng.u8(..12) {
            0..3 => Self::Dial(Disconnect::Connect(refused(status(rng)))),
            3..5 => Self::Dial(Disconnect::Connect(handshake(rng))),
            5 => Self::NoAnswer,
            6 | 7 => Self::BeforeAcknowledgement(close(rng)),
            8 => Self::ConnectionError,
            9 => Self::NoAcknowledgement,
            10 => Self::AfterAcknowledgement(Duration::from_millis(rng.u64(..8_000)), close(rng)),
            _ => Self::Silence,
        }
    }
}

fn status(rng: &mut Rng) -> u16 {
    const STATUSES: [u16; 25] = [
        200, 204, 301, 302, 307, 308, 400, 401, 403, 404, 405, 408, 410, 421, 425, 426, 429, 460,
        464, 499, 500, 502, 503, 504, 530,
    ];
    if rng.u8(..5) == 0 { rng.u16(200..600) } else { STATUSES[rng.usize(..STATUSES.len())] }
}

/// TLS, name resolution, and the upgrade.
fn handshake(rng: &mut Rng) -> ConnectError {
    let error = Arc::new(io::Error::from(io::ErrorKind::InvalidData));
    let errors = [
        DialError::Resolve { host: "h".into(), source: Arc::clone(&error) },
        DialError::Connect(Arc::clone(&error)),
        DialError::Tls(Arc::clone(&error)),
        DialError::UnknownIssuer(Arc::clone(&error)),
        DialError::Expired(Arc::clone(&error)),
        DialError::NotYetValid(Arc::clone(&error)),
        DialError::WrongName(Arc::clone(&error)),
        DialError::PinMismatch { found: String::new() },
        DialError::Certificate(error),
    ];
    let others = [
        ConnectError::Subprotocol { offered: "" },
        ConnectError::Redirected { status: 302, to: String::new() },
        ConnectError::Upgrade(UpgradeError::NotHttp),
    ];
    let index = rng.usize(..errors.len() + others.len());
    let dials = errors.into_iter().map(ConnectError::Dial);
    dials.chain(others).nth(index).unwrap()
}

/// Any close code, valid or not, and frames that are none. But not 1009: the operation is to blame
/// for that, and not the endpoint (rule 22).
pub(super) fn close(rng: &mut Rng) -> Disconnect {
    const CODES: [u16; 29] = [
        0, 999, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1010, 1011, 1012, 1013, 1014, 1015,
        3000, 3008, 4004, 4005, 4400, 4401, 4403, 4406, 4408, 4409, 4429, 4500, 4504,
    ];
    match rng.u8(..10) {
        0 => Disconnect::WebSocket("control frame too big".into()),
        1 => Disconnect::Reset(None),
        2 => closed(rng.u16(1_010..5_000)),
        3.. => closed(CODES[rng.usize(..CODES.len())]),
    }
}
