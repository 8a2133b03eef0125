//! Classifies errors of TLS: which side refused the other's certificate, and why.

use std::{io, sync::Arc};

use rustls::{AlertDescription, CertificateError, Error};

use super::pin::Mismatch;
use crate::error::DialError;

/// Turns an error into the [`DialError`] that says what is wrong with a certificate, or into
/// `otherwise` if it is not about certificates.
pub(super) fn classify(error: io::Error, otherwise: fn(Arc<io::Error>) -> DialError) -> DialError {
    let error = Arc::new(error);
    let class = match tls(&error) {
        Some(Error::InvalidCertificate(flaw)) => class_of_server_certificate(flaw),
        Some(Error::NoCertificatesPresented) => Class::As(DialError::Certificate),
        Some(Error::AlertReceived(alert)) => class_of_alert(*alert),
        _ => Class::Other,
    };
    match class {
        Class::As(variant) => variant(error),
        Class::Pin(found) => DialError::PinMismatch { found },
        Class::Other => otherwise(error),
    }
}

/// Like [`classify`], for a client that has no certificate although the server asked for one. TLS
/// 1.2 has no alert for that: OpenSSL sends `handshake_failure`, which has many other causes.
pub(super) fn classify_without_certificate(error: io::Error) -> DialError {
    if matches!(tls(&error), Some(Error::AlertReceived(AlertDescription::HandshakeFailure))) {
        return DialError::ClientCertificateRequired(Arc::new(error));
    }
    classify(error, DialError::Tls)
}

/// What an error is about.
enum Class {
    As(fn(Arc<io::Error>) -> DialError),
    Pin(String),
    Other,
}

fn class_of_server_certificate(flaw: &CertificateError) -> Class {
    match flaw {
        CertificateError::UnknownIssuer => Class::As(DialError::UnknownIssuer),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Class::As(DialError::Expired)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Class::As(DialError::NotYetValid)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Class::As(DialError::WrongName)
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<Mismatch>() {
            Some(Mismatch(found)) => Class::Pin(found.to_string()),
            None => Class::As(DialError::Certificate),
        },
        _ => Class::As(DialError::Certificate),
    }
}

/// Classifies the alert of a server (RFC 8446 section 6.2). The only certificate that a server can
/// object to is the client's.
fn class_of_alert(alert: AlertDescription) -> Class {
    match alert {
        AlertDescription::CertificateRequired => Class::As(DialError::ClientCertificateRequired),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => Class::As(DialError::ClientCertificateRefused),
        _ => Class::Other,
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
    fn a_handshake_failure_means_a_missing_certificate_if_the_server_asked_for_one() {
        let failure = || alert(AlertDescription::HandshakeFailure);
        assert!(matches!(
            classify_without_certificate(failure()),
            DialError::ClientCertificateRequired(_)
        ));
        assert!(matches!(classify(failure(), DialError::Tls), DialError::Tls(_)));
        let other = alert(AlertDescription::ProtocolVersion);
        assert!(matches!(classify_without_certificate(other), DialError::Tls(_)));
    }

    #[test]
    fn an_error_that_is_not_about_certificates_is_passed_on() {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(matches!(classify(reset(), DialError::Connect), DialError::Connect(_)));
        assert!(matches!(classify(reset(), DialError::Tls), DialError::Tls(_)));
        assert!(matches!(
            classify(alert(AlertDescription::InternalError), DialError::Tls),
            DialError::Tls(_)
        ));
    }

    #[test]
    fn an_alert_about_a_certificate_means_the_clients_certificate() {
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
