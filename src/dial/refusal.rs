//! Why a TLS handshake was refused, by either side.

use std::{io, sync::Arc};

use rustls::{AlertDescription, CertificateError, Error};

use super::pin::Mismatch;
use crate::error::DialError;

/// What an error says about certificates, if anything, else `otherwise`.
pub(super) fn classify(error: io::Error, otherwise: fn(Arc<io::Error>) -> DialError) -> DialError {
    let error = Arc::new(error);
    let refused = match tls(&error) {
        Some(Error::InvalidCertificate(flaw)) => by_client(flaw),
        Some(Error::NoCertificatesPresented) => Refused::As(DialError::Certificate),
        Some(Error::AlertReceived(alert)) => by_server(*alert),
        _ => Refused::Not,
    };
    match refused {
        Refused::As(variant) => variant(error),
        Refused::Pin(found) => DialError::PinMismatch { found },
        Refused::Not => otherwise(error),
    }
}

/// Whether the peer sent the alert that has many causes.
pub(super) fn is_handshake_failure(error: &io::Error) -> bool {
    matches!(tls(error), Some(Error::AlertReceived(AlertDescription::HandshakeFailure)))
}

enum Refused {
    As(fn(Arc<io::Error>) -> DialError),
    Pin(String),
    Not,
}

fn by_client(flaw: &CertificateError) -> Refused {
    match flaw {
        CertificateError::UnknownIssuer => Refused::As(DialError::UnknownIssuer),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Refused::As(DialError::Expired),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Refused::As(DialError::NotYetValid)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Refused::As(DialError::WrongName)
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<Mismatch>() {
            Some(Mismatch(found)) => Refused::Pin(found.to_string()),
            None => Refused::As(DialError::Certificate),
        },
        _ => Refused::As(DialError::Certificate),
    }
}

/// RFC 8446 section 6.2: a server has one certificate to complain about, the client's.
fn by_server(alert: AlertDescription) -> Refused {
    match alert {
        AlertDescription::CertificateRequired => Refused::As(DialError::ClientCertificateRequired),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => Refused::As(DialError::ClientCertificateRefused),
        _ => Refused::Not,
    }
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}
