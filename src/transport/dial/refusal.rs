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

/// The same, of a client without a certificate that was asked for one. TLS 1.2 has no word for
/// that: OpenSSL sends the alert that has many causes.
pub(super) fn of_one_without_certificate(error: io::Error) -> DialError {
    if matches!(tls(&error), Some(Error::AlertReceived(AlertDescription::HandshakeFailure))) {
        return DialError::ClientCertificateRequired(Arc::new(error));
    }
    classify(error, DialError::Tls)
}

enum Refused {
    As(fn(Arc<io::Error>) -> DialError),
    Pin(String),
    Not,
}

fn by_client(flaw: &CertificateError) -> Refused {
    match flaw {
        CertificateError::UnknownIssuer => Refused::As(DialError::UnknownIssuer),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Refused::As(DialError::Expired)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(alert: AlertDescription) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, Error::AlertReceived(alert))
    }

    #[test]
    fn a_handshake_failure_is_about_the_certificate_if_one_was_asked_for_and_there_is_none() {
        let failure = || alert(AlertDescription::HandshakeFailure);
        assert!(matches!(
            of_one_without_certificate(failure()),
            DialError::ClientCertificateRequired(_)
        ));
        assert!(matches!(classify(failure(), DialError::Tls), DialError::Tls(_)));
        let other = alert(AlertDescription::ProtocolVersion);
        assert!(matches!(of_one_without_certificate(other), DialError::Tls(_)));
    }

    #[test]
    fn what_says_nothing_of_certificates_stays_what_it_is() {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(matches!(classify(reset(), DialError::Connect), DialError::Connect(_)));
        assert!(matches!(classify(reset(), DialError::Tls), DialError::Tls(_)));
        assert!(matches!(
            classify(alert(AlertDescription::InternalError), DialError::Tls),
            DialError::Tls(_)
        ));
    }

    #[test]
    fn what_a_server_says_of_a_certificate_is_about_the_clients() {
        for said in [
            AlertDescription::BadCertificate,
            AlertDescription::CertificateExpired,
            AlertDescription::CertificateRevoked,
            AlertDescription::UnknownCA,
            AlertDescription::AccessDenied,
        ] {
            let error = classify(alert(said), DialError::Connect);
            assert!(matches!(error, DialError::ClientCertificateRefused(_)), "{error:?}");
        }
    }
}
