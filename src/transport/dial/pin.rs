//! Pins: which keys a server may have. They are checked after all other checks of its certificate.

use std::{fmt, str::FromStr, sync::Arc};

use data_encoding::BASE64;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    SupportedCipherSuite,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider,
        hash::{Hash, HashAlgorithm},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::{Certificates, tls::provider};
use crate::error::BuildError;

/// The SHA-256 of a server's public key (of its `SubjectPublicKeyInfo`), for
/// [`Tls::pin`](crate::Tls::pin).
///
/// It is parsed and printed in the form of curl's `--pinnedpubkey`, `sha256//` and base64:
///
/// ```
/// let pin: resub::Pin = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse()?;
/// assert_eq!(pin.to_string(), "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
/// # Ok::<_, resub::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    docsrs,
    doc(cfg(any(
        feature = "ring",
        feature = "aws-lc-rs",
        feature = "platform-roots",
        feature = "webpki-roots"
    )))
)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Returns the pin of the server that has this certificate. Of a chain, that is the first one.
    ///
    /// # Errors
    ///
    /// [`BuildError::Certificates`] if a server cannot have the certificate, and
    /// [`BuildError::Tls`] if there is no crypto provider with SHA-256.
    pub fn of(certificates: &Certificates) -> Result<Self, BuildError> {
        let hash = sha256(&*provider()?)?;
        let [leaf, ..] = certificates.der() else {
            return Err(BuildError::Certificates("there is none"));
        };
        Self::of_leaf(leaf, hash).map_err(|_| BuildError::Certificates("its version is not 3"))
    }

    fn of_leaf(leaf: &CertificateDer<'_>, sha256: &dyn Hash) -> Result<Self, Error> {
        let key = ParsedCertificate::try_from(leaf)?.subject_public_key_info();
        let mut pin = [0; 32];
        pin.copy_from_slice(sha256.hash(&key).as_ref());
        Ok(Self(pin))
    }
}

impl FromStr for Pin {
    type Err = BuildError;

    /// # Errors
    ///
    /// [`BuildError::Pin`].
    fn from_str(text: &str) -> Result<Self, BuildError> {
        let digest =
            text.strip_prefix(PREFIX).and_then(|base64| BASE64.decode(base64.as_bytes()).ok());
        digest.and_then(|digest| digest.try_into().ok()).map(Self).ok_or(BuildError::Pin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode_display(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Verifies a certificate with another verifier first, and then checks the pins.
pub(super) struct PinnedVerifier {
    inner: Arc<dyn ServerCertVerifier>,
    pins: Vec<Pin>,
    sha256: &'static dyn Hash,
}

impl PinnedVerifier {
    pub(super) fn new(
        inner: Arc<dyn ServerCertVerifier>,
        pins: Vec<Pin>,
        provider: &CryptoProvider,
    ) -> Result<Self, BuildError> {
        Ok(Self { inner, pins, sha256: sha256(provider)? })
    }
}

impl fmt::Debug for PinnedVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedVerifier")
            .field("inner", &self.inner)
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        let found = Pin::of_leaf(leaf, self.sha256)?;
        if self.pins.contains(&found) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Mismatch(
            found,
        ))))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inner.root_hint_subjects()
    }
}

/// The error of [`PinnedVerifier`], which rustls passes on.
#[derive(Debug, thiserror::Error)]
#[error("the server's key is not one that is pinned: it is {0}")]
pub(super) struct Mismatch(pub(super) Pin);

/// Returns the SHA-256 of the crypto provider, taken from a cipher suite. This saves a crate for
/// hashing.
fn sha256(provider: &CryptoProvider) -> Result<&'static dyn Hash, BuildError> {
    let hashes = provider.cipher_suites.iter().map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
    });
    let mut sha256 = hashes.filter(|hash| hash.algorithm() == HashAlgorithm::SHA256);
    sha256.next().ok_or_else(|| super::tls::unavailable("the crypto provider has no SHA-256"))
}

const PREFIX: &str = "sha256//";
